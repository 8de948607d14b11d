import pytest

from genrec.records import read_run, read_sweep
from genrec.report.trials import Parameter, best_run, curve, objective_value, read_trials, value_in_effect
from tests.report.fake_sweep import MONITOR, fake_run, fake_sweep


@pytest.mark.parametrize(
    ("values", "numbers", "log"),
    [
        (("1e-3", "1e-4", "1e-2"), (1e-3, 1e-4, 1e-2), True),
        (("16", "32", "64", "128"), (16, 32, 64, 128), True),
        (("0.1", "0.3", "0.5", "0.7", "0.9"), (0.1, 0.3, 0.5, 0.7, 0.9), False),  # evenly, although nine times as large
        (("0", "1e-3", "1"), (0, 1e-3, 1), False),  # zero has no logarithm
        (("1e-3", "3e-3"), (1e-3, 3e-3), False),
        (("2", None, "4"), (2, None, 4), False),
        (("adam", "sgd"), None, False),
        (("null", "3"), None, False),
    ],
)
def test_numbers_and_their_scale(values, numbers, log):
    parameter = Parameter("x", values)
    assert parameter.numbers == numbers
    assert parameter.log == log


def test_a_seed_is_a_category_in_the_order_of_numbers():
    parameter = Parameter("seed", ("10", "9", "10", "1"))
    assert parameter.numbers is None
    assert parameter.categories == ["1", "9", "10"]


def test_a_value_that_was_not_given_is_the_one_in_effect(tmp_path):
    run = read_run(fake_run(tmp_path, {"optimizer.lr": "1e-3"}, 0.5, config={"model": {"dropout": None, "bias": True}}))
    assert value_in_effect(run, "optimizer.lr") == "1e-3"
    assert value_in_effect(run, "trainer") == "advanced"  # of the choices
    assert value_in_effect(run, "seed") == "42"
    assert value_in_effect(run, "model.dropout") == "null"
    assert value_in_effect(run, "model.bias") == "true"
    assert value_in_effect(run, "model.num_heads") is None


def test_what_a_run_reached(tmp_path):
    finished = read_run(fake_run(tmp_path / "0", {}, 0.5, curve=[0.9, 0.4]))
    assert objective_value(finished, MONITOR, "max") == 0.5  # not that of an epoch
    assert objective_value(finished, "seconds/total", "min") == 60.0
    pruned = read_run(fake_run(tmp_path / "1", {}, state="pruned", curve=[0.3, 0.2]))
    assert (objective_value(pruned, MONITOR, "max"), objective_value(pruned, MONITOR, "min")) == (0.3, 0.2)
    failed = read_run(fake_run(tmp_path / "2", {}, state="failed", curve=[0.3, 0.2]))
    assert objective_value(failed, MONITOR, "max") is None
    assert curve(failed, MONITOR) == [(1.0, 0.3), (2.0, 0.2)]


@pytest.mark.parametrize(("direction", "expected"), [("max", "1"), ("min", "0")])
def test_the_best_has_finished_and_is_the_first_of_equals(tmp_path, direction, expected):
    for number, value in enumerate([0.1, 0.7, 0.7, 0.1]):
        fake_run(tmp_path / str(number), {"a": number}, value)
    fake_run(tmp_path / "4", {"a": 4}, 0.9, state="pruned")
    fake_run(tmp_path / "5", {"a": 5}, 0.01, state="pruned")
    best = best_run(read_sweep(tmp_path).runs, MONITOR, direction)
    assert best is not None and best.folder.name == expected
    assert best_run(read_sweep(tmp_path).runs[4:], MONITOR, direction) is None


def test_goodness_runs_from_the_worst_to_the_best(tmp_path):
    fake_sweep(tmp_path, objectives=[(MONITOR, "min")])
    for number, value in enumerate([4.0, 2.0, 3.0]):
        fake_run(tmp_path / str(number), {"a": number}, value, direction="min")
    fake_run(tmp_path / "3", {"a": 3}, 1.0, state="pruned")
    trials = read_trials(read_sweep(tmp_path))
    assert [trial.goodness for trial in trials] == [0.0, 1.0, 0.5, None]
    assert [trial.best for trial in trials] == [False, True, False, False]


@pytest.mark.parametrize(
    ("values", "few"),
    [
        (("1e-3", "3e-4", "1e-3"), True),
        (("0.000153635", "0.00324912"), False),  # drawn, not written by anyone
        (("a rather long word", "another"), True),
        (tuple(map(str, range(9))), False),
        (("64", None, "128"), True),
    ],
)
def test_values_that_can_be_named_one_by_one(values, few):
    assert Parameter("x", values).few == few


def test_a_search_knows_the_scales_that_it_draws_from() -> None:
    near_zero = ("0.01", "0.012", "0.02", "0.03", "0.33")  # as TPE draws where small values are good
    assert Parameter("model.dropout", near_zero).log
    assert not Parameter("model.dropout", near_zero, "linear").log
    assert Parameter("optimizer.lr", ("0.001", "0.002"), "log").log
    assert not Parameter("optimizer.lr", ("0", "0.002"), "log").log  # there is no place for 0
