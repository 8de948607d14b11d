"""Which folder a killed sweep continues in."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from genrec.artifacts import write_json, write_text
from genrec.contracts import GenrecError
from genrec.sweeps.command import continued
from genrec.sweeps.resume import resumed_sweep, sweep_key

WORDS = ["-m", "model=gat", "optimizer.lr=1,2"]


def make_sweep(folder: Path, words: list[str] = WORDS, **facts: Any) -> Path:
    record = {"state": "running", "started": 1.0, "key": sweep_key(words), "command": words}
    write_json(folder / "sweep.json", {**record, **facts})
    return folder


@pytest.mark.parametrize(
    "word",
    [
        "resume=auto",
        "hydra.sweep.dir=x",
        "progress=false",
        "logger=none",
        "callbacks=profiler",
        "callbacks=none",
        "+callbacks.gradient_norm.every_steps=9",
        "hydra.sweeper.n_trials=90",
        "hydra.sweeper.n_jobs=2",
        "hydra/launcher=joblib",
        "--multirun",
    ],
)
def test_how_it_is_watched_and_how_long_it_goes_on_is_no_part_of_the_key(word: str) -> None:
    assert sweep_key([*WORDS, word]) == sweep_key(WORDS)


@pytest.mark.parametrize(
    "word",
    [
        "seed=3",
        "hydra.sweeper.sampler=random",
        "runs=2",
        "trainer=advanced",
        "callbacks=weight_average",
        "callbacks=none,profiler",
        "callbacks.weight_average.decay=0.9",
        "+callbacks.mine={_target_:mine.Callback}",
    ],
)
def test_what_is_searched_is_part_of_the_key(word: str) -> None:
    assert sweep_key([*WORDS, word]) != sweep_key(WORDS)


def test_how_hydra_wants_a_new_key_spelled_is_no_part_of_the_key() -> None:
    assert sweep_key(["++data.source={num_items:9}"]) == sweep_key(["data.source={num_items:9}"])


def test_order_of_words_does_not_matter() -> None:
    assert sweep_key(["b=1", "-m", "a=2"]) == sweep_key(["a=2", "b=1", "-m"])


def test_auto_is_the_newest_unfinished_of_the_same_command(tmp_path: Path) -> None:
    make_sweep(tmp_path / "multirun" / "d" / "old", started=1.0)
    newest = make_sweep(tmp_path / "multirun" / "d" / "new", started=2.0)
    make_sweep(tmp_path / "multirun" / "d" / "done", started=3.0, state="finished")
    make_sweep(tmp_path / "multirun" / "d" / "other", [*WORDS, "seed=1"], started=4.0)
    running = make_sweep(tmp_path / "multirun" / "d" / "running", started=5.0)
    write_text(tmp_path / "multirun" / "d" / "broken" / "sweep.json", "{")
    with open(running / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert resumed_sweep(WORDS, "auto", tmp_path) == newest
    assert resumed_sweep(WORDS, "auto", tmp_path) == running
    assert resumed_sweep(["-m", "model=tiger"], "auto", tmp_path) is None


def make_jobs(folder: Path, *states: str) -> Path:
    for number, state in enumerate(states):
        write_json(folder / str(number) / "run.json", {"state": state, "config_key": "k", "started": 1.0})
    return folder


def test_auto_takes_what_has_failed_for_unfinished(tmp_path: Path) -> None:
    root = tmp_path / "multirun" / "d"
    failed = make_jobs(make_sweep(root / "failed", started=2.0, state="finished"), "finished", "failed", "pruned")
    make_jobs(make_sweep(root / "older", started=1.0, state="finished"), "finished")
    make_jobs(make_sweep(root / "search", started=9.0, state="finished", sweeper="optuna"), "failed")
    make_sweep(root / "search", [*WORDS, "hydra/sweeper=optuna"], started=9.0, state="finished", sweeper="optuna")
    assert resumed_sweep(WORDS, "auto", tmp_path) == failed
    assert resumed_sweep([*WORDS, "hydra/sweeper=optuna"], "auto", tmp_path) is None  # its trials are not repeated
    make_jobs(make_sweep(root / "anew", started=3.0, state="finished"), "finished", "finished", "pruned")
    assert resumed_sweep(WORDS, "auto", tmp_path) is None


def test_named_folder_must_hold_a_sweep_of_this_command(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "s", state="finished")
    assert resumed_sweep(WORDS, str(folder), tmp_path) == folder
    with pytest.raises(GenrecError, match="no folder of a sweep"):
        resumed_sweep(WORDS, str(tmp_path), tmp_path)
    with pytest.raises(GenrecError, match=r"another command: python -m genrec\.run -m model=gat optimizer\.lr=1,2"):
        resumed_sweep(["-m", "model=tiger"], str(folder), tmp_path)


def test_words_of_a_continued_sweep_name_its_folder(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "multirun" / "s")
    words = [*WORDS, f"runs_dir={tmp_path}", "resume=auto"]
    assert continued(words) == [*words[:-1], f"hydra.sweep.dir='{folder}'", "resume=auto"]
    flag_last = [*words[1:], "-m"]  # argparse wants overrides side by side
    assert continued(flag_last) == [*flag_last[:-2], f"hydra.sweep.dir='{folder}'", "resume=auto", "-m"]
    assert continued([*WORDS, "resume=null"]) == [*WORDS, "resume=null"]
    single = ["model=gat", "resume=auto"]
    assert continued(single) == single  # a run finds its own folder
    nothing = ["-m", "model=tiger", f"runs_dir={tmp_path}", "resume=auto"]
    assert continued(nothing) == nothing


def test_a_list_of_folders_is_no_folder() -> None:
    with pytest.raises(GenrecError, match="resume=auto,x is no folder of a sweep"):
        continued([*WORDS, "resume=auto,x"])


def test_sweep_that_needs_no_flag_is_continued_as_well(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "multirun" / "s", ["sweep=random"])
    words = ["sweep=random", f"runs_dir={tmp_path}", "resume=auto"]
    assert f"hydra.sweep.dir='{folder}'" in continued(words)


def test_folders_with_signs_of_hydra_s_language_are_found_and_named(tmp_path: Path) -> None:
    root = tmp_path / "it's a, {b}"
    folder = make_sweep(root / "multirun" / "s")
    quoted = str(root).replace("'", "\\'")
    found = continued([*WORDS, f"runs_dir='{quoted}'", "resume=auto"])
    (word,) = (word for word in found if word.startswith("hydra.sweep.dir="))
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.value() == str(folder)
