"""The sweeper as Hydra sees it, and the command ``-m sweep=optuna`` as a user does."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from genrec.artifacts import read_json
from genrec.config.sweeper_check import SEARCH
from genrec.records import read_sweep
from genrec.sweeps import register_sweepers
from genrec.sweeps.optuna_sweeper import OptunaSweeper

TINY = [
    "model.embedding_dim=16",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "model.num_heads=1",
    "model.head_dim=16",
    "model.feedforward_dim=16",
    "data.source.num_users=60",
    "data.source.num_items=30",
    "tokenizer.codebook_size=8",
    "hardware=cpu",
    "hardware.num_threads=1",
    "progress=false",
    "baselines=null",
    "logger=none",
]


def test_hydra_takes_the_sweeper_by_its_own_name() -> None:
    register_sweepers()
    plugins = Plugins.instance()
    node = OmegaConf.create({"_target_": SEARCH, "_recursive_": False, "n_trials": 3, "sampler": {"_target_": "a.B"}})
    sweeper = plugins._instantiate(node)
    assert isinstance(sweeper, OptunaSweeper) and sweeper.n_trials == 3
    assert f"{OptunaSweeper.__module__}.{OptunaSweeper.__qualname__}" == SEARCH


def test_hydra_still_refuses_what_was_not_registered() -> None:
    register_sweepers()
    with pytest.raises(RuntimeError, match="Invalid plugin"):
        Plugins.instance()._instantiate(OmegaConf.create({"_target_": "collections.Counter"}))
    assert Plugins.is_in_toplevel_plugins_module("hydra_plugins.anything")


def test_what_was_registered_travels_to_workers() -> None:
    register_sweepers()
    plugins = pickle.loads(pickle.dumps(Plugins.instance()))
    assert plugins.is_in_toplevel_plugins_module(SEARCH)


def test_registering_loads_neither_optuna_nor_torch() -> None:
    code = (
        "import sys; from genrec.sweeps import register_sweepers; register_sweepers(); "
        "print({'optuna', 'torch', 'polars', 'sqlalchemy', 'joblib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_mistake_ends_the_process_with_a_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweeper: Any = OptunaSweeper(params={"a": "interval(2,1)"})
    sweeper.config = OmegaConf.create({"hydra": {"runtime": {"choices": {}}, "sweep": {"dir": str(tmp_path)}}})
    sweeper.hydra_context, sweeper.launcher = type("Context", (), {"config_loader": None})(), object()
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as ended:
        sweeper.sweep([])
    assert ended.value.code == 1 and "from a lower to a higher number" in caplog.text


def test_options_are_plain_and_checked_when_the_search_begins() -> None:
    from genrec.contracts import GenrecError

    sweeper = OptunaSweeper(params=OmegaConf.create({"a": "1,2"}), n_trials=3)  # pyright: ignore[reportArgumentType]
    sweeper._make_plain()
    assert type(sweeper.params) is dict
    with pytest.raises(GenrecError, match=r"hydra.sweeper.sampler=.*expected one of tpe"):
        OptunaSweeper(sampler=object())._make_plain()  # pyright: ignore[reportArgumentType]


def search(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "genrec.run", "-m", "sweep=optuna", *TINY, f"runs_dir={folder}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A real search of four trials with pruning, in its folder."""
    root = tmp_path_factory.mktemp("searched")
    folder = root / "sweep of mine"
    done = search(
        root, f"hydra.sweep.dir='{folder}'", "hydra.sweeper.n_trials=4", "hydra.sweeper.pruner_startup_trials=1",
        "hydra.sweeper.pruner_warmup_epochs=1", "trainer.max_epochs=3", "optimizer.lr=choice(1e-2,1e-9)",
        "hydra.sweeper.sampler=grid", "optimizer.weight_decay=0.01", "trainer.patience=2,3",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_the_command_searches_prunes_and_tells_the_best(searched: tuple[Path, str]) -> None:
    folder, output = searched
    record = read_sweep(folder)
    assert [run.folder.name for run in record.runs] == ["0", "1", "2", "3"]
    hopeless = [run.state for run in record.runs if float(run.overrides["optimizer.lr"]) < 1e-6]
    assert hopeless == ["pruned", "pruned"] and record.runs[0].state == "finished"
    assert "4 of 4 trials" in output and "2 pruned" in output
    assert "best: val/recall@10" in output and "optimizer.lr=0.01" in output.partition("best: val/recall@10")[2]


def test_what_a_job_is_told_of_its_trial_is_no_override_of_the_run(searched: tuple[Path, str]) -> None:
    for run in read_sweep(searched[0]).runs:
        assert not [name for name in run.overrides if "hydra" in name or "TRIAL" in name]
        assert read_json(run.folder / "run.json")["choices"]["trainer"] == "advanced"
