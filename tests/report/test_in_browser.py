"""The pages in a real browser: drawn, sortable, in the dark, on a phone, on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec.report.run_page import write_run_page
from tests.report.conftest import Opened
from tests.report.page_reader import point_at
from tests.report.whole_runs import make_ranking_run, make_retrieval_run

Open = Callable[..., Opened]

# Every chart with the size of its box and of the largest shape drawn in it.
_CHARTS = """[...document.querySelectorAll("svg.chart")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const drawn = [...svg.querySelectorAll(".series path, .series rect, rect.cell, circle")]
    .map((shape) => shape.getBoundingClientRect())
    .filter((shape) => shape.width + shape.height > 4);
  const outside = drawn.filter((shape) => shape.left < box.left - 2 || shape.right > box.right + 2
    || shape.top < box.top - 2 || shape.bottom > box.bottom + 2);
  return {name: svg.getAttribute("aria-label"), width: box.width, height: box.height, drawn: drawn.length,
          outside: outside.length, folded: svg.closest("details:not([open])") !== null};
})"""
# Labels of a chart that lie on one another.
_OVERLAPS = """[...document.querySelectorAll("svg.chart")].flatMap((svg) => {
  const labels = [...svg.querySelectorAll("text")].map((label) => [label.textContent, label.getBoundingClientRect()])
    .filter(([, box]) => box.width > 0);
  const found = [];
  labels.forEach(([one, a], place) => labels.slice(place + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    const covered = wide > 1 && high > 0.35 * Math.min(a.height, b.height);
    if (covered) found.push([svg.getAttribute("aria-label"), one, other]);
  }));
  return found;
})"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    made = {"retrieval": make_retrieval_run(root / "a"), "ranking": make_ranking_run(root / "b")}
    return {name: write_run_page(folder) for name, folder in made.items()}


@pytest.mark.parametrize("name", ["retrieval", "ranking"])
def test_opens_from_disk_and_draws_every_chart(browser_page: Open, pages: dict[str, Path], name: str) -> None:
    opened = browser_page(pages[name])
    charts = opened.page.evaluate(_CHARTS)
    assert len(charts) >= 8
    for chart in charts:
        if not chart["folded"]:
            assert chart["width"] > 250 and chart["height"] > 60, chart
            assert chart["drawn"] > 0 and chart["outside"] == 0, chart
    assert opened.faults == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


def test_a_script_in_a_title_is_text(browser_page: Open, pages: dict[str, Path]) -> None:
    opened = browser_page(pages["retrieval"])
    assert opened.page.title() == "tiger on synthetic"
    assert opened.page.locator(".card li", has_text="<script>").count() > 0


def test_a_click_on_a_heading_sorts(browser_page: Open, pages: dict[str, Path]) -> None:
    page = browser_page(pages["retrieval"]).page
    table = page.locator("#results table").first
    heading = table.locator("thead th").nth(2)

    def order() -> list[str]:
        return table.locator("tbody tr > :nth-child(3)").all_text_contents()

    def numbers() -> list[float]:
        return [float(text) for text in order() if text != "-"]

    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert numbers() == sorted(numbers(), reverse=True) and len(numbers()) >= 3
    assert "-" not in order()[: len(numbers())]  # what is missing comes last
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(numbers())


def test_long_tables_are_filtered(browser_page: Open, pages: dict[str, Path]) -> None:
    page = browser_page(pages["retrieval"]).page
    page.locator("#results summary").click()
    rows = page.locator("#results details tbody tr")
    page.locator("#results details input[type=search]").fill("val recall")
    shown = [row for row in rows.all() if row.is_visible()]
    assert rows.count() > len(shown) > 0
    assert all("val/recall" in row.inner_text() for row in shown)


def test_the_dark_is_dark(browser_page: Open, pages: dict[str, Path]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser_page(pages["retrieval"], color_scheme="light").page
    dark = browser_page(pages["retrieval"], color_scheme="dark").page
    assert _lightness(light.evaluate(background)) > 230 > 50 > _lightness(dark.evaluate(background))
    line = "getComputedStyle(document.querySelector('#curves .series path')).stroke"
    assert light.evaluate(line) != dark.evaluate(line)
    light.locator("nav button").click()
    assert light.evaluate(background) == dark.evaluate(background)


def _lightness(colour: str) -> float:
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].replace(",", " ").split()[:3]]
    return sum(numbers) / 3


@pytest.mark.parametrize("name", ["retrieval", "ranking"])
def test_a_phone_needs_no_sideways_scrolling(browser_page: Open, pages: dict[str, Path], name: str) -> None:
    page = browser_page(pages[name], width=375, height=812).page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 375
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 375
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg.chart text')].map((t) => t.getBoundingClientRect().height)"
        ".filter((height) => height > 0))"
    )
    assert smallest > 8.5  # legible


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("name", ["retrieval", "ranking"])
def test_no_label_covers_another(browser_page: Open, pages: dict[str, Path], name: str, width: int) -> None:
    page = browser_page(pages[name], width=width).page
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate(_OVERLAPS) == []


def test_paper_shows_every_chart_and_what_is_folded(browser_page: Open, pages: dict[str, Path]) -> None:
    page = browser_page(pages["retrieval"], width=700).page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    charts = page.evaluate(_CHARTS)
    assert charts and all(chart["width"] > 150 and chart["drawn"] > 0 for chart in charts)
    assert page.locator("#config pre").is_visible()
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_pointing_at_a_curve_tells_its_numbers(browser_page: Open, pages: dict[str, Path]) -> None:
    page = browser_page(pages["retrieval"]).page
    point = page.locator("#curves svg.chart >> nth=0").locator(".point[data-x='7']").nth(1)
    point_at(point)
    told = page.locator("#tip").inner_text()
    assert "epoch 7" in told and "recall@10" in told and "0.3000" in told
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()


def test_a_series_can_be_left_out(browser_page: Open, pages: dict[str, Path]) -> None:
    page = browser_page(pages["retrieval"]).page
    figure = page.locator("#curves figure").first
    entry, line = figure.locator(".legend li").first, figure.locator(".series[data-series='0'] path").first
    assert line.is_visible()
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false" and not line.is_visible()
    entry.press("Enter")
    assert line.is_visible()


def test_the_page_can_be_read_without_its_script(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1000, "height": 800})
    try:
        page = context.new_page()
        page.goto(pages["retrieval"].resolve().as_uri())
        assert page.locator("#curves svg.chart .series path").first.is_visible()
        page.locator("#config summary").click()
        assert page.locator("#config pre").is_visible()
    finally:
        context.close()
