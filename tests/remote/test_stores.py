"""Files of stores are listed in a stable order, and whatever goes wrong is one sentence without secrets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from genrec.contracts import GenrecError
from genrec.remote import copies, stores
from genrec.remote.copies import localised, localised_folder
from genrec.remote.stores import StoreError, kind_of, remote_file, remote_files
from tests.remote.store_server import StoreServer

MEMORY = fsspec.filesystem("memory")
SECRET = "verysecretvalue"


def put(url: str, content: bytes = b"x") -> None:
    MEMORY.pipe_file(url.removeprefix("memory:/"), content)


def names(url: str, base: str) -> list[str]:
    return [file.url.removeprefix(base) for file in remote_files(url)]


def test_files_are_listed_by_name(bucket: str) -> None:
    for name in ("b.csv", "a.csv", "deep/c.csv", "_SUCCESS", ".x.csv", "odd[1].csv"):
        put(f"{bucket}/{name}", name.encode())
    assert names(bucket, bucket) == ["/a.csv", "/b.csv", "/odd[1].csv"]
    assert names(f"{bucket}/", bucket) == ["/a.csv", "/b.csv", "/odd[1].csv"]
    assert names(f"{bucket}/?.csv", bucket) == ["/a.csv", "/b.csv"]
    assert names(f"{bucket}/deep/*.csv", bucket) == ["/deep/c.csv"]
    assert names(f"{bucket}/odd[1].csv", bucket) == ["/odd[1].csv"]
    with pytest.raises(StoreError, match="No file matches"):
        remote_files(f"{bucket}/*.parquet")


def test_a_file_can_be_streamed(bucket: str) -> None:
    put(f"{bucket}/a.csv", b"0123456789")
    file = remote_file(f"{bucket}/a.csv")
    with file.open() as stream:
        stream.seek(4)
        assert file.size == 10 and stream.read(3) == b"456"


def test_a_web_folder_is_its_page_and_nothing_outside_of_it(web: StoreServer) -> None:
    web.files.update({"/data/b.csv": b"b", "/data/a.csv": b"a", "/secret.csv": b"s"})
    web.links = ["/secret.csv", "../secret.csv", "http://127.0.0.1:1/x.csv", "/data/../secret.csv"]
    assert names(f"{web.url}/data/", web.url) == ["/data/a.csv", "/data/b.csv"]


def test_listed_and_asked_for_a_file_has_one_version(bucket: str) -> None:
    put(f"{bucket}/a.csv")
    assert remote_files(bucket)[0].version == remote_file(f"{bucket}/a.csv").version != ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://b/x.csv", "pip install 'genrec[s3]'"),
        ("gs://b/x.csv", "pip install 'genrec[gcs]'"),
        ("az://b/x.csv", "pip install 'genrec[azure]'"),
    ],
)
def test_no_driver(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(protocol: str) -> None:
        raise ImportError("Install me")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(StoreError) as refused:
        remote_file(url)
    assert said in str(refused.value) and refused.value.kind == stores.DRIVER


def test_nothing_there(web: StoreServer, bucket: str) -> None:
    for url in (f"{web.url}/x.csv", f"{bucket}/x.csv", "memory://no-such-bucket/x.csv"):
        with pytest.raises(StoreError, match="does not exist"):
            remote_file(url)


def test_a_folder_is_no_file(bucket: str) -> None:
    put(f"{bucket}/deep/x.csv")
    with pytest.raises(GenrecError, match="is a folder"):
        remote_file(f"{bucket}/deep")


def test_permission_denied_and_granted_by_options(web: StoreServer, tmp_path: Path) -> None:
    web.files["/x.csv"], web.key = b"x", SECRET
    with pytest.raises(StoreError, match="permission denied"):
        remote_file(f"{web.url}/x.csv")
    options = {"headers": {"X-Key": SECRET}}
    assert localised(f"{web.url}/x.csv", tmp_path, options, progress=False).read_bytes() == b"x"
    assert SECRET not in repr(remote_file(f"{web.url}/x.csv", options))


def test_no_network_no_answer_and_a_broken_server(web: StoreServer) -> None:
    with pytest.raises(StoreError, match="cannot be reached") as refused:
        remote_file("http://127.0.0.1:1/x.csv")
    assert refused.value.kind == stores.UNREACHABLE
    web.files["/x.csv"], web.wait = b"x", 0.5
    with pytest.raises(StoreError, match="did not answer in time") as refused:
        remote_file(f"{web.url}/x.csv", {"timeout": 0.05})
    assert refused.value.kind == stores.TIMEOUT


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("ending", ["x.csv", "folder/"])
def test_a_store_that_never_answers_is_asked_once(
    ending: str, silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its silence is waited for in the one try that there is, in whatever ways the driver asks."""
    monkeypatch.setitem(stores._ASK, "http", 0.45)
    monkeypatch.setattr(copies, "_ASKING", 0.4)
    get = localised if ending == "x.csv" else localised_folder
    with pytest.raises(StoreError, match=r"did not answer in time.*storage_options=\{timeout: 60\}"):
        get(f"{silent}/{ending}", tmp_path, None, *([list] if get is localised_folder else []))
    assert "trying again" not in caplog.text


def test_a_store_that_refuses_is_asked_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(copies, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(copies, "_ASKING", 1e9)
    with pytest.raises(StoreError, match="cannot be reached"):
        localised("http://127.0.0.1:1/x.csv", tmp_path)
    assert caplog.text.count("trying again") == 3


def test_a_store_that_is_slow_is_waited_for(web: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/x.csv"], web.wait = b"slow", 0.3
    monkeypatch.setitem(stores._ASK, "http", 2.0)
    assert localised(f"{web.url}/x.csv", tmp_path, progress=False).read_bytes() == b"slow"
    monkeypatch.setitem(stores._ASK, "http", 0.1)
    monkeypatch.setattr(copies, "_ASKING", 0.0)
    with pytest.raises(StoreError, match="did not answer in time"):
        localised(f"{web.url}/x.csv", tmp_path / "other", progress=False)
    assert localised(f"{web.url}/x.csv", tmp_path / "other", {"timeout": 5}).read_bytes() == b"slow"


def test_a_dead_store_is_told_of_within_ten_seconds() -> None:
    """Silence is waited for in each way of asking that there is, and so long that no second try begins."""
    assert 2 * stores._ASK["http"] <= 10 and 2 * stores._ASK["http"] > copies._ASKING
    assert stores._ASK["s3"] <= 10 and stores._CONNECT > copies._ASKING


class S3(fsspec.AbstractFileSystem):
    """As s3fs is made, without a network."""

    protocol = "s3"
    retries = 5

    def __init__(self, config_kwargs: dict[str, object] | None = None, **options: object) -> None:
        super().__init__(**options)
        self.limits = config_kwargs or {}


def test_one_who_asks_a_store_of_objects_gives_up_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda protocol: S3)
    monkeypatch.setattr(fsspec, "filesystem", lambda protocol, **options: S3(**options))
    asking, _ = stores.store_of("s3://b/x.csv", {"endpoint_url": "http://127.0.0.1:1"}, asks=True)
    reading, _ = stores.store_of("s3://b/x.csv", {"endpoint_url": "http://127.0.0.1:1"})
    assert asking.limits["retries"] == {"total_max_attempts": 1} and asking.retries == 1
    assert asking.limits["read_timeout"] < 10 < reading.limits["read_timeout"]
    assert "retries" not in reading.limits and reading.retries == 5
    patient, _ = stores.store_of("s3://b/x.csv", {"config_kwargs": {"read_timeout": 99}}, asks=True)
    assert patient.limits["read_timeout"] == 99


def test_an_option_nobody_knows(web: StoreServer) -> None:
    with pytest.raises(StoreError, match=r"data\.storage_options.*unexpected keyword argument 'pasword'"):
        remote_file(f"{web.url}/x.csv", {"pasword": SECRET})


def test_options_cannot_change_the_file_system(bucket: str) -> None:
    put(f"{bucket}/x.csv")
    with pytest.raises(StoreError, match="storage_options"):
        remote_file(f"{bucket}/x.csv", {"protocol": "reference"})


class NoCredentialsError(Exception):
    """Named as that of botocore."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoCredentialsError("Unable to locate credentials"), stores.CREDENTIALS),
        (PermissionError("Access Denied"), stores.DENIED),
        (FileNotFoundError("The specified bucket does not exist"), stores.MISSING),
        (ConnectionResetError(), stores.UNREACHABLE),
        (TimeoutError(), stores.TIMEOUT),
        (ValueError("unable to connect to account for x"), stores.CREDENTIALS),
        (RuntimeError("else"), stores.OTHER),
    ],
)
def test_kinds_of_failure(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind
    wrapped = FileNotFoundError("http://x")
    wrapped.__cause__ = error
    assert kind_of(wrapped) == (kind or stores.MISSING)


def test_what_a_driver_says_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talkative(fsspec.AbstractFileSystem):
        protocol = "talkative"

        def info(self, path: str, **_: object) -> dict[str, object]:
            raise RuntimeError(f"failed with key={SECRET} at https://me:{SECRET}@host/x?sig={SECRET}")

    fsspec.register_implementation("talkative", Talkative, clobber=True)
    with pytest.raises(StoreError) as refused:
        remote_file("talkative://b/x.csv", {"account_key": SECRET})
    assert SECRET not in str(refused.value) and "(hidden)" in str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__suppress_context__
