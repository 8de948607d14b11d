"""Use of codes by known answers and against the metrics of tokenizers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genrec.metrics import codebook
from genrec.records import read_run
from genrec.report.run_codebooks import codebook_section, distinct_prefixes, perplexity
from genrec.semantic_ids import SemanticIds
from tests.report.page_reader import PageReader, shapes
from tests.report.run_folders import make_run
from tests.report.whole_runs import make_retrieval_run


def test_perplexity_is_that_of_the_tokenizers() -> None:
    counts = np.array([5, 3, 0, 2, 1])
    assert perplexity(counts) == pytest.approx(codebook.perplexity(torch.from_numpy(counts)))
    assert perplexity(np.array([4, 4, 4])) == pytest.approx(3)


def test_distinct_prefixes_by_hand_and_by_sets() -> None:
    assert distinct_prefixes(np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])) == [2, 3, 4]
    codes = np.random.default_rng(0).integers(0, 5, (300, 4))
    expected = [len({tuple(row[: level + 1]) for row in codes.tolist()}) for level in range(4)]
    assert distinct_prefixes(codes) == expected


def test_the_table_and_charts_of_a_run(tmp_path: Path) -> None:
    section = codebook_section(read_run(make_retrieval_run(tmp_path / "run")))
    assert section is not None
    read = PageReader(section.body)
    head, first, _, third = read.tables[0]
    assert head == ["level", "codes", "in use", "share in use", "perplexity", "most items on a code", "median"]
    assert first == ["1", "4", "4", "100 %", "4.0000", "16", "16"]
    assert third[:4] == ["3, extra digit", "8", "4", "50 %"]
    assert "items 64 levels 2 and 1 to tell colliding items apart" in read.text
    assert "distinct content codes / items 78.5 %" in read.text and "items that share theirs 204" in read.text
    assert [bar["data-y"] for bar in shapes(read.svgs[1], "bar")] == ["4 (6 %)", "16 (25 %)", "64 (100 %)"]


def test_many_levels_are_drawn_by_level(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    codes = np.stack([np.arange(32) % 8] * 15 + [np.arange(32)], axis=1)
    SemanticIds(codes, (8,) * 15 + (32,), 16).save(folder / "semantic_ids.npz")
    section = codebook_section(read_run(folder))
    assert section is not None
    labels = [svg.attrib["aria-label"] for svg in PageReader(section.body).svgs]
    assert labels == ["Use of the codebooks", "Items that codes tell apart"]


def test_nothing_without_ids(tmp_path: Path) -> None:
    assert codebook_section(read_run(make_run(tmp_path / "run"))) is None
