"""Impressions of the invented shop whose true chances of a click and of a purchase are known: no files, no download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from genrec.annotations import Count, Natural, NotNegative, check_arguments
from genrec.contracts import IGNORE, GenrecError
from genrec.data.interactions import ITEM_ID, TIMESTAMP, USER_ID
from genrec.data.sources.synthetic import BRANDS, CATEGORIES
from genrec.features import TaskSpec
from genrec.metrics.binary import auc, log_loss
from genrec.metrics.regression import mse, r2, rmse

CATEGORY, BRAND, HOUR, DEVICE, AGE, PRICE, HISTORY = "category", "brand", "hour", "device", "age", "price", "history"
CLICK, BUY, SPEND = "click", "buy", "spend"
DEVICES = ("phone", "tablet", "desktop")
HISTORY_LENGTH = 20
_START = 1_577_836_800  # 2020-01-01, Unix seconds
_DAY, _HOUR = 86_400, 3_600
_NUM_DAYS = 90
_MEAN_PRICE = 30.0
_ENOUGH = 3  # more recent clicks of one category than this say no more
_EXTRA_PIECES = 0.4  # a purchase is of one piece and a Poisson number of further ones


@dataclass(frozen=True)
class Behaviour:
    """What people truly do when they are shown something.

    U users, N items, C categories, M brands, F factors. ``taste`` (U, F) and ``style`` (N, F): a user likes an item by
    their inner product, which has a variance near 1; ``activity`` (U,) and ``appeal`` (N,) add to the logit of a click,
    ``thrift`` (U,) takes away from that of a purchase and ``trust`` (M,) adds to it; ``category`` and ``brand`` (N,) of
    every item; ``peak`` (C,) the hour at which a category is clicked most. The weights say how much each matters.
    """

    taste: np.ndarray
    style: np.ndarray
    activity: np.ndarray
    appeal: np.ndarray
    thrift: np.ndarray
    trust: np.ndarray
    category: np.ndarray
    brand: np.ndarray
    peak: np.ndarray
    click_base: float
    buy_base: float
    taste_weight: float
    hour_weight: float
    price_weight: float
    history_weight: float

    def click_logits(self, shown: Impressions, rows: np.ndarray, history: np.ndarray) -> np.ndarray:
        """(B,) logits of a click on the impressions ``rows`` after ``history`` (B, L) clicked items or ``IGNORE``."""
        users, items = shown.users[rows], shown.items[rows]
        category = self.category[items]
        alike = (history != IGNORE) & (self.category[history] == category[:, None])
        momentum = np.minimum(alike.sum(axis=1), _ENOUGH) / _ENOUGH
        rhythm = np.cos(2 * np.pi * (shown.hours[rows] - self.peak[category]) / 24)
        return (
            self.click_base
            + self.activity[users]
            + self.appeal[items]
            + self.taste_weight * self._match(users, items)
            + self.hour_weight * rhythm
            - self.price_weight * shown.burden[rows]
            + self.history_weight * momentum
        )

    def buy_logits(self, shown: Impressions, rows: np.ndarray) -> np.ndarray:
        """(B,) logits of a purchase after a click: taste and price count again, at a desk more is bought."""
        users, items = shown.users[rows], shown.items[rows]
        return (
            self.buy_base
            - self.thrift[users]
            + self.trust[self.brand[items]]
            + 0.5 * self.taste_weight * self._match(users, items)
            - 2 * self.price_weight * shown.burden[rows]
            + 0.6 * (shown.devices[rows] - 1)
        )

    def _match(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return (self.taste[users] * self.style[items]).sum(axis=1)


@dataclass(frozen=True)
class Impressions:
    """Who was shown what, when, where and at what price: all that is known before anybody clicks, (M,) each.

    Sorted by user, then time; no user sees two things within one second.
    """

    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    devices: np.ndarray
    ages: np.ndarray
    prices: np.ndarray

    @cached_property
    def hours(self) -> np.ndarray:
        return self.timestamps % _DAY // _HOUR

    @cached_property
    def burden(self) -> np.ndarray:
        """How dear a price feels: the young mind it more than the old."""
        return np.log(self.prices / _MEAN_PRICE) * (80 - self.ages) / 40


@dataclass(frozen=True)
class Outcomes:
    """What came of every impression, and the truth behind it: M impressions, L = ``HISTORY_LENGTH``.

    ``clicks`` and ``buys`` (M,) bool, ``spend`` (M,); ``history`` (M, L) the items clicked before, oldest first,
    ``IGNORE`` behind them; ``click_chance`` and ``buy_chance`` (M,): the latter after a click.
    """

    clicks: np.ndarray
    buys: np.ndarray
    spend: np.ndarray
    history: np.ndarray
    click_chance: np.ndarray
    buy_chance: np.ndarray


class SyntheticClicksSource:
    """Draws impressions of the invented shop; the same arguments give the same data on every machine.

    Whether a user clicks depends on ``taste_weight`` times how well ``num_factors`` hidden tastes fit the item,
    ``hour_weight`` times how near the hour is to the peak of the item's category, ``history_weight`` times how much of
    that category the user clicked lately, less ``price_weight`` times how dear the item is. The first three are no sums
    of effects of single columns: a linear model cannot learn them. ``click_base`` and ``buy_base`` are the logits of a
    click, and of a purchase after one, where nothing else speaks for or against it.
    """

    def __init__(
        self,
        *,
        num_users: Count = 300,
        num_items: Count = 150,
        num_rows: Count = 60_000,
        num_categories: Count = 12,
        num_brands: Count = 10,
        num_factors: Count = 3,
        taste_weight: NotNegative = 1.5,
        hour_weight: NotNegative = 1.0,
        price_weight: NotNegative = 0.4,
        history_weight: NotNegative = 2.5,
        click_base: float = -2.5,
        buy_base: float = -1.4,
        seed: Natural = 42,
    ) -> None:
        check_arguments(SyntheticClicksSource.__init__, locals(), "data.source")
        if not num_categories <= num_items:
            raise GenrecError(
                f"data.source.num_categories={num_categories} must not be above num_items={num_items}: every category "
                "needs an item. Change one of the two."
            )
        if num_rows < num_users:
            raise GenrecError(
                f"data.source.num_rows={num_rows} must not be below num_users={num_users}: every user sees something. "
                "Change one of the two."
            )
        self.num_users = num_users
        self.num_items = num_items
        self.num_rows = num_rows
        self.num_categories = num_categories
        self.num_brands = num_brands
        self.num_factors = num_factors
        self.taste_weight = taste_weight
        self.hour_weight = hour_weight
        self.price_weight = price_weight
        self.history_weight = history_weight
        self.click_base = click_base
        self.buy_base = buy_base
        self.seed = seed

    @property
    def name(self) -> str:
        return "synthetic_clicks"

    @cached_property
    def behaviour(self) -> Behaviour:
        """The truth behind the data, drawn from the seed; items of a category or brand are alike in style."""
        generator = np.random.default_rng([self.seed, 0])
        normal = generator.normal
        slots = generator.permutation(self.num_items)  # so that an item's index says nothing of its place in the shop
        category, brand = slots % self.num_categories, slots // self.num_categories % self.num_brands
        shape = (self.num_items, self.num_factors)
        style = normal(size=(self.num_categories, shape[1]))[category] + normal(size=(self.num_brands, shape[1]))[brand]
        style = (style + normal(size=shape)) / np.sqrt(3 * self.num_factors)
        return Behaviour(
            taste=normal(size=(self.num_users, self.num_factors)),
            style=style,
            activity=normal(scale=0.4, size=self.num_users),
            appeal=normal(scale=0.4, size=self.num_items),
            thrift=normal(scale=0.5, size=self.num_users),
            trust=normal(scale=0.5, size=self.num_brands),
            category=category,
            brand=brand,
            peak=generator.permutation(self.num_categories) * 24 / self.num_categories,
            click_base=self.click_base,
            buy_base=self.buy_base,
            taste_weight=self.taste_weight,
            hour_weight=self.hour_weight,
            price_weight=self.price_weight,
            history_weight=self.history_weight,
        )

    @cached_property
    def impressions(self) -> Impressions:
        """What is shown does not depend on what is clicked: some users come more often, some items are shown more."""
        generator = np.random.default_rng([self.seed, 1])
        visits = generator.gamma(4.0, size=self.num_users)
        counts = 1 + generator.multinomial(self.num_rows - self.num_users, visits / visits.sum())
        users = np.repeat(np.arange(self.num_users), counts)
        shown = (generator.permutation(self.num_items) + 5.0) ** -0.7
        items = generator.choice(self.num_items, size=self.num_rows, p=shown / shown.sum())
        ages = np.clip(generator.normal(40, 14, size=self.num_users), 18, 80).astype(np.int64)
        habit = generator.dirichlet([3.0, 0.5, 1.5], size=self.num_users).cumsum(axis=1)  # of phone, tablet and desktop
        devices = (generator.random((self.num_rows, 1)) > habit[users, :2]).sum(axis=1)
        usual = generator.normal(scale=0.5, size=self.num_items)
        offer = generator.normal(scale=0.2, size=self.num_rows)  # the price of an item changes from day to day
        return Impressions(
            users=users,
            items=items,
            timestamps=self._draw_times(users, generator),
            devices=devices,
            ages=ages[users],
            prices=np.maximum(np.round(_MEAN_PRICE * np.exp(usual[items] + offer), 2), 0.01),
        )

    def _draw_times(self, users: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(M,) Unix seconds, rising within each user; most visits are between noon and midnight."""
        days = generator.integers(_NUM_DAYS, size=len(users))
        hours = generator.triangular(0, 20, 24, size=len(users))
        times = days * _DAY + (hours * _HOUR).astype(np.int64)
        times = times[np.lexsort((times, users))]
        nth = np.arange(len(users)) - np.searchsorted(users, users)
        apart = users * 2 * _NUM_DAYS * _DAY  # so that one running maximum serves all users
        return _START + np.maximum.accumulate(times - nth + apart) - apart + nth  # a second that is taken moves on

    @cached_property
    def outcomes(self) -> Outcomes:
        """Clicks and purchases, drawn visit by visit for all users at once: every click lengthens a history."""
        generator = np.random.default_rng([self.seed, 2])
        shown, truth = self.impressions, self.behaviour
        uniform = generator.random((2, self.num_rows))
        first = np.searchsorted(shown.users, np.arange(self.num_users))
        counts = np.bincount(shown.users, minlength=self.num_users)
        recent = np.full((self.num_users, HISTORY_LENGTH), IGNORE, dtype=np.int64)  # filled from the left
        history = np.empty((self.num_rows, HISTORY_LENGTH), dtype=np.int64)
        click_chance, clicks = np.empty(self.num_rows), np.zeros(self.num_rows, dtype=bool)
        for visit in range(int(counts.max())):
            users = np.flatnonzero(counts > visit)
            rows = first[users] + visit
            history[rows] = recent[users]
            click_chance[rows] = _sigmoid(truth.click_logits(shown, rows, recent[users]))
            clicks[rows] = uniform[0, rows] < click_chance[rows]
            _append(recent, users[clicks[rows]], shown.items[rows[clicks[rows]]])
        buy_chance = _sigmoid(truth.buy_logits(shown, np.arange(self.num_rows)))
        buys = clicks & (uniform[1] < buy_chance)
        pieces = 1 + generator.poisson(_EXTRA_PIECES, size=self.num_rows)
        spend = np.where(buys, np.round(shown.prices * pieces, 2), 0.0)
        return Outcomes(clicks, buys, spend, history, click_chance, buy_chance)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per impression, in order of time."""
        shown, found, truth = self.impressions, self.outcomes, self.behaviour
        categories = np.array([_numbered([name for name, _ in CATEGORIES], i) for i in range(self.num_categories)])
        brands = np.array([_numbered(BRANDS, i) for i in range(self.num_brands)])
        lengths = (found.history != IGNORE).sum(axis=1)
        history = pl.Series(HISTORY, found.history + 1).cast(pl.List(pl.Int64)).list.head(pl.lit(lengths))
        frame = pl.DataFrame(
            {
                USER_ID: shown.users + 1,
                ITEM_ID: shown.items + 1,
                CATEGORY: categories[truth.category[shown.items]],
                BRAND: brands[truth.brand[shown.items]],
                HOUR: shown.hours,
                DEVICE: np.array(DEVICES)[shown.devices],
                AGE: shown.ages,
                PRICE: shown.prices,
                HISTORY: history,
                TIMESTAMP: shown.timestamps,
                CLICK: found.clicks.astype(np.int64),
                BUY: found.buys.astype(np.int64),
                SPEND: found.spend,
            }
        )
        return frame[self._in_time]

    @cached_property
    def _in_time(self) -> np.ndarray:
        return np.argsort(self.impressions.timestamps, kind="stable")

    def chunks(self) -> Iterator[pl.DataFrame]:
        """The table in one piece."""
        yield self.frame

    def ceiling(self, parts: Mapping[str, np.ndarray], tasks: Sequence[TaskSpec]) -> dict[str, float]:
        """The metrics of the true chances on the very rows of each part: no prediction has better ones in expectation.

        ``parts`` are numbers of rows, ``tasks`` named like their columns; others have no ceiling. Names are those of a
        run: "test/auc" of a single task, "test/click/auc" of several and "test/auc" their mean,
        "test/buy_given_click/auc" of a purchase where the impression was clicked. A value is no expectation but that
        of one draw, so a model as good as the truth may exceed it by chance.
        """
        ceiling: dict[str, float] = {}
        truths = self._truths(tasks)
        for part, rows in parts.items():
            found = {name: _values(*truth, rows) for name, truth in truths.items()}
            if len(tasks) == 1:
                ceiling.update({f"{part}/{key}": value for values in found.values() for key, value in values.items()})
                continue
            ceiling.update({f"{part}/{name}/{key}": value for name, row in found.items() for key, value in row.items()})
            areas = [found.get(task.name, {}).get("auc") for task in tasks if task.kind == "classification"]
            known = [area for area in areas if area is not None]
            if known and len(known) == len(areas):
                ceiling[f"{part}/auc"] = float(np.mean(known))
        return ceiling

    def _truths(self, tasks: Sequence[TaskSpec]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By name of a prediction what is expected, what happened, and which rows count, (M,) each in order of time."""
        found, order = self.outcomes, self._in_time
        spends = self.impressions.prices * (1 + _EXTRA_PIECES)
        both = found.click_chance * found.buy_chance
        expected = {
            (CLICK, None): found.click_chance,
            (BUY, None): both,
            (BUY, CLICK): found.buy_chance,
            (SPEND, None): both * spends,
            (SPEND, CLICK): found.buy_chance * spends,
            (SPEND, BUY): spends,
        }
        happened = {CLICK: found.clicks, BUY: found.buys, SPEND: found.spend}
        everywhere = np.ones(self.num_rows, dtype=bool)
        names = [task.name for task in tasks]
        truths = {}
        for task in tasks:
            if (task.kind == "regression") != (task.name == SPEND):
                continue
            for given in dict.fromkeys([None, task.given if task.given in names else None]):
                if (task.name, given) in expected:
                    counted = everywhere if given is None else happened[given]
                    truth = (expected[task.name, given], happened[task.name], counted)
                    truths[task.name if given is None else task.conditional] = tuple(values[order] for values in truth)
        return truths


def _values(expected: np.ndarray, happened: np.ndarray, counted: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Metrics of a probability, where what happened is yes or no, else of a value, on those of the rows that count."""
    rows = rows[counted[rows]]
    expected, happened = expected[rows], happened[rows]
    values: dict[str, float | None]
    if happened.dtype == bool:
        values = {"auc": auc(expected, happened), "log_loss": log_loss(expected, happened)}
    else:
        values = {"mse": mse(expected, happened), "rmse": rmse(expected, happened), "r2": r2(expected, happened)}
    return {name: value for name, value in values.items() if value is not None}


def _append(recent: np.ndarray, users: np.ndarray, items: np.ndarray) -> None:
    """Adds an item to each history (one row of ``recent`` each), which forgets its oldest where it is full."""
    full = users[recent[users, -1] != IGNORE]
    recent[full, :-1] = recent[full, 1:]
    recent[full, -1] = IGNORE
    recent[users, (recent[users] != IGNORE).sum(axis=1)] = items


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _numbered(names: Sequence[str], index: int) -> str:
    """The name of this index; where names run out they begin again with a number."""
    turn, place = divmod(index, len(names))
    return names[place] + (f" {turn + 1}" if turn else "")
