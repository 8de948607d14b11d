from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import DataSpec, GenrecError
from genrec.data.views import ItemsView
from genrec.models.rqvae import RQVAE
from genrec.trainers import AdvancedTrainer, Hardware, RQVAETrainer, TIGERTrainer

VECTORS = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)


def rqvae(**options: Any) -> RQVAE:
    torch.manual_seed(0)
    spec = DataSpec(num_users=0, num_items=len(VECTORS), item_vectors=VECTORS)
    return RQVAE(
        spec,
        **{
            "hidden_dims": (16,),
            "latent_dim": 8,
            "num_quantizers": 2,
            "num_embeddings": 8,
            "linear_path": False,
            **options,
        },
    )


def trainer(**options: Any) -> RQVAETrainer:
    return RQVAETrainer(**{"max_epochs": 4, "batch_size": 64, "eval_every_epochs": 1, **options})


def test_it_trains_initialises_and_reports(tmp_path: Path) -> None:
    model, view = rqvae(), ItemsView(VECTORS)
    run = trainer(max_epochs=10)
    result = run.fit(model, view, toy_context(tmp_path))
    assert bool(model.initialized)
    assert result.best_value == min(result.history["val/loss"]) < result.history["val/loss"][0]
    final = run.test(model, view)
    for name in ("mse", "rmse", "cosine_similarity", "usage_rate", "unique_codes", "perplexity"):
        assert np.isfinite(final[f"test/{name}"])
    assert final["test/rmse"] == pytest.approx(final["test/mse"] ** 0.5)


def test_mse_is_per_element_and_the_sum_is_kept(tmp_path: Path) -> None:
    model, view = rqvae(), ItemsView(VECTORS)
    run = trainer()
    run.context = toy_context(tmp_path)
    metrics = run.evaluate_reconstruction(model, view, "all")
    expected = (model.reconstruct(torch.from_numpy(VECTORS)) - torch.from_numpy(VECTORS)).square()
    assert metrics["mse"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert metrics["sse_per_sample"] == pytest.approx(12 * metrics["mse"], rel=1e-5)


def test_semantic_ids_are_made_for_all_items_in_order(tmp_path: Path) -> None:
    model, view = rqvae(), ItemsView(VECTORS)
    run = trainer(eval_batch_size=33)
    run.context = toy_context(tmp_path)
    codes = run.generate_semantic_ids(model, view)
    assert codes.shape == (200, 2)
    assert codes.dtype == torch.long
    assert torch.equal(codes, model.eval().encode(torch.from_numpy(VECTORS)))


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: Any) -> None:
    model, view = rqvae(codebook_update="ema"), ItemsView(VECTORS)
    result = trainer().fit(model, view, toy_context(tmp_path / "whole"))
    calls = {"count": 0}
    original = RQVAETrainer.train_step

    def stopping(*args: Any) -> Any:
        calls["count"] += 1
        if calls["count"] == 8:
            raise KeyError
        return original(*args)

    options = {"checkpoint_every_steps": 2}
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(RQVAETrainer, "train_step", stopping)
        trainer(**options).fit(rqvae(codebook_update="ema"), view, toy_context(tmp_path / "parts"))
    again = rqvae(codebook_update="ema")
    assert trainer(**options).fit(again, view, toy_context(tmp_path / "parts", resume=True)) == result
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_other_trainers_train_a_tokenizer_too(tmp_path: Path) -> None:
    run = AdvancedTrainer(max_epochs=2, monitor="val/loss")
    assert run.fit(rqvae(), ItemsView(VECTORS), toy_context(tmp_path)).best_epoch > 0


def test_the_dataloaders_divide_the_items(tmp_path: Path) -> None:
    run = trainer()
    run.context = toy_context(tmp_path)
    loaders = run.create_dataloaders(rqvae(), ItemsView(VECTORS))
    items = [torch.cat([loader[index].items for index in range(len(loader))]) for loader in loaders]
    assert [len(part) for part in items] == [160, 20, 20]
    assert torch.equal(torch.cat(items).sort().values, torch.arange(200))


def test_a_model_of_another_kind_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="trainer=rqvae trains models that code item vectors"):
        trainer().fit(toy_model(), toy_view(), toy_context(tmp_path))
    with pytest.raises(GenrecError, match=r"val/recall@10 scores recommendations, and RQVAE makes none"):
        AdvancedTrainer().fit(rqvae(), ItemsView(VECTORS), toy_context(tmp_path))
    with pytest.raises(GenrecError, match="trainer=tiger scores recommendations, and RQVAE makes none"):
        TIGERTrainer(monitor="val/loss").fit(rqvae(), ItemsView(VECTORS), toy_context(tmp_path))


def test_it_trains_in_double_precision(tmp_path: Path) -> None:
    model, context = rqvae(), toy_context(tmp_path, hardware=Hardware(accelerator="cpu", precision=64))
    run = trainer(max_epochs=1)
    run.fit(model, ItemsView(VECTORS), context)
    assert next(model.parameters()).dtype == torch.float64
    assert np.isfinite(run.test(model, ItemsView(VECTORS), context)["test/loss"])
