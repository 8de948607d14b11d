"""The sentence encoder with a stand-in for the optional package."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.encoders.sentence_transformer import SentenceTransformerEncoder


class FakeModel:
    """Encodes a text as its length and its number of words."""

    def __init__(self, name: str, device: str | None = None) -> None:
        if name == "missing":
            raise OSError("no such model, and no network")

    def encode(self, texts: list[str], *, batch_size: int, normalize_embeddings: bool, **rest: Any) -> np.ndarray:
        vectors = np.array([[len(text), len(text.split())] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize_embeddings else vectors


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = FakeModel  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


@pytest.mark.usefixtures("package")
def test_one_row_per_text_in_order(dataset: Any) -> None:
    vectors = SentenceTransformerEncoder(normalize=False).encode(dataset)
    assert vectors.tolist() == [[len(text), len(text.split())] for text in dataset.texts]
    np.testing.assert_allclose(np.linalg.norm(SentenceTransformerEncoder().encode(dataset), axis=1), 1, rtol=1e-6)


@pytest.mark.usefixtures("package")
def test_a_model_out_of_reach_is_a_clear_error(dataset: Any) -> None:
    with pytest.raises(GenrecError, match=r"'missing' could not be loaded .*no network.*local folder"):
        SentenceTransformerEncoder(model_name="missing").encode(dataset)


def test_a_missing_package_names_the_extra(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(GenrecError, match=r"pip install genrec\[text\]"):
        SentenceTransformerEncoder().encode(dataset)


def test_no_text_is_said_before_anything_is_loaded(make_dataset: Any) -> None:
    with pytest.raises(GenrecError, match="encoder=collaborative"):
        SentenceTransformerEncoder().encode(make_dataset(has_text=False))


@pytest.mark.usefixtures("package")
def test_vectors_that_are_there_already_are_read(dataset: Any, tmp_path: Path) -> None:
    encoder = SentenceTransformerEncoder(precomputed=str(tmp_path / "vectors.npy"))
    computed = encoder.encode(dataset)
    assert encoder.content_key(dataset) == ""
    np.save(tmp_path / "vectors.npy", np.full((dataset.num_items, 3), 0.5, dtype=np.float16))
    assert computed.shape == (dataset.num_items, 2)
    assert encoder.encode(dataset).tolist() == [[0.5] * 3] * dataset.num_items
    key = encoder.content_key(dataset)
    np.save(tmp_path / "vectors.npy", np.full((dataset.num_items, 3), 0.25, dtype=np.float16))
    assert "" != key != encoder.content_key(dataset)


def test_cached_vectors_do_not_outlive_the_weights_of_a_local_model(dataset: Any, tmp_path: Path) -> None:
    encoder = SentenceTransformerEncoder(model_name=str(tmp_path))
    (tmp_path / "1_Pooling").mkdir()
    keys = [encoder.content_key(dataset)]
    for name, weights in (("model.safetensors", b"one"), ("model.safetensors", b"two"), ("1_Pooling/a.json", b"two")):
        (tmp_path / name).write_bytes(weights)
        keys.append(encoder.content_key(dataset))
    (tmp_path / "model.safetensors").rename(tmp_path / "model.bin")
    keys.append(encoder.content_key(dataset))
    assert len(set(keys)) == 5
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(b"of no model")
    assert encoder.content_key(dataset) == keys[-1]
    assert SentenceTransformerEncoder(model_name="on/the_hub").content_key(dataset) == ""
