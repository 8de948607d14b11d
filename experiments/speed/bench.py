"""How long does beam search over the catalogue take: genrec's against transformers' ``generate`` on the same weights?

    python experiments/speed/bench.py [--items 2000] [--users 32] [--beams 20] [--repeats 5] [--threads 1]

Both score with one T5 (weights copied), may only form semantic IDs of existing items, and return the same lists, which
is checked first. transformers is held to the catalogue by ``prefix_allowed_tokens_fn`` on a dictionary of prefixes. The
two are timed in turns, so that a busy machine slows both; printed are medians with the range, the ratio per turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from genrec.contracts import BOS_TOKEN, PAD_TOKEN, DataSpec, HistoryBatch
from genrec.models.tiger import Tiger
from genrec.semantic_ids import SemanticIds

LEVELS, CODES = 3, 64
DIM, LAYERS, HEADS, HEAD_DIM, FEEDFORWARD = 64, 2, 4, 16, 256
HISTORY = 10


def build_ours(num_items: int, num_beams: int, rng: np.random.Generator) -> tuple[Tiger, SemanticIds]:
    """A small TIGER over random unique semantic IDs; the softmax runs over all tokens, as in transformers."""
    chosen = rng.choice(CODES**LEVELS, size=num_items, replace=False)
    codes = np.stack(np.unravel_index(chosen, (CODES,) * LEVELS), axis=1).astype(np.int64)
    ids = SemanticIds(codes, (CODES,) * LEVELS, LEVELS)
    model = Tiger(
        DataSpec(num_users=1, num_items=num_items, semantic_ids=ids),
        embedding_dim=DIM,
        num_layers=LAYERS,
        num_decoder_layers=LAYERS,
        num_heads=HEADS,
        head_dim=HEAD_DIM,
        feedforward_dim=FEEDFORWARD,
        max_history=HISTORY,
        encoder="bidirectional",
        num_beams=num_beams,
        normalize="vocabulary",
    )
    return model.eval(), ids


def build_theirs(ours: Tiger, vocab_size: int) -> Any:
    """transformers' T5 with our weights."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": DIM,
        "d_kv": HEAD_DIM,
        "d_ff": FEEDFORWARD,
        "num_layers": LAYERS,
        "num_decoder_layers": LAYERS,
        "num_heads": HEADS,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "decoder_start_token_id": BOS_TOKEN,
        "pad_token_id": PAD_TOKEN,
        "eos_token_id": None,
    }
    model: Any = T5ForConditionalGeneration(T5Config(**settings)).eval()
    weights = ours.state_dict()
    renamed = {"shared.weight": weights["embedding.weight"]}
    for stack, kinds in (("encoder", ("SelfAttention",)), ("decoder", ("SelfAttention", "EncDecAttention"))):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        renamed[bias] = weights[f"{stack}.position_bias.weight"]
        renamed[f"{stack}.final_layer_norm.weight"] = weights[f"{stack}.norm.weight"]
        for block in range(LAYERS):
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
    missing = model.load_state_dict(renamed, strict=False).missing_keys
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    if set(missing) - tied:
        raise RuntimeError(f"weights without a counterpart: {sorted(set(missing) - tied)}")
    return model


def allowed_tokens(ids: SemanticIds) -> Callable[[int, Tensor], list[int]]:
    """The tokens that may follow a prefix, from a dictionary of all prefixes in the catalogue."""
    following: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for item in ids.tokens().tolist():
        for level, token in enumerate(item):
            following[tuple(item[:level])].add(token)
    lists = {prefix: sorted(tokens) for prefix, tokens in following.items()}
    # generate() also asks for prefixes that left the catalogue with probability zero; any token will do for them
    return lambda _, sentence: lists.get(tuple(sentence.tolist()[1:]), [PAD_TOKEN])


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("items", 2000), ("users", 32), ("beams", 20), ("repeats", 5), ("threads", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)

    ours, ids = build_ours(options.items, options.beams, rng)
    theirs, allowed = build_theirs(ours, ids.vocab_size), allowed_tokens(ids)
    items = torch.from_numpy(rng.integers(0, options.items, size=(options.users, HISTORY)))
    lengths = torch.full((options.users,), HISTORY)
    batch = HistoryBatch(torch.arange(options.users), items, lengths)
    tokens = torch.from_numpy(ids.tokens())[items].flatten(1)

    def search() -> Tensor:
        return ours.recommend(batch, options.beams).items

    @torch.no_grad()
    def generate() -> Tensor:
        sequences = theirs.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            num_beams=options.beams,
            num_return_sequences=options.beams,
            max_new_tokens=ids.num_levels,
            do_sample=False,
            prefix_allowed_tokens_fn=allowed,
        )
        codes = sequences[:, 1:].numpy() - np.asarray(ids.level_offsets)
        return torch.from_numpy(ids.items_of(codes)).view(options.users, options.beams)

    equal = float((search() == generate()).float().mean())  # also warms both up
    pairs = [(timed(search)[0], timed(generate)[0]) for _ in range(options.repeats)]
    lines = [
        f"{options.users} users, {options.items} items, {LEVELS} x {CODES} codes, {options.beams} beams, "
        f"{options.threads} thread(s), torch {torch.__version__}",
        f"places with the same item in both lists: {equal:.1%}",
        f"genrec        {spread([mine for mine, _ in pairs], ' s')}",
        f"transformers  {spread([other for _, other in pairs], ' s')}",
        f"ratio         {spread([other / mine for mine, other in pairs], ' x')}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if equal > 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())
