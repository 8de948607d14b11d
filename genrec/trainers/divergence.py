"""A loss that is no number any more: noticed at its step, with the batch kept for whoever asks why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import genrec.contracts as contracts
from genrec.artifacts import atomic_path, reason_of
from genrec.contracts import GenrecError
from genrec.sharding import own_part
from genrec.trainers.world import World

if TYPE_CHECKING:
    from genrec.trainers.learner import Learner

BATCH_FILE = "bad_batch.npz"
_ABOUT = "about"
_SHOWN = 20  # names of parameters
_NEVER = 2**62


class DivergedError(GenrecError):
    """The loss of a batch is not finite, so no step can be taken; ``facts`` tell of it as plain values."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts


class NotFiniteError(Exception):
    """The loss of batch ``index`` of the epoch is not finite."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class LossWatch:
    """Raises ``NotFiniteError`` for the first batch of an epoch whose loss is not finite.

    On a processor it is raised before the step is taken. A GPU is not waited for: it notes the number of the batch, and
    ``ask`` looks at the note now and then, at the latest before anything is written.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None

    def see(self, loss: Tensor, index: int) -> None:
        if loss.device.type == "cpu":
            if not math.isfinite(loss):
                raise NotFiniteError(index)
            return
        noted = torch.where(torch.isfinite(loss), _NEVER, index)
        self._first = noted if self._first is None else torch.minimum(self._first, noted)

    def ask(self) -> None:
        if self._first is not None and int(self._first) != _NEVER:
            raise NotFiniteError(int(self._first))


def diverged(learner: Learner, index: int, folder: Path) -> DivergedError:
    """What to say of a run whose loss was not finite at batch ``index`` of its epoch; that batch is kept in ``folder``
    as ``bad_batch.npz``, by the process that writes."""
    policy = learner.policy
    assert learner.loader is not None
    batch = learner.loader.plan[index]
    loss = _loss_of(learner, batch)
    named = list(learner.trained.named_parameters())
    weights = _not_finite(named, learner.world)
    gradients = _not_finite(((name, item.grad) for name, item in named if item.grad is not None), learner.world)
    facts = {
        "loss": str(loss),
        "epoch": policy.current_epoch,
        "batch": index,
        "step": policy.global_step - (learner.step_in_epoch - index) // policy.accumulate_grad_batches + 1,
        "lr": learner.lr,
        "seed": policy.context.seed,
        "parameters_not_finite": weights[:_SHOWN],
        "num_parameters_not_finite": len(weights),
        "gradients_not_finite": gradients[:_SHOWN],
        "num_gradients_not_finite": len(gradients),
    }
    path = folder / BATCH_FILE
    if learner.world.leads:
        save_batch(path, batch, facts)
    return DivergedError(_sentence(facts, learner, path), facts)


def _loss_of(learner: Learner, batch: Any) -> float:
    """The loss of the batch, and the gradients that it would give; of several processes none can ask for those alone,
    and one of a GPU has stepped on since."""
    if learner.latest is None or learner.latest.device.type != "cpu":
        return math.nan
    if learner.world.size == 1:
        learner.zero_grad()
        learner.policy.train_step(learner.model, batch).total.backward()
    return float(learner.latest)


def _not_finite(named: Iterable[tuple[str, Tensor]], world: World) -> list[str]:
    """Names of tensors that are not finite in some process, which may have a part of each."""
    parts = ((name, own_part(value)) for name, value in named)
    own = [name for name, part in parts if part.is_floating_point() and not bool(torch.isfinite(part).all())]
    return list(dict.fromkeys(name for found in world.gather(own) for name in found))


def _sentence(facts: dict[str, Any], learner: Learner, path: Path) -> str:
    policy = learner.policy
    clip, keys = policy.gradient_clip_norm, policy.context.keys
    now = f"{keys}trainer.gradient_clip_norm={clip or 1.0:g}"
    harder = f"clip harder ({now} now)" if clip else now
    hints = [f"lower {keys}optimizer.lr ({facts['lr']:.3g} at this step)", harder]
    if str(policy.hardware.precision).startswith("16"):
        hints.append("use hardware.precision=bf16-mixed or 32-true")
    if facts["num_parameters_not_finite"]:
        where = f"{facts['num_parameters_not_finite']} parameters were not finite any more before it"
    else:
        where = "All parameters were finite before it, so look at that batch too, and"
    place = f"step {facts['step']} (epoch {facts['epoch']}, batch {facts['batch']})"
    advice = ", or ".join(hints)
    return (
        f"The training loss is not finite at {place}, so training cannot go on. {where}: {advice}. "
        f"The batch is in {path}."
    )


def save_batch(path: Path, batch: Any, about: dict[str, Any]) -> None:
    """Writes a batch as arrays without pickles; ``load_batch`` reads it back."""
    arrays = {name: value.detach().cpu() for name, value in _tensors(batch)}
    kept = {name: (value.float() if value.dtype == torch.bfloat16 else value).numpy() for name, value in arrays.items()}
    told = json.dumps({**about, "batch_class": type(batch).__name__})
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **{_ABOUT: np.array(told), **kept})


def _tensors(batch: Any) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}.{place}", part) for place, part in enumerate(value) if isinstance(part, Tensor))


def load_batch(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """The batch that ended a run, and what was known of it: ``step``, ``epoch``, ``lr``, the names of parameters and
    gradients that were not finite. A batch of a class that is not in ``genrec.contracts`` comes as a table of tensors.
    Raises ``GenrecError`` where the file is none of these."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(str(archive[_ABOUT]))
            tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != _ABOUT}
    except Exception as error:
        raise GenrecError(
            f"{path} is no batch that a run has kept ({reason_of(error)}). Give the {BATCH_FILE} of a run folder."
        ) from None
    kind: Any = getattr(contracts, str(about.get("batch_class")), None)
    if not (isinstance(kind, type) and hasattr(kind, "take")):
        return tensors, about
    values: dict[str, Any] = {}
    for item in fields(kind):
        parts = [value for name, value in tensors.items() if name.startswith(f"{item.name}.")]
        values[item.name] = tensors.get(item.name, tuple(parts) or (() if item.name == "sequences" else None))
    return kind(**values), about
