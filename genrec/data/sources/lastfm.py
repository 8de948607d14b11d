"""Last.fm listening counts of HetRec 2011 (Cantador, Brusilovsky & Kuflik), prepared or in their original files."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from genrec.contracts import GenrecError
from genrec.data.cleaning import Cleaning, build_log
from genrec.data.download import download as fetch
from genrec.data.download import extract_zip, missing_files
from genrec.data.interactions import ITEM_ID, TITLE, USER_ID, SourceData
from genrec.data.tables import find_file, joined_text, read_table

ARCHIVE = "hetrec2011-lastfm-2k.zip"
PLAY_COUNT = "play_count"
_LOOKED_FOR = "user_artists.tsv or user_artists.dat (perhaps with .gz)"


class LastFMSource:
    """Which artists 1,892 listeners played, and how often (``play_count``); items are artists with their tags as text.

    There are no times: a listener's artists are stored by falling play count. ``num_tags`` of the most frequent tags of
    an artist make its text; users and items with fewer than ``k_core`` pairs are dropped.
    """

    def __init__(
        self,
        *,
        path: str,
        num_tags: int = 5,
        k_core: int = 5,
        download: bool = False,
        base_url: str = "https://files.grouplens.org/datasets/hetrec2011",
        sha256: str | None = None,
        progress: bool = True,
    ) -> None:
        self.folder = Path(path)
        self.num_tags = num_tags
        self.cleaning = Cleaning(min_user_interactions=max(k_core, 1), min_item_interactions=max(k_core, 1))
        self.download = download
        self.base_url = base_url.rstrip("/")
        self.sha256 = sha256
        self.progress = progress

    @property
    def name(self) -> str:
        return "lastfm"

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
        log, report = build_log(plays, items=self._artists(), cleaning=self.cleaning)
        report.notes.append(
            "A listener's artists are stored by falling play count, so holding out the last ones holds out the least "
            "played. Use split=ratio_per_user split.order=random."
        )
        return SourceData(log, report, self.folder)

    def _plays_file(self) -> Path | None:
        return find_file(self.folder, "user_artists.tsv") or find_file(self.folder, "user_artists.dat")

    def _artists(self) -> pl.DataFrame | None:
        path = find_file(self.folder, "artists.csv") or find_file(self.folder, "artists.dat")
        if path is None:
            return None
        artists = _positional(path, [ITEM_ID, TITLE])
        tags = self._tags()
        if tags is None:
            return joined_text(artists, [pl.col(TITLE)])
        return joined_text(
            artists.join(tags, on=ITEM_ID, how="left", maintain_order="left"), [pl.col(TITLE), pl.col("tags")]
        )

    def _tags(self) -> pl.DataFrame | None:
        """The most frequent tags of every artist, joined by commas; ties in order of the alphabet."""
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
        counted = named.group_by(ITEM_ID, "tag").len().sort(["len", "tag"], descending=[True, False])
        return counted.group_by(ITEM_ID, maintain_order=True).agg(
            pl.col("tag").head(self.num_tags).str.join(", ").alias("tags")
        )


def _positional(path: Path, names: list[str], *, encoding: str = "utf-8") -> pl.DataFrame:
    """The first columns of a file with a header, under our names: its two editions name them differently."""
    frame = read_table(path, encoding=encoding)
    if frame.width < len(names):
        raise GenrecError(f"{path} has the columns {', '.join(frame.columns)}; {len(names)} are needed.")
    return frame.select(frame.columns[: len(names)]).rename(dict(zip(frame.columns, names, strict=False)))
