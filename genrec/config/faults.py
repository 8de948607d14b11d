"""What a mistake in the config is told with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genrec.masking import HIDDEN, STORAGE_OPTIONS, is_secret, masked_text

_LONGEST = 500  # signs of a key or a value that are shown


@dataclass(frozen=True)
class Fault:
    """One mistake: where it is, what was given, what is allowed, and the nearest right name."""

    key: str
    problem: str
    given: str | None = None
    nearest: str | None = None
    allowed: str = ""

    def __str__(self) -> str:
        key = _short(masked_text(self.key))
        given = HIDDEN if is_secret(self.key) or STORAGE_OPTIONS in self.key else masked_text(str(self.given))
        head = key if self.given is None else f"{key}={_short(given)}"
        hint = f" Did you mean {self.nearest}?" if self.nearest else ""
        allowed = f" {self.allowed}" if self.allowed else ""
        return f"{head}: {self.problem}.{hint}{allowed}"


def _short(text: str) -> str:
    """What is long is known by how it begins and ends."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 40]} ... {text[-20:]}"


def report(faults: Sequence[Fault]) -> str:
    """The faults as one readable message."""
    head = "The configuration has a fault:" if len(faults) == 1 else f"The configuration has {len(faults)} faults:"
    return "\n".join([head, *(f"  {fault}" for fault in faults)])
