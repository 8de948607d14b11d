from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from genrec.artifacts import write_json, write_text
from genrec.contracts import GenrecError
from genrec.records import read_run
from genrec.report import cleaning
from genrec.report.cleaning import (
    clean_command,
    empty_entries,
    folder_size,
    leftovers,
    parse,
    remove_leftovers,
    remove_runs,
    torn_entries,
    why_spared,
)
from genrec.report.selection import runs_below
from tests.report.run_folders import held, make_run, make_sweep

WEIGHTS = 5000  # bytes


class Terminal(io.StringIO):
    """A person who has typed something."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of every state below ``outputs`` of the folder that the test is in, and one that runs indeed."""
    monkeypatch.chdir(tmp_path)
    outputs = Path("outputs")
    states = {"finished": "finished", "failed": "failed", "killed": "running", "pruned": "pruned", "running": "running"}
    for name, state in states.items():
        run = make_run(
            outputs / "day" / name, state=state, overrides=[f"note={name}"], error="boom" if name == "failed" else None
        )
        write_text(run / "checkpoints" / "best_model.pt", "w" * WEIGHTS)
    return outputs


def clean(*words: str, typed: str | None = None) -> str:
    stream = io.StringIO()
    answers = io.StringIO() if typed is None else Terminal(typed)
    clean_command(words, Console(file=stream), answers)
    return stream.getvalue()


def left(root: Path) -> set[str]:
    return {str(path.parent.relative_to(root)) for path in root.glob("**/run.json")}


EVERY = {f"day/{name}" for name in ("finished", "failed", "killed", "pruned", "running")}


def test_failed_and_killed_runs_go_after_a_yes_and_their_bytes_are_told(root: Path) -> None:
    with held(root / "day" / "running"):
        expected = folder_size(root / "day/failed") + folder_size(root / "day/killed")
        text = clean(typed="y\n")
    assert left(root) == EVERY - {"day/failed", "day/killed"}
    assert not list(root.glob("**/.*deleted*")) and expected > 2 * WEIGHTS
    assert "outputs/day/failed" in text and "outputs/day/killed" in text and "boom" in text
    assert f"Remove 2 runs, {expected / 1000:.3g} kB? [y/N]" in text
    assert f"2 runs removed, {expected / 1000:.3g} kB free." in text
    assert "could still be continued" in text


@pytest.mark.parametrize("typed", ["\n", "n\n", "", "yep\n", "Nein\n"])
def test_anything_but_yes_removes_nothing(root: Path, typed: str) -> None:
    assert clean(typed=typed).endswith("Nothing was removed.\n")
    assert left(root) == EVERY


@pytest.mark.parametrize("typed", ["y", "YES\n", " yes \n"])
def test_yes_may_be_written_in_several_ways(root: Path, typed: str) -> None:
    clean(typed=typed)
    assert "day/failed" not in left(root)


def test_without_a_terminal_it_refuses_unless_told(root: Path) -> None:
    with pytest.raises(GenrecError, match=r"there is no terminal to ask at. Add yes=true"):
        clean("state=failed")
    assert left(root) == EVERY
    clean("state=failed", "yes=true")
    assert left(root) == EVERY - {"day/failed"}
    clean("state=pruned", "-y")
    assert left(root) == EVERY - {"day/failed", "day/pruned"}


def test_dry_run_only_tells(root: Path) -> None:
    (root / ".gone.deleted-0123abcd").mkdir()
    for words in (["dry_run=true"], ["-n"], ["dry_run=true", "yes=true"]):
        text = clean("state=failed,pruned", *words)
        assert "outputs/day/failed" in text and "2 runs" in text and "would go. Nothing was removed" in text
    assert left(root) == EVERY and (root / ".gone.deleted-0123abcd").exists()


def test_filters_choose(root: Path) -> None:
    clean("note=failed", "yes=true")
    assert left(root) == EVERY - {"day/failed"}
    assert "Nothing to remove" in clean("note=finished", "yes=true")
    assert "day/finished" in left(root)


@pytest.mark.parametrize("state", ["finished", "running", "failed,finished"])
def test_finished_and_running_runs_cannot_be_asked_for(root: Path, state: str) -> None:
    with pytest.raises(GenrecError, match="clean removes failed, killed, pruned runs only"):
        clean(f"state={state}", "yes=true")
    assert left(root) == EVERY


def test_a_run_that_another_process_holds_is_spared(root: Path) -> None:
    code = (
        "import fcntl, sys; h = open(sys.argv[1], 'w'); fcntl.flock(h, fcntl.LOCK_EX); print('held', flush=True);"
        "sys.stdin.read()"
    )
    lock = root / "day" / "running" / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        clean("yes=true")
        assert left(root) == EVERY - {"day/failed", "day/killed"}
        process.kill()
    clean("yes=true")
    assert left(root) == {"day/finished", "day/pruned"}


def test_a_run_that_is_continued_while_one_is_asked_is_spared(root: Path) -> None:
    run = read_run(root / "day" / "failed")
    with held(run.folder):
        removal = remove_runs([run], root)
    assert removal.count == 0 and removal.spared == ((run.folder, "it is running"),)
    write_json(run.folder / "run.json", {**run.run, "state": "finished"})
    assert remove_runs([run], root).spared == ((run.folder, "it has changed meanwhile"),)
    shutil.rmtree(run.folder)
    assert remove_runs([run], root).count == 0
    assert left(root) == EVERY - {"day/failed"}


def test_the_lock_is_held_until_the_folder_is_gone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would continue the run finds it held, or finds nothing; never a folder that is half empty."""
    seen = []

    def watched(hidden: Path) -> None:
        with open(hidden / ".lock") as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append((hidden.name, (root / "day" / "failed").exists(), (hidden / "run.json").exists()))
        shutil.rmtree(hidden)

    monkeypatch.setattr(cleaning, "_delete", watched)
    clean("state=failed", "yes=true")
    ((name, exists, has_run),) = seen
    assert name.startswith(".failed.deleted-") and not exists and not has_run


def test_what_an_interrupted_clean_left_goes_at_the_next(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(hidden: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cleaning, "_delete", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clean("state=failed", "yes=true")
    (place,) = leftovers(root)
    assert left(root) == EVERY - {"day/failed"} and (place / "checkpoints" / "best_model.pt").exists()
    text = clean("state=pruned", typed="n\n")
    assert "1 run left by an interrupted clean removed, 5.0" in text and not place.exists()
    assert "day/pruned" in left(root)


def test_leftovers_of_a_clean_that_goes_on_elsewhere_stay(root: Path) -> None:
    place = root / ".x.deleted-0123abcd"
    place.mkdir()
    with held(place):
        assert remove_leftovers(root).count == 0 and place.exists()
    assert remove_leftovers(root).count == 1 and not place.exists()


def test_only_the_names_that_clean_gives_are_leftovers(root: Path, tmp_path: Path) -> None:
    for name in (".x.deleted-zz", "x.deleted-0123abcd", ".hidden", ".deleted-0123abcd"):
        (root / name).mkdir()
    os.symlink(tmp_path, root / ".link.deleted-0123abcd")
    assert leftovers(root) == []


def test_links_are_never_followed(root: Path, tmp_path: Path) -> None:
    precious = make_run(tmp_path / "elsewhere" / "precious", state="failed")
    os.symlink(precious, root / "day" / "link")
    os.symlink(tmp_path / "elsewhere", root / "other")
    os.symlink(tmp_path / "elsewhere" / "precious", root / "day" / "failed" / "inside")
    write_text(tmp_path / "elsewhere" / "big", "x" * 100_000)
    os.symlink(tmp_path / "elsewhere" / "big", root / "day" / "failed" / "file")
    text = clean("state=failed", "yes=true")
    assert not (root / "day" / "failed").exists() and (precious / "run.json").exists()
    assert (tmp_path / "elsewhere" / "big").exists() and "1 run removed, 5." in text
    for linked in (root / "day" / "link", root / "other" / "precious"):
        assert why_spared(read_run(linked), root) == "it is reached through a link"
        assert remove_runs([read_run(linked)], root).count == 0
    assert (precious / "run.json").exists() and not (precious / ".lock").exists()


def test_runs_below_a_linked_root_are_cleaned_as_well(root: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "outputs", tmp_path / "alias")
    clean("runs_dir=alias", "state=failed", "yes=true")
    assert left(root) == EVERY - {"day/failed"}


def test_folders_that_hold_more_than_a_run_stay(root: Path, tmp_path: Path) -> None:
    nest = make_run(root / "nest", state="failed")
    make_run(nest / "deep" / "child")
    shared = make_run(root / "shared", state="failed")
    (shared / "cache").mkdir()
    alone = make_run(tmp_path / "alone", state="failed")
    text = clean("state=failed", "yes=true")
    assert "outputs/nest stays: it holds other runs" in text
    assert "outputs/shared stays: it holds a cache" in text
    assert {"nest", "nest/deep/child", "shared"} <= left(root)
    assert "alone stays: it is the folder of all runs" in clean(f"runs_dir={alone}", "yes=true")
    assert (alone / "run.json").exists()


def test_jobs_of_a_running_sweep_stay_until_it_ends(root: Path) -> None:
    sweep = make_sweep(root / "multirun" / "day", state="running")
    make_run(sweep / "0", state="failed")
    make_run(sweep / "1")
    with held(sweep):
        assert "its sweep is running" in clean(f"sweep={sweep}", "yes=true")
        assert (sweep / "0").exists()
    clean(f"sweep={sweep}", "yes=true")
    assert not (sweep / "0").exists() and (sweep / "1").exists() and (sweep / "sweep.json").exists()


def test_a_run_of_another_machine_that_wrote_lately_may_still_run(root: Path) -> None:
    run = make_run(root / "far", state="running", host="node7")
    assert why_spared(read_run(run), root) == "it may still run on node7: it wrote within the hour"
    long_ago = time.time() - 7200
    os.utime(run / "run.json", (long_ago, long_ago))
    assert why_spared(read_run(run), root) is None
    interrupted = make_run(root / "far_interrupted", state="killed", host="node7")
    assert why_spared(read_run(interrupted), root) is None  # it said so itself
    failed = make_run(root / "far_failed", state="failed", host="node7")
    assert why_spared(read_run(failed), root) is None


def test_states_are_checked_where_folders_are_removed(root: Path) -> None:
    assert remove_runs([read_run(root / "day" / "finished")], root).spared[0][1] == "it is finished"


def test_parents_go_when_they_are_empty_and_the_root_stays(root: Path) -> None:
    make_run(root / "old" / "lone", state="failed")
    clean("old", "yes=true")
    assert not (root / "old").exists() and (root / "day").exists()
    for name in ("finished", "pruned"):
        shutil.rmtree(root / "day" / name)
    clean("yes=true")
    assert list(root.iterdir()) == []


def test_what_cannot_be_removed_is_told_and_the_others_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == "failed":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    text = clean("yes=true")
    assert "outputs/day/failed stays: [Errno 13] Permission denied" in text
    assert "day/failed" in left(root) and "day/killed" not in left(root)


def test_broken_folders_are_no_runs_to_remove(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_text(root / "broken" / "run.json", "{")
    write_text(root / "stray" / "notes.txt", "mine")
    clean("yes=true")
    assert (root / "broken").exists() and (root / "stray").exists() and "broken/run.json" in caplog.text


def test_nothing_to_remove_is_told(root: Path, tmp_path: Path) -> None:
    assert "Nothing to remove" in clean("state=pruned", "before=2020-01-01", "yes=true")
    (tmp_path / "empty").mkdir()
    assert clean(f"runs_dir={tmp_path / 'empty'}").endswith("Start one: python -m genrec.run Nothing to remove.\n")


def test_sizes_count_files_once_and_no_links(tmp_path: Path) -> None:
    write_text(tmp_path / "folder" / "a", "x" * 100)
    os.link(tmp_path / "folder" / "a", tmp_path / "folder" / "b")
    write_text(tmp_path / "folder" / "deep" / "c", "x" * 11)
    os.symlink(tmp_path / "folder" / "a", tmp_path / "folder" / "link")
    assert folder_size(tmp_path / "folder") == 111 + os.lstat(tmp_path / "folder" / "link").st_size


@pytest.fixture
def cache(root: Path) -> Path:
    """A finished entry, a torn one, one that is worked at, and one that is empty."""
    for name in ("done", "torn", "busy", "empty"):
        write_text(root / "cache" / "tokenizer" / name / "lock", "")
        if name != "empty":
            write_text(root / "cache" / "tokenizer" / name / "checkpoints" / "last.pt", "w" * 70)
            write_text(root / "cache" / "tokenizer" / name / "report.json", "w" * 30)
    write_text(root / "cache" / "tokenizer" / "done" / "done", "tokenizer")
    return root / "cache"


def test_torn_entries_of_the_cache_are_emptied_but_for_their_lock(cache: Path, root: Path) -> None:
    with open(cache / "tokenizer" / "busy" / "lock") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert [entry.name for entry in torn_entries(cache)] == ["torn"]
        text = clean("cache=true", typed="y\n")
        assert empty_entries([cache / "tokenizer" / "busy", cache / "tokenizer" / "done"]).count == 0
    assert "outputs/cache/tokenizer/torn" in text and "1 entry emptied, 100 B free." in text
    assert [path.name for path in (cache / "tokenizer" / "torn").iterdir()] == ["lock"]
    for name in ("done", "busy"):
        assert (cache / "tokenizer" / name / "report.json").exists()
    assert left(root) == EVERY


def test_the_cache_is_asked_about_too(cache: Path) -> None:
    assert "would go" in clean("cache=true", "dry_run=true")
    clean("cache=true", typed="n\n")
    with pytest.raises(GenrecError, match="no terminal"):
        clean("cache=true")
    assert len(torn_entries(cache)) == 2
    clean("cache=true", "yes=true", f"cache_dir={cache}")
    assert torn_entries(cache) == []
    assert "Nothing to remove" in clean("cache=true")
    with pytest.raises(GenrecError, match="cache=true takes no filters"):
        clean("cache=true", "model=tiger")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modle=tiger"], r"Did you mean model\?"),
        (["--yess"], r"Did you mean yes=\?"),
        (["yes"], "'yes' needs a value: yes=true"),
        (["runs_dir=nowhere"], "there is no such folder"),
        (["state=faild"], r"Did you mean failed\?"),
    ],
)
def test_mistakes_are_one_sentence_and_remove_nothing(root: Path, words: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        clean(*words, typed="y\n")
    assert left(root) == EVERY


def test_defaults() -> None:
    request = parse([])
    assert request.selection.states == ("failed", "killed") and not request.yes and not request.dry_run
    assert parse(["runs_dir=x"]).cache_dir == Path("x/cache")


def test_a_run_that_nobody_holds_is_killed_whatever_its_name(root: Path) -> None:
    removable = {run.folder.name for run in runs_below(root) if why_spared(run, root) is None}
    assert removable == {"failed", "killed", "pruned", "running"}
