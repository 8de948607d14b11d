"""An invented shop whose best reachable recall is known: no files, no download, readable titles."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

from genrec.contracts import TEST, VAL, GenrecError
from genrec.data.interactions import ITEM_ID, TEXT, TITLE, USER_ID, DataReport, InteractionLog, SourceData
from genrec.data.planted import PlantedProcess
from genrec.data.ragged import Ragged
from genrec.data.splits import SplitResult

CATEGORIES = (
    ("Outerwear", "Jacket"),
    ("Trousers", "Chinos"),
    ("Footwear", "Boots"),
    ("Bags", "Satchel"),
    ("Headwear", "Beanie"),
    ("Knitwear", "Cardigan"),
    ("Shirts", "Shirt"),
    ("Belts", "Belt"),
    ("Scarves", "Scarf"),
    ("Gloves", "Gloves"),
    ("Watches", "Watch"),
    ("Eyewear", "Sunglasses"),
)
BRANDS = (
    "Northfield", "Halden", "Corvina", "Marlowe", "Ostrava", "Tessaro", "Brightwater", "Kestrel", "Lindqvist", "Arroyo",
    "Penrose", "Valmont", "Sable & Finch", "Dunmore", "Ishikawa", "Wexley",
)  # fmt: skip
COLOURS = (
    "Crimson", "Navy", "Olive", "Ivory", "Charcoal", "Amber", "Teal", "Plum", "Sand", "Rust", "Forest", "Slate",
    "Coral", "Indigo", "Mustard", "Black",
)  # fmt: skip
MATERIALS = ("Linen", "Wool", "Cotton", "Leather", "Suede", "Canvas", "Denim", "Velvet", "Tweed", "Silk")
_START = 1_577_836_800  # 2020-01-01, Unix seconds
_DAY = 86_400


class SyntheticSource:
    """Draws customers of the invented shop; the same arguments give the same data on every machine.

    ``mean_length`` interactions per user on average, at least ``min_length``. ``popularity_exponent`` is the steepness
    of the Zipf law of item popularity.
    """

    def __init__(
        self,
        *,
        num_users: int = 2000,
        num_items: int = 600,
        num_categories: int = 12,
        num_brands: int = 10,
        mean_length: float = 12.0,
        min_length: int = 5,
        set_weight: float = 0.42,
        return_weight: float = 0.13,
        category_weight: float = 0.25,
        popularity_exponent: float = 0.6,
        seed: int = 42,
    ) -> None:
        _check_sizes(num_users, num_items, num_categories, num_brands, mean_length, min_length)
        if min(set_weight, return_weight, category_weight) < 0 or set_weight + return_weight + category_weight >= 1:
            raise GenrecError(
                "set_weight, return_weight and category_weight are shares, and must leave something for the rest of "
                f"the shop (sum below 1); got {set_weight}, {return_weight}, {category_weight}."
            )
        self.num_users = num_users
        self.num_items = num_items
        self.num_categories = num_categories
        self.num_brands = num_brands
        self.mean_length = mean_length
        self.min_length = min_length
        self.set_weight = set_weight
        self.return_weight = return_weight
        self.category_weight = category_weight
        self.popularity_exponent = popularity_exponent
        self.seed = seed

    @property
    def name(self) -> str:
        return "synthetic"

    @cached_property
    def process(self) -> PlantedProcess:
        """The process behind the data, drawn from the seed."""
        generator = np.random.default_rng([self.seed, 0])
        slots = generator.permutation(self.num_items)  # so that an item's index says nothing of its place in the shop
        ranks = generator.permutation(self.num_items) + 1.0
        weights = ranks**-self.popularity_exponent
        chain = generator.permutation(self.num_categories)  # one cycle through all categories
        next_category = np.empty(self.num_categories, dtype=np.int64)
        next_category[chain] = np.roll(chain, -1)
        return PlantedProcess(
            category=slots % self.num_categories,
            brand=slots // self.num_categories % self.num_brands,
            popularity=weights / weights.sum(),
            next_category=next_category,
            set_weight=self.set_weight,
            return_weight=self.return_weight,
            category_weight=self.category_weight,
        )

    def load(self) -> SourceData:
        """Draws the interactions and the item table."""
        sequences = self._draw_sequences()
        generator = np.random.default_rng([self.seed, 2])
        gaps = generator.exponential(9 * _DAY, size=len(sequences.values)).astype(np.int64) + 1
        users = sequences.row_of_value
        first = generator.integers(0, 300 * _DAY, size=self.num_users)[users]
        total = np.cumsum(gaps)
        since_first = total - total[sequences.offsets[users]]
        log = InteractionLog(
            users=users,
            items=sequences.values,
            user_ids=np.arange(1, self.num_users + 1),
            item_ids=np.arange(1, self.num_items + 1),
            timestamps=_START + first + since_first,
            item_table=self._item_table(),
            user_table=pl.DataFrame({USER_ID: np.arange(1, self.num_users + 1)}),
        )
        counts = {"users": log.num_users, "items": log.num_items, "interactions": len(log)}
        return SourceData(log, DataReport(counts, ["Invented data: the best reachable recall is known."]))

    def ceiling(
        self, log: InteractionLog, split: SplitResult, k_values: tuple[int, ...] = (1, 5, 10, 20)
    ) -> dict[str, float]:
        """The expected Recall@k of the best possible ranking: mean over users of the k largest true probabilities.

        Known where a part holds one target per user that directly follows its history (leave-one-out); else left out.
        """
        del log
        found = {}
        for part, targets, history in (
            (VAL, split.val, split.train),
            (TEST, split.test, _joined(split.train, split.val)),
        ):
            users = np.flatnonzero(targets.lengths)
            if targets.lengths.max(initial=0) != 1 or not split.contiguous:
                continue
            best = np.concatenate([self._best(history.take(rows), max(k_values)) for rows in _chunks(users)])
            found.update({f"{part}/recall@{k}": float(best[:, :k].sum(axis=1).mean()) for k in k_values})
        return found

    def _best(self, histories: Ragged, count: int) -> np.ndarray:
        """(rows, count) the largest true probabilities, descending."""
        return -np.sort(-self.process.of_histories(histories), axis=1)[:, :count]

    def _draw_sequences(self) -> Ragged:
        generator = np.random.default_rng([self.seed, 1])
        extra = generator.poisson(max(self.mean_length - self.min_length, 0.0), size=self.num_users)
        lengths = np.minimum(self.min_length + extra, self.num_items)
        uniform = generator.random((self.num_users, int(lengths.max())))
        drawn = np.concatenate([self._walk(uniform[rows]) for rows in _chunks(np.arange(self.num_users))])
        return Ragged.from_lengths(drawn[np.arange(drawn.shape[1]) < lengths[:, None]], lengths)

    def _walk(self, uniform: np.ndarray) -> np.ndarray:
        """(B, L) items drawn step by step, one uniform number each."""
        items = np.full((len(uniform), uniform.shape[1] + 2), -1, dtype=np.int64)  # two columns of "no item" in front
        seen = np.zeros((len(uniform), self.num_items), dtype=bool)
        for step in range(uniform.shape[1]):
            chances = self.process.probabilities(items[:, step + 1], items[:, step], seen)
            reached = np.cumsum(chances, axis=1)
            draw = (reached < uniform[:, step : step + 1] * reached[:, -1:]).sum(axis=1)
            items[:, step + 2] = draw
            seen[np.arange(len(draw)), draw] = True
        return items[:, 2:]

    def _item_table(self) -> pl.DataFrame:
        generator = np.random.default_rng([self.seed, 3])
        category, brand = self.process.category, self.process.brand
        looks = np.array([f"{colour} {material}" for colour in COLOURS for material in MATERIALS])
        begin = generator.integers(len(looks), size=(self.num_categories, self.num_brands))
        count_in_cell = np.zeros_like(begin)
        rows = []
        for item, cell in enumerate(zip(category.tolist(), brand.tolist(), strict=True)):
            nth = int(count_in_cell[cell])
            count_in_cell[cell] += 1
            look = looks[(begin[cell] + 37 * nth) % len(looks)]  # 37 has no factor in common with 160
            rows.append((item + 1, *_describe(cell, str(look), nth // len(looks))))
        return pl.DataFrame(rows, schema=[ITEM_ID, TITLE, "brand", "category", TEXT], orient="row")


def _describe(cell: tuple[int, int], look: str, repeat: int) -> tuple[str, str, str, str]:
    """Title, brand, category and text of an item; ``repeat`` counts items of equal look."""
    department, noun = CATEGORIES[cell[0] % len(CATEGORIES)]
    series = "" if cell[0] < len(CATEGORIES) else f" {cell[0] // len(CATEGORIES) + 1}"
    maker = BRANDS[cell[1] % len(BRANDS)] + ("" if cell[1] < len(BRANDS) else f" {cell[1] // len(BRANDS) + 1}")
    title = f"{look} {noun}{series} by {maker}" + (f", No. {repeat + 1}" if repeat else "")
    return title, maker, department + series, f"{title}. {maker}. Clothing > {department}{series}"


def _check_sizes(
    num_users: int, num_items: int, num_categories: int, num_brands: int, mean_length: float, min_length: int
) -> None:
    if num_users < 1 or num_brands < 1 or num_categories < 1 or min_length < 1:
        raise GenrecError("num_users, num_brands, num_categories and min_length must be at least 1.")
    if num_items < num_categories:
        raise GenrecError(f"num_items={num_items} must be at least num_categories={num_categories}.")
    if mean_length < min_length:
        raise GenrecError(f"mean_length={mean_length} must not be below min_length={min_length}.")


def _joined(train: Ragged, val: Ragged) -> Ragged:
    order = np.argsort(np.concatenate([train.row_of_value, val.row_of_value]), kind="stable")
    return Ragged.from_lengths(np.concatenate([train.values, val.values])[order], train.lengths + val.lengths)


def _chunks(rows: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]
