"""The size that is estimated is the one that a training has."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genrec.config import compose_config, instantiate
from genrec.doctor.estimate import Size, estimate
from genrec.optimizers import build_optimizer
from genrec.trainers.parameter_groups import parameter_groups

SMALL = ["data.source.num_users=60", "data.source.num_items=200"]


def sized(words: list[str]) -> tuple[Any, Any, Size]:
    config = compose_config(words)
    dataset = instantiate(config.data, _convert_="all")
    return config, dataset, estimate(config, dataset)


@pytest.mark.parametrize(
    "optimizer", ["adamw", "sgd", "adagrad", "rmsprop", "nadam", "lamb", "muon", "adafactor", "rowwise_adagrad"]
)
def test_the_state_of_each_optimizer_is_what_it_keeps_of_the_true_model(optimizer: str) -> None:
    config, dataset, size = sized(["model=sasrec", "trainer=advanced", f"optimizer={optimizer}", *SMALL])
    model = instantiate(config.model, _partial_=True, _convert_="all")(dataset.spec)
    build = instantiate(config.optimizer, _convert_="all")
    groups = parameter_groups(model, separate_hidden=getattr(build.func, "separate_hidden", False))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    true = build_optimizer(build, groups)
    true.step()
    kept = [value for state in true.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    expected = sum(value.numel() * value.element_size() for value in kept if value.numel() > 1)
    assert size.state == pytest.approx(expected, rel=0.05, abs=0.05 * size.weights)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.gradients == 4 * size.parameters and size.total == size.weights + size.gradients + size.state


def test_tables_with_sparse_gradients_keep_a_number_per_row() -> None:
    words = ["model=deepfm", "trainer=ctr", "data=synthetic_clicks", "data.source.num_rows=2000"]
    _, _, dense = sized(words)
    config, dataset, sparse = sized([*words, "model.sparse_gradients=true", "optimizer=rowwise_adagrad"])
    model = instantiate(config.model, _partial_=True, _convert_="all")(dataset.spec)
    (table,) = [parameter for name, parameter in model.named_parameters() if name == "fields.weight"]
    saved = dense.state - sparse.state
    assert saved == pytest.approx(4 * (2 * table.numel() - len(table)), rel=0.01)


def test_the_parameters_of_tiger_are_those_of_its_semantic_ids() -> None:
    """Twice the codes, twice the token vectors; three levels and the digit that tells colliding items apart."""
    words = ["model=tiger", "tokenizer.codebook_size=32", *SMALL]
    _, _, size = sized(words)
    config, _, double = sized([*words, "tokenizer.codebook_size=64"])
    assert double.parameters - size.parameters in {3 * 32 * config.model.embedding_dim * k for k in (1, 2)}


def test_an_unread_data_set_is_measured_on_the_invented_shop() -> None:
    config = compose_config(["model=sasrec", "trainer=advanced", *SMALL])
    dataset = instantiate(config.data, _convert_="all")
    rows = (estimate(config, dataset).parameters - estimate(config).parameters) / config.model.embedding_dim
    assert rows == dataset.num_items - 16


@pytest.mark.parametrize("model", ["popularity", "item_knn"])
def test_models_without_weights_need_no_optimizer(model: str) -> None:
    _, _, size = sized([f"model={model}", "trainer=simple", *SMALL])
    assert (size.parameters, size.gradients, size.state) == (0, 0.0, 0.0)


@pytest.mark.parametrize("model", ["rqvae", "rpg", "tiger_item", "lightgcn", "gat", "vae", "comirec", "youtube_dnn"])
def test_every_kind_of_model_can_be_measured(model: str) -> None:
    _, _, size = sized([f"model={model}", *SMALL])
    assert size.parameters > 0 and size.state > size.gradients
