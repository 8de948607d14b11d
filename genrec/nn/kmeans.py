"""Lloyd's k-means on torch tensors, seeded, without empty clusters.

Shapes: N points of width D, K centroids.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 4096  # points whose distances are held at a time: they stay in the processor's cache
_SEEDING_SAMPLE = 65_536  # k-means++ looks at this many points at most
_SEEDING_WIDTH = 64  # and at this many dimensions of them, where they have many more


def kmeans(
    points: Tensor,
    num_clusters: int,
    *,
    seed: int = 0,
    max_iters: int = 50,
    assign: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Centroids (K, D) and the nearest centroid of each point (N,): k-means++ seeding, then Lloyd's iterations.

    Runs on the CPU whatever the device of ``points``, so that codes do not depend on the machine's accelerator.
    Clusters that lose all points restart at the worst represented points. Stops when no assignment changes. ``assign``
    is what finds the nearest centroids, for several processes that divide this.
    """
    if points.ndim != 2 or not len(points) or num_clusters < 1:
        raise ValueError(f"k-means needs points (N, D) and K >= 1; got {tuple(points.shape)} and K={num_clusters}")
    device, points = points.device, points.detach().float().cpu()
    generator = torch.Generator().manual_seed(seed)
    centroids = _spread_seeds(points, num_clusters, generator)
    assign = assign or nearest_codes
    codes = assign(points, centroids)
    for _ in range(max_iters):
        centroids = _means(points, codes, centroids)
        previous, codes = codes, assign(points, centroids)
        if torch.equal(codes, previous):
            break
    return centroids.to(device), codes.to(device)


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Index (N,) and squared distance (N,) of the nearest centroid of each point; ties go to the lower index."""
    codes, distances = _nearest(points, centroids)
    return codes, distances.add_(points.square().sum(1)).clamp_min_(0)


def nearest_codes(points: Tensor, centroids: Tensor) -> Tensor:
    """The indices (N,) of ``nearest`` alone."""
    return _nearest(points, centroids)[0]


def _nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (N,) of the nearest centroids c, and |c|^2 - 2 x.c, which orders them as the distance to x does."""
    lengths, turned = centroids.square().sum(1), centroids.T
    if len(points) <= CHUNK:
        best = torch.addmm(lengths, points, turned, alpha=-2).min(dim=1)
        return best.indices, best.values
    codes, values = torch.empty(len(points), dtype=torch.long, device=points.device), points.new_empty(len(points))
    for begin in range(0, len(points), CHUNK):
        part = slice(begin, begin + CHUNK)
        torch.min(torch.addmm(lengths, points[part], turned, alpha=-2), dim=1, out=(values[part], codes[part]))
    return codes, values


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """(N, K) squared Euclidean distances, never negative."""
    cross = points @ centroids.T
    return (points.square().sum(1, keepdim=True) - 2 * cross + centroids.square().sum(1)).clamp_min_(0)


def _spread_seeds(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur, Vassilvitskii 2007): seeds are drawn in proportion to the squared distance to those before.

    Distances of wide points (D > 256) are those of a random projection, which keeps the cost of any clustering within
    a small factor (Makarychev et al. 2019, arXiv 1811.03195) and spares most of the reading.
    """
    if len(points) > _SEEDING_SAMPLE:
        points = points[torch.randperm(len(points), generator=generator)[:_SEEDING_SAMPLE]]
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    draws = torch.rand(num_clusters, generator=generator, dtype=torch.float64)
    seen = points
    if points.shape[1] > 4 * _SEEDING_WIDTH:
        seen = points @ torch.randn(points.shape[1], _SEEDING_WIDTH, generator=generator)
    lengths = seen.square().sum(1)
    closest = torch.full_like(lengths, torch.inf)
    for draw in draws[1:]:
        new = seen[chosen[-1]]
        closest = torch.minimum(closest, torch.addmv(lengths, seen, new, alpha=-2).add_(new @ new).clamp_min_(0))
        cumulative = closest.cumsum(0, dtype=torch.float64)
        if cumulative[-1] > 0:
            index = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_max(len(points) - 1))
        else:  # fewer distinct points than clusters: the rest are copies
            index = int(draw * len(points))
        chosen.append(index)
    return points[chosen].clone()


def _means(points: Tensor, codes: Tensor, centroids: Tensor) -> Tensor:
    """Means of the clusters; the k-th empty one moves to the k-th worst represented point."""
    counts = torch.bincount(codes, minlength=len(centroids))
    means = torch.zeros_like(centroids).index_add_(0, codes, points) / counts.clamp_min(1)[:, None]
    empty = torch.nonzero(counts == 0).flatten()
    if len(empty):
        distances = (points - centroids[codes]).square().sum(1)
        means[empty] = centroids[empty]
        empty = empty[: len(points)]
        means[empty] = points[distances.topk(len(empty)).indices]
    return means


def balanced(points: Tensor, centroids: Tensor, *, capacity: int, max_iters: int = 5) -> tuple[Tensor, Tensor]:
    """Centroids (K, D) and codes (N,) with at most ``capacity`` points each, refined from ``centroids``.

    Every round places all points by deferred acceptance (each asks the nearest centroid that has not turned it down, a
    full one keeps the nearest of those who ask), then moves the centroids to their means.
    """
    if capacity * len(centroids) < len(points):
        raise ValueError(f"{len(centroids)} clusters of {capacity} cannot hold {len(points)} points")
    capacities = torch.full((len(centroids),), capacity)
    codes = place(squared_distances(points, centroids), capacities)
    for _ in range(max_iters):
        centroids = _means(points, codes, centroids)
        previous = codes
        codes = place(squared_distances(points, centroids), capacities)
        if torch.equal(codes, previous):
            break
    return centroids, codes


def place(cost: Tensor, capacities: Tensor) -> Tensor:
    """(N,) the column each row of ``cost`` (N, K) is placed in, at most ``capacities`` (K,) rows each.

    Deferred acceptance: rows ask for their cheapest column, a full column keeps the cheapest rows of those who ask, the
    refused ask elsewhere. Ties go to the lower row.
    """
    if int(capacities.sum()) < len(cost):
        raise ValueError(f"{int(capacities.sum())} places cannot hold {len(cost)} rows")
    cost = cost.masked_fill(capacities == 0, torch.inf)
    codes = torch.full((len(cost),), -1, dtype=torch.long)
    own = torch.empty(len(cost), dtype=cost.dtype)
    asking = torch.arange(len(cost))
    while len(asking):
        best = cost[asking].min(dim=1)
        codes[asking], own[asking] = best.indices, best.values
        asked = torch.bincount(best.indices, minlength=cost.shape[1]) > 0
        rows = torch.nonzero(asked[codes]).flatten()  # of columns that nobody asks nothing changes
        by_cost = rows[torch.argsort(own[rows], stable=True)]
        by_code = by_cost[torch.argsort(codes[by_cost], stable=True)]
        counts = torch.bincount(codes[rows], minlength=cost.shape[1])
        rank = torch.arange(len(rows)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        refused = by_code[rank >= capacities[codes[by_code]]]
        cost[refused, codes[refused]] = torch.inf
        asking = refused.sort().values
    return codes
