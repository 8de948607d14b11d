"""A worker process ends soon after its sweep was killed; a sweep outlives its shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from genrec.sweeps.workers import end_with_parent

SWEEP = """
import multiprocessing, os, sys, time

def job(watched):
    from genrec.sweeps.workers import end_with_parent
    if watched:
        end_with_parent()
        end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=job, args=(sys.argv[1] == "watched",))
    process.start()
    process.join()
"""


def killed_sweep(kind: str) -> int:
    """The process id of a job whose sweep was killed just now."""
    with subprocess.Popen([sys.executable, "-c", SWEEP, kind], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None
        job = int(sweep.stdout.readline())
        time.sleep(0.2)
        sweep.kill()
        sweep.stdout.close()
    return job


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_worker_ends_with_its_sweep() -> None:
    job = killed_sweep("watched")
    end = time.monotonic() + 20
    while is_alive(job) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(job)


def test_without_it_a_worker_would_go_on() -> None:
    job = killed_sweep("unwatched")
    time.sleep(1.5)
    alive = is_alive(job)
    os.kill(job, signal.SIGKILL)
    assert alive


def test_the_main_process_watches_nobody() -> None:
    import threading

    before = set(threading.enumerate())
    end_with_parent()
    assert set(threading.enumerate()) <= before
