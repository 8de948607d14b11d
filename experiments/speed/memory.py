"""The peak of this process's resident memory over a stretch of work, from Linux's high-water mark."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from types import TracebackType
from typing import Self

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """``bytes``: the most that was resident within the block, over what was resident when it began; None if unknown.

    Models and data that exist already do not count, so figures of several contenders in one process can be compared.
    """

    bytes: int | None = None

    def __enter__(self) -> Self:
        settle()
        try:
            _CLEAR.write_text("5")  # resets the high-water mark, see proc(5)
            self._before = _read("VmRSS")
        except OSError:
            self._before = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            self.bytes = max(0, _read("VmHWM") - self._before)


def settle() -> None:
    """Collects garbage and returns freed memory to the system, so that what is resident is what is in use."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _read(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {name}")
    return int(found.group(1)) * 1024
