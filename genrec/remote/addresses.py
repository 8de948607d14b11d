"""Addresses of data: which are remote, which kinds are read, and how they may be shown."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TypeGuard
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from genrec.contracts import GenrecError
from genrec.masking import HIDDEN, scrub

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::.*)?://", re.DOTALL)
_MAGIC = re.compile(r"[*?\[]")

# Extras of genrec, and the packages in them, by the first word of an address.
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), ("s3", "s3fs")),
    **dict.fromkeys(("gs", "gcs"), ("gcs", "gcsfs")),
    **dict.fromkeys(("az", "abfs", "abfss"), ("azure", "adlfs")),
}
STORES = (*EXTRAS, "http", "https", "ftp", "sftp", "ssh", "hdfs", "webhdfs", "oss", "hf", "memory")
LOCAL = ("file", "local")
_SIGNING = re.compile(
    r"(x-(amz|goog|oss)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|ossaccesskeyid|security-token"
    r"|sig|se|sp|spr|sr|st|sv|skoid|sktid|skt|ske|sks|skv|.*(token|key|auth|code|password|secret|credential))$",
    re.IGNORECASE,
)


def is_remote(path: object) -> TypeGuard[str]:
    """Whether a path is an address such as s3://bucket/key, and no file of this machine; ``file://`` counts as one."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


def protocol_of(url: str) -> str:
    """The first word of an address that genrec reads, in lower case; any other is a GenrecError."""
    protocol, _, rest = url.partition("://")
    if "::" in protocol or "::" in rest:
        raise GenrecError(
            f"{shown(url)} chains several file systems with '::', and such addresses are not read: they could open "
            "archives or files of this machine for somebody else. Give the address of the file itself; genrec keeps a "
            "copy."
        )
    protocol = protocol.lower()
    if protocol not in (*STORES, *LOCAL) and not _registered(protocol):
        raise GenrecError(
            f"{shown(url)}: {protocol}:// is no kind of address that data are read from. Known are "
            f"{', '.join(f'{name}://' for name in (*STORES, 'file'))}; unpack archives before."
        )
    return protocol


def _registered(protocol: str) -> bool:
    """Whether the user, or a package of theirs, has told fsspec of a file system that it does not bring itself."""
    from fsspec.registry import known_implementations, registry

    built_in = str(known_implementations.get(protocol, {}).get("class", "")).startswith("fsspec.")
    return protocol in registry and not built_in and protocol not in _BROUGHT_BY_FSSPEC


# What fsspec knows and genrec refuses: archives, caches, and what runs or refers to something else.
_BROUGHT_BY_FSSPEC = ("dask", "reference", "git", "github", "gist", "jlab", "jupyter", "libarchive", "generic", "dir")


def shown(url: str) -> str:
    """An address as it may be written: without user, password and everything in its query."""
    plain, mark, _ = scrub(url).partition("?")
    return f"{plain}?{HIDDEN}" if mark and url.lower().startswith(("http", "abfs", "az")) else scrub(url)


def identity(url: str) -> str:
    """What of an address names the data: not who asks, and not until when the question is signed."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        return scrub(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, True) if not _SIGNING.match(name)]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme.lower(), host, parts.path, urlencode(kept), ""))


def has_magic(path: str) -> bool:
    """Whether a path is a pattern of several; in a web address ``?`` begins the query."""
    if path.lower().startswith(("http://", "https://")):
        return "*" in path.partition("?")[0]
    return _MAGIC.search(path) is not None


def name_of(url: str) -> str:
    """The name of the file or folder that an address ends in; a GenrecError where it names none."""
    path = url.partition("://")[2]
    if url.lower().startswith(("http://", "https://")):
        path = path.partition("?")[0].partition("#")[0]
    name = PurePosixPath(path.rstrip("/")).name
    if name in ("", ".", "..") or "\0" in name:
        raise GenrecError(
            f"{shown(url)} names no file. Give the whole address, for example s3://bucket/folder/clicks.csv."
        )
    return name


def before_pattern(url: str) -> str:
    """The folder that a pattern begins with; an address without a pattern is given back."""
    if not has_magic(url):
        return url
    first = min(url.index(sign) for sign in "*?[" if sign in url)
    return url[:first].rpartition("/")[0]


def below(url: str, name: str) -> str:
    """The address of ``name`` in the folder at ``url``."""
    plain, mark, query = url.partition("?")
    return f"{plain.rstrip('/')}/{name}{mark}{query}"
