"""RPG: recommend an item by predicting all digits of its semantic ID at once.

Shapes: B rows, L items of history, C digits per item, K codes of a digit, D width, R scored targets, N items, F width
of an item vector. Source: Hou et al. 2025 (arXiv 2506.05781).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Positive, Rate, check_arguments
from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, Losses, Recommendations, SequenceBatch, Task
from genrec.decoding.topk import rank_rows
from genrec.models.next_item import check_heads, initialise
from genrec.models.text import text_features
from genrec.nn.catalogue_softmax import carriers_of_codes, catalogue_cross_entropy
from genrec.nn.causal import TransformerBlock
from genrec.nn.code_heads import CodeHeads
from genrec.nn.dropout import Dropout
from genrec.nn.serving import evaluating, last_states, recent


class RPG(nn.Module):
    """A causal transformer over items, each the sum of its digits' vectors, and one head per digit of the next item.

    Digits are predicted independently of each other, so an item scores the sum of its digits' log-probabilities and
    the whole catalogue is scored exactly. Beyond the paper, ``item_embedding`` adds a vector of its own to each item of
    the history, and ``text`` a projection of its item vector; targets are always the digits alone. ``normalize`` is the
    set that training shares probability out over: the codes of each ``digit`` (the paper's loss), or the items of the
    ``catalogue``, which gives none to the IDs that no item has; its steps cost N * C additions for each target.
    """

    view = "tokens"
    task = Task.RETRIEVAL
    training_mode = "positions"
    item_vectors_option = "text"  # the key of the config that asks for item vectors

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 128,
        num_layers: Count = 2,
        num_heads: Count = 4,
        feedforward_dim: Count = 512,
        dropout: Rate = 0.3,
        max_history: Count = 50,
        temperature: Positive = 0.03,
        normalize: Literal["digit", "catalogue"] = "digit",
        item_embedding: bool = False,
        text: bool = False,
    ) -> None:
        check_arguments(RPG.__init__, locals(), "model")
        super().__init__()
        ids = spec.semantic_ids
        if ids is None:
            raise GenrecError("RPG needs semantic IDs and none were given. Choose a tokenizer (tokenizer=opq).")
        check_heads(embedding_dim, num_heads)
        self.normalize = normalize
        self.max_history = max_history
        self.num_levels = ids.num_levels
        size = max(ids.codebook_sizes)
        unused = torch.arange(size) >= torch.tensor(ids.codebook_sizes)[:, None]
        self.item_codes: Tensor  # (N, C)
        self.register_buffer("item_codes", torch.from_numpy(ids.codes), persistent=False)
        self.item_rows: Tensor  # (N, C) rows of the code table seen as (C * K, D)
        rows = torch.from_numpy(ids.codes) + size * torch.arange(self.num_levels)
        self.register_buffer("item_rows", rows, persistent=False)
        if normalize == "catalogue":
            carriers, begin = carriers_of_codes(rows, self.num_levels * size)
            self.carriers: Tensor  # (N * C,)
            self.carriers_begin: Tensor  # (C * K,)
            self.register_buffer("carriers", carriers, persistent=False)
            self.register_buffer("carriers_begin", begin, persistent=False)
        self.codes = nn.Parameter(torch.empty(self.num_levels, size, embedding_dim))
        self.items = nn.Embedding(ids.num_items, embedding_dim) if item_embedding else None
        self.text: nn.Linear | None = None
        if text:
            self.vectors: Tensor  # (N, F)
            self.register_buffer("vectors", text_features(spec), persistent=False)
            self.text = nn.Linear(self.vectors.shape[1], embedding_dim, bias=False)
        self.positions = nn.Embedding(max_history, embedding_dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(embedding_dim, num_heads, feedforward_dim, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)
        self.dropout = Dropout(dropout)
        self.heads = CodeHeads(
            self.num_levels, embedding_dim, temperature=temperature, unused=unused if bool(unused.any()) else None
        )
        initialise(self)
        nn.init.normal_(self.codes, std=0.02)

    def loss(self, batch: SequenceBatch) -> Losses:
        """Cross-entropy in nats of an item, or of a digit (averaged over digits), averaged over the scored targets."""
        assert batch.items.shape[1] <= self.max_history, "rows are cut to max_history when they are made"
        scored = batch.targets != IGNORE
        count = int(scored.sum())
        if count == 0:
            return Losses(self.codes.sum() * 0.0, 0)
        hidden = self._encode(batch.items)
        if count == scored.numel():
            hidden, targets = hidden.flatten(0, 1), batch.targets.flatten()
        else:
            hidden, targets = hidden[scored], batch.targets[scored]
        if self.normalize == "digit":
            return Losses(self.heads.loss(hidden, self.codes, self.item_codes[targets].T), count)
        scores = self.heads.scores(hidden, self.codes).flatten(0, 1)
        return Losses(
            catalogue_cross_entropy(scores, self.item_rows, self.carriers, self.carriers_begin, targets), count
        )

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The k best items of the whole catalogue; scores are log-probabilities, among all IDs or all items."""
        with evaluating(self):
            log_probs = self._log_probs(batch)  # C, B, K
            table = log_probs.transpose(1, 2).flatten(0, 1)  # C * K, B

            def scores(rows: slice) -> Tensor:
                # Sums of C rows of the table for each item: the users are what is contiguous, and all that is moved.
                of_ids = functional.embedding_bag(self.item_rows, table[:, rows].contiguous(), mode="sum").T
                return of_ids if self.normalize == "digit" else torch.log_softmax(of_ids, dim=1)

            return rank_rows(scores, num_rows=table.shape[1], num_items=len(self.item_codes), k=k, seen=batch.seen)

    def _log_probs(self, batch: HistoryBatch) -> Tensor:
        """(C, B, K) log-probabilities of the codes of the next item."""
        items, lengths = recent(batch.items, batch.lengths, self.max_history)
        hidden = last_states(self._encode(items), lengths)
        return self.heads.log_probs(hidden, self.codes)

    def _encode(self, items: Tensor) -> Tensor:
        """Items (B, L) to hidden states (B, L, D); what follows a position does not reach it."""
        x = self.dropout(self._vectors(items) + self.positions.weight[: items.shape[1]])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _vectors(self, items: Tensor) -> Tensor:
        """Items (B, L) to the vectors (B, L, D) they are read with."""
        flat = items.flatten()
        summed = functional.embedding_bag(self.item_rows[flat], self.codes.flatten(0, 1), mode="sum")
        vectors = summed * self.num_levels**-0.5
        if self.items is not None:
            vectors = vectors + self.items(flat)
        if self.text is not None:
            vectors = vectors + self.text(self.vectors[flat])
        return vectors.view(*items.shape, -1)
