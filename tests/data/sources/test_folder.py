from __future__ import annotations

import gzip
import re

import polars as pl
import pytest
from hydra.utils import instantiate

from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.data.dataset import Dataset
from genrec.data.sources.folder import FolderSource
from genrec.data.splits import LeaveOneOut
from genrec.data.storage import save_folder

FRAME = pl.DataFrame(
    {
        "uid": [2**53 + 1] * 3 + [5] * 3,
        "asin": ["B1", "B2", "B3", "B3", "B2", "B1"],
        "ts": [30, 20, 10, 1, 2, 3],
        "stars": [5.0, 4.0, 1.0, 5.0, 5.0, 2.0],
    }
)
COLUMNS = {"user_id": "uid", "item_id": "asin", "timestamp": "ts", "rating": "stars"}
WRITERS = {
    "my.csv": lambda path: FRAME.write_csv(path),
    "my.csv.gz": lambda path: path.write_bytes(gzip.compress(FRAME.write_csv().encode())),
    "my.tsv": lambda path: FRAME.write_csv(path, separator="\t"),
    "my.jsonl": lambda path: FRAME.write_ndjson(path),
    "my.jsonl.gz": lambda path: path.write_bytes(gzip.compress(FRAME.write_ndjson().encode())),
    "my.parquet": lambda path: FRAME.write_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_every_format_gives_the_same_log(tmp_path, name, given):
    WRITERS[name](tmp_path / name)
    path = tmp_path / name if given == "file" else tmp_path
    data = FolderSource(path=str(path), columns=COLUMNS).load()
    assert data.log.frame().rows() == [
        (5, "B3", 1, 5.0),
        (5, "B2", 2, 5.0),
        (5, "B1", 3, 2.0),
        (2**53 + 1, "B3", 10, 1.0),
        (2**53 + 1, "B2", 20, 4.0),
        (2**53 + 1, "B1", 30, 5.0),
    ]
    assert data.folder == tmp_path
    assert FolderSource(path=str(tmp_path / "my.csv.gz")).name == "my"


def test_without_header_columns_are_a_list(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv", include_header=False)
    log = FolderSource(path=str(tmp_path / "my.csv"), columns=["user_id", "item_id", "timestamp"]).load().log
    assert len(log) == 6
    assert log.columns == ["user_id", "item_id", "timestamp"]


def test_unmapped_columns_name_the_nearest(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv")
    with pytest.raises(GenrecError, match=r"(?s)uid, asin, ts, stars.*user_id: uid\n    item_id: asin"):
        FolderSource(path=str(tmp_path / "my.csv")).load()
    with pytest.raises(GenrecError, match=r"data\.source\.columns\.timestamp=tss.*Nearest: ts"):
        FolderSource(path=str(tmp_path / "my.csv"), columns={**COLUMNS, "timestamp": "tss"}).load()


def test_a_time_column_left_unused_is_pointed_out(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv")
    report = FolderSource(path=str(tmp_path / "my.csv"), columns={"user_id": "uid", "item_id": "asin"}).load().report
    assert any("data.source.columns.timestamp=ts" in line for line in report.lines())


def test_items_and_users_beside_the_interactions(tmp_path):
    FRAME.rename({"uid": "user_id", "asin": "item_id", "ts": "timestamp"}).write_csv(tmp_path / "interactions.csv")
    (tmp_path / "items.tsv").write_text("asin\tname\tbrand\nB2\tTwo\tCo\nB1\tOne\t\nB9\tNine\tCo\n")
    (tmp_path / "users.csv").write_text("user_id,age\n5,30\n6,40\n")
    source = FolderSource(
        path=str(tmp_path), items_columns={"item_id": "asin", "title": "name"}, text_columns=["title", "brand"]
    )
    dataset = Dataset(source, LeaveOneOut())
    assert dataset.titles == ["Two", "One", "item B3"]
    assert dataset.texts == ["Two. Co", "One", ""]
    counts = dataset.report.counts
    assert (counts["unknown_items"], counts["unused_items"], counts["empty_users"]) == (1, 1, 1)
    whole = FolderSource(path=str(tmp_path), items_columns={"item_id": "asin"}, unused_items="keep").load().log
    assert whole.item_ids.tolist() == ["B2", "B1", "B9", "B3"]


def test_items_path_and_text_without_title(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv")
    (tmp_path / "catalogue.csv").write_text("item_id,label\nB1,One\nB2,Two\nB3,Three\n")
    source = FolderSource(
        path=str(tmp_path / "my.csv"),
        columns=COLUMNS,
        items_path=str(tmp_path / "catalogue.csv"),
        text_columns=["label"],
    )
    assert Dataset(source, LeaveOneOut()).titles == ["One", "Two", "Three"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_columns": ["title"]}, "needs a table of items"),
        ({"items_path": "none.csv"}, "items_path=none.csv does not exist"),
        ({"min_rating": 3.0, "columns": {"user_id": "uid", "item_id": "asin"}}, "needs a rating column"),
        ({"min_user_interactions": 9}, "No interaction is left"),
        ({"delimiter": ";"}, "has the columns"),
    ],
)
def test_mistakes_are_explained(tmp_path, options, message):
    FRAME.write_csv(tmp_path / "my.csv")
    with pytest.raises(GenrecError, match=message):
        FolderSource(**{"path": str(tmp_path / "my.csv"), "columns": COLUMNS, **options}).load()


def test_text_columns_must_exist(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv")
    (tmp_path / "items.csv").write_text("item_id,name\nB1,One\n")
    with pytest.raises(GenrecError, match=r"names title, but .*item_id, name"):
        FolderSource(path=str(tmp_path), columns=COLUMNS, text_columns=["title"]).load()


def test_min_rating(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv")
    data = FolderSource(path=str(tmp_path / "my.csv"), columns=COLUMNS, min_rating=4).load()
    assert (len(data.log), data.report.counts["rows_below_min_rating"]) == (4, 2)


def test_latin1(tmp_path):
    (tmp_path / "my.csv").write_bytes("user_id,item_id\nzoë,a\nzoë,b\n".encode("latin-1"))
    with pytest.raises(GenrecError, match=r"my\.csv, line 2: byte 0xeb"):
        FolderSource(path=str(tmp_path / "my.csv")).load()
    log = FolderSource(path=str(tmp_path / "my.csv"), encoding="latin-1").load().log
    assert log.user_ids.tolist() == ["zoë"]


def test_a_folder_must_be_clear(tmp_path):
    with pytest.raises(GenrecError, match="holds nothing"):
        FolderSource(path=str(tmp_path)).load()
    for name in ("one.csv", "two.csv"):
        FRAME.write_csv(tmp_path / name)
    with pytest.raises(GenrecError, match=r"holds one\.csv, two\.csv"):
        FolderSource(path=str(tmp_path)).load()
    with pytest.raises(GenrecError, match="is not there"):
        FolderSource(path=str(tmp_path / "none")).load()


def test_a_canonical_folder_is_read_as_it_is(tmp_path):
    FRAME.write_csv(tmp_path / "my.csv")
    data = FolderSource(path=str(tmp_path / "my.csv"), columns=COLUMNS).load()
    save_folder(data, tmp_path / "saved", name="mine")
    loaded = FolderSource(path=str(tmp_path / "saved")).load()
    assert loaded.log.fingerprint == data.log.fingerprint
    with pytest.raises(GenrecError, match=r"nothing comes of data.source columns=.*, min_item_interactions=5"):
        FolderSource(path=str(tmp_path / "saved"), columns=COLUMNS, min_item_interactions=5).load()
    (tmp_path / "saved" / "dataset.json").unlink()  # without it: plain tables, cleaned again
    assert FolderSource(path=str(tmp_path / "saved")).load().log.frame().equals(data.log.frame())


def test_the_example_of_the_documentation(repository, tmp_path, monkeypatch):
    """The tables and the YAML of docs/data.md, word for word."""
    page = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    interactions, items = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    own = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert own is not None
    for path, text in {
        "shop/interactions.csv": interactions,
        "shop/items.csv": items,
        "mine/data/shop.yaml": own.group(1),
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    dataset = instantiate(compose_config(["data=shop"], "mine").data, _convert_="all")
    assert dataset.titles == ["Oak chair", "Pine table", "Desk lamp"]
    assert dataset.texts[0] == "Oak chair. Halden. Chairs"
    assert dataset.log.frame()["item_id"].to_list() == ["B07", "B02", "B11", "B02", "B11", "B07"]
    assert dataset.log.extras["rating"].tolist() == [5, 4, 5, 3, 5, 4]
    assert dataset.split.test.values.tolist() == [2, 1]


def test_lists_and_objects_are_read_as_text_and_refused_as_ids(tmp_path):
    (tmp_path / "interactions.jsonl").write_text(
        "".join(f'{{"user_id": 1, "item_id": {item}, "helpful": [0, {item}]}}\n' for item in (1, 2, 3))
    )
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": 1, "title": "Chair", "categories": ["Home", null, "Chairs"]}\n'
        '{"item_id": 2, "title": "Lamp", "categories": null}\n'
        '{"item_id": 3, "title": "Rug", "categories": []}\n'
    )
    source = FolderSource(path=str(tmp_path), text_columns=["title", "categories"])
    dataset = Dataset(source, LeaveOneOut())
    assert dataset.texts == ["Chair. Home, Chairs", "Lamp", "Rug"]
    assert dataset.log.extras["helpful"].tolist() == ["0, 1", "0, 2", "0, 3"]
    (tmp_path / "rows.jsonl").write_text('{"user_id": 1, "item_id": [1, 2, 3]}\n')
    with pytest.raises(GenrecError, match="item_id holds lists or objects"):
        FolderSource(path=str(tmp_path / "rows.jsonl")).load()
