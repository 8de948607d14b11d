"""Optimised product quantisation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genrec.nn.product_quantizer import balanced_directions, optimised_product_quantizer


def _points(num_points: int = 600, width: int = 12) -> Tensor:
    """Correlated points whose large variances lie in a few directions."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(3.0, 0.2, width)
    mixing = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return (torch.randn(num_points, width, generator=generator) * scales) @ mixing


def _error(points: Tensor, rebuilt: Tensor) -> float:
    return float((points - rebuilt).square().sum() / (points - points.mean(0)).square().sum())


def test_codes_are_the_nearest_of_each_subspace() -> None:
    points = _points()
    quantizer = optimised_product_quantizer(points, 4, 8)
    codes = quantizer.encode(points)
    rotated = (points @ quantizer.rotation).view(600, 4, 3)
    distances = (rotated[:, :, None] - quantizer.codebooks).square().sum(-1)
    assert torch.equal(codes, distances.argmin(-1))
    chosen = torch.stack([quantizer.codebooks[m, codes[:, m]] for m in range(4)], dim=1)
    torch.testing.assert_close(quantizer.decode(codes), chosen.flatten(1) @ quantizer.rotation.T)
    summed = sum(codebook[codes[:, m]] for m, codebook in enumerate(quantizer.codebooks_of_points()))
    torch.testing.assert_close(quantizer.decode(codes), summed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_subspaces", [1, 4, 5, 12, 20])
def test_rotation_keeps_distances_also_where_widths_do_not_divide(num_subspaces: int) -> None:
    quantizer = optimised_product_quantizer(_points(), num_subspaces, 4, max_iters=3)
    torch.testing.assert_close(quantizer.rotation @ quantizer.rotation.T, torch.eye(12), rtol=0, atol=1e-5)


def test_alternation_lowers_the_error_of_its_start() -> None:
    points = _points()
    errors = []
    for max_iters in (0, 2, 20):
        quantizer = optimised_product_quantizer(points, 4, 8, max_iters=max_iters)
        errors.append(_error(points, quantizer.decode(quantizer.encode(points))))
    assert errors[2] < errors[1] < errors[0]


def test_directions_are_dealt_out_by_variance() -> None:
    """Variances 64, 16, 4, 1 on two subspaces of two: 64 with 1, and 16 with 4."""
    basis = torch.eye(4)[[2, 0, 3, 1]]
    points = torch.cat([basis, -basis]) * torch.tensor([8.0, 4.0, 2.0, 1.0])[[2, 0, 3, 1]]
    rotation = balanced_directions(points, 2)
    place = rotation.abs().argmax(0).tolist()  # the axis in each place
    assert rotation.abs().sum() == pytest.approx(4.0, abs=1e-5)
    deviations = points.abs().amax(0)[place].view(2, 2)
    assert sorted(sorted(pair) for pair in deviations.tolist()) == [[1.0, 8.0], [2.0, 4.0]]


def test_same_seed_same_bits() -> None:
    first, second = (optimised_product_quantizer(_points(), 3, 8, seed=5) for _ in range(2))
    assert torch.equal(first.rotation, second.rotation) and torch.equal(first.codebooks, second.codebooks)


def test_no_worse_than_faiss() -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is an optional extra: pip install genrec[faiss]")
    points = _points(3000, 32)
    quantizer = optimised_product_quantizer(points, 8, 32)
    ours = _error(points, quantizer.decode(quantizer.encode(points)))
    rotation, product = faiss.OPQMatrix(32, 8), faiss.ProductQuantizer(32, 8, 5)
    rotation.pq = product
    array = np.ascontiguousarray(points.numpy())
    rotation.train(array)
    rotated = rotation.apply(array)
    product.train(rotated)
    theirs = _error(
        points, torch.from_numpy(rotation.reverse_transform(product.decode(product.compute_codes(rotated))))
    )
    assert ours < 1.02 * theirs


@pytest.mark.parametrize("num_points", [1, 3])
def test_fewer_points_than_codes(num_points: int) -> None:
    points = _points(num_points)
    quantizer = optimised_product_quantizer(points, 3, 5)
    torch.testing.assert_close(quantizer.decode(quantizer.encode(points)), points, rtol=1e-4, atol=1e-4)


def test_impossible_sizes_are_refused() -> None:
    for points, subspaces, size in (
        (torch.zeros(0, 3), 1, 2),
        (torch.zeros(3), 1, 2),
        (_points(), 0, 2),
        (_points(), 2, 0),
    ):
        with pytest.raises(ValueError, match="need points"):
            optimised_product_quantizer(points, subspaces, size)
