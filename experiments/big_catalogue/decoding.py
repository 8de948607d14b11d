"""How long a finished run takes to recommend to a batch of its test users: ``python -m ... RUN_FOLDER``, in JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from genrec.pipeline import load_run
from genrec.trainers.evaluation import evaluating

BATCH, K, TIMES = 256, 20, 5


def seconds_of_a_batch(folder: Path) -> float:
    """The median of several calls, after one that does not count."""
    run = load_run(folder)
    view = run.dataset.view(run.model.view)
    batches = view.eval_batches("test", batch_size=BATCH, max_history=run.model.max_history)
    batch, _ = next(iter(batches))
    taken = []
    with evaluating(run.model):
        for _ in range(TIMES + 1):
            begun = time.perf_counter()
            run.model.recommend(batch, K)
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    sys.stdout.write(json.dumps({"seconds": seconds_of_a_batch(Path(sys.argv[1]))}) + "\n")
