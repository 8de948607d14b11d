"""Pruning from within a trial: who is ended, what a resumed trial reports, and storages that fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Literal

import optuna
import pytest

from genrec.sweeps import pruning
from genrec.sweeps.pruning import PRUNER, VARIABLE, TrialWatch, current_pruner, trial_address
from genrec.sweeps.samplers import pruner_node
from genrec.sweeps.storage import open_storage

GOOD = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def study_in(
    folder: Path, pruner: str = "median", direction: Literal["minimize", "maximize"] = "maximize", file: str = "sqlite"
) -> tuple[str, optuna.Study]:
    """A study with one trial that finished well, and its address."""
    url = f"sqlite:///{folder / 'study.db'}" if file == "sqlite" else f"journal:{folder / 'study.log'}"
    study = optuna.create_study(study_name="s", storage=open_storage(url), direction=direction)
    study.set_user_attr(PRUNER, pruner_node(pruner, startup_trials=1, warmup_epochs=2, reduction=2, max_epochs=6))
    trial = study.ask()
    for epoch, value in enumerate(GOOD, start=1):
        trial.report(value, epoch)
    study.tell(trial, GOOD[-1])
    return url, study


def watch(url: str, study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> TrialWatch:
    """What a job of the next trial is given."""
    monkeypatch.setenv(VARIABLE, trial_address(url, "s", study.ask().number))
    found = current_pruner()
    assert isinstance(found, TrialWatch)
    return found


@pytest.mark.parametrize("address", [None, "", "sqlite:///x.db", "sqlite:///x.db|s|", "sqlite:///x.db|s|one"])
def test_a_run_that_is_no_trial_has_no_pruner(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if address is not None:
        monkeypatch.setenv(VARIABLE, address)
    assert current_pruner() is None


def test_an_address_may_hold_the_separator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, trial_address("postgresql://me:a|b@host/db", "my study", 12))
    found = current_pruner()
    assert isinstance(found, TrialWatch)
    assert (found.storage, found.study, found.number) == ("postgresql://me:a|b@host/db", "my study", 12)


@pytest.mark.parametrize("file", ["sqlite", "journal"])
def test_a_run_worse_than_the_median_is_ended_after_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    url, study = study_in(tmp_path, file=file)
    worse = watch(url, study, monkeypatch)
    assert [worse(epoch, 0.05) for epoch in (1, 2)] == [False, True]
    better = watch(url, study, monkeypatch)
    assert [better(epoch, value + 0.01) for epoch, value in enumerate(GOOD, start=1)] == [False] * 6


def test_what_is_better_is_the_study_s_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, study = study_in(tmp_path, direction="minimize", file="journal")
    higher, lower = watch(url, study, monkeypatch), watch(url, study, monkeypatch)
    assert [higher(epoch, 0.9) for epoch in (1, 2)] == [False, True]
    assert [lower(epoch, 0.05) for epoch in (1, 2)] == [False, False]


@pytest.mark.parametrize("pruner", ["hyperband", "asha"])
def test_halving_pruners_end_bad_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str) -> None:
    url, study = study_in(tmp_path, pruner, file="journal")
    ended = []
    for rank in range(8):
        trial = watch(url, study, monkeypatch)
        ended.append(any(trial(epoch, 0.01 * epoch / (rank + 1)) for epoch in range(1, 7)))
        study.tell(
            trial.number, 0.0 if not ended[-1] else None, state=optuna.trial.TrialState.PRUNED if ended[-1] else None
        )
    assert any(ended[1:])


def test_a_resumed_trial_does_not_report_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, study = study_in(tmp_path)
    first = watch(url, study, monkeypatch)
    first(1, 0.15)
    first(2, 0.35)
    resumed = TrialWatch(url, "s", first.number)
    assert resumed(1, 0.0) is False and resumed(2, 0.0) is False
    assert resumed(3, 0.0) is False  # its best so far is not below the others
    assert study.trials[first.number].intermediate_values == {1: 0.15, 2: 0.35, 3: 0.0}


@pytest.mark.parametrize(
    "address",
    [
        ("sqlite:////there/is/no/such/folder/study.db", "s", 0),
        ("nonsense://host/db", "s", 0),
        ("sqlite:///{folder}/study.db", "another", 0),
        ("sqlite:///{folder}/study.db", "s", 99),
    ],
    ids=["folder", "driver", "study", "number"],
)
def test_a_storage_that_fails_warns_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, address: tuple[str, str, int]
) -> None:
    study_in(tmp_path)
    url, name, number = address
    broken = TrialWatch(url.format(folder=tmp_path), name, number)
    with caplog.at_level(logging.WARNING):
        assert [broken(epoch, 0.0) for epoch in range(1, 6)] == [False] * 5
    assert len([record for record in caplog.records if "cannot be pruned" in record.message]) == 1


def test_a_storage_that_came_back_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, study = study_in(tmp_path, file="journal")
    trial = watch(url, study, monkeypatch)
    connect = TrialWatch._connect
    failing = iter([True, False])

    def flaky(self: TrialWatch) -> tuple[object, int]:
        if next(failing, False):
            raise OSError("the network is down")
        return connect(self)

    monkeypatch.setattr(pruning.TrialWatch, "_connect", flaky)
    assert [trial(epoch, 0.05) for epoch in (1, 2)] == [False, True]


REPORTER = """
import sys
from genrec.sweeps.pruning import TrialWatch
watch = TrialWatch(sys.argv[1], "s", int(sys.argv[2]))
for epoch in range(1, 16):
    watch(epoch, 1.0)
print(watch._errors)
"""


def test_workers_write_into_one_sqlite_file_at_once(tmp_path: Path) -> None:
    url, study = study_in(tmp_path)
    numbers = [study.ask().number for _ in range(2)]
    jobs = [
        subprocess.Popen([sys.executable, "-c", REPORTER, url, str(number)], stdout=subprocess.PIPE, text=True)
        for number in numbers
    ]
    for _ in range(5):
        study.ask()
    assert [job.communicate(timeout=120)[0].strip() for job in jobs] == ["0", "0"]
    assert [len(study.trials[number].intermediate_values) for number in numbers] == [15, 15]
