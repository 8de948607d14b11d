"""A generated catalogue of any size, in the canonical folder: what is next follows from what was met, and texts tell
which items belong together.

Items come in groups of ``GROUP`` neighbours, groups in categories. A user walks within a category: mostly to an item of
the group where it is, often on to the next group, seldom anywhere. Within a group the first items are met most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from genrec.data.interactions import DataReport, InteractionLog, SourceData
from genrec.data.storage import save_folder

GROUP, CATEGORY = 20, 2_000  # items
_STAY, _MOVE = 0.6, 0.3  # chances of the next item: in the group, in the group after it; else in the category
_CATEGORY_WORDS, _GROUP_WORDS, _OWN_WORDS = 1, 3, 3  # of a text
_VOCABULARY = 30_000
_PAUSE = 5_000  # users come one after the other, and each meets an item whenever so many more have come
_SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "xu", "za")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """``num_items`` items, and ``num_users`` users who met ``length`` items each."""

    num_items: int
    num_users: int
    length: int = 10
    seed: int = 0

    def write(self, folder: Path) -> None:
        """The canonical folder; what another size or seed left there is replaced."""
        rng = np.random.default_rng([self.seed, self.num_items, self.num_users])
        items = self._walks(rng)
        users = np.repeat(np.arange(self.num_users, dtype=np.int64), self.length)
        log = InteractionLog(
            users=users,
            items=items.reshape(-1),
            user_ids=np.arange(self.num_users, dtype=np.int64),
            item_ids=np.char.add("i", np.char.zfill(np.arange(self.num_items).astype(np.str_), 8)),
            timestamps=users + np.tile(_PAUSE * np.arange(self.length), self.num_users),
            item_table=self._items(rng),
        )
        counts = {"users": log.num_users, "items": log.num_items, "interactions": len(log)}
        save_folder(SourceData(log, DataReport(counts)), folder, name=folder.name)

    def _walks(self, rng: np.random.Generator) -> np.ndarray:
        """(U, length) items."""
        num_groups, per_category = -(-self.num_items // GROUP), CATEGORY // GROUP
        shape = (self.num_users, self.length)
        group = np.empty(shape, dtype=np.int64)
        group[:, 0] = rng.integers(num_groups, size=self.num_users)
        first = group[:, 0] // per_category * per_category
        count = np.minimum(per_category, num_groups - first)  # groups of the category
        for place in range(1, self.length):
            draw = rng.random(self.num_users)
            here = group[:, place - 1]
            onward = first + (here - first + 1) % count
            anywhere = first + rng.integers(count)
            group[:, place] = np.where(draw < _STAY, here, np.where(draw < _STAY + _MOVE, onward, anywhere))
        within = (GROUP * rng.random(shape) ** 2).astype(np.int64)  # the first of a group are met most
        return np.minimum(group * GROUP + within, self.num_items - 1)

    def _items(self, rng: np.random.Generator) -> pl.DataFrame:
        """A row per item: title, text of several words, category."""
        item = np.arange(self.num_items)
        category = item // CATEGORY
        columns = [
            *_drawn(rng, category, _CATEGORY_WORDS),
            *_drawn(rng, item // GROUP, _GROUP_WORDS),
            *_drawn(rng, item, _OWN_WORDS),
        ]
        words = pl.Series(_words(_VOCABULARY))
        texts = pl.DataFrame({f"word_{place}": words.gather(column) for place, column in enumerate(columns)})
        return texts.select(
            title=pl.concat_str(texts.columns[_CATEGORY_WORDS:-1], separator=" "),
            text=pl.concat_str(texts.columns, separator=" "),
            category=pl.Series([f"category {number}" for number in range(int(category[-1]) + 1)]).gather(category),
        )


def _drawn(rng: np.random.Generator, of: np.ndarray, count: int) -> list[np.ndarray]:
    """``count`` words (N,) for each item, the same for items ``of`` one number."""
    drawn = (_VOCABULARY * rng.random((count, int(of[-1]) + 1)) ** 2).astype(np.int64)  # some words are frequent
    return [numbers[of] for numbers in drawn]


def _words(count: int) -> list[str]:
    base = len(_SYLLABLES)
    return ["".join(_SYLLABLES[number // base**place % base] for place in range(4)) for number in range(count)]
