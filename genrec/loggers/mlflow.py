"""MLflow: a SQLite file below ``outputs``, or a server, with sweeps as nested runs and the files of a run kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import MLFlowLogger

from genrec.artifacts import exclusive
from genrec.contracts import GenrecError
from genrec.loggers.published import ARTIFACTS, PublishedRun, RunName, parameters, results

_FOLDER, _GROUP, _ROLE, _PARENT = "genrec.folder", "genrec.group", "genrec.role", "mlflow.parentRunId"
_DATABASE, _FILES = "mlflow.db", "mlflow_files"
_LONGEST = 250
# A server that is not there is given up after seconds; MLflow itself would try for minutes. Its telemetry stays off.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MLflow(MLFlowLogger):
    """Lightning's logger for MLflow with a local store that today's MLflow still takes.

    ``tracking_uri`` None is the environment's MLFLOW_TRACKING_URI, or else the file ``mlflow.db`` in ``save_dir``.
    ``name`` None: as ``begin`` says. ``artifacts`` are patterns of files in the run folder.
    """

    def __init__(
        self,
        *,
        experiment: str = "genrec",
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        save_dir: str = "outputs",
        tracking_uri: str | None = None,
        artifacts: Sequence[str] = ARTIFACTS,
    ) -> None:
        if find_spec("mlflow") is None:
            raise GenrecError(
                "MLflow is not installed. Install genrec with the extra mlflow (pip install -e '.[mlflow]'), or choose "
                "another logger."
            )
        for key, value in _DEFAULTS.items():
            os.environ.setdefault(key, value)
        self._folder = Path(save_dir).absolute()
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._folder / _DATABASE}"
        self._local = uri.startswith("sqlite:")
        self.artifacts = tuple(artifacts)
        self._reached: dict[str, int] = {}  # the last step of each metric that a resumed run has logged already
        self._last_step = 0
        with self._alone():
            super().__init__(
                experiment_name=experiment,
                run_name=name,
                tracking_uri=uri,
                tags=dict(tags or {}),
                artifact_location=(self._folder / _FILES).as_uri() if self._local else None,
            )
        self._begun: RunName | None = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes tables, experiments and the parents of sweeps."""
        if not self._local:
            yield
            return
        with exclusive(self._folder / f".{_DATABASE}.lock"), _quiet():
            yield

    def begin(self, name: RunName) -> None:
        """Fills in what the config leaves open, and places the run below the one that stands for its sweep."""
        self._begun = name
        self._run_name = self._run_name or name.name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client of MLflow; the run is begun, or found again, when it is first asked for.

        Lightning's would also name the store in this process's environment, where the next run of a sweep would find
        it.
        """
        if not self._initialized:
            with self._alone():
                self._start()
            self._initialized = True
        return self._mlflow_client

    def _start(self) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        client, name = self._mlflow_client, self._begun
        found = client.get_experiment_by_name(self._experiment_name)
        self._experiment_id = (
            found.experiment_id if found else client.create_experiment(self._experiment_name, self._artifact_location)
        )
        tags: dict[str, str] = dict(self.tags or {})
        if name is not None:
            tags[_FOLDER] = str(name.folder.absolute())
            if name.resumed:
                self._run_id = self._find({_FOLDER: tags[_FOLDER]})
                if self._run_id:
                    self._reached = self._steps(self._run_id)
                    client.update_run(self._run_id, status="RUNNING")
            if name.group is not None:
                tags |= {_GROUP: name.group, _PARENT: self._parent(name.group)}
        if self._run_id is None:
            run = client.create_run(self._experiment_id, tags=resolve_tags(tags), run_name=self._run_name)
            self._run_id = run.info.run_id

    def _parent(self, group: str) -> str:
        """The run that stands for a sweep, made by the first of its runs."""
        tags = {_GROUP: group, _ROLE: "sweep"}
        found = self._find(tags)
        assert self._experiment_id is not None
        if found is None:
            found = self._mlflow_client.create_run(self._experiment_id, tags=tags, run_name=group).info.run_id
            self._mlflow_client.set_terminated(found)
        return found

    def _find(self, tags: Mapping[str, str]) -> str | None:
        if any("'" in value for value in tags.values()):  # the language of searches cannot quote it
            return None
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        assert self._experiment_id is not None
        runs = self._mlflow_client.search_runs([self._experiment_id], wanted, max_results=1)
        return runs[0].info.run_id if runs else None

    def _steps(self, run_id: str) -> dict[str, int]:
        client = self._mlflow_client
        names = client.get_run(run_id).data.metrics
        return {name: max(point.step for point in client.get_metric_history(run_id, name)) for name in names}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """MLflow takes no ``@`` in a name: ``recall@10`` is ``recall_at_10`` there, as in its own metrics."""
        _ = self.experiment
        self._last_step = max(self._last_step, step or 0)
        named = {name.replace("@", "_at_"): value for name, value in metrics.items()}
        new = {name: value for name, value in named.items() if (step or 0) > self._reached.get(name, -1)}
        if new:
            super().log_metrics(new, step)

    def log_hyperparams(self, params: Any) -> None:
        """The settings that may explain a result as parameters, what tells equal runs from others as tags."""
        params = dict(params)
        super().log_hyperparams({name: str(value)[:_LONGEST] for name, value in parameters(params).items()})
        for name, value in PublishedRun(self._folder, {}, params, params.get("environment") or {}).identity.items():
            self.experiment.set_tag(self.run_id, f"genrec.{name}", str(value))

    def publish(self, run: PublishedRun) -> None:
        """The metrics that are no curve, and the files of the run folder."""
        others = {name: value for name, value in results(run.final).items() if not name.startswith("test/")}
        super().log_metrics({name.replace("@", "_at_"): value for name, value in others.items()}, self._last_step)
        for name, path in run.files(self.artifacts):
            place = Path(name).parent.as_posix()
            self.experiment.log_artifact(self.run_id, str(path), None if place == "." else place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's notes on the tables that it makes."""
    import mlflow  # noqa: F401  sets the levels of its loggers

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [item.level for item in loggers]
    for item in loggers:
        item.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for item, level in zip(loggers, levels, strict=True):
            item.setLevel(level)
