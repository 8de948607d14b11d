"""Where a large log comes from: stores as well as disks, and what tells that its files have changed."""

import os

import fsspec
import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data.large import LargeSource
from genrec.remote.copies import cached_copy
from genrec.remote.stores import UNREACHABLE, StoreError
from tests.remote.store_server import serving


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


def test_of_a_store_that_tells_no_versions_the_content_counts(tmp_path):
    head = "user_id,item_id\n"
    with serving() as server:
        server.marks = False
        server.files["/x.csv"] = f"{head}1,1\n2,1\n".encode()
        server.files["/y/x.csv"] = f"{head}7,1\n8,1\n".encode()

        def users(path: str) -> list[int]:
            return source(tmp_path, f"{server.url}{path}").load().log.user_ids.tolist()

        assert (users("/x.csv"), users("/y/x.csv")) == ([1, 2], [7, 8])
        server.files["/x.csv"] = f"{head}3,1\n4,1\n".encode()
        assert users("/x.csv") == [3, 4]


def test_files_of_one_name_size_and_time_are_told_apart(tmp_path):
    for folder, user in (("a", 1), ("b", 2)):
        path = tmp_path / folder / "x.csv"
        path.parent.mkdir()
        path.write_text(f"user_id,item_id\n{user},1\n")
        os.utime(path, (1, 1))
        assert source(tmp_path, str(path)).load().log.user_ids.tolist() == [user]


@pytest.mark.parametrize(
    "path", ["memory://large_shop", "memory://large_shop/day-*.csv", "memory://large_shop/day-1.csv"]
)
def test_without_the_store_the_copies_are_taken_and_nothing_is_prepared_again(tmp_path, store, monkeypatch, path):
    first = source(tmp_path, path)
    wanted = first.description["fingerprint"]

    def unreachable(*args: object, **kwargs: object) -> None:
        raise StoreError("memory:// cannot be reached", UNREACHABLE)

    monkeypatch.setattr("genrec.data.large.source.prepare", lambda *args, **kwargs: pytest.fail("prepared again"))
    copy = cached_copy(path, tmp_path / "cache")
    assert source(tmp_path, str(copy)).folder == first.folder  # as the record of a run names it
    monkeypatch.setattr("genrec.remote.copies.remote_files", unreachable)
    monkeypatch.setattr("genrec.remote.copies.time.sleep", lambda seconds: None)
    assert source(tmp_path, path).description["fingerprint"] == wanted


def test_objects_of_one_name_are_one_log(tmp_path, store):
    store.pipe("/large_shop/mon/part.csv", b"user_id,item_id\nann,1\n")
    store.pipe("/large_shop/tue/part.csv", b"user_id,item_id\nann,2\n")
    log = source(tmp_path, "memory://large_shop/*/part.csv").load().log
    assert log.item_ids[log.items].tolist() == [1, 2]


def test_a_table_named_beside_a_remote_folder_is_none_of_its_logs(tmp_path, store):
    store.pipe("/large_shop/things.csv", b"item_id,title\n7,Chair\n8,Lamp\n9,Desk\n")
    log = source(tmp_path, "memory://large_shop", items_path="things.csv").load().log
    assert len(log) == 4 and log.item_table is not None
    store.get("/large_shop", str(tmp_path / "here"), recursive=True)
    assert len(source(tmp_path, str(tmp_path / "here"), items_path="things.csv").load().log) == 4


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
