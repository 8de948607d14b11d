from __future__ import annotations

import hashlib
import socket
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest

from genrec.contracts import GenrecError
from genrec.data import download as module
from genrec.data.download import download, extract_zip, missing_files

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def fetch(server, path, **options):
    return download(f"{server.url}/file", path, progress=False, timeout=5, **options)


def test_downloads_once_and_records_the_hash(server, tmp_path):
    server.files["/file"] = CONTENT
    path = fetch(server, tmp_path / "sub" / "file.gz")
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "sub" / "file.gz.sha256").read_text() == f"{SHA256}  file.gz\n"
    fetch(server, path)
    assert len(server.requests) == 1
    assert not list(path.parent.glob("*.part*"))


def test_broken_connection_continues_where_it_stopped(server, tmp_path):
    server.files["/file"] = CONTENT
    server.broken, server.cut = 1, 100_000
    assert fetch(server, tmp_path / "file", sha256=SHA256).read_bytes() == CONTENT
    assert server.requests == [("/file", None), ("/file", "bytes=100000-")]


def test_partial_file_of_an_earlier_call_is_continued(server, tmp_path):
    server.files["/file"] = CONTENT
    server.broken, server.cut = 1, 70_000
    with pytest.raises(GenrecError, match="70,000 bytes are kept"):
        fetch(server, tmp_path / "file", attempts=1)
    assert not (tmp_path / "file").exists()
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1] == ("/file", "bytes=70000-")


def test_part_of_another_version_is_thrown_away(server, tmp_path):
    server.files["/file"] = CONTENT
    server.broken, server.cut = 1, 70_000
    with pytest.raises(GenrecError):
        fetch(server, tmp_path / "file", attempts=1)
    server.files["/file"], server.etag = CONTENT[::-1], '"two"'
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_part_longer_than_the_file_is_fetched_again(server, tmp_path):
    server.files["/file"] = CONTENT
    server.broken, server.cut = 1, 70_000
    with pytest.raises(GenrecError):
        fetch(server, tmp_path / "file", attempts=1)
    server.files["/file"] = CONTENT[:1000]
    assert fetch(server, tmp_path / "file").read_bytes() == CONTENT[:1000]


def test_wrong_hash_keeps_nothing(server, tmp_path):
    server.files["/file"] = CONTENT
    with pytest.raises(GenrecError, match=f"{SHA256}.*{'0' * 64}"):
        fetch(server, tmp_path / "file", sha256="0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == [".file.lock"]


def test_wrong_hash_of_a_file_that_is_there(server, tmp_path):
    (tmp_path / "file").write_bytes(b"other")
    with pytest.raises(GenrecError, match="Remove it to fetch it again"):
        fetch(server, tmp_path / "file", sha256=SHA256)


def test_missing_on_the_server_names_base_url(server, tmp_path):
    with pytest.raises(GenrecError, match=r"404.*data\.source\.base_url"):
        fetch(server, tmp_path / "file")
    assert len(server.requests) == 1  # a 404 is not tried again


def test_offline_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with pytest.raises(GenrecError, match=f"put it at {tmp_path / 'file'}"):
        download(url, tmp_path / "file", progress=False, timeout=2)


def test_other_schemes_are_refused(tmp_path):
    with pytest.raises(GenrecError, match="http"):
        download("file:///etc/hostname", tmp_path / "file")


def make_zip(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_zip_loses_its_single_top_folder(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"ml-1m/": "", "ml-1m/ratings.dat": "1", "ml-1m/sub/x": "2"})
    written = extract_zip(archive, tmp_path / "out")
    assert written == [tmp_path / "out" / "ratings.dat", tmp_path / "out" / "sub" / "x"]
    assert written[1].read_text() == "2"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:/evil"])
def test_zip_cannot_escape_its_folder(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", {"good": "1", name: "2"})
    with pytest.raises(GenrecError, match="refused"):
        extract_zip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zip_with_a_link_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(GenrecError, match="refused"):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK not a zip")
    with pytest.raises(GenrecError, match="Remove it"):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")


def test_missing_files_names_every_way_out(tmp_path):
    text = str(missing_files(tmp_path / "beauty", "sequences.txt", download=True))
    for part in ("sequences.txt", "beauty", "GENREC_DATA", "data_root", "data.path", "download=true"):
        assert part in text
    assert str(missing_files(tmp_path, "x", download=False)).endswith("data.path=<path>.")
