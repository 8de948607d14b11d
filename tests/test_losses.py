from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from genrec import losses
from genrec.contracts import GenrecError
from genrec.losses import (
    BCE,
    BPR,
    GBCE,
    FullCrossEntropy,
    InBatchSoftmax,
    SampledSoftmax,
    Whole,
    item_loss,
    scored_items,
    scored_users,
)

NUM_ROWS, NUM_ITEMS, WIDTH = 150, 37, 5
ALL = [
    FullCrossEntropy(),
    SampledSoftmax(num_negatives=6),
    SampledSoftmax(num_negatives=6, logq=True, sampling="popularity"),
    BCE(num_negatives=3),
    GBCE(num_negatives=6),
    BPR(count=2, sampling="popularity", candidates=2),
    InBatchSoftmax(),
]


def _inputs(dtype: torch.dtype = torch.float32, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(NUM_ROWS, WIDTH, generator=generator, dtype=torch.float64).mul(scale).to(dtype)
    table = torch.randn(NUM_ITEMS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(NUM_ITEMS, (NUM_ROWS,), generator=generator)
    return hidden.requires_grad_(), table.requires_grad_(), targets, torch.arange(1.0, NUM_ITEMS + 1)


def _gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss * 0.7, leaves)  # an upstream gradient other than 1


@pytest.mark.parametrize("few_rows", [1, 7, 48, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_full_cross_entropy_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float, few_rows: int
) -> None:
    monkeypatch.setattr(losses, "_FEW_ROWS", few_rows)
    hidden, table, targets, counts = _inputs(dtype)
    ours = FullCrossEntropy()(hidden, table, targets, counts)
    plain = functional.cross_entropy(hidden @ table.T, targets)
    assert ours.dtype == dtype
    assert torch.allclose(ours, plain, rtol=0, atol=tolerance)
    for a, b in zip(_gradients(ours, hidden, table), _gradients(plain, hidden, table), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance)


def test_full_cross_entropy_against_finite_differences() -> None:
    hidden, table, targets, counts = _inputs(torch.float64)
    few = hidden.detach()[:4].requires_grad_()
    assert torch.autograd.gradcheck(lambda h, t: FullCrossEntropy()(h, t, targets[:4], counts), (few, table))


def test_full_cross_entropy_in_bfloat16_stays_near() -> None:
    hidden, table, targets, counts = _inputs()
    plain = functional.cross_entropy(hidden @ table.T, targets)
    expected = _gradients(plain, hidden, table)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = FullCrossEntropy()(hidden, table, targets, counts)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(plain.item(), rel=5e-3)
    for a, b in zip(_gradients(ours, hidden, table), expected, strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a, b, rtol=0, atol=0.02 * b.abs().max().item())


def test_full_cross_entropy_survives_extreme_logits() -> None:
    hidden, table, targets, counts = _inputs(scale=1e4)
    loss = FullCrossEntropy()(hidden, table, targets, counts)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in _gradients(loss, hidden, table))


def test_full_cross_entropy_gives_only_the_gradients_asked_for() -> None:
    hidden, table, targets, counts = _inputs()
    fixed = FullCrossEntropy()(hidden, table.detach(), targets, counts)
    (alone,) = _gradients(fixed, hidden)
    both = _gradients(FullCrossEntropy()(hidden, table, targets, counts), hidden, table)
    assert torch.equal(alone, both[0])
    with torch.no_grad():
        assert torch.equal(FullCrossEntropy()(hidden, table, targets, counts), fixed)


@pytest.mark.parametrize("shared", [True, False])
def test_sampled_softmax_is_cross_entropy_over_target_and_negatives(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    hidden, table, targets, counts = _inputs(torch.float64)
    negatives = torch.randint(NUM_ITEMS, (1 if shared else NUM_ROWS, 6), generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(losses, "_draw", lambda *_, **__: negatives)
    ours = SampledSoftmax(num_negatives=6, shared=shared)(hidden, table, targets, counts)
    rows = []
    for row, target in enumerate(targets.tolist()):
        drawn = [item for item in negatives[0 if shared else row].tolist() if item != target]
        rows.append(-torch.log_softmax(hidden[row] @ table[[target, *drawn]].T, dim=0)[0])
    plain = torch.stack(rows).mean()
    assert torch.allclose(ours, plain, atol=1e-10)
    for a, b in zip(_gradients(ours, hidden, table), _gradients(plain, hidden, table), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_logq_corrects_every_logit_by_its_chance_to_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    # Items 0, 1, 2 with chances 1/2, 1/4, 1/4; logits 0; target 0, negatives 1, 2 and 1 again, n = 3.
    monkeypatch.setattr(losses, "_draw", lambda *_, **__: torch.tensor([[1, 2, 1]]))
    loss = SampledSoftmax(num_negatives=3, logq=True, sampling="popularity")
    given = loss(torch.zeros(1, 4), torch.ones(3, 4), torch.tensor([0]), torch.tensor([2.0, 1.0, 1.0]))
    # Q is 1 - (1/2)^3 = 7/8 of the target and 1 - (3/4)^3 = 37/64 of the others, each of which counts once.
    assert given.item() == pytest.approx(math.log((8 / 7 + 2 * 64 / 37) / (8 / 7)))


def test_with_every_item_drawn_the_sampled_softmax_is_the_full_one() -> None:
    torch.manual_seed(0)
    hidden, table, targets, counts = _inputs()
    sampled = SampledSoftmax(num_negatives=20_000, logq=True, sampling="popularity")(hidden, table, targets, counts)
    full = FullCrossEntropy()(hidden, table, targets, counts)
    assert sampled.item() == pytest.approx(full.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [SampledSoftmax(num_negatives=2, logq=True, sampling="popularity"), InBatchSoftmax()])
def test_an_item_without_training_interactions_counts_as_one(loss: Any) -> None:
    """A held-out target may have none: log(0) would decide the validation loss of everyone."""
    hidden, table, targets = torch.zeros(2, 3), torch.ones(3, 3), torch.tensor([0, 1])
    values = []
    for never in (0.0, 1.0):
        torch.manual_seed(0)
        values.append(loss(hidden, table, targets, torch.tensor([never, 1e6, 1e6])).item())
    assert values[0] == pytest.approx(values[1], rel=1e-5) and values[0] < 20


def test_logq_changes_nothing_under_uniform_sampling() -> None:
    values = []
    for logq in (False, True):
        torch.manual_seed(0)
        values.append(SampledSoftmax(num_negatives=6, logq=logq)(*_inputs()).item())
    assert values[0] == values[1]


def test_sampling_follows_the_counts() -> None:
    torch.manual_seed(0)
    chances = torch.tensor([0.5, 0.0, 0.2, 0.3])
    drawn = losses._draw(40_000, torch.zeros(3), 4, shared=True, chances=chances)
    assert drawn.shape == (1, 40_000)
    assert (torch.bincount(drawn.flatten(), minlength=4) / 40_000).tolist() == pytest.approx(chances.tolist(), abs=0.01)
    uniform = losses._draw(400, torch.zeros(100), 4, shared=False, chances=None)
    assert uniform.shape == (100, 400)
    assert (torch.bincount(uniform.flatten()) / 40_000).tolist() == pytest.approx([0.25] * 4, abs=0.01)


@pytest.mark.parametrize("shared", [True, False])
def test_bce_by_hand(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    # Logits ln 3 for the target 0 (chance 3/4), 0 for item 1 (1/2); the second negative is the target and is left out.
    monkeypatch.setattr(losses, "_draw", lambda *_, **__: torch.tensor([[1, 0]]))
    hidden, table = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(3.0), 1.0], [0.0, 1.0]])
    given = BCE(num_negatives=2, shared=shared)(hidden, table, torch.tensor([0]), torch.ones(2))
    assert given.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 3)


def test_gbce_raises_the_target_to_a_power(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 5 items, 2 negatives are half of the 4 others: alpha = 1/2, and t = 1/2 gives the power 3/4.
    monkeypatch.setattr(losses, "_draw", lambda *_, **__: torch.tensor([[1, 2]]))
    hidden = torch.tensor([[1.0]])
    table = torch.tensor([[math.log(3.0)], [0.0], [0.0], [9.0], [9.0]])
    given = GBCE(num_negatives=2, t=0.5)(hidden, table, torch.tensor([0]), torch.ones(5))
    assert given.item() == pytest.approx((0.75 * math.log(4 / 3) + 2 * math.log(2)) / 3)


def test_gbce_at_zero_is_bce() -> None:
    values = []
    for loss in (GBCE(num_negatives=6, t=0.0), BCE(num_negatives=6, shared=True)):
        torch.manual_seed(0)
        values.append(loss(*_inputs()).item())
    assert values[0] == pytest.approx(values[1])


# ---- pairs, batches -------------------------------------------------------------------------------------------------


def test_bpr_over_items_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Scores ln 3 of the target 0, 0 of item 1: softplus(-ln 3) = ln 4/3; the second negative is the target and is out.
    monkeypatch.setattr(losses, "_draw", lambda *_, **__: torch.tensor([[1, 0]]))
    hidden, table = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(3.0), 1.0], [0.0, 1.0]])
    given = BPR(count=2)(hidden, table, torch.tensor([0]), torch.ones(2))
    assert given.item() == pytest.approx(math.log(4 / 3) / 2)


def test_bpr_infinite_at_score_difference_200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_draw", lambda *_, **__: torch.tensor([[1]]))
    hidden = torch.ones(1, 1, requires_grad=True)
    loss = BPR()(hidden, torch.tensor([[-100.0], [100.0]]), torch.tensor([0]), torch.ones(2))
    loss.backward()
    assert loss.item() == 200.0 and hidden.grad is not None and hidden.grad.item() == 200.0


# exp of the scores of three users (rows) for three items; items make 1/4, 1/2 and 1/4 of the training interactions.
_ODDS = [[2.0, 1.0, 1.0], [3.0, 4.0, 1.0], [1.0, 2.0, 6.0]]
_COUNTS = torch.tensor([1.0, 2.0, 1.0])


def _of_odds(loss: InBatchSoftmax, users: list[int] | None = None) -> float:
    table = torch.tensor(_ODDS).log().T.contiguous()
    known = None if users is None else torch.tensor(users)
    return loss(torch.eye(3), table, torch.tensor([0, 1, 2]), _COUNTS, known).item()


def test_in_batch_softmax_with_logq_in_fractions() -> None:
    # Divided by the shares the odds are 8 2 4 | 12 8 4 | 4 4 24, so the targets have 4/7, 1/3 and 3/4.
    assert _of_odds(InBatchSoftmax()) == pytest.approx(math.log(7 / 4 * 3 * 4 / 3) / 3)
    # As they are, 1/2, 1/2 and 2/3.
    assert _of_odds(InBatchSoftmax(logq=False)) == pytest.approx(math.log(2 * 2 * 3 / 2) / 3)
    # At temperature 1/2 odds are squared before: 16 2 4 | 36 32 4 | 4 8 144, which leaves 8/11, 4/9 and 12/13.
    assert _of_odds(InBatchSoftmax(temperature=0.5)) == pytest.approx(math.log(11 / 8 * 9 / 4 * 13 / 12) / 3)


def test_the_target_of_every_other_row_is_a_negative_but_never_of_itself() -> None:
    """A naive (R, R) softmax: row i has the scores of all rows' targets less the log of their share; where another row
    has the same target, an accidental hit, it is left out."""
    hidden, table, _, counts = _inputs()
    targets = torch.tensor([3, 1, 3, 3, 0])
    rows = hidden[:5].detach()
    scores = rows @ table.detach()[targets].T - (counts / counts.sum()).log()[targets]
    hits = (targets[:, None] == targets) & ~torch.eye(5, dtype=torch.bool)
    expected = functional.cross_entropy(scores.masked_fill(hits, -torch.inf), torch.arange(5))
    assert InBatchSoftmax()(rows, table, targets, counts).item() == pytest.approx(expected.item(), rel=1e-5)


def test_other_targets_of_a_user_are_no_negatives_of_the_user() -> None:
    # Rows 0 and 2 are one user: 8 of 8 + 2, and 24 of 4 + 24; row 1 is as before.
    assert _of_odds(InBatchSoftmax(), [5, 8, 5]) == pytest.approx(math.log(5 / 4 * 3 * 7 / 6) / 3)
    assert _of_odds(InBatchSoftmax(), [5, 8, 6]) == pytest.approx(_of_odds(InBatchSoftmax()))


def test_in_batch_softmax_crash_at_batch_size_1() -> None:
    hidden, table, _, counts = _inputs()
    for targets in ([3], [3, 3]):  # nothing to tell the target from
        few = hidden.detach()[: len(targets)].requires_grad_()
        loss = InBatchSoftmax()(few, table, torch.tensor(targets), counts, torch.zeros(len(targets), dtype=torch.int64))
        loss.backward()
        assert loss.item() == 0.0 and few.grad is not None and not few.grad.any()


def test_score_tensors_are_summed_over_the_width() -> None:
    """As many rows as items as dimensions, where a sum over another axis would go unnoticed by its shape."""
    hidden, table = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    scores = torch.tensor([[3.0, 3.0], [0.0, 1.0]])  # by hand
    expected = functional.cross_entropy(scores, torch.tensor([0, 1]))
    for loss in (FullCrossEntropy(), InBatchSoftmax(logq=False)):
        assert loss(hidden, table, torch.tensor([0, 1]), torch.ones(2)).item() == pytest.approx(expected.item())


def test_what_a_loss_does_to_vectors_can_be_served() -> None:
    """Temperature and cosine are in the products of ``scored_users`` and ``scored_items`` as they are in the loss."""
    hidden, table, _, counts = _inputs()
    loss = InBatchSoftmax(temperature=0.2, cosine=True, logq=False)
    scores = scored_users(loss, hidden[:4]) @ scored_items(loss, table).T
    cosines = functional.cosine_similarity(hidden[:4, None], table[None], dim=2)
    assert torch.allclose(scores, cosines / 0.2, atol=1e-5)
    targets = torch.arange(4)
    expected = functional.cross_entropy(scores[:, :4], targets)
    assert torch.allclose(loss(hidden[:4], table, targets, counts), expected, atol=1e-6)
    assert scored_users(FullCrossEntropy(), hidden) is hidden and scored_items(FullCrossEntropy(), table) is table


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_every_loss_learns_and_is_float32_under_autocast(loss: Any) -> None:
    torch.manual_seed(0)
    hidden, table, targets, counts = _inputs()
    optimizer = torch.optim.Adam([hidden, table], lr=0.05)
    values = []
    for _ in range(60):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(hidden, table, targets, counts)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert value.dtype == torch.float32
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_same_seed_same_loss(loss: Any) -> None:
    values = []
    for _ in range(2):
        torch.manual_seed(4)
        values.append(loss(*_inputs()).item())
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SampledSoftmax(num_negatives=0), "num_negatives must be at least 1"),
        (lambda: BCE(num_negatives=0), "num_negatives must be at least 1"),
        (lambda: GBCE(t=1.5), "loss.t must lie in 0..1"),
        (lambda: SampledSoftmax(sampling="frequency"), "uniform, popularity"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_impossible_settings_are_refused(build: Any, message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        build()


def test_losses_by_name() -> None:
    found = {name: item_loss(name) for name in ("pointwise", "pairwise", "listwise", "in_batch", "full")}
    assert found["pointwise"] == BCE()
    assert found["pairwise"] == BPR()
    assert found["listwise"] == SampledSoftmax(num_negatives=256, logq=True, sampling="popularity")
    assert found["in_batch"] == InBatchSoftmax(logq=True)
    assert found["full"] == FullCrossEntropy()
    mine = GBCE(num_negatives=3)
    assert item_loss(mine) is mine


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(GenrecError, match=r"model.loss=pairwize: expected one of pointwise, .*Did you mean pairwise\?"):
        item_loss("pairwize")
    with pytest.raises(GenrecError, match=r"model.loss=7 is no loss over items"):
        item_loss(7)


@pytest.mark.parametrize("columns", [1, 5, 37, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_wide_catalogue_by_columns_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float, columns: int
) -> None:
    monkeypatch.setattr(losses, "_WIDE", 10)
    monkeypatch.setattr(losses, "_FEWEST_COLUMNS", columns)
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", 1)
    hidden, table, targets, counts = _inputs(dtype)
    ours = FullCrossEntropy()(hidden, table, targets, counts)
    assert type(ours.grad_fn).__name__ == "_ColumnwiseCrossEntropyBackward"
    plain = functional.cross_entropy(hidden @ table.T, targets)
    assert ours.dtype == dtype
    assert torch.allclose(ours, plain, rtol=0, atol=tolerance)
    for a, b in zip(_gradients(ours, hidden, table), _gradients(plain, hidden, table), strict=True):
        assert a.dtype == dtype and torch.allclose(a, b, rtol=0, atol=tolerance)


def test_by_columns_survives_extreme_logits_and_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_WIDE", 10)
    monkeypatch.setattr(losses, "_FEWEST_COLUMNS", 7)
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", 1)
    hidden, table, targets, counts = _inputs(scale=200.0)
    ours = FullCrossEntropy()(hidden, table, targets, counts)
    torch.testing.assert_close(ours, functional.cross_entropy(hidden @ table.T, targets))
    hidden, table, targets, counts = _inputs()
    plain = functional.cross_entropy(hidden @ table.T, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = FullCrossEntropy()(hidden, table, targets, counts)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(plain.item(), rel=0.01)


def test_by_columns_no_more_logits_exist_than_are_allowed() -> None:
    """As many rows and items as there may be: what is scored at once stays within the bound."""
    for rows, items in ((16, 1 << 20), (4096, 1 << 20), (1 << 20, 1 << 20)):
        parts = losses.columns_of(rows, items, "cpu")
        assert [(part.start, part.stop) for part in (parts[0], parts[-1])] == [
            (0, parts[0].stop),
            (parts[-1].start, items),
        ]
        assert all(one.stop == two.start for one, two in itertools.pairwise(parts))
        assert max(part.stop - part.start for part in parts) <= max((1 << 24) // rows, 1 << 10)


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_one_negative_leaves_the_true_probabilities_where_they_are(sampling: Any) -> None:
    """The expected gradient of the corrected sampled softmax is zero at scores of log p, exactly, over all draws: what
    it learns is the distribution itself. Without the correction, popular negatives push popular items down."""
    truth = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    counts = torch.tensor([8.0, 4.0, 2.0, 2.0], dtype=torch.float64)
    chance = torch.full((4,), 0.25, dtype=torch.float64) if sampling == "uniform" else counts / counts.sum()

    def expected_gradient(logq: bool) -> Tensor:
        loss = SampledSoftmax(num_negatives=1, logq=logq, sampling=sampling)
        scores = truth.log().requires_grad_()
        total = torch.zeros((), dtype=torch.float64)
        for target in range(4):
            for drawn in range(4):
                one = loss.of_drawn(
                    torch.ones(1, 1, dtype=torch.float64), scores[:, None], torch.tensor([target]),
                    torch.tensor([[drawn]]), counts, Whole.of(counts),
                )  # fmt: skip
                total = total + truth[target] * chance[drawn] * one
        return torch.autograd.grad(total, scores)[0]

    assert expected_gradient(True).abs().max() < 1e-6
    if sampling == "popularity":
        assert expected_gradient(False)[0] > 0.01, "the most popular item would be pushed down"


def test_the_mean_gradient_of_samples_approaches_that_of_the_full_softmax() -> None:
    hidden, table, targets, counts = _inputs(torch.float64)
    wanted = torch.autograd.grad(functional.cross_entropy(hidden @ table.T, targets), table)[0]
    away = []
    for num_negatives in (4, 32, 256):
        torch.manual_seed(0)
        loss = SampledSoftmax(num_negatives=num_negatives, logq=True, sampling="popularity", shared=False)
        found = [torch.autograd.grad(loss(hidden, table, targets, counts), table)[0] for _ in range(60)]
        away.append(float((torch.stack(found).mean(0) - wanted).norm() / wanted.norm()))
    assert away[0] > 2 * away[1] > 4 * away[2] and away[2] < 0.03
