"""What a finished run makes up: ``python -m genrec.generate run=latest num_samples=8 temperature=0.8``.

TIGER continues the histories of users drawn from the data; the VAE draws whole users from its prior.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.command import SHARED_HELP, SHARED_KEYS, device_of, run_command, shared_options, sharing
from genrec.contracts import IGNORE, GenrecError
from genrec.decoding.options import check_count, check_sampling
from genrec.recommend import CHECKPOINTS, check_folder, latest_run
from genrec.remote.addresses import shown
from genrec.table_writer import TableWriter, check_output, output_of

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from genrec.pipeline import LoadedRun
    from genrec.trainers.samples import Samples
    from genrec.trainers.world import World

HELP = f"""genrec-generate: what a finished run makes up.

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
                    (default of these three: the run's trainer.generation_..., where its trainer has them)
  seed=0            the same seed draws the same samples
  output=FILE       .parquet, .csv or .jsonl: sample, user_id, place, item_id, title, log_prob
  filter_seen=BOOL  leave out what is in the history; default: as the run was evaluated
  checkpoint=best   best or final
{SHARED_HELP}  runs_dir=outputs  where run=latest looks
"""

ALLOWED_KEYS = (
    "run", "num_samples", "temperature", "top_k", "top_p", "seed", "output", "filter_seen", "checkpoint", "runs_dir",
    *SHARED_KEYS,
)  # fmt: skip

_UNCHANGED = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True)
class Request:
    """The command line, checked."""

    run: str = "latest"
    num_samples: int = 8
    temperature: float | None = None  # None, of these three: as the run's trainer has it
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    output: Path | str | None = None
    filter_seen: bool | None = None
    checkpoint: str = "best"
    runs_dir: Path = Path("outputs")
    processes: int = 1
    device: str = "auto"


def main() -> None:
    """Console entry: prints or writes samples; a mistake of the user is one sentence and exit code 2."""
    run_command("genrec-generate", HELP, parse, answer)


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
        temperature=_number("temperature", given["temperature"]) if "temperature" in given else None,
        top_k=_whole("top_k", given["top_k"]) if "top_k" in given else None,
        top_p=_number("top_p", given["top_p"]) if "top_p" in given else None,
        seed=_whole("seed", given.get("seed", "0")),
        output=output_of(given["output"]) if "output" in given else None,
        filter_seen=_truth("filter_seen", given["filter_seen"]) if "filter_seen" in given else None,
        checkpoint=given.get("checkpoint", "best"),
        runs_dir=Path(given.get("runs_dir", "outputs")),
        **shared_options(given),
    )
    return _checked(request)


def _checked(request: Request) -> Request:
    check_count(request.num_samples)
    check_sampling(**_sampling(request))
    if request.seed < 0:
        raise GenrecError(f"seed={request.seed}: give a whole number of 0 or more.")
    if request.checkpoint not in CHECKPOINTS:
        raise GenrecError(f"checkpoint={request.checkpoint}: the choices are {' and '.join(CHECKPOINTS)}.")
    if request.output is not None:
        check_output(request.output)
    return request


def _sampling(request: Request, trainer: Any = None) -> dict[str, Any]:
    """What is asked for, else what the config of a ``trainer`` says, else nothing that changes the model's choice."""
    given = {name: getattr(request, name) for name in _UNCHANGED}
    of_run = {name: (trainer or {}).get(f"generation_{name}", value) for name, value in _UNCHANGED.items()}
    return {name: of_run[name] if value is None else value for name, value in given.items()}


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

    console = console or Console()
    folder = latest_run(request.runs_dir) if request.run == "latest" else Path(request.run)
    check_folder(folder)  # before other processes are started
    request = replace(request, run=str(folder))
    if request.output is None:
        with sharing("generate", request) as world:
            samples = _drawn(request, world, console)
        if samples is not None:
            console.print(samples)
        return
    table = TableWriter(request.output)
    with sharing("generate", request, table.discard) as world, table:
        for frame in _frames(request, world, console):
            table.add(frame)
    if world.leads:
        console.print(
            f"{table.num_rows:,} rows in {shown(str(request.output))}", highlight=False, markup=False, soft_wrap=True
        )


def take_part(request: Request, world: World) -> None:
    """What a process that does not lead does of the request."""
    for _ in _blocks(request, world, None):
        pass


def _drawn(request: Request, world: World, console: Console) -> Samples | None:
    """All samples in one, in the leader."""
    from genrec.trainers.samples import joined_samples

    parts = [samples for samples, _ in _blocks(request, world, console)]
    return joined_samples(parts) if parts else None


def _frames(request: Request, world: World, console: Console) -> Iterator[pl.DataFrame]:
    """The table of all samples in pieces, in the leader."""
    done = 0
    for samples, run in _blocks(request, world, console):
        yield to_frame(samples, run, first=done)
        done += len(samples)


def _blocks(request: Request, world: World, console: Console | None) -> Iterator[tuple[Samples, LoadedRun]]:
    import torch
    from rich.progress import Progress

    from genrec.trainers.samples import sample_blocks

    device = device_of(request, world)
    run = load(Path(request.run), request.checkpoint)
    run.model.to(device)
    seen = bool(run.config.filter_seen) if request.filter_seen is None else request.filter_seen
    options = {"seed": request.seed, **_sampling(request, getattr(run.config, "trainer", None))}
    world = world.met(torch.device("cpu"))
    with Progress(console=console, transient=True, disable=console is None or not world.leads) as progress:
        bar = progress.add_task("samples", total=request.num_samples)
        for samples in sample_blocks(
            run.model, run.dataset, request.num_samples, filter_seen=seen, world=world, **options
        ):
            progress.advance(bar, len(samples))
            yield samples, run


def to_frame(samples: Samples, run: LoadedRun, *, first: int = 0) -> pl.DataFrame:
    """One row per generated item; ``user_id`` only where samples continue the histories of users. ``first`` samples
    came before these."""
    import numpy as np
    import polars as pl

    items, scores = samples.items.numpy(), samples.scores.double().numpy()
    sample, place = np.nonzero(items != IGNORE)
    chosen = items[sample, place]
    users = {} if samples.users is None else {"user_id": run.dataset.log.user_ids[samples.users[sample]]}
    return pl.DataFrame(
        {
            "sample": first + sample + 1,
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
