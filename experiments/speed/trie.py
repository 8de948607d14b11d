"""Building the trie of a large catalogue: seconds, and bytes an item."""

from __future__ import annotations

from collections.abc import Iterator

from experiments.speed import data
from experiments.speed.measure import Contender, Task, Work
from experiments.speed.setting import Setting
from experiments.speed.t5 import prefix_lists
from genrec.decoding.trie import Trie
from genrec.semantic_ids import SemanticIds

REFERENCE = "dictionary of prefixes"


def tasks(setting: Setting) -> Iterator[Task]:
    yield _task(setting, 1_000_000, "< 0.5 s", peer=True)
    if not setting.quick:
        yield _task(setting, 10_000_000, "", peer=False)


def _task(setting: Setting, num_items: int, target: str, *, peer: bool) -> Task:
    ids = data.random_ids(num_items)
    trie = Trie.from_codes(ids.codes, ids.codebook_sizes)
    ours = Contender(
        name="genrec Trie.from_codes",
        ours=True,
        call=lambda: _build(ids),
        settings="flat int32 arrays, one sort of integers",
        note=f"{trie.nbytes / num_items:.1f} bytes an item (at most 32 are allowed)",
        target=target,
        floor=setting.machine.floor(0.0, ids.codes.nbytes + trie.nbytes),
    )
    python = Contender(
        name=REFERENCE,
        call=lambda: _dictionary(ids),
        settings="what prefix_allowed_tokens_fn is usually given: tuples to lists of tokens",
    )
    return Task(
        name=f"Trie of {num_items:,} items",
        unit="s",
        contenders=[python, ours] if peer else [ours],
        reference=REFERENCE if peer else "",
        rounds=1 if num_items > 1_000_000 else None,
    )


def _build(ids: SemanticIds) -> Work:
    Trie.from_codes(ids.codes, ids.codebook_sizes)
    return Work(1.0)


def _dictionary(ids: SemanticIds) -> Work:
    prefix_lists(ids)
    return Work(1.0)
