from __future__ import annotations

import subprocess

import pytest

from experiments import training
from experiments.plan import Training
from genrec.artifacts import write_json
from genrec.contracts import GenrecError

CELL = Training("mine", "mine", "shop", "table", ("experiment=recipe", "data=shop"), (7,))


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have been run, all of which succeed."""
    found = []

    def run(command, env, **_):
        found.append((command, env["OMP_NUM_THREADS"]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(training.subprocess, "run", run)
    return found


@pytest.mark.parametrize(
    ("state", "place"),
    [("finished", None), ("running", "resume="), ("failed", "hydra.run.dir="), (None, "hydra.run.dir=")],
)
def test_finished_runs_are_kept_killed_ones_continued_and_failed_ones_begun_anew(tmp_path, commands, state, place):
    folder = training.folder_of(CELL, 7, tmp_path)
    if state is not None:
        folder.mkdir(parents=True)
        write_json(folder / "run.json", {"state": state})  # running, but no process holds it: it was killed
    training.train(CELL, 7, folder, tmp_path, threads=3, more=["trainer.max_epochs=1"])
    if place is None:
        assert commands == []
    else:
        [(command, threads)] = commands
        assert command[1:7] == ["-m", "genrec.run", "experiment=recipe", "data=shop", "seed=7", f"{place}{folder}"]
        assert command[-1] == "trainer.max_epochs=1" and threads == "3"


def test_a_run_that_fails_says_why(tmp_path):
    broken = Training("broken", "broken", "synthetic", "table", ("data=synthetic", "model=tigr"), (1,))
    with pytest.raises(GenrecError, match="tigr"):
        training.train(broken, 1, training.folder_of(broken, 1, tmp_path), tmp_path, threads=1)


def test_folders_differ_wherever_runs_do(tmp_path):
    other = Training("mine", "mine_too", "shop", "multitask", (), (7,))
    folders = {training.folder_of(cell, seed, tmp_path) for cell in (CELL, other) for seed in (1, 2)}
    assert len(folders) == 4 and tmp_path / "shop" / "mine" / "seed_1" in folders


def test_a_run_of_several_labels_becomes_a_row_for_each(tmp_path):
    small = ("data.source.num_rows=1500", "data.source.num_users=30", "trainer.max_epochs=1", "baselines=null")
    words = ("model=mmoe", "data=synthetic_clicks", "trainer=mtl", "data.tasks=[click,buy]", *small)
    cell = Training("two", "two", "synthetic_clicks", "multitask", words, (3,))
    folder = training.folder_of(cell, 3, tmp_path)
    training.train(cell, 3, folder, tmp_path, threads=1)
    rows = training.rows_of(cell, 3, folder, "labels", threads=1)
    assert [(row["label"], row["table"], row["model"]) for row in rows] == [
        ("buy", "multitask", "two"),
        ("buy_given_click", "multitask", "two"),
        ("click", "multitask", "two"),
    ]
    assert all(0 <= float(row["auc"]) <= 1 and row["seed"] == 3 and row["parameters"] > 100 for row in rows)


def test_a_recommender_has_a_row_for_each_protocol_and_baseline(tmp_path):
    small = ("data.source.num_users=60", "data.source.num_items=80", "trainer=simple", "trainer.max_epochs=1")
    words = ("model=bpr_mf", "data=synthetic", *small)
    cell = Training("mf", "mf", "synthetic", "table", words, (1,), baselines=True)
    folder = training.folder_of(cell, 1, tmp_path)
    training.train(cell, 1, folder, tmp_path, threads=1)
    rows = training.rows_of(cell, 1, folder, "items", threads=1)
    names = [(row["model"], row["seed"], row["filter_seen"]) for row in rows]
    baselines = [(name, "", masked) for masked in (False, True) for name in ("popularity", "item_knn", "text_knn")]
    assert names == [("mf", 1, False), ("mf", 1, True), *baselines]
    own = training.read_json(folder / "metrics.json")["final"]
    assert (
        rows[1]["recall@10"] == f"{own['test/recall@10']:.4f}"
    )  # the run itself masks, as models with user vectors do
    assert rows[0]["recall@10"] != rows[1]["recall@10"]
