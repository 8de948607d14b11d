"""The best k columns of every row, with a tie-break that depends on nothing but the row itself.

``torch.topk`` leaves the order of equal scores open, so two runs, devices or batch sizes may disagree on it. Everything
that ranks items here goes through these functions instead. B rows, M columns, N items, S seen items per row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genrec.contracts import IGNORE, Recommendations

MAX_SCORES = 1 << 22  # 16 MiB of float32: more leaves the processor's cache and is slower
_FEWEST_ROWS = 32  # of a large catalogue, whose vectors are read anew for each slice of rows
_BLOCKS = (64, 8)  # columns whose maximum is taken first, of wide and of narrower rows


def stable_topk(scores: Tensor, k: int, tie_keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Values and columns (B, k) of the k largest scores (B, M), best first, equal scores by lower key.

    ``tie_keys`` (B, M) int64 defaults to the column number. Needs 1 <= k <= M.
    """
    for block in _BLOCKS if tie_keys is None else ():
        if scores.shape[1] >= 4 * (k + 1) * block:
            return _topk_by_blocks(scores, k, block)
    return _topk_at_once(scores, k, tie_keys)


def _topk_by_blocks(scores: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """As ``_topk_at_once`` by columns, but reads only the blocks of columns that can hold the result.

    The k-th largest of the blocks' maxima bounds the k-th largest score from below, so no other block than those that
    reach it counts. They are k, or more where maxima are equal: then the row is read as a whole.
    """
    rows, width = scores.shape
    count = width // block
    blocks = scores[:, : count * block].unflatten(1, (count, block))  # (B, blocks, columns of a block)
    maxima, chosen = blocks.amax(dim=2).topk(k + 1, dim=1)
    unclear = (maxima[:, k - 1] == maxima[:, k]) & (maxima[:, k] > -torch.inf)
    chosen = chosen[:, :k].sort(dim=1).values  # in the order of columns, which decides between equal scores
    candidates = blocks[torch.arange(rows, device=scores.device)[:, None], chosen].flatten(1)
    if count * block < width:
        candidates = torch.cat([candidates, scores[:, count * block :]], dim=1)
    values, places = stable_topk(candidates, k)
    number = places // block
    columns = places % block + block * torch.where(number < k, chosen.gather(1, number.clamp(max=k - 1)), count)
    again = unclear.nonzero().squeeze(1)
    if len(again):
        first, second = _topk_at_once(scores[again], k)
        values, columns = values.index_copy(0, again, first), columns.index_copy(0, again, second)
    return values, columns


def _topk_at_once(scores: Tensor, k: int, tie_keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``stable_topk`` of rows of any width."""
    # One place further shows whether the k-th score is shared with a column left out; -inf is nobody's score.
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if values.shape[1] > k:
        tied = (values[:, k - 1] == values[:, k]) & (values[:, k] > -torch.inf)
        values, columns = values[:, :k], columns[:, :k]
        rows = tied.nonzero().squeeze(1)
        if len(rows):
            keys = None if tie_keys is None else tie_keys[rows]
            columns = columns.index_copy(0, rows, _resolve_boundary(scores[rows], values[rows], columns[rows], keys))
            values = scores.gather(1, columns)
    by_key = (columns if tie_keys is None else tie_keys.gather(1, columns)).argsort(dim=1)
    by_score = values.gather(1, by_key).argsort(dim=1, descending=True, stable=True)
    order = by_key.gather(1, by_score)
    return values.gather(1, order), columns.gather(1, order)


def _resolve_boundary(scores: Tensor, values: Tensor, columns: Tensor, tie_keys: Tensor | None) -> Tensor:
    """The top columns again, where those equal to the k-th score are the ones with the lowest keys."""
    k = values.shape[1]
    last = values[:, -1:]
    if tie_keys is None:
        tie_keys = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    outside = torch.iinfo(torch.int64).max
    chosen = torch.where(scores == last, tie_keys, outside).topk(k, dim=1, largest=False, sorted=True).indices
    num_above = (values > last).sum(dim=1, keepdim=True)
    place = torch.arange(k, device=scores.device).expand_as(columns)
    return torch.where(place < num_above, columns, chosen.gather(1, (place - num_above).clamp(min=0)))


def mask_seen(scores: Tensor, seen: Tensor | None) -> Tensor:
    """A copy of scores (B, N) with -inf at the items of ``seen`` (B, S), which is filled with IGNORE."""
    return scores if seen is None or seen.shape[1] == 0 else _mask(scores.clone(), seen)


def _mask(scores: Tensor, seen: Tensor) -> Tensor:
    """``mask_seen`` in place."""
    # IGNORE points at item 0 with +inf, which never wins a minimum.
    lowest = torch.where(seen == IGNORE, torch.inf, -torch.inf).to(scores.dtype)
    return scores.scatter_reduce_(1, seen.clamp(min=0), lowest, reduce="amin")


def rank_items(scores: Tensor, k: int, seen: Tensor | None = None) -> Recommendations:
    """The k best items by scores (B, N): none seen or at -inf, ties by lower index, IGNORE where there are too few."""
    shortest = min(k, scores.shape[1])
    if seen is None or seen.shape[1] == 0:
        values, items = stable_topk(scores, shortest)
        return as_recommendations(items, values, k)
    scores = scores.detach()
    if 0 in scores.stride():  # expanded: rows share their memory
        scores = scores.clone()
    # A copy would cost as much as the ranking, so the scores are masked in place and put back: they may be shared.
    places = seen.clamp(min=0)
    before = scores.gather(1, places)
    values, items = stable_topk(_mask(scores, seen), shortest)
    scores.scatter_(1, places, before)
    return as_recommendations(items, values, k)


def as_recommendations(items: Tensor, scores: Tensor, k: int) -> Recommendations:
    """Ranked items and scores (B, any) cut or filled to width k; places at -inf become IGNORE."""
    items, scores = items[:, :k], scores[:, :k]
    missing = k - items.shape[1]
    if missing > 0:
        items = torch.nn.functional.pad(items, (0, missing), value=IGNORE)
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    return Recommendations(items=items.masked_fill(scores == -torch.inf, IGNORE), scores=scores)


def rank_rows(
    score_rows: Callable[[slice], Tensor],
    *,
    num_rows: int,
    num_items: int,
    k: int,
    seen: Tensor | None = None,
    max_scores: int | None = None,
) -> Recommendations:
    """``rank_items`` over the whole catalogue without ever holding more than about ``max_scores`` scores; by default
    ``MAX_SCORES``, or those of 32 rows where they are more.

    ``score_rows(rows)`` returns the scores (rows, N) of a slice of the batch.
    """
    step = max(_FEWEST_ROWS, MAX_SCORES // num_items) if max_scores is None else max(1, max_scores // num_items)
    parts: list[Recommendations] = []
    for begin in range(0, max(num_rows, 1), step):
        rows = slice(begin, min(begin + step, num_rows))
        parts.append(rank_items(score_rows(rows), k, None if seen is None else seen[rows]))
    if len(parts) == 1:
        return parts[0]
    return Recommendations(torch.cat([part.items for part in parts]), torch.cat([part.scores for part in parts]))
