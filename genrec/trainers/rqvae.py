"""RQVAETrainer: trains a tokenizer on item vectors, watches reconstruction, and gives every item its codes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.annotations import Count
from genrec.contracts import TEST, VAL, GenrecError, Plan, RunContext
from genrec.metrics import codebook
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.collisions import EXPAND, EXTRA_DIGIT, Policy, check_policy, resolve_collisions
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import view_of
from genrec.trainers.evaluation import SharedBatches, device_of, evaluating
from genrec.trainers.world import ALONE, World

logger = logging.getLogger("genrec.trainers")

ALL = "all"


@dataclass(kw_only=True)
class RQVAETrainer(AdvancedTrainer):
    """An AdvancedTrainer for models that code item vectors; monitors the validation loss."""

    max_epochs: Count = 100
    batch_size: Count = 1024
    eval_batch_size: Count = 4096
    max_eval_users: Count | None = None
    monitor: str = "val/loss"
    eval_every_epochs: Count = 5
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
        loss = super().evaluate(model, view, part, progress=progress)
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
        """``usage_rate``, ``unique_codes`` and ``perplexity`` = exp(-sum p log p) of the codebooks over the items of
        ``part``: overall, and per level as ``perplexity/level_0`` ..."""
        return codebook.evaluate_quantization(self._codes(model, data, part), model.codebook_sizes)

    def evaluate_collisions(self, model: Any, data: Any) -> dict[str, float]:
        """How far the codes tell *all* items apart, before any policy: ``unique_share``, ``num_colliding_items`` and
        ``largest_collision_group``."""
        return codebook.evaluate_collisions(self._codes(model, data, ALL))

    def generate_semantic_ids(
        self,
        model: Any,
        data: Any,
        *,
        collisions: Policy | None = EXTRA_DIGIT,
        popularity: np.ndarray | None = None,
    ) -> Tensor:
        """The semantic IDs (N, L) of all items, in the order of their indices, each item with its own.

        ``collisions`` is a policy of ``genrec.tokenizers.collisions``, or None for the codes (N, C) of the model,
        which items may share. The policy "expand" needs the ``popularity`` (N,) of the items.
        """
        if collisions is None:
            return self._codes(model, data, ALL)
        ids = self.semantic_ids(model, data, collisions=collisions, popularity=popularity)
        return torch.from_numpy(ids.codes)

    def semantic_ids(
        self, model: Any, data: Any, *, collisions: Policy = EXTRA_DIGIT, popularity: np.ndarray | None = None
    ) -> SemanticIds:
        """``generate_semantic_ids`` as a table that can be saved for ``tokenizer=file``; logs the collisions."""
        check_policy(collisions)
        if collisions == EXPAND and popularity is None:
            raise GenrecError("collisions=expand orders items by popularity: give popularity, one count per item.")
        with evaluating(model):
            batches = self._batches(model, data, ALL, shared=True)
            found = [(model.encode(batch.vectors).cpu(), model.latents(batch.vectors).cpu()) for batch in batches]
            codes, latents = (torch.cat(part) for part in zip(*self._world.in_turn(found), strict=True))
        report = codebook.evaluate_collisions(codes)
        logger.info(
            "Codes of %d items: %.1f%% unique, %d items share theirs, at most %d the same (collisions=%s)",
            len(codes), 100 * report["unique_share"], report["num_colliding_items"],
            report["largest_collision_group"], collisions,
        )  # fmt: skip
        return resolve_collisions(
            collisions,
            codes.numpy(),
            vectors=latents.float().numpy(),
            codebooks=[table.float().cpu().numpy() for table in model.codebooks()],
            popularity=np.zeros(len(codes)) if popularity is None else popularity,
        )

    def create_dataloaders(self, model: nn.Module, data: Any) -> tuple[Plan, Any, Any]:
        """The batches of the first epoch, of validation and of test."""
        view = view_of(data, model)
        plan = view.train_plan(model, batch_size=self.batch_size_for(model), seed=self.context.seed, epoch=1)
        return plan, *(view.eval_batches(part, batch_size=self.eval_batch_size) for part in (VAL, TEST))

    def test(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        if not len(view_of(data, model).parts[TEST]):
            raise GenrecError("The view holds out no items for a test: raise test_ratio above 0, or skip the test.")
        metrics = super().test(model, data, context)
        collisions = self.evaluate_collisions(model, data)
        return {**metrics, **{f"{ALL}/{name}": value for name, value in collisions.items()}}

    @property
    def _world(self) -> World:
        return self.hardware_now.world

    def _codes(self, model: Any, data: Any, part: str) -> Tensor:
        with evaluating(model):
            found = [model.encode(batch.vectors).cpu() for batch in self._batches(model, data, part, shared=True)]
        return torch.cat(self._world.in_turn(found))

    def _batches(self, model: Any, data: Any, part: str, *, shared: bool = False) -> Iterator[Any]:
        """The items of ``part``; ``shared``: of several processes each has every ``size``-th batch."""
        device = device_of(model)
        batches = view_of(data, model).eval_batches(part, batch_size=self.eval_batch_size)
        for batch in SharedBatches(batches, self._world if shared else ALONE):
            yield batch.to(device)
