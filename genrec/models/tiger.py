"""TIGER: recommend an item by generating its semantic ID, code by code.

Shapes: B rows, L items of history, T targets per row, C codes per item, S = L * C history tokens, K codes of a level,
D width, R scored targets. Source: Rajput et al. 2023 (arXiv 2305.05065), without the user token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Positive, Rate, check_arguments
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
from genrec.decoding import sampling
from genrec.decoding.beam import Step, TreeStep, beam_search, tree_search
from genrec.decoding.slices import in_slices
from genrec.decoding.trie import Trie
from genrec.models.node_vectors import NodeVectors
from genrec.models.text import text_features
from genrec.nn.attention import RecencyBias, group_causal_bias, key_padding_bias
from genrec.nn.embedding import TokenEmbedding, code_centroids, prefix_tokens
from genrec.nn.serving import evaluating, recent
from genrec.nn.transformer import CausalStack, Decoder, Encoder, TransformerSize, initialise_t5
from genrec.nn.tree import child_logits, logits_of_children


class Tiger(nn.Module):
    """A T5 encoder-decoder from the tokens of a history to the tokens of the next item.

    ``encoder="bidirectional"`` is the paper's: a history is encoded for one target. With ``"causal"`` tokens see
    their own and earlier items only, so that one pass over a sequence serves the targets at all of its positions.
    ``"none"`` has a decoder only, of ``num_decoder_layers``: each token sees those before it, history and target alike.
    ``normalize`` is the set the softmax of a code runs over: the codes of its level, the whole vocabulary as in T5, or
    those codes that continue the prefix in the catalogue, so that the probabilities of all items sum to one.
    Beyond the paper, ``item_embedding`` adds a vector of its own to each item of the history and ``text`` a projection
    of its item vector: to all of its tokens or, without an encoder, to the last, so that no code can be read off before
    its turn. Targets are always codes alone. With ``score_items`` a code that continues a prefix is scored by the items
    it leads to as well: its logit has the product of the hidden state with the sum of their vectors, so that what
    histories teach about an item helps to generate it, and the other way round (see ``TigerItem``).
    """

    view = "tokens"
    task = Task.RETRIEVAL
    item_vectors_option = "text"  # the key of the config that asks for item vectors

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 128,
        num_layers: Count = 2,
        num_decoder_layers: Count = 2,
        num_heads: Count = 4,
        head_dim: Count = 32,
        feedforward_dim: Count = 512,
        dropout: Rate = 0.2,
        attention_dropout: Rate = 0.0,
        max_history: Count = 20,
        encoder: Literal["bidirectional", "causal", "none"] = "causal",
        num_beams: Count = 20,
        normalize: Literal["level", "vocabulary", "catalogue"] = "level",
        label_smoothing: Rate = 0.0,
        tie_embeddings: bool = False,
        init_std: Positive = 1.0,
        codebook_init: bool = True,
        item_embedding: bool = False,
        text: bool = False,
        score_items: bool = False,
    ) -> None:
        check_arguments(Tiger.__init__, locals(), "model")
        super().__init__()
        if spec.semantic_ids is None:
            raise GenrecError("Tiger needs semantic IDs and none were given. Choose a tokenizer (tokenizer=rqkmeans).")
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
        self.encoder = Encoder(size) if encoder != "none" else None
        size_of_decoder = replace(size, num_layers=num_decoder_layers)
        self.decoder = Decoder(size_of_decoder) if encoder != "none" else CausalStack(size_of_decoder)
        self.recency = RecencyBias(num_heads, self.num_levels, max_history) if self.causal else None
        initialise_t5(self, size)
        self.embedding.reset_parameters(init_std)
        self.items = nn.Embedding(ids.num_items, embedding_dim) if item_embedding else None
        if self.items is not None:
            nn.init.normal_(self.items.weight, std=0.1 * init_std)
        self.text: nn.Linear | None = None
        if text:
            self.vectors: Tensor  # (N, F)
            self.register_buffer("vectors", text_features(spec), persistent=False)
            self.text = nn.Linear(self.vectors.shape[1], embedding_dim, bias=False)
            nn.init.normal_(self.text.weight, std=init_std * self.vectors.shape[1] ** -0.5)
        self.tree: NodeVectors | None = None
        if score_items:
            if normalize != "catalogue" or not (item_embedding or text):
                raise GenrecError(
                    "model.score_items=true scores the codes that continue a prefix by the items they lead to. It "
                    f"needs model.normalize=catalogue (it is {normalize}) and vectors of items: "
                    "model.item_embedding=true, model.text=true or both."
                )
            self.tree = NodeVectors(self.trie)
            self.node_biases = nn.ParameterList(nn.Parameter(torch.zeros(count)) for count in self.trie.num_nodes)
        if codebook_init and spec.item_vectors is not None:
            centroids = code_centroids(ids.codes, ids.codebook_sizes, spec.item_vectors)
            self.embedding.start_from(centroids, [slice(first, first + count) for first, count in self.levels])

    def loss(self, batch: SequenceBatch) -> Losses:
        """Cross-entropy in nats, summed over the codes of an item and averaged over the scored targets."""
        scored = batch.targets != IGNORE
        count = int(scored.sum())
        if count == 0:
            return Losses(self.embedding.weight.sum() * 0.0, 0)
        whole = batch.items.shape[1] <= self.max_history
        if self.causal and whole:
            hidden, items = self._hidden_of_positions(batch, scored)
        elif self.encoder is None and whole and _continues(batch, scored):
            hidden, items = self._hidden_of_sequences(batch, scored)
        else:
            hidden, items = self._hidden_of_windows(batch, scored)
        tokens = self.item_tokens[items]
        if self.normalize == "catalogue":
            self.trie = self.trie.to(items.device)
            path = self.trie.path_of(items)
            nodes = None if self.tree is None else self.tree(self._leaves())
            levels = [self._path_log_probs(hidden[:, level], path, level, nodes) for level in range(self.num_levels)]
            losses = [self._smoothed(*found) for found in levels]
        else:
            losses = [self._level_loss(hidden[:, level], tokens[:, level], level) for level in range(self.num_levels)]
        parts = {f"loss_level_{level}": part.detach() for level, part in enumerate(losses)}
        return Losses(torch.stack(losses).sum(), count, parts)

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The best k items by beam search over the catalogue's semantic IDs; scores are log-probabilities."""
        self.trie = self.trie.to(self.item_tokens.device)
        num_beams = max(self.num_beams, k)

        def search(part: HistoryBatch) -> Recommendations:
            where = {"batch_size": len(part.lengths), "num_beams": num_beams, "device": self.item_tokens.device}
            if self.normalize == "catalogue":
                return tree_search(self._tree_step(part), self.trie, **where, seen=part.seen)
            return beam_search(self._step(part), self.trie, **where, seen=part.seen)

        with evaluating(self):
            found = in_slices(search, batch, num_beams)
        return Recommendations(found.items[:, :k], found.scores[:, :k])

    @torch.no_grad()
    def sample(
        self,
        batch: HistoryBatch,
        num_samples: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Recommendations:
        """Next items (B, S) drawn code by code inside the catalogue, with the log-probability of each draw."""
        self.trie = self.trie.to(self.item_tokens.device)
        options = {"num_samples": num_samples, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        where = {"batch_size": len(batch.lengths), "device": self.item_tokens.device}
        with evaluating(self):
            if self.normalize == "catalogue":
                step = self._tree_step(batch)
                return sampling.sample_tree(step, self.trie, **where, **options, seen=batch.seen, generator=generator)
            return sampling.sample(
                self._step(batch), self.trie, **where, **options, seen=batch.seen, generator=generator
            )

    def log_prob(self, batch: HistoryBatch, items: Tensor) -> Tensor:
        """Log-probabilities (B, T) of the given items (B, T) by teacher forcing: what beam search approximates."""
        history, lengths = self._recent(batch.items, batch.lengths)
        if isinstance(self.decoder, CausalStack):
            rows = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
            hidden = self._hidden_after(history[rows], lengths[rows], items.flatten())
            hidden = hidden.view(*items.shape, self.num_levels, -1)
        else:
            memory, lengths = self._encode(history, lengths)
            hidden = self._decode(items, memory, self._target_bias(lengths, memory.shape[1], items.shape[1]))
        if self.normalize == "catalogue":
            self.trie = self.trie.to(items.device)
            path = self.trie.path_of(items)
            nodes = None if self.tree is None else self.tree(self._leaves())
            levels = [self._path_log_probs(hidden[:, :, level], path, level, nodes) for level in range(self.num_levels)]
            return torch.stack([_chosen(log_probs, place) for log_probs, place, _ in levels]).sum(0)
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
        items = batch.targets[rows, positions]
        if self.encoder is None:
            return self._hidden_after(*self._recent(batch.items[rows], positions + 1), items), items
        memory, lengths = self._encode(*self._recent(batch.items[rows], positions + 1))
        return self._decode(items[:, None], memory, self._target_bias(lengths, memory.shape[1])).squeeze(1), items

    def _hidden_of_sequences(self, batch: SequenceBatch, scored: Tensor) -> tuple[Tensor, Tensor]:
        """One pass of the decoder alone over the items and the last target. Returns (R, C, D) and the R items."""
        rows = torch.arange(len(batch.items), device=batch.items.device)
        last = (batch.lengths - 1).clamp(min=0)
        items = functional.pad(batch.items, (0, 1))
        items[rows, batch.lengths] = batch.targets[rows, last].clamp(min=0)
        hidden = self._read(items)[:, 1:]
        if bool(scored.all()):
            return hidden.flatten(0, 1), batch.targets.flatten()
        return hidden[scored], batch.targets[scored]

    def _hidden_after(self, items: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """The decoder alone over histories (R, L), each followed by one target (R,): (R, C, D) of the targets."""
        rows = torch.arange(len(items), device=items.device)
        items = functional.pad(items, (0, 1))
        items[rows, lengths] = targets
        return self._read(items)[rows, lengths]

    def _read(self, items: Tensor) -> Tensor:
        """Items (B, L) through the decoder alone: the hidden states (B, L, C, D) that predict each of their codes."""
        assert isinstance(self.decoder, CausalStack)
        inputs = prefix_tokens(self.item_tokens[items].flatten(1), BOS_TOKEN)
        inputs = self._with_items_read(self.embedding(inputs), items)
        return self.decoder(inputs).unflatten(1, (-1, self.num_levels))

    def _recent(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return recent(items, lengths, self.max_history)

    def _encode(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Items (B, L) to memory (B, S, D), and the number of items to attend to in each row."""
        positions = torch.arange(items.shape[1], device=items.device)
        empty = len(self.item_tokens) - 1
        inside = positions < lengths[:, None]
        tokens = self.item_tokens[torch.where(inside, items, empty)].flatten(1)
        lengths = lengths.clamp(min=1)  # without any history, one item of padding tokens is what there is to see
        groups = positions.repeat_interleave(self.num_levels)
        bias = group_causal_bias(groups, groups) if self.causal else self._history_bias(lengths, tokens.shape[1])
        assert self.encoder is not None
        x = self.embedding(tokens)
        vectors = self._vectors(items)
        if vectors is not None:
            x = x + (vectors * inside[..., None]).repeat_interleave(self.num_levels, dim=1)
        return self.encoder(x, bias), lengths

    def _vectors(self, items: Tensor) -> Tensor | None:
        """(B, L, D) what items bring to a history beside their codes; None if nothing."""
        vectors = None if self.items is None else self.items(items)
        if self.text is not None:
            told = self.text(self.vectors[items])
            vectors = told if vectors is None else vectors + told
        return vectors

    def _leaves(self) -> Tensor:
        """(N, D) what all items bring, in the order of the trie's leaves."""
        assert self.tree is not None
        vectors = self._vectors(self.tree.item_of_leaf)
        assert vectors is not None
        return vectors.float()

    def _with_items_read(self, x: Tensor, items: Tensor) -> Tensor:
        """Inputs of the decoder alone (B, 1 + tokens, D), each item (B, L) added where its last code is read."""
        vectors = self._vectors(items)
        if vectors is None:
            return x
        ends = torch.arange(self.num_levels, x.shape[1], self.num_levels, device=x.device)
        return x.index_add(1, ends, vectors[:, : len(ends)].to(x.dtype))

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

    def _step(self, batch: HistoryBatch) -> Step:
        """Reads histories; what it returns gives log-probabilities (B, W, K) of the codes of a level."""
        hidden_of = self._beginning(*self._recent(batch.items, batch.lengths))
        return lambda level, codes, parents: self._log_probs(hidden_of(level, codes, parents), level)

    def _tree_step(self, batch: HistoryBatch) -> TreeStep:
        """Reads histories; what it returns gives log-probabilities (B, W, F) of the children of nodes."""
        hidden_of = self._beginning(*self._recent(batch.items, batch.lengths))
        tables = None
        if self.tree is not None:
            weights = [
                None if self.items is None else self.items.weight,
                None if self.text is None else self.text.weight,
            ]
            tables = self.tree.kept(self._leaves, [weight for weight in weights if weight is not None])

        def step(level: int, nodes: Tensor, parents: Tensor | None) -> Tensor:
            codes = None if parents is None else self.trie.codes[level - 1][nodes].long()
            hidden = hidden_of(level, codes, parents)
            return self._child_log_probs(hidden, nodes.expand(hidden.shape[:-1]), level, tables)[0]

        return step

    def _beginning(self, items: Tensor, lengths: Tensor) -> Callable[[int, Tensor | None, Tensor | None], Tensor]:
        """Reads histories (B, L); what it returns gives the hidden states (B, W, D) that predict a level's codes."""
        first: Tensor | None = None
        if isinstance(self.decoder, CausalStack):
            tokens = self.item_tokens[items].flatten(1)
            tokens = functional.pad(tokens, (1, 0), value=BOS_TOKEN)
            x = self._with_items_read(self.embedding(tokens), items)
            first, cache = self.decoder.start(x, 1 + lengths * self.num_levels)
        else:
            memory, lengths = self._encode(items, lengths)
            cache = self.decoder.start(memory, self._target_bias(lengths, memory.shape[1]))

        def step(level: int, previous_codes: Tensor | None, parents: Tensor | None) -> Tensor:
            if previous_codes is None or parents is None:
                if first is not None:
                    return first[:, None]
                tokens = self.item_tokens.new_full((len(lengths), 1), BOS_TOKEN)
            else:
                tokens = previous_codes + self.levels[level - 1][0]
                cache.reorder(parents)
            return self.decoder.step(self.embedding(tokens), cache)

        return step

    def _log_probs(self, hidden: Tensor, level: int) -> Tensor:
        """(..., D) -> log-probabilities (..., K) of the codes of one level."""
        first, count = self.levels[level]
        if self.normalize == "level":
            return torch.log_softmax(self.embedding.logits(hidden, first, count), dim=-1)
        return torch.log_softmax(self.embedding.logits(hidden), dim=-1)[..., first : first + count]

    def _path_log_probs(
        self, hidden: Tensor, path: list[Tensor], level: int, tables: list[Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of the codes that continue a prefix: log-probabilities (..., F), the place (...) of the one on the path, and
        which of the F places hold none; hidden states (..., D), the nodes (...) of each level."""
        parents = path[level - 1] if level else torch.zeros_like(path[0])
        log_probs, first, beyond = self._child_log_probs(hidden, parents, level, tables)
        return log_probs, path[level] - first, beyond

    def _child_log_probs(
        self, hidden: Tensor, parents: Tensor, level: int, tables: list[Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(..., F) of the children of nodes (...) of the level above, the first child of each, and which are none."""
        children, beyond = self.trie.children_of(level, parents)
        logits = self.embedding.logits(hidden, *self.levels[level]).float()
        logits = logits.gather(-1, self.trie.codes[level][children].long().expand(*hidden.shape[:-1], -1))
        if tables is not None:
            logits = logits + self._item_logits(hidden, parents, level, tables).view(logits.shape)
        if beyond is not None:
            logits = logits.masked_fill(beyond, -torch.inf)
        return torch.log_softmax(logits, dim=-1), children[..., 0], beyond

    def _item_logits(self, hidden: Tensor, parents: Tensor, level: int, tables: list[Tensor]) -> Tensor:
        """(R, F) what the items below them add to the scores of the children of R nodes (...) of the level above."""
        assert self.tree is not None
        queries = hidden.flatten(0, -2) * hidden.shape[-1] ** -0.5
        biases = self.node_biases[level]
        if level == 0:
            return functional.linear(queries, tables[0].to(queries.dtype)).float() + biases
        score = child_logits if torch.is_grad_enabled() else logits_of_children
        start, fan_out = self.tree.child_start(level), self.tree.max_fan_out[level]
        return score(queries, parents.flatten(), start, tables[level], biases, fan_out)

    def _smoothed(self, log_probs: Tensor, places: Tensor, beyond: Tensor | None) -> Tensor:
        """The mean cross-entropy at ``places`` (R,), a share of it spread evenly over all that could have been."""
        loss = -_chosen(log_probs, places)
        if self.label_smoothing:
            known = log_probs if beyond is None else log_probs.masked_fill(beyond, 0.0)
            number = log_probs.shape[1] if beyond is None else (~beyond).sum(1)
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * known.sum(1) / number
        return loss.mean()

    def _level_loss(self, hidden: Tensor, tokens: Tensor, level: int) -> Tensor:
        first, count = self.levels[level] if self.normalize == "level" else (0, None)
        logits = self.embedding.logits(hidden, first, count)
        return functional.cross_entropy(logits, tokens - first, label_smoothing=self.label_smoothing)


def _chosen(log_probs: Tensor, places: Tensor) -> Tensor:
    return log_probs.gather(-1, places[..., None]).squeeze(-1)


def _continues(batch: SequenceBatch, scored: Tensor) -> bool:
    """Whether every target but a row's last is the item that follows in its history, as in a sequence."""
    places = torch.arange(1, batch.items.shape[1], device=batch.items.device)
    inside = scored[:, :-1] & (places < batch.lengths[:, None])
    return bool((batch.items[:, 1:] == batch.targets[:, :-1])[inside].all())
