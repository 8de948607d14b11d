"""Semantic IDs from a file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genrec.artifacts import Cache
from genrec.contracts import GenrecError, RunContext
from genrec.semantic_ids import SemanticIds
from genrec.stages import Tokenized, semantic_ids
from genrec.tokenizers.file import FileTokenizer
from genrec.tokenizers.rqkmeans import RQKMeans


def test_saved_ids_come_back(tmp_path: Path, catalogue: Any, context: RunContext) -> None:
    made = RQKMeans(codebook_size=8).fit(catalogue.vectors, catalogue.train, context)
    made.semantic_ids.save(tmp_path / "ids.npz")
    result = FileTokenizer(path=str(tmp_path / "ids.npz")).fit(catalogue.vectors, catalogue.train, context)
    assert result.semantic_ids.fingerprint == made.semantic_ids.fingerprint
    assert result.report["unique_share"] == made.report["unique_share"]  # of the content levels


def test_ids_of_another_catalogue_are_refused(tmp_path: Path, catalogue: Any, context: RunContext) -> None:
    SemanticIds(np.arange(5)[:, None], (5,), 1).save(tmp_path / "ids.npz")
    with pytest.raises(GenrecError, match="5 items, but the data set has 240"):
        FileTokenizer(path=str(tmp_path / "ids.npz")).fit(catalogue.vectors, catalogue.train, context)


def test_a_missing_file_is_refused(catalogue: Any, context: RunContext) -> None:
    with pytest.raises(GenrecError, match="No semantic IDs"):
        FileTokenizer(path="nowhere.npz").fit(catalogue.vectors, catalogue.train, context)


def test_cached_ids_do_not_outlive_the_file_they_came_from(tmp_path: Path, catalogue: Any, context: RunContext) -> None:
    path, cache = tmp_path / "ids.npz", Cache(tmp_path / "cache")
    dataset: Any = SimpleNamespace(sequences=SimpleNamespace(train=catalogue.train))
    tokenizer = FileTokenizer(path=str(path))

    def staged() -> Tokenized:
        return semantic_ids({"path": str(path)}, lambda: tokenizer, catalogue.vectors, dataset, context, cache)

    SemanticIds(np.arange(240)[:, None], (240,), 1).save(path)
    assert [staged().cached, staged().cached] == [False, True]
    SemanticIds(np.arange(240)[::-1, None], (240,), 1).save(path)
    assert staged().semantic_ids.codes[0, 0] == 239
