import shlex
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from genrec.artifacts import write_text
from genrec.config import compose_config
from genrec.config.command_line import Composer
from genrec.records import read_sweep
from genrec.report.command_lines import best_command, resume_command, run_command, sweep_command
from genrec.run_folder import config_key
from tests.report.fake_sweep import fake_run, fake_sweep

PROGRAM = ["python", "-m", "genrec.run"]


def overrides_of(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[:3] == PROGRAM and "-m" not in words[3:]
    return words[3:]


def composed_job(folder: Path, overrides: list[str], value: float, config_dir: Path | None = None) -> str:
    """A job as a sweep leaves it: its config, its overrides, its choices; returns its key."""
    config = compose_config(overrides, config_dir)
    with Composer(config_dir) as composer:
        composed = composer.try_compose(overrides)
    assert not isinstance(composed, Exception)
    choices = {str(name): str(option) for name, option in composed.hydra.runtime.choices.items() if option is not None}
    fake_run(folder, {}, value, choices=choices)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_text(folder / "overrides.yaml", yaml.safe_dump(overrides))
    return config_key(config)


def test_the_line_composes_the_config_of_the_best_job_of_lr_patience(tmp_path):
    fake_sweep(tmp_path, command=["-m", "sweep=lr_patience"])
    jobs = [
        ["sweep=lr_patience", f"trainer.patience={p}", f"optimizer.lr={lr}"] for p in (2, 4) for lr in ("1e-3", "3e-4")
    ]
    keys = [composed_job(tmp_path / str(n), job, [0.1, 0.2, 0.4, 0.3][n]) for n, job in enumerate(jobs)]
    words = overrides_of(best_command(read_sweep(tmp_path)))
    assert words == ["trainer=advanced", "trainer.patience=4", "optimizer.lr=1e-3"]
    assert config_key(compose_config(words)) == keys[2]
    assert len(set(keys)) == 4


SWEEP = """
# @package _global_
defaults:
  - override /hydra/sweeper: basic
  - override /trainer: advanced
  - override /scheduler: cosine
  - override /callbacks: none
trainer:
  max_epochs: 7
  patience: 9
k_values: [1, 10]
monitor: val/ndcg@10
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      optimizer.lr: 1e-3,1e-4
"""


def test_what_the_file_of_a_sweep_sets_besides_its_search_is_spelled_out(tmp_path):
    write_text(tmp_path / "mine" / "sweep" / "own.yaml", SWEEP)
    options = ["--config-dir", str(tmp_path / "mine")]
    fake_sweep(tmp_path / "sweep", command=["-m", *options, "sweep=own"])
    job = ["sweep=own", "trainer.patience=3", "optimizer.lr=1e-3"]
    key = composed_job(tmp_path / "sweep" / "0", job, 0.5, tmp_path / "mine")
    words = overrides_of(best_command(read_sweep(tmp_path / "sweep")))
    assert words[:2] == options and "sweep=own" not in words
    assert {"trainer.max_epochs=7", "scheduler=cosine", "trainer.patience=3"} <= set(words)
    assert "trainer.patience=9" not in words and "callbacks=none" not in words
    assert config_key(compose_config(words[2:], tmp_path / "mine")) == key


def test_callbacks_of_the_file_that_change_results_are_spelled_out(tmp_path):
    write_text(tmp_path / "mine" / "sweep" / "own.yaml", SWEEP.replace("callbacks: none", "callbacks: weight_average"))
    fake_sweep(tmp_path / "sweep", command=["-m", "--config-dir", str(tmp_path / "mine"), "sweep=own"])
    composed_job(tmp_path / "sweep" / "0", ["sweep=own", "optimizer.lr=1e-3"], 0.5, tmp_path / "mine")
    assert "callbacks=weight_average" in overrides_of(best_command(read_sweep(tmp_path / "sweep")))


def test_a_sweep_whose_file_is_gone_or_unclear_is_kept_without_its_search(tmp_path):
    write_text(tmp_path / "mine" / "sweep" / "own.yaml", SWEEP.replace("override /scheduler", "/scheduler@spare"))
    options = ["--config-dir", str(tmp_path / "mine")]
    fake_sweep(tmp_path / "sweep", command=["-m", *options, "sweep=own"])
    fake_run(tmp_path / "sweep" / "0", {"sweep": "own", "optimizer.lr": "1e-3"}, 0.5)
    assert overrides_of(best_command(read_sweep(tmp_path / "sweep"))) == [
        *options, "sweep=own", "hydra.mode=RUN", "optimizer.lr=1e-3",
    ]  # fmt: skip


def test_the_kept_sweep_composes_to_the_job(tmp_path):
    job = ["sweep=lr_patience", "trainer.patience=4", "optimizer.lr=1e-3"]
    assert config_key(compose_config([*job, "hydra.mode=RUN"])) == config_key(compose_config(job))


def test_words_are_quoted_kept_with_their_signs_and_freed_of_how_the_sweep_ran(tmp_path):
    fake_sweep(tmp_path)
    fake_run(tmp_path / "0", {}, 0.5)
    given = [
        "+model.extra=a b",
        "~baselines.item_knn",
        "k_values=[1,10]",
        "resume=auto",
        "seed=3",
        "data.path=it's.csv",
    ]
    write_text(tmp_path / "0" / "overrides.yaml", yaml.safe_dump(given))
    record = read_sweep(tmp_path)
    words = overrides_of(run_command(record, record.runs[0]))
    assert sorted(words) == sorted(word for word in given if not word.startswith("resume"))


@pytest.mark.parametrize(
    "value",
    ["two words", 'a "quoted" one', "back\\slash\\", "null", "1e-3", "a,b", "plain/path.csv", "", "x: [y]", True, 3],
)
def test_plain_values_survive_the_way_through_hydra(tmp_path, value):
    write_text(tmp_path / "mine" / "sweep" / "own.yaml", yaml.safe_dump({"data": {"path": value}}))
    fake_sweep(tmp_path / "sweep", command=["-m", "--config-dir", str(tmp_path / "mine")])
    fake_run(tmp_path / "sweep" / "0", {"sweep": "own"}, 0.5, config={"data": {"path": value}})
    words = overrides_of(best_command(read_sweep(tmp_path / "sweep")))
    (word,) = [word for word in words if word.startswith("data.path=")]
    with Composer() as composer:
        parsed = composer.parse(word)
    assert isinstance(parsed, list) and parsed[0].value() == value


def test_going_on_with_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_sweep(tmp_path / "outputs" / "s", state="running", command=["-m", "a.b=x y", "resume=auto"])
    record = read_sweep(tmp_path / "outputs" / "s")
    assert shlex.split(resume_command(record)) == [*PROGRAM, "-m", "a.b=x y", "resume=outputs/s"]
    assert shlex.split(sweep_command(record)) == [*PROGRAM, "-m", "a.b=x y", "resume=auto"]
    fake_sweep(tmp_path / "outputs" / "s", state="finished")
    assert resume_command(read_sweep(tmp_path / "outputs" / "s")) == ""


def test_nothing_finished_has_no_best_command(tmp_path):
    fake_sweep(tmp_path)
    fake_run(tmp_path / "0", {"a": 1}, state="failed")
    assert best_command(read_sweep(tmp_path)) == ""
