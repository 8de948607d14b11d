"""Evaluation of a model on one part of a view, the same for trained models and baselines.

Shapes: B users of a batch, k length of a list, T targets per user, N items, D width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import IGNORE, TEST, TRAIN, GenrecError, HistoryBatch, Losses, Recommendations, SequenceBatch
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView, history_batch
from genrec.metrics.beyond_accuracy import BeyondAccuracy
from genrec.metrics.ranking import RankingAccumulator
from genrec.progress import track
from genrec.trainers.world import ALONE, World

_NAMES = {"train": "Scoring training items", "val": "Validating", "test": "Testing"}
_NO_LIMIT = 1_000_000  # history length for models that take any


def evaluate_retrieval(
    model: Any,
    view: Any,
    part: str,
    *,
    k_values: Sequence[int] = (5, 10, 20),
    filter_seen: bool = False,
    batch_size: int = 256,
    max_users: int | None = None,
    seed: int = 0,
    progress: bool = True,
    loss: Callable[[Any, SequenceBatch], Losses] | None = None,
    beyond: BeyondAccuracy | None = None,
    collect: Callable[[HistoryBatch, Recommendations, Tensor], None] | None = None,
    world: World = ALONE,
    give_way: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Ranking metrics over the whole catalogue, means over users, named like ``test/recall@10``.

    ``part`` "val" or "test" holds out what the view holds out; "train" asks for each user's last *training* item and so
    measures memorisation. ``loss``, a function of the model and a batch, adds ``<part>/loss`` of the first
    held-out item of each user. ``beyond`` is given every list too and adds its own metrics.
    ``collect`` is given every batch, its recommendations (B, k) and its targets (B, T). No metrics where no user has
    targets. Of a ``world`` of several processes each takes some batches, and all are given the metrics of all users.
    ``give_way`` is called before each batch, equally often in all of them, and may raise to end the evaluation.
    """
    if part == TRAIN:
        view, held_out = memorisation_view(view), "val"
    else:
        held_out = part
    batches = view.eval_batches(
        held_out,
        batch_size=batch_size,
        max_history=getattr(model, "max_history", None) or _NO_LIMIT,
        filter_seen=filter_seen,
        max_users=max_users,
        seed=seed,
    )
    ks = sorted(set(k_values))
    device = device_of(model)
    ranking = RankingAccumulator(ks)
    means = WeightedMean()
    with evaluating(model, seed):
        shared = SharedBatches(batches, world, give_way)
        for batch, targets in track(shared, _NAMES.get(part, part), enabled=progress):
            batch, targets = batch.to(device), targets.to(device)
            found = model.recommend(batch, ks[-1])
            ranking.update(found.items, targets)
            if loss is not None:
                losses = loss(model, next_item_batch(batch, targets))
                means.add({"loss": losses.total}, losses.count)
            if beyond is not None:
                beyond.update(found.items, batch.users)
            if collect is not None:
                collect(batch, found, targets)
    if world.size > 1:
        means = means.together(world)
        ranking.replace(world.gather((ranking.sums, ranking.count)))
        if beyond is not None:
            beyond.replace(world.gather(beyond.totals))
        if collect is not None and hasattr(collect, "together"):
            collect.together(world)  # pyright: ignore[reportFunctionMemberAccess]
    metrics = ranking.compute() if ranking.count else {}
    if beyond is not None and ranking.count:
        metrics.update(beyond.compute())
    return {f"{part}/{name}": value for name, value in {**means.result(), **metrics}.items()}


class SharedBatches:
    """Of the batches of an evaluation those that this process of a ``world`` takes: every ``size``-th.

    ``give_way`` is called before each of them; in a process that has one batch fewer than others, once more.
    """

    def __init__(self, batches: Any, world: World, give_way: Callable[[], None] | None = None) -> None:
        self.batches = batches
        self.world = world
        self.give_way = give_way

    def __len__(self) -> int:
        return len(self.world.share(len(self.batches)))

    def __iter__(self) -> Iterator[Any]:
        if self.give_way is None:
            yield from self._own()
            return
        own = self._own()
        for _ in range(math.ceil(len(self.batches) / self.world.size)):
            self.give_way()
            yield from itertools.islice(own, 1)

    def _own(self) -> Iterator[Any]:
        if self.world.size == 1:
            yield from self.batches
        elif hasattr(self.batches, "__getitem__"):
            yield from (self.batches[index] for index in self.world.share(len(self.batches)))
        else:
            yield from itertools.islice(self.batches, self.world.rank, None, self.world.size)


def beyond_accuracy(
    view: Any, k_values: Sequence[int], item_vectors: np.ndarray | None = None, *, part: str = TEST
) -> BeyondAccuracy | None:
    """What ``evaluate_retrieval`` needs to look beyond accuracy on ``part`` of a view; None for one without histories.

    Items are as popular as the training part makes them; ``item_vectors`` (N, D) add the diversity of the lists.
    """
    if not hasattr(view, "train") or not hasattr(view, "history"):
        return None
    popularity = view.train.counts(view.num_items)
    history: Ragged = view.history(part)
    return BeyondAccuracy(k_values, popularity, history.sums(popularity) / np.maximum(history.lengths, 1), item_vectors)


def evaluate_items(
    model: Any,
    view: Any,
    part: str,
    *,
    batch_size: int = 1024,
    seed: int = 0,
    progress: bool = True,
    loss: Callable[[Any, Any], Losses] | None = None,
    world: World = ALONE,
    give_way: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Mean loss and its parts of a tokenizer model over the items of ``part``, named like ``val/loss``.

    ``loss`` takes the model and a batch (None: the model's own); ``give_way`` is as in ``evaluate_retrieval``.
    """
    device = device_of(model)
    mean = WeightedMean()
    with evaluating(model, seed):
        batches = SharedBatches(view.eval_batches(part, batch_size=batch_size), world, give_way)
        for batch in track(batches, _NAMES.get(part, part), enabled=progress):
            batch = batch.to(device)
            losses = model.loss(batch) if loss is None else loss(model, batch)
            mean.add({"loss": losses.total, **losses.parts}, losses.count)
    return {f"{part}/{name}": value for name, value in mean.together(world).result().items()}


def recommend_users(
    model: Any,
    view: Any,
    users: Sequence[int] | None = None,
    k: int = 10,
    *,
    batch_size: int = 256,
    filter_seen: bool = False,
    world: World = ALONE,
) -> Recommendations:
    """The best k items for users of a view (indices; None: all), after everything that is known of each: (U, k).

    Of a ``world`` of several processes each takes some of the users, and all are given the lists of all.
    """
    history: Ragged = view.history("all")
    chosen = np.arange(len(history)) if users is None else np.asarray(users, dtype=np.int64)
    wrong = chosen[(chosen < 0) | (chosen >= len(history))]
    if len(wrong):
        raise GenrecError(f"There is no user {wrong[0]}: users are numbered from 0 to {len(history) - 1}.")
    if not 1 <= k <= view.num_items:
        raise GenrecError(f"k={k}: give a number of items from 1 to {view.num_items}, the size of the catalogue.")
    device, limit = device_of(model), getattr(model, "max_history", None) or _NO_LIMIT
    lists = []
    with evaluating(model):
        for begin in range(0, len(chosen), batch_size)[world.rank :: world.size]:
            part = chosen[begin : begin + batch_size]
            batch = history_batch(part, history.take(part), max_history=limit, filter_seen=filter_seen)
            found = model.recommend(batch.to(device), k)
            lists.append((found.items.cpu(), found.scores.float().cpu()))
    lists = [(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k)), *world.in_turn(lists)]
    items, scores = (torch.cat(parts) for parts in zip(*lists, strict=True))
    return Recommendations(items, scores)


class WeightedMean:
    """Means of named scalars in double precision, summed on the device so that nothing waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count: float = 0

    def add(self, values: dict[str, Tensor], count: float) -> None:
        """Adds means over ``count`` samples."""
        for name, value in values.items():
            total = _precise(value.detach()) * count
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.count += count

    def together(self, world: World) -> WeightedMean:
        """The mean over the samples of all processes."""
        if world.size == 1:
            return self
        whole = WeightedMean()
        for sums, count in world.gather(({name: total.cpu() for name, total in self.sums.items()}, self.count)):
            whole.count += count
            for name, total in sums.items():
                whole.sums[name] = whole.sums[name] + total if name in whole.sums else total
        return whole

    def result(self) -> dict[str, float]:
        return {name: float(total) / self.count for name, total in self.sums.items()} if self.count else {}


def _precise(value: Tensor) -> Tensor:
    return value.float() if value.device.type == "mps" else value.double()  # Apple's devices have no float64


def next_item_batch(batch: HistoryBatch, targets: Tensor) -> SequenceBatch:
    """The histories as training rows that score only the first target of each user, at the last position."""
    rows = torch.arange(len(batch.users), device=batch.items.device)
    scored = torch.full_like(batch.items, IGNORE)
    scored[rows, batch.lengths - 1] = targets[:, 0]
    return SequenceBatch(users=batch.users, items=batch.items, lengths=batch.lengths, targets=scored)


def memorisation_view(view: Any) -> SequencesView:
    """The training part alone, each user's last training item as target: items the model has been trained to
    predict."""
    train: Ragged = view.train
    lengths = train.lengths
    keep = lengths >= 2
    last_position = train.offsets[1:] - 1
    is_last = np.zeros(len(train.values), dtype=bool)
    is_last[last_position[keep]] = True
    history = Ragged.from_lengths(train.values[~is_last], lengths - keep)
    last = Ragged.from_lengths(train.values[is_last], keep.astype(lengths.dtype))
    nothing = Ragged.from_lengths(train.values[:0], lengths * 0)
    return SequencesView(history, last, nothing, view.num_items)


def device_of(model: Any) -> torch.device:
    """Where the model lies; the CPU for a model without tensors."""
    if isinstance(model, torch.nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: Any, seed: int = 0) -> Iterator[None]:
    """Evaluation mode without gradients, with random numbers of its own; afterwards all is as before.

    Training goes on with the random numbers it would have had, so how often one evaluates does not change what is
    learned.
    """
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    device = device_of(model)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
            torch.manual_seed(seed)
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
