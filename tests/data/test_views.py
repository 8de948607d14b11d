from __future__ import annotations

import numpy as np
import pytest
import torch

from genrec.contracts import GenrecError
from genrec.data.ragged import Ragged
from genrec.data.views import ItemsView, MatrixView

VECTORS = np.arange(60, dtype=np.float64).reshape(20, 3)


def test_parts_are_a_partition_and_all_is_in_order():
    view = ItemsView(VECTORS)
    sizes = {part: len(items) for part, items in view.parts.items()}
    assert sizes == {"val": 2, "test": 2, "train": 16, "all": 20}
    assert sorted(np.concatenate([view.parts[p] for p in ("train", "val", "test")])) == list(range(20))
    batches = list(view.eval_batches("all", batch_size=8))
    assert [len(batch.items) for batch in batches] == [8, 8, 4]
    assert torch.cat([batch.items for batch in batches]).tolist() == list(range(20))
    assert torch.equal(torch.cat([batch.vectors for batch in batches]), torch.from_numpy(VECTORS).float())
    assert (view.num_items, view.dim) == (20, 3)


def test_train_plan_is_a_function_of_seed_and_epoch():
    view = ItemsView(VECTORS)

    def order(seed, epoch):
        plan = view.train_plan(None, batch_size=5, seed=seed, epoch=epoch)
        return torch.cat([plan[i].items for i in range(len(plan))]).tolist()

    assert order(1, 2) == order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    assert sorted(order(1, 2)) == view.parts["train"].tolist()
    with pytest.raises(IndexError):
        view.train_plan(None, batch_size=5, seed=0, epoch=0)[4]


def test_fingerprint_sees_vectors_and_division():
    prints = [
        ItemsView(vectors, seed=seed).fingerprint for vectors, seed in ((VECTORS, 1), (VECTORS, 2), (VECTORS + 1, 1))
    ]
    assert len(set(prints)) == 3


def test_wrong_vectors_are_refused():
    broken = VECTORS.copy()
    broken[3, 1] = np.nan
    for vectors, message in ((broken, "1 of 20"), (VECTORS[0], "shape"), (VECTORS[:0], "shape")):
        with pytest.raises(GenrecError, match=message):
            ItemsView(vectors)
    with pytest.raises(GenrecError, match="below 1"):
        ItemsView(VECTORS, val_ratio=0.5, test_ratio=0.5)
    with pytest.raises(ValueError, match="part"):
        ItemsView(VECTORS).eval_batches("dev", batch_size=2)


def test_matrix_counts_training_interactions():
    view = MatrixView(Ragged.from_rows([[2, 0, 2], [], [1]]), num_items=4)
    assert view.matrix.toarray().tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert view.fingerprint != MatrixView(view.train, num_items=5).fingerprint
