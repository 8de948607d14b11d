"""Lloyd's k-means on torch tensors, seeded, without empty clusters.

Shapes: N points of width D, K centroids.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 65_536  # points whose distances are held at a time
_SEEDING_SAMPLE = 65_536  # k-means++ looks at this many points at most


def kmeans(points: Tensor, num_clusters: int, *, seed: int = 0, max_iters: int = 50) -> tuple[Tensor, Tensor]:
    """Centroids (K, D) and the nearest centroid of each point (N,): k-means++ seeding, then Lloyd's iterations.

    Runs on the CPU whatever the device of ``points``, so that codes do not depend on the machine's accelerator.
    Clusters that lose all points restart at the worst represented points. Stops when no assignment changes.
    """
    if points.ndim != 2 or not len(points) or num_clusters < 1:
        raise ValueError(f"k-means needs points (N, D) and K >= 1; got {tuple(points.shape)} and K={num_clusters}")
    device, points = points.device, points.detach().float().cpu()
    generator = torch.Generator().manual_seed(seed)
    centroids = _spread_seeds(points, num_clusters, generator)
    codes, distances = nearest(points, centroids)
    for _ in range(max_iters):
        centroids = _means(points, codes, distances, centroids)
        previous = codes
        codes, distances = nearest(points, centroids)
        if torch.equal(codes, previous):
            break
    return centroids.to(device), codes.to(device)


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Index (N,) and squared distance (N,) of the nearest centroid of each point; ties go to the lower index."""
    codes, distances = [], []
    lengths = centroids.square().sum(1)
    for chunk in points.split(_CHUNK):
        # |c|^2 - 2 x.c orders the centroids as the distance does; |x|^2 is added to the winners only.
        best = torch.addmm(lengths, chunk, centroids.T, alpha=-2).min(dim=1)
        codes.append(best.indices)
        distances.append((best.values + chunk.square().sum(1)).clamp_min_(0))
    return torch.cat(codes), torch.cat(distances)


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """(N, K) squared Euclidean distances, never negative."""
    cross = points @ centroids.T
    return (points.square().sum(1, keepdim=True) - 2 * cross + centroids.square().sum(1)).clamp_min_(0)


def _spread_seeds(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur, Vassilvitskii 2007): seeds are drawn in proportion to the squared distance to those before."""
    if len(points) > _SEEDING_SAMPLE:
        points = points[torch.randperm(len(points), generator=generator)[:_SEEDING_SAMPLE]]
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    draws = torch.rand(num_clusters, generator=generator, dtype=torch.float64)
    closest = squared_distances(points, points[chosen])[:, 0]
    for draw in draws[1:]:
        cumulative = closest.double().cumsum(0)
        if cumulative[-1] > 0:
            index = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_max(len(points) - 1))
        else:  # fewer distinct points than clusters: the rest are copies
            index = int(draw * len(points))
        chosen.append(index)
        closest = torch.minimum(closest, squared_distances(points, points[index : index + 1])[:, 0])
    return points[chosen].clone()


def _means(points: Tensor, codes: Tensor, distances: Tensor, centroids: Tensor) -> Tensor:
    """Means of the clusters; the k-th empty one moves to the k-th worst represented point."""
    counts = torch.bincount(codes, minlength=len(centroids))
    sums = torch.zeros_like(centroids).index_add_(0, codes, points)
    centroids = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centroids)
    empty = torch.nonzero(counts == 0).flatten()[: len(points)]
    if len(empty):
        centroids[empty] = points[distances.topk(len(empty)).indices]
    return centroids


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
        distances = squared_distances(points, centroids).gather(1, codes[:, None])[:, 0]
        centroids = _means(points, codes, distances, centroids)
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
    rows = torch.arange(len(cost))
    own = torch.empty(len(cost), dtype=cost.dtype)
    while len(asking := torch.nonzero(codes < 0).flatten()):
        best = cost[asking].min(dim=1)
        codes[asking], own[asking] = best.indices, best.values
        by_cost = torch.argsort(own, stable=True)
        by_code = by_cost[torch.argsort(codes[by_cost], stable=True)]
        counts = torch.bincount(codes, minlength=cost.shape[1])
        rank = rows - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        refused = by_code[rank >= capacities[codes[by_code]]]
        cost[refused, codes[refused]] = torch.inf
        codes[refused] = -1
    return codes
