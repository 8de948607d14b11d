"""The key of a config, which folder a run continues in, and what a held folder says about its run."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from genrec.artifacts import read_json, write_json
from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.run_folder import RunFolder, config_key, note_failure, remove_if_empty, resume_folder

KEY = "0123456789abcdef"
GROUPS = ("model", "scheduler", "split", "logger", "callbacks")


@cache
def composed(*overrides: str) -> DictConfig:
    return compose_config(overrides)


def key_of(*overrides: str) -> str:
    """The key after overrides; those of single values are put into one composed config, which is faster."""
    groups = tuple(item for item in overrides if item.partition("=")[0] in GROUPS)
    config = composed(*groups).copy()
    for item in overrides:
        name, _, value = item.partition("=")
        if name not in GROUPS:
            OmegaConf.update(config, name, yaml.safe_load(value))
    return config_key(config)


def run_in(folder: Path, *, state: str = "running", key: str = KEY, started: float = 1.0) -> Path:
    write_json(folder / "run.json", {"state": state, "config_key": key, "started": started})
    return folder


def resume(value: str | None, runs_dir: Path) -> Path | None:
    config = OmegaConf.create({"resume": value, "runs_dir": str(runs_dir)})
    return resume_folder(config, KEY)


# -- the key of a config


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=elsewhere",
        "runs_dir=/elsewhere",
        "cache_dir=/elsewhere",
        "resume=auto",
        "progress=false",
        "logger=csv",
        "logger=none",
        "callbacks=profiler",
        "callbacks=gradient_norm",
    ],
)
def test_key_is_blind_to_where_a_run_writes_and_how_it_is_watched(override: str) -> None:
    assert key_of(override) == key_of()


@pytest.mark.parametrize(
    "override",
    [
        "seed=7",
        "model.num_layers=1",
        "model=item_knn",
        "trainer.max_epochs=3",
        "trainer.patience=null",
        "optimizer.lr=0.5",
        "scheduler=constant",
        "data.source.num_users=9",
        "split=global_time",
        "encoder.dim=8",
        "tokenizer.max_iters=2",
        "k_values=[1]",
        "filter_seen=true",
        "baselines=null",
        "hardware.precision=bf16-mixed",
        "callbacks=weight_average",
        "callbacks=time_limit",
    ],
)
def test_key_changes_with_what_a_run_computes(override: str) -> None:
    assert key_of(override) != key_of()


def test_key_depends_on_values_not_on_their_spelling_or_order() -> None:
    assert config_key(composed("optimizer.lr=1e-2", "seed=7")) == config_key(composed("seed=7", "optimizer.lr=0.01"))


def test_key_leaves_the_config_as_it_is() -> None:
    config = compose_config()
    before = OmegaConf.to_yaml(config)
    config_key(config)
    assert OmegaConf.to_yaml(config) == before


# -- which folder to continue in


@pytest.mark.parametrize("newest", ["2020-01-01/a", "2030-01-01/b", "c"])
def test_auto_takes_the_newest_unfinished_run_of_the_config(newest: str, tmp_path: Path) -> None:
    for started, (name, state) in enumerate(
        {"2020-01-01/a": "failed", "2030-01-01/b": "running", "c": "failed"}.items()
    ):
        run_in(tmp_path / name, state=state, started=99.0 if name == newest else float(started))
    assert resume("auto", tmp_path) == tmp_path / newest


def test_auto_ignores_finished_runs_and_other_configs(tmp_path: Path) -> None:
    wanted = run_in(tmp_path / "wanted", started=1.0)
    run_in(tmp_path / "finished", started=2.0, state="finished")
    run_in(tmp_path / "other", started=3.0, key="another")
    assert resume("auto", tmp_path) == wanted


def test_auto_ignores_a_run_that_is_still_going_on(tmp_path: Path) -> None:
    dead = run_in(tmp_path / "dead", started=1.0)
    alive = run_in(tmp_path / "alive", started=2.0)
    with RunFolder(alive, KEY).held():
        assert resume("auto", tmp_path) == dead


def test_auto_starts_afresh_where_there_is_nothing_to_continue(tmp_path: Path) -> None:
    run_in(tmp_path / "finished", state="finished")
    assert resume("auto", tmp_path) is None
    assert resume("auto", tmp_path / "missing") is None


def test_nothing_is_continued_unasked(tmp_path: Path) -> None:
    run_in(tmp_path / "dead")
    assert resume(None, tmp_path) is None


def test_a_named_folder_is_continued(tmp_path: Path) -> None:
    run_in(tmp_path / "newer", started=9.0)
    named = run_in(tmp_path / "named", started=1.0)
    assert resume(str(named), tmp_path) == named


def test_a_folder_of_another_config_is_refused(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "other", key="another")
    with pytest.raises(GenrecError, match=r"another config.*overrides\.yaml"):
        resume(str(folder), tmp_path)


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match=r"no run folder.*run\.json"):
        resume(str(tmp_path), tmp_path)


# -- holding a folder


def state_of(folder: Path) -> str:
    return read_json(folder / "run.json")["state"]


def test_held_folder_says_running_then_finished(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "new" / "run", KEY).held():
        assert state_of(tmp_path / "new" / "run") == "running"
    record = read_json(tmp_path / "new" / "run" / "run.json")
    assert (record["state"], record["config_key"]) == ("finished", KEY)


@pytest.mark.parametrize("error", [ValueError, GenrecError, KeyboardInterrupt, SystemExit])
def test_failure_is_marked_and_passed_on(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), RunFolder(tmp_path, KEY).held():
        raise error("no")
    record = read_json(tmp_path / "run.json")
    assert record["state"] == ("killed" if error is KeyboardInterrupt else "failed")
    assert record["error"] and record["ended"] >= record["started"]
    assert resume("auto", tmp_path) == tmp_path  # and the lock is free again


def test_failure_is_told_in_the_words_of_the_error(tmp_path: Path) -> None:
    for error, told in ((GenrecError("Give k."), "Give k."), (OSError("disk full"), "OSError: disk full")):
        with pytest.raises(type(error)), RunFolder(tmp_path, KEY).held():
            raise error
        assert read_json(tmp_path / "run.json")["error"] == told
    with RunFolder(tmp_path, KEY).held(resumed=True):
        pass
    assert "error" not in read_json(tmp_path / "run.json")  # the next attempt went well


def test_end_is_told_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, KEY)
    with folder.held():
        folder.describe(model="tiger")
        assert state_of(tmp_path) == "running"
        folder.end("pruned")
    record = read_json(tmp_path / "run.json")
    assert (record["state"], record["model"]) == ("pruned", "tiger")


def test_job_that_failed_before_it_began_leaves_a_record(tmp_path: Path) -> None:
    note_failure(tmp_path / "3", composed("seed=7"), GenrecError("No such data."))
    record = read_json(tmp_path / "3" / "run.json")
    assert (record["state"], record["error"]) == ("failed", "No such data.")
    assert "seed: 7" in (tmp_path / "3" / "config.yaml").read_text(encoding="utf-8")
    note_failure(tmp_path / "3", composed("seed=7"), GenrecError("Another."))
    assert read_json(tmp_path / "3" / "run.json")["error"] == "No such data."


def test_job_that_failed_before_it_began_is_begun_when_its_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.run_folder.job_of_sweep", lambda: True)
    config = OmegaConf.create({"resume": "auto", "runs_dir": str(tmp_path), "output_dir": str(tmp_path / "3")})
    note_failure(tmp_path / "3", composed("seed=7"), GenrecError("No such data."))
    assert resume_folder(config, KEY) is None
    run_in(tmp_path / "3", state="failed")
    assert resume_folder(config, KEY) == tmp_path / "3"


def test_that_a_run_is_continued_is_not_among_its_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["seed=7", "resume=auto", "+model.resume=1"]
    known = OmegaConf.create({"overrides": {"task": words}})
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.initialized", lambda: True)
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: known)
    RunFolder(tmp_path, KEY).write_config(composed("seed=7"))
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == ["seed=7", "+model.resume=1"]


def test_second_holder_is_refused_and_leaves_the_first_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, KEY)
    with folder.held():
        with pytest.raises(GenrecError, match="Another process"), RunFolder(tmp_path, "other").held():
            pytest.fail("two held one folder")
        assert read_json(tmp_path / "run.json")["config_key"] == KEY
        assert state_of(tmp_path) == "running"
    assert state_of(tmp_path) == "finished"
    with folder.held():
        pass


def test_continued_run_keeps_the_time_it_was_started(tmp_path: Path) -> None:
    run_in(tmp_path, started=5.0)
    with RunFolder(tmp_path, KEY).held(resumed=True):
        pass
    assert read_json(tmp_path / "run.json")["started"] == 5.0


def test_new_run_in_the_folder_of_a_finished_one_starts_now(tmp_path: Path) -> None:
    run_in(tmp_path, started=5.0, state="finished")
    with RunFolder(tmp_path, KEY).held():
        pass
    assert read_json(tmp_path / "run.json")["started"] > 5.0


def test_run_log_holds_what_genrec_says_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="genrec")
    caplog.set_level(logging.INFO, logger="stranger")
    log = logging.getLogger("genrec.test")
    log.info("before")
    for turn in ("first", "second"):
        with RunFolder(tmp_path, KEY).held(resumed=turn == "second"):
            log.info("%s turn, naïve", turn)
            logging.getLogger("stranger").info("not ours")
    log.info("after")
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition("genrec.test: ")[2] for line in lines] == ["first turn, naïve", "second turn, naïve"]


def test_run_log_ends_with_the_run_that_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="genrec")
    handlers = list(logging.getLogger("genrec").handlers)
    with pytest.raises(ValueError), RunFolder(tmp_path, KEY).held():
        raise ValueError
    assert logging.getLogger("genrec").handlers == handlers


def test_run_log_does_not_depend_on_the_caller_s_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("genrec"), "level", logging.NOTSET)
    logging.getLogger("genrec").manager._clear_cache()  # pyright: ignore[reportAttributeAccessIssue]
    with RunFolder(tmp_path, KEY).held():
        logging.getLogger("genrec.test").info("epoch 1")
    assert "epoch 1" in (tmp_path / "run.log").read_text(encoding="utf-8")


def test_written_config_is_resolved_and_composes_the_same_run(tmp_path: Path) -> None:
    config = composed("seed=7", "k_values=[3]")
    RunFolder(tmp_path, KEY).write_config(config)
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "${" not in text
    written = OmegaConf.load(tmp_path / "config.yaml")
    assert isinstance(written, DictConfig)
    assert (written.seed, written.trainer.k_values) == (7, [3])
    assert config_key(written) == config_key(config)
    assert OmegaConf.load(tmp_path / "overrides.yaml") == []  # nothing was overridden by Hydra here


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    empty.mkdir()
    (full / "a").touch()
    remove_if_empty(full)
    remove_if_empty(empty)
    remove_if_empty(tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
