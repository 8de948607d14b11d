"""Files written to where a path or an address says, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genrec.artifacts import atomic_path
from genrec.contracts import GenrecError
from genrec.remote.addresses import EXTRAS, LOCAL, is_remote, name_of, protocol_of, shown
from genrec.remote.copies import persistently
from genrec.remote.stores import store_of, told

_READ_ONLY = ("http", "https")
_WHOLE = (*EXTRAS, "oss", "memory")  # objects appear when they are complete; elsewhere a file is renamed at the end


@contextmanager
def written(path: str | Path, options: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A temporary path to write to; what lies there when the block ends well is put where ``path`` says."""
    local = not is_remote(path)
    if local or protocol_of(str(path)) in LOCAL:
        with atomic_path(Path(path if local else str(path).partition("://")[2])) as temporary:
            yield temporary
        return
    url = str(path)
    check_writable(url)
    with tempfile.TemporaryDirectory(prefix="genrec-") as folder:
        temporary = Path(folder, name_of(url))
        yield temporary
        persistently(lambda: _put(temporary, url, options), url)


def check_writable(path: str | Path) -> None:
    """A GenrecError where nothing can be written, before anything is computed."""
    if is_remote(path) and protocol_of(str(path)) in _READ_ONLY:
        raise GenrecError(
            f"{shown(str(path))}: web addresses are only read. Give a file here, or s3://, gs://, az:// ..."
        )


def _put(file: Path, url: str, options: Mapping[str, Any] | None) -> None:
    with told(url, options):
        system, path = store_of(url, options)
        if protocol_of(url) in _WHOLE:
            system.put_file(str(file), path)
            return
        unfinished = f"{path}.unfinished"
        system.put_file(str(file), unfinished)
        system.mv(unfinished, path)
