"""The features of a table: how they are declared in YAML, and what the others are taken for.

A column of a text file is numeric where every value that is not missing reads as a number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import annotated_types as at
import numpy as np
import polars as pl

from genrec.annotations import Count, Natural, as_yaml, check_fields
from genrec.contracts import GenrecError
from genrec.data.parsing import exact_ids
from genrec.data.tables import listed
from genrec.features import Compression, Pooling

Transform = Literal["none", "standard", "log", "quantile", "minmax"]
_TRUTHS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_CALLED_ID = re.compile(r"(^|_)(id|ID|Id)$|[a-z]I[dD]$")
_MOST_CATEGORIES = 20  # whole numbers with more distinct values than this are taken for amounts


@dataclass(frozen=True, kw_only=True)
class DenseOptions:
    """A number, missing ones the mean of the training rows.

    ``transform``: standard (mean 0, variance 1), log (sign(x) log(1 + |x|), then standard), quantile (its rank among
    the training rows, 0 to 1, between ``quantiles`` known ones), minmax (0 to 1 in training) or none. ``indicator``
    adds a field ``<name>_missing`` of 0 and 1.
    """

    transform: Transform = "standard"
    quantiles: Annotated[int, at.Ge(2)] = 1000
    indicator: bool = False


@dataclass(frozen=True, kw_only=True)
class SparseOptions:
    """One id per row. Ids with fewer than ``min_count`` training rows, or beyond the ``max_size`` most frequent, are
    unknown.

    ``hash`` takes that many buckets instead of a vocabulary, ``bucket`` cuts a number at as many quantiles of the
    training rows. Fields of one ``table`` share vocabulary and vectors; ``compression`` and its ``buckets`` (0: the
    square root of the vocabulary) are those of ``genrec.features.SparseField``.
    """

    table: str | None = None
    min_count: Count = 1
    max_size: Count | None = None
    hash: Count | None = None
    bucket: Annotated[int, at.Ge(2)] | None = None
    compression: Compression = "none"
    buckets: Natural = 0


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """The last ``max_length`` ids of a list, oldest first, or of a string cut at ``separator``.

    ``target`` (with pooling "attention") is a sparse field; null takes the one that shares the ``table``.
    """

    table: str | None = None
    min_count: Count = 1
    max_size: Count | None = None
    hash: Count | None = None
    pooling: Pooling = "mean"
    target: str | None = None
    max_length: Count = 50
    separator: str | None = None


Options = DenseOptions | SparseOptions | SequenceOptions
KINDS: dict[str, type[Options]] = {"dense": DenseOptions, "sparse": SparseOptions, "sequence": SequenceOptions}
DROP = "drop"


class Declared:
    """What ``data.features`` and ``data.by_type`` say: ``options`` of the declared columns, None of dropped ones.

    ``features`` maps a column to dense, sparse, sequence or drop, or to a mapping with ``type`` and options;
    ``by_type`` maps dense, sparse or sequence to options of all fields of that type that do not say otherwise.
    """

    def __init__(self, features: Mapping[str, Any] | None, by_type: Mapping[str, Any] | None = None) -> None:
        self.by_type = {name: dict(value or {}) for name, value in (by_type or {}).items()}
        for name, given in self.by_type.items():
            if name not in KINDS:
                raise GenrecError(f"data.by_type.{name}: no such type of field. {_known(name, KINDS)}")
            _options(KINDS[name], given, f"data.by_type.{name}")
        self.options: dict[str, Options | None] = {}
        for name, given in (features or {}).items():
            self.options[str(name)] = self._declared(str(name), given)

    def _declared(self, name: str, given: Any) -> Options | None:
        place = f"data.features.{name}"
        more = dict(given) if isinstance(given, Mapping) else {"type": given}
        kind = more.pop("type", None)
        if kind == DROP and not more:
            return None
        if kind not in KINDS:
            where = f"{place}.type" if isinstance(given, Mapping) else place
            raise GenrecError(f"{where}={as_yaml(kind)}: no type of field. {_known(kind, [*KINDS, DROP])}")
        return self.of_kind(kind, place, more)

    def of_kind(self, kind: str, place: str, more: Mapping[str, Any] | None = None) -> Options:
        """The options of a field of a type: its own, before those of ``by_type``."""
        own = dict(more or {})
        general = dict(self.by_type.get(kind, {}))
        if own.get("bucket") and "hash" not in own:  # a number cut at quantiles is no id to be hashed
            general.pop("hash", None)
        return _options(KINDS[kind], {**general, **own}, place)


def _options(kind: type[Options], given: Mapping[str, Any], place: str) -> Options:
    names = [field.name for field in fields(kind)]
    for key in given:
        if key not in names:
            raise GenrecError(f"{place}.{key}: no such option. {_known(key, names)}")
    options = kind(**given)
    check_fields(options, place)
    if isinstance(options, SparseOptions):
        _check_sparse(options, place)
    return options


def _check_sparse(options: SparseOptions, place: str) -> None:
    if options.hash and options.bucket:
        raise GenrecError(f"{place}: hash and bucket exclude each other. Leave one out.")
    if options.bucket and options.table:
        raise GenrecError(f"{place}: quantiles of a number (bucket) share no table. Leave out table.")
    if options.buckets and options.compression == "none":
        raise GenrecError(f"{place}.buckets={options.buckets} needs compression: quotient_remainder.")


def target_of(name: str, item: SequenceOptions, options: Mapping[str, Options | None]) -> str | None:
    """The sparse field by which a sequence of that name is weighed, None unless its pooling is attention."""
    if item.pooling != "attention":
        return None
    sparse = {key: other for key, other in options.items() if isinstance(other, SparseOptions)}
    alike = [key for key, other in sparse.items() if (other.table or key) == (item.table or name)]
    target = item.target or (alike[0] if len(alike) == 1 else None)
    if target not in sparse:
        raise GenrecError(
            f"data.features.{name}: attention weighs a sequence by a sparse field; name it with target. "
            f"Sparse fields: {', '.join(sparse) or 'none'}."
        )
    return target


def _known(given: Any, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(str(given), names, n=1)
    return f"{f'Did you mean {near[0]}? ' if near else ''}Known: {', '.join(names)}."


def check_columns(names: Mapping[str, Iterable[str]], columns: Sequence[str], table: str) -> None:
    """Raises where a key of the YAML names a column that is not there; ``names`` maps keys to columns."""
    for key, wanted in names.items():
        for name in wanted:
            if name not in columns:
                near = difflib.get_close_matches(name, columns, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise GenrecError(f"{key}: {table} has no column {name!r}.{hint} It has: {listed(columns)}.")


# ---- what a column is taken for -------------------------------------------------------------------------------------


class Guess:
    """What an undeclared column is, from its training rows chunk by chunk: dense, sparse or sequence.

    Fractions, and whole numbers with more than 20 distinct values, are dense, but whole numbers in a column that is
    called an id ("id", "user_id", "itemId") are not; lists are sequences; the rest is sparse. ``text`` says that
    numbers come as strings, as in CSV.
    """

    def __init__(self, dtype: pl.DataType, *, text: bool) -> None:
        self.kind = _kind_of_type(dtype, text=text)
        self._distinct: pl.Series | None = None
        self._fractions = False
        self._is_id = False

    @property
    def undecided(self) -> bool:
        return self.kind is None

    def add(self, values: pl.Series) -> None:
        """Takes the training rows of a chunk into account."""
        if self.kind is not None:
            return
        self._is_id = bool(_CALLED_ID.search(values.name))
        if values.dtype == pl.String:
            stripped = exact_ids(values, values.name).drop_nulls()
            numbers = stripped.cast(pl.Float64, strict=False)
            if numbers.has_nulls():
                self.kind = "sparse"
                return
            values = stripped.cast(pl.Int64, strict=False)
            self._fractions |= values.has_nulls()
            values = numbers
        distinct = values.drop_nulls().unique().cast(pl.Float64)
        distinct = distinct if self._distinct is None else pl.concat([self._distinct, distinct]).unique()
        self._distinct = distinct.head(_MOST_CATEGORIES + 1)

    def decide(self) -> str:
        """The type, when all chunks are in."""
        if self.kind is not None:
            return self.kind
        distinct = 0 if self._distinct is None else len(self._distinct)
        many = distinct > _MOST_CATEGORIES and not self._is_id
        return "dense" if distinct and (self._fractions or many) else "sparse"


def _kind_of_type(dtype: pl.DataType, *, text: bool) -> str | None:
    if dtype.is_nested():
        return "sequence"
    if dtype.is_float() or dtype.is_decimal():
        return "dense"
    return None if dtype.is_integer() or (text and dtype == pl.String) else "sparse"


# ---- raw columns as numbers, ids, lists of ids ----------------------------------------------------------------------


def as_numbers(values: pl.Series, place: str) -> np.ndarray:
    """float64 (M,), NaN where missing or not finite; text that is no number is an error."""
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        text = text.set(text.str.len_bytes() == 0, None)
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() > text.null_count():
            found = text.filter(numbers.is_null() & text.is_not_null()).unique(maintain_order=True)
            raise GenrecError(
                f"{place}: {values.name} holds {len(found):,} values that are no numbers: {_some(found)}. "
                "Declare it sparse, or clean the file (empty means missing)."
            )
    elif values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        numbers = values.cast(pl.Float64)
    else:
        raise GenrecError(
            f"{place}: {values.name} is of type {values.dtype}, which is no number. Declare it otherwise."
        )
    found = numbers.fill_null(float("nan")).to_numpy()
    return found if np.isfinite(found).all() else np.where(np.isfinite(found), found, np.nan)


def as_ids(values: pl.Series, place: str) -> pl.Series:
    """Ids as int64 or strings, exactly; missing ones null. Text is read by ``as_text``."""
    if values.dtype.is_nested():
        raise GenrecError(f"{place}: {values.name} holds lists; declare it as a sequence.")
    if values.dtype.is_float() and (values.fill_nan(None).drop_nulls() % 1 != 0).any():
        raise GenrecError(
            f"{place}: {values.name} holds fractions, which are no ids. Declare it dense, or cut it at quantiles "
            f"(data.features.{values.name}.bucket=20)."
        )
    try:
        ids = exact_ids(values, values.name)
    except pl.exceptions.PolarsError:
        raise GenrecError(
            f"{place}: {values.name} is of type {values.dtype}, which is neither numbers nor text. Leave the column "
            f"out (data.drop=[{values.name}]), or store it otherwise."
        ) from None
    return as_text(ids) if ids.dtype == pl.String else ids


def as_text(values: pl.Series) -> pl.Series:
    """Values as the text that all files agree upon, without spaces around it: "3.0", which is how whole numbers beside
    missing ones are often written, is "3", and "True" is "true"."""
    text = values.cast(pl.String).str.strip_chars()
    return text.str.replace(r"^([+-]?\d+)\.0+$", "${1}").replace(_TRUTHS)


def as_lists(values: pl.Series, place: str, separator: str | None, max_length: int) -> tuple[pl.Series, np.ndarray]:
    """The last ``max_length`` ids of every row one after the other, and their number by row (M,) int64."""
    if values.dtype == pl.String:
        if separator is None:
            raise GenrecError(
                f"{place}.separator: {values.name} holds text; say at which string it is cut, such as '|'."
            )
        values = values.str.split(separator)
    elif values.dtype == pl.Null:
        values = values.cast(pl.List(pl.String))
    elif not isinstance(values.dtype, pl.List | pl.Array):
        raise GenrecError(
            f"{place}: {values.name} is of type {values.dtype}; a sequence is a list or text. Or leave the column out "
            f"(data.drop=[{values.name}])."
        )
    inner = getattr(values.dtype, "inner", None)
    if inner is not None and inner.is_nested():
        raise GenrecError(
            f"{place}: {values.name} holds lists of {inner}; a sequence is a list of plain ids. Or leave the column "
            f"out (data.drop=[{values.name}])."
        )
    frame = values.alias("ids").to_frame().with_row_index("row").explode("ids")
    frame = frame.with_columns(as_ids(frame["ids"].alias(values.name), place).alias("ids")).drop_nulls("ids")
    row = frame["row"].to_numpy()
    lengths = np.bincount(row, minlength=len(values)).astype(np.int64)
    kept = np.cumsum(lengths)[row] - np.arange(len(row)) <= max_length  # places from the end of the list
    return frame["ids"].filter(pl.Series(kept, dtype=pl.Boolean)), np.minimum(lengths, max_length)


def _some(found: pl.Series) -> str:
    shown = ", ".join(repr(value) for value in found.head(5).to_list())
    return shown + (" ..." if len(found) > 5 else "")
