from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import GenrecError
from genrec.nn.embedding import TokenEmbedding
from genrec.trainers.parameter_groups import frozen_parameters, parameter_groups
from genrec.trainers.simple import SimpleTrainer


def names(groups: list[dict[str, Any]]) -> list[list[str]]:
    return [group["names"] for group in groups]


def test_weight_decay_spares_norms_and_biases() -> None:
    model = toy_model()
    decayed, spared = parameter_groups(model)
    assert {id(p) for p in decayed["params"]} == {id(model.items.weight), id(model.out.weight)}
    assert "weight_decay" not in decayed and spared["weight_decay"] == 0.0
    decayed, spared = parameter_groups(model, decay_embeddings=False)
    assert [id(p) for p in decayed["params"]] == [id(model.out.weight)]
    assert len(spared["params"]) == 4


def test_the_table_of_tokens_is_an_embedding_too() -> None:
    [spared] = parameter_groups(TokenEmbedding(5, 4, tie=False), decay_embeddings=False)
    assert spared["names"] == ["weight", "output"] and spared["weight_decay"] == 0.0


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2, bias=False).requires_grad_(False)
    assert parameter_groups(model) == []


def test_every_parameter_is_in_one_group_and_the_first_match_decides() -> None:
    model = toy_model()
    groups = parameter_groups(model, [{"match": "out.bias", "lr_scale": 2.0}, {"match": "out.*", "lr_scale": 0.1}])
    assert names(groups) == [["items.weight"], ["norm.weight", "norm.bias"], ["out.bias"], ["out.weight"]]
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0, 2.0, 0.1]


def test_an_entry_s_weight_decay_is_of_its_matrices() -> None:
    groups = parameter_groups(toy_model(), [{"match": "out.*", "weight_decay": 0.3}])
    assert names(groups)[2:] == [["out.weight"], ["out.bias"]]
    assert [group["weight_decay"] for group in groups[2:]] == [0.3, 0.0]


def test_hidden_matrices_are_those_of_linear_layers() -> None:
    model = toy_model()
    groups = parameter_groups(model, separate_hidden=True)
    assert {group["hidden"]: group["names"] for group in groups[:2]} == {True: ["out.weight"], False: ["items.weight"]}
    groups = parameter_groups(model, [{"match": "out.*", "hidden": False}], separate_hidden=True)
    assert not any(group["hidden"] for group in groups)


def test_a_tied_output_layer_is_an_embedding_by_either_name() -> None:
    model = toy_model(num_items=16, dim=16)
    model.out.weight = model.items.weight
    assert not any(group["hidden"] for group in parameter_groups(model, separate_hidden=True))
    assert names(parameter_groups(model, [{"match": "out.weight", "lr_scale": 0.5}]))[-1] == ["items.weight"]


def test_a_pattern_that_matches_nothing_lists_names() -> None:
    with pytest.raises(GenrecError, match=r"parameter_groups\[1\]\.match=outt\.\*: no parameter .* out\.weight"):
        parameter_groups(toy_model(), [{"match": "items.*"}, {"match": "outt.*"}])
    with pytest.raises(GenrecError, match=r"parameter_groups\[1\].*an entry before it"):
        parameter_groups(toy_model(), [{"match": "*"}, {"match": "out.*"}])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"match": "out.*", "lr_scale": -1.0}, r"parameter_groups\[0\]\.lr_scale=-1"),
        ({"match": "out.*", "weight_decay": -0.1}, r"parameter_groups\[0\]\.weight_decay=-0\.1"),
        ({"match": "out.*", "lr": 0.1}, r"parameter_groups\[0\]\.lr: no such key\. It takes: match, lr_scale"),
        ({"lr_scale": 0.1}, r"parameter_groups\[0\]\.match"),
    ],
)
def test_a_wrong_entry_is_refused_when_the_trainer_is_made(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=rf"^trainer\.{message}"):
        SimpleTrainer(parameter_groups=[entry])


def train(folder: Path, model: Any, entries: list[dict[str, Any]]) -> dict[str, float]:
    """How far each parameter moves in one step of plain SGD at rate 1, unclipped."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    context = toy_context(folder, optimizer=functools.partial(torch.optim.SGD, lr=1.0))
    trainer = SimpleTrainer(max_epochs=1, max_steps=1, gradient_clip_norm=None, parameter_groups=entries)
    trainer.fit(model, toy_view(), context)
    return {name: float((weight.detach() - before[name]).norm()) for name, weight in model.named_parameters()}


def test_a_scale_multiplies_the_step_and_zero_freezes(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", toy_model(), [])
    model = toy_model()
    entries = [{"match": "out.*", "lr_scale": 0.5}, {"match": "norm.*", "lr_scale": 0.0}]
    scaled = train(tmp_path / "scaled", model, entries)
    assert scaled["items.weight"] == pytest.approx(plain["items.weight"])
    assert scaled["out.weight"] == pytest.approx(plain["out.weight"] / 2)
    assert scaled["norm.weight"] == scaled["norm.bias"] == 0.0 < plain["norm.weight"]
    assert model.norm.weight.grad is None, "a frozen parameter takes no gradient"
    assert all(parameter.requires_grad for parameter in model.parameters()), "but may again after training"


def test_only_what_would_be_trained_is_thawed_again(tmp_path: Path) -> None:
    model = toy_model()
    model.norm.bias.requires_grad_(False)
    assert frozen_parameters(model, [{"match": "norm.*", "lr_scale": 0}]) == [model.norm.weight]
    train(tmp_path, model, [{"match": "norm.*", "lr_scale": 0}])
    assert model.norm.weight.requires_grad and not model.norm.bias.requires_grad


def test_nothing_left_to_train_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match="freezes every parameter"):
        train(tmp_path, toy_model(), [{"match": "*", "lr_scale": 0}])
