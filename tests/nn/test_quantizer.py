"""Quantisers against brute force, the formulas of the papers, and the faults of public implementations."""

from typing import Any

import pytest
import torch
from torch import Tensor

from genrec.contracts import GenrecError
from genrec.nn.quantizer import ResidualQuantizer, VectorQuantizer, rotate, straight_through


def make(num_quantizers: int = 3, **changes: Any) -> ResidualQuantizer:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(num_quantizers, 7, 4, **changes)
    for level in quantizer.quantizers:
        level.codebook.data.normal_()
    return quantizer


def gradient_of(function: Any, inputs: Tensor, quantized: Tensor, upstream: Tensor) -> Tensor:
    inputs = inputs.clone().requires_grad_()
    (function(inputs, quantized) * upstream).sum().backward()
    assert inputs.grad is not None
    return inputs.grad


def test_codes_equal_brute_force() -> None:
    quantizer, inputs = make(), torch.randn(50, 4)
    codes, rest = [], inputs
    for level in quantizer.quantizers:
        codes.append(((rest[:, None] - level.codebook[None]) ** 2).sum(-1).argmin(1))
        rest = rest - level.codebook[codes[-1]]
    output = quantizer.eval()(inputs)
    expected = torch.stack(codes, 1)
    assert torch.equal(output.codes, expected) and torch.equal(quantizer.encode(inputs), expected)
    torch.testing.assert_close(output.vectors, inputs - rest)
    torch.testing.assert_close(quantizer.decode(expected), inputs - rest)


def test_loss_is_summed_over_width_and_levels_and_averaged_over_the_batch() -> None:
    quantizer, inputs = make(commitment_cost=0.25).eval(), torch.randn(6, 4)
    rest, expected = inputs, torch.zeros(())
    for level in quantizer.quantizers:
        rest = rest - level.codebook[level.encode(rest)]
        expected = expected + 1.25 * rest.square().sum(1).mean()
    torch.testing.assert_close(quantizer(inputs).loss, expected)


def test_every_level_gives_the_encoder_its_gradient() -> None:
    """Fault: subtracting the straight-through code makes the residual constant, and deeper levels teach nothing."""
    quantizer, inputs = make(num_quantizers=2, commitment_cost=1.0).eval(), torch.randn(1, 4, requires_grad=True)
    quantizer(inputs).loss.backward()
    first, second = quantizer.quantizers
    rest = inputs.detach() - first.codebook[first.encode(inputs)]
    deeper = rest - second.codebook[second.encode(rest)]
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad, (2 * rest + 2 * deeper).detach())


def test_codebook_gradient_comes_from_its_own_level_only() -> None:
    quantizer, inputs = make(num_quantizers=2), torch.randn(1, 4)
    quantizer.eval()(inputs).loss.backward()
    first = quantizer.quantizers[0]
    code = first.encode(inputs)
    assert first.codebook.grad is not None
    torch.testing.assert_close(first.codebook.grad[code], -2 * (inputs - first.codebook[code]).detach())


def test_straight_through_passes_the_gradient_once_whatever_the_number_of_levels() -> None:
    quantizer, inputs = make(gradient_estimator="straight_through").eval(), torch.randn(5, 4, requires_grad=True)
    upstream = torch.randn(5, 4)
    (quantizer(inputs).vectors * upstream).sum().backward()
    torch.testing.assert_close(inputs.grad, upstream)


def test_rotation_gradient_equals_the_explicit_matrix() -> None:
    inputs, quantized, upstream = torch.randn(3, 6, 5, dtype=torch.float64)
    gradient = gradient_of(rotate, inputs, quantized, upstream)
    for row in range(6):
        e, q = inputs[row], quantized[row]
        unit, aim = e / e.norm(), q / q.norm()
        r = (unit + aim) / (unit + aim).norm()
        matrix = (
            (torch.eye(5, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(aim, unit))
            * q.norm()
            / e.norm()
        )
        torch.testing.assert_close(matrix @ e, q)
        torch.testing.assert_close(gradient[row], matrix.T @ upstream[row])


def test_rotation_keeps_the_angle_between_gradient_and_vector() -> None:
    inputs, quantized, upstream = torch.randn(3, 6, 5)
    gradient = gradient_of(rotate, inputs, quantized, upstream)
    before = torch.cosine_similarity(upstream, quantized)
    torch.testing.assert_close(torch.cosine_similarity(gradient, inputs), before, atol=1e-5, rtol=1e-4)


def test_rotation_is_quantized_in_value_and_finite_where_undefined() -> None:
    inputs = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
    quantized = torch.tensor(
        [[-2.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.5, 3.0]]
    )  # opposite, zero input, zero code, usual
    torch.testing.assert_close(rotate(inputs, quantized), quantized)
    upstream = torch.ones(4, 2)
    gradient = gradient_of(rotate, inputs, quantized, upstream)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[:3], gradient_of(straight_through, inputs, quantized, upstream)[:3])


def test_ema_update_by_hand() -> None:
    quantizer = VectorQuantizer(2, 1, codebook_update="ema", ema_decay=0.9, restart_after=0)
    quantizer.codebook.data = torch.tensor([[0.0], [10.0]])
    quantizer.ema_counts.copy_(torch.tensor([2.0, 1.0]))
    quantizer.ema_sums.copy_(torch.tensor([[0.0], [10.0]]))
    output = quantizer(torch.tensor([[1.0], [2.0], [9.0]]))
    assert output.codes.tolist() == [0, 0, 1]
    assert output.vectors.flatten().tolist() == pytest.approx([0, 0, 10])  # coded before the update
    torch.testing.assert_close(quantizer.ema_counts, torch.tensor([0.9 * 2 + 0.1 * 2, 0.9 * 1 + 0.1 * 1]))
    torch.testing.assert_close(quantizer.ema_sums, torch.tensor([[0.1 * 3], [0.9 * 10 + 0.1 * 9]]))
    torch.testing.assert_close(quantizer.codebook.data, torch.tensor([[0.3 / 2.0], [9.9 / 1.0]]))
    before = quantizer.codebook.clone()
    quantizer.eval()(torch.tensor([[5.0]]))
    assert torch.equal(quantizer.codebook, before)


def test_ema_codes_take_no_gradient_and_have_no_codebook_loss() -> None:
    quantizer = VectorQuantizer(3, 2, codebook_update="ema", commitment_cost=0.5).eval()
    inputs = torch.randn(4, 2)
    assert not [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
    expected = 0.5 * (inputs - quantizer.codebook[quantizer.encode(inputs)]).square().sum(1).mean()
    torch.testing.assert_close(quantizer(inputs).loss, expected)


@pytest.mark.parametrize("codebook_update", ["gradient", "ema"])
def test_dead_codes_restart_at_inputs_and_live_ones_stay(codebook_update: Any) -> None:
    quantizer = VectorQuantizer(3, 2, codebook_update=codebook_update, restart_after=4, ema_decay=0.5)
    quantizer.codebook.data = torch.tensor([[0.0, 0.0], [99.0, 99.0], [-99.0, 99.0]])
    inputs = torch.tensor([[0.2, 0.1], [0.1, -0.3], [-0.3, 0.2]])
    for _ in range(3):
        quantizer(inputs)
    assert (quantizer.codebook[1:].abs() > 90).all()
    quantizer(inputs)
    for code in (1, 2):
        assert (quantizer.codebook[code] == inputs).all(1).any()
    assert (quantizer.idle_batches < 4).all()
    assert len(quantizer.encode(inputs).unique()) == 3


def test_restarts_can_be_turned_off() -> None:
    quantizer = VectorQuantizer(2, 1, restart_after=0)
    quantizer.codebook.data = torch.tensor([[0.0], [99.0]])
    for _ in range(50):
        quantizer(torch.zeros(3, 1))
    assert quantizer.codebook[1] == 99


@torch.no_grad()
def test_initialize_places_each_level_on_the_residuals_of_the_one_before() -> None:
    quantizer = make().eval()
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    errors = [float(points.square().sum())]
    quantizer.initialize(points)
    rest = points
    for level in quantizer.quantizers:
        codes = level.encode(rest)
        for code in codes.unique():  # centroids are means
            torch.testing.assert_close(level.codebook[code], rest[codes == code].mean(0), atol=2e-1, rtol=0)
        rest = rest - level.codebook[codes]
        errors.append(float(rest.square().sum()))
        assert len(codes.unique()) == 7
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2] > 1.3**3 * errors[3]


def test_initialize_with_fewer_points_than_codes() -> None:
    quantizer = make()
    quantizer.initialize(torch.randn(3, 4))
    assert quantizer.encode(torch.randn(9, 4)).max() < 7


def test_state_comes_back_from_a_checkpoint() -> None:
    quantizer, inputs = make(codebook_update="ema", restart_after=5), torch.randn(30, 4)
    for _ in range(3):
        quantizer(inputs)
    other = ResidualQuantizer(3, 7, 4, codebook_update="ema", restart_after=5)
    other.load_state_dict(quantizer.state_dict())
    torch.manual_seed(1)
    first = quantizer(inputs)
    quantizer(inputs)
    torch.manual_seed(1)
    assert torch.equal(other(inputs).codes, first.codes)
    other(inputs)
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_half_precision_regions_do_not_change_the_codes() -> None:
    quantizer, inputs = make().eval(), torch.randn(200, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(inputs).codes, quantizer.encode(inputs))
    assert torch.equal(quantizer(inputs).codes, quantizer.encode(inputs))


@pytest.mark.parametrize(
    "wrong", [{"codebook_update": "adam"}, {"gradient_estimator": "gumbel"}, {"ema_decay": 1.0}, {"num_quantizers": 0}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(GenrecError, match=next(iter(wrong))):
        make(**wrong)
