"""What accuracy does not tell of lists: how much of the catalogue they show, how popular and how alike their items are.

B users, k length of the list, N items, U users in all, D width, n(i) the training interactions of item i, L_u the first
k places of the list of user u, H_u the user's history. IGNORE counts nowhere; a list is taken to hold an item once.

Over all lists together:

    coverage@k         distinct items in any list / N: catalogue coverage (Herlocker et al., 2004; Ge et al., 2010)
    gini@k             Gini coefficient of how often each of the N items is recommended: see ``gini``

Per user, then the mean over users with a list:

    novelty@k          mean over L_u of -log2 p(i), in bits, with p(i) = n(i) / sum_j n(j): mean self-information (Zhou
                       et al., 2010; p(i) as in Vargas and Castells, 2011). Zhou et al. divide n(i) by the number of
                       users instead, which adds a constant. An item never trained on counts as if it had been once.
    arp@k              mean over L_u of n(i): average recommendation popularity (Yin et al., 2012)
    popularity_lift@k  (mean over L_u of n(i)) / (mean over H_u of n(i)) - 1, above 0 where recommendations are more
                       popular than what the user chose: popularity lift (Abdollahpouri et al., 2019 and 2020), which is
                       defined for a group of users; each user is a group here. Users whose whole history was never
                       trained on have none.
    diversity@k        mean over the pairs of L_u of 1 - cosine of the items' vectors: intra-list distance (Ziegler et
                       al., 2005; Vargas and Castells, 2011), for lists of two or more. It compares models only where
                       the vectors are the same; an item whose vector is all zeros is at distance 1 from any other.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import IGNORE, GenrecError
from genrec.metrics.diversity import cosine_distances, means_over_pairs

METRICS = ("coverage", "gini", "novelty", "arp", "popularity_lift", "diversity")


class BeyondAccuracy:
    """The metrics above, batch by batch, on the processor's own memory: O(N) of it per k and O(U) besides.

    ``popularity`` (N,) are the training interactions n(i) of each item, ``history_popularity`` (U,) their mean over the
    history of each user, and ``item_vectors`` (N, D) what diversity needs (None: it is left out).
    """

    def __init__(
        self,
        k_values: Iterable[int],
        popularity: np.ndarray,
        history_popularity: np.ndarray,
        item_vectors: np.ndarray | None = None,
    ) -> None:
        cut_offs = sorted({int(k) for k in k_values})
        if not cut_offs or cut_offs[0] < 1:
            raise GenrecError(f"k_values must be one or more whole numbers from 1 up, got {cut_offs}; try [5, 10, 20].")
        if item_vectors is not None and len(item_vectors) != len(popularity):
            raise GenrecError(f"{len(item_vectors)} item vectors were given for {len(popularity)} items.")
        self.k_values = tuple(cut_offs)
        self._cut_offs = torch.tensor(cut_offs)
        self._popularity = torch.as_tensor(popularity, dtype=torch.float64)
        share = self._popularity.clamp(min=1) / self._popularity.sum().clamp(min=1)
        self._self_information = -torch.log2(share)
        history = torch.as_tensor(history_popularity, dtype=torch.float64)
        self._history_popularity = history.masked_fill(history == 0, torch.nan)
        self._vectors = None if item_vectors is None else torch.as_tensor(item_vectors, dtype=torch.float32)
        # How often each item stands below one cut-off and not below the next smaller one.
        self._frequencies = torch.zeros(len(cut_offs), len(self._popularity), dtype=torch.int64)
        self._means = METRICS[2:] if self._vectors is not None else METRICS[2:-1]
        self._sums = torch.zeros(len(self._means), len(cut_offs), dtype=torch.float64)
        self._counts = torch.zeros(len(self._means), len(cut_offs), dtype=torch.int64)

    def update(self, recommended: Tensor, users: Tensor) -> None:
        """Adds a batch: ``recommended`` (B, any length) best first, filled with IGNORE, and ``users`` (B,)."""
        items = recommended[:, : self.k_values[-1]].cpu()
        there = items != IGNORE
        cut_off = torch.bucketize(torch.arange(1, items.shape[1] + 1), self._cut_offs)  # (k,) the first that it is in
        places = (cut_off * self._frequencies.shape[1] + items)[there]
        self._frequencies.view(-1).index_add_(0, places, torch.ones_like(places))

        last = self._cut_offs.clamp(max=items.shape[1]) - 1
        safe = items.clamp(min=0)
        lengths = there.cumsum(dim=1)[:, last]  # (B, cut-offs)

        def mean_over_list(values: Tensor) -> Tensor:
            return (values[safe] * there).cumsum(dim=1)[:, last] / lengths  # nan for an empty list

        popularity = mean_over_list(self._popularity)
        lift = popularity / self._history_popularity[users.cpu(), None] - 1
        columns = [mean_over_list(self._self_information), popularity, lift]
        if self._vectors is not None:
            shown, places = safe.unique(return_inverse=True)
            unit = torch.nn.functional.normalize(self._vectors[shown], dim=1)  # of all items it would be a copy
            columns.append(means_over_pairs(cosine_distances(unit, places), there)[:, last])
        values = torch.stack(columns)  # (metrics, B, cut-offs)
        self._sums += values.nansum(dim=1)
        self._counts += (~values.isnan()).sum(dim=1)

    @property
    def totals(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is known of the lists so far; those of accumulators with users of their own each may be summed."""
        return self._frequencies, self._sums, self._counts

    def replace(self, totals: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Takes the ``totals`` of several accumulators, each of users of its own, in place of its own."""
        frequencies, sums, counts = (torch.stack(parts).sum(dim=0) for parts in zip(*totals, strict=True))
        self._frequencies, self._sums, self._counts = frequencies, sums, counts

    def compute(self) -> dict[str, float]:
        """The metrics by name, such as "coverage@10"; left out are those that no list defines."""
        frequencies = self._frequencies.cumsum(dim=0)
        coverage = (frequencies > 0).double().mean(dim=1)
        table = {"coverage": coverage.tolist(), "gini": [gini(row) for row in frequencies]}
        table |= dict(zip(self._means, (self._sums / self._counts).tolist(), strict=True))
        named = {f"{name}@{k}": value for name in table for k, value in zip(self.k_values, table[name], strict=True)}
        return {name: value for name, value in named.items() if not np.isnan(value)}


def gini(frequencies: Tensor) -> float:
    """The Gini coefficient of ``frequencies`` (N,): 0 where all are equal, 1 - 1 / N where only one is not 0.

    Half the relative mean absolute difference, sum_i sum_j |x_i - x_j| / (2 N sum_i x_i) (Gini, 1912), which for x in
    ascending order is sum_i (2 i - N - 1) x_i / (N sum_i x_i), i = 1 .. N. Shani and Gunawardana (2011) divide by N - 1
    where this divides by N. nan where all are 0.
    """
    ordered, num_items = frequencies.sort().values, len(frequencies)
    weights = 2 * torch.arange(1, num_items + 1, device=ordered.device) - num_items - 1
    return float((weights * ordered).sum().double() / (num_items * ordered.sum()))
