"""Nonsense in: only a sentence comes out. Cases are drawn by hypothesis; ``GENREC_FUZZ`` says how many of each kind."""

from __future__ import annotations

import os
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genrec.config.command_line import Composer, command_faults
from genrec.contracts import GenrecError
from genrec.data.sources.folder import FolderSource
from genrec.data.sources.reviews import parse_record
from genrec.data.sources.table import TableSource
from genrec.data.tables import read_table

pytestmark = pytest.mark.slow
COUNT = int(os.environ.get("GENREC_FUZZ", "300"))
SLOW = settings(
    max_examples=COUNT,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

KEYS = [
    "model", "trainer", "data", "split", "encoder", "tokenizer", "optimizer", "scheduler", "hardware", "logger",
    "callbacks", "baselines", "experiment", "sweep", "seed", "seeds", "monitor", "k_values", "filter_seen",
    "output_dir", "resume", "allow_targets", "progress", "cache_dir", "model.num_layers", "model.dropout",
    "model._target_", "model.loss", "trainer.max_epochs", "trainer.monitor", "trainer._target_", "optimizer.lr",
    "optimizer._target_", "optimizer.betas", "data.source", "data.path", "data.source.num_users", "data.split",
    "tokenizer.num_levels", "hydra", "hydra.run.dir", "hydra.sweeper", "hydra.sweeper.params", "hydra.launcher",
    "hydra.callbacks", "hydra.job_logging", "hydra.mode", "hydra.searchpath", "hydra/launcher", "hydra/sweeper",
    "model@baselines.other", "parameter_groups", "_target_", "_args_", "optimizer.parameter_groups", "callbacks.x",
    "logger.x._target_", "baselines.popularity",
]  # fmt: skip
VALUES = [
    "null", "true", "-1", "0", "1e999", "nan", "[]", "{}", "[1,[2,{a:b}]]", "{a:{b:[c]}}", "'", '"', "${seed}",
    "${nowhere}", "${oc.env:HOME}", "${oc.env:NO_SUCH}", "${model}", "${hydra:run.dir}", "${now:%Y}", "???", "1,2",
    "choice(1,2)", "range(1,3)", "interval(1,2)", "int(interval(1,9))", "tag(a,interval(0,1))", "glob(*)",
    "os.system", "torch.nn.Linear", "genrec", "tiger", "genrec.models.tiger.Tiger",
    "{_target_: os.system, command: ls}", "[{_target_: torch.load}]", "\\", "é", "a b", "../..",
    "{_target_: genrec.losses.BCE}", "{_target_: 3}", "{_target_: null}", "{_target_: .x}", "{_target_: ''}",
    "{_args_: 3}", "{_target_: genrec.}", "{_target_: ..}", "genrec.models..tiger", "0x10", "1_000", "9" * 400, "sgd",
    "adamw", "quick", "lr_patience", "optuna", "val/recall@10", "test/recall@10", "val/recall@x", "@",
    "[val/recall@5]",
]  # fmt: skip
words = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.one_of(st.sampled_from(KEYS), st.text(string.ascii_letters + "._@/[]", max_size=12)),
    st.sampled_from(["=", "=", "=", "=", "", "=="]),
    st.one_of(st.sampled_from(VALUES), st.text(string.printable, max_size=15)),
)


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with Composer() as made:
        yield made


@SLOW
@given(line=st.lists(words, min_size=1, max_size=3), multirun=st.booleans())
def test_overrides(composer: Composer, line: list[str], multirun: bool) -> None:
    composer._composed.clear()
    try:
        faults = command_faults(composer, line, multirun=multirun)
    except GenrecError as error:
        assert str(error)
        return
    for fault in faults:
        assert "Traceback" not in str(fault) and len(str(fault)) < 5000


def mutated(draw: Any, content: bytes) -> bytes:
    """A file with some of its bytes cut, doubled, changed or replaced."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["cut", "drop", "flip", "insert", "repeat"]))
        if kind == "cut":
            del data[place:]
        elif kind == "drop":
            del data[place : place + draw(st.integers(1, 9))]
        elif kind == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            data[place:place] = draw(
                st.sampled_from([b"\x00", b'"', b"\n", b",", b"\xff\xfe", b"9" * 40, b"\r", b"[{", b"nan"])
            )
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 60))]
    return bytes(data)


CSV = "user_id,item_id,rating,timestamp,title\n" + "".join(
    f"u{row % 7},{row % 5},{row % 5 + 0.5},{1_600_000_000 + row},\"A, b\"\n" for row in range(40)
)  # fmt: skip
FRAME = pl.DataFrame(
    {"user_id": [row % 7 for row in range(40)], "item_id": [f"i{row % 5}" for row in range(40)], "timestamp": range(40)}
)


def sample(suffix: str, folder: Path) -> bytes:
    path = folder / f"sample{suffix}"
    if not path.exists():
        if suffix == ".parquet":
            FRAME.write_parquet(path)
        elif suffix == ".jsonl":
            FRAME.write_ndjson(path)
        else:
            path.write_text(CSV.replace(",", "\t") if suffix == ".tsv" else CSV)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("reader", ["table", "folder", "rows"])
@SLOW
@given(data=st.data())
def test_files_of_interactions(reader: str, suffix: str, tmp_path: Path, data: Any) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(mutated(data.draw, sample(suffix, tmp_path)))
    try:
        if reader == "table":
            read_table(path)
        elif reader == "folder":
            FolderSource(path=str(path)).load()
        else:
            for frame in TableSource(path=str(path)).chunks():
                assert frame.width
    except GenrecError as error:
        assert str(error)


@SLOW
@given(text=st.one_of(st.text(max_size=60), st.text("{}[]\"':,u\\0123 e-", max_size=60)))
def test_lines_of_reviews(text: str) -> None:
    assert parse_record(text) is None or isinstance(parse_record(text), dict)


@pytest.mark.parametrize("kind", ["npz", "npy", "codec", "checkpoint", "features", "zip", "config"])
@SLOW
@given(data=st.data())
def test_artifacts(kind: str, tmp_path: Path, data: Any) -> None:
    content, read = artifact(kind, tmp_path)
    path = tmp_path / f"x{content.suffix}"
    path.write_bytes(mutated(data.draw, content.read_bytes()))
    try:
        read(path)
    except GenrecError as error:
        assert "\n" not in str(error)


def artifact(kind: str, folder: Path) -> tuple[Path, Any]:
    """A sound file of a kind, and what reads it."""
    import zipfile

    import torch

    from genrec.config.recorded import CONFIG_FILE, recorded_config
    from genrec.data.download import extract_zip
    from genrec.data.fitted_features import FittedFeatures
    from genrec.semantic_ids import SemanticIds
    from genrec.tokenizers.features import TextTransform
    from genrec.tokenizers.streaming import ResidualCodec, read_chunks
    from genrec.trainers.checkpoints import load_weights

    def moved(path: Path) -> None:
        (folder / "run").mkdir(exist_ok=True)
        recorded_config(Path(os.path.dirname(path.replace(folder / "run" / CONFIG_FILE))))

    table = {
        "npz": (".npz", SemanticIds.load),
        "npy": (".npy", lambda path: list(read_chunks(path))),
        "codec": (".npz", ResidualCodec.load),
        "checkpoint": (".pt", lambda path: load_weights(path, torch.nn.Linear(3, 2))),
        "features": (".json", FittedFeatures.load),
        "zip": (".zip", lambda path: extract_zip(path, folder / "out")),
        "config": (".yaml", moved),
    }
    suffix, read = table[kind]
    path = folder / f"sound{suffix}"
    if path.exists():
        return path, read
    if kind == "npz":
        SemanticIds(np.array([[0, 1], [1, 0], [1, 1]]), (2, 2), 2).save(path)
    elif kind == "npy":
        np.save(path, np.eye(4, dtype=np.float32))
    elif kind == "codec":
        eye = np.eye(3, dtype=np.float32)
        ResidualCodec(TextTransform(eye[0], eye[1], eye), [eye, eye]).save(path)
    elif kind == "checkpoint":
        torch.save(torch.nn.Linear(3, 2).state_dict(), path)
    elif kind == "features":
        path.write_text(
            '{"format": 1, "dense": [], "sparse": [{"name": "a", "size": 3, "table": "a"}], "sequences": [], '
            '"separators": [], "ids": {}, "labels": [], "tasks": [{"name": "click"}], "group": null}'
        )
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("top/ratings.csv", CSV)
            archive.writestr("top/movies.csv", CSV)
    else:
        path.write_text(
            "model: {_target_: genrec.models.popularity.Popularity}\n"
            "data: {_target_: genrec.data.dataset.Dataset, source: {num_users: 3}}\nseed: 42\nk_values: [5, 10]\n"
        )
    return path, read
