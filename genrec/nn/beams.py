"""Decoding token by token: what is kept of the beams of a batch, so that nothing is computed twice or moved.

Keys and values of a token are computed once and stay where they are. A beam is a path through them: reordering the
beams moves a few integers, and the history is read once per row, never per beam. Where a stack looks at a memory, the
weights of its queries are multiplied into the keys, and those of its output into the values, once per row: then the
hidden states of the beams need no products of their own.

Shapes: B rows, W beams, T = B * W, S tokens of a history, N earlier tokens of a row whose keys are at hand, P tokens of
a path before the present one, H heads, E width of a head, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from genrec.nn.packing import MASKED
from genrec.nn.sublayers import attention_weights, heads_first, heads_last, normalize, product_type


@dataclass(frozen=True)
class BlockWeights:
    """The weights of a block, not copied; those of cross-attention are None in a stack without a memory."""

    epsilon: float
    num_heads: int
    norm: Tensor
    query: Tensor
    key_value: Tensor
    output: Tensor
    feedforward_norm: Tensor
    first: Tensor
    second: Tensor
    cross_norm: Tensor | None = None
    cross_query: Tensor | None = None
    cross_key_value: Tensor | None = None
    cross_output: Tensor | None = None


class DecodingWeights:
    """A block's weights in the type of products, each with the norm before it multiplied in and laid out to be read.

    All are (in, out), which on a CPU is read much faster than (out, in) when the batch is small.
    """

    def __init__(self, weights: BlockWeights, dtype: torch.dtype) -> None:
        def laid_out(weight: Tensor) -> Tensor:
            return weight.to(dtype).t().contiguous()

        self.epsilon = weights.epsilon
        self.num_heads = weights.num_heads
        key, value = weights.key_value.chunk(2)
        self.query_key = laid_out(torch.cat([weights.query, key]) * weights.norm)  # (D, 2 * H * E)
        self.value = laid_out(value * weights.norm)  # (D, H * E)
        self.output = laid_out(weights.output)
        self.first = laid_out(weights.first * weights.feedforward_norm)
        self.second = laid_out(weights.second)
        self.memory_key: Tensor | None = None  # (D, H * D): a hidden state times a key so made is its score
        self.memory_value: Tensor | None = None  # (D, H * D): values so made, weighted and added, are the output
        if weights.cross_key_value is not None:
            assert weights.cross_norm is not None
            assert weights.cross_query is not None and weights.cross_output is not None
            key, value = (part.unflatten(0, (self.num_heads, -1)) for part in weights.cross_key_value.chunk(2))
            query = (weights.cross_query * weights.cross_norm).unflatten(0, (self.num_heads, -1))  # (H, E, D)
            output = weights.cross_output.unflatten(1, (self.num_heads, -1)).transpose(0, 1)  # (H, D, E)
            self.memory_key = laid_out(torch.bmm(query.mT, key).flatten(0, 1))
            self.memory_value = laid_out(torch.bmm(output, value).flatten(0, 1))


class WeightCache:
    """The decoding weights of a stack, made anew only when what they are made of has changed.

    Fused optimizers change weights without PyTorch's version counters, so a stack must ``clear`` this when its training
    begins (``Module.train``); what is changed in evaluation mode by anything else is noticed.
    """

    def __init__(self) -> None:
        self._stamp: tuple[object, ...] | None = None
        self._made: list[DecodingWeights] = []

    def clear(self) -> None:
        self._stamp, self._made = None, []

    @torch.no_grad()
    def of(self, blocks: Sequence[BlockWeights], dtype: torch.dtype) -> list[DecodingWeights]:
        sources = [part for block in blocks for part in _tensors(block)]
        stamp = (dtype, *(source._version for source in sources), *(source.data_ptr() for source in sources))
        if stamp != self._stamp:
            with torch.autocast(sources[0].device.type, enabled=False):
                self._made = [DecodingWeights(block, dtype) for block in blocks]
            self._stamp = stamp
        return self._made


def _tensors(weights: BlockWeights) -> list[Tensor]:
    values = [getattr(weights, field.name) for field in fields(weights)]
    return [value for value in values if isinstance(value, Tensor)]


class PositionBias(Protocol):
    """The bias (B, H, Q, S) of keys at positions relative to queries, (B, Q, S)."""

    def of(self, relative: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Paths:
    """Where a step's beams find the tokens before them, the same for all layers."""

    columns: Tensor  # (B, H, W, P) expanded: which of the row's N tokens
    rows: Tensor  # (T * H, P + 1) the rows (E,) of the values of these tokens and of the present one, per head
    bias: Tensor  # (1, H, 1, P + 1) of their positions
    history_bias: Tensor | None  # (B, H, 1, S) where the stack has read a history itself
    memory_bias: Tensor | None  # (B, S, 1 or H, 1) where it looks at a memory


class BeamLayer:
    """One block: its weights, the keys and values of a history or memory, and those of the tokens decoded so far."""

    def __init__(self, weights: DecodingWeights) -> None:
        self.weights = weights
        self.memory: tuple[Tensor, Tensor] | None = None  # keys and values, (B, S * H, D) each
        self.history: Tensor | None = None  # keys and values, (2, B * H, S, E)
        self.keys: Tensor | None = None  # (B * H, N, E); the last step's join them when another follows
        self._last_keys: Tensor | None = None  # (B * H, W, E)
        self._values: Tensor | None = None  # (capacity, H * E), one step after the other
        self.num_values = 0

    def remember(self, memory: Tensor, rows: int) -> None:
        """Takes keys and values of a memory (B * S, D)."""
        own = self.weights
        assert own.memory_key is not None and own.memory_value is not None
        width = memory.shape[1]
        key, value = torch.mm(memory, own.memory_key), torch.mm(memory, own.memory_value)
        self.memory = key.view(rows, -1, width), value.view(rows, -1, width)

    def read(self, x: Tensor, bias: Tensor) -> Tensor:
        """The tokens of a history all at once, (B, S, D) -> (B, S, D); their keys and values are kept."""
        own, rows = self.weights, len(x)
        residual = x.flatten(0, 1).clone()
        normed = self._normed(residual)
        queries, keys = heads_first(torch.mm(normed, own.query_key), rows, 2, own.num_heads)
        (values,) = heads_first(torch.mm(normed, own.value), rows, 1, own.num_heads)
        self.history = torch.stack([keys, values])
        weights, _ = attention_weights(queries, keys, bias, own.num_heads, None)
        _add_product(residual, heads_last(torch.bmm(weights, values)[None], rows), own.output)
        self._feed(residual)
        return residual.view_as(x)

    def step(self, x: Tensor, rows: int, paths: Paths) -> None:
        """Adds to one token of each beam, (T, D)."""
        own = self.weights
        _add_product(x, self._attended(self._normed(x), rows, paths), own.output)
        if self.memory is not None:
            self._look(x.view(rows, -1, x.shape[1]), paths.memory_bias)
        self._feed(x)

    def _attended(self, normed: Tensor, rows: int, paths: Paths) -> Tensor:
        """(T, H * E): what each beam finds at the tokens of its path, itself, and the history."""
        own, heads = self.weights, self.weights.num_heads
        query_key = torch.mm(normed, own.query_key)
        values = self._append(normed)
        queries, new_keys = heads_first(query_key, rows, 2, heads)
        past = paths.columns.shape[3]
        self._join()
        self._last_keys = new_keys
        if past == 0 and self.history is None:  # a first token sees nothing but itself
            return values[-len(normed) :]
        query, key = query_key.view(len(normed), 2, heads, -1).unbind(1)
        scores = [(query * key).sum(-1, dtype=torch.float32).view(rows, -1, heads).transpose(1, 2)[..., None]]
        if past:
            assert self.keys is not None
            found = torch.bmm(queries, self.keys.mT)  # (B * H, W, N)
            scores.insert(0, found.view(rows, heads, -1, found.shape[2]).gather(3, paths.columns).float())
        joined = torch.cat(scores, dim=3).add_(paths.bias)  # (B, H, W, P + 1)
        if self.history is None:
            return self._gathered(torch.softmax(joined, dim=-1), values, paths)
        assert paths.history_bias is not None
        of_history = torch.bmm(queries, self.history[0].mT).float().view(rows, heads, -1, self.history.shape[2])
        joined = torch.softmax(torch.cat([of_history.add_(paths.history_bias), joined], dim=3), dim=-1)
        of_history, joined = joined.split([self.history.shape[2], past + 1], dim=3)
        read = torch.bmm(of_history.flatten(0, 1).to(values.dtype), self.history[1])
        return self._gathered(joined, values, paths).add_(heads_last(read[None], rows))

    def _gathered(self, weights: Tensor, values: Tensor, paths: Paths) -> Tensor:
        """Values of the tokens of each path, by weights (B, H, W, P + 1), added: (T, H * E)."""
        weights = weights.permute(0, 2, 1, 3).reshape(paths.rows.shape).to(values.dtype)
        table = values.view(-1, values.shape[1] // self.weights.num_heads)
        found = functional.embedding_bag(paths.rows, table, per_sample_weights=weights, mode="sum")
        return found.view(-1, values.shape[1])

    def _append(self, normed: Tensor) -> Tensor:
        """The values (any, H * E) of all tokens, the present ones the last."""
        begin, end = self.num_values, self.num_values + len(normed)
        if self._values is None:
            self._values = torch.mm(normed, self.weights.value)
        else:
            if end > len(self._values):
                grown = self._values.new_empty(max(end, 4 * begin), self._values.shape[1])
                grown[:begin] = self._values[:begin]
                self._values = grown
            torch.mm(normed, self.weights.value, out=self._values[begin:end])
        self.num_values = end
        return self._values[:end]

    def _join(self) -> None:
        """Moves the keys of the step before to those at hand."""
        if self._last_keys is not None:
            self.keys = self._last_keys if self.keys is None else torch.cat([self.keys, self._last_keys], dim=1)

    def _look(self, x: Tensor, bias: Tensor | None) -> None:
        """Adds to ``x`` (B, W, D) its attention to the memory."""
        assert self.memory is not None
        keys, values = self.memory
        normed = self._normed(x.view(-1, x.shape[2])).view_as(x)
        # Scores are kept beams last: the keys need not be rearranged, and the softmax over S runs along whole lines.
        scores = torch.bmm(keys, normed.mT).float().unflatten(1, (-1, self.weights.num_heads))  # (B, S, H, W)
        if bias is not None:
            scores.add_(bias)
        weights = torch.softmax(scores, dim=1).flatten(1, 2).to(values.dtype)
        if values.dtype == x.dtype:
            x.baddbmm_(weights.mT, values)
        else:
            x.add_(torch.bmm(weights.mT, values))

    def _feed(self, x: Tensor) -> None:
        own = self.weights
        _add_product(x, torch.mm(self._normed(x), own.first).relu_(), own.second)

    def _normed(self, x: Tensor) -> Tensor:
        return normalize(x, self.weights.epsilon, self.weights.value.dtype)[0]


def _add_product(x: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds the product to ``x``, which may be of a wider type."""
    if left.dtype == x.dtype:
        x.addmm_(left, right)
    else:
        x.add_(torch.mm(left, right))


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
        self.num_tokens = 0  # of every path
        self.num_columns = 0  # tokens of a row
        # (2, B, W, P) which of its row's tokens, and which of all, step after step, row after row, beam after beam
        self.paths = torch.zeros(2, batch_size, 1, 0, dtype=torch.int64, device=device)

    def reorder(self, parents: Tensor) -> None:
        """Row b's beam i continues what was its beam ``parents[b, i]``; before the first token all beams are alike."""
        if self.paths.shape[2] == 1:
            self.paths = self.paths.expand(-1, -1, parents.shape[1], -1)
        else:
            self.paths = self.paths.gather(2, parents[None, ..., None].expand(2, -1, -1, self.num_tokens))

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """The next token of each beam (B, W, D) through all layers."""
        rows, beams, _ = x.shape
        before = self.paths[0].expand(rows, beams, -1)
        place = torch.arange(rows * beams, device=x.device).view(rows, beams)
        new = torch.stack([self.num_columns + place % beams, rows * self.num_columns + place])
        self.paths = torch.cat([self.paths.expand(-1, rows, beams, -1), new[..., None]], dim=3)
        steps = self._paths(before)
        hidden = x.flatten(0, 1).clone()
        with torch.autocast(x.device.type, enabled=False):
            for layer in self.layers:
                layer.step(hidden, rows, steps)
        self.num_tokens += 1
        self.num_columns += beams
        return hidden.view_as(x)

    def _paths(self, before: Tensor) -> Paths:
        heads = self.layers[0].weights.num_heads
        head = torch.arange(heads, device=before.device)
        rows = self.paths[1][:, :, None] * heads + head[:, None]  # (B, W, H, P + 1)
        relative = torch.arange(-self.num_tokens, 1, device=before.device)[None, None]
        history_bias = None
        history = self.layers[0].history
        if self.lengths is not None and history is not None:
            keys = torch.arange(history.shape[2], device=before.device)
            distances = keys - (self.lengths[:, None, None] + self.num_tokens)  # (B, 1, S)
            beyond = keys >= self.lengths[:, None, None, None]
            history_bias = self.positions.of(distances).masked_fill(beyond, MASKED)
        memory_bias = None
        if self.cross_bias is not None:
            level = self.num_tokens if self.cross_bias.shape[2] > 1 else 0
            memory_bias = self.cross_bias[:, :, level].transpose(1, 2)[..., None]
        return Paths(
            columns=before[:, None].expand(-1, heads, -1, -1),
            rows=rows.flatten(0, 2),
            bias=self.positions.of(relative),
            history_bias=history_bias,
            memory_bias=memory_bias,
        )


def start_layers(cache: WeightCache, blocks: Sequence[BlockWeights], x: Tensor) -> list[BeamLayer]:
    """A layer for each block, with products in the type that autocast asks for."""
    return [BeamLayer(weights) for weights in cache.of(blocks, product_type(x))]
