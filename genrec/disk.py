"""What a disk refuses, in a sentence: no space, no right to write, no such place."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genrec.contracts import GenrecError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PLACE = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
_PROBE = bytes(1 << 20)
_PLACES = "runs_dir=..., cache_dir=..., output=..."


class StorageError(GenrecError):
    """A disk that does not take what is to be written: nobody's mistake, but nothing that a run could mend."""


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Tells of ``path`` in a sentence (``StorageError``) where the block cannot make or open it."""
    try:
        yield
    except OSError as error:
        told = refusal(error, path)
        if told is None:
            raise
        raise told from error


def refusal(error: OSError, path: Path, *, needs: int | None = None) -> StorageError | None:
    """Why ``path`` could not be written, if a disk is the reason; ``needs`` are the bytes that it was to hold."""
    if error.errno in _FULL or error.errno in _BROKEN or error.errno == errno.EFBIG:
        return StorageError(f"{_of_space(error, path, needs)} What was finished before is whole.")
    if error.errno in _FORBIDDEN or error.errno in _NO_PLACE:
        return StorageError(
            f"{path} cannot be written ({error.strerror or error}). Name a place that you may write to ({_PLACES})."
        )
    return None


def refusal_of_space(error: BaseException, path: Path, written: Path, *, needs: int | None) -> StorageError | None:
    """Whether the disk is why ``path`` could not be filled. Libraries may hide it behind an error of their own, so a
    little more is written to the unfinished file ``written``."""
    if isinstance(error, OSError) and error.errno is not None:
        space = error.errno in _FULL or error.errno in _BROKEN or error.errno == errno.EFBIG
        return refusal(error, path, needs=needs) if space else None
    try:
        with open(written, "ab") as end:
            end.write(_PROBE)
            end.flush()
            os.fsync(end.fileno())
    except OSError as hidden:
        return refusal(hidden, path, needs=needs)
    return None


def _of_space(error: OSError, path: Path, needs: int | None) -> str:
    wanted = "" if needs is None else f" {format_bytes(needs)} are needed,"
    if error.errno == errno.EFBIG:
        return f"{path} cannot be written:{wanted} and the system lets no file grow so large (ulimit -f). Raise that."
    if error.errno in _BROKEN:
        return f"{path} cannot be written: the disk says {error.strerror}. Look after it, or name another ({_PLACES})."
    free = _free(path)
    there = "nobody knows how much is" if free is None else f"{format_bytes(free)} are"
    return f"There is no space to write {path}:{wanted} {there} free. Make room, or name another place ({_PLACES})."


def _free(path: Path) -> int | None:
    """Bytes that are free where ``path`` is to lie."""
    for place in Path(path).absolute().parents:
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def format_bytes(size: float) -> str:
    """A size in memory with three digits: ``812 MB``, ``1.24 GB`` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
