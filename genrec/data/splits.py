"""What is trained on, validated on and tested on: each interaction of a log belongs to exactly one part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from genrec.contracts import TEST, TRAIN, VAL, GenrecError
from genrec.data.interactions import InteractionLog
from genrec.data.ragged import Ragged

if TYPE_CHECKING:
    from genrec.data.row_splits import SplitTable

logger = logging.getLogger("genrec.data")

PARTS = (TRAIN, VAL, TEST)
_TRAIN, _VAL, _TEST = 0, 1, 2
_SMALLEST_SPLIT_USER = 3


@dataclass(frozen=True)
class SplitResult:
    """One row per user in each part, items in time order.

    ``time_ranges`` maps a part to its first and last timestamp (empty when the log has none), ``train_only_users``
    counts the users too short to be held out from. ``train_rows`` are the rows of the log that ``train`` holds, in the
    same order. ``contiguous`` says that every user's rows, train then val then
    test, are in time order without a gap or overlap.
    """

    train: Ragged
    val: Ragged
    test: Ragged
    time_ranges: dict[str, tuple[float, float]]
    train_rows: np.ndarray
    train_only_users: int = 0
    contiguous: bool = True

    @property
    def users_without_history(self) -> dict[str, int]:
        """Users whose held-out items are all that is known of them, by part: evaluation leaves them out."""
        before = {VAL: self.train.lengths, TEST: self.train.lengths + self.val.lengths}
        held_out = {VAL: self.val.lengths, TEST: self.test.lengths}
        return {part: int(((held_out[part] > 0) & (before[part] == 0)).sum()) for part in before}

    def describe(self) -> list[str]:
        """One line per part, and what is special."""
        lines = []
        size = 1 + max(_largest(part) for part in (self.train, self.val, self.test))
        trained = self.train.counts(size) > 0
        for name, part in zip(PARTS, (self.train, self.val, self.test), strict=True):
            line = f"{name}: {len(part.values):,} interactions of {int((part.lengths > 0).sum()):,} users"
            cold = int(((part.counts(size) > 0) & ~trained).sum())
            lines.append(line + (f", {cold:,} items never trained on" if cold else ""))
        for name, count in self.users_without_history.items():
            if count:
                lines.append(f"{name}: {count:,} users have nothing before it, so nobody can be asked about them")
        if self.train_only_users:
            lines.append(f"too few interactions to hold any out, so trained on only: {self.train_only_users:,} users")
        return lines


# The part of each interaction of some users, all of theirs: 0 train, 1 val, 2 test. Takes their users (M,), sorted, and
# timestamps (M,) or None.
Divider = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


class Split(Protocol):
    """Divides a log into train, val and test.

    ``divider`` is given all timestamps of a log and divides any run of its users, one after the other; ``reason`` says
    why nothing may be left for a part, given the first and last time of each; ``wanted`` are the parts that may not be
    empty besides train.
    """

    def reason(self, time_ranges: Mapping[str, tuple[float, float]]) -> str: ...
    @property
    def wanted(self) -> tuple[int, ...]: ...
    def divider(self, timestamps: np.ndarray | None) -> Divider: ...
    def split(self, log: InteractionLog) -> SplitResult: ...


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Trains on all but a user's last two items, validates on the last but one, tests on the last.

    Users with fewer than three interactions are trained on only.
    """

    wanted = (_VAL, _TEST)

    def reason(self, time_ranges: Mapping[str, tuple[float, float]]) -> str:
        return "Leave-one-out needs users with at least three interactions"

    def divider(self, timestamps: np.ndarray | None) -> Divider:
        return self._parts

    def split(self, log: InteractionLog) -> SplitResult:
        return _split(self, log)

    @staticmethod
    def _parts(users: np.ndarray, timestamps: np.ndarray | None) -> np.ndarray:
        counts, from_end = _places(users)
        long_enough = counts >= _SMALLEST_SPLIT_USER
        return np.where(long_enough & (from_end == 1), _TEST, np.where(long_enough & (from_end == 2), _VAL, _TRAIN))


@dataclass(frozen=True, kw_only=True)
class RatioPerUser:
    """Holds out a share of every user's interactions: the latest ones (``order="time"``) or random ones.

    A share is rounded to the nearest count, and each user keeps at least one training interaction; users with fewer
    than three interactions are trained on only. ``order="random"`` leaks the future into training: histories are in
    time order within each part, those of validation after those of training, but hold items later than the target.
    """

    train_ratio: float = 0.7
    val_ratio: float = 0.15
    test_ratio: float = 0.15
    order: str = "time"
    seed: int = 42

    def __post_init__(self) -> None:
        ratios = (self.train_ratio, self.val_ratio, self.test_ratio)
        if self.train_ratio <= 0 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
            raise GenrecError(
                f"train_ratio, val_ratio and test_ratio must be shares that add up to 1 (train above 0); got {ratios}."
            )
        if self.order not in ("time", "random"):
            raise GenrecError(f"order must be time or random, got {self.order!r}.")

    def reason(self, time_ranges: Mapping[str, tuple[float, float]]) -> str:
        return "The ratios leave nothing of any user to hold out"

    @property
    def wanted(self) -> tuple[int, ...]:
        return tuple(part for part, ratio in ((_VAL, self.val_ratio), (_TEST, self.test_ratio)) if ratio > 0)

    def divider(self, timestamps: np.ndarray | None) -> Divider:
        generator = np.random.default_rng([self.seed, 3])
        return lambda users, _: self._parts(users, generator)

    def split(self, log: InteractionLog) -> SplitResult:
        return _split(self, log)

    def _parts(self, users: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        counts, from_end = _places(users)
        num_test = np.floor(counts * self.test_ratio + 0.5).astype(np.int64)
        num_val = np.floor(counts * self.val_ratio + 0.5).astype(np.int64)
        num_test = np.where(counts < _SMALLEST_SPLIT_USER, 0, np.minimum(num_test, counts - 1))
        num_val = np.where(counts < _SMALLEST_SPLIT_USER, 0, np.minimum(num_val, counts - 1 - num_test))
        if self.order == "random":
            draw = generator.random(len(users))
            shuffled = np.lexsort((draw, users))  # rows of a user stay together, in random order
            from_end[shuffled] = from_end.copy()
        return np.where(from_end <= num_test, _TEST, np.where(from_end <= num_test + num_val, _VAL, _TRAIN))


@dataclass(frozen=True, kw_only=True)
class GlobalTime:
    """Trains on everything before ``val_from``, validates on what comes before ``test_from``, tests on the rest.

    Both are timestamps in the unit of the data, or, when below 1, shares of the interactions that come earlier.
    Interactions at one timestamp never fall into different parts. Rows of a table are divided alike.
    """

    val_from: float = 0.8
    test_from: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.val_from < self.test_from:
            raise GenrecError(f"0 < val_from < test_from is needed, got {self.val_from} and {self.test_from}.")
        if self.val_from < 1 <= self.test_from:
            raise GenrecError(
                f"val_from={self.val_from} is a share but test_from={self.test_from} a timestamp; give two of one kind."
            )

    wanted = (_VAL, _TEST)

    def reason(self, time_ranges: Mapping[str, tuple[float, float]]) -> str:
        times = [time for ends in time_ranges.values() for time in ends]
        return f"val_from={self.val_from} and test_from={self.test_from}; time is {min(times)} to {max(times)}"

    def divider(self, timestamps: np.ndarray | None) -> Divider:
        if timestamps is None:
            raise GenrecError(
                "A split by global time needs timestamps, and these data have none. "
                "Use split=leave_one_out or split=ratio_per_user."
            )
        bounds = self.boundaries(timestamps)
        return lambda _, times: _from_bounds(times, bounds)

    def split(self, log: InteractionLog) -> SplitResult:
        return _split(self, log)

    def row_parts(self, table: SplitTable) -> np.ndarray:
        """The part of every row of a table, by its column of times: 0 train, 1 val, 2 test."""
        times = table.timestamps()
        return _from_bounds(times, self.boundaries(times)).astype(np.uint8)

    def boundaries(self, timestamps: np.ndarray) -> tuple[float, float]:
        """The first timestamps of validation and of test."""
        if self.test_from >= 1:
            return self.val_from, self.test_from
        val_from, test_from = np.quantile(timestamps, [self.val_from, self.test_from], method="higher")
        return val_from.item(), test_from.item()


def _from_bounds(timestamps: np.ndarray | None, bounds: tuple[float, float]) -> np.ndarray:
    assert timestamps is not None
    return (timestamps >= bounds[0]).astype(np.int64) + (timestamps >= bounds[1])


def _places(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each interaction of ``users`` (M,), sorted: how many its user has, and its place from the end, 1 the last."""
    local = users.astype(np.int64) - (int(users[0]) if len(users) else 0)
    counts = np.bincount(local)
    return counts[local], np.cumsum(counts)[local] - np.arange(len(users))


def _largest(part: Ragged) -> int:
    return int(part.values.max(initial=-1))


def _split(split: Split, log: InteractionLog) -> SplitResult:
    parts = split.divider(log.timestamps)(log.users, log.timestamps)
    masks = [parts == part for part in (_TRAIN, _VAL, _TEST)]
    rows = [
        Ragged.from_lengths(log.items[mask], np.bincount(log.users[mask], minlength=log.num_users)) for mask in masks
    ]
    ranges = {}
    if log.timestamps is not None:
        for name, mask in zip(PARTS, masks, strict=True):
            if mask.any():
                ranges[name] = (log.timestamps[mask].min().item(), log.timestamps[mask].max().item())
    held_out = rows[_VAL].lengths + rows[_TEST].lengths
    ordered = not ((np.diff(parts) < 0) & (np.diff(log.users) == 0)).any()
    train_only = int((held_out == 0).sum())
    result = SplitResult(
        *(rows[0], rows[1], rows[2]),
        ranges,
        np.flatnonzero(masks[_TRAIN]),
        train_only_users=train_only,
        contiguous=bool(ordered),
    )
    check_result(split, result)
    return result


def check_result(split: Split, result: SplitResult) -> None:
    """Raises ``GenrecError`` where a split leaves nothing to train on, to hold out, or to recommend from."""
    parts = (result.train, result.val, result.test)
    reason = split.reason(result.time_ranges)
    for part in (_TRAIN, *split.wanted):
        if not len(parts[part].values):
            count = sum(len(ragged.values) for ragged in parts)
            raise GenrecError(
                f"The split leaves no {PARTS[part]} interactions among {count:,} of {len(result.train):,} users. "
                f"{reason}. Use more data or another split."
            )
    for part, count in result.users_without_history.items():
        if 0 < count == int((parts[PARTS.index(part)].lengths > 0).sum()):
            raise GenrecError(
                f"None of the {count:,} users with {part} interactions has any before them, so there is no history to "
                f"recommend from. {reason}. Use other boundaries or another split."
            )
