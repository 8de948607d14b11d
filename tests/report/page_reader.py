"""Reads pages back, tables cell by cell, headings, text and charts, and points at things in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from playwright.sync_api import Locator

_SILENT = ("script", "style", "title")
_EMPTY = ("br", "hr", "img", "input", "link", "meta")


class PageReader(HTMLParser):
    """What a page says: ``tables`` as rows of cell texts, ``headings`` of h1 to h4, ``svgs`` parsed as XML, ``tags``
    with their attributes in order. Elements that are not closed in order fail an assertion."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.open_tags: list[str] = []
        self.svgs = [ElementTree.fromstring(found) for found in re.findall(r"<svg .*?</svg>", text, re.DOTALL)]
        self.feed(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self.open_tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif re.fullmatch(r"h[1-4]", tag):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags and self.open_tags[-1] == tag, (tag, self.open_tags[-3:])
        self.open_tags.pop()

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] in ("script", "style"):
            self.scripts.append(data)
        if any(tag in _SILENT for tag in self.open_tags):
            return
        self.words.append(data)
        if any(tag in ("td", "th") for tag in self.open_tags):
            self.tables[-1][-1][-1] += data
        if any(re.fullmatch(r"h[1-4]", tag) for tag in self.open_tags):
            self.headings[-1] += data


def circles(svg: ElementTree.Element) -> list[tuple[float, float]]:
    """The centres of the points of a chart, in the order drawn."""
    found = [one.attrib for one in svg.iter() if one.tag.endswith("circle")]
    return [(float(attributes["cx"]), float(attributes["cy"])) for attributes in found]


def shapes(svg: ElementTree.Element, name: str) -> list[dict[str, str]]:
    """The attributes of the elements of a CSS class."""
    return [one.attrib for one in svg.iter() if name in one.attrib.get("class", "").split()]


_TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def point_at(place: Locator) -> None:
    """Brings a place into view, waits until the page no longer scrolls, which would hide what the pointer reads, and
    moves the pointer there."""
    place.scroll_into_view_if_needed()
    place.page.evaluate(_TWO_FRAMES)
    place.hover(force=True)
