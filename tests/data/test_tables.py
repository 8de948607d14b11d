from __future__ import annotations

import gzip

import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.tables import find_table, joined_text, map_columns, nearest_columns, read_table, table_suffix

ROWS = [("a", "9007199254740993"), ("b", "007")]  # 2^53 + 1 has no float


def write(path, text, encoding="utf-8"):
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "user_id,item_id\na,9007199254740993\nb,007\n"),
        ("t.csv.gz", "user_id,item_id\na,9007199254740993\nb,007\n"),
        ("t.tsv", "user_id\titem_id\na\t9007199254740993\nb\t007\n"),
        ("t.TSV.gz", "user_id\titem_id\r\na\t9007199254740993\r\nb\t007\r\n"),
        ("t.csv", "\ufeffuser_id, item_id\na,9007199254740993\nb,007\n"),
    ],
)
def test_text_formats_keep_ids_as_written(tmp_path, name, text):
    frame = read_table(write(tmp_path / name, text))
    assert frame.columns == ["user_id", "item_id"]
    assert frame.rows() == ROWS


def test_parquet_and_json_lines(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [9007199254740993, 5]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ndjson(tmp_path / "t.jsonl")
    write(tmp_path / "u.jsonl.gz", (tmp_path / "t.jsonl").read_text())
    for name in ("t.parquet", "t.jsonl", "u.jsonl.gz"):
        assert read_table(tmp_path / name).equals(frame), name


def test_without_header_and_with_a_long_delimiter(tmp_path):
    path = write(tmp_path / "ratings.dat", "1::10::5::99\n2::20::3::98\n")
    frame = read_table(path, header=["u", "i"], delimiter="::")
    assert frame.rows() == [("1", "10"), ("2", "20")]
    with pytest.raises(GenrecError, match=r"5 names of columns were given, .*, and it has 4"):
        read_table(path, header=list("abcde"), delimiter="::")


def test_non_utf8_names_file_line_and_encoding(tmp_path):
    path = write(tmp_path / "t.csv", "user_id,title\n1,plain\n2,Amélie\n", "latin-1")
    with pytest.raises(GenrecError, match=r"t\.csv, line 3: byte 0xe9 is not utf-8.*encoding=latin-1"):
        read_table(path)
    assert read_table(path, encoding="latin-1")["title"].to_list() == ["plain", "Amélie"]
    with pytest.raises(GenrecError, match="no text encoding"):
        read_table(path, encoding="latin-99")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"item_id,title\n1,a\n2,b, c\n", "line 3 has 3 fields, the first one 2"),
        ("t.json", b'[{"a": 1}]', "one JSON array"),
        ("t.jsonl", b'{"a": 1}\nnot json\n', "not JSON lines"),
        ("t.parquet", b"PAR?", "not a readable Parquet"),
        ("t.xlsx", b"x", "unknown kind of table '.xlsx'"),
        ("t.csv.gz", gzip.compress(b"user,item\n" * 999, mtime=0)[:-9], "damaged or cut short"),
        ("t.csv.gz", b"user,item\n1,2\n", "damaged or cut short"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GenrecError, match=message) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)


def test_missing_file(tmp_path):
    for name in ("t.csv", "t.parquet", "t.csv.gz"):
        with pytest.raises(GenrecError, match="does not exist"):
            read_table(tmp_path / name)


def test_find_table_and_suffix(tmp_path):
    write(tmp_path / "items.tsv.gz", "x\n")
    assert find_table(tmp_path, "items") == tmp_path / "items.tsv.gz"
    assert find_table(tmp_path, "interactions") is None
    assert table_suffix(tmp_path / "a.b.CSV.gz") == ".csv"


def test_map_columns_renames_and_keeps_the_rest(tmp_path):
    frame = pl.DataFrame({"uid": ["1"], "asin": ["2"], "stars": ["5"]})
    mapped = map_columns(frame, {"user_id": "uid", "item_id": "asin"}, required=(), path=tmp_path, key="k")
    assert mapped.columns == ["user_id", "item_id", "stars"]


def test_unknown_columns_are_answered_with_the_yaml_to_write(tmp_path):
    frame = pl.DataFrame({"uid": ["1"], "asin": ["2"], "stars": ["5"]})
    with pytest.raises(GenrecError) as caught:
        map_columns(
            frame,
            {"rating": "star"},
            required=("user_id", "item_id"),
            path=tmp_path / "my.csv",
            key="data.source.columns",
        )
    text = str(caught.value)
    assert "my.csv has the columns: uid, asin, stars" in text
    assert "data.source.columns.rating=star names a column that is not there. Nearest: stars." in text
    assert text.endswith("  columns:\n    rating: stars\n    user_id: uid\n    item_id: asin")


def test_nearest_columns_know_usual_names_and_misspellings():
    assert nearest_columns("timestamp", ["ts", "user"]) == ["ts"]
    assert nearest_columns("user_id", ["User ID", "x"]) == ["User ID"]
    assert nearest_columns("item_id", ["itm_id", "zzz"]) == ["itm_id"]


def test_joined_text_leaves_empty_parts_out():
    items = pl.DataFrame({"title": ["A ", None, ""], "brand": ["B", "C", None]})
    joined = joined_text(items, [pl.col("title"), pl.col("brand")])
    assert joined["text"].to_list() == ["A. B", "C", ""]


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(GenrecError, match=r"t\.csv cannot be read \(Is a directory\)"):
        read_table(tmp_path / "t.csv")


def test_a_blank_last_line_is_no_row(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\r\n1,2\r\n3,4\r\n\r\n")
    assert read_table(path).rows() == [("1", "2"), ("3", "4")]
