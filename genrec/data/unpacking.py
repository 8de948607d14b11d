"""How large a packed file may become: a few kilobytes can hold more than any memory or disk does."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any

from genrec.contracts import GenrecError

VARIABLE = "GENREC_MAX_UNPACKED"  # of the environment: GiB
_GIB = 2**30
_MOST = 16 * _GIB
_MOST_GROWTH, _UNSUSPICIOUS = 100, _GIB  # tables shrink to a tenth, not to a hundredth; small ones harm nobody
_CHUNK = 1 << 20
_LONGEST_LINE = 64 * 2**20


def check_unpacked(path: Path, size: int) -> None:
    """Raises where ``size`` bytes are more than the packed file at ``path`` may become: 16 GiB, and beyond 1 GiB a
    hundred times its own size, or what the environment says."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        if size > _named(named):
            raise GenrecError(
                f"{path} unpacks to more than {VARIABLE}={named} (GiB); refused. Raise it to read the file."
            )
        return
    way = f"If you trust it, say how many GiB it may take: {VARIABLE}=40 in the environment."
    if size > _MOST:
        raise GenrecError(f"{path} would unpack to more than 16 GiB; refused. {way}")
    if size > max(_UNSUSPICIOUS, _MOST_GROWTH * path.stat().st_size):
        raise GenrecError(f"{path} would unpack to over {_MOST_GROWTH} times its own size; refused. {way}")


def _named(text: str) -> float:
    try:
        size = float(text) * _GIB
    except ValueError:
        size = 0.0
    if not size > 0:
        raise GenrecError(f"{VARIABLE}={text}: give the GiB that a packed file may unpack to, a number above 0.")
    return size


def gunzipped(path: Path) -> bytes:
    """The content of a gzip file, decompressed no further than it may become."""
    out = io.BytesIO()
    with gzip.open(path) as stream:
        while piece := stream.read(_CHUNK):
            out.write(piece)
            check_unpacked(path, out.tell())
    return out.getvalue()


def next_line(lines: Any, path: Path) -> bytes:
    """The next line of a file, empty at its end; one of more than 64 MiB is a GenrecError."""
    line = lines.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise GenrecError(
            f"{path} has a line of more than {_LONGEST_LINE // 2**20} MiB; refused. Fetch the file again."
        )
    return line
