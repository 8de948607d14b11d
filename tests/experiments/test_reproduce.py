from __future__ import annotations

from dataclasses import replace

import pytest

from experiments import reproduce, training
from experiments.plan import PLAN_FILE, read_study
from experiments.results import LABELS, add, read_results
from tests.experiments.test_results import label_row

PAGE = """# Tiny

<!-- commands: begin -->
<!-- commands: end -->
<!-- table: begin -->
<!-- table: end -->
"""
PLAN = """
question: Does it work?
rows: labels
seeds: [1]
words: [data.source.num_rows=1500, data.source.num_users=30, trainer=ctr, trainer.max_epochs=1, baselines=null]
plot: {metric: auc}
runs:
  - {model: base_rate, data: synthetic_clicks}
  - {model: logistic_regression, data: synthetic_clicks, words: ["data.tasks=[click]"]}
  - {model: logistic_regression, name: broken, data: synthetic_clicks, words: [trainer.max_epochs=none]}
  - {model: fm, name: elsewhere, data: frappe}
"""
GOOD = ("base_rate", "logistic_regression")
FINGERPRINT = reproduce.code_fingerprint


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module", autouse=True)
def one_code():
    """The sources stay as they are, whatever happens to them while the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "code_fingerprint", lambda: "0123456789abcdef")
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory, outputs):
    """The study in a folder of its own, and what its two good runs measured once."""
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    folder.mkdir()
    (folder / PLAN_FILE).write_text(PLAN)
    (folder / "README.md").write_text(PAGE)
    study = read_study(folder)
    again = reproduce.run_all(study, study.chosen(GOOD), outputs / "tiny")
    assert again.failures == {}
    return folder, again.rows


@pytest.fixture
def study(measured, tmp_path):
    """The study with results committed: what was measured, and a second seed of each near by."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in (PLAN_FILE, "README.md"):
        (folder / name).write_text((measured[0] / name).read_text())
    near = [{**row, "seed": 2, "auc": f"{float(row['auc']) + 0.004:.4f}"} for row in measured[1]]
    add([*measured[1], *near], folder / "results.csv", LABELS)
    return read_study(folder)


def run(study, outputs, *words: str) -> int:
    return reproduce.main(["tiny", "--outputs", str(outputs), *words], root=study.folder.parent)


def test_the_same_code_gives_the_same_figures(study, outputs, monkeypatch, capsys):
    monkeypatch.setattr(training.subprocess, "run", lambda *_, **__: pytest.fail("trained again"))
    assert run(study, outputs, "--only", *GOOD) == reproduce.ALL_SAME
    said = capsys.readouterr().out
    assert "2 trainings, 2 of them finished before" in said
    assert "0 moved, 0 unknown" in said and "**moved**" not in said
    report = (outputs / "tiny" / "README.md").read_text()
    assert "| same | 1 of 1 |" in report and "Does it work?" in report and "sqrt(1/n + 1/m)" in report
    assert "Committed and new figures" in report and "again" in (outputs / "tiny" / "plot.svg").read_text()
    assert [row["seed"] for row in read_results(outputs / "tiny" / "results.csv")] == ["1", "1"]


def test_a_figure_that_moved_is_named_and_tells_the_exit_code(study, outputs, capsys):
    rows = [
        {**row, "auc": f"{float(row['auc']) - 0.2:.4f}"} for row in read_results(study.results) if "log" in row["model"]
    ]
    add(rows, study.results, LABELS)
    before = study.results.read_text()
    assert run(study, outputs, "--only", *GOOD) == reproduce.SOME_MOVED
    lines = [line for line in capsys.readouterr().out.splitlines() if "**moved**" in line]
    assert len(lines) == 1 and "| logistic_regression | AUC |" in lines[0] and lines[0].endswith("| 0 of 1 |")
    assert study.results.read_text() == before  # nothing is accepted unasked


def test_accepted_results_take_the_place_of_the_committed_ones(study, measured, outputs):
    worse = [{**row, "auc": "0.1000"} for row in read_results(study.results) if row["seed"] == "1"]
    add(worse, study.results, LABELS)
    run(study, outputs, "--only", *GOOD, "--accept")
    new = {row["model"]: row["auc"] for row in read_results(study.results) if row["seed"] == "1"}
    assert new == {row["model"]: row["auc"] for row in measured[1]}
    assert "| logistic_regression |" in study.page.read_text()


def test_a_run_that_fails_and_one_without_data_are_told_of_and_the_rest_goes_on(study, outputs, monkeypatch, capsys):
    monkeypatch.setenv("GENREC_DATA", "/no/such/folder")
    reproduce._data_path.cache_clear()
    assert run(study, outputs) == reproduce.SOME_FAILED
    said = capsys.readouterr().out
    assert "2 of the runs failed" in said and "[4/4]" in said
    report = (outputs / "tiny" / "README.md").read_text().split("## Runs that failed")[1]
    broken, missing = report.strip().splitlines()
    assert broken.startswith("- broken on synthetic_clicks, seed 1:") and "max_epochs" in broken
    assert "data=frappe is read from /no/such/folder" in missing and "GENREC_DATA" in missing
    assert "| logistic_regression | AUC |" in said


def test_code_that_changed_trains_anew(study, tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(reproduce, "train", lambda cell, seed, place, *_, **__: places.append(place))
    monkeypatch.setattr(reproduce, "rows_of", lambda *_, **__: [])
    for code in ("aaaaaaaaaa", "bbbbbbbbbb"):
        monkeypatch.setattr(reproduce, "code_fingerprint", lambda code=code: code)
        reproduce.run_all(study, study.chosen(["base_rate"]), tmp_path)
    assert places[0] != places[1] and places[0].name == places[1].name == "seed_1"


def test_the_fingerprint_of_the_code_follows_sources_and_configuration(tmp_path):
    for folder, name in (("genrec", "a.py"), ("conf", "a.yaml"), ("docs", "a.md")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("one")
    first = FINGERPRINT(tmp_path)
    (tmp_path / "docs" / "a.md").write_text("two")
    assert FINGERPRINT(tmp_path) == first
    (tmp_path / "conf" / "a.yaml").write_text("two")
    second = FINGERPRINT(tmp_path)
    (tmp_path / "genrec" / "a.py").write_text("two")
    assert len({first, second, FINGERPRINT(tmp_path)}) == 3


def test_quick_runs_one_epoch_of_the_first_seed_and_compares_nothing(study, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(reproduce, "train", lambda cell, seed, place, *_, more, **__: made.append((seed, place, more)))
    monkeypatch.setattr(reproduce, "rows_of", lambda *_, **__: [label_row("table", "fm", 1, 0.6)])
    planned = replace(study, trainings=tuple(replace(each, seeds=(5, 6)) for each in study.trainings))
    monkeypatch.setattr(reproduce, "read_study", lambda _: planned)
    assert run(study, tmp_path, "--only", "base_rate", "--quick") == reproduce.ALL_SAME
    [(seed, place, more)] = made
    assert seed == 5 and "quick" in place.parts and more == ("trainer.max_epochs=1",)
    assert "no figure is compared" in capsys.readouterr().out


def test_mistakes_of_the_command_line_are_refused(study, outputs, capsys):
    assert run(study, outputs, "--only", "base_rat") == reproduce.SOME_FAILED
    assert "--only base_rat: unknown. Allowed: base_rate" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        reproduce.parse(["lastfm", "--quick", "--accept"])
    assert "nothing to --accept" in capsys.readouterr().err
