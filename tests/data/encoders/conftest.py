"""A stand-in for a data set: encoders read no more of it than this."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView

TEXTS = ["red lipstick", "red nail polish", "blue nail polish", "shaving foam", "shaving brush", "red lipstick matte"]


@dataclass
class TinyDataset:
    texts: list[str] = field(default_factory=lambda: list(TEXTS))
    has_text: bool = True
    train: list[list[int]] = field(default_factory=lambda: [[0, 1, 2], [3, 4], [1, 2, 5]])
    held_out: int = 3
    source_folder: Path | None = None
    name: str = "tiny"

    @property
    def num_items(self) -> int:
        return len(self.texts)

    @property
    def log(self) -> Any:
        return SimpleNamespace(item_ids=np.arange(10, 10 + self.num_items))

    @property
    def sequences(self) -> SequencesView:
        held_out = Ragged.from_rows([[self.held_out]] * len(self.train))
        return SequencesView(Ragged.from_rows(self.train), held_out, held_out, self.num_items)


@pytest.fixture
def make_dataset() -> Any:
    return TinyDataset


@pytest.fixture
def dataset() -> Any:
    return TinyDataset()
