"""Sampling semantic IDs code by code inside the trie of the catalogue, and sets of items from scores.

B rows, S samples per row, K codes of a level, F the largest number of children of a node, M choices, N items.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genrec.contracts import IGNORE, Recommendations
from genrec.decoding.beam import Step, TreeStep, exhausted, seen_leaves_of
from genrec.decoding.options import check_count, check_sampling
from genrec.decoding.trie import Trie

_MOST_WEIGHTS = 2**24  # that torch.multinomial takes


def truncated_log_probs(logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Log-probabilities (..., M) of softmax(logits / temperature), cut to the likeliest choices and renormalised.

    ``top_k`` keeps that many (0: all), then ``top_p`` the fewest that hold at least this share of what is left (nucleus
    sampling, Holtzman et al. 2020); equal ones by lower index. A row whose logits are all -inf stays so.
    """
    check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    empty = (logits == -torch.inf).all(dim=-1, keepdim=True)
    logits = logits.masked_fill(empty, 0.0)
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature  # the best stays 0, however cold
    width = logits.shape[-1]
    if 0 < top_k < width or top_p < 1.0:
        best, choices = scaled.sort(dim=-1, descending=True, stable=True)
        kept = torch.arange(width, device=logits.device) < (top_k or width)
        share = torch.softmax(best.double().masked_fill(~kept, -torch.inf), dim=-1)
        before = share.cumsum(dim=-1) - share if top_p < 1.0 else torch.zeros_like(share)
        # The best always stays. The rest is compared with a little slack: .3 + .3 + .3 must count as .9.
        kept = kept & ((before < top_p - 1e-9) | (before == 0.0))
        scaled = scaled.masked_fill(~torch.zeros_like(empty & kept).scatter(-1, choices, kept), -torch.inf)
    return torch.log_softmax(scaled, dim=-1).masked_fill(empty, -torch.inf)


def sample(
    step: Step,
    trie: Trie,
    *,
    batch_size: int,
    device: torch.device | str,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Recommendations:
    """Independent draws from a model: items (B, S), repeats possible, and the log-probability (B, S) of each draw.

    ``step`` is that of ``beam_search``. At each level the codes that continue towards an item share all of the
    probability, and temperature, top_k and top_p apply to them; so what comes out is always an item, and with
    ``temperature=1, top_k=0, top_p=1`` a code has the model's own conditional probability divided by that of all
    allowed codes. ``top_k=1`` is greedy. Items of ``seen`` (B, any, filled with IGNORE) never come; a row without any
    other gets IGNORE. ``generator`` lies on ``device``; None draws from torch's global one.
    """

    def score(level: int, nodes: Tensor, children: Tensor, codes: Tensor | None, parents: Tensor | None) -> Tensor:
        log_probs = step(level, codes, parents)
        places = trie.codes[level][children].long().expand(*nodes.shape, -1)
        return log_probs.gather(2, places)

    trie = trie.to(device)
    draw = _Draw(trie, batch_size, num_samples, device, seen, generator)
    return draw.run(score, temperature=temperature, top_k=top_k, top_p=top_p)


def sample_tree(
    step: TreeStep,
    trie: Trie,
    *,
    batch_size: int,
    device: torch.device | str,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Recommendations:
    """``sample`` for models that score the nodes of the trie: ``step`` is that of ``tree_search``."""
    draw = _Draw(trie.to(device), batch_size, num_samples, device, seen, generator)
    return draw.run(
        lambda level, nodes, children, codes, parents: step(level, nodes, parents),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )


def sample_sets(
    logits: Tensor,
    sizes: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Recommendations:
    """Sets of distinct items: ``sizes`` (B,) draws without replacement from logits (B, N), in the order drawn.

    Each draw is from what is left; temperature, top_k and top_p apply to it. Returns items (B, largest size), filled
    with IGNORE, and the log-probability of each draw.
    """
    left = logits.float().clone()
    items = torch.full((len(logits), int(sizes.max())), IGNORE, device=logits.device)
    scores = torch.full(items.shape, -torch.inf, device=logits.device)
    for place in range(items.shape[1]):
        log_probs = truncated_log_probs(left, temperature=temperature, top_k=top_k, top_p=top_p)
        drawn, score = _drawn(log_probs, 1, generator)
        wanted = (sizes[:, None] > place) & (score > -torch.inf)
        items[:, place : place + 1] = torch.where(wanted, drawn, IGNORE)
        scores[:, place : place + 1] = score.masked_fill(~wanted, -torch.inf)
        left.scatter_(1, drawn, -torch.inf)
    return Recommendations(items, scores)


class _Draw:
    """A walk from the root of the trie to a leaf for each of the (B, S) samples."""

    def __init__(
        self,
        trie: Trie,
        batch_size: int,
        num_samples: int,
        device: torch.device | str,
        seen: Tensor | None,
        generator: torch.Generator | None,
    ) -> None:
        check_count(num_samples)
        self.trie = trie
        self.shape = (batch_size, num_samples)
        self.device = device
        self.generator = generator
        self.seen_leaves = None if seen is None or seen.shape[1] == 0 else seen_leaves_of(trie, seen.to(device))

    def run(
        self,
        score: Callable[[int, Tensor, Tensor, Tensor | None, Tensor | None], Tensor],
        *,
        temperature: float,
        top_k: int,
        top_p: float,
    ) -> Recommendations:
        trie = self.trie
        batch_size, num_samples = self.shape
        nodes = torch.zeros(batch_size, 1, dtype=torch.int64, device=self.device)  # (B, W), W = 1 at the root, then S
        total = torch.zeros(self.shape, device=self.device)
        codes: Tensor | None = None
        parents: Tensor | None = None
        for level in range(trie.num_levels):
            children, beyond = trie.children_of(level, nodes)
            logits = score(level, nodes, children, codes, parents).float()  # (B, W, F)
            if beyond is not None:
                logits = logits.masked_fill(beyond, -torch.inf)
            if self.seen_leaves is not None:
                logits = logits.masked_fill(exhausted(trie, level, children, self.seen_leaves), -torch.inf)
            log_probs = truncated_log_probs(logits, temperature=temperature, top_k=top_k, top_p=top_p)
            places, scores = _drawn(log_probs.flatten(0, 1), num_samples if level == 0 else 1, self.generator)
            total = total + scores.view(self.shape)
            places = places.view(*self.shape, 1)
            nodes = children.expand(batch_size, num_samples, -1).gather(2, places).squeeze(2)
            codes = trie.codes[level][nodes].long()
            # The step at the root served all samples of a row; from then on each goes its own way.
            parents = torch.arange(num_samples, device=self.device) if level else torch.zeros_like(nodes[0])
            parents = parents.expand(self.shape)
        found = total > -torch.inf
        return Recommendations(trie.items[nodes].long().masked_fill(~found, IGNORE), total)


def _drawn(log_probs: Tensor, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """``count`` draws with replacement from each row of (R, M), and their log-probabilities; both (R, count).

    A row at -inf throughout yields place 0 at -inf.
    """
    possible = (log_probs > -torch.inf).any(dim=1, keepdim=True)
    first = torch.arange(log_probs.shape[1], device=log_probs.device) == 0
    weights = torch.where(possible, log_probs.exp(), first.to(log_probs.dtype))
    if weights.shape[1] > _MOST_WEIGHTS:  # each wins a race with a chance as large as its weight
        races = (torch.empty_like(weights).exponential_(generator=generator) for _ in range(count))
        places = torch.stack([(weights / race).argmax(dim=1) for race in races], dim=1)
    else:
        places = torch.multinomial(weights, count, replacement=True, generator=generator)
    return places, log_probs.gather(1, places)
