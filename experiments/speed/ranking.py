"""Training DeepFM, DIN and MMoE on an invented table: rows a second, beside torch-rechub's trainers and its bare steps.

A bare step has its batch at hand as tensors and does nothing but loss, gradients and Adam. Each model is two tasks,
one for each of the two as the reference; ours goes through its whole trainer in both.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.speed import data
from experiments.speed.measure import Contender, Task, Work
from experiments.speed.ours import Training
from experiments.speed.setting import BF16, FP32, LIGHTNING, Setting, attempt, optional
from genrec.contracts import DataSpec
from genrec.data.row_splits import IN_TRAIN
from genrec.data.rows import Rows, RowsView
from genrec.features import FeatureSpec, SequenceField, SparseField, TaskSpec

SIZE, LENGTH, BATCH = 10_000, 20, 4096
DIM, DIMS, DROPOUT = 16, [256, 128], 0.2
EXPERTS, EXPERT_DIMS, TOWER_DIMS = 8, [16], [8]
_NETWORK = {"embedding_dim": DIM, "hidden_dims": DIMS, "dropout": DROPOUT, "batch_norm": True}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model: torch-rechub's network of the fields, our class with its sizes, and which fields and labels both get.

    ``peer`` says in what torch-rechub's network differs from that of its example, or from ours.
    """

    name: str
    network: Callable[[Fields], nn.Module]
    ours: str
    sizes: dict[str, Any]
    sizes_in_words: str
    peer: str
    quoted: str = ""
    dense: bool = True
    history: bool = False
    num_tasks: int = 1


def tasks(setting: Setting) -> Iterator[Task]:
    whole = data.invented_table(setting.few(100_000, 16_384), size=SIZE, longest=LENGTH)
    for case in CASES:
        table = replace(
            whole,
            dense=whole.dense if case.dense else whole.dense[:, :0],
            sequences=whole.sequences if case.history else (),
            labels=np.ascontiguousarray(whole.labels[:, : case.num_tasks]),
        )
        what = f"{len(table):,} rows, {_fields_in_words(table)}, {case.sizes_in_words}"
        trainer, bare = f"torch-rechub {case.name}, its trainer", f"torch-rechub {case.name}, bare steps"
        torch.manual_seed(0)
        yield Task(
            name=f"Training {case.name} ({what})",
            unit="rows/s",
            contenders=[
                attempt(trainer, lambda c=case, t=table, n=trainer: _trainer(setting, c, t, n), quoted=case.quoted),
                *_ours(setting, case, table, "3x"),
            ],
            reference=trainer,
        )
        kinds = [(FP32, False), (FP32, True), *([(BF16, True)] if BF16 in setting.precisions else [])]
        names = [bare + (", fused Adam" if fused else "") + f", {precision}" for precision, fused in kinds]
        yield Task(
            name=f"Training {case.name}, beside steps without a trainer",
            unit="rows/s",
            contenders=[
                *(
                    attempt(name, lambda c=case, t=table, k=kind, n=name: _bare(c, t, *k, name=n))
                    for name, kind in zip(names, kinds, strict=True)
                ),
                *_ours(setting, case, table, "1.5x"),
            ],
            reference=names[0],
        )


def _fields_in_words(table: Rows) -> str:
    parts = [f"{table.sparse.shape[1]} sparse fields of {SIZE:,} ids"]
    parts += [f"{table.dense.shape[1]} dense"] if table.dense.shape[1] else []
    parts += [f"a history of up to {LENGTH}"] if table.sequences else []
    return ", ".join(parts)


# ---- torch-rechub


class Fields:
    """torch-rechub's features of the table: ids of fields, dense values, a history of the first field's ids."""

    def __init__(self, table: Rows) -> None:
        sparse, dense, history = (
            optional("torch_rechub.basic.features", f"{kind}Feature") for kind in ("Sparse", "Dense", "Sequence")
        )
        self.sparse = [sparse(f"s{i}", SIZE, embed_dim=DIM) for i in range(table.sparse.shape[1])]
        self.dense = [dense(f"d{i}") for i in range(table.dense.shape[1])]
        self.history = [history("history", SIZE, embed_dim=DIM, pooling="concat", shared_with="s0")]


def _deepfm(fields: Fields) -> nn.Module:
    network = optional("torch_rechub.models.ranking", "DeepFM")
    return network(fields.sparse + fields.dense, fields.sparse, {"dims": DIMS, "dropout": DROPOUT})


def _din(fields: Fields) -> nn.Module:
    network = optional("torch_rechub.models.ranking", "DIN")
    sizes = {"dims": DIMS, "dropout": DROPOUT}, {"dims": [36]}
    return network(fields.sparse[1:], fields.history, fields.sparse[:1], *sizes)


def _mmoe(fields: Fields) -> nn.Module:
    network = optional("torch_rechub.models.multi_task", "MMOE")
    towers = [{"dims": TOWER_DIMS}] * 2
    return network(fields.sparse + fields.dense, ["classification"] * 2, EXPERTS, {"dims": EXPERT_DIMS}, towers)


CASES = (
    Case(
        name="DeepFM",
        network=_deepfm,
        ours="genrec.models.deepfm.DeepFM",
        sizes=_NETWORK,
        sizes_in_words="d 16, layers of 256 and 128",
        peer="all fields in its deep part (its example gives that the dense ones alone)",
        quoted="24,700 rows/s",
    ),
    Case(
        name="DIN",
        network=_din,
        ours="genrec.models.din.DIN",
        sizes={**_NETWORK, "attention_dims": [36]},
        sizes_in_words="d 16, layers of 256 and 128, attention by 36 units",
        peer="attention over padding too, by 36 units (256 and 128 in its example)",
        dense=False,
        history=True,
    ),
    Case(
        name="MMoE",
        network=_mmoe,
        ours="genrec.models.mmoe.MMoE",
        sizes={"embedding_dim": DIM, "num_experts": EXPERTS, "expert_dims": EXPERT_DIMS, "tower_dims": TOWER_DIMS},
        sizes_in_words="d 16, 8 experts of 16, 2 towers of 8",
        peer="the sizes of its example",
        quoted="22,500 rows/s",
        num_tasks=2,
    ),
)


def columns(table: Rows) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What its loaders take: a column for each field, and the labels."""
    found = {f"s{i}": column for i, column in enumerate(np.ascontiguousarray(table.sparse.T, dtype=np.int64))}
    found |= {f"d{i}": column for i, column in enumerate(np.ascontiguousarray(table.dense.T))}
    for history in table.sequences:
        found["history"] = history.padded(np.arange(len(table))).clip(min=0).astype(np.int64)
    return found, table.labels if table.labels.shape[1] > 1 else table.labels[:, 0]


def _trainer(setting: Setting, case: Case, table: Rows, name: str) -> Contender:
    trainers = "torch_rechub.trainers"
    generator = optional("torch_rechub.utils.data", "DataGenerator")
    options = {"n_epoch": 1, "model_path": str(setting.folder)}
    network = case.network(Fields(table))
    if case.num_tasks > 1:
        trainer = optional(trainers, "MTLTrainer")(network, ["classification"] * case.num_tasks, **options)
    else:
        trainer = optional(trainers, "CTRTrainer")(network, **options)
    with _silence():
        loader, *_ = generator(*columns(table)).generate_dataloader(split_ratio=[1.0, 0.0], batch_size=BATCH)

    def call() -> Work:
        with _silence():
            trainer.train_one_epoch(loader)
        return Work(len(table))

    settings = f"its {type(trainer).__name__} and DataGenerator as they come, batches of {BATCH:,}, Adam, fp32"
    return Contender(name=name, call=call, settings=f"{settings}; {case.peer}")


def _bare(case: Case, table: Rows, precision: str, fused: bool, *, name: str) -> Contender:
    found, labels = columns(table)
    inputs, targets = {name: torch.from_numpy(column) for name, column in found.items()}, torch.from_numpy(labels)
    batches: list[tuple[dict[str, Tensor], Tensor]] = []
    for begin in range(0, len(table), BATCH):
        rows = slice(begin, begin + BATCH)
        batches.append(({name: column[rows] for name, column in inputs.items()}, targets[rows]))
    network = case.network(Fields(table))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5, fused=fused)
    criterion = nn.BCELoss()

    def call() -> Work:
        network.train()
        for batch, target in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == BF16):
                output = network(batch)
            optimizer.zero_grad()
            criterion(output.float(), target).backward()
            optimizer.step()
        return Work(len(table))

    adam = "fused Adam" if fused else "Adam as its trainer makes it"
    settings = f"batches of {BATCH:,} cut beforehand, {adam}, {precision}; {case.peer}"
    return Contender(name=name, call=call, settings=settings)


@contextmanager
def _silence() -> Iterator[None]:
    """Its trainers print, and show a bar."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


# ---- ours


def features(table: Rows) -> FeatureSpec:
    """The same fields as our models see them."""
    history = SequenceField(name="history", size=SIZE, table="s0", max_length=LENGTH, pooling="attention", target="s0")
    return FeatureSpec(
        dense=tuple(f"d{i}" for i in range(table.dense.shape[1])),
        sparse=tuple(SparseField(name=f"s{i}", size=SIZE, table=f"s{i}") for i in range(table.sparse.shape[1])),
        sequences=(history,) if table.sequences else (),
        tasks=tuple(TaskSpec(name=f"y{i}", mean=float(x.mean())) for i, x in enumerate(table.labels.T)),
    )


def training(setting: Setting, case: Case, table: Rows, precision: str) -> Training:
    """Our model of the same size in its real loop."""
    module, _, name = case.ours.rpartition(".")
    torch.manual_seed(0)
    spec = features(table)
    model = optional(module, name)(DataSpec(features=spec), **case.sizes)
    view = RowsView(table, spec, np.full(len(table), IN_TRAIN))
    precision = LIGHTNING[precision]
    return Training(model, view, setting.folder, batch_size=BATCH, precision=precision, compile=setting.compile)


def _ours(setting: Setting, case: Case, table: Rows, target: str) -> list[Any]:
    def build(precision: str) -> Contender:
        run = training(setting, case, table, precision)
        return Contender(
            name=f"genrec {case.name}, {precision}",
            ours=True,
            call=run,
            settings=f"real trainer, batches of {BATCH:,}, clip 1, fused AdamW, {precision}",
            target=target,
            floor=setting.machine.floor(run.flops_per_unit(), precision=precision),
            warm_up=2 if setting.compile else 1,
        )

    return [attempt(f"genrec {case.name}, {p}", lambda p=p: build(p)) for p in setting.precisions]
