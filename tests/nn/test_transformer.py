from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from genrec.contracts import BOS_TOKEN, PAD_TOKEN
from genrec.nn.attention import Attention, key_padding_bias
from genrec.nn.embedding import TokenEmbedding, prefix_tokens
from genrec.nn.transformer import Decoder, Encoder, RMSNorm, TransformerSize, initialise_t5

SIZE = TransformerSize(embedding_dim=24, num_layers=3, num_heads=3, head_dim=8, feedforward_dim=40)
VOCAB = 50


class Ours(nn.Module):
    def __init__(self, size: TransformerSize = SIZE) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(VOCAB, size.embedding_dim)
        self.encoder, self.decoder = Encoder(size), Decoder(size)
        initialise_t5(self, size)

    def forward(self, tokens: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        bias = key_padding_bias(lengths, tokens.shape[1])
        memory = self.encoder(self.embedding(tokens), bias)
        inputs = self.embedding(prefix_tokens(target, BOS_TOKEN))
        return self.embedding.logits(self.decoder(inputs[:, None], memory, bias).squeeze(1))


def _theirs(size: TransformerSize = SIZE) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCAB,
        d_model=size.embedding_dim,
        d_kv=size.head_dim,
        d_ff=size.feedforward_dim,
        num_layers=size.num_layers,
        num_decoder_layers=size.num_layers,
        num_heads=size.num_heads,
        dropout_rate=0.0,
        feed_forward_proj="relu",
        pad_token_id=PAD_TOKEN,
    )
    config.tie_word_embeddings, config.decoder_start_token_id = True, BOS_TOKEN
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
            if "relative_attention_bias" in name:
                weight.normal_()
    return model


def _translated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their weights (or gradients) under our names."""
    out = {"embedding.weight": weights["shared.weight"]}
    for stack, cross in (("encoder", False), ("decoder", True)):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        out[f"{stack}.position_bias.weight"] = weights[bias]
        out[f"{stack}.norm.weight"] = weights[f"{stack}.final_layer_norm.weight"]
        for i in range(SIZE.num_layers):
            source, target = f"{stack}.block.{i}.layer", f"{stack}.blocks.{i}"
            parts = [("attention", "SelfAttention"), *([("cross", "EncDecAttention")] if cross else [])]
            for index, (name, kind) in enumerate(parts):
                q, k, v, o = (weights[f"{source}.{index}.{kind}.{letter}.weight"] for letter in "qkvo")
                out[f"{target}.{name}_norm.weight"] = weights[f"{source}.{index}.layer_norm.weight"]
                out[f"{target}.{name}.output.weight"] = o
                out[f"{target}.{name}.query.weight"] = q
                out[f"{target}.{name}.key_value.weight"] = torch.cat([k, v])
            last = len(parts)
            out[f"{target}.feedforward_norm.weight"] = weights[f"{source}.{last}.layer_norm.weight"]
            out[f"{target}.feedforward.input.weight"] = weights[f"{source}.{last}.DenseReluDense.wi.weight"]
            out[f"{target}.feedforward.output.weight"] = weights[f"{source}.{last}.DenseReluDense.wo.weight"]
    return out


@pytest.fixture
def pair() -> tuple[Ours, T5ForConditionalGeneration]:
    theirs, ours = _theirs(), Ours()
    ours.load_state_dict(_translated({name: weight.detach() for name, weight in theirs.named_parameters()}))
    return ours, theirs


def _inputs(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    lengths_ = torch.tensor(lengths)
    tokens = torch.randint(2, VOCAB, (len(lengths), max(lengths)))
    mask = torch.arange(tokens.shape[1]) < lengths_[:, None]
    return tokens.masked_fill(~mask, PAD_TOKEN), lengths_, mask, torch.randint(2, VOCAB, (len(lengths), 4))


@pytest.mark.parametrize("lengths", [[40, 40], [40, 12, 4]], ids=["full", "padded"])
def test_logits_equal_transformers_t5(pair: tuple[Ours, T5ForConditionalGeneration], lengths: list[int]) -> None:
    ours, theirs = pair
    tokens, lengths_, mask, target = _inputs(lengths)
    expected = theirs(input_ids=tokens, attention_mask=mask.long(), labels=target).logits
    actual = ours(tokens, lengths_, target)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5


def test_gradients_equal_transformers_t5(pair: tuple[Ours, T5ForConditionalGeneration]) -> None:
    ours, theirs = pair
    tokens, lengths, mask, target = _inputs([40, 12, 4])
    theirs(input_ids=tokens, attention_mask=mask.long(), labels=target).loss.backward()
    nn.functional.cross_entropy(ours(tokens, lengths, target).flatten(0, 1), target.flatten()).backward()
    expected = _translated({name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None})
    actual = {name: weight.grad for name, weight in ours.named_parameters()}
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-6)


def test_rms_norm_known_answer() -> None:
    norm = RMSNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0]))
    out = norm(torch.tensor([[3.0, 4.0]]))  # the root of the mean square is 5 / sqrt(2)
    torch.testing.assert_close(out, torch.tensor([[3.0, 8.0]]) * 2**0.5 / 5)


def test_targets_of_one_memory_do_not_see_each_other(pair: tuple[Ours, T5ForConditionalGeneration]) -> None:
    ours, _ = pair
    torch.manual_seed(2)
    x, memory = torch.randn(2, 3, 4, 24), torch.randn(2, 10, 24)
    together = ours.decoder(x, memory)
    for place in range(3):
        alone = ours.decoder(x[:, place : place + 1], memory)
        torch.testing.assert_close(together[:, place], alone[:, 0], rtol=1e-5, atol=1e-5)


def test_decoding_with_a_cache_equals_teacher_forcing(pair: tuple[Ours, T5ForConditionalGeneration]) -> None:
    """Three beams per row, reordered on the way: each ends as if its own tokens had been given at once."""
    ours, _ = pair
    torch.manual_seed(3)
    memory, bias = torch.randn(2, 12, 24), key_padding_bias(torch.tensor([12, 5]), 12)
    tokens = torch.randn(2, 3, 3, 24)  # (B, beams, C, D), the first token shared
    tokens[:, :, 0] = tokens[:, :1, 0]
    parents = torch.tensor([[2, 0, 1], [1, 1, 0]])
    cache = ours.decoder.start(memory, bias)
    ours.decoder.step(tokens[:, :1, 0], cache)
    cache.reorder(torch.zeros(2, 3, dtype=torch.long))
    ours.decoder.step(tokens[:, :, 1], cache)
    cache.reorder(parents)
    last = ours.decoder.step(tokens[:, :, 2], cache)
    second = tokens[:, :, 1].gather(1, parents[..., None].expand(-1, -1, 24))
    whole = ours.decoder(torch.stack([tokens[:, :, 0], second, tokens[:, :, 2]], dim=2), memory, bias)
    torch.testing.assert_close(last, whole[:, :, 2], rtol=1e-5, atol=1e-5)


def test_initial_scale_survives_the_stack() -> None:
    """T5's initialisation keeps attention scores and hidden states of the order of one."""
    torch.manual_seed(0)
    size = TransformerSize(embedding_dim=64, num_layers=2, num_heads=4, head_dim=16, feedforward_dim=128)
    model = Ours(size)
    attention = model.encoder.blocks[0].attention
    assert isinstance(attention, Attention)
    x = torch.randn(8, 10, 64)
    query, (key, value) = attention.queries(x), attention.keys_values(x).unbind(2)
    assert 0.7 < torch.einsum("bqhe,bshe->bhqs", query, key).std().item() < 1.4
    assert 0.7 < value.std().item() < 1.4
