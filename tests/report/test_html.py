"""Pages stand alone, close their elements and escape whatever they are given."""

from __future__ import annotations

import re

import pytest

from genrec.report import html
from genrec.report.html import Cell, Markup, Section, element, page, table
from tests.report.page_reader import PageReader

EVIL = "<script>alert(1)</script>&\"'"


def test_text_is_escaped_and_markup_is_not() -> None:
    assert html.escape("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert html.escape(html.escape("<")) == "&lt;"
    assert element("p", "<", Markup("<b/>")) == "<p>&lt;<b/></p>"
    assert isinstance(Markup("<b/>") + "<", Markup) and Markup("<b/>") + "<" == "<b/>&lt;"


def test_attributes() -> None:
    made = element("a", "x", class_="c", data_value=0.123456, hidden=True, open=False, title=None, href='"><i>')
    assert made == '<a class="c" data-value="0.12" hidden="" href="&quot;&gt;&lt;i&gt;">x</a>'
    assert element("circle", cx=1.0) == '<circle cx="1"/>'


def test_nothing_that_is_given_runs() -> None:
    made = page(
        EVIL,
        [
            Section(EVIL, table([EVIL], [[EVIL], [Cell(EVIL, EVIL, EVIL)]]), note=EVIL),
            Section("b", html.join([html.details(EVIL, html.code(EVIL)), html.badge(EVIL, EVIL)])),
            Section("c", html.join([html.tiles([(EVIL, EVIL, EVIL)]), html.definition_list({EVIL: EVIL})])),
            Section("d", html.banner(EVIL, EVIL)),
        ],
        subtitle=EVIL,
        facts={EVIL: EVIL},
    )  # fmt: skip
    read = PageReader(made)
    assert len(read.attributes("script")) == 1  # the page's own
    assert read.text.count(EVIL) >= 14
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]


def test_a_page_asks_nothing_of_the_network() -> None:
    made = page("t", [Section("Some results", Markup("<p>x</p>"))])
    read = PageReader(made)
    addresses = [value for _, attributes in read.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses == ["data:,", "#", "#some-results"]
    assert not re.search(
        r"url\(|@import|https?://|//\w+\.\w+/", "".join(read.scripts).replace("http://www.w3.org/2000/svg", "")
    )
    policy = next(meta["content"] for meta in read.attributes("meta") if meta.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    assert read.open_tags == [] and made.startswith("<!doctype html>")


def test_style_and_script_do_not_end_their_own_element() -> None:
    read = PageReader(page("t", []))
    style, script = read.scripts
    assert "</" not in style and "</script" not in script and "<!--" not in script
    assert len(style) > 1000 and len(script) > 1000


def test_cells_show_four_digits_and_sort_by_their_value() -> None:
    made = table(
        ["model", "recall", "n", "share"], [["tiger", 0.39051234, 12101, Cell("59 %", 0.59)], ["x", None, 7, None]]
    )
    read = PageReader(made)
    assert read.tables == [
        [["model", "recall", "n", "share"], ["tiger", "0.3905", "12,101", "59 %"], ["x", "-", "7", "-"]]
    ]
    cells = [attributes for tag, attributes in read.tags if tag in ("td", "th")][4:8]
    assert [cell.get("data-value") for cell in cells] == [None, "0.39051234", "12101", "0.59"]
    assert [cell.get("class") for cell in cells] == [None, "number", "number", "number"]
    heads = [attributes for tag, attributes in read.tags if tag == "th"][:4]
    assert [head.get("class") for head in heads] == [None, "number", "number", "number"]


def test_highlights_and_links() -> None:
    def marked(row: int, column: int) -> bool | str:
        return "own" if row == 0 else column == 1

    read = PageReader(table(["a", "b"], [["x", 1], ["y", 2]], highlight=marked, links=["r0", "r1"]))
    cells = [attributes.get("class") for tag, attributes in read.tags if tag in ("td", "th")][2:]
    assert cells == ["own", "number own", None, "number best"]
    assert [row.get("data-link") for row in read.attributes("tr")] == [None, "r0", "r1"]


@pytest.mark.parametrize(("rows", "tall"), [(html.LONG_TABLE, False), (html.LONG_TABLE + 1, True)])
def test_long_tables_can_be_filtered(rows: int, tall: bool) -> None:
    made = table(["a"], [[row] for row in range(rows)])
    assert ("long" in made) is tall and ("tall" in made) is tall


def test_sections_without_a_title_are_not_linked() -> None:
    read = PageReader(page("t", [Section("", Markup(""), id="overview"), Section("Who, exactly?", Markup(""))]))
    assert [link["href"] for link in read.attributes("a")] == ["#", "#who-exactly"]
    assert [section["id"] for section in read.attributes("section")] == ["overview", "who-exactly"]
