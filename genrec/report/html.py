"""Pages that stand alone: elements with escaped text, tables, and the frame with style and script inlined.

A page asks nothing of the network and says so in its content security policy; it can be read without its script.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from genrec.report.scales import MISSING, format_number

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_EMPTY_TAGS = {"br", "circle", "hr", "img", "input", "line", "link", "meta", "path", "polyline", "rect"}
LONG_TABLE = 14  # rows from which a table scrolls in its own box and can be filtered
NARROW_TABLE = 4  # columns below which a table is as wide as it needs to be


class Markup(str):
    """A string that is HTML or SVG already; every other string is escaped by the functions below."""

    def __add__(self, other: str) -> Markup:
        return Markup(str.__add__(self, escape(other)))


@dataclass(frozen=True)
class Section:
    """A part of a page with its own heading. ``id`` is its anchor, by default made of the title; ``note`` is a line
    that says how to read it."""

    title: str
    body: Markup
    id: str = ""
    note: str = ""

    @property
    def anchor(self) -> str:
        return self.id or "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Cell:
    """A table cell that shows ``content`` and sorts by ``value``; ``classes`` are CSS classes."""

    content: object
    value: float | str | None = None
    classes: str = ""


def escape(text: object) -> Markup:
    """Text as HTML that shows it; a ``Markup`` is returned as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text), quote=True))


def join(parts: Sequence[object]) -> Markup:
    """The parts one after the other, each escaped unless it is markup; None is left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """``<tag attributes>children</tag>``. In attribute names a trailing ``_`` is dropped and ``_`` becomes ``-``; one
    of None or False is left out, one of True has no value. Floats are written with two decimals."""
    words = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _EMPTY_TAGS and not children:
        return Markup(f"<{tag}{words}/>")
    return Markup(f"<{tag}{words}>{join(children)}</{tag}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if isinstance(value, float):
        value = f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}=""' if value is True else f' {name}="{html.escape(str(value), quote=True)}"'


def table(
    head: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    sortable: bool = True,
    highlight: Callable[[int, int], bool | str] | None = None,
    classes: str = "",
    links: Sequence[str] | None = None,
) -> Markup:
    """A table in a box of its own that scrolls sideways where it must.

    Cells are text, numbers (right-aligned; ``format_number``), None (a dash), ``Markup`` or ``Cell``. ``highlight(row,
    column)`` says of a cell whether it is the best (True) or names its CSS class; both count from 0. The first column
    heads its row. Columns of numbers are recognised by their cells. ``links`` name for each row what lights up with it.
    """
    numeric = [_is_numeric(rows, column) for column in range(len(head))]
    header = element("tr", *(_head_cell(name, numeric[i], sortable) for i, name in enumerate(head)))
    body = [
        element(
            "tr",
            *(_cell(cell, numeric[j], j == 0, highlight(i, j) if highlight else False) for j, cell in enumerate(row)),
            data_link=links[i] if links else None,
        )
        for i, row in enumerate(rows)
    ]
    long = len(rows) > LONG_TABLE
    inner = element(
        "table",
        element("thead", header),
        element("tbody", *body),
        class_=" ".join(filter(None, [classes, "sortable" if sortable else "", "long" if long else ""])) or None,
    )
    box = ["scroll", *["tall"] * long, *["narrow"] * (len(head) < NARROW_TABLE)]
    return element("div", inner, class_=" ".join(box), tabindex=0, role="region", aria_label="table")


def _is_numeric(rows: Sequence[Sequence[object]], column: int) -> bool:
    values = [row[column] for row in rows if column < len(row)]
    values = [cell.value if isinstance(cell, Cell) and cell.value is not None else cell for cell in values]
    known = [value for value in values if value is not None and value != "" and value != MISSING]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _head_cell(name: object, numeric: bool, sortable: bool) -> Markup:
    content = element("button", name, type="button") if sortable else name
    return element("th", content, scope="col", class_="number" if numeric else None)


def _cell(cell: object, numeric: bool, first: bool, mark: bool | str) -> Markup:
    content, value, classes = (cell.content, cell.value, cell.classes) if isinstance(cell, Cell) else (cell, None, "")
    if value is None and isinstance(content, int | float) and not isinstance(content, bool):
        value = content
    if isinstance(content, float) or content is None or (isinstance(content, int) and not isinstance(content, bool)):
        content = format_number(content)
    named = "best" if mark is True else mark or ""
    return element(
        "th" if first else "td",
        content,
        scope="row" if first else None,
        class_=" ".join(filter(None, ["number" if numeric else "", named, classes])) or None,
        data_value=f"{value:.10g}" if isinstance(value, float) else value,
    )


def definition_list(entries: Mapping[str, object]) -> Markup:
    """Names and what they are, two columns where there is room; entries of None are left out."""
    pairs = [
        element("div", element("dt", name), element("dd", _text(value)))
        for name, value in entries.items()
        if value is not None
    ]
    return element("dl", *pairs, class_="facts")


def tiles(entries: Sequence[tuple[str, object, str]]) -> Markup:
    """The numbers one looks at first, large: ``(name, value, a small remark or "")``."""
    parts = [
        element(
            "div",
            element("span", name, class_="name"),
            element("span", _text(value), class_="value"),
            element("span", remark, class_="remark") if remark else None,
            class_="tile",
        )
        for name, value, remark in entries
    ]
    return element("div", *parts, class_="tiles")


def _text(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_number(value) if number else value  # type: ignore[arg-type]


def details(summary: object, body: Markup, *, open_: bool = False) -> Markup:
    """A part that is folded away until asked for, or printed."""
    return element("details", element("summary", summary), element("div", body, class_="folded"), open=open_)


def code(text: str, *, copy: bool = True) -> Markup:
    """A block of code, with a button that copies it where the script runs."""
    return element("div", element("pre", element("code", text)), class_="code", data_copy=copy)


def inline_code(text: object) -> Markup:
    return element("code", text)


def badge(text: str, kind: str = "") -> Markup:
    """A small label; ``kind`` is one of good, bad, warn, busy or empty."""
    return element("span", text, class_=f"badge {kind}".strip())


def banner(title: str, body: object = "", kind: str = "bad") -> Markup:
    """A box that cannot be overlooked, such as the error of a failed run."""
    return element("div", element("strong", title), element("div", body) if body else None, class_=f"banner {kind}",
                   role="status")  # fmt: skip


def grid(*parts: object, wide: bool = False) -> Markup:
    """Parts side by side where there is room, three and more in a row unless ``wide``."""
    return element("div", *parts, class_="grid wide" if wide else "grid")


def paragraph(text: object, *, quiet: bool = False) -> Markup:
    return element("p", text, class_="quiet" if quiet else None)


def page(
    title: str, sections: Sequence[Section], *, subtitle: object = "", facts: Mapping[str, Any] | None = None
) -> str:
    """A whole self-contained page: heading, facts, a row of links to the sections, then the sections."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content="genrec"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Markup(_asset("page.css"))),
    )
    header = element(
        "header",
        element("h1", title),
        element("div", subtitle, class_="subtitle") if subtitle else None,
        definition_list(facts) if facts else None,
    )
    body = element(
        "body",
        _bar(sections),
        element("main", header, *(_section(section) for section in sections)),
        element("div", id="tip", role="tooltip", hidden=True),
        element("script", Markup(_asset("page.js"))),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _bar(sections: Sequence[Section]) -> Markup:
    links = [element("a", section.title, href=f"#{section.anchor}") for section in sections if section.title]
    return element("nav", element("a", "genrec", href="#", class_="brand"), element("div", *links, class_="links"),
                   aria_label="sections")  # fmt: skip


def _section(section: Section) -> Markup:
    return element(
        "section",
        element("h2", section.title) if section.title else None,
        element("p", section.note, class_="note") if section.note else None,
        section.body,
        id=section.anchor or None,
    )


@cache
def _asset(name: str) -> str:
    """The style or the script; neither may hold the end tag of its own element."""
    return resources.files("genrec.report").joinpath(name).read_text(encoding="utf-8")
