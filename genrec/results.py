"""The numbers and the page that a run leaves in its folder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genrec.artifacts import write_json
from genrec.records import RESOURCES_FILE

log = logging.getLogger("genrec.run")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux: proc(5)


def write_numbers(
    folder: Path,
    final: Mapping[str, float],
    history: Mapping[str, list[float]],
    seconds: Mapping[str, float],
    model: Any,
) -> None:
    """``metrics.json``, ``timing.json`` and ``resources.json``."""
    write_json(folder / "metrics.json", {"final": final, "history": history})
    write_json(folder / "timing.json", {name: round(value, 2) for name, value in seconds.items()})
    parameters = sum(parameter.numel() for parameter in model.parameters()) if hasattr(model, "parameters") else 0
    write_json(folder / RESOURCES_FILE, {**peak_memory(), "parameters": parameters})


def write_page(folder: Path) -> Path | None:
    """``report.html`` of a run; a fault in it takes nothing from the run itself."""
    try:
        from genrec.report.run_page import write_run_page

        return write_run_page(folder)
    except Exception as error:
        log.warning("The page of %s could not be written: %s", folder, error)
        return None


def reset_peak_memory() -> None:
    """Begins to measure anew, so that a job of a sweep does not answer for the one before it (Linux and GPUs only)."""
    import torch

    with suppress(OSError):
        _CLEAR.write_text("5")  # resets VmHWM
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Bytes that the process, and a GPU, held at most: ``peak_resident_bytes``, ``peak_device_bytes``."""
    import resource

    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if _STATUS.exists():
        found = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        peak = int(found[0]) * 1024 if found else peak
    sizes = {"peak_resident_bytes": peak}
    if torch.cuda.is_available():
        sizes["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    return sizes
