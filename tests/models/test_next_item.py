"""What models of products share: one score in training and in recommending, whatever the loss does to vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, SequenceBatch
from genrec.losses import GBCE, FullCrossEntropy, InBatchSoftmax, SampledSoftmax
from genrec.models.bpr_mf import BPRMF
from genrec.models.comirec import ComiRec
from genrec.models.dssm import DSSM
from genrec.models.gru4rec import GRU4Rec
from genrec.models.hstu import HSTU
from genrec.models.lightgcn import LightGCN
from genrec.models.next_item import products, running_mean
from genrec.models.sasrec import SASRec
from genrec.models.youtube_dnn import YouTubeDNN
from genrec.optimizers import RowwiseAdagrad, build_optimizer
from genrec.trainers.parameter_groups import parameter_groups
from tests.models.contract import NUM_ITEMS, ROWS, histories, ring_spec, ring_view

SEQUENTIAL = [SASRec, HSTU, DSSM, YouTubeDNN, GRU4Rec, ComiRec]
LOSSES = ["pointwise", "pairwise", "listwise", "in_batch", "full"]


def build(kind: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(ring_spec(), **{"embedding_dim": 8, "max_history": 6, **options})


def scores(model: Any, batch: HistoryBatch) -> Tensor:
    """(B, N) by the item, of what is recommended."""
    found = model.recommend(batch, NUM_ITEMS)
    return torch.empty(found.scores.shape).scatter(1, found.items, found.scores)


@pytest.mark.parametrize("kind", [*SEQUENTIAL, BPRMF, LightGCN])
def test_a_score_is_the_largest_product_of_exported_vectors(kind: Any) -> None:
    model = build(kind).train()
    batch = histories(ROWS)
    users, items = model.encode_users(batch), model.encode_items()
    assert model.training and not users.requires_grad and not items.requires_grad
    assert users.shape == ((len(ROWS), 4, 8) if kind is ComiRec else (len(ROWS), 8)) and items.shape == (NUM_ITEMS, 8)
    each = users if users.ndim == 3 else users[:, None]
    torch.testing.assert_close(scores(model, batch), (each @ items.T).amax(dim=1))


@pytest.mark.parametrize("kind", [SASRec, GRU4Rec, YouTubeDNN, ComiRec, LightGCN, DSSM])
def test_temperature_accepted_and_unused(kind: Any) -> None:
    """A loss of cosines over a temperature is served by cosines over that temperature."""
    plain, model = build(kind), build(kind, loss=InBatchSoftmax(temperature=0.2, cosine=True))
    users, items = plain.encode_users(histories(ROWS)), plain.encode_items()
    each = users if users.ndim == 3 else users[:, None]
    cosines = functional.normalize(each, dim=2) @ functional.normalize(items, dim=1).T
    torch.testing.assert_close(scores(model, histories(ROWS)), cosines.amax(dim=1) / 0.2)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("kind", [SASRec, DSSM, ComiRec])
def test_item_vectors_normalised_in_training_only(kind: Any, cosine: bool) -> None:
    """The training loss is the softmax of the very scores that recommending ranks by."""
    model = build(kind, loss=InBatchSoftmax(temperature=0.5, cosine=cosine, logq=False)).eval()
    batch = histories(ROWS[:2] + ROWS[3:5], max_history=6)
    targets = torch.tensor([7, 1, 4, 12])
    rows = torch.full_like(batch.items, IGNORE)
    rows[torch.arange(4), batch.lengths - 1] = targets
    found = model.loss(SequenceBatch(batch.users, batch.items, batch.lengths, rows))
    served = scores(model, batch)
    if kind is not ComiRec:
        expected = functional.cross_entropy(served[:, targets], torch.arange(4))
        torch.testing.assert_close(found.total, expected)
    users, items = model.encode_users(batch), model.encode_items()
    each = users if users.ndim == 3 else users[:, None]
    best = (each @ items[targets].T).diagonal(dim1=0, dim2=2).argmax(dim=0)  # the interest nearest to the target
    chosen = each[torch.arange(4), best] @ items[targets].T
    torch.testing.assert_close(found.total, functional.cross_entropy(chosen, torch.arange(4)))
    assert found.count == 4


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_crash_at_batch_size_1_or_on_a_ragged_last_batch(kind: Any, loss: str) -> None:
    model = build(kind, loss=loss)
    one = SequenceBatch(torch.tensor([3]), torch.tensor([[4]]), torch.tensor([1]), torch.tensor([[5]]))
    ragged = SequenceBatch(
        torch.tensor([3, 3, 9]),
        torch.tensor([[4, 5, 6], [1, 0, 0], [8, 9, 0]]),
        torch.tensor([3, 1, 2]),
        torch.tensor([[5, 6, 7], [2, IGNORE, IGNORE], [IGNORE, 10, IGNORE]]),
    )
    for batch, count in ((one, 1), (ragged, 5)):
        losses = model.loss(batch)
        losses.total.backward()
        assert losses.count == count and torch.isfinite(losses.total)
    assert model.recommend(histories([[4]]), 3).items.shape == (1, 3)


@pytest.mark.parametrize("loss", ["pointwise", "pairwise", "listwise", "in_batch"])
@pytest.mark.parametrize("kind", [SASRec, LightGCN])
def test_a_loss_by_name_learns(kind: Any, loss: str) -> None:
    model, view = build(kind, loss=loss, **({"dropout": 0.0} if kind is SASRec else {"l2": 0.0})), ring_view()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    values = []
    for epoch in range(8):
        plan = view.train_plan(model, batch_size=64, seed=0, epoch=epoch) if kind is SASRec else None
        whole = view.train_plan(build(SASRec), batch_size=64, seed=0, epoch=epoch)
        total = 0.0
        for index in range(len(plan or whole)):
            found = model.loss((plan or whole)[index])
            optimizer.zero_grad()
            found.total.backward()
            optimizer.step()
            total += found.total.item()
        values.append(total / len(plan or whole))
    assert values[-1] < 0.7 * values[0]


def test_a_wrong_name_is_refused() -> None:
    for kind in (SASRec, DSSM, LightGCN):
        with pytest.raises(GenrecError, match=r"model.loss=list-wise: expected one of pointwise, pairwise, listwise"):
            build(kind, loss="list-wise")


def test_graph_models_take_pairs_by_name_from_the_view() -> None:
    assert build(LightGCN, loss="pairwise").pair_loss.num_negatives == 1
    assert build(LightGCN, loss="full").pair_loss.num_negatives == 0


@pytest.mark.parametrize("kind", [SASRec, DSSM])
def test_over_targets_the_rest_of_the_catalogue_is_not_scored(kind: Any) -> None:
    """The in-batch softmax over its candidates alone is the one over the whole table."""
    model = build(kind, loss="in_batch").eval()
    batch = SequenceBatch(
        torch.tensor([0, 1]),
        torch.tensor([[3, 4, 5], [8, 9, 10]]),
        torch.tensor([3, 3]),
        torch.tensor([[4, 5, 6], [9, 10, 4]]),
    )
    table = model.table()
    hidden = model.read(table, batch.items, batch.lengths, batch.users).flatten(0, 1)
    users = torch.tensor([0, 0, 0, 1, 1, 1])
    expected = InBatchSoftmax()(hidden, model.outputs(table), batch.targets.flatten(), model.counts, users)
    torch.testing.assert_close(model.loss(batch).total, expected)
    assert not torch.isclose(expected, FullCrossEntropy()(hidden, model.outputs(table), batch.targets.flatten(), users))


def test_products_of_interests_are_the_largest() -> None:
    users, items = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]]), torch.tensor([[2.0, 3.0]])
    assert products(users, items).tolist() == [[3.0], [-2.0]]


def test_running_mean() -> None:
    x = torch.tensor([[[2.0], [4.0], [9.0]]])
    assert running_mean(x).flatten().tolist() == [2.0, 3.0, 5.0]


SAMPLED = ["pointwise", "pairwise", "listwise", "in_batch"]


def rows_batch() -> SequenceBatch:
    return SequenceBatch(
        torch.tensor([3, 4]),
        torch.tensor([[4, 5, 6], [1, 2, 0]]),
        torch.tensor([3, 2]),
        torch.tensor([[IGNORE, 6, 7], [2, 3, IGNORE]]),
    )


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("loss", [*SAMPLED, GBCE(num_negatives=3), SampledSoftmax(num_negatives=4, shared=False)])
@pytest.mark.parametrize("kind", [SASRec, HSTU, GRU4Rec])
def test_a_step_of_some_rows_is_the_step_of_the_whole_table(
    kind: Any, loss: Any, text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradients of ``sparse_gradients`` are those of the dense ones, and hold no other rows."""
    drawn = torch.tensor([[9, 2, 11, 9]])

    def draw(num_negatives: int, targets: Tensor, num_items: int, *, shared: bool, **_: Any) -> Tensor:
        assert num_items == NUM_ITEMS, "negatives come from the whole catalogue"
        return drawn[:, :num_negatives].expand(1 if shared else len(targets), -1)

    monkeypatch.setattr("genrec.losses._draw", draw)
    options = {"loss": loss, "text": text} | ({"tie": False} if kind is GRU4Rec else {})
    dense, sparse = (build(kind, **options, sparse_gradients=some).eval() for some in (False, True))
    sparse.load_state_dict(dense.state_dict())
    one, other = dense.loss(rows_batch()), sparse.loss(rows_batch())
    torch.testing.assert_close(one.total, other.total)
    assert one.count == other.count == 4
    one.total.backward()
    other.total.backward()
    for (name, mine), (_, its) in zip(dense.named_parameters(), sparse.named_parameters(), strict=True):
        if mine.grad is None:
            continue
        assert its.grad is not None
        if its.grad.is_sparse:
            assert name in ("items.weight", "output.weight")
            rows = set(its.grad.coalesce().indices()[0].tolist())
            negatives = set(drawn.flatten().tolist()) if loss != "in_batch" else set()
            assert rows <= {0, 1, 2, 3, 4, 5, 6, 7} | negatives
        torch.testing.assert_close(its.grad.to_dense() if its.grad.is_sparse else its.grad, mine.grad)
    assert sparse.items.weight.grad.is_sparse


def test_other_rows_stay_where_they_are_under_rowwise_adagrad() -> None:
    model = build(SASRec, loss="in_batch", sparse_gradients=True)
    before = model.items.weight.detach().clone()
    groups = parameter_groups(model)
    assert [group["names"] for group in groups if group.get("sparse")] == [["items.weight"]]
    optimizer = build_optimizer(RowwiseAdagrad, groups)
    model.loss(rows_batch()).total.backward()
    optimizer.step()
    moved = (model.items.weight.detach() != before).any(dim=1).nonzero().flatten().tolist()
    assert {2, 3, 6, 7} <= set(moved) <= {1, 2, 3, 4, 5, 6, 7}
    assert optimizer.state[model.items.weight]["sum"].shape == (NUM_ITEMS,)


def test_no_tensor_of_the_size_of_the_catalogue_is_made_in_a_step() -> None:
    """A step over some rows of a large table: nothing that is computed has a row per item."""
    spec = DataSpec(num_items=50_000, train=ring_spec().train)
    model = SASRec(spec, embedding_dim=8, max_history=6, loss="listwise", sparse_gradients=True)
    model.loss(rows_batch())  # sums the chances up, once
    with Sizes() as sizes:
        model.loss(rows_batch()).total.backward()
    of_rows = [shape for shape in sizes.seen if len(shape) > 1 and shape[0] == 50_000 and shape not in ((50_000, 8),)]
    assert not of_rows and sizes.dense_rows == 0


class Sizes(TorchDispatchMode):
    """The shapes of all results, and how many new dense ones had a row for each of 50,000 items."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()
        self.dense_rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.seen.add(tuple(found.shape))
            fresh = found.layout == torch.strided and not found._is_view() and "detach" not in str(func)
            self.dense_rows += fresh and tuple(found.shape) == (50_000, 8)
        return found


def test_sparse_gradients_need_a_loss_of_some_items() -> None:
    with pytest.raises(GenrecError, match=r"model\.sparse_gradients=true: FullCrossEntropy.*model\.loss=listwise"):
        build(SASRec, loss="full", sparse_gradients=True)


def test_nothing_scored_gives_no_gradient_of_rows() -> None:
    model = build(SASRec, loss="listwise", sparse_gradients=True)
    batch = rows_batch()
    found = model.loss(SequenceBatch(batch.users, batch.items, batch.lengths, torch.full_like(batch.targets, IGNORE)))
    found.total.backward()
    assert found.count == 0 and float(model.items.weight.grad.to_dense().abs().sum()) == 0.0
