"""CurriculumTrainer: learns the well-known items first and the rare ones later."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrec.contracts import IGNORE, GenrecError, Losses, Plan
from genrec.trainers.advanced import AdvancedTrainer

logger = logging.getLogger("genrec.trainers")


@dataclass(kw_only=True)
class CurriculumTrainer(AdvancedTrainer):
    """An AdvancedTrainer whose targets grow harder: at first only the most popular items, in the end all of them.

    In the first epoch the targets are the items that make up ``start_share`` of the training interactions, popular ones
    first; the share grows by equal steps and is 1 in epoch ``full_epoch``. Histories are whole throughout, and so are
    validation and test. Source of the idea: Bengio et al., "Curriculum learning", ICML 2009.
    """

    start_share: float = 0.3
    full_epoch: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.start_share <= 1.0:
            raise GenrecError(f"trainer.start_share={self.start_share}: give a share above 0 and up to 1.")
        if self.full_epoch < 1:
            raise GenrecError(f"trainer.full_epoch={self.full_epoch}: give an epoch of 1 or more.")

    def check_model(self, model: Any) -> None:
        if getattr(model, "training_mode", None) not in ("positions", "windows"):
            raise GenrecError(
                f"trainer=curriculum chooses among next items, and {type(model).__name__} is not trained on them. "
                "Use model=tiger, tiger_item, sasrec, hstu or rpg, or another trainer."
            )
        super().check_model(model)

    @property
    def share(self) -> float:
        """The share of the training interactions whose items are targets in this epoch."""
        progress = 1.0 if self.full_epoch == 1 else (self.current_epoch - 1) / (self.full_epoch - 1)
        return min(1.0, self.start_share + (1.0 - self.start_share) * progress)

    def train_plan(self, view: Any, model: nn.Module) -> Plan:
        chosen = easiest_items(np.bincount(view.train.values, minlength=view.num_items), self.share)
        self._taught: Tensor = torch.from_numpy(chosen)
        logger.info("Epoch %d teaches %d of %d items", self.current_epoch, chosen.sum(), len(chosen))
        return super().train_plan(view, model)

    def train_step(self, model: nn.Module, batch: Any) -> Losses:
        taught = self._taught.to(batch.targets.device)[batch.targets.clamp(min=0)]
        return super().train_step(model, replace(batch, targets=batch.targets.masked_fill(~taught, IGNORE)))


def easiest_items(counts: np.ndarray, share: float) -> np.ndarray:
    """The most popular items (N,) bool that together make up at least ``share`` of all ``counts`` (N,)."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order] = before < share * counts.sum() if share < 1.0 else True
    return chosen
