"""CurriculumTrainer: learns the well-known items first and the rare ones later."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Gt, Le, MinLen
from torch import Tensor, nn

from genrec.annotations import Count
from genrec.contracts import IGNORE, GenrecError, Losses, Plan
from genrec.trainers.advanced import AdvancedTrainer

logger = logging.getLogger("genrec.trainers")


@dataclass(kw_only=True)
class CurriculumTrainer(AdvancedTrainer):
    """An AdvancedTrainer whose targets grow harder: at first only the most popular items, in the end all of them.

    The targets of an epoch are the items that make up a share of the training interactions, popular ones first. The
    shares of ``difficulty_schedule`` hold for ``epochs_per_difficulty`` epochs each, the last of them to the end;
    ``train/difficulty`` logs it. Histories are whole throughout, and so are validation and test. Source of the idea:
    Bengio et al., "Curriculum learning", ICML 2009.
    """

    difficulty_schedule: Annotated[list[Annotated[float, Gt(0), Le(1)]], MinLen(1)] = field(
        default_factory=lambda: [0.2, 0.4, 0.6, 0.8, 1.0]
    )
    epochs_per_difficulty: Count = 1

    def check_model(self, model: Any) -> None:
        if getattr(model, "training_mode", None) not in ("positions", "windows"):
            raise GenrecError(
                f"trainer=curriculum chooses among next items, and {type(model).__name__} is not trained on them. "
                "Use model=tiger, tiger_item, sasrec, hstu or rpg, or another trainer."
            )
        super().check_model(model)

    @property
    def difficulty(self) -> float:
        """The share of the training interactions whose items are targets in this epoch."""
        stage = (self.current_epoch - 1) // self.epochs_per_difficulty
        return self.difficulty_schedule[min(stage, len(self.difficulty_schedule) - 1)]

    def train_plan(self, view: Any, model: nn.Module) -> Plan:
        chosen = easiest_items(np.bincount(view.train.values, minlength=view.num_items), self.difficulty)
        self._taught: Tensor = torch.from_numpy(chosen)
        logger.info("Epoch %d teaches %d of %d items", self.current_epoch, chosen.sum(), len(chosen))
        return super().train_plan(view, model)

    def train_step(self, model: nn.Module, batch: Any) -> Losses:
        taught = self._taught.to(batch.targets.device)[batch.targets.clamp(min=0)]
        if batch.whole is not None:
            kept = self._taught.to(batch.targets.device)[batch.whole[0]]
            batch = replace(batch, whole=(batch.whole[0][kept], batch.whole[1][kept]))
        losses = super().train_step(model, replace(batch, targets=batch.targets.masked_fill(~taught, IGNORE)))
        difficulty = losses.total.new_tensor(self.difficulty)
        return replace(losses, parts={**losses.parts, "difficulty": difficulty})


def easiest_items(counts: np.ndarray, share: float) -> np.ndarray:
    """The most popular items (N,) bool that together make up at least ``share`` of all ``counts`` (N,)."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order] = before < share * counts.sum() if share < 1.0 else True
    return chosen
