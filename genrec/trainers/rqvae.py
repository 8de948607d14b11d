"""RQVAETrainer: trains a tokenizer on item vectors, watches reconstruction, and gives every item its codes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genrec.contracts import TEST, VAL, GenrecError, Plan, RunContext
from genrec.metrics import codebook
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import view_of
from genrec.trainers.evaluation import device_of, evaluate_items, evaluating

logger = logging.getLogger("genrec.trainers")

ALL = "all"


@dataclass(kw_only=True)
class RQVAETrainer(AdvancedTrainer):
    """An AdvancedTrainer for models that code item vectors; monitors the validation loss."""

    max_epochs: int = 100
    batch_size: int = 1024
    eval_batch_size: int = 4096
    max_eval_users: int | None = None
    monitor: str = "val/loss"
    eval_every_epochs: int = 5
    use_scheduler: bool = False

    def check_model(self, model: Any) -> None:
        if not hasattr(model, "encode") or hasattr(model, "recommend"):
            raise GenrecError(
                f"trainer=rqvae trains models that code item vectors, and {type(model).__name__} is none of them. "
                "Use model=rqvae, or another trainer (trainer=tiger, advanced or simple)."
            )
        super().check_model(model)

    def evaluate(self, model: Any, view: Any, part: str, *, progress: bool = True) -> dict[str, float]:
        """Loss, reconstruction (``mse`` per element, ``rmse``, ``cosine_similarity``) and use of the codebooks."""
        if not len(view.eval_batches(part, batch_size=self.eval_batch_size)):
            return {}
        loss = evaluate_items(
            model, view, part, batch_size=self.eval_batch_size, seed=self.context.seed, progress=progress
        )
        other = {**self.evaluate_reconstruction(model, view, part), **self.evaluate_quantization(model, view, part)}
        return {**loss, **{f"{part}/{name}": value for name, value in other.items()}}

    def evaluate_reconstruction(self, model: Any, data: Any, part: str = TEST) -> dict[str, float]:
        """``mse``, ``rmse``, ``sse_per_sample`` and ``cosine_similarity`` of item vectors rebuilt from their codes."""
        with evaluating(model):
            pairs = [(model.reconstruct(batch.vectors), batch.vectors) for batch in self._batches(model, data, part)]
        return codebook.evaluate_reconstruction(
            torch.cat([new for new, _ in pairs]), torch.cat([old for _, old in pairs])
        )

    def evaluate_quantization(self, model: Any, data: Any, part: str = TEST) -> dict[str, float]:
        """``usage_rate``, ``unique_codes`` and ``perplexity`` of the codebooks over the items of ``part``."""
        return codebook.evaluate_quantization(self._codes(model, data, part), model.codebook_sizes)

    def generate_semantic_ids(self, model: Any, data: Any) -> Tensor:
        """The codes (N, C) of all items, in the order of their indices; they need not be unique."""
        return self._codes(model, data, ALL)

    def create_dataloaders(self, model: nn.Module, data: Any) -> tuple[Plan, Any, Any]:
        """The batches of the first epoch, of validation and of test."""
        view = view_of(data, model)
        plan = view.train_plan(model, batch_size=self.batch_size, seed=self.context.seed, epoch=1)
        return plan, *(view.eval_batches(part, batch_size=self.eval_batch_size) for part in (VAL, TEST))

    def test(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        if not len(view_of(data, model).parts[TEST]):
            raise GenrecError("The view holds out no items for a test: raise test_ratio above 0, or skip the test.")
        return super().test(model, data, context)

    def _codes(self, model: Any, data: Any, part: str) -> Tensor:
        with evaluating(model):
            return torch.cat([model.encode(batch.vectors).cpu() for batch in self._batches(model, data, part)])

    def _batches(self, model: Any, data: Any, part: str) -> Iterator[Any]:
        device = device_of(model)
        for batch in view_of(data, model).eval_batches(part, batch_size=self.eval_batch_size):
            yield batch.to(device)
