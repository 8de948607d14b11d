"""A run killed with SIGKILL and started again ends with the same bits as one never killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import (
    resumable_run,
    same_files,
    slow_resumable_run,
    timed_dataset,
    toy_context,
    toy_model,
    toy_view,
)

from genrec.contracts import GenrecError
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import create_trainer
from genrec.trainers.checkpoints import BEST, FINAL, read_checkpoint
from genrec.trainers.simple import SimpleTrainer

OPTIONS: dict[str, Any] = {
    "max_epochs": 8,
    "batch_size": 16,
    "checkpoint_every_steps": 7,
    "checkpoint_every_epochs": 3,
    "save_top_k": 2,
    "patience": 5,
    "lr_patience": 1,
    "accumulate_grad_batches": 2,
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def processes() -> Any:
    """Real processes that start quickly: forked from a server that has imported torch and Lightning already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytorch_lightning", "genrec.trainers.advanced", "genrec.trainers.engine"])
    return context


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untouched")
    resumable_run(str(folder), OPTIONS)
    return folder


def weights(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*.pt"))


def test_killed_at_random_moments_ends_with_the_same_bits(processes: Any, untouched: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    kills = 0
    for _attempt in range(40):
        target = slow_resumable_run if kills < 4 else resumable_run
        process = processes.Process(target=target, args=(str(tmp_path), OPTIONS))
        process.start()
        if kills < 4:
            wait_until_training(process, tmp_path)
            time.sleep(rng.random() * 0.2)
            process.kill()  # nothing where the run has just ended
        process.join(300)
        assert process.exitcode is not None
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert kills >= 1, "the run ended before it could be killed"
    same_files(untouched, tmp_path, weights(untouched))
    assert weights(tmp_path) == weights(untouched)


def wait_until_training(process: Any, folder: Path) -> None:
    before = stamp(folder)
    while process.is_alive() and stamp(folder) == before:
        time.sleep(0.01)


def stamp(folder: Path) -> float:
    last = folder / "checkpoints" / "last.ckpt"
    return last.stat().st_mtime if last.exists() else 0.0


@pytest.mark.parametrize("moment", ["mid_epoch", "after_best_before_last", "validation", "while_writing", "test"])
def test_stopped_at_a_chosen_moment_ends_with_the_same_bits(
    moment: str, untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"count": 0}

    def die_after(count: int) -> None:
        calls["count"] += 1
        if calls["count"] >= count:
            raise Killed

    with monkeypatch.context() as patch:
        if moment == "mid_epoch":
            original = AdvancedTrainer.train_step
            patch.setattr(AdvancedTrainer, "train_step", lambda *args: (die_after(70), original(*args))[1])
        elif moment == "after_best_before_last":
            keep = AdvancedTrainer._keep_epoch
            patch.setattr(AdvancedTrainer, "_keep_epoch", lambda *args: (keep(*args), die_after(3))[0])
        elif moment == "validation":
            patch.setattr(type(toy_model()), "recommend", lambda *args: die_after(1))
        elif moment == "while_writing":
            replace = os.replace
            patch.setattr(os, "replace", lambda *args: (die_after(9), replace(*args))[1])
        else:
            patch.setattr(AdvancedTrainer, "test", lambda *args: die_after(1))
        with pytest.raises(Killed):
            resumable_run(str(tmp_path), OPTIONS)
    resumable_run(str(tmp_path), OPTIONS)
    same_files(untouched, tmp_path, weights(untouched))


def test_resuming_within_an_epoch_redoes_nothing_before_the_checkpoint(tmp_path: Path, monkeypatch: Any) -> None:
    steps = {"count": 0}
    original = AdvancedTrainer.train_step

    def counted(self: Any, model: Any, batch: Any) -> Any:
        steps["count"] += 1
        if steps["count"] == 30:
            raise Killed
        return original(self, model, batch)

    monkeypatch.setattr(AdvancedTrainer, "train_step", counted)
    options: dict[str, Any] = {"max_epochs": 1, "batch_size": 16, "checkpoint_every_steps": 10}
    with pytest.raises(Killed):
        AdvancedTrainer(**options).fit(toy_model(), toy_view(), toy_context(tmp_path, resume=True))
    state = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert (state["epoch"], state["step_in_epoch"], state["global_step"]) == (0, 20, 20)
    steps["count"] = 1000
    trainer = AdvancedTrainer(**options)
    trainer.fit(toy_model(), toy_view(), toy_context(tmp_path, resume=True))
    assert steps["count"] - 1000 == trainer.steps_per_epoch - 20


@pytest.mark.parametrize("kind", ["simple", "advanced", "curriculum", "online"])
def test_a_finished_run_is_not_trained_again(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    first, again = (create_trainer(kind, max_epochs=2, batch_size=64) for _ in range(2))
    model, data = toy_model(), timed_dataset(toy_view())
    result = first.fit(model, data, toy_context(tmp_path))
    monkeypatch.setattr(type(first), "train_step", lambda *args: pytest.fail("trained again"))
    other = toy_model(seed=5)
    assert again.fit(other, data, toy_context(tmp_path, resume=True)) == result
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    metrics = first.test(model, data)
    assert again.test(other, data) == metrics
    assert ("val/recall@10" in metrics) == (kind != "simple")


def test_checkpoints_are_plain_values_and_load_with_weights_only(untouched: Path) -> None:
    for name in (BEST, FINAL, "last.ckpt"):
        torch.load(untouched / "checkpoints" / name, weights_only=True)


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    SimpleTrainer(max_epochs=1).fit(toy_model(), toy_view(), toy_context(tmp_path))
    with pytest.raises(GenrecError, match="batch_size"):
        SimpleTrainer(max_epochs=2, batch_size=8).fit(toy_model(), toy_view(), toy_context(tmp_path, resume=True))
    with pytest.raises(GenrecError, match="view"):
        SimpleTrainer(max_epochs=2).fit(toy_model(), toy_view(50), toy_context(tmp_path, resume=True))
    with pytest.raises(GenrecError, match="another model"):
        SimpleTrainer(max_epochs=2).fit(toy_model(dim=8), toy_view(), toy_context(tmp_path, resume=True))


def test_a_fresh_run_does_not_keep_files_of_an_earlier_one(tmp_path: Path) -> None:
    AdvancedTrainer(max_epochs=3, checkpoint_every_epochs=1).fit(toy_model(), toy_view(), toy_context(tmp_path))
    AdvancedTrainer(max_epochs=1).fit(toy_model(), toy_view(), toy_context(tmp_path))
    assert weights(tmp_path) == [BEST, FINAL]


def test_weights_are_not_continued_under_other_semantic_ids(tmp_path: Path) -> None:
    def model(*tokens: int) -> Any:
        made = toy_model()
        made.register_buffer("item_tokens", torch.tensor(tokens), persistent=False)
        return made

    options: dict[str, Any] = {"max_epochs": 1, "batch_size": 64}
    AdvancedTrainer(**options).fit(model(1, 2), toy_view(), toy_context(tmp_path))
    AdvancedTrainer(**options).fit(model(1, 2), toy_view(), toy_context(tmp_path, resume=True))
    with pytest.raises(GenrecError, match="other item tables"):
        AdvancedTrainer(**options).fit(model(2, 1), toy_view(), toy_context(tmp_path, resume=True))
