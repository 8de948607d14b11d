"""Coverage, concentration, novelty, popularity and diversity: by hand, against plain loops, and in a whole run."""

from __future__ import annotations

import logging
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from genrec.artifacts import read_json
from genrec.config import compose_config
from genrec.contracts import IGNORE, GenrecError, HistoryBatch, Recommendations
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.metrics.beyond_accuracy import METRICS, BeyondAccuracy, gini
from genrec.pipeline import execute
from genrec.tables import beyond_accuracy_table, log_table, metric_columns, to_text
from genrec.trainers.evaluation import beyond_accuracy, evaluate_retrieval

POPULARITY = np.array([4, 2, 1, 1, 0])  # 1/2, 1/4, 1/8, 1/8 of the interactions: 1, 2, 3 and 3 bits
HISTORY_POPULARITY = np.array([2.0, 1.0])
VECTORS = np.array([[1, 0], [0, 2], [0, 1], [1, 1], [-3, 0]], dtype=np.float32)


def measured(lists: list[list[int]], k_values: list[int], vectors: np.ndarray | None = None) -> dict[str, float]:
    accumulator = BeyondAccuracy(k_values, POPULARITY, HISTORY_POPULARITY, vectors)
    accumulator.update(torch.tensor(lists), torch.arange(len(lists)))
    return accumulator.compute()


# -- known answers


def test_by_hand() -> None:
    assert measured([[0, 1], [0, 4]], [2, 1], VECTORS) == pytest.approx(
        {
            "coverage@1": 1 / 5,
            "coverage@2": 3 / 5,
            "gini@1": 4 / 5,
            "gini@2": 10 / 20,  # 0 0 1 1 2, weighted by -4 -2 0 2 4, over 5 items x 4 recommendations
            "novelty@1": 1.0,
            "novelty@2": ((1 + 2) / 2 + (1 + 3) / 2) / 2,  # item 4 counts as if it had been trained on once
            "arp@1": 4.0,
            "arp@2": (6 / 2 + 4 / 2) / 2,
            "popularity_lift@1": ((4 / 2 - 1) + (4 / 1 - 1)) / 2,
            "popularity_lift@2": ((3 / 2 - 1) + (2 / 1 - 1)) / 2,
            "diversity@2": (1 + 2) / 2,  # at right angles, and opposite
        }
    )


def test_names_are_ordered_by_metric_and_cut_off() -> None:
    wanted = [f"{name}@{k}" for name in METRICS for k in (2, 3)]
    assert list(measured([[0, 1, 2], [3, 4, 0]], [3, 2], VECTORS)) == wanted
    assert not any(name.startswith("diversity") for name in measured([[0, 1, 2], [3, 4, 0]], [3, 2]))


def test_unfilled_places_count_nowhere() -> None:
    metrics = measured([[0, IGNORE, 4], [IGNORE, IGNORE, IGNORE]], [2, 3], VECTORS)
    assert metrics == pytest.approx(
        {
            "coverage@2": 1 / 5,
            "coverage@3": 2 / 5,
            "gini@2": 4 / 5,
            "gini@3": 6 / 10,  # 0 0 0 1 1
            "novelty@2": 1.0,  # of the first user alone
            "novelty@3": 2.0,
            "arp@2": 4.0,
            "arp@3": 2.0,
            "popularity_lift@2": 1.0,
            "popularity_lift@3": 0.0,
            "diversity@3": 2.0,
        }
    )


def test_lists_shorter_than_k_are_taken_as_they_are() -> None:
    short, filled = measured([[0, 1], [2, 3]], [1, 5], VECTORS), [[0, 1, *[IGNORE] * 3], [2, 3, *[IGNORE] * 3]]
    assert short == measured(filled, [1, 5], VECTORS)
    assert short["coverage@5"] == 4 / 5


def test_what_no_list_defines_is_left_out() -> None:
    assert measured([[IGNORE], [IGNORE]], [1], VECTORS) == {"coverage@1": 0.0}
    assert "diversity@1" not in measured([[0], [1]], [1], VECTORS)


def test_a_user_whose_history_was_never_trained_on_has_no_lift() -> None:
    accumulator = BeyondAccuracy([1], POPULARITY, np.array([0.0, 2.0]))
    accumulator.update(torch.tensor([[0], [0]]), torch.tensor([0, 1]))
    assert accumulator.compute()["popularity_lift@1"] == 4 / 2 - 1
    assert accumulator.compute()["arp@1"] == 4.0


@pytest.mark.parametrize("size", [1, 2, 7])
def test_gini_of_equal_and_of_one(size: int) -> None:
    assert gini(torch.full((size,), 3)) == 0.0
    assert gini(torch.tensor([0] * (size - 1) + [5])) == pytest.approx(1 - 1 / size)
    assert math.isnan(gini(torch.zeros(size, dtype=torch.int64)))


def test_mistakes_are_named() -> None:
    with pytest.raises(GenrecError, match="k_values"):
        BeyondAccuracy([], POPULARITY, HISTORY_POPULARITY)
    with pytest.raises(GenrecError, match="k_values"):
        BeyondAccuracy([0, 5], POPULARITY, HISTORY_POPULARITY)
    with pytest.raises(GenrecError, match="2 item vectors were given for 5 items"):
        BeyondAccuracy([5], POPULARITY, HISTORY_POPULARITY, VECTORS[:2])


# -- an independent reference

NUM_USERS, NUM_ITEMS, LENGTH = 57, 23, 12


class Shop:
    """Random lists, some of them short or empty, of a catalogue of which a part was never trained on."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.lists = np.stack([rng.permutation(NUM_ITEMS)[:LENGTH] for _ in range(NUM_USERS)])
        self.lists[rng.random(self.lists.shape) < 0.2] = IGNORE
        self.lists[5], self.lists[6, 1:] = IGNORE, IGNORE
        self.popularity = rng.integers(0, 9, NUM_ITEMS) * (rng.random(NUM_ITEMS) < 0.8)
        self.history_popularity = rng.integers(0, 4, NUM_USERS) / 1.0
        self.vectors = rng.standard_normal((NUM_ITEMS, 6)).astype(np.float32)
        self.vectors[2] = 0

    def measured(self, batch_size: int, k_values: list[int]) -> dict[str, float]:
        accumulator = BeyondAccuracy(k_values, self.popularity, self.history_popularity, self.vectors)
        for users in torch.arange(NUM_USERS).split(batch_size):
            accumulator.update(torch.from_numpy(self.lists)[users], users)
        return accumulator.compute()

    def reference(self, k: int) -> dict[str, float]:
        """User by user and pair by pair."""
        times = [0] * NUM_ITEMS
        novelty, arp, lift, diversity = [], [], [], []
        for user, row in enumerate(self.lists.tolist()):
            items = [item for item in row[:k] if item != IGNORE]
            for item in items:
                times[item] += 1
            if not items:
                continue
            total = int(self.popularity.sum())
            novelty.append(np.mean([-math.log2(max(int(self.popularity[item]), 1) / total) for item in items]))
            arp.append(np.mean([self.popularity[item] for item in items]))
            if self.history_popularity[user]:
                lift.append(arp[-1] / self.history_popularity[user] - 1)
            if len(items) > 1:
                diversity.append(np.mean([self.distance(*pair) for pair in combinations(items, 2)]))
        differences = sum(abs(one - other) for one in times for other in times)
        return {
            f"coverage@{k}": sum(count > 0 for count in times) / NUM_ITEMS,
            f"gini@{k}": differences / (2 * NUM_ITEMS**2 * np.mean(times)),
            f"novelty@{k}": np.mean(novelty),
            f"arp@{k}": np.mean(arp),
            f"popularity_lift@{k}": np.mean(lift),
            f"diversity@{k}": np.mean(diversity),
        }  # pyright: ignore[reportReturnType]

    def distance(self, one: int, other: int) -> float:
        left, right = self.vectors[one].astype(float), self.vectors[other].astype(float)
        norm = np.linalg.norm(left) * np.linalg.norm(right)
        return 1 - float(left @ right / norm) if norm else 1.0


@pytest.mark.parametrize("batch_size", [1, 10, NUM_USERS])
def test_equal_to_plain_loops_whatever_the_batch_size(batch_size: int) -> None:
    shop = Shop()
    expected = {**shop.reference(3), **shop.reference(LENGTH), **shop.reference(2)}
    assert shop.measured(batch_size, [3, LENGTH, 2]) == pytest.approx(expected, rel=1e-5)


def test_a_cut_off_does_not_depend_on_the_others() -> None:
    shop = Shop()
    together = shop.measured(20, [2, 5, 9])
    for k in (2, 5, 9):
        assert shop.measured(20, [k]) == pytest.approx({name: together[name] for name in together if f"@{k}" in name})


# -- within an evaluation


class Fixed:
    """Recommends items 0, 1, 2 ... to everyone and looks at one item of the history only."""

    max_history = 1

    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        items = torch.arange(k).expand(len(batch.users), k)
        return Recommendations(items, -items.float())


def small_view() -> SequencesView:
    train = Ragged.from_rows([[0, 0, 2], [0], [4, 2]])  # 3 0 2 0 1 interactions
    return SequencesView(train, Ragged.from_rows([[1], [3], []]), Ragged.from_rows([[1], [2], [3]]), 5)


def test_lift_compares_with_the_whole_history_before_the_test() -> None:
    view = small_view()
    metrics = evaluate_retrieval(
        Fixed(), view, "test", k_values=[1, 3], batch_size=2, progress=False, beyond=beyond_accuracy(view, [1, 3])
    )
    histories = [(3 + 3 + 2 + 0) / 4, (3 + 0) / 2, (1 + 2) / 2]  # training and validation items
    assert metrics["test/popularity_lift@1"] == pytest.approx(sum(3 / history - 1 for history in histories) / 3)
    assert metrics["test/arp@3"] == pytest.approx((3 + 0 + 2) / 3)
    assert metrics["test/novelty@1"] == pytest.approx(-math.log2(3 / 6))
    assert (metrics["test/coverage@3"], metrics["test/gini@1"]) == (3 / 5, 4 / 5)
    assert "test/recall@3" in metrics and "test/diversity@3" not in metrics


def test_nothing_is_measured_where_no_user_is_scored_or_no_history_is_known() -> None:
    view = small_view()
    empty = Ragged.from_rows([[], [], []])
    view = SequencesView(view.train, empty, empty, 5)
    found = evaluate_retrieval(Fixed(), view, "test", k_values=[1], progress=False, beyond=beyond_accuracy(view, [1]))
    assert found == {}
    assert beyond_accuracy(object(), [1]) is None


# -- the table

FINAL = {
    "test/recall@5": 0.2,
    "test/recall@10": 0.4,
    **{f"test/{name}@{k}": k / 100 for name in METRICS[:-1] for k in (5, 10, 20)},
    **{f"baseline/popularity/test/{name}@10": 0.5 for name in METRICS},
    "ceiling/test/recall@10": 0.5,
}


def rows_of(final: dict[str, float]) -> list[list[str]]:
    table = beyond_accuracy_table(final, name="tiger")
    assert table is not None
    return [line.split() for line in to_text(table, width=120).splitlines()]


def test_the_second_table_has_a_row_per_model_at_the_usual_k() -> None:
    rows = rows_of(FINAL)
    assert rows[0] == ["beyond", "accuracy", "(top", "10)"]
    assert rows[1] == ["model", "coverage", "gini", "novelty", "popularity", "lift"]
    assert ["tiger", *["0.1000"] * 4] in rows and ["popularity", *["0.5000"] * 4] in rows
    assert rows_of({**FINAL, "test/diversity@10": 0.3})[1][-1] == "diversity"
    assert rows_of({name: value for name, value in FINAL.items() if "@10" not in name})[0][-1] == "20)"


def test_the_first_table_keeps_its_columns(caplog: pytest.LogCaptureFixture) -> None:
    assert metric_columns(FINAL) == ["recall@5", "recall@10"]
    with caplog.at_level(logging.INFO, logger="genrec.run"):
        log_table(FINAL, name="tiger", data="synthetic", folder=Path("outputs/x"))
        log_table({"test/mse": 0.5}, name="rqvae", data="synthetic", folder=Path("outputs/x"))
    assert caplog.messages[0].index("test metrics") < caplog.messages[0].index("beyond accuracy (top 10)")
    assert "beyond accuracy" not in caplog.messages[1]


# -- a whole run


def test_a_run_measures_the_model_and_every_baseline_on_the_test_part_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="genrec")
    overrides = ["model=sasrec", "trainer=advanced", "trainer.max_epochs=1", "model.embedding_dim=16"]
    overrides += ["data.source.num_users=60", "data.source.num_items=40", "hardware=cpu", "hardware.num_threads=1"]
    overrides += ["logger=none", "progress=false", f"runs_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"]
    outcome = execute(compose_config(overrides, output_dir=str(tmp_path / "run")))

    written = read_json(outcome.folder / "metrics.json")
    final, history = written["final"], written["history"]
    names = {f"{metric}@{k}" for metric in METRICS for k in (5, 10, 20)}
    for owner in ("", "baseline/popularity/", "baseline/item_knn/", "baseline/text_knn/"):
        assert {f"{owner}test/{name}" for name in names} <= set(final), owner
        assert not any(f"{owner}val/{name}" in final for name in names)
    assert not any(name.partition("/")[2] in names for name in history)

    # The same ten items for everyone.
    assert final["baseline/popularity/test/coverage@10"] == 10 / 40
    assert final["baseline/popularity/test/gini@10"] == pytest.approx(1 - 10 / 40)
    for metric, more in (("arp", 1), ("popularity_lift", 1), ("novelty", -1), ("coverage", -1)):
        popular, personal = (final[f"baseline/{name}/test/{metric}@10"] for name in ("popularity", "item_knn"))
        assert more * (popular - personal) > 0, metric
    # Neighbours by text are alike by the same vectors.
    assert final["baseline/text_knn/test/diversity@10"] < final["baseline/item_knn/test/diversity@10"]

    results = next(message for message in caplog.messages if message.startswith("results"))
    assert "beyond accuracy (top 10)" in results
    assert not any(f"{metric}@" in caplog.text for metric in METRICS)


def test_diversity_copies_no_vectors_of_items_that_are_not_shown() -> None:
    """Vectors stay those that were given: a copy of a large catalogue's for every model judged would be gigabytes."""
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    judge = BeyondAccuracy([3], np.ones(50), np.ones(2), vectors)
    shared = [part for part in vars(judge).values() if isinstance(part, torch.Tensor) and part.shape == (50, 4)]
    assert [part.data_ptr() for part in shared] == [vectors.__array_interface__["data"][0]]
    lists = torch.tensor([[4, 9, 30], [9, 1, IGNORE]])
    judge.update(lists, torch.tensor([0, 1]))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first = np.mean([1 - unit[i] @ unit[j] for i, j in ((4, 9), (4, 30), (9, 30))])
    assert judge.compute()["diversity@3"] == pytest.approx((first + 1 - unit[9] @ unit[1]) / 2, abs=1e-6)
