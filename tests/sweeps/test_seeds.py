"""seeds=3 as a multirun."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from genrec.config.command_line import Composer
from genrec.contracts import GenrecError
from genrec.sweeps.seeds import composed, with_seeds


def config(seed: int = 42, sweeper: str = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"):
    return lambda words: OmegaConf.create({"seed": seed, "hydra": {"sweeper": {"_target_": sweeper}}})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=tiger"], ["model=tiger"]),
        (["seeds=null", "seed=3"], ["seeds=null", "seed=3"]),
        (["model=tiger", "seeds=3"], ["-m", "model=tiger", "seed=7,8,9"]),
        (["seeds=2", "seed=1", "model=gat"], ["-m", "seed=1,2", "model=gat"]),
        (["seeds=2", "--config-dir", "mine"], ["-m", "seed=7,8", "--config-dir", "mine"]),
        (["model=gat", "seeds=2", "-m"], ["model=gat", "seed=7,8", "-m"]),  # argparse wants overrides side by side
        (["seeds=2", "--cfg", "job"], ["seeds=2", "--cfg", "job"]),
        (["-m", "optimizer.lr=1e-3,1e-2", "seeds=[5,1]"], ["-m", "optimizer.lr=1e-3,1e-2", "seed=5,1"]),
        (["seeds=9", "seeds=[ 4 ]"], ["-m", "seed=4"]),
    ],
)
def test_words(words: list[str], expected: list[str]) -> None:
    assert with_seeds(words, config(seed=7)) == expected


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "[]", "[1,1]", "[1,a]", ""])
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(GenrecError, match="seeds=5"):
        with_seeds([f"seeds={value}"], config())


def test_seeds_are_named_once() -> None:
    with pytest.raises(GenrecError, match="both name seeds"):
        with_seeds(["seeds=3", "seed=1,2"], config())


def test_a_search_has_one_seed() -> None:
    with pytest.raises(GenrecError, match="one by one"):
        with_seeds(["-m", "seeds=3"], config(sweeper="genrec.sweeps.optuna_sweeper.OptunaSweeper"))


def test_config_of_a_command_line_is_that_of_its_words_without_sweeps(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 5\n")
    words = ["-m", "--config-dir", str(tmp_path), "optimizer.lr=1e-3,1e-2", "k_values=[1,5]", "experiment=mine"]
    config = composed(words)
    assert (config.seed, config.k_values) == (5, [1, 5])
    assert with_seeds([*words, "seeds=2"]) == [*words, "seed=5,6"]
    assert composed(["model=none_such"]) is None


def test_every_job_composes() -> None:
    words = with_seeds(["model=gat", "seeds=2"])
    assert words == ["-m", "model=gat", "seed=42,43"]
    with Composer() as composer:
        assert composer.compose(["model=gat", "seed=43"]).seed == 43
