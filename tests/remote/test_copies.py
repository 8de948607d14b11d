"""Remote files as files of this machine: once per version, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pytest
from rich.progress import Progress

from genrec.artifacts import read_json, write_json
from genrec.remote import copies
from genrec.remote.copies import cached_copy, copies_of, localised, localised_files, localised_folder, noted_sha256
from genrec.remote.stores import StoreError
from genrec.report.cleaning import superseded_copies
from tests.remote.store_server import StoreServer, md5_of

CONTENT = np.random.default_rng(0).bytes(300_000)
MEMORY = fsspec.filesystem("memory")


def fetch(url: str, cache: Path, **options: object) -> Path:
    return localised(url, cache, options or None, progress=False)


def put(url: str, content: bytes) -> None:
    MEMORY.pipe_file(url.removeprefix("memory:/"), content)


def test_paths_of_this_machine_are_themselves(tmp_path: Path) -> None:
    assert localised(tmp_path / "x.csv", tmp_path) == tmp_path / "x.csv"
    assert localised(f"file://{tmp_path}/x.csv", tmp_path) == tmp_path / "x.csv"
    assert not list(tmp_path.iterdir())


def test_a_version_is_fetched_once_and_a_changed_file_again(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/x.bin", CONTENT)
    first = fetch(f"{bucket}/x.bin", tmp_path)
    assert first.name == "x.bin" and first.read_bytes() == CONTENT
    before = first.stat().st_mtime_ns
    assert fetch(f"{bucket}/x.bin", tmp_path) == first and first.stat().st_mtime_ns == before
    put(f"{bucket}/x.bin", CONTENT[::-1])  # of the same size
    second = fetch(f"{bucket}/x.bin", tmp_path)
    assert second != first and second.read_bytes() == CONTENT[::-1] and first.read_bytes() == CONTENT
    assert cached_copy(f"{bucket}/x.bin", tmp_path) == second and len(copies_of(f"{bucket}/x.bin", tmp_path)) == 2
    assert read_json(second.parents[1] / copies.ORIGIN_FILE)["bytes"] == len(CONTENT)


def test_the_newest_copy_is_known_where_the_clock_of_the_disk_stands_still(bucket: str, tmp_path: Path) -> None:
    """Copies of an earlier release have no time noted: they come first, by that of their files."""
    url, entries = f"{bucket}/x.bin", []
    for step in range(5):
        put(url, bytes([step]))
        entries.append(fetch(url, tmp_path).parents[1])
    for entry, seconds in zip(entries, (1, 2, 0, 0, 0), strict=True):
        noted: dict[str, object] = read_json(entry / copies.ORIGIN_FILE)
        if seconds:
            del noted["fetched"]
        write_json(entry / copies.ORIGIN_FILE, noted)
        for name in (copies.ORIGIN_FILE, "done"):
            os.utime(entry / name, (seconds, seconds))
    assert copies_of(url, tmp_path) == entries and superseded_copies(tmp_path) == sorted(entries[:-1])
    assert cached_copy(url, tmp_path) == entries[-1] / copies.FILES / "x.bin"


def test_a_web_file_is_fetched_once(web: StoreServer, tmp_path: Path) -> None:
    web.files["/x.bin"] = CONTENT
    path = fetch(f"{web.url}/x.bin", tmp_path)
    gets = len(web.gets())
    assert fetch(f"{web.url}/x.bin", tmp_path) == path and path.read_bytes() == CONTENT
    assert len(web.gets()) == gets


def test_a_store_that_tells_no_version_is_asked_every_time(web: StoreServer, tmp_path: Path) -> None:
    web.files["/x.bin"], web.marks = CONTENT, False
    fetch(f"{web.url}/x.bin", tmp_path)
    web.files["/x.bin"] = CONTENT[::-1]
    assert fetch(f"{web.url}/x.bin", tmp_path).read_bytes() == CONTENT[::-1]


def test_a_torn_copy_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/x.bin", CONTENT)
    path = fetch(f"{bucket}/x.bin", tmp_path)
    path.write_bytes(CONTENT[:7])
    assert fetch(f"{bucket}/x.bin", tmp_path).read_bytes() == CONTENT


def test_a_broken_fetch_goes_on_where_it_stopped(
    web: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_CHUNK", 50_000)
    monkeypatch.setattr(copies, "_ATTEMPTS", 1)
    web.files["/x.bin"] = CONTENT
    opened = copies.RemoteFile.open

    def breaking(file: copies.RemoteFile, **how: int) -> object:
        stream = opened(file, block_size=100_000)
        read, calls = stream.read, []

        def limited(count: int) -> bytes:
            calls.append(count)
            if len(calls) > 2:
                raise ConnectionResetError("reset by peer")
            return read(count)

        monkeypatch.setattr(stream, "read", limited)
        return stream

    monkeypatch.setattr(copies.RemoteFile, "open", breaking)
    with pytest.raises(StoreError, match="cannot be reached"):
        fetch(f"{web.url}/x.bin", tmp_path)
    assert not list(tmp_path.glob("remote/*/files/*")) and not list(tmp_path.glob("remote/*/done"))
    (part,) = tmp_path.glob("remote/*/part")
    assert part.read_bytes() == CONTENT[:100_000]
    monkeypatch.setattr(copies.RemoteFile, "open", opened)
    web.requests.clear()
    assert fetch(f"{web.url}/x.bin", tmp_path).read_bytes() == CONTENT
    assert web.gets()[0] is not None and str(web.gets()[0]).startswith("bytes=100000-")


def test_a_server_that_fails_for_a_moment_is_asked_again(web: StoreServer, tmp_path: Path) -> None:
    web.files["/x.bin"], web.failures = CONTENT, [503, 502]
    assert fetch(f"{web.url}/x.bin", tmp_path).read_bytes() == CONTENT


def test_a_connection_cut_short_is_no_whole_file(web: StoreServer, tmp_path: Path) -> None:
    web.files["/x.bin"], web.cut = CONTENT, 70_000
    assert fetch(f"{web.url}/x.bin", tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_gives_the_file_as_a_whole(
    web: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/x.bin"], web.ranges = CONTENT, False
    assert fetch(f"{web.url}/x.bin", tmp_path / "one").read_bytes() == CONTENT
    entry = next((tmp_path / "one" / "remote").iterdir()).name
    part = tmp_path / "two" / "remote" / entry / "part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    assert fetch(f"{web.url}/x.bin", tmp_path / "two").read_bytes() == CONTENT


def test_what_the_store_vouches_for_is_checked(web: StoreServer, tmp_path: Path) -> None:
    web.files["/x.bin"], web.md5["/x.bin"] = CONTENT, md5_of(b"other")
    with pytest.raises(StoreError, match="MD5"):
        fetch(f"{web.url}/x.bin", tmp_path)
    assert not list(tmp_path.glob("remote/*/part")) and not list(tmp_path.glob("remote/*/files/*"))
    web.md5["/x.bin"] = md5_of(CONTENT)
    assert fetch(f"{web.url}/x.bin", tmp_path).read_bytes() == CONTENT


def test_without_the_store_the_last_copy_is_taken(
    web: StoreServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web.files["/x.bin"] = CONTENT
    path = fetch(f"{web.url}/x.bin", tmp_path)
    web.key = "somebody else"  # the store answers, and refuses: no reason to go on with what it gave before
    with pytest.raises(StoreError, match="permission denied"):
        fetch(f"{web.url}/x.bin", tmp_path)
    web.key, web.wait = None, 0.5
    assert fetch(f"{web.url}/x.bin", tmp_path, timeout=0.05) == path
    assert "Going on with the copy" in caplog.text


def test_a_folder_holds_what_is_chosen_of_it(bucket: str, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "_SUCCESS", ".hidden.csv", "deep/c.csv"):
        put(f"{bucket}/shop/{name}", name.encode())
    seen: list[str] = []

    def choose(names: list[str]) -> list[str]:
        seen[:] = names
        return ["b.csv"]

    folder = localised_folder(f"{bucket}/shop/", tmp_path, None, choose, progress=False)
    assert seen == ["a.csv", "b.csv"]
    assert folder.name == "shop" and [path.name for path in folder.iterdir()] == ["b.csv"]
    put(f"{bucket}/shop/b.csv", b"new")
    newer = localised_folder(f"{bucket}/shop", tmp_path, None, choose, progress=False)
    assert newer != folder and (newer / "b.csv").read_bytes() == b"new" and (folder / "b.csv").read_bytes() == b"b.csv"
    assert cached_copy(f"{bucket}/shop", tmp_path) == newer


def shop_of(web: StoreServer, count: int) -> dict[str, bytes]:
    content = {f"part_{index}.csv": CONTENT[: 1000 + index] for index in range(count)}
    web.files.update({f"/shop/{name}": text for name, text in content.items()})
    return content


def everything(names: list[str]) -> list[str]:
    return names


def test_several_files_of_a_folder_are_fetched_at_a_time(web: StoreServer, tmp_path: Path) -> None:
    content = shop_of(web, 20)
    web.wait = 0.1
    folder = localised_folder(f"{web.url}/shop/", tmp_path, None, everything, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert 2 <= web.busiest <= copies.AT_ONCE


def test_every_file_has_a_bar_that_comes_to_its_end(
    web: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = shop_of(web, 12)
    shown, opened = [], copies.progress_bars

    @contextmanager
    def watched(enabled: bool) -> Iterator[Progress]:
        with opened(enabled) as bars:
            shown.append(bars)
            yield bars

    monkeypatch.setattr(copies, "progress_bars", watched)
    localised_folder(f"{web.url}/shop/", tmp_path, None, everything)
    (bars,) = shown
    done = {task.description: (task.completed, task.total) for task in bars.tasks}
    assert done == {name: (len(text), len(text)) for name, text in content.items()}


def test_the_first_file_that_fails_ends_all(web: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reads as whole that is not, and the next time fetches what is missing."""
    content = shop_of(web, 30)
    web.md5["/shop/part_0.csv"] = md5_of(b"other")
    monkeypatch.setattr(copies, "AT_ONCE", 2)
    with pytest.raises(StoreError, match=r"part_0\.csv: its MD5 is not"):
        localised_folder(f"{web.url}/shop/", tmp_path, None, everything, progress=False)
    asked = {path for method, path, _ in web.requests if method == "GET" and path.endswith(".csv")}
    assert 0 < len(asked) < 30
    for entry in tmp_path.glob("remote/*/done"):
        (path,) = entry.parent.glob("files/*")
        assert path.read_bytes() == content[path.name]
    assert not list(tmp_path.glob("remote/*/files/shop"))
    del web.md5["/shop/part_0.csv"]
    folder = localised_folder(f"{web.url}/shop/", tmp_path, None, everything, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_ctrl_c_ends_a_fetch_of_several_files(web: StoreServer, tmp_path: Path, repository: Path) -> None:
    shop_of(web, 40)
    code = """
import signal, sys
from genrec.remote.copies import localised_folder
signal.signal(signal.SIGINT, signal.default_int_handler)
localised_folder(*sys.argv[1:], None, lambda names: names, progress=False)
"""
    web.wait = 0.2
    command = [sys.executable, "-c", code, f"{web.url}/shop/", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(repository)})
    deadline = time.monotonic() + 60
    while web.busiest < 2 or not list(tmp_path.glob("remote/*/done")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    web.wait = 100.0  # nothing more comes
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    web.wait = 0.0
    assert process.returncode != 0 and b"KeyboardInterrupt" in said
    assert len(list(tmp_path.glob("remote/*/done"))) < 40 and not list(tmp_path.glob("remote/*/files/shop"))


def test_two_files_of_one_name_lie_beside_each_other(bucket: str, tmp_path: Path) -> None:
    for day in ("mon", "tue"):
        put(f"{bucket}/{day}/x.csv", day.encode())
    url = f"{bucket}/*/x.csv"
    folder = localised_folder(url, tmp_path, None, lambda names: names)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {"00000-x.csv": b"mon", "00001-x.csv": b"tue"}
    assert localised_files(url, tmp_path, None, lambda names: names[1:])[0].read_bytes() == b"tue"


def test_the_hash_of_a_copy_is_noted(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/shop/x.csv", b"mon")
    (inside,) = localised_files(f"{bucket}/shop", tmp_path, None, lambda names: names)
    (alone,) = localised_files(f"{bucket}/shop/x.csv", tmp_path, None, lambda names: names)
    assert inside != alone and noted_sha256(inside) == noted_sha256(alone) == hashlib.sha256(b"mon").hexdigest()
    (tmp_path / "x.csv").write_bytes(b"mon")
    assert noted_sha256(tmp_path / "x.csv") is None


def test_two_processes_fetch_a_file_once(web: StoreServer, tmp_path: Path, repository: Path) -> None:
    web.files["/x.bin"], web.wait = CONTENT, 0.1
    code = "import sys; from genrec.remote.copies import localised as get; print(get(*sys.argv[1:], progress=False))"
    line = [sys.executable, "-c", code, f"{web.url}/x.bin", str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": str(repository)}
    started = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=variables) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in started}
    assert len(paths) == 1 and Path(paths.pop()).read_bytes() == CONTENT
    assert len(web.gets()) == 1
