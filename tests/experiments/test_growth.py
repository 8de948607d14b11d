"""The picture of costs: every point where its numbers say, names apart, and text escaped."""

import itertools
import re
from xml.etree import ElementTree

from experiments.growth import Line, Panel, draw

SPACE = "{http://www.w3.org/2000/svg}"


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in ElementTree.fromstring(svg).iter(f"{SPACE}circle")]


def test_equal_factors_are_equal_distances():
    svg = draw([Panel("m", [Line("a", [(1e4, 1.0), (1e5, 10.0), (1e6, 100.0)])])], title="t", x_label="items")
    (x1, y1), (x2, y2), (x3, y3) = circles(svg)
    assert abs((x2 - x1) - (x3 - x2)) < 0.2
    assert abs((y1 - y2) - (y2 - y3)) < 0.2
    assert y1 > y2 > y3  # more is higher
    assert "10 k" in svg and "1 M" in svg


def test_a_panel_without_points_is_left_out():
    empty = Panel("nothing yet", [], limit=3.0)
    full = Panel("memory", [Line("a", [(1e4, 1.0)])])
    assert "nothing yet" not in draw([empty, full], title="t", x_label="items")
    assert circles(draw([empty], title="t", x_label="items")) == []


def test_names_do_not_cover_each_other_and_are_text():
    lines = [Line(f"<{name}>", [(1.0, 5.0), (2.0, 5.0)], "too large" if name == "b" else "") for name in "abc"]
    root = ElementTree.fromstring(draw([Panel("p", lines, limit=50.0)], title="t & u", x_label="x"))
    named = [t for t in root.iter(f"{SPACE}text") if re.match("<[abc]>", t.text or "")]
    heights = sorted(float(t.get("y", 0)) for t in named)
    assert len(named) == 3 and all(b - a >= 13.9 for a, b in itertools.pairwise(heights))
    assert any("too large" in (t.text or "") for t in named)
    assert any((t.text or "").startswith("limit") for t in root.iter(f"{SPACE}text"))


def test_panels_lie_in_rows():
    panels = [Panel(f"p{number}", [Line("a", [(1.0, 1.0), (2.0, 2.0)])]) for number in range(5)]
    root = ElementTree.fromstring(draw(panels, title="t", x_label="x", columns=2))
    titles = {t.text: (float(t.get("x", 0)), float(t.get("y", 0))) for t in root.iter(f"{SPACE}text")}
    assert titles["p0"][1] == titles["p1"][1] < titles["p2"][1] == titles["p3"][1] < titles["p4"][1]
    assert titles["p0"][0] == titles["p2"][0] == titles["p4"][0] < titles["p1"][0]
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert all(x < width and y < height for x, y in titles.values())
