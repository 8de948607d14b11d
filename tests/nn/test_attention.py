from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

from genrec.nn.attention import (
    RecencyBias,
    RelativePositionBias,
    attend,
    group_causal_bias,
    key_padding_bias,
    relative_position_bucket,
)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20)])
def test_buckets_equal_those_of_transformers(bidirectional: bool, num_buckets: int, max_distance: int) -> None:
    relative = torch.arange(-300, 301)
    ours = relative_position_bucket(
        relative, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )
    theirs = T5Attention._relative_position_bucket(relative, bidirectional, num_buckets, max_distance)
    assert torch.equal(ours, theirs)


def test_buckets_known_answer() -> None:
    """Causal, 8 buckets: distances 0..3 exact, later keys in bucket 0."""
    bucket = relative_position_bucket(torch.arange(-3, 3), bidirectional=False, num_buckets=8, max_distance=16)
    assert bucket.tolist() == [3, 2, 1, 0, 0, 0]


def test_relative_position_sign_error() -> None:
    """A key before the query and one after it are told apart, on the sides where T5 has them."""
    before = relative_position_bucket(torch.tensor([-2]), bidirectional=True, num_buckets=32, max_distance=128)
    after = relative_position_bucket(torch.tensor([2]), bidirectional=True, num_buckets=32, max_distance=128)
    assert (before.item(), after.item()) == (2, 18)


def test_position_bias_of_late_queries_is_a_part_of_the_whole() -> None:
    bias = RelativePositionBias(3, bidirectional=False)
    torch.nn.init.normal_(bias.weight)
    assert torch.equal(bias(6, first_query=4), bias(6)[:, :, 4:])


def _inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Queries (2, 4, 3, 5) and keys and values (2, 6, 2, 3, 5) that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 4, 3, 5), (2, 6, 2, 3, 5)
    query, key_value = (torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes)
    return query, key_value


BIAS_SHAPES = [(1, 3, 4, 6), (2, 1, 1, 6), (1, 1, 4, 6), (2, 3, 4, 6)]


def _bias(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def _reference(query: Tensor, key_value: Tensor, bias: Tensor) -> Tensor:
    """One query of one head of one row at a time."""
    out = torch.zeros_like(query)
    bias = bias.expand(2, 3, 4, 6)
    for b, q, h in itertools.product(range(2), range(4), range(3)):
        scores = torch.stack([query[b, q, h] @ key_value[b, s, 0, h] + bias[b, h, q, s] for s in range(6)])
        weights = torch.exp(scores - scores.max())
        out[b, q, h] = weights / weights.sum() @ key_value[b, :, 1, h]
    return out.flatten(2)


@pytest.mark.parametrize("shape", BIAS_SHAPES)
def test_attend_equals_one_query_at_a_time(shape: tuple[int, ...]) -> None:
    query, key_value = _inputs()
    bias = _bias(shape)
    expected = _reference(query.detach(), key_value.detach(), bias)
    with torch.no_grad():
        torch.testing.assert_close(attend(query, key_value, bias), expected, rtol=1e-5, atol=1e-5)


def test_biases_hide_what_they_should() -> None:
    assert (key_padding_bias(torch.tensor([1, 3]), 3)[:, 0, 0] == 0).tolist() == [[True, False, False], [True] * 3]
    visible = group_causal_bias(torch.tensor([0, 1]), torch.tensor([0, 0, 1, 1]))[0, 0] == 0
    assert visible.tolist() == [[True, True, False, False], [True, True, True, True]]


def test_recency_bias_known_layout() -> None:
    bias = RecencyBias(num_heads=2, num_levels=2, max_distance=3)
    with torch.no_grad():
        bias.weight.copy_(torch.arange(3 * 2 * 2 * 2, dtype=torch.float32).view(3, 2, 2, 2))
    out = bias(torch.tensor([[[2, 1, 0], [7, 2, -1]]]))  # one row, two targets, three items
    assert out.shape == (1, 2, 2 * 2, 3 * 2)
    for target, distances in enumerate([[2, 1, 0], [2, 2, 0]]):  # beyond the last distance, and before the first
        for item, distance in enumerate(distances):
            block = out[0, :, target * 2 : target * 2 + 2, item * 2 : item * 2 + 2]
            torch.testing.assert_close(block, bias.weight[distance].permute(2, 0, 1))


def test_recency_bias_starts_with_heads_of_different_reach() -> None:
    bias = RecencyBias(num_heads=3, num_levels=1, max_distance=5)
    bias.reset_parameters()
    assert bias.weight[4, 0, 0].tolist() == [-4.0, -2.0, -1.0]
    assert bias.weight[0].abs().sum() == 0
