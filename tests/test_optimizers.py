from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import GenrecError
from genrec.optimizers import Lamb, Muon, RowwiseAdagrad, build_optimizer, clip_gradients


def weight(*rows: list[float]) -> nn.Parameter:
    return nn.Parameter(torch.tensor(rows, dtype=torch.float64))


def test_the_first_step_of_lamb_worked_by_hand() -> None:
    """At the first step both corrected moments are the gradient's, so r is its sign: u = (1, -1) + 0.1 (3, 4)."""
    matrix = weight([3.0, 4.0])
    matrix.grad = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    Lamb([matrix], lr=0.1, eps=1e-12, weight_decay=0.1).step()
    ratio = 5 / 2.05**0.5  # |w| / |(1.3, -0.6)|
    assert matrix.tolist()[0] == pytest.approx([3 - 0.1 * ratio * 1.3, 4 + 0.1 * ratio * 0.6])


def test_where_a_norm_is_zero_lamb_steps_as_adam() -> None:
    matrix = weight([0.0, 0.0])
    matrix.grad = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    Lamb([matrix], lr=0.1, eps=1e-12).step()
    assert matrix.tolist()[0] == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize("adapt", [False, True])
def test_vectors_are_scaled_only_if_asked(adapt: bool) -> None:
    vector = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    vector.grad = torch.tensor([0.5, -2.0], dtype=torch.float64)
    Lamb([vector], lr=0.1, eps=1e-12, weight_decay=0.0, adapt_vectors=adapt).step()
    length = 0.1 * 5 / 2**0.5 if adapt else 0.1
    assert vector.tolist() == pytest.approx([3 - length, 4 + length])


def test_many_steps_of_lamb_equal_the_formulas() -> None:
    torch.manual_seed(0)
    start = torch.randn(3, 4, dtype=torch.float64)
    gradients = [torch.randn(3, 4, dtype=torch.float64) for _ in range(6)]
    matrix = nn.Parameter(start.clone())
    optimizer = Lamb([matrix], lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.02)
    w, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t, g in enumerate(gradients, start=1):
        matrix.grad = g
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        u = (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-6) + 0.02 * w
        w = w - 0.05 * w.norm() / u.norm() * u
    assert torch.allclose(matrix, w, atol=1e-12)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(7, 8), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def groups_of(model: nn.Sequential) -> list[dict[str, Any]]:
    hidden: list[Tensor] = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    known = {id(item) for item in hidden}
    others = [item for item in model.parameters() if id(item) not in known]
    return [{"params": hidden, "hidden": True}, {"params": others, "weight_decay": 0.0}]


def step(model: nn.Sequential, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
    torch.manual_seed(seed)
    model.zero_grad()
    model(torch.randint(7, (9,))).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def test_muon_is_torch_s_two_optimizers_side_by_side() -> None:
    one, two = network(), network()
    hidden, others = groups_of(two)
    apart: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden["params"], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others["params"], lr=0.002, weight_decay=0.0, fused=True),
    ]
    together = Muon(groups_of(one), lr=0.01, adamw_lr=0.002)
    for seed in range(4):
        step(one, [together], seed)
        step(two, apart, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_rates_set_on_muon_reach_both_parts_before_and_after_loading() -> None:
    model = network()
    optimizer = Muon(groups_of(model), lr=0.01)
    step(model, [optimizer], 0)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [item.detach().clone() for item in model.parameters()]
    step(model, [optimizer], 1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("groups", [[0], [1]])
def test_muon_works_with_only_one_kind_of_parameters(groups: list[int]) -> None:
    model = network()
    given = [groups_of(model)[index] for index in groups]
    before = [item.detach().clone() for group in given for item in group["params"]]
    step(model, [Muon(given, lr=0.01)], 0)
    assert not any(
        torch.equal(a, b) for a, b in zip(before, (i for group in given for i in group["params"]), strict=True)
    )


def test_parameters_without_groups_are_adamw_s() -> None:
    model = network()
    assert [type(part).__name__ for part in Muon(model.parameters())._parts] == ["AdamW"]


# ---- tables with sparse gradients -----------------------------------------------------------------------------------

BATCHES = [[1, 4, 4, 2], [4, 4, 4, 0], [2, 2, 1, 4]]  # ids of three steps, some of them repeated


class Ratings(nn.Module):
    """A table of 6 rows, the ids of a batch weighed by a linear layer."""

    def __init__(self, *, sparse: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.sparse = sparse
        self.table = nn.Parameter(torch.randn(6, 3, dtype=torch.float64))
        self.out = nn.Linear(3, 1, dtype=torch.float64)

    def loss(self, ids: list[int]) -> Tensor:
        found = functional.embedding(torch.tensor(ids), self.table, sparse=self.sparse)
        return self.out(found).square().sum() + found.cos().sum()

    def groups(self, **table: Any) -> list[dict[str, Any]]:
        return [
            {"params": [self.table], "names": ["table"], "sparse": True, **table},
            {"params": list(self.out.parameters()), "names": ["out.weight", "out.bias"]},
        ]


def trained(model: Ratings, optimizer: torch.optim.Optimizer, batches: list[list[int]] = BATCHES) -> Ratings:
    for ids in batches:
        optimizer.zero_grad()
        model.loss(ids).backward()
        optimizer.step()
    return model


def test_rows_step_as_a_loop_over_them_says() -> None:
    """s += |g|^2 / D and w -= lr g / (sqrt(s) + eps) for each row of a batch, g summed over its repetitions."""
    model, other = Ratings(), Ratings(sparse=False)
    optimizer = RowwiseAdagrad(model.groups(), lr=0.3, eps=1e-3, initial_accumulator=0.2)
    sums = [0.2] * 6
    for ids in BATCHES:
        other.load_state_dict(model.state_dict())
        other.zero_grad()
        other.loss(ids).backward()
        expected, gradient = other.table.detach(), other.table.grad
        assert gradient is not None
        for row in set(ids):
            sums[row] += sum(float(g) ** 2 for g in gradient[row]) / 3
            for place in range(3):
                expected[row, place] -= 0.3 * float(gradient[row, place]) / (sums[row] ** 0.5 + 1e-3)
        trained(model, optimizer, [ids])
        assert torch.allclose(model.table, expected, rtol=0, atol=1e-12)
    assert optimizer.state[model.table]["sum"].tolist() == pytest.approx(sums)


def test_only_rows_of_the_batch_move_and_a_row_keeps_one_number() -> None:
    model = Ratings()
    start = model.table.detach().clone()
    optimizer = RowwiseAdagrad(model.groups(), weight_decay=0.5)
    trained(model, optimizer)
    moved = (model.table != start).any(dim=1)
    assert moved.tolist() == [True, True, True, False, True, False]
    assert {name: value.shape for name, value in optimizer.state[model.table].items()} == {"sum": (6,)}


def test_what_is_no_table_is_adamw_s() -> None:
    one, two = Ratings(), Ratings()
    together = RowwiseAdagrad(one.groups(), lr=0.02, adamw_lr=0.003, weight_decay=0.1)
    alone = RowwiseAdagrad([two.groups()[0]], lr=0.02)
    beside = torch.optim.AdamW(two.out.parameters(), lr=0.003, weight_decay=0.1, fused=True)
    for ids in BATCHES:
        trained(one, together, [ids])
        two.zero_grad()
        two.loss(ids).backward()
        alone.step()
        beside.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_without_tables_it_is_adamw_with_dense_gradients_of_embeddings() -> None:
    one, two = network(), network()
    optimizer = RowwiseAdagrad(one.parameters(), lr=0.01, adamw_lr=None)
    for seed in range(3):
        step(one, [optimizer], seed)
    peer = torch.optim.AdamW(two.parameters(), lr=0.01, weight_decay=0.01, fused=True)
    for seed in range(3):
        step(two, [peer], seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_dense_gradient_of_a_table_gives_the_step_of_the_sparse_one() -> None:
    sparse, dense = Ratings(), Ratings(sparse=False)
    trained(sparse, RowwiseAdagrad(sparse.groups()))
    trained(dense, RowwiseAdagrad(dense.groups()))
    assert torch.allclose(sparse.table, dense.table, rtol=0, atol=1e-12)


def test_accumulated_batches_are_one_batch() -> None:
    """Gradients of rows that only one of two batches holds, and of rows that both hold, are added before the step."""
    apart, together = Ratings(), Ratings()
    first, second = RowwiseAdagrad(apart.groups()), RowwiseAdagrad(together.groups())
    for ids in (BATCHES[0], BATCHES[1]):
        apart.loss(ids).backward()
    first.step()
    trained(together, second, [BATCHES[0] + BATCHES[1]])
    assert torch.allclose(apart.table, together.table, rtol=0, atol=1e-12)
    assert torch.allclose(first.state[apart.table]["sum"], second.state[together.table]["sum"], rtol=0, atol=1e-12)


def test_a_saved_run_of_rows_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole = Ratings()
    trained(whole, RowwiseAdagrad(whole.groups()), BATCHES + BATCHES)
    begun = Ratings()
    optimizer = RowwiseAdagrad(begun.groups())
    trained(begun, optimizer)
    torch.save({"model": begun.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state")
    saved = torch.load(tmp_path / "state")
    going_on = Ratings()
    going_on.load_state_dict(saved["model"])
    optimizer = RowwiseAdagrad(going_on.groups())
    optimizer.load_state_dict(saved["optimizer"])
    trained(going_on, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), going_on.parameters(), strict=True))


def test_rates_set_on_the_groups_reach_tables_and_the_rest() -> None:
    model = Ratings()
    optimizer = RowwiseAdagrad(model.groups())
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(model.state_dict())
    trained(model, optimizer)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_decay_of_tables_is_refused_as_only_rows_of_a_batch_are_touched() -> None:
    RowwiseAdagrad(Ratings().groups(weight_decay=0.0))
    with pytest.raises(
        GenrecError, match=r"sparse gradients \(table\) are not decayed, and weight_decay=0.1 was given"
    ):
        RowwiseAdagrad(Ratings().groups(weight_decay=0.1))


def test_sparse_gradients_and_an_optimizer_that_takes_none_are_one_sentence() -> None:
    with pytest.raises(GenrecError, match=r"^optimizer: AdamW takes no sparse gradients, and table has them .*rowwise"):
        build_optimizer(functools.partial(torch.optim.AdamW, lr=0.1), Ratings().groups())
    optimizer = build_optimizer(functools.partial(RowwiseAdagrad, lr=0.1), Ratings().groups(lr_scale=0.5))
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.05, 0.001]


@pytest.mark.parametrize("bounds", [{"norm": 0.7}, {"value": 0.5}, {"norm": 0.7, "value": 0.5}, {"norm": 1e9}])
def test_sparse_gradients_are_clipped_as_dense_ones(bounds: dict[str, float]) -> None:
    sparse, dense = Ratings(), Ratings(sparse=False)
    for model in (sparse, dense):
        for ids in BATCHES[:2]:
            model.loss(ids).backward()
        model.out.bias.grad = None  # of a parameter that took no part
    clip_gradients(sparse.parameters(), **bounds)
    if "value" in bounds:
        torch.nn.utils.clip_grad_value_(dense.parameters(), bounds["value"])
    if "norm" in bounds:
        torch.nn.utils.clip_grad_norm_(dense.parameters(), bounds["norm"])
    for mine, other in zip(sparse.parameters(), dense.parameters(), strict=True):
        if other.grad is None:
            assert mine.grad is None
        else:
            assert mine.grad is not None
            assert torch.allclose(mine.grad.to_dense(), other.grad, rtol=0, atol=1e-12)


def test_clipping_of_dense_gradients_is_torch_s_to_the_bit() -> None:
    one, two = network(), network()
    for model in (one, two):
        step(model, [], 0)
    clip_gradients(one.parameters(), norm=0.1, value=0.3)
    torch.nn.utils.clip_grad_value_(two.parameters(), 0.3)
    torch.nn.utils.clip_grad_norm_(two.parameters(), 0.1)
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        assert torch.equal(mine.grad, other.grad)
    clip_gradients([], norm=1.0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Lamb, {"lr": 0.0}),
        (Lamb, {"betas": (0.9, 1.0)}),
        (Lamb, {"eps": 0.0}),
        (Lamb, {"weight_decay": -1.0}),
        (Muon, {"lr": -1.0}),
        (Muon, {"momentum": 1.0}),
        (Muon, {"adamw_lr": 0.0}),
        (Muon, {"betas": (-0.1, 0.9)}),
        (RowwiseAdagrad, {"lr": 0.0}),
        (RowwiseAdagrad, {"eps": 0.0}),
        (RowwiseAdagrad, {"initial_accumulator": -0.1}),
        (RowwiseAdagrad, {"adamw_lr": 0.0}),
    ],
)
def test_impossible_values_are_refused_by_their_key(kind: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(GenrecError, match=rf"^optimizer\.{name}="):
        kind(network().parameters(), **options)


def test_what_torch_refuses_is_one_sentence() -> None:
    build = functools.partial(torch.optim.AdamW, lr=-1.0)
    with pytest.raises(GenrecError, match=r"^optimizer: AdamW refuses its settings \(Invalid learning rate: -1.0\)\.$"):
        build_optimizer(build, [{"params": list(network().parameters())}])


def test_a_beta_of_zero_may_be_written_as_yaml_writes_it() -> None:
    build = functools.partial(torch.optim.Adam, betas=[0, 0.99])  # pyright: ignore[reportArgumentType]
    optimizer = build_optimizer(build, [{"params": list(network().parameters())}])
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.99)
    assert build.keywords == {"betas": [0, 0.99]}


def test_the_scale_of_a_group_is_of_the_rate_it_got() -> None:
    first, second = groups_of(network())
    groups = [{**first, "lr_scale": 0.5}, second]
    optimizer = build_optimizer(functools.partial(torch.optim.SGD, lr=0.2), groups)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.1, 0.2]
