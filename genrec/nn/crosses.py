"""Explicit interactions of fields: the terms of a factorization machine, cross layers, attention between fields.

B rows, N fields, D width of a vector, W width of all fields side by side, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import RowBatch
from genrec.nn.fields import FieldVectors, FirstOrder


class FactorizationMachine(nn.Module):
    """First- and second-order terms of a factorization machine, without its bias (Rendle 2010, equation 1): (B,).

    The products of all pairs are half the square of the sum less the sum of squares (lemma 3.1). A dense value scales
    a vector of its field.
    """

    def __init__(self, num_dense: int, embedding_dim: int, *, init_std: float = 0.01) -> None:
        super().__init__()
        self.first_order = FirstOrder(num_dense)
        self.dense = nn.Parameter(torch.empty(num_dense, embedding_dim))
        if num_dense:
            nn.init.normal_(self.dense, std=init_std)

    def forward(self, fields: FieldVectors, batch: RowBatch) -> Tensor:
        with torch.autocast(fields.vectors.device.type, enabled=False):  # the difference of two sums that nearly cancel
            vectors = fields.vectors.to(self.dense.dtype)
            total, squares = vectors.sum(dim=1), vectors.square().sum(dim=(1, 2))
            if len(self.dense):
                values = batch.dense.to(self.dense.dtype)
                total = total + values @ self.dense
                squares = squares + values.square() @ self.dense.square().sum(dim=1)
            return self.first_order(fields, batch) + 0.5 * (total.square().sum(dim=1) - squares)


class CrossLayer(nn.Module):
    """x0 * (weight x + bias) + x, elementwise (Wang et al., WWW 2021, equation 1): (B, W) -> (B, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(x, first, self.linear(x))


class LowRankCrossLayer(nn.Module):
    """A cross layer whose matrix is a mixture of ``num_experts`` products through ``rank`` dimensions.

    x0 * (sum_i G_i(x) U_i tanh(C_i tanh(V_i x)) + bias) + x with G the softmax of a gate of this layer's own (Wang et
    al., WWW 2021, equations 3 and 4; a bias that all experts share leaves the mixture, for gates sum to 1).
    """

    def __init__(self, width: int, rank: int, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.down = nn.Linear(width, num_experts * rank, bias=False)
        self.core = nn.Parameter(torch.empty(num_experts, rank, rank))
        for matrix in self.core:
            nn.init.xavier_normal_(matrix)
        self.up = nn.Linear(num_experts * rank, width)
        self.gate = nn.Linear(width, num_experts) if num_experts > 1 else None

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.down(x)).unflatten(1, (self.num_experts, -1))
        hidden = torch.tanh(torch.einsum("ber,esr->bes", hidden, self.core))
        if self.gate is not None:
            hidden = hidden * torch.softmax(self.gate(x), dim=1)[..., None]
        return torch.addcmul(x, first, self.up(hidden.flatten(1)))


class MaskedCrossLayer(nn.Module):
    """base * ([c, c * max(0, LN(c))] + bias) + x with c = weight x of half the width (Li et al., arXiv 2407.13349).

    With the layer's own input for ``base`` orders double from layer to layer, with the first one's they grow by one.
    The mask keeps what stands out among the crosses of a row and drops the rest as noise.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        assert width % 2 == 0, "half of the crosses are masked"
        self.linear = nn.Linear(width, width // 2, bias=False)
        self.norm = nn.LayerNorm(width // 2)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, base: Tensor, x: Tensor) -> Tensor:
        crosses = self.linear(x)
        masked = crosses * functional.relu(self.norm(crosses))
        return torch.addcmul(x, base, torch.cat([crosses, masked], dim=1) + self.bias)


class FieldAttention(nn.Module):
    """Every field looks at all fields, in several heads, and adds what it finds to itself: (B, N, D) -> (B, N, H d').

    relu(heads + W_res x); a head weighs fields by the softmax of the inner products of their queries and keys, which
    are not scaled (Song et al., CIKM 2019, equations 5 to 8). ``attention_dim`` is d', the width of one head.
    """

    def __init__(self, width: int, attention_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.projections = nn.Linear(width, 4 * num_heads * attention_dim, bias=False)  # of q, k, v and the residual

    def forward(self, x: Tensor) -> Tensor:
        *parts, residual = self.projections(x).chunk(4, dim=2)
        query, key, value = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)
        return functional.relu(found.transpose(1, 2).flatten(2) + residual)
