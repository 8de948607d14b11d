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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from genrec.annotations import accepts, checkable, describe
from genrec.contracts import GenrecError
from genrec.disk import refusal_of_space, refusals

log = logging.getLogger("genrec.run")

_DEEP = 5000  # signs that may open something in YAML
LOCK, DONE = "lock", "done"  # of an entry of the cache
_PIECE, _PIECES = 1 << 20, 64  # of a long file that are compared
_TRIES, _PAUSE = 5, 0.02  # to take a lock; seconds between


def reason_of(error: BaseException) -> str:
    """The first line of what a library says of a file, without the objects that Python's parser met on the way."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r":? ?<[^<>]* object at 0x[0-9a-f]+>", "", first) or type(error).__name__


class JsonText:
    """JSON in ASCII that is hashed piece by piece, as the one string of its ``pieces`` would be; it is read once."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self.pieces = pieces

    def update(self, digest: Any) -> None:
        """Adds to ``digest`` what the whole string would. In JSON a single quote stands within double ones only, and
        such text Python's ``repr`` puts into single quotes."""
        digest.update(b"str:'")
        for piece in self.pieces:
            digest.update(piece.replace("\\", "\\\\").replace("'", "\\'").encode("ascii"))
        digest.update(b"';")


def fingerprint(*parts: Any) -> str:
    """A hash of values that is equal in every process and on every machine: 16 hexadecimal digits of SHA-256.

    Parts may be nested mappings, sequences, strings, numbers, None, numpy arrays (hashed with dtype and shape) and
    ``JsonText``.
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()[:16]


def _update(digest: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        digest.update(f"array:{part.dtype.str}:{part.shape}:".encode())
        digest.update(_memory_of(np.ascontiguousarray(part)))
    elif isinstance(part, JsonText):
        part.update(digest)
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


def _memory_of(array: np.ndarray) -> Any:
    """The bytes of a contiguous array, without a copy of them where numpy can do without."""
    plain = array.dtype.kind in "biufcSUV" and array.dtype.itemsize > 0
    return array.reshape(-1).view(np.uint8).data if plain else array.tobytes()


def file_fingerprint(path: Path) -> str:
    """A hash of what a file holds, wherever it lies: 16 hexadecimal digits of SHA-256; empty where there is no file."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except (FileNotFoundError, IsADirectoryError):
        return ""


@contextmanager
def atomic_path(path: Path, *, needs: int | None = None) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed onto it when the block ends well, and removed when it fails.

    A disk that refuses is a ``StorageError``, which also tells the bytes that the file ``needs``, where they are given.
    """
    path = Path(path)
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        except Exception as error:
            told = refusal_of_space(error, path, temporary, needs=needs)
            if told is None:
                raise
            raise told from error
        with refusals(path):
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


@contextmanager
def exclusive(path: Path, waiting: str = "") -> Iterator[None]:
    """The lock file at ``path`` is this process's alone; another that holds it is waited for, and ``waiting`` told."""
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "w")  # noqa: SIM115 (closed below)
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                log.info("%s", waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, kind: Any = Any) -> Any:
    """Reads a JSON file; a missing or broken one, or one that holds no ``kind``, is a GenrecError that names it."""
    try:
        return of_kind(kind, json.loads(Path(path).read_text(encoding="utf-8")), path)
    except GenrecError:
        raise
    except FileNotFoundError:
        raise GenrecError(f"{path} does not exist.") from None
    except OSError as error:
        raise GenrecError(f"{path} cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError) as error:  # no JSON, or no text at all
        raise GenrecError(f"{path} is not valid JSON ({error}). Delete it and run again.") from None


def of_kind(kind: Any, value: Any, path: Path) -> Any:
    kind = checkable(kind)
    if accepts(kind, value):
        return value
    shown = json.dumps(value, default=str)[:60]
    raise GenrecError(f"{path} is not as genrec wrote it: it begins with {shown}, where {describe(kind)} was expected.")


def read_yaml(path: Path, kind: Any = Any) -> Any:
    """Reads a YAML file of plain values; a missing or broken one, or one that holds no ``kind``, is a GenrecError that
    names it."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        # LibYAML is quick, but the interpreter dies of values nested too deep, where Python's own loader raises.
        deep = sum(map(text.count, "[{-?")) > _DEEP
        loader = yaml.SafeLoader if deep else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return of_kind(kind, yaml.load(text, loader), path)
    except GenrecError:
        raise
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
    marked done at the end of the block. The entry is locked meanwhile, so that parallel runs do the work once. The mark
    says what the files held, so an entry that was damaged since is emptied and made again.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @contextmanager
    def entry(self, stage: str, key: str) -> Iterator[tuple[Path, bool]]:
        folder = self.root / stage / key
        waiting = f"{stage}: another run is at it; waiting for what it makes ({folder})"
        with exclusive(folder / LOCK, waiting):
            ready = (folder / DONE).exists()
            damage = entry_damage(folder) if ready else ""
            if damage:
                log.warning("%s: %s is not what was put there (%s), so it is made again", stage, folder, damage)
                _empty(folder)
                ready = False
            if not ready:
                remove_unfinished(folder)
            yield folder, ready
            if not ready:
                write_json(folder / DONE, {"stage": stage, "key": key, "files": _contents(folder)})


def entry_damage(folder: Path) -> str:
    """How the files of a finished entry of the cache differ from what its mark says of them; empty where they do not.

    Of files beyond 64 MiB the size and 64 pieces of 1 MiB are compared, so that it takes a moment whatever their size.
    """
    try:
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in _marked(folder).items()}
    except (GenrecError, AttributeError, TypeError, KeyError, ValueError):
        return "its mark does not say what it holds"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, not {size:,}"
        if sampled_digest(path) != digest:
            return f"{name} holds something else"
    return ""


def _marked(folder: Path) -> dict[str, Any]:
    return read_json(folder / DONE)["files"]


def _contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and digest of every file of an entry; sub-folders are the workplace of a stage and no part of it."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = {name: folder / name for name in names if name not in (LOCK, DONE)}
    return {name: (path.stat().st_size, sampled_digest(path)) for name, path in files.items()}


def sampled_digest(path: Path, *, piece: int = _PIECE, pieces: int = _PIECES) -> str:
    """SHA-256 of a file or, where it is long, of so many ``pieces`` of it and the last one; ``piece`` bytes each."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with open(path, "rb") as stream:
        for begin in (*range(0, size, max(piece, size // pieces)), max(0, size - piece)):
            stream.seek(begin)
            digest.update(stream.read(piece))
    return digest.hexdigest()[:16]


def _empty(folder: Path) -> None:
    """Removes what an entry held; first the mark, so that half of an entry never reads as a whole one."""
    (folder / DONE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != LOCK:
            path.unlink()
