"""What the doctor says of runs that were killed, failed or damaged."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

from genrec.config.command_line import preflight
from genrec.doctor.findings import Places
from genrec.doctor.runs import check_leftovers, check_runs
from tests.doctor.places import places_in, states, the
from tests.report.run_folders import held, make_run, make_sweep


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A run that has finished and one that goes on."""
    monkeypatch.chdir(tmp_path)
    places = places_in(tmp_path)
    make_run(places.runs_dir / "day" / "good")
    return places


def test_finished_and_running_runs_are_in_order(places: Places) -> None:
    going_on = make_run(places.runs_dir / "day" / "now", state="running")
    with held(going_on):
        findings = list(check_runs(places))
    assert states(findings) == {"runs": "ok"} and findings[0].found == "1 finished, 1 running"


def test_no_runs_are_in_order(tmp_path: Path) -> None:
    assert states(check_runs(places_in(tmp_path))) == {"runs": "ok"}


def test_a_killed_run_comes_with_the_command_that_continues_it(places: Places) -> None:
    words = ["model=sasrec", "model.dropout=0.3", "resume=auto"]
    run = make_run(places.runs_dir / "day" / "dead", state="running", overrides=words)
    finding = the(check_runs(places), str(run))
    assert finding.state == "warning" and "before its first checkpoint" in finding.found
    command = finding.remedy.removeprefix("Continue: ")
    assert command == "python -m genrec.run model=sasrec model.dropout=0.3 resume=outputs/day/dead"
    assert preflight(shlex.split(command)[3:]) is None
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    assert "with a checkpoint" in the(check_runs(places), str(run)).found


def test_only_the_newest_killed_runs_are_told_one_by_one(places: Places) -> None:
    for number in range(5):
        make_run(places.runs_dir / "day" / f"dead{number}", state="running", started=1000.0 + number)
    findings = list(check_runs(places))
    told = [Path(finding.name).name for finding in findings if finding.remedy.startswith("Continue")]
    assert told == ["dead4", "dead3", "dead2"]
    assert the(findings, "more killed runs").found == "2 others"


def test_a_killed_sweep_is_continued_as_a_whole(places: Places) -> None:
    sweep = make_sweep(places.runs_dir / "multirun" / "day", state="running")
    for number in range(2):
        make_run(sweep / str(number), state="running")
    findings = [finding for finding in check_runs(places) if finding.state != "ok"]
    assert [finding.name for finding in findings] == [str(sweep)]
    assert findings[0].remedy == "Continue: python -m genrec.run -m resume=outputs/multirun/day"


def test_a_run_of_another_machine_may_still_go_on(places: Places) -> None:
    run = make_run(places.runs_dir / "day" / "far", state="running", host="elsewhere", started=time.time())
    assert str(run) not in states(check_runs(places))


def test_failed_runs_are_told_with_the_reason_of_the_last(places: Places) -> None:
    make_run(places.runs_dir / "day" / "f1", state="failed", error="first reason", started=1.0)
    make_run(places.runs_dir / "day" / "f2", state="failed", error="out of\nmemory", started=2.0)
    finding = the(check_runs(places), "failed runs")
    assert finding.state == "warning" and "2 failed" in finding.found and finding.found.endswith("f2: out of memory")
    assert "clean state=failed" in finding.remedy


@pytest.mark.parametrize("text", ["", '{"state": "runn', "[1, 2]", '{"state": "finished", "started": "today"}', "\0"])
def test_a_broken_run_file_is_a_problem_of_that_folder_only(places: Places, text: str) -> None:
    broken = make_run(places.runs_dir / "day" / "broken")
    (broken / "run.json").write_text(text)
    findings = list(check_runs(places))
    assert states(findings) == {str(broken): "problem", "runs": "ok"}
    assert the(findings, "runs").found == "1 finished"
    remedy = the(findings, str(broken)).remedy
    _, source, target = shlex.split(remedy.partition(": ")[2])
    Path(source).rename(target)
    assert states(check_runs(places)) == {"runs": "ok"}


def test_bytes_that_are_no_text_are_a_problem_of_that_folder_only(places: Places) -> None:
    broken = make_run(places.runs_dir / "day" / "broken")
    (broken / "run.json").write_bytes(b"\xff\xfe\x00{")
    assert states(check_runs(places)) == {str(broken): "problem", "runs": "ok"}


def test_a_killed_run_with_broken_overrides_does_not_hide_the_others(places: Places) -> None:
    bad = make_run(places.runs_dir / "day" / "bad", state="running", started=2.0)
    (bad / "overrides.yaml").write_text("[a: b: c")
    good = make_run(places.runs_dir / "day" / "dead", state="running", started=1.0)
    found = states(check_runs(places))
    assert found[str(bad)] == "problem" and found[str(good)] == "warning"


def test_what_an_interrupted_clean_left_is_told(places: Places) -> None:
    assert list(check_leftovers(places)) == []
    (places.runs_dir / "day" / ".old.deleted-0123abcd").mkdir()
    finding = the(check_leftovers(places), "interrupted clean")
    assert finding.state == "warning" and finding.remedy.endswith("python -m genrec.report clean")


def test_a_run_file_of_json_types_that_do_not_fit_is_no_reason_to_stop(places: Places) -> None:
    path = make_run(places.runs_dir / "day" / "odd", state="failed") / "run.json"
    path.write_text(json.dumps({"state": ["failed"], "error": {"a": 1}, "started": [1]}))
    assert states(check_runs(places))[str(path.parent)] == "problem"
