"""Charts: well-formed drawings whose shapes stand where the numbers say."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from genrec.report.charts import Point, Series, bar_chart, heat_map, histogram, line_chart, scatter_chart
from genrec.report.html import Markup
from tests.report.page_reader import PageReader, circles, shapes

EVIL = 'a<b>&"c'


def drawing(figure: Markup) -> ElementTree.Element:
    (svg,) = PageReader(figure).svgs
    return svg


def paths(svg: ElementTree.Element) -> list[str]:
    return [one.attrib["d"] for one in svg.iter() if one.tag.endswith("path")]


CHARTS = {
    "line": line_chart([Series(EVIL, [0, 1], [1, 2], low=[0, 1], high=[2, 3], note=EVIL)], title=EVIL, x_label=EVIL,
                       y_label=EVIL, marks=[(1, EVIL)], note=EVIL),
    "bars": bar_chart([EVIL], {EVIL: [1.0], "b": [None]}, title=EVIL, errors={EVIL: [(0.5, 1.5)]}),
    "lying bars": bar_chart([EVIL], {EVIL: [1.0]}, title=EVIL, horizontal=True),
    "points": scatter_chart([Point(1, 2, EVIL, 3), Point(2, 3, EVIL, 4)], title=EVIL, x_label=EVIL, colour_label=EVIL),
    "heat": heat_map([EVIL], [EVIL, "b"], [[1.0, None]], title=EVIL),
    "histogram": histogram({EVIL: [1, 2, 2], "b": [3, 4, 5]}, title=EVIL),
    "nothing": line_chart([], title="empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_drawings_are_well_formed_and_say_what_they_are(name: str) -> None:
    svg = drawing(CHARTS[name])
    assert svg.attrib["class"].startswith("chart") and svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == (EVIL if name != "nothing" else "empty")
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    for one in svg.iter():
        for key, most in (("x", width), ("cx", width), ("x1", width), ("y", height), ("cy", height), ("y2", height)):
            assert -1 <= float(one.attrib.get(key, 0)) <= most + 1, (one.tag, one.attrib)


def test_points_are_where_the_numbers_are() -> None:
    svg = drawing(line_chart([Series("a", [0, 5, 10], [1.0, 3.0, 2.0])], title="t", y_range=(0, 4), x_range=(0, 10)))
    (x0, y0), (x1, y1), (x2, y2) = circles(svg)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
    assert (y0 - y1) == pytest.approx(2 * (y0 - y2), abs=0.05)  # 3 is twice as far above 1 as 2 is
    line = next(
        one for one in svg.iter() if "grid-line" in one.attrib.get("class", "") and one.attrib["y1"] == one.attrib["y2"]
    )
    assert float(line.attrib["y1"]) == pytest.approx(y0 + (y0 - y2), abs=0.05)  # the tick at 0
    titles = [one.text for one in svg.iter() if one.tag.endswith("title")]
    assert titles == ["a, 0: 1.0000", "a, 5: 3.0000", "a, 10: 2.0000"]


def test_a_gap_interrupts_the_line() -> None:
    for missing in (None, math.nan):
        svg = drawing(line_chart([Series("a", [0, 1, 2, 3], [1, missing, 3, 4])], title="t"))
        assert paths(svg)[-1].count("M") == 2
        assert len(circles(svg)) == 3


def test_a_logarithmic_axis_is_logarithmic() -> None:
    svg = drawing(line_chart([Series("a", [0, 1, 2, 3], [1, 10, 100, 0])], title="t", log_y=True))
    heights = [y for _, y in circles(svg)]
    assert len(heights) == 3  # 0 has no logarithm
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.05)


def test_epochs_have_whole_ticks() -> None:
    svg = drawing(line_chart([Series("a", [1, 2, 3], [1, 2, 3])], title="t"))
    ticks = [
        one.text
        for one in svg.iter()
        if one.attrib.get("class") == "tick" and one.attrib.get("text-anchor") == "middle"
    ]
    assert ticks and all(tick and "." not in tick for tick in ticks)


def test_bands_and_bars_hold_their_bounds() -> None:
    svg = drawing(line_chart([Series("a", [0, 1], [2, 2], low=[1, 1], high=[3, 3])], title="t", y_range=(0, 4)))
    band = next(one.attrib["d"] for one in svg.iter() if one.attrib.get("class") == "band")
    ys = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", band)]
    middle = circles(svg)[0][1]
    assert min(ys) < middle < max(ys) and middle - min(ys) == pytest.approx(max(ys) - middle, abs=0.2)


def test_heights_of_bars_are_the_numbers() -> None:
    svg = drawing(
        bar_chart(["g", "h"], {"a": [1.0, 2.0], "b": [4.0, None]}, title="t", errors={"a": [(0.5, 1.5), None]})
    )
    bars = shapes(svg, "bar")
    heights = [float(bar["height"]) for bar in bars]
    assert len(bars) == 3 and heights[1] == pytest.approx(2 * heights[0], abs=0.05)
    assert heights[2] == pytest.approx(4 * heights[0], abs=0.1)
    assert len({round(float(bar["y"]) + float(bar["height"]), 1) for bar in bars}) == 1  # all stand on zero
    (whisker,) = shapes(svg, "whisker")
    low, high = map(float, re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", whisker["d"]).groups())  # type: ignore[union-attr]
    assert low - high == pytest.approx(heights[0], abs=0.2)  # 0.5 to 1.5 is as high as the bar of 1


def test_lying_bars_are_labelled_with_their_numbers() -> None:
    made = bar_chart(["fit", "test"], {"s": [30.0, 10.0]}, title="t", horizontal=True, labels={"s": ["30 s", "10 s"]})
    svg = drawing(made)
    widths = [float(bar["width"]) for bar in shapes(svg, "bar")]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.1)
    assert [one.text for one in svg.iter() if "value" in one.attrib.get("class", "")] == ["30 s", "10 s"]


def test_one_bar_each_stands_in_the_middle_of_its_group() -> None:
    series = {"own": [1.0, None], "other": [None, 2.0]}
    made = bar_chart(["a", "b"], series, title="t", horizontal=True, one_each=True)
    svg = drawing(made)
    middles = [float(bar["y"]) + float(bar["height"]) / 2 for bar in shapes(svg, "bar")]
    names = [float(one["y"]) for one in shapes(svg, "middle") if one.get("text-anchor") == "end"]
    assert middles == pytest.approx(names, abs=0.05)


def test_series_have_a_legend_where_there_are_several() -> None:
    both = PageReader(line_chart([Series("a", [0], [1]), Series("b", [0], [1], dashed=True)], title="t"))
    assert [entry["data-series"] for entry in both.attributes("li")] == ["0", "1"]
    assert both.attributes("li")[0]["class"] != both.attributes("li")[1]["class"]
    assert not PageReader(line_chart([Series("a", [0], [1])], title="t")).attributes("li")
    assert not PageReader(
        line_chart([Series("a", [0], [1]), Series("b", [0], [1])], title="t", legend=False)
    ).attributes("li")


def test_points_are_coloured_along_the_scale() -> None:
    svg = drawing(scatter_chart([Point(1e-4, 1, "low", 0.0), Point(1e-3, 2, "mid", 0.5), Point(1e-2, 3, "high", 1.0)],
                                title="t", log_x=True))  # fmt: skip
    styles = [dot["style"] for dot in shapes(svg, "dot")]
    assert "0%, var(--ramp-a)" in styles[0] and "0%, var(--ramp-b)" in styles[1] and "--ramp-c) 100%" in styles[2]
    xs = [x for x, _ in circles(svg)]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.05)


def test_cells_get_darker_with_their_value() -> None:
    svg = drawing(heat_map(["r"], ["a", "b", "c"], [[1.0, 3.0, 2.0]], title="t"))
    shares = [
        int(found) for found in re.findall(r"--accent\) (\d+)%", " ".join(c["style"] for c in shapes(svg, "cell")))
    ]
    assert shares[0] < shares[2] < shares[1]
    assert [one.text for one in svg.iter() if "cell-value" in one.attrib.get("class", "")] == [
        "1.0000",
        "3.0000",
        "2.0000",
    ]


def test_a_histogram_counts() -> None:
    svg = drawing(histogram([0.0, 0.1, 0.2, 0.9, 1.0], title="t", bins=2))
    assert [spot["data-y"] for spot in shapes(svg, "spot")] == ["3", "2"]
    shares = drawing(histogram({"a": [30, 10]}, edges=[0, 1, 2], share=True, title="t"))
    assert [spot["data-y"] for spot in shapes(shares, "spot")] == ["0.7500", "0.2500"]
