"""What is measured on: Amazon Beauty where GENREC_DATA holds it, else invented data of the same shape.

Shapes: N items, C codes per item, D width of an item vector.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from genrec.contracts import RunContext
from genrec.data.dataset import Dataset
from genrec.data.ragged import Ragged
from genrec.data.rows import Lists, Rows
from genrec.data.sequences import SequencesView
from genrec.data.sources.amazon import AmazonSource
from genrec.data.sources.lastfm import LastFMSource
from genrec.data.splits import LeaveOneOut, RatioPerUser
from genrec.semantic_ids import SemanticIds
from genrec.tokenizers.rqkmeans import RQKMeans

NUM_USERS, NUM_ITEMS, NUM_INTERACTIONS, SHORTEST = 22_363, 12_101, 198_502, 5
CODES, LEVELS = 256, 3


def load_sequences() -> tuple[SequencesView, str]:
    """Histories with leave-one-out, and what to call them."""
    root = os.environ.get("GENREC_DATA")
    folder = Path(root or "data") / "amazon_beauty"
    if folder.is_dir():
        source = AmazonSource(path=str(folder), category="Beauty", download=False)
        return Dataset(source, LeaveOneOut()).sequences, "Amazon Beauty"
    return invented_sequences(), "invented data of Amazon Beauty's shape (GENREC_DATA names no amazon_beauty)"


def load_lastfm() -> tuple[SequencesView, str]:
    """Who played which artist in the HetRec data, a random 15 % of each listener's held out; else invented."""
    folder = Path(os.environ.get("GENREC_DATA") or "data") / "lastfm_hetrec"
    if folder.is_dir():
        return Dataset(LastFMSource(path=str(folder)), RatioPerUser(order="random")).sequences, "Last.fm"
    return invented_sequences(1_859, 2_823, 71_000), "a graph of Last.fm's size (GENREC_DATA has no lastfm_hetrec)"


def invented_sequences(
    num_users: int = NUM_USERS, num_items: int = NUM_ITEMS, num_interactions: int = NUM_INTERACTIONS, seed: int = 0
) -> SequencesView:
    """Users with at least 5 items and geometrically falling lengths, items by Zipf's law."""
    rng = np.random.default_rng(seed)
    mean = num_interactions / num_users
    lengths = SHORTEST - 1 + rng.geometric(1 / (mean - SHORTEST + 1), size=num_users)
    popularity = 1 / np.arange(1, num_items + 1) ** 0.6
    values = rng.choice(num_items, size=int(lengths.sum()), p=popularity / popularity.sum())
    whole = Ragged.from_lengths(values, lengths)
    ends = whole.offsets[1:]
    is_test, is_val = np.zeros(len(values), dtype=bool), np.zeros(len(values), dtype=bool)
    is_test[ends - 1], is_val[ends - 2] = True, True
    one = np.ones(num_users, dtype=np.int64)
    train = Ragged.from_lengths(values[~is_test & ~is_val], lengths - 2)
    return SequencesView(
        train, Ragged.from_lengths(values[is_val], one), Ragged.from_lengths(values[is_test], one), num_items
    )


def item_vectors(num_items: int = NUM_ITEMS, dim: int = 768, *, clusters: int = 500, seed: int = 0) -> np.ndarray:
    """(N, D) float32 vectors in clusters, of unit scale: what a text encoder gives, as far as speed goes."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim), dtype=np.float32)
    noise = rng.standard_normal((num_items, dim), dtype=np.float32)
    return 0.7 * centres[rng.integers(clusters, size=num_items)] + 0.7 * noise


def beauty_ids(view: SequencesView, folder: Path) -> SemanticIds:
    """(N, 3 + 1) codes by residual k-means of vectors and co-occurrence, with the extra digit of TIGER."""
    vectors = item_vectors(view.num_items, 96)
    tokenizer = RQKMeans(num_levels=LEVELS, codebook_size=CODES, max_iters=10)
    return tokenizer.fit(vectors, view.train, RunContext(output_dir=folder)).semantic_ids


def random_ids(num_items: int, *, codes: int = CODES, levels: int = LEVELS, seed: int = 0) -> SemanticIds:
    """(N, levels + 1) uniform codes; the extra digit counts the items that share the codes before it."""
    rng = np.random.default_rng(seed)
    content = rng.integers(0, codes, size=(num_items, levels))
    key = np.asarray(np.ravel_multi_index(tuple(content.T), (codes,) * levels))
    order = np.argsort(key, kind="stable")
    is_new = np.append(True, np.diff(key[order]) != 0)
    place = np.arange(num_items)
    digit = np.empty(num_items, dtype=np.int64)
    digit[order] = place - np.maximum.accumulate(np.where(is_new, place, 0))
    sizes = (codes,) * levels + (int(digit.max()) + 1,)
    return SemanticIds(np.column_stack([content, digit]), sizes, levels)


def histories(view: SequencesView, num_users: int, max_history: int, seed: int = 0) -> tuple[np.ndarray, Ragged]:
    """Users drawn at random and the last items of each before the test item."""
    users = np.sort(np.random.default_rng(seed).choice(view.num_users, num_users, replace=False))
    return users, view.history("test").take(users).last(max_history)


def invented_table(
    num_rows: int = 100_000,
    *,
    num_dense: int = 13,
    num_sparse: int = 26,
    size: int = 10_000,
    longest: int = 20,
    seed: int = 0,
) -> Rows:
    """A table of Criteo's fields with uniform ids, 1 to ``size`` - 1, two binary labels, the second 1 only where the
    first is, and in each row a history of 1 to ``longest`` ids."""
    rng = np.random.default_rng(seed)
    dense = rng.random((num_rows, num_dense), dtype=np.float32)
    sparse = rng.integers(1, size, (num_rows, num_sparse), dtype=np.int32)
    ends = np.cumsum(rng.integers(1, longest + 1, num_rows))
    history = Lists(rng.integers(1, size, ends[-1], dtype=np.int32), np.append(0, ends))
    labels = (rng.random((num_rows, 2)) < 0.3).astype(np.float32)
    labels[:, 1] *= labels[:, 0]
    return Rows(dense, sparse, (history,), labels)
