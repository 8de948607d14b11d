from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import Parameter, functional

from genrec.balancing import (
    METHODS,
    Balancer,
    DynamicWeightAverage,
    Equal,
    GradNorm,
    MetaBalance,
    PCGrad,
    UncertaintyWeights,
)
from genrec.balancing import balancer as by_name
from genrec.contracts import GenrecError

ALL: list[type[Balancer]] = [Equal, UncertaintyWeights, GradNorm, MetaBalance, PCGrad, DynamicWeightAverage]
KINDS = {"click": "classification", "rating": "regression", "like": "classification"}


def zeros(size: int = 2) -> Parameter:
    return Parameter(torch.zeros(size, dtype=torch.float64))


def linear(value: float, weight: Tensor, gradient: Sequence[float]) -> Tensor:
    """A loss with this value (while ``weight`` is 0) and this gradient."""
    return value + (torch.tensor(gradient, dtype=torch.float64) * weight).sum()


def started(balancer: Any, *names: str, **given: Any) -> Any:
    balancer.start(names, kinds={name: KINDS[name] for name in names}, **given)
    return balancer


def grad(parameter: Parameter) -> list[float]:
    assert parameter.grad is not None
    return parameter.grad.tolist()


def on_two_gradients(balancer: Balancer, first: list[float], second: list[float]) -> list[float]:
    shared = zeros(len(first))
    losses = {"click": linear(1.0, shared, first), "rating": linear(1.0, shared, second)}
    balancer.backward(losses, [shared], [])
    return grad(shared)


# ---- every method ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL)
def test_regularisation_is_not_lost(method: type[Balancer]) -> None:
    """The gradients with and without it differ by its own gradient, in shared and in private parameters."""

    def gradients(with_extra: bool) -> list[list[float]]:
        shared, untouched, private = zeros(), zeros(), zeros()
        balancer = started(method(), "click", "rating", last_shared=[shared])
        click = linear(1.0, shared, [3.0, 4.0]) + linear(0.0, private, [1.0, 0.0])
        losses = {"click": click, "rating": linear(2.0, shared, [-6.0, 0.5])}
        extra = 10 * shared.sum() + 20 * private.sum() + 30 * untouched.sum() if with_extra else 0 * untouched.sum()
        balancer.backward(losses, [shared, untouched], [private], extra=extra)
        return [grad(shared), grad(untouched), grad(private)]

    for plain, regularised, added in zip(gradients(False), gradients(True), (10, 30, 20), strict=True):
        assert regularised == pytest.approx([value + added for value in plain])


@pytest.mark.parametrize("method", ALL)
def test_private_parameters_get_their_own_weighted_loss(method: type[Balancer]) -> None:
    shared, click, rating = zeros(), zeros(1), zeros(1)
    balancer = started(method(), "click", "rating", last_shared=[shared])
    losses = {
        "click": linear(1.0, shared, [3.0, 4.0]) + linear(0.0, click, [5.0]),
        "rating": linear(1.0, shared, [-3.0, 0.0]) + linear(0.0, rating, [7.0]),
    }
    balancer.backward(losses, [shared], [click, rating])
    half = 0.5 if method is UncertaintyWeights else 1.0
    assert (grad(click), grad(rating)) == ([5.0], [half * 7.0])


@pytest.mark.parametrize("method", ALL)
def test_gradients_add_up_as_those_of_backward_do(method: type[Balancer]) -> None:
    shared, private = zeros(), zeros()
    balancer = started(method(), "click", last_shared=[shared])
    for _ in range(2):
        loss = linear(1.0, shared, [3.0, 4.0]) + linear(0.0, private, [1.0, 2.0])
        total = balancer.backward({"click": loss}, [shared], [private])
        assert not total.requires_grad
        assert total.item() == pytest.approx(1.0)
    assert (grad(shared), grad(private)) == (pytest.approx([6.0, 8.0]), pytest.approx([2.0, 4.0]))


@pytest.mark.parametrize("method", ALL)
def test_gradients_lie_in_memory_as_their_parameters_do(method: type[Balancer]) -> None:
    """Fused optimizers step through both in the order of memory, so a transposed gradient would be another one."""
    shared, private = (Parameter(torch.randn(2, 3, 4, dtype=torch.float64)) for _ in range(2))
    balancer = started(method(), "click", "rating", last_shared=[shared])
    for _ in range(2):  # the second is added
        hidden = torch.bmm(torch.randn(2, 5, 4, dtype=torch.float64), shared.transpose(1, 2))
        click, rating = hidden.square().mean(), torch.bmm(hidden @ private, private.transpose(1, 2)).square().mean()
        [own] = torch.autograd.grad(click, [shared], retain_graph=True)
        assert not own.is_contiguous()
        balancer.backward({"click": click, "rating": rating}, [shared], [private])
        for weight in (shared, private):
            assert weight.grad is not None and weight.grad.stride() == weight.stride()


def test_clipping_one_gradient_in_place_leaves_the_others() -> None:
    first, second = zeros(1), zeros(1)
    started(Equal(), "click").backward({"click": (first + second).sum()}, [first, second], [])
    assert first.grad is not None
    first.grad.mul_(3.0)
    assert (grad(first), grad(second)) == ([3.0], [1.0])


@pytest.mark.parametrize("method", ALL)
def test_what_no_loss_reaches_and_what_is_frozen_get_no_gradient(method: type[Balancer]) -> None:
    shared, unreached, frozen = zeros(), zeros(), zeros().requires_grad_(False)
    balancer = started(method(), "click", "rating", last_shared=[shared])
    losses = {"click": linear(1.0, shared, [1.0, 0.0]), "rating": torch.tensor(1.0, dtype=torch.float64)}
    balancer.backward(losses, [shared, unreached, frozen], [])
    assert (unreached.grad, frozen.grad) == (None, None)
    assert grad(shared) == [1.0, 0.0]


@pytest.mark.parametrize("method", ALL)
def test_a_restored_run_equals_an_uninterrupted_one(method: type[Balancer]) -> None:
    def begin(weights: list[Parameter]) -> Balancer:
        return started(method(), "click", "rating", "like", last_shared=weights[:1])

    def train(balancer: Balancer, weights: list[Parameter], steps: range) -> None:
        for step in steps:
            noise = torch.Generator().manual_seed(step)
            matrix = torch.randn(3, 4, generator=noise, dtype=torch.float64)
            errors = (matrix @ weights[0] - weights[1]).square() * torch.tensor([1.0, 4.0, 0.3])
            losses = dict(zip(KINDS, errors, strict=True))
            for weight in weights:
                weight.grad = None
            balancer.backward(losses, weights[:1], weights[1:])
            balancer.step()
            balancer.on_epoch_end({name: loss.item() for name, loss in losses.items()})
            with torch.no_grad():
                for weight in weights:
                    assert weight.grad is not None
                    weight -= 0.05 * weight.grad

    start = [torch.linspace(-1, 1, 4, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)]
    whole = [Parameter(value.clone()) for value in start]
    uninterrupted = begin(whole)
    train(uninterrupted, whole, range(4))
    state, middle = uninterrupted.state_dict(), [Parameter(weight.detach().clone()) for weight in whole]
    train(uninterrupted, whole, range(4, 9))
    restored = begin(middle)
    restored.load_state_dict(state)
    train(restored, middle, range(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(whole, middle, strict=True))
    assert restored.weights == uninterrupted.weights


def test_equal_is_the_sum() -> None:
    balancer = started(Equal(), "click", "rating")
    assert on_two_gradients(balancer, [3.0, 4.0], [-6.0, 0.5]) == [-3.0, 4.5]
    assert balancer.weights == {"click": 1.0, "rating": 1.0}


# ---- uncertainty weights --------------------------------------------------------------------------------------------


def test_one_formula_for_each_kind() -> None:
    """At s = log 2: exp(-s) = 1/2, so 1/2 x 8 for the click, 1/4 x 8 for the rating, and s / 2 for each."""
    shared = zeros()
    balancer = started(UncertaintyWeights(), "click", "rating")
    balancer.load_state_dict({**balancer.state_dict(), "log_variances": torch.full((2,), math.log(2.0))})
    losses = {"click": linear(8.0, shared, [4.0, 0.0]), "rating": linear(8.0, shared, [0.0, 4.0])}
    total = balancer.backward(losses, [shared], [])
    assert total.item() == pytest.approx(4 + 2 + math.log(2.0))
    assert grad(shared) == pytest.approx([2.0, 1.0])
    assert balancer.weights == pytest.approx({"click": 0.5, "rating": 0.25})
    assert grad(balancer._log_variances) == pytest.approx([-4 + 0.5, -2 + 0.5])


def test_uwl_is_not_clamped_at_zero_so_an_easy_task_is_not_stuck() -> None:
    """The optimum of a loss L is exp(s) = 2 L for a click and L for a rating, where the total is negative."""
    shared, loss = zeros(), 0.01
    balancer = started(UncertaintyWeights(lr=0.05), "click", "rating")
    total = torch.tensor(0.0)
    for _ in range(1000):
        losses = {name: linear(loss, shared, [1.0, 0.0]) for name in ("click", "rating")}
        total = balancer.backward(losses, [shared], [])
        balancer.step()
    expected = 0.5 + math.log(2 * loss) / 2 + 0.5 + math.log(loss) / 2
    assert expected < -3
    assert total.item() == pytest.approx(expected, abs=1e-3)
    assert balancer.weights == pytest.approx({"click": 1 / (2 * loss), "rating": 0.5 / loss}, rel=0.01)


def test_no_weight_decay_on_the_uncertainties() -> None:
    """A step by a gradient of 0 leaves s = 1 where it is, which is the optimum of a click of loss e / 2."""
    shared = zeros()
    balancer = started(UncertaintyWeights(lr=0.1), "click")
    balancer.load_state_dict({**balancer.state_dict(), "log_variances": torch.tensor([1.0])})
    balancer._log_variances.grad = torch.zeros(1)
    balancer.step()
    assert balancer._log_variances.tolist() == [1.0]
    balancer.backward({"click": linear(math.e / 2, shared, [1.0, 0.0])}, [shared], [])
    assert grad(balancer._log_variances) == pytest.approx([0.0], abs=1e-6)


def test_a_step_that_is_not_finite_is_left_out() -> None:
    shared = zeros()
    balancer = started(UncertaintyWeights(lr=0.1), "click")
    balancer.backward({"click": linear(math.inf, shared, [1.0, 0.0])}, [shared], [])
    balancer.step()
    assert balancer._log_variances.tolist() == [0.0]
    balancer.backward({"click": linear(2.0, shared, [1.0, 0.0])}, [shared], [])
    balancer.step()
    assert balancer._log_variances.tolist() == pytest.approx([0.1])


# ---- GradNorm -------------------------------------------------------------------------------------------------------


def gradnorm_step(
    balancer: GradNorm, shared: Parameter, values: tuple[float, float], gradients: tuple[list[float], list[float]]
) -> None:
    shared.grad = None
    losses = {name: linear(v, shared, g) for name, v, g in zip(("click", "rating"), values, gradients, strict=True)}
    balancer.backward(losses, [shared], [])


def test_a_task_that_learns_more_slowly_gains_weight_under_gradnorm() -> None:
    """Like gradients of length 5 and 5; the click stays at 1 while the rating falls from 2 to 1: r = (4/3, 2/3).

    The targets are 5 (4/3)^1 and 5 (2/3)^1, so the click's weight has the gradient -5 and the rating's +5.
    """
    shared = zeros()
    balancer = started(GradNorm(alpha=1.0), "click", "rating", last_shared=[shared])
    gradnorm_step(balancer, shared, (1.0, 2.0), ([3.0, 4.0], [5.0, 0.0]))
    assert grad(balancer._own) == [0.0, 0.0]
    balancer.step()
    gradnorm_step(balancer, shared, (1.0, 1.0), ([3.0, 4.0], [5.0, 0.0]))
    assert grad(balancer._own) == [-5.0, 5.0]
    assert grad(shared) == [8.0, 4.0]
    balancer.step()
    assert balancer.weights["click"] > 1 > balancer.weights["rating"]


def test_gradnorm_keeps_the_rate_of_each_task() -> None:
    """The per-task r^alpha decides the sign: G = (4, 5), mean 4.5, r = (2/3, 4/3).

    With the exponent 1 the targets are 3 and 6, so the longer gradient must grow; with 0 both are 4.5 and it shrinks.
    """
    for alpha, signs in ((1.0, [4.0, -5.0]), (0.0, [-4.0, 5.0])):
        shared = zeros()
        balancer = started(GradNorm(alpha=alpha), "click", "rating", last_shared=[shared])
        balancer.load_state_dict({**balancer.state_dict(), "initial": torch.tensor([2.0, 1.0])})
        gradnorm_step(balancer, shared, (1.0, 1.0), ([4.0, 0.0], [0.0, 5.0]))
        assert grad(balancer._own) == signs


def test_the_gradient_of_gradnorms_weights_equals_automatic_differentiation() -> None:
    torch.manual_seed(0)
    W, alpha = Parameter(torch.randn(4, 3)), 0.7
    data, target = torch.randn(8, 3), torch.randn(8, 4)
    balancer = started(GradNorm(alpha=alpha), "click", "rating", "like", last_shared=[W])
    own, initial = torch.tensor([0.5, 1.5, 1.0]), torch.tensor([3.0, 1.0, 2.0])
    balancer.load_state_dict({**balancer.state_dict(), "own": own, "initial": initial})

    def losses() -> list[Tensor]:
        error = data @ W.T - target
        return [error.square().mean(), 3 * error.abs().mean(), error[:, :1].square().mean()]

    balancer.backward(dict(zip(("click", "rating", "like"), losses(), strict=True)), [W], [])
    w, values = own.clone().requires_grad_(), losses()
    pieces = [torch.autograd.grad(w[i] * values[i], W, create_graph=True)[0] for i in range(3)]
    norms = torch.stack([piece.norm() for piece in pieces])
    progress = torch.stack(values).detach() / initial
    targets = (norms.mean() * (progress / progress.mean()) ** alpha).detach()
    [expected] = torch.autograd.grad((norms - targets).abs().sum(), w)
    assert grad(balancer._own) == pytest.approx(expected.tolist())


def test_gradnorm_measures_at_the_layer_it_is_told_and_no_embedding_table() -> None:
    """At the table the click has the longer gradient, at the layer the rating: the rating must lose weight."""
    table, layer = zeros(), zeros()
    balancer = started(GradNorm(), "click", "rating", last_shared=[layer])
    losses = {
        "click": linear(1.0, table, [100.0, 0.0]) + linear(0.0, layer, [1.0, 0.0]),
        "rating": linear(1.0, table, [1.0, 0.0]) + linear(0.0, layer, [0.0, 3.0]),
    }
    balancer.backward(losses, [table, layer], [])
    assert grad(balancer._own) == [-1.0, 3.0]
    with pytest.raises(GenrecError, match="last_shared"):
        started(GradNorm(), "click", "rating")
    with pytest.raises(GenrecError, match="among the shared"):
        balancer.backward({name: table.sum() for name in ("click", "rating")}, [table], [layer])


def test_a_whole_step_of_gradnorm_worked_by_hand() -> None:
    """Losses 1, 1, 1 of initially 2, 1, 1 are 1/2, 1, 1 of those, on average 5/6: r = (3/5, 6/5, 6/5).

    Lengths 3, 4, 5 are on average 4, so with alpha 1 the targets are 2.4, 4.8, 4.8 and the gradient of the weights is
    (3, -4, 5). Adam's first step is 0.1 against each sign, to (0.9, 1.1, 0.9), which times 3 / 2.9 sums to 3. The model
    still learns by the weights of before.
    """
    shared = zeros(3)
    balancer = started(GradNorm(alpha=1.0, lr=0.1), "click", "rating", "like", last_shared=[shared])
    balancer.load_state_dict({**balancer.state_dict(), "initial": torch.tensor([2.0, 1.0, 1.0])})
    rows = {"click": [3.0, 0.0, 0.0], "rating": [0.0, 4.0, 0.0], "like": [0.0, 0.0, 5.0]}
    total = balancer.backward({name: linear(1.0, shared, row) for name, row in rows.items()}, [shared], [])
    assert total.item() == 3.0
    assert grad(balancer._own) == [3.0, -4.0, 5.0]
    assert grad(shared) == [3.0, 4.0, 5.0]
    balancer.step()
    assert balancer.weights == pytest.approx({"click": 27 / 29, "rating": 33 / 29, "like": 27 / 29}, rel=1e-5)


def test_gradnorms_layer_of_several_experts_counts_as_one() -> None:
    """The click's gradients of lengths 3 and 4 are one of length 5, as the rating's is: nothing to move."""
    first, second = zeros(), zeros()
    balancer = started(GradNorm(), "click", "rating", last_shared=[first, second])
    click = linear(1.0, first, [3.0, 0.0]) + linear(0.0, second, [0.0, 4.0])
    balancer.backward({"click": click, "rating": linear(1.0, first, [0.0, 5.0])}, [first, second], [])
    assert grad(balancer._own) == [0.0, 0.0]


def test_weights_of_gradnorm_sum_to_the_number_of_tasks() -> None:
    shared = zeros()
    balancer = started(GradNorm(lr=0.4), "click", "rating", last_shared=[shared])
    for step in range(30):
        gradnorm_step(balancer, shared, (1.0, 0.9**step), ([1.0, 0.0], [0.0, 9.0]))
        balancer.step()
        assert sum(balancer.weights.values()) == pytest.approx(2.0)
        assert min(balancer.weights.values()) > 0
    assert balancer.weights["click"] > 1.5


def test_gradnorms_initial_loss_by_option() -> None:
    shared = zeros()
    given = {"num_classes": {"click": 4}, "last_shared": [shared]}
    balancer = started(GradNorm(initial_loss="log_classes"), "click", "rating", **given)
    gradnorm_step(balancer, shared, (9.0, 5.0), ([1.0, 0.0], [1.0, 0.0]))
    assert balancer._initial.tolist() == pytest.approx([math.log(4.0), 5.0])
    with pytest.raises(GenrecError, match="num_classes"):
        started(GradNorm(initial_loss="log_classes"), "click", last_shared=[shared])


def test_a_first_batch_without_a_tasks_rows_does_not_spoil_gradnorm() -> None:
    shared = zeros()
    balancer = started(GradNorm(), "click", "rating", last_shared=[shared])
    gradnorm_step(balancer, shared, (0.0, 5.0), ([0.0, 0.0], [1.0, 0.0]))
    balancer.step()
    gradnorm_step(balancer, shared, (3.0, 5.0), ([1.0, 0.0], [1.0, 0.0]))
    assert balancer._initial.tolist() == [3.0, 5.0]
    assert all(math.isfinite(weight) for weight in balancer.weights.values())


# ---- MetaBalance ----------------------------------------------------------------------------------------------------

LONG = ([3.0, 4.0], [0.0, 20.0])  # lengths 5 and 20: the ratio is 1/4
SHORT = ([3.0, 4.0], [0.0, 2.0])  # lengths 5 and 2: the ratio is 5/2


@pytest.mark.parametrize(
    ("strategy", "long", "short"), [("A", 0.475, 1.0), ("B", 1.0, 2.05), ("C", 0.475, 2.05)], ids=["A", "B", "C"]
)
def test_strategies_of_metabalance(strategy: Any, long: float, short: float) -> None:
    """With r = 0.7 the factor is 0.7 / 4 + 0.3 = 0.475 for the long and 0.7 x 5/2 + 0.3 = 2.05 for the short one."""
    for gradients, factor in ((LONG, long), (SHORT, short)):
        balancer = started(MetaBalance(strategy=strategy), "click", "rating")
        found = on_two_gradients(balancer, *gradients)
        assert found == pytest.approx([3.0, 4.0 + factor * gradients[1][1]])
        assert balancer.weights == pytest.approx({"click": 1.0, "rating": factor})


def test_the_moving_averages_of_metabalance() -> None:
    """beta = 1/2: the target's average goes 5/2, 25/4 and the other's 10, 6; so C takes 1/4 and then 25/24."""
    balancer = started(MetaBalance(beta=0.5, relax_factor=1.0), "click", "rating")
    assert on_two_gradients(balancer, *LONG) == pytest.approx([3.0, 4.0 + 20 / 4])
    assert on_two_gradients(balancer, [0.0, 10.0], [2.0, 0.0]) == pytest.approx([2 * 25 / 24, 10.0])


@pytest.mark.parametrize(("strategy", "factor"), [("A", 9 / 13), ("B", 1.0), ("C", 9 / 13)])
def test_strategies_compare_the_averages_and_not_the_lengths_of_the_step(strategy: Any, factor: float) -> None:
    """beta = 1/2. Lengths 1 and 9 give the averages 1/2 and 9/2; lengths 4 and 2 then give 9/4 and 13/4.

    In the second step the auxiliary gradient is the shorter, but its average is the longer: it shrinks by 9/13 under A,
    and under B it does not grow.
    """
    balancer = started(MetaBalance(strategy=strategy, beta=0.5, relax_factor=1.0), "click", "rating")
    on_two_gradients(balancer, [1.0, 0.0], [0.0, 9.0])
    assert on_two_gradients(balancer, [4.0, 0.0], [0.0, 2.0]) == pytest.approx([4.0, 2 * factor])


def test_each_auxiliary_task_is_brought_near_the_target_on_its_own() -> None:
    """Lengths 2, 8 and 1 with r = 1/2: 1/2 x 2/8 + 1/2 = 5/8 and 1/2 x 2/1 + 1/2 = 3/2."""
    shared = zeros(3)
    balancer = started(MetaBalance(relax_factor=0.5), "click", "rating", "like")
    rows = {"click": [2.0, 0.0, 0.0], "rating": [0.0, 8.0, 0.0], "like": [0.0, 0.0, 1.0]}
    balancer.backward({name: linear(1.0, shared, row) for name, row in rows.items()}, [shared], [])
    assert grad(shared) == pytest.approx([2.0, 5.0, 1.5])
    assert balancer.weights == pytest.approx({"click": 1.0, "rating": 5 / 8, "like": 3 / 2})


def test_strategy_a_never_enlarges_and_b_never_shrinks() -> None:
    noise = torch.Generator().manual_seed(0)
    shrinks = started(MetaBalance(strategy="A"), "click", "rating")
    grows = started(MetaBalance(strategy="B"), "click", "rating")
    found = []
    for _ in range(30):
        first, second = torch.randn(2, 2, generator=noise).exp().tolist()
        for method in (shrinks, grows):
            on_two_gradients(method, first, second)
        found.append((shrinks.weights["rating"], grows.weights["rating"]))
    assert all(a <= 1 <= b and 1 in (a, b) for a, b in found)
    assert min(a for a, _ in found) < 1 < max(b for _, b in found)


def test_metabalance_treats_each_shared_parameter_apart() -> None:
    first, second = zeros(), zeros()
    balancer = started(MetaBalance(relax_factor=1.0), "click", "rating")
    losses = {
        "click": linear(1.0, first, [1.0, 0.0]) + linear(0.0, second, [1.0, 0.0]),
        "rating": linear(1.0, first, [0.0, 4.0]) + linear(0.0, second, [0.0, 0.5]),
    }
    balancer.backward(losses, [first, second], [])
    assert (grad(first), grad(second)) == (pytest.approx([1.0, 1.0]), pytest.approx([1.0, 1.0]))


def test_where_the_target_has_no_gradient_metabalance_leaves_the_others() -> None:
    assert on_two_gradients(started(MetaBalance(), "click", "rating"), [0.0, 0.0], [3.0, 4.0]) == [3.0, 4.0]
    assert on_two_gradients(started(MetaBalance(), "click", "rating"), [3.0, 4.0], [0.0, 0.0]) == [3.0, 4.0]


# ---- PCGrad ---------------------------------------------------------------------------------------------------------


def test_two_conflicting_gradients_equal_the_closed_form() -> None:
    """g1 = (1, 0), g2 = (-1, 1): g1.g2 = -1; g1' = g1 + g2 / 2 = (1/2, 1/2), g2' = g2 + g1 = (0, 1)."""
    balancer = started(PCGrad(), "click", "rating")
    assert on_two_gradients(balancer, [1.0, 0.0], [-1.0, 1.0]) == pytest.approx([0.5, 1.5])
    assert balancer.weights == pytest.approx({"click": 2.0, "rating": 1.5})


def test_gradients_that_do_not_conflict_are_left_alone() -> None:
    assert on_two_gradients(started(PCGrad(), "click", "rating"), [1.0, 0.0], [0.0, 1.0]) == [1.0, 1.0]
    assert on_two_gradients(started(PCGrad(), "click", "rating"), [1.0, 2.0], [3.0, 4.0]) == [4.0, 6.0]


def test_pcgrad_takes_all_shared_parameters_for_one_vector() -> None:
    """In the first parameter alone the tasks conflict, together they do not."""
    first, second = zeros(1), zeros(1)
    losses = {
        "click": linear(1.0, first, [1.0]) + linear(0.0, second, [2.0]),
        "rating": linear(1.0, first, [-1.0]) + linear(0.0, second, [2.0]),
    }
    started(PCGrad(), "click", "rating").backward(losses, [first, second], [])
    assert (grad(first), grad(second)) == ([0.0], [4.0])


def test_three_tasks_equal_algorithm_1_in_the_generators_order() -> None:
    torch.manual_seed(1)
    gradients = torch.randn(3, 2, dtype=torch.float64)
    found = set()
    for seed in range(8):
        shared = zeros()
        balancer = started(PCGrad(), "click", "rating", "like", generator=torch.Generator().manual_seed(seed))
        losses = {n: linear(1.0, shared, g.tolist()) for n, g in zip(balancer.weights, gradients, strict=True)}
        balancer.backward(losses, [shared], [])
        order, expected = torch.Generator().manual_seed(seed), torch.zeros(2, dtype=torch.float64)
        for i in range(3):
            projected = gradients[i].clone()
            for j in torch.randperm(3, generator=order).tolist():
                if j != i and projected @ gradients[j] < 0:
                    projected -= (projected @ gradients[j]) / gradients[j].square().sum() * gradients[j]
            expected += projected
        assert grad(shared) == pytest.approx(expected.tolist(), abs=1e-6)
        found.add(tuple(round(value, 4) for value in expected.tolist()))
    assert len(found) > 1  # the order matters on these gradients


def test_three_tasks_by_hand_in_either_order() -> None:
    """g1 = (1, 0), g2 = (-1, 1), g3 = (0, -1): g1.g2 = -1, g1.g3 = 0, g2.g3 = -1.

    g1 first against g2 is (1/2, 1/2), which conflicts with g3 and ends at (1/2, 0); first against g3 it is unchanged,
    and then (1/2, 1/2). g2 ends at 0 either way: g2 + g1 = (0, 1) and + g3; g2 + g3 = (-1, 0) and + g1. g3 against g1
    is unchanged, then g3 + g2 / 2 = (-1/2, -1/2); first against g2 that conflicts with g1 and ends at (0, -1/2).
    """
    gradients = {"click": [1.0, 0.0], "rating": [-1.0, 1.0], "like": [0.0, -1.0]}
    firsts = {(1, 2): (0.5, 0.0), (2, 1): (0.5, 0.5)}
    thirds = {(0, 1): (-0.5, -0.5), (1, 0): (0.0, -0.5)}
    met = set()
    for seed in range(12):
        order = torch.Generator().manual_seed(seed)
        orders = [tuple(j for j in torch.randperm(3, generator=order).tolist() if j != i) for i in range(3)]
        first, third = firsts[orders[0]], thirds[orders[2]]
        shared = zeros()
        balancer = started(PCGrad(), *gradients, generator=torch.Generator().manual_seed(seed))
        balancer.backward({name: linear(1.0, shared, row) for name, row in gradients.items()}, [shared], [])
        assert grad(shared) == pytest.approx([first[0] + third[0], first[1] + third[1]])
        met.add((orders[0], orders[2]))
    assert len(met) == 4


def test_the_state_of_pcgrad_holds_its_generator() -> None:
    balancer = started(PCGrad(), "click", "rating", generator=torch.Generator().manual_seed(5))
    on_two_gradients(balancer, [1.0, 0.0], [-1.0, 1.0])
    restored = started(PCGrad(), "click", "rating")
    restored.load_state_dict(balancer.state_dict())
    assert torch.equal(restored._generator.get_state(), balancer._generator.get_state())


# ---- DynamicWeightAverage -------------------------------------------------------------------------------------------


def test_the_weights_of_dwa_worked_by_hand() -> None:
    """The click falls to 1/2 of what it was and the rating stays: w = 2 softmax((1/2, 1) / 2)."""
    balancer = started(DynamicWeightAverage(), "click", "rating")
    balancer.on_epoch_end({"click": 4.0, "rating": 3.0})
    assert balancer.weights == {"click": 1.0, "rating": 1.0}
    balancer.on_epoch_end({"rating": 3.0, "click": 2.0})
    click, rating = math.exp(0.25), math.exp(0.5)
    expected = {"click": 2 * click / (click + rating), "rating": 2 * rating / (click + rating)}
    assert balancer.weights == pytest.approx(expected)
    assert sum(balancer.weights.values()) == pytest.approx(2.0)
    gradients = on_two_gradients(balancer, [1.0, 0.0], [0.0, 1.0])
    assert gradients == pytest.approx(list(expected.values()))


def test_dwa_looks_back_two_epochs_and_no_further() -> None:
    """The click goes 8, 2, 1 and the rating 3, 3, 6: q = (1/2, 2), and w = 2 softmax((1/2, 2) / 3)."""
    balancer = started(DynamicWeightAverage(temperature=3.0), "click", "rating")
    for click, rating in ((8.0, 3.0), (2.0, 3.0), (1.0, 6.0)):
        balancer.on_epoch_end({"click": click, "rating": rating})
    click, rating = math.exp(1 / 6), math.exp(2 / 3)
    expected = {"click": 2 * click / (click + rating), "rating": 2 * rating / (click + rating)}
    assert balancer.weights == pytest.approx(expected)


def test_a_loss_of_zero_counts_as_unchanged_under_dwa() -> None:
    balancer = started(DynamicWeightAverage(), "click", "rating")
    for _ in range(2):
        balancer.on_epoch_end({"click": 0.0, "rating": 3.0})
    assert balancer.weights == {"click": 1.0, "rating": 1.0}


# ---- by name --------------------------------------------------------------------------------------------------------


def test_every_method_has_a_name() -> None:
    assert {name: type(by_name(name)) for name in METHODS} == dict(
        none=Equal,
        uwl=UncertaintyWeights,
        gradnorm=GradNorm,
        metabalance=MetaBalance,
        pcgrad=PCGrad,
        dwa=DynamicWeightAverage,
    )
    assert by_name("gradnorm") is not by_name("gradnorm")


def test_a_method_with_settings_of_its_own_passes_through() -> None:
    given = GradNorm(alpha=1.5)
    assert by_name(given) is given


@pytest.mark.parametrize(("name", "near"), [("GradNorm", "gradnorm"), ("metabalence", "metabalance"), ("uw", "uwl")])
def test_an_unknown_name_lists_the_names_and_the_nearest(name: str, near: str) -> None:
    with pytest.raises(GenrecError, match=rf"balancing={name}: .*mean {near}\?.*none, uwl, gradnorm"):
        by_name(name)


def test_what_is_no_name_is_no_method() -> None:
    with pytest.raises(GenrecError, match=r"balancing=zzz: no such method\. Choose one of none, uwl"):
        by_name("zzz")
    with pytest.raises(GenrecError, match="balancing=None"):
        by_name(None)  # pyright: ignore[reportArgumentType]


def test_gradnorm_says_what_serves_a_model_without_a_shared_layer() -> None:
    with pytest.raises(GenrecError, match=r"model=mmoe.*none, uwl, metabalance, pcgrad, dwa"):
        started(GradNorm(), "click", "rating")


# ---- several processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL)
def test_with_several_processes_each_takes_the_mean(monkeypatch: pytest.MonkeyPatch, method: type[Balancer]) -> None:
    """A second process whose every value is three times ours stands in: the sum over both is 4 times, the mean 2."""
    shared, unreached = zeros(), zeros()
    balancer = started(method(), "click", last_shared=[shared])
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda flat: flat.mul_(4.0))
    balancer.backward({"click": linear(1.0, shared, [3.0, 4.0])}, [shared, unreached], [])
    assert grad(shared) == pytest.approx([6.0, 8.0])
    assert unreached.grad is None
    if isinstance(balancer, GradNorm):
        assert balancer._initial.tolist() == [2.0]


def balanced_steps(method: str, rows: slice) -> dict[str, Tensor]:
    """Gradients of every parameter and the weights of the tasks in three steps on these of eight rows.

    ``rare`` is for the third row alone, so that in a process without it the losses do not reach it.
    """
    noise = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    inputs, labels, is_third = random(8, 4)[rows], (random(8, 3) > 0).double()[rows], (torch.arange(8) == 2)[rows]
    layer, rare, unreached, towers = (Parameter(random(*shape)) for shape in ((4, 3), (3,), (2,), (3, 3)))
    shared = [layer, rare, unreached]
    balancer = started(by_name(method), *KINDS, last_shared=[layer], generator=torch.Generator().manual_seed(2))
    found: dict[str, Tensor] = {}
    for step in range(3):
        hidden = torch.tanh(inputs @ layer)
        if is_third.any():
            hidden = hidden + is_third[:, None] * rare
        outputs = hidden @ towers
        losses = {
            "click": functional.binary_cross_entropy_with_logits(outputs[:, 0], labels[:, 0]),
            "rating": 9 * (outputs[:, 1] - labels[:, 1]).square().mean(),
            "like": functional.binary_cross_entropy_with_logits(outputs[:, 2], 1 - labels[:, 0]),
        }
        balancer.backward(losses, shared, [towers], extra=0.1 * hidden.square().mean())
        assert unreached.grad is None
        weights = torch.tensor(list(balancer.weights.values()), dtype=torch.float64)
        gradients = {"layer": layer.grad, "rare": rare.grad, "towers": towers.grad, "weights": weights}
        found.update({f"{name} {step}": value.clone() for name, value in gradients.items() if value is not None})
        balancer.step()
        balancer.on_epoch_end({name: loss.item() for name, loss in losses.items()})
        with torch.no_grad():
            for weight in (layer, rare, towers):
                assert weight.grad is not None
                weight -= 0.1 * weight.grad
                weight.grad = None
    return found


def one_of_two(rank: int, folder: Path) -> None:
    """Half of the rows with every method, as one of two processes."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        found = {method: balanced_steps(method, slice(4 * rank, 4 * rank + 4)) for method in METHODS}
        torch.save(found, folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_with_half_of_the_rows_are_one_with_all(tmp_path: Path) -> None:
    """Losses are means over as many rows, so their mean over processes is the loss of all rows."""
    second = multiprocessing.get_context("spawn").Process(target=one_of_two, args=(1, tmp_path), daemon=True)
    second.start()
    one_of_two(0, tmp_path)
    second.join(60)
    assert second.exitcode == 0
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for method in METHODS:
        whole = balanced_steps(method, slice(0, 8))
        for half in halves:
            torch.testing.assert_close(half[method], whole, rtol=1e-5, atol=1e-7, msg=f"{method}: {{}}".format)
        unequal = len({round(value, 6) for value in whole["weights 2"].tolist()}) > 1
        assert unequal or method == "none"


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (GradNorm, {"alpha": -1.0}, r"balancing\.alpha"),
        (GradNorm, {"initial_loss": "second"}, r"balancing\.initial_loss"),
        (UncertaintyWeights, {"lr": 0.0}, r"balancing\.lr"),
        (MetaBalance, {"strategy": "D"}, r"balancing\.strategy"),
        (MetaBalance, {"relax_factor": 1.5}, r"balancing\.relax_factor"),
        (MetaBalance, {"beta": 1.0}, r"balancing\.beta"),
        (DynamicWeightAverage, {"temperature": 0}, r"balancing\.temperature"),
    ],
)
def test_a_wrong_setting_is_named(method: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        method(**settings)


def test_mistakes_of_the_caller_are_named() -> None:
    shared = zeros()
    with pytest.raises(GenrecError, match="start"):
        Equal().backward({"click": shared.sum()}, [shared], [])
    with pytest.raises(GenrecError, match="differ"):
        Equal().start(["click", "click"], kinds=KINDS)
    with pytest.raises(GenrecError, match="kind of task 'click'"):
        Equal().start(["click"], kinds={"click": "ranking"})
    balancer = started(Equal(), "click")
    with pytest.raises(GenrecError, match="tasks are"):
        balancer.backward({"rating": shared.sum()}, [shared], [])
    with pytest.raises(GenrecError, match="scalar"):
        balancer.backward({"click": shared * 1}, [shared], [])
    with pytest.raises(GenrecError, match="listed twice"):
        balancer.backward({"click": shared.sum()}, [shared], [shared])
    with pytest.raises(GenrecError, match="nothing to balance"):
        balancer.backward({"click": shared.sum()}, [], [shared])
    with pytest.raises(GenrecError, match="the state is of tasks"):
        balancer.load_state_dict(started(Equal(), "rating").state_dict())


def test_sparse_gradients_are_refused_where_they_cannot_be_balanced() -> None:
    table = Parameter(torch.ones(5, 2))
    loss = torch.nn.functional.embedding(torch.tensor([1, 3]), table, sparse=True).sum()
    with pytest.raises(GenrecError, match="sparse_gradients=false"):
        started(MetaBalance(), "click").backward({"click": loss}, [table], [])
