"""Last.fm listening counts of HetRec 2011 (Cantador, Brusilovsky & Kuflik), prepared or in their original files."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log
from genrec.data.download import download as fetch
from genrec.data.download import extract_zip, missing_files
from genrec.data.interactions import ITEM_ID, TITLE, USER_ID, InteractionLog, SourceData, encode
from genrec.data.remote import DEFAULT_CACHE, data_folder
from genrec.data.tables import find_file, joined_text, read_table
from genrec.graph import ITEM, USER, Relation

ARCHIVE = "hetrec2011-lastfm-2k.zip"
PLAY_COUNT = "play_count"
FILES = (
    "user_artists.tsv", "user_artists.dat", "artists.csv", "artists.dat", "user_tagged_artists.tsv",
    "user_taggedartists.dat", "tags.csv", "tags.dat", "user_friends.tsv", "user_friends.dat",
)  # fmt: skip
_LOOKED_FOR = "user_artists.tsv or user_artists.dat (perhaps with .gz)"


class LastFMSource:
    """Which artists 1,892 listeners played, and how often (``play_count``); items are artists with their tags as text.

    There are no times: a listener's artists are stored by falling play count. ``num_tags`` of the most frequent tags of
    an artist make its text. Relations: tags that ``min_tag_count`` listeners or more gave an artist, weighed by their
    number, and friends. Users and items with fewer than ``k_core`` pairs are dropped.
    """

    def __init__(
        self,
        *,
        path: str,
        num_tags: int = 5,
        min_tag_count: int = 2,
        k_core: int = 5,
        download: bool = False,
        base_url: str = "https://files.grouplens.org/datasets/hetrec2011",
        sha256: str | None = None,
        progress: bool = True,
        storage_options: dict[str, Any] | None = None,
        cache_dir: str = DEFAULT_CACHE,
    ) -> None:
        self.where = partial(data_folder, path, FILES, cache_dir, storage_options, download=download, progress=progress)
        self.num_tags = num_tags
        self.min_tag_count = min_tag_count
        self.cleaning = Cleaning(min_user_interactions=max(k_core, 1), min_item_interactions=max(k_core, 1))
        self.download = download
        self.base_url = base_url.rstrip("/")
        self.sha256 = sha256
        self.progress = progress

    @property
    def name(self) -> str:
        return "lastfm"

    @cached_property
    def folder(self) -> Path:
        """The folder of the data set, on this machine."""
        return self.where()

    def load(self) -> SourceData:
        """Reads play counts, artists and tags; fetches the archive first where it is missing and that is allowed."""
        if self._plays_file() is None:
            if not self.download:
                raise missing_files(self.folder, _LOOKED_FOR, download=True)
            archive = self.folder / ARCHIVE
            fetch(f"{self.base_url}/{ARCHIVE}", archive, sha256=self.sha256, progress=self.progress)
            extract_zip(archive, self.folder)
        path = self._plays_file()
        if path is None:
            raise GenrecError(f"The archive fetched to {self.folder} holds none of {_LOOKED_FOR}.")
        plays = _positional(path, [USER_ID, ITEM_ID, PLAY_COUNT])
        tags = self._tags()
        log, report = build_log(plays, items=self._artists(tags), cleaning=self.cleaning)
        report.notes.append(
            "A listener's artists are stored by falling play count, so holding out the last ones holds out the least "
            "played. Use split=ratio_per_user split.order=random."
        )
        return SourceData(log, report, self.folder, self._relations(log, tags))

    def _plays_file(self) -> Path | None:
        return find_file(self.folder, "user_artists.tsv") or find_file(self.folder, "user_artists.dat")

    def _relations(self, log: InteractionLog, tags: pl.DataFrame | None) -> dict[str, Relation]:
        """Artists and their tags, weighed by how many listeners gave them, and who is friends with whom."""
        relations = {}
        if tags is not None:
            edges = tags.with_columns(row=pl.Series(_known(tags[ITEM_ID], log.item_ids)))
            edges = edges.filter((pl.col("row") >= 0) & (pl.col("len") >= self.min_tag_count))
            names = edges["tag"].unique().sort()
            relations["has_tag"] = Relation(
                *(ITEM, "tag"),
                edges["row"].to_numpy(),
                encode(edges["tag"], names),
                edges["len"].to_numpy().astype(np.float32),
                names.to_list(),
            )
        path = find_file(self.folder, "user_friends.tsv") or find_file(self.folder, "user_friends.dat")
        if path is not None:
            pairs = _positional(path, [USER_ID, "friend_id"])
            ends = _known(pairs[USER_ID], log.user_ids), _known(pairs["friend_id"], log.user_ids)
            known = (ends[0] >= 0) & (ends[1] >= 0)  # the file lists each pair both ways
            ones = np.ones(int(known.sum()), dtype=np.float32)
            relations["friend_of"] = Relation(USER, USER, ends[0][known], ends[1][known], ones)
        return relations

    def _artists(self, tags: pl.DataFrame | None) -> pl.DataFrame | None:
        path = find_file(self.folder, "artists.csv") or find_file(self.folder, "artists.dat")
        if path is None:
            return None
        artists = _positional(path, [ITEM_ID, TITLE])
        if tags is None:
            return joined_text(artists, [pl.col(TITLE)])
        frequent = tags.group_by(ITEM_ID, maintain_order=True).agg(
            pl.col("tag").head(self.num_tags).str.join(", ").alias("tags")
        )
        return joined_text(
            artists.join(frequent, on=ITEM_ID, how="left", maintain_order="left"), [pl.col(TITLE), pl.col("tags")]
        )

    def _tags(self) -> pl.DataFrame | None:
        """How many listeners (``len``) gave each artist each ``tag``, the most frequent first, then by the alphabet."""
        uses = find_file(self.folder, "user_tagged_artists.tsv") or find_file(self.folder, "user_taggedartists.dat")
        names = find_file(self.folder, "tags.csv")
        encoding = "utf-8"
        if names is None:
            names, encoding = find_file(self.folder, "tags.dat"), "latin-1"  # the archive's tags alone are not UTF-8
        if uses is None or names is None:
            return None
        named = _positional(uses, [USER_ID, ITEM_ID, "tag_id"]).join(
            _positional(names, ["tag_id", "tag"], encoding=encoding), on="tag_id"
        )
        counted = named.group_by(ITEM_ID, "tag").len()  # in any order
        return counted.sort(["len", "tag", ITEM_ID], descending=[True, False, False])


def _known(raw: pl.Series, ids: np.ndarray) -> np.ndarray:
    """(E,) internal indices of raw ids as a file has them, -1 for those that were dropped."""
    return encode(raw.cast(pl.String), pl.Series(ids).cast(pl.String))


def _positional(path: Path, names: list[str], *, encoding: str = "utf-8") -> pl.DataFrame:
    """The first columns of a file with a header, under our names: its two editions name them differently."""
    frame = read_table(path, encoding=encoding)
    if frame.width < len(names):
        raise GenrecError(f"{path} has the columns {', '.join(frame.columns)}; {len(names)} are needed.")
    return frame.select(frame.columns[: len(names)]).rename(dict(zip(frame.columns, names, strict=False)))
