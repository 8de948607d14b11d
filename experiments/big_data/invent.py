"""Interactions of any number, invented piece by piece in little memory.

Items belong to topics; a user has a few favourite ones and moves on within a topic from one item to one near it, so
that a model of sequences has something to learn. Everything follows from the seed, whatever the pieces are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from genrec.artifacts import atomic_path

PIECE = 1_000_000
_TOPIC = 100  # items
_FAVOURITES = 3
_STAYS = 0.8  # share of interactions within a favourite topic
_START, _STEP = 1_500_000_000, 2  # Unix seconds of the first, and between one and the next


def invent(folder: Path, rows: int, users: int, items: int, seed: int = 7) -> None:
    """Writes ``rows`` interactions as Parquet files of a million each, in order of time, users in random turn."""
    folder.mkdir(parents=True, exist_ok=True)
    activity = np.random.default_rng([seed, 0]).lognormal(0.0, 1.0, users).cumsum()
    activity /= activity[-1]
    for piece, begin in enumerate(range(0, rows, PIECE)):
        path = folder / f"interactions-{piece:04d}.parquet"
        if not path.exists():
            with atomic_path(path) as unfinished:
                _piece(begin, min(PIECE, rows - begin), activity, items, [seed, 1, piece]).write_parquet(unfinished)


def _piece(begin: int, count: int, activity: np.ndarray, items: int, seed: list[int]) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    users = np.minimum(np.searchsorted(activity, draw.random(count)), len(activity) - 1)
    topics = -(-items // _TOPIC)
    favourite = _mixed(users * _FAVOURITES + draw.integers(0, _FAVOURITES, count)) % topics
    anywhere = (topics ** draw.random(count)).astype(np.int64) - 1  # few topics are popular
    topic = np.where(draw.random(count) < _STAYS, favourite, anywhere)
    rank = (_TOPIC ** draw.random(count)).astype(np.int64) - 1  # few items of a topic are popular
    item = np.minimum(topic * _TOPIC + rank, items - 1)
    times = _START + _STEP * np.arange(begin, begin + count)
    return pl.DataFrame({"user_id": users, "item_id": item, "timestamp": times})


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers far apart for numbers next to each other (Steele et al., 2014), not negative."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed ^ (mixed >> np.uint64(27)) & np.uint64(2**62 - 1)).astype(np.int64) & np.int64(2**62 - 1)
