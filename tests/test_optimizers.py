from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import GenrecError
from genrec.optimizers import Lamb, Muon, build_optimizer


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
