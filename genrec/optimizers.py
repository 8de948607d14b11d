"""Optimizers that torch lacks: LAMB, and Muon together with the AdamW that it needs beside it."""

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


def build_optimizer(build: Callable[..., Any], groups: Iterable[dict[str, Any]]) -> Optimizer:
    """The optimizer of ``groups``, whose ``lr_scale`` is applied to the rate that each got; ``initial_lr`` keeps it.

    What an optimizer refuses is the user's mistake and raises ``GenrecError``.
    """
    name = getattr(getattr(build, "func", build), "__name__", "the optimizer")
    betas = getattr(build, "keywords", {}).get("betas")
    if isinstance(betas, list | tuple):  # YAML's 0 is an int, which torch refuses here
        build = functools.partial(build, betas=tuple(float(beta) for beta in betas))
    try:
        optimizer = build(list(groups))
    except (ValueError, RuntimeError) as error:
        raise GenrecError(f"optimizer: {name} refuses its settings ({error}).") from error
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
        group["initial_lr"] = group["lr"]
    return optimizer
