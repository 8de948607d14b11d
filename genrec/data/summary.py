"""What is worth a log line about a table that was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.data.fitted_features import FittedFeatures
from genrec.data.row_splits import LEFT_OUT
from genrec.data.rows import Rows
from genrec.features import UNKNOWN

_SHOWN = 5
_ARRAYS = ("rows", "unknown", "known", "totals", "without_given", "taken_for_none")


@dataclass
class Summary:
    """Counts by part (P = 4: train, val, test, left out): ``rows`` (P,), ``unknown`` (P, F) ids that are ``UNKNOWN``,
    ``known`` (P, T) labels and their sums ``totals`` (P, T); ``without_given`` (T,) rows that contradict ``given``, and
    ``taken_for_none`` (T,) those that are 0 because it is."""

    rows: np.ndarray
    unknown: np.ndarray
    known: np.ndarray
    totals: np.ndarray
    without_given: np.ndarray
    taken_for_none: np.ndarray
    given: list[int | None]

    @classmethod
    def of(cls, fitted: FittedFeatures) -> Summary:
        names = [task.name for task in fitted.tasks]
        given = [None if task.given is None else names.index(task.given) for task in fitted.tasks]
        parts, tasks = LEFT_OUT + 1, len(names)
        return cls(
            rows=np.zeros(parts, dtype=np.int64),
            unknown=np.zeros((parts, len(fitted.sparse)), dtype=np.int64),
            known=np.zeros((parts, tasks), dtype=np.int64),
            totals=np.zeros((parts, tasks)),
            without_given=np.zeros(tasks, dtype=np.int64),
            taken_for_none=np.zeros(tasks, dtype=np.int64),
            given=given,
        )

    def add(self, rows: Rows, parts: np.ndarray, taken_for_none: np.ndarray | int = 0) -> None:
        """Counts a chunk of rows with the part of each, and by task the labels that the table leaves out."""
        self.taken_for_none += taken_for_none
        labels = rows.labels
        for part in range(LEFT_OUT + 1):
            chosen = parts == part
            self.rows[part] += chosen.sum()
            self.unknown[part] += (rows.sparse[chosen] == UNKNOWN).sum(axis=0)
            self.known[part] += (~np.isnan(labels[chosen])).sum(axis=0)
            self.totals[part] += np.nansum(labels[chosen].astype(np.float64), axis=0)
        for place, given in enumerate(self.given):
            if given is not None:
                self.without_given[place] += ((labels[:, place] > 0) & (labels[:, given] == 0)).sum()

    def join(self, other: Summary) -> None:
        """Adds what another has counted."""
        for name in _ARRAYS:
            np.add(getattr(self, name), getattr(other, name), out=getattr(self, name))

    def state(self) -> dict[str, Any]:
        return {**{name: getattr(self, name).tolist() for name in _ARRAYS}, "given": self.given}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Summary:
        return cls(**{name: np.array(state[name]) for name in _ARRAYS}, given=state["given"])

    def lines(self, fitted: FittedFeatures, parts: Sequence[str], *, mapped: bool) -> list[str]:
        """One line per part, then what the fields are, and what is special."""
        lines = [self._part_line(fitted, place, name) for place, name in enumerate(parts)]
        if self.rows[LEFT_OUT]:
            lines.append(f"left out by the split: {self.rows[LEFT_OUT]:,} rows")
        counts = f"{len(fitted.spec.dense)} dense, {len(fitted.sparse)} sparse, {len(fitted.sequences)} sequence fields"
        sizes = sorted(fitted.spec.tables.items(), key=lambda item: -item[1])[:_SHOWN]
        largest = ", ".join(f"{name} {size:,}" for name, size in sizes)
        lines.append(counts + (f"; most ids: {largest}" if sizes else ""))
        for place, name in enumerate(parts[1:], start=1):
            lines += self.unknown_line(fitted, place, name)
        if fitted.constant:
            lines.append(f"constant in training, so of no use: {', '.join(fitted.constant)}")
        for task, count in zip(fitted.tasks, self.without_given, strict=True):
            if count:
                lines.append(f"{task.name} without {task.given}, which it is given: {count:,} rows")
        for task, count in zip(fitted.tasks, self.taken_for_none, strict=True):
            if count:
                lines.append(f"{task.name} is missing and without {task.given}, so taken for none: {count:,} rows")
        if mapped:
            lines.append("the rows lie in files and are read as they are needed (data.memory_map)")
        return lines

    def _part_line(self, fitted: FittedFeatures, part: int, name: str) -> str:
        told = []
        for place, task in enumerate(fitted.tasks):
            known = self.known[part, place]
            if not known:
                told.append(f"{task.name} not known")
                continue
            mean = self.totals[part, place] / known
            text = (
                f"{100 * mean:.2f} % {task.name}" if task.kind == "classification" else f"mean {task.name} {mean:.4g}"
            )
            missing = self.rows[part] - known
            told.append(text + (f" ({missing:,} not known)" if missing else ""))
        return f"{name}: {self.rows[part]:,} rows, {', '.join(told)}"

    def unknown_line(self, fitted: FittedFeatures, part: int, name: str) -> list[str]:
        """The fields with the most ids that training did not know; no line where it knew all."""
        shares = self.unknown[part] / max(self.rows[part], 1)
        worst = [place for place in np.argsort(-shares, kind="stable")[:_SHOWN] if shares[place] > 0]
        if not worst:
            return []
        told = ", ".join(f"{fitted.sparse[place].name} {100 * shares[place]:.1f} %" for place in worst)
        return [f"{name}: ids unknown to training, or missing: {told}"]
