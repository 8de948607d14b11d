"""Approximate nearest neighbours of users among items, by faiss, and what they miss.

U users, K interests of a user, N items, D width, k items of a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from genrec.contracts import IGNORE, GenrecError

ANNKind = Literal["none", "flat", "ivf", "hnsw"]

_NEIGHBOURS = 32  # links of a node in the graph of HNSW
_BUILD_BEAM = 200  # nodes in hand while it is built
_SEARCH_BEAM = 64  # and while it is searched, or 2 k if that is more
_SHARE_PROBED = 0.1  # of the lists of an inverted file
_TIE = 1e-6  # scores this near to the k-th, relative to it, are as good: sums of another order


def require_faiss() -> Any:
    """The faiss module, or a GenrecError that says how to get it."""
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise GenrecError(
            "trainer.ann needs the package faiss, which is not installed. "
            'Run: pip install "genrec[faiss]"   Or leave it out: trainer.ann=none.'
        ) from None
    return faiss


class ANNIndex:
    """Items to be found by their products with a user's vector.

    "flat" compares with every item and is exact; "ivf" only with those of the nearest of up to 4 sqrt(N) clusters, a
    tenth of them; "hnsw" walks a graph of neighbours. Indices are built on one thread, so that they come out the same.
    """

    def __init__(self, items: np.ndarray, kind: ANNKind) -> None:
        """``items`` (N, D) float32."""
        self.faiss = require_faiss()
        self.num_items, width = items.shape
        items = np.ascontiguousarray(items, dtype=np.float32)
        product = self.faiss.METRIC_INNER_PRODUCT
        self.kind = kind
        if kind == "flat":
            self.index = self.faiss.IndexFlatIP(width)
        elif kind == "ivf":
            num_lists = max(1, min(int(4 * self.num_items**0.5), self.num_items // 39))  # faiss wants 39 items for each
            self.coarse = self.faiss.IndexFlatIP(width)  # the index does not own it, so it must live as long
            self.index = self.faiss.IndexIVFFlat(self.coarse, width, num_lists, product)
            self.index.nprobe = max(1, round(num_lists * _SHARE_PROBED))
        elif kind == "hnsw":
            self.index = self.faiss.IndexHNSWFlat(width, _NEIGHBOURS, product)
            self.index.hnsw.efConstruction = _BUILD_BEAM
        else:
            raise GenrecError(f"trainer.ann={kind}: choose one of none, flat, ivf, hnsw.")
        with _one_thread(self.faiss):
            self.index.train(items)
            self.index.add(items)

    def search(self, users: np.ndarray, k: int) -> np.ndarray:
        """(U, k) the items found for users (U, D), or the interests (U, K, D); IGNORE where there are fewer.

        The list of several interests holds the best of what each of them finds, every item once.
        """
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = max(_SEARCH_BEAM, 2 * k)
        flat = np.ascontiguousarray(users.reshape(-1, users.shape[-1]), dtype=np.float32)
        scores, items = self.index.search(flat, k)
        if users.ndim == 2:
            return items.astype(np.int64)
        return _merged(scores.reshape(len(users), -1), items.reshape(len(users), -1).astype(np.int64), k)


def ann_recall(users: np.ndarray, items: np.ndarray, found: np.ndarray, k: int) -> float:
    """Mean share of the k best items by exact products (of interests: the largest) that are in ``found`` (U, any).

    ``users`` (U, D) or (U, K, D), ``items`` (N, D). An item that ties with the k-th counts as one of the best.
    """
    shares = []
    step = max(32, (1 << 22) // len(items))  # every step reads the vectors of all items
    for begin in range(0, len(users), step):
        part, there = users[begin : begin + step], found[begin : begin + step]
        scores = part @ items.T
        if scores.ndim == 3:
            scores = scores.max(axis=1)
        least = np.partition(scores, len(items) - k, axis=1)[:, len(items) - k]
        least = least - _TIE * np.abs(least)
        reached = np.take_along_axis(scores, np.maximum(there, 0), axis=1) >= least[:, None]
        shares.append(np.minimum((reached & (there != IGNORE)).sum(axis=1), k) / k)
    return float(np.concatenate(shares).mean())


def _merged(scores: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """(U, k) of scored items (U, any), best first, each item once, filled with IGNORE."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(items, order, axis=1)
    by_item = np.argsort(ranked, axis=1, kind="stable")  # of equal items the best scored comes first
    in_order = np.take_along_axis(ranked, by_item, axis=1)
    repeated = np.zeros(ranked.shape, dtype=bool)
    np.put_along_axis(repeated, by_item[:, 1:], in_order[:, 1:] == in_order[:, :-1], axis=1)
    repeated |= ranked == IGNORE
    first = np.argsort(repeated, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(repeated, first, axis=1), IGNORE, np.take_along_axis(ranked, first, axis=1))


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
