"""The fields of a table as models see them: what they are called, how large they are, what is to be predicted.

B rows of a batch, F fields, L places of a sequence, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNKNOWN = 0  # the id of every sparse field for values that training never saw, or that are missing

Pooling = Literal["mean", "sum", "attention"]
Compression = Literal["none", "quotient_remainder"]
Kind = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True)
class SparseField:
    """A field with one id per row, 0..size - 1, where 0 is ``UNKNOWN``.

    Fields of one ``table`` share vocabulary and vectors. ``compression`` "quotient_remainder" makes a vector of two,
    that of id // ``buckets`` times that of id % ``buckets`` (Shi et al., KDD 2020, arXiv 1909.02107).
    """

    name: str
    size: int
    table: str
    compression: Compression = "none"
    buckets: int = 0


@dataclass(frozen=True, kw_only=True)
class SequenceField:
    """A field with up to ``max_length`` ids per row, from the vocabulary of ``table``.

    ``pooling`` says how their vectors become one; "attention" weighs them by the vector of the sparse field ``target``.
    """

    name: str
    size: int
    table: str
    max_length: int
    pooling: Pooling = "mean"
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Something to predict. ``mean`` and ``std`` are those of the training labels.

    ``given`` names a task without which this one cannot happen (no conversion without a click): its conditional
    probability is judged on rows where that one did.
    """

    name: str
    kind: Kind = "classification"
    given: str | None = None
    mean: float = 0.5
    std: float = 0.5

    @property
    def conditional(self) -> str:
        """The name of the prediction of this task where ``given`` happened."""
        return f"{self.name}_given_{self.given}"


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Everything a model may know of a table: its fields in the order in which batches hold them, and its tasks."""

    dense: tuple[str, ...] = ()
    sparse: tuple[SparseField, ...] = ()
    sequences: tuple[SequenceField, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()

    @property
    def tables(self) -> dict[str, int]:
        """Number of ids by table."""
        return {field.table: field.size for field in (*self.sparse, *self.sequences)}

    def place_of(self, name: str) -> int:
        """The place of a sparse field in a batch."""
        return [field.name for field in self.sparse].index(name)
