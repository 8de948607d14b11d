"""Remote file systems by way of fsspec: opened, listed, and their failures told in one sentence."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from genrec.artifacts import fingerprint
from genrec.contracts import GenrecError
from genrec.masking import scrub, storage_secrets
from genrec.remote.addresses import EXTRAS, before_pattern, below, has_magic, is_remote, protocol_of, shown
from genrec.remote.parallel import in_parallel

BLOCK = 16 * 2**20  # bytes asked for at a time
AT_ONCE = 8  # files of a folder
_WEB = ("http", "https")
_S3 = ("s3", "s3a")
_CONNECT, _READ = 5.0, 60.0  # seconds of silence while a connection is made, and while content comes
_ASK = {**dict.fromkeys(_WEB, 4.5), **dict.fromkeys(_S3, 8.0)}  # ... while a store tells of files; the web has two ways
_MARKS = (("generation",), ("ETag", "etag"), ("md5Hash", "Content-MD5", "content_md5"))
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")

MISSING, DENIED, CREDENTIALS, DRIVER, OPTION = "missing", "denied", "credentials", "driver", "option"
UNREACHABLE, TIMEOUT, SERVER, BROKEN, OTHER = "cannot be reached", "no answer in time", "server failed", "broke off", ""
CHANGED, WHOLE_ONLY, STOPPED = "changed", "whole only", "stopped"
PASSING = (UNREACHABLE, TIMEOUT, SERVER, BROKEN)  # what may be better a moment later

_CREDENTIAL_WORDS = ("Unable to locate credentials", "Anonymous caller", "unable to connect to account")
_HINTS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; of a public bucket: "
    "data.storage_options={anon: true}.",
    "gcs": "Set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run gcloud auth application-default login; of a "
    "public bucket: data.storage_options={token: anon}.",
    "azure": "Set AZURE_STORAGE_CONNECTION_STRING, or data.storage_options={account_name: ..., account_key: "
    "'${oc.env:AZURE_KEY}'}.",
}
_LONGER = {
    **dict.fromkeys(_WEB, "; data.storage_options={timeout: 60} waits longer"),
    **dict.fromkeys(_S3, "; data.storage_options={config_kwargs: {read_timeout: 60}} waits longer"),
}
_HINT = "Give them in data.storage_options."


class StoreError(GenrecError):
    """A remote file system that did not give what was asked for; ``kind`` says why."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote file system: bytes (None: not told), and a mark of its version (empty: not told)."""

    url: str
    size: int | None
    version: str
    md5: bytes | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def open(self, *, block_size: int = BLOCK) -> BinaryIO:
        """The content, to be read from the beginning or from where one seeks; ``block_size=0`` streams web files."""
        with told(self.url, self.options):
            system, path = store_of(self.url, self.options)
            return system.open(path, "rb", block_size=block_size)


def store_of(url: str, options: Mapping[str, Any] | None = None, *, asks: bool = False) -> tuple[Any, str]:
    """The file system of an address, and the path in it. The options go to its constructor, never to another one's.

    One who ``asks`` gives up after some seconds without an answer, so that a dead store is told of soon; what may pass
    is tried again by ``genrec.remote.copies``. One who reads is more patient. The user's own limits come first.
    """
    import fsspec

    protocol = protocol_of(url)
    given = dict(options or {})
    kind = fsspec.get_filesystem_class(protocol)
    if protocol in _WEB:
        silence = _ASK[protocol] if asks else _READ
        given["timeout"] = _patience(given.get("timeout", silence), given.get("timeout", min(silence, _CONNECT)))
    elif protocol in _S3:
        limits = {"connect_timeout": _CONNECT, "read_timeout": _ASK[protocol] if asks else _READ}
        limits |= {"retries": {"total_max_attempts": 1}} if asks else {}
        given["config_kwargs"] = {**limits, **(given.get("config_kwargs") or {})}
    system = fsspec.filesystem(protocol, **{**kind._get_kwargs_from_urls(url), **given})
    if protocol in _S3 and asks:
        system.retries = 1  # the driver's, beside those of what it is built on
    return system, kind._strip_protocol(url)


def _patience(silence: Any, connect: Any) -> Any:
    """Limits for every wait, not for the whole file."""
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=float(connect), sock_read=float(silence))


def remote_file(url: str, options: Mapping[str, Any] | None = None) -> RemoteFile:
    """One file as its store describes it now; a folder is a GenrecError."""
    with told(url, options):
        system, path = store_of(url, options, asks=True)
        system.invalidate_cache()
        info = system.info(path)
        if info["type"] == "directory":
            raise GenrecError(f"{shown(url)} is a folder, and one file is asked for. Give the address of the file.")
        return _described(url, info, options)


def remote_files(url: str, options: Mapping[str, Any] | None = None) -> list[RemoteFile]:
    """The file at an address, the files of the folder there (not of folders in it), or those of a pattern, by name.

    Files whose names begin with "." or "_" are left out of folders: those that Spark and others write beside data.
    """
    with told(url, options):
        system, path = store_of(url, options, asks=True)
        system.invalidate_cache()
        if has_magic(url if protocol_of(url) in _WEB else path):
            return _matching(system, path, url, options)
        if protocol_of(url) in _WEB and not path.partition("?")[0].endswith("/"):
            return [_described(url, system.info(path), options)]
        info = {"type": "directory"} if protocol_of(url) in _WEB else system.info(path)
        if info["type"] != "directory":
            return [_described(url, info, options)]
        entries = [entry for entry in system.ls(path, detail=True) if _is_child(entry, path)]
        return _sorted(system, entries, url, path, options)


def _is_child(entry: Mapping[str, Any], folder: str) -> bool:
    name = _inside(entry, folder)
    return entry["type"] == "file" and bool(name) and "/" not in name and not name.startswith((".", "_"))


def _inside(entry: Mapping[str, Any], folder: str) -> str:
    """What is left of the path of an entry in a folder; empty where it lies elsewhere."""
    path, start = str(entry["name"]).strip("/"), f"{folder.strip('/')}/"
    return path.removeprefix(start) if path.startswith(start) else ""


def _matching(system: Any, path: str, url: str, options: Mapping[str, Any] | None) -> list[RemoteFile]:
    entries = [entry for entry in system.glob(path, detail=True).values() if entry["type"] == "file"]
    if not entries and protocol_of(url) not in _WEB and system.exists(path):  # a name with brackets
        return [_described(url, system.info(path), options)]
    if not entries:
        raise StoreError(f"No file matches {shown(url)}. Correct the pattern.", MISSING)
    fixed = before_pattern(url)
    return _sorted(system, entries, fixed, type(system)._strip_protocol(fixed), options)


def _sorted(
    system: Any, entries: list[Any], url: str, path: str, options: Mapping[str, Any] | None
) -> list[RemoteFile]:
    children = []
    for entry in sorted(entries, key=lambda entry: entry["name"]):
        rest = _inside(entry, path)
        if not rest or ".." in rest.split("/"):
            raise GenrecError(f"{shown(url)} lists {entry['name']!r}, which lies outside of it; refused.")
        children.append((below(url, rest), entry))

    def described(child: str, entry: Mapping[str, Any]) -> RemoteFile:
        complete = entry.get("size") is not None and any(entry.get(name) for names in _MARKS for name in names)
        # What is listed is often less than what is known of one file.
        return _described(child, entry if complete else system.info(type(system)._strip_protocol(child)), options)

    return in_parallel([partial(described, *child) for child in children], threading.Event(), at_once=AT_ONCE)


def _described(url: str, info: Mapping[str, Any], options: Mapping[str, Any] | None) -> RemoteFile:
    size = info.get("size")
    return RemoteFile(url, None if size is None else int(size), _version(info), _md5(info), dict(options or {}))


def _version(info: Mapping[str, Any]) -> str:
    """What tells this content from an earlier one: the store's own mark, else the time of the last change."""
    for names in (*_MARKS, *((name,) for name in _TIMES)):
        mark = next((info[name] for name in names if info.get(name)), None)
        if mark is not None:
            return fingerprint(str(mark).strip('"'), str(info.get("size")))
    return ""


def _md5(info: Mapping[str, Any]) -> bytes | None:
    """The MD5 that a store vouches for; an ETag of S3 may be something else."""
    settings = info.get("content_settings") or {}
    found = info.get("md5Hash") or info.get("Content-MD5") or settings.get("content_md5")
    if not found:
        return None
    try:
        digest = bytes(found) if isinstance(found, bytes | bytearray) else base64.b64decode(found, validate=True)
    except ValueError:
        return None
    return digest if len(digest) == 16 else None


@contextmanager
def told(url: str, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Turns whatever a driver raises into one sentence without secrets; causes are left out, they quote addresses."""
    try:
        yield
    except GenrecError:
        raise
    except Exception as error:
        kind, cause = _diagnosis(error)
        reason = scrub(" ".join(str(cause).split()), storage_secrets(options or {})).replace(url, shown(url))
        raise StoreError(_sentence(kind, url, f"{type(cause).__name__}: {reason}"[:300]), kind) from None


def kind_of(error: BaseException) -> str:
    """Why a driver failed. Web drivers say "not found" of everything, so what lies below that counts more."""
    return _diagnosis(error)[0]


def _diagnosis(error: BaseException) -> tuple[str, BaseException]:
    known = [(kind, link) for link in _chain(error) if (kind := _kind(link)) != OTHER]
    return next((found for found in known if found[0] != MISSING), known[0] if known else (OTHER, error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _kind(error: BaseException) -> str:
    name, text = type(error).__name__, str(error)
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(error, ImportError) or "Protocol not known" in text:
        return DRIVER
    if "Credential" in name or any(words in text for words in _CREDENTIAL_WORDS):
        return CREDENTIALS
    if isinstance(error, PermissionError) or status in (401, 403):
        return DENIED
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return MISSING
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return TIMEOUT
    if isinstance(status, int) and status >= 500:
        return SERVER
    if isinstance(error, ConnectionError) or any(word in name for word in ("Connect", "Disconnected", "gaierror")):
        return UNREACHABLE
    if any(word in name for word in ("Payload", "IncompleteRead")):
        return BROKEN
    if isinstance(error, ValueError) and ("range requests" in text or "Cannot seek" in text):
        return WHOLE_ONLY
    if isinstance(error, TypeError) and "argument" in text:
        return OPTION
    return OTHER


def _sentence(kind: str, url: str, reason: str) -> str:
    protocol = url.partition("://")[0].lower()
    extra, driver = EXTRAS.get(protocol, ("", ""))
    place = shown(url)
    sentences = {
        DRIVER: f"{protocol}:// needs {driver}: pip install 'genrec[{extra}]'."
        if extra
        else f"{protocol}:// needs a driver that is not installed ({reason}).",
        CREDENTIALS: f"{place}: no credentials were found ({reason}). {_HINTS.get(extra, _HINT)}",
        DENIED: f"{place}: permission denied. The credentials at hand may not read this; name others in the "
        "environment or in data.storage_options.",
        MISSING: f"{place} does not exist: there is no such bucket, folder or file. Check the address.",
        TIMEOUT: f"{place} did not answer in time. Check the network, or try again later{_LONGER.get(protocol, '')}.",
        UNREACHABLE: f"{place} cannot be reached ({reason}). Check the network and the address of the store "
        "(data.storage_options.endpoint_url); without a network, copy the files here and give their folder.",
        SERVER: f"{place}: the server failed ({reason}). Try again later.",
        BROKEN: f"{place}: the connection broke off ({reason}). Try again: what has arrived is kept.",
        OPTION: f"data.storage_options: {reason}. Options of {protocol}:// are those of its fsspec driver.",
    }
    return sentences.get(kind, f"{place} cannot be read ({reason}). Check the address and data.storage_options.")


def is_folder(url: str, options: Mapping[str, Any] | None = None) -> bool:
    """Whether an address is that of a folder; a web address is one if it ends in a slash."""
    assert is_remote(url)
    with told(url, options):
        system, path = store_of(url, options, asks=True)
        if protocol_of(url) in _WEB:
            return path.partition("?")[0].endswith("/")
        system.invalidate_cache()
        return system.info(path)["type"] == "directory"
