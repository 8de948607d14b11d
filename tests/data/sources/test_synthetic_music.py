from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genrec.config import compose_config
from genrec.contracts import GenrecError, Recommendations
from genrec.data.dataset import Dataset
from genrec.data.sources.synthetic_music import SyntheticMusicSource, _draw_without_replacement
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser
from genrec.models.item_knn import ItemKNN
from genrec.models.popularity import Popularity
from genrec.trainers.evaluation import evaluate_retrieval

SPLITS = {
    "latest": RatioPerUser(),
    "random": RatioPerUser(order="random"),
    "leave_one_out": LeaveOneOut(),
    "global_time": GlobalTime(),
}
SMALL = {"num_users": 30, "num_items": 80, "num_artists": 12, "num_genres": 4, "mean_length": 15.0, "min_length": 6}
K_VALUES = (1, 5, 10, 20)


class Oracle:
    """Ranks by the true preferences, without anything of this repository that ranks."""

    def __init__(self, source: SyntheticMusicSource) -> None:
        self.source = source

    def recommend(self, batch, k):
        scores = torch.from_numpy(self.source.listening.probabilities(batch.users.numpy()))
        for row, seen in zip(scores, batch.seen.tolist(), strict=True):
            row[[item for item in seen if item >= 0]] = -torch.inf
        best = scores.topk(k, dim=1)
        return Recommendations(best.indices, best.values)


@pytest.fixture(scope="module")
def dataset():
    return Dataset(SyntheticMusicSource(), RatioPerUser(), edge_weight="play_count")


@pytest.fixture(scope="module")
def relations(dataset):
    return dataset.loaded.relations


def with_split(dataset, split) -> Any:
    """The data once drawn, under another split."""
    other = Dataset(dataset.source, split)
    other.__dict__["loaded"] = dataset.loaded
    return other


def recalls(model, dataset, part="test"):
    found = evaluate_retrieval(
        model, dataset.sequences, part, k_values=K_VALUES, filter_seen=True, batch_size=100, progress=False
    )
    return {name: value for name, value in found.items() if "recall@" in name}


# ---- the ceiling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_the_ceiling_is_what_evaluation_measures_of_the_oracle(dataset, split):
    data = with_split(dataset, SPLITS[split])
    expected = {**recalls(Oracle(data.source), data, "val"), **recalls(Oracle(data.source), data, "test")}
    assert len(expected) == 8
    assert data.ceiling == pytest.approx(expected, abs=1e-12)


def test_the_ceiling_agrees_with_the_expected_recall_of_the_next_song(dataset):
    """Leave-one-out holds out the song drawn next: recall@k is expected to be the sum of the k largest chances."""
    data = with_split(dataset, LeaveOneOut())
    chances = data.source.listening.probabilities(np.arange(data.num_users))
    for user, known in enumerate(data.sequences.history("test")):
        chances[user, known] = 0.0
    largest = -np.sort(-chances / chances.sum(axis=1, keepdims=True), axis=1)
    for k in K_VALUES:
        mean = largest[:, :k].sum(axis=1).mean()
        error = np.sqrt(mean * (1 - mean) / data.num_users)
        assert data.ceiling[f"test/recall@{k}"] == pytest.approx(mean, abs=4 * error)


@pytest.mark.parametrize("split", ["latest", "random"])
def test_no_noise_improves_on_the_oracle(dataset, split):
    """Averaged over many disturbed rankings, so that chance does not help one of them."""
    data = with_split(dataset, SPLITS[split])
    truth = np.log(data.source.listening.probabilities(np.arange(data.num_users)))
    history, targets = data.sequences.history("test"), data.split.test
    is_target = np.zeros(truth.shape, dtype=bool)
    is_target[targets.row_of_value, targets.values] = True
    truth[history.row_of_value, history.values] = -np.inf
    generator = np.random.default_rng(0)
    means = []
    for noise in (0.3, 1.0, 3.0):
        found = []
        for _ in range(5):
            lists = np.argsort(-(truth + noise * generator.normal(size=truth.shape)), axis=1)[:, :10]
            hits = np.take_along_axis(is_target, lists, axis=1).sum(axis=1)
            found.append((hits / targets.lengths).mean())
        means.append(np.mean(found))
    assert data.ceiling["test/recall@10"] > means[0] > means[1] > means[2]


@pytest.mark.parametrize("split", ["latest", "random", "leave_one_out"])
def test_baselines_leave_room_below_the_ceiling(dataset, split):
    """The popular are far below what co-occurrence finds, and that is below the ceiling."""
    data = with_split(dataset, SPLITS[split])
    ceiling = data.ceiling["test/recall@10"]
    popularity = recalls(Popularity(data.spec), data)["test/recall@10"]
    textbook = ItemKNN(data.spec, similarity="cosine", distance_weight="none", direction="both", window=None, decay=1.0)
    item_knn = recalls(textbook, data)["test/recall@10"]
    assert 0.2 * ceiling < popularity < 0.45 * ceiling
    assert 1.5 * popularity < item_knn < 0.95 * ceiling


def test_a_part_without_users_has_no_ceiling(dataset):
    data = with_split(dataset, RatioPerUser(train_ratio=0.8, val_ratio=0.0, test_ratio=0.2))
    assert sorted(data.ceiling) == sorted(f"test/recall@{k}" for k in K_VALUES)


def test_a_list_longer_than_the_catalogue_finds_everything():
    source = SyntheticMusicSource(**SMALL)
    data = Dataset(source, LeaveOneOut())
    assert source.ceiling(data.log, data.split, (500,)) == {"val/recall@500": 1.0, "test/recall@500": 1.0}


# ---- the process ----------------------------------------------------------------------------------------------------


def test_probabilities_follow_the_definition():
    """One user worked out from the mixture in plain Python."""
    source = SyntheticMusicSource(**SMALL, num_favourites=3)
    true, user = source.listening, 7
    popularity, genre, artist = true.popularity.tolist(), true.genre.tolist(), true.artist.tolist()
    favourites = set(true.favourites[user].tolist())
    explore = true.explore[user]
    of_favourites = sum(weight for weight, who in zip(popularity, artist, strict=True) if who in favourites)
    expected = []
    for weight, kind, who in zip(popularity, genre, artist, strict=True):
        of_genre = sum(other for other, its_kind in zip(popularity, genre, strict=True) if its_kind == kind)
        liked = weight / of_favourites if who in favourites else 0.0
        by_genre = true.taste[user, kind] * weight / of_genre
        expected.append((1 - 0.3 - explore) * by_genre + 0.3 * liked + explore * weight)
    found = true.probabilities(np.array([3, user]))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.sum() == pytest.approx(1.0)


def test_draws_follow_their_weights_one_after_the_other():
    weights = np.array([0.5, 0.3, 0.2])
    draws = _draw_without_replacement(np.tile(weights, (100_000, 1)), 2, np.random.default_rng(1))
    for first in range(3):
        for second in set(range(3)) - {first}:
            share = ((draws[:, 0] == first) & (draws[:, 1] == second)).mean()
            assert share == pytest.approx(weights[first] * weights[second] / (1 - weights[first]), abs=0.006)


def test_habits_differ_within_their_bounds(dataset):
    explore = dataset.source.listening.explore
    assert explore.min() >= 0.05 and explore.max() <= 0.15
    assert explore.mean() == pytest.approx(0.1, abs=0.005)
    favourites = dataset.source.listening.favourites
    assert favourites.shape == (800, 5)
    assert all(len(set(row)) == 5 for row in favourites.tolist())


# ---- the log --------------------------------------------------------------------------------------------------------


def test_shapes_and_counts(dataset):
    log = dataset.log
    assert (log.num_users, log.num_items) == (800, 1200)
    assert log.columns == ["user_id", "item_id", "timestamp", "play_count"]
    lengths = np.bincount(log.users, minlength=800)
    assert lengths.min() >= 10
    assert lengths.mean() == pytest.approx(40, abs=3)
    assert dataset.report.counts == {"users": 800, "items": 1200, "interactions": len(log)}


def test_nobody_meets_a_song_twice(dataset):
    pairs = dataset.log.users * dataset.num_items + dataset.log.items
    assert len(np.unique(pairs)) == len(pairs)


def test_times_rise_within_each_user_and_come_in_sessions(dataset):
    steps = np.diff(dataset.log.timestamps)[np.diff(dataset.log.users) == 0]
    assert (steps > 0).all()
    assert not ((steps >= 600) & (steps < 3600)).any()
    assert (steps < 600).mean() == pytest.approx(5 / 6, abs=0.03)


def test_play_counts_tell_what_fits(dataset):
    log = dataset.log
    plays = log.extras["play_count"]
    assert plays.dtype == np.int64 and plays.min() == 1
    assert plays.mean() == pytest.approx(7, abs=0.1)
    chances = dataset.source.listening.probabilities(np.arange(log.num_users))[log.users, log.items]
    means = np.bincount(log.users, weights=chances) / np.bincount(log.users)
    fits = chances > means[log.users]
    assert plays[fits].mean() > 3 * plays[~fits].mean()


# ---- songs, artists, genres, friends --------------------------------------------------------------------------------


def test_songs_have_readable_distinct_titles(dataset):
    table = dataset.log.item_table
    assert table.columns == ["item_id", "title", "artist", "genre", "text"]
    assert len(set(dataset.titles)) == 1200
    assert (table["artist"].n_unique(), table["genre"].n_unique()) == (120, 12)
    assert dataset.texts[5] == "{title}. {artist}. {genre}".format(**table.row(5, named=True))
    assert all(len(title.split()) == 2 and title.istitle() for title in dataset.titles)


def test_relations_say_what_the_item_table_says(dataset, relations):
    table = dataset.log.item_table
    for name, column in (("performed_by", "artist"), ("has_genre", "genre")):
        relation = relations[name]
        assert (relation.source, relation.target) == ("item", column)
        np.testing.assert_array_equal(np.sort(relation.sources), np.arange(1200))
        named = [relation.names[target] for target in relation.targets[np.argsort(relation.sources)].tolist()]
        assert named == table[column].to_list()


def test_artists_keep_to_a_main_genre_and_sometimes_stray(dataset):
    true = dataset.source.listening
    counts = np.zeros((120, 12))
    np.add.at(counts, (true.artist, true.genre), 1)
    assert counts.sum(axis=1).min() >= 1
    assert counts.max(axis=1).sum() / counts.sum() == pytest.approx(1 - 0.15 * 11 / 12, abs=0.04)
    assert (np.bincount(true.genre, minlength=12) > 0).all()


def test_friends_are_listed_both_ways(dataset, relations):
    friends = relations["friend_of"]
    pairs = list(zip(friends.sources.tolist(), friends.targets.tolist(), strict=True))
    assert (friends.source, friends.target, friends.names) == ("user", "user", [])
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(second, first) for first, second in pairs}
    assert all(first != second for first, second in pairs)
    assert np.bincount(friends.sources, minlength=800).min() >= 4


def test_friends_are_more_alike_than_others(dataset, relations):
    roots = np.sqrt(dataset.source.listening.artist_shares)
    friends = relations["friend_of"]
    alike = (roots[friends.sources] * roots[friends.targets]).sum(axis=1)
    generator = np.random.default_rng(0)
    first, second = generator.integers(800, size=(2, 5000))
    others = (roots[first] * roots[second])[first != second].sum(axis=1)
    assert alike.mean() > others.mean() + 0.15

    anyone = SyntheticMusicSource(**SMALL, homophily=0.0, num_friends=3)
    roots = np.sqrt(anyone.listening.artist_shares)
    friends = anyone.load().relations["friend_of"]
    alike = (roots[friends.sources] * roots[friends.targets]).sum(axis=1)
    assert alike.mean() == pytest.approx((roots @ roots.T)[~np.eye(30, dtype=bool)].mean(), abs=0.1)


def test_friends_do_not_depend_on_what_was_played(relations):
    longer = SyntheticMusicSource(mean_length=60.0).load().relations["friend_of"]
    np.testing.assert_array_equal(relations["friend_of"].sources, longer.sources)
    np.testing.assert_array_equal(relations["friend_of"].targets, longer.targets)


def test_no_friends_no_relation():
    assert sorted(SyntheticMusicSource(**SMALL, num_friends=0).load().relations) == ["has_genre", "performed_by"]


def test_the_graph_has_all_kinds_of_nodes(dataset):
    assert dataset.graph.num_nodes == {"user": 800, "item": 1200, "artist": 120, "genre": 12}


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_sizes_and_seed():
    log = SyntheticMusicSource(**SMALL, seed=3).load().log
    assert (log.num_users, log.num_items) == (30, 80)
    assert np.bincount(log.users).min() >= 6
    assert log.fingerprint == SyntheticMusicSource(**SMALL, seed=3).load().log.fingerprint
    assert log.fingerprint != SyntheticMusicSource(**SMALL, seed=4).load().log.fingerprint


def test_the_same_in_every_process(dataset):
    code = (
        "from genrec.data.sources.synthetic_music import SyntheticMusicSource; "
        "print(SyntheticMusicSource().load().log.fingerprint)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == dataset.log.fingerprint


def test_names_that_run_out_are_numbered():
    source = SyntheticMusicSource(num_users=5, num_items=1700, num_artists=300, num_genres=20, num_friends=0)
    table = source.load().log.item_table
    assert table is not None
    assert table["title"].n_unique() == 1700
    assert (table["artist"].n_unique(), table["genre"].n_unique()) == (300, 20)


@pytest.mark.parametrize(
    "extreme",
    [
        {"num_artists": 1, "num_genres": 1, "num_favourites": 1},
        {"taste_concentration": 1e-3, "explore_share": 1e-6},
        {"artist_share": 0.0, "popularity_exponent": 0.0, "stray_share": 1.0},
        {"mean_length": 80.0, "min_length": 80},
        {"session_length": 1, "mean_replays": 0.0},
    ],
)
def test_extreme_settings_are_drawn(extreme):
    source = SyntheticMusicSource(**{**SMALL, **extreme})
    data = Dataset(source, LeaveOneOut())
    assert data.num_users == 30
    assert all(0 <= value <= 1 for value in data.ceiling.values())
    assert np.isfinite(source.listening.probabilities(np.arange(30))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, "data.source.num_users=0: expected a whole number of at least 1"),
        ({"artist_share": 1.0}, "data.source.artist_share=1.0: expected a number"),
        ({"explore_share": 0.0}, "greater than 0"),
        ({"seed": -1}, "data.source.seed=-1"),
        ({"num_genres": 200}, "num_genres=200, num_artists=120"),
        ({"num_items": 100}, "num_artists=120 and num_items=100"),
        ({"num_favourites": 121}, "num_favourites=121 must not be above num_artists=120"),
        ({"mean_length": 5.0}, "between min_length=10 and num_items=1200"),
        ({"mean_length": 2000.0}, "between min_length=10 and num_items=1200"),
        ({"artist_share": 0.9, "explore_share": 0.2}, "leave nothing for a user's genres"),
        ({"num_users": 4}, "num_friends=4 must be below num_users=4"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(GenrecError, match=message):
        SyntheticMusicSource(**options)


def test_yaml_says_what_the_code_says(repository):
    source = OmegaConf.load(repository / "conf" / "data" / "synthetic_music.yaml").source
    parameters = inspect.signature(SyntheticMusicSource).parameters
    assert list(source)[1:] == list(parameters)
    assert all(source[name] == parameter.default for name, parameter in parameters.items())


def test_the_data_set_composes():
    config = compose_config(["data=synthetic_music", "split=ratio_per_user", "data.source.num_users=20"])
    data = instantiate(config.data, _convert_="all")
    assert (data.name, data.num_users, data.edge_weight) == ("synthetic_music", 20, "play_count")
