import numpy as np
import pytest
from scipy import stats

from genrec.records import read_sweep
from genrec.report.seed_groups import seed_groups, t_interval
from tests.report.fake_sweep import MONITOR, fake_run, fake_sweep

VALUES = {"1e-3": [0.30, 0.33, 0.36], "3e-3": [0.40, 0.41]}


@pytest.fixture
def record(tmp_path):
    fake_sweep(tmp_path)
    number = 0
    for lr, values in VALUES.items():
        for seed, value in enumerate(values, start=1):
            fake_run(tmp_path / str(number), {"experiment": "quick", "optimizer.lr": lr, "seed": seed}, value)
            number += 1
    fake_run(tmp_path / str(number), {"experiment": "quick", "optimizer.lr": "3e-3", "seed": 3}, state="failed")
    return read_sweep(tmp_path)


@pytest.mark.parametrize("values", [[0.30, 0.33, 0.36], [1.0, 2.0], [5.0, -1.0, 2.5, 2.5, 0.1, 9.0]])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_that_of_student(values, level):
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert t_interval(values, level) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    assert t_interval([0.3]) is None


def test_runs_are_grouped_by_everything_but_the_seed(record):
    first, second = seed_groups(record)
    assert (first.overrides, second.overrides) == ({"optimizer.lr": "1e-3"}, {"optimizer.lr": "3e-3"})
    assert (first.seeds, second.seeds) == ((1, 2, 3), (1, 2))  # the one that failed is not among them
    assert [run.folder.name for run in second.runs] == ["3", "4"]
    assert first.values[MONITOR] == (0.30, 0.33, 0.36)
    assert first.mean[MONITOR] == pytest.approx(0.33)
    assert first.std[MONITOR] == pytest.approx(0.03)  # sample standard deviation: deviations -0.03, 0, 0.03
    assert first.high[MONITOR] == pytest.approx(0.33 + 4.302653 * 0.03 / 3**0.5, abs=1e-6)  # t of two degrees
    assert first.mean["test/recall@10"] == pytest.approx(0.9 * 0.33)


def test_a_setting_with_one_seed_has_a_mean_and_no_spread(tmp_path):
    for number, seed in enumerate((1, 2)):
        fake_run(tmp_path / str(number), {"optimizer.lr": f"{seed}e-3", "seed": seed}, 0.1 * seed)
    group = seed_groups(read_sweep(tmp_path))[1]
    assert group.mean[MONITOR] == 0.2
    assert (group.std[MONITOR], group.low[MONITOR], group.high[MONITOR]) == (None, None, None)


def test_metrics_that_some_seed_lacks_are_left_out(tmp_path):
    fake_run(tmp_path / "0", {"seed": 1}, 0.1, final={"test/auc": 0.5})
    fake_run(tmp_path / "1", {"seed": 2}, 0.2)
    (group,) = seed_groups(read_sweep(tmp_path))
    assert "test/auc" not in group.mean and group.overrides == {} and group.seeds == (1, 2)


def test_without_seeds_there_are_no_groups(tmp_path):
    for number in range(2):
        fake_run(tmp_path / str(number), {"optimizer.lr": number, "seed": 7}, 0.1)
    assert seed_groups(read_sweep(tmp_path)) == []
