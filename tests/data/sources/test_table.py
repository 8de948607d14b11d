from __future__ import annotations

import gzip

import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.sources.table import TableSource

FRAME = pl.DataFrame({"user": [2**53 + 1, 2, None], "tag": ["a,b", None, "ü"], "y": [0.5, 1.0, None]})
TEXT = FRAME.cast(pl.String)
WRITERS = {
    "my.csv": lambda path: FRAME.write_csv(path),
    "my.csv.gz": lambda path: path.write_bytes(gzip.compress(FRAME.write_csv().encode())),
    "my.tsv": lambda path: FRAME.write_csv(path, separator="\t"),
    "my.jsonl": lambda path: FRAME.write_ndjson(path),
    "my.parquet": lambda path: FRAME.write_parquet(path),
}


def whole(source: TableSource) -> pl.DataFrame:
    return pl.concat(source.chunks())


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("given", ["file", "folder", "list"])
def test_every_format_gives_the_same_rows(tmp_path, name, given):
    WRITERS[name](tmp_path / name)
    path = {"file": str(tmp_path / name), "folder": str(tmp_path), "list": [str(tmp_path / name)]}[given]
    source = TableSource(path=path)
    assert source.text == (".csv" in name or ".tsv" in name)
    assert whole(source).equals(TEXT if source.text else FRAME)
    assert source.streams == (name == "my.parquet")


def test_several_files_are_one_table_and_may_name_themselves(tmp_path):
    FRAME.write_csv(tmp_path / "train.csv")
    FRAME.head(1).write_csv(tmp_path / "test.csv")
    paths = [str(tmp_path / "train.csv"), str(tmp_path / "test.csv")]
    found = whole(TableSource(path=paths, file_column="part"))
    assert found["part"].to_list() == ["train"] * 3 + ["test"]
    assert whole(TableSource(path=str(tmp_path), file_column="part"))["part"].to_list() == ["test"] + ["train"] * 3
    with pytest.raises(GenrecError, match="file_column=tag"):
        whole(TableSource(path=paths, file_column="tag"))


def test_columns_are_renamed_or_named(tmp_path):
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_csv(tmp_path / "b.csv", include_header=False)
    FRAME.write_parquet(tmp_path / "c.parquet")
    assert set(whole(TableSource(path=str(tmp_path / "a.csv"), columns={"uid": "user"})).columns) == {"uid", "tag", "y"}
    named = TableSource(path=str(tmp_path / "b.csv"), columns=["p", "q", "r"])
    assert whole(named).columns == ["p", "q", "r"] and whole(named).height == 3
    streamed = TableSource(path=str(tmp_path / "c.parquet"), columns={"uid": "user"})
    assert set(streamed.schema) == {"uid", "tag", "y"}
    assert [frame.columns for frame in streamed.chunks(["y", "uid"])] == [["y", "uid"]]
    with pytest.raises(GenrecError, match="map them"):
        whole(TableSource(path=str(tmp_path / "c.parquet"), columns=["p", "q", "r"]))
    with pytest.raises(GenrecError, match=r"data\.source\.columns"):
        whole(TableSource(path=str(tmp_path / "a.csv"), columns={"uid": "usr"}))


def test_parquet_comes_in_pieces_over_all_parts(tmp_path):
    for part in range(3):
        pl.DataFrame({"x": range(part * 10, part * 10 + 10), "z": "a"}).write_parquet(tmp_path / f"{part}.parquet")
    source = TableSource(path=str(tmp_path), chunk_rows=4, file_column="file")
    assert source.num_rows == 30 and list(source.schema) == ["x", "z", "file"]
    pieces = list(source.chunks(["x"]))
    assert max(piece.height for piece in pieces) == 4 and pieces[0].columns == ["x"]
    assert pl.concat(pieces)["x"].to_list() == list(range(30))
    assert pl.concat(source.chunks(["file"]))["file"].to_list() == [name for name in "012" for _ in range(10)]


def test_origin_changes_with_the_file_and_the_options(tmp_path):
    path = tmp_path / "a.csv"
    FRAME.write_csv(path)
    first = TableSource(path=str(path)).origin
    assert first == TableSource(path=[str(path)]).origin
    assert first != TableSource(path=str(path), delimiter=";").origin
    FRAME.head(1).write_csv(path)
    assert first != TableSource(path=str(path)).origin


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(GenrecError, match=r"data\.path=<path>"):
        whole(TableSource(path=str(tmp_path / "nothing.csv")))
    with pytest.raises(GenrecError, match="a table"):
        whole(TableSource(path=str(tmp_path)))
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.drop("y").write_csv(tmp_path / "b.csv")
    with pytest.raises(GenrecError, match=r"b\.csv has other columns than a\.csv \(y\)"):
        whole(TableSource(path=str(tmp_path)))
    (tmp_path / "c.parquet").write_text("no")
    with pytest.raises(GenrecError, match="files of one kind"):
        whole(TableSource(path=str(tmp_path)))
    with pytest.raises(GenrecError, match="not a readable Parquet file"):
        whole(TableSource(path=str(tmp_path / "c.parquet")))
    with pytest.raises(GenrecError, match=r"data\.source\.chunk_rows=0"):
        TableSource(path="x", chunk_rows=0)


@pytest.mark.parametrize(
    ("folder", "rows", "columns"),
    [
        ("frappe", 86_582, 12),
        ("hillstrom_email", 64_000, 12),
        ("adult_income", 48_842, 15),
        ("census_income_kdd", 99_762, 42),
        ("criteo_8k", 8_000, 41),
    ],
)
def test_real_tables_have_the_size_of_their_provenance(data_root, folder, rows, columns):
    if not (data_root / folder).is_dir():
        pytest.skip(f"{data_root / folder} does not exist")
    assert whole(TableSource(path=str(data_root / folder))).shape == (rows, columns)


def test_types_of_files_are_brought_together(tmp_path):
    """Fault found by use: a user was 7 in one file and "7" in the next, and a split by time failed on int32."""
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.with_columns(pl.lit(7, dtype=pl.Int32).alias("user")).write_parquet(tmp_path / "b.parquet")
    FRAME.head(0).write_parquet(tmp_path / "c.parquet")
    assert whole(TableSource(path=str(tmp_path)))["user"].to_list() == [2**53 + 1, 2, None, 7, 7, 7]
    FRAME.with_columns(pl.lit("x").alias("user")).write_parquet(tmp_path / "d.parquet")
    found = whole(TableSource(path=str(tmp_path)))["user"]
    assert found.dtype == pl.String and found.to_list()[1:] == ["2", None, "7", "7", "7", "x", "x", "x"]
    lists = FRAME.select(pl.lit([1]).alias("user"))
    lists.write_parquet(tmp_path / "l1.parquet")
    lists.cast(pl.List(pl.Int32)).write_parquet(tmp_path / "l2.parquet")
    lists.select(pl.lit(None).alias("user")).write_parquet(tmp_path / "l3.parquet")
    paths = [str(tmp_path / f"l{number}.parquet") for number in (1, 2, 3)]
    assert whole(TableSource(path=paths))["user"].to_list() == [[1], [1], None]
    for path in paths:
        (tmp_path / path).unlink()
    FRAME.with_columns(pl.lit([1]).alias("user")).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(GenrecError, match="do not go together: user is of types Int64, Int32, String, List"):
        whole(TableSource(path=str(tmp_path)))


def test_files_without_rows_still_have_columns(tmp_path):
    FRAME.head(0).write_parquet(tmp_path / "a.parquet")
    [only] = TableSource(path=str(tmp_path / "a.parquet")).chunks()
    assert only.schema == FRAME.schema and not only.height


def test_an_empty_list_of_files_is_an_error():
    with pytest.raises(GenrecError, match=r"data\.path names no file"):
        TableSource(path=[])
