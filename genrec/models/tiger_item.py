"""TIGER over items: a history is read one vector per item, and the next item's semantic ID is generated code by code.

Shapes: B rows, L items of history, C codes per item, D width, N items, R scored targets, W beams, M nodes of a level of
the catalogue's trie, F the largest number of children of a node, A width of the text features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.annotations import Count, Natural, Positive, Rate, check_arguments
from genrec.contracts import IGNORE, DataSpec, GenrecError, HistoryBatch, Losses, Recommendations, SequenceBatch, Task
from genrec.decoding import sampling
from genrec.decoding.beam import tree_search
from genrec.decoding.trie import Trie
from genrec.models.next_item import check_heads
from genrec.models.node_vectors import NodeVectors
from genrec.nn.causal import LiGRBlock
from genrec.nn.dropout import Dropout
from genrec.nn.embedding import principal_components
from genrec.nn.serving import evaluating, last_states, recent
from genrec.nn.tree import child_logits, logits_of_children

_STEP = 64  # rows are filled up to a multiple: a shape's first bfloat16 product costs milliseconds on a CPU


class TigerItem(nn.Module):
    """A causal transformer over items whose output is decoded down the tree of semantic IDs.

    An item's vector is its own embedding plus a projection of its text features. A prefix of codes is a node of the
    catalogue's trie, and its vector is the sum of the vectors of the items below it, divided by the square root of
    their number; so what is learned of an item in histories serves to generate it, and the other way round. The
    probability of a code is a softmax over the codes that continue the prefix in the catalogue: products of their
    nodes' vectors with the hidden state, corrected by a small network that sees the prefix. The probabilities of all
    items therefore sum to one. One pass over a row scores the targets of all its positions.

    A history enters as one vector per item instead of C tokens, which divides the length of the sequence by C, and a
    decoding step costs a few products per beam; there is no decoder stack.
    """

    view = "tokens"
    task = Task.RETRIEVAL
    training_mode = "positions"

    def __init__(
        self,
        spec: DataSpec,
        *,
        embedding_dim: Count = 128,
        num_layers: Count = 2,
        num_heads: Count = 4,
        feedforward_dim: Count = 256,
        prefix_dim: Count = 256,
        dropout: Rate = 0.3,
        max_history: Count = 50,
        num_beams: Count = 20,
        text_dim: Natural = 128,
        init_std: Positive = 0.05,
    ) -> None:
        check_arguments(TigerItem.__init__, locals(), "model")
        super().__init__()
        if spec.semantic_ids is None:
            raise GenrecError(
                "TigerItem needs semantic IDs and none were given. Choose a tokenizer (tokenizer=rqkmeans)."
            )
        check_heads(embedding_dim, num_heads)
        self.max_history = max_history
        self.num_beams = num_beams
        self.trie = Trie.from_codes(spec.semantic_ids.codes, spec.semantic_ids.codebook_sizes)
        self.num_levels = self.trie.num_levels
        self.tree = NodeVectors(self.trie)
        # Tables are in the order of the trie's leaves, so that the items below a node lie side by side.
        self.items = nn.Embedding(spec.num_items, embedding_dim)
        self.text: nn.Linear | None = None
        self.features: Tensor  # (N, A) of each leaf; in the checkpoint, so that loading needs no encoder
        if text_dim:
            features = torch.zeros(spec.num_items, text_dim)
            if spec.item_vectors is not None:
                found = principal_components(torch.from_numpy(spec.item_vectors), text_dim)
                features[:, : found.shape[1]] = found[self.trie.items.long()]
            self.register_buffer("features", features)
            self.text = nn.Linear(text_dim, embedding_dim, bias=False)
        self.positions = nn.Embedding(max_history, embedding_dim)
        self.blocks = nn.ModuleList(
            LiGRBlock(embedding_dim, num_heads, feedforward_dim, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)
        self.dropout = Dropout(dropout)
        deeper = range(1, self.num_levels)
        self.prefix_inputs = nn.ModuleList(nn.Linear(2 * embedding_dim, prefix_dim) for _ in deeper)
        self.prefix_outputs = nn.ModuleList(nn.Linear(prefix_dim, embedding_dim) for _ in deeper)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(count)) for count in self.trie.num_nodes)
        self._initialise(init_std)

    def _initialise(self, std: float) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.5 * part.in_features**-0.5)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=std)
        if self.text is not None:
            nn.init.normal_(self.text.weight, std=std / 4)
        for output in self.prefix_outputs:
            nn.init.zeros_(output.weight)  # pyright: ignore[reportArgumentType]  # at first no prefix changes anything

    def loss(self, batch: SequenceBatch) -> Losses:
        """Cross-entropy in nats, summed over the codes of an item and averaged over the scored targets."""
        scored = batch.targets != IGNORE
        count = int(scored.sum())
        nodes = self.tree(self._leaves())
        if count == 0:
            return Losses(nodes[-1].sum() * 0.0, 0)
        hidden = self._encode(nodes[-1], batch.items)[scored]
        losses = self._path_losses(hidden, batch.targets[scored], nodes)
        totals = {level: loss.sum() / count for level, loss, _ in losses}
        parts = {f"loss_level_{level}": total.detach() for level, total in totals.items()}
        return Losses(sum(totals.values(), hidden.new_zeros(())), count, parts)

    @torch.no_grad()
    def recommend(self, batch: HistoryBatch, k: int) -> Recommendations:
        """The best k items by beam search over the catalogue's semantic IDs; scores are log-probabilities."""
        self.trie = self.trie.to(self.tree.leaf_of_item.device)
        with evaluating(self):
            nodes = self._cached_nodes()
            hidden = self._last_hidden(nodes[-1], batch)  # (B, D)

            found = tree_search(
                lambda level, above, _: self._children_log_probs(level, hidden, above, nodes),
                self.trie,
                batch_size=len(hidden),
                num_beams=max(self.num_beams, k),
                device=hidden.device,
                seen=batch.seen,
            )
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
        self.trie = self.trie.to(self.tree.leaf_of_item.device)
        with evaluating(self):
            nodes = self._cached_nodes()
            hidden = self._last_hidden(nodes[-1], batch)
            return sampling.sample_tree(
                lambda level, above, _: self._children_log_probs(level, hidden, above, nodes),
                self.trie,
                batch_size=len(hidden),
                device=hidden.device,
                num_samples=num_samples,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seen=batch.seen,
                generator=generator,
            )

    def log_prob(self, batch: HistoryBatch, items: Tensor) -> Tensor:
        """Log-probabilities (B, T) of the given items (B, T): what beam search approximates."""
        nodes = self.tree(self._leaves())
        hidden = self._last_hidden(nodes[-1], batch)[:, None].expand(-1, items.shape[1], -1).flatten(0, 1)
        total = hidden.new_zeros(len(hidden), dtype=torch.float32)
        for _, loss, rows in self._path_losses(hidden, items.flatten(), nodes):
            total = total.index_add(0, rows, -loss)
        return total.view(items.shape)

    def _leaves(self) -> Tensor:
        """(N, D) the vectors of the items, in the leaves' order."""
        return self.items.weight if self.text is None else self.items.weight + self.text(self.features)

    def _cached_nodes(self) -> list[Tensor]:
        """The vectors (M, D) of the nodes of each level, for recommending."""
        return self.tree.kept(self._leaves, [self.items.weight, *([] if self.text is None else [self.text.weight])])

    def _encode(self, leaves: Tensor, items: Tensor) -> Tensor:
        """Items (B, L) to hidden states (B, L, D); the padding on the right changes nothing before it."""
        x = functional.embedding(self.tree.leaf_of_item[items], leaves) + self.positions.weight[: items.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _last_hidden(self, leaves: Tensor, batch: HistoryBatch) -> Tensor:
        """(B, D) what is known after each history; zeros where there is none."""
        items, lengths = recent(batch.items, batch.lengths, self.max_history)
        return last_states(self._encode(leaves, items), lengths)

    def _logits(self, level: int, hidden: Tensor, parents: Tensor, nodes: list[Tensor], fan_out: int) -> Tensor:
        """(R, F) scores of the children of ``parents`` (R,), nodes of the level above, for hidden states (R, D)."""
        if level == 0:
            return functional.linear(hidden, nodes[0].to(hidden.dtype)).float() + self.biases[0]
        prefix = functional.embedding(parents, nodes[level - 1]).to(hidden.dtype)
        inside = functional.gelu(self.prefix_inputs[level - 1](torch.cat([hidden, prefix], dim=-1)))
        queries = hidden + self.prefix_outputs[level - 1](self.dropout(inside))
        start = self.tree.child_start(level)
        return child_logits(queries, parents, start, nodes[level], self.biases[level], fan_out)

    def _children_log_probs(self, level: int, hidden: Tensor, parents: Tensor, nodes: list[Tensor]) -> Tensor:
        """(B, W, F) of the children of ``parents`` (B, W), nodes of the level above, for hidden states (B, D)."""
        fan_out = self.trie.max_fan_out[level]
        if level == 0:
            logits = self._logits(level, hidden, parents.flatten(), nodes, fan_out)
            return torch.log_softmax(logits, dim=-1)[:, None]
        start = self.tree.child_start(level)
        width, parents = parents.shape[1], parents.flatten()
        found = hidden.new_full((len(parents), fan_out), -torch.inf, dtype=torch.float32)
        found[:, 0] = 0.0  # a code without alternative has probability one
        open_beams = (start[parents + 1] - start[parents] > 1).nonzero().squeeze(1)
        if len(open_beams):
            chosen = functional.pad(open_beams, (0, -len(open_beams) % _STEP))
            rows, parents = chosen // width, parents[chosen]
            queries = self._queries(level, hidden, rows, parents, nodes)
            scored = logits_of_children(queries, parents, start, nodes[level], self.biases[level], fan_out)
            found[open_beams] = torch.log_softmax(scored[: len(open_beams)], dim=1)
        return found.view(len(hidden), width, fan_out)

    def _queries(self, level: int, hidden: Tensor, rows: Tensor, parents: Tensor, nodes: list[Tensor]) -> Tensor:
        """(R, D) what ``_logits`` multiplies the children's vectors by; each row of ``hidden`` (B, D) serves many."""
        first, above = self.prefix_inputs[level - 1], nodes[level - 1]
        assert isinstance(first, nn.Linear)
        of_hidden, of_prefix = first.weight.chunk(2, dim=1)
        if len(above) < len(parents):
            inside = functional.linear(above, of_prefix).index_select(0, parents)
        else:
            inside = functional.linear(above.index_select(0, parents), of_prefix)
        inside = inside.add_(functional.linear(hidden, of_hidden, first.bias).index_select(0, rows))
        return hidden.index_select(0, rows) + self.prefix_outputs[level - 1](functional.gelu(inside))

    def _path_losses(self, hidden: Tensor, items: Tensor, nodes: list[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The levels, the cross-entropy of the codes of ``items`` (R,) at each, and the rows that these stand for.

        A code without alternative has probability one and costs nothing, so its row is left out.
        """
        leaves = self.tree.leaf_of_item[items]
        root = torch.zeros_like(leaves)
        for level in range(self.num_levels):
            parents = root if level == 0 else self.tree.node_of_leaf(level - 1)[leaves]
            start = self.tree.child_start(level)
            counts = start[parents + 1] - start[parents]
            rows = (counts > 1).nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            filled = functional.pad(rows, (0, -len(rows) % _STEP))
            parents, target = parents[filled], self.tree.node_of_leaf(level)[leaves[filled]]
            logits = self._logits(level, hidden[filled], parents, nodes, self.trie.max_fan_out[level])
            losses = functional.cross_entropy(logits, target - start[parents], reduction="none")
            yield level, losses[: len(rows)], rows
