from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from genrec.artifacts import write_text
from genrec.contracts import GenrecError
from genrec.records import RunRecord, read_run
from genrec.report.selection import (
    Selection,
    check_keys,
    metric_of,
    nearest,
    parse_selection,
    parse_value,
    runs_below,
    select,
    split_commas,
    sweep_of,
    value_of,
    why_nothing,
)
from tests.report.run_folders import NOW, held, make_run, make_sweep


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four runs: a to d, each an hour older than the one before."""
    overrides = {
        "a": ["model=tiger", "optimizer.lr=1e-3", "seed=1"],
        "b": ["model=sasrec", "optimizer.lr=0.0003", "seed=2"],
        "c": ["optimizer=adam", "k_values=[5,10]", "progress=false"],
        "d": ["optimizer.lr=${other}", "note='two words'"],
    }
    states = {"a": "finished", "b": "failed", "c": "running", "d": "pruned"}
    config = {
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01, "betas": [0.9, 0.999]},
        "model": {"dropout": 0},
    }
    for age, (name, given) in enumerate(overrides.items()):
        model = "sasrec" if name == "b" else "tiger"
        final = {"test/recall@10": 0.1 * (age + 1), "test/loss": 3.0 - age} if name != "c" else None
        make_run(tmp_path / "runs" / name, state=states[name], overrides=given, config=config, final=final, model=model,
                 started=NOW - 3600 * age)  # fmt: skip
    return tmp_path / "runs"


def chosen(root: Path, *words: str, now: float = NOW) -> str:
    """The names of the runs found, in the order of their age."""
    return "".join(run.folder.name for run in select(runs_below(root), parse_selection(words, runs_dir=root, now=now)))


def test_runs_come_newest_first_and_later_jobs_before_earlier_ones_of_the_same_time(root: Path) -> None:
    for name in ("2", "10"):
        make_run(root / "multirun" / name, started=NOW - 9e9)
    assert [run.folder.name for run in runs_below(root)] == ["a", "b", "c", "d", "10", "2"]


def test_what_an_interrupted_clean_has_left_is_no_run(root: Path) -> None:
    make_run(root / ".e.deleted-0123abcd")
    make_run(root / ".day" / "f")
    assert len(runs_below(root)) == 4


def test_a_missing_folder_of_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match=r"runs_dir=.*nowhere: there is no such folder"):
        runs_below(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "abcd"),
        (("optimizer.lr=1e-3",), "a"),
        (("optimizer.lr=0.001",), "a"),
        (("optimizer.lr=1e-3,3e-4",), "ab"),
        (("optimizer.lr!=1e-3",), "bcd"),
        (("optimizer.lr=0.01",), "cd"),  # from the config: not overridden, and overridden by a reference
        (("optimizer.lr<0.001",), "b"),
        (("optimizer.lr<=1e-3",), "ab"),
        (("optimizer.lr>1e-3",), "cd"),
        (("optimizer.lr>=1e-3", "seed=1"), "a"),
        (("seed=1,2",), "ab"),
        (("model=sasrec",), "b"),
        (("model!=sasrec",), "acd"),
        (("data=synthetic",), "abcd"),
        (("trainer=advanced",), "abcd"),  # a choice of a group
        (("optimizer=adam",), "c"),
        (("optimizer.betas=[0.9,0.999]",), "abcd"),
        (("k_values=[5,10]",), "c"),
        (("progress=False",), "c"),
        (("progress=0",), ""),  # false is no number
        (("model.dropout=0.0",), "abcd"),
        (("note=two words",), "d"),
        (("state=failed,pruned",), "bd"),
        (("state=killed",), "c"),  # says that it runs, and nobody holds it
        (("test/recall@10>0.15",), "d"),  # a failed run has no final metrics
        (("sasrec",), "b"),
        (("lr=1e-3",), ""),  # the key is not lr
        (("optimizer.lr",), "abd"),
        (("runs/c",), "c"),
        (("tiger", "seed"), "a"),
    ],
)
def test_words_choose_by_value(root: Path, words: tuple[str, ...], expected: str) -> None:
    assert chosen(root, *words) == expected


def test_a_run_that_is_held_is_running_and_none_that_was_killed(root: Path) -> None:
    with held(root / "c"):
        assert chosen(root, "state=running") == "c" and chosen(root, "state=killed") == ""
    assert chosen(root, "state=running") == "" and chosen(root, "state=killed") == "c"


def test_times_reach_back_from_now_or_from_a_date(root: Path) -> None:
    assert chosen(root, "since=90m") == "ab"
    assert chosen(root, "since=2h") == "abc"
    assert chosen(root, "since=1d") == chosen(root, "since=1w") == "abcd"
    assert chosen(root, "before=2.5h") == "d"
    assert chosen(root, "before=30m", "since=90m") == "b"
    date = datetime.fromtimestamp(NOW - 5400).isoformat()
    assert chosen(root, f"since={date}") == "ab"


def test_a_sweep_is_a_folder_however_it_is_written_or_a_choice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(root / "multirun" / "day")
    make_run(sweep / "0")
    make_run(sweep / "1", choices={"sweep": "grid"}, overrides=["sweep=grid"])
    monkeypatch.chdir(root.parent)
    for word in (str(sweep), f"{sweep}/", "runs/multirun/day", "multirun/day", "./runs/../runs/multirun/day"):
        assert chosen(root, f"sweep={word}") == "10"
    relative = select(runs_below(Path("runs")), parse_selection([f"sweep={sweep}"], runs_dir=Path("runs")))
    assert [str(run.folder) for run in relative] == ["runs/multirun/day/1", "runs/multirun/day/0"]
    assert chosen(root, "sweep=grid") == "1"
    with pytest.raises(GenrecError, match="is not the folder of a sweep"):
        parse_selection([f"sweep={root / 'a'}"], runs_dir=root)
    with pytest.raises(GenrecError, match="no such folder"):
        parse_selection(["sweep=multirun/other"], runs_dir=root)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("state=faild", r"'faild' is no state. Did you mean failed\? The states are running"),
        ("since=yesterday", "give an age such as 30m, 12h, 7d or 2w, or a date"),
        ("optimizer.lr<fast", "< compares numbers"),
        ("seed=", "'seed=' needs a value: seed=..."),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(root: Path, word: str, message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        parse_selection([word], runs_dir=root)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lr", r"'lr'. Did you mean optimizer.lr\?"),
        ("optimizer.lrr", r"Did you mean optimizer.lr\?"),
        ("optimizer.bettas", r"Did you mean optimizer.betas\?"),
        ("limt", r"Did you mean limit\?"),
        ("test/recal@10", r"Did you mean test/recall@10\?"),
        ("qqqq", "A key is one of the config, such as optimizer.lr, or a metric"),
    ],
)
def test_keys_that_no_run_knows_are_answered_with_the_nearest(root: Path, key: str, message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        check_keys(runs_below(root), ["seed", key], options=["limit"])


def test_keys_with_the_same_ending_are_all_named(root: Path) -> None:
    make_run(root / "e", overrides=["tokenizer.lr=1"])
    with pytest.raises(GenrecError, match=r"Did you mean one of tokenizer.lr, optimizer.lr\?"):
        check_keys(runs_below(root), ["lr"])


def test_keys_are_not_judged_where_there_is_no_run() -> None:
    check_keys([], ["anything"])


def test_nothing_found_says_what_there_is(root: Path) -> None:
    runs = runs_below(root)

    def why(*words: str) -> str:
        return why_nothing(runs, parse_selection(words, runs_dir=root, now=NOW), Path("outputs"))

    assert why("model=tigr") == (
        "None of the 4 runs below outputs/ fulfils model=tigr. There is model=tiger (3), sasrec (1)."
    )
    assert "There is optimizer.lr=0.01 (2), 0.001 (1), 0.0003 (1)." in why("optimizer.lr<1e-9")
    assert "There is state=finished (1), failed (1), killed (1), pruned (1)." in why("state=running")
    assert why("model=tiger", "seed=2").endswith("at once; alone, model=tiger: 3, seed=2: 1.")
    assert "fulfils 'gat' nor 'lastfm'." in why("gat", "lastfm")
    assert why_nothing([], Selection(), Path("outputs")) == (
        "No runs below outputs/ yet. Start one: python -m genrec.run"
    )


def test_values_beyond_the_first_few_are_counted(tmp_path: Path) -> None:
    for seed in range(10):
        make_run(tmp_path / str(seed), overrides=[f"seed={seed}"])
    told = why_nothing(runs_below(tmp_path), parse_selection(["seed=99"], runs_dir=tmp_path), tmp_path)
    assert told.count("(1)") == 8 and told.endswith(" and 2 more.")


def test_broken_files_are_told_of_and_taken_for_missing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_text(root / "broken" / "run.json", "{")
    write_text(root / "a" / "overrides.yaml", "- [")
    write_text(root / "b" / "config.yaml", "- [")
    write_text(root / "d" / "metrics.json", "[1]")
    assert chosen(root, "optimizer.lr>0") == "abcd" and chosen(root, "optimizer.lr=0.001") == ""
    assert chosen(root, "optimizer.betas=[0.9,0.999]") == "acd"
    told = caplog.text
    assert "broken/run.json is not valid JSON" in told and "a/overrides.yaml is not valid YAML" in told
    assert "b/config.yaml is not valid YAML" in told and "d is read without its final" in told


def test_metrics_are_final_or_the_best_of_the_epochs_and_none_of_a_failed_run(tmp_path: Path) -> None:
    epochs = [{"epoch": 1, "val/recall@10": 0.1, "val/loss": 3.0}, {"epoch": 2, "val/recall@10": 0.3, "val/loss": 4.0},
              {"epoch": 3, "val/recall@10": 0.2}]  # fmt: skip

    def run(name: str, **facts: object) -> RunRecord:
        return read_run(make_run(tmp_path / name, epochs=epochs, **facts))  # pyright: ignore[reportArgumentType]

    killed = run("killed", state="running")
    assert metric_of(killed, "val/recall@10") == 0.3
    assert metric_of(killed, "val/loss") == 3.0
    assert metric_of(killed, "test/recall@10") is None
    assert metric_of(run("finished", final={"val/recall@10": 0.25}), "val/recall@10") == 0.25
    assert metric_of(run("failed", state="failed"), "val/recall@10") is None
    downwards = run("down", state="running", direction="min")
    assert metric_of(downwards, "val/recall@10") == 0.1


def test_a_job_knows_its_sweep_and_a_run_has_none(root: Path) -> None:
    sweep = make_sweep(root / "multirun" / "day")
    assert sweep_of(read_run(make_run(sweep / "0"))) == sweep
    assert sweep_of(read_run(make_run(root / "older" / "3"))) == root / "older"  # before sweep.json was written
    assert sweep_of(read_run(root / "a")) is None


def test_a_key_is_unknown_where_the_config_has_none(root: Path) -> None:
    run = read_run(root / "a")
    assert value_of(run, "optimizer.nothing") == (False, None)
    assert value_of(run, "optimizer.lr.deeper") == (False, None)
    assert value_of(run, "optimizer.betas.1") == (True, 0.999)
    assert value_of(run, "optimizer") == (True, "optim")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2", -2.0),
        (".5", 0.5),
        ("true", True),
        ("Null", None),
        ("[1,[2,x]]", (1.0, (2.0, "x"))),
        ("'1'", "1"),
        ("1-2", "1-2"),
        ("tiger", "tiger"),
    ],
)
def test_words_become_values(text: str, value: object) -> None:
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_commas_in_brackets_separate_nothing() -> None:
    assert split_commas("a, [1,2],{b: (3,4)}") == ["a", "[1,2]", "{b: (3,4)}"]
    assert split_commas("") == []


def test_nearest_prefers_what_is_spelled_alike_to_what_ends_alike() -> None:
    assert nearest("seeds", ["data.seeds", "seed"]) == "seed"
    assert nearest("lr", ["optimizer.lr", "model"]) == "optimizer.lr"
    assert nearest("zzz", ["optimizer.lr"]) is None


def test_links_to_runs_elsewhere_are_not_followed(root: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere" / "x")
    os.symlink(tmp_path / "elsewhere", root / "linked")
    assert chosen(root) == "abcd"
