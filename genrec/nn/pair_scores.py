"""Products of chosen pairs of rows of two tables, with gradients as sparse products.

U and N rows of the tables, D width, B rows of pairs, m pairs in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from genrec.nn.propagation import multiply

_AT_ONCE = 1 << 20  # numbers gathered at a time, so that they stay in cache


def pair_scores(first: Tensor, second: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, m) the products of ``first[rows]`` and ``second[columns]``, tables (U, D) and (N, D), ``rows`` (B,) and
    ``columns`` (B, m).

    On a CPU nothing is kept per pair: the gradient of the scores is a sparse (U, N) matrix, and the gradients of the
    tables are its products with the other table, which is several times faster than adding up a row for every pair.
    """
    if first.device.type != "cpu":
        return torch.einsum("bd,bmd->bm", functional.embedding(rows, first), functional.embedding(columns, second))
    found: Any = _PairScores.apply(first, second, rows, columns)
    return found


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(first, second, rows, columns)
        out = first.new_empty(columns.shape)
        step = max(1, _AT_ONCE // (columns.shape[1] * first.shape[1]))
        for begin in range(0, len(rows), step):
            part = slice(begin, begin + step)
            gathered = functional.embedding(columns[part], second)
            torch.matmul(gathered, functional.embedding(rows[part], first)[:, :, None], out=out[part, :, None])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        from scipy.sparse import coo_matrix

        first, second, rows, columns = ctx.saved_tensors
        places = np.repeat(rows.numpy(), columns.shape[1]), columns.numpy().ravel()
        sparse = coo_matrix((gradient.numpy().ravel(), places), shape=(len(first), len(second)))
        parts = []
        for matrix, table in ((sparse.tocsr(), second), (sparse.T.tocsr(), first)):
            offsets, indices = (torch.from_numpy(array.astype(np.int32)) for array in (matrix.indptr, matrix.indices))
            parts.append(multiply(offsets, indices, torch.from_numpy(matrix.data), table))
        return parts[0], parts[1], None, None
