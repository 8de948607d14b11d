"""What every trainer shares: one ``pl.Trainer``, the epoch's order of events, checkpoints and exact resume.

A run is a pure function of (data, config, seed), and everything that changes while it trains is in ``last.ckpt``. A
killed run therefore redoes what it had done since that file, with the same numbers, and overwrites the same files.
"""

from __future__ import annotations

import copy
import logging
import math
import re
import signal
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from genrec.annotations import Count, Positive, check_fields
from genrec.artifacts import fingerprint, write_json
from genrec.contracts import TEST, TRAIN, VAL, FitResult, GenrecError, Losses, Plan, Recommendations, RunContext
from genrec.interruption import Interrupted
from genrec.memory import out_of_memory, what_allocator_said
from genrec.metrics.beyond_accuracy import METRICS as BEYOND_ACCURACY
from genrec.progress import Bar, duration
from genrec.records import HISTORY_FILE
from genrec.schedulers import Constant, Schedule
from genrec.trainers import checkpoints as files
from genrec.trainers.checkpoints import CheckpointFolder
from genrec.trainers.divergence import BATCH_FILE, NotFiniteError, diverged
from genrec.trainers.division import check_divisible, whole_state
from genrec.trainers.engine import build_engine, quiet_lightning, show_log
from genrec.trainers.evaluation import WeightedMean, beyond_accuracy, evaluate_items, evaluate_retrieval
from genrec.trainers.fitting import evaluation_shortage, free, training_shortage
from genrec.trainers.hardware import Hardware
from genrec.trainers.learner import Learner, optimizer_steps
from genrec.trainers.parameter_groups import ParameterGroup
from genrec.trainers.scoring import evaluate_rows
from genrec.trainers.tracking import Tracker
from genrec.trainers.world import APART

if TYPE_CHECKING:
    import numpy as np

    from genrec.trainers.samples import Samples

logger = logging.getLogger("genrec.trainers")

# In metrics.json, but not in the line of results.
_SELDOM_READ = re.compile(
    rf"/(hit|mrr|precision|map|{'|'.join(BEYOND_ACCURACY)})@|/level_|/(ece|normalised_entropy|brier|mse)$"
)


_BATCH_SIZE = 256
_STEPS_UNASKED = 16  # between two looks of several GPUs at whether one of their processes is to end


@dataclass(kw_only=True)
class BaseTrainer:
    """Trains on everything a view offers for training and tests the last weights; the policies derive from it.

    ``batch_size`` counts training targets (items, for tokenizers; None: 256, or what the model suggests); ``max_steps``
    ends training within an epoch if it is reached first. ``monitor`` names the metric that is returned to sweepers.
    ``filter_seen`` masks a user's known items at evaluation (None: as the model is meant to be used);
    ``max_eval_users`` validates on a fixed sample of users while training (None: on all); the test is on all, or on
    such a sample of ``max_test_users`` where there are too many, and so are the baselines then.
    ``log_every_steps`` is the distance of logged steps. ``gradient_clip_value`` bounds each entry of the gradient,
    ``gradient_clip_norm`` then the norm of the whole (None: no bound; given both, the gradient keeps both).
    ``decay_embeddings`` False spares embedding tables the optimizer's weight decay; norms and biases are always spared.
    ``parameter_groups`` gives parameters a rate and a decay of their own by patterns of their names, as
    ``{match: "encoder.*", lr_scale: 0.1}`` (``genrec.trainers.parameter_groups.ParameterGroup`` lists the keys).
    ``checkpoint_every_steps`` also writes ``last.ckpt`` within epochs; ``checkpoint_every_epochs`` keeps
    ``checkpoint_epoch_*.pt`` periodically.
    """

    max_epochs: Count = 20
    max_steps: Count | None = None
    batch_size: Count | None = None
    eval_batch_size: Count = 256
    monitor: str = "train/loss"
    k_values: Annotated[list[Count], MinLen(1)] = field(default_factory=lambda: [5, 10, 20])
    filter_seen: bool | None = None
    max_eval_users: Count | None = None
    max_test_users: Count | None = None
    log_every_steps: Count = 50
    gradient_clip_norm: Positive | None = 1.0
    gradient_clip_value: Positive | None = None
    accumulate_grad_batches: Count = 1
    decay_embeddings: bool = True
    parameter_groups: list[dict[str, Any]] = field(default_factory=list)
    checkpoint_every_steps: Count | None = None
    checkpoint_every_epochs: Count | None = None

    validates: ClassVar[bool] = False  # whether a policy measures the validation part while it trains

    def __post_init__(self) -> None:
        check_fields(self, "trainer")
        for index, entry in enumerate(self.parameter_groups):
            ParameterGroup.of(entry, f"trainer.parameter_groups[{index}]")
        self.monitor = metric_name(self.monitor)
        self.item_vectors: np.ndarray | None = None  # (N, D); where given, the test tells how diverse the lists are
        self.collect: Any = None  # given every batch of the test (``genrec.trainers.evidence``), with what was found
        self._context: RunContext | None = None
        self._reset()

    def _reset(self) -> None:
        """Forgets the previous run; a trainer may be used again."""
        self.current_epoch = 0  # counts from 1 while training
        self.global_step = 0
        self.steps_per_epoch = 0
        self.total_steps = 0
        self.total_epochs = 0
        self.metrics_history: dict[str, list[float]] = {}
        self.schedule: Schedule = Constant()
        self.stopped = False
        self.pruned = False
        self.diverged: str | None = None
        self.evaluation_due = False  # the run was ended in the evaluation of an epoch, whose steps are done
        self._gives_way = False
        self._final: dict[str, float] = {}
        self._latest: dict[str, float] = {}  # of the last epoch
        self._model: nn.Module | None = None
        self._data: Any = None
        self._bar: Bar | None = None
        self._seconds: list[float] = []

    # -- hooks to override

    def on_epoch_start(self) -> None:
        """Called before the batches of ``current_epoch`` are planned, so it may change ``batch_size`` and the like."""

    def on_epoch_end(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> bool:
        """Called after training and validation of an epoch; True stops training."""
        return False

    def train_plan(self, view: Any, model: nn.Module) -> Plan:
        """The batches of ``current_epoch``."""
        return view.train_plan(
            model, batch_size=self.batch_size_for(model), seed=self.context.seed, epoch=self.current_epoch
        )

    def planned_steps(self, view: Any, model: nn.Module, epochs: int) -> int:
        """The optimizer steps of the first ``epochs`` epochs, of which schedules take their length; it goes with
        ``train_plan``."""
        return self.steps_per_epoch * epochs

    def train_step(self, model: nn.Module, batch: Any) -> Losses:
        """The loss of one batch; override it for a loss of your own."""
        return self._learner.loss(batch)

    def validate_step(self, model: nn.Module, batch: Any) -> Losses:
        """The loss of one batch of held-out targets, which ``val/loss`` averages."""
        return model.loss(batch)  # pyright: ignore[reportCallIssue]

    def backward(self, learner: Learner, loss: Tensor) -> None:
        """Fills the gradients of a step; ``loss`` is what ``train_step`` gave, scaled for mixed precision."""
        loss.backward()

    def evaluate(self, model: nn.Module, view: Any, part: str, *, progress: bool = True) -> dict[str, float]:
        """Metrics of the model as it is on "val" or "test" (or "train": memorisation), named like ``val/recall@10``."""
        if hasattr(model, "predict"):
            return evaluate_rows(
                model,
                view,
                part,
                batch_size=self.eval_batch_size,
                seed=self.context.seed,
                progress=progress,
                loss=self.validate_step if part == VAL and trainable(model) else None,
                collect=self.collect if part == TEST else None,
                world=self.hardware.world,
                give_way=self.give_way,
            )
        if hasattr(model, "recommend"):
            return evaluate_retrieval(
                model,
                view,
                part,
                k_values=self.all_k_values,
                filter_seen=self.masks_seen(model) and part != TRAIN,
                batch_size=self.eval_batch_size,
                max_users=self.max_test_users if part == TEST else self.max_eval_users,
                seed=self.context.seed,
                progress=progress,
                loss=self.validate_step if part == VAL and trainable(model) else None,
                beyond=beyond_accuracy(view, self.all_k_values, self.item_vectors) if part == TEST else None,
                collect=self.collect if part == TEST else None,
                world=self.hardware.world,
                give_way=self.give_way,
            )
        return evaluate_items(
            model,
            view,
            part,
            batch_size=self.eval_batch_size,
            seed=self.context.seed,
            progress=progress,
            loss=self.validate_step,
            world=self.hardware.world,
            give_way=self.give_way,
        )

    @property
    def averages_gradients(self) -> bool:
        """Whether ``backward`` leaves gradients that are means over all processes already."""
        return False

    def batch_size_for(self, model: Any) -> int:
        """Training targets of a batch."""
        return self.batch_size or getattr(model, "suggested_batch_size", _BATCH_SIZE)

    def masks_seen(self, model: Any) -> bool:
        """Whether items of a user's history are left out of the ranking."""
        return getattr(model, "masks_seen", False) if self.filter_seen is None else self.filter_seen

    def check_model(self, model: Any) -> None:
        """Raises ``GenrecError`` where the policy cannot judge such a model, before any time is spent on it.

        A run also asks it before data is read, of the model built on a tiny invented shop.
        """
        if self.max_test_users is not None and not _is_asked_for_users(model):
            what = "rows" if hasattr(model, "predict") else "items"
            raise GenrecError(
                f"trainer.max_test_users={self.max_test_users} is a sample of users, and {type(model).__name__} is "
                f"tested on {what}, all of them. Leave it null."
            )
        if self.validates and "@" in self.monitor and not hasattr(model, "recommend"):
            instead = "trainer=ctr" if hasattr(model, "predict") else "trainer=rqvae"
            raise GenrecError(
                f"trainer.monitor={self.monitor} scores recommendations, and {type(model).__name__} makes none. "
                f"Use {instead}, or trainer.monitor=val/loss."
            )

    def check_schedule(self, schedule: Schedule | None) -> None:
        """Raises ``GenrecError`` for a schedule that needs what the policy does not measure."""
        if schedule is not None and schedule.follows_metric and not self.validates:
            raise GenrecError(
                f"A plateau schedule follows validation, and {type(self).__name__} does not validate. "
                "Use trainer=advanced, or another schedule (scheduler=constant)."
            )

    # -- what users call

    def fit(self, model: nn.Module, data: Any, context: RunContext | None = None) -> FitResult:
        """Trains the model in place and leaves it with the weights that are to be tested.

        ``data`` is a view or a data set that can build one. Without a context the run writes to a new folder below
        ``outputs/python`` and uses AdamW. A model without trainable parameters is left as it is.
        """
        state = self._begin(model, data, context)
        if not trainable(model):
            return FitResult(history={})
        if not self.finished:
            self._train(model, view_of(data, model), state)
        return self.finish()

    def train_epoch(
        self, model: nn.Module | None = None, data: Any = None, context: RunContext | None = None
    ) -> dict[str, float]:
        """Trains one epoch and returns what it measured; for notebooks that look at every epoch.

        The first call gives the model and the data, as ``fit`` does; those after it give nothing and go on, until
        ``finished``. Then ``finish`` does what ``fit`` does last. Together they are the same steps, number for number.
        """
        state = None
        if model is not None:
            state = self._begin(model, data, context)
            if not trainable(model):
                raise GenrecError(f"{type(model).__name__} has nothing to train: use it as it is, or call fit.")
        elif self._model is None:
            raise GenrecError("There is nothing to train yet: call train_epoch(model, data) first.")
        elif self.current_epoch:
            state = self._checkpoints.load_last()
        if self.finished:
            raise GenrecError(
                f"Training is over after {self.current_epoch} epochs (trainer.max_epochs={self.max_epochs}"
                f"{', stopped early' if self.stopped else ''}). Call finish(), or start again with model and data."
            )
        assert self._model is not None
        self._train(self._model, view_of(self._data, self._model), state, epochs=1)
        return dict(self._latest)

    def finish(self) -> FitResult:
        """Ends what ``train_epoch`` began: writes the last weights and leaves those to be tested in the model."""
        if self._model is None:
            raise GenrecError("There is nothing to finish yet: call train_epoch(model, data) first.")
        self._finish(self._model)
        return self.result()

    def _begin(self, model: nn.Module, data: Any, context: RunContext | None) -> dict[str, Any] | None:
        """Readies a run; returns the state that a killed one left, where it is to be continued."""
        self._reset()
        self.context = context or default_context()
        self._model, self._data = model, data
        self.check_model(model)
        self._tracker = Tracker(self._loggers)
        if not trainable(model):
            return None
        view = view_of(data, model)
        self._check_processes(model)
        self.hardware.prepare()
        state = self._resumed_state(model, view)
        if state is None:
            self._checkpoints.clear()
            if self.hardware.world.leads:
                (self.context.output_dir / BATCH_FILE).unlink(missing_ok=True)  # of an earlier run
            files.seed_all(self.context.seed)
            self._initialize(model, view)
            if not self.hardware.world.leads:
                files.seed_all(self.context.seed + APART * self.hardware.world.rank)
        self._plan_schedule(model, view, state)
        return state

    def test(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        """Metrics on the test part, together with what training found out about these weights."""
        if self.max_test_users is not None and _is_asked_for_users(model):
            logger.info("Tested on a fixed sample of at most %d users (trainer.max_test_users).", self.max_test_users)
        metrics = self._evaluate_now(model, data, TEST, context)
        self._tracker.log_epoch(metrics, self.global_step)
        shown = {name: value for name, value in metrics.items() if not _SELDOM_READ.search(name)}
        logger.info("Test results: %s", ", ".join(f"{name}: {value:.4f}" for name, value in shown.items()))
        return {**(self._final if model is self._model else {}), **metrics}

    def validate(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        """Metrics on the validation part."""
        return self._evaluate_now(model, data, VAL, context)

    def predict(self, model: nn.Module, data: Any, users: Sequence[int] | None = None, k: int = 10) -> Recommendations:
        """The best k items (U, k) for users (indices; None: all), given everything the data knows of them."""
        from genrec.trainers.evaluation import recommend_users

        if not hasattr(model, "recommend"):
            hint = " Use trainer=ctr to predict the labels of rows." if hasattr(model, "predict") else ""
            raise GenrecError(f"{type(model).__name__} recommends nothing: it has no method recommend.{hint}")
        device = self.hardware_now.prepare()
        if isinstance(model, nn.Module):
            model.to(device)
        return recommend_users(
            model,
            view_of(data, model),
            users,
            k,
            batch_size=self.eval_batch_size,
            filter_seen=self.masks_seen(model),
            world=self.hardware_now.world,
        )

    def save_checkpoint(self, path: str | Path, model: nn.Module | None = None) -> Path:
        """Writes the weights of a model (None: that of the last ``fit``) in one piece; returns the path."""
        model = self._model if model is None else model
        if model is None:
            raise GenrecError("There is no model to save: call fit first, or give model=.")
        return files.write_checkpoint(Path(path), model.state_dict())

    def load_checkpoint(self, path: str | Path, model: nn.Module | None = None) -> nn.Module:
        """Puts the weights of a file (``best_model.pt``, ``last.ckpt``, one of ``save_checkpoint``) into a model."""
        model = self._model if model is None else model
        if model is None:
            raise GenrecError("There is no model to load into: call fit first, or give model=.")
        state = files.read_checkpoint(Path(path))
        files.put_weights(state.get("model") if "format" in state else state, model, Path(path))
        return model

    def train_model(self, model: nn.Module, data: Any, context: RunContext | None = None) -> nn.Module:
        """Trains, tests, and returns the model."""
        self.fit(model, data, context)
        self.test(model, data)
        return model

    def generate_samples(
        self,
        num_samples: int = 8,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        *,
        model: Any = None,
        data: Any = None,
    ) -> Samples:
        """What the model makes up, as an object that prints as a table (``genrec.trainers.samples.Samples``).

        A model with ``sample`` continues the histories of users drawn by ``seed`` (None: the run's), one with
        ``generate`` draws from its prior. ``top_k=0`` and ``top_p=1.0`` leave nothing out. ``model`` and ``data`` are
        those of the last ``fit`` unless given; items have titles where ``data`` is a data set.
        """
        from genrec.trainers.samples import draw_samples

        model, data = self._model if model is None else model, self._data if data is None else data
        if model is None or (data is None and hasattr(model, "sample")):
            raise GenrecError("There is no model, or no data, to draw from: call fit first, or give model= and data=.")
        return draw_samples(
            model,
            data,
            num_samples,
            seed=self.context.seed if seed is None else seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            filter_seen=self.masks_seen(model),
        )

    def _evaluate_now(self, model: nn.Module, data: Any, part: str, context: RunContext | None) -> dict[str, float]:
        if context is not None and context is not self._context:
            self.context = context
        if not hasattr(self, "_tracker") or self._tracker.loggers == []:
            self._tracker = Tracker(self._loggers)
        device = self.hardware.prepare()
        if isinstance(model, nn.Module):
            model.to(device)
        view = view_of(data, model)
        try:
            with self.hardware.autocast(device):
                return self.evaluate(model, view, part, progress=self.context.progress)
        except Exception as error:
            if not out_of_memory(error):
                raise
            said = what_allocator_said(error)
        self.collect = None
        raise evaluation_shortage(self, model, view, said)

    # -- the run's surroundings

    @property
    def context(self) -> RunContext:
        if self._context is None:
            self.context = default_context()
        assert self._context is not None
        return self._context

    @context.setter
    def context(self, context: RunContext) -> None:
        self._context = context
        self.hardware: Hardware = context.hardware or Hardware()
        self._checkpoints = CheckpointFolder(context.output_dir / "checkpoints", writes=self.hardware.world.leads)

    @property
    def _loggers(self) -> Sequence[Any]:
        return self.context.loggers if self.hardware.world.leads else ()

    def _check_processes(self, model: nn.Module) -> None:
        """Raises ``GenrecError`` for what several processes cannot train, and where this one of them is alone."""
        if self.hardware.num_processes > 1 and self.hardware.world.size == 1:
            raise GenrecError(
                f"hardware.devices={self.hardware.devices} takes processes that only a run starts: use "
                "python -m genrec.run, or hardware.devices=1 here."
            )
        sparse = any(getattr(module, "sparse_gradients", False) for module in model.modules())
        if self.hardware.world.size > 1 and sparse:
            raise GenrecError(
                "Several processes average dense gradients only: use model.sparse_gradients=false, or "
                "hardware.devices=1."
            )
        if self.hardware.divides:
            check_divisible(model, self.hardware, self.context.optimizer, by_hand=self.averages_gradients)

    @property
    def hardware_now(self) -> Hardware:
        """What the context says a model runs on."""
        return self.context.hardware or Hardware()

    @property
    def extra_callbacks(self) -> list[Any]:
        return list(self.context.callbacks)

    @property
    def all_k_values(self) -> list[int]:
        """``k_values`` and the k of the monitored metric, so that any k can be monitored."""
        named = re.search(r"@(\d+)$", self.monitor)
        return sorted({*self.k_values, *([int(named.group(1))] if named else [])})

    @property
    def titles(self) -> Sequence[str] | None:
        """The items' titles, where the data of the last ``fit`` has them."""
        return getattr(self._data, "titles", None)

    @property
    def finished(self) -> bool:
        trained = self.stopped or (self.max_steps is not None and self.global_step >= self.max_steps)
        return self.current_epoch >= self.max_epochs or (trained and not self.evaluation_due)

    # -- training

    def _initialize(self, model: Any, view: Any) -> None:
        """Lets a model that wants to look at the data before its first step do so (k-means initialised codebooks)."""
        if hasattr(model, "initialize") and hasattr(view, "vectors"):
            vectors = [batch.vectors for batch in view.eval_batches(TRAIN, batch_size=len(view.vectors))]
            model.initialize(torch.cat(vectors))

    def _schedule_of_run(self) -> Schedule:
        return copy.deepcopy(self.context.scheduler) or Constant()

    def _plan_schedule(self, model: nn.Module, view: Any, state: dict[str, Any] | None) -> None:
        self.schedule = self._schedule_of_run()
        self.check_schedule(self.schedule)
        if state is None:
            plan = view.train_plan(model, batch_size=self.batch_size_for(model), seed=self.context.seed, epoch=1)
            self.steps_per_epoch = optimizer_steps(len(plan), self.accumulate_grad_batches)
        else:
            self.steps_per_epoch = state["steps_per_epoch"]
            self.schedule.load_state_dict(state["schedule"])
        planned = partial(self.planned_steps, view, model)
        self.total_steps = min(planned(self.max_epochs), self.max_steps or 2**62)
        self.total_epochs = bisect_left(range(1, self.max_epochs), self.total_steps, key=planned) + 1
        length = self.total_epochs if self.schedule.interval == "epoch" else self.total_steps
        if self.schedule.num_warmup_steps(length) >= length > 1:
            logger.warning(
                "Warm-up takes %d %ss and the run %d: the learning rate is reached at its end at best. "
                "Lower scheduler.warmup_steps.",
                self.schedule.num_warmup_steps(length), self.schedule.interval, length,
            )  # fmt: skip

    def _train(self, model: nn.Module, view: Any, state: dict[str, Any] | None, epochs: int | None = None) -> None:
        """Trains to the end, or so many epochs more; a ``state`` is what they continue."""
        last = self.max_epochs if epochs is None else min(self.max_epochs, self.current_epoch + epochs)
        with quiet_lightning():
            self._learner = Learner(self, model, view, resumed=state)
            engine = build_engine(self, self.hardware, self._tracker.loggers, max_epochs=last)
            interruption = self.context.interruption
            short = None
            try:
                with nullcontext() if interruption is None else interruption.training():
                    engine.fit(self._learner)
                if engine.should_stop and not self._learner.evaluates:  # a callback has asked for it before any step
                    self.stopped, self.current_epoch = True, self.current_epoch - 1
            except SystemExit as error:
                if isinstance(error.__context__, KeyboardInterrupt):  # Lightning hides it behind an exit
                    raise KeyboardInterrupt from None
                raise
            except NotFiniteError as error:
                self._end_diverged(self._learner, error.index)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                short = what_allocator_said(error)  # the error holds on to what was allocated
            finally:
                self._learner.thaw()
                if self._bar is not None:
                    self._bar.close()
            if short is not None:
                raise self._shortage(self._learner, short)

    def _end_diverged(self, learner: Learner, index: int) -> None:
        """Ends training at a loss that is not finite: well where there are weights to test, else as a failure."""
        error = diverged(learner, index, self.context.output_dir)
        if not self.has_weights_to_test:
            raise error
        logger.warning("%s", error)
        self.stopped, self.diverged = True, str(error)
        state = self._checkpoints.load_last()
        if state is not None:  # the last weights are those of the last whole epoch
            learner.model.load_state_dict(state["model"])

    @property
    def has_weights_to_test(self) -> bool:
        """Whether weights of an earlier epoch were found good, so that a run that ends badly still has a result."""
        return False

    def _shortage(self, learner: Learner, said: str) -> GenrecError:
        free(learner)
        if learner.evaluates:
            return evaluation_shortage(self, learner.model.to(self.hardware.device), learner.view, said)
        return training_shortage(learner, said)

    def begin_epoch(self, num_batches: int, done: int) -> None:
        self._epoch_started = time.monotonic()
        description = f"Epoch {self.current_epoch}/{self.max_epochs}"
        self._bar = Bar(description, num_batches, enabled=self.context.progress, begin=done)

    def after_batch(self, learner: Learner, *, stepped: bool) -> None:
        """Progress, step-wise logs and, where asked for, a checkpoint within the epoch."""
        if self._bar is not None:
            self._bar.advance(lambda: self._details(learner))
        if not stepped:
            return
        if self.global_step % self.log_every_steps == 0:
            learner.watch.ask()
        if self.global_step % self.log_every_steps == 0 and self._tracker.loggers:
            assert learner.latest is not None
            metrics = {"train/loss_step": float(learner.latest), "train/lr": learner.lr}
            self._tracker.log_step(metrics, self.global_step)
        every = self.checkpoint_every_steps
        # The end of an epoch writes its own checkpoint, after validation.
        within = learner.loader is not None and learner.step_in_epoch < learner.loader.num_batches
        within = within and self.global_step != self.max_steps
        ends = within and self._is_to_end(learner)
        if within and (ends or (every and self.global_step % every == 0)):
            self._save_last(learner, learner.step_in_epoch)
        if ends:
            self._give_way()

    @property
    def is_asked_to_end(self) -> bool:
        """Whether a signal has asked this process to end."""
        return self.context.interruption is not None and self.context.interruption.asked is not None

    def _is_to_end(self, learner: Learner) -> bool:
        """Whether any process was asked to end: all of them know it at the same step. GPUs are seldom waited for."""
        if self.hardware.world.size == 1:
            return self.is_asked_to_end
        due = learner.device.type == "cpu" or self.global_step % _STEPS_UNASKED == 0
        return due and bool(learner.asked_to_end)

    def _give_way(self) -> NoReturn:
        """Ends this process for the signal that one of them was sent; the last checkpoint is written."""
        if self.context.interruption is not None:
            logger.info("Stopped at step %d of epoch %d, with a checkpoint.", self.global_step, self.current_epoch)
            self.context.interruption.obey()
        raise Interrupted(signal.SIGTERM)  # which another process was sent

    def _details(self, learner: Learner) -> str:
        parts = [f"loss {float(learner.latest):.4f}"] if learner.latest is not None else []
        latest = self.metrics_history.get(self.monitor)
        if latest and self.monitor != "train/loss":
            parts.append(f"{self.monitor} {latest[-1]:.4f}")
        return ", ".join(parts)

    def finish_epoch(self, learner: Learner) -> None:
        """Validation, the decision to stop, files and lines at the end of an epoch; ``last.ckpt`` comes last."""
        if self._bar is not None:
            self._bar.close()
        learner.watch.ask()
        self.stopped = self.stopped or learner.trainer.should_stop  # a callback may have asked, within the epoch too
        means = learner.means.together(self.hardware.world)
        learner.bring()
        train_metrics = {f"train/{name}": value for name, value in means.result().items()}
        if hasattr(learner.model, "on_train_epoch_end") and not self.evaluation_due:
            learner.model.on_train_epoch_end()  # pyright: ignore[reportCallIssue]
        eval_metrics = self._evaluated(learner)
        metrics = self._latest = {**train_metrics, **eval_metrics}
        for name, value in metrics.items():
            if math.isfinite(value):
                self.metrics_history.setdefault(name, []).append(value)
        self._seconds.append(time.monotonic() - self._epoch_started)
        logger.info("%s (%s)", self.epoch_line(train_metrics, eval_metrics), self._timing())
        seconds = round(self._seconds[-1], 3)
        row = {**metrics, "train/lr": learner.lr, "epoch": self.current_epoch, "seconds": seconds}
        self._tracker.log_epoch(row, self.global_step)
        self._write_history()
        stop = self.judge_epoch(learner, metrics)
        stop = self.on_epoch_end(train_metrics, eval_metrics) or stop
        stop = stop or self.stopped
        pruned = not stop and self._is_hopeless(metrics)
        # Whoever watches talks to one process; and no two must ever come to differ over whether to go on.
        stop, self.pruned = self.hardware.world.agreed((stop, pruned))
        self.stopped = stop or self.pruned
        self._keep_epoch(learner.model)
        self._save_last(learner, 0)
        learner.trainer.should_stop = self.stopped
        if any(self.hardware.world.gather(self.is_asked_to_end)):
            self._give_way()

    def _evaluated(self, learner: Learner) -> dict[str, float]:
        """What is measured after an epoch. A signal ends it between two batches; the epoch's steps are kept."""
        self._gives_way = True
        try:
            with self.hardware.autocast(learner.device):
                found = self.evaluate_epoch(learner.model, learner.view)
        except Interrupted:
            self._save_last(learner, learner.step_in_epoch)
            self._give_way()
        finally:
            self._gives_way = False
        self.evaluation_due = False
        return found

    def give_way(self) -> None:
        """Called between batches of an evaluation. While a run trains, it raises ``Interrupted`` where a signal asks
        for it, in all processes before the same batch."""
        if not self._gives_way:
            return
        asked = self.is_asked_to_end
        if self.hardware.world.size > 1:
            asked = bool(self.hardware.world.sum(torch.tensor([int(asked)])))
        if asked:
            raise Interrupted(signal.SIGTERM)  # ``_give_way`` names the signal that this process was sent

    def _is_hopeless(self, metrics: dict[str, float]) -> bool:
        """Whether whoever watches the run has seen enough of it."""
        value = metrics.get(self.monitor)
        if self.context.watch is None or value is None or not math.isfinite(value):
            return False
        pruned = self.context.watch(self.current_epoch, value)
        if pruned:
            logger.info("Pruned after epoch %d: %s is %.4f, and other trials were better by then.",
                        self.current_epoch, self.monitor, value)  # fmt: skip
        return pruned

    def _write_history(self) -> None:
        """The epochs so far, for whoever looks at a run while it is trained or after it was killed."""
        if not self._checkpoints.writes:
            return
        rows = [{"epoch": values.get("epoch"), "step": step, **values} for step, values in self._tracker.rows]
        kept = [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]
        write_json(self.context.output_dir / HISTORY_FILE, kept)

    def evaluate_epoch(self, model: nn.Module, view: Any) -> dict[str, float]:
        """What is measured after an epoch: nothing, unless a policy says so."""
        return {}

    def judge_epoch(self, learner: Learner, metrics: dict[str, float]) -> bool:
        """A policy's own decision about an epoch; True stops training."""
        return False

    def epoch_line(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> str:
        loss = train_metrics.get("train/loss", math.nan)  # an epoch may have taught nothing
        return f"Epoch {self.current_epoch}/{self.max_epochs} - Loss: {loss:.4f}"

    def _timing(self) -> str:
        left = (self.max_epochs - self.current_epoch) * sum(self._seconds) / len(self._seconds)
        return f"{duration(self._seconds[-1])}" + (f", at most {duration(left)} left" if left > 0 else "")

    def _keep_epoch(self, model: nn.Module) -> None:
        """The periodic checkpoint, whether or not the epoch is a good one."""
        if self.checkpoint_every_epochs and self.current_epoch % self.checkpoint_every_epochs == 0:
            self._checkpoints.save_weights(self._checkpoints.epoch_name(self.current_epoch), model)

    def _finish(self, model: nn.Module) -> None:
        """Writes the last weights, then leaves in the model, and in ``best_model.pt``, those that are to be tested."""
        self._checkpoints.save_weights(files.FINAL, model)
        self._final.update({name: values[-1] for name, values in self.metrics_history.items() if name == "train/loss"})
        self.choose_weights(model)  # whose metrics are those of their own epoch
        logger.info("Training completed. Model saved to %s", self._checkpoints.path)

    def choose_weights(self, model: nn.Module) -> None:
        """Without validation the last weights are the ones to test."""
        self._checkpoints.save_weights(files.BEST, model)

    def result(self) -> FitResult:
        return FitResult(
            history=self.metrics_history,
            epochs=self.current_epoch,
            stopped_early=self.stopped and not self.pruned,
            pruned=self.pruned,
            diverged=self.diverged,
        )

    @property
    def chosen_metrics(self) -> dict[str, float]:
        """What training found out about the weights that are to be tested."""
        return dict(self._final)

    # -- the state of a run

    def state_dict(self) -> dict[str, Any]:
        """What a policy must remember from one epoch to the next; primitive values only."""
        return {"stopped": self.stopped, "pruned": self.pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stopped = state["stopped"]
        self.pruned = state.get("pruned", False)

    def _identity(self, model: nn.Module, view: Any) -> dict[str, Any]:
        return {
            "view": view.fingerprint,
            "item tables": unsaved_tables(model),
            "seed": self.context.seed,
            "batch_size": self._configured_batch_size,
            "accumulate_grad_batches": self.accumulate_grad_batches,
        }

    def _save_last(self, learner: Learner, step_in_epoch: int) -> None:
        learner.watch.ask()
        engine = learner.trainer
        means = learner.means.together(self.hardware.world) if step_in_epoch else WeightedMean()
        rng, *others = self.hardware.world.gather(files.rng_state())
        if not learner.evaluates:  # the end of an epoch has brought it up to date
            learner.bring(torch.device("cpu"))  # the device is short of room for all of it while steps are taken
        of_callbacks = {item.state_key: item.state_dict() for item in self.extra_callbacks}
        states = (engine.optimizers[0].state_dict(), of_callbacks)
        if learner.divides:
            states = whole_state(states, keep=self.hardware.world.leads)
        self._checkpoints.save_last(
            {
                "identity": self._run_identity,
                "epoch": self.current_epoch - (step_in_epoch > 0),  # epochs completed
                "step_in_epoch": step_in_epoch,
                "evaluation_due": step_in_epoch > 0 and learner.evaluates,
                "global_step": self.global_step,
                "steps_per_epoch": self.steps_per_epoch,
                "model": learner.model.state_dict(),
                "optimizer": states[0],
                "scaler": engine.precision_plugin.state_dict(),
                "schedule": self.schedule.state_dict(),
                "rng": rng,
                "rng_of_others": others,
                "sums": means.sums,
                "count": means.count,
                "history": self.metrics_history,
                "logged": self._tracker.rows,
                "policy": self.state_dict(),
                "callbacks": states[1],
            }
        )

    def _resumed_state(self, model: nn.Module, view: Any) -> dict[str, Any] | None:
        """Loads ``last.ckpt`` where one is to be continued, and everything in it that is not Lightning's."""
        self._configured_batch_size = self.batch_size
        self._run_identity = self._identity(model, view)
        self._checkpoints.clear_unfinished()
        state = self._checkpoints.load_last() if self.context.resume else None
        path = self._checkpoints.path / files.LAST
        steps = self.hardware.world.gather(None if state is None else state["global_step"])
        if len(set(steps)) > 1:
            found = ", ".join(f"process {rank}: {step or 'none'}" for rank, step in enumerate(steps))
            raise GenrecError(
                f"The processes of this run do not read the same {path} (its step: {found}). All machines have to see "
                "one output folder, as it is now: share it between them, or wait until the file system has caught up."
            )
        if state is None:
            return None
        different = [name for name, value in self._run_identity.items() if state["identity"].get(name) != value]
        if different:
            raise GenrecError(
                f"{path} belongs to a run with other {', '.join(different)}, so it cannot be continued. "
                "Use the same settings and data, or start again without resume."
            )
        try:
            files.put_weights(state["model"], model, path)
        except GenrecError as error:
            raise GenrecError(f"{error} Or start again without resume.") from None
        self.current_epoch, self.global_step = state["epoch"], state["global_step"]
        self.evaluation_due = state.get("evaluation_due", False)
        self.metrics_history = state["history"]
        with quiet_lightning():
            self._tracker.replay(state["logged"], self.global_step)
        self.load_state_dict(state["policy"])
        logger.info("Resuming %s at epoch %d, step %d", path, self.current_epoch + 1, self.global_step)
        return state


def _is_asked_for_users(model: Any) -> bool:
    """Whether a model is evaluated on what it recommends to users."""
    return hasattr(model, "recommend") and not hasattr(model, "predict")


def metric_name(name: str) -> str:
    """``val_recall@10``, the older spelling, as ``val/recall@10``."""
    return re.sub(r"^(train|val|test)_", r"\1/", name)


def create_trainer(trainer_type: str = "advanced", **options: Any) -> BaseTrainer:
    """A trainer by its short name, with its fields as keywords."""
    import genrec.trainers as home

    known = {
        "simple": "SimpleTrainer",
        "advanced": "AdvancedTrainer",
        "rqvae": "RQVAETrainer",
        "tiger": "TIGERTrainer",
        "curriculum": "CurriculumTrainer",
        "apr": "APRTrainer",
        "online": "OnlineTrainer",
        "match": "MatchTrainer",
        "ctr": "CTRTrainer",
        "mtl": "MTLTrainer",
    }
    if trainer_type not in known:
        raise GenrecError(f"Unknown trainer type {trainer_type!r}. Choose one of {', '.join(known)}.")
    return getattr(home, known[trainer_type])(**options)


def default_context() -> RunContext:
    """Where a run started from Python writes: a new folder below ``outputs/python``, named after the time."""
    show_log()
    root = Path("outputs/python")
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder, attempt = root / name, 1
    while folder.exists():
        folder, attempt = root / f"{name}_{attempt}", attempt + 1
    return RunContext(output_dir=folder)


def view_of(data: Any, model: Any) -> Any:
    """``data`` itself where it is a view, else the view that the model's class asks for."""
    if hasattr(data, "train_plan"):
        return data
    if hasattr(data, "view"):
        return data.view(model.view)
    raise GenrecError(
        f"{type(data).__name__} is neither a data set nor a view. Give genrec.data.Dataset or a view of one."
    )


def unsaved_tables(model: nn.Module) -> str:
    """A fingerprint of the buffers that are not saved with the weights, such as the semantic ID of every item.

    Weights trained with one table mean nothing with another of the same shape.
    """
    saved = model.state_dict().keys()
    return fingerprint({name: table.cpu().numpy() for name, table in model.named_buffers() if name not in saved})


def trainable(model: Any) -> bool:
    """Whether there is anything to optimise."""
    return isinstance(model, nn.Module) and any(parameter.requires_grad for parameter in model.parameters())
