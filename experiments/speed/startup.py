"""From the command to an answer: ``--help``, a fault in the config, the first training step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.speed.measure import Contender, Task, Work
from experiments.speed.setting import Setting

REFERENCE = "import pytorch_lightning"
_ROOT = Path(__file__).parents[2]
_RUN = ["-m", "genrec.run"]


def tasks(setting: Setting) -> Iterator[Task]:
    folder = setting.folder / "startup"
    step = [
        *_RUN, "experiment=quick",
        "data.source.num_users=200", "data.source.num_items=60", "data.source.num_categories=6",
        "logger=none", "progress=false", f"runs_dir={folder}", "baselines=null",
        "+callbacks.first_step._target_=experiments.speed.first_step.FirstStep",
    ]  # fmt: skip
    imports = "import torch, polars, sklearn, pytorch_lightning, genrec.models.tiger, genrec.trainers.simple"
    yield Task(
        name="Answers of the command line",
        unit="s",
        reference=REFERENCE,
        contenders=[
            _process(REFERENCE, ["-c", "import pytorch_lightning"], settings="what many programs begin with"),
            _process("import transformers T5", ["-c", "from transformers import T5ForConditionalGeneration"]),
            _process("genrec --help", [*_RUN, "--help"], ours=True, target="< 0.5 s"),
            _process("genrec, a fault in it", [*_RUN, "model.num_layer=3"], ours=True, target="< 0.5 s", fails=True),
        ],
    )  # fmt: skip
    yield Task(
        name="First training step of a run",
        unit="s",
        reference="imports alone",
        contenders=[
            _process("imports alone", ["-c", imports], settings="the libraries a run needs, nothing else"),
            _process(
                "genrec experiment=quick", step, ours=True,
                settings="data, vectors, semantic IDs and one step; the cache is warm after the first time",
            ),
        ],
    )  # fmt: skip


def _process(
    name: str, arguments: list[str], *, ours: bool = False, target: str = "", settings: str = "", fails: bool = False
) -> Contender:
    return Contender(
        name=name,
        ours=ours,
        target=target,
        settings=settings,
        call=_caller(arguments, fails),
        measures_memory=False,
    )


def _caller(arguments: list[str], fails: bool) -> Callable[[], Work]:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}

    def call() -> Work:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if (done.returncode != 0) != fails:
            raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return Work(1.0)

    return call
