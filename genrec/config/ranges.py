"""Ranges of what third-party signatures declare as plain numbers, and keys of the optimizer that contradict each other.

What our own constructors allow stands in their annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

from genrec.config.faults import Fault

_SHARE = Annotated[float, Ge(0), Lt(1)]
_POSITIVE = Annotated[float, Gt(0)]
_NOT_NEGATIVE = Annotated[float, Ge(0)]

_SCALARS: dict[str, Any] = {
    "lr": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "eps": _POSITIVE,
    "momentum": _SHARE,
}
_OF_TORCH: dict[str, Any] = {
    **_SCALARS,
    "betas": tuple[_SHARE, _SHARE],
    "alpha": _SHARE,
    "rho": _SHARE,
    "dampening": Annotated[float, Ge(0), Le(1)],
    "lr_decay": _NOT_NEGATIVE,
    "momentum_decay": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
}
_OF_ADAFACTOR: dict[str, Any] = {
    **_OF_TORCH,
    "eps": tuple[_POSITIVE | None, _POSITIVE],
    "beta2_decay": Annotated[float, Lt(0)],
    "d": Annotated[float, Ge(1)],
}
_TORCH = ("torch.optim.", "genrec.optimizers.SGD")  # classes with torch's own keys
_OF_TARGET = {"torch.optim.Adafactor": _OF_ADAFACTOR}


def narrowed(path: str, target: str, key: str, annotation: Any) -> Any:
    """The annotation of a key of the node at ``path``, with its range where the signature itself names none."""
    if target.startswith(_TORCH):
        return _OF_TARGET.get(target, _OF_TORCH).get(key, annotation)
    if path.rpartition(".")[2] == "optimizer" and annotation is float:
        return _SCALARS.get(key, annotation)
    return annotation


def optimizer_faults(path: str, target: str, node: dict[str, Any]) -> Iterator[Fault]:
    """Keys of an optimizer's node that cannot be had together."""
    if not target.startswith(_TORCH):
        return
    if target.endswith(".SGD") and node.get("nesterov") is True:
        if node.get("momentum", 0) == 0:
            yield Fault(f"{path}.nesterov", f"it needs a momentum above 0: {path}.momentum=0.9", "true")
        if node.get("dampening", 0) != 0:
            yield Fault(f"{path}.nesterov", f"it needs {path}.dampening=0", "true")
    if node.get("fused") is True and node.get("foreach") is True:
        yield Fault(f"{path}.foreach", f"it goes only with {path}.fused=false", "true")
    if node.get("fused") is True and node.get("differentiable") is True:
        yield Fault(f"{path}.differentiable", f"it goes only with {path}.fused=false", "true")
