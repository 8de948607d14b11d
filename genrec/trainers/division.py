"""A model of which each of several processes holds a part: of its weights, their gradients and the optimizer's state.

Torch's ``fully_shard`` (FSDP2; Zhao et al. 2023, arXiv 2304.11277) cuts every parameter along its first dimension. A
step brings together the parameters it needs, block by block where a module says ``divided_alone``, and leaves in each
process its part of the averaged gradient. What is cut is a copy. The model itself stays whole, off the device, and is
given the trained weights whenever it is to be evaluated or saved.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Variable
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

from genrec.contracts import GenrecError
from genrec.trainers.world import World

if TYPE_CHECKING:
    from genrec.trainers.hardware import Hardware
    from genrec.trainers.learner import Learner

_OF_TORCH = tuple(getattr(torch.optim, name) for name in ("Adafactor", "Muon") if hasattr(torch.optim, name))
_FUSED_FOR_WHOLE = (torch.optim.SGD, torch.optim.Adagrad)  # torch 2.13 has fused steps of parts for Adam's kind alone
_INSTEAD = "Use hardware=ddp, where each process has the whole model."


def check_divisible(model: nn.Module, hardware: Hardware, optimizer: Any, *, by_hand: bool) -> None:
    """Raises ``GenrecError`` for a model, or for settings of a training, that cannot be divided.

    ``optimizer`` is its class, or a partial of that; ``by_hand``: whether a trainer averages gradients itself.
    """
    numbers = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    if numbers:
        raise GenrecError(f"hardware=fsdp: single numbers cannot be divided ({', '.join(numbers)}). {_INSTEAD}")
    for name, module in model.named_modules():
        if getattr(module, "changes_own_weights", False) or hasattr(module, "on_train_epoch_end"):
            place = f"{type(module).__name__}{f' ({name})' if name else ''}"
            raise GenrecError(f"hardware=fsdp: {place} changes its weights outside of the optimizer. {_INSTEAD}")
    if by_hand:
        raise GenrecError(f"hardware=fsdp: this trainer averages the gradients of whole models itself. {_INSTEAD}")
    if hardware.precision == "16-mixed":
        raise GenrecError("hardware=fsdp takes hardware.precision=bf16-mixed, 32-true or 64-true, not 16-mixed.")
    if hardware.compile:
        raise GenrecError("hardware=fsdp brings weights together within a step: use hardware.compile=false with it.")
    kind = getattr(optimizer, "func", optimizer)
    if getattr(kind, "wants_whole_weights", False) or kind in _OF_TORCH:
        raise GenrecError(
            f"hardware=fsdp: {kind.__name__} steps by whole matrices or rows, of which a process holds a "
            "part. Use optimizer=adamw (or adam, nadam, radam, rmsprop, adagrad, lamb, sgd), or hardware=ddp."
        )


def adapt_optimizer(optimizer: Optimizer) -> None:
    """Leaves out what torch has not for parts of weights."""
    if isinstance(optimizer, _FUSED_FOR_WHOLE):
        for group in optimizer.param_groups:
            group["fused"] = False


def copy_to_divide(model: nn.Module) -> nn.Module:
    """Another model with weights of its own; what is no parameter is the same in both."""
    return copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()})


def divide(learner: Learner, device: torch.device) -> None:
    """Leaves in this process its part of what ``learner`` trains; all processes call it."""
    world = learner.world
    mesh = init_device_mesh(device.type, (world.size,))
    with torch.no_grad():
        for parameter in learner.parameters():
            dist.broadcast(parameter, src=0)
    tables = _divide_tables(learner.trained, mesh, world)
    for module in learner.trained.modules():
        if getattr(module, "divided_alone", False):
            fully_shard(module, mesh=mesh)
    fully_shard(learner, mesh=mesh, ignored_params=tables)
    register_fsdp_forward_method(learner, "training_step")


def _divide_tables(model: Any, mesh: DeviceMesh, world: World) -> set[nn.Parameter]:
    """Lets a model that can compute with some rows of its item tables keep no more than those; returns the tables."""
    if not getattr(model, "can_shard", False):
        return set()
    lengths = {id(table): (len(table.weight), table.weight.shape[1]) for table in model.item_tables()}
    model.shard(world.rank, world.size)
    for table in model.item_tables():
        size = torch.Size(lengths[id(table)])
        part = DTensor.from_local(
            table.weight.detach(), mesh, [Shard(0)], run_check=False, shape=size, stride=(size[1], 1)
        )
        table.weight = nn.Parameter(part)
    return {table.weight for table in model.item_tables()}


@torch.no_grad()
def bring_together(trained: nn.Module, model: nn.Module, device: torch.device) -> None:
    """Gives the weights and buffers of the divided ``trained`` to the whole ``model``; all processes call it."""
    model.to(device)
    for of in ("named_parameters", "named_buffers"):
        whole = dict(getattr(model, of)())
        for name, part in getattr(trained, of)():
            if whole[name] is not part:
                whole[name].copy_(full(part))


def full(tensor: Tensor) -> Tensor:
    """A divided tensor in one piece, in every process; another tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """``tensor`` on the device of ``weight``, and divided as that is, where it has its shape."""
    tensor = tensor.to(weight.device)
    if not isinstance(weight, DTensor) or isinstance(tensor, DTensor) or tensor.shape != weight.shape:
        return tensor
    return distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)


def whole_state(state: Any, *, keep: bool) -> Any:
    """A state of nested tables and lists with its tensors in one piece, for the process that is to ``keep`` them; all
    processes call it."""
    if isinstance(state, DTensor):
        together = state.full_tensor()
        return together.cpu() if keep else None
    if isinstance(state, dict):
        return {name: whole_state(value, keep=keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value, keep=keep) for value in state)
    return state


def divided_state(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's whole state as ``optimizer``, whose weights are divided, can load it."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    parts = {
        index: {
            name: divided_like(value, weights[index]) if isinstance(value, Tensor) and value.ndim else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": parts}


def level_gradients(learner: Learner, loss: Tensor) -> None:
    """Before gradients are averaged, gives zeros to weights of which only other processes have found one, since all
    have to average the same."""

    def level() -> None:
        weights = [weight for weight in learner.parameters() if weight.requires_grad]
        own = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
        anywhere = learner.world.sum(own.clone())
        for weight, here, somewhere in zip(weights, own.tolist(), anywhere.tolist(), strict=True):
            if somewhere and not here and not isinstance(weight, DTensor):
                weight.grad = torch.zeros_like(weight)

    # This hook runs before that of fully_shard, which is put on the same tensor later, so its callback comes first too.
    loss.register_hook(lambda gradient: Variable._execution_engine.queue_callback(level))
