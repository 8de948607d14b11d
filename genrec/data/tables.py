"""Tables from files: CSV, TSV, JSON lines and Parquet, gzipped or not, with ids kept exactly as they were written.

Text formats are read as strings and turned into numbers only where asked, so no id ever passes through a float.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

from genrec.contracts import GenrecError
from genrec.data.interactions import ITEM_ID, TEXT, TIMESTAMP, USER_ID
from genrec.data.unpacking import gunzipped

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".inter", ".jsonl", ".ndjson", ".json", ".parquet")
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".dat": "\t", ".inter": "\t"}


_ALIASES = {
    USER_ID: ("uid", "user", "userid", "reviewerid", "customerid", "customer", "visitorid", "sessionid", "memberid"),
    ITEM_ID: (
        "iid",
        "item",
        "itemid",
        "asin",
        "parentasin",
        "movieid",
        "productid",
        "product",
        "sku",
        "artistid",
        "trackid",
    ),
    TIMESTAMP: ("ts", "time", "date", "datetime", "unixreviewtime", "reviewtime", "createdat", "eventtime", "unixtime"),
}


# What polars raises for a broken Parquet file; a panic is no Exception, and comes of files that somebody damaged.
_Column = TypeVar("_Column", pl.Series, pl.Expr)
DAYS = (-719_162, 2_932_896)  # of the years 1 to 9999, from 1970 on
_LONGEST_NAME, _MOST_NAMES = 60, 60
_LONGEST = 300  # of what is told of an error

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, OverflowError)


_WAY_OUT = "Put double quotes around values that hold the delimiter, or give another data.source.delimiter."


def in_brief(error: BaseException) -> str:
    """The first line of what polars says, which may go on with the cells that it could not read."""
    line = str(error).partition("\n")[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def listed(names: Sequence[str]) -> str:
    """Names of columns for a message, no more and no longer than somebody reads."""
    shown = [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in names[:_MOST_NAMES]]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(shown) + more


def table_suffix(path: Path) -> str:
    """The format suffix of a table file in lower case, a final ``.gz`` left out: ``ratings.CSV.gz`` gives ``.csv``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_table(folder: Path, stem: str) -> Path | None:
    """The file ``stem`` of ``folder`` in any known format, gzipped or not; None when there is none."""
    for suffix in SUFFIXES:
        for ending in ("", ".gz"):
            candidate = folder / f"{stem}{suffix}{ending}"
            if candidate.is_file():
                return candidate
    return None


def find_file(folder: Path, name: str) -> Path | None:
    """The file ``name`` of ``folder``, as it is or with ``.gz``; None when there is none."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed when its name ends in ``.gz``; a damaged archive is a GenrecError."""
    try:
        if path.suffix.lower() == ".gz":
            return gunzipped(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise GenrecError(f"{path} does not exist.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise GenrecError(f"{path} is damaged or cut short ({error}). Delete it and fetch it again.") from None
    except OSError as error:  # a folder, a file of somebody else, a broken disk
        raise GenrecError(f"{path} cannot be read ({error.strerror or error}). Give a file that can be.") from None


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file; bytes that are not in ``encoding`` are a GenrecError naming the line and the way out."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GenrecError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not {encoding}. "
            f"Name the file's encoding, for example encoding=latin-1 (data.source.encoding=latin-1)."
        ) from None
    except (LookupError, ValueError):  # idna, undefined: of Python, but not of files
        raise GenrecError(f"encoding={encoding!r} is no text encoding. Use utf-8, latin-1, cp1252 ...") from None


def read_table(
    path: Path,
    *,
    header: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> pl.DataFrame:
    """One table, the format taken from the file's name.

    ``header`` names the columns of a text file that has no header line. CSV-like columns come as strings (missing
    values null), JSON and Parquet columns as stored.
    """
    suffix = table_suffix(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _read_json_lines(path, encoding)
    if suffix not in DELIMITERS and delimiter is None:
        raise GenrecError(
            f"{path}: unknown kind of table {suffix or '(no suffix)'!r}. Known: {', '.join(SUFFIXES)}, each also "
            "with .gz. For another delimited text file give data.source.delimiter."
        )
    return _read_delimited(path, header, delimiter or DELIMITERS[suffix], encoding)


def _read_delimited(path: Path, header: Sequence[str] | None, delimiter: str, encoding: str) -> pl.DataFrame:
    text, given = read_text(path, encoding), delimiter
    if len(delimiter) > 1:  # such as the "::" of MovieLens-1M; polars splits at single characters only
        if "\x1f" in text:
            raise GenrecError(f"{path} holds the control character 0x1f, so delimiter={delimiter!r} cannot be used.")
        text, delimiter = text.replace(delimiter, "\x1f"), "\x1f"
    if not text.strip():
        raise GenrecError(f"{path} is empty.")
    text = text.rstrip("\r\n") + "\n"  # a blank last line is no row
    quote = '"' if delimiter in ",;" else None  # tab-separated data uses quotes as ordinary characters
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode("utf-8")),
            has_header=header is None,
            separator=delimiter,
            infer_schema=False,
            quote_char=quote,
        )
    except pl.exceptions.PolarsError as error:
        problem = _long_line(text, delimiter, quote) or f"{in_brief(error)}. {_WAY_OUT}"
        raise GenrecError(f"{path} cannot be read as a table with delimiter {given!r}: {problem}") from None
    if header is None:
        return frame.rename({name: name.strip() for name in frame.columns})
    if len(header) > frame.width:
        raise GenrecError(too_few_columns(path, frame.width, header))
    return frame.select(frame.columns[: len(header)]).rename(dict(zip(frame.columns, header, strict=False)))


def too_few_columns(path: Path, width: int, header: Sequence[str]) -> str:
    """What to say where a file has fewer columns than names were given."""
    return (
        f"{path}: {len(header)} names of columns were given, {listed(header)}, and it has {width}. "
        "Give as many names as columns (data.source.columns), or the right data.source.delimiter."
    )


def _long_line(text: str, delimiter: str, quote: str | None) -> str | None:
    """What is wrong with the first line that has more fields than the first one."""
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, quoting=quoting)
    try:
        width = len(next(reader))
        for fields in reader:
            if len(fields) > width:
                return f"line {reader.line_num} has {len(fields)} fields, the first one {width}. {_WAY_OUT}"
    except csv.Error as error:
        return f"line {reader.line_num}: {error}."
    return None


def _read_json_lines(path: Path, encoding: str) -> pl.DataFrame:
    text = read_text(path, encoding)
    refuse_array(path, text)
    try:
        return pl.read_ndjson(io.BytesIO(text.encode("utf-8")), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise GenrecError(
            f"{path} is not JSON lines (one object per line): {in_brief(error)}. Correct it, or write the file again."
        ) from None


def refuse_array(path: Path, text: str) -> None:
    """Raises where the ``text`` that a file begins with is that of one JSON array."""
    if text.lstrip("\ufeff \t\r\n").startswith("["):
        raise GenrecError(f"{path} is one JSON array; genrec reads JSON lines: one object per line.")


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return checked_times(
            pl.read_parquet(io.BytesIO(read_bytes(path)) if path.suffix.lower() == ".gz" else path), path
        )
    except FileNotFoundError:
        raise GenrecError(f"{path} does not exist.") from None
    except UNREADABLE as error:
        raise GenrecError(f"{path} is not a readable Parquet file: {in_brief(error)}. Write it again.") from None


def checked_times(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The frame; a column with dates beyond the years 1 to 9999, of which polars dies, is a GenrecError."""
    for name, dtype in frame.schema.items():
        if dtype not in (pl.Date, pl.Datetime):
            continue
        if not days_of(frame[name], dtype).drop_nulls().is_between(*DAYS).all():
            raise GenrecError(told_of_days(path, name))
    return frame


def days_of(times: _Column, dtype: pl.DataType) -> _Column:
    """Whole days since 1970 of dates, or dates with times."""
    if dtype == pl.Date:
        return times.to_physical()
    per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[getattr(dtype, "time_unit", None) or "us"]
    return times.to_physical() // (per_second * 86_400)


def told_of_days(path: Path, name: str) -> str:
    """What to say of a column of dates that polars cannot take."""
    return f"{path}: {name} holds dates beyond the years 1 to 9999. Write them anew, or as numbers."


def joined_text(items: pl.DataFrame, parts: Sequence[pl.Expr]) -> pl.DataFrame:
    """Adds the text of every item: the given parts joined by ". ", empty and missing ones left out."""
    trimmed = [part.cast(pl.String).str.strip_chars() for part in parts]
    given = [pl.when(part != "").then(part) for part in trimmed]
    return items.with_columns(pl.concat_str(given, separator=". ", ignore_nulls=True).alias(TEXT))


def map_columns(
    frame: pl.DataFrame, columns: Mapping[str, str], *, required: Sequence[str], path: Path, key: str
) -> pl.DataFrame:
    """Renames a file's own columns to ours; ``columns`` maps our name to the file's.

    A name the file lacks is a GenrecError listing the columns found, the nearest names and the YAML (under ``key``).
    """
    return frame.select(mapped_columns(frame.columns, columns, required=required, path=path, key=key))


def mapped_columns(
    found: Sequence[str], columns: Mapping[str, str], *, required: Sequence[str], path: Path, key: str
) -> list[pl.Expr]:
    """The columns ``found`` in a file under our names, those that ``columns`` maps first (``map_columns``)."""
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs}
    missing = {ours: theirs for ours, theirs in wanted.items() if theirs not in found}
    absent = [ours for ours in required if ours not in wanted and ours not in found]
    if missing or absent:
        raise GenrecError(_column_message(found, missing, absent, path, key))
    taken = set(wanted.values())
    rest = [name for name in found if name not in taken and name not in wanted]
    return [pl.col(theirs).alias(ours) for ours, theirs in wanted.items()] + [pl.col(name) for name in rest]


def _column_message(found: Sequence[str], missing: Mapping[str, str], absent: list[str], path: Path, key: str) -> str:
    lines = [f"{path} has the columns: {listed(found)}."]
    for ours, theirs in missing.items():
        lines.append(f"  {key}.{ours}={theirs} names a column that is not there.{_nearest(theirs, found)}")
    for ours in absent:
        lines.append(f"  No column is called {ours}, and {key}.{ours} names none.{_nearest(ours, found)}")
    lines.append("Say which column is which in the YAML:")
    lines.append(f"  {key.rsplit('.', 1)[-1]}:")
    for ours in [*missing, *absent]:
        near = nearest_columns(missing.get(ours, ours), found) or nearest_columns(ours, found)
        lines.append(f"    {ours}: {near[0] if near else '<your column>'}")
    return "\n".join(lines)


def _nearest(name: str, found: Sequence[str]) -> str:
    near = nearest_columns(name, found)
    return f" Nearest: {', '.join(near)}." if near else ""


def nearest_columns(name: str, found: Sequence[str]) -> list[str]:
    """Columns that may be meant by ``name``: usual other names of it first, then similar spellings."""
    simple = {column: column.lower().replace("_", "").replace(" ", "") for column in found}
    usual = [column for column in found if simple[column] in _ALIASES.get(name, ())]
    close = difflib.get_close_matches(name.lower().replace("_", ""), list(simple.values()), n=3, cutoff=0.6)
    return list(dict.fromkeys([*usual, *(column for column in found if simple[column] in close)]))
