"""Which batch size fits into memory, found by trying, when one did not."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any

import torch

from genrec.contracts import VAL
from genrec.memory import ShortOfMemoryError, out_of_memory

if TYPE_CHECKING:
    from genrec.trainers.learner import Learner

_TRIED = 3  # batches of a plan, the largest of those around the one that did not fit
_LOOKED_AT = 16
_STEPS = 2
_SMALLER = "make the model smaller (model.embedding_dim, model.num_layers), or its histories shorter"
_SMALLER_TOKENIZER = "make the tokenizer smaller (tokenizer.model.hidden_dims, tokenizer.codebook_size)"
_SPARE = 4  # a quarter of a batch has to fit beside


def training_shortage(learner: Learner, said: str) -> ShortOfMemoryError:
    """What to tell when a step of training did not fit; half of the batch, half of that ... are tried here and now, on
    the model with its gradients and its optimizer, whose rates are zero meanwhile. One of several processes tries
    nothing, since the others would have to try with it."""
    policy = learner.policy
    size, steps, keys = policy.batch_size_for(learner.model), policy.accumulate_grad_batches, policy.context.keys
    begin = f"Memory ran out in training ({said}) with {keys}trainer.batch_size={size}. "
    parts, tried = 1, size
    while tried > 1:
        parts *= 2
        tried = math.ceil(size / parts)
        smaller = f"{keys}trainer.batch_size={tried} {keys}trainer.accumulate_grad_batches={steps * parts}"
        if learner.world.size > 1:
            return ShortOfMemoryError(
                f"{begin}Start again with {smaller}, which takes steps of the same size; if it does not fit either, "
                "halve it again."
            )
        fits = _fits(learner, tried + tried // _SPARE)  # other batches and other moments take a little more
        if fits is None:
            break
        if fits:
            return ShortOfMemoryError(
                f"{begin}{tried} fits, as a trial has shown: start again with {smaller}, which takes steps of the same "
                "size."
            )
    return ShortOfMemoryError(
        f"{begin}No smaller batch was found to fit: {_SMALLER_TOKENIZER if keys else _SMALLER}, or free some memory."
    )


def evaluation_shortage(policy: Any, model: Any, view: Any, said: str) -> ShortOfMemoryError:
    """What to tell when evaluation did not fit; smaller batches are tried on some users, where there are such."""
    size = tried = policy.eval_batch_size
    key = f"{policy.context.keys}trainer.eval_batch_size"
    begin = f"Memory ran out in evaluation ({said}) with {key}={size}. "
    alone = policy.hardware.world.size == 1  # others would have to try with it
    while tried > 1 and alone and hasattr(model, "recommend"):
        tried = math.ceil(tried / 2)
        if _evaluates(policy, model, view, tried):
            return ShortOfMemoryError(
                f"{begin}{tried} fits, as a trial has shown: repeat the command with {key}={tried}."
            )
    return ShortOfMemoryError(f"{begin}Repeat the command with a smaller one, such as {max(1, size // 4)}.")


def _fits(learner: Learner, size: int) -> bool | None:
    """Whether steps of batches of ``size`` targets fit; None where something else goes wrong."""
    free(learner)
    device = learner.policy.hardware.device
    try:
        learner.model.to(device).train()
        optimizer = learner.configure_optimizers()
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        for _ in range(_STEPS):  # from the second on, the optimizer has its state
            for batch in _largest(learner, size):
                with learner.policy.hardware.autocast(device):
                    learner.policy.train_step(learner.model, batch.to(device)).total.backward()
            optimizer.step()
            optimizer.zero_grad()
        return True
    except Exception as error:
        return False if out_of_memory(error) else None
    finally:
        learner.thaw()
        free(learner)


def _largest(learner: Learner, size: int) -> list[Any]:
    """The largest batches about where the epoch was when memory ran out."""
    policy = learner.policy
    plan = learner.view.train_plan(learner.model, batch_size=size, seed=policy.context.seed, epoch=policy.current_epoch)
    whole = len(learner.loader.plan) if learner.loader is not None else 1
    middle = learner.step_in_epoch * len(plan) // max(whole, 1)
    near = [plan[index] for index in range(max(0, middle - _LOOKED_AT // 2), min(len(plan), middle + _LOOKED_AT))]
    return sorted(near, key=_elements)[-_TRIED:]


def _elements(batch: Any) -> int:
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() for tensor in tensors)


def _evaluates(policy: Any, model: Any, view: Any, size: int) -> bool:
    before = policy.eval_batch_size, policy.max_eval_users
    free()
    try:
        policy.eval_batch_size, policy.max_eval_users = size, size
        policy.evaluate(model, view, VAL, progress=False)
        return True
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        policy.eval_batch_size, policy.max_eval_users = before
        free()


def free(learner: Learner | None = None) -> None:
    """Gives back what a failed attempt has left."""
    if learner is not None:
        learner.model.zero_grad(set_to_none=True)
        learner.latest = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
