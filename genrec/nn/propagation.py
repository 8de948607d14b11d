"""Messages along the edges of a fixed graph as products with one sparse matrix.

M nodes, E edges, D width. A product in rows of int32 indices is an order of magnitude faster on a CPU than gathering
and scattering every edge.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SymmetricMatrix(nn.Module):
    """A symmetric sparse matrix (M, M), multiplied with dense (M, D) in full precision; it moves with its module.

    Its gradient is the same product again, so nothing is kept for the backward pass.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, size: int) -> None:
        """``rows``, ``columns`` and ``values`` (E,) hold both directions of every edge; equal places are summed."""
        super().__init__()
        from scipy.sparse import coo_matrix

        matrix = coo_matrix((values.astype(np.float32), (rows, columns)), shape=(size, size)).tocsr()
        self.size = size
        self.offsets: Tensor  # (M + 1,) int32
        self.columns: Tensor  # (E,) int32
        self.values: Tensor  # (E,) float32
        self.register_buffer("offsets", torch.from_numpy(matrix.indptr.astype(np.int32)), persistent=False)
        self.register_buffer("columns", torch.from_numpy(matrix.indices.astype(np.int32)), persistent=False)
        self.register_buffer("values", torch.from_numpy(matrix.data), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(M, D) the sum over neighbours, weighted."""
        found: Any = _Product.apply(x, self.offsets, self.columns, self.values)
        return found

    def row(self, node: int) -> tuple[Tensor, Tensor]:
        """The neighbours (n,) of a node and the values (n,) of its row."""
        begin, end = self.offsets[node : node + 2].tolist()
        return self.columns[begin:end].long(), self.values[begin:end]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(offsets, columns, values)
        return multiply(offsets, columns, values, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        offsets, columns, values = ctx.saved_tensors
        return multiply(offsets, columns, values, gradient), None, None, None


def multiply(offsets: Tensor, columns: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """The sparse matrix with rows ``offsets`` (R + 1,) int32, ``columns`` and ``values`` (E,), times ``x`` (M, D)."""
    with warnings.catch_warnings(), torch.autocast(x.device.type, enabled=False):
        warnings.simplefilter("ignore", UserWarning)  # that sparse rows are in beta, and unchecked
        size = len(offsets) - 1, len(x)
        matrix = torch.sparse_csr_tensor(offsets, columns, values.to(x.dtype), size=size, check_invariants=False)
        return matrix @ x.contiguous()


def normalised_adjacency(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> SymmetricMatrix:
    """The adjacency (U + N, U + N) of users and items, each edge divided by the root of both ends' degrees.

    ``users`` and ``items`` (E,) are one edge each; items come after users (He et al. 2020, arXiv 2002.02126, eq. 8).
    """
    weights = normalised_weights(users, items)
    rows, columns = np.concatenate([users, items + num_users]), np.concatenate([items + num_users, users])
    return SymmetricMatrix(rows, columns, np.concatenate([weights, weights]), num_users + num_items)


def normalised_weights(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(E,) one over the root of the degrees of both ends of every edge."""
    of_users, of_items = (np.bincount(ends)[ends].astype(np.float64) for ends in (users, items))
    return 1.0 / np.sqrt(of_users * of_items)
