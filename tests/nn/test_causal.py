from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.nn.causal import CausalAttention, HSTUBlock, LiGRBlock, TransformerBlock, causal_attention
from genrec.nn.dropout import Dropout

WIDTH, HEADS, LENGTH, ROWS = 8, 2, 6, 3


def _block(name: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    if name == "hstu":
        block: nn.Module = HSTUBlock(WIDTH, HEADS, LENGTH, dropout)
        nn.init.normal_(block.distance_bias)  # pyright: ignore[reportArgumentType]
        return block
    return {"vanilla": TransformerBlock, "ligr": LiGRBlock}[name](WIDTH, HEADS, 16, dropout)


BLOCKS = ["vanilla", "ligr", "hstu"]


def _x(rows: int = ROWS, length: int = LENGTH) -> Tensor:
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(1))


def _plain_attention(query_key_value: Tensor) -> Tensor:
    query, key, value = query_key_value.permute(2, 0, 3, 1, 4)
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("length", "heads"), [(1, 1), (2, 2), (6, 1), (6, 4)])
def test_attention_and_its_gradient_equal_the_fused_kernel(length: int, heads: int) -> None:
    given = torch.randn(ROWS, length, 3, heads, WIDTH // heads, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(ROWS, length, WIDTH, dtype=torch.float64)
    results = []
    for out in (causal_attention(given, Dropout(0.0)), _plain_attention(given)):
        results.append((out, *torch.autograd.grad(out, given, upstream)))
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, atol=1e-10)


def test_dropout_of_attention_weights_has_the_gradient_of_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    dropout = Dropout(0.5)
    mask = (torch.rand(ROWS * HEADS, LENGTH, LENGTH, dtype=torch.float64) > 0.5) * 2.0
    monkeypatch.setattr(dropout, "forward", lambda x: x * mask)
    given = torch.randn(ROWS, LENGTH, 3, HEADS, WIDTH // HEADS, dtype=torch.float64, requires_grad=True)
    query, key, value = given.permute(2, 0, 3, 1, 4)
    scores = query @ key.mT / (WIDTH // HEADS) ** 0.5
    scores = scores.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf)
    plain = ((torch.softmax(scores, -1) * mask.view(ROWS, HEADS, LENGTH, LENGTH)) @ value).transpose(1, 2).flatten(2)
    ours = causal_attention(given, dropout)
    assert torch.allclose(ours, plain, atol=1e-10)
    upstream = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad(ours, given, upstream), torch.autograd.grad(plain, given, upstream), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-10)


def test_attention_equals_torch_multihead_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = CausalAttention(WIDTH, HEADS, 0.0), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.query_key_value.weight,
            "in_proj_bias": ours.query_key_value.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    x, future = _x(), torch.ones(LENGTH, LENGTH).triu(1).bool()
    assert torch.allclose(ours(x), theirs(x, x, x, attn_mask=future, need_weights=False)[0], atol=1e-5)


def test_transformer_block_equals_torch_pre_norm_layer() -> None:
    block = _block("vanilla")
    assert isinstance(block, TransformerBlock)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, 0.0, batch_first=True, norm_first=True).eval()
    names = {
        "self_attn.in_proj_": "attention.query_key_value.",
        "self_attn.out_proj.": "attention.output.",
        "linear1.": "input.",
        "linear2.": "output.",
        "norm1.": "attention_norm.",
        "norm2.": "feedforward_norm.",
    }
    ours = block.state_dict()
    layer.load_state_dict({a + end: ours[b + end] for a, b in names.items() for end in ("weight", "bias")})
    future = torch.ones(LENGTH, LENGTH).triu(1).bool()
    assert torch.allclose(block(_x()), layer(_x(), src_mask=future), atol=1e-5)


def test_ligr_block_by_its_formula() -> None:
    block = _block("ligr")
    assert isinstance(block, LiGRBlock)
    x = _x()
    y = x + block.attention(block.attention_norm(x)) * torch.sigmoid(block.attention_gate(x))
    normed = block.feedforward_norm(y)
    (gate, value), (gate_bias, value_bias) = block.input.weight.split(16), block.input.bias.split(16)
    swish = functional.silu(normed @ gate.T + gate_bias) * (normed @ value.T + value_bias)
    expected = y + block.output(swish) * torch.sigmoid(block.feedforward_gate(y))
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_hstu_block_by_its_formula() -> None:
    block = _block("hstu")
    assert isinstance(block, HSTUBlock)
    x = _x(rows=1)
    gate, value, query, key = functional.silu(block.input(block.norm(x)))[0].split(WIDTH, dim=-1)
    width, attended = WIDTH // HEADS, torch.zeros(LENGTH, WIDTH)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for i in range(LENGTH):
            for j in range(i + 1):
                score = query[i, part] @ key[j, part] + block.distance_bias[head, i - j]
                attended[i, part] += functional.silu(score) / LENGTH * value[j, part]
    expected = x + block.output(block.attended_norm(attended) * gate)
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_after_a_position_matters(name: str) -> None:
    block, x = _block(name), _x()
    changed = x.clone()
    changed[:, 4:] = 9.0
    assert torch.allclose(block(x)[:, :4], block(changed)[:, :4], atol=1e-5)
    assert torch.allclose(block(x)[:, :4], block(x[:, :4]), atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_earlier_position_and_every_parameter_matters(name: str) -> None:
    block, x = _block(name, dropout=0.2), _x().requires_grad_()
    block(x)[:, -1].square().sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_dropout_acts_in_training_only_and_follows_the_seed(name: str) -> None:
    block, x = _block(name, dropout=0.3), _x()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(block(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    block.eval()
    assert torch.equal(block(x), block(x))


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_autocast_stays_near(name: str) -> None:
    block, x = _block(name), _x().requires_grad_()
    expected = block(x)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    (given,) = torch.autograd.grad(out.float().square().sum(), x)
    assert torch.allclose(out.float(), expected, atol=0.05)
    assert torch.allclose(given, wanted, atol=0.05 * wanted.abs().max().item())
