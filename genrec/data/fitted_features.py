"""Features fitted to training rows: what turns a frame of raw columns into rows, then and later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.annotations import check_fields
from genrec.artifacts import read_json, write_text
from genrec.contracts import GenrecError
from genrec.data.columns import (
    DenseOptions,
    Options,
    SequenceOptions,
    SparseOptions,
    as_ids,
    as_lists,
    as_numbers,
    check_columns,
    target_of,
)
from genrec.data.hashing import hashes
from genrec.data.labels import Label, label_values, shown_values
from genrec.data.numbers import Moments, Sample, Scaling, ScalingFit
from genrec.data.rows import Lists, Rows
from genrec.data.tables import in_brief
from genrec.data.vocabulary import Counts, HashBuckets, QuantileBuckets, Vocabulary, from_state
from genrec.features import FeatureSpec, SequenceField, SparseField, TaskSpec

FORMAT_VERSION = 1
Ids = Vocabulary | HashBuckets | QuantileBuckets


@dataclass(frozen=True)
class DenseColumn:
    """A dense field of column ``name``, followed by ``<name>_missing`` where ``indicator``."""

    name: str
    scaling: Scaling
    indicator: bool = False

    @property
    def fields(self) -> list[str]:
        return [self.name, f"{self.name}_missing"] if self.indicator else [self.name]


@dataclass(frozen=True)
class FittedFeatures:
    """The fields of a table with what training rows said of them; ``ids`` by name of the table of vectors.

    ``separators`` are those of the sequence fields; ``labels`` and ``tasks`` belong together; ``group`` is a column.
    """

    dense: tuple[DenseColumn, ...]
    sparse: tuple[SparseField, ...]
    sequences: tuple[SequenceField, ...]
    separators: tuple[str | None, ...]
    ids: Mapping[str, Ids]
    labels: tuple[Label, ...]
    tasks: tuple[TaskSpec, ...]
    group: str | None = None

    @cached_property
    def spec(self) -> FeatureSpec:
        """What models may know."""
        dense = tuple(name for column in self.dense for name in column.fields)
        return FeatureSpec(dense=dense, sparse=self.sparse, sequences=self.sequences, tasks=self.tasks)

    @property
    def columns(self) -> list[str]:
        """The columns that ``transform`` needs."""
        return [item.name for item in (*self.dense, *self.sparse, *self.sequences)]

    @property
    def constant(self) -> list[str]:
        """Fields in which training saw one value at most."""
        known = [field.name for field in self.sparse if self.ids[field.table].size <= 2]
        return [column.name for column in self.dense if column.scaling.constant] + known

    def transform(self, frame: pl.DataFrame, first_row: int = 0) -> Rows:
        """The rows of a frame of raw columns; labels are NaN, and groups None, where the frame has no such column.
        ``first_row`` is the number of the frame's first row in its table."""
        check_columns({"features": self.columns}, frame.columns, "the frame")
        count = frame.height
        dense = np.empty((count, len(self.spec.dense)), dtype=np.float32)
        place = 0
        for column in self.dense:
            numbers = as_numbers(frame[column.name], f"data.features.{column.name}")
            dense[:, place] = column.scaling(numbers)
            if column.indicator:
                dense[:, place + 1] = np.isnan(numbers)
            place += len(column.fields)
        sparse = np.empty((count, len(self.sparse)), dtype=np.int32)
        for place, field in enumerate(self.sparse):
            sparse[:, place] = self._encoded(frame[field.name], field)
        groups = None
        if self.group is not None and self.group in frame.columns:
            groups = group_codes(frame[self.group], first_row)
        labels, _ = label_values(self.labels, frame)
        return Rows(dense, sparse, tuple(self._lists(frame)), labels, groups)

    def _encoded(self, values: pl.Series, field: SparseField) -> np.ndarray:
        place, ids = f"data.features.{field.name}", self.ids[field.table]
        if isinstance(ids, QuantileBuckets):
            return ids.encode(as_numbers(values, place))
        return ids.encode(as_ids(values, place))

    def _lists(self, frame: pl.DataFrame) -> Iterable[Lists]:
        for field, separator in zip(self.sequences, self.separators, strict=True):
            place, ids = f"data.features.{field.name}", self.ids[field.table]
            assert not isinstance(ids, QuantileBuckets)
            values, lengths = as_lists(frame[field.name], place, separator, field.max_length)
            yield Lists(ids.encode(values), np.concatenate([[0], np.cumsum(lengths)]))

    def state(self) -> dict[str, Any]:
        """Plain values that JSON holds exactly; ``from_state`` makes equal features of them."""
        return {
            "format": FORMAT_VERSION,
            "dense": [[column.name, column.scaling.state(), column.indicator] for column in self.dense],
            "sparse": [asdict(field) for field in self.sparse],
            "sequences": [asdict(field) for field in self.sequences],
            "separators": list(self.separators),
            "ids": {name: ids.state() for name, ids in self.ids.items()},
            "labels": [asdict(label) for label in self.labels],
            "tasks": [asdict(task) for task in self.tasks],
            "group": self.group,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FittedFeatures:
        if state.get("format") != FORMAT_VERSION:
            raise GenrecError(
                f"These features were written in format {state.get('format')}; this genrec reads {FORMAT_VERSION}. "
                "Train again, or use the version that wrote them."
            )
        features = cls(
            dense=tuple(DenseColumn(name, Scaling.from_state(it), flag) for name, it, flag in state["dense"]),
            sparse=tuple(SparseField(**field) for field in state["sparse"]),
            sequences=tuple(SequenceField(**field) for field in state["sequences"]),
            separators=tuple(state["separators"]),
            ids={name: from_state(ids) for name, ids in state["ids"].items()},
            labels=tuple(Label(**label) for label in state["labels"]),
            tasks=tuple(TaskSpec(**task) for task in state["tasks"]),
            group=state["group"],
        )
        features._check()
        return features

    def _check(self) -> None:
        """Raises for what ``state`` never wrote, of which a model or a transform would die."""
        parts = [column.scaling for column in self.dense]
        parts += [ids for ids in self.ids.values() if isinstance(ids, HashBuckets)]
        for part in (*parts, *self.sparse, *self.sequences, *self.labels, *self.tasks):
            check_fields(part, type(part).__name__)
        names = [*self.columns, *([] if self.group is None else [self.group]), *(task.name for task in self.tasks)]
        if not all(isinstance(name, str) for name in names) or len(self.separators) != len(self.sequences):
            raise ValueError("names of fields are text, and each sequence has a separator or none")
        for field in (*self.sparse, *self.sequences):
            ids = self.ids[field.table]
            if ids.size != field.size or (isinstance(field, SequenceField) and isinstance(ids, QuantileBuckets)):
                raise ValueError(f"{field.name} does not fit the vocabulary {field.table}")
            if isinstance(field, SparseField) and field.compression != "none" and field.buckets < 1:
                raise ValueError(f"{field.name} has no buckets")
        if [label.name for label in self.labels] != [task.name for task in self.tasks]:
            raise ValueError("labels and tasks differ")

    def save(self, path: Path) -> None:
        """Writes one JSON file, whole or not at all."""
        write_text(path, json.dumps(self.state(), ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> FittedFeatures:
        """Reads what ``save`` wrote."""
        try:
            return cls.from_state(read_json(path, dict))
        except (KeyError, TypeError, ValueError, AttributeError, pl.exceptions.PolarsError, OverflowError) as error:
            if isinstance(error, GenrecError) and str(path) in str(error):
                raise
            reason = in_brief(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {in_brief(error)}"
            raise GenrecError(f"{path} holds no features of a run ({reason}). Give another run folder.") from None


def group_codes(values: pl.Series, first_row: int = 0) -> np.ndarray:
    """int64 codes (M,) that are equal where the values are: whole numbers as they are, text by its hash. A row whose
    group is missing is a group of its own: of one row there is no AUC, so it counts in no GAUC."""
    ids = as_ids(values.cast(pl.String) if values.dtype == pl.UInt64 else values, "data.group")
    codes = ids.fill_null(0).to_numpy() if ids.dtype == pl.Int64 else hashes(ids).view(np.int64)
    alone = np.iinfo(np.int64).min + first_row + np.arange(len(ids))
    return np.where(ids.is_null().to_numpy(), alone, codes)


# ---- fitting --------------------------------------------------------------------------------------------------------


@dataclass
class _Table:
    """One vocabulary while it is fitted: the options that its fields share, and where the first one is declared."""

    options: SparseOptions | SequenceOptions
    place: str
    counts: Counts
    integers: bool = True
    sample: Sample | None = None


class FeatureFit:
    """Fits features to training rows chunk by chunk; ``options`` by column, in the order of the fields."""

    def __init__(self, options: Mapping[str, Options], labels: Sequence[Label], group: str | None = None) -> None:
        self.options = options
        self.labels = labels
        self.group = group
        self._scalings = {
            name: ScalingFit(item.transform, item.quantiles)
            for name, item in options.items()
            if isinstance(item, DenseOptions)
        }
        self._tables: dict[str, _Table] = {}
        for name, item in options.items():
            if not isinstance(item, DenseOptions):
                self._declare(name, item)
        self._moments = {label.name: Moments() for label in labels}
        self._told = np.zeros(len(labels), dtype=np.int64)  # labels that the table itself holds
        self._examples: dict[str, pl.Series] = {}  # what the columns of labels hold, for messages
        if not options:
            raise GenrecError("No column is left to be a feature. Declare some (data.features), or drop fewer.")

    def _declare(self, name: str, item: SparseOptions | SequenceOptions) -> None:
        place, table = f"data.features.{name}", item.table or name
        known = self._tables.get(table)
        if known is None:
            sample = Sample() if isinstance(item, SparseOptions) and item.bucket else None
            self._tables[table] = _Table(item, place, Counts(), sample=sample)
            return
        if _shared(known.options) != _shared(item):
            raise GenrecError(
                f"{place} shares the table {table} with {known.place}, so both need the same min_count, max_size, "
                f"hash, bucket, compression and buckets (a sequence has no compression). Or give it another table."
            )

    def add(self, frame: pl.DataFrame, rows: np.ndarray) -> None:
        """Takes training rows into account; ``rows`` (M,) are their numbers in the whole table."""
        for name, item in self.options.items():
            place, values = f"data.features.{name}", frame[name]
            if isinstance(item, DenseOptions):
                self._scalings[name].add(as_numbers(values, place), rows)
                continue
            table = self._tables[item.table or name]
            if table.sample is not None:
                table.sample.add(as_numbers(values, place), rows)
                continue
            if isinstance(item, SequenceOptions):
                ids, _ = as_lists(values, place, item.separator, item.max_length)
            else:
                ids = as_ids(values, place)
            table.integers &= ids.dtype == pl.Int64
            if not item.hash:
                table.counts.add(ids)
        values, taken = label_values(self.labels, frame)
        self._told += (~np.isnan(values)).sum(axis=0) - taken
        for place, label in enumerate(self.labels):
            self._examples.setdefault(label.name, frame[label.column])
            self._moments[label.name].add(values[:, place].astype(np.float64))

    def finish(self) -> FittedFeatures:
        """The features as all training rows together say."""
        ids = {name: _ids(table) for name, table in self._tables.items()}
        sparse, sequences, separators, dense = [], [], [], []
        for name, item in self.options.items():
            if isinstance(item, DenseOptions):
                dense.append(DenseColumn(name, self._scalings[name].finish(f"data.features.{name}"), item.indicator))
                continue
            table = item.table or name
            size = ids[table].size
            if isinstance(item, SparseOptions):
                halved = item.compression != "none"
                buckets = (item.buckets or int(np.ceil(size**0.5))) if halved else 0
                field = SparseField(name=name, size=size, table=table, compression=item.compression, buckets=buckets)
                sparse.append(field)
            else:
                options = {
                    "max_length": item.max_length,
                    "pooling": item.pooling,
                    "target": target_of(name, item, self.options),
                }
                sequences.append(SequenceField(name=name, size=size, table=table, **options))
                separators.append(item.separator)
        tasks = tuple(self._task(label, bool(told)) for label, told in zip(self.labels, self._told, strict=True))
        return FittedFeatures(
            *(tuple(dense), tuple(sparse), tuple(sequences), tuple(separators)),
            ids=ids,
            labels=tuple(self.labels),
            tasks=tasks,
            group=self.group,
        )

    def _task(self, label: Label, told: bool) -> TaskSpec:
        seen = self._moments[label.name]
        if not told:
            raise GenrecError(f"data.labels.{label.name}: {label.column} is missing in all training rows.")
        if label.made and seen.constant:
            raise GenrecError(
                f"data.labels.{label.name}: {'all' if seen.mean else 'none'} of the training rows are positive by "
                f"{label.made}. The column {label.column} has {shown_values(self._examples[label.name])}."
            )
        return TaskSpec(
            name=label.name, kind=label.kind, given=label.given, mean=seen.mean, std=1.0 if seen.constant else seen.std
        )


def _shared(options: SparseOptions | SequenceOptions) -> SparseOptions:
    """What fields of one table must agree upon."""
    if isinstance(options, SparseOptions):
        return replace(options, table=None)
    return SparseOptions(min_count=options.min_count, max_size=options.max_size, hash=options.hash)


def _ids(table: _Table) -> Ids:
    options = table.options
    if options.hash:
        return HashBuckets(options.hash, table.integers)
    if isinstance(options, SparseOptions) and options.bucket and table.sample is not None:
        return QuantileBuckets(np.unique(table.sample.quantiles(options.bucket + 1)[1:-1]))
    return table.counts.vocabulary(min_count=options.min_count, max_size=options.max_size)
