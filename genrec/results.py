"""The numbers and the page that a run leaves in its folder."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genrec.artifacts import write_json
from genrec.records import RESOURCES_FILE

log = logging.getLogger("genrec.run")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux: proc(5)


class Stages:
    """Seconds and peak memory of the stages of a run, each measured on its own.

    Where the system lets no process measure its peak anew (only Linux does), the peak of a stage is the highest since
    the process began, and ``as_json`` says so.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, dict[str, int]] = {}
        self.apart = reset_peak_memory()
        self._highest = peak_memory()
        self._begun = time.perf_counter()

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """A block that is the stage ``name``, or more of it: seconds add up, the higher peak stays."""
        self._highest = _higher(self._highest, peak_memory())
        reset_peak_memory()
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
        self.peaks[name] = _higher(self.peaks.get(name, {}), peak_memory())

    @property
    def peak(self) -> dict[str, int]:
        """The highest of the whole run so far, stages or not."""
        found = _higher(self._highest, peak_memory())
        for peaks in self.peaks.values():
            found = _higher(found, peaks)
        return found

    @property
    def timing(self) -> dict[str, float]:
        """Seconds of each stage, and ``total`` since the run began."""
        return {**self.seconds, "total": time.perf_counter() - self._begun}

    def as_json(self) -> dict[str, Any]:
        """``stages``, by name their ``seconds`` and ``peak_resident_bytes`` (and ``peak_device_bytes``), and
        ``stage_peaks``: "own", or "so_far" where peaks are of all stages up to then."""
        stages = {name: {"seconds": round(self.seconds[name], 2), **self.peaks[name]} for name in self.seconds}
        return {"stages": stages, "stage_peaks": "own" if self.apart else "so_far"}


def _higher(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def write_numbers(
    folder: Path, final: Mapping[str, float], history: Mapping[str, list[float]], stages: Stages, model: Any
) -> None:
    """``metrics.json``, and what ``write_costs`` writes."""
    write_json(folder / "metrics.json", {"final": final, "history": history})
    write_costs(folder, stages, model)


def write_costs(folder: Path, stages: Stages, model: Any) -> None:
    """``timing.json`` and ``resources.json``."""
    write_json(folder / "timing.json", {name: round(value, 2) for name, value in stages.timing.items()})
    parameters = sum(parameter.numel() for parameter in model.parameters()) if hasattr(model, "parameters") else 0
    write_json(folder / RESOURCES_FILE, {**stages.peak, "parameters": parameters, **stages.as_json()})


def write_page(folder: Path) -> Path | None:
    """``report.html`` of a run; a fault in it takes nothing from the run itself."""
    try:
        from genrec.report.run_page import write_run_page

        return write_run_page(folder)
    except Exception as error:
        log.warning("The page of %s could not be written: %s", folder, error)
        return None


def reset_peak_memory() -> bool:
    """Begins to measure anew, so that a stage, or a job of a sweep, does not answer for the one before it (Linux and
    GPUs only); whether that is possible for the memory of the process."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")  # resets VmHWM
    except OSError:
        return False
    return True


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
