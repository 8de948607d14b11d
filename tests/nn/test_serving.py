from __future__ import annotations

import torch
from torch import nn

from genrec.nn.serving import evaluating, last_states, recent


def test_the_end_of_each_history_filled_from_the_left():
    items = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]])
    kept, lengths = recent(items, torch.tensor([4, 2, 1]), max_history=3)
    assert lengths.tolist() == [3, 2, 1]
    assert kept[0].tolist() == [2, 3, 4]
    assert kept[1, :2].tolist() == [5, 6]
    assert kept[2, :1].tolist() == [7]


def test_no_wider_than_the_longest_and_never_empty():
    items = torch.tensor([[1, 9, 9], [2, 3, 9]])
    assert recent(items, torch.tensor([1, 2]), max_history=5)[0].shape == (2, 2)
    assert recent(items[:, :0], torch.tensor([0, 0]), max_history=5)[0].shape == (2, 1)


def test_the_state_at_the_end_of_each_row():
    states = torch.arange(24.0).view(3, 2, 4) + 1
    found = last_states(states, torch.tensor([1, 2, 0]))
    assert torch.equal(found, torch.stack([states[0, 0], states[1, 1], torch.zeros(4)]))
    assert last_states(states.view(3, 2, 2, 2), torch.tensor([0, 2, 1]))[0].tolist() == [[0, 0], [0, 0]]


def test_evaluation_mode_for_the_moment_only():
    module = nn.Sequential(nn.Dropout(0.5))
    for mode in (True, False):
        module.train(mode)
        with evaluating(module):
            assert not module[0].training
        assert module[0].training == mode
