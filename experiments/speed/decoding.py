"""Beam search over the catalogue with the network of the paper: users per second.

transformers and ours have the same weights and must return the same items. torch-rechub is transformers' ``generate``
on its own class; cornac searches for one user at a time, with its own heads. Where users may share a batch, every
contender has the size of batch that suits it best: a few are tried before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from experiments.speed import data
from experiments.speed.measure import Absent, Contender, Task, Work, fastest
from experiments.speed.setting import BF16, FP32, Setting, attempt, optional
from experiments.speed.t5 import PAPER, Generate, build_t5, copy_weights
from experiments.speed.training_tiger import padded_table, tiger_item
from genrec.contracts import PAD_TOKEN, HistoryBatch
from genrec.data.sequences import history_batch
from genrec.models.tiger import Tiger
from genrec.semantic_ids import SemanticIds

REFERENCE, RECHUB, CORNAC = "transformers generate", "torch-rechub generate", "cornac beam search"
_MILLION = 1_000_000
_TIMES = (1, 2, 4)  # batches that are tried, in multiples of a case's own


@dataclass(frozen=True)
class Case:
    """A catalogue, a width and a batch, with what is asked of TIGER and of the item-level model, and peers' quotes."""

    name: str
    num_items: int | None  # None: the items of the data
    beams: int
    batch: int
    target: str = ""
    item_target: str = ""
    quoted: tuple[str, str] = ("", "")
    cornac: bool = True


CASES = (
    Case("beam 20", None, 20, 32, "9x", "75x", ("23 users/s", "21 users/s")),
    Case("beam 50", None, 50, 32, "14x", "150x"),
    Case("beam 20, 1,000,000 items", _MILLION, 20, 32, "20x", cornac=False),
    Case("beam 20, one user at a time", None, 20, 1, "3x"),
)


def tasks(setting: Setting) -> Iterator[Task]:
    for case in CASES:
        ids = setting.ids if case.num_items is None else data.random_ids(case.num_items)
        yield _task(setting, case, ids)
    yield _growth(setting)


def _task(setting: Setting, case: Case, ids: SemanticIds) -> Task:
    torch.manual_seed(0)
    batches = batch_sizes(setting, case, ids)
    model = _tiger(setting, ids, case.beams)
    contenders: list[Contender | Absent] = []
    reference = attempt(REFERENCE, lambda: _generate(setting, case, model, ids, batches, REFERENCE))
    contenders.append(reference)
    contenders.append(
        attempt(
            RECHUB,
            lambda: _generate(setting, case, model, ids, batches, RECHUB),
            quoted=case.quoted[0],
        )
    )
    if case.cornac:
        contenders.append(attempt(CORNAC, lambda: _cornac(setting, case, ids, batches), quoted=case.quoted[1]))
    for precision in setting.precisions:
        contenders.append(
            attempt(f"genrec TIGER, {precision}", lambda p=precision: _ours(setting, case, model, batches, p))
        )
    for precision in setting.precisions:
        name = f"genrec tiger_item, {precision}"
        contenders.append(attempt(name, lambda p=precision, n=name: _item_level(setting, case, ids, batches, p, n)))
    return Task(
        name=f"Constrained decoding, {case.name} ({ids.num_items:,} items)",
        unit="users/s",
        contenders=contenders,
        reference=REFERENCE,
    )


def batch_sizes(setting: Setting, case: Case, ids: SemanticIds) -> dict[int, list[HistoryBatch]]:
    """The same users in batches of each size that may be used."""
    if case.batch == 1:
        return {1: history_batches(setting, ids, setting.few(16, 6), 1)}
    users = case.batch * setting.few(_TIMES[-1], 2)
    sizes = [case.batch * times for times in _TIMES if case.batch * times <= users]
    return {size: history_batches(setting, ids, users, size) for size in sizes}


def history_batches(setting: Setting, ids: SemanticIds, users: int, size: int) -> list[HistoryBatch]:
    """Histories of the data's users; in a larger catalogue their items are spread over it. Of like length together."""
    chosen, histories = data.histories(setting.view, users, PAPER["max_history"])
    order = np.argsort(histories.lengths, kind="stable")
    chosen, histories = chosen[order], histories.take(order)
    scale = ids.num_items // setting.view.num_items
    histories = type(histories)(histories.values * max(scale, 1), histories.offsets)
    return [
        history_batch(
            chosen[begin : begin + size],
            histories.take(np.arange(begin, min(begin + size, users))),
            max_history=PAPER["max_history"],
            filter_seen=False,
        )
        for begin in range(0, users, size)
    ]


def _tiger(setting: Setting, ids: SemanticIds, beams: int) -> Tiger:
    options = {**PAPER, "normalize": "vocabulary", "tie_embeddings": True, "codebook_init": False, "num_beams": beams}
    return Tiger(setting.spec_of(ids), encoder="bidirectional", **options).eval()  # pyright: ignore[reportArgumentType]


class Recommend:
    """``recommend`` of a model for all batches; ``items`` are the lists of the last call."""

    def __init__(self, model: Any, batches: list[HistoryBatch], k: int, precision: str = FP32) -> None:
        self.model, self.batches, self.k, self.precision = model.eval(), batches, k, precision
        self.items: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self) -> Work:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == BF16):
            self.items = [self.model.recommend(batch, self.k).items for batch in self.batches]
        return Work(sum(len(batch.users) for batch in self.batches))

    def flops_per_user(self) -> float:
        with FlopCounterMode(display=False) as counter:
            work = self()
        return counter.get_total_flops() / work.units


def _recommending(
    model: Any, batches: dict[int, list[HistoryBatch]], case: Case, precision: str
) -> tuple[Recommend, str]:
    """``recommend`` in batches of the size that suits it, and the words for the settings."""
    calls = {size: Recommend(model, of_size, case.beams, precision) for size, of_size in batches.items()}
    size = fastest(dict(calls))
    return calls[size], _in_batches(size)


def _in_batches(size: int) -> str:
    return f"batches of {size}" if size > 1 else "one user at a time"


def _ours(
    setting: Setting, case: Case, model: Tiger, batches: dict[int, list[HistoryBatch]], precision: str
) -> Contender:
    call, words = _recommending(model, batches, case, precision)
    return Contender(
        name=f"genrec TIGER, {precision}",
        ours=True,
        call=call,
        settings=f"model.recommend, {precision}, softmax over the whole vocabulary as T5, {words}",
        target=case.target if precision == FP32 else "",
        floor=setting.machine.floor(call.flops_per_user(), precision=precision),
    )


def _item_level(
    setting: Setting,
    case: Case,
    ids: SemanticIds,
    batches: dict[int, list[HistoryBatch]],
    precision: str,
    name: str,
) -> Contender:
    call, words = _recommending(tiger_item(setting, ids, num_beams=case.beams), batches, case, precision)
    return Contender(
        name=name,
        ours=True,
        call=call,
        settings=f"model.recommend of a model of its own, at its defaults, {precision}, {words}",
        target=case.item_target if precision == FP32 else "",
        floor=setting.machine.floor(call.flops_per_user(), precision=precision),
    )


def _generate(
    setting: Setting, case: Case, ours: Tiger, ids: SemanticIds, batches: dict[int, list[HistoryBatch]], peer: str
) -> Contender:
    from transformers import T5ForConditionalGeneration

    kind: Any = T5ForConditionalGeneration
    if peer == RECHUB:
        kind = optional("torch_rechub.models.generative.tiger", "TIGERModel")
    model = build_t5(ids.vocab_size, kind=kind)
    copy_weights(ours, model)
    generate = Generate(model, ids, setting.prefix_lists(ids), case.beams)
    first = batches[case.batch][0]
    generate(*_tokens(ids.tokens(), ids, first))
    expected = Recommend(ours, [first], case.beams)
    expected()
    same = float((torch.from_numpy(generate.items) == expected.items[0]).float().mean())

    calls: dict[int, Callable[[], Work]] = {}
    for size, of_size in batches.items():
        inputs = [_tokens(ids.tokens(), ids, batch) for batch in of_size]
        calls[size] = lambda inputs=inputs: Work(sum(generate(*entry).units for entry in inputs))
    size = fastest(calls)
    return Contender(
        name=peer,
        call=calls[size],
        settings="generate(prefix_allowed_tokens_fn=...) on a dictionary of prefixes, key-value cache, fp32, "
        f"eval and inference mode, histories of like length together, {_in_batches(size)}",
        note=f"{same:.1%} of places hold the same item as genrec's list",
    )


def _tokens(table: np.ndarray, ids: SemanticIds, batch: HistoryBatch) -> tuple[Tensor, Tensor]:
    """(B, L C) tokens of the histories and the mask of those that are there."""
    inside = torch.arange(batch.items.shape[1]) < batch.lengths[:, None]
    tokens = torch.from_numpy(padded_table(ids, table))[torch.where(inside, batch.items, -1)].flatten(1)
    return tokens, (tokens != PAD_TOKEN).long()


def _cornac(setting: Setting, case: Case, ids: SemanticIds, batches: dict[int, list[HistoryBatch]]) -> Contender:
    network = optional("cornac.models.tiger.tiger", "TIGERSeq2Seq")
    recommender = optional("cornac.models.tiger", "TIGER")(device="cpu")
    recommender.rqvae_codebook_size = ids.codebook_sizes[0]
    recommender._build_semantic_ids(ids.codes[:, : ids.num_content_levels])
    model = network(recommender.level_sizes).eval()
    inputs = []
    for batch in batches[case.batch][: max(1, setting.few(32, 8) // case.batch)]:
        tokens, mask = _tokens(recommender.sid_table + model.offsets.numpy(), ids, batch)
        inputs += [
            (tokens[row, : int(mask[row].sum())][None], mask[row, : int(mask[row].sum())][None].float())
            for row in range(len(tokens))
        ]

    def call() -> Work:
        with torch.inference_mode():
            for tokens, mask in inputs:
                model.generate_beam(tokens, mask, case.beams, recommender.prefix_children)
        return Work(len(inputs))

    settings = "its generate_beam, one user at a time as it must be, unpadded, fp32, inference mode"
    return Contender(name=CORNAC, call=call, settings=settings)


def _growth(setting: Setting) -> Task:
    """Time per user as the catalogue grows, on uniform IDs of one shape."""
    torch.manual_seed(0)
    small, large = f"genrec TIGER, {setting.view.num_items:,} items", f"genrec TIGER, {_MILLION:,} items"
    contenders = []
    for name, count in ((small, setting.view.num_items), (large, _MILLION)):
        ids = data.random_ids(count)
        batches = history_batches(setting, ids, setting.few(64, 32), 32)
        call: Callable[[], Work] = Recommend(_tiger(setting, ids, 20), batches, 20)
        target = "0.83x" if name == large else ""
        contenders.append(
            Contender(name=name, ours=True, call=call, target=target, settings="uniform codes, beam 20, fp32")
        )
    return Task(
        name="Growth of decoding time with the catalogue (0.83x is 1.2 times the time)",
        unit="ms",
        contenders=contenders,
        reference=small,
    )
