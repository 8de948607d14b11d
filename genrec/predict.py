"""What a finished run predicts for rows: ``python -m genrec.predict run=latest data=new.csv output=scores.csv``.

Only the run folder is needed: features travel with the weights, so the training data is not read again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.artifacts import read_json
from genrec.command import SHARED_HELP, SHARED_KEYS, device_of, run_command, shared_options, sharing
from genrec.contracts import DataSpec, GenrecError
from genrec.recommend import CHECKPOINTS, check_folder
from genrec.remote.addresses import shown
from genrec.run_folder import FEATURES_FILE
from genrec.table_writer import TableWriter, check_output, output_of

if TYPE_CHECKING:
    import polars as pl
    from omegaconf import DictConfig
    from rich.console import Console

    from genrec.data.fitted_features import FittedFeatures
    from genrec.data.rows import Rows
    from genrec.data.sources.table import TableSource
    from genrec.data.summary import Summary
    from genrec.trainers.world import World

HELP = f"""genrec-predict: what a finished run predicts for the rows of a table.

  python -m genrec.predict run=latest data=new.csv output=scores.parquet
  python -m genrec.predict run=latest data=new.csv output=scores.csv keep=[user_id,item_id]

Keys
  data=FILE         the rows: a table with the columns of the training data, labels not needed; or a folder of such
  output=FILE       .parquet, .csv or .jsonl: row, the columns to keep, predicted_<label>
  run=latest        a run folder; or latest: the newest finished run of a model of rows
  keep=[]           columns of the table that are written beside the predictions; all: every one
  checkpoint=best   best or final
  batch_size=8192   rows at a time
{SHARED_HELP}  runs_dir=outputs  where run=latest looks
"""

ALLOWED_KEYS = ("data", "output", "run", "keep", "checkpoint", "batch_size", "runs_dir", *SHARED_KEYS)
ROW = "row"


@dataclass(frozen=True)
class Request:
    """The command line, checked; ``keep`` None means every column."""

    data: Path
    output: Path | str
    run: str = "latest"
    keep: tuple[str, ...] | None = ()
    checkpoint: str = "best"
    batch_size: int = 8192
    runs_dir: Path = Path("outputs")
    processes: int = 1
    device: str = "auto"


@dataclass
class Predictor:
    """A finished run as a function of raw columns: ``config``, the features as they were fitted, and the model."""

    config: DictConfig
    features: FittedFeatures
    model: Any

    @classmethod
    def load(cls, folder: Path, checkpoint: str = "best") -> Predictor:
        """The run in ``folder``; ``checkpoint`` is "best" or "final"."""
        from genrec.config import instantiate, recorded_config
        from genrec.data.fitted_features import FittedFeatures
        from genrec.trainers.checkpoints import load_weights

        folder = Path(folder)
        check_folder(folder)
        if not (folder / FEATURES_FILE).exists():
            raise GenrecError(f"{folder} is not the run of a model of rows: it has no {FEATURES_FILE}. See recommend.")
        config = recorded_config(folder, data=False)
        features = FittedFeatures.load(folder / FEATURES_FILE)
        weights = folder / "checkpoints" / f"{checkpoint}_model.pt"
        if not weights.exists():  # of a baseline, which is fitted to the training rows again
            from genrec.pipeline import load_run

            return cls(config, features, load_run(folder, checkpoint).model)
        model = instantiate(config.model, _partial_=True, _convert_="all")(DataSpec(features=features.spec))
        load_weights(weights, model)
        return cls(config, features, model.eval())

    def __call__(self, frame: pl.DataFrame, batch_size: int = 8192) -> pl.DataFrame:
        """``predicted_<label>`` for every row of raw columns."""
        return self.predicted(self.rows(frame), batch_size)

    def rows(self, frame: pl.DataFrame) -> Rows:
        """Raw columns as fields; whatever else the frame holds, labels too, is not looked at."""
        needed = [name for name in dict.fromkeys(self.features.columns) if name in frame.columns]
        return self.features.transform(frame.select(needed) if len(needed) == len(self.features.columns) else frame)

    def predicted(self, rows: Rows, batch_size: int = 8192) -> pl.DataFrame:
        """``predicted_<label>`` for every one of the rows."""
        import numpy as np
        import polars as pl

        from genrec.data.rows import ALL, RowsView
        from genrec.trainers.scoring import predict_rows

        if not len(rows):  # what the columns are called, the model says of any row
            return self(pl.DataFrame({name: [None] for name in self.features.columns})).head(0)
        view = RowsView(rows, self.features.spec, np.zeros(len(rows), dtype=np.int8))
        found = predict_rows(self.model, view, ALL, batch_size=batch_size)
        return pl.DataFrame({f"predicted_{name}": values for name, values in found.items()})

    def source(self, path: Path, keep: Sequence[str] = ()) -> TableSource:
        """The rows of a file, read as the training data were (delimiter, encoding, names of the features and of the
        columns to ``keep``; others need not be there)."""
        from omegaconf import OmegaConf

        from genrec.data.sources.table import TableSource

        node: Any = OmegaConf.to_container(self.config.data.source, resolve=True)
        if not str(node.pop("_target_")).endswith(f".{TableSource.__name__}"):
            return TableSource(path=str(path))
        needed = {*self.features.columns, *keep}
        if isinstance(node["columns"], dict):
            node["columns"] = {ours: theirs for ours, theirs in node["columns"].items() if ours in needed}
        file_column = node["file_column"] if node["file_column"] in needed else None
        return TableSource(**{**node, "path": str(path), "file_column": file_column})


def main() -> None:
    """Console entry: writes predictions; a mistake of the user is one sentence and exit code 2."""
    run_command("genrec-predict", HELP, parse, answer)


def parse(arguments: Sequence[str]) -> Request:
    """The command line as a ``Request``; every fault is a GenrecError that says what is allowed."""
    given: dict[str, str] = {}
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or key not in ALLOWED_KEYS:
            near = difflib.get_close_matches(key, ALLOWED_KEYS, n=1)
            hint = f" Did you mean {near[0]}=?" if near else ""
            raise GenrecError(f"{argument!r} is not known here.{hint} The keys are {', '.join(ALLOWED_KEYS)}.")
        given[key] = value.strip()
    for key in ("data", "output"):
        if not given.get(key):
            raise GenrecError(f"Say {key}=FILE, for example data=new.csv output=scores.parquet; --help explains more.")
    batch_size = given.get("batch_size", "8192")
    if not batch_size.isdecimal() or int(batch_size) < 1:
        raise GenrecError(f"batch_size={batch_size}: give a whole number of 1 or more.")
    request = Request(
        data=Path(given["data"]),
        output=output_of(given["output"]),
        run=given.get("run", "latest"),
        keep=_kept(given.get("keep", "[]")),
        checkpoint=given.get("checkpoint", "best"),
        batch_size=int(batch_size),
        runs_dir=Path(given.get("runs_dir", "outputs")),
        **shared_options(given),
    )
    if request.checkpoint not in CHECKPOINTS:
        raise GenrecError(f"checkpoint={request.checkpoint}: the choices are {' and '.join(CHECKPOINTS)}.")
    check_output(request.output)
    return request


def _kept(text: str) -> tuple[str, ...] | None:
    if text == "all":
        return None
    if not (text.startswith("[") and text.endswith("]")):
        raise GenrecError(f"keep={text}: give columns between brackets, keep=[user_id,item_id], or keep=all.")
    return tuple(dict.fromkeys(word for part in text[1:-1].split(",") if (word := part.strip())))


def latest_run(runs_dir: Path) -> Path:
    """The newest finished run of a model of rows below ``runs_dir``."""
    found = []
    for path in runs_dir.glob("**/run.json"):
        record = read_json(path, dict)
        if record.get("state") == "finished" and (path.parent / FEATURES_FILE).exists():
            found.append((record.get("started", 0.0), path.parent))
    if not found:
        raise GenrecError(
            f"run=latest: no finished run of a model of rows below {runs_dir}/. Train one: "
            "python -m genrec.run model=deepfm trainer=ctr data=synthetic_clicks"
        )
    return max(found)[1]


def answer(request: Request, console: Console | None = None) -> None:
    """Loads the run, predicts piece by piece, and writes the file."""
    from rich.console import Console

    console = console or Console()
    if not request.data.exists():
        raise GenrecError(f"data={request.data}: there is no such file.")
    if isinstance(request.output, Path) and request.output.resolve() == request.data.resolve():
        raise GenrecError(f"output={request.output} is the file of the rows themselves. Name another.")
    folder = latest_run(request.runs_dir) if request.run == "latest" else Path(request.run)
    check_folder(folder)  # before other processes are started
    request = replace(request, run=str(folder))
    table, job = TableWriter(request.output), _Job(request)
    with sharing("predict", request, table.discard) as world, table:
        for piece in job.pieces(world):
            table.add(piece)
            console.print(f"{table.num_rows:,} rows", highlight=False, markup=False)
    if world.leads:
        for line in job.lines(table.num_rows):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def take_part(request: Request, world: World) -> None:
    """What a process that does not lead does of the request."""
    for _ in _Job(request).pieces(world):
        pass


class _Job:
    """A request while it is worked on. Every process reads the rows; of each piece it predicts a run of batches."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sums: dict[str, float] = {}

    def pieces(self, world: World) -> Iterator[pl.DataFrame]:
        """The table in pieces, in the leader."""
        import polars as pl
        import torch

        from genrec.data.summary import Summary

        request, done = self.request, 0
        device = device_of(request, world)
        predictor = Predictor.load(Path(request.run), request.checkpoint)
        if isinstance(predictor.model, torch.nn.Module):
            predictor.model.to(device)
        self.features, self.summary = predictor.features, Summary.of(predictor.features)
        world = world.met(torch.device("cpu"))
        for frame in predictor.source(request.data, request.keep or ()).chunks():
            missing = [name for name in request.keep or () if name not in frame.columns]
            if missing:
                raise GenrecError(
                    f"keep: {request.data} has no column {missing[0]}. It has {', '.join(frame.columns)}."
                )
            parts = world.brought(self._share(predictor, frame, world))
            if parts:
                kept = frame if request.keep is None else frame.select(request.keep)
                numbers = pl.Series(ROW, range(done, done + frame.height), dtype=pl.Int64).to_frame()
                predicted = self._joined(parts)
                _check_kept(kept, predicted.columns, request.output)
                yield pl.concat([numbers, kept, predicted], how="horizontal")
            done += frame.height

    def _share(self, predictor: Predictor, frame: pl.DataFrame, world: World) -> tuple[pl.DataFrame, Summary]:
        """The predictions of this process's batches of a piece, and what their rows hold."""
        import numpy as np

        from genrec.data.row_splits import IN_TRAIN
        from genrec.data.summary import Summary

        size = self.request.batch_size
        batches = -(-frame.height // size)
        begin, end = (size * (batches * rank // world.size) for rank in (world.rank, world.rank + 1))
        rows = predictor.rows(frame.slice(begin, end - begin))
        summary = Summary.of(predictor.features)
        summary.add(rows, np.full(len(rows), IN_TRAIN))
        return predictor.predicted(rows, size), summary

    def _joined(self, parts: Sequence[tuple[pl.DataFrame, Summary]]) -> pl.DataFrame:
        import polars as pl

        for predicted, summary in parts:
            self.summary.join(summary)
            for name in predicted.columns:
                self.sums[name] = self.sums.get(name, 0.0) + float(predicted[name].cast(pl.Float64).sum())
        return pl.concat([predicted for predicted, _ in parts])

    def lines(self, count: int) -> list[str]:
        """What is worth telling when all ``count`` rows are written."""
        from genrec.data.row_splits import IN_TRAIN

        means = ", ".join(f"{name} {total / count:.4f}" for name, total in self.sums.items() if count)
        told = f"{count:,} rows by {self.request.run} in {shown(str(self.request.output))} (means: {means})"
        return [*self.summary.unknown_line(self.features, IN_TRAIN, str(self.request.data)), told]


def _check_kept(kept: pl.DataFrame, predicted: Sequence[str], output: Path | str) -> None:
    """Raises for columns to keep that cannot stand in the output beside the predictions."""
    for name, dtype in kept.schema.items():
        if name in (ROW, *predicted):
            raise GenrecError(f"keep: a column of the predictions is called {name} too. Rename yours, or leave it out.")
        if dtype.is_nested() and str(output).endswith(".csv"):
            raise GenrecError(f"keep: {name} holds lists, which CSV cannot. Write .parquet or .jsonl, or leave it out.")


if __name__ == "__main__":
    main()
