from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from genrec.contracts import IGNORE, GenrecError
from genrec.decoding import sampling
from genrec.decoding.beam import beam_search
from genrec.decoding.sampling import sample, sample_sets, sample_tree, truncated_log_probs
from genrec.decoding.trie import Trie
from tests.decoding.test_beam import TableModel, catalogue, padded

CODES = np.array([[0, 0, 0], [1, 0, 1], [1, 1, 2], [1, 2, 0], [1, 2, 2], [2, 1, 0]])
SIZES = (3, 3, 3)
TRIE = Trie.from_codes(CODES, SIZES)


def drawn(model: TableModel, num_samples: int = 1, seed: int = 0, trie: Trie = TRIE, **options: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return sample(
        model, trie, batch_size=model.batch_size, device="cpu", num_samples=num_samples, generator=generator, **options
    )


def enumerated(model: TableModel, row: int, temperature: float, hidden: Set[int] = frozenset()) -> np.ndarray:
    """The probability of every item, prefix by prefix in plain Python: softmax(log p / temperature) of what goes on."""
    paths = [tuple(path) for path in CODES.tolist()]
    alive = [path for item, path in enumerate(paths) if item not in hidden]
    probabilities = np.zeros(len(paths))
    for item, path in enumerate(paths):
        if item in hidden:
            continue
        total, number = 1.0, 0
        for level, code in enumerate(path):
            allowed = sorted({other[level] for other in alive if other[:level] == path[:level]})
            weights = {c: np.exp(float(model.tables[level][row, number, c]) / temperature) for c in allowed}
            total *= weights[code] / sum(weights.values())
            number = number * SIZES[level] + code
        probabilities[item] = total
    return probabilities


@pytest.mark.parametrize(("temperature", "hidden"), [(1.0, set()), (0.6, set()), (2.5, set()), (1.0, {1, 5})])
def test_the_distribution_is_the_models_own_over_allowed_codes(temperature: float, hidden: set[int]) -> None:
    model = TableModel(3, SIZES, 2, coarse=False)
    seen = padded([sorted(hidden)] * 2) if hidden else None
    found = drawn(model, 6000, temperature=temperature, seen=seen)
    for row in range(2):
        expected = enumerated(model, row, temperature, hidden)
        assert expected.sum() == pytest.approx(1.0)
        counts = np.bincount(found.items[row].numpy(), minlength=6)
        possible = expected > 0
        assert not counts[~possible].any()
        assert chisquare(counts[possible], 6000 * expected[possible]).pvalue > 1e-3
        # The score of a draw is the logarithm of its probability.
        assert found.scores[row].exp().numpy() == pytest.approx(expected[found.items[row].numpy()], rel=1e-4)


def test_one_code_to_choose_from_is_greedy() -> None:
    for seed in range(20):
        codes = catalogue(seed, (4, 3, 5))
        trie, model = Trie.from_codes(codes, (4, 3, 5)), TableModel(seed, (4, 3, 5), 3, coarse=False)
        greedy = beam_search(model, trie, batch_size=3, num_beams=1, device="cpu").items
        for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-30}):
            found = drawn(model, 4, seed, trie, **options)
            assert found.items.tolist() == greedy.expand(-1, 4).tolist()
            assert found.scores.abs().max() < 1e-6  # nothing else could have come


def test_only_items_come_out_each_sample_on_its_own_way() -> None:
    sizes = (5, 4, 3)
    codes = catalogue(7, sizes)
    model = TableModel(7, sizes, 6, coarse=False)
    found = drawn(model, 50, trie=Trie.from_codes(codes, sizes))
    assert found.items.shape == found.scores.shape == (6, 50)
    assert found.items.min() >= 0 and found.items.max() < len(codes)
    assert model.widths == [1, 50, 50]
    assert all(len(set(row)) > 5 for row in found.items.tolist())


def test_seen_items_never_come() -> None:
    seen = torch.tensor([[0, 1, 2, 3, 4, 4], [5, 3, IGNORE, IGNORE, IGNORE, 5], [0, 1, 2, 3, 4, 5]])
    items = drawn(TableModel(1, SIZES, 3), 200, seen=seen).items
    assert set(items[0].tolist()) == {5}
    assert set(items[1].tolist()) == {0, 1, 2, 4}
    assert set(items[2].tolist()) == {IGNORE}


def test_a_seed_fixes_the_draws() -> None:
    model = TableModel(2, SIZES, 2)
    assert torch.equal(drawn(model, 30).items, drawn(model, 30).items)
    assert not torch.equal(drawn(model, 30).items, drawn(model, 30, seed=1).items)


def test_without_a_generator_torchs_own_is_used() -> None:
    model = TableModel(2, SIZES, 2)
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(sample(model, TRIE, batch_size=2, device="cpu", num_samples=30).items)
    assert torch.equal(*found)


def test_scores_of_nodes_serve_as_scores_of_codes() -> None:
    """The same draws whether a model scores codes, or the children of nodes."""
    model = TableModel(4, SIZES, 2, coarse=False)
    nodes_to_prefix = [torch.tensor([0]), torch.tensor(sorted({path[0] for path in CODES.tolist()}))]
    nodes_to_prefix.append(torch.tensor(sorted({path[0] * 3 + path[1] for path in CODES.tolist()})))

    def children(level: int, parents: Tensor, _: Tensor | None) -> Tensor:
        prefix = nodes_to_prefix[level][parents]
        table = torch.from_numpy(model.tables[level])[torch.arange(2)[:, None], prefix]
        below, _ = TRIE.children_of(level, parents)
        return table.gather(2, TRIE.codes[level][below].long())

    generator = torch.Generator().manual_seed(0)
    found = sample_tree(children, TRIE, batch_size=2, device="cpu", num_samples=40, generator=generator)
    assert torch.equal(found.items, drawn(model, 40).items)


LOGITS = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.2, 0.15, 0.1, 0.05]),
        ({"top_k": 2}, [5 / 7, 2 / 7, 0, 0, 0]),
        ({"top_k": 9}, [0.5, 0.2, 0.15, 0.1, 0.05]),
        ({"top_p": 0.7}, [5 / 7, 2 / 7, 0, 0, 0]),  # .5 + .2 hold exactly .7
        ({"top_p": 0.71}, [0.5 / 0.85, 0.2 / 0.85, 0.15 / 0.85, 0, 0]),
        ({"top_p": 0.3}, [1, 0, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.7}, [1, 0, 0, 0, 0]),  # of the two that are left the first holds 5/7
        ({"temperature": 0.5}, np.array([0.25, 0.04, 0.0225, 0.01, 0.0025]) / 0.325),
        ({"temperature": 0.5, "top_p": 0.76}, [1, 0, 0, 0, 0]),  # .25 / .325 = .769: the temperature comes first
    ],
)
def test_truncation_by_hand(options: dict[str, Any], expected: Any) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])  # the likeliest need not stand first
    found = truncated_log_probs(LOGITS[order], **options).exp()
    assert found.numpy() == pytest.approx(np.asarray(expected)[order.numpy()], abs=1e-6)


def test_equal_choices_are_kept_by_lower_index() -> None:
    assert (truncated_log_probs(torch.zeros(2, 4), top_k=2).exp() * 2).tolist() == [[1, 1, 0, 0]] * 2
    assert (truncated_log_probs(torch.zeros(10), top_p=0.3).exp() > 0).tolist() == [True] * 3 + [False] * 7


def test_impossible_choices_stay_impossible() -> None:
    logits = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])
    assert truncated_log_probs(logits, top_k=2, top_p=0.9).tolist() == [[0.0, -torch.inf], [-torch.inf] * 2]


def test_races_draw_by_the_same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """What more weights than multinomial takes are drawn by."""
    monkeypatch.setattr(sampling, "_MOST_WEIGHTS", 3)
    chances = torch.tensor([0.5, 0.2, 0.0, 0.2, 0.1])
    rows = chances.log().repeat(2, 1)
    places, log_probs = sampling._drawn(rows, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(log_probs, rows.gather(1, places))
    counts = torch.bincount(places.flatten(), minlength=5).numpy()
    assert counts[2] == 0
    assert chisquare(counts[[0, 1, 3, 4]], 8000 * chances.numpy()[[0, 1, 3, 4]]).pvalue > 0.01
    nowhere = torch.full((1, 5), -torch.inf)
    assert sampling._drawn(nowhere, 1, None)[0].tolist() == [[0]]


def test_sets_are_drawn_without_replacement() -> None:
    """The probability of an ordered draw is that of each item among what is left (Plackett-Luce)."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(6000, -1)
    found = sample_sets(logits, torch.full((6000,), 2), generator=torch.Generator().manual_seed(0))
    pairs = {(a, b): (p := [0.5, 0.3, 0.2])[a] * p[b] / (1 - p[a]) for a in range(3) for b in range(3) if a != b}
    counts = {pair: 0 for pair in pairs}
    for pair in map(tuple, found.items.tolist()):
        counts[pair] += 1
    assert chisquare(list(counts.values()), [6000 * share for share in pairs.values()]).pvalue > 1e-3
    expected = [pairs[pair] for pair in map(tuple, found.items.tolist())]
    assert found.scores.sum(1).exp().numpy() == pytest.approx(np.array(expected), rel=1e-4)


def test_sets_have_the_sizes_asked_for_and_no_more_items_than_there_are() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = sample_sets(logits, torch.tensor([0, 6, 2]))
    assert [(row != IGNORE).sum().item() for row in found.items] == [0, 4, 2]
    assert sorted(found.items[1].tolist()) == [IGNORE, IGNORE, 0, 1, 2, 3]
    greedy = sample_sets(logits, torch.full((3,), 4), top_k=1).items
    assert torch.equal(greedy, logits.argsort(dim=1, descending=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: give a number above 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1: give a whole number"),
        ({"top_p": 0.0}, "top_p=0.0: give a share"),
        ({"top_p": 1.5}, "top_p=1.5: give a share"),
        ({"num_samples": 0}, "num_samples=0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        drawn(TableModel(0, SIZES, 1), **options)
