"""The graph holds training edges only, its batches what their users did not meet, and its samples real edges."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError, PairBatch
from genrec.data.dataset import Dataset
from genrec.data.graph import Observed, PairPlan
from genrec.data.interactions import DataReport, InteractionLog, SourceData
from genrec.data.ragged import Ragged
from genrec.data.relations import relation_of_column
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser
from genrec.graph import ITEM, USER, Relation, TypedGraph, both_ways
from genrec.nn.neighbours import NeighbourSampler

NUM_ITEMS = 12


class Shop:
    """Twenty users who each played eight distinct items out of twelve, at times of their own."""

    name = "shop"

    def load(self) -> SourceData:
        rng = np.random.default_rng(3)
        items = np.concatenate([rng.permutation(NUM_ITEMS)[:8] for _ in range(20)])
        users = np.repeat(np.arange(20), 8)
        times = np.concatenate([np.sort(rng.integers(0, 1000, 8)) for _ in range(20)])
        table = pl.DataFrame({"item_id": np.arange(NUM_ITEMS), "genres": ["a|b", "b", None, "c"] * 3})
        plays = {"play_count": np.arange(1, 161), "bad": np.zeros(160), "kind": np.array(["buy"] * 160, dtype=object)}
        log = InteractionLog(users, items, np.arange(20), np.arange(NUM_ITEMS), times, plays, table)
        friends = Relation(USER, USER, np.array([0, 1]), np.array([1, 0]), np.ones(2, dtype=np.float32))
        return SourceData(log, DataReport(), None, {"friend_of": friends})


def dataset(split: Any = None, **options: Any) -> Dataset:
    return Dataset(Shop(), split or LeaveOneOut(), **options)


def pairs(rows: Ragged) -> set[tuple[int, int]]:
    return set(zip(rows.row_of_value.tolist(), rows.values.tolist(), strict=True))


# ---- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "split",
    [LeaveOneOut(), RatioPerUser(), RatioPerUser(order="random"), GlobalTime(val_from=0.6, test_from=0.8)],
    ids=["leave_one_out", "ratio_time", "ratio_random", "global_time"],
)
def test_message_passing_over_validation_and_test_edges(split: Any) -> None:
    data = dataset(split, edge_weight="play_count", item_relations={"genres": "|"})
    parts = data.split
    held_out = pairs(parts.val) | pairs(parts.test)
    assert held_out and not held_out & pairs(parts.train)
    graph = data.view("graph").graph.hetero()
    plays = dict(zip(zip(data.log.users.tolist(), data.log.items.tolist(), strict=True), range(1, 161), strict=True))
    for key, flip in (((USER, "interacts", ITEM), False), ((ITEM, "rev_interacts", USER), True)):
        index = graph[key].edge_index.flip(0) if flip else graph[key].edge_index
        edges = list(map(tuple, index.T.tolist()))
        assert set(edges) == pairs(parts.train) and len(edges) == len(parts.train.values)
        assert graph[key].edge_attr[:, 0].tolist() == [plays[edge] for edge in edges]
    for key in graph.edge_types:
        if {key[0], key[2]} == {USER, ITEM}:
            assert key[1] in ("interacts", "rev_interacts")


def test_node_ids_of_two_types_without_offsets() -> None:
    """Nodes are numbered within their type, and an edge names both types: song 3 is never taken for user 3."""
    graph = dataset(item_relations={"genres": "|"}).graph
    assert graph.num_nodes == {USER: 20, ITEM: NUM_ITEMS, "genres": 3}
    assert graph.names("genres") == ["a", "b", "c"]
    data = graph.hetero()
    assert set(data.edge_types) == {
        (USER, "interacts", ITEM),
        (ITEM, "rev_interacts", USER),
        (USER, "friend_of", USER),
        (ITEM, "has_genres", "genres"),
        ("genres", "rev_has_genres", ITEM),
    }
    data.validate()
    index = data[ITEM, "has_genres", "genres"].edge_index
    assert sorted(map(tuple, index[:, index[0] < 4].T.tolist())) == [(0, 0), (0, 1), (1, 1), (3, 2)]


def test_features_belong_to_the_nodes_of_their_type() -> None:
    vectors = np.arange(24.0).reshape(NUM_ITEMS, 2)
    assert dataset().graph.hetero({ITEM: vectors})[ITEM].x.tolist() == vectors.tolist()
    with pytest.raises(ValueError, match="12 features were given for 20 nodes of 'user'"):
        dataset().graph.hetero({USER: vectors})


def test_relations_of_a_column_are_trimmed_distinct_and_in_alphabetical_order() -> None:
    found = relation_of_column(pl.Series(["b , a", "", None, "a,a"]), source=ITEM, target="tag", separator=",")
    assert found.names == ["a", "b"]
    assert sorted(zip(found.sources.tolist(), found.targets.tolist(), strict=True)) == [(0, 0), (0, 1), (3, 0)]
    whole = relation_of_column(pl.Series(["x,y", "x,y"]), source=ITEM, target="tag")
    assert whole.names == ["x,y"] and len(whole) == 2


def test_lists_of_values_are_values() -> None:
    found = relation_of_column(pl.Series([["b", "a"], [], None, ["a"]]), source=ITEM, target="tag")
    assert found.names == ["a", "b"] and found.sources.tolist() == [0, 0, 3]


def relation(target: str, names: list[str], ends: list[int]) -> Relation:
    return Relation(ITEM, target, np.arange(len(ends)), np.array(ends), np.ones(len(ends)), names)


@pytest.mark.parametrize(
    ("relations", "message"),
    [
        ({"has_user": relation("user", ["ann"], [0])}, "users are those of the data"),
        ({"a": relation("tag", ["x"], [0]), "b": relation("tag", ["y"], [0])}, "Two relations name the nodes"),
        ({"a": relation("tag", ["x"], [0, 1])}, "an edge outside of the 1 nodes of tag"),
        ({"a": relation("a.b", ["x"], [0])}, "no dot"),
    ],
)
def test_relations_that_would_mix_nodes_up_are_refused(relations: dict[str, Relation], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        TypedGraph(Ragged.from_rows([[0, 1]]), 3, None, relations)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge_weight": "plays"}, "data.edge_weight=plays: shop has no such column. It has: play_count, bad"),
        ({"edge_weight": "bad"}, "must be above 0"),
        ({"edge_weight": "kind"}, "must be above 0"),
        ({"item_relations": {"artist": None}}, "data.item_relations.artist: shop has no such column of items"),
    ],
)
def test_columns_that_are_not_there_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        _ = dataset(**options).graph


def test_the_fingerprint_depends_on_edges_and_weights() -> None:
    plain, weighted = dataset().view("graph"), dataset(edge_weight="play_count").view("graph")
    assert plain.fingerprint == dataset().view("graph").fingerprint != weighted.fingerprint


# ---- batches --------------------------------------------------------------------------------------------------------


def plan(train: Ragged, num_items: int = NUM_ITEMS, **options: Any) -> PairPlan:
    given: dict[str, Any] = {"num_negatives": 3, "sampling": "uniform", "batch_size": 7, "seed": 1, "epoch": 1}
    return PairPlan(train, Observed(train, num_items), **{**given, **options})


def test_observed_is_what_was_met() -> None:
    train = dataset().split.train
    users, items = np.meshgrid(np.arange(20), np.arange(NUM_ITEMS), indexing="ij")
    met = pairs(train)
    expected = [[(u, i) in met for i in range(NUM_ITEMS)] for u in range(20)]
    assert Observed(train, NUM_ITEMS)(users, items).tolist() == expected
    assert not Observed(Ragged.from_rows([[], []]), 5)(np.array([0, 1]), np.array([2, 4])).any()


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_an_epoch_has_every_edge_once_and_negatives_are_really_unseen(sampling: str) -> None:
    train = dataset().split.train
    batches = [plan(train, sampling=sampling)[index] for index in range(len(plan(train)))]
    edges = [edge for b in batches for edge in zip(b.users.tolist(), b.positives.tolist(), strict=True)]
    assert len(edges) == len(set(edges)) == len(train.values) and set(edges) == pairs(train)
    met = pairs(train)
    for batch in batches:
        assert batch.negatives.shape == (len(batch.users), 3)
        for user, row in zip(batch.users.tolist(), batch.negatives.tolist(), strict=True):
            assert all((user, item) not in met for item in row)


def test_batches_are_a_function_of_seed_epoch_and_index() -> None:
    train = dataset().split.train

    def batch(**options: Any) -> list[Any]:
        found: PairBatch = plan(train, **options)[2]
        return [found.users.tolist(), found.positives.tolist(), found.negatives.tolist()]

    assert batch() == batch() and batch() != batch(epoch=2) and batch() != batch(seed=2)


def test_popular_items_are_drawn_by_the_three_quarter_power_of_their_counts() -> None:
    train = Ragged.from_rows([[0]] * 16 + [[1]] + [[]] * 3000)
    drawn = plan(train, num_items=3, sampling="popularity")._draw(200_000, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx([8 / 9, 1 / 9, 0.0], abs=0.004)


def test_a_user_who_met_everything_does_not_stop_the_plan() -> None:
    train = Ragged.from_rows([[0, 1, 2], [0]])
    found = plan(train, num_items=3, batch_size=10)[0]
    rows = found.users == 1
    assert set(found.negatives[rows].flatten().tolist()) <= {1, 2}


def test_the_view_asks_the_model_for_its_negatives() -> None:
    loss = SimpleNamespace(num_negatives=5, sampling="uniform")
    view = dataset().view("graph")
    model = SimpleNamespace(training_mode="pairs", pair_loss=loss)
    assert view.train_plan(model, batch_size=16, seed=0, epoch=1)[0].negatives.shape == (16, 5)
    with pytest.raises(IndexError):
        view.train_plan(model, batch_size=16, seed=0, epoch=1)[100]


# ---- neighbourhoods -------------------------------------------------------------------------------------------------


def typed() -> TypedGraph:
    return dataset(item_relations={"genres": "|"}).graph


def test_enough_neighbours_are_the_whole_neighbourhood() -> None:
    graph = typed()
    edges = {key: index for key, (index, _) in both_ways(graph).items()}
    sampler = NeighbourSampler(edges, graph.num_nodes, [100])
    seeds = {USER: np.array([4, 2]), ITEM: np.array([7])}
    found = sampler.sample(seeds)
    assert found.nodes[USER][:2].tolist() == [4, 2] and found.nodes[ITEM][0] == 7
    for key, (index, places) in found.edges.items():
        whole = edges[key]
        assert set(places.tolist()) == set(np.flatnonzero(np.isin(whole[1], seeds.get(key[2], []))).tolist())
        assert found.nodes[key[0]][index[0]].tolist() == whole[0, places].tolist()
        assert found.nodes[key[2]][index[1]].tolist() == whole[1, places].tolist()


def test_a_fanout_bounds_the_incoming_edges_of_each_node_and_hops_reach_further() -> None:
    graph = typed()
    edges = {key: index for key, (index, _) in both_ways(graph).items()}
    np.random.seed(0)
    found = NeighbourSampler(edges, graph.num_nodes, [2, 1]).sample({USER: np.array([0])})
    for key, (index, places) in found.edges.items():
        assert len(np.unique(places)) == len(places)
        if index.size:
            assert np.bincount(index[1]).max() <= 2, key
    assert len(found.nodes[USER]) > 1 and len(found.nodes["genres"]) > 0
    assert all(len(np.unique(nodes)) == len(nodes) for nodes in found.nodes.values())


def test_a_model_that_looks_at_no_graph_has_none_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def relation(*args: Any, **options: Any) -> Relation:
        built.append(options["target"])
        return relation_of_column(*args, **options)

    monkeypatch.setattr("genrec.data.dataset.relation_of_column", relation)
    data = dataset(item_relations={"genres": "|"})
    spec = replace(data.spec, num_users=7)
    assert isinstance(spec.graph, TypedGraph) and built == []
    assert spec.graph.num_nodes == data.graph.num_nodes and built == ["genres"]
    assert spec.graph.edges.keys() == data.graph.edges.keys() and spec.graph.fingerprint == data.graph.fingerprint
    assert spec.graph.train is data.graph.train and spec.graph.num_items == data.graph.num_items
    assert spec.graph.train_weights is None and spec.graph.names("genres") == data.graph.names("genres")
    assert both_ways(spec.graph).keys() == both_ways(data.graph).keys() and built == ["genres"]
