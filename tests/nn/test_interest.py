"""The local activation unit of DIN."""

from __future__ import annotations

import torch

from genrec.nn.interest import LocalActivation

THERE = torch.tensor([[True, True, False], [False, False, False], [True, False, False]])


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 4), torch.randn(3, 3, 4)


def test_equals_a_network_place_by_place() -> None:
    target, history = inputs()
    unit = LocalActivation(4, [5]).eval()
    found = unit(target, history, THERE)
    for row in range(3):
        for place in range(3):
            old, new = history[row, place], target[row]
            expected = unit.layers(torch.cat([old, new, old - new, old * new])[None])[0, 0]
            torch.testing.assert_close(found[row, place], expected if THERE[row, place] else torch.zeros(()))


def test_padding_is_no_part_of_the_statistics() -> None:
    target, history = inputs()
    outcomes = []
    for filler, width in ((0.0, 3), (1e6, 3), (-5.0, 8)):
        torch.manual_seed(1)
        unit = LocalActivation(4).train()
        places = torch.full((3, width, 4), filler)
        there = torch.zeros(3, width, dtype=torch.bool)
        places[:, :3][THERE], there[:, :3] = history[THERE], THERE
        weights = unit(target, places, there)
        outcomes.append((weights[:, :3], dict(unit.named_buffers())))
        assert weights[:, 3:].abs().sum() == 0
    for weights, statistics in outcomes[1:]:
        torch.testing.assert_close(weights, outcomes[0][0])
        for name, values in statistics.items():
            torch.testing.assert_close(values, outcomes[0][1][name])


def test_no_history_at_all() -> None:
    target, history = inputs()
    unit = LocalActivation(4).train()
    weights = unit(target, history.requires_grad_(), torch.zeros(3, 3, dtype=torch.bool))
    weights.sum().backward()
    assert weights.tolist() == [[0.0] * 3] * 3
    assert all(weight.grad is None or not weight.grad.any() for weight in unit.parameters())


def test_one_place_alone() -> None:
    target, history = inputs()
    unit = LocalActivation(4).train()
    assert unit(target[:1], history[:1, :1], torch.ones(1, 1, dtype=torch.bool)).isfinite().all()


def test_weights_start_near_one_and_are_no_softmax() -> None:
    target, history = inputs()
    weights = LocalActivation(4)(0.01 * target, 0.01 * history, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.ones(3, 3), atol=0.1, rtol=0)


def test_a_gradient_reaches_everything() -> None:
    target, history = inputs()
    unit = LocalActivation(4).train()
    torch.nn.init.normal_(unit.layers.hidden[1].alpha)  # pyright: ignore
    given = target.requires_grad_(), history.requires_grad_()
    unit(*given, THERE).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in (*unit.parameters(), *given))
