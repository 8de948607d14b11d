from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.report.comparison import BETTER, EQUAL, UNCLEAR, WORSE, Comparison, Options, compare, quarters
from tests.report.run_folders import make_sweep
from tests.report.tested_runs import hits, make_row_run, make_user_run

FEW = Options(resamples=500)
USERS = 400


def compared(tmp_path: Path, *recalls: np.ndarray, options: Options = FEW) -> Comparison:
    given = [str(make_user_run(tmp_path / f"run{place}", recall)) for place, recall in enumerate(recalls)]
    return compare(given, options)


def test_identical_runs_are_equal(tmp_path: Path) -> None:
    recall = hits(USERS, 0.4, 0)
    found = compared(tmp_path, recall, recall)
    for one in found.differences:
        assert (one.over_users.value, one.over_users.low, one.over_users.high) == (0, 0, 0)
        assert (one.p_value, one.verdict, one.wins, one.losses, one.ties) == (1, EQUAL, 0, 0, USERS)
    assert {one.verdict for one in found.segments} == {EQUAL}
    assert found.gains == found.losses == ()


def test_a_constant_shift_is_found_everywhere(tmp_path: Path) -> None:
    recall = hits(USERS, 0.4, 0) / 2
    found = compared(tmp_path, recall, recall + 0.25)
    one = found.of("recall@10")
    assert (one.over_users.value, one.over_users.low, one.over_users.high) == pytest.approx((0.25, 0.25, 0.25))
    assert (one.verdict, one.wins, one.losses) == (BETTER, USERS, 0)
    assert all(part.over_users.value == pytest.approx(0.25) for part in found.segments if part.metric == "recall@10")
    assert one.relative == pytest.approx(0.25 / recall.mean())


def test_the_first_is_the_reference(tmp_path: Path) -> None:
    found = compared(tmp_path, hits(USERS, 0.6, 0), hits(USERS, 0.2, 1), hits(USERS, 0.6, 2))
    assert [found.of("recall@10", side).verdict for side in (1, 2)] == [WORSE, UNCLEAR]
    assert len(found.differences) == 4


def test_counts_by_hand(tmp_path: Path) -> None:
    found = compared(tmp_path, np.array([0, 0, 1, 1, 0, 0.5]), np.array([0, 1, 1, 0, 1, 0.5]))
    one = found.of("recall@10")
    assert (one.wins, one.losses, one.ties, one.both_zero) == (2, 1, 3, 1)
    assert [(gain.user, gain.values["recall@10"]) for gain in found.gains] == [(1, (0, 1)), (4, (0, 1))]
    assert [(loss.user, loss.values["recall@10"]) for loss in found.losses] == [(3, (1, 0))]
    assert found.gains[0].known["history_length"] == 3


def test_segments_hold_every_user_once(tmp_path: Path) -> None:
    a, b = hits(USERS, 0.4, 0), hits(USERS, 0.5, 1)
    found = compared(tmp_path, a, b)
    whole = found.of("recall@10").over_users.value
    for trait in ("history length", "target popularity"):
        parts = [part for part in found.segments if part.trait == trait and part.metric == "recall@10"]
        assert sum(part.size for part in parts) == USERS
        assert sum(part.size * part.over_users.value for part in parts) == pytest.approx(USERS * whole)
        assert 3 <= len(parts) <= 4


def test_smaller_losses_are_better(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    click = (rng.random(600) < 0.4).astype(float)
    groups = rng.integers(0, 80, 600)
    good, bad = 0.3 + 0.4 * click, np.full(600, 0.4) + 0.05 * rng.random(600)
    a, b = (
        make_row_run(tmp_path / name, {"click": click}, {"click": score}, groups=groups, model=name)
        for name, score in (("bad", bad), ("good", good))
    )
    found = compare([str(a), str(b)], FEW)
    loss = found.of("log_loss")
    assert (loss.over_users.high < 0, loss.verdict) == (True, BETTER)
    assert (loss.wins, loss.losses) == (600, 0)
    assert found.of("auc").wins is None
    assert (found.unit, found.primary, found.resampled) == ("rows", "auc", "users, each with all of their rows,")
    sizes = [part.size for part in found.segments if part.metric == "auc"]
    assert sum(sizes) == 600


def test_seeds_widen_the_interval_and_decide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sweep = make_sweep(tmp_path / "s")
    rates = (0.30, 0.50, 0.58)
    for job, rate in enumerate(rates):
        recall = np.zeros(USERS)
        recall[rng.permutation(USERS)[: round(rate * USERS)]] = 1
        make_user_run(sweep / str(job), recall, seed=job, overrides=[f"seed={job}"])
    reference = np.zeros(USERS)
    reference[: round(0.35 * USERS)] = 1
    found = compare([str(make_user_run(tmp_path / "a", reference)), str(sweep)], Options())
    one = found.of("recall@10")
    assert one.over_seeds is not None
    assert one.over_users.low > 0
    assert one.over_seeds.low < 0
    assert (one.verdict, one.interval) == (UNCLEAR, one.over_seeds)
    assert one.value == pytest.approx(np.mean(rates), abs=1e-6)
    assert found.seed_values["recall@10"] == ((pytest.approx(0.35),), pytest.approx(rates))
    assert any("one seed" in note for note in found.notes)
    assert any("Few seeds (3 of tiger" in note for note in found.notes)


def test_holm_asks_for_more(tmp_path: Path) -> None:
    a = hits(USERS, 0.40, 0)
    b = a.copy()
    b[:40] = hits(40, 0.75, 1)
    plain = compared(tmp_path, a, b, options=Options(resamples=4000))
    holm = compared(tmp_path, a, b, options=Options(resamples=4000, correction="holm"))
    for metric in ("recall@10", "ndcg@10"):
        assert holm.of(metric).p_value == pytest.approx(min(1, 2 * plain.of(metric).p_value))


def test_a_verdict_needs_the_corrected_p_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.report.comparison.holm", lambda p_values: [0.06] * len(p_values))
    recall = hits(USERS, 0.4, 0) / 2
    found = compared(tmp_path, recall, recall + 0.25, options=Options(resamples=200, correction="holm"))
    assert found.of("recall@10").verdict == UNCLEAR


def test_is_the_same_again(tmp_path: Path) -> None:
    a, b = hits(USERS, 0.4, 0), hits(USERS, 0.5, 1)
    first, again, other = (compared(tmp_path, a, b, options=Options(resamples=300, seed=seed)) for seed in (1, 1, 2))
    assert first.differences == again.differences
    assert first.differences != other.differences


def test_needs_two(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="two runs or more"):
        compare([str(make_user_run(tmp_path / "a", hits(9, 0.5, 0)))])


class TestQuarters:
    def test_equal_parts_of_different_values(self) -> None:
        parts = quarters(np.arange(1, 9))
        assert [name for name, _ in parts] == ["1 to 2", "3 to 4", "5 to 6", "7 to 8"]
        assert [int(chosen.sum()) for _, chosen in parts] == [2, 2, 2, 2]

    def test_equal_values_stay_together(self) -> None:
        parts = quarters(np.array([3, 3, 3, 3, 3, 4, 9, 1000]))
        assert [(name, int(chosen.sum())) for name, chosen in parts] == [("3", 5), ("4", 1), ("9 to 1,000", 2)]

    def test_one_value_is_one_part(self) -> None:
        assert [(name, int(chosen.sum())) for name, chosen in quarters(np.full(5, 2.5))] == [("2.5", 5)]

    @pytest.mark.parametrize("seed", range(5))
    def test_every_row_is_in_one_part(self, seed: int) -> None:
        values = np.random.default_rng(seed).integers(0, 6, 100)
        assert (np.sum([chosen for _, chosen in quarters(values)], axis=0) == 1).all()


def test_a_baseline_evaluated_under_several_seeds_has_no_seeds_to_be_few(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s")
    for seed in (1, 2):
        make_user_run(tmp_path / "s" / str(seed), hits(40, 0.5, seed), seed=seed,
                      baselines={"item_knn": hits(40, 0.4, 9)})  # fmt: skip
    found = compare([f"{tmp_path / 's'}:item_knn", str(tmp_path / "s")], Options(resamples=200))
    assert [note for note in found.notes if "Few seeds" in note] == [
        "Few seeds (2 of tiger) make intervals wide, for their spread is barely known."
    ]
