from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import GenrecError, SequenceBatch
from genrec.trainers.hardware import Hardware
from genrec.trainers.learner import EpochLoader, share_of
from genrec.trainers.simple import SimpleTrainer
from genrec.trainers.world import World

PLAN: Any = list(range(10))


@pytest.mark.parametrize("ahead", [False, True])
def test_the_loader_starts_anywhere_and_keeps_the_order(ahead: bool) -> None:
    assert list(EpochLoader(PLAN, ahead=ahead)) == PLAN
    assert list(EpochLoader(PLAN, start=7, ahead=ahead)) == [7, 8, 9]
    assert list(EpochLoader(PLAN, start=10, ahead=ahead)) == []


def test_processes_share_the_batches_evenly() -> None:
    whole = toy_view().train_plan(toy_model(), batch_size=32, seed=1, epoch=1)
    loaders = [EpochLoader(whole, world=World(rank, 3), ahead=rank == 1) for rank in range(3)]
    assert {len(loader) for loader in loaders} == {len(whole)}  # so that none waits for a step that another has not
    for index, shares in enumerate(zip(*loaders, strict=True)):
        users = [share.batch.users.tolist() for share in shares if share.counts]
        assert sorted(user for part in users for user in part) == sorted(whole[index].users.tolist())
        assert max(map(len, users)) - min(map(len, users)) <= 1


def test_a_batch_of_fewer_rows_than_processes_counts_each_once() -> None:
    batch = SequenceBatch(torch.arange(2), torch.arange(2), torch.arange(2), torch.arange(2))
    shares = [share_of(batch, rank, 3) for rank in range(3)]
    assert [share.batch.users.tolist() for share in shares] == [[0], [1], [0]]
    assert [share.counts for share in shares] == [True, True, False]
    with pytest.raises(GenrecError, match="no method take"):
        share_of([1, 2], 0, 2)


def test_an_error_while_cutting_ahead_is_raised() -> None:
    class Failing:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> torch.Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(EpochLoader(Failing(), ahead=True))


def test_gradients_are_clipped_for_a_fused_optimizer_in_mixed_precision(tmp_path: Path) -> None:
    """With a bound of almost nothing and plain SGD, the weights hardly move."""
    moved = {}
    for bound in (1e-6, None):
        model = toy_model()
        before = model.items.weight.detach().clone()
        context = toy_context(
            tmp_path / str(bound),
            hardware=Hardware(accelerator="cpu", precision="bf16-mixed"),
            optimizer=functools.partial(torch.optim.SGD, lr=1.0, fused=True),
        )
        SimpleTrainer(max_epochs=1, batch_size=64, gradient_clip_norm=bound).fit(model, toy_view(), context)
        moved[bound] = float((model.items.weight.detach() - before).norm())
    assert 0 < moved[1e-6] < 1e-4 < 1e-2 < moved[None]


def clipped(folder: Path, **bounds: Any) -> torch.Tensor:
    """How far one step of plain SGD at rate 1 moves the weights, which is the gradient after clipping."""
    model = toy_model()
    before = torch.cat([weight.detach().flatten() for weight in model.parameters()]).clone()
    context = toy_context(
        folder, hardware=Hardware(accelerator="cpu"), optimizer=functools.partial(torch.optim.SGD, lr=1.0)
    )
    SimpleTrainer(max_epochs=1, max_steps=1, **bounds).fit(model, toy_view(), context)
    return before - torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_clipping_by_norm_by_value_and_by_both(tmp_path: Path) -> None:
    free = clipped(tmp_path / "free", gradient_clip_norm=None)
    bound = float(free.abs().max()) / 4
    by_value = clipped(tmp_path / "value", gradient_clip_norm=None, gradient_clip_value=bound)
    assert torch.allclose(by_value, free.clamp(-bound, bound), atol=1e-6) and not torch.allclose(by_value, free)
    limit = float(by_value.norm()) / 2
    by_norm = clipped(tmp_path / "norm", gradient_clip_norm=limit)
    assert torch.allclose(by_norm, free * limit / free.norm(), atol=1e-6)
    both = clipped(tmp_path / "both", gradient_clip_norm=limit, gradient_clip_value=bound)
    assert torch.allclose(both, by_value / 2, atol=1e-6)  # first the entries, then the length


@pytest.mark.parametrize("name", ["gradient_clip_norm", "gradient_clip_value"])
def test_a_bound_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(GenrecError, match=rf"^trainer\.{name}=0"):
        SimpleTrainer(**{name: 0})  # pyright: ignore[reportArgumentType]
