"""Decoding token by token: what is kept of the beams of a batch, so that nothing is computed twice or moved.

Keys and values of a token are computed once and stay where they are. A beam is a path through them: the tokens of all
beams of a row are the keys of one product, and a bias hides those that are not on a beam's own path. So reordering the
beams moves a few integers, and the history is read once per row, never per beam.

Shapes: B rows, W beams, S tokens of a history, N tokens decoded for a row so far, P tokens of a path, H heads, E width
of a head, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from genrec.nn.packing import MASKED
from genrec.nn.sublayers import attention_weights, heads_first, heads_last, normalize


@dataclass(frozen=True)
class BlockWeights:
    """The weights of a block, not copied; those of cross-attention are None in a stack without a memory."""

    epsilon: float
    norm: Tensor
    query: Tensor
    key_value: Tensor
    output: Tensor
    feedforward_norm: Tensor
    first: Tensor
    second: Tensor
    cross_norm: Tensor | None = None
    cross_query: Tensor | None = None
    cross_output: Tensor | None = None


class PositionBias(Protocol):
    """The bias (B, H, Q, S) of keys at positions relative to queries, (B, Q, S)."""

    def of(self, relative: Tensor) -> Tensor: ...


class BeamLayer:
    """One block: its weights, the keys and values of ``memory`` (2, B * H, S, E) and of the tokens so far."""

    def __init__(self, weights: BlockWeights, num_heads: int) -> None:
        self.weights = weights
        self.num_heads = num_heads
        self.memory: Tensor | None = None
        self.past: Tensor | None = None  # (2, B * H, history and decoded tokens, E)

    def read(self, x: Tensor, bias: Tensor) -> Tensor:
        """The tokens of a history all at once, (B, S, D) -> (B, S, D); they become the past."""
        return self._feed(self._attend(x, bias))

    def step(self, x: Tensor, bias: Tensor, cross_bias: Tensor | None) -> Tensor:
        """One token of each beam (B, W, D); biases broadcast to (B, H, W, past tokens) and (B, H, W, S)."""
        x, own = self._attend(x, bias), self.weights
        if self.memory is not None and own.cross_norm is not None:
            assert own.cross_query is not None and own.cross_output is not None
            query = functional.linear(self._normed(x, own.cross_norm), own.cross_query)
            x = self._add_attention(x, query, self.memory, cross_bias, own.cross_output)
        return self._feed(x)

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        own = self.weights
        normed = self._normed(x, own.norm)
        new = heads_first(functional.linear(normed, own.key_value), len(x), 2, self.num_heads)
        self.past = new if self.past is None else torch.cat([self.past, new], dim=2)
        return self._add_attention(x, functional.linear(normed, own.query), self.past, bias, own.output)

    def _add_attention(self, x: Tensor, query: Tensor, pair: Tensor, bias: Tensor | None, output: Tensor) -> Tensor:
        (queries,) = heads_first(query, len(x), 1, self.num_heads)
        weights, _ = attention_weights(queries, pair[0], bias, self.num_heads, None)
        joined = heads_last(torch.bmm(weights, pair[1])[None], len(x))
        return x + functional.linear(joined, output).to(x.dtype).view_as(x)

    def _feed(self, x: Tensor) -> Tensor:
        own = self.weights
        hidden = functional.linear(self._normed(x, own.feedforward_norm), own.first).relu_()
        return x + functional.linear(hidden, own.second).to(x.dtype).view_as(x)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        normed, _ = normalize(x.flatten(0, 1), self.weights.epsilon, x.dtype)
        return normed.mul_(weight)


class BeamCache:
    """All layers of a stack, and the path of each beam through the tokens decoded so far.

    ``cross_bias`` broadcasts to (B, H, 1, S), or holds a row for each token of a target, (B, H, C, S). ``lengths`` (B,)
    are given where the layers have read a history themselves: decoded tokens continue it.
    """

    def __init__(
        self,
        layers: Sequence[BeamLayer],
        positions: PositionBias,
        batch_size: int,
        device: torch.device,
        *,
        cross_bias: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        self.layers = layers
        self.positions = positions
        self.cross_bias = cross_bias
        self.lengths = lengths
        self.history = 0 if lengths is None or layers[0].past is None else layers[0].past.shape[2]
        self.num_tokens = 0  # of every path
        self.places = torch.zeros(0, dtype=torch.int64, device=device)  # (N,) which token of its path each token is
        self.paths = torch.zeros(batch_size, 1, 0, dtype=torch.int64, device=device)  # (B, W, P) among the N tokens

    def reorder(self, parents: Tensor) -> None:
        """Row b's beam i continues what was its beam ``parents[b, i]``; before the first token all beams are alike."""
        if self.paths.shape[1] == 1:
            self.paths = self.paths.expand(-1, parents.shape[1], -1)
        else:
            self.paths = self.paths.gather(1, parents[..., None].expand(-1, -1, self.num_tokens))

    def step(self, x: Tensor) -> Tensor:
        """The next token of each beam (B, W, D) through all layers."""
        rows, beams, _ = x.shape
        new = torch.arange(len(self.places), len(self.places) + beams, device=x.device)
        self.places = torch.cat([self.places, torch.full_like(new, self.num_tokens)])
        self.paths = torch.cat([self.paths.expand(rows, beams, -1), new[:, None].expand(rows, -1, -1)], dim=2)
        bias = self._bias()
        cross_bias = self.cross_bias
        if cross_bias is not None and cross_bias.shape[2] > 1:
            cross_bias = cross_bias[:, :, self.num_tokens, None]
        for layer in self.layers:
            x = layer.step(x, bias, cross_bias)
        self.num_tokens += 1
        return x

    def _bias(self) -> Tensor:
        """(B, H, W, history and decoded tokens): positions, and what hides the tokens that are not on a beam's path."""
        hidden = torch.full((*self.paths.shape[:2], len(self.places)), MASKED, device=self.paths.device)
        hidden.scatter_(2, self.paths, 0.0)
        bias = hidden[:, None] + self.positions.of(self.places[None, None] - self.num_tokens)
        if self.lengths is None:
            return bias
        keys = torch.arange(self.history, device=bias.device)
        relative = keys - (self.lengths[:, None, None] + self.num_tokens)  # (B, 1, history)
        told = self.positions.of(relative).masked_fill(keys >= self.lengths[:, None, None, None], MASKED)
        return torch.cat([told.expand(-1, -1, bias.shape[2], -1), bias], dim=3)
