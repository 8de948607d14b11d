from __future__ import annotations

from collections import Counter
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
    codes = run.generate_semantic_ids(model, view, collisions=None)
    assert codes.shape == (200, 2)
    assert codes.dtype == torch.long
    assert torch.equal(codes, model.eval().encode(torch.from_numpy(VECTORS)))


def test_no_two_items_share_a_semantic_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """200 items, 64 content codes: a further digit counts those that share theirs, in the order of the items."""
    model, view = rqvae(), ItemsView(VECTORS)
    run = trainer(eval_batch_size=33)
    run.context = toy_context(tmp_path)
    content = run.generate_semantic_ids(model, view, collisions=None)
    with caplog.at_level("INFO", logger="genrec.trainers"):
        ids = run.generate_semantic_ids(model, view)
    assert ids.shape == (200, 3) and ids.dtype == torch.long
    assert torch.equal(ids[:, :2], content)
    counted: Counter[tuple[int, ...]] = Counter()
    for row in ids.tolist():
        assert row[2] == counted[tuple(row[:2])]
        counted[tuple(row[:2])] += 1
    report = run.evaluate_collisions(model, view)
    assert report["unique_share"] == len(counted) / 200
    assert report["num_colliding_items"] == sum(count for count in counted.values() if count > 1)
    assert report["largest_collision_group"] == max(counted.values()) > 1
    assert f"Codes of 200 items: {len(counted) / 2:.1f}% unique" in caplog.text


def test_the_other_collision_policies(tmp_path: Path) -> None:
    model, view, run = rqvae(num_embeddings=16), ItemsView(VECTORS), trainer()
    run.context = toy_context(tmp_path)
    run._initialize(model, view)
    spread = run.semantic_ids(model, view, collisions="sinkhorn")
    assert spread.codebook_sizes == (16, 16) and len(np.unique(spread.codes, axis=0)) == 200
    popularity = np.arange(200)
    digits = run.generate_semantic_ids(model, view, collisions="expand", popularity=popularity)
    groups: dict[tuple[int, ...], list[int]] = {}
    for item in reversed(range(200)):  # the most popular first
        groups.setdefault(tuple(digits[item, :2].tolist()), []).append(int(digits[item, 2]))
    assert all(group == list(range(len(group))) for group in groups.values())
    with pytest.raises(GenrecError, match="collisions=expand orders items by popularity"):
        run.semantic_ids(model, view, collisions="expand")
    with pytest.raises(GenrecError, match="collisions=some is unknown"):
        run.semantic_ids(model, view, collisions="some")  # pyright: ignore[reportArgumentType]


def test_reconstruction_and_quantisation_equal_numpy(tmp_path: Path) -> None:
    model, view = rqvae(), ItemsView(VECTORS)
    run = trainer(eval_batch_size=17)
    run.context = toy_context(tmp_path)
    items = view.parts["test"]
    with torch.no_grad():
        codes = model.eval().encode(torch.from_numpy(VECTORS[items])).numpy()
        rebuilt = model.reconstruct(torch.from_numpy(VECTORS[items])).double().numpy()
    old = VECTORS[items].astype(np.float64)
    expected = {
        "mse": ((rebuilt - old) ** 2).mean(),
        "rmse": np.sqrt(((rebuilt - old) ** 2).mean()),
        "sse_per_sample": ((rebuilt - old) ** 2).sum() / len(items),
        "cosine_similarity": np.mean(
            [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(rebuilt, old, strict=True)]
        ),
    }
    assert run.evaluate_reconstruction(model.train(), view) == pytest.approx(expected, rel=1e-6)
    assert model.training
    found = run.evaluate_quantization(model, view)
    for level in range(2):
        counts = np.array(sorted(Counter(codes[:, level].tolist()).values()))
        share = counts / counts.sum()
        assert found[f"unique_codes/level_{level}"] == len(counts)
        assert found[f"usage_rate/level_{level}"] == len(counts) / 8
        assert found[f"perplexity/level_{level}"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found["unique_codes"] == sum(found[f"unique_codes/level_{level}"] for level in range(2))
    assert found["usage_rate"] == found["unique_codes"] / 16
    assert found["perplexity"] == pytest.approx(np.mean([found[f"perplexity/level_{level}"] for level in range(2)]))


def test_train_model_tests_and_returns_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, run = rqvae(), trainer()
    with caplog.at_level("INFO", logger="genrec.trainers"):
        assert run.train_model(model, ItemsView(VECTORS), toy_context(tmp_path)) is model
    assert bool(model.initialized) and "Test results: " in caplog.text
    collisions = run.evaluate_collisions(model, ItemsView(VECTORS))
    assert run.test(model, ItemsView(VECTORS))["all/unique_share"] == collisions["unique_share"]


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
    with pytest.raises(GenrecError, match=r"a sample of users, and RQVAE is tested on items, all of them"):
        trainer(max_test_users=5).fit(rqvae(), ItemsView(VECTORS), toy_context(tmp_path))
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
