"""The norm of the gradient, as it reaches the loggers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genrec.contracts import GenrecError
from genrec.trainers.callbacks.gradient_norm import GradientNorm


def logged_norms(*, fused: bool = False, scaler: Any = None) -> list[Any]:
    """What is logged in four steps with a gradient of (3, 4)."""
    logged: list[Any] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))
    module = torch.nn.Linear(1, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    optimizer = torch.optim.AdamW(module.parameters(), fused=fused)
    for step in range(4):
        plugin = SimpleNamespace(scaler=scaler)
        trainer: Any = SimpleNamespace(global_step=step, loggers=[logger], precision_plugin=plugin)
        GradientNorm(every_steps=2).on_before_optimizer_step(trainer, module, optimizer)  # type: ignore[arg-type]
    return logged


def test_it_logs_the_norm_over_all_parameters_every_so_many_steps() -> None:
    assert logged_norms() == [({"train/gradient_norm": 5.0}, 2), ({"train/gradient_norm": 5.0}, 4)]


def test_what_is_still_scaled_is_logged_as_it_will_be_used() -> None:
    scaler = SimpleNamespace(get_scale=lambda: 1024.0)
    assert logged_norms(fused=True, scaler=scaler)[0] == ({"train/gradient_norm": 5.0 / 1024}, 2)
    assert logged_norms(fused=True)[0] == ({"train/gradient_norm": 5.0}, 2)
    assert logged_norms(scaler=scaler)[0] == ({"train/gradient_norm": 5.0}, 2)  # Lightning has undone it


def test_a_distance_of_no_steps_is_refused() -> None:
    with pytest.raises(GenrecError, match="every_steps=0"):
        GradientNorm(every_steps=0)
