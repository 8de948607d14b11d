"""The planted table of the model contract as a view that trainers consume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from genrec.contracts import RowBatch
from genrec.features import FeatureSpec
from tests.models.row_contract import row_batch, row_features, rows


@dataclass
class PlantedView:
    """1,024 rows to train on, 512 each to validate and to test."""

    tasks: tuple[str, ...] = ("click",)

    @cached_property
    def features(self) -> FeatureSpec:
        return row_features(self.tasks)

    @property
    def fingerprint(self) -> str:
        return f"planted {self.tasks}"

    @cached_property
    def parts(self) -> dict[str, RowBatch]:
        sizes = {"train": 1024, "val": 512, "test": 512}
        return {part: row_batch(size, seed=seed, tasks=self.tasks) for seed, (part, size) in enumerate(sizes.items())}

    def train_plan(self, model: object, *, batch_size: int, seed: int, epoch: int) -> list[RowBatch]:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(self.parts["train"])))
        return [rows(self.parts["train"], chosen) for chosen in order.split(batch_size)]

    def eval_batches(self, part: str, *, batch_size: int) -> list[RowBatch]:
        whole = self.parts[part]
        return [rows(whole, slice(begin, begin + batch_size)) for begin in range(0, len(whole), batch_size)]
