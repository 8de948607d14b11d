"""Starting the other processes of a run or a command on this machine; they neither outlive it nor die unseen."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from genrec.contracts import GenrecError, LostProcessError
from genrec.trainers.hardware import Hardware
from genrec.trainers.world import World, environment_of, leading, leave

log = logging.getLogger("genrec.run")

_SECONDS = 0.2  # between two looks at the processes
_GRACE = 10.0  # for the leader to find out by itself that another process has died
_END = 60.0  # for the others to end after the leader has
_DYING = 5.0  # between a connection that breaks and the end of the process that it led to
_AFTER_A_RUN = "give fewer hardware.devices or a smaller trainer.batch_size; then continue with resume=auto."


def log_of(rank: int) -> str:
    """The file of a run folder that process ``rank`` writes its messages to."""
    return f"process_{rank}.log"


def of_the_connection(error: Exception) -> bool:
    """Whether processes have lost each other."""
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in said for word in ("gloo", "nccl", "connection"))


@contextmanager
def world_of(
    hardware: Hardware, world: World, folder: Path, *, fail: Callable[[BaseException], None]
) -> Iterator[World]:
    """The world of the run in ``folder``: ``world``, or where it holds this process alone, as many as ``hardware`` asks
    for, started here.

    ``fail`` is told why the run ends if this process cannot end it in an orderly way.
    """
    if hardware.num_processes == 1:
        try:
            yield world
        finally:
            leave()
        return

    def told(error: BaseException) -> None:
        log.error("%s", error)
        fail(error)

    with started(hardware.num_processes, folder, fail=told, advice=_AFTER_A_RUN) as world:
        log.info("processes: %d on this machine, each with its share of every batch", world.size)
        yield world


@contextmanager
def started(
    size: int, folder: Path, *, fail: Callable[[BaseException], None], advice: str, words: Sequence[str] = ()
) -> Iterator[World]:
    """The world of this process and ``size`` - 1 others that are started here, with ``words`` for ``genrec.worker``.

    Their messages go to files in ``folder``. ``advice`` is for memory that was short. Raises LostProcessError where one
    has died; ``fail`` is told so if this process cannot end in an orderly way.
    """
    world, port = leading(size)
    if "GLOO_SOCKET_IFNAME" not in os.environ:  # the name of a machine may lead to no address
        os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    workers = Workers(folder, size, port, fail=fail, advice=advice, words=words)
    try:
        yield world
    except GenrecError:
        raise
    except Exception as error:
        fault = workers.fault_behind(error)
        if fault is not None:
            raise LostProcessError(fault) from error
        raise
    else:
        workers.wait()
    finally:
        workers.end()
        leave()


class Workers:
    """Processes 1 to ``size`` - 1. ``fault`` says which has died and why, as soon as one has."""

    def __init__(
        self,
        folder: Path,
        size: int,
        port: int,
        *,
        fail: Callable[[BaseException], None],
        advice: str,
        words: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.size = size
        self.fail = fail
        self.advice = advice
        self.words = words
        self.fault: str | None = None
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._started = [self._start(rank, port) for rank in range(1, size)]
        threading.Thread(target=self._watch, name="watch_processes", daemon=True).start()

    def _start(self, rank: int, port: int) -> subprocess.Popen[bytes]:
        places = os.pathsep.join(filter(None, sys.path))
        # If torchrun has started this process, its own notes would lead the others to another store.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
        environment = {**inherited, **environment_of(rank, self.size, port), "PYTHONPATH": places}
        command = [sys.executable, "-m", "genrec.worker", *self.words]
        with open(self.folder / log_of(rank), "wb") as output:
            # The pipe breaks when this process ends, however it does, and that ends the other.
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )

    def fault_behind(self, error: Exception) -> str | None:
        """The fault, if there is one. The connection breaks before the process has ended and the watch has looked."""
        self._lost.wait(_DYING if of_the_connection(error) else 2 * _SECONDS)
        if any(process.poll() for process in self._started):
            self._lost.wait(_DYING)
        return self.fault

    def wait(self) -> None:
        """Lets the others end by themselves."""
        deadline = time.monotonic() + _END
        while any(process.poll() is None for process in self._started) and time.monotonic() < deadline:
            time.sleep(_SECONDS / 4)

    def end(self) -> None:
        """Ends all that are left, and removes the messages of those that had none."""
        self._ended.set()
        for process in self._started:
            if process.poll() is None:
                process.kill()
        for rank, process in enumerate(self._started, start=1):
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            path = self.folder / log_of(rank)
            if path.exists() and not path.stat().st_size:
                path.unlink()

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS):
            for rank, process in enumerate(self._started, start=1):
                code = process.poll()
                if code:
                    self.fault = self._reason(rank, code)
                    self._lost.set()
                    self._end_if_stuck()
                    return

    def _reason(self, rank: int, code: int) -> str:
        """In a sentence, how a process ended."""
        who = f"Process {rank + 1} of {self.size}"
        if code < 0:
            return (
                f"{who} was killed by {signal.Signals(-code).name}, and the others cannot go on without it. "
                f"If memory was short, {self.advice}"
            )
        path = self.folder / log_of(rank)
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
        return f"{who} ended with code {code}: {lines[-1] if lines else 'it said nothing'} (all of it is in {path})"

    def _end_if_stuck(self) -> None:
        """This process may wait for the dead one in a call that cannot be interrupted."""
        if self._ended.wait(_GRACE):
            return
        assert self.fault is not None
        self.fail(LostProcessError(self.fault))
        for process in self._started:
            if process.poll() is None:
                process.kill()
        os._exit(1)


def end_with_leader() -> None:
    """Ends this process at once when the one that has started it has ended, so that none is left behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the leader ends the run
    threading.Thread(target=_read_to_end, name="end_with_leader", daemon=True).start()


def _read_to_end() -> None:
    while os.read(0, 1):  # a buffered file would be locked when the interpreter ends
        pass
    os._exit(1)
