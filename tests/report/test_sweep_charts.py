import re
from xml.etree import ElementTree

import pytest

from genrec.records import read_sweep
from genrec.report.scales import Scale
from genrec.report.sweep_charts import (
    curves_chart,
    parallel_coordinates,
    pareto_chart,
    pareto_front,
    progress_chart,
    slice_chart,
)
from genrec.report.trials import Parameter, Trial, read_parameters, read_trials
from tests.report.fake_sweep import MONITOR, fake_run, fake_sweep

OBJECTIVE = (MONITOR, "max")


@pytest.fixture
def sweep(tmp_path):
    """Four finished runs on three learning rates of equal ratio, one pruned, one failed; run 2 is the best."""
    fake_sweep(tmp_path)
    for number, (lr, model, value) in enumerate(
        [("1e-4", "gat", 0.2), ("1e-3", "gat", 0.3), ("1e-3", "mf", 0.5), ("1e-2", "mf", 0.4)]
    ):
        fake_run(tmp_path / str(number), {"optimizer.lr": lr, "model": model}, value, curve=[0.1, value])
    fake_run(tmp_path / "4", {"optimizer.lr": "1e-3", "model": "mf"}, state="pruned", curve=[0.05])
    fake_run(tmp_path / "5", {"optimizer.lr": "1e-4", "model": "<b>&"}, state="failed", error="no")
    record = read_sweep(tmp_path)
    return read_trials(record), read_parameters(record.runs, record.swept)


def parse(figure: str) -> ElementTree.Element:
    """The drawing in a figure, its tags without their namespace; fails where it is not well-formed."""
    root = ElementTree.fromstring(figure)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    svg = root.find(".//svg")
    assert svg is not None
    return svg


def marks(svg: ElementTree.Element) -> dict[str, ElementTree.Element]:
    found = [node for node in svg.iter("a") if "data-run" in node.attrib]
    assert len({node.attrib["data-run"] for node in found}) == len(found)
    return {node.attrib["data-run"]: node for node in found}


def classes(node: ElementTree.Element) -> set[str]:
    return set(node.attrib.get("class", "").split())


def line_of(mark: ElementTree.Element) -> list[tuple[float, float]]:
    """The corners of the line of a run, without the handles of its curves."""
    (d,) = [node.attrib["d"] for node in mark.iter("path") if node.attrib.get("class") == "line"]
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", d)]
    if "C" in d:
        numbers = numbers[:2] + [value for at in range(2, len(numbers), 6) for value in numbers[at + 4 : at + 6]]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def centre(mark: ElementTree.Element) -> tuple[float, float]:
    circle = [node for node in mark.iter("circle")][-1]
    return float(circle.attrib["cx"]), float(circle.attrib["cy"])


def lines_of(sweep) -> dict[str, ElementTree.Element]:
    trials, parameters = sweep
    return marks(parse(parallel_coordinates(trials, parameters, [OBJECTIVE])))


def test_every_run_is_a_line_through_all_axes(sweep):
    found = lines_of(sweep)
    assert set(found) == {"0", "1", "2", "3", "4", "5"}
    lengths = {run: len(line_of(mark)) for run, mark in found.items()}
    assert lengths == {"0": 3, "1": 3, "2": 3, "3": 3, "4": 3, "5": 2}  # the failed one has nothing to show at the end
    assert list(found)[-1] == "2"  # the best is drawn over all others
    assert classes(found["2"]) == {"run", "finished", "best"}
    assert "pruned" in classes(found["4"]) and "failed" in classes(found["5"])


def test_axes_of_numbers_over_decades_are_logarithmic(sweep):
    found = lines_of(sweep)
    low, middle, high = (line_of(found[run])[0][1] for run in ("0", "1", "3"))
    assert middle == pytest.approx((low + high) / 2, abs=10)  # the runs of one value are spread by less than that
    assert low > middle > high  # upwards


def test_the_last_axis_is_the_objective_and_a_run_off_the_scale_lies_at_its_edge(sweep):
    found = lines_of(sweep)
    ends = {run: line_of(found[run])[-1][1] for run in ("0", "1", "2", "3", "4")}
    scale = Scale(0.2, 0.5, ends["0"], ends["2"])
    assert ends["1"] == pytest.approx(scale(0.3), abs=0.2) and ends["3"] == pytest.approx(scale(0.4), abs=0.2)
    assert ends["0"] < ends["4"] < ends["0"] + 40  # 0.05 itself would lie 0.5 of the height below


def test_runs_of_one_value_do_not_lie_on_each_other(sweep):
    found = lines_of(sweep)
    models = [line_of(found[run])[1][1] for run in ("2", "3", "4")]
    assert len(set(models)) == 3 and max(models) - min(models) < 20
    assert models[0] < models[1] < models[2]  # the better ones above


def test_colours_say_how_good_a_run_is(sweep):
    found = lines_of(sweep)
    colours = {run: mark.attrib["style"] for run, mark in found.items()}
    assert "100%, var(--ramp-b)" in colours["2"] and "0%, var(--ramp-a)" in colours["0"]
    assert "var(--run-none)" in colours["4"]


def test_a_slice_has_a_point_per_run_and_a_cross_per_failure(sweep):
    trials, parameters = sweep
    found = marks(parse(slice_chart(trials, parameters, parameters[0], OBJECTIVE)))
    assert set(found) == {"0", "1", "2", "3", "4", "5"}
    assert not list(found["5"].iter("circle")) and len(list(found["2"].iter("circle"))) == 2  # a ring around the best
    xs = {run: centre(found[run])[0] for run in ("0", "1", "3")}
    assert xs["1"] == pytest.approx((xs["0"] + xs["3"]) / 2, abs=15)
    ys = {run: centre(found[run])[1] for run in ("0", "1", "2", "3", "4")}
    assert ys["2"] < ys["3"] < ys["1"] < ys["0"] <= ys["4"]
    assert (ys["1"] - ys["2"]) == pytest.approx(2 * (ys["1"] - ys["3"]), abs=0.1)  # 0.5 - 0.3 and 0.4 - 0.3


def test_runs_without_a_key_stand_apart_from_those_that_have_it(sweep):
    trials, _ = sweep
    heads = Parameter("model.num_heads", ("1", "8", None, None, "4", None))
    svg = parse(slice_chart(trials, [heads], heads, OBJECTIVE))
    xs = {run: centre(mark)[0] for run, mark in marks(svg).items() if run != "5"}
    assert xs["0"] < xs["4"] < xs["1"] < min(xs["2"], xs["3"])
    assert "not set" in "".join(svg.itertext())


def test_links_lead_to_the_page_of_a_run_or_else_its_folder(sweep):
    trials, parameters = sweep
    (trials[2].run.folder / "report.html").write_text("a page")
    found = marks(parse(slice_chart(trials, parameters, parameters[0], OBJECTIVE)))
    assert found["2"].attrib["href"] == "2/report.html" and found["3"].attrib["href"] == "3/"


def test_progress_is_the_best_so_far(sweep):
    trials, parameters = sweep
    svg = parse(progress_chart(trials, parameters, OBJECTIVE))
    (front,) = [node.attrib["d"] for node in svg.iter("path") if node.attrib.get("class") == "front"]
    heights = [float(value) for value in re.findall(r"[MV](?:[\d.]+ )?([\d.]+)", front)]
    ys = {run: centre(mark)[1] for run, mark in marks(svg).items() if run != "5"}
    assert heights == pytest.approx([ys["0"], ys["1"], ys["2"], ys["2"], ys["2"]], abs=0.1)


def test_every_run_has_a_curve_and_what_did_not_finish_ends_in_a_cross(sweep):
    trials, parameters = sweep
    svg = parse(curves_chart(trials, parameters, OBJECTIVE))
    found = marks(svg)
    assert set(found) == {"0", "1", "2", "3", "4"}  # the failed one measured nothing
    assert [run for run, mark in found.items() if any(classes(node) == {"end"} for node in mark.iter("g"))] == ["4"]
    assert "run 2" in "".join(found["2"].itertext()) and len(line_of(found["2"])) == 2
    assert len(line_of(found["4"])) == 1


def test_words_of_users_are_escaped(sweep):
    trials, parameters = sweep
    every = parallel_coordinates(trials, parameters, [OBJECTIVE])
    for chart in (every, slice_chart(trials, parameters, parameters[1], OBJECTIVE)):
        assert "<b>" not in chart
        assert "<b>&" in "".join(parse(chart).itertext())


def test_nothing_measured_draws_nothing(tmp_path):
    fake_sweep(tmp_path)
    for number in range(2):
        fake_run(tmp_path / str(number), {"a": number}, state="failed")
    record = read_sweep(tmp_path)
    trials, parameters = read_trials(record), read_parameters(record.runs, record.swept)
    assert not parallel_coordinates(trials, parameters, [OBJECTIVE])
    assert not slice_chart(trials, parameters, parameters[0], OBJECTIVE)
    assert not curves_chart(trials, parameters, OBJECTIVE)
    assert not progress_chart(trials, parameters, OBJECTIVE)
    assert not pareto_chart(trials, parameters, [OBJECTIVE, ("seconds/total", "min")])


# ---- two objectives -------------------------------------------------------------------------------------------------


def two(tmp_path, pairs: list[tuple[float, float]], directions: tuple[str, str]) -> list[Trial]:
    fake_sweep(tmp_path, objectives=[(MONITOR, directions[0]), ("val/other", directions[1])])
    for number, (first, second) in enumerate(pairs):
        fake_run(tmp_path / str(number), {"a": number}, first, final={"val/other": second})
    return read_trials(read_sweep(tmp_path))


@pytest.mark.parametrize(
    ("directions", "front"),
    [
        (("max", "min"), ["3", "1", "0"]),
        (("min", "max"), ["4", "2"]),
        (("max", "max"), ["3", "2"]),
        (("min", "min"), ["0"]),
    ],
)
def test_the_front_are_those_that_none_beats(tmp_path, directions, front):
    pairs = [(1.0, 1.0), (2.0, 2.0), (2.0, 5.0), (3.0, 4.0), (1.0, 3.0)]
    found = pareto_front(two(tmp_path, pairs, directions), [(MONITOR, directions[0]), ("val/other", directions[1])])
    assert [trial.number for trial in found] == front


def test_equal_runs_are_both_on_the_front_and_pruned_ones_never(tmp_path):
    trials = two(tmp_path, [(1.0, 1.0), (1.0, 1.0), (0.5, 2.0)], ("max", "min"))
    fake_run(tmp_path / "3", {"a": 3}, state="pruned", curve=[9.0])
    trials = read_trials(read_sweep(tmp_path))
    assert [trial.number for trial in pareto_front(trials, [(MONITOR, "max"), ("val/other", "min")])] == ["0", "1"]


def test_the_front_is_drawn_as_steps_on_the_side_that_no_run_reaches(tmp_path):
    objectives = [(MONITOR, "max"), ("val/other", "min")]
    trials = two(tmp_path, [(1.0, 1.0), (2.0, 2.0), (3.0, 4.0), (1.5, 3.0)], ("max", "min"))
    parameters = read_parameters([trial.run for trial in trials], ["a"])
    svg = parse(pareto_chart(trials, parameters, objectives))
    at = {run: centre(mark) for run, mark in marks(svg).items()}
    (front,) = [node.attrib["d"] for node in svg.iter("path") if node.attrib.get("class") == "front"]
    numbers = [float(number) for number in re.findall(r"[\d.]+", front)]
    expected = [*at["2"], at["1"][0], at["1"][1], at["0"][0], at["0"][1]]
    assert numbers == pytest.approx(expected, abs=0.1)
    ringed = [node for node in svg.iter("g") if classes(node) == {"on-front"}]
    assert {mark.attrib["data-run"] for node in ringed for mark in node.iter("a")} == {"0", "1", "2"}
