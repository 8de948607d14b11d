from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from genrec.artifacts import write_text
from genrec.contracts import GenrecError
from genrec.report.listing import FORMATS, SHOWN, ls_command, parse
from tests.report.run_folders import NOW, held, make_run, make_sweep


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs and a sweep of three, below ``outputs`` of the folder that the test is in."""
    monkeypatch.chdir(tmp_path)
    outputs = Path("outputs")
    make_run(outputs / "day" / "one", overrides=["optimizer.lr=1e-3"], started=NOW,
             final={"val/recall@10": 0.3, "test/recall@10": 0.2, "baseline/item_knn/test/recall@10": 0.1})  # fmt: skip
    make_run(outputs / "day" / "two", state="failed", overrides=["optimizer.lr=9"], started=NOW + 50, seconds=500,
             error="GenrecError: out of range")  # fmt: skip
    sweep = make_sweep(outputs / "multirun" / "day" / "noon", started=NOW - 90)
    for job in range(3):
        make_run(sweep / str(job), overrides=[f"trainer.patience={job}"], started=NOW - 90 + job,
                 final={"val/recall@10": 0.1 * (job + 1), "test/recall@10": 0.05})  # fmt: skip
    return outputs


def ls(*words: str, width: int = 0) -> str:
    stream = io.StringIO()
    ls_command(words, Console(file=stream, width=width or None, force_terminal=bool(width), color_system=None))
    return stream.getvalue()


def folders(text: str) -> list[str]:
    return [line.split()[-1] for line in text.splitlines()[1:] if line.split()[-1].startswith("outputs/")]


DAY, NOON = "outputs/day", "outputs/multirun/day/noon"


def test_newest_first_with_sweeps_folded(root: Path) -> None:
    text = ls()
    assert folders(text) == [f"{DAY}/two", f"{DAY}/one", NOON]
    assert "3 runs: patience" in text and "0.3000" in text
    assert "the runs of a sweep: sweep=FOLDER" in text and "out of range" not in text


def test_all_and_sweep_unfold(root: Path) -> None:
    jobs = [f"{NOON}/{job}" for job in (2, 1, 0)]
    assert folders(ls("all=true")) == folders(ls("-a")) == [f"{DAY}/two", f"{DAY}/one", *jobs]
    assert folders(ls(f"sweep={NOON}")) == folders(ls(f"sweep={NOON}/")) == jobs


def test_one_run_that_was_found_in_a_sweep_stands_for_itself(root: Path) -> None:
    assert folders(ls("trainer.patience=1")) == [f"{NOON}/1"]
    text = ls("trainer.patience>0")
    assert folders(text) == [NOON] and "2 of 3 runs" in text


def test_jobs_of_a_sweep_tell_first_what_tells_them_apart(root: Path) -> None:
    for job in range(2):
        make_run(root / "wide" / str(job), overrides=["note=" + "long" * 20, f"seed={job}"])
    assert " seed=0 note=long" in ls("wide", "all=true") and " seed=1 note=long" in ls("wide/1")


def test_a_sweep_of_a_single_run_is_still_a_sweep(root: Path) -> None:
    make_run(make_sweep(Path(DAY) / "lone") / "0", overrides=["seed=1"], started=NOW + 99)
    assert folders(ls("lone")) == [f"{DAY}/lone"]


def test_sorts(root: Path) -> None:
    assert folders(ls("sort=time", "all=true"))[0] == f"{DAY}/two"
    assert folders(ls("sort=folder")) == sorted(folders(ls()))
    assert folders(ls("sort=test/recall@10", "all=true"))[0] == f"{DAY}/one"
    assert set(folders(ls("sort=val/recall@10", "all=true"))[:2]) == {f"{DAY}/one", f"{NOON}/2"}
    assert folders(ls("sort=test/recall@10", "all=true"))[-1] == f"{DAY}/two"  # has none
    assert folders(ls("sort=optimizer.lr"))[:2] == [f"{DAY}/one", f"{DAY}/two"]
    assert folders(ls("sort=trainer.patience", "all=true"))[:3] == [f"{NOON}/{job}" for job in range(3)]


def test_losses_sort_upwards(root: Path) -> None:
    for name, loss in (("high", 3.0), ("low", 1.0), ("middle", 2.0)):
        make_run(Path(DAY) / name, final={"test/log_loss": loss}, model="fm")
    assert [Path(name).name for name in folders(ls("model=fm", "sort=test/log_loss"))] == ["low", "middle", "high"]


def test_the_calibration_nearest_to_one_comes_first(root: Path) -> None:
    for name, value in {"far": 0.2, "near": 1.1, "high": 3.0}.items():
        make_run(root / "day" / name, model="fm", final={"test/calibration": value})
    assert [Path(name).name for name in folders(ls("model=fm", "sort=test/calibration"))] == ["near", "high", "far"]


def test_a_monitored_metric_sorts_in_its_own_direction(root: Path) -> None:
    for name, value in (("high", 3.0), ("low", 1.0)):
        make_run(Path(DAY) / name, final={"val/odd": value}, model="fm", monitor="val/odd", direction="min")
    assert [Path(name).name for name in folders(ls("model=fm", "sort=val/odd"))] == ["low", "high"]


def test_limit_cuts_and_says_so(root: Path) -> None:
    text = ls("limit=1")
    assert folders(text) == [f"{DAY}/two"] and "2 more: limit=all" in text
    for number in range(SHOWN):
        make_run(Path(DAY) / f"more{number}", started=NOW + 1000)
    assert len(folders(ls())) == SHOWN
    assert len(folders(ls("limit=all"))) == SHOWN + 3
    assert len(json.loads(ls("format=json"))) == SHOWN + 5


def test_errors_stand_below_the_run(root: Path) -> None:
    for words in (["errors=true"], ["-v"], ["--errors"]):
        lines = ls("state=failed", *words).splitlines()
        assert lines[2] == "  GenrecError: out of range"


def test_running_runs_tell_their_progress(root: Path) -> None:
    run = make_run(Path(DAY) / "three", state="running", epochs=[{"epoch": 3}], config={"trainer": {"max_epochs": 9}})
    with held(run):
        text = ls("state=running")
    assert "running" in text and "  epoch 3 of 9, last written just now" in text
    assert "epoch 3" not in ls("three") and "killed" in ls("three")


def test_nothing_found_is_told_and_no_mistake(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ls("model=sasrec") == "None of the 5 runs below outputs/ fulfils model=sasrec. There is model=tiger (5).\n"
    assert json.loads(ls("model=sasrec", "format=json")) == []
    assert len(list(csv.reader(io.StringIO(ls("model=sasrec", "format=csv"))))) == 1
    assert capsys.readouterr().err.count("fulfils model=sasrec") == 2


def test_no_runs_yet(tmp_path: Path) -> None:
    assert ls(f"runs_dir={tmp_path}") == f"No runs below {tmp_path}/ yet. Start one: python -m genrec.run\n"


def test_json_has_everything_of_every_run(root: Path) -> None:
    found = json.loads(ls("format=json"))
    assert found == json.loads(ls("--format", "json"))
    assert [run["folder"] for run in found[:2]] == [f"{DAY}/two", f"{DAY}/one"] and len(found) == 5
    failed, one, job = found[0], found[1], found[2]
    assert (failed["state"], failed["error"], failed["final"]) == ("failed", "GenrecError: out of range", {})
    assert one["final"] == {"val/recall@10": 0.3, "test/recall@10": 0.2, "baseline/item_knn/test/recall@10": 0.1}
    assert one["overrides"] == {"optimizer.lr": "1e-3"} and one["best"] == 0.3 and one["seconds"] == 60.0
    assert one["started"] == "2023-11-14T22:13:20+00:00" and one["sweep"] is None and job["sweep"] == NOON


def test_csv_has_every_final_metric_and_override(root: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(ls("format=csv"))))
    one = next(row for row in rows if row["folder"] == f"{DAY}/one")
    assert float(one["test/recall@10"]) == 0.2 and float(one["baseline/item_knn/test/recall@10"]) == 0.1
    assert one["optimizer.lr"] == "1e-3" and one["trainer.patience"] == ""
    assert [row["trainer.patience"] for row in rows if row["sweep"]] == ["2", "1", "0"]
    names = next(csv.reader(io.StringIO(ls("format=csv"))))
    assert len(names) == len(set(names))


def test_csv_names_no_column_twice(root: Path) -> None:
    make_run(Path(DAY) / "x", overrides=["model=tiger", "data=synthetic"])
    names = next(csv.reader(io.StringIO(ls("format=csv"))))
    assert names.count("model") == names.count("data") == 1


def test_broken_folders_do_not_hide_the_others(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_text(Path(DAY) / "broken" / "run.json", "{")
    for name in ("overrides.yaml", "config.yaml", "metrics.json", "history.json", "timing.json"):
        make_run(Path(DAY) / f"odd_{name}", started=NOW + 7)
        write_text(Path(DAY) / f"odd_{name}" / name, "{: [")
    for form in FORMATS:
        text = ls(f"format={form}", "all=true")
        assert f"{DAY}/one" in text and f"{DAY}/two" in text and text.count(f"{DAY}/odd_") == 5
    assert "broken/run.json is not valid JSON" in caplog.text and "odd_metrics.json" in caplog.text


def test_a_terminal_gets_lines_that_fit_and_a_pipe_whole_ones(root: Path) -> None:
    assert max(map(len, ls(width=80).splitlines())) <= 80
    assert all(len(line.split()) >= 8 for line in ls().splitlines()[:-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=xml"], "format=xml: the choices are table, csv, json"),
        (["limit=0"], "limit=0: give a whole number"),
        (["limit"], "'limit' needs a value"),
        (["all=maybe"], "give true or false"),
        (["sort=tme"], r"No run knows the key 'tme'. Did you mean time\?"),
        (["modle=tiger"], r"No run knows the key 'modle'. Did you mean model\?"),
        (["lr=1e-3"], r"Did you mean optimizer.lr\?"),
        (["runs_dir=nowhere"], "runs_dir=nowhere: there is no such folder"),
    ],
)
def test_mistakes_are_one_sentence(root: Path, words: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        ls(*words)


def test_defaults() -> None:
    request = parse([])
    assert (request.limit, request.sort, request.format, request.runs_dir) == (SHOWN, "when", "table", Path("outputs"))
    assert parse(["format=csv"]).limit is None and parse(["format=csv", "limit=2"]).limit == 2
