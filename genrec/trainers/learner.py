"""The one LightningModule: loss -> log -> optimizer and schedule. What to do with an epoch is the trainer's
business."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genrec.contracts import GenrecError, Losses, Plan, SharedPlan
from genrec.optimizers import build_optimizer, clip_gradients, scaler_of
from genrec.schedulers import Schedule
from genrec.trainers.checkpoints import seed_all, set_rng_state
from genrec.trainers.divergence import LossWatch
from genrec.trainers.division import adapt_optimizer, bring_together, copy_to_divide, divided_state, level_gradients
from genrec.trainers.evaluation import WeightedMean
from genrec.trainers.parameter_groups import frozen_parameters, parameter_groups
from genrec.trainers.world import ALONE, APART, World

if TYPE_CHECKING:
    from genrec.trainers.base import BaseTrainer

DEFAULT_LR, DEFAULT_WEIGHT_DECAY = 1e-3, 0.01


@dataclass(frozen=True)
class Share:
    """What one of several processes takes of a batch. Where there are fewer rows than processes, it is a row that
    another has too, which does not ``count`` here."""

    batch: Any
    counts: bool

    def to(self, device: torch.device, non_blocking: bool = False) -> Share:
        return replace(self, batch=_moved(self.batch, device, non_blocking=non_blocking))


def share_of(batch: Any, rank: int, size: int) -> Share:
    """Every ``size``-th row of a batch, from row ``rank`` on."""
    if not hasattr(batch, "take"):
        raise GenrecError(
            f"Several processes divide batches by rows, and {type(batch).__name__} has no method take(rows). "
            "Derive it from one of genrec.contracts, or use hardware.devices=1."
        )
    share = batch.take(slice(rank, None, size))
    return Share(share, True) if _num_rows(share) else Share(batch.take(slice(0, 1)), False)


def _num_rows(batch: Any) -> int:
    return len(next(value for value in vars(batch).values() if isinstance(value, Tensor)))


class EpochLoader:
    """The batches of one epoch from batch ``start`` on; of several processes each has its ``Share`` of every batch.

    ``ahead`` cuts the next batch in a thread while the device computes; batches are pure functions of their index, so
    the order and the numbers are the same.
    """

    def __init__(self, plan: Plan, *, start: int = 0, world: World = ALONE, ahead: bool = False) -> None:
        self.plan = plan
        self.num_batches = len(plan)  # from the start of the epoch
        self.indices = range(self.num_batches)[start:]
        self.world = world
        self.ahead = ahead

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        if not self.ahead:
            yield from map(self._cut, self.indices)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._cut, self.indices[0]) if self.indices else None
            for index in self.indices[1:]:
                assert waiting is not None
                ready, waiting = waiting.result(), pool.submit(self._cut, index)
                yield ready
            if waiting is not None:
                yield waiting.result()

    def _cut(self, index: int) -> Any:
        world = self.world
        if world.size == 1:
            return self.plan[index]
        # A plan that can cuts the rows of this process alone; None says that the batch has none for it.
        own = self.plan.share(index, world.rank, world.size) if isinstance(self.plan, SharedPlan) else None
        return share_of(self.plan[index], world.rank, world.size) if own is None else Share(own, True)


class Learner(pl.LightningModule):
    """Binds a model, a view and a trainer's policy to Lightning's loop. ``resumed`` is the state of a killed run.

    Steps train ``trained``, which is ``model`` unless processes hold parts of it (``divides``); ``bring`` makes the two
    equal again.
    """

    def __init__(
        self, policy: BaseTrainer, model: nn.Module, view: Any, *, resumed: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.policy = policy
        self.divides = policy.hardware.divides
        self._whole = (model,)  # in a tuple, so that it is no part of this module
        self.trained = copy_to_divide(model) if self.divides else model
        self.view = view
        self.resumed = resumed
        self.schedule: Schedule = policy.schedule
        self.means = WeightedMean()
        self.step_in_epoch = 0
        self.loader: EpochLoader | None = None
        self.latest: Tensor | None = None  # loss of the last batch
        self.weight: Tensor | float = 1.0  # of this process's loss, such that the mean over processes is the batch's
        self.asked_to_end: Tensor | bool = False  # by a signal to any of the processes
        self.watch = LossWatch()
        self.evaluates = False  # whether the epoch's steps are over
        self._frozen: list[nn.Parameter] = []
        loss: Any = self.trained.loss
        self.loss = torch.compile(loss) if policy.hardware.compile else loss

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this name 46 times a step; torch's own way takes 20 microseconds each.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def model(self) -> nn.Module:
        """The whole model, as it was when it was last brought up to date."""
        return self._whole[0]

    def bring(self, device: torch.device | None = None) -> None:
        """Gives ``model`` the weights as they are now, and where it is divided a place on ``device`` (None: that of the
        training); all processes call it."""
        if self.divides:
            bring_together(self.trained, self.model, device or self.device)

    # -- an epoch begins: Lightning asks for a loader once per epoch

    def train_dataloader(self) -> EpochLoader:
        policy, resumed = self.policy, self.resumed
        if self.divides:
            self.model.cpu()  # nobody needs it until the epoch is over
        self.step_in_epoch = 0
        self.means = WeightedMean()
        self.watch = LossWatch()
        self.evaluates = False
        if resumed is not None and resumed["step_in_epoch"] == 0:
            self._continue_draws(resumed)
        policy.current_epoch += 1
        policy.on_epoch_start()
        if resumed is not None and resumed["step_in_epoch"] > 0:
            self.step_in_epoch = resumed["step_in_epoch"]
            if self.world.leads:
                self.means.sums = {name: total.to(self.device) for name, total in resumed["sums"].items()}
                self.means.count = resumed["count"]
        plan = policy.train_plan(self.view, self.model)
        ahead = self.device.type != "cpu"
        start = self.step_in_epoch - int(policy.evaluation_due)  # an epoch of no batch would have no end either
        self.loader = EpochLoader(plan, start=start, world=self.world, ahead=ahead)
        policy.begin_epoch(self.loader.num_batches, self.step_in_epoch)
        return self.loader

    def on_train_start(self) -> None:
        if self.resumed is not None:
            optimizer = self.trainer.optimizers[0]
            if _settings(optimizer.state_dict()) != _settings(self.resumed["optimizer"]):
                raise GenrecError(
                    "The run to be continued had another optimizer, other settings of it, or other parameter groups. "
                    "Use the same, or start again without resume."
                )
            state = self.resumed["optimizer"]
            optimizer.load_state_dict(divided_state(state, optimizer) if self.divides else state)
            if self.resumed["scaler"]:
                self.trainer.precision_plugin.load_state_dict(self.resumed["scaler"])
            self._continue_callbacks(self.resumed["callbacks"])

    def _continue_callbacks(self, states: dict[str, Any]) -> None:
        callbacks = {callback.state_key: callback for callback in self.policy.extra_callbacks}
        missing = [key for key, state in states.items() if state and key not in callbacks]
        if missing:
            name = missing[0].partition("{")[0]
            raise GenrecError(
                f"The run to be continued had the callback {name}, which has left its state, and there is none now. "
                "Continue it with the same callbacks, or start again without resume."
            )
        for key, callback in callbacks.items():
            callback.load_state_dict(states.get(key, {}))

    def on_train_epoch_start(self) -> None:
        self.trained.train()
        if self.resumed is not None and self.resumed["step_in_epoch"] > 0:
            self._continue_draws(self.resumed)  # last of all, so that nothing since the start can have drawn from it
        self.resumed = None

    @property
    def world(self) -> World:
        return self.policy.hardware.world

    def _continue_draws(self, resumed: dict[str, Any]) -> None:
        """Random numbers go on as those of this process would have; one that was not there before has new ones."""
        if self.world.leads:
            set_rng_state(resumed["rng"])
        elif self.world.rank <= len(resumed.get("rng_of_others", ())):
            set_rng_state(resumed["rng_of_others"][self.world.rank - 1])
        else:
            seed_all(self.policy.context.seed + APART * self.world.rank + resumed["global_step"])

    # -- a step

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return _moved(batch, device, non_blocking=device.type == "cuda")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        if not self.policy.evaluation_due:
            return None
        self.trainer.fit_loop.epoch_loop.max_steps = self.policy.max_steps or -1
        return -1  # the steps of this epoch are done

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if isinstance(batch, Share):
            return self._step_of_share(batch)
        losses = self.policy.train_step(self.trained, batch)
        self.means.add({"loss": losses.total, **losses.parts}, losses.count)
        self.latest = losses.total.detach()
        self.watch.see(self.latest, self.step_in_epoch)
        return losses.total

    def _step_of_share(self, share: Share) -> Tensor:
        """The loss of a share, weighted such that the mean over all processes is that of the whole batch."""
        losses: Losses = self.policy.train_step(self.trained, share.batch)
        count = losses.count if share.counts else 0
        own = losses.total.detach().double() * count if count else losses.total.new_zeros((), dtype=torch.float64)
        told = own.new_tensor([count, self.policy.is_asked_to_end])
        loss, whole, asked = self.world.sum(torch.cat([own[None], told])).unbind()
        self.asked_to_end = self.asked_to_end + asked
        if count:
            self.means.add({"loss": losses.total, **losses.parts}, count)
        self.latest = loss / whole.clamp(min=1)
        self.watch.see(self.latest, self.step_in_epoch)
        self.weight = (count * self.world.size / whole.clamp(min=1)).to(losses.total.dtype)
        weighted = losses.total * self.weight
        if self.divides:
            level_gradients(self, weighted)
        return weighted

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.policy.backward(self, loss)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        factor = self.lr_factor()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step(closure=optimizer_closure)

    def lr_factor(self) -> float:
        """What the schedule multiplies every group's own rate by at the coming step."""
        policy = self.policy
        if self.schedule.interval == "epoch":
            return self.schedule.factor(policy.current_epoch - 1, policy.total_epochs)
        return self.schedule.factor(policy.global_step, policy.total_steps)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Done here, because Lightning refuses to clip for a fused optimizer in mixed precision. It leaves the gradients
        # of such a one scaled, which is undone before; others' are unscaled already.
        norm, value = self.policy.gradient_clip_norm, self.policy.gradient_clip_value
        if norm is None and value is None:
            return
        scaler = scaler_of(self.trainer.precision_plugin, optimizer)
        if scaler is not None:
            scaler.unscale_(optimizer)
        clip_gradients(self.parameters(), norm=norm, value=value)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.step_in_epoch += 1
        step = self.trainer.global_step
        stepped = step != self.policy.global_step
        self.policy.global_step = step
        self.policy.after_batch(self, stepped=stepped)

    def on_train_epoch_end(self) -> None:
        self.evaluates = True
        self.policy.finish_epoch(self)

    # -- optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        build = self.policy.context.optimizer or functools.partial(
            torch.optim.AdamW, lr=DEFAULT_LR, weight_decay=DEFAULT_WEIGHT_DECAY, fused=True
        )
        groups = parameter_groups(
            self.trained,
            self.policy.parameter_groups,
            decay_embeddings=self.policy.decay_embeddings,
            separate_hidden=getattr(getattr(build, "func", build), "separate_hidden", False),
        )
        if not groups:
            raise GenrecError("trainer.parameter_groups freezes every parameter: nothing is left to train.")
        self._frozen = frozen_parameters(self.trained, self.policy.parameter_groups)
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        optimizer = build_optimizer(build, groups)
        if self.divides:
            adapt_optimizer(optimizer)
        return optimizer

    def thaw(self) -> None:
        """Lets the parameters that were frozen for this training take gradients again."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []

    @property
    def lr(self) -> float:
        """The rate now, of parameters that have no scale of their own."""
        group = self.trainer.optimizers[0].param_groups[0]
        return group["lr"] / group.get("lr_scale", 1.0)


def _moved(batch: Any, device: torch.device, *, non_blocking: bool) -> Any:
    return batch.to(device, non_blocking=non_blocking) if hasattr(batch, "to") else batch


def _settings(state: dict[str, Any]) -> list[dict[str, Any]]:
    """What an optimizer's state says of its groups, without their present rates and how a step is computed."""
    left_out = ("lr", "fused", "foreach")
    return [{name: value for name, value in group.items() if name not in left_out} for group in state["param_groups"]]


def optimizer_steps(num_batches: int, accumulate: int) -> int:
    return math.ceil(num_batches / accumulate)
