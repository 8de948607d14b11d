"""Blocks over the items of a history in which a position sees itself and earlier ones only.

Shapes: B rows, L positions, D width, H heads, E width of a head. Every block maps (B, L, D) to (B, L, D). Rows are
filled from the left, so what stands in the padding on the right changes nothing before it and needs no mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from genrec.nn.dropout import Dropout


def causal_attention(query_key_value: Tensor, dropout: Dropout) -> Tensor:
    """softmax(query @ key^T / sqrt(E)) @ value over earlier positions: (B, L, 3, H, E) -> (B, L, H * E)."""
    if query_key_value.device.type == "cpu":
        num_rows, length, _, heads, _ = query_key_value.shape
        mask = dropout(query_key_value.new_ones(num_rows * heads, length, length)) if dropout.active else None
        return _CausalAttention.apply(query_key_value, mask)  # pyright: ignore[reportReturnType]
    query, key, value = query_key_value.permute(2, 0, 3, 1, 4)
    probability = dropout.p if dropout.active else 0.0
    out = functional.scaled_dot_product_attention(query, key, value, dropout_p=probability, is_causal=True)
    return out.transpose(1, 2).flatten(2)


class _CausalAttention(torch.autograd.Function):
    """Attention by batched products: on rows of tens of items a CPU is faster so than by the fused kernel.

    Operands are copied once, heads outermost; the mask of the future and the scale are part of the product.
    """

    @staticmethod
    def forward(ctx: Any, query_key_value: Tensor, mask: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            num_rows, length, _, heads, width = query_key_value.shape
            split = query_key_value.permute(2, 0, 3, 1, 4).reshape(3, num_rows * heads, length, width)
            query, key, value = split
            scores = torch.baddbmm(_future(length, split), query, key.mT, alpha=width**-0.5)
            weights = torch.softmax(scores, dim=-1)
            dropped = weights if mask is None else weights * mask
            ctx.save_for_backward(split, weights, dropped, mask)
            out = torch.bmm(dropped, value).view(num_rows, heads, length, width)
            return out.transpose(1, 2).reshape(num_rows, length, heads * width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        split, weights, dropped, mask = ctx.saved_tensors
        query, key, value = split
        num_rows, length, _ = gradient.shape
        heads, width = len(query) // num_rows, query.shape[-1]
        gradient = gradient.view(num_rows, length, heads, width).transpose(1, 2).reshape(query.shape)
        of_split = torch.empty_like(split)
        torch.bmm(dropped.mT, gradient, out=of_split[2])
        of_weights = torch.bmm(gradient, value.mT)
        if mask is not None:
            of_weights.mul_(mask)
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(width**-0.5)
        torch.bmm(of_scores, key, out=of_split[0])
        torch.bmm(of_scores.mT, query, out=of_split[1])
        # Contiguous here, once, so that the product that receives it need not copy it twice.
        return of_split.view(3, num_rows, heads, length, width).permute(1, 3, 0, 2, 4).contiguous(), None


def _future(length: int, like: Tensor) -> Tensor:
    """(1, L, L) with -inf at later positions."""
    return torch.full((1, length, length), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


class CausalAttention(nn.Module):
    """Multi-head self-attention to earlier positions; one product makes queries, keys and values."""

    def __init__(self, embedding_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(embedding_dim, 3 * embedding_dim)
        self.output = nn.Linear(embedding_dim, embedding_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        query_key_value = self.query_key_value(x).view(*x.shape[:-1], 3, self.num_heads, -1)
        return self.output(causal_attention(query_key_value, self.dropout))


class TransformerBlock(nn.Module):
    """Pre-normalised self-attention and ReLU feed-forward, each dropped out and added to its input."""

    divided_alone = True

    def __init__(self, embedding_dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embedding_dim)
        self.attention = CausalAttention(embedding_dim, num_heads, dropout)
        self.feedforward_norm = nn.LayerNorm(embedding_dim)
        self.input = nn.Linear(embedding_dim, feedforward_dim)
        self.output = nn.Linear(feedforward_dim, embedding_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout.add(x, self.attention(self.attention_norm(x)))
        hidden = functional.relu(self.input(self.feedforward_norm(x)))
        return self.dropout.add(x, self.output(self.dropout(hidden)))


class LiGRBlock(nn.Module):
    """A transformer block whose two branches pass gates computed from the block's input, with SwiGLU feed-forward.

    x + dropout(attention(norm(x)) * sigmoid(W x)), likewise for the feed-forward. Sources: Borisyuk et al. 2025
    (LiGR, arXiv 2502.03417); as the block of eSASRec, Tikhonovich et al., RecSys 2025.
    """

    divided_alone = True

    def __init__(self, embedding_dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embedding_dim)
        self.attention = CausalAttention(embedding_dim, num_heads, dropout)
        self.attention_gate = nn.Linear(embedding_dim, embedding_dim)
        self.feedforward_norm = nn.LayerNorm(embedding_dim)
        self.input = nn.Linear(embedding_dim, 2 * feedforward_dim)  # the gate of SwiGLU, then what it gates
        self.output = nn.Linear(feedforward_dim, embedding_dim)
        self.feedforward_gate = nn.Linear(embedding_dim, embedding_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(self.attention_norm(x))
        x = self.dropout.add(x, attended * torch.sigmoid(self.attention_gate(x)))
        gate, value = self.input(self.feedforward_norm(x)).chunk(2, dim=-1)
        expanded = self.output(self.dropout(functional.silu(gate) * value))
        return self.dropout.add(x, expanded * torch.sigmoid(self.feedforward_gate(x)))


class HSTUBlock(nn.Module):
    """Attention whose weights are SiLU of the scores instead of a softmax, gated by the input.

    U, V, Q, K = SiLU(W norm(x)); x + W' dropout(norm(SiLU(Q K^T + bias) V / max_length) * U), where the bias is
    learned for each head and distance. Source: Zhai et al. 2024 (arXiv 2402.17152), equations 1 to 3.
    """

    divided_alone = True

    def __init__(self, embedding_dim: int, num_heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.max_length = max_length
        self.norm = nn.LayerNorm(embedding_dim)
        self.input = nn.Linear(embedding_dim, 4 * embedding_dim)
        self.distance_bias = nn.Parameter(torch.zeros(num_heads, max_length))
        self.attended_norm = nn.LayerNorm(embedding_dim, eps=1e-6)
        self.output = nn.Linear(embedding_dim, embedding_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        num_rows, length, width = x.shape
        parts = functional.silu(self.input(self.norm(x)))
        gate, rest = parts.split([width, 3 * width], dim=-1)
        value, query, key = rest.view(num_rows, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, L, E)
        positions = torch.arange(length, device=x.device)
        distances = positions[:, None] - positions
        bias = self.distance_bias[:, distances.clamp(min=0)]  # (H, L, L)
        scale = (distances >= 0) / self.max_length
        weights = functional.silu(query @ key.mT + bias) * scale
        attended = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return x + self.output(self.dropout(self.attended_norm(attended) * gate))
