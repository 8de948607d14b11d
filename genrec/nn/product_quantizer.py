"""Optimised product quantisation: rotate, cut into subspaces, cluster each of them.

Shapes: N points of width D, M subspaces of width E = ceil(D / M), K codes per subspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genrec.nn.kmeans import kmeans, nearest


@dataclass(frozen=True)
class ProductQuantizer:
    """``rotation`` (D, M * E) has orthonormal rows, so distances survive it; ``codebooks`` (M, K, E)."""

    rotation: Tensor
    codebooks: Tensor

    def rotated(self, points: Tensor) -> Tensor:
        """(N, D) -> (M, N, E)."""
        return _rotated(points, self.rotation, len(self.codebooks))

    def encode(self, points: Tensor) -> Tensor:
        """The nearest codes (N, M) of points (N, D)."""
        return _codes(self.rotated(points), self.codebooks).T

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, M) -> points (N, D)."""
        return _chosen(self.codebooks, codes.T).transpose(0, 1).flatten(1) @ self.rotation.T

    def codebooks_of_points(self) -> Tensor:
        """(M, K, D) the codebooks before the rotation: the chosen vectors of all subspaces sum to the rebuilt point."""
        num_subspaces, _, width = self.codebooks.shape
        return self.codebooks @ self.rotation.T.view(num_subspaces, width, -1)


def optimised_product_quantizer(
    points: Tensor, num_subspaces: int, codebook_size: int, *, seed: int = 0, max_iters: int = 30
) -> ProductQuantizer:
    """The rotation and the codebooks that lose least of ``points`` (N, D), by alternation from a good start.

    Principal directions are dealt out so that every subspace gets as much variance; k-means finds the first codebooks.
    Then in turn: nearest codes, their means, and the rotation nearest to what they rebuild (orthogonal Procrustes).
    Source: Ge, He, Ke, Sun 2013, "Optimized Product Quantization", sections 3.1 and 3.2.
    """
    if points.ndim != 2 or not len(points) or num_subspaces < 1 or codebook_size < 1:
        raise ValueError(
            f"need points (N, D), M >= 1 and K >= 1; got {tuple(points.shape)}, M={num_subspaces}, K={codebook_size}"
        )
    points = points.detach().float().cpu()
    rotation = balanced_directions(points, num_subspaces)
    parts = _rotated(points, rotation, num_subspaces)
    started = [kmeans(part, codebook_size, seed=seed + index, max_iters=4) for index, part in enumerate(parts)]
    codebooks = torch.stack([centroids for centroids, _ in started])
    codes = torch.stack([chosen for _, chosen in started])
    for _ in range(max_iters):
        rebuilt = _chosen(codebooks, codes).transpose(0, 1).flatten(1)
        left, _, right = torch.linalg.svd((points.T @ rebuilt).double(), full_matrices=False)
        rotation = (left @ right).float()
        parts = _rotated(points, rotation, num_subspaces)
        codebooks = _means(parts, codes, codebooks)
        codes = _codes(parts, codebooks)
    return ProductQuantizer(rotation, _means(parts, codes, codebooks))


def balanced_directions(points: Tensor, num_subspaces: int) -> Tensor:
    """(D, M * E) principal directions of ``points``, dealt out so that the subspaces' variances have like products.

    From the largest on, each goes to the subspace of the least product that has room (Ge et al., section 3.2.3);
    unused places of the last subspaces are zero.
    """
    centred = (points - points.mean(0)).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(points))
    width = -(-points.shape[1] // num_subspaces)
    logs = variances.clamp_min(1e-12 * float(variances.max().clamp_min(1e-12))).log()
    logs = logs - logs.min()  # as multiples of the smallest, so that a direction more never makes a product less
    filled = [0] * num_subspaces
    load = [0.0] * num_subspaces
    rotation = directions.new_zeros(points.shape[1], num_subspaces * width)
    for column in range(points.shape[1] - 1, -1, -1):
        subspace = min((s for s in range(num_subspaces) if filled[s] < width), key=lambda s: (load[s], s))
        direction = directions[:, column]
        sign = torch.sign(direction[direction.abs().argmax()])
        rotation[:, subspace * width + filled[subspace]] = direction * sign
        filled[subspace] += 1
        load[subspace] += float(logs[column])
    return rotation.float()


def _rotated(points: Tensor, rotation: Tensor, num_subspaces: int) -> Tensor:
    return (points @ rotation).view(len(points), num_subspaces, -1).transpose(0, 1).contiguous()


def _codes(parts: Tensor, codebooks: Tensor) -> Tensor:
    return torch.stack([nearest(part, codebook)[0] for part, codebook in zip(parts, codebooks, strict=True)])


def _chosen(codebooks: Tensor, codes: Tensor) -> Tensor:
    """(M, N, E) the code vectors that ``codes`` (M, N) name."""
    return codebooks.gather(1, codes[:, :, None].expand(-1, -1, codebooks.shape[2]))


def _means(parts: Tensor, codes: Tensor, codebooks: Tensor) -> Tensor:
    """(M, K, E) means of the points (M, N, E) of each code; a code without points stays where it is."""
    index = codes[:, :, None].expand_as(parts)
    sums = torch.zeros_like(codebooks).scatter_add_(1, index, parts)
    counts = torch.zeros(codebooks.shape[:2]).scatter_add_(1, codes, torch.ones(codes.shape))[:, :, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), codebooks)
