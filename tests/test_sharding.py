"""Two real processes that hold half of an item table each, against one that holds all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from genrec.contracts import IGNORE, DataSpec, GenrecError, SequenceBatch
from genrec.models.gru4rec import GRU4Rec
from genrec.models.sasrec import SASRec
from genrec.sharding import Shard, cross_entropy, fetch, whole_table
from tests.trainers.several import in_two

NUM_ITEMS, WIDTH = 11, 4
ROWS = (5, 2)  # of the two processes


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(sum(ROWS), WIDTH, generator=generator, dtype=torch.float64) * 3
    table = torch.randn(NUM_ITEMS, WIDTH, generator=generator, dtype=torch.float64)
    return hidden, table, torch.tensor([0, 10, 4, 5, 5, 6, 0])


def _own(rank: int) -> slice:
    return slice(0, ROWS[0]) if rank == 0 else slice(ROWS[0], None)


def _losses_of(hardware: Any) -> dict[str, Any]:
    rank = hardware.world.rank
    hidden, table, targets = _inputs()
    shard = Shard(rank, 2, NUM_ITEMS)
    own = hidden[_own(rank)].clone().requires_grad_()
    weight = shard.cut(table).requires_grad_()
    loss = cross_entropy(own, weight, targets[_own(rank)], shard)
    (loss * (rank + 2.0)).backward()
    assert own.grad is not None and weight.grad is not None
    read = shard.cut(table).requires_grad_()
    items = torch.tensor([[0, 10], [5, 4]]) if rank == 0 else torch.tensor([[10, 10]])
    vectors = fetch(read, items, shard)
    (vectors.square().sum() * (rank + 2.0)).backward()
    assert read.grad is not None
    nothing = cross_entropy(own[:0] if rank else own, weight, targets[_own(rank)][: 0 if rank else None], shard)
    found = {
        "loss": loss.detach(), "of_hidden": own.grad, "of_weight": weight.grad, "vectors": vectors.detach(),
        "of_read": read.grad, "whole": whole_table(weight, shard), "held": torch.tensor(len(weight)),
        "nothing": nothing.detach(),
    }  # fmt: skip
    return {name: value.numpy() for name, value in found.items()}


def _tensors(arrays: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in arrays.items()}


def test_loss_and_gradients_are_those_of_the_whole_table() -> None:
    hidden, table, targets = _inputs()
    hidden, table = hidden.requires_grad_(), table.requires_grad_()
    each = functional.cross_entropy(hidden @ table.T, targets, reduction="none")
    means = [each[_own(rank)].mean() for rank in range(2)]
    of_hidden, of_table = torch.autograd.grad(2.0 * means[0] + 3.0 * means[1], (hidden, table))
    found = [_tensors(one) for one in in_two(_losses_of)]
    assert [int(one["held"]) for one in found] == [6, 5], "no process holds more than its part"
    for rank, one in enumerate(found):
        torch.testing.assert_close(one["loss"], means[rank].detach())
        torch.testing.assert_close(one["of_hidden"], of_hidden[_own(rank)])
        assert torch.equal(one["whole"], table.detach())
    torch.testing.assert_close(torch.cat([one["of_weight"] for one in found]), of_table / 2)
    assert found[1]["nothing"] == 0.0 and found[0]["nothing"].isfinite()
    torch.testing.assert_close(found[0]["vectors"], table.detach()[torch.tensor([[0, 10], [5, 4]])])
    torch.testing.assert_close(found[1]["vectors"], table.detach()[torch.tensor([[10, 10]])])
    weights = torch.zeros(NUM_ITEMS, 1, dtype=torch.float64)
    weights[[0, 4, 5]], weights[10] = 2.0, 2.0 + 2 * 3.0
    torch.testing.assert_close(torch.cat([one["of_read"] for one in found]), weights * table.detach())


def _model(kind: Any) -> Any:
    torch.manual_seed(0)
    options: Any = {"tie": False} if kind is GRU4Rec else {}
    return kind(DataSpec(num_items=NUM_ITEMS), embedding_dim=8, max_history=4, dropout=0.0, **options)


def _batch(rows: slice) -> SequenceBatch:
    items = torch.tensor([[1, 2, 3], [10, 0, 0], [4, 5, 6], [7, 8, 0], [9, 1, 2]])
    targets = torch.tensor([[2, 3, 4], [9, IGNORE, IGNORE], [IGNORE, 6, 7], [8, 9, IGNORE], [1, 2, 3]])
    return SequenceBatch(torch.arange(5)[rows], items[rows], torch.tensor([3, 1, 3, 2, 3])[rows], targets[rows])


def _trained(hardware: Any, kind: Any) -> dict[str, Any]:
    """Some steps, gradients weighed and averaged as the trainer of several processes does it. They are of SGD: AdamW
    would step by the noise of gradients that are zero."""
    model = _model(kind)
    model.shard(hardware.world.rank, hardware.world.size)
    tables = {id(table.weight) for table in model.item_tables()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    batch = _batch(slice(hardware.world.rank, None, 2))
    for _ in range(4):
        losses = model.loss(batch)
        whole = hardware.world.sum(torch.tensor([float(losses.count)]))
        optimizer.zero_grad()
        (losses.total * losses.count * hardware.world.size / whole[0]).backward()
        for parameter in model.parameters():
            if id(parameter) not in tables:
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= hardware.world.size
        optimizer.step()
    held = model.items.weight.shape[0]
    model.unshard()
    found = {name: value.numpy() for name, value in model.state_dict().items()}
    return {**found, "held": held}


@pytest.mark.parametrize("kind", [SASRec, GRU4Rec])
def test_training_on_shards_is_training_on_the_whole_table(kind: Any) -> None:
    model = _model(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        model.loss(_batch(slice(None))).total.backward()
        optimizer.step()
    assert (model.items.weight - _model(kind).items.weight).abs().max() > 0.01, "nothing was learned"
    for one in in_two(_trained, kind):
        assert one.pop("held") in (5, 6)
        found = _tensors(one)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_every_row_is_held_once() -> None:
    for num_items, size in ((11, 2), (3, 5), (64, 8)):
        shards = [Shard(rank, size, num_items) for rank in range(size)]
        assert [row for shard in shards for row in range(shard.begin, shard.end)] == list(range(num_items))


def test_other_losses_are_refused() -> None:
    model = SASRec(DataSpec(num_items=NUM_ITEMS), embedding_dim=8, max_history=4, loss="listwise")
    with pytest.raises(GenrecError, match=r"model\.loss=full"):
        model.shard(0, 2)
