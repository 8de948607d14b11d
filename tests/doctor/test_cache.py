"""Entries of the cache as runs leave them, and as kills and bad disks do."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from genrec.artifacts import Cache, write_json
from genrec.doctor.cache import check_entries, check_temporary_files
from genrec.doctor.findings import Places
from genrec.remote.copies import localised
from genrec.report.cleaning import clean_command
from genrec.semantic_ids import SemanticIds
from tests.doctor.places import places_in, states, the


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A cache with vectors and semantic IDs, finished."""
    places = places_in(tmp_path)
    with Cache(places.cache_dir).entry("encoder", "aaaa") as (folder, _):
        np.save(folder / "vectors.npy", np.ones((50, 8), dtype=np.float32))
    with Cache(places.cache_dir).entry("tokenizer", "bbbb") as (folder, _):
        SemanticIds(np.arange(40).reshape(20, 2), (40, 40), 2).save(folder / "semantic_ids.npz")
        write_json(folder / "report.json", {"usage": 1.0})
    return places


def torn(places: Places) -> Path:
    """An entry whose run was killed."""
    folder = places.cache_dir / "tokenizer" / "cccc"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "last.ckpt").write_bytes(b"x" * 3000)
    return folder


def test_whole_entries_are_counted(places: Places) -> None:
    findings = list(check_entries(places))
    assert states(findings) == {"finished entries": "ok"} and findings[0].found.startswith("2 entries whole, ")


def test_no_cache_is_in_order(tmp_path: Path) -> None:
    assert states(check_entries(places_in(tmp_path))) == {"finished entries": "ok"}


def test_a_torn_entry_is_a_warning_and_its_command_empties_it(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = torn(places)
    finding = the(check_entries(places), "torn entries")
    assert finding.state == "warning" and "1 entry begun" in finding.found and "3 kB" in finding.found
    monkeypatch.chdir(places.runs_dir.parent)
    command = finding.remedy.partition("python -m genrec.report clean ")[2]
    clean_command([*command.split(), "yes=true"])
    assert not (folder / "last.ckpt").exists() and "torn entries" not in states(check_entries(places))


def test_an_entry_that_a_run_is_at_is_neither_torn_nor_judged(places: Places) -> None:
    folder = torn(places)
    with open(folder / "lock") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        findings = list(check_entries(places))
    assert states(findings) == {"entries in use": "ok", "finished entries": "ok"}
    assert findings[0].found.startswith("1 entry ")


@pytest.mark.parametrize("file", ["encoder/aaaa/vectors.npy", "tokenizer/bbbb/semantic_ids.npz"])
def test_a_finished_entry_whose_file_was_cut_short_is_a_problem(places: Places, file: str) -> None:
    path = places.cache_dir / file
    path.write_bytes(path.read_bytes()[:-90])
    stage, key, name = file.split("/")
    finding = the(check_entries(places), f"{stage} {key}")
    assert finding.state == "problem" and f"{name} is damaged" in finding.found
    assert finding.remedy.endswith(f"rm -r {path.parent}")


@pytest.mark.parametrize("place", [0, 100, 150, 200])
def test_a_changed_byte_is_noticed(places: Places, place: int) -> None:
    path = places.cache_dir / "tokenizer/bbbb/semantic_ids.npz"
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    assert states(check_entries(places))["tokenizer bbbb"] == "problem"


def test_a_finished_entry_without_its_file_is_a_problem(places: Places) -> None:
    (places.cache_dir / "tokenizer/bbbb/report.json").unlink()
    finding = the(check_entries(places), "tokenizer bbbb")
    assert finding.state == "problem" and "report.json is missing" in finding.found
    (places.cache_dir / "tokenizer/bbbb/report.json").write_text("{")
    assert "report.json is damaged (not valid JSON)" in the(check_entries(places), "tokenizer bbbb").found


def test_old_unfinished_files_are_told_and_young_ones_left_alone(places: Places) -> None:
    assert states(check_temporary_files(places)) == {"temporary files": "ok"}
    run = places.runs_dir / "day" / "a run"
    run.mkdir(parents=True)
    old, young = run / ".metrics.json.abcd1234.json", run / ".history.json.abcd1234.json"
    for path in (old, young, run / ".lock"):
        path.write_text("{")
    then = time.time() - 9000
    for path in (old, run / ".lock"):
        os.utime(path, (then, then))
    finding = the(check_temporary_files(places), "temporary files")
    assert finding.state == "warning" and finding.found.startswith("1 left behind")
    assert f"'{old}'" in finding.remedy and young.name not in finding.remedy


def test_old_copies_of_remote_files_are_told_and_removed(places: Places) -> None:
    memory = fsspec.filesystem("memory")
    for content in (b"old", b"newer"):
        memory.pipe_file("/copies/x.csv", content)
        copy = localised("memory://copies/x.csv", places.cache_dir)
    memory.pipe_file("/copies/y.csv", b"other")
    other = localised("memory://copies/y.csv", places.cache_dir)
    finding = the(check_entries(places), "old copies")
    assert finding.found.startswith("1 entry") and "clean cache=true" in finding.remedy
    clean_command(["cache=true", "yes=true", f"cache_dir={places.cache_dir}", f"runs_dir={places.runs_dir}"])
    assert "old copies" not in states(check_entries(places)) and "torn entries" not in states(check_entries(places))
    assert copy.read_bytes() == b"newer" and other.read_bytes() == b"other"
