from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from genrec.report.compare_charts import Mark, Tally, forest, tallies

NAMESPACE = "{http://www.w3.org/2000/svg}"


def svg(figure: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", figure, re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])


def circles(drawing: ElementTree.Element) -> list[ElementTree.Element]:
    return list(drawing.iter(f"{NAMESPACE}circle"))


def zero_of(drawing: ElementTree.Element) -> float:
    line = next(line for line in drawing.iter(f"{NAMESPACE}line") if line.get("class") == "zero")
    return float(line.get("x1", "nan"))


def test_dots_stand_on_their_side_of_zero() -> None:
    marks = [Mark("up", 0.2, 0.1, 0.3, "+0.2"), Mark("down", -0.2, -0.3, 0.1, "-0.2", clear=False)]
    drawing = svg(forest({"b": marks}, title="t", x_label="b minus a"))
    up, down = circles(drawing)
    zero = zero_of(drawing)
    assert float(up.get("cx", 0)) - zero == pytest.approx(zero - float(down.get("cx", 0)), abs=0.02)
    assert float(up.get("cx", 0)) > zero
    assert float(up.get("cy", 0)) < float(down.get("cy", 0))
    assert (up.get("class"), down.get("class")) == (None, "hollow")


def test_lines_span_the_interval_and_thin_ones_more() -> None:
    drawing = svg(forest({"b": [Mark("m", 0.0, -0.1, 0.1, "", outer=(-0.4, 0.4))]}, title="t", x_label=""))
    spans = []
    for path in drawing.iter(f"{NAMESPACE}path"):
        found = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", path.get("d", ""))
        assert found
        spans.append(float(found[2]) - float(found[1]))
    assert spans[0] == pytest.approx(4 * spans[1], abs=0.5)


def test_zero_is_always_shown() -> None:
    drawing = svg(forest({"b": [Mark("m", 5.0, 4.9, 5.1, "")]}, title="t", x_label=""))
    assert 0 < zero_of(drawing) < float(circles(drawing)[0].get("cx", 0))


def test_each_series_has_a_lane_a_colour_and_a_legend() -> None:
    figure = forest({name: [Mark("m", 0.1, 0.0, 0.2, name)] for name in ("b", "c")}, title="t", x_label="")
    one, two = circles(svg(figure))
    assert one.get("cy") != two.get("cy")
    assert 'class="series c1"' in figure
    assert 'class="series c2"' in figure
    assert figure.count("<li ") == 2


def test_bars_are_as_long_as_the_counts() -> None:
    drawing = svg(tallies({"b": [Tally("m", 30, 10)]}, title="t", x_label="", unit="users"))
    bars = {
        str(rect.get("class")): (float(rect.get("x", 0)), float(rect.get("width", 0)))
        for rect in drawing.iter(f"{NAMESPACE}rect")
    }
    assert bars["won"][1] == pytest.approx(3 * bars["lost"][1], abs=0.1)
    assert bars["won"][0] == pytest.approx(zero_of(drawing), abs=0.02)
    assert sum(bars["lost"]) == pytest.approx(zero_of(drawing), abs=0.02)
    assert "30 users won, 10 lost" in "".join(drawing.itertext())


def test_nothing_won_and_nothing_lost_can_be_drawn() -> None:
    assert "0 users won, 0 lost" in tallies({"b": [Tally("m", 0, 0)]}, title="t", x_label="", unit="users")


def test_words_are_escaped() -> None:
    figure = forest({"<b>": [Mark("<i>", 0.1, 0.0, 0.2, "<u>")]}, title="<t>", x_label="<x>")
    assert not re.search(r"<[itux]>", figure)
    svg(figure)
