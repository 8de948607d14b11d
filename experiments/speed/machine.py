"""What this machine can do at best, and how much of it others took while we measured.

The floor of a task is the larger of (floating-point operations / matrix rate) and (bytes / bandwidth).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Machine:
    """Processor, threads in use, products per precision in FLOP/s, memory traffic (read plus write) in bytes/s."""

    cpu: str
    cores: int
    threads: int
    torch: str
    python: str
    rates: dict[str, float]
    bandwidth: float
    bf16_pays: bool

    def floor(self, flops: float, num_bytes: float = 0.0, precision: str = "fp32") -> float:
        """Seconds below which nothing on this machine can do it."""
        return max(flops / self.rates[precision], num_bytes / self.bandwidth)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in self.rates.items())
        return (
            f"{self.cpu}, {self.cores} cores, {self.threads} threads used; {rates}; "
            f"{self.bandwidth / 1e9:,.1f} GB/s; torch {self.torch}, Python {self.python}"
        )


def measure_machine(*, seconds: float = 1.0) -> Machine:
    """Measures with the threads torch is set to; ``seconds`` is spent on each of three figures."""
    rates = {
        "fp32": matrix_rate(torch.float32, seconds=seconds),
        "bf16": matrix_rate(torch.bfloat16, seconds=seconds),
    }
    return Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        rates=rates,
        bandwidth=bandwidth(seconds=seconds),
        bf16_pays=rates["bf16"] > 1.3 * rates["fp32"],
    )


def matrix_rate(dtype: torch.dtype, *, sizes: tuple[int, ...] = (512, 1024, 2048), seconds: float = 1.0) -> float:
    """FLOP/s of a square product, the best of several sizes and repeats: a floor asks for the most there is."""
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        out = torch.empty(size, size, dtype=dtype)
        times = _repeat(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), seconds / len(sizes))
        best = max(best, 2 * size**3 / min(times))
    return best


def bandwidth(*, megabytes: int = 512, seconds: float = 1.0) -> float:
    """Bytes/s read plus written by a copy that no cache holds."""
    source = torch.ones(megabytes << 18)  # float32
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(_repeat(lambda: target.copy_(source), seconds))


def _repeat(call: Callable[[], Any], seconds: float) -> list[float]:
    call()  # touches the pages, fills the caches of primitives
    times: list[float] = []
    while not times or (sum(times) < seconds or len(times) < 3):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times


def cpu_name() -> str:
    try:
        lines = (_PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@dataclass(frozen=True)
class CpuClock:
    """Seconds: of the wall, of processor time spent by everyone, and by this process with all its descendants."""

    wall: float
    everyone: float
    own: float

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic(), _busy_seconds(), _own_seconds(os.getpid()))

    def foreign_share(self, later: CpuClock, cores: int) -> float:
        """The share of the machine's processor time that others took between the two clocks, at least 0."""
        available = (later.wall - self.wall) * cores
        if available <= 0:
            return 0.0
        return max(0.0, (later.everyone - self.everyone) - (later.own - self.own)) / available


def _busy_seconds() -> float:
    """user + nice + system + irq + softirq + steal of all cores; 0 where there is no /proc (no share is known then)."""
    try:
        fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) * _TICK


def _own_seconds(pid: int) -> float:
    """Of a process, its living descendants, and those of their children that were waited for."""
    spent: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            # The command stands in brackets and may hold spaces; the fields after it are numbers 3, 4 ... of proc(5).
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue  # it ended meanwhile
        number = int(folder.name)
        children.setdefault(int(fields[1]), []).append(number)
        spent[number] = sum(int(field) for field in fields[11:15]) * _TICK  # utime, stime, cutime, cstime
    total, waiting = 0.0, [pid]
    while waiting:
        number = waiting.pop()
        total += spent.get(number, 0.0)
        waiting.extend(children.get(number, []))
    return total
