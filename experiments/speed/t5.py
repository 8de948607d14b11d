"""transformers' T5 as TIGER: the same network, our weights where lists are compared, decoding held to the catalogue.

Shapes: B rows, L items, C codes per item, S = L * C tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from experiments.speed.measure import Work
from genrec.contracts import BOS_TOKEN, PAD_TOKEN
from genrec.models.tiger import Tiger
from genrec.semantic_ids import SemanticIds

PAPER: dict[str, Any] = {
    "embedding_dim": 128,
    "num_layers": 4,
    "num_decoder_layers": 4,
    "num_heads": 6,
    "head_dim": 64,
    "feedforward_dim": 1024,
    "dropout": 0.1,
    "max_history": 20,
}


def t5_config(vocab_size: int, size: dict[str, Any] = PAPER) -> T5Config:
    """The configuration of the paper's network; attention weights are dropped too, as T5 does."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": size["embedding_dim"],
        "d_kv": size["head_dim"],
        "d_ff": size["feedforward_dim"],
        "num_layers": size["num_layers"],
        "num_decoder_layers": size["num_decoder_layers"],
        "num_heads": size["num_heads"],
        "dropout_rate": size["dropout"],
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "decoder_start_token_id": BOS_TOKEN,
        "pad_token_id": PAD_TOKEN,
        "eos_token_id": None,
    }
    return T5Config(**settings)


def build_t5(vocab_size: int, size: dict[str, Any] = PAPER, kind: Any = T5ForConditionalGeneration) -> Any:
    """A network of class ``kind``, T5 or one that derives from it."""
    return kind(t5_config(vocab_size, size))


def copy_weights(ours: Tiger, theirs: Any) -> None:
    """Puts the weights of a Tiger with tied embeddings into a T5 of the same size."""
    weights = ours.state_dict()
    renamed = {"shared.weight": weights["embedding.weight"]}
    for stack, kinds in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        renamed[bias] = weights[f"{stack}.position_bias.weight"]
        renamed[f"{stack}.final_layer_norm.weight"] = weights[f"{stack}.norm.weight"]
        for block in range(len(getattr(ours, stack).blocks)):
            source, target = f"{stack}.blocks.{block}", f"{stack}.block.{block}.layer"
            for index, (name, kind) in enumerate(zip(("attention", "cross"), kinds, strict=False)):
                key, value = weights[f"{source}.{name}.key_value.weight"].chunk(2)
                query, output = (weights[f"{source}.{name}.{part}.weight"] for part in ("query", "output"))
                for letter, weight in zip("qkvo", (query, key, value, output), strict=True):
                    renamed[f"{target}.{index}.{kind}.{letter}.weight"] = weight
                renamed[f"{target}.{index}.layer_norm.weight"] = weights[f"{source}.{name}_norm.weight"]
            last = len(kinds)
            renamed[f"{target}.{last}.layer_norm.weight"] = weights[f"{source}.feedforward_norm.weight"]
            renamed[f"{target}.{last}.DenseReluDense.wi.weight"] = weights[f"{source}.feedforward.input.weight"]
            renamed[f"{target}.{last}.DenseReluDense.wo.weight"] = weights[f"{source}.feedforward.output.weight"]
    missing = theirs.load_state_dict(renamed, strict=False).missing_keys
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if set(missing) - tied:
        raise RuntimeError(f"weights without a counterpart: {sorted(set(missing) - tied)}")


def prefix_lists(ids: SemanticIds) -> dict[tuple[int, ...], list[int]]:
    """The tokens that may follow each prefix in the catalogue."""
    following: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for item in ids.tokens().tolist():
        for level, token in enumerate(item):
            following[tuple(item[:level])].add(token)
    return {prefix: sorted(tokens) for prefix, tokens in following.items()}


class Generate:
    """``generate`` over the catalogue for histories of tokens (B, S); ``items`` are those of the last call (B, k)."""

    def __init__(self, model: Any, ids: SemanticIds, lists: dict[tuple[int, ...], list[int]], beams: int) -> None:
        self.model, self.ids, self.beams = model.eval(), ids, beams
        # generate() also asks for prefixes that left the catalogue with probability zero; any token will do for them
        self.allowed: Callable[[int, Tensor], list[int]] = lambda _, sentence: lists.get(
            tuple(sentence.tolist()[1:]), [PAD_TOKEN]
        )
        self.items: np.ndarray = np.empty(0)

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, mask: Tensor) -> Work:
        sequences = self.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            num_beams=self.beams,
            num_return_sequences=self.beams,
            max_new_tokens=self.ids.num_levels,
            do_sample=False,
            use_cache=True,
            prefix_allowed_tokens_fn=self.allowed,
        )
        codes = sequences[:, 1:].numpy() - np.asarray(self.ids.level_offsets)
        self.items = self.ids.items_of(codes).reshape(len(tokens), self.beams)
        return Work(len(tokens))
