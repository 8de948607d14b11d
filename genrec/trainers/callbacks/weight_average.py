"""An exponential moving average of the weights, which is what is validated, kept and tested."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from genrec.contracts import GenrecError
from genrec.sharding import own_part
from genrec.trainers.division import divided_like


class WeightAverage(pl.Callback):
    """After each optimizer step, average += (1 - d) (weights - average), d = min(``decay``, (1 + step) / (10 + step)).

    At the end of an epoch the average takes the place of the weights, so validation, checkpoints and the test see it;
    when the next epoch begins, training goes on with the weights it had. The small d of the first steps forgets the
    random start quickly. Buffers are not averaged.
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise GenrecError(f"decay={decay}: give a share of at least 0 and below 1, for example 0.999.")
        self.decay = decay
        self._forget()

    def _forget(self) -> None:
        self.average: list[Tensor] = []
        self.trained: list[Tensor] = []  # the weights themselves, while the average stands in for them
        self._step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._forget()  # an earlier model; what is continued is loaded after this

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = _weights(pl_module)
        self._to(weights)
        if self.trained:
            _copy(self.trained, weights)
            self.trained = []
        if not self.average:
            self.average = [weight.clone() for weight in weights]
            self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:  # gradients are still being accumulated
            return
        self._step = step
        decay = min(self.decay, (1 + step) / (10 + step))
        average, weights = _own_parts(self.average), _own_parts(_weights(pl_module))
        torch._foreach_lerp_(average, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = _weights(pl_module)
        self.trained = [weight.clone() for weight in weights]
        _copy(self.average, weights)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "trained": self.trained, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.average, self.trained = list(state_dict["average"]), list(state_dict["trained"])
            self._step = state_dict["step"]

    def _to(self, weights: list[Tensor]) -> None:
        """After a resume the averages lie where the checkpoint was read to; brings them to the model."""
        self.average = [divided_like(average, weight) for average, weight in zip(self.average, weights, strict=False)]
        self.trained = [divided_like(trained, weight) for trained, weight in zip(self.trained, weights, strict=False)]


def _weights(module: pl.LightningModule) -> list[Tensor]:
    return [parameter.detach() for parameter in module.parameters() if parameter.requires_grad]


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    torch._foreach_copy_(_own_parts(target), _own_parts(source))  # pyright: ignore[reportPrivateImportUsage]


def _own_parts(tensors: list[Tensor]) -> list[Tensor]:
    """What this process holds of tensors that may be divided."""
    return [own_part(tensor) for tensor in tensors]
