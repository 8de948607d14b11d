"""Functions called in two processes that have met, as the trainers of one run are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import torch

from genrec.trainers.hardware import Hardware
from genrec.trainers.world import environment_of, joined, leading, leave

SECONDS = 300


def in_two(function: Callable[..., Any], *arguments: Any, seconds: float = SECONDS) -> list[Any]:
    """What ``function(hardware, *arguments)`` returns in each of two processes; an error in one is an error here, and
    so is one that has not answered after so many ``seconds``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytorch_lightning", "genrec.trainers.tiger", "genrec.trainers.engine"])
    host, port = leading(3)  # this process only keeps the notes
    pipes, processes = [], []
    for rank in range(2):
        here, there = context.Pipe()
        target = (there, environment_of(rank, 2, port), function, arguments)
        processes.append(context.Process(target=_call, args=target, daemon=True))
        processes[-1].start()
        pipes.append(here)
    try:
        found = [pipe.recv() if pipe.poll(seconds) else (False, "no answer") for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
    del host
    for good, value in found:
        assert good, value
    return [value for _, value in found]


def _call(pipe: Any, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.alarm(SECONDS)
    # Neither process is to keep the notes: the one that has started both does.
    os.environ.update(environment, TORCHELASTIC_USE_AGENT_STORE="True", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    try:
        hardware = Hardware(accelerator="cpu")
        hardware.world = joined().met(torch.device("cpu"))
        pipe.send((True, function(hardware, *arguments)))
        leave()
    except BaseException:
        pipe.send((False, traceback.format_exc()))
