"""What tests share: one thread under xdist, the real data sets, a tiny data set whose next item is certain."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; must be set before numpy and torch start their pools
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(_name, "1")

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings

from genrec.data.dataset import Dataset
from genrec.data.interactions import DataReport, InteractionLog, SourceData
from genrec.data.splits import LeaveOneOut
from genrec.trainers.world import ALONE, tell_lightning

REPOSITORY = Path(__file__).parents[1]
_NETWORK = "GLOO_SOCKET_IFNAME"

settings.register_profile("tests", derandomize=True, deadline=None)  # new examples are what `make fuzz` is for
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def switches_of_the_process() -> Iterator[None]:
    """A run sets threads, denormals, determinism, the network and who writes. No test finds those of another."""
    threads, network = torch.get_num_threads(), os.environ.get(_NETWORK)
    torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)
    tell_lightning(ALONE)
    if network is None:
        os.environ.pop(_NETWORK, None)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of prepared data sets: $GENREC_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("GENREC_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data sets: {folder} does not exist (set GENREC_DATA)")
    return folder


@pytest.fixture(scope="session")
def held_memory() -> Callable[[int], AbstractContextManager[None]]:
    """``with held_memory(50):`` holds 50 megabytes of new pages, then gives them back: an array may get and return
    pages that the allocator keeps."""

    @contextmanager
    def held(megabytes: int) -> Iterator[None]:
        with mmap.mmap(-1, megabytes * 1_000_000) as block:
            for start in range(0, len(block), mmap.PAGESIZE):
                block[start] = 1
            yield

    return held


@dataclass
class CycleSource:
    """Users who walk once around a ring of items: item j is always followed by item j + 1 (modulo ``num_items``).

    Raw ids are unlike the internal indices on purpose: item 0 is "i100", user 0 is 500.
    """

    num_users: int = 12
    num_items: int = 8
    length: int = 6
    name: str = "cycle"

    def load(self) -> SourceData:
        users = np.repeat(np.arange(self.num_users), self.length)
        items = (users + np.tile(np.arange(self.length), self.num_users)) % self.num_items
        item_ids = np.array([f"i{100 + item}" for item in range(self.num_items)])
        titles = [f"Title {item}" for item in range(self.num_items)]
        log = InteractionLog(
            users=users,
            items=items,
            user_ids=np.arange(self.num_users) + 500,
            item_ids=item_ids,
            timestamps=np.tile(np.arange(self.length), self.num_users),
            item_table=pl.DataFrame({"item_id": item_ids, "title": titles}),
        )
        return SourceData(log, DataReport())


@pytest.fixture
def cycle_dataset() -> Dataset:
    """12 users, 8 items, 6 interactions per user, leave-one-out."""
    return Dataset(CycleSource(), LeaveOneOut())
