"""What a sweep needs is asked for by name, and every value of it is looked at before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from genrec.config.command_line import Composer, command_faults
from genrec.config.sweeper_check import alternatives, combinations, missing_extras, objective_faults


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as composer:
        yield composer


def faults_of(composer: Composer, *overrides: str) -> list[str]:
    return [str(fault) for fault in command_faults(composer, overrides, multirun=True)]


@pytest.mark.parametrize(
    ("overrides", "missing", "expected"),
    [
        (["sweep=optuna"], "optuna", "a search needs optuna: pip install 'genrec[sweep]'"),
        (["sweep=cmaes"], "cmaes", "a search needs cmaes: pip install 'genrec[sweep]'"),
        (["hydra/launcher=parallel"], "hydra_plugins.hydra_joblib_launcher", "pip install 'genrec[parallel]'"),
        (["hydra/launcher=slurm"], "hydra_plugins.hydra_submitit_launcher", "pip install 'genrec[slurm]'"),
        (["hydra/launcher=ray_cluster"], "hydra_plugins.hydra_ray_launcher", "pip install 'genrec[ray]'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_missing_extra_is_told_in_a_sentence(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, overrides: list[str], missing: str, expected: str
) -> None:
    found: list[Any] = []

    def find(name: str) -> object | None:
        found.append(name)
        return None if name == missing else object()

    monkeypatch.setattr("genrec.config.sweeper_check.find_spec", find)
    faults = faults_of(composer, *overrides, "seed=1,2")
    assert missing in found and len(faults) == 1 and expected in faults[0]


def test_no_plugins_at_all_is_a_missing_extra_too(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("genrec.config.sweeper_check.find_spec", find)
    (fault,) = faults_of(composer, "hydra/launcher=parallel", "seed=1,2")
    assert "genrec[parallel]" in fault


def test_a_grid_on_one_process_needs_no_extra(composer: Composer) -> None:
    config = composer.try_compose(("sweep=lr_patience",))
    assert not isinstance(config, Exception) and list(missing_extras(config.hydra)) == []


def test_ends_are_checked_where_the_condition_holds(composer: Composer) -> None:
    words = ["sweep=optuna", "trainer=simple,advanced", "trainer.patience=range(-2,4)"]
    (fault,) = faults_of(composer, *words)
    assert fault.startswith("trainer.patience=-2")  # 3 is right, and SimpleTrainer is never given any


def test_every_choice_is_checked_however_many_there_are(composer: Composer) -> None:
    words = [
        "hydra/sweeper=optuna",
        "seed=range(1,9)",
        "trainer.patience=1,2,3,4",
        "trainer=advanced",
        "optimizer.lr=1,2,x",
    ]
    assert [fault.split(":")[0] for fault in faults_of(composer, *words)] == ["optimizer.lr=x"]


def test_a_fault_of_the_space_hides_no_other(composer: Composer) -> None:
    faults = faults_of(composer, "sweep=optuna", "optimizer.lr=interval(2,1)", "model.num_layers=many")
    assert len(faults) == 2 and {fault.partition("=")[0] for fault in faults} == {"optimizer.lr", "model.num_layers"}


def test_options_of_an_own_sampler_are_checked(composer: Composer) -> None:
    words = ["sweep=random", "hydra.sweeper.sampler={_target_:optuna.samplers.NSGAIISampler,populaton_size:5}"]
    (fault,) = faults_of(composer, *words)
    assert "Did you mean population_size?" in fault


@pytest.mark.parametrize(
    ("name", "is_fine"),
    [
        ("val/recall@10", True),
        ("train/loss", True),
        ("seconds/total", True),
        ("resources/parameters", True),
        ("peak/fit", True),
        ("val/click/ece", True),
        ("val/click/calibration", False),
        ("val/calibration", False),
        ("tokenizer/usage_rate/level_0", True),
        ("val/recall@7", False),
        ("test/recall@10", False),
        ("baseline/item_knn/test/recall@10", False),
        ("ceiling/test/recall@10", False),
    ],
)
def test_objectives_are_metrics_that_may_choose(name: str, is_fine: bool) -> None:
    assert (not list(objective_faults(name, [5, 10]))) is is_fine


def test_a_ratio_is_no_objective_and_the_error_that_tells_of_it_is_named() -> None:
    (fault,) = objective_faults("val/click/calibration", [10])
    assert "is best at 1, and neither the largest nor the smallest is better" in str(fault)
    assert "Did you mean val/click/ece?" in str(fault)


def test_combinations_of_many_are_each_value_once(composer: Composer) -> None:
    assert combinations([["a", "b"], ["c", "d"]]) == [["a", "c"], ["a", "d"], ["b", "c"], ["b", "d"]]
    axes = [[f"{axis}{value}" for value in range(5)] for axis in "abc"]
    jobs = combinations(axes)
    assert len(jobs) == 1 + 3 * 4 and {word for job in jobs for word in job} == {word for axis in axes for word in axis}


def test_an_interval_stands_for_its_ends(composer: Composer) -> None:
    (item,) = composer.parse("a=int(interval(1,9))")  # pyright: ignore[reportGeneralTypeIssues]
    assert alternatives(item) == ["a=1", "a=9"]
