"""A finished run and a history in, items out: ``python -m genrec.recommend run=latest history=[12,7,99]``.

At this point nothing is held out: the history of a user is everything the data set knows of them.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.artifacts import atomic_path, read_json
from genrec.command import SHARED_HELP, SHARED_KEYS, device_of, run_command, shared_options, sharing
from genrec.contracts import IGNORE, GenrecError, Task
from genrec.remote.addresses import shown
from genrec.table_writer import TableWriter, check_output, output_of

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from rich.console import Console

    from genrec.data.ragged import Ragged
    from genrec.explanations import Explainer
    from genrec.pipeline import LoadedRun
    from genrec.trainers.world import World

log = logging.getLogger("genrec.recommend")

HELP = f"""genrec-recommend: what a finished run recommends.

  python -m genrec.recommend run=latest user=42                     one user of the data set, by its id there
  python -m genrec.recommend run=latest history=[12,7,99]           any history, by item ids, oldest first
  python -m genrec.recommend run=latest users=all output=recs.parquet
  python -m genrec.recommend run=latest user=42 k=3 explain=true picture=why.svg

Keys
  run=latest        a run folder, or latest: the newest finished run with recommendations below runs_dir
  user=ID           | one of these three
  history=[ID,...]  |
  users=all         | or users=[ID,...]
  output=FILE       .parquet, .csv or .jsonl: user_id, rank, item_id, title, score (needed with users=all);
                    a file here, or an address such as s3://bucket/recs.parquet
  k=10              how many items
  explain=BOOL      say why, of each item for user= (models gat, lightgcn and xsimgcl)
  picture=FILE.svg  draw the paths to the first of the items; it includes explain=true
  filter_seen=BOOL  leave out what is in the history; default: as the run was evaluated
  checkpoint=best   best or final
  batch_size=256    users at a time, for users=
{SHARED_HELP}  runs_dir=outputs  where run=latest looks
"""

ALLOWED_KEYS = (
    "run", "user", "history", "users", "output", "k", "filter_seen", "checkpoint", "batch_size", "runs_dir",
    "explain", "picture", *SHARED_KEYS,
)  # fmt: skip
CHECKPOINTS = ("best", "final")
HISTORY_ROWS = 20
BLOCK = 128  # batches of users whose lists are held at a time


@dataclass(frozen=True)
class Request:
    """The command line, checked: exactly one of ``user``, ``history`` and ``users`` is given; ``users=()`` is all."""

    run: str = "latest"
    user: str | None = None
    history: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    output: Path | str | None = None
    k: int = 10
    filter_seen: bool | None = None
    checkpoint: str = "best"
    batch_size: int = 256
    runs_dir: Path = Path("outputs")
    explain: bool = False
    picture: Path | None = None
    processes: int = 1
    device: str = "auto"


class Recommender:
    """A trained model together with the names of the things it recommends.

    Users and items are raw ids, as they stand in the data. Results are polars frames, best first, with the columns
    ``rank`` (from 1), ``item_id``, ``title`` and ``score``.
    """

    def __init__(self, run: LoadedRun, filter_seen: bool | None = None) -> None:
        if run.model.task is not Task.RETRIEVAL:
            raise GenrecError(
                f"This run trained a {run.model.task.value} ({type(run.model).__name__}), which recommends nothing. "
                "Give the run of a retrieval model, for example of model=tiger."
            )
        self.dataset = run.dataset
        self.model = run.model
        self.filter_seen = bool(run.config.filter_seen) if filter_seen is None else filter_seen

    @classmethod
    def load(cls, folder: Path | str, *, checkpoint: str = "best", filter_seen: bool | None = None) -> Recommender:
        """Rebuilds the model of a finished run; ``filter_seen=None`` keeps the protocol it was evaluated under."""
        from genrec.pipeline import load_run

        check_folder(Path(folder))
        return cls(load_run(Path(folder), checkpoint), filter_seen)

    def history_of(self, user: int | str) -> pl.DataFrame:
        """Everything known of a user, oldest first: ``item_id`` and ``title``."""
        return self._named(self.dataset.sequences.history("all")[self.dataset.user_index(user)])

    def named(self, items: Sequence[int | str]) -> pl.DataFrame:
        """The given items in the given order: ``item_id`` and ``title``."""
        return self._named(self._indices(items))

    def for_user(self, user: int | str, k: int = 10) -> pl.DataFrame:
        """The ``k`` best items for a user of the data set."""
        return self.for_users([user], k=k).drop("user_id")

    def for_history(self, items: Sequence[int | str], k: int = 10) -> pl.DataFrame:
        """The ``k`` best items after a history of items, oldest first; the user need not be in the data set."""
        import numpy as np

        from genrec.data.ragged import Ragged

        if not len(items):
            raise GenrecError("The history is empty. Give at least one item id: history=[12,7,99].")
        return self._frame(*self._find(np.array([IGNORE]), Ragged.from_rows([self._indices(items).tolist()]), k))[1]

    def for_users(
        self,
        users: Sequence[int | str] | None = None,
        k: int = 10,
        batch_size: int = 256,
        on_batch: Callable[[int], None] | None = None,
    ) -> pl.DataFrame:
        """The ``k`` best items for each of ``users`` (None: everyone), with a first column ``user_id``.

        ``on_batch`` is called after each batch with the number of users in it.
        """
        import polars as pl

        return pl.concat(list(self.in_blocks(users, k, batch_size, on_batch)))

    def in_blocks(
        self,
        users: Sequence[int | str] | None = None,
        k: int = 10,
        batch_size: int = 256,
        on_batch: Callable[[int], None] | None = None,
        world: World | None = None,
    ) -> Iterator[pl.DataFrame]:
        """The table of ``for_users`` in pieces of ``BLOCK`` batches.

        Of a ``world`` of several processes each takes some batches; the leader is given the table, the others nothing.
        """
        import numpy as np

        from genrec.trainers.world import ALONE

        world = world or ALONE
        if users is None:
            chosen = np.arange(self.dataset.num_users)
        else:
            chosen = np.array([self.dataset.user_index(user) for user in users], dtype=np.int64)
        known = self.dataset.sequences.history("all")
        size = BLOCK * batch_size
        for begin in range(0, max(len(chosen), 1), size):  # of nobody the columns
            part = chosen[begin : begin + size]
            histories = known.take(part)
            # Users with histories of like length share a batch, so that little of it is padding.
            order = np.argsort(np.minimum(histories.lengths, self.model.max_history), kind="stable")
            batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
            found = []
            for rows in batches[world.rank :: world.size]:
                found.append((rows, *self._find(part[rows], histories.take(rows), k)))
                if on_batch is not None:
                    on_batch(len(rows))
            parts = world.brought(found)
            if not parts:
                continue
            if on_batch is not None:
                on_batch(sum(len(rows) for theirs in parts[1:] for rows, _, _ in theirs))
            yield self._table(part, [one for theirs in parts for one in theirs], k)

    def _table(self, users: np.ndarray, found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], k: int) -> pl.DataFrame:
        """Recommendations ``found`` for some rows of ``users`` each, in the order of ``users``."""
        import numpy as np
        import polars as pl

        items, scores = np.full((len(users), k), IGNORE, dtype=np.int64), np.zeros((len(users), k))
        for rows, some_items, some_scores in found:
            items[rows, : some_items.shape[1]], scores[rows, : some_items.shape[1]] = some_items, some_scores
        row, frame = self._frame(items, scores)
        return frame.insert_column(0, pl.Series("user_id", self.dataset.log.user_ids[users[row]]))

    def _find(self, users: np.ndarray, histories: Ragged, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Items (B, k), filled with IGNORE, and scores (B, k) for user indices and histories of item indices."""
        import torch

        from genrec.data.sequences import history_batch

        if not 1 <= k <= self.dataset.num_items:
            raise GenrecError(f"k={k}: give a number from 1 to {self.dataset.num_items}, the size of the catalogue.")
        batch = history_batch(users, histories, max_history=self.model.max_history, filter_seen=self.filter_seen)
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            found = self.model.recommend(batch.to(device), k)
        return found.items.cpu().numpy(), found.scores.cpu().double().numpy()

    def _frame(self, items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, pl.DataFrame]:
        """The row of each recommendation, and their table."""
        import numpy as np
        import polars as pl

        row, place = np.nonzero(items != IGNORE)
        columns = [pl.DataFrame({"rank": place + 1}), self._named(items[row, place])]
        return row, pl.concat([*columns, pl.DataFrame({"score": scores[row, place]})], how="horizontal")

    def _indices(self, items: Sequence[int | str]) -> np.ndarray:
        import numpy as np

        return np.array([self.dataset.item_index(item) for item in items], dtype=np.int64)

    def _named(self, items: np.ndarray) -> pl.DataFrame:
        import polars as pl

        return pl.DataFrame({"item_id": self.dataset.log.item_ids[items], "title": self._titles.gather(items)})

    @cached_property
    def _titles(self) -> pl.Series:
        import polars as pl

        return pl.Series("title", list(self.dataset.titles), dtype=pl.String)


def main() -> None:
    """Console entry: prints or writes recommendations; a mistake of the user is one sentence and exit code 2."""
    run_command("genrec-recommend", HELP, parse, answer)


def parse(arguments: Sequence[str]) -> Request:
    """The command line as a ``Request``; every fault is a GenrecError that says what is allowed."""
    given: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or key not in ALLOWED_KEYS:
            raise GenrecError(_unknown(argument, key))
        given[key] = value.strip()
    request = Request(
        run=given.get("run", "latest"),
        user=given.get("user"),
        history=_listed("history", given["history"]) if "history" in given else None,
        users=_users(given["users"]) if "users" in given else None,
        output=output_of(given["output"]) if "output" in given else None,
        k=_count("k", given.get("k", "10")),
        filter_seen=_truth("filter_seen", given["filter_seen"]) if "filter_seen" in given else None,
        checkpoint=given.get("checkpoint", "best"),
        batch_size=_count("batch_size", given.get("batch_size", "256")),
        runs_dir=Path(given.get("runs_dir", "outputs")),
        explain=_truth("explain", given["explain"]) if "explain" in given else "picture" in given,
        picture=Path(given["picture"]) if "picture" in given else None,
        **shared_options(given),
    )
    return _checked(request)


def _checked(request: Request) -> Request:
    if sum(value is not None for value in (request.user, request.history, request.users)) != 1:
        raise GenrecError("Say for whom: exactly one of user=ID, history=[ID,ID] and users=all.")
    if request.checkpoint not in CHECKPOINTS:
        raise GenrecError(f"checkpoint={request.checkpoint}: the choices are {' and '.join(CHECKPOINTS)}.")
    if request.users == () and request.output is None:
        raise GenrecError("users=all is a long table: say where to write it, for example output=recs.parquet.")
    if request.output is not None:
        check_output(request.output)
    if (request.explain or request.picture is not None) and request.user is None:
        raise GenrecError("explain=true says why of one user of the data: give user=ID with it.")
    if request.processes > 1 and request.users is None:
        raise GenrecError(f"processes={request.processes} divides many users: give users=all or users=[ID,ID] with it.")
    if request.picture is not None and request.picture.suffix != ".svg":
        raise GenrecError(f"picture={request.picture}: the name must end in .svg.")
    return request


def check_folder(folder: Path) -> None:
    """Says in one sentence why ``folder`` cannot recommend anything, if so."""
    if not folder.is_dir():
        raise GenrecError(f"run={folder}: there is no such folder. Give one below outputs/, or run=latest.")
    if not (folder / "config.yaml").exists() or not (folder / "run.json").exists():
        raise GenrecError(f"run={folder} is no run folder: config.yaml and run.json are not both in it.")
    state = read_json(folder / "run.json", dict).get("state")
    if state != "finished":
        raise GenrecError(
            f"run={folder} has not finished (its state is {state!r}). Continue it: repeat its command with resume=auto."
        )


def latest_run(runs_dir: Path) -> Path:
    """The newest finished run of a retrieval model below ``runs_dir``."""
    found = []
    for path in runs_dir.glob("**/run.json"):
        record = read_json(path, dict)
        if record.get("state") == "finished" and _recommends(path.parent):
            found.append((record.get("started", 0.0), path.parent))
    if not found:
        raise GenrecError(
            f"run=latest: no finished run of a retrieval model below {runs_dir}/. Train one: python -m genrec.run"
        )
    return max(found)[1]


def _recommends(folder: Path) -> bool:
    """Only retrieval runs measure recall, so the question costs no look at data or weights."""
    metrics = folder / "metrics.json"
    return metrics.exists() and any(
        name.startswith("test/recall@") for name in read_json(metrics, dict).get("final") or {}
    )


def answer(request: Request, console: Console | None = None) -> None:
    """Loads the run, computes, and prints tables or writes the file."""
    from rich.console import Console

    console = console or Console()
    folder = latest_run(request.runs_dir) if request.run == "latest" else Path(request.run)
    if request.users is not None:
        _answer_many(replace(request, run=str(folder)), console)
        return
    recommender = Recommender.load(folder, checkpoint=request.checkpoint, filter_seen=request.filter_seen)
    explainer = _explainer(recommender) if request.explain else None
    if request.user is not None:
        _print_history(recommender.history_of(request.user), f"History of user {request.user}", console)
        frame = recommender.for_user(request.user, request.k)
    else:
        assert request.history is not None
        frame = recommender.for_history(request.history, request.k)
        _print_history(recommender.named(request.history), "History", console)
    _print(frame, f"Recommended by {folder}", console)
    if explainer is not None:
        _explain(explainer, recommender, request, frame, console)
    if request.output is not None:
        with TableWriter(request.output) as table:
            table.add(frame)
        _told(len(frame), request.output, console)


def _answer_many(request: Request, console: Console) -> None:
    """The part of ``answer`` that several processes can share; ``request.run`` is the folder of the run."""
    check_folder(Path(request.run))  # before others are started
    if request.output is None:
        with sharing("recommend", request) as world:
            for frame in _lists(request, world, console):
                for (user,), rows in frame.group_by("user_id", maintain_order=True):
                    _print(rows, f"Recommended to user {user}", console)
        return
    table = TableWriter(request.output)
    with sharing("recommend", request, table.discard) as world, table:
        for frame in _lists(request, world, console):
            table.add(frame)
    if world.leads:
        _told(table.num_rows, request.output, console)


def take_part(request: Request, world: World) -> None:
    """What a process that does not lead does of the request."""
    for _ in _lists(request, world, None):
        pass


def _lists(request: Request, world: World, console: Console | None) -> Iterator[pl.DataFrame]:
    """The table of all users that are asked for, in pieces, in the leader; progress is shown on its ``console``."""
    import torch
    from rich.progress import Progress

    device = device_of(request, world)
    recommender = Recommender.load(Path(request.run), checkpoint=request.checkpoint, filter_seen=request.filter_seen)
    if isinstance(recommender.model, torch.nn.Module):
        recommender.model.to(device)
    world = world.met(torch.device("cpu"))  # what is sent are lists
    users = list(request.users or ()) or None
    with Progress(console=console, transient=True, disable=console is None or not world.leads) as progress:
        bar = progress.add_task("users", total=len(users or ()) or recommender.dataset.num_users)
        yield from recommender.in_blocks(
            users, request.k, request.batch_size, lambda count: progress.advance(bar, count), world
        )


def _told(count: int, output: Path | str, console: Console) -> None:
    console.print(f"{count:,} rows in {shown(str(output))}", highlight=False, markup=False, soft_wrap=True)


def _explainer(recommender: Recommender) -> Explainer:
    from genrec.explanations import Explainer

    return Explainer(recommender.model)


def _explain(
    explainer: Explainer, recommender: Recommender, request: Request, frame: pl.DataFrame, console: Console
) -> None:
    """Why each item of the list, and the picture of the first."""
    from genrec.explanation_view import Names, draw, explanation_table

    dataset = recommender.dataset
    names = Names(dataset, explainer.model.graph)
    assert request.user is not None
    user = dataset.user_index(request.user)
    found = [explainer.explain(user, dataset.item_index(item)) for item in frame["item_id"].to_list()]
    for explanation in found:
        console.print(explanation_table(explanation, names))
    if request.picture is not None and found:
        with atomic_path(request.picture) as temporary:
            temporary.write_text(draw(found[0], names), encoding="utf-8")
        console.print(f"The paths to the first item: {request.picture}", highlight=False, markup=False, soft_wrap=True)


def _print_history(frame: pl.DataFrame, title: str, console: Console) -> None:
    """A long history is shown from its end: what came last matters most."""
    shown = frame.tail(HISTORY_ROWS)
    cut = f", the last {len(shown)} of {len(frame)} items" if len(shown) < len(frame) else ""
    _print(shown, title + cut, console)


def _print(frame: pl.DataFrame, title: str, console: Console) -> None:
    from genrec.tables import items_table

    console.print(items_table(frame.to_dicts(), title=title))


def _unknown(argument: str, key: str) -> str:
    near = difflib.get_close_matches(key, ALLOWED_KEYS, n=1)
    hint = f" Did you mean {near[0]}=?" if near and near[0] != key else ""
    if key in ALLOWED_KEYS:
        return f"{argument!r} needs a value: {key}=..."
    return f"{argument!r} is not known here.{hint} The keys are {', '.join(ALLOWED_KEYS)}; --help explains them."


def _listed(key: str, text: str) -> tuple[str, ...]:
    """Ids between brackets, separated by commas; quotes around one are taken off."""
    if not (text.startswith("[") and text.endswith("]")):
        raise GenrecError(f"{key}={text}: give the ids between brackets, for example {key}=[12,7,99].")
    return tuple(word for part in text[1:-1].split(",") if (word := part.strip().strip("'\"")))


def _users(text: str) -> tuple[str, ...]:
    if text == "all":
        return ()
    users = _listed("users", text) if text.startswith("[") else ()
    if not users:
        raise GenrecError(f"users={text}: give users=all or a list such as users=[3,14]; for a single one, user=3.")
    return users


def _count(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise GenrecError(f"{key}={text}: give a whole number of 1 or more.")
    return int(text)


def _truth(key: str, text: str) -> bool:
    known: dict[str, Any] = {"true": True, "false": False}
    if text.lower() not in known:
        raise GenrecError(f"{key}={text}: give true or false.")
    return known[text.lower()]


if __name__ == "__main__":
    main()
