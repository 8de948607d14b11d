from __future__ import annotations

from pathlib import Path

from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import IGNORE
from genrec.trainers import TIGERTrainer


def test_generation_is_scored_on_items(tmp_path: Path) -> None:
    trainer, model, view = TIGERTrainer(max_epochs=2), toy_model(), toy_view()
    trainer.fit(model, view, toy_context(tmp_path))
    metrics = trainer.evaluate_generation(model, view, k_values=[5, 10])
    tested = trainer.test(model, view)
    assert metrics["recall@10"] == tested["test/recall@10"]
    assert metrics["ndcg@5"] == tested["test/ndcg@5"]


def test_dataloaders_hold_out_each_user_s_last_two_items(tmp_path: Path) -> None:
    trainer, view = TIGERTrainer(), toy_view()
    trainer.context = toy_context(tmp_path)
    plan, val, test = trainer.create_dataloaders(toy_model(), view)
    trained = sum(int((plan[index].targets != IGNORE).sum()) for index in range(len(plan)))
    assert trained == len(view.train.values) - view.num_users
    for loader, held_out in ((val, view.val), (test, view.test)):
        for batch, targets in loader:
            assert targets[:, 0].tolist() == held_out.take(batch.users.numpy()).values.tolist()
