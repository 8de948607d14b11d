"""Which paths are addresses, which of them are read, and what of them may be seen."""

from __future__ import annotations

import pytest

from genrec.contracts import GenrecError
from genrec.remote.addresses import before_pattern, below, has_magic, identity, is_remote, name_of, protocol_of, shown


@pytest.mark.parametrize(
    "path", ["s3://b/x.csv", "GS://b", "memory://b/x", "simplecache::s3://b/x", "zip://a.csv::/tmp/x.zip", "file:///x"]
)
def test_addresses(path: str) -> None:
    assert is_remote(path)


@pytest.mark.parametrize(
    "path", ["data.csv", "/data/x.csv", "a::b.csv", "C:\\data\\x.csv", "a:b", "", None, 3, ["s3://b"]]
)
def test_paths_of_this_machine(path: object) -> None:
    assert not is_remote(path)


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::s3://b/x.csv",
        "zip://../../etc/passwd::s3://b/x.zip",
        "zip:///tmp/x.zip",
        "tar://x",
        "reference://x.json",
        "dask://x",
        "git://x",
        "github://o:r@main/x.csv",
        "jupyter://x",
        "dir://x",
        "generic://x",
        "cached://x",
        "filecache://x",
        "data:text/csv,1://x",
        "nonsense://x",
    ],
)
def test_chains_archives_and_what_refers_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(GenrecError, match=r"chains several|no kind of address"):
        protocol_of(url)


def test_a_file_system_of_ones_own_is_read() -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    with pytest.raises(GenrecError):
        protocol_of("mystore://x")
    fsspec.register_implementation("mystore", type("MyStore", (MemoryFileSystem,), {"protocol": "mystore"}))
    assert protocol_of("mystore://x") == "mystore"


def test_an_address_is_shown_without_what_is_secret() -> None:
    assert shown("https://me:pw@host/x.csv?X-Amz-Signature=abc&a=1") == "https://(hidden)@host/x.csv?(hidden)"
    assert shown("ftp://me:p@ss@host/x.csv") == "ftp://(hidden)@host/x.csv"
    assert shown("s3://bucket/a.csv") == "s3://bucket/a.csv"
    assert shown("abfs://container@account.dfs.core.windows.net/a") == "abfs://container@account.dfs.core.windows.net/a"


def test_who_asks_and_until_when_is_no_part_of_what_is_asked_for() -> None:
    plain = identity("https://host/x.csv?id=7")
    assert identity("https://me:pw@host/x.csv?id=7&X-Amz-Signature=q&X-Amz-Date=1&X-Amz-Expires=9") == plain
    assert identity("https://host/x.csv?id=7&sv=2024&se=tomorrow&sp=r&sig=abc") == plain
    assert identity("https://host/x.csv?id=8") != plain
    assert identity(shown("ftp://me:pw@host/x.csv")) == identity("ftp://me:pw@host/x.csv")


def test_names_and_folders() -> None:
    assert name_of("s3://b/folder/") == "folder"
    assert name_of("https://h/a/x.csv?name=/y.csv#z") == "x.csv"
    assert below("https://h/a/?sig=1", "x.csv") == "https://h/a/x.csv?sig=1"
    assert before_pattern("s3://b/days/2024-*/x.parquet") == "s3://b/days"
    assert has_magic("s3://b/x?.csv") and not has_magic("https://h/x.csv?a=1")
    for url in ("s3://", "s3://b/..", "memory://", "http://h/."):
        with pytest.raises(GenrecError, match="names no file"):
            name_of(url if url != "http://h/." else "http://h/a/..")
