from __future__ import annotations

import inspect
from functools import partial
from math import exp, log, sqrt, tanh
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import chisquare
from torch import nn

from genrec.contracts import IGNORE, DataSpec, GenrecError, RunContext, SequenceBatch
from genrec.data.dataset import Dataset
from genrec.data.ragged import Ragged
from genrec.data.sequences import SequencesView
from genrec.data.sources.synthetic import SyntheticSource
from genrec.data.splits import LeaveOneOut
from genrec.models.popularity import Popularity
from genrec.models.vae import VAE
from genrec.trainers import AdvancedTrainer, Hardware
from genrec.trainers.evaluation import evaluate_retrieval
from tests.models.contract import RetrievalContract, histories

SMALL: dict[str, Any] = {"hidden_dims": (12,), "latent_dim": 5, "anneal_steps": 10}
TRAIN = Ragged.from_rows([[0, 1], [2, 2, 1], [], [3]])


class TestVAE(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        return VAE(spec, hidden_dims=(32,), latent_dim=16, dropout=0.1, kl_weight=0.1, max_history=max_history)


def tiny(num_items: int = 4, **options: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(DataSpec(num_users=4, num_items=num_items, train=TRAIN), **{**SMALL, **options})


def rows(*items: list[int]) -> SequenceBatch:
    """Users whose items are input and target."""
    ragged = Ragged.from_rows(items)
    return SequenceBatch(
        users=torch.arange(len(items)),
        items=torch.from_numpy(ragged.padded(0)),
        lengths=torch.from_numpy(ragged.lengths),
        targets=torch.from_numpy(ragged.padded(IGNORE)),
    )


def one_wide() -> VAE:
    """Three items, one hidden unit, one latent dimension: small enough for pencil and paper."""
    torch.manual_seed(0)
    train = Ragged.from_rows([[0, 1], [2]])
    model = VAE(
        DataSpec(num_users=2, num_items=3, train=train),
        hidden_dims=(1,),
        latent_dim=1,
        dropout=0.0,
        kl_weight=0.5,
        anneal_steps=0,
    )
    state = {
        "items.weight": [[1.0], [0.5], [-1.0]],
        "items_bias": [0.25],
        "posterior.weight": [[2.0], [-1.0]],
        "posterior.bias": [0.1, 0.2],
        "decoder.0.weight": [[1.5]],
        "decoder.0.bias": [0.0],
        "output.weight": [[1.0], [0.0], [-1.0]],
        "output.bias": [0.0, 0.5, 0.0],
    }
    model.load_state_dict({**{name: torch.tensor(value) for name, value in state.items()}, "steps": torch.tensor(0)})
    return model.eval()


def test_the_loss_by_hand() -> None:
    model = one_wide()
    losses = model.loss(rows([0, 1], [2, 2]))  # two users; what is there twice counts once
    totals, likelihoods, divergences = [], [], []
    for mine, inside in (((0, 1), (1.0 + 0.5) / sqrt(2)), ((2,), -1.0)):
        hidden = tanh(inside + 0.25)
        mean, log_variance = 2.0 * hidden + 0.1, -hidden + 0.2
        decoded = tanh(1.5 * mean)
        logits = [decoded, 0.5, -decoded]
        normaliser = log(sum(exp(logit) for logit in logits))
        likelihoods.append(sum(logits[item] - normaliser for item in mine))
        divergences.append(0.5 * (exp(log_variance) + mean**2 - 1 - log_variance))
        totals.append(-likelihoods[-1] + 0.5 * divergences[-1])
    assert losses.total.item() == pytest.approx(sum(totals) / 2, rel=1e-5)
    assert losses.parts["kl"].item() == pytest.approx(sum(divergences) / 2, rel=1e-5)
    assert losses.parts["negative_log_likelihood"].item() == pytest.approx(-sum(likelihoods) / 2, rel=1e-5)
    assert losses.count == 2


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    model = tiny().eval()
    batch = rows([0, 3], [1])
    mean, log_variance = model.encode(batch.items, batch.lengths)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    assert model.loss(batch).parts["kl"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_row_is_a_set_whose_vector_has_length_one() -> None:
    model = tiny().eval()
    dense = torch.tensor([[1.0, 0.0, 1.0, 1.0]]) / sqrt(3)
    hidden = torch.tanh(dense @ model.items.weight + model.items_bias)
    expected = model.posterior(hidden).chunk(2, dim=1)
    for items in ([0, 2, 3], [3, 0, 2], [2, 3, 3, 0, 2]):
        found = model.encode(torch.tensor([[*items, 1]]), torch.tensor([len(items)]))  # item 1 is padding
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected, strict=True))


def test_beta_rises_evenly_with_training_batches_only() -> None:
    model, batch = tiny(kl_weight=0.4, anneal_steps=4), rows([0, 1])
    model.eval().loss(batch)
    assert int(model.steps) == 0
    model.train()
    betas = [model.loss(batch).parts["beta"].item() for _ in range(6)]
    assert betas == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert tiny(kl_weight=0.4, anneal_steps=0).beta.item() == pytest.approx(0.4)


def test_training_draws_around_the_mean_as_wide_as_the_posterior() -> None:
    model, batch = tiny(dropout=0.0).train(), rows([0, 1])
    mean, log_variance = model.encode(batch.items, batch.lengths)
    seen: list[torch.Tensor] = []
    model.decode = lambda latent: seen.append(latent) or nn.functional.linear(latent, torch.zeros(4, 5))  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(500):
        model.loss(batch)
    drawn = torch.cat(seen)
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.2)
    assert torch.allclose(drawn.std(0), (0.5 * log_variance[0]).exp(), rtol=0.15)


def test_more_layers_are_mirrored_and_all_learn() -> None:
    model = tiny(hidden_dims=(12, 7, 6), dropout=0.0, kl_weight=0.01).train()
    assert [(layer.out_features, layer.in_features) for layer in model.encoder] == [(7, 12), (6, 7)]
    assert [(layer.out_features, layer.in_features) for layer in model.decoder] == [(6, 5), (7, 6), (12, 7)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        found = model.loss(rows([0, 1], [2], [3, 1]))
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(found.total.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def view() -> SequencesView:
    generator = np.random.default_rng(0)
    halves = [generator.permutation(10)[:7] + 10 * (user % 2) for user in range(60)]  # a user keeps to one half
    parts = (Ragged.from_rows(row[part] for row in halves) for part in (slice(5), slice(5, 6), slice(6, None)))
    return SequencesView(*parts, num_items=20)


def test_a_resumed_run_ends_with_the_same_bits_and_the_same_beta(tmp_path: Path, monkeypatch: Any) -> None:
    data = view()
    spec = DataSpec(data.num_users, data.num_items, train=data.train)

    def model() -> VAE:
        torch.manual_seed(0)
        return VAE(spec, **SMALL)

    def trainer() -> AdvancedTrainer:
        return AdvancedTrainer(max_epochs=3, batch_size=60, checkpoint_every_steps=2)

    whole, again = model(), model()
    result = trainer().fit(whole, data, RunContext(tmp_path / "whole", progress=False))
    calls = {"count": 0}
    original = VAE.loss

    def stopping(*args: Any) -> Any:
        calls["count"] += 1
        if calls["count"] == 8:
            raise KeyError
        return original(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(VAE, "loss", stopping)
        trainer().fit(model(), data, RunContext(tmp_path / "parts", progress=False))
    resumed = trainer().fit(again, data, RunContext(tmp_path / "parts", progress=False, resume=True))
    assert resumed == result
    assert result.history["train/beta"][1] > result.history["train/beta"][0]
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_it_trains_in_double_precision(tmp_path: Path) -> None:
    data, model = view(), VAE(DataSpec(60, 20, train=view().train), **SMALL)
    context = RunContext(tmp_path, progress=False, hardware=Hardware(accelerator="cpu", precision=64))
    result = AdvancedTrainer(max_epochs=1).fit(model, data, context)
    assert np.isfinite(result.history["train/loss"]).all()


def test_it_beats_popularity_clearly(tmp_path: Path) -> None:
    """In a shop where people keep to a brand, the set of items tells what else they take. Seen items are left out."""
    source = SyntheticSource(
        num_users=1500, num_items=300, mean_length=14.0, set_weight=0.75, return_weight=0.05, category_weight=0.1
    )
    data = Dataset(source, LeaveOneOut())
    spec = DataSpec(data.num_users, data.num_items, train=data.sequences.train)
    torch.manual_seed(0)
    model = VAE(spec, hidden_dims=(200,), latent_dim=32, anneal_steps=200)
    context = RunContext(tmp_path, progress=False, optimizer=partial(torch.optim.Adam, lr=3e-3))
    AdvancedTrainer(max_epochs=5, batch_size=1024, filter_seen=True).fit(model, data, context)
    recall = {
        name: evaluate_retrieval(judged, data.sequences, "test", k_values=[10], filter_seen=True, progress=False)[
            "test/recall@10"
        ]
        for name, judged in (("vae", model), ("popularity", Popularity(spec)))
    }
    assert recall["vae"] > 1.5 * recall["popularity"]


def test_generated_sets_have_the_sizes_of_training_sets() -> None:
    model = tiny()
    assert model.set_sizes.tolist() == [2, 2, 1]
    found = model.generate(300, generator=torch.Generator().manual_seed(0))
    sizes = (found.items != IGNORE).sum(1)
    assert found.items.shape == (300, 2)
    assert chisquare([int((sizes == 1).sum()), int((sizes == 2).sum())], [100, 200]).pvalue > 1e-3
    assert all(len(set(row)) == len(row) for row in found.items[sizes == 2].tolist())
    assert ((found.scores == -torch.inf) == (found.items == IGNORE)).all()


def test_generation_decodes_the_prior() -> None:
    """The share of each first item is the mean of the softmax over draws of z from N(0, I)."""
    model = tiny()
    with torch.no_grad():
        model.output.weight.mul_(3)  # so that z matters
        first = model.generate(4000, generator=torch.Generator().manual_seed(1)).items[:, 0]
        latent = torch.randn(200_000, 5, generator=torch.Generator().manual_seed(2))
        expected = torch.softmax(model.decode(latent).double(), dim=1).mean(0)
    assert expected.std() > 0.03  # far enough from uniform for the test to mean something
    observed = torch.bincount(first, minlength=4)
    assert chisquare(observed.numpy(), 4000 * expected.numpy()).pvalue > 1e-3


def test_generation_is_repeatable_and_takes_the_options() -> None:
    model = tiny().train()

    def drawn(seed: int, **options: Any) -> list[list[int]]:
        return model.generate(50, generator=torch.Generator().manual_seed(seed), **options).items.tolist()

    assert drawn(0) == drawn(0) != drawn(1)
    assert model.training
    cold, greedy = drawn(0, temperature=1e-6), drawn(0, top_k=1)
    assert cold == greedy
    latent = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    assert [row[0] for row in greedy] == model.decode(latent).argmax(1).tolist()
    with pytest.raises(GenrecError, match="num_samples=0"):
        model.generate(0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden_dims", ()),
        ("hidden_dims", (0,)),
        ("latent_dim", 0),
        ("dropout", 1.0),
        ("kl_weight", -0.1),
        ("anneal_steps", -1),
        ("max_history", 0),
    ],
)
def test_mistakes_are_named(option: str, value: Any) -> None:
    with pytest.raises(GenrecError, match=f"model.{option}"):
        tiny(**{option: value})


def test_needs_training_data() -> None:
    with pytest.raises(GenrecError, match="training part"):
        VAE(DataSpec(num_users=1, num_items=2))


def test_yaml_defaults_equal_the_constructors(repository: Path) -> None:
    node = yaml.safe_load((repository / "conf/model/vae.yaml").read_text())
    assert node.pop("_target_") == "genrec.models.vae.VAE"
    signature = inspect.signature(VAE).parameters
    defaults = {name: p.default for name, p in signature.items() if p.kind is p.KEYWORD_ONLY}
    assert {**node, "hidden_dims": tuple(node["hidden_dims"])} == defaults


def test_an_unseen_history_gets_what_the_mean_of_its_posterior_decodes_to() -> None:
    model = tiny().eval()
    found = model.recommend(histories([[2, 0]], filter_seen=True), 4)
    mean, _ = model.encode(torch.tensor([[2, 0]]), torch.tensor([2]))
    scores = model.decode(mean)[0].tolist()
    assert found.items.tolist() == [[*sorted((1, 3), key=lambda item: -scores[item]), IGNORE, IGNORE]]
