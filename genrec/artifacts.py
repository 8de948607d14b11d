"""Fingerprints, files that appear whole or not at all, and the cache of upstream stages."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from genrec.contracts import GenrecError

log = logging.getLogger("genrec.run")

_DEEP = 5000  # signs that may open something in YAML
_TRIES, _PAUSE = 5, 0.02  # to take a lock; seconds between


def fingerprint(*parts: Any) -> str:
    """A hash of values that is equal in every process and on every machine: 16 hexadecimal digits of SHA-256.

    Parts may be nested mappings, sequences, strings, numbers, None and numpy arrays (hashed with dtype and shape).
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()[:16]


def _update(digest: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        digest.update(f"array:{part.dtype.str}:{part.shape}:".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    elif isinstance(part, Mapping):
        digest.update(b"{")
        for key in sorted(part, key=str):
            _update(digest, str(key))
            _update(digest, part[key])
        digest.update(b"}")
    elif isinstance(part, list | tuple):
        digest.update(b"[")
        for value in part:
            _update(digest, value)
        digest.update(b"]")
    elif part is None or isinstance(part, str | bool | int | float | np.generic):
        value = part.item() if isinstance(part, np.generic) else part
        digest.update(f"{type(value).__name__}:{value!r};".encode())
    else:
        raise TypeError(f"fingerprint() cannot hash a {type(part).__name__}")


def file_fingerprint(path: Path) -> str:
    """A hash of what a file holds, wherever it lies: 16 hexadecimal digits of SHA-256; empty where there is no file."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except (FileNotFoundError, IsADirectoryError):
        return ""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed onto it when the block ends well, and removed when it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what ``atomic_path`` had not finished in ``folder`` when the process that wrote it was killed."""
    for path in Path(folder).glob(".*"):
        if path.is_file() and re.fullmatch(r"\..+\.[a-z0-9_]{8}(\.\w+)?", path.name):
            path.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file at ``path``; False where there is none."""
    try:
        with open(path) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who only ask do not see each other
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def lock(handle: IO[Any] | int) -> bool:
    """Takes the lock of an open file for this process; False where another holds it. One who only asks, as
    ``is_locked`` does, is in the way for a moment and is waited for."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE)
    return False


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a missing or broken one is a GenrecError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GenrecError(f"{path} does not exist.") from None
    except OSError as error:
        raise GenrecError(f"{path} cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError) as error:  # no JSON, or no text at all
        raise GenrecError(f"{path} is not valid JSON ({error}). Delete it and run again.") from None


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of plain values; a missing or broken one is a GenrecError that names it."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        # LibYAML is quick, but the interpreter dies of values nested too deep, where Python's own loader raises.
        deep = sum(map(text.count, "[{-?")) > _DEEP
        loader = yaml.SafeLoader if deep else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(text, loader)
    except FileNotFoundError:
        raise GenrecError(f"{path} does not exist.") from None
    except OSError as error:
        raise GenrecError(f"{path} cannot be read ({error.strerror or error}).") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise GenrecError(f"{path} is not valid YAML ({reason}).") from None


class Cache:
    """Folders of finished artifacts, one per (stage, key); a folder without its ``done`` mark is work in progress.

    ``with cache.entry(stage, key) as (folder, ready)``: when ``ready`` is False the caller fills ``folder`` and it is
    marked done at the end of the block. The entry is locked meanwhile, so that parallel runs do the work once.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @contextmanager
    def entry(self, stage: str, key: str) -> Iterator[tuple[Path, bool]]:
        folder = self.root / stage / key
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("%s: another run is at it; waiting for what it makes (%s)", stage, folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            mark = folder / "done"
            ready = mark.exists()
            if not ready:
                remove_unfinished(folder)
            yield folder, ready
            if not ready:
                write_text(mark, f"{stage} {key}\n")
