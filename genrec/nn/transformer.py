"""A T5 encoder-decoder over token vectors: pre-normalised blocks, no biases, ReLU feed-forward.

Shapes: B batch, S tokens of the history, T targets per history, C tokens per target, R rows, D width.
Equal to ``transformers.T5Model`` on the same weights (a test). Source: Raffel et al. 2020 (arXiv 1910.10683).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.nn.attention import Attention, RecencyBias, RelativePositionBias, group_causal_bias
from genrec.nn.dropout import Dropout


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


class EncoderBlock(nn.Module):
    """Self-attention, then feed-forward, each normalised before and added to its input."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(size.embedding_dim)
        self.attention = Attention(size.embedding_dim, size.num_heads, size.head_dim, size.attention_dropout)
        self.feedforward_norm = RMSNorm(size.embedding_dim)
        self.feedforward = FeedForward(size)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        x = self.dropout.add(x, self.attention(normed, self.attention.keys_values(normed), bias))
        return self.dropout.add(x, self.feedforward(self.feedforward_norm(x)))


class Encoder(nn.Module):
    """History tokens to memory; the caller's bias says which tokens see which."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.position_bias = RelativePositionBias(size.num_heads, bidirectional=True)
        self.blocks = nn.ModuleList(EncoderBlock(size) for _ in range(size.num_layers))
        self.norm = RMSNorm(size.embedding_dim)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` (B, S, D), a bias that broadcasts to (B, H, S, S) or None (all tokens see all); returns (B, S, D)."""
        x = self.dropout(x)
        positions = self.position_bias(x.shape[1])
        total = positions if bias is None else positions + bias
        for block in self.blocks:
            x = block(x, total)
        return self.dropout(self.norm(x))


class DecoderBlock(nn.Module):
    """Self-attention within a target, cross-attention to the history, feed-forward."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        sizes = (size.embedding_dim, size.num_heads, size.head_dim, size.attention_dropout)
        self.attention_norm = RMSNorm(size.embedding_dim)
        self.attention = Attention(*sizes)
        self.cross_norm = RMSNorm(size.embedding_dim)
        self.cross = Attention(*sizes)
        self.feedforward_norm = RMSNorm(size.embedding_dim)
        self.feedforward = FeedForward(size)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor, cross_bias: Tensor | None) -> Tensor:
        """``x`` (B, T, C, D): self-attention stays within each of the T targets, which share one memory (B, S, D)."""
        normed = self.attention_norm(x).flatten(0, 1)
        inside = self.attention(normed, self.attention.keys_values(normed), bias)
        x = self.dropout.add(x, inside.view_as(x))
        across = self.cross(self.cross_norm(x).flatten(1, 2), self.cross.keys_values(memory), cross_bias)
        x = self.dropout.add(x, across.view_as(x))
        return self.dropout.add(x, self.feedforward(self.feedforward_norm(x)))

    def step(
        self, x: Tensor, past: Tensor | None, bias: Tensor, keys_values: Tensor, cross_bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One token for each beam of each row, ``x`` (B, beams, D): beams are the queries of one cross-attention."""
        inside, present = self.attention.step(self.attention_norm(x).flatten(0, 1), past, bias)
        x = x + inside.view_as(x)
        x = x + self.cross(self.cross_norm(x), keys_values, cross_bias)
        return x + self.feedforward(self.feedforward_norm(x)), present


@dataclass
class DecoderCache:
    """What decoding keeps of a batch: the history's keys and values per layer, and those of the tokens so far.

    ``memory`` holds (B, S, 2, H, E), computed once per row and never per beam; ``past`` holds (B * beams, P, 2, H, E).
    ``cross_bias`` broadcasts to (B, H, 1, S), or holds a row for each of the C tokens, (B, H, C, S).
    """

    memory: list[Tensor]
    cross_bias: Tensor | None
    past: list[Tensor] = field(default_factory=list)
    num_tokens: int = 0

    @property
    def bias_of_next(self) -> Tensor | None:
        """The cross-attention bias of the token that comes next, where each token of a target has its own."""
        bias = self.cross_bias
        return bias if bias is None or bias.shape[2] == 1 else bias[:, :, self.num_tokens, None]

    def reorder(self, parents: Tensor) -> None:
        """Row b's beam i continues what was its beam ``parents[b, i]``."""
        batch_size = len(parents)
        beams = self.past[0].shape[0] // batch_size
        rows = (parents + beams * torch.arange(batch_size, device=parents.device)[:, None]).flatten()
        self.past = [past.index_select(0, rows) for past in self.past]


class Decoder(nn.Module):
    """Target tokens to hidden states, given the memory of a history."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.position_bias = RelativePositionBias(size.num_heads, bidirectional=False)
        self.blocks = nn.ModuleList(DecoderBlock(size) for _ in range(size.num_layers))
        self.norm = RMSNorm(size.embedding_dim)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, memory: Tensor, cross_bias: Tensor | None = None) -> Tensor:
        """``x`` (B, T, C, D), ``memory`` (B, S, D), a bias that broadcasts to (B, H, T * C, S) -> (B, T, C, D)."""
        x = self.dropout(x)
        places = torch.arange(x.shape[2], device=x.device)
        bias = self.position_bias(x.shape[2]) + group_causal_bias(places, places)
        for block in self.blocks:
            x = block(x, memory, bias, cross_bias)
        return self.dropout(self.norm(x))

    @property
    def _blocks(self) -> list[DecoderBlock]:
        return cast("list[DecoderBlock]", self.blocks)

    def start(self, memory: Tensor, cross_bias: Tensor | None) -> DecoderCache:
        return DecoderCache([block.cross.keys_values(memory) for block in self._blocks], cross_bias)

    def step(self, x: Tensor, cache: DecoderCache) -> Tensor:
        """The hidden states (B, beams, D) of the next token of each beam, whose keys and values join the cache."""
        bias = self.position_bias(cache.num_tokens + 1, first_query=cache.num_tokens)
        presents = []
        for layer, block in enumerate(self._blocks):
            past = cache.past[layer] if cache.past else None
            x, present = block.step(x, past, bias, cache.memory[layer], cache.bias_of_next)
            presents.append(present)
        cache.past, cache.num_tokens = presents, cache.num_tokens + 1
        return self.norm(x)


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
