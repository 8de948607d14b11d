"""A finished run and a history in, items out: ``python -m genrec.recommend run=latest history=[12,7,99]``.

At this point nothing is held out: the history of a user is everything the data set knows of them.
"""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.artifacts import atomic_path, read_json
from genrec.contracts import IGNORE, GenrecError, Task

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from rich.console import Console

    from genrec.data.ragged import Ragged
    from genrec.explanations import Explainer
    from genrec.pipeline import LoadedRun

log = logging.getLogger("genrec.recommend")

HELP = """genrec-recommend: what a finished run recommends.

  python -m genrec.recommend run=latest user=42                     one user of the data set, by its id there
  python -m genrec.recommend run=latest history=[12,7,99]           any history, by item ids, oldest first
  python -m genrec.recommend run=latest users=all output=recs.parquet
  python -m genrec.recommend run=latest user=42 k=3 explain=true picture=why.svg

Keys
  run=latest        a run folder, or latest: the newest finished run with recommendations below runs_dir
  user=ID           | one of these three
  history=[ID,...]  |
  users=all         | or users=[ID,...]
  output=FILE       .parquet, .csv or .jsonl: user_id, rank, item_id, title, score (needed with users=all)
  k=10              how many items
  explain=BOOL      say why, of each item for user= (models gat, lightgcn and xsimgcl)
  picture=FILE.svg  draw the paths to the first of the items; it includes explain=true
  filter_seen=BOOL  leave out what is in the history; default: as the run was evaluated
  checkpoint=best   best or final
  batch_size=256    users at a time, for users=
  runs_dir=outputs  where run=latest looks
"""

ALLOWED_KEYS = (
    "run", "user", "history", "users", "output", "k", "filter_seen", "checkpoint", "batch_size", "runs_dir",
    "explain", "picture",
)  # fmt: skip
CHECKPOINTS = ("best", "final")
HISTORY_ROWS = 20
WRITERS = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


@dataclass(frozen=True)
class Request:
    """The command line, checked: exactly one of ``user``, ``history`` and ``users`` is given; ``users=()`` is all."""

    run: str = "latest"
    user: str | None = None
    history: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    output: Path | None = None
    k: int = 10
    filter_seen: bool | None = None
    checkpoint: str = "best"
    batch_size: int = 256
    runs_dir: Path = Path("outputs")
    explain: bool = False
    picture: Path | None = None


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
        frame = self._recommend(np.array([IGNORE]), Ragged.from_rows([self._indices(items).tolist()]), k)
        return frame.drop("row")

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
        import numpy as np
        import polars as pl

        if users is None:
            chosen = np.arange(self.dataset.num_users)
        else:
            chosen = np.array([self.dataset.user_index(user) for user in users], dtype=np.int64)
        histories = self.dataset.sequences.history("all").take(chosen)
        # Users with histories of like length share a batch, so that little of it is padding.
        order = np.argsort(np.minimum(histories.lengths, self.model.max_history), kind="stable")
        frames = []
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            frame = self._recommend(chosen[rows], histories.take(rows), k)
            frames.append(frame.with_columns(pl.Series("row", rows)[frame["row"]]))
            if on_batch is not None:
                on_batch(len(rows))
        table = pl.concat(frames).sort("row", "rank")
        user_ids = pl.Series("user_id", self.dataset.log.user_ids[chosen[table["row"].to_numpy()]])
        return table.drop("row").insert_column(0, user_ids)

    def _recommend(self, users: np.ndarray, histories: Ragged, k: int) -> pl.DataFrame:
        """Recommendations for internal user indices and histories of item indices; ``row`` says for which of them."""
        import numpy as np
        import polars as pl
        import torch

        from genrec.data.sequences import history_batch

        if not 1 <= k <= self.dataset.num_items:
            raise GenrecError(f"k={k}: give a number from 1 to {self.dataset.num_items}, the size of the catalogue.")
        batch = history_batch(users, histories, max_history=self.model.max_history, filter_seen=self.filter_seen)
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            found = self.model.recommend(batch.to(device), k)
        items, scores = found.items.cpu().numpy(), found.scores.double().cpu().numpy()
        row, place = np.nonzero(items != IGNORE)
        named = self._named(items[row, place])
        first = pl.DataFrame({"row": row, "rank": place + 1})
        return pl.concat([first, named, pl.DataFrame({"score": scores[row, place]})], how="horizontal")

    def _indices(self, items: Sequence[int | str]) -> np.ndarray:
        import numpy as np

        return np.array([self.dataset.item_index(item) for item in items], dtype=np.int64)

    def _named(self, items: np.ndarray) -> pl.DataFrame:
        import polars as pl

        titles = [self.dataset.titles[item] for item in items.tolist()]
        return pl.DataFrame({"item_id": self.dataset.log.item_ids[items], "title": pl.Series(titles, dtype=pl.String)})


def main() -> None:
    """Console entry: prints or writes recommendations; a mistake of the user is one sentence and exit code 2."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(HELP)
        return
    try:
        answer(parse(arguments))
    except GenrecError as error:
        sys.stderr.write(f"genrec-recommend: {error}\n")
        sys.exit(2)


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
        output=Path(given["output"]) if "output" in given else None,
        k=_count("k", given.get("k", "10")),
        filter_seen=_truth("filter_seen", given["filter_seen"]) if "filter_seen" in given else None,
        checkpoint=given.get("checkpoint", "best"),
        batch_size=_count("batch_size", given.get("batch_size", "256")),
        runs_dir=Path(given.get("runs_dir", "outputs")),
        explain=_truth("explain", given["explain"]) if "explain" in given else "picture" in given,
        picture=Path(given["picture"]) if "picture" in given else None,
    )
    return _checked(request)


def _checked(request: Request) -> Request:
    if sum(value is not None for value in (request.user, request.history, request.users)) != 1:
        raise GenrecError("Say for whom: exactly one of user=ID, history=[ID,ID] and users=all.")
    if request.checkpoint not in CHECKPOINTS:
        raise GenrecError(f"checkpoint={request.checkpoint}: the choices are {' and '.join(CHECKPOINTS)}.")
    if request.users == () and request.output is None:
        raise GenrecError("users=all is a long table: say where to write it, for example output=recs.parquet.")
    if request.output is not None and request.output.suffix not in WRITERS:
        raise GenrecError(f"output={request.output}: the name must end in {', '.join(WRITERS)}.")
    if (request.explain or request.picture is not None) and request.user is None:
        raise GenrecError("explain=true says why of one user of the data: give user=ID with it.")
    if request.picture is not None and request.picture.suffix != ".svg":
        raise GenrecError(f"picture={request.picture}: the name must end in .svg.")
    return request


def check_folder(folder: Path) -> None:
    """Says in one sentence why ``folder`` cannot recommend anything, if so."""
    if not folder.is_dir():
        raise GenrecError(f"run={folder}: there is no such folder. Give one below outputs/, or run=latest.")
    if not (folder / "config.yaml").exists() or not (folder / "run.json").exists():
        raise GenrecError(f"run={folder} is no run folder: config.yaml and run.json are not both in it.")
    state = read_json(folder / "run.json").get("state")
    if state != "finished":
        raise GenrecError(
            f"run={folder} has not finished (its state is {state!r}). Continue it: repeat its command with resume=auto."
        )


def latest_run(runs_dir: Path) -> Path:
    """The newest finished run of a retrieval model below ``runs_dir``."""
    found = []
    for path in runs_dir.glob("**/run.json"):
        record = read_json(path)
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
    return metrics.exists() and any(name.startswith("test/recall@") for name in read_json(metrics)["final"])


def answer(request: Request, console: Console | None = None) -> None:
    """Loads the run, computes, and prints tables or writes the file."""
    from rich.console import Console

    console = console or Console()
    folder = latest_run(request.runs_dir) if request.run == "latest" else Path(request.run)
    recommender = Recommender.load(folder, checkpoint=request.checkpoint, filter_seen=request.filter_seen)
    explainer = _explainer(recommender) if request.explain else None
    if request.users is not None:
        frame = _for_many(recommender, request, console)
    elif request.user is not None:
        _print_history(recommender.history_of(request.user), f"History of user {request.user}", console)
        frame = recommender.for_user(request.user, request.k)
    else:
        assert request.history is not None
        frame = recommender.for_history(request.history, request.k)
        _print_history(recommender.named(request.history), "History", console)
    if request.users is None:
        _print(frame, f"Recommended by {folder}", console)
    if explainer is not None:
        _explain(explainer, recommender, request, frame, console)
    if request.output is not None:
        with atomic_path(request.output) as temporary:
            getattr(frame, WRITERS[request.output.suffix])(temporary)
        console.print(f"{len(frame):,} rows in {request.output}", highlight=False, markup=False, soft_wrap=True)
    elif request.users is not None:
        for (user,), rows in frame.group_by("user_id", maintain_order=True):
            _print(rows, f"Recommended to user {user}", console)


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


def _for_many(recommender: Recommender, request: Request, console: Console) -> pl.DataFrame:
    from rich.progress import Progress

    total = len(request.users or ()) or recommender.dataset.num_users
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("users", total=total)
        return recommender.for_users(
            list(request.users or ()) or None,
            k=request.k,
            batch_size=request.batch_size,
            on_batch=lambda count: progress.advance(bar, count),
        )


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
