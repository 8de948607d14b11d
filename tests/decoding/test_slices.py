from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genrec.contracts import HistoryBatch, Recommendations
from genrec.decoding import slices
from genrec.decoding.slices import in_slices


class Echo:
    """Recommends to each row what it knows of it; keeps what it was given."""

    def __init__(self) -> None:
        self.lengths: list[list[int]] = []

    def __call__(self, batch: HistoryBatch) -> Recommendations:
        self.lengths.append(batch.lengths.tolist())
        known: list[Tensor] = [batch.users, batch.lengths, batch.items[:, 0]]
        if batch.seen is not None:
            known.append(batch.seen[:, 0])
        return Recommendations(torch.stack(known, dim=1), batch.users[:, None] * 0.5)


def _batch(lengths: list[int], seen: bool = True) -> HistoryBatch:
    users = torch.arange(len(lengths))
    return HistoryBatch(users, users[:, None] + 100, torch.tensor(lengths), users[:, None] + 200 if seen else None)


@pytest.mark.parametrize("seen", [True, False])
def test_rows_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    monkeypatch.setattr(slices, "MAX_BEAMS", 6)
    echo, batch = Echo(), _batch([5, 1, 4, 1, 3], seen)
    found = in_slices(echo, batch, 2)
    expected = Echo()(batch)
    assert torch.equal(found.items, expected.items) and torch.equal(found.scores, expected.scores)
    assert echo.lengths == [[1, 1, 3], [4, 5]]  # at most 3 rows of 2 beams, like lengths together


def test_a_batch_that_fits_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MAX_BEAMS", 6)
    for lengths, beams in (([5, 1, 4], 2), ([2], 50), ([], 2)):
        echo = Echo()
        in_slices(echo, _batch(lengths), beams)
        assert echo.lengths == [lengths]


def test_beams_beyond_the_bound_go_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MAX_BEAMS", 6)
    echo = Echo()
    in_slices(echo, _batch([2, 1]), 50)
    assert echo.lengths == [[1], [2]]
