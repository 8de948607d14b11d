"""Tables of interactions as lazy frames: read in pieces, with ids and times in one form over all files."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from genrec.artifacts import atomic_path, fingerprint
from genrec.contracts import GenrecError
from genrec.data.interactions import ITEM_ID, RATING, TIMESTAMP, USER_ID, DataReport
from genrec.data.tables import (
    DAYS,
    DELIMITERS,
    UNREADABLE,
    days_of,
    mapped_columns,
    refuse_array,
    table_suffix,
    told_of_days,
    too_few_columns,
)
from genrec.data.unpacking import check_unpacked

ROW, OTHERS = "__row", "__others"
_JSON = (".jsonl", ".ndjson", ".json")
_BLOCK = 1 << 24  # bytes, or characters, of text that are converted at a time
_MARK = codecs.BOM_UTF8
_MAX_EXACT_FLOAT = float(2**53)
_DATE_FORMS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")


@dataclass(frozen=True)
class LogFiles:
    """``paths`` of tables of one kind, one after the other; ``columns``, ``delimiter`` and ``encoding`` as
    ``genrec.data.sources.folder.FolderSource`` has them. ``scratch`` takes text that must be converted to be read in
    pieces: gzipped, not UTF-8, or with a delimiter of several characters."""

    paths: Sequence[Path]
    scratch: Path
    columns: Mapping[str, str] | Sequence[str] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"

    def scan(self) -> pl.LazyFrame:
        """The rows with our names for the columns and their number in ``ROW``; nothing but the head is read yet."""
        kind = table_suffix(self.paths[0])
        if kind == ".parquet":
            scan = pl.scan_parquet([self._plain(path, None) for path in self.paths])
        elif kind in _JSON:
            for path in self.paths:
                refuse_array(path, _begins(path, 1024).decode("latin-1"))
            scan = pl.scan_ndjson([self._plain(path, None) for path in self.paths], infer_schema_length=None)
        else:
            scan = self._scan_delimited(kind)
        mapping = self.columns if isinstance(self.columns, Mapping) else {}
        names = self._collected(scan.head(0)).columns
        required = (USER_ID, ITEM_ID)
        chosen = mapped_columns(names, mapping, required=required, path=self.paths[0], key="data.source.columns")
        return scan.select(chosen)

    def collected(self, scan: pl.LazyFrame) -> pl.DataFrame:
        """The result of a query, computed in pieces; a file that cannot be read is a GenrecError."""
        return self._collected(scan)

    def _collected(self, scan: pl.LazyFrame) -> pl.DataFrame:
        try:
            return scan.collect(engine="streaming")
        except UNREADABLE as error:
            raise self.unreadable(error) from None

    def unreadable(self, error: BaseException) -> GenrecError:
        reason = str(error).partition("\n")[0]
        files = self.paths[0] if len(self.paths) == 1 else f"{self.paths[0].parent} ({len(self.paths)} files)"
        return GenrecError(
            f"{files} cannot be read as one table: {reason[:300]}. Files of one log have the same columns, the same "
            "delimiter (data.source.delimiter) and double quotes around values that hold it."
        )

    def _scan_delimited(self, kind: str) -> pl.LazyFrame:
        if kind not in DELIMITERS and self.delimiter is None:
            raise GenrecError(f"{self.paths[0]}: unknown kind of table {kind!r}. Give data.source.delimiter.")
        delimiter = self.delimiter or DELIMITERS[kind]
        plain = [self._plain(path, delimiter) for path in self.paths]
        header = None if self.columns is None or isinstance(self.columns, Mapping) else list(self.columns)
        scan = pl.scan_csv(
            plain,
            has_header=header is None,
            separator=delimiter if len(delimiter) == 1 else "\x1f",
            infer_schema=False,
            quote_char='"' if delimiter in ",;" else None,  # tab-separated data uses quotes as ordinary characters
        )
        names = self._collected(scan.head(0)).columns
        if header is None:
            return scan.rename({name: name.strip() for name in names})
        if len(header) > len(names):
            raise GenrecError(too_few_columns(self.paths[0], len(names), header))
        return scan.select(names[: len(header)]).rename(dict(zip(names, header, strict=False)))

    def _plain(self, path: Path, delimiter: str | None) -> Path:
        """The file, or a copy of it that is not packed, and in plain UTF-8 where it is text."""
        kind, packed = table_suffix(path), path.suffix.lower() == ".gz"
        utf8 = self.encoding.lower().replace("-", "") == "utf8" or kind == ".parquet"
        marked = kind in _JSON and utf8 and _begins(path, len(_MARK)) == _MARK
        if not packed and utf8 and not marked and len(delimiter or "") < 2:
            return path
        stat = path.stat()
        name = fingerprint(str(path), stat.st_size, stat.st_mtime_ns, delimiter, self.encoding)
        plain = self.scratch / f"{name}{kind}"
        if not plain.exists():
            with atomic_path(plain) as unfinished:
                self._convert(path, unfinished, delimiter, copy=utf8 and len(delimiter or "") < 2, marked=marked)
        return plain

    def _convert(self, path: Path, target: Path, delimiter: str | None, *, copy: bool, marked: bool) -> None:
        written, packed = 0, path.suffix.lower() == ".gz"
        try:
            with _opened(path, "rb") as source, open(target, "wb") as sink:
                source.seek(len(_MARK) if marked else 0)
                for block in self._blocks(source, None if copy else delimiter or "", path):
                    written += sink.write(block)
                    if packed:
                        check_unpacked(path, written)
        except GenrecError:
            raise
        except (LookupError, ValueError) as error:
            if isinstance(error, UnicodeError):
                raise self._not_of_encoding(path, error) from None
            raise GenrecError(f"encoding={self.encoding!r} is no text encoding. Use utf-8, latin-1 ...") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise GenrecError(f"{path} is damaged or cut short ({error}). Delete it and fetch it again.") from None

    def _blocks(self, source: Any, delimiter: str | None, path: Path) -> Iterator[bytes]:
        """A file block by block as it is, or, with a ``delimiter``, line by line in UTF-8."""
        if delimiter is None:
            while block := source.read(_BLOCK):
                yield block
            return
        lines = io.TextIOWrapper(source, encoding=self.encoding, newline="")
        while line := lines.readline(_BLOCK):
            if len(line) == _BLOCK:
                raise GenrecError(f"{path} has a line of more than {_BLOCK >> 20} million characters; refused.")
            yield (line.replace(delimiter, "\x1f") if len(delimiter) > 1 else line).encode("utf-8")

    def _not_of_encoding(self, path: Path, error: UnicodeError) -> GenrecError:
        reason = getattr(error, "reason", error)  # UTF-16 without its mark has none
        return GenrecError(f"{path} is not {self.encoding} ({reason}). Give data.source.encoding.")


def _begins(path: Path, size: int) -> bytes:
    """The first bytes of a file; none of one that cannot be unpacked, as reading all of it will tell."""
    try:
        with _opened(path, "rb") as source:
            return source.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""


def _opened(path: Path, *mode: str, **options: Any) -> Any:
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    return opened(path, *mode, **options)


@dataclass(frozen=True)
class Typed:
    """Rows that have ids and, where there are times, a readable one: ``frame`` has ``user_id`` and ``item_id``, int64
    or strings, perhaps ``timestamp``, the hash of all other columns in ``OTHERS``, and ``ROW``; ``count`` rows."""

    frame: pl.LazyFrame
    count: int
    plain: dict[str, bool]  # ids that are integers written in the usual way


def typed(files: LogFiles, min_rating: float | None, report: DataReport) -> Typed:
    """The rows of the files in the form that preparation needs; what cannot be used is counted in ``report``."""
    scan = files.scan()
    schema = scan.collect_schema()
    if min_rating is not None:
        scan = _above(scan, schema, min_rating, files, report)
    scan = scan.with_row_index(ROW)
    others = [name for name in schema.names() if name not in (USER_ID, ITEM_ID, TIMESTAMP)]
    rest = pl.struct(others).hash(seed=0) if others else pl.lit(0, dtype=pl.UInt64)
    ids = {name: _id_expression(files, scan, name, schema[name]) for name in (USER_ID, ITEM_ID)}
    columns = [*(ids[name].alias(name) for name in ids), rest.alias(OTHERS), pl.col(ROW)]
    scan = scan.select([*columns, *([TIMESTAMP] if TIMESTAMP in schema else [])])
    known = pl.col(USER_ID).is_not_null() & pl.col(ITEM_ID).is_not_null()
    found = files.collected(
        scan.select(
            rows=pl.len(),
            no_user=pl.col(USER_ID).is_null().sum(),
            no_item=(pl.col(USER_ID).is_not_null() & pl.col(ITEM_ID).is_null()).sum(),
        )
    ).row(0, named=True)
    report.add("rows_read", found["rows"])
    report.add("rows_missing_user", found["no_user"])
    report.add("rows_missing_item", found["no_item"])
    scan = _with_times(files, scan.filter(known), schema.get(TIMESTAMP), report)
    plain = {name: _plain(pl.col(name), scan.collect_schema()[name]).alias(name) for name in ids}
    counted = files.collected(scan.select(pl.len().alias("rows"), *plain.values())).row(0, named=True)
    return Typed(scan, counted["rows"], {name: bool(counted[name]) for name in ids})


def _above(
    scan: pl.LazyFrame, schema: pl.Schema, min_rating: float, files: LogFiles, report: DataReport
) -> pl.LazyFrame:
    if RATING not in schema:
        raise GenrecError(
            f"min_rating={min_rating} needs a rating column; {files.paths[0]} has {', '.join(schema.names())}. "
            "Name it with data.source.columns.rating, or set min_rating=null."
        )
    high = (pl.col(RATING).cast(pl.Float64, strict=False) >= min_rating).fill_null(False)
    report.add("rows_below_min_rating", files.collected(scan.select((~high).sum())).item())
    return scan.filter(high)


def _id_expression(files: LogFiles, scan: pl.LazyFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    """Ids as int64 or strings, missing ones null (``genrec.data.parsing.exact_ids`` of a column that is not read)."""
    column = pl.col(name)
    if dtype.is_nested():
        raise GenrecError(
            f"The column {name} holds lists or objects; every row needs one id. Write one row per interaction."
        )
    if dtype.is_integer():
        if dtype != pl.UInt64:
            return column.cast(pl.Int64)
        large = files.collected(scan.select((column > 2**63 - 1).any())).item()
        return column.cast(pl.String if large else pl.Int64)
    if dtype.is_float():
        inexact = (column.is_not_nan() & ((column != column.round()) | (column.abs() > _MAX_EXACT_FLOAT))).sum()
        broken = files.collected(scan.select(inexact)).item()
        if broken:
            raise GenrecError(
                f"The column {name} holds floating-point numbers, and {broken} of them are no exact integers "
                "(ids above 2^53 lose digits that way). Store ids as integers or strings."
            )
        return column.fill_nan(None).cast(pl.Int64)
    stripped = column.cast(pl.String).str.strip_chars()
    return pl.when(stripped.str.len_bytes() > 0).then(stripped)


def _plain(ids: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_integer():
        return pl.lit(True)
    return (ids.cast(pl.Int64, strict=False).cast(pl.String) == ids).fill_null(False).all()


def _with_times(files: LogFiles, scan: pl.LazyFrame, dtype: pl.DataType | None, report: DataReport) -> pl.LazyFrame:
    """Rows whose timestamp can be read, as int64 or float64 (``genrec.data.parsing.parse_times``)."""
    if dtype is None:
        report.notes.append("No timestamps: the stored order of the rows is taken for the time order.")
        return scan
    times, given = _time_expression(files, scan, dtype), pl.col(TIMESTAMP)
    if dtype == pl.String:
        given = pl.when(given.str.strip_chars() != "").then(given)
    counts = files.collected(scan.select(rows=pl.len(), given=given.count(), missing=times.is_null().sum())).row(
        0, named=True
    )
    if counts["rows"] and counts["missing"] == counts["rows"]:
        if counts["given"]:
            example = files.collected(scan.select(given.drop_nulls().first())).item()
            raise GenrecError(
                f"No timestamp can be read, for example {example!r}. Allowed: numbers (such as Unix seconds), "
                "2014-07-23, 2014-07-23 12:30:00, 2014-07-23T12:30:00Z."
            )
        report.notes.append("The timestamp column is empty: the stored order of the rows is taken for the time order.")
        return scan.drop(TIMESTAMP)
    report.add("rows_bad_timestamp", counts["missing"])
    if counts["missing"]:
        first = files.collected(scan.filter(times.is_null()).select(ROW).head(3))[ROW]
        lines = ", ".join(str(row + 1) for row in sorted(first))
        report.notes.append(f"First rows without a readable timestamp: {lines}.")
    return scan.with_columns(times.alias(TIMESTAMP)).filter(pl.col(TIMESTAMP).is_not_null())


def _time_expression(files: LogFiles, scan: pl.LazyFrame, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(TIMESTAMP)
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if dtype in (pl.Date, pl.Datetime):
        if files.collected(scan.select(~days_of(column, dtype).drop_nulls().is_between(*DAYS).all())).item():
            raise GenrecError(told_of_days(files.paths[0], TIMESTAMP))
        if getattr(dtype, "time_zone", None):
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _whole(files, scan, _seconds(column.cast(pl.Datetime("us"))))
    if dtype.is_float():
        return _whole(files, scan, column)
    text = column.cast(pl.String).str.strip_chars()
    integers, numbers = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
    numbers = pl.when(numbers.is_finite()).then(numbers)
    found = files.collected(scan.select(text=text.count(), integers=integers.count(), numbers=numbers.count()))
    counts = found.row(0, named=True)
    if counts["integers"] == counts["text"]:
        return integers
    plain = text.str.replace("T", " ", literal=True).str.replace(r"(Z|\+00:00)$", "")
    dates = pl.coalesce([plain.str.to_datetime(form, strict=False, time_unit="us") for form in _DATE_FORMS])
    if files.collected(scan.select(dates.count())).item() > counts["numbers"]:
        return _whole(files, scan, _seconds(dates))
    return integers if counts["integers"] == counts["numbers"] else _whole(files, scan, numbers)


def _seconds(times: pl.Expr) -> pl.Expr:
    return times.dt.epoch("us").cast(pl.Float64) / 1e6


def _whole(files: LogFiles, scan: pl.LazyFrame, numbers: pl.Expr) -> pl.Expr:
    """Int64 where no number has a fraction; what is not finite is null."""
    finite = pl.when(numbers.is_finite()).then(numbers)
    fractions = files.collected(scan.select((finite != finite.round()).fill_null(False).any())).item()
    return finite if fractions else finite.cast(pl.Int64, strict=False)
