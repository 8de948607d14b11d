from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.nn.experts import Experts, Gates, GroupedLinear, Towers, mixed
from genrec.nn.mlp import MLP

ROWS, WIDTH = 5, 6


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def with_biases(module: Any) -> Any:
    """Biases start at 0, where a reference that forgets them would still agree."""
    for name, weight in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight)
    return module


def layer_of(layer: GroupedLinear, group: int, inputs: Tensor) -> Tensor:
    """One group of a layer: (B, N) -> (B, M)."""
    width = layer.weight.shape[1]
    bias = None if layer.bias is None else layer.bias[group * width : (group + 1) * width]
    return functional.linear(inputs, layer.weight[group], bias)


def expert_of(experts: Any, e: int, inputs: Tensor) -> Tensor:
    """One expert on the inputs (B, N) of its group, as an ordinary network."""
    first, *others = experts.layers
    each = experts.num_experts // len(first.weight)
    width = first.weight.shape[1] // each
    x = layer_of(first, e // each, inputs)[:, e % each * width : (e % each + 1) * width].relu()
    for layer in others:
        x = layer_of(layer, e, x).relu()
    return x


def tower_of(towers: Any, task: int, inputs: Tensor) -> Tensor:
    """The output (B,) of one tower."""
    hidden = inputs if isinstance(towers.hidden, nn.Identity) else expert_of(towers.hidden, task, inputs)
    return layer_of(towers.output, task, hidden)[:, 0]


def gate_of(gates: Any, k: int, inputs: Tensor) -> Tensor:
    """The weights (B, E) of one gate."""
    groups = len(gates.linear.weight)
    each = gates.num_gates // groups
    scores = layer_of(gates.linear, k // each, inputs).view(len(inputs), each, -1)[:, k % each]
    return scores.exp() / scores.exp().sum(dim=1, keepdim=True)


def test_a_grouped_layer_equals_a_loop_of_linear_layers() -> None:
    layer, x = with_biases(GroupedLinear(3, WIDTH, 4)), torch.randn(ROWS, 3, WIDTH)
    for group in range(3):
        single = nn.Linear(WIDTH, 4)
        single.load_state_dict({"weight": layer.weight[group], "bias": layer.bias[4 * group : 4 * group + 4]})
        torch.testing.assert_close(layer(x)[:, group], single(x[:, group]))


@pytest.mark.parametrize("num_groups", [1, 2, 4])
@pytest.mark.parametrize("dims", [(3,), (5, 4, 3)])
def test_experts_equal_a_loop_of_networks(num_groups: int, dims: tuple[int, ...]) -> None:
    experts = with_biases(Experts(4, WIDTH, dims, num_groups=num_groups))
    x = torch.randn(ROWS, num_groups, WIDTH)
    found = experts(x)
    assert found.shape == (ROWS, 4, 3)
    for e in range(4):
        torch.testing.assert_close(found[:, e], expert_of(experts, e, x[:, e * num_groups // 4]))


def test_the_gradients_of_experts_equal_those_of_the_loop() -> None:
    experts, x = with_biases(Experts(4, WIDTH, (5, 3), num_groups=2)), torch.randn(ROWS, 2, WIDTH, requires_grad=True)
    weights = [x, *experts.parameters()]
    looped = torch.stack([expert_of(experts, e, x[:, e // 2]) for e in range(4)], dim=1)
    for found, expected in zip(
        torch.autograd.grad(experts(x).square().sum(), weights),
        torch.autograd.grad(looped.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("num_groups", [1, 3])
def test_gates_are_softmax_weights_of_their_own_inputs(num_groups: int) -> None:
    gates, x = Gates(3, 4, WIDTH, num_groups=num_groups), torch.randn(ROWS, num_groups, WIDTH)
    found = gates(x)
    assert found.shape == (ROWS, 3, 4)
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(ROWS, 3))
    for k in range(3):
        torch.testing.assert_close(found[:, k], gate_of(gates, k, x[:, k if num_groups == 3 else 0]))


def test_gates_have_neither_bias_nor_batch_statistics() -> None:
    gates = Gates(2, 4, WIDTH)
    assert [name for name, _ in gates.named_parameters()] == ["linear.weight"]
    assert not list(gates.buffers())
    torch.testing.assert_close(gates(torch.zeros(1, 1, WIDTH)), torch.full((1, 2, 4), 0.25))


@pytest.mark.parametrize("dims", [(), (4,), (4, 3)])
def test_towers_equal_a_loop_of_networks(dims: tuple[int, ...]) -> None:
    towers, x = with_biases(Towers(3, WIDTH, dims)), torch.randn(ROWS, 3, WIDTH)
    assert towers(x).shape == (ROWS, 3)
    for task in range(3):
        torch.testing.assert_close(towers(x)[:, task], tower_of(towers, task, x[:, task]))


def test_mixtures_equal_a_loop() -> None:
    weights, experts = torch.rand(ROWS, 2, 4), torch.randn(ROWS, 1, 4, 3)
    found = mixed(weights, experts)
    for task in range(2):
        expected = sum(weights[:, task, e, None] * experts[:, 0, e] for e in range(4))
        torch.testing.assert_close(found[:, task], expected)


def test_weights_start_as_those_of_an_mlp() -> None:
    torch.manual_seed(1)
    experts, towers, plain = Experts(4, 200, (300,)), Towers(4, 300, ()), MLP(200, [300], 100)
    first = plain.hidden[0]
    assert isinstance(first, nn.Linear)
    assert experts.last_weight.std().item() == pytest.approx(first.weight.std().item(), rel=0.03)
    assert towers.output.weight.std().item() == pytest.approx(plain.output.weight.std().item(), rel=0.1)
    assert not any(bias.any() for name, bias in experts.named_parameters() if name.endswith("bias"))


def test_biases_are_vectors_which_weight_decay_spares() -> None:
    found = {name: weight.ndim for name, weight in Towers(3, WIDTH, (4,)).named_parameters()}
    assert found == {"hidden.layers.0.weight": 3, "hidden.layers.0.bias": 1, "output.weight": 3, "output.bias": 1}


def test_dropout_acts_in_training_only() -> None:
    experts, x = Experts(2, WIDTH, (50,), dropout=0.5), torch.randn(ROWS, 1, WIDTH)
    assert not torch.equal(experts(x), experts(x))
    experts.eval()
    assert torch.equal(experts(x), experts(x))


@pytest.mark.parametrize("rows", [0, 1])
def test_batches_of_hardly_any_rows(rows: int) -> None:
    assert Towers(2, 3, (4,))(Experts(2, WIDTH, (5, 3))(torch.randn(rows, 1, WIDTH))).shape == (rows, 2)
    assert Gates(2, 4, WIDTH)(torch.randn(rows, 1, WIDTH)).shape == (rows, 2, 4)
