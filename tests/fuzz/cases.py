"""A case of nonsense and how it ended: every case is a pure function of an area, a seed and a number."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

from genrec.contracts import GenrecError

REFUSED, THROUGH, CUT, DEFECT = "refused", "through", "cut", "defect"
_LONGEST = 8000  # of a sentence; faults of a config come as a list
_NO_SENTENCE = re.compile(r"Traceback \(most recent call last\)|<[\w.]+ object at 0x|Fatal Python error|panicked at")
_NO_ROOM = ("can't allocate memory", "not enough memory", "out of memory", "Unable to allocate", "bad_alloc")


@dataclass(frozen=True)
class Case:
    """``text`` says what is tried, ``act`` tries it and raises ``GenrecError`` where it is refused. A case that is
    ``vast`` asks for more than a machine has, so it may be cut off."""

    text: str
    act: Callable[[], object]
    vast: bool = False


@dataclass(frozen=True)
class Area:
    """Cases of one kind: ``draw`` makes one from random numbers and an empty folder; ``share`` of the asked number are
    tried, each for at most ``seconds``."""

    name: str
    draw: Callable[[Random, Path], Case]
    share: float = 1.0
    seconds: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a case ended: one of REFUSED, THROUGH, CUT and DEFECT; ``said`` is the sentence, or the traceback."""

    kind: str
    said: str = ""


class OutOfTimeError(BaseException):
    """A case took longer than it may; no ``Exception``, so that nothing on the way takes it for one of its own."""


class RefusedError(GenrecError):
    """What a command says before it ends with a code other than 0."""


def numbers_of(area: Area, seed: int, number: int) -> Random:
    """The random numbers of a case."""
    return Random(f"{area.name}/{seed}/{number}")


def tried(area: Area, seed: int, number: int, folder: Path) -> tuple[Case, Outcome]:
    """Draws a case and tries it in ``folder``."""
    case = area.draw(numbers_of(area, seed, number), folder)
    return case, outcome(case, area.seconds)


def outcome(case: Case, seconds: float) -> Outcome:
    """What came of a case: whatever is no sentence is a defect."""
    try:
        with _at_most(seconds):
            case.act()
    except GenrecError as error:
        said = str(error)
        return Outcome(REFUSED, said) if is_sentence(said) else Outcome(DEFECT, f"no sentence: {said[:2000]}")
    except OutOfTimeError:
        return Outcome(CUT if case.vast else DEFECT, f"not ended after {seconds:g} s\n{traceback.format_exc()}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of polars and SystemExit are no Exception
        short = isinstance(error, MemoryError) or any(words in str(error) for words in _NO_ROOM)
        return Outcome(CUT if case.vast and short else DEFECT, traceback.format_exc())
    return Outcome(THROUGH)


def is_sentence(said: str) -> bool:
    """Whether a message may be shown to a user."""
    return bool(said.strip()) and len(said) <= _LONGEST and not _NO_SENTENCE.search(said)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def end(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
