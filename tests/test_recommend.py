from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from rich.console import Console

from genrec import recommend
from genrec.artifacts import write_json, write_text
from genrec.contracts import IGNORE, GenrecError, HistoryBatch, Recommendations, Task
from genrec.data.dataset import Dataset
from genrec.recommend import Recommender, answer, check_folder, latest_run, parse


class Successor(torch.nn.Module):
    """Knows the ring: the best item is the one after the last, then the one after that, and so on."""

    view, task = "sequences", Task.RETRIEVAL
    max_history = 3

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.batches: list[HistoryBatch] = []

    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        self.batches.append(batch)
        last = batch.items.gather(1, batch.lengths[:, None] - 1)
        distance = (torch.arange(self.num_items)[None, :] - last - 1) % self.num_items
        scores = -distance.float()
        if batch.seen is not None:
            for row, seen in enumerate(batch.seen):
                scores[row, seen[seen != IGNORE]] = -torch.inf
        best = scores.topk(k)
        return Recommendations(best.indices.where(best.values > -torch.inf, IGNORE), best.values)


@dataclass
class Loaded:
    """Stands in for genrec.pipeline.LoadedRun."""

    dataset: Dataset
    model: Any
    config: Any = field(default_factory=lambda: SimpleNamespace(filter_seen=False))
    spec: Any = None


@pytest.fixture
def loaded(cycle_dataset: Dataset) -> Loaded:
    return Loaded(cycle_dataset, Successor(cycle_dataset.num_items))


@pytest.fixture
def recommender(loaded: Loaded) -> Recommender:
    return Recommender(loaded)  # pyright: ignore[reportArgumentType]


def test_history_of_a_user_holds_training_validation_and_test_items(recommender: Recommender) -> None:
    assert recommender.history_of(500)["item_id"].to_list() == ["i100", "i101", "i102", "i103", "i104", "i105"]


def test_user_gets_what_follows_the_whole_history(recommender: Recommender) -> None:
    frame = recommender.for_user("500", k=3)
    assert frame.columns == ["rank", "item_id", "title", "score"]
    assert frame.rows() == [(1, "i106", "Title 6", 0.0), (2, "i107", "Title 7", -1.0), (3, "i100", "Title 0", -2.0)]


def test_history_is_raw_ids_oldest_first(recommender: Recommender) -> None:
    assert recommender.for_history(["i103", "i101"], k=2)["item_id"].to_list() == ["i102", "i103"]


def test_history_is_cut_to_what_the_model_reads_but_all_of_it_is_seen(loaded: Loaded) -> None:
    recommender = Recommender(loaded, filter_seen=True)  # pyright: ignore[reportArgumentType]
    frame = recommender.for_history(["i100", "i101", "i102", "i103", "i104"], k=8)
    assert loaded.model.batches[0].items.tolist() == [[2, 3, 4]]
    assert frame["item_id"].to_list() == ["i105", "i106", "i107"]  # three are left, so the list is shorter than k


def test_filter_seen_follows_the_run_unless_given(loaded: Loaded) -> None:
    loaded.config.filter_seen = True
    assert Recommender(loaded).filter_seen  # pyright: ignore[reportArgumentType]
    assert not Recommender(loaded, filter_seen=False).filter_seen  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_everyone_gets_the_same_as_alone_whatever_the_batch_size(recommender: Recommender, batch_size: int) -> None:
    done: list[int] = []
    table = recommender.for_users(k=3, batch_size=batch_size, on_batch=done.append)
    assert sum(done) == 12
    assert table.columns == ["user_id", "rank", "item_id", "title", "score"]
    assert table["user_id"].to_list() == [user for user in range(500, 512) for _ in range(3)]
    for user in (500, 503, 511):
        assert table.filter(pl.col("user_id") == user).drop("user_id").equals(recommender.for_user(user, k=3))


def test_chosen_users_keep_their_order(recommender: Recommender) -> None:
    assert recommender.for_users([507, 502], k=1)["user_id"].to_list() == [507, 502]


@pytest.mark.parametrize("k", [0, 9])
def test_k_outside_the_catalogue_is_refused(recommender: Recommender, k: int) -> None:
    with pytest.raises(GenrecError, match=f"k={k}: give a number from 1 to 8"):
        recommender.for_user(500, k=k)


def test_unknown_ids_are_refused(recommender: Recommender) -> None:
    with pytest.raises(GenrecError, match="no user '7'"):
        recommender.for_user(7)
    with pytest.raises(GenrecError, match="no item 'x'"):
        recommender.for_history(["x"])
    with pytest.raises(GenrecError, match="history is empty"):
        recommender.for_history([])


def test_tokenizer_run_is_refused(cycle_dataset: Dataset) -> None:
    model = SimpleNamespace(task=Task.TOKENIZER)
    with pytest.raises(GenrecError, match="recommends nothing"):
        Recommender(Loaded(cycle_dataset, model))  # pyright: ignore[reportArgumentType]


def test_parse_reads_ids_as_they_stand() -> None:
    assert parse(["history=[12, 'B00 X',\"7\"]", "k=3"]).history == ("12", "B00 X", "7")
    assert parse(["users=all", "output=a.csv"]).users == ()
    assert parse(["users=[1,2]"]).users == ("1", "2")
    assert parse(["user=a=b", "filter_seen=True"]).user == "a=b"
    assert parse(["user=1"]).filter_seen is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["usr=3"], "Did you mean user="),
        (["user=3", "checkpont=best"], "Did you mean checkpoint="),
        (["user"], "needs a value"),
        ([], "exactly one of"),
        (["user=3", "history=[1]"], "exactly one of"),
        (["history=12"], "between brackets"),
        (["users=all"], "output=recs.parquet"),
        (["users=some"], "users=all or a list"),
        (["users=all", "output=recs.xlsx"], "must end in"),
        (["user=3", "k=ten"], "whole number"),
        (["user=3", "k=0"], "whole number"),
        (["user=3", "filter_seen=yes"], "true or false"),
        (["user=3", "checkpoint=last"], "best and final"),
    ],
)
def test_parse_says_what_is_wrong(arguments: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        parse(arguments)


def run_folder(folder: Path, state: str = "finished", started: float = 1.0, metric: str = "test/recall@10") -> Path:
    write_text(folder / "config.yaml", "seed: 1\n")
    write_json(folder / "run.json", {"state": state, "config_key": "x", "started": started})
    write_json(folder / "metrics.json", {"final": {metric: 0.5}, "history": {}})
    return folder


def test_folders_that_cannot_recommend_say_so(tmp_path: Path) -> None:
    check_folder(run_folder(tmp_path / "good"))
    with pytest.raises(GenrecError, match="no such folder"):
        check_folder(tmp_path / "absent")
    with pytest.raises(GenrecError, match="no run folder"):
        check_folder(tmp_path)
    with pytest.raises(GenrecError, match=r"not finished \(its state is 'running'\)"):
        check_folder(run_folder(tmp_path / "killed", state="running"))


def test_latest_is_the_newest_finished_run_that_recommends(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="no finished run"):
        latest_run(tmp_path)
    run_folder(tmp_path / "b" / "old", started=1.0)
    expected = run_folder(tmp_path / "a" / "new", started=2.0)
    run_folder(tmp_path / "failed", state="failed", started=3.0)
    run_folder(tmp_path / "tokenizer", started=4.0, metric="test/mse")
    assert latest_run(tmp_path) == expected


def printed(arguments: list[str], loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = run_folder(tmp_path / "run")
    monkeypatch.setattr(Recommender, "load", lambda path, **_: Recommender(loaded))  # pyright: ignore[reportArgumentType]
    stream = io.StringIO()
    answer(parse([f"run={folder}", *arguments]), Console(file=stream, width=300))
    return stream.getvalue()


def test_the_answer_shows_history_and_titles(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(["user=500", "k=2"], loaded, tmp_path, monkeypatch)
    assert (
        text.index("History of user 500") < text.index("Title 5") < text.index("Recommended by") < text.index("Title 6")
    )
    assert "Title 7" in text
    text = printed(["history=[i107]", "k=1"], loaded, tmp_path, monkeypatch)
    assert text.index("Title 7") < text.index("Title 0")


def test_a_long_history_is_shown_from_its_end(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"i{100 + place % 8}" for place in range(30)]
    text = printed([f"history=[{','.join(ids)}]", "k=1"], loaded, tmp_path, monkeypatch)
    history = text.partition("Recommended by")[0]
    assert "the last 20 of 30 items" in history and history.count("Title") == 20


@pytest.mark.parametrize(
    ("suffix", "reader"), [("parquet", "read_parquet"), ("csv", "read_csv"), ("jsonl", "read_ndjson")]
)
def test_everyone_in_a_file(
    suffix: str, reader: str, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / f"recs.{suffix}"
    text = printed(["users=all", f"output={path}", "k=2"], loaded, tmp_path, monkeypatch)
    table = getattr(pl, reader)(path)
    assert table.rows()[:2] == [(500, 1, "i106", "Title 6", 0.0), (500, 2, "i107", "Title 7", -1.0)]
    assert len(table) == 24 and "24 rows" in text
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # no half file is left


def test_interrupted_writing_leaves_the_old_file(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recs.csv"
    path.write_text("old")

    def fail(frame: pl.DataFrame, target: Any, **options: Any) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_csv", fail)
    with pytest.raises(KeyboardInterrupt):
        printed(["users=all", f"output={path}", "k=2"], loaded, tmp_path, monkeypatch)
    assert path.read_text() == "old" and not list(tmp_path.glob(".*"))


def test_mistakes_exit_with_2_and_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["genrec-recommend", "usr=3"])
    with pytest.raises(SystemExit) as exited:
        recommend.main()
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("genrec-recommend: 'usr=3'") and error.count("\n") == 1


def test_help_lists_every_key_and_imports_neither_torch_nor_hydra() -> None:
    script = "import sys; from genrec.recommend import main; main(); print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    assert all(f"\n  {key}=" in done.stdout for key in recommend.ALLOWED_KEYS)
    assert done.stdout.endswith("set()\n")
