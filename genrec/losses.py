"""Losses of a hidden state over the items of the catalogue, chosen by name in a model's configuration.

Every loss is called as ``loss(hidden (R, D), table (N, D), targets (R,), counts (N,))`` and returns the mean over the
targets in nats, in at least float32. Letters: R scored targets, N items, D width, n negatives. ``counts`` are the
training frequencies of the items, for those losses that sample or correct by them.

``item_loss`` makes one of its short name. A loss may change vectors before it multiplies them (cosines, a temperature);
models that serve what they were trained on pass theirs through ``scored_users`` and ``scored_items``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from genrec.annotations import Count, Positive, check_fields
from genrec.contracts import GenrecError

_FEW_ROWS = 48  # so that logits stay in cache
_TALL = 256  # rows of a bfloat16 product
_STEP = 64  # and what they are a multiple of: every new shape of such a product costs several times its run
_LOGITS_AT_ONCE = 1 << 24  # bounds the memory of a large catalogue
_LOGITS_AT_ONCE_ON_GPU = 1 << 27
_WIDE = 1 << 18  # items from which on the logits of a few rows at a time would mostly read the table
_FEWEST_COLUMNS = 1 << 10
_ROUNDING = 1e-6  # keeps the logarithm of a chance of 1 finite
_POWER_OF_POPULARITY = 0.75  # of word2vec


LossName = Literal["pointwise", "pairwise", "listwise", "in_batch", "full"]


class ItemLoss(Protocol):
    """What a model asks of a loss over items."""

    def __call__(self, hidden: Tensor, table: Tensor, targets: Tensor, counts: Tensor) -> Tensor: ...


AnyLoss = ItemLoss | LossName  # as a setting: an object, or its short name


@dataclass(frozen=True, kw_only=True)
class FullCrossEntropy:
    """Softmax cross-entropy over the whole catalogue, equal to ``cross_entropy(hidden @ table.T, targets)``.

    The logits are made, turned into both gradients and dropped a few rows at a time, so the (R, N) matrix that is
    most of a small model's time and memory never exists. Of a catalogue of more than 262,144 items they are made a few
    columns at a time instead, and twice: once for their sum and once for the gradients. Products are in bfloat16 under
    such an autocast, sums of them in float32.
    """

    def __call__(self, hidden: Tensor, table: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        dtype = _product_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            by_chunks = _ColumnwiseCrossEntropy if len(table) > _WIDE else _ChunkedCrossEntropy
            losses: Any = by_chunks.apply(hidden.to(dtype), table, targets)
        return losses


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """bfloat16 where autocast or the hidden states ask for it; float16, whose probabilities underflow, is avoided."""
    device = hidden.device.type
    if hidden.dtype == torch.bfloat16:
        return torch.bfloat16
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16:
        return torch.bfloat16
    return torch.promote_types(hidden.dtype, torch.float32)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The mean loss; the gradients of hidden states and table are computed with it and only scaled in the backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        num_rows, num_items = len(hidden), len(table)
        weight = table.detach().to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)  # of everything that is summed
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        step, size = _chunks(hidden, num_items)
        padded = functional.pad(hidden.detach(), (0, 0, 0, size - num_rows))  # rows of zeros add nothing
        buffer = hidden.new_empty(min(step, size), num_items)
        chosen = torch.empty(num_rows, dtype=exact, device=hidden.device)  # probabilities of the targets
        of_hidden = torch.empty_like(padded) if needs_gradient else None
        of_table = torch.zeros_like(table, dtype=exact) if needs_gradient else None
        for begin in range(0, size, step):
            rows = padded[begin : begin + step]
            probabilities = buffer[: len(rows)]
            torch.mm(rows, weight.T, out=probabilities)
            torch.ops.aten._softmax.out(probabilities, -1, False, out=probabilities)
            wanted = targets[begin : begin + step, None]
            chosen[begin : begin + step] = probabilities[: len(wanted)].gather(1, wanted).squeeze(1)
            if of_hidden is not None and of_table is not None:
                torch.mm(probabilities, weight, out=of_hidden[begin : begin + step])
                if exact == hidden.dtype:
                    of_table.addmm_(probabilities.T, rows)
                else:
                    of_table.add_(probabilities.T @ rows)
        if of_hidden is not None and of_table is not None:
            # The one-hot part is apart from the probabilities: next to a 1, bfloat16 would round most of them away.
            of_hidden = of_hidden[:num_rows].to(exact).sub_(functional.embedding(targets, table.detach()))
            of_table.index_add_(0, targets, hidden.detach().to(exact), alpha=-1).div_(num_rows)
            ctx.save_for_backward(of_hidden.div_(num_rows).to(hidden.dtype), of_table.to(table.dtype))
        return chosen.clamp_(min=torch.finfo(exact).tiny).log_().mean().neg()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(ctx, gradient)


def _scaled(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients that were found with the loss, times that of the loss."""
    of_hidden, of_table = ctx.saved_tensors
    needs_hidden, needs_table, _ = ctx.needs_input_grad
    return of_hidden * gradient if needs_hidden else None, of_table * gradient if needs_table else None, None


class _ColumnwiseCrossEntropy(torch.autograd.Function):
    """As ``_ChunkedCrossEntropy``, by columns: all rows beside some items of a large catalogue."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        rows, weight = hidden.detach(), table.detach()
        exact = torch.promote_types(hidden.dtype, torch.float32)
        parts = columns_of(len(rows), len(weight), rows.device.type)
        total = log_sum(rows, weight, parts)
        wanted = (rows.to(exact) * functional.embedding(targets, weight).to(hidden.dtype).to(exact)).sum(dim=1)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            share = torch.full_like(total, 1.0 / len(rows))
            of_hidden, of_table = softmax_gradients(rows, weight, parts, total, share)
            of_hidden.sub_(functional.embedding(targets, weight).to(exact), alpha=1.0 / len(rows))
            of_table.index_add_(0, targets, rows.to(exact), alpha=-1.0 / len(rows))
            ctx.save_for_backward(of_hidden.to(hidden.dtype), of_table.to(table.dtype))
        return (total - wanted).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(ctx, gradient)


def columns_of(num_rows: int, num_items: int, device: str) -> list[slice]:
    """Which items to score at once for so many rows."""
    most = _LOGITS_AT_ONCE if device == "cpu" else _LOGITS_AT_ONCE_ON_GPU
    step = max(_FEWEST_COLUMNS, most // max(num_rows, 1))
    return [slice(begin, min(begin + step, num_items)) for begin in range(0, num_items, step)]


def log_sum(rows: Tensor, weight: Tensor, parts: list[slice]) -> Tensor:
    """(R,) log of the summed exp of the scores of all items; -inf where there are none."""
    exact = torch.promote_types(rows.dtype, torch.float32)
    total = torch.full((len(rows),), -torch.inf, dtype=exact, device=rows.device)
    for part in parts:
        scores = torch.mm(rows, weight[part].to(rows.dtype).T).to(exact)
        total = torch.logaddexp(total, scores.logsumexp(dim=1))
    return total


def softmax_gradients(
    rows: Tensor, weight: Tensor, parts: list[slice], total: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of sum over rows of ``share`` (R,) * ``log_sum``: of the rows (R, D) and of the table (N, D)."""
    exact = total.dtype
    of_rows = torch.zeros(rows.shape, dtype=exact, device=rows.device)
    of_table = torch.empty(weight.shape, dtype=exact, device=rows.device)
    for part in parts:
        items = weight[part].to(rows.dtype)
        chances = torch.mm(rows, items.T).to(exact).sub_(total[:, None]).exp_().mul_(share[:, None])
        chances = chances.to(rows.dtype)
        of_rows += torch.mm(chances, items).to(exact)
        of_table[part] = torch.mm(chances.T, rows).to(exact)
    return of_rows, of_table


def _chunks(hidden: Tensor, num_items: int) -> tuple[int, int]:
    """Rows to take at once, and the number of rows padded to whole products."""
    num_rows = len(hidden)
    if hidden.device.type != "cpu":
        return max(1, _LOGITS_AT_ONCE_ON_GPU // num_items), num_rows
    if hidden.dtype == torch.bfloat16:
        return max(_STEP, min(_TALL, _LOGITS_AT_ONCE // num_items // _STEP * _STEP)), -(-num_rows // _STEP) * _STEP
    return max(1, min(_FEW_ROWS, _LOGITS_AT_ONCE // num_items)), num_rows


class Whole(NamedTuple):
    """What sampled losses know of the catalogue besides the rows they name: its size, and its training interactions."""

    num_items: int
    total: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> Whole:
        """Of the training frequencies (N,) of all items."""
        return cls(len(counts), counts.sum())


class SampledLoss:
    """A loss of targets beside drawn items, in two steps for models that fetch no other rows of a table: ``draw``, then
    ``of_drawn`` over a table of the rows that are needed."""

    num_negatives: Any
    shared: Any = False

    def chances(self, counts: Tensor) -> Tensor | None:
        """(N,) the weights by which items are drawn; None: all alike."""
        return None

    def draw(self, targets: Tensor, counts: Tensor, borders: Tensor | None = None) -> Tensor:
        """Negatives (1, n) for all targets or (R, n). ``borders``, the ``cumulated`` chances, spare their sums."""
        chances = self.chances(counts) if borders is None else None
        return _draw(self.num_negatives, targets, len(counts), shared=self.shared, chances=chances, borders=borders)

    def of_drawn(
        self, hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, counts: Tensor, whole: Whole
    ) -> Tensor:
        """The loss, where ``targets`` and ``negatives`` are rows of ``table`` (n, D), whose items have ``counts`` (n,)
        among those of the ``whole`` catalogue."""
        raise NotImplementedError

    def __call__(self, hidden: Tensor, table: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        return self.of_drawn(hidden, table, targets, self.draw(targets, counts), counts, Whole.of(counts))


def cumulated(chances: Tensor | None) -> Tensor | None:
    """(N,) float64 running sums, by which items are drawn."""
    return None if chances is None else chances.double().cumsum(0)


@dataclass(frozen=True, kw_only=True)
class SampledSoftmax(SampledLoss):
    """Softmax cross-entropy over the target and ``num_negatives`` sampled items; a negative equal to the target is out.

    ``shared`` draws one set of negatives for all targets of a batch, which is one product instead of R gathers.
    ``sampling`` draws items uniformly or by training frequency, with replacement. ``logq`` subtracts log(Q) from every
    logit, Q = 1 - (1 - q)^n the chance that an item, drawn with chance q, is among the negatives, and counts an item
    that was drawn twice once: so frequent negatives are not pushed down for being frequent (Bengio and Senecal 2008;
    Jean et al. 2015, arXiv 1412.2007). Q is about n q where that is small. Under uniform sampling it changes nothing.
    """

    num_negatives: int = 256
    logq: bool = False
    sampling: Literal["uniform", "popularity"] = "uniform"
    shared: bool = True

    def __post_init__(self) -> None:
        _check_negatives(self.num_negatives)
        if self.sampling not in ("uniform", "popularity"):
            raise GenrecError(f"loss.sampling must be one of uniform, popularity; got {self.sampling!r}.")

    def chances(self, counts: Tensor) -> Tensor | None:
        return None if self.sampling == "uniform" else counts / counts.sum()

    def of_drawn(
        self, hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, counts: Tensor, whole: Whole
    ) -> Tensor:
        positive, negative = _scores(hidden, table, targets, negatives)
        out = negatives == targets[:, None]
        if self.logq and self.sampling == "popularity":
            positive = positive - self._log_chance(counts[targets], whole.total)
            negative = negative - self._log_chance(counts[negatives], whole.total)
            out = out | _drawn_before(negatives)
        negative = negative.masked_fill(out, -torch.inf)
        return (torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1) - positive).mean()

    def _log_chance(self, counts: Tensor, total: Tensor) -> Tensor:
        """log Q of items with ``counts`` among ``total`` interactions."""
        drawn = _log_share(counts, total).exp().clamp(max=1.0 - _ROUNDING)
        return (-torch.expm1(self.num_negatives * torch.log1p(-drawn))).log()


@dataclass(frozen=True, kw_only=True)
class BCE(SampledLoss):
    """Binary cross-entropy of the target against ``num_negatives`` uniform negatives, mean over the n + 1 of them.

    With one negative, the loss of SASRec (Kang and McAuley 2018, equation 6). ``shared`` as in ``SampledSoftmax``.
    """

    num_negatives: int = 1
    shared: bool = False

    def __post_init__(self) -> None:
        _check_negatives(self.num_negatives)

    def of_drawn(
        self, hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, counts: Tensor, whole: Whole
    ) -> Tensor:
        return _binary(hidden, table, targets, negatives, power=1.0)


@dataclass(frozen=True, kw_only=True)
class GBCE(SampledLoss):
    """BCE with the target's probability raised to a power that undoes the overconfidence sampling brings (gSASRec).

    The power is alpha (t (1 - 1 / alpha) + 1 / alpha) with alpha = n / (N - 1), the share of the negatives that is
    sampled: t = 0 is BCE, t = 1 gives calibrated probabilities (Petrov and Macdonald, RecSys 2023, equation 24).
    """

    num_negatives: int = 256
    t: float = 0.75
    shared: bool = True

    def __post_init__(self) -> None:
        _check_negatives(self.num_negatives)
        if not 0.0 <= self.t <= 1.0:
            raise GenrecError(f"loss.t must lie in 0..1, got {self.t}.")

    def of_drawn(
        self, hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, counts: Tensor, whole: Whole
    ) -> Tensor:
        alpha = self.num_negatives / max(whole.num_items - 1, 1)
        power = alpha * (self.t * (1.0 - 1.0 / alpha) + 1.0 / alpha)
        return _binary(hidden, table, targets, negatives, power=power)


def _binary(hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, *, power: float) -> Tensor:
    positive, negative = _scores(hidden, table, targets, negatives)
    of_negatives = functional.softplus(negative).masked_fill(negatives == targets[:, None], 0.0).sum(dim=1)
    return (power * functional.softplus(-positive) + of_negatives).mean() / (negatives.shape[1] + 1)


def _draw(
    num_negatives: int,
    targets: Tensor,
    num_items: int,
    *,
    shared: bool,
    chances: Tensor | None,
    borders: Tensor | None = None,
) -> Tensor:
    """Negatives (1, n) for all targets or (R, n), with replacement: uniform, or by ``chances`` (N,), whose sums are
    ``borders``."""
    shape = (1 if shared else len(targets), num_negatives)
    borders = cumulated(chances) if borders is None else borders
    if borders is None:
        return torch.randint(num_items, shape, device=targets.device)
    places = torch.rand(shape, dtype=torch.float64, device=targets.device) * borders[-1]
    return torch.searchsorted(borders, places, right=True).clamp(max=num_items - 1)


def _scores(hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the targets (R,) and of the negatives (R, n), in at least float32."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    # One gather for both, because its gradient is as large as the table.
    vectors = functional.embedding(torch.cat([targets, negatives.flatten()]), table)
    positive = (hidden.to(exact) * vectors[: len(targets)]).sum(dim=1)
    others = vectors[len(targets) :]
    if len(negatives) == 1:
        return positive, functional.linear(hidden, others.to(hidden.dtype)).to(exact)
    scores = others.view(*negatives.shape, -1).to(hidden.dtype) @ hidden[..., None]
    return positive, scores.squeeze(-1).to(exact)


def _drawn_before(negatives: Tensor) -> Tensor:
    """(R, n) where an item stands for the second time, or later, in its row."""
    items, order = negatives.sort(dim=1, stable=True)
    again = functional.pad(items[:, 1:] == items[:, :-1], (1, 0))
    return torch.zeros_like(again).scatter(1, order, again)


def _log_share(counts: Tensor, total: Tensor | None = None) -> Tensor:
    """The logarithm of each item's share of the training interactions, ``total`` or the sum of ``counts``; held-out
    items may have none, and count as one.

    Without the floor the logit of such an item would be a large number, whoever the user.
    """
    return (counts.clamp(min=1.0) / (counts.sum() if total is None else total)).log()


def _check_negatives(num_negatives: int) -> None:
    if num_negatives < 1:
        raise GenrecError(f"loss.num_negatives must be at least 1, got {num_negatives}.")


# ---- losses of users' vectors over items, for edges of a graph ------------------------------------------------------


class PairLoss(Protocol):
    """A loss of training pairs beside ``num_negatives`` unmet items, which the data view draws by ``sampling``."""

    @property
    def num_negatives(self) -> int: ...
    @property
    def sampling(self) -> Literal["uniform", "popularity"]: ...

    def of_scores(self, met: Tensor, unmet: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class BPR(SampledLoss):
    """softplus(score of the unmet item - score of the met one), mean over pairs (Rendle et al., UAI 2009).

    ``count`` unmet items stand beside each met one, drawn uniformly or by ``sampling`` "popularity" (training count to
    the power of 3/4). With ``candidates`` above 1, each is the best scored of so many draws: hard negatives (dynamic
    negative sampling, Zhang et al., SIGIR 2013). For models of edges the data view draws what a user really has not
    met; called as an item loss it draws for itself, and only the target is left out.
    """

    count: Count = 1
    sampling: Literal["uniform", "popularity"] = "uniform"
    candidates: Count = 1

    def __post_init__(self) -> None:
        check_fields(self, "loss")

    @property
    def num_negatives(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many items to draw for each pair."""
        return self.count * self.candidates

    def of_scores(self, met: Tensor, unmet: Tensor) -> Tensor:
        """Scores (B,) of met items and (B, num_negatives) of unmet ones to the loss in nats."""
        if self.candidates > 1:
            unmet = unmet.view(len(met), self.count, self.candidates).amax(dim=2)
        return functional.softplus(unmet - met[:, None]).mean()

    def chances(self, counts: Tensor) -> Tensor | None:
        return None if self.sampling == "uniform" else counts**_POWER_OF_POPULARITY

    def of_drawn(
        self, hidden: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, counts: Tensor, whole: Whole
    ) -> Tensor:
        met, unmet = _scores(hidden, table, targets, negatives)
        return self.of_scores(met, unmet.masked_fill(negatives == targets[:, None], -torch.inf))


@dataclass(frozen=True, kw_only=True)
class InBatchSoftmax:
    """Softmax cross-entropy over the targets of the batch, scores divided by ``temperature``.

    ``cosine`` scores by cosine instead of the product. ``logq`` subtracts the log of each item's share of the training
    interactions, since that is how often it is a negative (Yi et al., RecSys 2019): the target of every other row is
    one, and an item that is the target of several is several, but never a negative of itself. Without ``logq`` an item
    counts once. ``users`` (R,), where given, keep a user's other targets from being the user's negatives. ``whole``
    holds the targets and users of the batch that these rows are a part of, where they are: its targets are the
    negatives.
    """

    temperature: Positive = 1.0
    cosine: bool = False
    logq: bool = True

    over_targets: ClassVar[bool] = True  # takes ``users``, and a table that holds the targets of the batch alone

    def __post_init__(self) -> None:
        check_fields(self, "loss")

    def users(self, vectors: Tensor) -> Tensor:
        """Vectors (..., D) of users as they are multiplied with those of ``items``."""
        return (functional.normalize(vectors, dim=-1) if self.cosine else vectors) / self.temperature

    def items(self, vectors: Tensor) -> Tensor:
        """Vectors (..., D) of items as they are multiplied with those of ``users``."""
        return functional.normalize(vectors, dim=-1) if self.cosine else vectors

    def __call__(
        self,
        hidden: Tensor,
        table: Tensor,
        targets: Tensor,
        counts: Tensor,
        users: Tensor | None = None,
        whole: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        candidates, places, times = (targets if whole is None else whole[0]).unique(
            return_inverse=True, return_counts=True
        )
        own = places if whole is None else torch.searchsorted(candidates, targets)
        with torch.autocast(hidden.device.type, enabled=False):
            vectors = self.items(functional.embedding(candidates, table).to(exact))
            scores = functional.linear(self.users(hidden.to(exact)), vectors)
        if self.logq:
            itself = functional.one_hot(own, len(candidates)).bool()
            scores = scores - _log_share(counts)[candidates] + times.log().masked_fill(itself, 0.0)
        if users is not None:
            known = (users, own) if whole is None else (whole[1], places)
            scores = scores.masked_fill(_others_of_the_user(users, own, *known), -torch.inf)
        return functional.cross_entropy(scores, own)


def _others_of_the_user(users: Tensor, own: Tensor, all_users: Tensor, places: Tensor) -> Tensor:
    """(R, C) the candidates that are targets of a row's user (R,) in other rows; ``own`` (R,) is the row's own one.
    ``all_users`` and ``places`` are the users and the targets of all rows, these and others."""
    known, numbers = all_users.unique(return_inverse=True)
    met = own.new_zeros(len(known), int(places.max()) + 1, dtype=torch.bool)
    met[numbers, places] = True
    return met[torch.searchsorted(known, users)].scatter(1, own[:, None], False)


# ---- losses by name -------------------------------------------------------------------------------------------------

_BY_NAME: dict[str, Callable[[], Any]] = {
    "pointwise": BCE,
    "pairwise": BPR,
    "listwise": partial(SampledSoftmax, logq=True, sampling="popularity"),
    "in_batch": InBatchSoftmax,
    "full": FullCrossEntropy,
}


def item_loss(loss: Any) -> Any:
    """A loss over items: an object as it is, or that of a short name.

    "pointwise" is binary cross-entropy beside a sampled item, "pairwise" BPR beside one, "listwise" a softmax over the
    target and 256 items sampled by popularity, with logQ, "in_batch" one over the targets of the batch, with logQ, and
    "full" one over the catalogue.
    """
    if isinstance(loss, str):
        if loss not in _BY_NAME:
            near = get_close_matches(loss, _BY_NAME, n=1, cutoff=0.6)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise GenrecError(
                f"model.loss={loss}: expected one of {', '.join(_BY_NAME)}, or a class: "
                f"'model.loss={{_target_: genrec.losses.SampledSoftmax}}'.{meant}"
            )
        return _BY_NAME[loss]()
    if not callable(loss):
        raise GenrecError(
            f"model.loss={loss!r} is no loss over items: it cannot be called with (hidden, table, targets, counts). "
            f"Give one of {', '.join(_BY_NAME)}."
        )
    return loss


def scored_users(loss: Any, vectors: Tensor) -> Tensor:
    """Vectors (..., D) of users such that products with ``scored_items`` are the scores that ``loss`` is of."""
    return loss.users(vectors) if hasattr(loss, "users") else vectors


def scored_items(loss: Any, vectors: Tensor) -> Tensor:
    """The same of the items (N, D)."""
    return loss.items(vectors) if hasattr(loss, "items") else vectors
