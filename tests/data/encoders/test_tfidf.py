"""TF-IDF vectors of six short texts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from genrec.contracts import GenrecError
from genrec.data.encoders import tfidf
from genrec.data.encoders.tfidf import TfidfEncoder
from genrec.data.texts import Texts


def test_similar_texts_are_near_and_unrelated_ones_orthogonal(dataset: Any) -> None:
    vectors = TfidfEncoder().encode(dataset)
    similarity = vectors @ vectors.T
    assert vectors.dtype == np.float32 and len(vectors) == 6
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-5)
    assert similarity[0, 5] > similarity[0, 1] > 0.05  # two words shared, one word shared
    assert abs(similarity[0, 3]) < 1e-4


def test_full_rank_keeps_the_cosines_of_the_sparse_matrix(dataset: Any) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfEncoder(dim=256).encode(dataset)
    sparse = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(dataset.texts)
    np.testing.assert_allclose(vectors @ vectors.T, (sparse @ sparse.T).toarray(), atol=1e-4)


def test_reruns_agree_and_dim_is_obeyed_up_to_the_catalogue(dataset: Any) -> None:
    assert TfidfEncoder(dim=3).encode(dataset).shape == (6, 3)
    assert TfidfEncoder(dim=500).encode(dataset).shape == (6, 6)
    np.testing.assert_array_equal(TfidfEncoder(dim=3).encode(dataset), TfidfEncoder(dim=3).encode(dataset))


def test_an_item_without_words_is_zero_and_a_catalogue_without_words_an_error(make_dataset: Any) -> None:
    vectors = TfidfEncoder().encode(make_dataset(texts=["red soap", "", "blue soap"]))
    assert vectors[1].tolist() == [0.0] * vectors.shape[1] and np.isfinite(vectors).all()
    with pytest.raises(GenrecError, match="no words"):
        TfidfEncoder().encode(make_dataset(texts=["", "!"]))


def test_no_text_and_wrong_sizes_are_refused(make_dataset: Any) -> None:
    with pytest.raises(GenrecError, match="encoder=collaborative"):
        TfidfEncoder().encode(make_dataset(has_text=False))
    with pytest.raises(GenrecError, match=r"encoder\.dim"):
        TfidfEncoder(dim=0)


def test_a_large_catalogue_is_coded_by_a_sample_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each item gets what the terms and directions of the sample make of its text, in the order of the items."""
    texts = [f"{colour} {thing} {number % 7}0{number % 7}" for number, (colour, thing) in enumerate(_PAIRS * 20)]
    monkeypatch.setattr(tfidf, "_AT_ONCE", 7)
    monkeypatch.setattr(tfidf, "_SAMPLE", 90)
    vectors = TfidfEncoder(dim=6).encode(_shop(texts))
    assert vectors.shape == (180, 6) and vectors.dtype == np.float32
    drawn = np.sort(np.random.default_rng([0, 17]).permutation(180)[:90])
    options: Any = {"dtype": np.float32}
    terms = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **options)
    directions = TruncatedSVD(6, n_iter=4, random_state=0)
    directions.fit(terms.fit_transform([texts[item] for item in drawn]))
    expected: Any = normalize(directions.transform(terms.transform(texts)))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


_PAIRS = [(colour, thing) for colour in ("red", "blue", "green") for thing in ("shoe", "hat", "coat")]


def _shop(texts: list[str]) -> Any:
    column = Texts(pl.Series(texts), len(texts), lambda item: "")
    return SimpleNamespace(has_text=True, texts=column, num_items=len(texts), name="shop")
