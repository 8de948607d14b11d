"""APRTrainer: trains against the small change of the embeddings that hurts most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genrec.annotations import Count, NotNegative, Positive
from genrec.contracts import GenrecError, Losses
from genrec.nn.embedding import TokenEmbedding
from genrec.trainers.advanced import AdvancedTrainer


@dataclass(kw_only=True)
class APRTrainer(AdvancedTrainer):
    """An AdvancedTrainer that minimises L(theta) + ``weight`` L(theta + delta), delta = ``radius`` g / |g|, where g is
    the gradient of L with respect to all embedding tables together.

    ``begin_epoch_of_attack`` is the first epoch with the second term; those before it train as usual. A step takes
    about twice as long. Source: He et al., "Adversarial personalized ranking for recommendation", SIGIR 2018.
    """

    radius: Positive = 0.5
    weight: NotNegative = 1.0
    begin_epoch_of_attack: Count = 1

    def check_model(self, model: Any) -> None:
        if isinstance(model, nn.Module) and not embedding_tables(model):
            raise GenrecError(f"trainer=apr perturbs embedding tables, and {type(model).__name__} has none.")
        super().check_model(model)

    def train_step(self, model: nn.Module, batch: Any) -> Losses:
        clean = super().train_step(model, batch)
        if self.current_epoch < self.begin_epoch_of_attack or clean.count == 0:
            return clean
        tables = embedding_tables(model)
        gradients = torch.autograd.grad(clean.total, list(tables.values()), retain_graph=True, allow_unused=True)
        hit = {name: g for name, g in zip(tables, gradients, strict=True) if g is not None}
        length = torch.stack([gradient.float().norm() for gradient in hit.values()]).norm().clamp(min=1e-12)
        moved = {f"model.{name}": tables[name] + self.radius * hit[name] / length for name in hit}
        attacked: Losses = torch.func.functional_call(_Loss(model), moved, (batch,))
        total = clean.total + self.weight * attacked.total
        parts = {**clean.parts, "clean": clean.total.detach(), "adversarial": attacked.total.detach()}
        return Losses(total, clean.count, parts)


class _Loss(nn.Module):
    """A model's loss as a module's forward, which is what ``functional_call`` calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Losses:
        return self.model.loss(batch)  # pyright: ignore[reportCallIssue]


def embedding_tables(model: nn.Module) -> dict[str, Tensor]:
    """The trainable tables of the model's embeddings by the names of their parameters."""
    kinds = (nn.Embedding, nn.EmbeddingBag, TokenEmbedding)
    found = [
        (f"{prefix}.{name}" if prefix else name, parameter)
        for prefix, module in model.named_modules()
        if isinstance(module, kinds)
        for name, parameter in module.named_parameters(recurse=False)
    ]
    return {name: parameter for name, parameter in found if parameter.requires_grad}
