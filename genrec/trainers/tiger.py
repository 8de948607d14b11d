"""TIGERTrainer: an AdvancedTrainer for generative retrieval, scored on items and not on tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from genrec.annotations import Natural, Positive
from genrec.contracts import IGNORE, TEST, VAL, GenrecError, HistoryBatch, Plan
from genrec.data.ragged import Ragged
from genrec.decoding.trie import Trie
from genrec.metrics.diversity import evaluate_diversity
from genrec.metrics.ranking import ndcg_at_k, recall_at_k
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import view_of
from genrec.trainers.evaluation import SharedBatches, device_of, evaluate_retrieval, evaluating
from genrec.trainers.samples import Samples, check_can_generate
from genrec.trainers.world import ALONE, World

_TARGETS_AT_ONCE = 8  # per user: a decoder alone repeats the history for each


@dataclass(kw_only=True)
class TIGERTrainer(AdvancedTrainer):
    """Validates by generating: beam search over the catalogue after each ``eval_every_epochs`` epochs.

    The test adds the perplexity of the held-out items' codes. ``generation_temperature``, ``generation_top_k`` (0: all
    codes) and ``generation_top_p`` shape what ``generate_samples``, ``evaluate_diversity`` and, unless it is told
    otherwise, ``python -m genrec.generate`` draw; beam search, by which the model is scored, is not random.
    """

    generation_temperature: Positive = 1.0
    generation_top_k: Natural = 50
    generation_top_p: Annotated[float, Gt(0), Le(1)] = 0.9

    def check_model(self, model: Any) -> None:
        if not hasattr(model, "recommend"):
            raise GenrecError(
                f"trainer=tiger scores recommendations, and {type(model).__name__} makes none. "
                "Use trainer=rqvae for it, or train model=tiger."
            )
        super().check_model(model)

    def evaluate(self, model: nn.Module, view: Any, part: str, *, progress: bool = True) -> dict[str, float]:
        """Ranking metrics and, for the test of a model that knows the probability of an item, the perplexity."""
        metrics = super().evaluate(model, view, part, progress=progress)
        if part == TEST and metrics and hasattr(model, "log_prob") and hasattr(model, "num_levels"):
            metrics[f"{part}/perplexity"] = self.evaluate_perplexity(model, view, part, max_users=self.max_test_users)
        return metrics

    def evaluate_generation(
        self, model: nn.Module, data: Any, k_values: Sequence[int] = (5, 10, 20), part: str = TEST
    ) -> dict[str, float]:
        """``recall@k``, ``ndcg@k`` ... of the items that the model generates for every user of ``part``."""
        metrics = evaluate_retrieval(
            model,
            view_of(data, model),
            part,
            k_values=k_values,
            filter_seen=self.masks_seen(model),
            batch_size=self.eval_batch_size,
            max_users=self.max_eval_users,
            seed=self.context.seed,
            progress=self.context.progress,
            world=self.hardware.world,
        )
        return {name.removeprefix(f"{part}/"): value for name, value in metrics.items()}

    def evaluate_perplexity(self, model: Any, data: Any, part: str = TEST, *, max_users: int | None = None) -> float:
        """exp of the mean nats per code of all held-out items of ``part``, each given its user's history and the true
        codes before it (teacher forcing); ``max_users``: those of a fixed sample of users."""
        if not hasattr(model, "log_prob") or not hasattr(model, "num_levels"):
            raise GenrecError(
                f"Perplexity needs the probability of an item's codes, and {type(model).__name__} has no log_prob. "
                "Use model=tiger or model=tiger_item."
            )
        total, count = 0.0, 0
        world = self.hardware.world
        with evaluating(model):
            for batch, targets in self._eval_batches(model, data, part, max_users=max_users, world=world):
                for some in targets.split(_TARGETS_AT_ONCE, dim=1):
                    log_probs = model.log_prob(batch, some.clamp(min=0)).double()
                    total += float(log_probs[some != IGNORE].sum())
                    count += int((some != IGNORE).sum())
        total, count = (sum(parts) for parts in zip(*world.gather((total, count)), strict=True))
        if not count:
            raise GenrecError(f"No user has an item in the part {part!r}, so there is nothing to be perplexed by.")
        return math.exp(-total / (count * model.num_levels))

    def evaluate_diversity(
        self,
        model: Any,
        data: Any,
        part: str = TEST,
        *,
        num_samples: int = 10,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        vectors: Tensor | None = None,
    ) -> dict[str, float]:
        """How varied ``num_samples`` items sampled for each user of ``part`` are (``genrec.metrics.diversity``).

        ``vectors`` (N, D) of the items adds their distances within a list. What is not given is the trainer's.
        """
        check_can_generate(model)
        if not hasattr(model, "sample") or not hasattr(model, "trie"):
            raise GenrecError(f"{type(model).__name__} has no codes to be diverse in. Use model=tiger.")
        options = self._sampling(temperature, top_k, top_p)
        generator = torch.Generator(device_of(model)).manual_seed(self.context.seed if seed is None else seed)
        with evaluating(model):
            lists = [
                model.sample(batch, num_samples, generator=generator, **options).items.cpu()
                for batch, _ in self._eval_batches(model, data, part, max_users=self.max_eval_users)
            ]
        if not lists:
            raise GenrecError(f"No user has an item in the part {part!r}, so nothing was generated.")
        return evaluate_diversity(torch.cat(lists), _codes(model.trie.to("cpu")), vectors)

    def generate_samples(
        self,
        num_samples: int = 8,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        *,
        model: Any = None,
        data: Any = None,
    ) -> Samples:
        """As ``BaseTrainer.generate_samples``; what is not given is the trainer's ``generation_*``."""
        options = self._sampling(temperature, top_k, top_p)
        return super().generate_samples(num_samples, seed, **options, model=model, data=data)

    def create_dataloaders(self, model: Any, data: Any) -> tuple[Plan, Any, Any]:
        """The batches of the first epoch, of validation and of test; held out per user, in time order."""
        view = view_of(data, model)
        plan = view.train_plan(model, batch_size=self.batch_size_for(model), seed=self.context.seed, epoch=1)
        options: dict[str, Any] = {
            "batch_size": self.eval_batch_size,
            "max_history": model.max_history,
            "filter_seen": self.masks_seen(model),
        }
        return plan, view.eval_batches(VAL, **options), view.eval_batches(TEST, **options)

    def _eval_batches(
        self, model: Any, data: Any, part: str, *, max_users: int | None, world: World = ALONE
    ) -> Iterator[tuple[HistoryBatch, Tensor]]:
        device = device_of(model)
        batches = view_of(data, model).eval_batches(
            part,
            batch_size=self.eval_batch_size,
            max_history=model.max_history,
            filter_seen=self.masks_seen(model),
            max_users=max_users,
            seed=self.context.seed,
        )
        for batch, targets in SharedBatches(batches, world):
            yield batch.to(device), targets.to(device)

    def _sampling(self, temperature: float | None, top_k: int | None, top_p: float | None) -> dict[str, Any]:
        return {
            "temperature": self.generation_temperature if temperature is None else temperature,
            "top_k": self.generation_top_k if top_k is None else top_k,
            "top_p": self.generation_top_p if top_p is None else top_p,
        }

    @staticmethod
    def _compute_recall_at_k(predictions: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], k: int) -> float:
        """Mean recall@k of ranked item lists; lists without targets are left out, 0.0 where nothing is left."""
        return recall_at_k(_padded(predictions), _padded(targets), k)

    @staticmethod
    def _compute_ndcg_at_k(predictions: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], k: int) -> float:
        """Mean ndcg@k with binary gains, the ideal taken over min(targets, k); else as recall."""
        return ndcg_at_k(_padded(predictions), _padded(targets), k)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.from_numpy(Ragged.from_rows(rows).padded(IGNORE))


def _codes(trie: Trie) -> Tensor:
    """The codes (N, C) of all items."""
    path = trie.path_of(torch.arange(trie.num_items))
    return torch.stack([codes[nodes].long() for codes, nodes in zip(trie.codes, path, strict=True)], dim=1)
