"""The sub-layers of a pre-normalised block, x + dropout(layer(norm(x))), each as one function with its own gradient.

For training on a CPU, where passes over memory cost as much as products. What autograd would do in passes of its own is
done on the way or not at all: the weight of the norm is multiplied into that of the product after it, operands are
copied once, heads outermost, hidden values are overwritten, and only what the gradient needs is kept. Products are in
the type of autocast; norms, softmax and the sum over sub-layers in that of ``x``.

Shapes: B rows, Q queries, S keys, T = B * Q tokens, H heads, E width of a head, D model width, F feed-forward width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genrec.nn.dropout import Dropout
from genrec.nn.half import is_half, keep_, pass_where_positive_, relu_


def replaces_autograd(x: Tensor) -> bool:
    """Whether these functions are to be used: training on a CPU."""
    return x.device.type == "cpu" and torch.is_grad_enabled()


def feedforward_sublayer(
    x: Tensor, norm: Tensor, first: Tensor, second: Tensor, *, epsilon: float, hidden: Dropout, output: Dropout
) -> Tensor:
    """``x`` (..., D) plus a feed-forward layer of it: weights ``first`` (F, D), ``second`` (D, F), ``norm`` (D,)."""
    dtype = product_type(x)
    kept = hidden.kept(torch.Size((x.numel() // x.shape[-1], len(first))), dtype) if hidden.active else None
    return _FeedForward.apply(  # pyright: ignore[reportReturnType]
        x, norm, first, second, epsilon, dtype, kept, hidden.scale, _mask(output, x)
    )


def self_attention_sublayer(
    x: Tensor,
    norm: Tensor,
    query: Tensor,
    key_value: Tensor,
    output: Tensor,
    bias: Tensor,
    *,
    num_heads: int,
    epsilon: float,
    weights: Dropout,
    dropout: Dropout,
) -> Tensor:
    """``x`` (B, S, D) plus its attention to itself; weights as in ``Attention``, bias (B or 1, H or 1, S, S)."""
    rows, length, _ = x.shape
    kept = _kept_weights(weights, (rows * num_heads, length, length), x)
    return _SelfAttention.apply(  # pyright: ignore[reportReturnType]
        x, norm, query, key_value, output, bias, num_heads, epsilon, product_type(x), kept, weights.scale,
        _mask(dropout, x),
    )  # fmt: skip


def cross_attention_sublayer(
    x: Tensor,
    memory: Tensor,
    norm: Tensor,
    query: Tensor,
    key_value: Tensor,
    output: Tensor,
    bias: Tensor | None,
    *,
    num_heads: int,
    epsilon: float,
    weights: Dropout,
    dropout: Dropout,
) -> Tensor:
    """``x`` (B, Q, D) plus its attention to ``memory`` (B, S, D); a bias that broadcasts to (B, H, Q, S)."""
    rows, length, _ = x.shape
    kept = _kept_weights(weights, (rows * num_heads, length, memory.shape[1]), x)
    return _CrossAttention.apply(  # pyright: ignore[reportReturnType]
        x, memory, norm, query, key_value, output, bias, num_heads, epsilon, product_type(x), kept, weights.scale,
        _mask(dropout, x),
    )  # fmt: skip


def product_type(x: Tensor) -> torch.dtype:
    """The type of products: autocast's where it is on, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _mask(dropout: Dropout, x: Tensor) -> Tensor | None:
    return dropout.mask(x.shape, x.dtype) if dropout.active else None


def _kept_weights(dropout: Dropout, shape: tuple[int, int, int], x: Tensor) -> Tensor | None:
    return dropout.kept(torch.Size(shape), product_type(x)) if dropout.active else None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: Tensor,
        first: Tensor,
        second: Tensor,
        epsilon: float,
        dtype: torch.dtype,
        kept: Tensor | None,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            normed, inverse = normalize(x.flatten(0, -2), epsilon, dtype)
            first_of_normed, narrowing = (first * norm).to(dtype), (second * scale).to(dtype)
            hidden = relu_(torch.mm(normed, first_of_normed.t()))  # (T, F)
            if kept is not None:
                keep_(hidden, kept)
            ctx.save_for_backward(normed, inverse, norm, first, first_of_normed, narrowing, hidden, mask)
            ctx.scale = scale
            return _add(x, torch.mm(hidden, narrowing.t()), mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, norm, first, first_of_normed, narrowing, hidden, mask = ctx.saved_tensors
        of_output = _of_output(gradient, mask, hidden.dtype)
        of_second = torch.mm(of_output.t(), hidden).to(first.dtype).mul_(ctx.scale)
        of_hidden = torch.mm(of_output, narrowing)
        pass_where_positive_(of_hidden, hidden)  # where the result is zero, it was negative or dropped
        of_norm, (of_first,) = _of_normed_weights(_of_weight(of_hidden, normed), norm, first)
        of_x = _of_input(gradient, torch.mm(of_hidden, first_of_normed), normed, inverse)
        return of_x, of_norm, of_first, of_second, None, None, None, None, None


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: Tensor,
        query: Tensor,
        key_value: Tensor,
        output: Tensor,
        bias: Tensor,
        num_heads: int,
        epsilon: float,
        dtype: torch.dtype,
        kept: Tensor | None,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            normed, inverse = normalize(x.flatten(0, -2), epsilon, dtype)
            combined = (torch.cat([query, key_value]) * norm).to(dtype)
            split = heads_first(torch.mm(normed, combined.t()), len(x), 3, num_heads)  # (3, B * H, S, E)
            weights, dropped = attention_weights(split[0], split[1], bias, num_heads, kept)
            joined = heads_last(torch.bmm(dropped, split[2])[None], len(x))
            output = (output * scale).to(dtype)
            ctx.scale = scale
            ctx.save_for_backward(
                normed, inverse, norm, query, key_value, combined, split, weights, dropped, joined, output, kept, mask
            )
            ctx.bias_shape = bias.shape if bias.requires_grad else None
            return _add(x, torch.mm(joined, output.t()), mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse, norm, query, key_value, combined, split, weights, dropped, joined, output, kept, mask = (
            ctx.saved_tensors
        )
        rows, num_heads = len(gradient), split.shape[1] // len(gradient)
        of_result = _of_output(gradient, mask, joined.dtype)
        of_output = torch.mm(of_result.t(), joined).to(query.dtype).mul_(ctx.scale)
        of_joined = heads_first(torch.mm(of_result, output), rows, 1, num_heads)[0]
        of_split = torch.empty_like(split)
        of_scores = _of_scores(of_joined, split[2], weights, dropped, kept, of_value=of_split[2])
        narrow = of_scores.to(split.dtype)
        torch.bmm(narrow, split[1], out=of_split[0])
        torch.bmm(narrow.mT, split[0], out=of_split[1])
        of_projected = heads_last(of_split, rows)
        of_norm, of_weights = _of_normed_weights(_of_weight(of_projected, normed), norm, query, key_value)
        of_x = _of_input(gradient, torch.mm(of_projected, combined), normed, inverse)
        of_bias = _of_bias(of_scores, ctx.bias_shape, rows)
        return of_x, of_norm, *of_weights, of_output, of_bias, None, None, None, None, None, None


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        memory: Tensor,
        norm: Tensor,
        query: Tensor,
        key_value: Tensor,
        output: Tensor,
        bias: Tensor | None,
        num_heads: int,
        epsilon: float,
        dtype: torch.dtype,
        kept: Tensor | None,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            normed, inverse = normalize(x.flatten(0, -2), epsilon, dtype)
            seen = memory.flatten(0, -2).to(dtype)
            asking, telling, output = (query * norm).to(dtype), key_value.to(dtype), (output * scale).to(dtype)
            ctx.scale = scale
            queries = heads_first(torch.mm(normed, asking.t()), len(x), 1, num_heads)[0]  # (B * H, Q, E)
            pair = heads_first(torch.mm(seen, telling.t()), len(x), 2, num_heads)  # (2, B * H, S, E)
            weights, dropped = attention_weights(queries, pair[0], bias, num_heads, kept)
            joined = heads_last(torch.bmm(dropped, pair[1])[None], len(x))
            ctx.save_for_backward(
                normed, inverse, norm, query, asking, telling, seen, queries, pair, weights, dropped, joined, output,
                kept, mask,
            )  # fmt: skip
            ctx.bias_shape = bias.shape if bias is not None and bias.requires_grad else None
            ctx.memory = memory.shape, memory.dtype
            return _add(x, torch.mm(joined, output.t()), mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (normed, inverse, norm, query, asking, telling, seen, queries, pair, weights, dropped, joined, output, kept,
         mask) = ctx.saved_tensors  # fmt: skip
        rows, num_heads = len(gradient), len(queries) // len(gradient)
        of_result = _of_output(gradient, mask, joined.dtype)
        of_output = torch.mm(of_result.t(), joined).to(query.dtype).mul_(ctx.scale)
        of_joined = heads_first(torch.mm(of_result, output), rows, 1, num_heads)[0]
        of_pair = torch.empty_like(pair)
        of_scores = _of_scores(of_joined, pair[1], weights, dropped, kept, of_value=of_pair[1])
        narrow = of_scores.to(pair.dtype)
        torch.bmm(narrow.mT, queries, out=of_pair[0])
        of_queries = heads_last(torch.bmm(narrow, pair[0])[None], rows)
        of_norm, (of_query,) = _of_normed_weights(torch.mm(of_queries.t(), normed), norm, query)
        of_x = _of_input(gradient, torch.mm(of_queries, asking), normed, inverse)
        of_seen = heads_last(of_pair, rows)
        of_key_value = _of_weight(of_seen, seen).to(query.dtype)
        shape, dtype = ctx.memory
        of_memory = torch.mm(of_seen, telling).to(dtype).view(shape)
        of_bias = _of_bias(of_scores, ctx.bias_shape, rows)
        return of_x, of_memory, of_norm, of_query, of_key_value, of_output, of_bias, *([None] * 6)


# -- the norm, without its weight, and the sum


def normalize(x: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x / rms(x) (T, D) in the type of products, and 1 / rms(x) (T, 1)."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    inverse = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return (x * inverse).to(dtype), inverse


def _of_input(gradient: Tensor, of_normed: Tensor, normed: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of a sub-layer's input: that of the sum, plus that of the normalised input (T, D)."""
    normed, of_normed = normed.to(gradient.dtype), of_normed.to(gradient.dtype)
    along = (of_normed * normed).mean(-1, keepdim=True)
    through_norm = torch.addcmul(of_normed, normed, along, value=-1)
    return torch.addcmul(gradient, through_norm.view_as(gradient), inverse.view(*gradient.shape[:-1], 1))


def _of_normed_weights(of_product: Tensor, norm: Tensor, *weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The gradients of the norm's weight (D,) and of the weights it was multiplied into, (any, D) each."""
    parts = of_product.to(norm.dtype).split([len(weight) for weight in weights])
    of_norm = sum((part * weight).sum(0) for part, weight in zip(parts, weights, strict=True))
    return of_norm, [part.mul_(norm) for part in parts]  # pyright: ignore[reportReturnType]


def _of_weight(of_product: Tensor, factor: Tensor) -> Tensor:
    """The gradient (W, D) of a weight: ``of_product`` (T, W), transposed, times ``factor`` (T, D)."""
    if is_half(factor.dtype):
        return torch.mm(
            factor.t().contiguous(), of_product
        ).t()  # transposed in the product, it costs half as much again
    return torch.mm(of_product.t(), factor)


def _add(x: Tensor, result: Tensor, mask: Tensor | None) -> Tensor:
    result = result.to(x.dtype).view_as(x)
    return x + result if mask is None else torch.addcmul(x, result, mask)


def _of_output(gradient: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    return (gradient if mask is None else gradient * mask).flatten(0, -2).to(dtype)


# -- attention


def heads_first(x: Tensor, rows: int, parts: int, num_heads: int) -> Tensor:
    """(B * S, parts * H * E) -> (parts, B * H, S, E), copied."""
    x = x.view(rows, -1, parts, num_heads, x.shape[-1] // (parts * num_heads)).permute(2, 0, 3, 1, 4)
    return x.reshape(parts, rows * num_heads, *x.shape[3:])


def heads_last(x: Tensor, rows: int) -> Tensor:
    """(parts, B * H, S, E) -> (B * S, parts * H * E), copied."""
    parts, _, length, width = x.shape
    return x.view(parts, rows, -1, length, width).permute(1, 3, 0, 2, 4).reshape(rows * length, -1)


def attention_weights(
    queries: Tensor, keys: Tensor, bias: Tensor | None, num_heads: int, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention weights (B * H, Q, S) in the type of products, and those that dropout left."""
    # In half precision the softmax is several times slower, and less exact.
    scores = torch.bmm(queries, keys.mT)
    scores = scores.float() if is_half(scores.dtype) else scores
    if bias is not None:
        scores.view(-1, num_heads, *scores.shape[1:]).add_(bias)
    weights = torch.softmax(scores, dim=-1).to(queries.dtype)
    return weights, weights if kept is None else keep_(weights.clone(), kept)


def _of_scores(
    of_joined: Tensor, values: Tensor, weights: Tensor, dropped: Tensor, kept: Tensor | None, *, of_value: Tensor
) -> Tensor:
    """The gradient of the scores (B * H, Q, S); writes that of the values."""
    torch.bmm(dropped.mT, of_joined, out=of_value)
    of_weights = torch.bmm(of_joined, values.mT)
    if kept is not None:
        keep_(of_weights, kept)
    if is_half(weights.dtype):
        of_weights, weights = of_weights.float(), weights.float()
    return torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)


def _of_bias(of_scores: Tensor, shape: torch.Size | None, rows: int) -> Tensor | None:
    return None if shape is None else of_scores.view(rows, -1, *of_scores.shape[1:]).sum_to_size(shape)
