"""Real commands in processes of their own, as a user types them: exit codes and what is said on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz.cases import Area, Case, RefusedError
from tests.fuzz.overrides import BROKEN, leaves, valued
from tests.fuzz.training import line

_ROOT = Path(__file__).parents[2]
_NO_WORDS = ("-m", "--multirun", "resume=auto", "seeds=3", "hydra.mode=MULTIRUN", "hydra.verbose=true", "sweep=optuna")


def processes(random: Random, folder: Path) -> Case:
    """A tiny run with sound words, and one or two that may be none."""
    words = [*line(random, folder), f"runs_dir={folder / 'outputs'}"]
    vast = False
    for _ in range(random.choice([0, 1, 1, 2])):
        if random.random() < 0.4:
            words.append(random.choice([word for word in BROKEN if word not in _NO_WORDS and "\x00" not in word]))
        else:
            word, large = valued(random, leaves(()))
            words.append(word)
            vast |= large
    return Case("python -m genrec.run " + " ".join(map(repr, words)), lambda: started(words, folder), vast)


def started(words: Sequence[str], folder: Path) -> None:
    """Runs the command; raises what it says where it ends with another code than 0."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "genrec.run", *words]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    said = ended.stderr + ended.stdout
    if "Traceback" in said or "HYDRA_FULL_ERROR" in said:
        raise AssertionError(f"a traceback reached the user (exit code {ended.returncode}):\n{said[-4000:]}")
    if ended.returncode:
        raise RefusedError(ended.stderr[-4000:] or ended.stdout[-4000:])


AREAS = (Area("processes", processes, share=0.01, seconds=240),)
