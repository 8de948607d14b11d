"""What the sections share: options, the machine, the data, each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.speed import data
from experiments.speed.machine import Machine
from experiments.speed.measure import Absent, Contender, Task
from genrec.contracts import DataSpec
from genrec.data.sequences import SequencesView
from genrec.semantic_ids import SemanticIds

PrefixLists = dict[tuple[int, ...], list[int]]
BF16, FP32 = "bf16", "fp32"
LIGHTNING = {FP32: "32-true", BF16: "bf16-mixed"}


@dataclass
class Setting:
    """``folder`` is for files that are needed while measuring; ``quick`` asks for a rough answer in a few minutes."""

    machine: Machine
    folder: Path
    quick: bool = False
    compile: bool = False
    _lists: tuple[SemanticIds, PrefixLists] | None = field(default=None, init=False)

    @cached_property
    def _loaded(self) -> tuple[SequencesView, str]:
        return data.load_sequences()

    @property
    def view(self) -> SequencesView:
        return self._loaded[0]

    @property
    def data_name(self) -> str:
        return self._loaded[1]

    @cached_property
    def ids(self) -> SemanticIds:
        return data.beauty_ids(self.view, self.folder)

    @cached_property
    def spec(self) -> DataSpec:
        return self.spec_of(self.ids)

    def spec_of(self, ids: SemanticIds | None, vectors: np.ndarray | None = None) -> DataSpec:
        num_items = self.view.num_items if ids is None else ids.num_items
        if vectors is None and num_items == self.view.num_items:
            vectors = self.text_vectors
        train = self.view.train
        return DataSpec(len(train), num_items, semantic_ids=ids, item_vectors=vectors, train=train)

    @cached_property
    def text_vectors(self) -> np.ndarray:
        return data.item_vectors(self.view.num_items, 384)

    def prefix_lists(self, ids: SemanticIds) -> PrefixLists:
        """What may follow each prefix, kept for the catalogue in use: of a million items it is half a gigabyte."""
        if self._lists is None or self._lists[0] is not ids:
            from experiments.speed.t5 import prefix_lists

            self._lists = ids, prefix_lists(ids)
        return self._lists[1]

    @cached_property
    def recbole(self) -> Any:
        """RecBole on this data, once: it takes half a minute to read it."""
        from experiments.speed.recbole import RecBole

        return RecBole(self)

    @property
    def precisions(self) -> tuple[str, ...]:
        """fp32, and bf16 where this processor multiplies it faster."""
        return (FP32, BF16) if self.machine.bf16_pays else (FP32,)

    def few(self, many: int, quick: int) -> int:
        """How much of something: less of it where the answer may be rough."""
        return quick if self.quick else many


Section = Callable[[Setting], Iterator[Task]]


def attempt(name: str, build: Callable[[], Contender], *, quoted: str = "") -> Contender | Absent:
    """The contender, or that it cannot be had here and why."""
    try:
        return build()
    except ImportError as error:
        return Absent(name=name, reason=f"{error}".splitlines()[0], quoted=quoted)
    except Exception as error:  # whatever a peer trips over is its result here
        return Absent(name=name, reason=f"{type(error).__name__}: {error}".splitlines()[0][:200], quoted=quoted)


def optional(module: str, name: str) -> Any:
    """A class that may not be there; ImportError says so."""
    import importlib

    return getattr(importlib.import_module(module), name)
