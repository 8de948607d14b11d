"""The size of a training before it begins: the model is built without memory, its optimizer on small stand-ins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from genrec.config import instantiate
from genrec.contracts import DataSpec, GenrecError
from genrec.optimizers import build_optimizer
from genrec.rehearsal import invented_spec
from genrec.semantic_ids import SemanticIds
from genrec.trainers.parameter_groups import parameter_groups

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SIDE = 64  # of a stand-in at most, along each dimension
_COLLIDING = 16  # codes of the digit that tells colliding items apart, about
_WIDTH = 384  # of item vectors, where no encoder says it
_ADAM = 2.0  # numbers per weight, where an optimizer cannot be tried


@dataclass(frozen=True)
class Size:
    """``parameters`` that the model has, and bytes of its weights and buffers, of the gradients and of the
    optimizer's state."""

    parameters: int
    weights: float
    gradients: float
    state: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.state


def estimate(config: DictConfig, dataset: Any = None) -> Size:
    """The size of the model of ``config`` on ``dataset``; where that is None, on the invented shop of the rehearsal."""
    model = _build(config, _spec(config, dataset))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tensors = [*model.parameters(), *model.buffers()]
    return Size(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=float(sum(tensor.numel() * tensor.element_size() for tensor in tensors)),
        gradients=float(sum(parameter.numel() * parameter.element_size() for parameter in trained)),
        state=optimizer_bytes(model, config) if trained else 0.0,
    )


def free_memory(config: DictConfig) -> float | None:
    """Bytes that are free where the config computes; None where nobody says."""
    from genrec.doctor.environment import available_memory

    try:
        device = instantiate(config.hardware, _convert_="all").device
    except GenrecError:
        return available_memory()
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_memory()


def optimizer_bytes(model: nn.Module, config: DictConfig) -> float:
    """Bytes of the optimizer's state: it takes one step on stand-ins for the parameters, and what it then keeps for
    each is scaled up. Two numbers per weight where it refuses."""
    trainer = instantiate(config.trainer, _convert_="all")
    build = instantiate(config.optimizer, _convert_="all")
    groups = parameter_groups(
        model,
        getattr(trainer, "parameter_groups", ()),
        decay_embeddings=getattr(trainer, "decay_embeddings", True),
        separate_hidden=getattr(getattr(build, "func", build), "separate_hidden", False),
    )
    whole = [parameter for group in groups for parameter in group["params"]]
    stand_ins = [_stand_in(parameter) for parameter in whole]
    small = iter(stand_ins)
    groups = [{**group, "params": [next(small) for _ in group["params"]]} for group in groups]
    for group in groups:
        for parameter in group["params"]:
            zeros = torch.zeros_like(parameter)
            parameter.grad = zeros.to_sparse(1) if group.get("sparse") else zeros
    try:
        optimizer = build_optimizer(build, groups)
        optimizer.step()
    except GenrecError:
        raise
    except (RuntimeError, ValueError, TypeError):
        return _ADAM * sum(parameter.numel() * parameter.element_size() for parameter in whole)
    return sum(
        _kept(optimizer.state.get(small, {})) * parameter.numel() / max(small.numel(), 1)
        for parameter, small in zip(whole, stand_ins, strict=True)
    )


def _stand_in(parameter: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(torch.ones([min(side, _SIDE) for side in parameter.shape], dtype=parameter.dtype))


def _kept(state: dict[str, Any]) -> float:
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor) and value.numel() > 1]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def _build(config: DictConfig, spec: DataSpec) -> nn.Module:
    factory = instantiate(config.model, _partial_=True, _convert_="all")
    try:
        with torch.device("meta"):
            return factory(spec)
    except GenrecError:
        raise
    except Exception:  # a constructor that computes needs its numbers
        return factory(spec)


def _spec(config: DictConfig, dataset: Any) -> DataSpec:
    """What the model would know, with semantic IDs and item vectors of the right size instead of the true ones."""
    if dataset is None:
        return invented_spec(instantiate(config.data, _convert_="all"))
    spec: DataSpec = dataset.spec
    if not spec.num_items:
        return spec
    width = min(int(config.encoder.get("dim") or _WIDTH), spec.num_items)
    vectors = np.random.default_rng(0).standard_normal((spec.num_items, width), dtype=np.float32)
    return replace(spec, semantic_ids=_semantic_ids(config, spec.num_items), item_vectors=vectors)


def _semantic_ids(config: DictConfig, num_items: int) -> SemanticIds:
    """Codes as the tokenizer would shape them: those of an item are the digits of its number."""
    node = config.tokenizer
    if node.get("path"):
        return SemanticIds.load(node.path)
    levels, size = int(node.get("num_levels") or 3), min(int(node.get("codebook_size") or 256), max(num_items, 2))
    rest = np.arange(num_items)
    digits = []
    for _ in range(levels):
        digits.append(rest % size)
        rest = rest // size
    sizes = [size] * levels
    if node.get("collisions") == "extra_digit" or rest.any():
        digits.append(rest)
        sizes.append(max(_COLLIDING, int(rest.max(initial=0)) + 1))
    return SemanticIds(np.stack(digits, axis=1), tuple(sizes), levels)
