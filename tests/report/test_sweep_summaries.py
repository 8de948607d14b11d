import re
from dataclasses import replace

import pytest

from genrec.records import read_sweep
from genrec.report.importance import Importance, Importances
from genrec.report.seed_groups import seed_groups
from genrec.report.sweep_summaries import importance_chart, seeds_chart, setting
from tests.report.fake_sweep import MONITOR, fake_run, fake_sweep
from tests.report.test_sweep_charts import classes, parse


def rects(svg, kind: str) -> list[tuple[float, float]]:
    """Start and width of the boxes of a class."""
    found = [node for node in svg.iter("rect") if kind in classes(node)]
    return [(float(node.attrib["x"]), float(node.attrib["width"])) for node in found]


def test_bars_are_as_long_as_their_shares():
    shares = (Importance("optimizer.lr", 0.6, 0.5, 0.8), Importance("a<b>", 0.3, 0.1, 0.4), Importance("c", 0.1))
    svg = parse(importance_chart(Importances(shares, explained=0.9, num_runs=9), MONITOR, "a note"))
    (start, first), (same, second), (_, third) = rects(svg, "bar")
    assert start == same
    assert second == pytest.approx(first / 2, abs=0.1) and third == pytest.approx(first / 6, abs=0.1)
    whiskers = [node for node in svg.iter("line") if classes(node) == {"whisker"}]
    assert len(whiskers) == 2  # the third has no interval
    unit = first / 0.6
    assert float(whiskers[0].attrib["x2"]) == pytest.approx(start + 0.8 * unit, abs=0.1)
    words = "".join(svg.itertext())
    assert "60%" in words and "a<b>" in words and "lr" in words


def test_no_importance_draws_nothing():
    assert importance_chart(Importances(reason="too few")) == ""


@pytest.fixture
def groups(tmp_path):
    fake_sweep(tmp_path)
    values = {"1e-3": [0.30, 0.33, 0.36], "3e-3": [0.40, 0.43, 0.46]}
    for number, (lr, seed) in enumerate((lr, seed) for lr in values for seed in range(3)):
        fake_run(tmp_path / str(number), {"optimizer.lr": lr, "seed": seed}, values[lr][seed])
    return seed_groups(read_sweep(tmp_path))


def test_the_axis_says_where_a_metric_is_best(groups):
    assert f"{MONITOR} ↑" in seeds_chart(groups, (MONITOR, "max"))
    name = "test/calibration"
    known = {"values": {name: (0.9, 1.0, 1.2)}, "mean": {name: 1.03}, "low": {name: None}, "high": {name: None}}
    assert f"{name} → 1" in seeds_chart([replace(group, **known) for group in groups], (name, "max"))


def test_seeds_are_dots_around_their_mean_in_its_interval(groups):
    svg = parse(seeds_chart(groups, (MONITOR, "max")))
    dots = [node for node in svg.iter("g") if classes(node) == {"seed-dot"}]
    assert [node.attrib["data-run"] for node in dots] == ["0", "1", "2", "3", "4", "5"]
    xs = [float(circle.attrib["cx"]) for node in dots for circle in node.iter("circle")]
    means = [float(node.attrib["x1"]) for node in svg.iter("line") if classes(node) == {"mean"}]
    assert means == pytest.approx([xs[1], xs[4]], abs=0.1)
    unit = (xs[3] - xs[0]) / 0.1
    (start, width), _ = rects(svg, "interval")
    low, high = groups[0].low[MONITOR], groups[0].high[MONITOR]
    assert low is not None and high is not None
    assert width == pytest.approx((high - low) * unit, rel=0.01)
    assert start == pytest.approx(xs[0] + (low - 0.30) * unit, abs=0.5)


def test_the_interval_of_two_seeds_does_not_press_them_into_a_point(tmp_path):
    for seed, value in enumerate((0.30, 0.31)):
        fake_run(tmp_path / str(seed), {"seed": seed}, value)
    (group,) = seed_groups(read_sweep(tmp_path))
    low, high = group.low[MONITOR], group.high[MONITOR]
    assert low is not None and high is not None and high - low > 10 * 0.01
    svg = parse(seeds_chart([group], (MONITOR, "max")))
    xs = [float(node.attrib["cx"]) for node in svg.iter("circle")]
    assert xs[1] - xs[0] > 100
    (start, width), *_ = rects(svg, "interval")
    assert start >= 0 and start + width <= 520


def test_settings_are_named_shortly(groups):
    assert [setting(group) for group in groups] == ["lr 1e-3", "lr 3e-3"]
    assert seeds_chart(groups, ("test/unknown", "max")) == ""


def test_ticks_that_lie_close_together_can_be_told_apart(tmp_path):
    for seed, value in enumerate((3.9246, 3.9255, 3.9251)):
        fake_run(tmp_path / str(seed), {"seed": seed}, value)
    chart = seeds_chart(seed_groups(read_sweep(fake_sweep(tmp_path))), (MONITOR, "max"))
    ticks = re.findall(r'class="tick"[^>]*>([^<]+)', chart)
    assert len(ticks) > 2 and len(set(ticks)) == len(ticks)
