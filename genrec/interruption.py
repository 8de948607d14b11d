"""Ctrl-C and other signals that ask a run to end: heard at once, obeyed where nothing is lost by it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_ONE_PRESS = 1.0  # seconds within which a second Ctrl-C is an echo of the first, such as that of torchrun
_PATIENCE = b"Ending with a checkpoint after this step. Ctrl-C again ends at once, without another one.\n"


class Interrupted(BaseException):
    """The process is to end because of a signal; whoever cleans up does so and lets it pass."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"Interrupted by {self.signal.name}.")

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that a signal has ended: 130 of Ctrl-C, 143 of SIGTERM."""
        return 128 + self.signal


class Interruption:
    """What signals have asked for. While a run trains they wait for ``obey``, otherwise ``Interrupted`` is raised at
    once. The same signal a second time ends the process without more ado; another one, such as the SIGTERM that Slurm
    sends after its SIGUSR1, does not.

    ``patient``: outside of training signals are not obeyed either, because another process ends the run.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.asked: signal.Signals | None = None
        self.patient = patient
        self._training = False
        self._since = 0.0

    @contextmanager
    def heard(self) -> Iterator[Interruption]:
        """Listens while the block runs; to SIGUSR1 in a job of Slurm only. Signals that somebody else takes care of,
        or has switched off, are left to them."""
        names = (*_ENDING, "SIGUSR1") if "SLURM_JOB_ID" in os.environ else _ENDING
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    before[number] = signal.signal(number, self._hear)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def training(self) -> Iterator[None]:
        """A block that asks for itself, by ``obey``, whether to go on."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    def obey(self) -> None:
        """Raises ``Interrupted`` where a signal has asked for it."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked is not None:
            if number == self.asked and now - self._since > _ONE_PRESS:
                os._exit(128 + number)
            return
        self.asked, self._since = signal.Signals(number), now
        if self._training:
            if not self.patient:
                os.write(2, _PATIENCE)  # a logger may be writing at this very moment
        elif not self.patient:
            raise Interrupted(number)
