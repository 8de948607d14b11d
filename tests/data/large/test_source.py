"""Where a large log comes from: stores as well as disks, and what tells that its files have changed."""

import fsspec
import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.large import LargeSource


@pytest.fixture
def store():
    system = fsspec.filesystem("memory")
    system.pipe(
        {
            "/large_shop/day-1.csv": b"user_id,item_id,timestamp\nann,7,1\nbob,7,2\n",
            "/large_shop/day-2.csv": b"user_id,item_id,timestamp\nann,9,3\nbob,8,4\n",
            "/large_shop/items.csv": b"item_id,title\n7,Chair\n8,Lamp\n9,Desk\n",
            "/large_shop/notes.md": b"hello",
        }
    )
    yield system
    system.rm("/large_shop", recursive=True)


def source(tmp_path, path: str, **options: str) -> LargeSource:
    return LargeSource(path=path, cache_dir=str(tmp_path / "cache"), **options)  # pyright: ignore[reportArgumentType]


def test_a_log_of_a_store_is_the_log_of_a_disk(tmp_path, store):
    store.get("/large_shop", str(tmp_path / "large_shop"), recursive=True)
    here = source(tmp_path, str(tmp_path / "large_shop"))
    there = source(tmp_path, "memory://large_shop")
    assert here.name == there.name == "large_shop"
    assert here.description["fingerprint"] == there.description["fingerprint"]
    log = there.load().log
    assert log.item_table is not None and log.item_table["title"].to_list() == ["Chair", "Lamp", "Desk"]
    np.testing.assert_array_equal(log.user_ids[log.users], ["ann", "ann", "bob", "bob"])


def test_a_pattern_of_a_store_and_a_table_beside_it(tmp_path, store):
    log = source(tmp_path, "memory://large_shop/day-*.csv", items_path="memory://large_shop/items.csv").load().log
    assert len(log) == 4 and log.item_table is not None
    assert len(source(tmp_path, "memory://large_shop/day-2.csv").load().log) == 2


def test_a_changed_object_is_prepared_anew(tmp_path, store):
    assert len(source(tmp_path, "memory://large_shop").load().log) == 4
    store.pipe("/large_shop/day-2.csv", b"user_id,item_id,timestamp\nann,9,3\nbob,8,4\ncyd,9,5\n")
    assert len(source(tmp_path, "memory://large_shop").load().log) == 5


def test_what_is_not_there_is_said(tmp_path, store):
    with pytest.raises(GenrecError, match="memory://nowhere"):
        source(tmp_path, "memory://nowhere").load()
    with pytest.raises(GenrecError, match="does not exist"):
        source(tmp_path, str(tmp_path / "absent.csv")).load()
    with pytest.raises(GenrecError, match="files of one kind"):
        store.pipe("/large_shop/day-3.parquet", b"PAR1")
        source(tmp_path, "memory://large_shop").load()
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(GenrecError, match=r"items_path=things\.csv does not exist"):
        source(tmp_path, str(tmp_path / "log.csv"), items_path="things.csv").load()
