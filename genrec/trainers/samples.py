"""What a trained model makes up: next items for users drawn from the data, or the items of users who do not exist.

S samples, M items per sample, N items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich import box
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from genrec.contracts import IGNORE, GenrecError, Recommendations
from genrec.data.ragged import Ragged
from genrec.data.sequences import history_batch
from genrec.decoding.options import check_count, check_sampling
from genrec.tables import to_text
from genrec.trainers.evaluation import device_of, evaluating
from genrec.trainers.world import ALONE, World

_BATCH = 256  # users at a time
_NO_LIMIT = 1_000_000  # history length for models that take any
_SHOWN = 3  # items of a history in the table
_WIDTH = 150
_BLOCK = 64  # batches that are held at a time


@dataclass(frozen=True)
class Samples:
    """Generated ``items`` (S, M), filled with IGNORE, and the log-probability ``scores`` (S, M) with which each came.

    ``users`` (S,) and ``histories`` (S rows, oldest item first) say what each sample continues; None where it came from
    a prior. ``titles`` names the N items; without it they are called by their index. Prints as a table.
    """

    items: Tensor
    scores: Tensor
    users: np.ndarray | None = None
    histories: Ragged | None = None
    titles: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def rows(self) -> list[dict[str, Any]]:
        """Per sample: ``history`` and ``generated`` as lists of names, and the ``log_prob`` of all it generated."""
        histories = (
            [[] for _ in range(len(self))] if self.histories is None else [row.tolist() for row in self.histories]
        )
        return [
            {
                "history": [self.name(item) for item in history],
                "generated": [self.name(item) for item in items if item != IGNORE],
                "log_prob": sum(score for item, score in zip(items, scores, strict=True) if item != IGNORE),
            }
            for history, items, scores in zip(histories, self.items.tolist(), self.scores.tolist(), strict=True)
        ]

    def name(self, item: int) -> str:
        return f"item {item}" if self.titles is None else self.titles[item]

    def table(self) -> Table:
        """One sample per row; of a history its end, as what came last matters most."""
        table = Table(title=f"{len(self)} samples", title_justify="left", box=box.SIMPLE_HEAD, min_width=20)
        if self.histories is not None:
            table.add_column("history", overflow="fold")
        table.add_column("generated", overflow="fold")
        table.add_column("log-probability", justify="right")
        for row in self.rows():
            history = row["history"]
            shown = [*(["..."] if len(history) > _SHOWN else []), *history[-_SHOWN:]]
            first = [" > ".join(escape(name) for name in shown)] if self.histories is not None else []
            table.add_row(*first, ", ".join(escape(name) for name in row["generated"]) or "-", f"{row['log_prob']:.2f}")
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        return to_text(self.table(), width=_WIDTH)


def draw_samples(
    model: Any,
    data: Any,
    num_samples: int = 8,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    filter_seen: bool = False,
) -> Samples:
    """Samples of a model with ``generate`` (from its prior) or ``sample`` (after the histories of so many users).

    ``data`` is a data set or a sequence view; a data set also knows titles. A history is all that is known of a user,
    as nothing is held out here; users are drawn by ``seed``, each once while there are enough. The same seed gives the
    same samples, and the state of torch's own random numbers stays as it was.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    blocks = sample_blocks(model, data, num_samples, seed=seed, filter_seen=filter_seen, **options)
    return joined_samples(list(blocks))


def joined_samples(parts: Sequence[Samples]) -> Samples:
    """Samples of one model, one after the other."""
    if len(parts) == 1:
        return parts[0]
    users = [part.users for part in parts if part.users is not None]
    rows = [row for part in parts for row in part.histories or ()]
    return Samples(
        _stacked([part.items for part in parts]),
        _stacked([part.scores for part in parts]),
        np.concatenate(users) if users else None,
        Ragged.from_rows(rows) if users else None,
        parts[0].titles,
    )


def sample_blocks(
    model: Any,
    data: Any,
    num_samples: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    filter_seen: bool = False,
    world: World = ALONE,
) -> Iterator[Samples]:
    """The samples of ``draw_samples`` in pieces, each of ``_BLOCK`` batches.

    Of a ``world`` of several processes each takes some batches; the leader is given the samples, the others nothing. A
    batch has random numbers of its own, so it does not matter who draws it.
    """
    check_count(num_samples)
    check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    check_can_generate(model)
    prior = hasattr(model, "generate")
    view = None if prior else data.view(model.view) if hasattr(data, "view") else data
    users, histories = (None, None) if prior else _drawn_users(view, num_samples, seed)
    titles = getattr(data, "titles", None)

    def draw(rows: np.ndarray) -> Recommendations:
        number = seed if not rows[0] else int(np.random.SeedSequence([seed, int(rows[0])]).generate_state(1)[0])
        generator = torch.Generator(device_of(model)).manual_seed(number)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
        with evaluating(model, number):
            if users is None or histories is None:
                return model.generate(len(rows), **options)
            limit = getattr(model, "max_history", None) or _NO_LIMIT
            known = histories.take(rows)
            batch = history_batch(users[rows], known, max_history=limit, filter_seen=filter_seen)
            return model.sample(batch.to(device_of(model)), 1, **options)

    for begin in range(0, num_samples, _BLOCK * _BATCH):
        block = np.arange(begin, min(begin + _BLOCK * _BATCH, num_samples))
        batches = [block[first : first + _BATCH] for first in range(0, len(block), _BATCH)]
        found = [draw(rows) for rows in batches[world.rank :: world.size]]
        parts = world.brought([(one.items.cpu().numpy(), one.scores.float().cpu().numpy()) for one in found])
        if parts:
            in_order = [parts[place % world.size][place // world.size] for place in range(len(batches))]
            items, scores = (_stacked([torch.from_numpy(part) for part in of]) for of in zip(*in_order, strict=True))
            yield Samples(
                items,
                scores,
                None if users is None else users[block],
                None if histories is None else histories.take(block),
                titles,
            )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """(S, M) of all rows; narrower parts are filled, items with IGNORE."""
    width = max(part.shape[1] for part in parts)
    fill = 0 if parts[0].is_floating_point() else IGNORE
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])


def check_can_generate(model: Any) -> None:
    """Raises GenrecError for a model that only ranks or codes."""
    if not hasattr(model, "generate") and not hasattr(model, "sample"):
        raise GenrecError(
            f"{type(model).__name__} generates nothing: it has neither a method generate nor sample. "
            "Use model=tiger or model=tiger_item, which sample next items, or model=vae, which samples from a prior."
        )


def _drawn_users(view: Any, count: int, seed: int) -> tuple[np.ndarray, Ragged]:
    """``count`` users with a history, and these histories."""
    history: Ragged = view.history("all")
    known = np.flatnonzero(history.lengths > 0)
    if not len(known):
        raise GenrecError("No user of the data has any items, so there is no history to continue. Use other data.")
    users = np.random.default_rng([seed, 13]).choice(known, count, replace=count > len(known))
    return users, history.take(users)
