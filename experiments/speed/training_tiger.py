"""Training TIGER with the network of the paper: targets per second.

Peers get sliding windows padded to 20 items, the better of two batch sizes, and the barest of loops (forward, backward,
clipping, fused AdamW), which is more than their own trainers give them. Ours go through the real trainer, on
exact-length batches of a size that suits each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.speed.measure import Contender, Task, Work, fastest
from experiments.speed.ours import Training
from experiments.speed.setting import BF16, FP32, LIGHTNING, Setting, attempt, optional
from experiments.speed.t5 import PAPER, build_t5
from genrec.contracts import PAD_TOKEN
from genrec.data.sequences import window_rows
from genrec.models.tiger import Tiger
from genrec.semantic_ids import SemanticIds

BATCH, WIDTH = 256, 20
PEER_BATCHES = (64, 256)  # windows a step; the faster is timed
OUR_BATCHES = {"bidirectional": 256, "causal": 1024, "none": 1024, "tiger_item": 2048}  # targets a step
REFERENCE, _BF16 = "transformers T5, padded, fp32", "transformers T5, padded, bf16"
_PADDED = f"padded to {WIDTH} items, dropout .1, bare loop, clip 1, fused AdamW"
_NETWORK = "d 128, 4+4 layers, 6 heads of 64, feed-forward 1,024"


def tasks(setting: Setting) -> Iterator[Task]:
    """One task: all variants beside all peers."""
    torch.manual_seed(0)
    steps = setting.few(2, 1)
    windows = PaddedWindows(setting, steps)
    floor = {name: _faithful_floor(setting, name) for name in setting.precisions}
    contenders = [
        attempt(REFERENCE, lambda: _t5(REFERENCE, windows, FP32, floor[FP32])),
        *(
            attempt(
                "transformers T5, padded, bf16",
                lambda: _t5("transformers T5, padded, bf16", windows, BF16, floor[BF16]),
            )
            for _ in setting.precisions[1:]
        ),
        attempt("torch-rechub TIGER", lambda: _rechub(windows, floor[FP32]), quoted="58 targets/s"),
        attempt("cornac TIGER", lambda: _cornac(windows, floor[FP32]), quoted="54 targets/s"),
    ]
    for precision in setting.precisions:
        contenders += [
            attempt(f"genrec faithful, {precision}", lambda p=precision: _ours(setting, "bidirectional", p)),
            attempt(f"genrec one pass, {precision}", lambda p=precision: _ours(setting, "causal", p)),
            attempt(f"genrec decoder only, {precision}", lambda p=precision: _ours(setting, "none", p)),
            attempt(f"genrec tiger_item, {precision}", lambda p=precision: _tiger_item(setting, p)),
        ]
    yield Task(
        name=f"Training TIGER on {setting.data_name} ({_NETWORK})",
        unit="targets/s",
        contenders=contenders,
        reference=REFERENCE,
    )


class PaddedWindows:
    """The same random targets for every peer: histories (B, 20) item indices, -1 beyond the end, and targets (B,)."""

    def __init__(self, setting: Setting, steps: int) -> None:
        rows = window_rows(setting.view.train, WIDTH)
        chosen = np.random.default_rng(0).choice(len(rows.users), (steps, BATCH))
        values = setting.view.train.values
        self.ids: SemanticIds = setting.ids
        self.batches: list[tuple[np.ndarray, np.ndarray]] = []
        for step in chosen:
            places = rows.starts[step, None] + np.arange(WIDTH)
            inside = places < rows.stops[step, None]
            self.batches.append(
                (np.where(inside, values[np.minimum(places, len(values) - 1)], -1), values[rows.stops[step]])
            )

    def tokens(self, table: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        """(B, 20 C) history tokens of a table (N + 1, C), whose last row is padding, and (B, C) target tokens."""
        return [
            (torch.from_numpy(table[items]).flatten(1), torch.from_numpy(table[target]))
            for items, target in self.batches
        ]


def padded_table(ids: SemanticIds, tokens: np.ndarray) -> np.ndarray:
    """The tokens of every item, then a row of padding for "no item" (index -1)."""
    return np.concatenate([tokens, np.full((1, ids.num_levels), PAD_TOKEN)])


class BareLoop:
    """Forward, backward, clipping and a step of fused AdamW for each batch; a call goes through all batches once."""

    def __init__(self, model: nn.Module, batches: list[Any], loss: Callable[[Any], Tensor], precision: str) -> None:
        self.model, self.batches, self.loss = model.train(), batches, loss
        self.precision = precision
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def __call__(self) -> Work:
        return self.run(self.batches)

    def run(self, batches: list[Any]) -> Work:
        """The same over some batches, each a tuple of tensors."""
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16) if self.precision == BF16 else nullcontext():
                loss = self.loss(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return Work(sum(len(batch[0]) for batch in batches))

    def settle(self) -> int:
        """Cuts the batches into the size of ``PEER_BATCHES`` that takes least time for a window, and names it."""
        cuts = {size: _cut(self.batches, size) for size in PEER_BATCHES}
        tried = {size: lambda part=part[: BATCH // size]: self.run(part) for size, part in cuts.items()}
        size = fastest(tried)
        self.batches = cuts[size]
        return size


def _cut(batches: list[Any], size: int) -> list[Any]:
    """Batches of ``size`` rows of those given, each a tuple of tensors."""
    return [
        tuple(tensor[begin : begin + size] for tensor in batch)
        for batch in batches
        for begin in range(0, len(batch[0]), size)
    ]


def _peer(
    name: str, model: nn.Module, batches: list[Any], loss: Any, precision: str, floor: float, words: str
) -> Contender:
    loop = BareLoop(model, batches, loss, precision)
    size = loop.settle()
    settings = f"{size} windows a step {_PADDED}, {precision}{words}"
    return Contender(name=name, call=loop, settings=settings, floor=floor)


def _t5(name: str, windows: PaddedWindows, precision: str, floor: float, kind: Any = None) -> Contender:
    from transformers import T5ForConditionalGeneration

    ids = windows.ids
    model = build_t5(ids.vocab_size, kind=kind or T5ForConditionalGeneration)
    model.config.use_cache = False  # training needs none
    batches = windows.tokens(padded_table(ids, ids.tokens()))

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, target = batch
        return model(input_ids=tokens, attention_mask=(tokens != PAD_TOKEN).long(), labels=target).loss

    return _peer(name, model, batches, loss, precision, floor, ", no cache")


def _rechub(windows: PaddedWindows, floor: float) -> Contender:
    kind = optional("torch_rechub.models.generative.tiger", "TIGERModel")
    return _t5("torch-rechub TIGER", windows, FP32, floor, kind)


def _cornac(windows: PaddedWindows, floor: float) -> Contender:
    network = optional("cornac.models.tiger.tiger", "TIGERSeq2Seq")
    ids = windows.ids
    size = {"d_model": 128, "d_ff": 1024, "num_heads": 6, "d_kv": 64, "num_enc_layers": 4, "num_dec_layers": 4}
    model = network(list(ids.codebook_sizes), **size, dropout=PAPER["dropout"])
    tokens = ids.codes + model.offsets.numpy()
    histories = windows.tokens(padded_table(ids, tokens))
    targets = windows.tokens(padded_table(ids, ids.codes))
    batches = [(history, target) for (history, _), (_, target) in zip(histories, targets, strict=True)]

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        history, target = batch
        return model(history, (history != PAD_TOKEN).float(), target)

    return _peer("cornac TIGER", model, batches, loss, FP32, floor, "; its own network (a head per level)")


def tiger(setting: Setting, encoder: str, **changes: Any) -> Tiger:
    """Our TIGER at the paper's size, with the paper's tied embeddings and softmax over all tokens."""
    options = {**PAPER, "normalize": "vocabulary", "tie_embeddings": True, "codebook_init": False, **changes}
    return Tiger(setting.spec, encoder=encoder, **options)  # pyright: ignore[reportArgumentType]


def _faithful_floor(setting: Setting, precision: str) -> float:
    """Seconds a target needs at the least with a history encoded for each."""
    training = Training(tiger(setting, "bidirectional"), setting.view, setting.folder, batch_size=BATCH, steps=12)
    return setting.machine.floor(training.flops_per_unit(batches=12), precision=precision)


def _ours(setting: Setting, encoder: str, precision: str) -> Contender:
    name = {"bidirectional": "faithful", "causal": "one pass", "none": "decoder only"}[encoder]
    target = {"bidirectional": "4x", "causal": "22x", "none": ""}[encoder]
    many, quick = (12, 4) if encoder == "bidirectional" else (16, 6)
    size = OUR_BATCHES[encoder]
    training = Training(
        tiger(setting, encoder),
        setting.view,
        setting.folder,
        batch_size=size,
        steps=setting.few(many, quick),
        precision=LIGHTNING[precision],
        compile=setting.compile,
    )
    rows = "a history for each target" if encoder == "bidirectional" else "all targets of a history in one pass"
    return Contender(
        name=f"genrec {name}, {precision}",
        ours=True,
        call=training,
        settings=f"{rows}, exact-length batches of about {size} targets, dropout .1, real trainer, {precision}",
        target=target if precision == setting.precisions[-1] else "",
        floor=setting.machine.floor(training.flops_per_unit(), precision=precision),
        warm_up=2 if setting.compile else 1,
    )


def tiger_item(setting: Setting, ids: SemanticIds, **changes: Any) -> Any:
    """The item-level model at the defaults of its constructor."""
    kind = optional("genrec.models.tiger_item", "TigerItem")
    return kind(setting.spec_of(ids), **changes)


def _tiger_item(setting: Setting, precision: str) -> Contender:
    size = OUR_BATCHES["tiger_item"]
    training = Training(
        tiger_item(setting, setting.ids),
        setting.view,
        setting.folder,
        batch_size=size,
        steps=setting.few(64, 24),
        precision=LIGHTNING[precision],
        compile=setting.compile,
    )
    return Contender(
        name=f"genrec tiger_item, {precision}",
        ours=True,
        call=training,
        settings=f"one vector per item, exact-length batches of up to {size:,} targets, its defaults, {precision}",
        target="180x" if precision == setting.precisions[-1] else "",
        floor=setting.machine.floor(training.flops_per_unit(), precision=precision),
        warm_up=2 if setting.compile else 1,
    )
