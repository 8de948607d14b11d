"""Multi-head attention as in T5: no biases, scores not scaled, relative positions as a learned bias.

Shapes: B batch, Q queries, S keys, H heads, E width of a head, D model width. A bias is added to the scores and has a
shape that broadcasts to (B, H, Q, S); ``MASKED`` in it hides a key. Source: Raffel et al. 2020 (arXiv 1910.10683).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.nn.dropout import Dropout
from genrec.nn.packing import MASKED


def key_padding_bias(lengths: Tensor, size: int) -> Tensor:
    """(B, 1, 1, size) bias that hides the keys at and beyond ``lengths`` (B,)."""
    hidden = torch.arange(size, device=lengths.device) >= lengths[:, None]
    return torch.zeros(hidden.shape, device=lengths.device).masked_fill_(hidden, MASKED)[:, None, None, :]


def group_causal_bias(query_groups: Tensor, key_groups: Tensor) -> Tensor:
    """(1, 1, Q, S) bias that hides keys of a later group, e.g. tokens of later items; groups (Q,), (S,) int64."""
    hidden = key_groups[None, :] > query_groups[:, None]
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, MASKED)[None, None]


def relative_position_bucket(relative: Tensor, *, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each key position minus query position: exact for near ones, logarithmic up to ``max_distance``.

    Bidirectional attention gives half of the buckets to each direction; causal attention puts later keys in bucket 0.
    """
    if bidirectional:
        num_buckets //= 2
        bucket = (relative > 0).long() * num_buckets
        distance = relative.abs()
    else:
        bucket = torch.zeros_like(relative)
        distance = (-relative).clamp(min=0)
    exact = num_buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    logarithmic = (exact + (ratio * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return bucket + torch.where(distance < exact, distance, logarithmic)


class RelativePositionBias(nn.Module):
    """A learned scalar per head and bucket of relative positions, shared by all layers of a stack."""

    def __init__(self, num_heads: int, *, bidirectional: bool, num_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.zeros(num_buckets, num_heads))

    def forward(self, size: int, first_query: int = 0) -> Tensor:
        """(1, H, size - first_query, size): the bias of the queries from ``first_query`` on for all ``size`` keys."""
        positions = torch.arange(size, device=self.weight.device)
        return self.of(positions[None, None, :] - positions[None, first_query:, None])

    def of(self, relative: Tensor) -> Tensor:
        """(B, H, Q, S): the bias for the positions of keys minus those of queries, (B, Q, S)."""
        bucket = relative_position_bucket(
            relative, bidirectional=self.bidirectional, num_buckets=self.num_buckets, max_distance=self.max_distance
        )
        return functional.embedding(bucket, self.weight).permute(0, 3, 1, 2)


class RecencyBias(nn.Module):
    """A learned scalar per head, distance in items, and pair of code levels, for targets that look back at a history.

    T5's cross-attention has no positions, because its encoder sees where the input ends. Tokens of an item-causal
    encoder do not know what follows them, so which item is the last one must come from here. Heads start with slopes
    of different steepness (as in ALiBi, arXiv 2108.12409): the steepest sees little but the last item.
    """

    def __init__(self, num_heads: int, num_levels: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.zeros(max_distance, num_levels, num_levels, num_heads))

    def reset_parameters(self) -> None:
        distance = torch.arange(self.max_distance, dtype=torch.float32)[:, None]
        slopes = 2.0 ** -torch.arange(self.weight.shape[-1], dtype=torch.float32)
        with torch.no_grad():
            self.weight.copy_((-distance * slopes)[:, None, None].expand_as(self.weight))

    def forward(self, distances: Tensor) -> Tensor:
        """Distances (R, T, L) in items, 0 for the last one, -> (R, H, T * C, L * C); negative ones count as 0."""
        rows, targets, items = distances.shape
        bias = functional.embedding(distances.clamp(0, self.max_distance - 1), self.weight.flatten(1))
        bias = bias.view(rows, targets, items, *self.weight.shape[1:])  # R, T, L, level of query, level of key, H
        levels = self.weight.shape[1]
        return bias.permute(0, 5, 1, 3, 2, 4).reshape(rows, -1, targets * levels, items * levels)


def attend(query: Tensor, key_value: Tensor, bias: Tensor | None, dropout: Dropout | None = None) -> Tensor:
    """softmax(query @ key^T + bias) @ value: queries (B, Q, H, E), keys and values (B, S, 2, H, E) -> (B, Q, H * E).

    Training on a CPU goes through ``genrec.nn.sublayers`` instead.
    """
    query, (key, value) = query.transpose(1, 2), key_value.permute(2, 0, 3, 1, 4)
    probability = dropout.p if dropout is not None and dropout.active else 0.0
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=probability, scale=1.0)
    return out.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Queries from one sequence, keys and values from another (cross-attention) or the same (self-attention)."""

    def __init__(self, embedding_dim: int, num_heads: int, head_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.inner_dim = num_heads * head_dim
        self.query = nn.Linear(embedding_dim, self.inner_dim, bias=False)
        self.key_value = nn.Linear(embedding_dim, 2 * self.inner_dim, bias=False)
        self.output = nn.Linear(self.inner_dim, embedding_dim, bias=False)
        self.dropout = Dropout(dropout)

    def queries(self, x: Tensor) -> Tensor:
        """(B, Q, D) -> (B, Q, H, E)."""
        return self.query(x).view(*x.shape[:-1], self.num_heads, self.head_dim)

    def keys_values(self, memory: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, 2, H, E)."""
        return self.key_value(memory).view(*memory.shape[:-1], 2, self.num_heads, self.head_dim)

    def forward(self, x: Tensor, keys_values: Tensor, bias: Tensor | None) -> Tensor:
        """``x`` (B, Q, D) attends to ``keys_values`` (B, S, 2, H, E); returns (B, Q, D)."""
        return self.output(attend(self.queries(x), keys_values, bias, self.dropout))
