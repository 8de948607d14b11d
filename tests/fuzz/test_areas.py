"""A small part of a fuzz run, always the same; `make fuzz` tries more and other cases."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from genrec.contracts import GenrecError
from tests.fuzz.cases import CUT, DEFECT, REFUSED, THROUGH, Area, Case, Outcome, outcome, tried
from tests.fuzz.command import Found, areas, main, run_area, table
from tests.fuzz.mutations import file_of
from tests.fuzz.starting import close

_QUICK = {"overrides": 12, "values": 12, "tables": 60, "published": 40, "artifacts": 60, "training": 4, "sweeps": 6}
_SLOW = {"overrides": 150, "values": 150, "tables": 400, "published": 300, "artifacts": 400, "training": 40,
         "folders": 60, "commands": 60, "processes": 6, "sweeps": 60}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    """Closed for the tests of other files."""
    yield
    close()


def defects(name: str, count: int, seed: int, folder: Path) -> list[str]:
    found = []
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        case, came = tried(areas()[name], seed, number, place)
        if came.kind == DEFECT:
            found.append(f"{name} {number}: {case.text}\n{came.said}")
    return found


@pytest.mark.parametrize("name", _QUICK)
def test_nothing_but_sentences(name: str, tmp_path: Path) -> None:
    assert defects(name, _QUICK[name], 1, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", _SLOW)
def test_nothing_but_sentences_in_many_cases(name: str, tmp_path: Path) -> None:
    assert defects(name, _SLOW[name], 2, tmp_path) == []


def test_every_area_is_tried() -> None:
    assert set(_SLOW) == set(areas())


def test_cases_repeat(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        texts.append(
            [tried(areas()["artifacts"], 3, number, _made(tmp_path / name / str(number))) for number in range(5)]
        )
    first, second = ([(case.text, came.kind) for case, came in found] for found in texts)
    assert first == second


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _raises(error: BaseException) -> Case:
    def act() -> None:
        raise error

    return Case("x", act)


def test_what_counts_as_a_defect() -> None:
    assert outcome(Case("x", lambda: None), 5).kind == THROUGH
    assert outcome(_raises(GenrecError("k=0: give a number.")), 5) == Outcome(REFUSED, "k=0: give a number.")
    for error in (KeyError("x"), SystemExit(1), MemoryError(), GenrecError(""), GenrecError("<a.B object at 0x7f>")):
        assert outcome(_raises(error), 5).kind == DEFECT
    assert outcome(_raises(GenrecError("Traceback (most recent call last)")), 5).kind == DEFECT
    assert outcome(Case("x", lambda: time.sleep(5)), 0.05).kind == DEFECT
    assert outcome(Case("x", lambda: time.sleep(5), vast=True), 0.05).kind == CUT


def _dying(_: Random, folder: Path) -> Case:
    (folder / "bad.txt").write_text("x")
    return Case("dies", lambda: os.kill(os.getpid(), signal.SIGKILL))


def _failing(random: Random, folder: Path) -> Case:
    (folder / "bad.txt").write_text("x")
    return _raises(KeyError("gone")) if random.random() < 2 else Case("", print)


def test_a_process_that_dies_is_a_defect_and_the_others_go_on(monkeypatch, tmp_path: Path) -> None:
    """The child is a process of a program that knows the area by its name."""
    program = tmp_path / "child.py"
    program.write_text(
        "import json, os, sys\n"
        "first = int(sys.argv[sys.argv.index('--first') + 1])\n"
        "for number in range(first, 4):\n"
        "    if number == 2:\n        os.kill(os.getpid(), 9)\n"
        "    kind = 'defect' if number == 1 else 'through'\n"
        "    folder = os.path.dirname(__file__) + '/files' if number == 1 else None\n"
        "    said = {'number': number, 'kind': kind, 'text': 't', 'said': 's', 'folder': folder}\n"
        "    print(json.dumps(said), flush=True)\n"
    )
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "bad.csv").write_text("x")
    shell = tmp_path / "python"
    shell.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {program} "$@"\n')
    shell.chmod(0o755)
    monkeypatch.setattr("tests.fuzz.command.sys.executable", str(shell))
    found = run_area(Area("odd", _dying), 7, 0, 4, tmp_path / "out")
    assert (found.cases, found.counts[DEFECT], found.counts[THROUGH]) == (4, 2, 2)
    assert [path.name for path in found.defects] == ["odd-7-1", "odd-7-2"]
    assert (found.defects[0] / "files" / "bad.csv").read_text() == "x"
    assert "ended with -9" in (found.defects[1] / "case.txt").read_text()


def test_the_command_counts_and_says_1_where_it_finds(monkeypatch, tmp_path: Path, capsys) -> None:
    odd = {"good": Area("good", lambda *_: Case("", lambda: None)), "bad": Area("bad", _failing)}
    monkeypatch.setattr("tests.fuzz.command.areas", lambda: odd)

    def reports(area, seed, first, count):
        for number in range(first, first + count):
            case, came = tried(area, seed, number, _made(tmp_path / f"{area.name}{seed}{number}"))
            place = str(tmp_path / f"{area.name}{seed}{number}") if came.kind == DEFECT else None
            yield json.loads(
                json.dumps({"number": number, "kind": came.kind, "text": case.text, "said": came.said, "folder": place})
            )

    monkeypatch.setattr("tests.fuzz.command._reports", reports)
    assert main(["good", "--cases", "3", "--output", str(tmp_path / "out")]) == 0
    assert main(["--cases", "2", "--seed", "5", "--output", str(tmp_path / "o2")]) == 1
    said = capsys.readouterr().out
    assert "bad                   2        0        0        0        2" in said
    kept = tmp_path / "o2" / "bad-5-1"
    assert "KeyError" in (kept / "case.txt").read_text() and (kept / "files" / "bad.txt").exists()
    assert "--seed 5 --number 1" in (kept / "case.txt").read_text()
    assert main(["nothing"]) == 2


def test_the_table_adds_up() -> None:
    found = {"a": Found(), "b": Found()}
    found["a"].counts.update({REFUSED: 1200, DEFECT: 1})
    found["b"].counts.update({THROUGH: 3})
    assert table(found)[-1].split() == ["all", "1,204", "1,200", "3", "0", "1"]


def test_mutations_change_files(tmp_path: Path) -> None:
    """Most of them do; some undo themselves, such as a byte of a repeated piece."""
    random = Random(1)
    changed = 0
    for number in range(50):
        path = tmp_path / f"{number}.csv"
        path.write_text("a,b\n1,2\n3,4\n")
        file_of(random, path)
        changed += path.read_text(errors="replace") != "a,b\n1,2\n3,4\n"
    assert changed > 40
