"""A small catalogue with structure: items of eight kinds, histories that stay within a kind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from genrec.contracts import RunContext
from genrec.data.ragged import Ragged


@dataclass
class Catalogue:
    vectors: np.ndarray  # (240, 12)
    train: Ragged
    kinds: np.ndarray  # (240,)


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    generator = np.random.default_rng(5)
    kinds = np.arange(240) % 8
    vectors = generator.normal(size=(8, 12))[kinds] * 3 + generator.normal(size=(240, 12))
    rows = [generator.choice(np.flatnonzero(kinds == user % 8), 8) for user in range(120)]
    return Catalogue(vectors.astype(np.float32), Ragged.from_rows(rows), kinds)


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(output_dir=tmp_path, seed=3, progress=False)
