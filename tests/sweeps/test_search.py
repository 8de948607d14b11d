"""A search: numbers, folders, failures and the same proposals after a kill, on functions instead of trainings."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import TrialState

from genrec.artifacts import write_json
from genrec.config.search_space import read_space
from genrec.contracts import GenrecError
from genrec.sweeps.pruning import VARIABLE
from genrec.sweeps.search import Search, most_epochs
from genrec.sweeps.storage import open_storage
from tests.sweeps.search_toys import MONITOR, Job, World, write_run

SPACE = ("lr=tag(log,interval(1e-4,1))", "depth=range(1,5)", "kind=a,b", "extra=interval(0,1)")
ONLY_B = {"extra": "kind=b"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "sweep")


def peak(values: dict[str, Any]) -> dict[str, float]:
    """Best at lr=0.01, depth=3, kind=b, extra=0.5."""
    score = -abs(math.log10(values["lr"]) + 2) - abs(values["depth"] - 3) / 3 + (values["kind"] == "b") / 2
    return {MONITOR: score - abs(values.get("extra", 0.5) - 0.5)}


def proposed(world: World) -> list[tuple[str, dict[str, Any]]]:
    study = optuna.load_study(study_name="genrec", storage=open_storage(world.storage))
    return [(trial.state.name, trial.params) for trial in study.trials]


def states(search: Search) -> list[str]:
    return [trial.state.name for trial in search.study.trials]


def constant(**result: Any) -> Job:
    return lambda values: result


def test_trial_job_and_folder_have_one_number(world: World) -> None:
    search = world.search(peak, SPACE, n_trials=5, n_jobs=2, storage=None)
    best = search.run()
    assert world.launcher.calls == [(0, 2), (2, 2), (4, 1)]
    trials = search.study.trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    for trial in trials:
        assert Path(trial.user_attrs["folder"]) == world.folder / str(trial.number)
        assert trial.value == peak(world.launcher.seen[trial.number])[MONITOR]
    assert (world.folder / "study.db").exists()
    assert best == max(trial.value for trial in trials if trial.value is not None)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_search_finds_more_than_chance(tmp_path: Path, sampler: str) -> None:
    words = ("lr=tag(log,interval(1e-8,1))", "other=interval(-4,4)")

    def bowl(values: dict[str, Any]) -> dict[str, float]:
        return {MONITOR: -((math.log10(values["lr"]) + 2) ** 2) - values["other"] ** 2}

    found = World(tmp_path / "search").search(bowl, words, sampler=sampler, n_trials=40, startup_trials=5).run()
    chance = World(tmp_path / "chance").search(bowl, words, sampler="random", n_trials=40).run()
    assert found is not None and chance is not None
    assert found > max(chance, -0.1)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random", "grid"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path: Path, sampler: str, n_jobs: int) -> None:
    words = SPACE if sampler != "grid" else ("lr=0.1,0.01", "depth=range(1,5)", "kind=a,b", "extra=range(0,0.5,0.2)")
    options: dict[str, Any] = dict(
        sampler=sampler, n_jobs=n_jobs, n_trials=8, startup_trials=2, conditions=ONLY_B, seed=3
    )
    whole, parts = World(tmp_path / "whole"), World(tmp_path / "parts")
    whole.search(peak, words, **options).run()
    with pytest.raises(KeyboardInterrupt):
        parts.search(peak, words, killed_at=5, **options).run()
    assert proposed(parts)[5][0] == "RUNNING"
    search = parts.search(peak, words, **options)
    search.run()
    assert proposed(parts) == proposed(whole)
    assert {state for state, _ in proposed(parts)} == {"COMPLETE"}
    assert min(parts.launcher.seen) == (5 if n_jobs == 1 else 4)  # what was told is not run again


def test_a_trial_that_was_killed_while_it_was_asked_for_is_proposed_again(tmp_path: Path) -> None:
    whole, parts = World(tmp_path / "whole"), World(tmp_path / "parts")
    whole.search(peak, SPACE, n_trials=4).run()
    parts.search(peak, SPACE, n_trials=3).run()
    search = parts.search(peak, SPACE, n_trials=4)
    search.study.ask()  # and no parameter of it was drawn
    parts.search(peak, SPACE, n_trials=4).run()
    assert proposed(parts) == proposed(whole)


def test_another_seed_proposes_other_trials(tmp_path: Path) -> None:
    one, two = World(tmp_path / "one"), World(tmp_path / "two")
    one.search(peak, SPACE, n_trials=3, seed=1).run()
    two.search(peak, SPACE, n_trials=3, seed=2).run()
    assert all(first != second for first, second in zip(proposed(one), proposed(two), strict=True))


def test_a_finished_search_can_be_made_longer(world: World) -> None:
    world.search(peak, SPACE, n_trials=2).run()
    world.search(peak, SPACE, n_trials=2).run()
    assert world.launcher.calls == []
    world.search(peak, SPACE, n_trials=5).run()
    assert world.launcher.calls == [(2, 1), (3, 1), (4, 1)]


def test_trials_that_were_killed_apart_are_launched_under_their_own_numbers(world: World) -> None:
    search = world.search(peak, SPACE, n_trials=4, n_jobs=4)
    for _ in range(4):
        search._ask()
    for number in (1, 2):
        search.study.tell(number, 1.0)
    world.search(peak, SPACE, n_trials=4, n_jobs=4).run()
    assert world.launcher.calls == [(0, 1), (3, 1)]


def test_a_trial_that_is_killed_again_and_again_fails(world: World) -> None:
    for _ in range(10):
        with pytest.raises(KeyboardInterrupt):
            world.search(peak, SPACE, n_trials=2, killed_at=0).run()
    search = world.search(peak, SPACE, n_trials=2, killed_at=0)
    search.run()
    assert states(search) == ["FAIL", "COMPLETE"]
    assert "killed 10 times" in search.study.trials[0].user_attrs["error"]


def test_a_job_that_still_runs_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        world.search(peak, SPACE, n_trials=1, killed_at=0).run()
    waited: list[float] = []
    monkeypatch.setattr("genrec.artifacts.is_locked", lambda path: len(waited) < 3)
    monkeypatch.setattr("genrec.sweeps.search.time.sleep", waited.append)
    world.search(peak, SPACE, n_trials=1).run()
    assert len(waited) == 3


# -- how trials end


def test_runs_that_fail_are_failed_trials_and_the_search_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ends = iter([
        {MONITOR: 0.5}, {"state": "failed"}, {"state": "nothing"}, {"val/loss": 1.0},
        {"state": "running"}, {"state": "pruned", MONITOR: 0.9}, {MONITOR: 0.6},
    ])  # fmt: skip
    search = world.search(lambda values: next(ends), SPACE, n_trials=7)
    with caplog.at_level(logging.INFO):
        assert search.run() == 0.6
    assert states(search) == ["COMPLETE", *["FAIL"] * 4, "PRUNED", "COMPLETE"]
    errors = [trial.user_attrs.get("error", "") for trial in search.study.trials]
    assert errors[1] == "the data is missing"
    assert "left no run in" in errors[2]
    assert errors[3] == f"it measured no {MONITOR}, which is searched for, but val/loss"
    assert errors[4] == "it was killed"
    assert "7 of 7 trials (2 finished, 1 pruned, 4 failed); best val/recall@10 0.6 (trial 6: lr=" in caplog.text


def test_a_launcher_that_raises_costs_its_trials_only(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def job(values: dict[str, Any]) -> dict[str, Any]:
        if len(world.launcher.seen) == 2:
            raise RuntimeError("a worker died")
        return peak(values)

    search = world.search(job, SPACE, n_trials=4, n_jobs=2)
    search.run()
    assert states(search) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]  # the first had left its result before
    assert "a worker died" in caplog.text


def test_what_cannot_be_composed_fails_alone(world: World) -> None:
    search = world.search(constant(**{MONITOR: 1.0}), ("model=fine,broken",), sampler="grid", n_jobs=2)
    search.run()
    assert states(search) == ["COMPLETE", "FAIL"]
    assert search.study.trials[1].user_attrs["error"] == "there is no broken"
    assert world.launcher.calls == [(0, 1)]


def test_failures_in_a_row_end_the_search(world: World, caplog: pytest.LogCaptureFixture) -> None:
    search = world.search(constant(state="failed"), SPACE, n_trials=30, max_failures=3)
    assert search.run() is None
    assert states(search) == ["FAIL"] * 3
    assert "3 trials failed in a row" in caplog.text and "No trial finished" in caplog.text


def test_failures_with_results_between_do_not_end_it(world: World) -> None:
    search = world.search(
        lambda values: {"state": "failed"} if len(world.launcher.seen) % 3 else {MONITOR: 1.0},
        SPACE, n_trials=9, max_failures=3,
    )  # fmt: skip
    search.run()
    assert states(search).count("FAIL") == 6


# -- what is searched for


def test_losses_are_minimised(world: World) -> None:
    search = world.search(
        lambda values: {"val/loss": values["lr"]}, ("lr=1,2,3",), sampler="grid", objectives=["val/loss"]
    )
    assert search.run() == 1.0


def test_directions_overrule_what_the_name_suggests(world: World) -> None:
    options: dict[str, Any] = dict(sampler="grid", objectives=["val/loss"], directions=["max"])
    assert world.search(lambda values: {"val/loss": values["lr"]}, ("lr=1,2,3",), **options).run() == 3.0


def test_several_objectives_end_in_a_front(world: World, caplog: pytest.LogCaptureFixture) -> None:
    sizes = {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.6}

    def job(values: dict[str, Any]) -> dict[str, float]:
        number = len(world.launcher.seen) - 1
        write_json(world.folder / str(number) / "resources.json", {"parameters": 100 * values["depth"]})
        return {MONITOR: sizes[values["depth"]]}

    goals = [MONITOR, "resources/parameters"]
    search = world.search(job, ("depth=range(1,5)",), sampler="grid", objectives=goals)
    with caplog.at_level(logging.INFO):
        assert search.run() is None
    assert {trial.params["depth"] for trial in search.study.best_trials} == {1, 2, 4}  # 3 is larger and worse than 2
    assert "3 trials are better than all others in some respect" in caplog.text
    assert "val/recall@10 0.5, resources/parameters 200 (trial 1: depth=2)" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"objectives": [MONITOR, "val/loss"], "pruner": "median"}, "several objectives cannot prune"),
        ({"objectives": ["val/loss"], "pruner": "asha"}, "goes the other way"),
        ({"objectives": [MONITOR, "val/loss"], "sampler": "cmaes"}, "one objective"),
        ({"pruner": "hyperband"}, r"trainer\.max_epochs says nothing"),
    ],
)
def test_options_that_exclude_each_other_are_refused(world: World, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(GenrecError, match=expected):
        world.search(peak, SPACE, **options).run()


@pytest.mark.parametrize(("words", "expected"), [((), 30), (("trainer.max_epochs=3,9",), 9),
                                                 (("trainer.max_epochs=range(2,8)",), 7)])  # fmt: skip
def test_hyperband_knows_the_most_epochs_of_any_trial(words: tuple[str, ...], expected: int) -> None:
    space, _ = read_space(OverridesParser.create().parse_overrides(["lr=interval(0,1)", *words]))
    assert most_epochs(OmegaConf.create({"trainer": {"max_epochs": 30}}), space) == expected


def test_a_study_of_another_search_is_not_continued(world: World) -> None:
    world.search(peak, SPACE, n_trials=1).run()
    with pytest.raises(GenrecError, match=r"about another search: its space was .*study_name"):
        world.search(peak, SPACE[:2], n_trials=2)
    with pytest.raises(GenrecError, match="about another search: its objectives was"):
        world.search(peak, SPACE, n_trials=2, objectives=["val/ndcg@10"])


def test_studies_of_one_storage_are_told_apart_by_name(world: World, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    world.search(peak, SPACE, n_trials=1, storage=storage, study_name="first").run()
    search = world.search(peak, SPACE[:2], n_trials=1, storage=storage, study_name="second")
    search.run()
    assert states(search) == ["COMPLETE"]
    assert not (world.folder / "study.db").exists()


# -- what jobs are told


@pytest.mark.parametrize("name", ["plain", "with space, comma & 'quotes' $HOME =|"])
def test_a_job_that_may_be_pruned_knows_its_trial(tmp_path: Path, name: str) -> None:
    world = World(tmp_path / name)
    world.search(peak, SPACE, n_trials=2, pruner="median", storage=None).run()
    address = f"sqlite:///{world.folder / 'study.db'}|genrec|"
    assert [seen[f"hydra.job.env_set.{VARIABLE}"] for seen in world.launcher.seen.values()] == [
        address + "0",
        address + "1",
    ]


def test_a_job_that_is_not_pruned_is_told_nothing(world: World) -> None:
    world.search(peak, (*SPACE, "model=tiger"), n_trials=1).run()
    assert set(world.launcher.seen[0]) - {"extra"} == {"lr", "depth", "kind", "model"}


def test_batches_are_as_large_as_the_launcher_is_wide(world: World) -> None:
    search = world.search(peak, SPACE)
    for launcher, expected in [({}, 1), ({"n_jobs": 3}, 3), ({"array_parallelism": 8}, 8)]:
        search.config.hydra.launcher = launcher
        assert search._at_once() == expected
    search.options.n_jobs = 2
    assert search._at_once() == 2


def test_state_of_a_trial_survives_in_what_is_stored(world: World) -> None:
    write_run(world.folder / "0", "running", {})  # of an attempt that was killed
    search = world.search(constant(state="pruned"), SPACE, n_trials=1)
    search.run()
    assert search.study.trials[0].state == TrialState.PRUNED
