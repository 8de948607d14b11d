"""Element-wise steps on the bits of 16-bit floats."""

import pytest
import torch

from genrec.nn.half import keep_, pass_where_positive_, relu_

TYPES = [torch.bfloat16, torch.float16, torch.float32]


def _all_numbers(dtype: torch.dtype) -> torch.Tensor:
    """Every 16-bit float but nan and the denormals, which the processor may be told to take for zero."""
    kind = torch.bfloat16 if dtype == torch.float32 else dtype
    bits = torch.arange(-(2**15), 2**15)
    magnitudes = bits & 0x7FFF
    smallest = torch.tensor(torch.finfo(kind).tiny, dtype=kind).view(torch.int16)
    values = bits[(magnitudes == 0) | (magnitudes >= smallest)].to(torch.int16).view(kind).to(dtype)
    return values[~values.isnan()]


@pytest.mark.parametrize("dtype", TYPES)
def test_relu_of_every_number(dtype: torch.dtype) -> None:
    values = _all_numbers(dtype)
    assert torch.equal(relu_(values.clone()), torch.relu(values))


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_not_kept_is_zero(dtype: torch.dtype) -> None:
    values = _all_numbers(dtype)
    kept = torch.arange(len(values)) % 3 > 0
    mask = kept.to(dtype) if dtype == torch.float32 else -kept.to(torch.int16)
    finite = values.isfinite()  # a float mask makes nan of infinities
    assert torch.equal(keep_(values.clone(), mask)[finite], torch.where(kept, values, 0)[finite])


@pytest.mark.parametrize("dtype", TYPES)
def test_gradient_passes_where_positive(dtype: torch.dtype) -> None:
    values = relu_(_all_numbers(dtype))
    gradient = _all_numbers(dtype).flip(0)
    expected = torch.where(values > 0, gradient, 0)
    assert torch.equal(pass_where_positive_(gradient.clone(), values), expected)
