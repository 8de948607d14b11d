from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import IGNORE, TEST, VAL, DataSpec, GenrecError
from genrec.data.dataset import Dataset
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.models.tiger import Tiger
from genrec.semantic_ids import SemanticIds
from genrec.trainers import TIGERTrainer

SIZES = (4, 4, 2)


def tiger(num_items: int = 30, seed: int = 0, **options: Any) -> Tiger:
    torch.manual_seed(seed)
    codes = np.stack(np.unravel_index(np.arange(num_items), SIZES), axis=1)
    small = {"embedding_dim": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "head_dim": 4}
    ids = SemanticIds(codes, SIZES, num_content_levels=3)
    spec = DataSpec(num_users=0, num_items=num_items, semantic_ids=ids)
    return Tiger(spec, **{**small, "feedforward_dim": 16, "max_history": 6, **options})


def trainer(folder: Path, **options: Any) -> TIGERTrainer:
    run = TIGERTrainer(**{"eval_batch_size": 50, **options})
    run.context = toy_context(folder)
    return run


def test_generation_is_scored_on_items(tmp_path: Path) -> None:
    trainer, model, view = TIGERTrainer(max_epochs=2), toy_model(), toy_view()
    trainer.fit(model, view, toy_context(tmp_path))
    metrics = trainer.evaluate_generation(model, view, k_values=[5, 10])
    tested = trainer.test(model, view)
    assert metrics["recall@10"] == tested["test/recall@10"]
    assert metrics["ndcg@5"] == tested["test/ndcg@5"]
    assert "test/perplexity" not in tested  # the toy knows no codes


def test_generation_is_a_beam_search_over_the_catalogue(tmp_path: Path) -> None:
    """Recall counted here from every item's probability, one user after the other."""
    view, model = toy_view(num_users=40), tiger(num_beams=30).eval()
    found = trainer(tmp_path).evaluate_generation(model, view, k_values=[5])
    hits, gain = 0, 0.0
    for batch, targets in view.eval_batches(TEST, batch_size=1, max_history=6):
        with torch.no_grad():
            ranked = model.log_prob(batch, torch.arange(30)[None]).argsort(descending=True)[0].tolist()
        rank = ranked.index(int(targets[0, 0]))
        hits += rank < 5
        gain += 1 / math.log2(rank + 2) if rank < 5 else 0.0
    assert found["recall@5"] == pytest.approx(hits / 40)
    assert found["ndcg@5"] == pytest.approx(gain / 40)


def several_targets() -> SequencesView:
    """Users with none to eleven test items."""
    rng = np.random.default_rng(1)
    parts = [[rng.integers(30, size=count).tolist() for count in counts] for counts in ([4] * 6, [0] * 6, range(6))]
    parts[2][0] = rng.integers(30, size=11).tolist()
    return SequencesView(*(Ragged.from_rows(part) for part in parts), num_items=30)


@pytest.mark.parametrize("encoder", ["causal", "none"])
def test_perplexity_is_of_the_true_codes_one_by_one(tmp_path: Path, encoder: Any) -> None:
    model, view = tiger(encoder=encoder), several_targets()
    nats: list[float] = []
    for batch, targets in view.eval_batches(TEST, batch_size=1, max_history=6):
        for item in targets[0].tolist():
            step = model.eval()._step(batch)
            codes = np.unravel_index(item, SIZES)
            previous = parents = None
            for level, code in enumerate(codes):
                with torch.no_grad():
                    nats.append(-float(step(level, previous, parents)[0, 0, code]))
                previous, parents = torch.tensor([[int(code)]]), torch.tensor([[0]])
    assert len(nats) == 3 * (11 + 1 + 2 + 3 + 4 + 5)
    found = trainer(tmp_path, eval_batch_size=4).evaluate_perplexity(model.train(), view)
    assert found == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-5)
    assert model.training


def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_codes(tmp_path: Path) -> None:
    model = tiger()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    expected = (4 * 4 * 2) ** (1 / 3)
    assert trainer(tmp_path).evaluate_perplexity(model, toy_view()) == pytest.approx(expected, rel=1e-6)


def test_the_test_of_a_run_reports_perplexity(tmp_path: Path) -> None:
    run, model, view = trainer(tmp_path), tiger(), toy_view(num_users=30)
    assert run.test(model, view)["test/perplexity"] == run.evaluate_perplexity(model, view)


def test_the_test_on_a_sample_of_users_reports_their_perplexity(tmp_path: Path) -> None:
    model, view = tiger().eval(), toy_view(num_users=40)
    run = trainer(tmp_path, max_test_users=7)
    found = run.evaluate(model, view, TEST)["test/perplexity"]
    sample = run.evaluate_perplexity(model, view, TEST, max_users=7)
    assert found == sample != run.evaluate_perplexity(model, view, TEST)


def test_perplexity_needs_probabilities_and_targets(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="ToyModel has no log_prob"):
        trainer(tmp_path).evaluate_perplexity(toy_model(), toy_view())
    with pytest.raises(GenrecError, match="No user has an item in the part 'val'"):
        trainer(tmp_path).evaluate_perplexity(tiger(), several_targets(), VAL)


def test_diversity_of_what_is_sampled(tmp_path: Path) -> None:
    run, model, view = trainer(tmp_path), tiger(), toy_view(num_users=30)
    free = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    wide = run.evaluate_diversity(model, view, num_samples=8, **free)
    assert wide == run.evaluate_diversity(model, view, num_samples=8, **free)
    assert 0 < wide["distinct_items"] < wide["coverage"] <= 1  # 240 samples of 30 items
    assert 0 < wide["intra_list_hamming"] < 1
    greedy = run.evaluate_diversity(model, view, num_samples=8, temperature=1.0, top_k=1, top_p=1.0)
    assert greedy["intra_list_hamming"] == 0.0  # eight times the same item
    assert greedy["coverage"] < wide["coverage"]
    vectors = torch.eye(30)
    distance = run.evaluate_diversity(model, view, num_samples=8, vectors=vectors, **free)["intra_list_distance"]
    assert distance > wide["intra_list_hamming"]  # unequal items are at distance 1, but share codes
    with pytest.raises(GenrecError, match="ToyModel generates nothing"):
        run.evaluate_diversity(toy_model(), view)


def test_samples_follow_the_trainers_settings_unless_told(tmp_path: Path) -> None:
    view, model = toy_view(), tiger()
    greedy = trainer(tmp_path, generation_top_k=1).generate_samples(20, model=model, data=view)
    assert greedy.scores.abs().max() < 1e-6
    free = trainer(tmp_path, generation_top_k=1).generate_samples(20, top_k=0, top_p=1.0, model=model, data=view)
    assert free.scores.max() < -0.1
    assert greedy.users.tolist() == free.users.tolist()  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    ("option", "value"), [("generation_temperature", 0.0), ("generation_top_k", -1), ("generation_top_p", 0.0)]
)
def test_sampling_settings_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(GenrecError, match=rf"^trainer\.{option}={value}: "):
        TIGERTrainer(**{option: value})  # pyright: ignore[reportArgumentType]


def test_recall_and_ndcg_helpers_by_hand() -> None:
    predictions, targets = [[3, 1, 2], [7, 8, 9], [5, 5, 4]], [[1, 9], [], [4]]
    recall, ndcg = TIGERTrainer._compute_recall_at_k, TIGERTrainer._compute_ndcg_at_k
    assert recall(predictions, targets, 2) == pytest.approx((1 / 2 + 0) / 2)  # the list without targets is left out
    assert recall(predictions, targets, 3) == pytest.approx((1 / 2 + 1) / 2)
    ideal = 1 + 1 / math.log2(3)
    assert ndcg(predictions, targets, 3) == pytest.approx((1 / math.log2(3) / ideal + 1 / math.log2(4)) / 2)
    assert recall([[1]], [[]], 1) == ndcg([[1]], [[]], 1) == 0.0


def test_a_short_training_with_a_data_set_prints_titles(tmp_path: Path, cycle_dataset: Dataset) -> None:
    model, run = tiger(num_items=8), TIGERTrainer(max_epochs=1, monitor="val/loss")
    assert isinstance(run.train_model(model, cycle_dataset, toy_context(tmp_path)), Tiger)
    text = str(run.generate_samples(3, seed=1))
    assert text.count("Title") == 3 * 4  # the last three of six items, and one that was generated
    assert text.count("... >") == 3


def test_dataloaders_hold_out_each_user_s_last_two_items(tmp_path: Path) -> None:
    trainer, view = TIGERTrainer(), toy_view()
    trainer.context = toy_context(tmp_path)
    plan, val, test = trainer.create_dataloaders(toy_model(), view)
    trained = sum(int((plan[index].targets != IGNORE).sum()) for index in range(len(plan)))
    assert trained == len(view.train.values) - view.num_users
    for loader, held_out in ((val, view.val), (test, view.test)):
        for batch, targets in loader:
            assert targets[:, 0].tolist() == held_out.take(batch.users.numpy()).values.tolist()
