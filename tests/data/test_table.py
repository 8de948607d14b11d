"""Tables end to end: declared and inferred features, labels, splits, files instead of memory, real data."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import numpy as np
import polars as pl
import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.data.raw_table import RawTable
from genrec.data.row_splits import ByColumn, RandomRows
from genrec.data.rows import RowsView
from genrec.data.sources.table import TableSource
from genrec.data.splits import GlobalTime, LeaveOneOut
from genrec.data.table import TableDataset


def frame(count: int = 400) -> pl.DataFrame:
    generator = np.random.default_rng(0)
    users = generator.integers(2**60, 2**60 + 30, size=count)
    clicks = generator.random(count) < 0.3
    return pl.DataFrame(
        {
            "user": users,
            "price": np.where(generator.random(count) < 0.1, np.nan, generator.lognormal(size=count).round(3)),
            "visits": generator.integers(0, 100, size=count),
            "device": generator.choice(["phone", "desk"], size=count),
            "tags": [[f"t{tag}" for tag in generator.integers(9, size=n)] for n in generator.integers(4, size=count)],
            "note": "same",
            "time": generator.permutation(count) + 10**9,
            "click": clicks.astype(int),
            "buy": clicks & (generator.random(count) < 0.4),
        }
    ).with_columns(pl.col("price").fill_nan(None))


@pytest.fixture
def parquet(tmp_path) -> str:
    frame().write_parquet(tmp_path / "shop.parquet")
    return str(tmp_path / "shop.parquet")


def table(path: str, split: Any = None, **options) -> TableDataset:
    chosen: dict[str, Any] = {
        "labels": {"click": None, "buy": {"given": "click"}},
        "group": "user",
        "timestamp": "time",
    }
    source = TableSource(path=path, chunk_rows=options.pop("chunk_rows", 100))
    return TableDataset(source, split or RandomRows(), **{**chosen, **options})


# ---- what becomes of columns ----------------------------------------------------------------------------------------


def test_columns_that_nobody_declares_are_inferred(parquet):
    spec = table(parquet).fitted.spec
    assert spec.dense == ("price", "visits")
    assert [field.name for field in spec.sparse] == ["device", "note"]  # neither group nor time nor labels
    assert [field.name for field in spec.sequences] == ["tags"]
    assert [(task.name, task.given) for task in spec.tasks] == [("click", None), ("buy", "click")]


def test_declared_columns_come_first_and_drop_and_infer_leave_out(parquet):
    features = {"user": "sparse", "visits": {"type": "sparse", "bucket": 4}, "note": "drop"}
    spec = table(parquet, features=features, drop=["tags"]).fitted.spec
    assert [field.name for field in spec.sparse] == ["user", "visits", "device"]
    assert spec.dense == ("price",) and spec.sequences == ()
    only = table(parquet, features=features, infer=False).fitted.spec
    assert [field.name for field in only.sparse] == ["user", "visits"] and only.dense == ()


def test_text_files_are_taken_for_the_same_as_parquet(parquet, tmp_path):
    plain = frame().drop("tags")
    plain.write_csv(tmp_path / "shop.csv")
    plain.write_parquet(tmp_path / "plain.parquet")
    text, stored = table(str(tmp_path / "shop.csv")), table(str(tmp_path / "plain.parquet"))
    assert text.fitted.spec == stored.fitted.spec
    assert np.array_equal(text.loaded.rows.dense, stored.loaded.rows.dense)
    assert np.array_equal(text.loaded.rows.sparse, stored.loaded.rows.sparse)


def test_everything_is_fitted_on_training_rows_only(tmp_path):
    rows = pl.DataFrame(
        {
            "part": ["train"] * 4 + ["val"] * 2 + ["test"] * 2,
            "x": [1.0, 3.0, 1.0, 3.0, 100.0, -100.0, 1e9, 0.0],
            "c": ["a", "a", "b", "b", "held", "held", "a", "held"],
            "y": [0, 1, 0, 1, 1, 1, 1, 1],
        }
    )
    rows.write_parquet(tmp_path / "a.parquet")
    found = table(
        str(tmp_path / "a.parquet"),
        ByColumn(column="part", train=["train"], val=["val"]),
        **{"labels": "y", "group": None, "timestamp": None, "drop": ["part"]},
    )
    assert found.loaded.rows.dense[:, 0].tolist() == [-1, 1, -1, 1, 98, -102, np.float32(1e9 - 2), -2]
    assert found.loaded.rows.sparse[:, 0].tolist() == [1, 1, 2, 2, 0, 0, 1, 0]
    assert found.fitted.tasks[0].mean == 0.5
    lines = found.describe()
    assert "train: 4 rows, 50.00 % y" in lines and "val: 2 rows, 100.00 % y" in lines
    assert "val: ids unknown to training, or missing: c 100.0 %" in lines
    assert "test: ids unknown to training, or missing: c 50.0 %" in lines


def test_options_of_a_type_hold_for_inferred_fields(parquet):
    found = table(parquet, by_type={"dense": {"transform": "log", "indicator": True}, "sequence": {"max_length": 2}})
    assert found.fitted.spec.dense == ("price", "price_missing", "visits", "visits_missing")
    assert found.fitted.spec.sequences[0].max_length == 2
    assert found.loaded.rows.dense[:, 1].tolist() == frame()["price"].is_null().cast(pl.Float32).to_list()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": {"prize": "dense"}}, r"data\.features\.prize: .*Did you mean price"),
        ({"group": "users"}, r"data\.group: .*Did you mean user"),
        ({"drop": ["nte"]}, r"data\.drop: .*Did you mean note"),
        ({"labels": {"click": "clik"}}, r"data\.labels\.click\.column: .*Did you mean click"),
        ({"features": {"click": "sparse"}}, "the label click is made of it"),
        ({"tasks": ["buy"]}, r"data\.tasks=\[click,buy\]"),
        ({"infer": "yes"}, r"data\.infer=yes"),
        ({"infer": False}, "No column is left"),
    ],
)
def test_mistakes_are_named_by_their_key(parquet, options, message):
    with pytest.raises(GenrecError, match=message):
        _ = table(parquet, **options).loaded


def test_what_columns_are_taken_for_is_told(parquet, caplog):
    with caplog.at_level(logging.INFO, "genrec.data"):
        lines = table(parquet).describe()
    assert "taken for dense: price, visits" in caplog.messages
    assert "2 dense, 2 sparse, 1 sequence fields; most ids: tags 10, device 3, note 2" in lines
    assert "constant in training, so of no use: note" in lines
    assert not [line for line in lines if "without click" in line]


def test_labels_that_contradict_what_they_are_given_are_told(tmp_path):
    frame().with_columns(pl.lit(1).alias("buy")).write_parquet(tmp_path / "a.parquet")
    [line] = [line for line in table(str(tmp_path / "a.parquet")).describe() if "without click" in line]
    assert line.endswith(f"{int((frame()['click'] == 0).sum())} rows")


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_rows_are_divided_by_time(parquet):
    found = table(parquet, GlobalTime(val_from=0.5, test_from=0.75))
    times, parts = frame()["time"].to_numpy(), found.loaded.parts
    assert times[parts == 0].max() < times[parts == 1].min() <= times[parts == 1].max() < times[parts == 2].min()
    with pytest.raises(GenrecError, match=r"data\.timestamp names none.*split=random_rows"):
        _ = table(parquet, GlobalTime(), timestamp=None).loaded


def test_splits_of_interactions_are_refused(parquet):
    with pytest.raises(GenrecError, match=r"LeaveOneOut divides interactions.*split=random_rows"):
        table(parquet, LeaveOneOut())


def test_a_split_that_leaves_a_part_empty_is_an_error(parquet):
    with pytest.raises(GenrecError, match="no test rows among 400"):
        _ = table(parquet, GlobalTime(val_from=10**9 + 100, test_from=10**10)).loaded


# ---- what pipeline and models see -----------------------------------------------------------------------------------


def test_it_is_a_data_set_of_one_view(parquet):
    found = table(parquet)
    assert isinstance(found.view("rows"), RowsView) and found.view("rows") is found.view("rows")
    assert (found.has_text, found.ceiling, found.name, found.views) == (False, {}, "shop", ("rows",))
    assert found.spec.features == found.view("rows").features
    assert found.spec.training_rows is not None
    assert len(found.spec.training_rows()) == found.view("rows").num_rows("train")
    assert found.fingerprint == table(parquet).fingerprint != table(parquet, RandomRows(seed=1)).fingerprint
    with pytest.raises(GenrecError, match="Choose a model of rows"):
        found.view("sequences")


def test_new_rows_are_transformed_as_the_stored_ones(parquet):
    found = table(parquet)
    again = found.rows_of(frame().drop("click", "buy", "user"))
    for name in ("dense", "sparse", "values_0", "offsets_0"):
        assert np.array_equal(again.arrays()[name], found.loaded.rows.arrays()[name]), name
    assert again.groups is None and np.isnan(again.labels).all()


def test_a_source_that_knows_its_ceiling_is_asked_for_the_rows_of_each_part():
    class Known:
        name = "known"

        def chunks(self):
            yield frame()

        def ceiling(self, parts, tasks):
            return {f"{part}/auc": float(len(rows)) for part, rows in parts.items()} | {tasks[0].name: 1.0}

    found = TableDataset(Known(), RandomRows(), labels=["click"], group="user")
    counts = {f"{part}/auc": found.view("rows").num_rows(part) for part in ("val", "test")}
    assert found.ceiling == {**counts, "click": 1.0}
    with pytest.raises(GenrecError, match="made in memory"):
        _ = TableDataset(Known(), RandomRows(), labels=["click"], memory_map=True).loaded


# ---- files instead of memory ----------------------------------------------------------------------------------------


def test_rows_in_files_are_those_in_memory(parquet, tmp_path):
    held = table(parquet, memory_map=False)
    mapped = table(parquet, memory_map=True, cache_dir=str(tmp_path / "cache"))
    assert mapped.loaded.rows.mapped and isinstance(mapped.loaded.rows.dense, np.memmap)
    assert mapped.fingerprint == held.fingerprint
    for part in ("train", "val", "test", "all"):
        batches = zip(*(d.view("rows").eval_batches(part, batch_size=64) for d in (held, mapped)), strict=True)
        for one, other in batches:
            for name in ("dense", "sparse", "labels", "groups"):
                assert getattr(one, name).equal(getattr(other, name))
            assert one.sequences[0].equal(other.sequences[0])
    assert held.describe() == mapped.describe()[:-1]


def test_files_are_made_once_and_again_when_anything_changes(parquet, tmp_path, monkeypatch):
    options = {"memory_map": True, "cache_dir": str(tmp_path / "cache")}
    first = table(parquet, **options)
    lines, content = first.describe(), first.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(RawTable, "chunks", lambda *_: pytest.fail("read again"))
        again = table(parquet, **options)
        assert (again.describe(), again.fingerprint, again.fitted.spec) == (lines, content, first.fitted.spec)
    for change in ({"tasks": ["click"]}, {"split": RandomRows(seed=3)}, {"drop": ["note"]}):
        assert table(parquet, **options, **change).fingerprint != content
    frame().with_columns(pl.col("visits") + 1).write_parquet(parquet)
    assert table(parquet, **options).loaded.content != ""
    assert len(list((tmp_path / "cache" / "rows").iterdir())) == 5


def test_the_order_of_labels_is_that_of_the_tasks_in_files_too(parquet, tmp_path):
    options = {"memory_map": True, "cache_dir": str(tmp_path / "cache")}
    for names in (["click", "buy"], ["buy", "click"]):
        labels = {name: {"column": name} for name in names}
        assert [task.name for task in table(parquet, labels=labels, **options).fitted.spec.tasks] == names


def test_no_more_than_a_piece_is_read_at_a_time(tmp_path):
    """Memory is that of a piece: nothing larger is ever asked of the file, and the arrays that grow lie on disk."""
    frame(2000).write_parquet(tmp_path / "long.parquet")
    largest = []

    class Watched(TableSource):
        def chunks(self, columns=None):
            for piece in super().chunks(columns):
                largest.append(piece.height)
                yield piece

    source = Watched(path=str(tmp_path / "long.parquet"), chunk_rows=128)
    found = TableDataset(source, RandomRows(), labels=["click"], memory_map=True, cache_dir=str(tmp_path / "cache"))
    arrays = found.loaded.rows.arrays()
    assert max(largest) == 128 and len(found.loaded.rows) == 2000
    assert all(isinstance(array, np.memmap) for array in arrays.values())


def test_large_tables_that_stream_are_kept_in_files(parquet, tmp_path, monkeypatch):
    monkeypatch.setattr("genrec.data.table._MAPPED_FROM", 300)
    assert table(parquet, cache_dir=str(tmp_path / "cache")).loaded.rows.mapped
    frame().drop("tags").write_csv(tmp_path / "a.csv")
    assert not table(str(tmp_path / "a.csv"), cache_dir=str(tmp_path / "cache")).loaded.rows.mapped


# ---- the YAML -------------------------------------------------------------------------------------------------------


def test_yaml_lists_every_key_with_the_default_of_the_code(repository):
    node: Any = OmegaConf.to_container(OmegaConf.load(repository / "conf" / "data" / "table.yaml"), resolve=False)
    assert node.pop("defaults") == [{"override /split@_global_.split": "random_rows"}]
    source = node["source"]
    for given in (node, source):
        parameters = inspect.signature(get_class(given.pop("_target_"))).parameters
        assert set(given) == set(parameters)
        for key, parameter in parameters.items():
            if key not in ("source", "split", "path", "labels", "cache_dir", "by_type", "storage_options"):
                assert given[key] == parameter.default, key
    assert node["by_type"] == {"dense": {}, "sparse": {}, "sequence": {}}


@pytest.mark.parametrize(
    ("overrides", "split"),
    [
        (["data=frappe"], "RandomRows"),
        (["data=adult"], "ByColumn"),
        (["data=adult", "split=random_rows"], "RandomRows"),
        (["data=criteo", "split=by_column", "split.val=[dev]"], "ByColumn"),
        (["data=table", "data.path=x.csv", "data.labels=[click]", "split=global_time"], "GlobalTime"),
        (["data=synthetic"], "LeaveOneOut"),
    ],
)
def test_a_table_brings_a_split_that_the_command_line_may_change(overrides, split):
    assert compose_config(overrides).split._target_.rpartition(".")[2] == split


def yaml_dataset(repository, name: str, data_root, split: str, **changes) -> TableDataset:
    """A data set as its YAML says, without composing a whole run."""
    conf = repository / "conf"
    parts = [OmegaConf.load(conf / "data" / f"{file}.yaml") for file in ("table", name)]
    whole = {"data": OmegaConf.merge(*parts, changes), "split": OmegaConf.load(conf / "split" / f"{split}.yaml")}
    more = {"data_root": str(data_root), "cache_dir": "unused"}
    values: Any = OmegaConf.to_container(OmegaConf.create({**whole, **more}), resolve=True)
    del values["data"]["defaults"]
    return instantiate(values["data"], _convert_="all")


@pytest.mark.parametrize(
    ("name", "rates", "fields"),
    [
        ("frappe", {"label": 0.330}, (0, 10)),
        ("hillstrom", {"visit": 9394 / 64_000, "conversion": 578 / 64_000}, (1, 8)),
        ("adult", {"income": 11_687 / 48_842, "never_married": 16_117 / 48_842}, (0, 11)),
        ("census", {"income": 6186 / 99_762, "never_married": 43_143 / 99_762}, (2, 34)),
        ("criteo", {"label": 0.216}, (26, 26)),
    ],
)
def test_real_tables_have_the_base_rates_of_their_provenance(repository, data_root, name, rates, fields):
    split = "by_column" if name == "adult" else "random_rows"
    found = yaml_dataset(repository, name, data_root, split, tasks=list(rates))
    if not (data_root / str(found.path).rpartition("/")[2]).is_dir():
        pytest.skip(f"{found.path} does not exist")
    spec, labels = found.fitted.spec, found.loaded.rows.labels
    assert (len(spec.dense), len(spec.sparse)) == fields
    assert labels.mean(axis=0).tolist() == pytest.approx(list(rates.values()), abs=6e-4)
    assert not found.fitted.constant
    used = {field.name for field in spec.sparse} | set(spec.dense)
    leaks = {"split", "fnlwgt", "relationship", "marital_status", "marital_stat", "det_hh_fam_stat", "tax_filer_stat"}
    assert not used & {*leaks, "instance_weight", "visit", "conversion", "spend", "income", "income_50k", "label"}
    if name == "adult":
        assert found.view("rows").num_rows("test") == 16_281


def test_a_table_without_any_field_is_refused_before_it_is_read():
    with pytest.raises(GenrecError, match=r"data\.features declares none"):
        table("nowhere.parquet", infer=False, features={"note": "drop"})


def test_the_column_of_a_split_is_no_feature(tmp_path):
    """Its values are all of training, so what was learned of them would be gone where it is tested."""
    rows = frame().with_columns(pl.Series("part", ["train"] * 300 + ["test"] * 100))
    rows.write_parquet(tmp_path / "a.parquet")
    by_part = ByColumn(column="part")
    assert "part" not in table(str(tmp_path / "a.parquet"), by_part).fitted.columns
    assert "part" in table(str(tmp_path / "a.parquet"), by_part, features={"part": "sparse"}).fitted.columns
    assert "part" in table(str(tmp_path / "a.parquet")).fitted.columns  # divided otherwise, it is a column as others


@pytest.mark.parametrize("memory_map", [False, True])
def test_conversions_that_a_table_leaves_out_without_a_click_are_none(parquet, tmp_path, memory_map):
    """A table that tells of conversions on clicked rows alone says what one with all of them says, and reports it."""
    left_out = tmp_path / "left_out.parquet"
    frame().with_columns(pl.when(pl.col("click") == 1).then("buy").alias("buy")).write_parquet(left_out)
    options = {"memory_map": memory_map, "cache_dir": str(tmp_path / "cache")}
    whole, found = table(parquet, **options), table(str(left_out), **options)
    assert found.fitted.tasks == whole.fitted.tasks
    assert found.fingerprint == whole.fingerprint
    unclicked = frame().filter(pl.col("click") == 0).height
    told = f"buy is missing and without click, so taken for none: {unclicked:,} rows"
    for again in (found, table(str(left_out), **options)):  # the second from files, where they are kept
        assert told in again.describe()
    assert not any("taken for none" in line for line in whole.describe())


def test_rows_that_were_prepared_by_other_rules_are_prepared_again(parquet, tmp_path, monkeypatch):
    options = {"memory_map": True, "cache_dir": str(tmp_path / "cache")}
    _ = table(parquet, **options).loaded
    monkeypatch.setattr("genrec.data.table.ROWS_VERSION", 1)
    _ = table(parquet, **options).loaded
    assert len(list((tmp_path / "cache").rglob("parts.npy"))) == 2


def test_a_conversion_that_no_row_tells_of_is_not_taken_for_none(parquet, tmp_path):
    frame().with_columns(pl.lit(None, pl.Boolean).alias("buy")).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(GenrecError, match=r"data\.labels\.buy: buy is missing in all training rows"):
        _ = table(str(tmp_path / "a.parquet")).loaded


@pytest.mark.parametrize("memory_map", [False, True])
def test_rows_without_a_user_stay_alone_over_all_chunks(tmp_path, memory_map):
    rows = frame().with_columns(pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("user").alias("user"))
    rows.write_parquet(tmp_path / "a.parquet")
    groups = table(str(tmp_path / "a.parquet"), memory_map=memory_map, cache_dir=str(tmp_path)).loaded.rows.groups
    assert groups is not None and len(set(groups[::3].tolist())) == len(groups[::3])
