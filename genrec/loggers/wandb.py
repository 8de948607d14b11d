"""Weights & Biases: offline unless asked, never waited for without end, with the files of a run as artifacts."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger

from genrec.loggers.published import ARTIFACTS, PublishedRun, RunName
from genrec.masking import masked_words

log = logging.getLogger("genrec.trainers")

_STEP = "trainer/global_step"  # the x axis of every curve, as Lightning calls it
_KINDS = {"report": "report", "semantic_ids": "semantic-ids", "best_model": "model", "features": "features"}


class Wandb(WandbLogger):
    """Lightning's logger for W&B with names, groups, a summary and artifacts.

    ``name`` and ``group`` None: as ``begin`` says. An online run that W&B does not answer within ``timeout`` seconds is
    logged offline; its end waits ``finish_timeout`` seconds for uploads (0: until they are done). ``artifacts`` are
    patterns of files in the run folder.
    """

    def __init__(
        self,
        *,
        project: str = "genrec",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] | None = None,
        save_dir: str = ".",
        offline: bool = True,
        timeout: float = 30.0,
        finish_timeout: float = 600.0,
        artifacts: Sequence[str] = ARTIFACTS,
    ) -> None:
        super().__init__(project=project, name=name, save_dir=save_dir, offline=offline, log_model=False)
        self._wandb_init.pop("anonymous")  # W&B warns of it whatever it is
        self._wandb_init.update(entity=entity, group=group, tags=None if tags is None else list(tags))
        self.timeout = timeout
        self.finish_timeout = finish_timeout
        self.artifacts = tuple(artifacts)
        self._logged_before = 0

    @property
    def starts_empty(self) -> bool:
        """Whether a resumed run has to be told its epochs again: an offline run cannot be continued by another."""
        return bool(self._offline)

    def begin(self, name: RunName) -> None:
        """Fills in what the config leaves open; a resumed online run goes on where it stopped."""
        for key, value in (("name", name.name), ("group", name.group), ("job_type", name.job_type)):
            if self._wandb_init.get(key) is None:
                self._wandb_init[key] = value
        if name.resumed and not self._offline and self._wandb_init.get("id") is None:
            self._wandb_init["id"] = _earlier_id(Path(self._save_dir or "."))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of W&B, begun when first asked for."""
        if self._experiment is None:
            with _masked_command():
                self._experiment = self._start()
            self._experiment.define_metric(_STEP)
            self._experiment.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    def _start(self) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=self.timeout, login_timeout=self.timeout, finish_timeout=self.finish_timeout
        )
        options = {**self._wandb_init, "settings": settings, "reinit": "finish_previous"}
        if not self._offline:
            try:
                run = wandb.init(**options)
                self._logged_before = int(run.summary.get(_STEP) or 0) if run.resumed else 0
                return run
            except Exception as error:
                log.warning(
                    "W&B does not answer (%s), so this run is logged offline; `wandb sync` uploads it later",
                    str(error).partition("\n")[0],
                )
                self._offline = True
                options["id"] = None
        return wandb.init(**options, mode="offline")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Drops what a resumed online run repeats: the killed one may have gone further than its last checkpoint."""
        _ = self.experiment
        if step is None or step >= self._logged_before:
            super().log_metrics(metrics, step)  # pyright: ignore[reportArgumentType]

    def publish(self, run: PublishedRun) -> None:
        """The final metrics as the summary, and the files of the run folder as artifacts."""
        self.experiment.summary.update(dict(run.final))
        metadata = {
            **run.identity,
            "metrics": {name: value for name, value in run.final.items() if name.startswith(("val/", "test/"))},
        }
        for name, path in run.files(self.artifacts):
            self._publish_file(name, path, metadata)

    def _publish_file(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """Semantic IDs that several runs share are one artifact, named after their content; others are a run's own."""
        import wandb

        kind = _KINDS.get(path.stem, "file")
        shared = metadata.get("semantic_ids_fingerprint") if kind == "semantic-ids" else None
        stem = re.sub(r"[^\w.-]+", "-", path.stem).replace("_", "-")
        artifact = wandb.Artifact(f"{stem}-{shared or self.experiment.id}", type=kind, metadata=dict(metadata))
        # Where it lies: a copy would go to a folder of W&B's outside the run folder and stay there.
        artifact.add_file(str(path.absolute()), name=name, policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact)

    def finalize(self, status: str) -> None:
        """Ends the run of W&B, so that the next run of a sweep is one of its own."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)


@contextmanager
def _masked_command() -> Iterator[None]:
    """W&B notes the command line of the process; secrets in it are none of its business."""
    words = sys.argv
    sys.argv = masked_words(words)
    try:
        yield
    finally:
        sys.argv = words


def _earlier_id(folder: Path) -> str | None:
    """The id of the newest online run below ``folder``, whose folder is called ``run-<time>-<id>``."""
    found = sorted(folder.glob("wandb/run-*-*"))
    return found[-1].name.rpartition("-")[2] if found else None
