"""Training SASRec with full cross-entropy, d 64, 2 layers, length 50: seconds an epoch.

RecBole takes minutes for an epoch, so a few batches of its are timed and extrapolated; ours are a spread sample of an
epoch's batches, likewise scaled by targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from experiments.speed.measure import Contender, Task, Work
from experiments.speed.ours import Training
from experiments.speed.setting import BF16, LIGHTNING, Setting, attempt, optional

REFERENCE = "RecBole SASRec, fp32"
DIM, LAYERS, HEADS, INNER, LENGTH, DROPOUT = 64, 2, 2, 256, 50, 0.4
SIZE = {
    "embedding_dim": DIM,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "feedforward_dim": INNER,
    "dropout": DROPOUT,
    "max_history": LENGTH,
}
_BATCH = 512


def tasks(setting: Setting) -> Iterator[Task]:
    torch.manual_seed(0)
    contenders = [attempt(REFERENCE, lambda: _recbole(setting, amp=False), quoted="303 s")]
    if BF16 in setting.precisions:
        contenders.append(attempt("RecBole SASRec, bf16", lambda: _recbole(setting, amp=True)))
    contenders += [
        attempt(f"genrec SASRec, {precision}", lambda p=precision: _ours(setting, p))
        for precision in setting.precisions
    ]
    yield Task(
        name=f"An epoch of SASRec on {setting.data_name} (full softmax, d {DIM}, {LAYERS} layers, length {LENGTH})",
        unit="s",
        contenders=contenders,
        reference=REFERENCE,
    )


def sasrec(setting: Setting) -> Any:
    """Our SASRec at this study's size, with the full cross-entropy that is its default."""
    return optional("genrec.models.sasrec", "SASRec")(setting.spec, **SIZE)


def _recbole(setting: Setting, *, amp: bool) -> Contender:
    peer = setting.recbole
    batches = peer.training_batches(setting.few(2, 1))
    share = sum(len(batch) for batch in batches) / peer.num_targets

    def call() -> Work:
        peer.trainer.enable_amp = amp
        peer.trainer._train_epoch(batches, 0)
        return Work(share)

    precision = "bf16 (enable_amp)" if amp else "fp32"
    return Contender(
        name=f"RecBole SASRec, {'bf16' if amp else 'fp32'}",
        call=call,
        settings=f"its trainer, batches of {peer.batch_size}, {precision}, Adam, padded to {LENGTH} items",
        note=f"extrapolated from {share:.1%} of an epoch",
    )


def _ours(setting: Setting, precision: str) -> Contender:
    model = sasrec(setting)
    steps = setting.few(96, 32)
    training = Training(
        model, setting.view, setting.folder, batch_size=_BATCH, steps=steps, precision=LIGHTNING[precision],
        compile=setting.compile, epochs=True,
    )  # fmt: skip
    return Contender(
        name=f"genrec SASRec, {precision}",
        ours=True,
        call=training,
        settings=f"real trainer, all positions in one pass, exact-length batches of {_BATCH} targets, {precision}",
        note=f"scaled from {training.targets / training.whole:.1%} of an epoch, of all lengths",
        target="30x" if precision == setting.precisions[-1] else "",
        floor=setting.machine.floor(training.flops_per_unit(), precision=precision),
        warm_up=2 if setting.compile else 1,
    )
