from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.ragged import Ragged
from genrec.data.sources.synthetic import SyntheticSource
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser


@pytest.fixture(scope="module")
def dataset():
    return Dataset(SyntheticSource(), LeaveOneOut())


def recall_at_10(scores, targets):
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    return float((best == targets[:, None]).any(axis=1).mean())


@pytest.mark.parametrize("part", ["val", "test"])
def test_the_true_distribution_attains_the_ceiling(dataset, part):
    chances = dataset.source.process.of_histories(dataset.sequences.history(part))
    targets = getattr(dataset.split, part).values
    error = 1 / np.sqrt(4 * len(targets))  # at most half a standard deviation of a 0/1 mean
    assert recall_at_10(chances, targets) == pytest.approx(dataset.ceiling[f"{part}/recall@10"], abs=3 * error)


def test_the_ceiling_is_the_mean_of_the_largest_probabilities(dataset):
    chances = dataset.source.process.of_histories(dataset.sequences.history("test")).tolist()
    expected = sum(sum(sorted(row)[-10:]) for row in chances) / len(chances)
    assert dataset.ceiling["test/recall@10"] == pytest.approx(expected, abs=1e-12)


def test_nothing_beats_the_ceiling_in_expectation(dataset):
    """The expected recall of any list is the sum of its true probabilities; lists of perturbed scores never gain."""
    chances = dataset.source.process.of_histories(dataset.sequences.history("test"))
    generator = np.random.default_rng(0)
    for noise in (0.0, 0.1, 1.0, 5.0):
        scores = np.log(chances + 1e-9) + noise * generator.normal(size=chances.shape)
        lists = np.argsort(-scores, axis=1)[:, :10]
        expected = np.take_along_axis(chances, lists, axis=1).sum(axis=1).mean()
        assert expected <= dataset.ceiling["test/recall@10"] + 1e-12


def test_probabilities_follow_the_definition():
    """One history worked out by hand from the mixture, in plain Python."""
    source = SyntheticSource(num_users=5, num_items=40, num_categories=4, num_brands=3)
    process = source.process
    history = [7, 3, 11]

    def share(members):
        weights = [process.popularity[i] if i in members else 0.0 for i in range(40)]
        return [weight / sum(weights) for weight in weights]

    def completing(item):
        wanted = process.next_category[process.category[item]]
        cell = {i for i in range(40) if process.category[i] == wanted and process.brand[i] == process.brand[item]}
        return share(cell)

    same_category = share({i for i in range(40) if process.category[i] == process.category[11]})
    mixture = [
        0.42 * completing(11)[i] + 0.13 * completing(3)[i] + 0.25 * same_category[i] + 0.20 * process.popularity[i]
        for i in range(40)
    ]
    mixture = [0.0 if i in history else value for i, value in enumerate(mixture)]
    expected = np.array(mixture) / sum(mixture)
    np.testing.assert_allclose(process.of_histories(Ragged.from_rows([history]))[0], expected, rtol=1e-12)


def test_first_items_follow_popularity(dataset):
    empty = dataset.source.process.of_histories(Ragged.from_rows([[]]))[0]
    np.testing.assert_allclose(empty, dataset.source.process.popularity)


def test_simple_rankings_stay_far_below_the_ceiling(dataset):
    train, targets = dataset.sequences.train, dataset.split.test.values
    history = dataset.sequences.history("test")
    seen = np.zeros((dataset.num_users, dataset.num_items), dtype=bool)
    seen[history.row_of_value, history.values] = True
    counts = np.bincount(train.values, minlength=dataset.num_items).astype(float)
    matrix = dataset.view("matrix").matrix
    together = (matrix.T @ matrix).toarray() / np.sqrt(np.outer(counts, counts))
    np.fill_diagonal(together, 0)
    last = history.values[history.offsets[1:] - 1]
    popularity = np.where(seen, -1, counts)
    item_knn = np.where(seen, -1, together[last])
    ceiling = dataset.ceiling["test/recall@10"]
    assert 0.5 < ceiling < 0.65
    assert recall_at_10(popularity, targets) < 0.2 * ceiling
    assert recall_at_10(item_knn, targets) < 0.65 * ceiling


def test_nobody_meets_an_item_twice(dataset):
    pairs = dataset.log.users * dataset.num_items + dataset.log.items
    assert len(np.unique(pairs)) == len(pairs)


def test_titles_tell_brand_and_category(dataset):
    table = dataset.log.item_table
    assert table is not None
    assert len(set(dataset.titles)) == dataset.num_items
    for title, brand in zip(dataset.titles, table["brand"].to_list(), strict=True):
        assert title.endswith(f"by {brand}")
    brands = {
        row["brand"] for row, code in zip(table.to_dicts(), dataset.source.process.brand, strict=True) if code == 3
    }
    assert len(brands) == 1
    assert dataset.has_text


def test_times_rise_within_each_user(dataset):
    steps = np.diff(dataset.log.timestamps)
    assert (steps[np.diff(dataset.log.users) == 0] > 0).all()
    ranges = GlobalTime().split(dataset.log).time_ranges
    assert ranges["train"][1] < ranges["val"][0]


def test_the_ceiling_is_given_only_where_it_is_known(dataset):
    ratio = Dataset(dataset.source, RatioPerUser())
    ratio.__dict__["loaded"] = dataset.loaded
    assert ratio.ceiling == {}


def test_sizes_and_seed():
    small = SyntheticSource(
        num_users=30, num_items=25, num_categories=5, num_brands=9, mean_length=8, min_length=4, seed=3
    )
    log = small.load().log
    assert (log.num_users, log.num_items) == (30, 25)
    assert np.bincount(log.users).min() >= 4
    assert log.fingerprint == small.load().log.fingerprint
    other = SyntheticSource(
        num_users=30, num_items=25, num_categories=5, num_brands=9, mean_length=8, min_length=4, seed=4
    )
    assert log.fingerprint != other.load().log.fingerprint


def test_more_items_than_looks_keep_distinct_titles():
    source = SyntheticSource(num_users=3, num_items=700, num_categories=2, num_brands=2)
    assert len(set(Dataset(source, LeaveOneOut()).titles)) == 700
    wide = SyntheticSource(num_items=400, num_categories=14, num_brands=18)
    assert len(set(Dataset(wide, LeaveOneOut()).titles)) == 400


def test_the_same_in_every_process(dataset):
    code = "from genrec.data.sources.synthetic import SyntheticSource; print(SyntheticSource().load().log.fingerprint)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == dataset.log.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_items": 5}, "num_categories=12"),
        ({"set_weight": 0.9}, "sum below 1"),
        ({"mean_length": 3.0}, "min_length=5"),
        ({"num_users": 0}, "at least 1"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(GenrecError, match=message):
        SyntheticSource(**options)
