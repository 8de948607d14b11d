"""What a mistake in the config is told with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genrec.masking import HIDDEN, is_secret, scrub


@dataclass(frozen=True)
class Fault:
    """One mistake: where it is, what was given, what is allowed, and the nearest right name."""

    key: str
    problem: str
    given: str | None = None
    nearest: str | None = None
    allowed: str = ""

    def __str__(self) -> str:
        given = HIDDEN if is_secret(self.key) else scrub(str(self.given))
        head = self.key if self.given is None else f"{self.key}={given}"
        hint = f" Did you mean {self.nearest}?" if self.nearest else ""
        allowed = f" {self.allowed}" if self.allowed else ""
        return f"{head}: {self.problem}.{hint}{allowed}"


def report(faults: Sequence[Fault]) -> str:
    """The faults as one readable message."""
    head = "The configuration has a fault:" if len(faults) == 1 else f"The configuration has {len(faults)} faults:"
    return "\n".join([head, *(f"  {fault}" for fault in faults)])
