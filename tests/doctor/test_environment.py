"""The machine as it is, and as it should not be."""

from __future__ import annotations

import fcntl
import os
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from genrec.artifacts import write_json
from genrec.doctor import environment
from genrec.doctor.environment import (
    available_memory,
    check_clock,
    check_folders,
    check_memory,
    check_packages,
    check_python,
    check_threads,
    cpu_quota,
    nearest_folder,
)
from genrec.doctor.findings import Places
from tests.doctor.places import places_in, states, the

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return places_in(tmp_path)


def test_this_machine_is_healthy(places: Places) -> None:
    checks = (check_python, check_packages, check_folders, check_clock)
    findings = [finding for check in checks for finding in check(places)]
    assert set(states(findings).values()) <= {"ok", "warning"}  # a disk may be rather full
    assert "torch" in the(findings, "packages").found and not places.runs_dir.exists()


def test_a_python_that_is_too_old_is_named(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.platform, "python_version", lambda: "3.10.4")
    (finding,) = check_python(places)
    assert finding.state == "problem" and "3.10.4" in finding.found and ">=3.11" in finding.found


def test_packages_that_are_old_or_absent_come_with_their_command(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_version = metadata.version

    def version(name: str) -> str:
        if name == "wandb":
            raise metadata.PackageNotFoundError(name)
        return "1.13.1" if name == "torch" else true_version(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = list(check_packages(places))
    assert states(findings) == {"torch": "problem", "wandb": "problem", "packages": "ok"}
    assert the(findings, "torch").found == "1.13.1 is installed; needed: torch>=2.6"
    assert the(findings, "torch").remedy == "pip install 'torch>=2.6'"
    assert "not installed" in the(findings, "wandb").found


@pytest.mark.parametrize(
    ("given", "quota", "state", "told"),
    [
        (None, None, "ok", "4 cores"),
        ("4", None, "ok", "OMP_NUM_THREADS=4"),
        ("8", None, "warning", "export OMP_NUM_THREADS=4"),
        ("many", None, "warning", "is no number of threads"),
        ("0", None, "warning", "is no number of threads"),
        (None, 2.0, "warning", "export OMP_NUM_THREADS=2"),
        ("2", 2.0, "ok", "2 may be used"),
        ("4", 2.0, "warning", "export OMP_NUM_THREADS=2"),
        (None, 0.5, "warning", "export OMP_NUM_THREADS=1"),
    ],
)
def test_threads_against_cores(
    places: Places, monkeypatch: pytest.MonkeyPatch, given: str | None, quota: float | None, state: str, told: str
) -> None:
    monkeypatch.setattr(environment, "usable_cores", lambda: 4)
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    (finding,) = check_threads(places)
    assert finding.state == state and told in f"{finding.found} {finding.remedy}"


def test_the_quota_of_a_container_is_read(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert cpu_quota(tmp_path) == 2.5


@pytest.mark.parametrize(("free", "state"), [(None, "ok"), (8e9, "ok"), (1.5e9, "warning"), (0.3e9, "problem")])
def test_memory_that_is_free(places: Places, monkeypatch: pytest.MonkeyPatch, free: float | None, state: str) -> None:
    monkeypatch.setattr(environment, "available_memory", lambda: free)
    assert states(check_memory(places)) == {"memory": state}


def test_the_memory_of_a_container_bounds_that_of_the_machine(tmp_path: Path) -> None:
    system = tmp_path / "meminfo"
    assert available_memory(tmp_path, system) is None
    system.write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_memory(tmp_path, system) == 8000 * 1024
    for name, text in (("max", "5000000"), ("current", "4000000"), ("stat", "anon 1\ninactive_file 1500000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert available_memory(tmp_path, system) == 2_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path, system) == 8000 * 1024


def test_a_folder_that_takes_no_files_is_a_problem() -> None:
    places = Places(Path("/proc/genrec"), Path("data"), Path("/proc/genrec/cache"))
    findings = list(check_folders(places))
    assert states(findings) == {"runs_dir": "problem", "cache_dir": "problem"}
    assert "/proc/genrec" in findings[0].found and "runs_dir=..." in findings[0].remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_problem(places: Places) -> None:
    places.runs_dir.mkdir()
    places.runs_dir.chmod(0o555)
    assert the(check_folders(places), "runs_dir").state == "problem"
    places.runs_dir.chmod(0o755)


def test_a_file_where_a_folder_should_be_is_a_problem(places: Places) -> None:
    places.runs_dir.write_text("not a folder")
    findings = list(check_folders(places))
    assert states(findings) == {"runs_dir": "problem", "cache_dir": "problem"} and "is a file" in findings[0].found


def test_nothing_stays_behind_in_a_folder_that_is_checked(places: Places) -> None:
    places.runs_dir.mkdir()
    assert states(check_folders(places))["runs_dir"] == "ok"
    assert list(places.runs_dir.iterdir()) == []


def test_locks_that_two_can_hold_or_nobody_are_problems(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    finding = the(check_folders(places), "runs_dir")
    assert finding.state == "problem" and "two can hold the same one" in finding.found

    def refuse(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    finding = the(check_folders(places), "runs_dir")
    assert finding.state == "problem" and "No locks available" in finding.found


@pytest.mark.parametrize(("free", "state"), [(50e9, "ok"), (2e9, "warning"), (10e6, "problem")])
def test_room_on_the_disk(places: Places, monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: Usage(100e9, 100e9 - free, free))
    found = states(check_folders(places))
    assert found["disk of runs_dir"] == found["disk of cache_dir"] == state and found["runs_dir"] == "ok"


def test_a_disk_that_takes_no_more_files_is_a_problem(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: Usage(1e12, 0, 1e12))
    monkeypatch.setattr(environment.os, "statvfs", lambda _: namedtuple("Stat", "f_files f_favail")(10**6, 7))
    finding = the(check_folders(places), "disk of runs_dir")
    assert finding.state == "problem" and "7 more files" in finding.found


def test_a_clock_that_has_gone_backwards_is_seen_by_the_newest_run(places: Places) -> None:
    path = places.runs_dir / "day" / "run" / "run.json"
    write_json(path, {"state": "finished"})
    assert states(check_clock(places)) == {"clock": "ok"}
    ahead = time.time() + 7200
    os.utime(path, (ahead, ahead))
    (finding,) = check_clock(places)
    assert finding.state == "warning" and ("2 h" in finding.found or "1 h 59" in finding.found)


def test_the_nearest_folder_is_found_above_what_is_not_made_yet(tmp_path: Path) -> None:
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path and nearest_folder(tmp_path) == tmp_path
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "gone")
    assert nearest_folder(dangling / "runs") == dangling
