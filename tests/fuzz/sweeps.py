"""Whole command lines of several runs: grids, searches, ``seeds=`` and ``resume=``; their runs pretend."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

import genrec.pipeline
import genrec.run
from genrec.contracts import GenrecError
from tests.fuzz.cases import Area, Case
from tests.fuzz.folders import called
from tests.fuzz.mutations import file_of, tree_of
from tests.fuzz.overrides import leaves, valued
from tests.fuzz.starting import close
from tests.report.run_folders import make_run

_RAISED = re.compile(r"Callback \S+ raised (?!GenrecError)")  # what Hydra makes of an exception
_QUIET = ("progress=false", "logger=none", "hardware=cpu", "runs_dir=outputs")
_BASES = (
    (), ("model=sasrec", "trainer=advanced"), ("model=popularity",), ("model=fm", "trainer=ctr",
    "data=synthetic_clicks"),
    ("experiment=quick",),
)  # fmt: skip
_KEYS = (
    "seed", "optimizer.lr", "model.num_layers", "trainer.patience", "trainer", "optimizer", "model", "k_values",
    "monitor",
    "data.source.num_users", "scheduler", "split", "callbacks", "trainer.max_epochs", "model.embedding_dim", "nope",
    "hydra.sweeper.n_trials", "hydra.sweeper", "data", "tokenizer.codebook_sizes", "trainer.stages", "filter_seen",
)  # fmt: skip
_SPACES = (
    "1,2", "1,2,3", "1,1", "1e-3,1e-3", "0.1,0.2", "simple,advanced", "simple,nope", "adam,sgd", "sasrec,tiger",
    "null,1",
    "true,false", "[1,2],[3]", "[1,2]", "{a: 1},{b: 2}", "'a,b',c", "${seed},2", "${nope},2", "???,1", "1,", ",1", ",",
    "choice(1,2)", "choice(1)", "choice()", "choice(a,[b],{c: 1})", "choice(interval(0,1))", "range(1,3)", "range(3)",
    "range(1,0)", "range(0,1,0)", "range(-3,3,2)", "range(0,1,0.1)", "range(0.1,0.5,0.1)", "range(0,1000000000)",
    "range(0,1e12)", "range(0,inf)", "range(a,b)", "range(0,1,-1)", "range(0.0,1.0,1e-9)", "interval(0,1)",
    "interval(1,0)",
    "interval(1,1)", "interval(0,inf)", "interval(nan,1)", "interval(a,b)", "interval(1e-4,1e-2)", "interval(1,5)",
    "tag(log,interval(1e-4,1e-2))", "tag(log,interval(0,1))", "tag(log,interval(-1,1))", "tag(log,range(1,5))",
    "tag(log,range(0,5))", "tag(log,choice(1,2))", "tag(log,1)", "tag(x,interval(0,1))", "tag(log,x,interval(1,2))",
    "tag()", "shuffle(1,2,3)", "sort(3,1,2)", "sort(3,a)", "shuffle(range(1,4))", "sort(range(1,4),reverse=true)",
    "glob(*)", "glob(a*)", "glob([a*,s*],exclude=sa*)", "extend_list(1,2)", "float(range(1,3))", "int(1,2)",
    "str([1,2])",
)  # fmt: skip
_SOUND = ("seed=1,2", "optimizer.lr=1e-3,1e-2", "optimizer=adam,sgd", "seed=range(1,3)", "data.source.num_users=30,40")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "n_trials": ("1", "2", "3", "0", "-1", "null", "1.5", "x", "1,2", "99999999999999999999"),
    "n_jobs": ("1", "1", "0", "x", "-1", "null"),
    "sampler": ("random", "grid", "tpe", "cmaes", "nope", "null", "{_target_: optuna.samplers.NSGAIISampler}",
                "{_target_: optuna.samplers.RandomSampler, seed: x}", "{_target_: os.system, command: ls}", "{}", "[]",
                "{_target_: optuna.samplers.GridSampler, search_space: {x: [1]}}", "{_target_: optuna.samplers.Nope}",
                "{_target_: optuna.pruners.NopPruner}", "{_target_: optuna.samplers.TPESampler, n_startup_trials: -1}"),
    "seed": ("0", "-1", "null", "4294967296", "x", "${nope}", "1,2"),
    "startup_trials": ("0", "1", "-1", "99"),
    "objectives": ("[val/recall@10]", "[val/recall@10,seconds/total]", "[test/recall@10]", "[]", "[x]", "val/loss",
                   "[1]",
                   "[val/recall@10,val/recall@10]", "[resources/parameters]", "[null]", "[val/recall@3]", "[[a]]",
                   "{a: 1}",
                   "[seconds/]", "['']"),
    "directions": ("[min]", "[max,min]", "[up]", "min", "[]", "[null]"),
    "pruner": ("median", "hyperband", "asha", "nope", "{_target_: optuna.pruners.PatientPruner}",
               "{_target_: optuna.pruners.NopPruner}",
               "{_target_: optuna.samplers.RandomSampler}", "{}"),
    "pruner_startup_trials": ("0", "-1", "x"), "pruner_warmup_epochs": ("0", "1"), "pruner_reduction": ("1", "2", "0"),
    "storage": ("sqlite:///x.db", "sqlite:////nope/x.db", "journal:x.log", "journal:", "journal:/nope/x",
                "mysql://u@h/d",
                "nope://x", "''", "x", "postgresql://u:p@127.0.0.1:1/d", "redis://127.0.0.1:1", "sqlite://",
                "sqlite:///.",
                "null", "[]", "sqlite:///broken.db"),
    "study_name": ("''", "a b", "日本", "x" * 300, "null", "1", "${seed}"),
    "max_failures": ("1", "0", "null", "-1"),
    "params": ("{}", "null", "[]", "{optimizer.lr: 1}", "{optimizer.lr: '1e-3,1e-4'}", "{nope: '1,2'}",
               "{optimizer.lr: [1,2]}",
               "{optimizer.lr: null}", "{a: {b: c}}", "{'': '1,2'}", "{1: '1,2'}", "{optimizer.lr: 'interval('}", "x"),
    "conditions": ("{}", "null", "{trainer.patience: trainer=advanced}", "{optimizer.lr: optimizer.lr=1}", "{x: y}",
                   "{x: [y]}",
                   "{optimizer.lr: seed=1}", "{seed: optimizer.lr=1, optimizer.lr: seed=1}", "{optimizer.lr: [null]}",
                   "{optimizer.lr: '='}", "{optimizer.lr: 'seed=1,2'}", "[]", "x"),
}  # fmt: skip
_PLACES = (
    "hydra.sweep.dir=x", "hydra.sweep.dir=", "hydra.sweep.dir=null", "hydra.sweep.dir='a b'", "hydra.sweep.dir=[1]",
    "hydra.sweep.dir=/dev/null/x", "hydra.sweep.dir=/proc/x", "hydra.sweep.dir=${nope}", "hydra.sweep.dir=é/日本",
    "hydra.sweep.dir=../../x", "hydra.sweep.dir=file", "hydra.sweep.subdir=x", "hydra.sweep.subdir=",
    "hydra.sweep.subdir=null",
    "hydra.sweep.subdir=${hydra.job.override_dirname}", "hydra.sweep.subdir=../x", "hydra.sweep.subdir=${seed}",
    "hydra.sweep.dir=" + "x" * 300, "hydra.sweep.subdir=" + "y" * 300, "runs_dir=file", "runs_dir=null", "runs_dir=[1]",
    "runs_dir=/dev/null", "cache_dir=file", "hydra.run.dir=file", "output_dir=x", "output_dir=null", "runs_dir=''",
    "hydra.job.name=null", "hydra.mode=RUN", "hydra.mode=MULTIRUN", "hydra.mode=x", "hydra.mode=null",
    "hydra/launcher=basic", "hydra/launcher=parallel", "hydra/launcher=slurm", "hydra/launcher=ray_cluster",
    "hydra/sweeper=basic",
    "hydra.launcher.n_jobs=x", "hydra.sweeper.max_batch_size=1", "hydra.sweeper.max_batch_size=0",
    "hydra.sweeper.max_batch_size=x", "hydra.launcher=null",
)  # fmt: skip
_SEEDS = (
    "1", "2", "3", "0", "-1", "1.5", "x", "[1,2]", "[1,1]", "[]", "[x]", "[1,]", "[-1,2]", "[1, 2]", "null", "",
    "'2'", "+2", "02",
    "99999999999", "9" * 5000, "[4294967295,4294967296]", "[[1]]", "1,2", "range(1,3)", "{a: 1}", "٣", "²", "[1,2",
    "true",
)  # fmt: skip
_FLAGS = (
    "-m", "-m", "-m", "-m", "--multirun", "--cfg", "--cfg=job", "--cfg=hydra", "--cfg=nope", "--resolve", "--info",
    "--info=plugins",
    "--package=model", "-p", "--config-name=nope", "--config-name=config", "--config-dir=nope", "--config-dir=.",
    "-cd", "--run", "--help",
    "--hydra-help", "--version", "--nope", "-x", "--config-path=nope", "-c job", "--experimental-rerun=x",
    "-sc install=bash",
)  # fmt: skip


def sweeps(random: Random, folder: Path) -> Case:
    """A command line that asks for several runs, or seems to."""
    words = _words(random)
    (folder / "file").write_text("x")
    (folder / "broken.db").write_bytes(b"SQLite format 3\x00" + b"x" * 200)
    earlier = random.random() < 0.3
    if earlier:
        words.append(
            f"resume={random.choice(['auto', 'auto', 'old', 'old', 'old', 'outputs', 'file', 'null', '[1]', '1', 'é'])}"
        )
    vast = any("range(0,1e12)" in word or "1000000000" in word for word in words)
    outcome = random.choice(["fine", "fine", "fine", "nan", "refused", "raised", "none"])
    text = f"python -m genrec.run {' '.join(map(repr, words))}; runs: {outcome}{'; once more' if earlier else ''}"
    again = Random(random.random())
    return Case(text, lambda: _run(words, folder, outcome, again if earlier else None), vast)


def _words(random: Random) -> list[str]:
    words = [*random.choice(_BASES), *_QUIET]
    search = random.random() < 0.5
    if search:
        kind = random.choice(["hydra/sweeper=optuna", "sweep=optuna", "sweep=random", "sweep=pareto", "sweep=cmaes"])
        words += [kind, f"hydra.sweeper.n_trials={random.choice([1, 2])}", "hydra.sweeper.n_jobs=1"]
        for name in random.sample(list(_OPTIONS), random.choice([0, 1, 1, 1, 2])):
            words.append(f"{random.choice(['', '', '++', '+'])}hydra.sweeper.{name}={random.choice(_OPTIONS[name])}")
    sound = random.random() < 0.5
    for _ in range(random.choice([0, 0, 1] if search else [1, 1, 2])):
        words.append(random.choice(_SOUND) if sound else f"{random.choice(_KEYS)}={random.choice(_SPACES)}")
    if random.random() < 0.15:
        words.append(f"seeds={random.choice(_SEEDS)}")
    if random.random() < 0.15:
        words.append(random.choice(_PLACES))
    if not sound and random.random() < 0.25:
        words.append(valued(random, _known())[0])
    if random.random() < 0.85:
        words.append("-m")
    if random.random() < 0.12:
        words += random.choice(_FLAGS).split(" ")
    if random.random() < 0.3:
        random.shuffle(words)
    return [word for word in words if "\x00" not in word]


@cache
def _known() -> tuple[tuple[str, Any], ...]:
    """The keys of the default config; Hydra is not left open, since a command opens it itself."""
    known = leaves(())
    close()
    return known


def _run(words: Sequence[str], folder: Path, outcome: str, earlier: Random | None) -> None:
    """Calls the command in its folder, after an earlier sweep of the same words that was killed."""
    from genrec.sweeps.callback import SweepTable
    from genrec.sweeps.resume import sweep_key

    close()
    before = Path.cwd()
    os.chdir(folder)
    quiet = logging.root.manager.disable
    logging.disable(logging.NOTSET)  # a command tells some of its refusals in its log
    SweepTable.ended.clear()
    SweepTable.begun.clear()
    try:
        if earlier is not None:
            _make_earlier(earlier, Path("old"), sweep_key(words), words)
            _make_earlier(earlier, Path("outputs/multirun/2020-01-01/00-00-00"), sweep_key(words), words)
        with (
            mock.patch.object(genrec.pipeline, "execute", _pretended(outcome)),
            warnings.catch_warnings(record=True) as heard,
        ):
            warnings.simplefilter("always")
            called(genrec.run.main, words)
        hidden = [str(item.message) for item in heard if _RAISED.match(str(item.message))]
        assert not hidden, hidden
    finally:
        gc.enable()
        os.environ.pop("HYDRA_FULL_ERROR", None)
        logging.disable(quiet)
        os.chdir(before)
        _forget_hydra()


def _forget_hydra() -> None:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


def _make_earlier(random: Random, folder: Path, key: str, words: Sequence[str]) -> None:
    """A sweep that was killed in its second job, perhaps with a file that somebody changed."""
    make_run(folder / "0", final={"test/recall@10": 0.5, "val/recall@10": 0.5}, overrides=["seed=1"], monitored=0.5)
    make_run(folder / "1", state="running", overrides=["seed=2"])
    record: Any = {"state": "running", "started": 1.0, "ended": None, "seconds": 3.0, "command": list(words),
    "key": key,
                   "sweeper": "basic", "objectives": [["val/recall@10", "max"]], "scales": {}}  # fmt: skip
    if random.random() < 0.5:
        record = tree_of(random, record)
    (folder / "sweep.json").write_text(json.dumps(record))
    if random.random() < 0.4:
        file_of(random, random.choice(sorted(path for path in folder.rglob("*") if path.is_file())))


def _pretended(outcome: str) -> Callable[..., Any]:
    """A run that leaves a folder and a number, or fails."""

    def execute(config: Any, *, watch: Any = None, interruption: Any = None) -> Any:
        genrec.pipeline.check_or_raise(config)
        value = {"nan": float("nan"), "none": None}.get(outcome, 0.5)
        if outcome == "refused":
            raise GenrecError("the data are gone. Give others.")
        if outcome == "raised":
            raise GenrecError("é" * 200)
        for epoch in range(4):
            if watch is not None and value is not None and watch(epoch, value):
                break
        final = {name: 0.5 for name in ("val/recall@10", "test/recall@10", "seconds/total", "resources/parameters")}
        make_run(Path(config.output_dir), final=final)
        return SimpleNamespace(monitored=value)

    return execute


AREAS = (Area("sweeps", sweeps, share=0.5, seconds=90),)
