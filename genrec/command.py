"""What the commands about finished runs share: how they end, what they compute on, and several processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from genrec.console import command
from genrec.contracts import GenrecError, LostProcessError
from genrec.scratch import Scratch

if TYPE_CHECKING:
    import torch

    from genrec.trainers.world import World

R = TypeVar("R")

DEVICES = ("auto", "cpu", "cuda")
SHARED_KEYS = ("processes", "device")
SHARED_HELP = """  processes=1       on this machine, sharing the work; the file is the same (torchrun and srun: too)
  device=auto       cpu, or cuda: of several GPUs each process takes its own; auto: cuda where there is one
"""
_ADVICE = "give fewer processes or a smaller batch_size."


class Shared(Protocol):
    """What a request says of several processes."""

    @property
    def processes(self) -> int: ...
    @property
    def device(self) -> str: ...


def run_command(name: str, text: str, parse: Callable[[Sequence[str]], R], answer: Callable[[R], None]) -> None:
    """Console entry that explains itself (``genrec.console.command`` says how it ends)."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(text)
        return

    def work() -> None:
        try:
            answer(parse(arguments))
        except KeyboardInterrupt:
            sys.stderr.write(f"{name}: interrupted; nothing was written.\n")
            raise

    command(name, work)


def shared_options(given: Mapping[str, str]) -> dict[str, Any]:
    """``processes`` and ``device`` of a command line, checked."""
    count, device = given.get("processes", "1"), given.get("device", "auto")
    if not count.isdecimal() or int(count) < 1:
        raise GenrecError(f"processes={count}: give a whole number of 1 or more.")
    if device not in DEVICES:
        raise GenrecError(f"device={device}: the choices are {', '.join(DEVICES)}.")
    return {"processes": int(count), "device": device}


def device_of(request: Shared, world: World) -> torch.device:
    """What this process computes on."""
    import torch

    found = torch.cuda.device_count()
    if request.device == "cuda" and not found:
        raise GenrecError("device=cuda: this machine has no GPU that torch can use. Use device=cpu.")
    if request.device == "cpu" or not found:
        if world.size > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // world.local_size))
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank % found)


@contextmanager
def sharing(name: str, request: Shared, discard: Callable[[], None] = lambda: None) -> Iterator[World]:
    """The processes among which the command ``name`` divides its work: those that torchrun or Slurm has started, else
    ``request.processes`` that are started here and take part as ``genrec.worker`` says. They have not met yet.

    ``discard`` removes unfinished files where this process has to end at once.
    """
    from genrec.trainers.world import ALONE, launched

    if launched() is not None:
        with _outer(request) as world:
            yield world
    elif request.processes == 1:
        yield ALONE
    else:
        with _inner(name, request, discard) as world:
            yield world


@contextmanager
def _inner(name: str, request: Shared, discard: Callable[[], None]) -> Iterator[World]:
    from genrec.processes import started

    messages = Scratch(f"genrec_{name}_")

    def fail(error: BaseException) -> None:
        discard()
        _tidy(messages)
        sys.stderr.write(f"genrec-{name}: {error}\n")
        sys.stderr.flush()

    try:
        with started(request.processes, messages.path, fail=fail, advice=_ADVICE, words=[name]) as world:
            world.told(vars(request))  # the class may be one of __main__
            yield world
    except LostProcessError:
        _tidy(messages)
        raise
    except BaseException:
        messages.remove()
        raise
    messages.remove()


def _tidy(messages: Scratch) -> None:
    """Leaves the folder only where there is something to read, which the sentence names."""
    messages.keep()
    if not any(path.stat().st_size for path in messages.path.iterdir()):
        messages.remove()


@contextmanager
def _outer(request: Shared) -> Iterator[World]:
    from genrec.processes import of_the_connection
    from genrec.trainers.world import joined, leave

    world = joined()
    if request.processes not in (1, world.size):
        raise GenrecError(
            f"processes={request.processes}: {world.size} processes were started together already. Leave it out."
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing unfinished is left when another has died
    try:
        yield world
    except RuntimeError as error:
        if not of_the_connection(error):
            raise
        raise LostProcessError(
            "Another process has ended before its share was done, so nothing was written."
        ) from error
    finally:
        leave()
