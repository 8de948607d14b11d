"""Relations of items or users read off the columns of their tables."""

from __future__ import annotations

import numpy as np
import polars as pl

from genrec.graph import Relation


def relation_of_column(values: pl.Series, *, source: str, target: str, separator: str | None = None) -> Relation:
    """The values of a column (row = internal index) as nodes of the type ``target``, in alphabetical order.

    ``separator`` splits cells that hold several values ("Drama|Comedy"). Empty cells have no edge.
    """
    if values.dtype == pl.List:
        lists = values.cast(pl.List(pl.String))
        return _relation(lists, source, target)
    cells = values.cast(pl.String)
    lists = cells.str.split(separator) if separator else cells.map_elements(lambda cell: [cell], pl.List(pl.String))
    return _relation(lists, source, target)


def _relation(lists: pl.Series, source: str, target: str) -> Relation:
    """One edge for every distinct value of every list."""
    rows = pl.DataFrame({"row": np.arange(len(lists)), "value": lists}).explode("value")
    rows = (
        rows.with_columns(pl.col("value").str.strip_chars())
        .filter(pl.col("value").fill_null("") != "")
        .unique(maintain_order=True)
    )
    names = rows["value"].unique().sort().to_list()
    index = {name: place for place, name in enumerate(names)}
    targets = np.array([index[value] for value in rows["value"].to_list()], dtype=np.int64)
    sources = rows["row"].to_numpy().astype(np.int64)
    return Relation(source, target, sources, targets, np.ones(len(sources), dtype=np.float32), names)
