"""The norm of the gradient, as it reaches the loggers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genrec.contracts import GenrecError
from genrec.trainers.callbacks.gradient_norm import GradientNorm


def test_it_logs_the_norm_over_all_parameters_every_so_many_steps() -> None:
    logged: list[Any] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))
    module = torch.nn.Linear(1, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    for step in range(4):
        trainer: Any = SimpleNamespace(global_step=step, loggers=[logger])
        GradientNorm(every_steps=2).on_before_optimizer_step(trainer, module, None)  # type: ignore[arg-type]
    assert logged == [({"train/gradient_norm": 5.0}, 2), ({"train/gradient_norm": 5.0}, 4)]


def test_a_distance_of_no_steps_is_refused() -> None:
    with pytest.raises(GenrecError, match="every_steps=0"):
        GradientNorm(every_steps=0)
