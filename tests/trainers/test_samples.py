from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_toys import NUM_ITEMS, toy_context, toy_model, toy_view

from genrec.contracts import IGNORE, GenrecError, HistoryBatch, Recommendations
from genrec.data.dataset import Dataset
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.trainers import AdvancedTrainer, SimpleTrainer
from genrec.trainers.samples import Samples, draw_samples


class Sampler(torch.nn.Module):
    """The item after the last one, or at random with temperature above 1; keeps the batches it was given."""

    view, max_history = "sequences", 2

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.batches: list[HistoryBatch] = []
        self.options: dict[str, Any] = {}

    def sample(self, batch: HistoryBatch, num_samples: int = 1, *, generator: Any, **options: Any) -> Recommendations:
        assert not self.training and torch.is_inference_mode_enabled()
        self.batches.append(batch)
        self.options = options
        torch.rand(3)  # a model may also draw from torch's own generator
        items = (batch.items.gather(1, batch.lengths[:, None] - 1) + 1) % self.num_items
        if options["temperature"] > 1:
            items = torch.randint(self.num_items, items.shape, generator=generator)
        return Recommendations(items, torch.full(items.shape, -0.5))


class Prior(torch.nn.Module):
    """Made-up users with items 0 and 1, or 2 alone."""

    view = "sequences"

    def generate(self, num_samples: int, *, generator: Any, **options: Any) -> Recommendations:
        short = torch.rand(num_samples, 1, generator=generator) < 0.5
        items = torch.where(short, torch.tensor([[2, IGNORE]]), torch.tensor([[0, 1]]))
        scores = torch.where(items == IGNORE, -torch.inf, -1.0)
        return Recommendations(items, scores)


def test_histories_are_all_that_is_known_and_cut_to_what_the_model_reads(cycle_dataset: Dataset) -> None:
    model = Sampler(8)
    samples = draw_samples(model, cycle_dataset, 5, seed=3)
    assert samples.users is not None and samples.histories is not None
    assert len(set(samples.users.tolist())) == 5  # each user once
    for user, history, item in zip(samples.users, samples.histories, samples.items[:, 0].tolist(), strict=True):
        assert history.tolist() == [(user + step) % 8 for step in range(6)]
        assert item == (user + 6) % 8
    assert model.batches[0].items.shape == (5, 2)
    assert model.batches[0].seen is None
    assert model.options == {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def test_filter_seen_shows_the_whole_history_to_the_model(cycle_dataset: Dataset) -> None:
    model = Sampler(8)
    draw_samples(model, cycle_dataset, 2, filter_seen=True)
    seen = model.batches[0].seen
    assert seen is not None and seen.shape == (2, 6)


def test_the_same_seed_gives_the_same_samples_and_leaves_random_numbers_alone() -> None:
    view, model = toy_view(), Sampler(NUM_ITEMS).train()
    state = torch.get_rng_state()
    found = [draw_samples(model, view, 40, seed=seed, temperature=2.0) for seed in (0, 0, 1)]
    assert torch.equal(found[0].items, found[1].items)
    assert found[0].users.tolist() == found[1].users.tolist() != found[2].users.tolist()  # pyright: ignore[reportOptionalMemberAccess]
    assert not torch.equal(found[0].items, found[2].items)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


def test_more_samples_than_users_and_than_a_batch_holds() -> None:
    view, model = toy_view(), Sampler(NUM_ITEMS)
    samples = draw_samples(model, view, 600)
    assert len(samples) == 600 and [len(batch.users) for batch in model.batches] == [256, 256, 88]
    last = [int(row[-1]) for row in samples.histories or ()]
    assert samples.items[:, 0].tolist() == [(item + 1) % NUM_ITEMS for item in last]


def test_users_without_any_item_are_not_drawn() -> None:
    empty, one = Ragged.from_rows([[], [], []]), Ragged.from_rows([[], [4], []])
    samples = draw_samples(Sampler(8), SequencesView(one, empty, empty, 8), 3)
    assert samples.users is not None and samples.users.tolist() == [1, 1, 1]
    with pytest.raises(GenrecError, match="no history to continue"):
        draw_samples(Sampler(8), SequencesView(empty, empty, empty, 8), 3)


def test_a_prior_needs_no_histories(cycle_dataset: Dataset) -> None:
    samples = draw_samples(Prior(), cycle_dataset, 20)
    assert samples.users is None and samples.histories is None
    generated = {tuple(row["generated"]) for row in samples.rows()}
    assert generated == {("Title 2",), ("Title 0", "Title 1")}
    assert {row["log_prob"] for row in samples.rows()} == {-1.0, -2.0}
    assert "history" not in str(samples)
    assert draw_samples(Prior(), None, 2).rows()[0]["generated"][0] in ("item 2", "item 0")


def test_the_table_shows_titles_and_the_end_of_a_history() -> None:
    samples = Samples(
        items=torch.tensor([[1], [IGNORE]]),
        scores=torch.tensor([[-1.25], [-torch.inf]]),
        users=np.array([7, 8]),
        histories=Ragged.from_rows([[0, 1, 2, 3], [0]]),
        titles=["[red] sock", "boot", "hat", "belt"],
    )
    lines = [" ".join(line.split()) for line in str(samples).splitlines()]
    assert lines[0] == "2 samples"
    assert lines[1] == "history generated log-probability"
    assert lines[3] == "... > boot > hat > belt boot -1.25"
    assert lines[4].startswith("[red] sock - ")  # brackets are no markup; nothing could be generated
    assert samples.rows()[0]["history"] == ["[red] sock", "boot", "hat", "belt"]
    assert samples.rows()[1] == {"history": ["[red] sock"], "generated": [], "log_prob": 0}
    assert replace(samples, titles=None).rows()[0]["generated"] == ["item 1"]


def test_a_model_that_only_ranks_is_refused() -> None:
    with pytest.raises(GenrecError, match=r"ToyModel generates nothing: .* Use model=tiger or .* model=vae"):
        draw_samples(toy_model(), toy_view())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0}, "temperature=0"), ({"top_k": -2}, "top_k=-2"), ({"top_p": 1.1}, "top_p=1.1")],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        draw_samples(Sampler(NUM_ITEMS), toy_view(), **options)
    with pytest.raises(GenrecError, match="num_samples=0"):
        draw_samples(Sampler(NUM_ITEMS), toy_view(), 0)


def test_a_trainer_draws_from_what_it_trained(tmp_path: Path) -> None:
    run = SimpleTrainer(max_epochs=1)
    with pytest.raises(GenrecError, match="call fit first"):
        run.generate_samples()
    model, view = toy_model(), toy_view()
    run.fit(model, view, toy_context(tmp_path, seed=5))
    with pytest.raises(GenrecError, match="ToyModel generates nothing"):
        run.generate_samples()
    object.__setattr__(model, "sample", Sampler(NUM_ITEMS).eval().sample)
    model.eval()
    samples = run.generate_samples(4)
    assert samples.users.tolist() == draw_samples(model, view, 4, seed=5).users.tolist()  # pyright: ignore[reportOptionalMemberAccess]
    assert samples.users.tolist() != run.generate_samples(4, seed=6).users.tolist()  # pyright: ignore[reportOptionalMemberAccess]


def test_a_trainer_draws_from_what_it_is_given(tmp_path: Path, cycle_dataset: Dataset) -> None:
    run = AdvancedTrainer(filter_seen=True)
    run.context = toy_context(tmp_path)
    model = Sampler(8)
    assert "Title" in str(run.generate_samples(2, 0, 1.5, 3, 0.5, model=model, data=cycle_dataset))
    assert model.options == {"temperature": 1.5, "top_k": 3, "top_p": 0.5}
    assert model.batches[0].seen is not None
    assert len(run.generate_samples(2, model=Prior())) == 2
    with pytest.raises(GenrecError, match="no data"):
        run.generate_samples(2, model=model)
