"""Balancing the losses of several tasks that share parameters, whatever trains them.

T tasks, P shared parameters. ``start`` names the tasks, ``backward`` adds to ``.grad`` as ``Tensor.backward`` does,
``step`` moves the balancer's own weights, which no other optimizer may hold. L_i is the loss of task i and g_i its
gradient with respect to the shared parameters.

With several processes each averages over all of them whatever it takes from ``torch.autograd.grad``, which passes by
the hooks of DistributedDataParallel, and the losses it goes by; call the bare module, and give every process the same
tasks and parameters.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, distributed
from torch.nn import Parameter

from genrec.annotations import NotNegative, Positive, Rate, Share, check_fields
from genrec.contracts import GenrecError
from genrec.nn.several import num_processes

KINDS = ("classification", "regression")
_SMALLEST_WEIGHT = 1e-3  # GradNorm's optimizer could carry a weight below zero, and its task would then be unlearnt

Gradients = list[Tensor | None]  # one for each parameter, None where the loss does not reach it


@dataclass(kw_only=True, eq=False)
class Balancer(ABC):
    """What a trainer sees of every method; the fields of a method are its settings."""

    def __post_init__(self) -> None:
        check_fields(self, "balancing")
        self._names: tuple[str, ...] = ()

    def start(
        self,
        task_names: Sequence[str],
        *,
        kinds: Mapping[str, str],
        num_classes: Mapping[str, int] | None = None,
        last_shared: Sequence[Parameter] = (),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Begins anew with these tasks.

        ``kinds`` says of each task whether it is "classification" or "regression"; ``num_classes`` is for GradNorm's
        ``initial_loss`` "log_classes", ``last_shared`` the weight of the last shared layer (of each expert, where there
        are several) for GradNorm, ``generator`` draws PCGrad's order (None: one with seed 0). ``device`` is where the
        losses are.
        """
        names = tuple(task_names)
        if not names or len(set(names)) < len(names):
            raise GenrecError(f"balancing: the tasks need names that differ, got {list(names)}.")
        for name in names:
            if kinds.get(name) not in KINDS:
                raise GenrecError(
                    f"balancing: the kind of task {name!r} must be one of {', '.join(KINDS)}, got {kinds.get(name)!r}."
                )
        self._names, self._kinds = names, [kinds[name] for name in names]
        self._num_classes = dict(num_classes or {})
        self._last_shared = list(last_shared)
        self._generator = generator if generator is not None else torch.Generator().manual_seed(0)
        self._device = torch.device(device or "cpu")
        self._factors = torch.ones(len(names), device=self._device)
        self._begin()

    @property
    def weights(self) -> dict[str, float]:
        """By what each task's loss (or, where a method works on gradients, its shared gradient) was last multiplied."""
        self._require_start()
        return dict(zip(self._names, self._factors.tolist(), strict=True))

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared: Sequence[Parameter],
        private: Sequence[Parameter],
        *,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Adds the balanced gradients to ``.grad`` and gives the total loss, detached.

        ``losses`` are scalars, one for each task. ``private`` holds the parameters of single tasks, which get the
        gradient of the sum of the weighted losses as it is; ``extra`` (regularisation) is added to the total and is
        neither weighted nor balanced. A parameter in neither list gets no gradient.
        """
        self._require_start()
        if set(losses) != set(self._names):
            raise GenrecError(f"balancing: got losses of {list(losses)}, but the tasks are {list(self._names)}.")
        for name, loss in losses.items():
            if loss.ndim:
                raise GenrecError(f"balancing: the loss of task {name!r} must be a scalar, got shape {[*loss.shape]}.")
        if not shared:
            raise GenrecError("balancing: there are no shared parameters, so there is nothing to balance.")
        if len({id(parameter) for parameter in (*shared, *private)}) < len(shared) + len(private):
            raise GenrecError("balancing: a parameter is listed twice; it is either shared or private.")
        return self._fill([losses[name] for name in self._names], list(shared), list(private), extra).detach()

    def step(self) -> None:  # noqa: B027
        """Moves the balancer's own weights by the gradients of ``backward``, and clears those."""

    def on_epoch_end(self, mean_losses: Mapping[str, float]) -> None:  # noqa: B027
        """Told each task's mean training loss of the epoch; only ``DynamicWeightAverage`` listens."""

    def state_dict(self) -> dict[str, Any]:
        self._require_start()
        return {"tasks": list(self._names), "factors": self._factors.clone(), **self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state``; the balancer must have been started with the same tasks."""
        self._require_start()
        if state["tasks"] != list(self._names):
            raise GenrecError(f"balancing: the state is of tasks {state['tasks']}, not of {list(self._names)}.")
        self._factors = state["factors"].to(self._device, copy=True)
        self._load(state)

    @abstractmethod
    def _fill(
        self, losses: list[Tensor], shared: list[Parameter], private: list[Parameter], extra: Tensor | None
    ) -> Tensor:
        """Adds to ``.grad`` and gives the total."""

    def _begin(self) -> None:  # noqa: B027
        """Sets what a method remembers to its beginning."""

    def _state(self) -> dict[str, Any]:
        return {}

    def _load(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Takes what ``_state`` gave."""

    def _require_start(self) -> None:
        if not self._names:
            raise GenrecError("balancing: call start(task_names, kinds=...) first.")


# ---- weights on losses ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Equal(Balancer):
    """The sum of the losses, sum_i L_i; and the base of the methods that weight it."""

    def _fill(
        self, losses: list[Tensor], shared: list[Parameter], private: list[Parameter], extra: Tensor | None
    ) -> Tensor:
        total = self._weighted(losses, shared)
        if extra is not None:
            total = total + extra
        parameters = [*shared, *private, *self._own_parameters()]
        _add(parameters, _gradients(total, parameters))
        return total

    def _weighted(self, losses: list[Tensor], shared: list[Parameter]) -> Tensor:
        return _sum(factor * loss for factor, loss in zip(self._factors, losses, strict=True))

    def _own_parameters(self) -> list[Parameter]:
        """Those of the balancer that the total is differentiated by."""
        return []


@dataclass(kw_only=True, eq=False)
class UncertaintyWeights(Equal):
    """Weights learnt as each task's noise (Kendall, Gal and Cipolla, CVPR 2018, arXiv 1705.07115).

    Total: sum of exp(-s) L + s / 2 over classification tasks and of exp(-s) L / 2 + s / 2 over regression tasks, of
    which L is the squared error. s, the log of the variance, begins at 0 and knows no bound: it settles at exp(s) = 2 L
    and exp(s) = L, where the total of a task with a small loss is below zero. Adam with rate ``lr`` moves s without
    weight decay.
    """

    lr: Positive = 1e-3

    def _begin(self) -> None:
        self._log_variances = Parameter(torch.zeros(len(self._names), device=self._device))
        kind_factors = [1.0 if kind == "classification" else 0.5 for kind in self._kinds]
        self._kind_factors = torch.tensor(kind_factors, device=self._device)
        self._optimizer = torch.optim.Adam([self._log_variances], lr=self.lr, weight_decay=0.0)
        self._factors = self._kind_factors.clone()

    def step(self) -> None:
        self._require_start()
        _step(self._optimizer, self._log_variances)

    def _weighted(self, losses: list[Tensor], shared: list[Parameter]) -> Tensor:
        factors = self._kind_factors * torch.exp(-self._log_variances)
        self._factors = factors.detach()
        return _sum(factor * loss for factor, loss in zip(factors, losses, strict=True)) + self._log_variances.sum() / 2

    def _own_parameters(self) -> list[Parameter]:
        return [self._log_variances]

    def _state(self) -> dict[str, Any]:
        log_variances = self._log_variances.detach().clone()
        return {"log_variances": log_variances, "optimizer": copy.deepcopy(self._optimizer.state_dict())}

    def _load(self, state: Mapping[str, Any]) -> None:
        _restore(self._log_variances, state["log_variances"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


@dataclass(kw_only=True, eq=False)
class GradNorm(Equal):
    """Weights learnt so that the tasks train at like rates (Chen et al., ICML 2018, arXiv 1711.02257).

    The total is sum_i w_i L_i with w taken as constant. With W the last shared layer's weight (``start``),
    G_i = ||grad_W w_i L_i|| and r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0)), w follows the gradient of
    sum_i |G_i - mean_j(G_j) r_i^alpha|, whose second term is a constant: a task that learns more slowly than the others
    gains weight. After each step of Adam with rate ``lr`` (no weight decay) w is scaled to sum to T.

    ``initial_loss`` "first" takes L_i(0) from the first step with a positive loss, until which the task counts as
    unchanged; "log_classes" takes log C for classification, which no unlucky first batch moves. The losses must not be
    negative. Costs T extra gradients of W at each step.
    """

    alpha: NotNegative = 0.16
    lr: Positive = 0.025
    initial_loss: Literal["first", "log_classes"] = "first"

    def _begin(self) -> None:
        if not self._last_shared:
            raise GenrecError(
                "balancing: GradNorm needs last_shared, the weight of the last layer that all tasks share, and tasks "
                "that share only embedding tables have none. Choose a model with shared layers (model=mmoe) or another "
                f"method ({', '.join(name for name in METHODS if name != 'gradnorm')})."
            )
        self._own = Parameter(torch.ones(len(self._names), device=self._device))
        self._optimizer = torch.optim.Adam([self._own], lr=self.lr, weight_decay=0.0)
        self._initial = torch.tensor([self._known_initial(i) for i in range(len(self._names))], device=self._device)

    def _known_initial(self, task: int) -> float:
        """L_i(0), nan as long as it is not known."""
        if self.initial_loss == "first" or self._kinds[task] != "classification":
            return math.nan
        classes = self._num_classes.get(self._names[task], 0)
        if classes < 2:
            raise GenrecError(
                f"balancing.initial_loss=log_classes: task {self._names[task]!r} needs num_classes of at least 2."
            )
        return math.log(classes)

    def step(self) -> None:
        self._require_start()
        _step(self._optimizer, self._own)
        with torch.no_grad():
            self._own.clamp_(min=_SMALLEST_WEIGHT)
            self._own.mul_(len(self._own) / self._own.sum())
        self._factors = self._own.detach().clone()

    def _weighted(self, losses: list[Tensor], shared: list[Parameter]) -> Tensor:
        if not {id(weight) for weight in self._last_shared} <= {id(parameter) for parameter in shared}:
            raise GenrecError("balancing: last_shared must be among the shared parameters.")
        gradients = [_gradients(loss, self._last_shared, retain=True) for loss in losses]
        norms = torch.stack([_norms(found, self._last_shared).norm() for found in gradients]).to(self._own)
        [values] = _mean_over_processes([torch.stack([loss.detach() for loss in losses])], [losses[0]])
        assert values is not None
        _add([self._own], [self._gradient(norms, values.to(self._own))])
        return super()._weighted(losses, shared)

    @torch.no_grad()
    def _gradient(self, norms: Tensor, losses: Tensor) -> Tensor:
        """Of sum_i |w_i ||grad_W L_i|| - target_i| by w, from ``norms`` ||grad_W L_i|| (T,) and ``losses`` (T,)."""
        self._initial = torch.where(self._initial.isnan() & (losses > 0), losses, self._initial)
        progress = torch.where(self._initial.isnan(), 1.0, losses / self._initial)
        rates = progress / progress.mean().clamp(min=torch.finfo(progress.dtype).tiny)
        weighted = self._own * norms
        return torch.sign(weighted - weighted.mean() * rates**self.alpha) * norms

    def _state(self) -> dict[str, Any]:
        own, initial = self._own.detach().clone(), self._initial.clone()
        return {"own": own, "initial": initial, "optimizer": copy.deepcopy(self._optimizer.state_dict())}

    def _load(self, state: Mapping[str, Any]) -> None:
        _restore(self._own, state["own"])
        self._initial = state["initial"].to(self._device, copy=True)
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


@dataclass(kw_only=True, eq=False)
class DynamicWeightAverage(Equal):
    """Weights from how fast the losses fell (Liu, Johns and Davison, CVPR 2019, arXiv 1803.10704, equation 7).

    With L_i(t) the mean loss of epoch t: w_i = T exp(q_i / temperature) / sum_j exp(q_j / temperature), where
    q_i = L_i(t - 1) / L_i(t - 2). All weights are 1 in the first two epochs; q_i is 1 where L_i(t - 2) is not positive.
    """

    temperature: Positive = 2.0

    def _begin(self) -> None:
        self._previous: Tensor | None = None

    def on_epoch_end(self, mean_losses: Mapping[str, float]) -> None:
        self._require_start()
        if set(mean_losses) != set(self._names):
            raise GenrecError(f"balancing: got losses of {list(mean_losses)}, but the tasks are {list(self._names)}.")
        own = torch.tensor([float(mean_losses[name]) for name in self._names], device=self._device)
        [last] = _mean_over_processes([own], [own])
        assert last is not None
        if self._previous is not None:
            ratios = torch.where(self._previous > 0, last / self._previous, 1.0)
            self._factors = len(last) * torch.softmax(ratios / self.temperature, dim=0)
        self._previous = last

    def _state(self) -> dict[str, Any]:
        return {"previous": None if self._previous is None else self._previous.clone()}

    def _load(self, state: Mapping[str, Any]) -> None:
        previous = state["previous"]
        self._previous = None if previous is None else previous.to(self._device, copy=True)


# ---- work on gradients ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class _OnGradients(Balancer):
    """The base of the methods that combine the tasks' shared gradients: a backward pass for each task."""

    def _fill(
        self, losses: list[Tensor], shared: list[Parameter], private: list[Parameter], extra: Tensor | None
    ) -> Tensor:
        parameters = [*shared, *private]
        terms = [*losses, *([] if extra is None else [extra])]
        found = [_gradients(term, parameters, retain=i + 1 < len(terms)) for i, term in enumerate(terms)]
        if any(gradient is not None and gradient.is_sparse for gradients in found for gradient in gradients):
            method = type(self).__name__
            raise GenrecError(f"balancing: {method} needs dense gradients; use model.sparse_gradients=false.")
        tasks = [gradients[: len(shared)] for gradients in found[: len(losses)]]
        factors = self._combination(tasks, shared)
        _add(shared, [_sum_of(column, factors[:, i]) for i, column in enumerate(zip(*tasks, strict=True))])
        for gradients in found[: len(losses)]:
            _add(private, gradients[len(shared) :])
        for gradients in found[len(losses) :]:
            _add(parameters, gradients)
        return _sum(terms)

    @abstractmethod
    def _combination(self, gradients: list[Gradients], shared: list[Parameter]) -> Tensor:
        """By what each task's gradient of each shared parameter is multiplied before they are summed: (T, P)."""


@dataclass(kw_only=True, eq=False)
class MetaBalance(_OnGradients):
    """Auxiliary gradients brought near the target's in length (He et al., WWW 2022, arXiv 2203.06801).

    The first task is the target, whose gradient stays. For each shared parameter apart, with moving averages
    m_i <- beta m_i + (1 - beta) ||g_i|| from 0, an auxiliary gradient becomes r (m_target / m_i) g_i + (1 - r) g_i with
    r the ``relax_factor``. ``strategy`` "A" does so only where m_i > m_target (gradients shrink), "B" only where
    m_i < m_target (they grow), "C" always; averages are compared, not the lengths of this step, so that "A" never
    enlarges and "B" never shrinks. Where either average is 0 the gradient stays.

    The averages are those of the single backward passes, so accumulated batches each count as a step. ``weights`` is
    the mean over the shared parameters.
    """

    strategy: Literal["A", "B", "C"] = "C"
    relax_factor: Share = 0.7
    beta: Rate = 0.9

    def _begin(self) -> None:
        self._averages: Tensor | None = None

    def _combination(self, gradients: list[Gradients], shared: list[Parameter]) -> Tensor:
        norms = torch.stack([_norms(found, shared) for found in gradients]).to(self._device)
        averages = torch.zeros_like(norms) if self._averages is None else self._averages
        if averages.shape != norms.shape:
            began = averages.shape[1]
            raise GenrecError(f"balancing: MetaBalance began with {began} shared parameters, got {len(shared)}.")
        self._averages = torch.where(norms.isfinite(), self.beta * averages + (1 - self.beta) * norms, averages)
        factors = self._relaxed(self._averages)
        self._factors = factors.mean(dim=1)
        return factors

    def _relaxed(self, averages: Tensor) -> Tensor:
        target = averages[:1]
        chosen = (averages > 0) & (target > 0)
        if self.strategy == "A":
            chosen &= averages > target
        elif self.strategy == "B":
            chosen &= averages < target
        return torch.where(chosen, self.relax_factor * target / averages + (1 - self.relax_factor), 1.0)

    def _state(self) -> dict[str, Any]:
        return {"averages": None if self._averages is None else self._averages.clone()}

    def _load(self, state: Mapping[str, Any]) -> None:
        averages = state["averages"]
        self._averages = None if averages is None else averages.to(self._device, copy=True)


@dataclass(kw_only=True, eq=False)
class PCGrad(_OnGradients):
    """Conflicting gradients projected onto each other's normal plane (Yu et al., NeurIPS 2020, arXiv 2001.06782).

    Algorithm 1: for each task i, g_i' = g_i, then for every other task j in random order
    g_i' <- g_i' - (g_i' . g_j / ||g_j||^2) g_j where g_i' . g_j < 0; the sum of the g_i' is taken. A gradient is that
    of all shared parameters together. ``weights`` is by what each g_j enters the sum.
    """

    def _combination(self, gradients: list[Gradients], shared: list[Parameter]) -> Tensor:
        columns = list(zip(*gradients, strict=True))
        tasks = range(len(gradients))
        products = torch.stack([torch.stack([_product(columns, i, j) for j in tasks]) for i in tasks])
        self._factors = self._projected(products.to("cpu", torch.float64)).to(self._factors)
        return self._factors[:, None].expand(-1, len(shared))

    def _projected(self, products: Tensor) -> Tensor:
        """The sum of the g_i' in terms of the g_j (T,), from the products g_i . g_j (T, T)."""
        share = torch.eye(len(products), dtype=products.dtype)  # row i: g_i' in terms of the g_j
        for i, row in enumerate(share):
            for j in torch.randperm(len(products), generator=self._generator).tolist():
                product = row @ products[:, j]
                if j != i and product < 0:
                    row[j] -= product / products[j, j]
        return share.sum(dim=0)

    def _state(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state()}

    def _load(self, state: Mapping[str, Any]) -> None:
        self._generator.set_state(state["generator"].cpu())


# ---- by name --------------------------------------------------------------------------------------------------------

METHODS: dict[str, type[Balancer]] = {
    "none": Equal,
    "uwl": UncertaintyWeights,
    "gradnorm": GradNorm,
    "metabalance": MetaBalance,
    "pcgrad": PCGrad,
    "dwa": DynamicWeightAverage,
}


def balancer(method: str | Balancer) -> Balancer:
    """A method with its default settings by its short name in ``METHODS``; an object of one is given back."""
    if isinstance(method, Balancer):
        return method
    if method not in METHODS:
        near = get_close_matches(str(method).lower(), METHODS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise GenrecError(
            f"balancing={method}: no such method.{hint} Choose one of {', '.join(METHODS)}, or give an object with "
            "settings ({_target_: genrec.balancing.GradNorm, alpha: 1.5})."
        )
    return METHODS[method]()


# ---- gradients ------------------------------------------------------------------------------------------------------


def _gradients(loss: Tensor, parameters: Sequence[Parameter], *, retain: bool = False) -> Gradients:
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    found: dict[int, Tensor | None] = {}
    if trainable and loss.requires_grad:
        gradients = torch.autograd.grad(loss, trainable, retain_graph=retain, allow_unused=True)
        found = {id(parameter): gradient for parameter, gradient in zip(trainable, gradients, strict=True)}
    return _mean_over_processes([found.get(id(parameter)) for parameter in parameters], parameters)


def _mean_over_processes(values: Gradients, like: Sequence[Tensor]) -> Gradients:
    """The mean over all processes, where None counts as 0, and stays where no process has a value."""
    if num_processes() == 1 or not like:
        return values
    present = torch.tensor([float(value is not None) for value in values], device=like[0].device)
    dense = [torch.zeros_like(b) if a is None else a.to_dense() for a, b in zip(values, like, strict=True)]
    flat = torch.cat([present, *(value.detach().flatten() for value in dense)])
    distributed.all_reduce(flat)
    count, *means = flat.split([len(values), *(value.numel() for value in dense)])
    means = [(mean / num_processes()).view_as(b).to(b.dtype) for mean, b in zip(means, dense, strict=True)]
    return [mean if number else None for mean, number in zip(means, count.tolist(), strict=True)]


def _add(parameters: Sequence[Parameter], gradients: Iterable[Tensor | None]) -> None:
    """A first gradient is copied: autograd may give several parameters one tensor, and clipping works in place.

    The copy lies in memory as its parameter does, which autograd's own gradients may not (that of a transposed weight
    is transposed): fused optimizers step through both in the order of memory.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad = parameter.grad + gradient.detach()
        elif gradient.is_sparse:
            parameter.grad = gradient.detach().clone()
        else:
            parameter.grad = torch.empty_like(parameter).copy_(gradient.detach())


def _sum_of(gradients: Sequence[Tensor | None], factors: Tensor) -> Tensor | None:
    terms = [factor.to(found) * found for found, factor in zip(gradients, factors, strict=True) if found is not None]
    return _sum(terms) if terms else None


def _norms(gradients: Gradients, parameters: Sequence[Parameter]) -> Tensor:
    """The length of each gradient, 0 where there is none: (P,)."""
    zeros = [parameter.new_zeros(()) for parameter in parameters]
    pairs = zip(gradients, zeros, strict=True)
    return torch.stack([zero if found is None else torch.linalg.vector_norm(found) for found, zero in pairs]).detach()


def _product(columns: Sequence[Sequence[Tensor | None]], i: int, j: int) -> Tensor:
    """The inner product of the gradients of tasks i and j, given for each parameter those of all tasks."""
    total = torch.zeros(())
    for column in columns:
        first, second = column[i], column[j]
        if first is not None and second is not None:
            total = total.to(first.device) + (first * second).sum()
    return total


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *rest = terms
    for term in rest:
        first = first + term
    return first


# ---- the balancer's own weights -------------------------------------------------------------------------------------


def _step(optimizer: torch.optim.Optimizer, own: Parameter) -> None:
    """A step of ``own``, left out where its gradient is not finite (one such step would stay in Adam's moments)."""
    if own.grad is not None and bool(own.grad.isfinite().all()):
        optimizer.step()
    optimizer.zero_grad()


def _restore(own: Parameter, values: Tensor) -> None:
    with torch.no_grad():
        own.copy_(values)
    own.grad = None
