from __future__ import annotations

import os
from pathlib import Path

import pytest

from genrec.artifacts import write_json
from genrec.records import SweepRecord, read_run, read_sweep
from genrec.report.lines import (
    Group,
    Line,
    changed_words,
    clip,
    last_write,
    line_of,
    one_line,
    relative_time,
    render,
    run_seconds,
)
from tests.report.run_folders import NOW, held, make_run, make_sweep


def single(place: Path) -> Group:
    return Group(place, (read_run(place),))


def of_sweep(place: Path, total: int | None = None) -> Group:
    record = read_sweep(place)
    return Group(place, record.runs, record, total or len(record.runs))


def line(group: Group, sort: str = "when", now: float = NOW + 120, errors: bool = False) -> Line:
    return line_of(group, sort, now, errors)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "now"), (59, "now"), (61, "1 min ago"), (7200, "2 h ago"), (86400 * 3, "3 d ago"), (86400 * 40, "2023-10-0")],
)
def test_relative_times(seconds: float, told: str) -> None:
    assert relative_time(NOW - seconds, NOW).startswith(told)


def test_time_is_that_of_the_run_s_own_clock_or_until_it_last_wrote(tmp_path: Path) -> None:
    finished = make_run(tmp_path / "a", seconds=900)
    assert run_seconds(read_run(finished), NOW) == 900
    write_json(finished / "timing.json", {"total": 80.0})  # it was continued: the hours between are not its own
    assert run_seconds(read_run(finished), NOW) == 80.0
    killed = make_run(tmp_path / "b", state="running", epochs=[{"epoch": 1}])
    for name in ("run.json", "history.json"):
        os.utime(killed / name, (NOW + 30, NOW + (50 if name == "history.json" else 30)))
    assert last_write(read_run(killed)) == NOW + 50
    assert run_seconds(read_run(killed), NOW + 900) == 50
    with held(killed):
        assert run_seconds(read_run(killed), NOW + 900) == 900
    assert run_seconds(read_run(make_run(tmp_path / "c", state="failed", seconds=7)), NOW) == 7


def test_changes_are_told_by_short_keys_without_what_has_a_column(tmp_path: Path) -> None:
    given = ["model=tiger", "+data=synthetic", "optimizer.lr=1e-3", "model.dim=8", "data.dim=9", "hydra.run.dir=x",
             "progress=false", "~baselines"]  # fmt: skip
    run = read_run(make_run(tmp_path, overrides=given))
    assert changed_words(run, ["seed", "data.dim"]).startswith("data.dim=9 lr=1e-3")
    assert changed_words(run) == "lr=1e-3 model.dim=8 data.dim=9 baselines="


def test_a_finished_run_shows_what_it_reached(tmp_path: Path) -> None:
    final = {"val/recall@10": 0.31234, "test/recall@10": 0.29, "test/ndcg@10": 0.15, "test/auc": 0.8}
    told = line(single(make_run(tmp_path, final=final, overrides=["seed=3"])))
    assert (told.state, told.model, told.data, told.time) == ("finished", "tiger", "synthetic", "1 min 00 s")
    assert told.monitored == ("val/recall@10", "0.3123") and told.tested == ("test/recall@10", "0.2900")
    assert (told.when, told.changed, told.folder, told.notes) == ("2 min ago", "seed=3", str(tmp_path), [])
    assert line(single(tmp_path), sort="test/ndcg@10").tested == ("test/ndcg@10", "0.1500")


@pytest.mark.parametrize(
    ("final", "shown"),
    [
        ({"test/log_loss": 0.4, "test/auc": 0.8}, "test/auc"),
        ({"test/ndcg@20": 0.1, "test/recall@20": 0.2}, "test/recall@20"),
        ({"test/mine": 0.1}, "test/mine"),
        ({}, ""),
    ],
)
def test_the_test_metric_is_the_usual_one_or_the_first(tmp_path: Path, final: dict[str, float], shown: str) -> None:
    assert line(single(make_run(tmp_path, final=final))).tested[0] == shown


def test_training_that_is_monitored_does_not_hide_the_test(tmp_path: Path) -> None:
    final = {"train/loss": 9.5, "test/recall@10": 0.1}
    told = line(single(make_run(tmp_path, final=final, monitor="train/loss", direction="min")))
    assert told.monitored == ("train/loss", "9.5000") and told.tested == ("test/recall@10", "0.1000")


def test_a_running_run_tells_its_epoch_and_when_it_wrote(tmp_path: Path) -> None:
    epochs = [{"epoch": 6, "val/recall@10": 0.4}, {"epoch": 7, "val/recall@10": 0.2}]
    run = make_run(tmp_path, state="running", epochs=epochs, config={"trainer": {"max_epochs": 20}})
    for name in ("run.json", "history.json"):
        os.utime(run / name, (NOW, NOW))
    with held(run):
        told = line(single(run))
    assert told.state == "running" and told.monitored[1] == "0.4000" and told.tested == ("", "-")
    assert told.notes == [("epoch 7 of 20, last written 2 min ago", "cyan")]
    assert line(single(run)).notes == []  # it was killed


def test_a_run_without_an_epoch_says_so(tmp_path: Path) -> None:
    with held(make_run(tmp_path, state="running")):
        assert line(single(tmp_path)).notes[0][0].startswith("no epoch yet")


def test_errors_are_told_on_demand_on_one_line(tmp_path: Path) -> None:
    group = single(make_run(tmp_path, state="failed", error="GenrecError: no\n  such\x1b[31m file"))
    assert line(group).notes == []
    assert line(group, errors=True).notes == [("GenrecError: no such [31m file", "red")]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    place = make_sweep(tmp_path / "sweep")
    for job, (value, state) in enumerate([(0.1, "finished"), (0.3, "finished"), (0.0, "failed"), (0.2, "pruned")]):
        final = {"val/recall@10": value, "test/recall@10": value / 2}
        make_run(place / str(job), state=state, overrides=["model=tiger", f"optimizer.lr={job}"], final=final,
                 error="boom" if state == "failed" else None)  # fmt: skip
    return place


def test_a_sweep_is_one_line_with_its_best_run(sweep: Path) -> None:
    told = line(of_sweep(sweep))
    assert told.changed == "4 runs (1 failed, 1 pruned): lr"
    assert told.monitored == ("val/recall@10", "0.3000") and told.tested == ("test/recall@10", "0.1500")
    assert (told.folder, told.time, told.state) == (str(sweep), "4 min 00 s", "finished")
    assert line(of_sweep(sweep), errors=True).notes == [("2: boom", "red")]


def test_a_sweep_of_which_some_were_chosen_says_of_how_many(sweep: Path) -> None:
    record = read_sweep(sweep)
    some = SweepRecord(sweep, record.sweep, record.runs[:2])
    assert line(Group(sweep, some.runs, some, 4)).changed == "2 of 4 runs: lr"


def test_seeds_are_told_by_their_mean(tmp_path: Path) -> None:
    place = make_sweep(tmp_path)
    for job, value in enumerate([0.1, 0.2, 0.6]):
        make_run(place / str(job), overrides=[f"seed={job}"], final={"val/recall@10": value, "test/recall@10": value})
    told = line(of_sweep(place))
    assert told.changed.startswith("mean of 3 seeds")
    assert told.monitored[1] == told.tested[1] == "0.3000"


def test_several_models_are_named_up_to_two(tmp_path: Path) -> None:
    for job, model in enumerate(("tiger", "sasrec", "gat")):
        make_run(tmp_path / str(job), model=model)
    assert line(of_sweep(tmp_path)).model == "tiger, sasrec +1"


def sample(folder: str, metric: str = "val/auc", changed: str = "lr=1e-3") -> Line:
    tested = ("test/auc", "0.4000")
    return Line("now", "finished", "tiger", "synthetic", (metric, "0.5000"), tested, "1 s", changed, folder)


def test_a_metric_that_all_share_is_the_title_of_its_column() -> None:
    head, first, _ = (text.plain for text in render([sample("a"), sample("b")], None))
    assert head.split() == ["when", "state", "model", "data", "val/auc", "test/auc", "time", "changed", "folder"]
    assert first.split()[4:6] == ["0.5000", "0.4000"]
    head, first, second = (text.plain for text in render([sample("a"), sample("b", "val/loss")], None))
    assert "best" in head and "0.5000 auc" in first and "0.5000 loss" in second


def test_a_size_gets_a_column() -> None:
    head, row = (text.plain for text in render([sample("a").with_size("3 MB")], None))
    assert head.split()[-3] == "size" and "3 MB" in row


@pytest.mark.parametrize("width", [None, 140, 100, 80])
def test_the_folder_is_always_whole_and_nothing_is_wider_than_the_terminal(width: int | None) -> None:
    folder = "outputs/2026-11-20/10-00-00_tiger_synthetic"
    lines = [sample(folder, changed="key=value " * 30), sample(folder + "2", changed="é漢字" * 40)]
    texts = [text.plain for text in render(lines, width)]
    assert sum(folder in text for text in texts) == 2
    assert any("key=value" in text and "…" in text for text in texts)
    if width is not None:
        from rich.cells import cell_len

        assert max(map(cell_len, texts)) <= width
    assert len(texts) == (3 if width in (None, 140) else 5)


def test_a_very_narrow_terminal_does_without_some_columns() -> None:
    told = render([sample("a")], 45)
    assert "data" not in told[0].plain and "time" not in told[0].plain and "0.4000" in told[1].plain
    assert max(len(text.plain) for text in told) <= 45


def test_states_have_their_colours() -> None:
    (span,) = [span for span in render([sample("a")], None)[1].spans if span.style]
    assert span.style == "green"


def test_texts_are_cut_and_cleaned() -> None:
    assert (clip("abcdef", 4), clip("abc", 3), clip("abc", 0)) == ("abc…", "abc", "")
    assert one_line("a\n\tb\x07  c") == "a b c"
