"""Every policy gives every item an ID of its own, whatever the quantiser did."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.contracts import GenrecError
from genrec.tokenizers.collisions import POLICIES, _crowded_nodes, count_within_groups, resolve_collisions, spread_codes


def make(num_items: int, num_codes: int, num_levels: int, crowd: int, seed: int) -> tuple[np.ndarray, np.ndarray, list]:
    """Codes below ``crowd`` only, so that small values of it collide much."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, min(crowd, num_codes), size=(num_items, num_levels))
    vectors = generator.normal(size=(num_items, 3)).astype(np.float32)
    return codes, vectors, [generator.normal(size=(num_codes, 3)).astype(np.float32) for _ in range(num_levels)]


@pytest.mark.parametrize("room", [1, 3])
def test_crowded_nodes_are_those_with_a_child_that_too_many_want(room: int) -> None:
    prefixes = np.random.default_rng(0).integers(0, 6, size=(150, 3))
    for levels in (1, 2, 3):
        children = Counter(map(tuple, prefixes[:, :levels].tolist()))
        crowded = {child[:-1] for child, count in children.items() if count > room}
        found = _crowded_nodes(prefixes[:, :levels], room)
        nodes = [{tuple(row) for row in prefixes[items, : levels - 1].tolist()} for items in found]
        assert [len(node) for node in nodes] == [1] * len(crowded) and set().union(*nodes) == crowded
        inside = [place for place, row in enumerate(prefixes.tolist()) if tuple(row[: levels - 1]) in crowded]
        assert sorted(np.concatenate(found).tolist()) == inside
    assert _crowded_nodes(prefixes, 150) == []


@settings(max_examples=60)
@given(
    num_items=st.integers(1, 60),
    num_codes=st.integers(2, 5),
    num_levels=st.integers(1, 3),
    crowd=st.integers(1, 5),
    seed=st.integers(0, 99),
    policy=st.sampled_from(POLICIES),
)
def test_ids_are_unique_under_every_policy(
    num_items: int, num_codes: int, num_levels: int, crowd: int, seed: int, policy: str
) -> None:
    codes, vectors, codebooks = make(num_items, num_codes, num_levels, crowd, seed)
    popularity = np.random.default_rng(seed).integers(0, 4, num_items)
    arguments = {"vectors": vectors, "codebooks": codebooks, "popularity": popularity}
    if policy == "sinkhorn" and num_items > num_codes**num_levels:
        with pytest.raises(GenrecError, match=f"{num_items} items"):
            resolve_collisions(policy, codes, **arguments)
        return
    ids = resolve_collisions(policy, codes, **arguments)
    assert len(np.unique(ids.codes, axis=0)) == num_items
    assert ids.num_content_levels == num_levels
    assert ids.num_levels == num_levels + (policy != "sinkhorn")
    if policy != "sinkhorn":
        np.testing.assert_array_equal(ids.codes[:, :num_levels], codes)


def test_extra_digit_counts_in_the_order_of_the_items_and_is_there_without_collisions() -> None:
    codebooks = [np.zeros((4, 1), np.float32)]
    arguments = {"vectors": np.zeros((5, 1)), "codebooks": codebooks, "popularity": np.array([0, 9, 5, 5, 7])}
    ids = resolve_collisions("extra_digit", np.array([[2], [1], [2], [2], [0]]), **arguments)
    assert ids.codes.tolist() == [[2, 0], [1, 0], [2, 1], [2, 2], [0, 0]] and ids.codebook_sizes == (4, 3)
    arguments = {key: value[:2] if key != "codebooks" else value for key, value in arguments.items()}
    assert resolve_collisions("extra_digit", np.array([[0], [1]]), **arguments).codebook_sizes == (4, 1)


def test_expand_counts_the_most_popular_first() -> None:
    ids = resolve_collisions(
        "expand",
        np.array([[2], [1], [2], [2], [2]]),
        vectors=np.zeros((5, 1)),
        codebooks=[np.zeros((4, 1), np.float32)],
        popularity=np.array([1, 9, 5, 8, 5]),
    )
    assert ids.codes[:, 1].tolist() == [3, 0, 1, 0, 2]  # ties by item index


def test_count_within_groups_follows_the_order() -> None:
    codes = np.array([[1, 1], [0, 0], [1, 1], [0, 0], [1, 1]])
    assert count_within_groups(codes, np.array([4, 3, 2, 1, 0])).tolist() == [2, 1, 1, 0, 0]


def test_sinkhorn_leaves_unique_items_alone_and_keeps_the_nearest_of_a_crowd() -> None:
    codebook = np.array([[0.0], [1.0], [2.0], [3.0]])
    vectors = np.array([[0.1], [0.0], [2.1], [0.3]])
    codes = spread_codes(np.array([[0], [0], [2], [0]]), vectors, [codebook])
    assert codes[:, 0].tolist()[1:3] == [0, 2]
    assert sorted(codes[:, 0].tolist()) == [0, 1, 2, 3]
    # Codes 1 and 3 are free for 0.1 and 0.3: (0.1-1)^2 + (0.3-3)^2 = 8.10 beats (0.1-3)^2 + (0.3-1)^2 = 8.90.
    assert codes[[0, 3], 0].tolist() == [1, 3]


def test_sinkhorn_is_optimal_within_a_prefix() -> None:
    generator = np.random.default_rng(2)
    codebooks = [np.zeros((1, 2)), generator.normal(size=(6, 2))]
    vectors = generator.normal(size=(4, 2))
    codes = spread_codes(np.zeros((4, 2), dtype=np.int64), vectors, codebooks)
    cost = ((vectors[:, None] - codebooks[1][None]) ** 2).sum(-1)
    keeper = cost[:, 0].argmin()
    movers = [item for item in range(4) if item != keeper]
    best = min(
        (sum(cost[item, code] for item, code in zip(movers, chosen, strict=True)), chosen)
        for chosen in itertools.permutations(range(1, 6), 3)
    )
    assert codes[keeper, 1] == 0
    assert codes[movers, 1].tolist() == list(best[1])


def test_sinkhorn_moves_items_to_another_prefix_when_one_overflows() -> None:
    codebooks = [np.array([[0.0], [10.0]]), np.array([[0.0], [1.0]])]
    vectors = np.array([[0.0], [1.0], [0.5], [4.0]])
    codes = spread_codes(np.zeros((4, 2), dtype=np.int64), vectors, codebooks)
    assert len(np.unique(codes, axis=0)) == 4
    assert codes[3, 0] == 1 and codes[0, 0] == 0  # the farthest of the crowd leaves, the nearest stays


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(GenrecError, match="extra_digit, sinkhorn, expand"):
        resolve_collisions("hash", np.zeros((1, 1)), vectors=np.zeros((1, 1)), codebooks=[], popularity=np.zeros(1))
