"""Every recipe of a sweep and every launcher composes, can be instantiated, and passes the checks: adding one edits no
test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from genrec.config import conf_dir
from genrec.config.command_line import Composer, command_faults
from genrec.config.search_space import read_search
from genrec.config.sweeper_check import SEARCH
from genrec.sweeps.optuna_sweeper import OptunaSweeper

SWEEPS = sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml"))
LAUNCHERS = sorted(path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml"))
PLUGINS = {"joblib", "submitit_local", "submitit_slurm", "ray", "ray_aws", "basic"}


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as composer:
        yield composer


def hydra_node(composer: Composer, *overrides: str) -> Any:
    config = composer.try_compose(overrides)
    assert not isinstance(config, Exception), config
    return config.hydra


def test_the_recipes_that_are_promised_are_there() -> None:
    assert {"lr_patience", "optuna", "cmaes", "random", "pareto"} <= set(SWEEPS)
    assert {"parallel", "slurm", "ray_cluster"} <= set(LAUNCHERS)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_recipe_composes_and_its_keys_exist(composer: Composer, sweep: str) -> None:
    assert command_faults(composer, [f"sweep={sweep}"], multirun=True) == []
    node = hydra_node(composer, f"sweep={sweep}")
    assert str(node.mode).rpartition(".")[2] == "MULTIRUN" and node.sweeper.params


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_recipe_says_how_it_is_started(sweep: str) -> None:
    lines = (conf_dir() / "sweep" / f"{sweep}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_" and f"-m sweep={sweep}" in lines[1]


@pytest.mark.parametrize("sweep", [name for name in SWEEPS if name != "lr_patience"])
def test_a_search_proposes_trials_that_compose(composer: Composer, sweep: str) -> None:
    config: Any = composer.try_compose((f"sweep={sweep}",))
    sweeper = config.hydra.sweeper
    assert sweeper._target_ == SEARCH
    options: Any = OmegaConf.to_container(sweeper, resolve=True)
    loader = composer.hydra.config_loader
    space, _ = read_search(options["params"], [f"sweep={sweep}"], options["conditions"], loader, config)
    for example in space.examples(4):
        trial = composer.try_compose((f"sweep={sweep}", *example))
        assert not isinstance(trial, Exception), trial


def test_every_option_of_the_sweeper_is_in_its_config_with_its_default(composer: Composer) -> None:
    node: Any = OmegaConf.to_container(hydra_node(composer, "hydra/sweeper=optuna", "seed=42").sweeper, resolve=True)
    options = {name: value for name, value in node.items() if not name.startswith("_")}
    defaults = {name: getattr(OptunaSweeper(), name) for name in options}
    assert {**defaults, "params": {}, "conditions": {}} == options
    assert set(options) == {field for field in OptunaSweeper.__dataclass_fields__ if not field.startswith("_")}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_composes_and_hides_none_of_a_plugin(composer: Composer, launcher: str) -> None:
    target = hydra_node(composer, f"hydra/launcher={launcher}").launcher._target_
    assert target.startswith("hydra_plugins.") and launcher not in PLUGINS


@pytest.mark.parametrize(
    ("launcher", "known"),
    [("parallel", "joblib_launcher.config.JobLibLauncherConf"), ("slurm", "submitit_launcher.config.SlurmQueueConf")],
)
def test_a_launcher_takes_every_key_of_its_config(composer: Composer, launcher: str, known: str) -> None:
    node = hydra_node(composer, f"hydra/launcher={launcher}").launcher
    keys = {name for name in node if name != "_target_"}
    assert keys <= set(get_class(f"hydra_plugins.hydra_{known}").__dataclass_fields__)


def test_files_of_a_job_of_slurm_lie_beside_the_sweep(composer: Composer, tmp_path: Path) -> None:
    config = composer.try_compose(("hydra/launcher=slurm", f"hydra.sweep.dir={tmp_path}"))
    assert not isinstance(config, Exception)
    assert config.hydra.launcher.submitit_folder == f"{tmp_path}/.submitit/%j"
