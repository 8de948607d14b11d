from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.contracts import GenrecError
from genrec.data.cleaning import build_log
from genrec.data.dataset import Dataset
from genrec.data.interactions import SourceData
from genrec.data.sources.amazon import AmazonSource
from genrec.data.splits import LeaveOneOut, RatioPerUser


class Memory:
    """A source that hands out a small table and counts how often it is read."""

    name = "memory"

    def __init__(self, items=None, users=(1, 1, 1, 1, 7, 7, 7), item_ids=(3, 4, 5, 6, 4, 5, 3)):
        self.items, self.users, self.item_ids, self.reads = items, list(users), list(item_ids), 0

    def load(self):
        self.reads += 1
        log, report = build_log(pl.DataFrame({"user_id": self.users, "item_id": self.item_ids}), items=self.items)
        return SourceData(log, report, Path("/somewhere"))


ITEMS = pl.DataFrame({"item_id": [3, 4, 5], "title": ["Three", None, "Five"], "text": ["three things", "", "five"]})


def test_nothing_is_read_before_it_is_needed():
    source = Memory()
    dataset = Dataset(source, LeaveOneOut(), path="x")
    assert (source.reads, dataset.name) == (0, "memory")
    assert (dataset.num_users, dataset.num_items) == (2, 4)
    assert [row.tolist() for row in dataset.sequences.train] == [[0, 1], [1]]
    assert dataset.fingerprint
    assert source.reads == 1


def test_titles_fall_back_to_the_raw_id():
    dataset = Dataset(Memory(ITEMS), LeaveOneOut())
    assert dataset.titles == ["Three", "item 4", "Five", "item 6"]
    assert dataset.texts == ["three things", "", "five", ""]
    few = ITEMS.with_columns(text=pl.Series([" ", None, "five"]), title=pl.Series(["Three", "Four", "Five"]))
    assert Dataset(Memory(few), LeaveOneOut()).texts == ["Three", "Four", "five", ""]
    none = Dataset(Memory(few.with_columns(text=pl.lit(""))), LeaveOneOut())
    assert none.has_text and none.texts == ["Three", "Four", "Five", ""]
    assert Dataset(Memory(ITEMS.drop("text")), LeaveOneOut()).texts == ["Three", "", "Five", ""]


def test_without_item_text_the_way_out_is_named():
    dataset = Dataset(Memory(), LeaveOneOut())
    assert not dataset.has_text
    assert dataset.titles[0] == "item 3"
    with pytest.raises(GenrecError, match=r"memory has no item text.*/somewhere.*encoder=collaborative"):
        _ = dataset.texts


def test_raw_ids_are_looked_up():
    dataset = Dataset(Memory(), LeaveOneOut())
    assert dataset.user_index("7") == dataset.user_index(7) == 1
    assert dataset.item_index(" 5 ") == 2
    with pytest.raises(GenrecError, match=r"no user '8'. It has 2 users; the nearest are 7, 1"):
        dataset.user_index(8)
    with pytest.raises(GenrecError, match="numbers, from 3 to 6"):
        dataset.item_index("B00")
    with pytest.raises(GenrecError, match="no user '--7'"):
        dataset.user_index("--7")
    long = Dataset(Memory(users=[17 * 10**17 + n for n in (0, 3, 9, 2000)] * 2, item_ids=[1, 2] * 4), LeaveOneOut())
    assert long.user_index(str(17 * 10**17 + 3)) == 1
    for near, other in ((3, 4), (9, 8)):
        with pytest.raises(GenrecError, match=f"the nearest are {17 * 10**17 + near}, "):
            long.user_index(17 * 10**17 + other)
    for beyond in (2**63, 10**30):
        with pytest.raises(GenrecError, match="all are numbers"):
            long.user_index(beyond)
    named = Dataset(Memory(users=["ann"] * 3 + ["bob"] * 3, item_ids=[1, 2, 3] * 2), LeaveOneOut())
    assert named.user_index("bob") == 1
    with pytest.raises(GenrecError, match="near it: ann"):
        named.user_index("anna")


def test_views():
    dataset = Dataset(Memory(), LeaveOneOut())
    assert dataset.view("sequences") is dataset.view("tokens") is dataset.sequences
    assert dataset.view("matrix").matrix.toarray().tolist() == [[1, 1, 0, 0], [0, 1, 0, 0]]  # training rows only
    assert dataset.view("items", vectors=np.eye(4)).num_items == 4
    with pytest.raises(GenrecError, match="choose an encoder"):
        dataset.view("items")
    with pytest.raises(GenrecError, match="3 item vectors"):
        dataset.view("items", vectors=np.eye(3))


def test_a_view_without_its_columns_is_refused():
    with pytest.raises(GenrecError, match=r"'pointwise'.*user_id, item_id.*sequences, tokens, graph, matrix, items"):
        Dataset(Memory(), LeaveOneOut()).view("pointwise")


def test_fingerprint_depends_on_content_and_split():
    prints = {
        Dataset(Memory(ITEMS), LeaveOneOut()).fingerprint,
        Dataset(Memory(), LeaveOneOut()).fingerprint,
        Dataset(Memory(ITEMS.with_columns(pl.lit("x").alias("text"))), LeaveOneOut()).fingerprint,
        Dataset(Memory(ITEMS), RatioPerUser(train_ratio=0.5, val_ratio=0.0, test_ratio=0.5)).fingerprint,
        Dataset(Memory(ITEMS, item_ids=(3, 4, 6, 5, 4, 5, 3)), LeaveOneOut()).fingerprint,
    }
    assert len(prints) == 5
    assert Dataset(Memory(ITEMS), LeaveOneOut()).fingerprint in prints


def test_description_and_ceiling():
    dataset = Dataset(Memory(), LeaveOneOut())
    assert dataset.ceiling == {}
    assert dataset.source_folder == Path("/somewhere")
    assert dataset.describe()[0] == "2 users, 4 items, 7 interactions"
    assert "test: 2 interactions of 2 users, 1 items never trained on" in dataset.describe()


def test_beauty_loads_and_splits_quickly(real):
    begin = time.process_time()
    dataset = Dataset(AmazonSource(path=str(real("amazon_beauty"))), LeaveOneOut())
    assert len(dataset.sequences.test.values) == 22_363
    assert time.process_time() - begin < 4  # measured: 0.4 s
