"""Jobs of a sweep in processes of their own, which must not outlive it unseen."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

_SECONDS = 1.0  # between two looks


def end_with_parent() -> None:
    """Ends this worker process soon after the sweep that started it was killed, so that its job can be continued.

    Nothing happens outside of worker processes: a sweep itself may outlive the shell that it was started from.
    """
    if multiprocessing.current_process().name == "MainProcess" or "end_with_parent" in _names():
        return
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="end_with_parent", daemon=True).start()


def _names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)  # as if it had been killed with the sweep: no state is written, checkpoints are whole at any time
