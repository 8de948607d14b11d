"""Item sequences as flat arrays, and the batches cut from them by vectorised indexing.

A batch is a pure function of (data, seed, epoch, index), so a run can be resumed at any batch and reruns to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from genrec.artifacts import fingerprint
from genrec.contracts import IGNORE, VAL, GenrecError, HistoryBatch, SequenceBatch
from genrec.data.ragged import Joined, Ragged

WINDOWS, POSITIONS, USERS = "windows", "positions", "users"


class SequenceModel(Protocol):
    """What a sequence view must know of a model to cut its training rows."""

    max_history: int
    training_mode: str


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on: inputs are ``values[start : stop]``, the targets the values ``shift`` further.

    ``users``, ``starts``, ``stops`` and ``first_scored`` are (R,); positions before ``first_scored`` (relative to
    ``start``) are context only, because an earlier row scores them.
    """

    users: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    first_scored: np.ndarray
    shift: int = 1

    @property
    def lengths(self) -> np.ndarray:
        return self.stops - self.starts

    @property
    def num_targets(self) -> np.ndarray:
        return self.lengths - self.first_scored

    def scoring_from(self, places: np.ndarray) -> TrainingRows:
        """The rows that are left when only targets from place ``places`` (U,) of the values on are scored."""
        first_scored = np.maximum(self.first_scored, places[self.users] - self.shift - self.starts)
        kept = first_scored < self.lengths
        return TrainingRows(self.users[kept], self.starts[kept], self.stops[kept], first_scored[kept], self.shift)


def window_rows(sequences: Ragged, max_history: int) -> TrainingRows:
    """One row per target: the last ``max_history`` items before it, only the final position scored."""
    users = sequences.row_of_value
    index = np.arange(len(sequences.values))
    row_start = sequences.offsets[users]
    keep = index > row_start  # the first item of a user has no history
    stops = index[keep]
    starts = np.maximum(row_start[keep], stops - max_history)
    return TrainingRows(users[keep], starts, stops, stops - starts - 1)


def position_rows(sequences: Ragged, max_history: int) -> TrainingRows:
    """Rows that score every target exactly once, several per row.

    A row spans at most ``max_history`` inputs. Longer sequences are cut into overlapping rows that advance by half of
    it, so that each target still sees at least ``max_history // 2`` items of context, and none is scored twice.
    """
    step = max(max_history // 2, 1)
    inputs = np.maximum(sequences.lengths - 1, 0)  # the last item is a target only
    count = np.where(inputs == 0, 0, 1 + np.maximum(0, -(-(inputs - max_history) // step)))
    users = np.repeat(np.arange(len(sequences), dtype=np.int64), count)
    nth = np.arange(len(users)) - np.repeat(np.cumsum(count) - count, count)
    # The last row is aligned to the end of the sequence, so it is full; earlier rows advance by `step` from the start.
    begin = np.minimum(nth * step, np.maximum(inputs[users] - max_history, 0))
    end = np.minimum(begin + max_history, inputs[users])
    previous_end = np.where(nth == 0, 0, np.minimum((nth - 1) * step + max_history, inputs[users]))
    base = sequences.offsets[users]
    return TrainingRows(users, base + begin, base + end, np.maximum(previous_end - begin, 0))


def user_rows(sequences: Ragged, max_history: int) -> TrainingRows:
    """One row per user with any items: the last ``max_history``, which are input and target at once."""
    users = np.flatnonzero(sequences.lengths > 0)
    stops = sequences.offsets[1:][users]
    starts = np.maximum(sequences.offsets[:-1][users], stops - max_history)
    return TrainingRows(users, starts, stops, np.zeros_like(starts), shift=0)


class SequencePlan:
    """The batches of one epoch: rows of equal length together, about ``batch_size`` targets in each, order shuffled."""

    def __init__(self, sequences: Ragged, rows: TrainingRows, *, batch_size: int, seed: int, epoch: int) -> None:
        self.sequences = sequences
        self.rows = rows
        self.batches = shuffled_batches(rows, batch_size, np.random.default_rng([seed, epoch]))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> SequenceBatch:
        return cut_rows(self.sequences.values, self.rows, self.batches[index])

    def share(self, index: int, rank: int, size: int) -> SequenceBatch | None:
        """Every ``size``-th row of a batch, and of the others the targets alone."""
        return share_rows(self.sequences.values, self.rows, self.batches[index], rank, size)


def shuffled_batches(rows: TrainingRows, batch_size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """The rows of each batch: of equal length, with about ``batch_size`` targets; rows and batches in random order."""
    shuffled = generator.permutation(len(rows.users))
    lengths = rows.lengths[shuffled]
    order = shuffled[np.argsort(lengths, kind="stable")]
    cuts = _cut(rows.lengths[order], rows.num_targets[order], batch_size)
    batches = [order[begin:end] for begin, end in cuts]
    return [batches[i] for i in generator.permutation(len(batches))]


def cut_rows(values: np.ndarray, rows: TrainingRows, chosen: np.ndarray) -> SequenceBatch:
    """The ``chosen`` (B,) rows of ``values`` (M,) as a batch."""
    starts, lengths = rows.starts[chosen], rows.lengths[chosen]
    columns = np.arange(int(lengths.max()))
    inside = columns[None, :] < lengths[:, None]
    position = np.where(inside, starts[:, None] + columns[None, :], starts[:, None])
    scored = inside & (columns[None, :] >= rows.first_scored[chosen][:, None])
    targets = np.where(scored, values[np.minimum(position + rows.shift, len(values) - 1)], IGNORE)
    return SequenceBatch(
        users=torch.from_numpy(rows.users[chosen]),
        items=torch.from_numpy(np.where(inside, values[position], 0).astype(np.int64, copy=False)),
        lengths=torch.from_numpy(lengths),
        targets=torch.from_numpy(targets.astype(np.int64, copy=False)),
    )


def share_rows(
    values: np.ndarray, rows: TrainingRows, chosen: np.ndarray, rank: int, size: int
) -> SequenceBatch | None:
    """Every ``size``-th of the ``chosen`` (B,) rows as a batch, and of the others the targets alone; None where there
    is none."""
    own = chosen[rank::size]
    if not len(own):
        return None
    return replace(cut_rows(values, rows, own), whole=scored_targets(values, rows, chosen))


def scored_targets(values: np.ndarray, rows: TrainingRows, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets (R,) of the ``chosen`` (B,) rows, row after row, and the user (R,) of each."""
    counts = rows.num_targets[chosen]
    begin = rows.starts[chosen] + rows.first_scored[chosen] + rows.shift
    place = np.arange(counts.sum()) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
    users = np.repeat(rows.users[chosen], counts)
    return torch.from_numpy(values[place].astype(np.int64, copy=False)), torch.from_numpy(users)


@dataclass(frozen=True)
class PlansInTurn:
    """Several plans, one after the other."""

    plans: Sequence[SequencePlan]

    def __len__(self) -> int:
        return sum(map(len, self.plans))

    def __getitem__(self, index: int) -> SequenceBatch:
        plan, place = self._plan(index)
        return plan[place]

    def share(self, index: int, rank: int, size: int) -> SequenceBatch | None:
        """Every ``size``-th row of a batch."""
        plan, place = self._plan(index)
        return plan.share(place, rank, size)

    def _plan(self, index: int) -> tuple[SequencePlan, int]:
        for plan in self.plans:
            if index < len(plan):
                return plan, index
            index -= len(plan)
        raise IndexError(index)


def _cut(lengths: np.ndarray, targets: np.ndarray, batch_size: int) -> list[tuple[int, int]]:
    """Consecutive ranges of equal length whose targets sum to about ``batch_size`` (at least one row each)."""
    cuts: list[tuple[int, int]] = []
    edges = np.flatnonzero(np.diff(lengths)) + 1
    bounds = np.concatenate([[0], edges, [len(lengths)]]) if len(lengths) else np.zeros(1, dtype=np.int64)
    for begin, end in pairwise(bounds.tolist()):
        total = np.cumsum(targets[begin:end])
        group = (total - 1) // batch_size
        inner = np.flatnonzero(np.diff(group)) + 1
        points = [begin, *(begin + int(i) for i in inner), end]
        cuts.extend(pairwise(points))
    return cuts


@dataclass(frozen=True)
class EvaluationBatches:
    """Histories and held-out items of the users of one part, in batches of users sorted by history length."""

    history: Ragged
    targets: Ragged
    users: np.ndarray
    batch_size: int
    max_history: int
    filter_seen: bool

    def __len__(self) -> int:
        return -(-len(self.users) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[HistoryBatch, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        users = self.users[index * self.batch_size : (index + 1) * self.batch_size]
        full = self.history.take(users)
        targets = torch.from_numpy(self.targets.take(users).padded(IGNORE))
        return history_batch(users, full, max_history=self.max_history, filter_seen=self.filter_seen), targets

    def __iter__(self) -> Iterator[tuple[HistoryBatch, torch.Tensor]]:
        return (self[index] for index in range(len(self)))


def history_batch(users: np.ndarray, histories: Ragged, *, max_history: int, filter_seen: bool) -> HistoryBatch:
    """A batch of the given histories (one row per user): the last ``max_history`` items of each; ``seen`` holds all."""
    recent = histories.last(max_history)
    return HistoryBatch(
        users=torch.from_numpy(np.ascontiguousarray(users, dtype=np.int64)),
        items=torch.from_numpy(recent.padded(0)),
        lengths=torch.from_numpy(recent.lengths),
        seen=torch.from_numpy(histories.padded(IGNORE)) if filter_seen else None,
    )


class SequencesView:
    """Each user's items in time order, split into what is trained on and what is held out.

    ``train``, ``val`` and ``test`` have one row per user. The history of a validation target is the training row; that
    of a test target is the training row followed by the validation row.
    """

    def __init__(self, train: Ragged, val: Ragged, test: Ragged, num_items: int) -> None:
        if not len(train) == len(val) == len(test):
            raise ValueError("train, val and test need one row per user each")
        self.train, self.val, self.test = train, val, test
        self.num_items = num_items

    @property
    def num_users(self) -> int:
        return len(self.train)

    @cached_property
    def fingerprint(self) -> str:
        arrays = [array for part in (self.train, self.val, self.test) for array in (part.values, part.offsets)]
        return fingerprint("sequences", self.num_items, arrays)

    def history(self, part: str) -> Ragged:
        """What is known of each user before the targets of ``part`` ("val", "test", or "all" for after them)."""
        parts = {"val": [self.train], "test": [self.train, self.val], "all": [self.train, self.val, self.test]}[part]
        return parts[0] if len(parts) == 1 else Joined(parts)

    def cut(self, known: np.ndarray, later: np.ndarray) -> SequencesView:
        """Each user's first ``known`` (U,) training items to train on, those up to ``later`` (U,) to validate on."""
        nothing = np.zeros_like(known)
        parts = [self.train.between(begin, end) for begin, end in ((nothing, known), (known, later), (later, later))]
        return SequencesView(parts[0], parts[1], parts[2], self.num_items)

    def training_rows(self, model: SequenceModel) -> TrainingRows:
        if model.training_mode == WINDOWS:
            return window_rows(self.train, model.max_history)
        if model.training_mode == POSITIONS:
            return position_rows(self.train, model.max_history)
        if model.training_mode == USERS:
            return user_rows(self.train, model.max_history)
        modes = ", ".join(map(repr, (WINDOWS, POSITIONS, USERS)))
        raise ValueError(f"training_mode must be one of {modes}, got {model.training_mode!r}")

    def train_plan(self, model: Any, *, batch_size: int, seed: int, epoch: int) -> SequencePlan:
        """The shuffled batches of one epoch; ``batch_size`` counts targets (a row of several is never split)."""
        rows = self.training_rows(model)
        if not len(rows.users):
            raise GenrecError(
                "No user has two or more training items, so there is nothing to learn from. "
                "Use more data, or a split that leaves more for training (data.split)."
            )
        return SequencePlan(self.train, rows, batch_size=batch_size, seed=seed, epoch=epoch)

    def eval_batches(
        self,
        part: str,
        *,
        batch_size: int,
        max_history: int,
        filter_seen: bool = False,
        max_users: int | None = None,
        seed: int = 0,
    ) -> EvaluationBatches:
        """All users with a history and a target in ``part``; ``max_users`` takes a fixed sample of them by ``seed``."""
        targets = self.val if part == VAL else self.test
        history = self.history(part)
        users = np.flatnonzero((targets.lengths > 0) & (history.lengths > 0))
        if max_users is not None and max_users < len(users):
            users = np.sort(np.random.default_rng([seed, 7]).choice(users, max_users, replace=False))
        users = users[np.argsort(np.minimum(history.lengths[users], max_history), kind="stable")]
        return EvaluationBatches(history, targets, users, batch_size, max_history, filter_seen)
