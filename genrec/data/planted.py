"""A known process of what people take next, so that the best reachable recall can be computed.

Items belong to a category and a brand. The next item is drawn from a known mixture, given the history:
``set_weight``      the next category of the outfit chain, by the brand of the last item (a jacket, then its trousers)
``return_weight``   the same step from the last item but one (the customer returns to an earlier set)
``category_weight`` something popular from the category of the last item
the rest            something popular from the whole shop,
always without the items the customer has already, renormalised. The structure is directed: co-occurrence alone cannot
tell the next from the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genrec.data.ragged import Ragged


@dataclass(frozen=True)
class PlantedProcess:
    """The true conditional distribution of the next item.

    ``category`` and ``brand`` (N,) of every item, ``popularity`` (N,) sums to 1, ``next_category`` (categories,) the
    outfit chain; the weights as in the module's description.
    """

    category: np.ndarray
    brand: np.ndarray
    popularity: np.ndarray
    next_category: np.ndarray
    set_weight: float
    return_weight: float
    category_weight: float

    @property
    def num_items(self) -> int:
        return len(self.popularity)

    def probabilities(self, last: np.ndarray, before_last: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(B, N) probability of each item being next.

        ``last`` and ``before_last`` (B,) items, -1 for none; ``seen`` (B, N) bool.
        """
        shop = 1 - self.set_weight - self.return_weight - self.category_weight
        mixture = shop * self.popularity + self.set_weight * self._sets[self._cell[last]]
        mixture += self.return_weight * self._sets[self._cell[before_last]]
        mixture += self.category_weight * self._categories[np.append(self.category, -1)[last]]
        mixture[seen] = 0.0
        return mixture / mixture.sum(axis=1, keepdims=True)

    def of_histories(self, histories: Ragged) -> np.ndarray:
        """(rows, N) probability of each item being next, given the full history of each row."""
        lengths = histories.lengths
        padded = np.append(histories.values, [-1, -1])
        last = np.where(lengths > 0, padded[histories.offsets[1:] - 1], -1)
        before_last = np.where(lengths > 1, padded[histories.offsets[1:] - 2], -1)
        seen = np.zeros((len(histories), self.num_items), dtype=bool)
        seen[histories.row_of_value, histories.values] = True
        return self.probabilities(last, before_last, seen)

    @property
    def _num_brands(self) -> int:
        return int(self.brand.max()) + 1

    @cached_property
    def _cell(self) -> np.ndarray:
        """(N + 1,) the row of ``_sets`` of each item; the final entry, found by index -1, stands for no item."""
        return np.append(self.category * self._num_brands + self.brand, -1)

    @cached_property
    def _sets(self) -> np.ndarray:
        """(cells + 1, N) what completes the set that a category and brand begin; the final row is popularity."""
        category = np.repeat(self.next_category, self._num_brands)[:, None]
        brand = np.tile(np.arange(self._num_brands), len(self.next_category))[:, None]
        same_category = category == self.category
        cell = same_category & (brand == self.brand)
        return self._shares(
            np.where(cell.any(axis=1, keepdims=True), cell, same_category)
        )  # a brand may lack the category

    @cached_property
    def _categories(self) -> np.ndarray:
        return self._shares(np.arange(len(self.next_category))[:, None] == self.category)

    def _shares(self, members: np.ndarray) -> np.ndarray:
        weights = np.where(members, self.popularity, 0.0)
        return np.vstack([weights / weights.sum(axis=1, keepdims=True), self.popularity])
