"""The original Amazon files of 2014: one review or product per line, as JSON or as a Python literal."""

from __future__ import annotations

import ast
import gzip
import html
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import rich.progress
from rich.console import Console

from genrec.contracts import GenrecError
from genrec.data.interactions import ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID, DataReport
from genrec.data.unpacking import next_line

logger = logging.getLogger("genrec.data")

_ASIN = re.compile(r"""['"]asin['"]\s*:\s*['"]([^'"]+)['"]""")


def read_reviews(path: Path, report: DataReport, *, progress: bool = True) -> pl.DataFrame:
    """Rows ``user_id, item_id, rating, timestamp`` of a review file, in the order of its lines."""
    users, items, ratings, times = [], [], [], []
    for review in read_records(path, report, progress=progress):
        users.append(_text(review.get("reviewerID")))
        items.append(_text(review.get("asin")))
        ratings.append(_number(review.get("overall")))
        times.append(_number(review.get("unixReviewTime")))
    if not users:
        raise GenrecError(f"{path} holds no review: no line is a JSON object or a Python dict.")
    data = {
        USER_ID: pl.Series(users, dtype=pl.String),
        ITEM_ID: pl.Series(items, dtype=pl.String),
        TIMESTAMP: pl.Series(times, dtype=pl.Float64),
        RATING: pl.Series(ratings, dtype=pl.Float64),
    }
    return pl.DataFrame(data)


def read_products(path: Path, wanted: set[str], report: DataReport, *, progress: bool = True) -> pl.DataFrame:
    """Rows ``item_id, title, brand, categories, price`` of the products in ``wanted``; categories joined by ``|``."""

    def is_wanted(line: str) -> bool:  # parsing a line costs far more than looking for its id
        match = _ASIN.search(line)
        return match is None or match.group(1) in wanted

    rows = [
        (
            _text(product.get("asin")),
            _text(product.get("title")),
            _brand(product.get("brand")),
            _category_path(product.get("categories")),
            _price(product.get("price")),
        )
        for product in read_records(path, report, keep=is_wanted, progress=progress)
        if product.get("asin") in wanted
    ]
    schema = {name: pl.String for name in (ITEM_ID, TITLE, "brand", "categories", "price")}
    return pl.DataFrame(rows, schema=schema, orient="row")


def read_records(
    path: Path, report: DataReport, *, keep: Callable[[str], bool] = lambda line: True, progress: bool = True
) -> Iterator[dict[str, Any]]:
    """The objects of a file, one line each, gzipped or not; lines that are none are skipped and counted.

    ``keep`` looks at the raw line first. Nothing is ever evaluated: a Python-style line is read as a literal.
    """
    bar = rich.progress.open(
        path, "rb", description=path.name, console=Console(stderr=True), disable=not progress, transient=True
    )
    unreadable = 0
    try:
        with bar as raw, gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else nullcontext(raw) as lines:
            while line := next_line(lines, path):
                text = line.decode("utf-8", errors="replace")
                if not text.strip() or not keep(text):
                    continue
                record = parse_record(text)
                if record is None:
                    unreadable += 1
                else:
                    yield record
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise GenrecError(f"{path} is damaged or cut short ({error}). Delete it and fetch it again.") from None
    report.add("lines_unreadable", unreadable)


def parse_record(line: str) -> dict[str, Any] | None:
    """One object from a line of JSON or a Python dict literal; None when it is neither."""
    try:
        record = json.loads(line)
    except ValueError:
        try:
            record = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    return record if isinstance(record, dict) else None


def _text(value: Any) -> str | None:
    return " ".join(html.unescape(value).split()) or None if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _brand(value: Any) -> str | None:
    brand = _text(value)
    return None if brand == "Unknown" else brand


def _category_path(value: Any) -> str | None:
    if not (isinstance(value, list) and value and isinstance(value[0], list)):
        return None
    words = [_text(word) for word in value[0]]
    return "|".join(word for word in words if word) or None


def _price(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if float(value).is_integer() else str(value)
    return _text(value)
