"""A T5 encoder-decoder over token vectors: pre-normalised blocks, no biases, ReLU feed-forward.

Shapes: B batch, S tokens of the history, T targets per history, C tokens per target, R rows, D width.
Equal to ``transformers.T5Model`` on the same weights (a test). Source: Raffel et al. 2020 (arXiv 1910.10683).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.nn.attention import Attention, RecencyBias, RelativePositionBias, group_causal_bias
from genrec.nn.beams import BeamCache, BlockWeights, WeightCache, start_layers
from genrec.nn.dropout import Dropout
from genrec.nn.packing import block_diagonal, dividing_rows_of_window, pad_rows, rows_of_window
from genrec.nn.sublayers import (
    cross_attention_sublayer,
    feedforward_sublayer,
    product_type,
    replaces_autograd,
    self_attention_sublayer,
)


@dataclass(frozen=True)
class TransformerSize:
    """Sizes of a stack; ``attention_dropout`` drops attention weights, ``dropout`` everything else that T5 drops."""

    embedding_dim: int
    num_layers: int
    num_heads: int
    head_dim: int
    feedforward_dim: int
    dropout: float = 0.0
    attention_dropout: float = 0.0


class RMSNorm(nn.Module):
    """x / rms(x) * weight: layer normalisation without mean and without bias."""

    def __init__(self, embedding_dim: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(embedding_dim))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class FeedForward(nn.Module):
    """Two products with a ReLU between them."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.input = nn.Linear(size.embedding_dim, size.feedforward_dim, bias=False)
        self.output = nn.Linear(size.feedforward_dim, size.embedding_dim, bias=False)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden, scale = self.dropout.relu(self.input(x))
        out = self.output(hidden)
        return out if scale == 1.0 else out * scale


class Block(nn.Module):
    """What blocks of both stacks have: self-attention and feed-forward, each normalised before and added."""

    divided_alone = True

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(size.embedding_dim)
        self.attention = Attention(size.embedding_dim, size.num_heads, size.head_dim, size.attention_dropout)
        self.feedforward_norm = RMSNorm(size.embedding_dim)
        self.feedforward = FeedForward(size)
        self.dropout = Dropout(size.dropout)

    def attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """``x`` (B, S, D) plus its attention to itself."""
        layer = self.attention
        if replaces_autograd(x):
            return self_attention_sublayer(
                x,
                self.attention_norm.weight,
                layer.query.weight,
                layer.key_value.weight,
                layer.output.weight,
                bias,
                num_heads=layer.num_heads,
                epsilon=self.attention_norm.epsilon,
                weights=layer.dropout,
                dropout=self.dropout,
            )
        normed = self.attention_norm(x)
        return self.dropout.add(x, layer(normed, layer.keys_values(normed), bias))

    def feed(self, x: Tensor) -> Tensor:
        """``x`` (..., D) plus the feed-forward layer of it."""
        layer = self.feedforward
        if replaces_autograd(x):
            return feedforward_sublayer(
                x,
                self.feedforward_norm.weight,
                layer.input.weight,
                layer.output.weight,
                epsilon=self.feedforward_norm.epsilon,
                hidden=layer.dropout,
                output=self.dropout,
            )
        return self.dropout.add(x, layer(self.feedforward_norm(x)))


class EncoderBlock(Block):
    """Self-attention, then feed-forward."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.feed(self.attend(x, bias))


class Encoder(nn.Module):
    """History tokens to memory; the caller's bias says which tokens see which."""

    def __init__(self, size: TransformerSize, *, bidirectional: bool = True) -> None:
        super().__init__()
        self.position_bias = RelativePositionBias(size.num_heads, bidirectional=bidirectional)
        self.blocks = nn.ModuleList(EncoderBlock(size) for _ in range(size.num_layers))
        self.norm = RMSNorm(size.embedding_dim)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` (B, S, D), a bias that broadcasts to (B, H, S, S) or None (all tokens see all); returns (B, S, D)."""
        rows, length, _ = x.shape
        positions = self.position_bias(length)
        total = positions if bias is None else positions + bias
        if replaces_autograd(x):
            window = min(rows_of_window(length), rows)
            x = pad_rows(x, window).reshape(-1, window * length, x.shape[2])
            total = block_diagonal(total, window)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, total)
        return self.dropout(self.norm(x)).view(-1, length, x.shape[2])[:rows]


class DecoderBlock(Block):
    """Self-attention within a target, cross-attention to the history, feed-forward."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__(size)
        self.cross_norm = RMSNorm(size.embedding_dim)
        self.cross = Attention(size.embedding_dim, size.num_heads, size.head_dim, size.attention_dropout)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor, cross_bias: Tensor | None) -> Tensor:
        """``x`` (B, Q, D), ``memory`` (B, S, D), the bias of self-attention for groups of tokens (1, H, P, P).

        P divides B * Q or, where it does not, the last group is filled up; self-attention stays within a group.
        """
        shape, size = x.shape, bias.shape[-1]
        groups = pad_rows(x.flatten(0, 1), size).view(-1, size, shape[2])
        x = self.attend(groups, bias).view(-1, shape[2])
        x = (x if len(x) == shape[0] * shape[1] else x[: shape[0] * shape[1]]).view(shape)
        return self.feed(self.look(x, memory, cross_bias))

    def look(self, x: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """``x`` (B, Q, D) plus its attention to ``memory`` (B, S, D)."""
        layer = self.cross
        if replaces_autograd(x):
            return cross_attention_sublayer(
                x,
                memory,
                self.cross_norm.weight,
                layer.query.weight,
                layer.key_value.weight,
                layer.output.weight,
                bias,
                num_heads=layer.num_heads,
                epsilon=self.cross_norm.epsilon,
                weights=layer.dropout,
                dropout=self.dropout,
            )
        return self.dropout.add(x, layer(self.cross_norm(x), layer.keys_values(memory), bias))


class Decoder(nn.Module):
    """Target tokens to hidden states, given the memory of a history."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.position_bias = RelativePositionBias(size.num_heads, bidirectional=False)
        self.blocks = nn.ModuleList(DecoderBlock(size) for _ in range(size.num_layers))
        self.norm = RMSNorm(size.embedding_dim)
        self.dropout = Dropout(size.dropout)
        self._weights = WeightCache()

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._weights.clear()
        return super().train(mode)

    def forward(self, x: Tensor, memory: Tensor, cross_bias: Tensor | None = None) -> Tensor:
        """``x`` (B, T, C, D), ``memory`` (B, S, D), a bias that broadcasts to (B, H, T * C, S) -> (B, T, C, D).

        Self-attention stays within each of the T targets, which share one memory.
        """
        (rows, targets, codes, width), keys = x.shape, memory.shape[1]
        places = torch.arange(codes, device=x.device)
        bias = self.position_bias(codes) + group_causal_bias(places, places)
        x = x.flatten(1, 2)
        if replaces_autograd(x):
            window = min(rows_of_window(keys), rows)
            x = pad_rows(x, window).reshape(-1, window * targets * codes, width)
            memory = pad_rows(memory, window).reshape(-1, window * keys, width)
            if window > 1:
                of_rows = bias.new_zeros(1, 1, 1, keys) if cross_bias is None else cross_bias
                cross_bias = block_diagonal(of_rows.expand(-1, -1, targets * codes, -1), window)
            num_targets = x.shape[0] * x.shape[1] // codes
            bias = block_diagonal(bias, min(dividing_rows_of_window(codes, num_targets), num_targets))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, memory, bias, cross_bias)
        return self.dropout(self.norm(x)).view(-1, targets, codes, width)[:rows]

    def start(self, memory: Tensor, bias: Tensor | None) -> BeamCache:
        """What decoding keeps of a batch of histories, ``memory`` (B, S, D), none of whose targets has a token yet."""
        rows = len(memory)
        blocks = [block_weights(block) for block in cast("list[DecoderBlock]", self.blocks)]
        layers = start_layers(self._weights, blocks, memory)
        memory = memory.flatten(0, 1).to(product_type(memory))
        for layer in layers:
            layer.remember(memory, rows)
        return BeamCache(layers, self.position_bias, rows, memory.device, cross_bias=bias)

    def step(self, x: Tensor, cache: BeamCache) -> Tensor:
        """The hidden states (B, W, D) of the next token (B, W, D) of each beam, which joins the cache."""
        return self.norm(cache.step(x))


class CausalStack(Encoder):
    """Self-attention of each token to itself and those before it: a decoder that reads histories by itself."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__(size, bidirectional=False)
        self._weights = WeightCache()

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._weights.clear()
        return super().train(mode)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` (B, S, D) filled from the left, so that padding on the right needs no mask; returns (B, S, D)."""
        places = torch.arange(x.shape[1], device=x.device)
        causal = group_causal_bias(places, places)
        return super().forward(x, causal if bias is None else causal + bias)

    def start(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, BeamCache]:
        """The hidden states (B, D) of the last tokens of histories (B, S, D), and what decoding keeps of them."""
        rows, length, _ = x.shape
        places = torch.arange(length, device=x.device)
        bias = self.position_bias(length) + group_causal_bias(places, places)
        blocks = [block_weights(block) for block in cast("list[EncoderBlock]", self.blocks)]
        layers = start_layers(self._weights, blocks, x)
        for layer in layers:
            x = layer.read(x, bias)
        cache = BeamCache(layers, self.position_bias, rows, x.device, lengths=lengths)
        return self.norm(x[torch.arange(rows, device=x.device), lengths - 1]), cache

    def step(self, x: Tensor, cache: BeamCache) -> Tensor:
        """The hidden states (B, W, D) of the next token (B, W, D) of each beam, which joins the cache."""
        return self.norm(cache.step(x))


def block_weights(block: EncoderBlock | DecoderBlock) -> BlockWeights:
    """A block's weights as decoding wants them."""
    cross = block.cross if isinstance(block, DecoderBlock) else None
    return BlockWeights(
        epsilon=block.attention_norm.epsilon,
        num_heads=block.attention.num_heads,
        norm=block.attention_norm.weight,
        query=block.attention.query.weight,
        key_value=block.attention.key_value.weight,
        output=block.attention.output.weight,
        feedforward_norm=block.feedforward_norm.weight,
        first=block.feedforward.input.weight,
        second=block.feedforward.output.weight,
        cross_norm=block.cross_norm.weight if isinstance(block, DecoderBlock) else None,
        cross_query=cross.query.weight if cross is not None else None,
        cross_key_value=cross.key_value.weight if cross is not None else None,
        cross_output=cross.output.weight if cross is not None else None,
    )


def initialise_t5(module: nn.Module, size: TransformerSize) -> None:
    """T5's initial weights: each product keeps the scale of its input, queries absorb the missing 1 / sqrt(E)."""
    width, inner = size.embedding_dim**-0.5, (size.num_heads * size.head_dim) ** -0.5
    for part in module.modules():
        if isinstance(part, Attention):
            nn.init.normal_(part.query.weight, std=width * part.head_dim**-0.5)
            nn.init.normal_(part.key_value.weight, std=width)
            nn.init.normal_(part.output.weight, std=inner)
        if isinstance(part, FeedForward):
            nn.init.normal_(part.input.weight, std=width)
            nn.init.normal_(part.output.weight, std=size.feedforward_dim**-0.5)
        if isinstance(part, RelativePositionBias):
            nn.init.normal_(part.weight, std=width)
        if isinstance(part, RecencyBias):
            part.reset_parameters()
