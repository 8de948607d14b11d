"""What is trained on, validated on and tested on: each interaction of a log belongs to exactly one part."""

from __future__ import annotations

import logging
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
        trained = np.unique(self.train.values)
        for name, part in zip(PARTS, (self.train, self.val, self.test), strict=True):
            line = f"{name}: {len(part.values):,} interactions of {int((part.lengths > 0).sum()):,} users"
            cold = len(np.setdiff1d(part.values, trained))
            lines.append(line + (f", {cold:,} items never trained on" if cold else ""))
        for name, count in self.users_without_history.items():
            if count:
                lines.append(f"{name}: {count:,} users have nothing before it, so nobody can be asked about them")
        if self.train_only_users:
            lines.append(f"too few interactions to hold any out, so trained on only: {self.train_only_users:,} users")
        return lines


class Split(Protocol):
    """Divides a log into train, val and test."""

    def split(self, log: InteractionLog) -> SplitResult: ...


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Trains on all but a user's last two items, validates on the last but one, tests on the last.

    Users with fewer than three interactions are trained on only.
    """

    def split(self, log: InteractionLog) -> SplitResult:
        counts = np.bincount(log.users, minlength=log.num_users)
        from_end = np.cumsum(counts)[log.users] - np.arange(len(log))  # 1 for a user's last interaction
        long_enough = counts[log.users] >= _SMALLEST_SPLIT_USER
        parts = np.where(long_enough & (from_end == 1), _TEST, np.where(long_enough & (from_end == 2), _VAL, _TRAIN))
        return _result(log, parts, "Leave-one-out needs users with at least three interactions")


@dataclass(frozen=True, kw_only=True)
class RatioPerUser:
    """Holds out a share of every user's interactions: the latest ones (``order="time"``) or random ones.

    A share is rounded to the nearest count, and each user keeps at least one training interaction; users with fewer
    than three interactions are trained on only. ``order="random"`` leaks the future into training: histories of random
    splits are kept in time order, but hold items later than the target.
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

    def split(self, log: InteractionLog) -> SplitResult:
        counts = np.bincount(log.users, minlength=log.num_users)
        num_test = np.floor(counts * self.test_ratio + 0.5).astype(np.int64)
        num_val = np.floor(counts * self.val_ratio + 0.5).astype(np.int64)
        num_test = np.where(counts < _SMALLEST_SPLIT_USER, 0, np.minimum(num_test, counts - 1))
        num_val = np.where(counts < _SMALLEST_SPLIT_USER, 0, np.minimum(num_val, counts - 1 - num_test))
        from_end = np.cumsum(counts)[log.users] - np.arange(len(log))
        if self.order == "random":
            draw = np.random.default_rng([self.seed, 3]).random(len(log))
            shuffled = np.lexsort((draw, log.users))  # rows of a user stay together, in random order
            from_end[shuffled] = from_end.copy()
        held = num_test[log.users] + num_val[log.users]
        parts = np.where(from_end <= num_test[log.users], _TEST, np.where(from_end <= held, _VAL, _TRAIN))
        wanted = tuple(p for p, r in ((_VAL, self.val_ratio), (_TEST, self.test_ratio)) if r > 0)
        return _result(log, parts, "The ratios leave nothing of any user to hold out", wanted)


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

    def split(self, log: InteractionLog) -> SplitResult:
        if log.timestamps is None:
            raise GenrecError(
                "A split by global time needs timestamps, and these data have none. "
                "Use split=leave_one_out or split=ratio_per_user."
            )
        parts = self._parts(log.timestamps)
        first, last = log.timestamps.min(), log.timestamps.max()
        return _result(
            log, parts, f"val_from={self.val_from} and test_from={self.test_from}; time is {first} to {last}"
        )

    def row_parts(self, table: SplitTable) -> np.ndarray:
        """The part of every row of a table, by its column of times: 0 train, 1 val, 2 test."""
        return self._parts(table.timestamps()).astype(np.uint8)

    def _parts(self, timestamps: np.ndarray) -> np.ndarray:
        val_from, test_from = self.boundaries(timestamps)
        return (timestamps >= val_from).astype(np.int64) + (timestamps >= test_from)

    def boundaries(self, timestamps: np.ndarray) -> tuple[float, float]:
        """The first timestamps of validation and of test."""
        if self.test_from >= 1:
            return self.val_from, self.test_from
        val_from, test_from = np.quantile(timestamps, [self.val_from, self.test_from], method="higher")
        return val_from.item(), test_from.item()


def _result(
    log: InteractionLog, parts: np.ndarray, reason: str, wanted: tuple[int, ...] = (_VAL, _TEST)
) -> SplitResult:
    masks = [parts == part for part in (_TRAIN, _VAL, _TEST)]
    for part in (_TRAIN, *wanted):
        if not masks[part].any():
            raise GenrecError(
                f"The split leaves no {PARTS[part]} interactions among {len(log):,} of {log.num_users:,} users. "
                f"{reason}. Use more data or another split."
            )
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
    for part, count in result.users_without_history.items():
        if 0 < count == int((rows[PARTS.index(part)].lengths > 0).sum()):
            raise GenrecError(
                f"None of the {count:,} users with {part} interactions has any before them, so there is no history to "
                f"recommend from. {reason}. Use other boundaries or another split."
            )
    return result
