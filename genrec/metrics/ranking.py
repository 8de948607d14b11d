"""Metrics of ranked lists: a few tensor operations per batch, users without targets left out.

B users, k length of the list, T targets per user, K cut-off, R the distinct targets of a user. A hit is a recommended
item in R at its first place in the list: repeats never count twice, IGNORE never counts.

    recall@K     hits / |R|, or hits / min(K, |R|) with ``denominator="min"`` (Liang et al., 2018)
    precision@K  hits / K
    hit@K        1 if there is a hit
    mrr@K        1 / rank of the first hit
    ndcg@K       sum of 1 / log2(rank + 1) over hits, divided by the same sum for min(K, |R|) hits at the top
    map@K        sum of precision@rank over hits, divided by min(K, |R|)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import IGNORE, GenrecError

_PENDING = 8192  # users whose lists are scored together
METRICS = ("recall", "ndcg", "hit", "mrr", "precision", "map")
DENOMINATORS = ("relevant", "min")


def ranking_metrics(
    recommended: Tensor, targets: Tensor, k_values: Iterable[int], *, denominator: str = "relevant"
) -> dict[str, Tensor]:
    """Per-user values (B,) float64 named like "recall@10"; nan where a user has no target.

    ``recommended`` (B, any length) best first, ``targets`` (B, T), both filled with IGNORE.
    """
    cut_offs = _checked(k_values, denominator)
    hits, num_relevant = _hits(recommended, targets, max(cut_offs))
    rank = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    found = hits.cumsum(dim=1)  # (B, K) hits down to each rank
    gain = hits / torch.log2(rank + 1)
    discounted = gain.cumsum(dim=1)
    ideal = (1 / torch.log2(rank + 1)).cumsum(dim=0)
    precision_at_hits = (hits * found / rank).cumsum(dim=1)
    reciprocal = (hits / rank).amax(dim=1, keepdim=True)  # the first hit has the largest 1 / rank
    values: dict[str, Tensor] = {}
    for k in cut_offs:
        at, best_possible = k - 1, num_relevant.clamp(min=1, max=k)
        relevant = best_possible if denominator == "min" else num_relevant.clamp(min=1)
        any_hit = found[:, at] > 0
        values[f"recall@{k}"] = found[:, at] / relevant
        values[f"ndcg@{k}"] = discounted[:, at] / ideal[best_possible - 1]
        values[f"hit@{k}"] = any_hit.double()
        values[f"mrr@{k}"] = reciprocal[:, 0] * any_hit
        values[f"precision@{k}"] = found[:, at] / k
        values[f"map@{k}"] = precision_at_hits[:, at] / best_possible
    return {name: value.masked_fill(num_relevant == 0, torch.nan) for name, value in values.items()}


class RankingAccumulator:
    """Means of the ranking metrics over all users with a target, batch by batch.

    ``sums`` and ``count`` are all of its state: adding those of two accumulators joins them. With ``keep_per_user`` the
    values of every scored user are kept too, for paired tests between runs.
    """

    def __init__(
        self,
        k_values: Iterable[int],
        *,
        metrics: Sequence[str] = METRICS,
        denominator: str = "relevant",
        keep_per_user: bool = False,
    ) -> None:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown or not metrics:
            raise GenrecError(f"Unknown ranking metrics {unknown}; choose some of {', '.join(METRICS)}.")
        self.k_values = _checked(k_values, denominator)
        self.denominator = denominator
        self.names = tuple(f"{metric}@{k}" for metric in metrics for k in self.k_values)
        self._sums = dict.fromkeys(self.names, 0.0)
        self._count = 0
        self._kept: list[Tensor] | None = [] if keep_per_user else None
        self._pending: list[tuple[Tensor, Tensor]] = []

    @property
    def sums(self) -> dict[str, float]:
        self._score_pending()
        return self._sums

    @property
    def count(self) -> int:
        self._score_pending()
        return self._count

    def update(self, recommended: Tensor, targets: Tensor) -> None:
        """Adds a batch: ``recommended`` (B, any length) best first, ``targets`` (B, T), both filled with IGNORE."""
        lists = recommended[:, : max(self.k_values)]
        if self._pending and [lists.shape[1], targets.shape[1]] != [part.shape[1] for part in self._pending[-1]]:
            self._score_pending()
        self._pending.append((lists, targets))
        if sum(len(part) for part, _ in self._pending) >= _PENDING:
            self._score_pending()

    def _score_pending(self) -> None:
        """Small batches are scored together: a hundred operations cost the same for a hundred users as for one."""
        if not self._pending:
            return
        recommended, targets = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        self._pending = []
        values = ranking_metrics(recommended, targets, self.k_values, denominator=self.denominator)
        table = torch.stack([values[name] for name in self.names])  # (metrics, B)
        table = table[:, ~table[0].isnan()].cpu()
        for name, total in zip(self.names, table.sum(dim=1).tolist(), strict=True):
            self._sums[name] += total
        self._count += table.shape[1]
        if self._kept is not None:
            self._kept.append(table)

    def replace(self, totals: Iterable[tuple[dict[str, float], int]]) -> None:
        """Takes ``sums`` and ``count`` of several accumulators, each of users of its own, in place of its own."""
        self._score_pending()
        self._sums, self._count = dict.fromkeys(self.names, 0.0), 0
        for sums, count in totals:
            self._count += count
            for name in self.names:
                self._sums[name] += sums[name]

    def compute(self) -> dict[str, float]:
        """The means by name, such as "recall@10"; 0.0 where no user had a target."""
        return {name: total / max(self.count, 1) for name, total in self.sums.items()}

    def per_user(self) -> dict[str, np.ndarray]:
        """The values (scored users,) by name, in the order in which the users came."""
        if self._kept is None:
            raise ValueError("Per-user values were not kept: build the accumulator with keep_per_user=True.")
        self._score_pending()
        table = torch.cat(self._kept, dim=1) if self._kept else torch.zeros(len(self.names), 0)
        return dict(zip(self.names, table.numpy(), strict=True))

    def keep(self, parts: Sequence[dict[str, np.ndarray]]) -> None:
        """Takes what ``per_user`` of several accumulators gave in place of its own."""
        self._score_pending()
        self._kept = [torch.from_numpy(np.stack([part[name] for name in self.names])) for part in parts]


def recall_at_k(predictions: Tensor, targets: Tensor, k: int) -> float:
    """Mean recall@k over users with targets, 0.0 where there are none; arguments as in ``ranking_metrics``."""
    return _mean("recall", predictions, targets, k)


def ndcg_at_k(predictions: Tensor, targets: Tensor, k: int) -> float:
    """Mean ndcg@k (binary gains) over users with targets, 0.0 where there are none."""
    return _mean("ndcg", predictions, targets, k)


def _mean(metric: str, predictions: Tensor, targets: Tensor, k: int) -> float:
    accumulator = RankingAccumulator([k], metrics=(metric,))
    accumulator.update(predictions, targets)
    return accumulator.compute()[f"{metric}@{k}"]


def _checked(k_values: Iterable[int], denominator: str) -> tuple[int, ...]:
    cut_offs = tuple(dict.fromkeys(int(k) for k in k_values))
    if not cut_offs or min(cut_offs) < 1:
        raise GenrecError(
            f"k_values must be one or more whole numbers from 1 up, got {list(cut_offs)}; try [5, 10, 20]."
        )
    if denominator not in DENOMINATORS:
        raise GenrecError(f"denominator must be one of {', '.join(DENOMINATORS)}, got {denominator!r}.")
    return cut_offs


def _hits(recommended: Tensor, targets: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Where the list, cut or filled to ``width``, hits: (B, width) float64; and the number of distinct targets (B,)."""
    targets = targets.sort(dim=1).values
    is_target = targets != IGNORE
    is_target[:, 1:] &= targets[:, 1:] != targets[:, :-1]
    items = recommended[:, :width]
    items = torch.nn.functional.pad(items, (0, width - items.shape[1]), value=IGNORE)
    repeated = (items[:, :, None] == items[:, None, :]).tril(diagonal=-1).any(dim=2)
    is_hit = ((items[:, :, None] == targets[:, None, :]) & is_target[:, None, :]).any(dim=2)
    return (is_hit & ~repeated).double(), is_target.sum(dim=1)
