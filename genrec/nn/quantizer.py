"""Vector quantisation and residual quantisation with learnt codebooks.

Shapes: B batch, D width, K codes per level, C levels.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genrec.contracts import GenrecError
from genrec.nn.kmeans import kmeans, nearest_codes
from genrec.nn.several import gathered, of_first

GRADIENT: Final = "gradient"
EMA: Final = "ema"
STRAIGHT_THROUGH: Final = "straight_through"
ROTATION: Final = "rotation"
_INITIAL_ITERS = 20  # of k-means: training moves the codes on, so its last small steps are not worth their time


class Quantized(NamedTuple):
    """``vectors`` (B, D) with a gradient to the input; ``codes`` (B,) or (B, C); ``loss`` () mean of row sums."""

    vectors: Tensor
    codes: Tensor
    loss: Tensor


def straight_through(inputs: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` in the forward pass, the identity on ``inputs`` in the backward pass (Bengio et al. 2013)."""
    return inputs + (quantized - inputs).detach()


def rotate(inputs: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` as the rotation and scaling that carries each row of ``inputs`` to it; both are constants in the
    backward pass, so the gradient turns and scales with them (rotation trick, Fifty et al. 2024, arXiv 2410.06424).

    With e the input, q its code, hats for unit length and r the unit vector along e^ + q^, the map is
    |q|/|e| (I - 2 r r^T + 2 q^ e^^T). Rows where it is undefined (a zero, or opposite directions) go straight through.
    """
    with torch.no_grad():
        length, target = inputs.norm(dim=-1, keepdim=True), quantized.norm(dim=-1, keepdim=True)
        tiny = torch.finfo(inputs.dtype).eps
        unit, aim = inputs / length.clamp_min(tiny), quantized / target.clamp_min(tiny)
        middle = unit + aim
        width = middle.norm(dim=-1, keepdim=True)
        middle = middle / width.clamp_min(tiny)
        scale = target / length.clamp_min(tiny)
        defined = (length > tiny) & (target > tiny) & (width > 1e-3)
    along_middle = (inputs * middle).sum(-1, keepdim=True)
    along_unit = (inputs * unit).sum(-1, keepdim=True)
    rotated = scale * (inputs - 2 * along_middle * middle + 2 * along_unit * aim)
    return torch.where(defined, rotated, straight_through(inputs, quantized))


_ESTIMATORS = {STRAIGHT_THROUGH: straight_through, ROTATION: rotate}


class VectorQuantizer(nn.Module):
    """The nearest of K code vectors for every input (van den Oord et al. 2017).

    ``codebook_update``: "gradient" trains the codes by |sg[x] - e|^2; "ema" moves them to the running mean of their
    inputs with ``ema_decay`` (appendix A.1 there) and takes them from the optimizer. Both add ``commitment_cost``
    |x - sg[e]|^2. ``gradient_estimator``: "straight_through" or "rotation", how gradients pass the choice of a code.
    ``restart_after``: a code that no input chose for so many training batches restarts at an input of the batch; 0: no.
    Both the running means and the restarts happen in ``forward`` in training mode, and live in buffers, so a checkpoint
    holds all of it. Several processes look at the inputs of all of them.
    """

    changes_own_weights = True  # so no process can do with a part of them

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        commitment_cost: float = 0.25,
        codebook_update: Literal["gradient", "ema"] = GRADIENT,
        gradient_estimator: Literal["straight_through", "rotation"] = STRAIGHT_THROUGH,
        ema_decay: float = 0.99,
        restart_after: int = 100,
    ) -> None:
        super().__init__()
        _check_choice("codebook_update", codebook_update, (GRADIENT, EMA))
        _check_choice("gradient_estimator", gradient_estimator, tuple(_ESTIMATORS))
        if not 0 <= ema_decay < 1:
            raise GenrecError(f"ema_decay must lie in [0, 1), got {ema_decay}.")
        self.commitment_cost = commitment_cost
        self.learnt = codebook_update == GRADIENT
        self.estimate = _ESTIMATORS[gradient_estimator]
        self.ema_decay = ema_decay
        self.restart_after = restart_after
        # Until k-means places them: spread over the unit ball, where normalised inputs lie.
        codebook = torch.randn(num_embeddings, embedding_dim) / embedding_dim**0.5
        self.codebook = nn.Parameter(codebook, requires_grad=self.learnt)
        self.register_buffer("ema_counts", torch.zeros(num_embeddings))
        self.register_buffer("ema_sums", torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("idle_batches", torch.zeros(num_embeddings, dtype=torch.long))
        self.ema_counts: Tensor
        self.ema_sums: Tensor
        self.idle_batches: Tensor

    def forward(self, inputs: Tensor) -> Quantized:
        codes, quantized, loss = self.quantize(inputs)
        return Quantized(self.estimate(inputs, quantized.detach()), codes, loss)

    def quantize(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (B,), their vectors (B, D) with a gradient to the codebook, and the loss (); training mode updates."""
        codes = self.encode(inputs)
        quantized = self.codebook.index_select(0, codes)
        loss = self.loss(inputs, quantized)
        if self.training:
            self.update(inputs.detach(), codes)
        return codes, quantized, loss

    def encode(self, inputs: Tensor) -> Tensor:
        """(B,) the nearest code of each input; ties go to the lower code."""
        # Distances in half precision would choose other codes in training than at inference.
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            return nearest_codes(inputs.detach().float(), self.codebook.detach().float())

    def loss(self, inputs: Tensor, quantized: Tensor) -> Tensor:
        """Summed over width like the reconstruction, so that neither outweighs the other as widths change."""
        loss = mse_loss(inputs, quantized.detach(), reduction="sum") * (self.commitment_cost / len(inputs))
        if self.learnt:
            loss = loss + mse_loss(quantized, inputs.detach(), reduction="sum") / len(inputs)
        return loss

    @torch.no_grad()
    def initialize(self, points: Tensor, *, seed: int = 0) -> Tensor:
        """Places the codes by k-means on ``points`` (N, D) and returns the code of each, (N,)."""
        num_codes = min(len(self.codebook), len(points))
        centroids, codes = kmeans(points, num_codes, seed=seed, max_iters=_INITIAL_ITERS)
        self.codebook[:num_codes] = centroids
        # One "batch" of history: means start at the centroids and give way to new inputs at the rate of the decay.
        counts = torch.bincount(codes, minlength=len(self.codebook)).to(self.ema_counts)
        self.ema_counts.copy_(counts / counts.sum() * len(self.codebook))
        self.ema_sums.copy_(self.codebook * self.ema_counts[:, None])
        self.idle_batches.zero_()
        return codes

    @torch.no_grad()
    def update(self, inputs: Tensor, codes: Tensor) -> None:
        """Running means and restarts, once per training batch; codes change in place after they were read."""
        inputs, codes = gathered(inputs), gathered(codes)
        counts = torch.bincount(codes, minlength=len(self.codebook))
        if not self.learnt:
            self.ema_counts.lerp_(counts.to(self.ema_counts), 1 - self.ema_decay)
            sums = torch.zeros_like(self.ema_sums).index_add_(0, codes, inputs.to(self.ema_sums))
            self.ema_sums.lerp_(sums, 1 - self.ema_decay)
            met = self.ema_counts > torch.finfo(self.ema_counts.dtype).tiny * 1e6
            means = self.ema_sums / self.ema_counts.clamp_min(torch.finfo(self.ema_counts.dtype).tiny)[:, None]
            self.codebook.copy_(torch.where(met[:, None], means, self.codebook))
        self.idle_batches.add_(1).masked_fill_(counts > 0, 0)
        if self.restart_after > 0:
            self._restart(inputs, torch.nonzero(self.idle_batches >= self.restart_after).flatten())

    def _restart(self, inputs: Tensor, dead: Tensor) -> None:
        """Dead codes take the place of inputs drawn from the batch without repetition, as far as it reaches."""
        if not len(dead):
            return
        drawn = of_first(torch.randperm(len(inputs))[: len(dead)].to(inputs.device))
        dead = dead[: len(drawn)]
        self.codebook[dead] = inputs[drawn].to(self.codebook)
        self.ema_counts[dead] = 1.0
        self.ema_sums[dead] = self.codebook[dead]
        self.idle_batches[dead] = 0


class ResidualQuantizer(nn.Module):
    """C quantisers in a row, each coding what those before it left over (Lee et al. 2022, arXiv 2203.01941).

    r_0 = x; r_{c+1} = r_c - sg[e_c]. The *detached* code is subtracted: with a straight-through one the residual would
    be constant in x, and no level after the first would tell the encoder anything. ``vectors`` is the sum of the codes,
    with one gradient estimate for the whole sum, so that the decoder's gradient reaches the input once, not C times.
    """

    def __init__(
        self,
        num_quantizers: int,
        num_embeddings: int,
        embedding_dim: int,
        *,
        commitment_cost: float = 0.25,
        codebook_update: Literal["gradient", "ema"] = GRADIENT,
        gradient_estimator: Literal["straight_through", "rotation"] = STRAIGHT_THROUGH,
        ema_decay: float = 0.99,
        restart_after: int = 100,
    ) -> None:
        super().__init__()
        if num_quantizers < 1 or num_embeddings < 1:
            raise GenrecError(
                f"num_quantizers and num_embeddings must be at least 1, got {num_quantizers} and {num_embeddings}."
            )
        self.estimate = _ESTIMATORS[_check_choice("gradient_estimator", gradient_estimator, tuple(_ESTIMATORS))]
        self.levels = nn.ModuleList(
            VectorQuantizer(
                num_embeddings,
                embedding_dim,
                commitment_cost=commitment_cost,
                codebook_update=codebook_update,
                gradient_estimator=gradient_estimator,
                ema_decay=ema_decay,
                restart_after=restart_after,
            )
            for _ in range(num_quantizers)
        )

    def forward(self, inputs: Tensor) -> Quantized:
        """``codes`` is (B, C); ``loss`` is summed over the levels."""
        residual, total = inputs, torch.zeros_like(inputs)
        codes, losses = [], []
        for quantizer in self.quantizers:
            chosen, quantized, loss = quantizer.quantize(residual)
            codes.append(chosen)
            losses.append(loss)
            residual = residual - quantized.detach()
            total = total + quantized.detach()
        return Quantized(self.estimate(inputs, total), torch.stack(codes, dim=1), torch.stack(losses).sum())

    @torch.no_grad()
    def encode(self, inputs: Tensor) -> Tensor:
        """(B, C) codes."""
        codes = []
        for quantizer in self.quantizers:
            codes.append(quantizer.encode(inputs))
            inputs = inputs - quantizer.codebook.index_select(0, codes[-1])
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """(B, D) sums of the code vectors that ``codes`` (B, C) name."""
        parts = [quantizer.codebook[codes[:, level]] for level, quantizer in enumerate(self.quantizers)]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def initialize(self, points: Tensor, *, seed: int = 0) -> None:
        """K-means level by level: each on the residuals ``points`` (N, D) leave at the levels before it."""
        for level, quantizer in enumerate(self.quantizers):
            codes = quantizer.initialize(points, seed=seed + level)
            points = points - quantizer.codebook[codes]

    @property
    def quantizers(self) -> list[VectorQuantizer]:
        return list(self.levels)  # pyright: ignore[reportReturnType, reportArgumentType]


def _check_choice(name: str, given: str, allowed: tuple[str, ...]) -> str:
    if given not in allowed:
        raise GenrecError(f"{name}={given} is unknown. Choose one of: {', '.join(allowed)}.")
    return given
