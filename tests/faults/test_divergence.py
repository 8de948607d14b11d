"""A loss that is no number: training stops at that step, the batch is kept with what is known of it, and a run that has
found good weights before still has a result."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.artifacts import read_json
from genrec.contracts import GenrecError, RowBatch, SequenceBatch
from genrec.trainers.divergence import BATCH_FILE, LossWatch, NotFiniteError, load_batch, save_batch
from tests.faults.faulty_runs import TINY, Commands, sentence, state_of

BAD = """
from genrec.trainers.base import BaseTrainer
from dataclasses import replace
step, calls = BaseTrainer.train_step, [0]
def bad(self, *args):
    calls[0] += 1
    losses = step(self, *args)
    return replace(losses, total=losses.total * {value}) if calls[0] >= {nth} else losses
BaseTrainer.train_step = bad
"""


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_without_good_weights_the_run_fails_at_that_step(value: str, commands: Commands) -> None:
    code, output = commands.run(*TINY, planted=BAD.format(value=value, nth=4))
    assert code == 1
    said = sentence(output)
    assert "not finite at step 4 (epoch 1, batch 3)" in said and "optimizer.lr" in said and "gradient_clip_norm" in said
    folder = commands.folder()
    assert state_of(folder) == "failed" and "not finite" in read_json(folder / "run.json")["error"]
    assert not list((folder / "checkpoints").glob("*")) and not (folder / "metrics.json").exists()
    batch, about = load_batch(folder / BATCH_FILE)
    assert isinstance(batch, SequenceBatch) and len(batch.users) == len(batch.items) > 0
    assert (about["step"], about["epoch"], about["batch"], about["lr"]) == (4, 1, 3, pytest.approx(1e-3))
    assert about["num_parameters_not_finite"] == 0 and about["num_gradients_not_finite"] > 0
    assert not math.isfinite(float(about["loss"]))


def test_the_lines_of_the_documentation_look_at_the_batch(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.run(*TINY, planted=BAD.format(value="float('nan')", nth=2))
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/faults.md", "exec"), names)
    assert isinstance(names["look"](commands.folder()), SequenceBatch)
    assert capsys.readouterr().out.startswith("2 1 ")


def test_with_good_weights_they_are_tested_and_it_is_said(commands: Commands, whole: Callable[..., Path]) -> None:
    """Two epochs of a run of three: what is tested are the weights that a run of two epochs tests."""
    steps = steps_of_an_epoch(whole(*TINY))
    code, output = commands.run(*TINY, planted=BAD.format(value="float('nan')", nth=2 * steps + 3))
    assert code == 0, output
    folder = commands.folder()
    told = read_json(folder / "run.json")
    assert told["state"] == "finished" and f"step {2 * steps + 3} (epoch 3, batch 2)" in told["diverged"]
    assert "not finite" in output and "Restored the best weights" in output
    assert load_batch(folder / BATCH_FILE)[1]["epoch"] == 3
    two = whole(*TINY, "trainer.max_epochs=2")
    left, right = (torch.load(place / "checkpoints" / "best_model.pt", weights_only=True) for place in (folder, two))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert read_json(folder / "metrics.json")["final"] == read_json(two / "metrics.json")["final"]
    final = torch.load(folder / "checkpoints" / "final_model.pt", weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in final.values())


def steps_of_an_epoch(folder: Path) -> int:
    return int(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["steps_per_epoch"])


def test_weights_that_are_lost_are_named(commands: Commands) -> None:
    planted = "from genrec.models.sasrec import SASRec\nimport torch\nfrom genrec.trainers.base import BaseTrainer\n"
    planted += "step, calls = BaseTrainer.train_step, [0]\n"
    planted += "def bad(self, model, batch):\n    calls[0] += 1\n    if calls[0] == 3:\n"
    planted += "        next(model.parameters()).data.fill_(float('nan'))\n    return step(self, model, batch)\n"
    code, output = commands.run(*TINY, planted=planted + "BaseTrainer.train_step = bad")
    assert code == 1 and "1 parameters were not finite" in sentence(output), output
    about = load_batch(commands.folder() / BATCH_FILE)[1]
    assert len(about["parameters_not_finite"]) == about["num_parameters_not_finite"] == 1


def test_a_rate_that_is_much_too_high(commands: Commands) -> None:
    """Without anything planted: the weights overflow and the run ends with a hint, not with a table of NaN."""
    words = ["optimizer=sgd", "optimizer.lr=1e30", "trainer=simple", "trainer.gradient_clip_norm=null"]
    keep = [word for word in TINY if word != "trainer=advanced"]
    code, output = commands.run(*keep, *words)
    assert code == 1
    assert "lower optimizer.lr (1e+30 at this step)" in sentence(output)


# -- the file


def test_a_batch_comes_back(tmp_path: Path) -> None:
    batch = RowBatch(
        dense=torch.rand(2, 3),
        sparse=torch.ones(2, 1, dtype=torch.int32),
        sequences=(torch.arange(4).reshape(2, 2), torch.zeros(2, 1, dtype=torch.int64)),
        labels=torch.tensor([[1.0], [math.nan]]),
    )
    save_batch(tmp_path / "b.npz", batch, {"step": 7})
    found, about = load_batch(tmp_path / "b.npz")
    assert about["step"] == 7 and found.groups is None and len(found.sequences) == 2
    for name in ("dense", "sparse", "labels"):
        np.testing.assert_array_equal(getattr(found, name).numpy(), getattr(batch, name).numpy())
    assert all(torch.equal(one, two) for one, two in zip(found.sequences, batch.sequences, strict=True))
    (tmp_path / "no.npz").write_bytes(b"no")
    with pytest.raises(GenrecError, match="no batch that a run has kept"):
        load_batch(tmp_path / "no.npz")


def test_a_device_that_is_not_waited_for_notes_the_first_bad_batch() -> None:
    """The "meta" device stands for no number; a GPU's way is followed with tensors that say they lie on one."""

    class Elsewhere:
        def __init__(self, loss: float) -> None:
            self.loss = torch.tensor(loss)
            self.device = torch.device("cuda")

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function(*(arg.loss if isinstance(arg, cls) else arg for arg in args), **(kwargs or {}))

    watch = LossWatch()
    watch.ask()
    for index, loss in enumerate([1.0, 2.0, math.inf, 3.0, math.nan]):
        watch.see(Elsewhere(loss), index)  # pyright: ignore[reportArgumentType]
    with pytest.raises(NotFiniteError) as found:
        watch.ask()
    assert found.value.index == 2
