"""A data set of rows: a table, what its columns mean, and a split; read when first asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl

from genrec.annotations import check_arguments
from genrec.artifacts import Cache, fingerprint, read_json, write_json
from genrec.contracts import TEST, TRAIN, VAL, DataSpec, GenrecError
from genrec.data.columns import Declared, Guess, Options, check_columns
from genrec.data.dataset import ROWS
from genrec.data.fitted_features import FORMAT_VERSION, FeatureFit, FittedFeatures
from genrec.data.labels import chosen_labels, declared_labels, label_values
from genrec.data.raw_table import RawTable, TableData
from genrec.data.row_files import RowWriter, mapped_rows
from genrec.data.row_splits import IN_TEST, IN_TRAIN, IN_VAL, RowSplit, check_parts
from genrec.data.rows import Rows, RowsView
from genrec.data.summary import Summary

logger = logging.getLogger("genrec.data")

ROWS_VERSION = 2  # of what is made of a table, where its features as such are read as before
_MAPPED_FROM = 2_000_000  # rows of a source that streams


@dataclass(frozen=True)
class LoadedTable:
    """What reading a table gives: its features, its rows and the part of each, and counts worth a log line."""

    fitted: FittedFeatures
    rows: Rows
    parts: np.ndarray
    content: str
    summary: Summary


class TableDataset:
    """The rows of a source with features, labels and a split. Nothing is read before it is needed.

    ``features`` declares columns (``genrec.data.columns.Declared``); with ``infer`` the others are taken for what they
    look like, and ``by_type`` holds options of all dense, sparse or sequence fields. ``labels`` and ``tasks``:
    ``genrec.data.labels``. ``group`` is a column whose values are judged apart (users), ``timestamp`` one of times,
    ``drop`` are columns left out. Labels, ``group``, ``timestamp`` and the column of a split are no features, but the
    last three may be declared.

    ``memory_map`` keeps the transformed rows in files below ``cache_dir`` instead of in memory; null does so for
    Parquet with more than two million rows. ``path`` and ``storage_options`` are what ``source`` refers to.
    """

    has_text = False
    views = (ROWS,)

    def __init__(
        self,
        source: TableData,
        split: RowSplit,
        labels: dict[str, Any] | list[str] | str,
        path: str | list[str] | None = None,
        features: dict[str, Any] | None = None,
        infer: bool = True,
        by_type: dict[str, Any] | None = None,
        tasks: list[str] | None = None,
        group: str | None = None,
        timestamp: str | None = None,
        drop: list[str] | None = None,
        memory_map: bool | None = None,
        cache_dir: str = "outputs/cache",
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        check_arguments(TableDataset.__init__, locals(), "data")
        self.source = source
        self.splitter = split
        self.path = path
        self.declared = Declared(features, by_type)
        self.infer = infer
        self.labels = declared_labels([labels] if isinstance(labels, str) else labels)
        self.learned = chosen_labels(self.labels, tasks)
        self.group = group
        self.timestamp = timestamp
        self.drop = list(drop or ())
        self.memory_map = memory_map
        self.cache_dir = Path(cache_dir)
        self.storage_options = storage_options
        learned = [label.name for label in self.learned]  # in their order, which that of ``labels`` may decide
        self._settings = [features, infer, by_type, labels, tasks, learned, group, timestamp, self.drop]
        for label in self.labels.values():
            if self.declared.options.get(label.column) is not None:
                raise GenrecError(f"data.features.{label.column}: the label {label.name} is made of it. Leave it out.")
        if not infer and not any(self.declared.options.values()):
            raise GenrecError("No column is left to be a feature: data.infer=false, and data.features declares none.")
        if not hasattr(split, "row_parts"):
            _refuse_split(split)

    @property
    def name(self) -> str:
        return self.source.name

    @cached_property
    def loaded(self) -> LoadedTable:
        """The table read, fitted, split and transformed (once)."""
        begin = time.perf_counter()
        table = RawTable(self.source, self.timestamp)
        loaded = self._mapped(table) if self._maps(table) else self._load(table, None)
        logger.info("%s: read in %.1f s", self.name, time.perf_counter() - begin)
        return loaded

    def _maps(self, table: RawTable) -> bool:
        if self.memory_map is None:
            return bool(getattr(self.source, "streams", False)) and table.num_rows > _MAPPED_FROM
        if self.memory_map and not hasattr(self.source, "origin"):
            raise GenrecError(f"data.memory_map=true needs a table in files; {self.name} is made in memory. Use null.")
        return self.memory_map

    def _mapped(self, table: RawTable) -> LoadedTable:
        source: Any = self.source
        split = [type(self.splitter).__name__, asdict(self.splitter) if is_dataclass(self.splitter) else {}]
        key = fingerprint("rows", FORMAT_VERSION, ROWS_VERSION, source.origin, _plain(self._settings), _plain(split))
        with Cache(self.cache_dir).entry("rows", key) as (folder, ready):
            if not ready:
                loaded = self._load(table, folder)
                loaded.fitted.save(folder / "features.json")
                np.save(folder / "parts.npy", loaded.parts)
                write_json(folder / "summary.json", {"content": loaded.content, **loaded.summary.state()})
                return loaded
        fitted, state = FittedFeatures.load(folder / "features.json"), read_json(folder / "summary.json")
        rows = mapped_rows(folder, len(fitted.sequences), fitted.group is not None)
        return LoadedTable(
            fitted, rows, np.load(folder / "parts.npy", allow_pickle=False), state["content"], Summary.from_state(state)
        )

    def _load(self, table: RawTable, folder: Path | None) -> LoadedTable:
        self._check_columns(list(table.schema))
        parts = self.splitter.row_parts(table)
        check_parts(parts, self.splitter)
        fit = FeatureFit(self._options(table, parts), self.learned, self.group)
        read = list(fit.options) + [label.column for label in self.learned] + ([self.group] if self.group else [])
        read = list(dict.fromkeys(read))
        for rows, frame in table.chunks(read):
            trained = parts[rows] == IN_TRAIN
            fit.add(frame.filter(pl.Series(trained)), rows[trained])
        fitted = fit.finish()
        writer, summary = RowWriter(folder), Summary.of(fitted)
        for rows, frame in table.chunks(read):
            transformed = fitted.transform(frame, int(rows[0]) if len(rows) else 0)
            summary.add(transformed, parts[rows], label_values(self.learned, frame)[1])
            writer.add(transformed)
        arrays, content = writer.finish()
        return LoadedTable(fitted, arrays, parts, content, summary)

    def _check_columns(self, columns: list[str]) -> None:
        named = {f"data.features.{name}": [name] for name in self.declared.options}
        named.update({f"data.labels.{label.name}.column": [label.column] for label in self.labels.values()})
        for key, name in (("data.group", self.group), ("data.timestamp", self.timestamp)):
            named[key] = [name] if name is not None else []
        check_columns({**named, "data.drop": self.drop}, columns, self.name)

    def _options(self, table: RawTable, parts: np.ndarray) -> dict[str, Options]:
        """The options of every field, in the order of the columns."""
        other = {*self.drop, self.group, self.timestamp, *(label.column for label in self.labels.values())}
        other.add(getattr(self.splitter, "column", None))  # which part a row is in says nothing of new rows
        open_columns = [name for name in table.schema if name not in other and name not in self.declared.options]
        guessed = self._guessed(table, parts, open_columns) if self.infer and open_columns else {}
        found: dict[str, Options] = {}
        for name in table.schema:
            options = self.declared.options.get(name)
            if options is not None:
                found[name] = options
            elif name in guessed:
                found[name] = self.declared.of_kind(guessed[name], f"data.features.{name}")
        return found

    def _guessed(self, table: RawTable, parts: np.ndarray, columns: Sequence[str]) -> dict[str, str]:
        guesses = {name: Guess(table.schema[name], text=table.text) for name in columns}
        undecided = [name for name, guess in guesses.items() if guess.undecided]
        if undecided:
            for rows, frame in table.chunks(undecided):
                trained = frame.filter(pl.Series(parts[rows] == IN_TRAIN))
                for name in undecided:
                    guesses[name].add(trained[name])
                if not any(guess.undecided for guess in guesses.values()):
                    break
        kinds = {name: guess.decide() for name, guess in guesses.items()}
        for kind in dict.fromkeys(kinds.values()):
            logger.info("taken for %s: %s", kind, ", ".join(name for name in kinds if kinds[name] == kind))
        return kinds

    @property
    def fitted(self) -> FittedFeatures:
        """What turns raw columns into rows."""
        return self.loaded.fitted

    def rows_of(self, frame: pl.DataFrame) -> Rows:
        """Rows of new raw columns, by the features as they were fitted."""
        return self.fitted.transform(frame)

    @cached_property
    def rows(self) -> RowsView:
        loaded = self.loaded
        return RowsView(loaded.rows, loaded.fitted.spec, loaded.parts, content=loaded.content)

    def view(self, name: str, *, vectors: np.ndarray | None = None) -> RowsView:
        """The one view of a table, "rows"; it has no item vectors to ask for."""
        if name == ROWS:
            return self.rows
        raise GenrecError(
            f"{self.name} is a table of rows, and the model asks for {name}, which interactions of users with items "
            "have (data=folder, data=movielens ...). Choose a model of rows: model=deepfm, model=mmoe ..."
        )

    @property
    def spec(self) -> DataSpec:
        """What models may know."""
        return DataSpec(features=self.fitted.spec, training_rows=self.rows.training_rows)

    @cached_property
    def fingerprint(self) -> str:
        """Depends on the content of the rows and on the split, not on where the files lie."""
        return fingerprint("table", self.rows.fingerprint)

    @cached_property
    def ceiling(self) -> dict[str, float]:
        """The best reachable value of metrics such as "test/auc" where the source knows it, else empty."""
        source: Any = self.source
        if not hasattr(source, "ceiling"):
            return {}
        parts = {name: np.flatnonzero(self.loaded.parts == part) for name, part in ((VAL, IN_VAL), (TEST, IN_TEST))}
        return source.ceiling(parts, self.fitted.tasks)

    def describe(self) -> list[str]:
        """Rows and base rates by part, the fields, and what is worth knowing of them, line by line."""
        loaded = self.loaded
        return loaded.summary.lines(loaded.fitted, (TRAIN, VAL, TEST), mapped=loaded.rows.mapped)


def _refuse_split(split: Any) -> NoReturn:
    raise GenrecError(
        f"{type(split).__name__} divides interactions of users, and these data are rows of a table. Use "
        "split=random_rows, split=by_column or split=global_time."
    )


def _plain(value: Any) -> Any:
    """Nested settings as values that ``fingerprint`` takes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
