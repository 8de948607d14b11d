"""Words of a command line: sound choices and values, and any value in places where it does not belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.cases import Area, Case
from tests.fuzz.starting import composer, start

GROUPS = (
    "model", "trainer", "data", "split", "encoder", "tokenizer", "optimizer", "scheduler", "hardware", "logger",
    "callbacks", "experiment", "sweep",
)  # fmt: skip
# Processes of their own and other machines, which a case that ends before its data would leave behind.
_NOT_HERE = {"hardware": ("ddp", "ddp_cpu", "fsdp", "slurm", "torchrun", "gpu", "mps")}
_FREE = ("output_dir", "runs_dir", "cache_dir", "data_root", "resume", "hydra")  # where things are written: not moved

_STRANGE = (
    "null", "true", "false", "''", '""', "[]", "{}", "[null]", "{a: null}", "[[]]", "[1,[2,{a: b}]]", "{a: {b: [c]}}",
    "nan", "inf", "-inf", "1e999", "-0.0", "1e-400", "0x10", "1_000", "007", "+1", "1e3", "1.5", "abc", "a b",
    "é", "日本", "🛒", "\u202e", "%s", "{}{}", "\\", "\\n", "'", '"', "`id`", "$(id)", "../..", "/", "~", "@", "#",
    "???", "${seed}", "${nope}", "${model}", "${.}", "${..seed}", "${oc.env:NO_SUCH}", "${oc.env:HOME}", "${nope:1}",
    "${oc.create:[1]}", "${", "$", "${a${b}}", "${hydra:run.dir}", "${now:%Y}", "${oc.select:nope,3}",
    "${oc.decode:'['}", "1,2", "choice(1,2)", "range(1,3)", "interval(0,1)", "glob(*)", "sort(3,1)", "cast(1)",
    "int(x)", "str(1)", "shuffle(1)", "tag(a,choice(1))", "extend_list(1)", "os.system", "torch.nn.Linear",
    "torch.load", "builtins.eval", "genrec", "genrec.models.tiger.Tiger", "genrec.models.sasrec.SASRec",
    "genrec.data.ragged.Ragged", "{_target_: os.system, command: ls}", "{_target_: torch.nn.Linear}",
    "{_target_: genrec.losses.BCE}", "{_target_: genrec.losses.BPR, count: -1}", "{_target_: 3}", "{_target_: null}",
    "{_target_: ''}", "{_target_: genrec.}", "{_partial_: 3}", "{_args_: [1,2,3]}", "{_convert_: x}",
    "{_recursive_: no}", "{1: 2}", "{null: 1}", "{true: 1}", "[{match: '*', lr_scale: -1}]", "val/recall@10",
    "test/recall@10", "val/loss", "val/@", "[1,2", "{a:", "2000-01-01", "12:30",
)  # fmt: skip
_DEEP = (
    "[" * 40 + "]" * 40, "[" * 400 + "1" + "]" * 400, "{a: " * 60 + "1" + "}" * 60, "x" * 20_000,
    "[" + "1," * 3000 + "1]",
    "{" + ",".join(f"k{i}: {i}" for i in range(500)) + "}", "'" + "é" * 5000 + "'", "日本" * 300, "${seed}" * 400,
    "1" * 5000,
    "0." + "0" * 500 + "1", "${a." * 30 + "b" + "}" * 30,
)  # fmt: skip
# Keys that lead into lists, into strings, beside each other, and to what only some choices have.
_PLACED = (
    "k_values[0]", "k_values.0", "k_values.-1", "k_values.00", "k_values.99", "model.loss._target_", "trainer.stages.0",
    "trainer.stages[0].epochs", "trainer.stages.0.name", "trainer.parameter_groups", "trainer.parameter_groups.0.match",
    "data.storage_options", "data.source.storage_options", "data.source.columns", "data.source.columns.user_id",
    "data.source.columns.0", "encoder.storage_options", "data.path", "data.source.path", "data.source.items_path",
    "data.features", "data.features.user", "data.labels", "data.labels.click.kind", "data.item_relations",
    "data.source.k_core",
    "hardware.devices", "hardware.precision", "hardware.num_threads", "hardware.strategy", "hardware.launcher",
    "hardware.gpus",
    "hardware.accelerator", "hardware.compile", "hardware.deterministic", "optimizer.betas", "optimizer.betas.0",
    "optimizer.betas[2]", "tokenizer.codebook_sizes", "tokenizer.codebook_sizes.0", "logger.csv",
    "logger.wandb.project",
    "callbacks.time_limit.minutes", "callbacks.gradient_norm", "baselines.popularity", "baselines.x.y", "baselines.é",
    "scheduler.milestones", "scheduler.milestones.0", "data.shuffled_blocks", "data.block_values", "split.column",
    "split.val",
    "model.é", "é.é", "model.a\\.b", "model.'x'", "seed.x", "monitor.x.y", "experiment.x", "sweep.x",
)  # fmt: skip
_REMOTE = (
    "s3://bucket/x.parquet", "s3://", "gs://b/*.csv", "az://c/x", "http://127.0.0.1:1/x.csv", "hf://datasets/a/b/c.csv",
    "file:///nope/x.csv", "file://x", "memory://x.csv", "ftp://h/x", "S3://B/x", "s3:/b/x", "http://",
    "https://user:pw@h/x",
    "github://a:b@/x", "zip://x.csv::s3://b/y.zip", "simplecache::s3://b/x", "local://x", "'s3://b/a b'", "nope://x",
    "x://",
    "{anon: true}", "{anon: 3}", "{key: x, secret: y}", "{endpoint_url: 'http://127.0.0.1:1'}",
    "{client_kwargs: {a: [b]}}",
    "{token: null}", "{1: 2}", "auto", "32-true", "16-mixed", "bf16-mixed", "64-true", "16", "32", "ddp", "fsdp",
    "cuda", "tpu",
    "gpu", "mps", "[0,1]", "'0'", "-2", "999", "warn", "torchrun", "slurm",
)  # fmt: skip
_VAST = ("9" * 400, "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1000000", "1e18", "1e308")
BROKEN = (
    "", "=", "==", "=1", "a=", "a=[1,", "a={", "a={b", "~", "+", "++", "~x", "+x=1", "++x=1", "~model", "~model=tiger",
    "~model=nope", "~seed", "~baselines.popularity", "~data.source", "model", "model=", "model==tiger", "=model=tiger",
    "model=tiger=1", "model/x=1", "/model=tiger", "model@=tiger", "@model=tiger", "model@x=tiger", "model@x.y=sasrec",
    "model@baselines.two=item_knn", "model@baselines.two=nope", "+model=tiger", "++model=tiger", "a.b.c=1", "a..b=1",
    ".a=1", "a.=1", "model..x=1", "model.[0]=1", "k_values[0]=1", "k_values.0=1", "k_values[9]=1", "k_values.x=1",
    "k_values[-1]=1", "callbacks.x=1", "logger.x=1", "baselines.x=1", "baselines=1", "logger=[]", "callbacks=[]",
    "+callbacks.x={_target_: genrec.trainers.callbacks.memory_use.MemoryUse}", "hydra=null", "hydra=x", "~hydra",
    "hydra.run.dir=null", "hydra.mode=x", "hydra.mode=MULTIRUN", "hydra.sweeper=null", "hydra/launcher=nope",
    "hydra/sweeper=nope", "hydra.job.name=x/y", "hydra.verbose=true", "hydra.searchpath=[x]", "hydra.callbacks=null",
    "hydra.job_logging.root.level=NOPE", "hydra.job.env_set.X=1", "-m", "--multirun", "seeds=3", "seeds=0", "seeds=x",
    "seeds=[1,1]", "seeds=[]", "seeds=-1", "seeds=1.5", "seeds=null", "resume=nope", "resume=auto", "resume=",
    "resume=1", "+_target_=x", "_target_=x", "+_args_=[1]", "+_recursive_=false", "é=1", "日本.語=1", "\x00=1",
    "a\nb=1", "seed=1\n", "seed=\t1", " seed=1", "seed =1", "seed= 1", "seed=1 2", "model=Tiger", "model=tigr",
    "modle=tiger", "trianer=simple", "allow_targets=x", "allow_targets=[os]", "allow_targets=[subprocess]",
    "monitor=val/recall@7", "experiment=nope", "experiment=[quick]", "sweep=optuna", "data.source=null", "data=null",
    "tokenizer=null", "hardware=null", "split=null", "optimizer=null",
)  # fmt: skip


@cache
def leaves(choices: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """The keys of a composed config and their values, those of nodes as well; empty where it cannot be composed."""
    from omegaconf import OmegaConf

    one = composer()
    config = one.try_compose(list(choices))
    if isinstance(config, Exception):
        return ()
    plain: Any = OmegaConf.to_container(config, resolve=False)
    found: list[tuple[str, Any]] = []

    def walk(place: str, value: Any) -> None:
        if place.split(".")[0] in _FREE:
            return
        if place:
            found.append((place, value))
        if isinstance(value, dict):
            for name, item in value.items():
                walk(f"{place}.{name}".lstrip("."), item)

    walk("", plain)
    return tuple(found)


def choice(random: Random, group: str) -> str:
    """A choice of a group, mostly one that there is."""
    known = [name for name in composer().options(group) if name not in _NOT_HERE.get(group, ())]
    return f"{group}={random.choice([*known, *known, 'nope', 'null'])}"


def choices(random: Random, groups: Sequence[str]) -> list[str]:
    """Choices of some groups; mostly one of a hundred sets of them, since composing one takes Hydra a third of a
    second and is done once."""
    drawn = random if random.random() < 0.15 else Random(f"choices/{random.randrange(100)}")
    return [choice(drawn, group) for group in drawn.sample(groups, drawn.choice([0, 1, 1, 2, 2, 3, 4]))]


def near(random: Random, value: Any) -> str:
    """A value that resembles the one that stands there."""
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int | float):
        made: list[Any] = [-value, 0, 1, value + 1, value * 2, value / 2, value * 1000, -1, 0.5, f"'{value}'", [value]]
        return str(random.choice(made))
    if isinstance(value, str):
        made = [value[:-1] or "x", value.upper(), value + "x", f"[{value}]", value[::-1] or "x"]
        return random.choice([text for text in made if text])
    if isinstance(value, list):
        return random.choice(["[]", "null", "[null]", "[1,1]", "[0]", "[-1]", "[1,2,3,4]", "[a]", "[[1]]", "1"])
    return random.choice(["{}", "null", "[]", "1", "{x: 1}", "{_target_: genrec.models.popularity.Popularity}"])


def misspelt(random: Random, key: str) -> str:
    """A key with a sign of it left out, doubled or changed."""
    place = random.randrange(len(key))
    return random.choice(
        [key[:place] + key[place + 1 :], key[:place] + key[place] + key[place:], key[:place] + "x" + key[place + 1 :]]
    )


def valued(random: Random, keys: Sequence[tuple[str, Any]]) -> tuple[str, bool]:
    """A word that gives a key a value, and whether it may ask for more than a machine has."""
    key, value = random.choice(keys)
    drawn = random.random()
    if random.random() < 0.25:
        return placed(random)
    if drawn < 0.08:
        return f"{misspelt(random, key)}={near(random, value)}", False
    sign = random.choice(["", "", "", "", "", "", "+", "++"])
    if drawn < 0.14:
        return f"{sign}{key}={random.choice(_VAST)}", True
    if drawn < 0.18:
        return f"~{key}", False
    if drawn < 0.5:
        return f"{sign}{key}={near(random, value)}", abs(value) > 100 if isinstance(value, int | float) else False
    return f"{sign}{key}={random.choice(_STRANGE)}", False


def placed(random: Random) -> tuple[str, bool]:
    """A word of a key that is easily written wrongly, or of a value that is long or deep."""
    key = random.choice(_PLACED)
    value = random.choice([*_REMOTE, random.choice(_STRANGE), random.choice(_DEEP), "[1]", "{a: 1}"])
    return f"{random.choice(['', '', '', '+', '++', '~'])}{key}={value}", len(value) > 300


def line(random: Random) -> tuple[list[str], bool]:
    """The words of a command line."""
    words = choices(random, GROUPS)
    keys = leaves(tuple(word for word in words if not word.endswith(("=nope", "=null")))) or leaves(())
    vast = False
    for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
        if random.random() < 0.25:
            words.append(random.choice(BROKEN))
        else:
            word, large = valued(random, keys)
            words.append(word)
            vast |= large
    random.shuffle(words)
    return words, vast


def _case(random: Random, folder: Path, draw: Callable[[Random], tuple[list[str], bool]]) -> Case:
    words, vast = draw(random)
    several = random.random() < 0.06
    text = " ".join(["python -m genrec.run", *(["-m"] if several else []), *map(repr, words)])
    return Case(text, lambda: start(words, folder, multirun=several), vast)


def overrides(random: Random, folder: Path) -> Case:
    """Any words."""
    return _case(random, folder, line)


def one_value(random: Random, folder: Path) -> Case:
    """One value in one place of a sound config."""

    def draw(random: Random) -> tuple[list[str], bool]:
        words = [word for word in choices(random, GROUPS[:-2]) if not word.endswith(("=nope", "=null"))]
        word, vast = valued(random, leaves(tuple(words)) or leaves(()))
        return [*words, word], vast

    return _case(random, folder, draw)


AREAS = (Area("overrides", overrides, seconds=40), Area("values", one_value, seconds=40))
