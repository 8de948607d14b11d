from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from genrec.contracts import BOS_TOKEN, IGNORE, PAD_TOKEN, DataSpec, GenrecError, HistoryBatch, SequenceBatch
from genrec.models.tiger import Tiger
from genrec.nn.attention import group_causal_bias
from genrec.semantic_ids import SemanticIds
from tests.models.contract import RetrievalContract

NUM_ITEMS = 120
SIZES = (6, 6, 6, 3)
ENCODERS = ["bidirectional", "causal", "none"]
TINY: dict[str, Any] = {
    "embedding_dim": 16,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "head_dim": 8,
    "feedforward_dim": 32,
    "dropout": 0.1,
    "tie_embeddings": True,
    "max_history": 6,
}
WITH_ITEMS: dict[str, Any] = {"item_embedding": True, "text": True}
SCORING_ITEMS: dict[str, Any] = {**WITH_ITEMS, "normalize": "catalogue", "score_items": True}
WAYS = [
    *(
        {"normalize": normalize, **items}
        for normalize in ("level", "vocabulary", "catalogue")
        for items in ({}, WITH_ITEMS)
    ),
    SCORING_ITEMS,
]


class TestTigerCausal(RetrievalContract):
    ENCODER = "causal"

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        changes = {**TINY, "max_history": max_history, "num_beams": NUM_ITEMS, "encoder": self.ENCODER}
        return Tiger(spec, **changes)


class TestTigerWithItems(RetrievalContract):
    ENCODER = "causal"

    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        changes = {**TINY, "max_history": max_history, "num_beams": NUM_ITEMS, "encoder": self.ENCODER}
        return Tiger(spec, **changes, item_embedding=True, text=True)


class TestTigerScoringItems(RetrievalContract):
    def build(self, spec: DataSpec, max_history: int) -> nn.Module:
        changes = {**TINY, "max_history": max_history, "num_beams": NUM_ITEMS}
        return Tiger(spec, **changes, **SCORING_ITEMS)


class TestTigerDecoderOnlyWithItems(TestTigerWithItems):
    ENCODER = "none"


class TestTigerDecoderOnly(TestTigerCausal):
    ENCODER = "none"


class TestTigerBidirectional(TestTigerCausal):
    ENCODER = "bidirectional"


def _spec() -> DataSpec:
    flat = np.random.default_rng(0).choice(math.prod(SIZES), NUM_ITEMS, replace=False)
    codes = np.stack(np.unravel_index(flat, SIZES), axis=1)
    vectors = np.random.default_rng(1).normal(size=(NUM_ITEMS, 5)).astype(np.float32)
    return DataSpec(num_users=9, num_items=NUM_ITEMS, semantic_ids=SemanticIds(codes, SIZES, 3), item_vectors=vectors)


def _tiger(encoder: str = "causal", **changes: Any) -> Tiger:
    torch.manual_seed(0)
    return Tiger(_spec(), encoder=encoder, **{**TINY, **changes})  # pyright: ignore[reportArgumentType]


def _history(lengths: list[int], seen: Tensor | None = None) -> HistoryBatch:
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(NUM_ITEMS, (len(lengths), max(lengths)), generator=generator)
    lengths_ = torch.tensor(lengths)
    items = items.masked_fill(torch.arange(items.shape[1]) >= lengths_[:, None], 0)
    return HistoryBatch(torch.arange(len(lengths)), items, lengths_, seen)


def _sequences(lengths: list[int], first_scored: list[int] | None = None) -> SequenceBatch:
    batch = _history(lengths)
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(NUM_ITEMS, batch.items.shape, generator=generator)
    positions = torch.arange(targets.shape[1])
    first = torch.tensor(first_scored or [0] * len(lengths))
    scored = (positions < batch.lengths[:, None]) & (positions >= first[:, None])
    return SequenceBatch(batch.users, batch.items, batch.lengths, targets.masked_fill(~scored, IGNORE))


def _prefixes(batch: SequenceBatch) -> list[tuple[Tensor, int]]:
    """The history and the target of every scored position, one by one."""
    return [
        (batch.items[b, : t + 1], int(batch.targets[b, t])) for b, t in (batch.targets != IGNORE).nonzero().tolist()
    ]


def _with_biases(model: Tiger) -> Tiger:
    """What is zero at first must count as well."""
    for name, weight in model.named_parameters():
        if "biases" in name:
            nn.init.normal_(weight)
    return model


def _alone(items: Tensor) -> HistoryBatch:
    return HistoryBatch(torch.zeros(1, dtype=torch.long), items[None], torch.tensor([len(items)]))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("ways", WAYS)
def test_loss_is_the_mean_negative_log_probability_of_each_prefix(encoder: str, ways: dict[str, Any]) -> None:
    """All targets in one pass, or one history per target: each position is scored as if it stood alone."""
    model = _with_biases(_tiger(encoder, **ways)).eval()
    batch = _sequences([5, 6, 2, 1], first_scored=[0, 3, 1, 0])
    singles = [-model.log_prob(_alone(items), torch.tensor([[target]])) for items, target in _prefixes(batch)]
    losses = model.loss(batch)
    assert losses.count == len(singles) == 5 + 3 + 1 + 1
    assert losses.total.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-5)
    assert sum(part.item() for part in losses.parts.values()) == pytest.approx(losses.total.item(), rel=1e-6)


def test_one_pass_gradient_equals_that_of_windows() -> None:
    model = _tiger("causal", dropout=0.0)
    batch = _sequences([6, 6, 6], first_scored=[2, 2, 3])
    model.loss(batch).total.backward()
    one_pass = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    rows, places = (batch.targets != IGNORE).nonzero(as_tuple=True)
    columns = torch.arange(6)
    items = batch.items[rows].masked_fill(columns > places[:, None], 0)
    targets = batch.targets[rows].masked_fill(columns != places[:, None], IGNORE)
    windows = SequenceBatch(rows, items, places + 1, targets)
    hidden, chosen = model._hidden_of_windows(windows, targets != IGNORE)
    tokens = model.item_tokens[chosen]
    torch.stack([model._level_loss(hidden[:, c], tokens[:, c], c) for c in range(4)]).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, one_pass[name], rtol=1e-4, atol=1e-6)


def test_decoder_only_gradient_of_one_pass_equals_that_of_windows() -> None:
    """Sequences whose targets are the items that follow, several of a row scored, rows of unequal length."""
    model = _tiger("none", dropout=0.0)
    items = _history([6, 4, 5]).items
    lengths = torch.tensor([6, 4, 5])
    targets = functional.pad(items[:, 1:], (0, 1))
    targets[torch.arange(3), lengths - 1] = torch.tensor([7, 8, 9])
    places = torch.arange(6)
    targets = targets.masked_fill((places >= lengths[:, None]) | (places < torch.tensor([[2], [0], [3]])), IGNORE)
    batch = SequenceBatch(torch.arange(3), items, lengths, targets)
    one_pass = model.loss(batch)
    one_pass.total.backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    hidden, chosen = model._hidden_of_windows(batch, targets != IGNORE)
    tokens = model.item_tokens[chosen]
    loss = torch.stack([model._level_loss(hidden[:, c], tokens[:, c], c) for c in range(4)]).sum()
    loss.backward()
    assert one_pass.count == 4 + 4 + 2
    torch.testing.assert_close(one_pass.total, loss, rtol=1e-5, atol=1e-6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_half_precision_products_stay_close(encoder: str) -> None:
    """Under autocast the loss and its gradient are those of single precision, but for rounding."""
    model, batch = _tiger(encoder, dropout=0.0, embedding_dim=32), _sequences([6, 4, 2])
    results = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = model.loss(batch).total
        loss.backward()
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        results.append((loss, gradient))
    (exact, exact_gradient), (rough, rough_gradient) = results
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=1e-2)
    assert functional.cosine_similarity(exact_gradient, rough_gradient, dim=0) > 0.99


@pytest.mark.parametrize("encoder", ENCODERS)
def test_rows_longer_than_max_history_use_the_last_items(encoder: str) -> None:
    model = _tiger(encoder).eval()
    long, batch = _history([9, 4]), _sequences([9, 4])
    recent = HistoryBatch(long.users, torch.zeros(2, 6, dtype=torch.long), torch.tensor([6, 4]))
    recent.items[0], recent.items[1, :4] = long.items[0, 3:], long.items[1, :4]
    items = torch.arange(NUM_ITEMS).expand(2, -1)
    torch.testing.assert_close(model.log_prob(long, items), model.log_prob(recent, items))
    assert torch.equal(model.recommend(long, 5).items, model.recommend(recent, 5).items)
    singles = [-model.log_prob(_alone(i[-6:]), torch.tensor([[t]])) for i, t in _prefixes(batch)]
    assert model.loss(batch).total.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("ways", WAYS)
def test_beam_of_the_whole_catalogue_equals_exhaustive_scoring(encoder: str, ways: dict[str, Any]) -> None:
    model = _with_biases(_tiger(encoder, num_beams=NUM_ITEMS, **ways)).eval()
    batch = _history([6, 1, 3])
    scores = model.log_prob(batch, torch.arange(NUM_ITEMS).expand(3, -1))
    expected = scores.sort(descending=True, stable=True)
    found = model.recommend(batch, NUM_ITEMS)
    assert torch.equal(found.items, expected.indices)
    torch.testing.assert_close(found.scores, expected.values, rtol=1e-5, atol=1e-5)


def _reference_beam(model: Tiger, items: Tensor, num_beams: int) -> list[int]:
    """Plain Python, no cache and no trie: prefixes of real items, the best ``num_beams`` kept at each level."""
    codes = [tuple(row) for row in (model.item_tokens[:-1]).tolist()]
    told = model.item_tokens[items].flatten().tolist()
    memory, cross = None, None
    if model.encoder is not None:
        memory, lengths = model._encode(items[None], torch.tensor([len(items)]))
        cross = model._target_bias(lengths, memory.shape[1])
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for level in range(4):
        grown = []
        for score, prefix in beams:
            if memory is None:
                hidden = model.decoder(model.embedding(torch.tensor([[BOS_TOKEN, *told, *prefix]])))[0, -1]
            else:
                tokens = torch.tensor([[[BOS_TOKEN, *prefix]]])
                bias = None if cross is None or cross.shape[2] == 1 else cross[:, :, : level + 1]
                hidden = model.decoder(model.embedding(tokens), memory, bias)[0, 0, -1]
            log_probs = model._log_probs(hidden, level)
            for token in {code[level] for code in codes if code[:level] == prefix}:
                grown.append((score + log_probs[token - model.levels[level][0]].item(), (*prefix, token)))
        beams = sorted(grown, reverse=True)[:num_beams]
    return [codes.index(prefix) for _, prefix in beams]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_narrow_beam_equals_a_plain_python_one(encoder: str) -> None:
    model = _tiger(encoder, num_beams=4).eval()
    batch = _history([6, 1, 3])
    with torch.no_grad():
        expected = [_reference_beam(model, batch.items[b, : batch.lengths[b]], 4) for b in range(3)]
    assert model.recommend(batch, 4).items.tolist() == expected


def test_beam_is_never_narrower_than_k() -> None:
    model = _tiger(num_beams=1).eval()
    found = model.recommend(_history([3, 2]), 30)
    assert found.items.shape == (2, 30)
    assert all(len(set(row)) == 30 and IGNORE not in row for row in found.items.tolist())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_row_does_not_depend_on_the_others_or_on_padding(encoder: str) -> None:
    model = _tiger(encoder).eval()
    batch, items = _history([6, 1, 3]), torch.arange(NUM_ITEMS).expand(3, -1)
    together = model.log_prob(batch, items)
    wider = HistoryBatch(batch.users, functional.pad(batch.items, (0, 4), value=7), batch.lengths)
    torch.testing.assert_close(model.log_prob(wider, items), together, rtol=1e-5, atol=1e-5)
    for row, length in enumerate([6, 1, 3]):
        alone = model.log_prob(_alone(batch.items[row, :length]), items[:1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)
        assert torch.equal(
            model.recommend(_alone(batch.items[row, :length]), 5).items[0], model.recommend(batch, 5).items[row]
        )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_logits_invariant_to_the_order_of_the_history(encoder: str) -> None:
    model = _tiger(encoder).eval()
    history = _history([5]).items[0]
    items = torch.arange(NUM_ITEMS)[None]
    difference = model.log_prob(_alone(history), items) - model.log_prob(_alone(history.flip(0)), items)
    assert difference.abs().max() > 1e-2


def test_causal_encoder_sees_its_own_item_whole_and_no_later_one() -> None:
    model = _tiger("causal").eval()
    items = _history([4]).items
    changed = items.clone()
    changed[0, 2] = (items[0, 2] + 1) % NUM_ITEMS
    before, after = (model._encode(x, torch.tensor([4]))[0] for x in (items, changed))
    differs = (before - after).abs().amax(-1)[0] > 1e-6
    assert differs.tolist() == [False] * 8 + [True] * 8
    # The first token of an item sees the last of the same item.
    tokens = model.item_tokens[items].flatten(1)
    tokens[0, 3] = BOS_TOKEN
    vectors = model.embedding(tokens)
    groups = torch.arange(4).repeat_interleave(4)
    assert model.encoder is not None
    assert model.encoder is not None
    other = model.encoder(vectors, group_causal_bias(groups, groups))
    assert (other[0, 0] - before[0, 0]).abs().max() > 1e-3


def test_padding_id_equal_to_code_0() -> None:
    """Code 0 of level 0 has a token of its own, and no item uses a special token."""
    model = _tiger()
    tokens = model.item_tokens[:NUM_ITEMS]
    assert tokens.min() > max(PAD_TOKEN, BOS_TOKEN)
    assert len(tokens[:, 0].unique()) + len(tokens[:, 1].unique()) == len(tokens[:, :2].unique())
    assert (model.item_tokens[NUM_ITEMS] == PAD_TOKEN).all()


def test_item_0_in_the_history_is_not_padding() -> None:
    model = _tiger("bidirectional").eval()
    items = torch.arange(NUM_ITEMS)[None]
    with_it, without = torch.tensor([3, 0]), torch.tensor([3])
    assert (model.log_prob(_alone(with_it), items) - model.log_prob(_alone(without), items)).abs().max() > 1e-3


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_reaches_every_parameter(encoder: str) -> None:
    model = _tiger(encoder, tie_embeddings=False)
    model.loss(_sequences([6, 3])).total.backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert model.embedding.weight.grad is not None
    used = model.item_tokens[_sequences([6, 3]).items[0]]
    assert (model.embedding.weight.grad[used].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_learns_by_heart(encoder: str) -> None:
    """Item i is followed by item i + 1: a few steps suffice to recommend it first."""
    model = _tiger(encoder, dropout=0.0, embedding_dim=32)
    items = torch.arange(24).view(4, 6)
    batch = SequenceBatch(torch.arange(4), items, torch.full((4,), 6), items + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch).total.backward()
        optimizer.step()
    model.eval()
    assert model.recommend(HistoryBatch(batch.users, items, batch.lengths), 1).items[:, 0].tolist() == [6, 12, 18, 24]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_same_seed_same_bits(encoder: str) -> None:
    def once() -> tuple[Tensor, Tensor]:
        model = _tiger(encoder, dropout=0.2)
        loss = model.loss(_sequences([5, 3])).total
        loss.backward()
        return loss.detach(), model.embedding.weight.grad.clone()  # pyright: ignore[reportOptionalMemberAccess]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


def test_recommend_leaves_the_mode_and_drops_nothing() -> None:
    model = _tiger(dropout=0.5)
    batch = _history([4, 2])
    first = model.recommend(batch, 5)
    assert model.training and model.decoder.dropout.training
    assert torch.equal(first.scores, model.eval().recommend(batch, 5).scores)
    assert not model.training


def test_seen_items_are_not_recommended() -> None:
    batch = _history([4, 2])
    model = _tiger(num_beams=NUM_ITEMS).eval()
    best = model.recommend(batch, 5).items
    seen = torch.full((2, 3), IGNORE)
    seen[0], seen[1, 0] = best[0, :3], best[1, 1]
    found = model.recommend(HistoryBatch(batch.users, batch.items, batch.lengths, seen), 2).items
    assert found.tolist() == [best[0, 3:5].tolist(), [best[1, 0].item(), best[1, 2].item()]]


def test_catalogue_smaller_than_k_is_filled() -> None:
    found = _tiger().eval().recommend(_history([2]), NUM_ITEMS + 5)
    assert (found.items[0, :NUM_ITEMS].sort().values == torch.arange(NUM_ITEMS)).all()
    assert found.items[0, NUM_ITEMS:].tolist() == [IGNORE] * 5
    assert (found.scores[0, NUM_ITEMS:] == -torch.inf).all()


def test_empty_history_and_batch_of_one() -> None:
    for encoder in ENCODERS:
        model = _tiger(encoder).eval()
        empty = HistoryBatch(torch.zeros(1, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]))
        padded = HistoryBatch(torch.arange(2), torch.tensor([[5, 6], [0, 0]]), torch.tensor([2, 0]))
        with torch.inference_mode():
            alone = model.recommend(empty, 3)
            torch.testing.assert_close(alone.scores[0], model.recommend(padded, 3).scores[1], rtol=1e-5, atol=1e-5)
        assert math.isfinite(model.loss(_sequences([1])).total.item())


def test_batch_without_targets_has_a_loss_of_zero() -> None:
    batch = _sequences([2, 2], first_scored=[2, 2])
    losses = _tiger().loss(batch)
    losses.total.backward()
    assert (losses.total.item(), losses.count) == (0.0, 0)


def test_label_smoothing_known_answer() -> None:
    """Smoothed by e, each level's loss is (1 - e) times the plain one plus e times the mean over its codes."""
    model, batch = _tiger(dropout=0.0).eval(), _sequences([1])
    plain = model.loss(batch).total.item()
    hidden, _ = model._hidden_of_windows(batch, batch.targets != IGNORE)
    uniform = sum(-model._log_probs(hidden[0, c], c).mean().item() for c in range(4))
    model.label_smoothing = 0.1
    assert model.loss(batch).total.item() == pytest.approx(0.9 * plain + 0.1 * uniform, rel=1e-5)


def test_label_smoothing_over_the_catalogue_spreads_over_the_codes_that_continue() -> None:
    model, batch = _tiger(dropout=0.0, normalize="catalogue").eval(), _sequences([1])
    plain = model.loss(batch).total.item()
    hidden, items = model._hidden_of_windows(batch, batch.targets != IGNORE)
    codes = _spec().semantic_ids.codes  # pyright: ignore[reportOptionalMemberAccess]
    own, uniform = codes[int(items)], 0.0
    for level in range(4):
        allowed = sorted({int(code[level]) for code in codes if (code[:level] == own[:level]).all()})
        logits = model.embedding.logits(hidden[0, level], *model.levels[level])[allowed]
        uniform -= torch.log_softmax(logits, dim=0).mean().item()
    model.label_smoothing = 0.1
    assert model.loss(batch).total.item() == pytest.approx(0.9 * plain + 0.1 * uniform, rel=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_over_the_catalogue_a_code_competes_with_those_that_continue_its_prefix(encoder: str) -> None:
    model, batch = _tiger(encoder, normalize="catalogue").eval(), _history([3])
    scores = model.log_prob(batch, torch.arange(NUM_ITEMS)[None])
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(1))
    codes = _spec().semantic_ids.codes  # pyright: ignore[reportOptionalMemberAccess]
    hidden, _ = model._hidden_of_windows(
        SequenceBatch(batch.users, batch.items, batch.lengths, torch.tensor([[IGNORE, IGNORE, 7]])),
        torch.tensor([[False, False, True]]),
    )
    expected = 0.0
    for level in range(4):
        allowed = sorted({int(code[level]) for code in codes if (code[:level] == codes[7, :level]).all()})
        logits = model.embedding.logits(hidden[0, level], *model.levels[level])[allowed]
        expected += torch.log_softmax(logits, dim=0)[allowed.index(int(codes[7, level]))].item()
    assert scores[0, 7].item() == pytest.approx(expected, rel=1e-5)


def test_items_below_a_code_share_in_its_score() -> None:
    """By hand: to the logit of a code comes the hidden state times the sum of the item vectors below its prefix."""
    model, batch = _with_biases(_tiger(**SCORING_ITEMS)).eval(), _history([3])
    scores = model.log_prob(batch, torch.arange(NUM_ITEMS)[None])
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(1))
    codes = _spec().semantic_ids.codes  # pyright: ignore[reportOptionalMemberAccess]
    assert model.items is not None and model.text is not None
    vectors = model.items.weight + model.text(model.vectors)
    hidden, _ = model._hidden_of_windows(
        SequenceBatch(batch.users, batch.items, batch.lengths, torch.tensor([[IGNORE, IGNORE, 7]])),
        torch.tensor([[False, False, True]]),
    )
    expected = 0.0
    for level in range(4):
        prefixes = sorted({tuple(code[: level + 1]) for code in codes.tolist()})
        allowed = [prefix for prefix in prefixes if prefix[:level] == tuple(codes[7, :level])]
        plain = model.embedding.logits(hidden[0, level], *model.levels[level])
        logits = []
        for prefix in allowed:
            below = vectors[torch.from_numpy((codes[:, : level + 1] == prefix).all(1))]
            product = hidden[0, level] @ below.sum(0) / (len(below) * 16) ** 0.5  # 16 is the width
            logits.append(plain[prefix[-1]] + product + model.node_biases[level][prefixes.index(prefix)])
        expected += torch.log_softmax(torch.stack(logits), 0)[allowed.index(tuple(codes[7, : level + 1]))].item()
    assert scores[0, 7].item() == pytest.approx(expected, rel=1e-5)


def test_semantic_ids_are_no_parameters_and_not_in_checkpoints() -> None:
    model = _tiger()
    assert "item_tokens" not in dict(model.named_parameters())
    assert "item_tokens" not in model.state_dict()
    torch.manual_seed(5)
    other = Tiger(_spec(), **TINY).eval()
    other.load_state_dict(model.state_dict())
    batch = _history([4, 2])
    assert torch.equal(other.recommend(batch, 5).scores, model.eval().recommend(batch, 5).scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "both"}, "model.encoder=both: expected one of bidirectional, causal, none"),
        ({"num_beams": 0}, "model.num_beams=0: expected a whole number of at least 1"),
        ({**SCORING_ITEMS, "normalize": "level"}, r"needs model.normalize=catalogue \(it is level\)"),
        ({"normalize": "catalogue", "score_items": True}, "vectors of items: model.item_embedding=true"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        Tiger(_spec(), **{**TINY, **changes})
    with pytest.raises(GenrecError, match="tokenizer"):
        Tiger(DataSpec(num_users=1, num_items=2), **TINY)


@pytest.mark.parametrize("ways", [{"normalize": "catalogue"}, SCORING_ITEMS])
def test_samples_have_the_models_own_probabilities(ways: dict[str, Any]) -> None:
    """With ``normalize=catalogue`` the log-probability of a draw is that of its item; the options reach the draw."""
    model = Tiger(_spec(), **{**TINY, **ways}).train()
    batch = _history([4, 2])
    found = model.sample(batch, 200, generator=torch.Generator().manual_seed(0))
    assert model.training and found.items.shape == (2, 200)
    with torch.no_grad():
        assert torch.allclose(found.scores, model.eval().log_prob(batch, found.items), atol=1e-4)
    assert len(found.items.unique()) > 3
    greedy = model.sample(batch, 5, top_k=1)
    assert (greedy.items == greedy.items[:, :1]).all() and greedy.scores.abs().max() < 1e-6


def test_yaml_defaults_equal_the_constructors() -> None:
    node = yaml.safe_load((Path(__file__).parents[2] / "conf/model/tiger.yaml").read_text())
    assert node.pop("_target_") == "genrec.models.tiger.Tiger"
    signature = inspect.signature(Tiger).parameters
    assert node == {name: p.default for name, p in signature.items() if p.kind is p.KEYWORD_ONLY}
