"""Contenders in turns: each round times every contender once, so that whatever slows the machine slows all of them.

A turn repeats a contender's call until it is long enough to judge. A turn during which other processes took more than
2 % of the processor is run again, after waiting for quiet.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from experiments.speed.machine import CpuClock
from experiments.speed.memory import PeakMemory
from experiments.speed.table import Row

logger = logging.getLogger("experiments.speed")

_LONG = 5.0  # seconds


@dataclass(frozen=True)
class Work:
    """What a call did: ``units`` of the task, in ``seconds`` where it kept its own watch (else the harness's)."""

    units: float
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of doing the task. ``floor`` is the least seconds this machine could need for one unit (None: unknown).

    ``measures_memory`` False where the work is done in other processes.
    """

    name: str
    call: Callable[[], Work]
    settings: str = ""
    ours: bool = False
    target: str = ""
    floor: float | None = None
    note: str = ""
    warm_up: int = 1
    measures_memory: bool = True


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A peer that cannot run here, why, and what the project's issue says it took."""

    name: str
    reason: str
    quoted: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What several contenders do. ``unit`` "targets/s" is a rate, "s" or "ms" the time of one unit of work.

    Ratios say how many times faster a contender is than ``reference``.
    """

    name: str
    unit: str
    contenders: Sequence[Contender | Absent]
    reference: str
    rounds: int | None = None


@dataclass(frozen=True)
class Rules:
    """How long and how often to measure, and when a turn counts as disturbed."""

    rounds: int = 3
    min_seconds: float = 1.0
    max_foreign: float = 0.02
    attempts: int = 4
    patience: float = 30.0  # seconds to wait for quiet before a turn is run again
    allow_busy: bool = False


def fastest(calls: dict[int, Callable[[], Work]], watch: Callable[[], float] = time.perf_counter) -> int:
    """The size of batch whose call takes least for a unit of work; a short first call counts as a warm-up."""
    if len(calls) == 1:
        return next(iter(calls))

    def seconds(call: Callable[[], Work]) -> float:
        begun = watch()
        work = call()
        taken = watch() - begun
        if taken < _LONG:
            begun = watch()
            work = call()
            taken = watch() - begun
        return taken / work.units

    return min(calls, key=lambda size: seconds(calls[size]))


@dataclass(frozen=True)
class Turn:
    """One contender's part of one round: units per second, how long it took, the share others took."""

    rate: float
    seconds: float
    foreign: float


Clock = Callable[[], CpuClock]


@dataclass
class Referee:
    """Runs tasks by the rules. ``clock`` and ``sleep`` can be replaced, which makes the rules testable."""

    rules: Rules
    cores: int
    clock: Clock = CpuClock.now
    sleep: Callable[[float], None] = time.sleep
    watch: Callable[[], float] = time.perf_counter
    retries: int = field(default=0, init=False)

    def run(self, section: str, task: Task) -> list[Row]:
        """One row per contender, in the order given; a contender that raises becomes a row that says so."""
        rows: list[Row] = [absent_row(section, task, entry) for entry in task.contenders if isinstance(entry, Absent)]
        ready: list[Contender] = []
        peaks: dict[str, int | None] = {}
        for contender in task.contenders:
            if isinstance(contender, Absent):
                continue
            try:
                peaks[contender.name] = self._warm_up(contender)
                ready.append(contender)
            except Exception as error:  # a peer's failure must not end the measurement of the others
                logger.exception("%s: %s failed", task.name, contender.name)
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                rows.append(absent_row(section, task, Absent(name=contender.name, reason=reason)))
        turns: dict[str, list[Turn]] = {contender.name: [] for contender in ready}
        for number in range(task.rounds or self.rules.rounds):
            for contender in ready if number % 2 == 0 else ready[::-1]:
                turns[contender.name].append(self.turn(contender))
        baseline = turns.get(task.reference)
        for contender in ready:
            rows.append(
                build_row(section, task, contender, turns[contender.name], baseline, peaks[contender.name], self.rules)
            )
        order = [entry.name for entry in task.contenders]
        return sorted(rows, key=lambda row: order.index(row.contender))

    def turn(self, contender: Contender) -> Turn:
        """A turn; a disturbed one is run again and the least disturbed one counts."""
        best = self._attempt(contender)
        for _ in range(0 if self.rules.allow_busy else self.rules.attempts - 1):
            if best.foreign <= self.rules.max_foreign:
                break
            self.retries += 1
            self._await_quiet()
            best = min(best, self._attempt(contender), key=lambda turn: turn.foreign)
        return best

    def _attempt(self, contender: Contender) -> Turn:
        before = self.clock()
        units = seconds = 0.0
        while seconds < self.rules.min_seconds or units == 0.0:
            begun = self.watch()
            work = contender.call()
            seconds += self.watch() - begun if work.seconds is None else work.seconds
            units += work.units
        return Turn(units / seconds, seconds, before.foreign_share(self.clock(), self.cores))

    def _await_quiet(self) -> None:
        waited = 0.0
        while waited < self.rules.patience:
            before = self.clock()
            self.sleep(1.0)
            waited += 1.0
            if before.foreign_share(self.clock(), self.cores) <= self.rules.max_foreign:
                return

    def _warm_up(self, contender: Contender) -> int | None:
        """Calls it until caches are filled; memory is taken at the last of these calls."""
        for _ in range(contender.warm_up - 1):
            contender.call()
        if not contender.measures_memory:
            contender.call()
            return None
        begun = self.watch()
        peak = _peak(contender)
        # The first call also loads and builds what later ones find ready; where it is cheap, the second is the measure.
        return peak if self.watch() - begun > _LONG else _peak(contender)


def _peak(contender: Contender) -> int | None:
    with PeakMemory() as peak:
        contender.call()
    return peak.bytes


def absent_row(section: str, task: Task, peer: Absent) -> Row:
    quoted = f"; the issue quotes {peer.quoted}" if peer.quoted else ""
    return Row(
        section=section,
        task=task.name,
        contender=peer.name,
        unit=task.unit,
        reference=task.reference,
        note=f"did not run: {peer.reason}{quoted}",
    )


def build_row(
    section: str,
    task: Task,
    contender: Contender,
    turns: Sequence[Turn],
    baseline: Sequence[Turn] | None,
    peak: int | None,
    rules: Rules,
) -> Row:
    """Medians with the range over the rounds; the ratio is taken within each round."""
    values = [shown(turn.rate, task.unit) for turn in turns]
    ratios = [mine.rate / other.rate for mine, other in zip(turns, baseline or (), strict=False)]
    foreign = sum(turn.foreign * turn.seconds for turn in turns) / sum(turn.seconds for turn in turns)
    rate = statistics.median(turn.rate for turn in turns)
    return Row(
        section=section,
        task=task.name,
        contender=contender.name,
        unit=task.unit,
        reference=task.reference,
        ours=contender.ours,
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        ratio=statistics.median(ratios) if ratios else None,
        ratio_low=min(ratios) if ratios else None,
        ratio_high=max(ratios) if ratios else None,
        target=contender.target,
        floor=None if contender.floor is None else 1.0 / rate / contender.floor,
        peak_bytes=peak,
        foreign=foreign,
        busy=foreign > rules.max_foreign,
        settings=contender.settings,
        note=contender.note,
    )


def shown(rate: float, unit: str) -> float:
    """A rate in the unit of the table: units per second, or the time of one unit."""
    return {"s": 1.0, "ms": 1e3}[unit] / rate if unit in ("s", "ms") else rate
