"""The shop of impressions: its truth recomputed in plain Python, histories, the ceiling, and what is drawn."""

from __future__ import annotations

import hashlib
import inspect
import math

import numpy as np
import polars as pl
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.metrics import log_loss, mean_squared_error, r2_score, roc_auc_score

from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.data.sources.synthetic_clicks import SyntheticClicksSource
from genrec.features import TaskSpec

SMALL = {"num_users": 40, "num_items": 60, "num_rows": 3000}
CLICK, BUY = TaskSpec(name="click"), TaskSpec(name="buy", given="click")
SPEND = TaskSpec(name="spend", kind="regression")


@pytest.fixture(scope="module")
def source() -> SyntheticClicksSource:
    return SyntheticClicksSource()


def content(source: SyntheticClicksSource) -> str:
    return hashlib.sha256(pl.concat(source.chunks()).write_json().encode()).hexdigest()


def chances(source: SyntheticClicksSource) -> tuple[np.ndarray, np.ndarray]:
    """The true chances of a click, and of a purchase after one, in the order of the rows."""
    return source.outcomes.click_chance[source._in_time], source.outcomes.buy_chance[source._in_time]


# ---- the truth ------------------------------------------------------------------------------------------------------


def test_chances_follow_the_definition():
    """Worked out from a row of the table and the hidden vectors in plain Python."""
    source = SyntheticClicksSource(**SMALL)
    true = source.behaviour
    rows = source.frame.to_dicts()
    click_chance, buy_chance = chances(source)
    for place in (0, 700, 2999):
        row = rows[place]
        user, item = row["user_id"] - 1, row["item_id"] - 1
        fit = sum(a * b for a, b in zip(true.taste[user].tolist(), true.style[item].tolist(), strict=True))
        category = int(true.category[item])
        same = [clicked for clicked in row["history"] if int(true.category[clicked - 1]) == category]
        dear = math.log(row["price"] / 30) * (80 - row["age"]) / 40
        hours_off = row["hour"] - true.peak[category]
        click = -2.5 + true.activity[user] + true.appeal[item] + 1.5 * fit + math.cos(math.pi * hours_off / 12)
        click += 2.5 * min(len(same), 3) / 3 - 0.4 * dear
        assert click_chance[place] == pytest.approx(1 / (1 + math.exp(-click)))
        buy = -1.4 - true.thrift[user] + true.trust[true.brand[item]] + 0.75 * fit - 0.8 * dear
        buy += {"phone": -0.6, "tablet": 0.0, "desktop": 0.6}[row["device"]]
        assert buy_chance[place] == pytest.approx(1 / (1 + math.exp(-buy)))


def test_what_happens_follows_the_chances(source):
    """Within tenths of the rows by chance, as much is clicked and bought as it says."""
    frame = source.frame
    clicked, bought = frame["click"].to_numpy(), frame["buy"].to_numpy()
    click_chance, buy_chance = chances(source)
    for chance, happened in ((click_chance, clicked), (buy_chance[clicked == 1], bought[clicked == 1])):
        for rows in np.array_split(np.argsort(chance), 10):
            expected, spread = chance[rows].sum(), math.sqrt((chance[rows] * (1 - chance[rows])).sum())
            assert abs(happened[rows].sum() - expected) < 4 * spread


def test_neither_hour_nor_category_says_much_alone(source):
    """The hour of a category's peak doubles its clicks, though no hour and no category has twice the clicks of all."""
    frame = source.frame.filter(pl.col("hour").is_between(6, 22))
    mean = frame["click"].mean()
    for column in ("hour", "category"):
        assert frame.group_by(column).agg(pl.col("click").mean())["click"].max() < 1.7 * mean
    cells = frame.group_by("category", "hour").agg(pl.col("click").mean(), pl.len()).filter(pl.col("len") > 150)
    spread = cells.group_by("category").agg(pl.col("click").max() / pl.col("click").min())["click"]
    assert spread.median() > 2


# ---- the table ------------------------------------------------------------------------------------------------------


def test_columns_and_shares(source):
    frame = pl.concat(source.chunks())
    assert frame.columns == [
        *("user_id", "item_id", "category", "brand", "hour", "device", "age", "price", "history", "timestamp"),
        *("click", "buy", "spend"),
    ]
    assert frame.null_count().sum_horizontal()[0] == 0
    assert frame.height == 60_000
    assert [frame[name].n_unique() for name in ("user_id", "item_id", "category", "device")] == [300, 150, 12, 3]
    assert (frame["brand"].n_unique(), frame["hour"].min(), frame["hour"].max()) == (10, 0, 23)
    assert frame["click"].mean() == pytest.approx(0.25, abs=0.03)
    assert frame["buy"].sum() / frame["click"].sum() == pytest.approx(0.33, abs=0.05)
    assert frame["age"].is_between(18, 80).all() and frame["price"].min() > 0
    assert frame["price"].log().std() == pytest.approx(math.hypot(0.5, 0.2), abs=0.05)


def test_nothing_is_bought_that_was_not_clicked_and_only_purchases_cost(source):
    frame = source.frame
    assert frame.filter(pl.col("buy") > pl.col("click")).is_empty()
    assert ((frame["spend"] > 0) == (frame["buy"] == 1)).all()
    pieces = frame.filter(pl.col("buy") == 1).select(pl.col("spend") / pl.col("price")).to_series()
    assert (pieces - pieces.round()).abs().max() < 1e-6
    assert pieces.mean() == pytest.approx(1.4, abs=0.05)


def test_histories_are_what_was_clicked_before(source):
    """Every history, by a plain loop over the table in order of time."""
    seen: dict[int, list[int]] = {}
    for user, item, history, click in source.frame.select("user_id", "item_id", "history", "click").iter_rows():
        clicked = seen.setdefault(user, [])
        assert history == clicked[-20:]
        if click:
            clicked.append(item)
    assert max(map(len, seen.values())) > 20


def test_rows_are_in_order_of_time_and_no_user_sees_two_at_once(source):
    frame = source.frame
    assert frame["timestamp"].is_sorted()
    assert frame.select(pl.struct("user_id", "timestamp").n_unique()).item() == frame.height
    assert (frame["hour"] == pl.from_epoch(frame["timestamp"]).dt.hour()).all()


def test_crowded_seconds_move_on():
    """Two users of 200,000 visits each in 7.8 million seconds: thousands would share one."""
    users = np.repeat([0, 1], 200_000)
    times = SyntheticClicksSource(**SMALL)._draw_times(users, np.random.default_rng(0))
    assert (np.diff(times)[np.diff(users) == 0] > 0).all()
    assert times.min() >= 1_577_836_800 and times.max() < 1_577_836_800 + 91 * 86_400


# ---- the ceiling ----------------------------------------------------------------------------------------------------


def test_ceiling_equals_scikit_learn(source):
    frame = source.frame
    rows = np.arange(50_000, 60_000)
    click_chance, buy_chance = (chance[rows] for chance in chances(source))
    clicked, bought, spend, price = (frame[name].to_numpy()[rows] for name in ("click", "buy", "spend", "price"))
    ceiling = source.ceiling({"test": rows}, [CLICK, BUY, SPEND])
    both = click_chance * buy_chance
    expected = {
        "test/auc": (roc_auc_score(clicked, click_chance) + roc_auc_score(bought, both)) / 2,
        "test/click/auc": roc_auc_score(clicked, click_chance),
        "test/click/log_loss": log_loss(clicked, click_chance),
        "test/buy/auc": roc_auc_score(bought, both),
        "test/buy/log_loss": log_loss(bought, both),
        "test/buy_given_click/auc": roc_auc_score(bought[clicked == 1], buy_chance[clicked == 1]),
        "test/buy_given_click/log_loss": log_loss(bought[clicked == 1], buy_chance[clicked == 1]),
        "test/spend/mse": mean_squared_error(spend, both * price * 1.4),
        "test/spend/rmse": mean_squared_error(spend, both * price * 1.4) ** 0.5,
        "test/spend/r2": r2_score(spend, both * price * 1.4),
    }
    assert ceiling == pytest.approx(expected)


def test_ceiling_of_one_task_is_named_like_its_metrics(source):
    rows = np.arange(1000)
    single = source.ceiling({"val": rows}, [CLICK])
    assert list(single) == ["val/auc", "val/log_loss"]
    several = source.ceiling({"val": rows}, [CLICK, SPEND])
    assert several["val/click/auc"] == several["val/auc"] == single["val/auc"]


def test_ceiling_where_another_task_happened(source):
    parts = {"test": np.arange(5000)}
    spends = source.ceiling(parts, [BUY, TaskSpec(name="spend", kind="regression", given="buy")])
    assert spends["test/spend_given_buy/r2"] > 0.3 > spends["test/spend/r2"]
    assert not any("given" in name for name in source.ceiling(parts, [BUY, SPEND]))  # nobody predicts clicks


def test_other_tasks_have_no_ceiling(source):
    parts = {"test": np.arange(5000)}
    for task in (TaskSpec(name="dear"), TaskSpec(name="price", kind="regression"), TaskSpec(name="spend")):
        assert source.ceiling(parts, [task]) == {}
    assert "test/auc" not in source.ceiling(parts, [CLICK, TaskSpec(name="dear")])


def test_the_truth_is_better_than_what_it_is_made_of(source):
    """Neither the tastes nor any other term alone ranks as well as all together."""
    frame, true, shown = source.frame, source.behaviour, source.impressions
    order = source._in_time
    clicked = frame["click"].to_numpy()
    best = source.ceiling({"all": np.arange(60_000)}, [CLICK])["all/auc"]
    fit = (true.taste[shown.users] * true.style[shown.items]).sum(axis=1)[order]
    columns = (true.activity[shown.users] + true.appeal[shown.items] - 0.4 * shown.burden)[order]
    assert 0.87 < best < 0.9
    for part in (fit, columns):
        assert 0.58 < roc_auc_score(clicked, part) < best - 0.05


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_sizes_and_seed():
    frame = SyntheticClicksSource(**SMALL).frame
    assert frame.height == 3000
    assert frame["user_id"].n_unique() == 40 and frame["item_id"].is_between(1, 60).all()
    assert content(SyntheticClicksSource(**SMALL)) == content(SyntheticClicksSource(**SMALL))
    assert content(SyntheticClicksSource(**SMALL)) != content(SyntheticClicksSource(**SMALL, seed=3))


def test_no_weights_no_signal():
    """Without taste, hour, price and history only the habits of users and items are left."""
    source = SyntheticClicksSource(**SMALL, taste_weight=0.0, hour_weight=0.0, price_weight=0.0, history_weight=0.0)
    true, shown = source.behaviour, source.impressions
    logits = -2.5 + true.activity[shown.users] + true.appeal[shown.items]
    np.testing.assert_allclose(source.outcomes.click_chance, 1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize(
    "extreme",
    [
        {"num_users": 1, "num_items": 1, "num_categories": 1, "num_brands": 1, "num_rows": 50, "num_factors": 1},
        {"num_users": 50, "num_rows": 50},
        {"num_items": 300, "num_categories": 30, "num_brands": 40},
        {"click_base": -9.0},
        {"click_base": 9.0, "buy_base": 9.0},
    ],
)
def test_extreme_settings_are_drawn(extreme):
    source = SyntheticClicksSource(**{**SMALL, **extreme})
    assert source.frame.height == source.num_rows
    assert np.isfinite(source.outcomes.click_chance).all()
    ceiling = source.ceiling({"test": np.arange(source.num_rows)}, [CLICK, BUY, SPEND])
    assert all(math.isfinite(value) for value in ceiling.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, "data.source.num_users=0: expected a whole number of at least 1"),
        ({"taste_weight": -1.0}, "data.source.taste_weight=-1.0"),
        ({"seed": -1}, "data.source.seed=-1"),
        ({"num_items": 10}, "num_categories=12 must not be above num_items=10"),
        ({"num_rows": 100}, "num_rows=100 must not be below num_users=300"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(GenrecError, match=message):
        SyntheticClicksSource(**options)


# ---- the configuration ----------------------------------------------------------------------------------------------


def test_yaml_says_what_the_code_says(repository):
    given = OmegaConf.load(repository / "conf" / "data" / "synthetic_clicks.yaml").source
    parameters = inspect.signature(SyntheticClicksSource).parameters
    assert list(given)[1:] == list(parameters)
    assert all(given[name] == parameter.default for name, parameter in parameters.items())


def test_the_data_set_composes_and_knows_its_ceiling():
    sizes = [f"data.source.{name}={value}" for name, value in SMALL.items()]
    config = compose_config(["data=synthetic_clicks", "data.tasks=[click,buy,spend]", *sizes])
    data = instantiate(config.data, _convert_="all")
    features = data.spec.features
    assert [field.name for field in features.sparse] == ["user_id", "item_id", "category", "brand", "hour", "device"]
    assert (features.dense, [task.name for task in features.tasks]) == (("age", "price"), ["click", "buy", "spend"])
    assert (features.sequences[0].table, features.sequences[0].target) == ("item_id", "item_id")
    assert {"val/click/auc", "test/click/auc", "test/buy_given_click/log_loss"} <= set(data.ceiling)
    times = data.source.frame["timestamp"].to_numpy()
    view = data.view("rows")
    assert times[view.rows_of("train")].max() < times[view.rows_of("val")].min()
    assert times[view.rows_of("val")].max() < times[view.rows_of("test")].min()
