"""Several things done at a time, which wait for a store most of theirs; the first that fails ends them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_LOOK = 0.1  # seconds between two looks, so that signals are heard meanwhile
_GRACE = 5.0  # seconds for the others to stop after a failure; one that waits for an answer is not waited for


def in_parallel(actions: Sequence[Callable[[], T]], stop: threading.Event, *, at_once: int) -> list[T]:
    """What the actions give, in their order. Where one raises, or this thread is interrupted, ``stop`` is set: no other
    begins, those that have begun look at it, and the error is raised."""
    if len(actions) < 2:
        return [action() for action in actions]
    crew = _Crew(actions, stop)
    threads = [threading.Thread(target=crew.work, daemon=True) for _ in range(min(at_once, len(actions)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and not stop.is_set():
                thread.join(_LOOK)
    finally:
        stop.set()
    if crew.errors:
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise crew.errors[0]
    return [crew.found[index] for index in range(len(actions))]


class _Crew:
    """What the threads share: the actions that nobody has begun, what was found, and what went wrong."""

    def __init__(self, actions: Sequence[Callable[[], Any]], stop: threading.Event) -> None:
        self._waiting = iter(enumerate(actions))
        self._lock = threading.Lock()
        self._stop = stop
        self.found: dict[int, Any] = {}
        self.errors: list[BaseException] = []

    def work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                index, action = next(self._waiting, (None, None))
            if index is None or action is None:
                return
            try:
                self.found[index] = action()
            except BaseException as error:
                self.errors.append(error)
                self._stop.set()
