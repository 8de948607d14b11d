"""The multi-layer perceptron."""

import torch
from torch import nn

from genrec.nn.mlp import MLP


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
