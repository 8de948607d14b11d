"""Run folders that somebody changed, and the words of the commands that read them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np

import genrec.doctor.command
import genrec.generate
import genrec.pipeline
import genrec.predict
import genrec.recommend
import genrec.report.command
from tests.fuzz.cases import Area, Case, RefusedError, is_sentence
from tests.fuzz.files import frame, write
from tests.fuzz.mutations import file_of
from tests.fuzz.starting import composed

_TINY = ("progress=false", "hardware=cpu", "hardware.num_threads=1", "trainer.max_epochs=2", "k_values=[1,5]")
_SHOP = ("data=synthetic", "data.source.num_users=12", "data.source.num_items=20", "data.source.num_categories=2",
         "data.source.num_brands=2")  # fmt: skip
_RUNS = {
    "sasrec": ("model=sasrec", "trainer=advanced", "trainer.monitor=val/recall@5", "model.embedding_dim=8", *_SHOP,
               "logger=csv"),
    "tiger": ("model=tiger", "trainer=tiger", "trainer.monitor=val/recall@5", "model.embedding_dim=8",
              "model.num_beams=5", "trainer.max_steps=3", *_SHOP, "logger=none"),
    "lightgcn": ("model=lightgcn", "trainer=advanced", "trainer.monitor=val/recall@5", *_SHOP, "logger=none"),
    "fm": ("model=fm", "trainer=ctr", "data=table", "data.labels=click", "data.group=user_id", "logger=none"),
}  # fmt: skip
Command = Callable[[Sequence[str]], None]


@cache
def runs() -> Path:
    """A folder of finished runs, one unfinished run and a sweep of two, made once per process."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-runs-"))
    write(frame(), root / "rows.csv")
    for name, words in _RUNS.items():
        more = [f"data.path={root / 'rows.csv'}"] if name == "fm" else []
        config = composed([*words, *_TINY, *more], root / name)
        config.output_dir, config.cache_dir = str(root / name), str(root / "cache")
        genrec.pipeline.execute(config)
    _make_unfinished(root)
    return root


def _make_unfinished(root: Path) -> None:
    """The run of sasrec as it is when it was killed after an epoch, and the same twice as a sweep."""
    shutil.copytree(root / "sasrec", root / "killed")
    text = (root / "killed" / "run.json").read_text().replace('"finished"', '"running"')
    (root / "killed" / "run.json").write_text(text)
    for name in ("best_model.pt", "final_model.pt", "metrics.json", "report.html"):
        (root / "killed" / name).unlink(missing_ok=True)
    for number in ("0", "1"):
        shutil.copytree(root / "sasrec", root / "sweep" / number)
    (root / "sweep" / "sweep.json").write_text(
        '{"state": "finished", "command": ["-m", "seed=1,2"], "objectives": [["val/recall@5", "max"]], '
        '"scales": {"seed": "linear"}}\n'
    )


def called(main: Callable[[], object], words: Sequence[str]) -> None:
    """Calls the entry of a command with words; raises what it says where its exit code is not 0."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    arguments = mock.patch.object(sys, "argv", ["command", *words])
    with arguments, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    if code not in (0, None):
        said = err.getvalue() or out.getvalue()
        raise RefusedError(said)
    if not is_sentence(err.getvalue() or "fine"):
        raise AssertionError(f"it ended well, and said: {err.getvalue()[:2000]}")


def _doctor() -> None:
    """Findings are no refusal, whatever the exit code is."""
    try:
        genrec.doctor.command.main()
    except SystemExit as ended:
        if ended.code not in (0, 1):
            raise


_MAINS: dict[str, Callable[[], object]] = {
    "genrec.recommend": genrec.recommend.main,
    "genrec.generate": genrec.generate.main,
    "genrec.predict": genrec.predict.main,
    "genrec.report": genrec.report.command.main,
    "genrec.doctor": _doctor,
}


def _resumed(run: Path, words: Sequence[str]) -> None:
    config = composed([*words, *_TINY, "trainer.max_epochs=3", f"resume={run}"], run.parent / "new")
    config.cache_dir = str(runs() / "cache")
    genrec.pipeline.execute(config)


def changed(random: Random, folder: Path) -> Case:
    """A run folder with one of its files mutated, gone or replaced, and something that reads it."""
    kind = random.choice([*_RUNS, "killed", "sweep"])
    copied = folder / "outputs" / kind
    shutil.copytree(runs() / kind, copied)
    readable = [path for path in sorted(copied.rglob("*")) if path.is_file() and path.suffix not in (".html", ".log")]
    path = random.choice([item for item in readable if not item.name.startswith(".")])
    drawn = random.random()
    if drawn < 0.06:
        path.unlink()
        how = "gone"
    elif drawn < 0.1:
        path.unlink()
        path.mkdir()
        how = "a folder"
    elif drawn < 0.14:
        path.write_bytes(b"")
        how = "empty"
    else:
        how = file_of(random, path)
    text = f"{kind}/{path.relative_to(copied)}: {how}"
    if kind == "killed" and random.random() < 0.7:
        return Case(f"{text}; resume", lambda: _resumed(copied, _RUNS["sasrec"]))
    words = _reading(random, kind, copied, folder)
    return Case(f"{text}; {' '.join(words)}", lambda: called(_MAINS[words[0]], words[1:]))


def _reading(random: Random, kind: str, run: Path, folder: Path) -> list[str]:
    """A command that reads a run folder."""
    runs_dir = f"runs_dir={folder / 'outputs'}"
    commands = [
        ["genrec.report", str(run)],
        ["genrec.report", "ls", runs_dir, random.choice(["format=table", "format=json", "format=csv", "all=true"])],
        ["genrec.report", "compare", str(run), str(runs() / random.choice(list(_RUNS)))],
        ["genrec.report", "clean", "dry_run=true", runs_dir],
        ["genrec.doctor", runs_dir, f"data_root={folder}", f"cache_dir={folder / 'cache'}"],
    ]
    commands += [["genrec.report", "latest", runs_dir]]
    if kind == "fm":
        out = folder / "out.csv"
        one = ["genrec.predict", f"run={run}", f"data={runs() / 'rows.csv'}", f"output={out}"]
        return random.choice([*commands, one, one, one])
    if kind in _RUNS:
        one = ["genrec.recommend", f"run={run}", random.choice(["user=1", "history=[1,2]", "users=[0,1]"]), "k=3"]
        commands += [one, one, ["genrec.recommend", "run=latest", runs_dir, "user=1"]]
    if kind == "tiger":
        commands += [["genrec.generate", str(run), "num_samples=2"]]
    return random.choice(commands)


_WORDS = {
    "genrec.recommend": ("run", "user", "history", "users", "output", "k", "filter_seen", "checkpoint", "batch_size",
                         "runs_dir", "explain", "picture", "nope"),
    "genrec.generate": ("run", "num_samples", "temperature", "top_k", "top_p", "seed", "output", "filter_seen",
                        "checkpoint", "runs_dir", "nope"),
    "genrec.predict": ("run", "data", "output", "keep", "checkpoint", "batch_size", "runs_dir"),
    "genrec.report": ("runs_dir", "open", "state", "since", "before", "sweep", "all", "sort", "limit", "errors",
                      "format", "dry_run", "metrics", "samples", "seed", "confidence", "model", "optimizer.lr",
                      "test/recall@5"),
    "genrec.doctor": ("runs_dir", "data_root", "cache_dir", "format", "config_dir", "model", "data", "trainer", "seed"),
}  # fmt: skip
_SUBCOMMANDS = ("", "ls", "compare", "clean", "latest", "help", "nope")
_STRANGE = (
    "", "null", "true", "false", "-1", "0", "1", "3", "5", "1000000", "9" * 40, "1.5", "nan", "inf", "1e999", "[]",
    "[1]", "[1,2,3]", "[1,,2]", "['u1']", "[", "]", "x", "é", "日本", "\x00", "a b", "*", "**", "..", "/", "/dev/null",
    "~", "latest", "best", "final", "all", "7d", "-7d", "2026-13-45", "json", "csv", "table", "x.csv", "x.parquet",
    "x.jsonl", "x.svg", "x.nope", "tiger", "finished", "when", "<1", ">0.1", "!=3", "²", "\uff11", "0x3",
    "1_0", "+3", " 3 ",
)  # fmt: skip


def commands(random: Random, folder: Path) -> Case:
    """A command with words of its own and of no command, on sound runs."""
    name = random.choice(list(_WORDS))
    words = []
    if name == "genrec.report":
        words.append(random.choice(_SUBCOMMANDS))
        if random.random() < 0.6:
            words += random.sample(
                [str(runs() / run) for run in (*_RUNS, "sweep", "killed")], random.choice([1, 2, 2, 3])
            )
    elif name == "genrec.doctor":
        words += [f"runs_dir={runs()}", f"data_root={folder}", f"cache_dir={folder / 'cache'}"]
    else:
        run = runs() / {"genrec.predict": "fm", "genrec.generate": "tiger"}.get(name, random.choice(list(_RUNS)))
        words += [f"run={run}"] if random.random() < 0.8 else []
        if name == "genrec.predict":
            words += [f"data={_new_rows(random, folder)}", f"output={folder / 'out.csv'}"]
        elif name == "genrec.recommend" and random.random() < 0.7:
            words += [random.choice(["user=1", "history=[1,2,3]", "users=[1,2]", "user=nope", "history=[nope]"])]
    for _ in range(random.choice([0, 1, 1, 2])):
        value = random.choice(_STRANGE)
        if value.startswith("x.") and random.random() < 0.8:
            value = str(folder / value)
        sign = random.choice(["", "", "", "--", "-"])
        words.append(
            f"{sign}{random.choice(_WORDS[name])}{random.choice(['=', '=', '=', '=', '', '<', '>', '!='])}{value}"
        )
    words = [word for word in words if word]
    return Case(f"{name} {' '.join(map(repr, words))}", lambda: _in(folder, name, words))


def _in(folder: Path, name: str, words: Sequence[str]) -> None:
    """Calls a command in a folder of its own, so that what it writes stays there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        called(_MAINS[name], words)
    finally:
        os.chdir(before)


def _new_rows(random: Random, folder: Path) -> Path:
    """A file of rows to predict, sound or not."""
    from tests.fuzz.mutations import frame_of

    path = folder / f"new{random.choice(['.csv', '.parquet', '.jsonl', '.csv.gz'])}"
    table = frame()
    if random.random() < 0.7:
        table = frame_of(random, table)
    if random.random() < 0.2:
        table = table.with_columns(weight=np.arange(table.height))
    write(table, path)
    if random.random() < 0.3:
        file_of(random, path)
    return path


AREAS = (Area("folders", changed, share=0.5, seconds=90), Area("commands", commands, share=0.5, seconds=90))
