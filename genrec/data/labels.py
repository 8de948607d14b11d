"""What a table's rows are to be predicted of: labels from columns, as 0 and 1 or as numbers, NaN where unknown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from genrec.annotations import as_yaml, check_fields
from genrec.contracts import GenrecError
from genrec.data.columns import as_numbers, as_text
from genrec.features import Kind

_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label made from ``column``.

    Of a classification it is 1 where the column has one of the values ``positive`` (compared as text), or is at least
    ``threshold``, or without both where the column says 1. ``given`` names the label without which this one cannot be
    (``label_values``).
    """

    name: str
    column: str
    kind: Kind = "classification"
    positive: str | int | float | bool | list[str | int | float | bool] | None = None
    threshold: float | None = None
    given: str | None = None

    @property
    def made(self) -> str:
        """How 0 and 1 are made of the column, empty where it says so itself."""
        if self.positive is not None:
            return f"positive={as_yaml(self.positive)}"
        return "" if self.threshold is None else f"threshold={self.threshold}"

    def values(self, column: pl.Series) -> np.ndarray:
        """float32 (M,), NaN where the column has no value."""
        place = f"data.labels.{self.name}"
        if self.positive is not None:
            return self._is_positive(column)
        if self.kind == "regression" or self.threshold is not None:
            numbers = as_numbers(column, place)
            if self.threshold is not None:
                return np.where(np.isnan(numbers), np.nan, numbers >= self.threshold).astype(np.float32)
            return numbers.astype(np.float32)
        if column.dtype == pl.String:
            text = column.str.strip_chars().str.to_lowercase()
            text = text.set(text.str.len_bytes() == 0, None)
            truths = {"true": "1", "false": "0"}
            numbers = text.replace(truths).cast(pl.Float64, strict=False)
            wrong = text.is_not_null() & ~(numbers.is_in([0.0, 1.0]) | numbers.is_nan()).fill_null(False)
        else:
            numbers = pl.Series(column.name, as_numbers(column, place)).fill_nan(None)
            wrong = ~numbers.is_in([0.0, 1.0]).fill_null(True)
        if wrong.any():
            raise GenrecError(
                f"{place}: the column {self.column} is to be 0 or 1, and has {shown_values(column)}. Say which value "
                f"is the positive one ({place}.positive=...), or from which number on ({place}.threshold=...), or "
                f"predict the number itself ({place}.kind=regression)."
            )
        return numbers.fill_null(float("nan")).to_numpy().astype(np.float32)

    def _is_positive(self, column: pl.Series) -> np.ndarray:
        several = isinstance(self.positive, Sequence) and not isinstance(self.positive, str)
        wanted: Any = self.positive if several else [self.positive]
        wanted = as_text(pl.Series([str(value) for value in wanted], dtype=pl.String)).to_list()
        text = as_text(column)
        known = text.is_not_null() & (text.str.len_bytes() > 0) & (text.str.to_lowercase() != "nan")
        found = text.is_in(wanted).fill_null(False).to_numpy()
        return np.where(known.fill_null(False).to_numpy(), found, np.nan).astype(np.float32)


def label_values(labels: Sequence[Label], frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The labels float32 (M, T) of a frame, NaN where unknown or where the frame has no such column, and how many of
    each (T,) are missing and taken for 0.

    That is a yes or no which is ``given`` another, where that one is 0: many tables tell of conversions on clicked rows
    alone, and without a click there is none.
    """
    values = np.full((frame.height, len(labels)), np.nan, dtype=np.float32)
    for place, label in enumerate(labels):
        if label.column in frame.columns:
            values[:, place] = label.values(frame[label.column])
    names, taken = [label.name for label in labels], np.zeros(len(labels), dtype=np.int64)
    follow = [label for label in labels if label.kind == "classification" and label.given in names]
    for label in follow * len(follow):  # what is given another may itself give a third
        place, given = names.index(label.name), names.index(str(label.given))
        none = np.isnan(values[:, place]) & (values[:, given] == 0)
        values[none, place] = 0.0
        taken[place] += none.sum()
    return values, taken


def shown_values(column: pl.Series) -> str:
    """The values of a column, most frequent first, as a message tells them."""
    found = column.drop_nulls().cast(pl.String).value_counts(sort=True)
    shown = ", ".join(f"{value!r} ({count:,} times)" for value, count in found.head(_SHOWN).rows())
    return f"{len(found):,} values: {shown}" + (" ..." if len(found) > _SHOWN else "")


def declared_labels(labels: Mapping[str, Any] | Sequence[str]) -> dict[str, Label]:
    """The labels that ``data.labels`` declares: a list of columns, or a mapping of names to a column or to options."""
    if isinstance(labels, Sequence):
        labels = dict.fromkeys(labels)
    found = {str(name): _declared(str(name), given) for name, given in labels.items()}
    if not found:
        raise GenrecError("data.labels names nothing to predict. Name a column: data.labels=[clicked].")
    for label in found.values():
        given = found.get(label.given) if label.given is not None else None
        if label.given is not None and (given is None or given is label or given.kind != "classification"):
            others = [name for name, item in found.items() if item is not label and item.kind == "classification"]
            raise GenrecError(
                f"data.labels.{label.name}.given={label.given}: it names another label of yes and no. "
                f"There are: {', '.join(others) or 'none'}."
            )
    return found


def _declared(name: str, given: Any) -> Label:
    place = f"data.labels.{name}"
    options = dict(given) if isinstance(given, Mapping) else {"column": name if given is None else given}
    names = [field.name for field in fields(Label) if field.name != "name"]
    for key in options:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise GenrecError(f"{place}.{key}: no such option.{hint} Known: {', '.join(names)}.")
    label = Label(**{"name": name, "column": name, **options})
    check_fields(label, place)
    if label.kind == "regression" and (label.positive is not None or label.threshold is not None):
        raise GenrecError(f"{place}: positive and threshold make a classification; leave them out of a regression.")
    if label.positive is not None and label.threshold is not None:
        raise GenrecError(f"{place}: give positive or threshold, not both.")
    return label


def chosen_labels(labels: Mapping[str, Label], tasks: Sequence[str] | None) -> list[Label]:
    """The labels that are learned: all, or those that ``data.tasks`` names, in its order."""
    if tasks is None:
        return list(labels.values())
    for name in tasks:
        if name not in labels:
            near = difflib.get_close_matches(str(name), list(labels), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise GenrecError(f"data.tasks names {name!r}, which is no label.{hint} There are: {', '.join(labels)}.")
        given = labels[name].given
        if given is not None and given not in tasks:
            raise GenrecError(f"data.tasks: {name} is given {given}, so name both: data.tasks=[{given},{name}].")
    if not tasks or len(set(tasks)) < len(tasks):
        raise GenrecError(f"data.tasks names each label to be learned once. There are: {', '.join(labels)}.")
    return [labels[name] for name in tasks]
