"""The few nouns every layer shares, and the only place where they are spelled.

Shape letters used throughout genrec: B batch, L history length (in items), T targets per user, C levels of a semantic
ID, K codes per level, D width, N items, U users, V vocabulary of tokens, k length of a recommendation list.

This module imports torch for type checking only, so that config checking and ``--help`` stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from genrec.data.ragged import Ragged
    from genrec.features import FeatureSpec
    from genrec.graph import TypedGraph
    from genrec.semantic_ids import SemanticIds

PAD_TOKEN = 0  # token ids 0 and 1 are reserved, so that code 0 of level 0 is never mistaken for padding
BOS_TOKEN = 1
NUM_SPECIAL_TOKENS = 2
IGNORE = -1  # "no item here": unscored target, unfilled place in a list
TRAIN, VAL, TEST = "train", "val", "test"


class GenrecError(ValueError):
    """A mistake of the user: the message says what was given, what is allowed and what to do next."""


class LostProcessError(GenrecError):
    """Another process that shared the work has died: nobody's mistake, and the work cannot be ended."""


class Task(StrEnum):
    """What a model is for; decides how it is evaluated."""

    RETRIEVAL = "retrieval"  # recommend(batch, k): items of a catalogue
    TOKENIZER = "tokenizer"  # loss(batch): how well item vectors are coded
    RANKING = "ranking"  # predict(batch): a probability or a value for each row and task


class _Batch:
    """Frozen dataclasses whose fields are tensors, or tuples of tensors, with a row for each sample."""

    def to(self, device: Any, non_blocking: bool = False) -> Self:
        """The batch on a device."""
        moved = {}
        for item in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, item.name)
            if hasattr(value, "to"):
                moved[item.name] = value.to(device, non_blocking=non_blocking)
            elif isinstance(value, tuple):
                moved[item.name] = tuple(part.to(device, non_blocking=non_blocking) for part in value)
        return replace(self, **moved)  # pyright: ignore[reportType, reportArgumentType, reportCallIssue, reportReturnType]

    def take(self, rows: slice) -> Self:
        """Some rows of the batch, with what a model has to know of the others."""
        taken = self._whole()
        for item in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, item.name)
            if item.name in taken:
                continue
            if isinstance(value, tuple):
                taken[item.name] = tuple(part[rows] for part in value)
            elif value is not None:
                taken[item.name] = value[rows]
        return replace(self, **taken)  # pyright: ignore[reportType, reportArgumentType, reportCallIssue, reportReturnType]

    def _whole(self) -> dict[str, Any]:
        """Fields of a part that tell of the whole batch."""
        return {}


@dataclass(frozen=True)
class SequenceBatch(_Batch):
    """Training rows of a sequence model: item histories and, at each position, the item that came next.

    ``users`` (B,), ``items`` (B, L) item indices 0..N-1 filled from the left, ``lengths`` (B,) valid positions per row,
    ``targets`` (B, L): the item following ``items[:, : t + 1]``, or ``IGNORE`` where position t is not scored.
    Sliding windows score the last valid position only; one-pass training scores every position once per epoch.
    ``whole``, of a batch that is part of a larger one, holds the scored targets (R,) of that and their users (R,).
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    targets: Tensor
    whole: tuple[Tensor, Tensor] | None = None

    def _whole(self) -> dict[str, Any]:
        scored = self.targets != IGNORE
        users = self.users.reshape(-1, *[1] * (scored.ndim - 1)).expand_as(scored)
        return {"whole": self.whole or (self.targets[scored], users[scored])}


@dataclass(frozen=True)
class PairBatch(_Batch):
    """Training edges of a graph with items that their users did not meet: ``users`` (B,), ``positives`` (B,) and
    ``negatives`` (B, n) item indices. ``whole``, of a batch that is part of a larger one, holds the positives (R,) of
    that and their users (R,)."""

    users: Tensor
    positives: Tensor
    negatives: Tensor
    whole: tuple[Tensor, Tensor] | None = None

    def _whole(self) -> dict[str, Any]:
        return {"whole": self.whole or (self.positives, self.users)}


@dataclass(frozen=True)
class HistoryBatch(_Batch):
    """What is known of some users when items are recommended to them.

    ``users`` (B,), ``items`` (B, L) the most recent items filled from the left, oldest first, ``lengths`` (B,);
    ``seen`` (B, S) items not to be recommended, filled with ``IGNORE``, or None where nothing is masked.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    seen: Tensor | None = None


@dataclass(frozen=True)
class ItemBatch(_Batch):
    """Items with their vectors: ``items`` (B,) indices, ``vectors`` (B, D) float32."""

    items: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class RowBatch(_Batch):
    """Rows of a table, their fields in the order of a ``genrec.features.FeatureSpec``.

    ``dense`` (B, F) float32; ``sparse`` (B, F) ids, int32 or int64; ``sequences`` holds (B, L) ids for each sequence
    field, filled from the left with ``IGNORE`` behind the last one; ``labels`` (B, T) float32, NaN where a label is not
    known; ``groups`` (B,) int64, whose AUC counts apart (users), or None. ``known`` (T,), of a batch that is part of a
    larger one, is the share of rows of that whose label is known.
    """

    dense: Tensor
    sparse: Tensor
    sequences: tuple[Tensor, ...]
    labels: Tensor
    groups: Tensor | None = None
    known: Tensor | None = None

    def _whole(self) -> dict[str, Any]:
        return {"known": (~self.labels.isnan()).float().mean(dim=0) if self.known is None else self.known}

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Losses:
    """What a model returns for a batch: ``total`` is differentiated, ``parts`` are logged.

    ``count`` is the number of samples (targets, items) that ``total`` averages over; epoch means are weighted by it.
    """

    total: Tensor
    count: int
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendations:
    """The best items for each row of a batch, best first.

    ``items`` (B, k) item indices, ``IGNORE`` where fewer than k could be found; ``scores`` (B, k), -inf there.
    """

    items: Tensor
    scores: Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a model may know of the data when it is built; nothing in it depends on held-out interactions.

    ``item_vectors`` is (N, D) float32; ``train`` holds the training items of each user, oldest first; ``graph`` ties
    users, items and what else is known by training edges only. Of a table there are neither users nor items but
    ``features``; ``training_rows`` gives all rows that are trained on, for models that fit them in one go.
    """

    num_users: int = 0
    num_items: int = 0
    semantic_ids: SemanticIds | None = None
    item_vectors: np.ndarray | None = None
    train: Ragged | None = None
    graph: TypedGraph | None = None
    features: FeatureSpec | None = None
    training_rows: Callable[[], RowBatch] | None = None


class Plan(Protocol):
    """The batches of one epoch as a sequence: ``plan[i]`` is a pure function of the data, the seed, the epoch and i."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


@runtime_checkable
class SharedPlan(Plan, Protocol):
    """A plan that can cut the rows of one process without those of the others: ``share(i, rank, size)`` is
    ``plan[i].take(slice(rank, None, size))``, or None where that has no rows."""

    def share(self, index: int, rank: int, size: int) -> Any | None: ...


class View(Protocol):
    """What a trainer consumes: the data in the form that a kind of model needs."""

    @property
    def fingerprint(self) -> str: ...
    def train_plan(self, model: Any, *, batch_size: int, seed: int, epoch: int) -> Plan: ...


@runtime_checkable
class RetrievalModel(Protocol):
    """A model that recommends items from a history."""

    view: str
    task: Task

    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations: ...


@runtime_checkable
class RankingModel(Protocol):
    """A model that predicts the labels of rows: ``predict`` gives (B,) probabilities or values by name of the task."""

    view: str
    task: Task

    def predict(self, batch: RowBatch) -> dict[str, Tensor]: ...


@dataclass
class RunContext:
    """Everything around a training run that is not its policy: where it writes, how it optimises, what it runs on.

    ``optimizer`` maps parameter groups to an optimizer; ``scheduler`` is a ``genrec.schedulers.Schedule`` or None;
    ``hardware`` a ``genrec.trainers.hardware.Hardware`` or None (automatic); ``loggers`` and ``callbacks`` are
    Lightning objects.
    ``resume`` continues from the last checkpoint in ``output_dir`` when there is one. ``watch`` is told the monitored
    metric after every epoch that measured it, ``watch(epoch, value)``; True means that training is not worth going on.
    ``interruption`` is a ``genrec.interruption.Interruption``: training writes a checkpoint before it gives way to it.
    ``keys`` begins the names of this training's settings in the config, such as ``tokenizer.`` of one within another.
    """

    output_dir: Path
    seed: int = 42
    optimizer: Callable[[Any], Any] | None = None
    scheduler: Any | None = None
    hardware: Any | None = None
    loggers: Sequence[Any] = ()
    callbacks: Sequence[Any] = ()
    resume: bool = False
    progress: bool = True
    watch: Callable[[int, float], bool] | None = None
    interruption: Any | None = None
    keys: str = ""

    def child(self, name: str, **changes: Any) -> RunContext:
        """The context of an upstream stage, which is a run of its own in a sub-folder."""
        return replace(self, output_dir=self.output_dir / name, **changes)


@dataclass
class FitResult:
    """What training did: ``history`` maps a metric's name to one value per epoch.

    ``best_epoch`` counts from 1; 0 means that no epoch was validated. ``pruned``: ``RunContext.watch`` ended it.
    ``diverged`` says in a sentence why training ended where the loss was no number any more.
    """

    history: dict[str, list[float]]
    best_epoch: int = 0
    best_value: float | None = None
    epochs: int = 0
    stopped_early: bool = False
    pruned: bool = False
    diverged: str | None = None
