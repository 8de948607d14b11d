"""What every model of a table's rows must do, as tests to inherit.

    class TestDeepFM(RowContract):
        def build(self, spec: DataSpec) -> nn.Module:
            return DeepFM(spec, embedding_dim=4, hidden_dims=[8])

``TASKS`` names the labels of the table that the model is to learn. The table: a dense value and the parity of the user
each move the click on their own, and a click wants the parities of item and context to differ, which no sum of effects
can tell. Likes follow the user and the dense value, purchases are clicks on even items, ratings are known of every
second row. Half the history of a row is ids of the item's parity.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrec.contracts import IGNORE, DataSpec, RankingModel, RowBatch, Task
from genrec.features import FeatureSpec, SequenceField, SparseField, TaskSpec
from genrec.nn.fields import FieldEmbedding
from tests.models.contract import memory_of_nan

NUM_ROWS = 1536
USERS, ITEMS, CONTEXTS, TAGS = 12, 20, 6, 9  # sizes of the vocabularies; id 0 is the unknown
LABELS = ("click", "like", "buy", "rating")


def row_batch(num_rows: int = NUM_ROWS, *, seed: int = 0, tasks: tuple[str, ...] = ("click",)) -> RowBatch:
    """Rows of the planted table, drawn anew for every seed."""
    random = np.random.default_rng(seed)
    dense = random.standard_normal((num_rows, 2))
    users, items = random.integers(1, USERS, num_rows), random.integers(1, ITEMS, num_rows)
    contexts = random.integers(1, CONTEXTS, num_rows)
    previous = random.integers(0, CONTEXTS, num_rows)  # shares the vocabulary of contexts
    history = random.integers(1, ITEMS // 2, (num_rows, 4)) * 2
    history -= (random.random(history.shape) < 0.5) * ((items % 2)[:, None])
    history[np.arange(4) >= random.integers(0, 5, num_rows)[:, None]] = IGNORE
    tags = random.integers(0, TAGS, (num_rows, 3))
    tags[np.arange(3) >= random.integers(0, 4, num_rows)[:, None]] = IGNORE
    first = 1.2 * dense[:, 0] + np.where(users % 2, 1.0, -1.0)
    differ = np.where(items % 2 != contexts % 2, 2.5, -2.5)
    click = random.random(num_rows) < 1 / (1 + np.exp(-first - differ))
    like = random.random(num_rows) < 1 / (1 + np.exp(-2 * first))
    rating = 10.0 + 3.0 * first + differ + random.standard_normal(num_rows)
    rating[::2] = np.nan
    labels = {"click": click, "like": like, "buy": click & (items % 2 == 0), "rating": rating}
    return RowBatch(
        dense=torch.from_numpy(dense.astype(np.float32)),
        sparse=torch.from_numpy(np.stack([users, items, contexts, previous], axis=1).astype(np.int32)),
        sequences=(torch.from_numpy(history.astype(np.int32)), torch.from_numpy(tags.astype(np.int32))),
        labels=torch.from_numpy(np.stack([labels[name] for name in tasks], axis=1).astype(np.float32)),
        groups=torch.from_numpy(users.astype(np.int64)),
    )


def row_features(tasks: tuple[str, ...] = ("click",)) -> FeatureSpec:
    """The fields of the planted table, with the given labels as tasks."""
    labels = row_batch(tasks=tasks).labels.double().numpy()
    return FeatureSpec(
        dense=("price", "age"),
        sparse=(
            SparseField(name="user", size=USERS, table="user"),
            SparseField(name="item", size=ITEMS, table="item"),
            SparseField(name="context", size=CONTEXTS, table="context"),
            SparseField(name="previous", size=CONTEXTS, table="context"),
        ),
        sequences=(
            SequenceField(name="history", size=ITEMS, table="item", max_length=4, target="item"),
            SequenceField(name="tags", size=TAGS, table="tags", max_length=3, pooling="sum"),
        ),
        tasks=tuple(
            TaskSpec(
                name=name,
                kind="regression" if name == "rating" else "classification",
                given="click" if name == "buy" and "click" in tasks else None,
                mean=float(np.nanmean(labels[:, place])),
                std=float(np.nanstd(labels[:, place])),
            )
            for place, name in enumerate(tasks)
        ),
    )


def row_spec(tasks: tuple[str, ...] = ("click",), features: FeatureSpec | None = None) -> DataSpec:
    """What a model may know of the planted table."""
    return DataSpec(features=features or row_features(tasks), training_rows=lambda: row_batch(tasks=tasks))


def rows(batch: RowBatch, part: slice | Tensor | list[int]) -> RowBatch:
    """Some rows of a batch."""
    return RowBatch(
        batch.dense[part],
        batch.sparse[part],
        tuple(ids[part] for ids in batch.sequences),
        batch.labels[part],
        None if batch.groups is None else batch.groups[part],
    )


def padded(batch: RowBatch, places: int = 3) -> RowBatch:
    """The same rows with wider sequences."""
    wider = tuple(nn.functional.pad(ids, (0, places), value=IGNORE) for ids in batch.sequences)
    return replace(batch, sequences=wider)


def fit(model: Any, batch: RowBatch, *, epochs: int = 8, batch_size: int = 256, lr: float = 0.02) -> None:
    """Trains with Adam; the order of rows is that of the batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for begin in range(0, len(batch), batch_size):
            optimizer.zero_grad()
            model.loss(rows(batch, slice(begin, begin + batch_size))).total.backward()
            optimizer.step()
    model.eval()


def risk(model: Any, batch: RowBatch, spec: DataSpec) -> dict[str, float]:
    """By task the mean log-loss, or the squared error in units of the variance, over rows with a label."""
    assert spec.features is not None
    found = model.predict(batch)
    risks = {}
    for place, task in enumerate(spec.features.tasks):
        label, predicted = batch.labels[:, place].double(), found[task.name].double()
        if task.kind == "regression":
            losses = ((predicted - label) / task.std).square()
        else:
            losses = nn.functional.binary_cross_entropy(predicted, label.nan_to_num(), reduction="none")
        risks[task.name] = float(losses[~label.isnan()].mean())
    return risks


def base_risk(batch: RowBatch, spec: DataSpec) -> dict[str, float]:
    """The same of predicting the training mean."""
    assert spec.features is not None
    risks = {}
    for place, task in enumerate(spec.features.tasks):
        label = batch.labels[:, place].double()
        label = label[~label.isnan()]
        if task.kind == "regression":
            risks[task.name] = float(((task.mean - label) / task.std).square().mean())
        else:
            risks[task.name] = float(-(label * np.log(task.mean) + (1 - label) * np.log(1 - task.mean)).mean())
    return risks


def naive_fields(fields: FieldEmbedding, batch: RowBatch, row: int) -> list[Tensor]:
    """The vectors (D or D + 1) of all sparse fields and pooled sequences of a row, looked up one by one."""

    def vector(table: str, index: int) -> Tensor:
        return fields.weight[fields.rows_of[table][0] + index]

    features = fields.features
    found = [vector(field.table, int(batch.sparse[row, place])) for place, field in enumerate(features.sparse)]
    for place, field in enumerate(features.sequences):
        vectors = [vector(field.table, int(index)) for index in batch.sequences[place][row] if index != IGNORE]
        total = sum(vectors, torch.zeros(fields.weight.shape[1]))
        found.append(total / max(len(vectors), 1) if field.pooling == "mean" else total)
    return found


def rough(model: nn.Module) -> Any:
    """The model with weights far from their start, so that every term of a formula counts."""
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return model.eval()


class RowContract:
    """Inherit, name the class Test..., and give ``build``: small, without dropout, everything else as it comes."""

    TASKS: tuple[str, ...] = ("click",)
    EPOCHS = 8  # of training, until at most the share LEARNS of the base rate's loss is left
    LEARNS = 0.85

    def build(self, spec: DataSpec) -> nn.Module:
        """The model under test, seeded by the caller."""
        raise NotImplementedError

    @pytest.fixture
    def model(self) -> Any:
        return self.seeded(0)

    @pytest.fixture
    def batch(self) -> RowBatch:
        return row_batch(24, seed=1, tasks=self.TASKS)

    def seeded(self, seed: int) -> Any:
        torch.manual_seed(seed)
        return self.build(row_spec(self.TASKS)).eval()

    @staticmethod
    def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
        assert first.keys() == second.keys()
        for name, values in first.items():
            torch.testing.assert_close(values, second[name], atol=1e-5, rtol=1e-5)

    @staticmethod
    def is_trained(model: Any) -> bool:
        return any(parameter.requires_grad for parameter in model.parameters())

    def test_declares_what_trainers_ask_for(self, model: Any) -> None:
        assert model.view == "rows"
        assert model.task == Task.RANKING
        assert model.learns_tasks is None or model.learns_tasks >= len(self.TASKS)
        assert hasattr(model, "loss") == self.is_trained(model)
        assert tuple(task.name for task in model.tasks) == self.TASKS
        assert isinstance(model, nn.Module)
        assert isinstance(model, RankingModel)

    def test_predicts_a_value_per_row_and_task(self, model: Any, batch: RowBatch) -> None:
        found = model.predict(batch)
        features = row_features(self.TASKS)
        assert set(self.TASKS) <= found.keys()
        assert found.keys() <= set(self.TASKS) | {task.conditional for task in features.tasks if task.given}
        kinds = {task.name: task.kind for task in features.tasks}
        for name, values in found.items():
            assert values.shape == (len(batch),)
            assert values.dtype == torch.float32
            assert not values.requires_grad
            assert values.isfinite().all()
            if kinds.get(name, "classification") == "classification":
                assert (values >= 0).all() and (values <= 1).all()

    def test_weights_from_uninitialised_memory(self) -> None:
        """Fault of an original: two models of one seed differed."""
        with memory_of_nan():
            one, other = self.seeded(0), self.seeded(0)
        tensors = zip((*one.parameters(), *one.buffers()), (*other.parameters(), *other.buffers()), strict=True)
        assert all(first.isfinite().all() and torch.equal(first, second) for first, second in tensors)

    def test_starts_at_the_mean_label(self, model: Any, batch: RowBatch) -> None:
        """Untrained, a model is about as good as the mean, so that the first steps need not find it."""
        if self.is_trained(model):
            spec = row_spec(self.TASKS)
            base = base_risk(row_batch(tasks=self.TASKS), spec)
            for name, value in risk(model, row_batch(tasks=self.TASKS), spec).items():
                assert value < 1.5 * base[name]

    def test_a_row_does_not_depend_on_the_others(self, model: Any, batch: RowBatch) -> None:
        whole = model.predict(batch)
        for part in (slice(0, 1), slice(3, 4), slice(5, 12)):
            self.assert_same(model.predict(rows(batch, part)), {name: found[part] for name, found in whole.items()})

    def test_padding_does_not_matter(self, model: Any, batch: RowBatch) -> None:
        self.assert_same(model.predict(batch), model.predict(padded(batch)))
        if self.is_trained(model):
            model.train()
            losses = []
            for given in (batch, padded(batch)):
                torch.manual_seed(3)
                losses.append(model.loss(given).total.item())
            assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_labels_and_groups_do_not_reach_predictions(self, model: Any, batch: RowBatch) -> None:
        blind = replace(batch, labels=torch.full_like(batch.labels, torch.nan), groups=None)
        self.assert_same(model.predict(batch), model.predict(blind))

    def test_unknown_ids_and_empty_sequences(self, model: Any, batch: RowBatch) -> None:
        nothing = replace(
            batch,
            sparse=torch.zeros_like(batch.sparse),
            sequences=tuple(torch.full_like(ids, IGNORE) for ids in batch.sequences),
        )
        assert all(values.isfinite().all() for values in model.predict(nothing).values())
        if self.is_trained(model):
            total = model.train().loss(nothing).total
            total.backward()
            assert total.isfinite()
            assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())

    def test_ids_of_either_width(self, model: Any, batch: RowBatch) -> None:
        wide = replace(batch, sparse=batch.sparse.long(), sequences=tuple(ids.long() for ids in batch.sequences))
        self.assert_same(model.predict(batch), model.predict(wide))

    def test_predicting_changes_nothing(self, model: Any, batch: RowBatch) -> None:
        model.train()  # a trainer evaluates between two epochs: neither dropout nor statistics nor the mode may leak
        before = copy.deepcopy(model.state_dict())
        given = copy.deepcopy(batch)
        in_training = model.predict(batch)
        assert model.training
        assert all(part.training for part in model.modules())
        self.assert_same(in_training, model.eval().predict(batch))
        assert not model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(batch.dense, given.dense) and torch.equal(batch.sparse, given.sparse)
        assert all(map(torch.equal, batch.sequences, given.sequences))

    def test_state_dict_round_trip(self, model: Any, batch: RowBatch) -> None:
        other = self.seeded(1)
        other.load_state_dict(model.state_dict())
        first, second = model.predict(batch), other.predict(batch)
        assert all(torch.equal(values, second[name]) for name, values in first.items())

    def test_all_state_moves_with_the_model(self, model: Any) -> None:
        for name, tensor in model.to("meta").state_dict().items():
            assert tensor.device.type == "meta", f"{name} stayed behind"
        assert all(buffer.device.type == "meta" for buffer in model.buffers())

    @pytest.mark.parametrize("size", [1, 2, 7])
    def test_a_loss_of_few_rows(self, model: Any, batch: RowBatch, size: int) -> None:
        if not self.is_trained(model):
            return
        losses = model.train().loss(rows(batch, slice(0, size)))
        losses.total.backward()
        assert losses.total.shape == ()
        assert losses.total.isfinite()
        assert losses.count == size
        assert all(not part.requires_grad for part in losses.parts.values())
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())

    def test_a_gradient_reaches_every_parameter(self, model: Any) -> None:
        if not self.is_trained(model):
            return
        fit(model, row_batch(256, tasks=self.TASKS), epochs=1, batch_size=64)
        model.zero_grad()
        model.train().loss(row_batch(256, tasks=self.TASKS)).total.backward()
        untouched = [
            name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any().item()
        ]
        assert not untouched, f"no gradient reached {untouched}"

    def test_rows_without_a_label_do_not_count(self, model: Any, batch: RowBatch) -> None:
        if not self.is_trained(model):
            return
        labels = batch.labels.clone()
        labels[10:] = torch.nan
        found, _ = model.task_losses(replace(batch, labels=labels))
        expected, _ = model.task_losses(rows(batch, slice(0, 10)))
        self.assert_same(found, expected)
        total = model.loss(replace(batch, labels=torch.full_like(labels, torch.nan))).total
        total.backward()
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())

    def test_the_loss_is_the_sum_of_its_tasks(self, model: Any, batch: RowBatch) -> None:
        if not self.is_trained(model):
            return
        losses, extra = model.task_losses(batch)
        assert tuple(losses) == self.TASKS
        expected = sum(losses.values()) + (0.0 if extra is None else extra)
        torch.testing.assert_close(model.loss(batch).total, expected)

    def test_shared_and_private_parameters_are_the_models(self, model: Any) -> None:
        if not self.is_trained(model):
            return
        own = {id(weight) for weight in model.parameters()}
        private = {id(weight) for weight in model.private_parameters()}
        last = {id(weight) for weight in model.last_shared()}
        assert private < own
        assert last <= own - private
        assert last or len(self.TASKS) == 1

    def test_bfloat16(self, model: Any, batch: RowBatch) -> None:
        exact = model.predict(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.predict(batch)
            if self.is_trained(model):
                model.train().loss(batch).total.backward()
        for name, values in found.items():
            assert values.dtype == torch.float32
            torch.testing.assert_close(values, exact[name], atol=0.05, rtol=0.05)
        assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())

    def test_double_precision(self, model: Any, batch: RowBatch) -> None:
        """Weights of float64 on batches of float32, as hardware.precision=64-true evaluates them."""
        exact = model.predict(batch)
        self.assert_same(model.double().predict(batch), exact)
        if self.is_trained(model):
            model.train().loss(batch).total.backward()
            assert all(weight.grad is None or weight.grad.dtype == torch.float64 for weight in model.parameters())

    def test_predictions_follow_every_optimizer_step(self, model: Any, batch: RowBatch) -> None:
        if not self.is_trained(model):
            return
        before = model.predict(batch)
        fit(model, batch, epochs=1, lr=0.1)
        after = model.predict(batch)
        assert all(not torch.allclose(before[name], after[name]) for name in self.TASKS)

    def test_learns_the_table(self) -> None:
        """Trained for a moment, a model is better than the mean label on rows that it has not seen."""
        model = self.seeded(0)
        if self.is_trained(model):
            fit(model, row_batch(tasks=self.TASKS), epochs=self.EPOCHS)
        spec, held_out = row_spec(self.TASKS), row_batch(seed=7, tasks=self.TASKS)
        base = base_risk(held_out, spec)
        for name, value in risk(model, held_out, spec).items():
            assert value < self.LEARNS * base[name], f"{name}: {value:.3f} of {base[name]:.3f}"
