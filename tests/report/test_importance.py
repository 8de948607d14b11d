from pathlib import Path

import numpy as np
import pytest

from genrec.records import RunRecord, read_run
from genrec.report.importance import Importances, parameter_importance
from tests.report.fake_sweep import MONITOR, fake_run


def runs_of(folder: Path, settings, value, **kwargs) -> list[RunRecord]:
    return [
        read_run(fake_run(folder / str(number), setting, value(setting), **kwargs))
        for number, setting in enumerate(settings)
    ]


def shares(found: Importances) -> dict[str, float]:
    return {importance.name: importance.share for importance in found.shares}


def random_settings(count: int) -> list[dict]:
    rng = np.random.default_rng(5)
    return [{"a.x": rng.random(), "a.y": rng.random(), "model": str(rng.choice(["p", "q", "r"]))} for _ in range(count)]


def test_a_value_that_is_linear_in_one_parameter_is_all_its_doing(tmp_path):
    runs = runs_of(tmp_path, random_settings(20), lambda setting: 3 * setting["a.x"])
    found = parameter_importance(runs, ["a.y", "a.x", "model"], MONITOR, "max")
    assert found.shares[0].name == "a.x" and found.shares[0].share > 0.95
    assert sum(shares(found).values()) == pytest.approx(1.0)
    assert found.num_runs == 20 and found.explained is not None and found.explained > 0.8


def test_shares_are_those_of_the_variance_on_a_full_grid(tmp_path):
    grid = [{"a": a, "b": b} for a in range(1, 6) for b in range(1, 6)]
    found = parameter_importance(runs_of(tmp_path, grid, lambda s: 2 * s["a"] + s["b"]), ["a", "b"], MONITOR, "max")
    assert shares(found)["a"] == pytest.approx(4 / 5, abs=0.07)  # Var(2a) : Var(b) = 4 : 1


def test_parameters_that_matter_only_together_share(tmp_path):
    grid = [{"a": a, "b": b, "c": c} for a in (0, 1) for b in (0, 1) for c in range(4)]
    found = parameter_importance(
        runs_of(tmp_path, grid, lambda s: 1.0 + (s["a"] ^ s["b"])), ["a", "b", "c"], MONITOR, "max"
    )
    assert shares(found) == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.0}, abs=0.03)


def test_categories_and_parameters_that_only_some_runs_have(tmp_path):
    rng = np.random.default_rng(1)
    settings = []
    for number in range(24):
        model = ("gat", "mf")[number % 2]
        extra = {"model.num_heads": int(rng.integers(1, 9))} if model == "gat" else {}
        settings.append({"model": model, "optimizer.lr": 10 ** rng.uniform(-4, -1), **extra})
    runs = runs_of(tmp_path, settings, lambda s: {"gat": 0.5, "mf": 0.2}[s["model"]])
    found = shares(parameter_importance(runs, ["model", "optimizer.lr", "model.num_heads"], MONITOR, "max"))
    assert found["model"] + found["model.num_heads"] > 0.97  # that a run has heads says which model it is
    assert found["optimizer.lr"] < 0.03


def test_pruned_failed_and_killed_runs_are_left_out(tmp_path):
    settings = random_settings(12)
    runs = runs_of(tmp_path / "finished", settings, lambda s: s["a.x"])
    alone = parameter_importance(runs, ["a.x", "a.y", "model"], MONITOR, "max")
    for state in ("failed", "pruned", "running"):  # running without a lock: killed
        folder = tmp_path / state
        runs += runs_of(folder, settings[:4], lambda s: 9 * s["a.y"], state=state)
    assert parameter_importance(runs, ["a.x", "a.y", "model"], MONITOR, "max") == alone


def test_one_run_that_diverged_is_not_all_there_is_to_explain(tmp_path):
    settings = [{"a": a, "b": b} for a in range(1, 7) for b in range(1, 5)]
    loss = {(a, b): 1.0 + a / 10 for a in range(1, 7) for b in range(1, 5)} | {(6, 4): 1e6}
    runs = runs_of(tmp_path, settings, lambda s: loss[s["a"], s["b"]])
    found = shares(parameter_importance(runs, ["a", "b"], MONITOR, "min"))
    assert found["a"] > 0.75  # if the million counted, it would take both to find the run that diverged


def test_the_answer_is_the_same_in_every_call(tmp_path):
    runs = runs_of(tmp_path, random_settings(9), lambda s: s["a.x"] * s["a.y"])
    first, second = (parameter_importance(runs, ["a.x", "a.y"], MONITOR, "max") for _ in range(2))
    assert first == second
    for importance in first.shares:
        assert importance.low is not None and importance.high is not None
        assert 0 <= importance.low <= importance.share <= importance.high <= 1


def test_noise_is_told_as_such(tmp_path):
    rng = np.random.default_rng(0)
    runs = runs_of(tmp_path, random_settings(30), lambda s: rng.random())
    explained = parameter_importance(runs, ["a.x", "a.y", "model"], MONITOR, "max").explained
    assert explained is not None and explained < 0.05


@pytest.mark.parametrize(
    ("settings", "names", "value", "reason"),
    [
        ([{"a": 1}, {"a": 2}, {"a": 3}], ["a"], lambda s: s["a"], "3 finished runs are too few"),
        ([{"a": n} for n in range(6)], ["a"], lambda s: 0.5, "the same value"),
        ([{"a": 1}] * 6, [], lambda s: 0.5, "Nothing differs"),
        ([{"a": n} for n in range(6)], ["a"], lambda s: None if s["a"] else 0.5, "1 finished runs are too few"),
    ],
)
def test_why_there_is_no_answer(tmp_path, settings, names, value, reason):
    found = parameter_importance(runs_of(tmp_path, settings, value), names, MONITOR, "max")
    assert not found.shares and reason in found.reason
