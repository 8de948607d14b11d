"""TIGER: recommend an item by generating its semantic ID, code by code.

Shapes: B rows, L items of history, T targets per row, C codes per item, S = L * C history tokens, K codes of a level,
D width, R scored targets. Source: Rajput et al. 2023 (arXiv 2305.05065), without the user token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import (
    BOS_TOKEN,
    IGNORE,
    PAD_TOKEN,
    DataSpec,
    GenrecError,
    HistoryBatch,
    Losses,
    Recommendations,
    SequenceBatch,
    Task,
)
from genrec.decoding.beam import beam_search
from genrec.decoding.trie import Trie
from genrec.nn.attention import RecencyBias, group_causal_bias, key_padding_bias
from genrec.nn.embedding import TokenEmbedding, code_centroids, prefix_tokens
from genrec.nn.transformer import Decoder, DecoderCache, Encoder, TransformerSize, initialise_t5


class Tiger(nn.Module):
    """A T5 encoder-decoder from the tokens of a history to the tokens of the next item.

    ``encoder="bidirectional"`` is the paper's: a history is encoded for one target. With ``"causal"`` tokens see
    their own and earlier items only, so that one pass over a sequence serves the targets at all of its positions.
    ``normalize`` is the set the softmax of a code runs over: the codes of its level, or the whole vocabulary as in T5.
    """

    view = "tokens"
    task = Task.RETRIEVAL

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: int = 128,
        num_layers: int = 2,
        num_decoder_layers: int = 2,
        num_heads: int = 4,
        head_dim: int = 32,
        feedforward_dim: int = 512,
        dropout: float = 0.2,
        attention_dropout: float = 0.0,
        max_history: int = 20,
        encoder: Literal["bidirectional", "causal"] = "causal",
        num_beams: int = 20,
        normalize: Literal["level", "vocabulary"] = "level",
        label_smoothing: float = 0.0,
        tie_embeddings: bool = False,
        init_std: float = 1.0,
        codebook_init: bool = True,
    ) -> None:
        super().__init__()
        if spec.semantic_ids is None:
            raise GenrecError("Tiger needs semantic IDs and none were given. Choose a tokenizer (tokenizer=rqkmeans).")
        _check_choice("encoder", encoder, ("bidirectional", "causal"))
        _check_choice("normalize", normalize, ("level", "vocabulary"))
        sizes = {
            "max_history": max_history,
            "num_beams": num_beams,
            "embedding_dim": embedding_dim,
            "num_layers": num_layers,
            "num_decoder_layers": num_decoder_layers,
            "num_heads": num_heads,
            "head_dim": head_dim,
            "feedforward_dim": feedforward_dim,
        }
        for name, value in (("dropout", dropout), ("attention_dropout", attention_dropout)):
            if not 0.0 <= value < 1.0:
                raise GenrecError(f"model.{name} must be at least 0 and below 1, got {value}.")
        for name, value in sizes.items():
            if value < 1:
                raise GenrecError(f"model.{name} must be at least 1, got {value}.")
        ids = spec.semantic_ids
        self.max_history = max_history
        self.training_mode = "windows" if encoder == "bidirectional" else "positions"
        self.causal = encoder == "causal"
        self.num_beams = num_beams
        self.normalize = normalize
        self.label_smoothing = label_smoothing
        self.num_levels = ids.num_levels
        self.levels = [(int(first), size) for first, size in zip(ids.level_offsets, ids.codebook_sizes, strict=True)]
        self.trie = Trie.from_codes(ids.codes, ids.codebook_sizes)
        tokens = torch.from_numpy(ids.tokens())
        padding = torch.full((1, self.num_levels), PAD_TOKEN)
        self.item_tokens: Tensor  # (N + 1, C); the last row stands for "no item"
        self.register_buffer("item_tokens", torch.cat([tokens, padding]), persistent=False)
        size = TransformerSize(
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            head_dim=head_dim,
            feedforward_dim=feedforward_dim,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )
        self.embedding = TokenEmbedding(ids.vocab_size, embedding_dim, tie=tie_embeddings)
        self.encoder = Encoder(size)
        self.decoder = Decoder(replace(size, num_layers=num_decoder_layers))
        self.recency = RecencyBias(num_heads, self.num_levels, max_history) if self.causal else None
        initialise_t5(self, size)
        self.embedding.reset_parameters(init_std)
        if codebook_init and spec.item_vectors is not None:
            centroids = code_centroids(ids.codes, ids.codebook_sizes, spec.item_vectors)
            self.embedding.start_from(centroids, [slice(first, first + count) for first, count in self.levels])

    def loss(self, batch: SequenceBatch) -> Losses:
        """Cross-entropy in nats, summed over the codes of an item and averaged over the scored targets."""
        scored = batch.targets != IGNORE
        count = int(scored.sum())
        if count == 0:
            return Losses(self.embedding.weight.sum() * 0.0, 0)
        if self.causal and batch.items.shape[1] <= self.max_history:
            hidden, items = self._hidden_of_positions(batch, scored)
        else:
            hidden, items = self._hidden_of_windows(batch, scored)
        tokens = self.item_tokens[items]
        losses = [self._level_loss(hidden[:, level], tokens[:, level], level) for level in range(self.num_levels)]
        parts = {f"loss_level_{level}": part.detach() for level, part in enumerate(losses)}
        return Losses(torch.stack(losses).sum(), count, parts)

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The best k items by beam search over the catalogue's semantic IDs; scores are log-probabilities."""
        self.trie = self.trie.to(self.item_tokens.device)
        with _evaluating(self):
            memory, lengths = self._encode(*self._recent(batch.items, batch.lengths))
            cache = self.decoder.start(memory, self._target_bias(lengths, memory.shape[1]))

            def step(level: int, previous_codes: Tensor | None, parents: Tensor | None) -> Tensor:
                return self._decode_step(level, previous_codes, parents, cache, len(lengths))

            found = beam_search(
                step,
                self.trie,
                batch_size=len(lengths),
                num_beams=max(self.num_beams, k),
                device=memory.device,
                seen=batch.seen,
            )
        return Recommendations(found.items[:, :k], found.scores[:, :k])

    def log_prob(self, batch: HistoryBatch, items: Tensor) -> Tensor:
        """Log-probabilities (B, T) of the given items (B, T) by teacher forcing: what beam search approximates."""
        memory, lengths = self._encode(*self._recent(batch.items, batch.lengths))
        hidden = self._decode(items, memory, self._target_bias(lengths, memory.shape[1], items.shape[1]))
        codes = self.item_tokens[items] - self.item_tokens.new_tensor([first for first, _ in self.levels])
        scores = [
            self._log_probs(hidden[:, :, level], level).gather(-1, codes[:, :, level, None]).squeeze(-1)
            for level in range(self.num_levels)
        ]
        return torch.stack(scores).sum(0)

    def _hidden_of_positions(self, batch: SequenceBatch, scored: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: the target after position t sees the items up to t. Returns (R, C, D) and the R items."""
        first = int(scored.any(0).int().argmax())  # positions before it are context for every row
        memory, _ = self._encode(batch.items, batch.lengths)
        targets, scored = batch.targets[:, first:], scored[:, first:]
        places = torch.arange(batch.items.shape[1], device=memory.device)
        positions = places.repeat_interleave(self.num_levels)
        bias = group_causal_bias(positions[first * self.num_levels :], positions)
        if self.recency is not None:
            bias = bias + self.recency((places[first:, None] - places)[None])
        hidden = self._decode(targets, memory, bias)
        if bool(scored.all()):
            return hidden.flatten(0, 1), targets.flatten()
        return hidden[scored], targets[scored]

    def _hidden_of_windows(self, batch: SequenceBatch, scored: Tensor) -> tuple[Tensor, Tensor]:
        """One history per target, nothing after it visible. Returns (R, C, D) and the R items."""
        rows, positions = scored.nonzero(as_tuple=True)
        memory, lengths = self._encode(*self._recent(batch.items[rows], positions + 1))
        items = batch.targets[rows, positions]
        return self._decode(items[:, None], memory, self._target_bias(lengths, memory.shape[1])).squeeze(1), items

    def _recent(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The last ``max_history`` items of each row, filled from the left, no wider than the longest."""
        kept = lengths.clamp(max=self.max_history)
        width = max(int(kept.max()), 1) if len(kept) else 1
        places = (lengths - kept)[:, None] + torch.arange(width, device=items.device)
        if items.shape[1] == 0:
            return items.new_zeros(len(items), 1), kept
        return items.gather(1, places.clamp(max=items.shape[1] - 1)), kept

    def _encode(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Items (B, L) to memory (B, S, D), and the number of items to attend to in each row."""
        positions = torch.arange(items.shape[1], device=items.device)
        empty = len(self.item_tokens) - 1
        tokens = self.item_tokens[torch.where(positions < lengths[:, None], items, empty)].flatten(1)
        lengths = lengths.clamp(min=1)  # without any history, one item of padding tokens is what there is to see
        groups = positions.repeat_interleave(self.num_levels)
        bias = group_causal_bias(groups, groups) if self.causal else self._history_bias(lengths, tokens.shape[1])
        return self.encoder(self.embedding(tokens), bias), lengths

    def _history_bias(self, lengths: Tensor, num_tokens: int) -> Tensor | None:
        """Hides the tokens beyond each history; None where all are equally long."""
        lengths = lengths * self.num_levels
        return None if bool((lengths == num_tokens).all()) else key_padding_bias(lengths, num_tokens)

    def _target_bias(self, lengths: Tensor, num_tokens: int, num_targets: int = 1) -> Tensor | None:
        """What targets that follow the whole history add to their scores of its tokens, (B, H, targets * C, S)."""
        hidden = self._history_bias(lengths, num_tokens)
        if self.recency is None:
            return hidden
        places = torch.arange(num_tokens // self.num_levels, device=lengths.device)
        recency = self.recency((lengths[:, None] - 1 - places)[:, None]).repeat(1, 1, num_targets, 1)
        return recency if hidden is None else recency + hidden

    def _decode(self, items: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """Teacher forcing of items (B, T): the hidden states (B, T, C, D) that predict each of their codes."""
        inputs = prefix_tokens(self.item_tokens[items.clamp(min=0)], BOS_TOKEN)
        return self.decoder(self.embedding(inputs), memory, bias)

    def _decode_step(
        self, level: int, previous_codes: Tensor | None, parents: Tensor | None, cache: DecoderCache, batch_size: int
    ) -> Tensor:
        """Log-probabilities (B, beams, K) of the codes of a level, the cache reordered by ``parents`` (B, beams)."""
        if previous_codes is None or parents is None:
            tokens = self.item_tokens.new_full((batch_size, 1), BOS_TOKEN)
        else:
            tokens = previous_codes + self.levels[level - 1][0]
            cache.reorder(parents)
        return self._log_probs(self.decoder.step(self.embedding(tokens), cache), level)

    def _log_probs(self, hidden: Tensor, level: int) -> Tensor:
        """(..., D) -> log-probabilities (..., K) of the codes of one level."""
        first, count = self.levels[level]
        if self.normalize == "level":
            return torch.log_softmax(self.embedding.logits(hidden, first, count), dim=-1)
        return torch.log_softmax(self.embedding.logits(hidden), dim=-1)[..., first : first + count]

    def _level_loss(self, hidden: Tensor, tokens: Tensor, level: int) -> Tensor:
        first, count = self.levels[level] if self.normalize == "level" else (0, None)
        logits = self.embedding.logits(hidden, first, count)
        return functional.cross_entropy(logits, tokens - first, label_smoothing=self.label_smoothing)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise GenrecError(f"model.{name} must be one of {', '.join(allowed)}; got {value!r}.")


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout for the moment, whatever mode the module is in."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
