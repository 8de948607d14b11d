from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_toys import NUM_ITEMS, timed_dataset, toy_context, toy_model, toy_view

from genrec.contracts import IGNORE, GenrecError
from genrec.data.interactions import InteractionLog
from genrec.schedulers import Plateau
from genrec.trainers import OnlineTrainer


def test_slices_are_cut_by_time_and_never_hold_what_is_held_out(tmp_path: Path) -> None:
    view, trainer = toy_view(), OnlineTrainer(max_epochs=4, first_share=0.4, first_passes=1, batch_size=64)
    trainer.fit(toy_model(), timed_dataset(view), toy_context(tmp_path))
    known = [trainer.known_until(view, epoch) for epoch in range(5)]
    assert (known[0] == 0).all() and (known[4] == view.train.lengths).all()
    for earlier, later in pairwise(known):
        assert (later >= earlier).all() and later.sum() > earlier.sum()
    # At every boundary all users have known the same stretch of time, as far as they have been trained on at all.
    for places in known[1:4]:
        assert (places == np.minimum(places.max(), view.train.lengths)).all()
    share = known[1].sum() / len(view.train.values)
    assert 0.4 <= share < 0.4 + 1 / 4


def _stands_at(row: np.ndarray, stop: int, items: torch.Tensor, targets: torch.Tensor, length: int) -> bool:
    """Whether a training row may be the part of a user's items that ends before ``stop``."""
    part, following = row[stop - length : stop], row[stop - length + 1 : stop + 1]
    scored = targets[:length].numpy()
    return bool((part == items[:length].numpy()).all() and ((scored == IGNORE) | (scored == following)).all())


def test_every_training_target_is_learned_once_in_the_order_of_time(tmp_path: Path) -> None:
    view, model = toy_view(), toy_model()
    trainer = OnlineTrainer(max_epochs=3, first_passes=1, batch_size=64)
    trainer.fit(model, timed_dataset(view), toy_context(tmp_path))
    learned = np.zeros(len(view.train.values), dtype=int)
    for epoch in (1, 2, 3):
        trainer.current_epoch = epoch
        before, after = (trainer.known_until(view, e) for e in (epoch - 1, epoch))
        plan = trainer.train_plan(view, model)
        for batch in (plan[index] for index in range(len(plan))):
            for user, items, length, targets in zip(
                batch.users.tolist(), batch.items, batch.lengths.tolist(), batch.targets, strict=True
            ):
                row = view.train[user]
                stop = next(
                    place for place in range(length, len(row)) if _stands_at(row, place, items, targets, length)
                )
                for place in (targets != IGNORE).nonzero().squeeze(1).tolist():
                    at = stop - length + place + 1
                    assert before[user] <= at < after[user] and row[at] == targets[place]
                    learned[view.train.offsets[user] + at] += 1
    first = np.zeros(len(learned), dtype=bool)
    first[view.train.offsets[:-1]] = True  # a user's first item has no history
    assert (learned[~first] == 1).all() and (learned[first] == 0).all()


def test_a_slice_is_judged_before_it_is_learned(tmp_path: Path) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Watching(OnlineTrainer):
        def evaluate(self, model: Any, view: Any, part: str, *, progress: bool = True) -> dict[str, float]:
            seen.append((view.train.lengths, view.val.lengths))
            return super().evaluate(model, view, part, progress=progress)

    view, trainer = toy_view(), Watching(max_epochs=3, batch_size=64)
    result = trainer.fit(toy_model(), timed_dataset(view), toy_context(tmp_path))
    assert len(result.history["val/recall@10"]) == 3
    known = [trainer.known_until(view, epoch) for epoch in (1, 2, 3)]
    for (past, future), now, later in zip(seen[:2], known, known[1:], strict=False):
        assert (past == now).all() and (future == later - now).all()
    assert (seen[2][0] == view.train.lengths).all() and (seen[2][1] == view.val.lengths).all()
    assert result.history["val/recall@10"][-1] > 10 / NUM_ITEMS  # better than chance


def test_the_first_slice_is_passed_through_several_times(tmp_path: Path) -> None:
    view, model = toy_view(), toy_model()
    trainer = OnlineTrainer(max_epochs=2, first_passes=3, batch_size=64)
    trainer.fit(model, timed_dataset(view), toy_context(tmp_path))
    trainer.current_epoch = 1
    plan: Any = trainer.train_plan(view, model)
    counts = [sum(int((part[i].targets != IGNORE).sum()) for i in range(len(part))) for part in plan.plans]
    assert len(counts) == 3 and len(set(counts)) == 1
    order = [torch.cat([part[i].targets.flatten() for i in range(len(part))]).tolist() for part in plan.plans]
    assert order[0] != order[1]  # shuffled anew
    with pytest.raises(IndexError):
        plan[len(plan)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(GenrecError, match=r"trainer.first_share=1.0"):
        OnlineTrainer(first_share=1.0)
    with pytest.raises(GenrecError, match="needs data with timestamps, given as a data set and not as a view"):
        OnlineTrainer().fit(toy_model(), toy_view(), toy_context(Path("unused")))
    with pytest.raises(GenrecError, match="trainer=online measures another slice after each epoch"):
        OnlineTrainer().fit(toy_model(), timed_dataset(toy_view()), toy_context(Path("unused"), scheduler=Plateau()))
    timeless = timed_dataset(toy_view())
    timeless.log = InteractionLog(timeless.log.users, timeless.log.items, timeless.log.user_ids, timeless.log.item_ids)
    with pytest.raises(GenrecError, match="needs data with timestamps"):
        OnlineTrainer().fit(toy_model(), timeless, toy_context(Path("unused")))
