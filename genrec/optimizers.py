"""Optimizers that torch lacks: LAMB, and what goes with AdamW: Muon for matrices, row-wise Adagrad for large tables;
and SGD for weights whose gradients come late."""

# pyright: reportPrivateImportUsage=false
# torch's own optimizers are written with the _foreach_ functions, which handle all tensors of a group at once.

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor
from torch.optim import Optimizer

from genrec.annotations import NotNegative, Positive, Rate, check_arguments
from genrec.contracts import GenrecError


class SGD(torch.optim.SGD):
    """``torch.optim.SGD`` for models some of whose weights get their first gradient later than others.

    torch's fused kernel refuses momentum that only some weights have, so those that lack it start at zero: without
    dampening that is what torch's own loops do.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: Positive = 0.01,
        momentum: Rate = 0.9,
        dampening: NotNegative = 0.0,
        nesterov: bool = False,
        weight_decay: NotNegative = 0.0,
        fused: bool = True,
    ) -> None:
        check_arguments(SGD.__init__, locals(), "optimizer")
        options: dict[str, Any] = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "fused": fused}
        super().__init__(params, lr=lr, weight_decay=weight_decay, **options)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["fused"] and group["momentum"]:
                self._complete([weight for weight in group["params"] if weight.grad is not None])
        super().step()
        return loss

    def _complete(self, weights: list[Tensor]) -> None:
        late = [weight for weight in weights if self.state[weight].get("momentum_buffer") is None]
        if len(late) < len(weights):
            for weight in late:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight, memory_format=torch.preserve_format)


class Lamb(Optimizer):
    """Adam whose step for each tensor is as long as a share of the tensor itself (You et al. 2020, arXiv 1904.00962).

    Algorithm 2 there with phi the identity: r = m / (sqrt(v) + eps) with both moments corrected for their start at
    zero, u = r + weight_decay w, w <- w - lr (|w| / |u|) u. The ratio is 1 where either norm is 0, and for vectors
    (norms, biases) unless ``adapt_vectors``, as in the authors' experiments.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: Positive = 1e-3,
        betas: tuple[Rate, Rate] = (0.9, 0.999),
        eps: Positive = 1e-6,
        weight_decay: NotNegative = 0.01,
        adapt_vectors: bool = False,
    ) -> None:
        check_arguments(Lamb.__init__, locals(), "optimizer")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "adapt_vectors": adapt_vectors,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._step(weights, group)
        return loss

    def _step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients: list[Any] = [weight.grad for weight in weights]
        states = [self._state(weight) for weight in weights]
        for state in states:
            state["step"] += 1
        steps = [int(state["step"]) for state in states]
        first, second = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        scale = torch._foreach_div(second, [1 - beta2**step for step in steps])
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        update = torch._foreach_div(first, [1 - beta1**step for step in steps])
        torch._foreach_div_(update, scale)
        if group["weight_decay"]:
            torch._foreach_add_(update, weights, alpha=group["weight_decay"])
        adapted = [i for i, weight in enumerate(weights) if weight.ndim > 1 or group["adapt_vectors"]]
        if adapted:
            chosen = [update[i] for i in adapted]
            torch._foreach_mul_(chosen, _trust_ratios([weights[i] for i in adapted], chosen))
        torch._foreach_add_(weights, update, alpha=-group["lr"])

    def _state(self, weight: Tensor) -> dict[str, Any]:
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the CPU: it is read at every step
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        return state


def _trust_ratios(weights: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
    """|w| / |u| per tensor (scalar tensors), 1 where either is 0."""
    pairs = zip(torch._foreach_norm(weights), torch._foreach_norm(updates), strict=True)
    return [torch.where((w > 0) & (u > 0), w / u, torch.ones_like(w)) for w, u in pairs]


class Muon(Optimizer):
    """Muon for hidden matrices, AdamW for everything else: two optimizers that step, save and resume as one.

    Muon's step is the momentum of a matrix made orthogonal (Jordan et al. 2024; torch.optim.Muon, torch >= 2.9). It
    takes groups with ``hidden`` True, which genrec's trainers make of the matrices of linear layers; embeddings,
    vectors and whatever has no such mark are AdamW's. ``adjust_lr_fn`` "match_rms_adamw" makes its steps as long as
    AdamW's (Liu et al., arXiv 2502.16982), so that one ``lr`` serves both; "original" wants an ``lr`` of about 0.02
    and an ``adamw_lr`` of its own (None: the same). ``fused`` is AdamW's.
    """

    wants_whole_weights = True  # so that a matrix can be made orthogonal
    separate_hidden = True  # asks the trainer to mark the groups of hidden matrices

    def __init__(
        self,
        params: Any,
        *,
        lr: Positive = 1e-3,
        momentum: Rate = 0.95,
        nesterov: bool = True,
        ns_steps: Annotated[int, Gt(0), Lt(100)] = 5,
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        weight_decay: NotNegative = 0.1,
        adamw_lr: Positive | None = None,
        betas: tuple[Rate, Rate] = (0.9, 0.999),
        eps: Positive = 1e-8,
        fused: bool = True,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise GenrecError("optimizer=muon needs torch 2.9 or newer. Update torch, or use optimizer=adamw.")
        check_arguments(Muon.__init__, locals(), "optimizer")
        muon = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "weight_decay": weight_decay,
        }
        adamw = {"lr": adamw_lr or lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "fused": fused}
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        hidden = [group for group in groups if group.get("hidden")]
        others = [group for group in groups if not group.get("hidden")]
        self._parts: list[Optimizer] = []
        if hidden:
            self._parts.append(torch.optim.Muon(hidden, **muon))
        if others:
            self._parts.append(torch.optim.AdamW(others, **adamw))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Lets the two optimizers work on this one's groups and state, which are what is saved and loaded."""
        for part in self._parts:
            wanted = isinstance(part, torch.optim.AdamW)
            part.param_groups = [group for group in self.param_groups if bool(group.get("hidden")) != wanted]
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


class RowwiseAdagrad(Optimizer):
    """Adagrad by rows for tables with sparse gradients, AdamW for everything else: two optimizers that step, save and
    resume as one.

    A row keeps one number in place of Adagrad's one for each weight, s <- s + |g|^2 / D from ``initial_accumulator``
    on, and steps by w <- w - lr g / (sqrt(s) + eps), where g (D,) is the sum of all that a batch asks of the row
    (Mudigere et al., ISCA 2022, arXiv 2104.05158). Other rows are neither read nor written, so none is decayed.
    Groups with ``sparse`` True are tables, which genrec's trainers
    make of tables with sparse gradients; a dense gradient of such a table gives the same step. ``adamw_lr`` is AdamW's
    rate (None: the same), ``betas``, ``weight_decay`` and ``fused`` are AdamW's alone.
    """

    takes_sparse_gradients = True
    wants_whole_weights = True  # a row's step is as long as the whole row says

    def __init__(
        self,
        params: Any,
        *,
        lr: Positive = 0.01,
        eps: Positive = 1e-8,
        initial_accumulator: NotNegative = 0.0,
        adamw_lr: Positive | None = 1e-3,
        betas: tuple[Rate, Rate] = (0.9, 0.999),
        weight_decay: NotNegative = 0.01,
        fused: bool = True,
    ) -> None:
        check_arguments(RowwiseAdagrad.__init__, locals(), "optimizer")
        rows = {"lr": lr, "eps": eps, "initial_accumulator": initial_accumulator}
        adamw = {"lr": adamw_lr or lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "fused": fused}
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        tables = [{**rows, **group} for group in groups if group.get("sparse")]
        others = [group for group in groups if not group.get("sparse")]
        for group in tables:
            if group.setdefault("weight_decay", 0.0):
                raise GenrecError(
                    f"tables with sparse gradients ({', '.join(group.get('names', ['one without a name']))}) are not "
                    f"decayed, and weight_decay={group['weight_decay']} was given for them. Leave it out, or train "
                    "them with model.sparse_gradients=false and another optimizer."
                )
        self._adamw = torch.optim.AdamW(others, **adamw) if others else None
        super().__init__([*tables, *(self._adamw.param_groups if self._adamw else [])], {})
        self._share()

    def _share(self) -> None:
        """Lets AdamW work on this one's groups and state, which are what is saved and loaded."""
        if self._adamw is not None:
            self._adamw.param_groups = [group for group in self.param_groups if not group.get("sparse")]
            self._adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group.get("sparse"):
                for table in group["params"]:
                    if table.grad is not None:
                        self._step_rows(table, group)
        if self._adamw is not None:
            self._adamw.step()
        return loss

    def _step_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["sum"] = table.new_full((len(table),), group["initial_accumulator"])
        rows, gradients = _rows_and_values(table.grad)
        sums = state["sum"].index_select(0, rows) + gradients.square().mean(dim=1)
        state["sum"].index_copy_(0, rows, sums)
        scale = (sums.sqrt() + group["eps"]).reciprocal_()
        # The rows differ, so they can be fetched, changed and put back, which takes half as long as adding to them.
        changed = table.index_select(0, rows).addcmul_(gradients, scale[:, None], value=-group["lr"])
        table.index_copy_(0, rows, changed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


def _rows_and_values(gradient: Any) -> tuple[Tensor, Tensor]:
    """The rows (n,) that a gradient (R, D) speaks of, each once, and its values (n, D) there."""
    if not gradient.is_sparse:
        return torch.arange(len(gradient), device=gradient.device), gradient
    summed = gradient.coalesce()
    return summed.indices()[0], summed.values()


def gradient_values(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients of those parameters that have one, as plain tensors that may be measured and changed in place.

    A sparse gradient is summed by rows first, and its values stand for it.
    """
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            found.append(parameter.grad.values())
        else:
            found.append(parameter.grad)
    return found


def scaler_of(precision: Any, optimizer: Any) -> Any:
    """What the gradients before a step are still scaled by in mixed precision, None where they are not.

    Lightning leaves them so to optimizers that undo it in their own step, as fused ones do; ``precision`` is its part.
    """
    return getattr(precision, "scaler", None) if getattr(optimizer, "_step_supports_amp_scaling", False) else None


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], *, norm: float | None = None, value: float | None = None) -> None:
    """Bounds each entry of the gradients by ``value``, then the norm of them all by ``norm``; sparse ones as well.

    The numbers are those of ``torch.nn.utils.clip_grad_value_`` and ``clip_grad_norm_``, which fail at sparse ones.
    """
    gradients: Any = gradient_values(parameters)
    if not gradients:
        return
    if value is not None:
        torch._foreach_clamp_min_(gradients, -value)
        torch._foreach_clamp_max_(gradients, value)
    if norm is not None:
        length = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (norm / (length + 1e-6)).clamp(max=1.0))


def build_optimizer(build: Callable[..., Any], groups: Iterable[dict[str, Any]]) -> Optimizer:
    """The optimizer of ``groups``, whose ``lr_scale`` is applied to the rate that each got; ``initial_lr`` keeps it.

    What an optimizer refuses is the user's mistake and raises ``GenrecError``.
    """
    groups = list(groups)
    kind = getattr(build, "func", build)
    name = getattr(kind, "__name__", "the optimizer")
    sparse = [table for group in groups if group.get("sparse") for table in group.get("names", ())]
    if sparse and not getattr(kind, "takes_sparse_gradients", False):
        raise GenrecError(
            f"optimizer: {name} takes no sparse gradients, and {', '.join(sparse)} has them (model.sparse_gradients). "
            "Use optimizer=rowwise_adagrad, or model.sparse_gradients=false."
        )
    betas = getattr(build, "keywords", {}).get("betas")
    if isinstance(betas, list | tuple):  # YAML's 0 is an int, which torch refuses here
        build = functools.partial(build, betas=tuple(float(beta) for beta in betas))
    try:
        optimizer = build(groups)
    except (ValueError, RuntimeError) as error:
        raise GenrecError(f"optimizer: {name} refuses its settings ({error}).") from error
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
        group["initial_lr"] = group["lr"]
    return optimizer
