"""One head per digit of an ID, all digits at once: hidden states to cosine scores of codes, and their cross-entropy.

Shapes: R hidden states, C digits, K codes per digit, D width. Source: RPG (Hou et al. 2025, arXiv 2506.05781, eq. 3-5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_CHUNK = 1 << 20  # scores held at a time in training: what stays in a core's cache
_EPSILON = 1e-12
_SMALLEST = 1e-30


class CodeHeads(nn.Module):
    """Head c maps a hidden state h to h + silu(W_c h + b_c); codes score by their cosine with it over ``temperature``.

    ``unused`` (C, K) marks places of the table that are no code, where digits have fewer codes than others.
    """

    def __init__(
        self, num_levels: int, embedding_dim: int, *, temperature: float, unused: Tensor | None = None
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = nn.Parameter(torch.zeros(num_levels, embedding_dim, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_levels * embedding_dim))  # one vector: biases are not decayed
        self.unused: Tensor | None
        self.register_buffer("unused", unused, persistent=False)

    def log_probs(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Hidden states (R, D) and code vectors (C, K, D) -> log-probabilities (C, R, K), scored in full precision."""
        heads = torch.baddbmm(self._biases(), hidden.expand(len(table), -1, -1), self.weight.mT)
        with torch.autocast(hidden.device.type, enabled=False):
            states = functional.normalize((hidden + functional.silu(heads)).to(table.dtype), dim=-1)
            scores = torch.bmm(states, functional.normalize(table, dim=-1).mT) / self.temperature
            if self.unused is not None:
                scores = scores.masked_fill(self.unused[:, None], -torch.inf)
            return torch.log_softmax(scores, dim=-1)

    def scores(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Hidden states (R, D) and code vectors (C, K, D) -> scores (C, K, R) with autograd's gradient."""
        heads = torch.baddbmm(self._biases(), hidden.expand(len(table), -1, -1), self.weight.mT)
        states = functional.normalize(hidden + functional.silu(heads), dim=-1)
        entries = functional.normalize(table, dim=-1) / self.temperature
        return torch.bmm(entries, states.mT).to(table.dtype)

    def loss(self, hidden: Tensor, table: Tensor, codes: Tensor) -> Tensor:
        """Cross-entropy in nats of the codes (C, R) given hidden states (R, D), averaged over states and digits."""
        if not torch.is_grad_enabled():
            return -self.log_probs(hidden, table).gather(2, codes[:, :, None]).mean()
        inputs = (hidden, self.weight, self._biases(), table)
        return _HeadsCrossEntropy.apply(*inputs, codes, self.unused, self.temperature)  # pyright: ignore[reportReturnType]

    def _biases(self) -> Tensor:
        return self.bias.view(len(self.weight), 1, -1)


class _HeadsCrossEntropy(torch.autograd.Function):
    """The mean loss and all its gradients in one go, a few digits at a time.

    A batch of 512 states has four million scores over 32 digits of 256 codes. Autograd would keep them, their softmax
    and four copies of the states, and spend its time on moving them; here each chunk is used up while it is in cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        table: Tensor,
        codes: Tensor,
        unused: Tensor | None,
        temperature: float,
    ) -> Tensor:
        device = hidden.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        states = hidden.to(kind)
        step = max(1, _CHUNK // (len(hidden) * table.shape[1]))
        of_hidden = torch.zeros_like(hidden, dtype=weight.dtype)
        of_weight, of_bias, of_table = torch.empty_like(weight), torch.empty_like(bias), torch.empty_like(table)
        total = torch.zeros((), dtype=weight.dtype, device=hidden.device)
        share = 1.0 / codes.numel()
        with torch.autocast(device, enabled=False):
            for first in range(0, len(table), step):
                part = slice(first, first + step)
                matrices = weight[part].to(kind)
                chosen = codes[part, :, None]
                raw = torch.baddbmm(bias[part].to(kind), states.expand(len(matrices), -1, -1), matrices.mT)
                unit, inverse = _unit(functional.silu(raw).add_(states))
                entries, inverse_entries = _unit(table[part].to(kind))
                scores = torch.bmm(unit, (entries * (1.0 / temperature)).mT)
                if unused is not None:
                    scores.masked_fill_(unused[part, None], -torch.inf)
                errors = torch.softmax(scores, dim=-1)  # C', R, K
                total -= errors.gather(2, chosen).to(weight.dtype).clamp_min_(_SMALLEST).log_().sum()
                errors.scatter_add_(2, chosen, errors.new_full((), -1.0).expand_as(chosen))
                factor = share / temperature
                of_entries = torch.bmm(errors.mT, unit)
                of_table[part] = _unit_backward(of_entries, entries, inverse_entries * factor)
                of_states = _unit_backward(torch.bmm(errors, entries), unit, inverse * factor)
                of_hidden += of_states.sum(0)
                of_raw = torch.ops.aten.silu_backward(of_states, raw)
                of_weight[part] = torch.bmm(of_raw.mT, states.expand(len(matrices), -1, -1))
                of_bias[part] = of_raw.sum(1, keepdim=True)
                of_hidden += torch.bmm(of_raw, matrices).sum(0)
        ctx.save_for_backward(of_hidden.to(hidden.dtype), of_weight, of_bias, of_table)
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(part * gradient for part in ctx.saved_tensors), None, None, None


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors scaled to length 1 and the factors that did it, (..., D) and (..., 1)."""
    inverse = (x * x).sum(-1, keepdim=True).clamp_min_(_EPSILON).rsqrt_()
    return x * inverse, inverse


def _unit_backward(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of what was scaled to length 1: what is left of ``gradient`` across ``unit``; overwrites it."""
    along = (gradient * unit).sum(-1, keepdim=True)
    return gradient.addcmul_(unit, along, value=-1.0).mul_(inverse)
