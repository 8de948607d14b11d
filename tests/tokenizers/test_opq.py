"""OPQ semantic IDs on a small catalogue."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from genrec.contracts import GenrecError, RunContext
from genrec.data.ragged import Ragged
from genrec.nn.product_quantizer import ProductQuantizer, optimised_product_quantizer
from genrec.tokenizers import opq
from genrec.tokenizers.features import item_features
from genrec.tokenizers.opq import OPQ, nearest_free_codes, whitened


def fit(catalogue: Any, context: RunContext, **changes: Any) -> Any:
    options = {"num_levels": 6, "codebook_size": 8, "text_dim": 8, "collaborative_dim": 8, "max_iters": 5, **changes}
    return OPQ(**options).fit(catalogue.vectors, catalogue.train, context)


def test_every_code_is_the_nearest_whatever_the_others_are(catalogue: Any, context: RunContext) -> None:
    """The parts that the digits stand for are orthogonal, so each is chosen for itself."""
    result = fit(catalogue, context, codebook_size=40)
    features = item_features(catalogue.vectors, catalogue.train, text_dim=8, collaborative_dim=8, seed=context.seed)
    assert result.codebooks is not None and len(result.codebooks) == 6
    assert result.report["unique_share"] == 1.0  # else an item might have moved
    for level, codebook in enumerate(result.codebooks):
        chosen_parts = [result.codebooks[m][result.semantic_ids.codes[:, m]] for m in range(6) if m != level]
        others = np.sum(chosen_parts, axis=0)
        distances = ((features[:, None] - others[:, None] - codebook[None]) ** 2).sum(-1)
        chosen = np.take_along_axis(distances, result.semantic_ids.codes[:, level, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen, distances.min(1), atol=1e-5)


def test_ids_are_all_content_and_unique(catalogue: Any, context: RunContext) -> None:
    ids = fit(catalogue, context, num_levels=2, codebook_size=16).semantic_ids
    assert ids.codebook_sizes == (16, 16) and ids.num_content_levels == ids.num_levels == 2
    assert len(np.unique(ids.codes, axis=0)) == 240


def test_more_digits_than_an_integer_can_number(catalogue: Any, context: RunContext) -> None:
    ids = fit(catalogue, context, num_levels=32, codebook_size=256).semantic_ids
    assert ids.codebook_sizes == (60,) * 32
    assert ids.items_of(ids.codes).tolist() == list(range(240))


def test_equal_seeds_give_equal_ids_and_other_seeds_others(catalogue: Any, context: RunContext) -> None:
    first, second = (fit(catalogue, context).semantic_ids.fingerprint for _ in range(2))
    assert first == second
    context.seed = 4
    assert fit(catalogue, context).semantic_ids.fingerprint != first


def test_report_agrees_with_the_codes_before_items_moved(catalogue: Any, context: RunContext) -> None:
    report = fit(catalogue, context, num_levels=3).report
    assert 0 < report["reconstruction_error"] < 1 and report["num_colliding_items"] > 0
    assert fit(catalogue, context).report["reconstruction_error"] < report["reconstruction_error"]


def test_whitened_components_weigh_the_same() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 4)) @ generator.normal(size=(4, 6)) + 3  # two dimensions say nothing new
    components = whitened(features.astype(np.float32))
    assert components.shape == (50, 4)
    np.testing.assert_allclose(np.cov(components.T, bias=True), np.eye(4), atol=1e-4)


def test_whitening_changes_the_ids(catalogue: Any, context: RunContext) -> None:
    assert (
        fit(catalogue, context, whiten=True).semantic_ids.fingerprint
        != fit(catalogue, context).semantic_ids.fingerprint
    )


def test_a_taken_id_moves_its_item_to_the_nearest_free_one() -> None:
    """Against all IDs of a small code space, each item in turn."""
    points = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * 0.4
    quantizer = optimised_product_quantizer(points, 3, 4, max_iters=3)
    wanted = quantizer.encode(points).numpy()
    found = nearest_free_codes(wanted, points, quantizer)
    everything = np.array(list(itertools.product(range(4), repeat=3)))
    rebuilt = quantizer.decode(torch.from_numpy(everything)).numpy()
    keeps = np.zeros(40, bool)
    keeps[np.unique(wanted, axis=0, return_index=True)[1]] = True
    np.testing.assert_array_equal(found[keeps], wanted[keeps])
    taken = {tuple(row) for row in wanted[keeps]}
    assert (~keeps).sum() > 5
    for item in np.flatnonzero(~keeps):
        cost = ((rebuilt - points[item].numpy()) ** 2).sum(1)
        free = [index for index, row in enumerate(everything.tolist()) if tuple(row) not in taken]
        own = int(np.flatnonzero((everything == found[item]).all(1))[0])
        assert own in free and cost[own] == pytest.approx(cost[free].min(), abs=1e-5)
        taken.add(tuple(found[item].tolist()))


def test_as_many_items_as_ids_fit_and_one_more_does_not() -> None:
    quantizer = ProductQuantizer(torch.eye(2), torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]]]))
    codes = np.zeros((4, 2), dtype=np.int64)
    found = nearest_free_codes(codes, torch.zeros(4, 2), quantizer)
    assert found.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]  # at distances 0, 1, 4, 5
    with pytest.raises(GenrecError, match="5 items need"):
        nearest_free_codes(np.zeros((5, 2), dtype=np.int64), torch.zeros(5, 2), quantizer)


@pytest.mark.parametrize("num_items", [1, 2, 5])
def test_tiny_catalogues_work(context: RunContext, num_items: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(num_items, 3)).astype(np.float32)
    for whiten in (False, True):
        tokenizer = OPQ(collaborative_dim=0, num_levels=4, whiten=whiten)
        assert tokenizer.fit(vectors, Ragged.from_rows([[0]]), context).semantic_ids.num_items == num_items


def test_identical_items_get_ids_of_their_own(context: RunContext) -> None:
    vectors = np.ones((20, 3), np.float32)
    result = OPQ(collaborative_dim=0, num_levels=4).fit(vectors, Ragged.from_rows([[0]]), context)
    assert result.report["largest_collision_group"] == 20 and np.isfinite(result.report["reconstruction_error"])
    assert len(np.unique(result.semantic_ids.codes, axis=0)) == 20


def test_equal_items_are_numbered_in_the_order_of_cost_and_in_one_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds of equal items whose IDs lie beside each other; each ID is looked at once by each kind."""
    quantizer = ProductQuantizer(torch.eye(2), torch.arange(64.0)[None, :, None].repeat(2, 1, 1))
    points = torch.tensor([[5.2, 9.1], [5.4, 9.3]]).repeat(1000, 1)
    walked: list[int] = []
    walk = opq._by_cost

    def counted(costs: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
        for row in walk(costs, dtype):
            walked.append(1)
            yield row

    monkeypatch.setattr(opq, "_by_cost", counted)
    monkeypatch.setattr(opq, "_MOVING_AT_ONCE", 300)
    found = nearest_free_codes(quantizer.encode(points).numpy(), points, quantizer)
    assert len(walked) <= 2 * len(points)
    everything = np.array(list(itertools.product(range(64), repeat=2)))
    for item in (2, 3, 500, 1999):
        before = {tuple(row) for row in found[:item].tolist()}
        cost = ((everything - points[item].numpy()) ** 2).sum(1)
        free = [place for place, row in enumerate(everything.tolist()) if tuple(row) not in before]
        own = ((found[item] - points[item].numpy()) ** 2).sum()
        assert own == pytest.approx(cost[free].min(), abs=1e-4)
    assert len(np.unique(found, axis=0)) == len(points)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"num_levels": 0}, "num_levels"), ({"codebook_size": 1}, "codebook_size"), ({"max_iters": 0}, "max_iters")],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        OPQ(**wrong)
