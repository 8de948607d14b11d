from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import GenrecError
from genrec.trainers import AdvancedTrainer, APRTrainer
from genrec.trainers.adversarial import embedding_tables


def _weights(folder: Path, trainer: Any) -> list[torch.Tensor]:
    model = toy_model()
    trainer.fit(model, toy_view(), toy_context(folder))
    return [weight.detach() for weight in model.parameters()]


def _same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_the_change_is_the_gradient_at_the_given_length(tmp_path: Path) -> None:
    """By hand on one batch: tables moved by radius * g / |g|, the loss there added with its weight."""
    model, view, trainer = toy_model(dropout=0.0), toy_view(), APRTrainer(radius=0.7, weight=0.3, max_epochs=1)
    trainer.fit(model, view, toy_context(tmp_path))
    batch = view.train_plan(model, batch_size=32, seed=0, epoch=1)[0]
    losses = trainer.train_step(model, batch)
    clean = model.loss(batch).total
    (gradient,) = torch.autograd.grad(clean, [model.items.weight])
    with torch.no_grad():
        model.items.weight += 0.7 * gradient / gradient.norm()
        attacked = model.loss(batch).total
    assert losses.parts["clean"].item() == pytest.approx(clean.item())
    assert losses.parts["adversarial"].item() == pytest.approx(attacked.item(), rel=1e-5)
    assert losses.total.item() == pytest.approx(clean.item() + 0.3 * attacked.item(), rel=1e-5)
    assert attacked > clean  # uphill


def test_without_an_attack_it_is_ordinary_training(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_epochs": 2, "batch_size": 64}
    plain = _weights(tmp_path / "a", AdvancedTrainer(**options))
    assert _same(plain, _weights(tmp_path / "b", APRTrainer(begin_epoch_of_attack=3, **options)))
    assert not _same(plain, _weights(tmp_path / "c", APRTrainer(begin_epoch_of_attack=2, **options)))


def test_tables_are_found_by_name() -> None:
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.ModuleDict({"tags": nn.EmbeddingBag(4, 2)}))
    assert list(embedding_tables(model)) == ["0.weight", "2.tags.weight"]
    model[0].requires_grad_(False)
    assert list(embedding_tables(model)) == ["2.tags.weight"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(GenrecError, match=r"trainer.radius=0"):
        APRTrainer(radius=0)
    with pytest.raises(GenrecError, match="trainer=apr perturbs embedding tables, and Linear has none"):
        APRTrainer(monitor="train/loss").fit(nn.Linear(1, 1), toy_view(), toy_context(Path("unused")))
