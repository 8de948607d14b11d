"""A data set: a source and a split, read when first asked, and the views that models consume."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from genrec.artifacts import fingerprint
from genrec.contracts import DataSpec, GenrecError
from genrec.data.graph import GraphView
from genrec.data.interactions import TEXT, TITLE, DataReport, InteractionLog, SourceData
from genrec.data.relations import relation_of_column
from genrec.data.sequences import SequencesView
from genrec.data.splits import Split, SplitResult
from genrec.data.texts import Texts
from genrec.data.views import ItemsView, MatrixView
from genrec.graph import ITEM, DeferredGraph, TypedGraph

logger = logging.getLogger("genrec.data")

VIEWS = ("sequences", "tokens", "graph", "matrix", "items")  # of interactions; a table has ROWS
ROWS = "rows"


class Source(Protocol):
    """Obtains raw data and cleans it. ``name`` is short and readable."""

    @property
    def name(self) -> str: ...
    def load(self) -> SourceData: ...


@runtime_checkable
class KnowsCeiling(Protocol):
    """A source that knows the best reachable metrics of a split."""

    def ceiling(self, log: InteractionLog, split: SplitResult) -> dict[str, float]: ...


class Dataset:
    """A source and a split. Nothing is read before it is needed.

    ``path`` is where the source finds its files, ``storage_options`` are what a remote file system is told; they stand
    here so that YAML has one short key for each (``data.path``), which those of the source refer to. ``edge_weight``
    names a column of the log that weighs the edges of the graph; ``item_relations`` are columns of the item table whose
    values become its nodes, each with the separator of several values in a cell (or null): ``{genres: "|"}``.
    """

    views = VIEWS

    def __init__(
        self,
        source: Source,
        split: Split,
        path: str | None = None,
        edge_weight: str | None = None,
        item_relations: Mapping[str, str | None] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.splitter = split
        self.path = path
        self.storage_options = storage_options
        self.edge_weight = edge_weight
        self.item_relations = dict(item_relations or {})

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def loaded(self) -> SourceData:
        """What the source delivered (read once)."""
        begin = time.perf_counter()
        data = self.source.load()
        logger.info("%s: read in %.1f s", self.name, time.perf_counter() - begin)
        return data

    @property
    def log(self) -> InteractionLog:
        return self.loaded.log

    @property
    def report(self) -> DataReport:
        """Counts of what was read and dropped."""
        return self.loaded.report

    @property
    def source_folder(self) -> Path | None:
        return self.loaded.folder

    @property
    def num_users(self) -> int:
        return self.log.num_users

    @property
    def num_items(self) -> int:
        return self.log.num_items

    @cached_property
    def split(self) -> SplitResult:
        """The interactions of each part, one row per user."""
        return self.splitter.split(self.log)

    @cached_property
    def sequences(self) -> SequencesView:
        parts = self.split
        return SequencesView(parts.train, parts.val, parts.test, self.num_items)

    @property
    def spec(self) -> DataSpec:
        """What models may know that need neither semantic IDs nor item vectors; others get these by ``replace``."""
        train = self.sequences.train
        deferred = DeferredGraph(lambda: self.graph)
        return DataSpec(num_users=self.num_users, num_items=self.num_items, train=train, graph=deferred)

    @cached_property
    def graph(self) -> TypedGraph:
        """Training interactions and relations; no held-out interaction is in it."""
        relations = dict(self.loaded.relations)
        for column, separator in self.item_relations.items():
            values = self._item_column(column)
            if f"has_{column}" in relations:
                raise GenrecError(f"data.item_relations.{column}: {self.name} has this relation already. Leave it out.")
            relations[f"has_{column}"] = relation_of_column(values, source=ITEM, target=column, separator=separator)
        weights = None if self.edge_weight is None else self._log_column(self.edge_weight)[self.split.train_rows]
        if weights is not None and not (weights.dtype != object and (weights > 0).all()):
            raise GenrecError(
                f"data.edge_weight={self.edge_weight}: weights of edges must be above 0; {self.name} has others."
            )
        return TypedGraph(self.sequences.train, self.num_items, weights, relations)

    def _item_column(self, name: str) -> pl.Series:
        table = self.log.item_table
        columns = [] if table is None else table.columns
        if table is None or name not in columns:
            known = ", ".join(columns) or "none: it has no item table"
            raise GenrecError(f"data.item_relations.{name}: {self.name} has no such column of items. It has: {known}.")
        return table[name]

    def _log_column(self, name: str) -> np.ndarray:
        if name not in self.log.extras:
            known = ", ".join(self.log.extras) or "none"
            raise GenrecError(f"data.edge_weight={name}: {self.name} has no such column. It has: {known}.")
        return self.log.extras[name]

    @cached_property
    def titles(self) -> Texts:
        """A readable name for every item; "item <raw id>" where the source has none."""
        raw = self.log.item_ids
        return Texts(self._column(TITLE), self.num_items, lambda item: f"item {raw[item]}")

    @cached_property
    def has_text(self) -> bool:
        column = self._text_column()
        return column is not None and bool((column.str.len_bytes() > 0).any())

    @cached_property
    def texts(self) -> Texts:
        """What a text encoder reads of every item; empty for items that nothing is known of."""
        if not self.has_text:
            raise GenrecError(
                f"{self.name} has no item text: no item table with a title or text column was found"
                f"{f' in {self.source_folder}' if self.source_folder else ''}. Use encoder=collaborative, which needs "
                "none, give vectors with encoder=file, or add an items file (docs/data.md)."
            )
        return Texts(self._text_column(), self.num_items, lambda item: "")

    def _text_column(self) -> pl.Series | None:
        text, title = self._column(TEXT), self._column(TITLE)
        if text is None or title is None:
            return title if text is None else text
        given = (text.str.strip_chars() != "").fill_null(False)
        return text if given.all() else text.zip_with(given, title)

    def _column(self, name: str) -> pl.Series | None:
        table = self.log.item_table
        return None if table is None or name not in table.columns else table[name].cast(pl.String)

    @cached_property
    def fingerprint(self) -> str:
        """Depends on the content of the data and on the split, not on where the files lie."""
        return fingerprint("dataset", self.log.fingerprint, self.sequences.fingerprint)

    @cached_property
    def ceiling(self) -> dict[str, float]:
        """The best reachable value of metrics such as "test/recall@10" where the source knows it, else empty."""
        return self.source.ceiling(self.log, self.split) if isinstance(self.source, KnowsCeiling) else {}

    def view(self, name: str, *, vectors: np.ndarray | None = None) -> Any:
        """The form a model consumes: "sequences", "tokens" (mapped by the model), "graph", "matrix" or "items"."""
        if name in ("sequences", "tokens"):
            return self.sequences
        if name == "graph":
            return GraphView(self.sequences, self.graph)
        if name == "matrix":
            return MatrixView(self.split.train, self.num_items)
        if name == "items":
            return self._items_view(vectors)
        raise GenrecError(
            f"{self.name} cannot give the view {name!r}: the log has the columns {', '.join(self.log.columns)} "
            f"and serves {', '.join(VIEWS)}."
        )

    def _items_view(self, vectors: np.ndarray | None) -> ItemsView:
        if vectors is None:
            raise GenrecError('The view "items" needs item vectors: choose an encoder (encoder=tfidf, file ...).')
        if len(vectors) != self.num_items:
            raise GenrecError(f"{len(vectors)} item vectors were given, but {self.name} has {self.num_items} items.")
        return ItemsView(vectors)

    def user_index(self, raw: int | str) -> int:
        """The internal index of a raw user id."""
        return _index_of(raw, self.log.user_ids, "user", self.name)

    def item_index(self, raw: int | str) -> int:
        """The internal index of a raw item id."""
        return _index_of(raw, self.log.item_ids, "item", self.name)

    def describe(self) -> list[str]:
        """The report of the cleaning and of the split, line by line."""
        return [*self.report.lines(), *self.split.describe()]


def _index_of(raw: int | str, ids: np.ndarray, kind: str, name: str) -> int:
    text = str(raw).strip()
    if ids.dtype.kind == "i":
        found = np.flatnonzero(ids == int(text)) if _fits(text) else []
    else:
        found = np.flatnonzero(ids == text)
    if len(found):
        return int(found[0])
    raise GenrecError(
        f"{name} has no {kind} {text!r}. It has {len(ids):,} {kind}s; {_nearest_ids(text, ids)}. "
        f"Ids are those of the data, as they stand in its files."
    )


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _fits(text: str) -> bool:
    """Whether it is an integer of 64 bits."""
    return _is_integer(text) and len(text) <= 20 and -(2**63) <= int(text) < 2**63


def _nearest_ids(text: str, ids: np.ndarray) -> str:
    if ids.dtype.kind == "i":
        if _fits(text):
            ordered, value = np.sort(ids), int(text)
            place = int(np.searchsorted(ordered, value))
            near = sorted(ordered[max(0, place - 3) : place + 3].tolist(), key=lambda other: abs(other - value))[:3]
            return f"the nearest are {', '.join(map(str, near))}"
        return f"all are numbers, from {ids.min()} to {ids.max()}"
    import difflib

    near = difflib.get_close_matches(text, ids[:20_000].tolist(), n=3, cutoff=0.3) or ids[:3].tolist()
    return f"near it: {', '.join(near)}"
