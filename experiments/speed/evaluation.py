"""Ranking the whole catalogue for every test user: seconds and memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed.measure import Contender, Task, Work
from experiments.speed.recbole import METRICS, TOP_K
from experiments.speed.setting import FP32, Setting, attempt
from experiments.speed.training_sasrec import sasrec
from genrec.trainers.evaluation import evaluate_retrieval

REFERENCE = "RecBole evaluate"


def tasks(setting: Setting) -> Iterator[Task]:
    torch.manual_seed(0)
    contenders = [attempt(REFERENCE, lambda: _recbole(setting), quoted="4.7 s")]
    contenders += [
        attempt(f"genrec evaluate_retrieval, {precision}", lambda p=precision: _ours(setting, p))
        for precision in setting.precisions
    ]
    yield Task(
        name=f"Full-catalogue evaluation of SASRec on {setting.data_name} ({setting.view.num_users:,} users)",
        unit="s",
        contenders=contenders,
        reference=REFERENCE,
    )


def _recbole(setting: Setting) -> Contender:
    peer = setting.recbole

    def call() -> Work:
        peer.evaluate()
        return Work(1.0)

    return Contender(
        name=REFERENCE,
        call=call,
        settings=f"its trainer, {', '.join(METRICS)} at {TOP_K}, batches of {peer.eval_batch_size}, nothing masked",
    )


def _ours(setting: Setting, precision: str) -> Contender:
    model = sasrec(setting)
    autocast = precision != FP32

    def call() -> Work:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            evaluate_retrieval(model, setting.view, "test", k_values=TOP_K, progress=False)
        return Work(1.0)

    with FlopCounterMode(display=False) as counter:
        call()
    return Contender(
        name=f"genrec evaluate_retrieval, {precision}",
        ours=True,
        call=call,
        settings=f"{', '.join(METRICS)} at {TOP_K}, batches of 256 users, seen items not masked, {precision}",
        target="6x, < 300 MB" if precision == FP32 else "",
        floor=setting.machine.floor(counter.get_total_flops(), precision=precision),
    )
