"""A large log is the log that reading the same tables into memory gives, whatever is wrong with them."""

import codecs
import gzip
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.interactions import DataReport
from genrec.data.large import LargeDataset, LargeSource, preparation
from genrec.data.large.preparation import partition_of
from genrec.data.sources.folder import FolderSource
from genrec.data.splits import GlobalTime, LeaveOneOut, RatioPerUser


def table(rows: int = 400, seed: int = 0, *, words: bool = False, times: str = "integers") -> pl.DataFrame:
    """Rows with repetitions, missing ids and unreadable times, all as text."""
    draw = np.random.default_rng(seed)
    users = [f"u{n:03d}" if words else str(n) for n in draw.integers(0, 40, rows)]
    items = [f" i{n}" if words else str(n) for n in (30 * draw.random(rows) ** 2).astype(int)]
    numbers = draw.integers(1_000, 1_100, rows)
    written = {
        "integers": numbers.astype(str).tolist(),
        "fractions": [f"{number}.5" if number % 3 else str(number) for number in numbers],
        "dates": [f"2014-07-{1 + number % 28:02d}" for number in numbers],
    }[times]
    ratings = draw.integers(1, 6, rows).astype(str).tolist()
    for place in draw.integers(0, rows, 5):
        users[place] = ""
    for place in draw.integers(0, rows, 5):
        items[place] = ""
    for place in draw.integers(0, rows, 3):
        written[place] = "yesterday"
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": written, "rating": ratings})
    return pl.concat([frame, frame.sample(30, seed=seed)])


def sources(folder: Path, **options: object) -> tuple[FolderSource, LargeSource]:
    path = next(folder.glob("interactions*"))
    known = {"path": str(path), "partition_rows": 50, "cache_dir": str(folder / "cache"), **options}
    plain = {name: value for name, value in known.items() if name not in ("partition_rows", "cache_dir")}
    return FolderSource(**plain), LargeSource(**known)  # pyright: ignore[reportArgumentType]


def told(report: DataReport) -> dict[str, int]:
    """The counts but that of odd values in other columns, which a large log does not keep."""
    return {name: count for name, count in report.counts.items() if count and name != "values_not_numbers"}


def assert_same(small: FolderSource, large: LargeSource) -> None:
    ours, theirs = large.load(), small.load()
    for name in ("users", "items", "user_ids", "item_ids", "timestamps"):
        found, wanted = getattr(ours.log, name), getattr(theirs.log, name)
        assert (found is None) == (wanted is None), name
        if wanted is not None:
            np.testing.assert_array_equal(found, wanted, err_msg=name)
    assert told(ours.report) == told(theirs.report)
    assert sorted(ours.report.notes) == sorted(theirs.report.notes)
    for name in ("item_table", "user_table"):
        found, wanted = getattr(ours.log, name), getattr(theirs.log, name)
        assert (found is None) == (wanted is None), name
        if wanted is not None:
            assert found.equals(wanted)


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("times", ["integers", "fractions", "dates"])
def test_it_is_the_log_of_the_same_tables_read_into_memory(tmp_path, words, times):
    table(words=words, times=times).write_csv(tmp_path / "interactions.csv")
    assert_same(*sources(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"min_rating": 3},
        {"min_user_interactions": 8, "min_item_interactions": 7},
        {"drop_duplicates": False},
        {"columns": {"user_id": "item_id", "item_id": "user_id"}},
    ],
)
def test_options_mean_the_same(tmp_path, options):
    table().write_csv(tmp_path / "interactions.csv")
    assert_same(*sources(tmp_path, **options))


@pytest.mark.parametrize("unknown", ["keep", "drop"])
@pytest.mark.parametrize("unused", ["keep", "drop"])
def test_tables_of_items_and_users_mean_the_same(tmp_path, unknown, unused):
    table().write_csv(tmp_path / "interactions.csv")
    items = pl.DataFrame({"item_id": [9, 3, 3, 77, 1, 0, 2], "title": list("abcdefg")})
    items.write_csv(tmp_path / "items.csv")
    pl.DataFrame({"user_id": [5, 99], "age": [20, 30]}).write_csv(tmp_path / "users.csv")
    paths = {"items_path": str(tmp_path / "items.csv"), "users_path": str(tmp_path / "users.csv")}
    options = {"unknown_items": unknown, "unused_items": unused, "min_item_interactions": 3}
    assert_same(*sources(tmp_path, **paths, **options))


def test_unknown_items_can_be_an_error(tmp_path):
    table().write_csv(tmp_path / "interactions.csv")
    pl.DataFrame({"item_id": [1]}).write_csv(tmp_path / "items.csv")
    for source in sources(tmp_path, items_path=str(tmp_path / "items.csv"), unknown_items="error"):
        with pytest.raises(GenrecError, match="are not in the item table"):
            source.load()


def test_every_kind_of_file(tmp_path):
    frame = table().filter(pl.col("timestamp") != "yesterday")
    text, parquet = frame.write_csv(), io.BytesIO()
    lines = "\n".join(json.dumps(row) for row in frame.to_dicts()).encode()
    frame.write_parquet(parquet)
    kinds = {
        "interactions.csv.gz": gzip.compress(text.encode()),
        "interactions.tsv": frame.write_csv(separator="\t").encode(),
        "interactions.jsonl": lines,
        "interactions.json": codecs.BOM_UTF8 + lines,
        "interactions.ndjson.gz": gzip.compress(codecs.BOM_UTF8 + lines),
        "interactions.parquet.gz": gzip.compress(parquet.getvalue()),
        "interactions.dat": "\n".join("::".join(row) for row in frame.rows()).encode(),
        "interactions_latin.csv": text.replace("user_id", "user_id", 1).replace(",5\n", ",fünf\n").encode("latin-1"),
    }
    for name, content in kinds.items():
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(content)
        options: dict[str, object] = {}
        if name.endswith(".dat"):
            options = {"delimiter": "::", "columns": ["user_id", "item_id", "timestamp", "rating"]}
        if "latin" in name:
            options = {"encoding": "latin-1"}
        assert_same(*sources(folder, **options))


@pytest.mark.parametrize("strangers", [["0"], ["nan", "", "inf"], ["1.5"] * 300])
def test_what_is_no_date_among_dates(tmp_path, strangers):
    times = ["2014-07-23", "2014-07-24 12:00:00"] * 120
    frame = table(240 - 30 + len(strangers)).with_columns(timestamp=pl.Series([*times, *strangers]))
    frame.write_csv(tmp_path / "interactions.csv")
    assert_same(*sources(tmp_path))


def test_blank_times_are_none(tmp_path):
    table().with_columns(timestamp=pl.lit(" ")).write_csv(tmp_path / "interactions.csv")
    assert_same(*sources(tmp_path))


def test_what_cannot_be_read_is_told_as_for_a_small_log(tmp_path):
    faults = {
        "array": ("interactions.json", b' [{"user_id": 1}]', "is one JSON array"),
        "torn": ("interactions.json.gz", gzip.compress(b'{"user_id": 1}')[:-9], "damaged or cut short"),
    }
    for folder, (name, content, said) in faults.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
        for source in sources(tmp_path / folder):
            with pytest.raises(GenrecError, match=said):
                source.load()
    far = pl.Series("timestamp", [2**60]).cast(pl.Datetime("us"))
    pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": far}).write_parquet(tmp_path / "interactions.parquet")
    for source in sources(tmp_path):
        with pytest.raises(GenrecError, match="timestamp holds dates beyond the years 1 to 9999"):
            source.load()


def test_a_packed_log_grows_no_further_than_it_may(tmp_path, monkeypatch):
    text = table().write_csv()
    monkeypatch.setenv("GENREC_MAX_UNPACKED", "0.000001")
    for folder, content in {"plain": text.encode(), "latin": text.encode("latin-1")}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "interactions.csv.gz").write_bytes(gzip.compress(content))
        encoding = "latin-1" if folder == "latin" else "utf-8"
        for source in sources(tmp_path / folder, encoding=encoding):
            with pytest.raises(GenrecError, match="unpacks to more than GENREC_MAX_UNPACKED"):
                source.load()


@pytest.mark.parametrize("counts", [[100] * 1_000_000, [2**31, 2**31, 5]])
def test_partitions_of_a_long_log_are_in_the_order_of_its_users(counts):
    found = partition_of(pl.Series("len", counts, dtype=pl.UInt32), 2_000_000)
    assert found.is_sorted() and found.max() == -(-sum(counts) // 2_000_000) - 1
    if len(counts) > 3:
        assert set(np.bincount(found) * 100) == {2_000_000}


def test_typed_columns_of_parquet(tmp_path):
    frame = table().filter((pl.col("user_id") != "") & (pl.col("timestamp") != "yesterday"))
    typed = frame.select(
        pl.col("user_id").cast(pl.UInt64),
        pl.col("item_id").cast(pl.Float64, strict=False),
        pl.from_epoch(pl.col("timestamp").cast(pl.Int64)).alias("timestamp"),
    )
    typed.write_parquet(tmp_path / "interactions.parquet")
    assert_same(*sources(tmp_path))


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_ids_that_a_float_has_broken_are_refused(tmp_path, column):
    frame = pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [1.0, 2.0]}).with_columns(pl.col(column) + 0.5)
    frame.write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(GenrecError, match=f"{column} holds floating-point numbers, and 2"):
        sources(tmp_path)[1].load()


def test_without_times_the_stored_order_counts(tmp_path):
    table().drop("timestamp").write_csv(tmp_path / "interactions.csv")
    assert_same(*sources(tmp_path))


def test_a_folder_of_files_is_one_log(tmp_path):
    frame = table().filter(pl.col("timestamp") != "yesterday")
    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    frame.write_csv(whole / "interactions.csv")
    for number in range(4):
        frame.slice(number * 120, 120).write_csv(parts / f"day-{number}.csv")
    pl.DataFrame({"item_id": [1], "title": ["a"]}).write_csv(parts / "items.csv")
    one = LargeSource(path=str(whole), cache_dir=str(tmp_path / "cache")).load().log
    many = LargeSource(path=str(parts), cache_dir=str(tmp_path / "cache")).load().log
    few = LargeSource(path=str(parts / "day-*.csv"), cache_dir=str(tmp_path / "cache")).load().log
    for log in (many, few):
        np.testing.assert_array_equal(log.users, one.users)
        np.testing.assert_array_equal(log.user_ids[log.users], one.user_ids[one.users])
        np.testing.assert_array_equal(np.sort(log.item_ids[log.items]), np.sort(one.item_ids[one.items]))
    assert many.item_table is not None and few.item_table is None


@pytest.mark.parametrize(
    "split",
    [
        LeaveOneOut(),
        RatioPerUser(),
        RatioPerUser(order="random"),
        RatioPerUser(train_ratio=0.8, val_ratio=0.2, test_ratio=0.0),
        GlobalTime(val_from=0.7, test_from=0.85),
        GlobalTime(val_from=1050, test_from=1080),
    ],
)
def test_splits_are_those_of_the_log_in_memory(tmp_path, split, monkeypatch):
    monkeypatch.setattr("genrec.data.large.dataset.BLOCK", 37)
    table().write_csv(tmp_path / "interactions.csv")
    small, large = sources(tmp_path)
    wanted, dataset = Dataset(small, split), LargeDataset(large, split)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(dataset.split, part).values, getattr(wanted.split, part).values)
        np.testing.assert_array_equal(getattr(dataset.split, part).offsets, getattr(wanted.split, part).offsets)
    assert dataset.split.describe() == wanted.split.describe()
    assert dataset.split.time_ranges == wanted.split.time_ranges
    assert dataset.split.contiguous == wanted.split.contiguous
    for part in ("val", "test", "all"):
        ours, theirs = dataset.sequences.history(part), wanted.sequences.history(part)
        assert [row.tolist() for row in ours] == [row.tolist() for row in theirs]


def test_a_prepared_log_is_not_prepared_again_until_its_files_change(tmp_path, monkeypatch):
    path = tmp_path / "interactions.csv"
    table().write_csv(path)

    def fingerprint() -> str:
        source = LargeSource(path=str(path), cache_dir=str(tmp_path / "cache"))
        return LargeDataset(source, LeaveOneOut()).fingerprint

    first = fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr("genrec.data.large.source.prepare", lambda *args, **kwargs: pytest.fail("prepared again"))
        assert fingerprint() == first
    table(seed=1).write_csv(path)
    assert fingerprint() != first


@pytest.mark.parametrize("pass_", ["scatter", "sort", "write"])
def test_a_preparation_that_was_killed_goes_on(tmp_path, monkeypatch, pass_):
    """Stopped after each pass, it ends with the arrays of one that was not."""
    table().write_csv(tmp_path / "interactions.csv")
    small, large = sources(tmp_path)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    home, name = (preparation, "_write") if pass_ == "write" else (preparation.Partitions, pass_)
    with monkeypatch.context() as patch:
        patch.setattr(home, name, killed)
        with pytest.raises(KeyboardInterrupt):
            large.load()
    if pass_ == "write":  # nothing that is sorted is sorted again
        monkeypatch.setattr(preparation.Partitions, "_ordered", lambda *args, **kwargs: pytest.fail("sorted again"))
    assert_same(small, sources(tmp_path)[1])


def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "interactions.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(GenrecError, match=r"interactions\.parquet"):
        sources(tmp_path)[1].load()
    (tmp_path / "interactions.parquet").unlink()
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n1,2\n1,2,3,4\n")
    with pytest.raises(GenrecError, match=r"interactions\.csv"):
        sources(tmp_path)[1].load()
    (tmp_path / "interactions.csv").write_text("who,what\n1,2\n")
    with pytest.raises(GenrecError, match="has the columns: who, what"):
        sources(tmp_path)[1].load()
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n")
    with pytest.raises(GenrecError):
        sources(tmp_path)[1].load()
