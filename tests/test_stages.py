"""Upstream stages: done once per distinct input, whatever happens to the process that does them."""

from __future__ import annotations

import importlib.util
import linecache
import multiprocessing
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.artifacts import Cache
from genrec.contracts import GenrecError, RunContext
from genrec.data.dataset import Dataset
from genrec.data.interactions import DataReport, InteractionLog, SourceData
from genrec.data.ragged import Ragged
from genrec.data.splits import LeaveOneOut, RatioPerUser
from genrec.semantic_ids import SemanticIds
from genrec.stages import Tokenized, item_vectors, semantic_ids
from genrec.tokenizers.result import TokenizerResult


@dataclass
class Walks:
    """``num_users`` walk around a ring of ``num_items``."""

    num_users: int = 9
    num_items: int = 6
    name: str = "walks"

    def load(self) -> SourceData:
        users = np.repeat(np.arange(self.num_users), 5)
        items = (users + np.tile(np.arange(5), self.num_users)) % self.num_items
        times = np.tile(np.arange(5), self.num_users)
        log = InteractionLog(
            users=users,
            items=items,
            user_ids=np.arange(self.num_users),
            item_ids=np.arange(self.num_items),
            timestamps=times,
        )
        return SourceData(log, DataReport())


@dataclass
class Encoder:
    """Random vectors that differ at every call, so that equal ones prove the cache."""

    calls: list[int] = field(default_factory=list)
    vectors: np.ndarray | None = None

    def encode(self, dataset: Dataset) -> np.ndarray:
        self.calls.append(dataset.num_items)
        return np.random.default_rng().normal(size=(dataset.num_items, 4)) if self.vectors is None else self.vectors


@dataclass
class Tokenizer:
    """Random IDs that differ at every call; ``dies`` leaves half of its files behind first."""

    contexts: list[RunContext] = field(default_factory=list)
    dies: bool = False

    def fit(self, vectors: np.ndarray, train: Ragged, context: RunContext) -> Any:
        self.contexts.append(context)
        if self.dies:
            (context.output_dir / "semantic_ids.npz").write_bytes(b"half of a fi")
            (context.output_dir / "last.ckpt").write_bytes(b"a checkpoint")
            raise KeyboardInterrupt
        codes = np.random.default_rng().permutation(100)[: len(vectors)]
        ids = SemanticIds(np.stack([codes // 10, codes % 10], axis=1), (10, 10), 2)
        return TokenizerResult(ids, {"unique_share": 0.5, "num": 3.0}, [])


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(Walks(), LeaveOneOut())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def entries(cache: Cache, stage: str) -> list[Path]:
    return sorted((cache.root / stage).iterdir())


def encode(cache: Cache, dataset: Dataset, encoder: Encoder, **config: Any) -> tuple[np.ndarray, bool]:
    return item_vectors(config, lambda: encoder, dataset, cache)


def tokenize(
    cache: Cache,
    dataset: Dataset,
    tokenizer: Tokenizer,
    *,
    seed: int = 1,
    scale: float = 1.0,
    **config: Any,
) -> Tokenized:
    vectors = np.arange(dataset.num_items * 2, dtype=np.float32).reshape(-1, 2) * scale
    loggers: Any = ["the run's"]
    context = RunContext(output_dir=cache.root / "run", seed=seed, hardware="here", loggers=loggers, progress=False)
    return semantic_ids(config, lambda: tokenizer, vectors, dataset, context, cache)


# -- vectors


def test_vectors_are_computed_once_and_come_back_equal(cache: Cache, dataset: Dataset) -> None:
    encoder = Encoder()
    first, cached = encode(cache, dataset, encoder, dim=4)
    assert not cached and first.dtype == np.float32 and first.flags.c_contiguous
    again, cached = encode(cache, Dataset(Walks(), LeaveOneOut()), Encoder(encoder.calls), dim=4)
    assert cached and again.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert encoder.calls == [6]


def test_vectors_depend_on_config_data_and_split(cache: Cache, dataset: Dataset) -> None:
    encoder = Encoder()
    encode(cache, dataset, encoder, dim=4)
    assert not encode(cache, dataset, encoder, dim=5)[1]
    assert not encode(cache, Dataset(Walks(num_users=10), LeaveOneOut()), encoder, dim=4)[1]
    assert not encode(
        cache, Dataset(Walks(), RatioPerUser(train_ratio=0.2, val_ratio=0.4, test_ratio=0.4)), encoder, dim=4
    )[1]
    assert len(entries(cache, "encoder")) == len(encoder.calls) == 4


def test_vectors_depend_on_the_source_code_of_a_user_s_own_encoder(
    cache: Cache, dataset: Dataset, tmp_path: Path
) -> None:
    def own(body: str) -> Any:
        path = tmp_path / "own_encoder.py"
        path.write_text(f"import numpy as np\nclass Own:\n    def encode(self, dataset):\n        return {body}\n")
        linecache.checkcache()
        spec = importlib.util.spec_from_file_location("own_encoder", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)  # no .pyc of the same second in between
        monkeypatch.setitem(importlib.import_module("sys").modules, "own_encoder", module)
        return module.Own()

    with pytest.MonkeyPatch.context() as monkeypatch:
        ones, _ = item_vectors({}, lambda: own("np.ones((6, 2))"), dataset, cache)
        twos, cached = item_vectors({}, lambda: own("np.ones((6, 2)) * 2"), dataset, cache)
        _, same = item_vectors({}, lambda: own("np.ones((6, 2)) * 2"), dataset, cache)
    assert (ones.sum(), twos.sum(), cached, same) == (12, 24, False, True)


def test_vectors_torn_in_half_are_computed_again(cache: Cache, dataset: Dataset) -> None:
    """Killed before its mark was made, an entry counts for nothing, whatever lies in it."""
    encoder = Encoder()
    encode(cache, dataset, encoder)
    (entry,) = entries(cache, "encoder")
    (entry / "done").unlink()
    (entry / "vectors.npy").write_bytes((entry / "vectors.npy").read_bytes()[:40])
    whole, cached = encode(cache, dataset, encoder)
    assert not cached and len(encoder.calls) == 2
    np.testing.assert_array_equal(encode(cache, dataset, encoder)[0], whole)
    assert len(encoder.calls) == 2


def with_bad_rows(value: float) -> np.ndarray:
    vectors = np.ones((6, 3))
    vectors[[1, 4], 2] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((5, 3)), r"\(5, 3\) for 6 items"),
        (np.ones((7, 3)), r"\(7, 3\) for 6 items"),
        (np.ones(6), r"\(6,\) for 6 items"),
        (np.ones((6, 1, 3)), r"\(6, 1, 3\)"),
        (with_bad_rows(np.nan), "NaN or infinity for 2 of 6"),
        (with_bad_rows(np.inf), "NaN or infinity for 2 of 6"),
        (with_bad_rows(1e300), "NaN or infinity for 2 of 6"),  # infinite as float32
    ],
    ids=["too few", "too many", "flat", "deep", "nan", "infinite", "overflow"],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_vectors_that_cannot_be_used_are_refused_and_not_kept(
    cache: Cache, dataset: Dataset, vectors: np.ndarray, message: str
) -> None:
    with pytest.raises(GenrecError, match=f"Encoder gave vectors.*{message}"):
        encode(cache, dataset, Encoder(vectors=vectors))
    assert not encode(cache, dataset, Encoder())[1]  # the right ones are computed at the next try


def test_a_changed_file_of_vectors_is_read_again(cache: Cache, dataset: Dataset, tmp_path: Path) -> None:
    from genrec.data.encoders.file import FileEncoder

    path = tmp_path / "vectors.npy"
    for value in (1.0, 2.0):
        np.save(path, np.full((6, 3), value, dtype=np.float32))
        vectors, _ = item_vectors({"path": str(path)}, lambda: FileEncoder(path=str(path)), dataset, cache)
        assert vectors[0, 0] == value


# -- semantic IDs


def test_semantic_ids_are_made_once_and_come_back_equal(cache: Cache, dataset: Dataset) -> None:
    tokenizer = Tokenizer()
    first = tokenize(cache, dataset, tokenizer)
    again = tokenize(cache, dataset, Tokenizer(tokenizer.contexts))
    assert (first.cached, again.cached, len(tokenizer.contexts)) == (False, True, 1)
    assert first.semantic_ids.fingerprint == again.semantic_ids.fingerprint
    np.testing.assert_array_equal(first.semantic_ids.codes, again.semantic_ids.codes)
    assert first.report == again.report == {"unique_share": 0.5, "num": 3.0}


def test_semantic_ids_depend_on_config_seed_vectors_and_training_data(cache: Cache, dataset: Dataset) -> None:
    tokenizer = Tokenizer()
    assert not tokenize(cache, dataset, tokenizer).cached
    assert not tokenize(cache, dataset, tokenizer, codebook_size=3).cached
    assert not tokenize(cache, dataset, tokenizer, seed=2).cached
    assert not tokenize(cache, dataset, tokenizer, scale=2.0).cached
    assert not tokenize(cache, Dataset(Walks(num_users=10), LeaveOneOut()), tokenizer).cached
    assert len(tokenizer.contexts) == len(entries(cache, "tokenizer")) == 5
    assert tokenize(cache, dataset, tokenizer).cached


def test_a_killed_tokenizer_is_asked_again_to_resume_in_the_same_folder(cache: Cache, dataset: Dataset) -> None:
    killed, second = Tokenizer(dies=True), Tokenizer()
    with pytest.raises(KeyboardInterrupt):
        tokenize(cache, dataset, killed)
    result = tokenize(cache, dataset, second)
    assert not result.cached and result.semantic_ids.num_items == 6
    folder = second.contexts[0].output_dir
    assert folder == killed.contexts[0].output_dir == entries(cache, "tokenizer")[0]
    assert second.contexts[0].resume
    assert (folder / "last.ckpt").read_bytes() == b"a checkpoint"  # what it had reached was left for it
    assert tokenize(cache, dataset, Tokenizer()).cached


def test_semantic_ids_torn_in_half_are_made_again(cache: Cache, dataset: Dataset) -> None:
    tokenize(cache, dataset, Tokenizer())
    (entry,) = entries(cache, "tokenizer")
    (entry / "done").unlink()
    (entry / "report.json").unlink()
    (entry / "semantic_ids.npz").write_bytes(b"half of a fi")
    assert not tokenize(cache, dataset, Tokenizer()).cached
    assert tokenize(cache, dataset, Tokenizer()).cached


def test_the_stage_trains_on_the_run_s_hardware_and_seed_but_not_into_its_curves(
    cache: Cache, dataset: Dataset
) -> None:
    tokenizer = Tokenizer()
    tokenize(cache, dataset, tokenizer, seed=5)
    (context,) = tokenizer.contexts
    assert (context.seed, context.hardware, context.progress) == (5, "here", False)
    assert (list(context.loggers), list(context.callbacks), context.optimizer) == ([], [], None)


def test_a_changed_file_of_semantic_ids_is_read_again(cache: Cache, dataset: Dataset, tmp_path: Path) -> None:
    from genrec.tokenizers.file import FileTokenizer

    path = tmp_path / "semantic_ids.npz"
    context = RunContext(output_dir=tmp_path)
    for shift in (0, 1):
        given = SemanticIds(np.array([[item + shift] for item in range(6)]), (7,), 1)
        given.save(path)
        made = semantic_ids(
            {"path": str(path)}, lambda: FileTokenizer(path=str(path)), np.ones((6, 2)), dataset, context, cache
        )
        np.testing.assert_array_equal(made.semantic_ids.codes, given.codes)


# -- at the same time


@dataclass
class SlowEncoder:
    """Notes down every computation in a file, since processes share nothing else."""

    notes: Path

    def encode(self, dataset: Dataset) -> np.ndarray:
        with open(self.notes, "a") as file:
            file.write("computed\n")
        time.sleep(0.3)
        return np.random.default_rng().normal(size=(dataset.num_items, 4))


def encode_into(target: Path, notes: Path, dataset: Dataset, cache: Cache, both: Any) -> None:
    both.wait(120)
    vectors, _ = item_vectors({}, lambda: SlowEncoder(notes), dataset, cache)
    np.save(target, vectors)


def test_processes_that_need_the_same_stage_at_once_do_it_once(cache: Cache, dataset: Dataset, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    context = multiprocessing.get_context("forkserver")  # a fork of this process might hang at a lock of its threads
    context.set_forkserver_preload(["genrec.stages"])
    targets, both = [tmp_path / "0.npy", tmp_path / "1.npy"], context.Barrier(2)
    processes = [context.Process(target=encode_into, args=(target, notes, dataset, cache, both)) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(150)
    assert [process.exitcode for process in processes] == [0, 0]
    assert notes.read_text() == "computed\n"
    np.testing.assert_array_equal(np.load(targets[0]), np.load(targets[1]))
