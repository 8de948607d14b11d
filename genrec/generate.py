"""What a finished run makes up: ``python -m genrec.generate run=latest num_samples=8 temperature=0.8``.

TIGER continues the histories of users drawn from the data; the VAE draws whole users from its prior.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.artifacts import atomic_path
from genrec.contracts import IGNORE, GenrecError
from genrec.decoding.options import check_count, check_sampling
from genrec.recommend import CHECKPOINTS, WRITERS, check_folder, latest_run

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from genrec.pipeline import LoadedRun
    from genrec.trainers.samples import Samples

HELP = """genrec-generate: what a finished run makes up.

  python -m genrec.generate run=latest                              next items for users drawn from the data, or
                                                                    the items of made-up users (model=vae)
  python -m genrec.generate outputs/mine num_samples=8 temperature=0.8 top_p=0.9 seed=1
  python -m genrec.generate run=latest num_samples=1000 output=samples.parquet

Keys
  run=latest        a run folder, with or without run=; or latest: the newest finished run with recommendations
  num_samples=8     how many
  temperature=1.0   above 0; below 1 more certain, above 1 more varied
  top_k=0           draw from this many choices only; 0: from all
  top_p=1.0         draw from the fewest choices that hold this share only; 1: from all
  seed=0            the same seed draws the same samples
  output=FILE       .parquet, .csv or .jsonl: sample, user_id, place, item_id, title, log_prob
  filter_seen=BOOL  leave out what is in the history; default: as the run was evaluated
  checkpoint=best   best or final
  runs_dir=outputs  where run=latest looks
"""

ALLOWED_KEYS = (
    "run", "num_samples", "temperature", "top_k", "top_p", "seed", "output", "filter_seen", "checkpoint", "runs_dir",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """The command line, checked."""

    run: str = "latest"
    num_samples: int = 8
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    output: Path | None = None
    filter_seen: bool | None = None
    checkpoint: str = "best"
    runs_dir: Path = Path("outputs")


def main() -> None:
    """Console entry: prints or writes samples; a mistake of the user is one sentence and exit code 2."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(HELP)
        return
    try:
        answer(parse(arguments))
    except GenrecError as error:
        sys.stderr.write(f"genrec-generate: {error}\n")
        sys.exit(2)


def parse(arguments: Sequence[str]) -> Request:
    """The command line as a ``Request``; every fault is a GenrecError that says what is allowed."""
    given: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        key, separator, value = argument.partition("=")
        if place == 0 and not separator and key not in ALLOWED_KEYS:
            key, separator, value = "run", "=", argument
        if not separator or key not in ALLOWED_KEYS:
            raise GenrecError(_unknown(argument, key))
        given[key] = value.strip()
    request = Request(
        run=given.get("run", "latest"),
        num_samples=_whole("num_samples", given.get("num_samples", "8")),
        temperature=_number("temperature", given.get("temperature", "1")),
        top_k=_whole("top_k", given.get("top_k", "0")),
        top_p=_number("top_p", given.get("top_p", "1")),
        seed=_whole("seed", given.get("seed", "0")),
        output=Path(given["output"]) if "output" in given else None,
        filter_seen=_truth("filter_seen", given["filter_seen"]) if "filter_seen" in given else None,
        checkpoint=given.get("checkpoint", "best"),
        runs_dir=Path(given.get("runs_dir", "outputs")),
    )
    return _checked(request)


def _checked(request: Request) -> Request:
    check_count(request.num_samples)
    check_sampling(temperature=request.temperature, top_k=request.top_k, top_p=request.top_p)
    if request.seed < 0:
        raise GenrecError(f"seed={request.seed}: give a whole number of 0 or more.")
    if request.checkpoint not in CHECKPOINTS:
        raise GenrecError(f"checkpoint={request.checkpoint}: the choices are {' and '.join(CHECKPOINTS)}.")
    if request.output is not None and request.output.suffix not in WRITERS:
        raise GenrecError(f"output={request.output}: the name must end in {', '.join(WRITERS)}.")
    return request


def load(folder: Path, checkpoint: str) -> LoadedRun:
    """The finished run in ``folder``, with a model that can generate."""
    from genrec.pipeline import load_run
    from genrec.trainers.samples import check_can_generate

    check_folder(folder)
    run = load_run(folder, checkpoint)
    check_can_generate(run.model)
    return run


def answer(request: Request, console: Console | None = None) -> None:
    """Loads the run, draws, and prints a table or writes the file."""
    from rich.console import Console

    from genrec.trainers.samples import draw_samples

    console = console or Console()
    folder = latest_run(request.runs_dir) if request.run == "latest" else Path(request.run)
    run = load(folder, request.checkpoint)
    samples = draw_samples(
        run.model,
        run.dataset,
        request.num_samples,
        seed=request.seed,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        filter_seen=bool(run.config.filter_seen) if request.filter_seen is None else request.filter_seen,
    )
    if request.output is None:
        console.print(samples)
        return
    frame = to_frame(samples, run)
    with atomic_path(request.output) as temporary:
        getattr(frame, WRITERS[request.output.suffix])(temporary)
    console.print(f"{len(frame):,} rows in {request.output}", highlight=False, markup=False, soft_wrap=True)


def to_frame(samples: Samples, run: LoadedRun) -> pl.DataFrame:
    """One row per generated item; ``user_id`` only where samples continue the histories of users."""
    import numpy as np
    import polars as pl

    items, scores = samples.items.numpy(), samples.scores.double().numpy()
    sample, place = np.nonzero(items != IGNORE)
    chosen = items[sample, place]
    users = {} if samples.users is None else {"user_id": run.dataset.log.user_ids[samples.users[sample]]}
    return pl.DataFrame(
        {
            "sample": sample + 1,
            **users,
            "place": place + 1,
            "item_id": run.dataset.log.item_ids[chosen],
            "title": pl.Series([samples.name(item) for item in chosen.tolist()], dtype=pl.String),
            "log_prob": scores[sample, place],
        }
    )


def _unknown(argument: str, key: str) -> str:
    if key in ALLOWED_KEYS:
        return f"{argument!r} needs a value: {key}=..."
    near = difflib.get_close_matches(key, ALLOWED_KEYS, n=1)
    hint = f" Did you mean {near[0]}=?" if near else ""
    return f"{argument!r} is not known here.{hint} The keys are {', '.join(ALLOWED_KEYS)}; --help explains them."


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise GenrecError(f"{key}={text}: give a whole number.") from None


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise GenrecError(f"{key}={text}: give a number, for example {key}=0.9.") from None


def _truth(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise GenrecError(f"{key}={text}: give true or false.")
    return text.lower() == "true"


if __name__ == "__main__":
    main()
