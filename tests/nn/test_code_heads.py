"""Heads that predict all digits of an ID at once."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from genrec.nn import code_heads
from genrec.nn.code_heads import CodeHeads

NUM_LEVELS, NUM_CODES, WIDTH, NUM_STATES = 5, 7, 6, 11


def _heads(unused: Tensor | None = None) -> tuple[CodeHeads, Tensor, Tensor, Tensor]:
    """Heads in double precision with weights that matter, hidden states, code vectors and the codes that are right."""
    torch.manual_seed(0)
    heads = CodeHeads(NUM_LEVELS, WIDTH, temperature=0.3, unused=unused).double()
    torch.nn.init.normal_(heads.weight)
    torch.nn.init.normal_(heads.bias)
    hidden = torch.randn(NUM_STATES, WIDTH, dtype=torch.float64, requires_grad=True)
    table = torch.randn(NUM_LEVELS, NUM_CODES, WIDTH, dtype=torch.float64, requires_grad=True)
    return heads, hidden, table, torch.randint(NUM_CODES - 2, (NUM_LEVELS, NUM_STATES))


def _reference(heads: CodeHeads, hidden: Tensor, table: Tensor) -> Tensor:
    """Digit by digit, as the paper writes it."""
    biases = heads.bias.view(NUM_LEVELS, WIDTH)
    digits = []
    for level in range(NUM_LEVELS):
        state = hidden + functional.silu(functional.linear(hidden, heads.weight[level], biases[level]))
        cosines = functional.cosine_similarity(state[:, None], table[level][None], dim=-1)
        digits.append(torch.log_softmax(cosines / 0.3, dim=-1))
    return torch.stack(digits)


def test_log_probs_equal_the_reference() -> None:
    heads, hidden, table, _ = _heads()
    torch.testing.assert_close(heads.log_probs(hidden, table), _reference(heads, hidden, table))


@pytest.mark.parametrize("chunk", [1, 2 * NUM_STATES * NUM_CODES, 1 << 20])
@pytest.mark.parametrize("unequal", [False, True])
def test_loss_and_gradients_equal_those_of_autograd(monkeypatch: pytest.MonkeyPatch, chunk: int, unequal: bool) -> None:
    monkeypatch.setattr(code_heads, "_CHUNK", chunk)  # one digit at a time, two (the last chunk is short), all
    unused = torch.zeros(NUM_LEVELS, NUM_CODES, dtype=torch.bool)
    unused[1, -2:] = unequal
    heads, hidden, table, codes = _heads(unused if unequal else None)
    inputs = [hidden, table, heads.weight, heads.bias]
    loss = heads.loss(hidden, table, codes)
    expected = -heads.log_probs(hidden, table).gather(2, codes[:, :, None]).mean()
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(3 * value, inputs) for value in (loss, expected))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference)
    with torch.no_grad():
        torch.testing.assert_close(heads.loss(hidden, table, codes), expected)


def test_codes_that_are_none_have_no_probability() -> None:
    unused = torch.zeros(NUM_LEVELS, NUM_CODES, dtype=torch.bool)
    unused[3, 4:] = True
    heads, hidden, table, _ = _heads(unused)
    probabilities = heads.log_probs(hidden, table).exp()
    assert (probabilities[3, :, 4:] == 0).all() and (probabilities[2] > 0).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(NUM_LEVELS, NUM_STATES, dtype=torch.float64))


def test_bfloat16_trains_with_gradients_in_full_precision() -> None:
    heads, hidden, table, codes = _heads()
    heads, hidden, table = heads.float(), hidden.detach().float(), table.detach().float()
    hidden.requires_grad_()
    table.requires_grad_()
    exact = heads.loss(hidden, table, codes)
    gradients = torch.autograd.grad(exact, [hidden, table, heads.weight])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = heads.loss(hidden.bfloat16(), table, codes)
        low = torch.autograd.grad(loss, [table, heads.weight])
    assert loss.dtype == low[0].dtype == low[1].dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    for mine, reference in zip(low, gradients[1:], strict=True):
        assert functional.cosine_similarity(mine.flatten(), reference.flatten(), dim=0) > 0.99


def test_starts_as_the_identity() -> None:
    heads = CodeHeads(2, WIDTH, temperature=1.0)
    hidden = torch.randn(3, WIDTH)
    table = hidden[None].repeat(2, 1, 1)  # code i lies where state i is
    assert torch.equal(heads.log_probs(hidden, table).argmax(-1), torch.arange(3).expand(2, -1))
