from __future__ import annotations

import torch
from torch import Tensor

from genrec.nn.attention import key_padding_bias
from genrec.nn.transformer import CausalStack, Decoder, TransformerSize, initialise_t5

SIZE = TransformerSize(embedding_dim=12, num_layers=2, num_heads=2, head_dim=4, feedforward_dim=20)
PARENTS = [torch.tensor([[0, 0, 0], [0, 0, 0]]), torch.tensor([[2, 0, 1], [1, 1, 0]]), torch.tensor([[1, 1], [0, 2]])]


def _decoder() -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(SIZE)
    initialise_t5(decoder, SIZE)
    return decoder


def _grow(first: Tensor, later: list[Tensor]) -> Tensor:
    """The tokens (B, W, P, D) of the paths of the last beams, put together the slow way."""
    paths = first[:, :, None]
    for tokens, parents in zip(later, PARENTS, strict=False):
        chosen = torch.stack([paths[row, parent] for row, parent in enumerate(parents)])
        paths = torch.cat([chosen, tokens[:, :, None]], dim=2)
    return paths


@torch.no_grad()
def test_each_beam_of_a_decoder_ends_as_if_its_tokens_had_been_given_at_once() -> None:
    decoder = _decoder()
    memory, bias = torch.randn(2, 7, 12), key_padding_bias(torch.tensor([7, 3]), 7)
    first, later = torch.randn(2, 1, 12), [torch.randn(2, len(parents[0]), 12) for parents in PARENTS]
    cache = decoder.start(memory, bias)
    out = decoder.step(first, cache)
    for tokens, parents in zip(later, PARENTS, strict=True):
        cache.reorder(parents)
        out = decoder.step(tokens, cache)
    whole = decoder(_grow(first, later), memory, bias)
    torch.testing.assert_close(out, whole[:, :, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_each_beam_continues_the_history_that_the_stack_has_read() -> None:
    """Histories of unequal length, filled up on the right."""
    torch.manual_seed(0)
    stack = CausalStack(SIZE)
    initialise_t5(stack, SIZE)
    lengths, history = torch.tensor([6, 2]), torch.randn(2, 6, 12)
    later = [torch.randn(2, len(parents[0]), 12) for parents in PARENTS]
    last, cache = stack.start(history, lengths)
    out = last
    for tokens, parents in zip(later, PARENTS, strict=True):
        cache.reorder(parents)
        out = stack.step(tokens, cache)
    paths = _grow(torch.zeros(2, 1, 12), later)[:, :, 1:]
    for row, length in enumerate(lengths.tolist()):
        whole = stack(history[row : row + 1, :length])
        torch.testing.assert_close(last[row], whole[0, -1], rtol=1e-5, atol=1e-5)
        for beam in range(2):
            whole = stack(torch.cat([history[row, :length], paths[row, beam]])[None])
            torch.testing.assert_close(out[row, beam], whole[0, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_keys_and_values_of_a_history_are_held_once_per_row() -> None:
    decoder = _decoder()
    cache = decoder.start(torch.randn(2, 7, 12), None)
    decoder.step(torch.randn(2, 1, 12), cache)
    cache.reorder(torch.zeros(2, 5, dtype=torch.long))
    decoder.step(torch.randn(2, 5, 12), cache)
    cache.reorder(torch.zeros(2, 3, dtype=torch.long))
    decoder.step(torch.randn(2, 3, 12), cache)
    for layer in cache.layers:
        assert layer.memory is not None
        assert [part.shape for part in layer.memory] == [(2, 7 * 2, 12)] * 2
        assert layer.keys is not None and layer.keys.shape == (2 * 2, 1 + 5, 4)
        assert layer.num_values == 2 * (1 + 5 + 3)


@torch.no_grad()
def test_half_precision_stays_close() -> None:
    decoder = _decoder()
    memory, token = torch.randn(2, 7, 12), torch.randn(2, 1, 12)
    exact = decoder.step(token, decoder.start(memory, None))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = decoder.start(memory, None)
        rough = decoder.step(token, cache)
    assert cache.layers[0].memory is not None and cache.layers[0].memory[0].dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


@torch.no_grad()
def test_decoding_follows_changed_weights() -> None:
    decoder = _decoder()
    memory, token = torch.randn(2, 7, 12), torch.randn(2, 1, 12)
    before = decoder.step(token, decoder.start(memory, None))
    for change in (lambda p: p.mul_(1.5), lambda p: setattr(p, "data", p.data * 2)):
        for weights in decoder.parameters():
            change(weights)
        after = decoder.step(token, decoder.start(memory, None))
        whole = decoder(token[:, :, None], memory)[:, :, 0]
        torch.testing.assert_close(after, whole, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(after, before)


@torch.no_grad()
def test_a_bias_per_token_of_the_target_reaches_each_step() -> None:
    decoder = _decoder()
    memory, bias = torch.randn(2, 7, 12), torch.randn(2, 2, 4, 7)
    first, later = torch.randn(2, 1, 12), [torch.randn(2, len(parents[0]), 12) for parents in PARENTS]
    cache = decoder.start(memory, bias)
    out = decoder.step(first, cache)
    for tokens, parents in zip(later, PARENTS, strict=True):
        cache.reorder(parents)
        out = decoder.step(tokens, cache)
    paths = _grow(first, later)  # (B, W, C, D)
    whole = decoder(paths, memory, bias.repeat(1, 1, paths.shape[1], 1))
    torch.testing.assert_close(out, whole[:, :, -1], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_tokens_given_are_left_as_they_are() -> None:
    decoder, token = _decoder(), torch.randn(2, 1, 12)
    before = token.clone()
    decoder.step(token, decoder.start(torch.randn(2, 7, 12), None))
    assert torch.equal(token, before)
