"""RQ-KMeans on a small catalogue."""

import logging
from typing import Any

import numpy as np
import pytest

from genrec.contracts import GenrecError, RunContext
from genrec.tokenizers import quality, rqkmeans
from genrec.tokenizers.features import item_features
from genrec.tokenizers.quality import quality_report
from genrec.tokenizers.rqkmeans import RQKMeans


def fit(catalogue: Any, context: RunContext, **changes: Any) -> Any:
    options = {"codebook_size": 8, "text_dim": 8, "collaborative_dim": 8, **changes}
    return RQKMeans(**options).fit(catalogue.vectors, catalogue.train, context)


def test_codes_are_the_nearest_of_each_level(catalogue: Any, context: RunContext) -> None:
    result = fit(catalogue, context)
    rest = item_features(catalogue.vectors, catalogue.train, text_dim=8, collaborative_dim=8, seed=context.seed)
    assert result.codebooks is not None and len(result.codebooks) == 3
    for level, codebook in enumerate(result.codebooks):
        chosen = ((rest[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
        np.testing.assert_array_equal(result.semantic_ids.codes[:, level], chosen)
        rest = rest - codebook[chosen]


def test_the_first_code_finds_the_planted_kinds(catalogue: Any, context: RunContext) -> None:
    codes = fit(catalogue, context).semantic_ids.codes[:, 0]
    for code in np.unique(codes):
        assert len(np.unique(catalogue.kinds[codes == code])) == 1


def test_equal_seeds_give_equal_ids_and_other_seeds_others(catalogue: Any, context: RunContext) -> None:
    first, second = (fit(catalogue, context).semantic_ids.fingerprint for _ in range(2))
    assert first == second
    context.seed = 4
    assert fit(catalogue, context).semantic_ids.fingerprint != first


def test_report_agrees_with_the_ids(catalogue: Any, context: RunContext) -> None:
    result = fit(catalogue, context, num_levels=2)
    content = result.semantic_ids.codes[:, :2]
    _, counts = np.unique(content, axis=0, return_counts=True)
    assert result.report["unique_share"] == len(counts) / 240
    assert result.report["largest_collision_group"] == counts.max() == result.semantic_ids.codebook_sizes[-1]
    assert result.report["num_colliding_items"] == counts[counts > 1].sum()
    assert 0 < result.report["reconstruction_error"] < 1
    deeper = fit(catalogue, context, num_levels=3).report
    assert deeper["reconstruction_error"] < result.report["reconstruction_error"]
    assert {"usage_rate/level_0", "perplexity/level_1"} <= set(result.report)


def test_balance_limits_the_clusters(catalogue: Any, context: RunContext) -> None:
    codes = fit(catalogue, context, balance=1.0).semantic_ids.codes
    for level in range(3):
        assert np.bincount(codes[:, level], minlength=8).max() == 30  # 240 items on 8 codes


@pytest.mark.parametrize("policy", ["extra_digit", "sinkhorn", "expand"])
def test_every_policy_gives_unique_ids(catalogue: Any, context: RunContext, policy: str) -> None:
    ids = fit(catalogue, context, collisions=policy).semantic_ids
    assert len(np.unique(ids.codes, axis=0)) == ids.num_items == 240
    assert ids.num_levels == (3 if policy == "sinkhorn" else 4)


def test_a_small_catalogue_gets_smaller_codebooks_and_says_so(
    catalogue: Any, context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="genrec.tokenizers"):
        ids = fit(catalogue, context, codebook_size=256).semantic_ids
    assert ids.codebook_sizes[:3] == (60, 60, 60)
    assert "clipped to 60" in caplog.text


@pytest.mark.parametrize("num_items", [1, 2, 5])
def test_tiny_catalogues_work(context: RunContext, num_items: int) -> None:
    from genrec.data.ragged import Ragged

    vectors = np.random.default_rng(0).normal(size=(num_items, 3)).astype(np.float32)
    for policy in ("extra_digit", "sinkhorn"):
        tokenizer = RQKMeans(collaborative_dim=0, collisions=policy)  # pyright: ignore[reportArgumentType]
        ids = tokenizer.fit(vectors, Ragged.from_rows([[0]]), context).semantic_ids
        assert ids.num_items == num_items


def test_identical_items_get_ids_of_their_own(context: RunContext) -> None:
    from genrec.data.ragged import Ragged

    vectors = np.ones((20, 3), np.float32)
    result = RQKMeans(collaborative_dim=0).fit(vectors, Ragged.from_rows([[0]]), context)
    assert result.report["largest_collision_group"] == 20 and np.isfinite(result.report["reconstruction_error"])


def test_the_variance_of_many_items_is_right() -> None:
    """Fault: a sum over rows in float32, which stands still near 2^24."""
    vectors = np.ones((34_000_000, 1), dtype=np.float32)
    vectors[::2] = 3.0
    codes, codebooks = np.zeros((1, 1), dtype=np.int64), [np.zeros((1, 1), dtype=np.float32)]
    report = quality_report(vectors, np.full_like(vectors, 2.0), codes, codebooks)
    assert report["reconstruction_error"] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_levels": 0}, "num_levels"),
        ({"codebook_size": 1}, "codebook_size"),
        ({"balance": 0.5}, "balance"),
        ({"max_iters": 0}, "max_iters"),
        ({"collisions": "none"}, "collisions=none"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        RQKMeans(**wrong)


def test_the_codec_of_a_text_only_tokenizer_gives_its_own_codes(catalogue: Any, context: RunContext) -> None:
    result = fit(catalogue, context, collaborative_dim=0)
    content = result.semantic_ids.codes[:, : result.semantic_ids.num_content_levels]
    assert (result.codec(catalogue.vectors) == content).mean() > 0.99  # assignments of the last Lloyd's step may differ
    assert fit(catalogue, context).codec is None  # of a new item there is no co-occurrence
    assert "codec_agreement" not in result.report


def test_a_codec_without_limits_says_how_often_it_agrees(catalogue: Any, context: RunContext) -> None:
    result = fit(catalogue, context, collaborative_dim=0, balance=1.0)
    content = result.semantic_ids.codes[:, : result.semantic_ids.num_content_levels]
    agreed = (result.codec(catalogue.vectors) == content).all(axis=1).mean()
    assert result.report["codec_agreement"] == pytest.approx(agreed) and 0.1 < agreed < 1


def test_rows_are_added_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, table = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    rows = rng.integers(4, size=20)
    expected = vectors + table[rows]
    monkeypatch.setattr(rqkmeans, "_ITEMS_AT_ONCE", 6)
    rqkmeans._add_rows(vectors, table, rows)
    assert np.array_equal(vectors, expected)


def test_the_share_of_variance_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, rebuilt = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
    codes, books = np.zeros((20, 1), dtype=np.int64), [np.zeros((2, 3), np.float32)]
    whole = ((vectors - rebuilt) ** 2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum()
    monkeypatch.setattr(quality, "_ITEMS_AT_ONCE", 6)
    found = quality.quality_report(vectors, rebuilt, codes, books)["reconstruction_error"]
    assert found == pytest.approx(whole, rel=1e-5)
