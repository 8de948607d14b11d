"""OnlineTrainer: trains through time, each slice of it judged before it is learned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt, Lt
from torch import nn

from genrec.contracts import VAL, GenrecError, Plan
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencePlan, SequencesView
from genrec.trainers.base import BaseTrainer


@dataclass(kw_only=True)
class OnlineTrainer(BaseTrainer):
    """Epoch by epoch the model goes on through time: it learns the interactions of a slice, and is then judged on those
    of the next, which it has not seen.

    The first slice holds the earliest ``first_share`` of the training interactions and is passed through
    ``first_passes`` times; the others share the rest equally and are passed through once. ``val/...`` of an epoch are
    the metrics on the next slice (of the last epoch: on the validation part), each user's first item there being the
    target of ``val/loss``. The last weights are tested. What the split holds out is never learned.
    """

    max_epochs: int = 6  # slices
    monitor: str = "val/recall@10"
    first_share: Annotated[float, Gt(0), Lt(1)] = 0.5
    first_passes: Annotated[int, Gt(0)] = 5

    validates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.first_share < 1.0 or self.first_passes < 1:
            raise GenrecError(
                f"trainer.first_share={self.first_share}, trainer.first_passes={self.first_passes}: give a share above "
                "0 and below 1, and 1 or more passes."
            )

    def check_model(self, model: Any) -> None:
        if getattr(model, "training_mode", None) not in ("positions", "windows"):
            raise GenrecError(
                f"trainer=online learns next items in their order, which {type(model).__name__} does not."
            )
        log = getattr(self._data, "log", None)
        if log is None or log.timestamps is None:
            raise GenrecError("trainer=online needs data with timestamps, given as a data set and not as a view.")
        super().check_model(model)

    def known_until(self, view: SequencesView, epoch: int) -> np.ndarray:
        """(U,) how many training items of each user lie in the first ``epoch`` slices."""
        if epoch < 1:
            return np.zeros(view.num_users, dtype=np.int64)
        log = self._data.log
        begins = np.searchsorted(log.users, np.arange(log.num_users))
        rank = np.arange(len(log)) - begins[log.users]
        trained = rank < view.train.lengths[log.users]
        shares = np.linspace(self.first_share, 1.0, self.max_epochs)
        end = np.quantile(log.timestamps[trained], shares[min(epoch, self.max_epochs) - 1])
        return np.bincount(log.users[trained & (log.timestamps <= end)], minlength=log.num_users)

    def train_plan(self, view: SequencesView, model: Any) -> Plan:
        known, new = self.known_until(view, self.current_epoch - 1), self.known_until(view, self.current_epoch)
        nothing = first_of(view.train, new * 0)
        part = SequencesView(first_of(view.train, new), nothing, nothing, view.num_items)
        rows = part.training_rows(model)
        first_new = part.train.offsets[:-1][rows.users] + known[rows.users]
        first_scored = np.maximum(rows.first_scored, first_new - rows.shift - rows.starts)
        kept = first_scored < rows.lengths
        rows = replace(
            rows,
            users=rows.users[kept],
            starts=rows.starts[kept],
            stops=rows.stops[kept],
            first_scored=first_scored[kept],
        )
        passes = self.first_passes if self.current_epoch == 1 else 1
        seed, epoch = self.context.seed, self.current_epoch
        return Passes(
            [
                SequencePlan(part.train, rows, batch_size=self.batch_size, seed=seed, epoch=1000 * number + epoch)
                for number in range(passes)
            ]
        )

    def evaluate_epoch(self, model: nn.Module, view: SequencesView) -> dict[str, float]:
        if self.current_epoch == self.max_epochs:
            return self.evaluate(model, view, VAL, progress=self.context.progress)
        known, later = self.known_until(view, self.current_epoch), self.known_until(view, self.current_epoch + 1)
        past, future = first_of(view.train, known), between(view.train, known, later)
        coming = SequencesView(past, future, first_of(view.train, known * 0), view.num_items)
        return self.evaluate(model, coming, VAL, progress=self.context.progress)

    def choose_weights(self, model: nn.Module) -> None:
        super().choose_weights(model)
        self._final.update({name: value for name, value in self._latest.items() if name.startswith(f"{VAL}/")})


@dataclass(frozen=True)
class Passes:
    """Several plans, one after the other."""

    plans: list[SequencePlan]

    def __len__(self) -> int:
        return sum(map(len, self.plans))

    def __getitem__(self, index: int) -> Any:
        for plan in self.plans:
            if index < len(plan):
                return plan[index]
            index -= len(plan)
        raise IndexError(index)


def between(rows: Ragged, begin: np.ndarray, end: np.ndarray) -> Ragged:
    """The values of each row from place ``begin`` (U,) up to ``end`` (U,)."""
    place = np.arange(len(rows.values)) - rows.offsets[:-1][rows.row_of_value]
    kept = (place >= begin[rows.row_of_value]) & (place < end[rows.row_of_value])
    return Ragged.from_lengths(rows.values[kept], np.clip(end, 0, rows.lengths) - np.clip(begin, 0, rows.lengths))


def first_of(rows: Ragged, count: np.ndarray) -> Ragged:
    """The first ``count`` (U,) values of each row."""
    return between(rows, count * 0, count)
