"""TensorBoard: curves, a row per run in the HParams tab, and the items in the projector."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from genrec.loggers.published import ItemMap, PublishedRun, parameters, results

_MOST_DIMENSIONS = 64  # the projector computes in a browser, and wider vectors would be large files
_DIGITS = 4
_KINDS = {bool: "bool_value", str: "string_value"}  # of a setting; anything else is a number


class TensorBoard(TensorBoardLogger):
    """Lightning's logger for TensorBoard, with the settings and results of a run as one row of the HParams tab.

    ``projector_items`` is how many items the projector shows, drawn by the seed of the run where there are more (0:
    none). Vectors of more than 64 numbers are shown by their 64 principal axes.
    """

    def __init__(
        self, *, save_dir: str = ".", name: str = "tensorboard", version: str = "", projector_items: int = 10_000
    ) -> None:
        super().__init__(save_dir, name=name, version=version, default_hp_metric=False)
        self.projector_items = projector_items
        self._last_step = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._last_step = max(self._last_step, step or 0)
        super().log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """All of ``params`` in ``hparams.yaml``, those that may explain a result as columns of the HParams tab.

        The tab takes its columns from all runs below the folder as long as none declares an experiment of its own,
        which Lightning's logger would do: then runs of another model would lose theirs.
        """
        super().log_hyperparams(params, metrics, step)
        session = _generated("plugins.hparams.plugin_data").SessionStartInfo(start_time_secs=time.time())
        for name, value in parameters(dict(params)).items():
            setattr(session.hparams[name], _KINDS.get(type(value), "number_value"), value)
        self._write_session(session_start_info=session)

    def rewind(self, step: int) -> None:
        """Tells readers to forget what the killed run had logged after ``step``: it comes again."""
        events = _generated("compat.proto.event")
        started = events.SessionLog(status=events.SessionLog.START)
        self.experiment._get_file_writer().event_writer.add_event(events.Event(step=step + 1, session_log=started))

    def publish(self, run: PublishedRun) -> None:
        """Final metrics beside the settings, and the items."""
        for name, value in results(run.final).items():
            if name.startswith("final/"):
                self.experiment.add_scalar(name, value, self._last_step)
        items = run.items() if self.projector_items else None
        if items is not None and len(items.vectors):
            self._project(_sampled(items, self.projector_items, int(run.config.get("seed") or 0)))

    def finalize(self, status: str) -> None:
        """Says in the HParams tab how the run ended, and closes the file."""
        if self._experiment is not None:
            known = _generated("plugins.hparams.api")
            ended = _generated("plugins.hparams.plugin_data").SessionEndInfo(
                status=known.STATUS_SUCCESS if status == "success" else known.STATUS_FAILURE,
                end_time_secs=time.time(),
            )
            self._write_session(session_end_info=ended)
        super().finalize(status)

    def _write_session(self, **info: Any) -> None:
        from tensorboard.plugins.hparams import metadata

        tag = metadata.SESSION_START_INFO_TAG if "session_start_info" in info else metadata.SESSION_END_INFO_TAG
        content = _generated("plugins.hparams.plugin_data").HParamsPluginData(**info)
        summary = _generated("compat.proto.summary").Summary()
        summary.value.add(tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR)
        self.experiment._get_file_writer().add_summary(summary, 0)

    def _project(self, items: ItemMap) -> None:
        columns: dict[str, Any] = {"title": items.titles, "item_id": items.item_ids}
        if items.codes is not None:  # whole numbers: the projector offers to colour by them
            columns["first_code"] = items.codes[:, 0].tolist()
            columns["semantic_id"] = ["-".join(map(str, row)) for row in items.codes.tolist()]
        rows = [[_cell(value) for value in row] for row in zip(*columns.values(), strict=True)]
        points = np.round(_narrow(items.vectors).astype(np.float64), _DIGITS)  # written as text
        self.experiment.add_embedding(points, rows, metadata_header=list(columns), tag="items")


def _sampled(items: ItemMap, count: int, seed: int) -> ItemMap:
    """At most ``count`` of the items, in their order."""
    if len(items.vectors) <= count:
        return items
    chosen = np.sort(np.random.default_rng(seed).choice(len(items.vectors), count, replace=False))
    return replace(
        items,
        vectors=items.vectors[chosen],
        titles=[items.titles[index] for index in chosen],
        item_ids=[items.item_ids[index] for index in chosen],
        codes=None if items.codes is None else items.codes[chosen],
    )


def _narrow(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) on their principal axes where they are wide; the length of the longest is 1."""
    if vectors.shape[1] > _MOST_DIMENSIONS:
        centred = vectors - vectors.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        vectors = centred @ axes[:, : -_MOST_DIMENSIONS - 1 : -1]
    longest = np.linalg.norm(vectors, axis=1).max()
    return vectors / longest if longest > 0 else vectors


def _cell(value: Any) -> str:
    return " ".join(str(value).split()) or "-"


def _generated(name: str) -> Any:
    """A module of TensorBoard's that is generated: it names nothing that a type checker could see."""
    return import_module(f"tensorboard.{name}_pb2")
