"""Work on all items divided among the processes of a run, where there are several.

The leader's numbers count wherever all must have the same: processors that differ need not agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from genrec.contracts import RunContext
from genrec.nn.kmeans import CHUNK, nearest_codes
from genrec.tokenizers.features import item_features

if TYPE_CHECKING:
    from genrec.data.ragged import Ragged

T = TypeVar("T")


class Crew(Protocol):
    """The processes of a run that have met (``genrec.trainers.world.World``)."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def leads(self) -> bool: ...
    def in_turn(self, values: Sequence[T]) -> list[T]: ...
    def array(self, value: np.ndarray | None = None) -> np.ndarray: ...


def crew_of(context: RunContext) -> Crew | None:
    """Those among whom the work is divided; None where there is one process."""
    world: Any = getattr(context.hardware, "world", None)
    return world if world is not None and world.size > 1 else None


def given(crew: Crew | None, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What the leader makes, in every process."""
    if crew is None:
        return make()
    return crew.array(make() if crew.leads else None)


class FeatureOptions(Protocol):
    """What a tokenizer says of the features that it codes: options of ``item_features``."""

    text_dim: int
    collaborative_dim: int
    window: int


def shared_features(
    crew: Crew | None, options: FeatureOptions, vectors: np.ndarray, train: Ragged, seed: int
) -> np.ndarray:
    """``item_features`` (N, D) as the leader finds them, in every process."""

    def make() -> np.ndarray:
        return item_features(
            vectors,
            train,
            text_dim=options.text_dim,
            collaborative_dim=options.collaborative_dim,
            window=options.window,
            seed=seed,
        )

    return given(crew, make)


def in_batches(
    crew: Crew | None, work: Callable[[Tensor], tuple[Tensor, ...]], points: Tensor, batch_size: int
) -> tuple[Tensor, ...]:
    """What ``work`` makes of all ``points`` (N, ...), batch by batch, in every process; each has done its share."""
    batches = points.split(batch_size)
    if crew is None:
        found = [work(batch) for batch in batches]
    else:
        found = crew.in_turn([work(batch) for batch in batches[crew.rank :: crew.size]])
    return tuple(torch.cat(part) for part in zip(*found, strict=True))


def shared_nearest(crew: Crew | None) -> Callable[[Tensor, Tensor], Tensor]:
    """``genrec.nn.kmeans.nearest_codes`` of which each process finds a share, to the bit what one would find.

    Points (N, D) are cut where that function cuts them, and the leader's centroids (K, D) are everyone's.
    """
    if crew is None:
        return nearest_codes

    def assign(points: Tensor, centroids: Tensor) -> Tensor:
        theirs = torch.from_numpy(given(crew, centroids.numpy))
        return in_batches(crew, lambda part: (nearest_codes(part, theirs),), points, CHUNK)[0]

    return assign
