"""A data set whose interactions stay on disk: prepared, split and read in pieces."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec.annotations import Count, check_arguments
from genrec.artifacts import Cache, fingerprint, read_json, write_json
from genrec.contracts import TEST, TRAIN, VAL
from genrec.data.dataset import Dataset
from genrec.data.interactions import InteractionLog
from genrec.data.large.arrays import BLOCK, array_file, open_array, save_array
from genrec.data.large.plan import LargeSequences, Shuffling
from genrec.data.large.preparation import OFFSETS
from genrec.data.large.source import LargeSource
from genrec.data.ragged import Ragged
from genrec.data.splits import PARTS, Split, SplitResult, check_result

logger = logging.getLogger("genrec.data")

_SUMMARY = "split.json"


class LargeDataset(Dataset):
    """A prepared log and its split as memory-mapped arrays, for logs that memory does not hold.

    ``block_values`` and ``shuffled_blocks`` say how far training rows are shuffled
    (``genrec.data.large.plan.Shuffling``). Models of sequences and tokens read it in pieces; those of graphs and
    matrices take all training interactions into memory, as with any data set.
    """

    source: LargeSource

    def __init__(
        self,
        source: LargeSource,
        split: Split,
        path: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        block_values: Count = 1 << 18,
        shuffled_blocks: Count = 16,
    ) -> None:
        check_arguments(LargeDataset.__init__, locals(), "data")
        super().__init__(source, split, path, storage_options=storage_options)
        self.shuffling = Shuffling(block_values, shuffled_blocks)

    @cached_property
    def split(self) -> SplitResult:
        """The interactions of each part, one row per user, made once for each kind of split."""
        folder, log = self.source.folder, self.log
        settings = {name: str(value) for name, value in vars(self.splitter).items()}
        key = fingerprint(self.fingerprint_of_log, type(self.splitter).__name__, settings)
        with Cache(folder / "splits").entry("split", key) as (place, ready):
            if not ready:
                write_json(place / _SUMMARY, _divide(self.splitter, log, open_array(folder / OFFSETS), place))
            summary = read_json(place / _SUMMARY)
        parts = [Ragged(open_array(place / f"{part}.npy"), open_array(place / f"{part}_offsets.npy")) for part in PARTS]
        result = SplitResult(
            *(parts[0], parts[1], parts[2]),
            {part: (first, last) for part, (first, last) in summary["time_ranges"].items()},
            np.zeros(0, dtype=np.int64),
            train_only_users=summary["train_only_users"],
            contiguous=summary["contiguous"],
        )
        check_result(self.splitter, result)
        return result

    @cached_property
    def sequences(self) -> LargeSequences:
        parts = self.split
        content = fingerprint("large", self.fingerprint)
        return LargeSequences(
            parts.train, parts.val, parts.test, self.num_items, content=content, shuffling=self.shuffling
        )

    @property
    def fingerprint_of_log(self) -> str:
        """Of the content of the prepared log, wherever its files lie."""
        _ = self.loaded
        return self.source.description["fingerprint"]

    @cached_property
    def fingerprint(self) -> str:
        """Depends on the content of the data and on the split, not on where the files lie."""
        parts = self.split
        lengths = [part.offsets for part in (parts.train, parts.val, parts.test)]
        return fingerprint("large", self.fingerprint_of_log, lengths, parts.contiguous or [parts.train.values])


def _divide(splitter: Split, log: InteractionLog, offsets: np.ndarray, folder: Path) -> dict:
    """Writes the values and offsets of each part; returns what else there is to know of the split."""
    lengths = {part: np.zeros(log.num_users, dtype=np.int64) for part in PARTS}
    ranges: dict[str, tuple[float, float]] = {}
    contiguous = True
    for users, _, times, part_of in _parts(splitter, log, offsets):
        contiguous &= not ((np.diff(part_of) < 0) & (np.diff(users) == 0)).any()
        first = int(users[0])
        for index, part in enumerate(PARTS):
            chosen = part_of == index
            counts = np.bincount(users[chosen] - first, minlength=int(users[-1]) - first + 1)
            lengths[part][first : first + len(counts)] += counts
            if times is not None and chosen.any():
                ranges[part] = _wider(ranges.get(part), times[chosen])
    sizes = {part: int(counts.sum()) for part, counts in lengths.items()}
    with (
        array_file(folder / f"{TRAIN}.npy", sizes[TRAIN], np.int32) as train,
        array_file(folder / f"{VAL}.npy", sizes[VAL], np.int32) as val,
        array_file(folder / f"{TEST}.npy", sizes[TEST], np.int32) as test,
    ):
        for _, items, _, part_of in _parts(splitter, log, offsets):
            for index, file in enumerate((train, val, test)):
                file.write(items[part_of == index])
    for part, counts in lengths.items():
        save_array(folder / f"{part}_offsets.npy", np.concatenate([[0], np.cumsum(counts)]))
    only = int(((lengths[VAL] == 0) & (lengths[TEST] == 0)).sum())
    return {"time_ranges": ranges, "train_only_users": only, "contiguous": bool(contiguous)}


def _parts(
    splitter: Split, log: InteractionLog, offsets: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]]:
    """Users, items, times and parts of runs of whole users, in order."""
    divider = splitter.divider(log.timestamps)
    edges = np.unique(np.append(np.searchsorted(offsets, np.arange(0, len(log), BLOCK)), len(offsets) - 1))
    for begin, end in zip(offsets[edges[:-1]].tolist(), offsets[edges[1:]].tolist(), strict=True):
        users, items = np.asarray(log.users[begin:end]), np.asarray(log.items[begin:end])
        times = None if log.timestamps is None else np.asarray(log.timestamps[begin:end])
        yield users, items, times, divider(users, times)


def _wider(known: tuple[float, float] | None, times: np.ndarray) -> tuple[float, float]:
    first, last = times.min().item(), times.max().item()
    return (first, last) if known is None else (min(known[0], first), max(known[1], last))
