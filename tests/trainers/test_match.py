from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import DataSpec, GenrecError
from genrec.data.dataset import Dataset
from genrec.models.comirec import ComiRec
from genrec.models.dssm import DSSM
from genrec.models.lightgcn import LightGCN
from genrec.models.popularity import Popularity
from genrec.models.sasrec import SASRec
from genrec.trainers import AdvancedTrainer, MatchTrainer, create_trainer
from genrec.trainers.evaluation import recommend_users

TINY: dict[str, Any] = {"embedding_dim": 8, "max_history": 6, "dropout": 0.0}
NUM_USERS, NUM_ITEMS = 12, 8  # of cycle_dataset
needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is optional: pip install genrec[faiss]")


def build(data: Dataset, kind: Any = DSSM, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(data.spec, **{**(TINY if kind is not LightGCN else {"embedding_dim": 8}), **options})


def trainer(folder: Path, **options: Any) -> MatchTrainer:
    run = MatchTrainer(**{"max_epochs": 2, "k_values": [3], "monitor": "val/recall@3", "eval_batch_size": 5, **options})
    run.context = toy_context(folder)
    return run


@pytest.mark.parametrize("kind", [DSSM, SASRec, LightGCN])
def test_it_trains_and_tests_as_the_advanced_trainer_does(kind: Any, tmp_path: Path, cycle_dataset: Dataset) -> None:
    options: dict[str, Any] = {"max_epochs": 2, "k_values": [3], "monitor": "val/recall@3"}
    found = []
    for name, policy in (("a", AdvancedTrainer(**options)), ("b", MatchTrainer(**options))):
        model = build(cycle_dataset, kind)
        policy.fit(model, cycle_dataset, toy_context(tmp_path / name))
        found.append(policy.test(model, cycle_dataset))
    assert found[0] == found[1] and "test/recall@3" in found[0]
    assert not list((tmp_path / "b").glob("*.parquet"))
    assert isinstance(create_trainer("match"), MatchTrainer)


@pytest.mark.parametrize("kind", [DSSM, ComiRec, LightGCN])
def test_exported_vectors_give_the_recommendations(kind: Any, tmp_path: Path, cycle_dataset: Dataset) -> None:
    run, model = trainer(tmp_path, export_embeddings=True), build(cycle_dataset, kind)
    run.fit(model, cycle_dataset, toy_context(tmp_path))
    run.test(model, cycle_dataset)
    users = pl.read_parquet(tmp_path / "user_embeddings.parquet")
    items = pl.read_parquet(tmp_path / "item_embeddings.parquet")
    assert users["user_id"].to_list() == list(range(500, 512))  # raw ids
    assert items["item_id"].to_list() == [f"i{100 + item}" for item in range(NUM_ITEMS)]
    width = (4, 8) if kind is ComiRec else (8,)
    assert users.schema["vector"] == pl.Array(pl.Float32, width) and items.schema["vector"] == pl.Array(pl.Float32, 8)
    stored = users["vector"].to_numpy().reshape(NUM_USERS, -1, 8)
    scores = (stored @ items["vector"].to_numpy().T).max(axis=1)
    expected = recommend_users(model, cycle_dataset.view(model.view), k=NUM_ITEMS)
    for row in range(NUM_USERS):
        np.testing.assert_allclose(scores[row, expected.items[row]], expected.scores[row], rtol=1e-4, atol=1e-6)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # nothing unfinished


@pytest.mark.parametrize("training", [True, False])
def test_inference_embedding_leaving_the_model_in_another_mode(
    training: bool, tmp_path: Path, cycle_dataset: Dataset
) -> None:
    run, model = trainer(tmp_path), build(cycle_dataset, dropout=0.5).train(training)
    model.item_tower.eval()  # a part that is frozen stays as it is
    modes = [module.training for module in model.modules()]
    for mode in ("user", "item"):
        first, second = (run.inference_embedding(model, cycle_dataset, mode) for _ in range(2))
        assert np.array_equal(first, second) and first.dtype == np.float32  # no dropout either
    assert [module.training for module in model.modules()] == modes


def test_vectors_are_copies_in_the_order_of_users_and_items(tmp_path: Path, cycle_dataset: Dataset) -> None:
    run, model = trainer(tmp_path), build(cycle_dataset, SASRec)
    items = run.inference_embedding(model, cycle_dataset, "item")
    items += 1.0
    assert not np.shares_memory(items, model.items.weight.detach().numpy())
    users = run.inference_embedding(model, cycle_dataset)
    alone = MatchTrainer(eval_batch_size=1)
    alone.context = toy_context(tmp_path)
    np.testing.assert_allclose(users, alone.inference_embedding(model, cycle_dataset), rtol=1e-4, atol=1e-6)
    history = cycle_dataset.sequences.history("all")
    last = torch.from_numpy(np.ascontiguousarray(history[3]))[None]
    hidden = model.eval().encode(model.items(last), torch.tensor([6]))[0, -1]
    np.testing.assert_allclose(users[3], hidden.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_view_knows_indices_only(tmp_path: Path, cycle_dataset: Dataset) -> None:
    run, model = trainer(tmp_path), build(cycle_dataset)
    path = tmp_path / "vectors.parquet"
    vectors = run.inference_embedding(model, cycle_dataset.view("sequences"), "user", path)
    written = pl.read_parquet(path)
    assert written["user_id"].to_list() == list(range(NUM_USERS))
    np.testing.assert_array_equal(written["vector"].to_numpy(), vectors)


@needs_faiss
@pytest.mark.parametrize("kind", [DSSM, ComiRec, SASRec])
def test_flat_finds_everything(
    kind: Any, tmp_path: Path, cycle_dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    run, model = trainer(tmp_path, ann="flat", ann_k=4), build(cycle_dataset, kind)
    run.fit(model, cycle_dataset, toy_context(tmp_path))
    with caplog.at_level(logging.INFO, "genrec.trainers"):
        metrics = run.test(model, cycle_dataset)
    assert metrics["test/ann_recall@4"] == 1.0
    assert not any("ann" in name for name in run.metrics_history)  # the test only
    assert "ann=flat: 1.0000 of the exact top 4 found" in caplog.text and "ms per user" in caplog.text


@needs_faiss
@pytest.mark.parametrize("ann", ["ivf", "hnsw"])
def test_other_indices_are_measured_too(ann: str, tmp_path: Path) -> None:
    view = toy_view(num_users=60)
    torch.manual_seed(0)
    model = SASRec(DataSpec(num_users=60, num_items=30, train=view.train), **TINY, num_layers=1)
    assert 0.2 <= trainer(tmp_path, ann=ann, ann_k=3).test(model, view)["test/ann_recall@3"] <= 1.0


@needs_faiss
def test_a_list_longer_than_the_catalogue_is_refused(tmp_path: Path, cycle_dataset: Dataset) -> None:
    with pytest.raises(GenrecError, match=r"trainer.ann_k=9: give 1 to 8"):
        trainer(tmp_path, ann="flat", ann_k=9).evaluate_ann(build(cycle_dataset), cycle_dataset)


def test_models_without_vectors_are_refused(cycle_dataset: Dataset) -> None:
    for model in (Popularity(cycle_dataset.spec), toy_model()):
        with pytest.raises(GenrecError, match=rf"{type(model).__name__} has none .*Use trainer=advanced"):
            MatchTrainer().check_model(model)


def test_a_missing_faiss_is_told_before_training(monkeypatch: pytest.MonkeyPatch, cycle_dataset: Dataset) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    MatchTrainer().check_model(build(cycle_dataset))
    with pytest.raises(GenrecError, match=r'pip install "genrec\[faiss\]"'):
        MatchTrainer(ann="hnsw").check_model(build(cycle_dataset))


def test_impossible_settings_are_refused(tmp_path: Path, cycle_dataset: Dataset) -> None:
    with pytest.raises(GenrecError, match=r"trainer.ann=annoy: expected one of none, flat, ivf, hnsw"):
        MatchTrainer(ann="annoy")  # pyright: ignore[reportArgumentType]
    with pytest.raises(GenrecError, match=r"trainer.ann_k=0"):
        MatchTrainer(ann_k=0)
    with pytest.raises(GenrecError, match="mode='both': choose one of user, item"):
        trainer(tmp_path).inference_embedding(build(cycle_dataset), cycle_dataset, "both")  # pyright: ignore
