"""Numbers to places and back to words: scales, ticks and how a number is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from genrec.disk import format_bytes as format_bytes

MISSING = "-"


@dataclass(frozen=True)
class Scale:
    """Maps ``low .. high`` of the data onto ``start .. end`` of the drawing, linearly or by logarithm.

    A logarithmic scale needs positive numbers. Where ``low == high`` everything lies in the middle.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        share = 0.5 if high == low else (at - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About ``count`` round numbers within the scale."""
        return log_ticks(self.low, self.high, count) if self.log else ticks(self.low, self.high, count)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten within ``low .. high``: at most ``count + 1`` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    step = _round_step((high - low) / max(count, 1))
    step = 5.0 if step == 2.5 else step  # nobody counts 2.5, 5, 7.5
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Powers of ten within ``low .. high``; their multiples of 2 and 5 too, or all whole ones, where few fit."""
    if not 0 < low < high:
        return [low] if low > 0 else []
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        found = [
            f * 10.0**e for e in exponents for f in factors if low * (1 - 1e-9) <= f * 10.0**e <= high * (1 + 1e-9)
        ]
        if len(found) >= min(3, count):
            break
    every = max(1, -(-len(found) // max(count, 1)))
    return [float(f"{value:.12g}") for value in found[::every]] or [low, high]


def padded(
    values: Sequence[float], *, log: bool = False, zero: bool = False, share: float = 0.05
) -> tuple[float, float]:
    """The range of ``values`` with some air; from zero on where ``zero``. Numbers that cannot be drawn are left out."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if log:
        factor = (high / low) ** share if high > low else 2.0
        return low / factor, high * factor
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    air = share * (high - low) if high > low else (abs(high) * 0.1 or 1.0)
    return (low if zero and low == 0 else low - air), (high if zero and high == 0 else high + air)


def format_number(value: float | int | None) -> str:
    """A number for a table: whole numbers in groups of three, four decimals, or three digits and a power of ten."""
    if value is None:
        return MISSING
    if isinstance(value, int) or (math.isfinite(value) and abs(value) >= 1e4):
        return f"{value:,.0f}"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        return _short_power(f"{value:.3g}" if "e" in f"{value:.3g}" else f"{value:.2e}")
    return f"{value:.4f}" if size < 10 else f"{value:,.2f}" if size < 1000 else f"{value:,.1f}"


def format_exact(value: float) -> str:
    """A place on an axis for a tooltip: whole numbers in groups of three, others with six digits."""
    return f"{value:,.0f}" if float(value).is_integer() else _short_power(f"{value:.6g}")


def format_tick(value: float, digits: int = 4) -> str:
    """A round number in as few characters as it takes."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.{digits}g}M"
    if size >= 1e4:
        return f"{value / 1e3:.{digits}g}k"
    return _short_power(f"{value:.{digits}g}")


def format_ticks(values: Sequence[float]) -> list[str]:
    """The ticks of an axis with as many digits as it takes to tell them apart."""
    names = [format_tick(value) for value in values]
    for digits in range(5, 13):
        if len(set(names)) == len(names):
            break
        names = [format_tick(value, digits) for value in values]
    return names


def _short_power(text: str) -> str:
    """``3.00e-04`` as ``3e-4``."""
    head, sign, power = text.partition("e")
    if not sign:
        return text
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return f"{head}e{int(power)}"


def format_seconds(seconds: float | None) -> str:
    """A duration: ``0.4 s``, ``52 s``, ``3 min 05 s``, ``2 h 14 min``, ``3 d 4 h``."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
