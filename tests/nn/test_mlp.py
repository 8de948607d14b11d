"""The multi-layer perceptron."""

import pytest
import torch
from torch import nn

from genrec.nn.mlp import MLP, BatchNorm, Dice


def test_layers_are_linear_relu_linear() -> None:
    mlp = MLP(3, [4], 2)
    first = mlp.hidden[0]
    assert isinstance(first, nn.Linear)
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(mlp(inputs), mlp.output(first(inputs).relu()))


def test_no_hidden_layer_is_a_linear_map() -> None:
    mlp = MLP(3, [], 2)
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(mlp(inputs), mlp.output(inputs))


def test_output_takes_both_signs_and_keeps_the_scale_of_the_input() -> None:
    torch.manual_seed(0)
    outputs = MLP(64, [512, 512, 512], 64)(torch.randn(500, 64)).detach()
    assert (outputs < 0).float().mean() > 0.3
    assert 0.5 < float(outputs.std()) < 2


def test_dropout_acts_in_training_only() -> None:
    mlp = MLP(8, [32], 2, dropout=0.5)
    inputs = torch.randn(4, 8)
    assert not torch.equal(mlp(inputs), mlp(inputs))
    mlp.eval()
    torch.testing.assert_close(mlp(inputs), mlp(inputs))


def test_batch_norm_stands_before_the_activation() -> None:
    torch.manual_seed(0)
    mlp = MLP(3, [4], 2, batch_norm=True)
    first, inputs = mlp.hidden[0], torch.randn(5, 3)
    hidden = first(inputs)
    normed = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(mlp(inputs), mlp.output(normed.relu()))


@pytest.mark.parametrize("activation", ["relu", "dice"])
def test_a_single_row_is_normalised_by_moving_averages(activation: str) -> None:
    mlp = MLP(3, [4], 2, batch_norm=True, activation=activation)  # pyright: ignore[reportArgumentType]
    mlp(torch.randn(9, 3))
    before = {name: values.clone() for name, values in mlp.named_buffers()}
    row = torch.randn(1, 3)
    in_training = mlp(row)
    assert all(torch.equal(values, before[name]) for name, values in mlp.named_buffers())
    torch.testing.assert_close(in_training, mlp.eval()(row))


def test_batch_norm_of_more_than_two_dimensions() -> None:
    inputs = torch.randn(4, 5, 3)
    found = BatchNorm(3)(inputs)
    torch.testing.assert_close(found.flatten(0, 1), nn.BatchNorm1d(3)(inputs.flatten(0, 1)))


def test_dice_is_a_share_of_x_by_its_standing_in_the_batch() -> None:
    torch.manual_seed(0)
    dice, x = Dice(3), torch.randn(7, 3)
    nn.init.normal_(dice.alpha)
    found = dice(x)
    for neuron in range(3):
        column = x[:, neuron]
        share = torch.sigmoid((column - column.mean()) / (column.var(unbiased=False) + 1e-8).sqrt())
        torch.testing.assert_close(found[:, neuron], share * column + (1 - share) * dice.alpha[neuron] * column)


def test_dice_evaluates_with_moving_averages() -> None:
    dice, x = Dice(3).eval(), torch.randn(7, 3)
    torch.testing.assert_close(dice(x), torch.sigmoid(x / (1 + 1e-8) ** 0.5) * x)  # they start at 0 and 1
