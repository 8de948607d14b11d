"""TIGERTrainer: an AdvancedTrainer for generative retrieval, scored on items and not on tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from genrec.contracts import TEST, VAL, GenrecError, Plan
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import view_of
from genrec.trainers.evaluation import evaluate_retrieval


@dataclass(kw_only=True)
class TIGERTrainer(AdvancedTrainer):
    """Validates by generating: beam search over the catalogue after each ``eval_every_epochs`` epochs."""

    def check_model(self, model: Any) -> None:
        if not hasattr(model, "recommend"):
            raise GenrecError(
                f"trainer=tiger scores recommendations, and {type(model).__name__} makes none. "
                "Use trainer=rqvae for it, or train model=tiger."
            )
        super().check_model(model)

    def evaluate_generation(
        self, model: nn.Module, data: Any, k_values: Sequence[int] = (5, 10, 20), part: str = TEST
    ) -> dict[str, float]:
        """``recall@k``, ``ndcg@k`` ... of the items that the model generates for every user of ``part``."""
        metrics = evaluate_retrieval(
            model,
            view_of(data, model),
            part,
            k_values=k_values,
            filter_seen=self.filter_seen,
            batch_size=self.eval_batch_size,
            max_users=self.max_eval_users,
            seed=self.context.seed,
            progress=self.context.progress,
        )
        return {name.removeprefix(f"{part}/"): value for name, value in metrics.items()}

    def create_dataloaders(self, model: Any, data: Any) -> tuple[Plan, Any, Any]:
        """The batches of the first epoch, of validation and of test; held out per user, in time order."""
        view = view_of(data, model)
        plan = view.train_plan(model, batch_size=self.batch_size, seed=self.context.seed, epoch=1)
        options: dict[str, Any] = {
            "batch_size": self.eval_batch_size,
            "max_history": model.max_history,
            "filter_seen": self.filter_seen,
        }
        return plan, view.eval_batches(VAL, **options), view.eval_batches(TEST, **options)
