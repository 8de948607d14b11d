"""The data sets: which of those that genrec has a name for are here, whole and readable, and where others come from."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genrec.config import conf_dir
from genrec.contracts import GenrecError
from genrec.data.tables import SUFFIXES, find_file, find_table, table_suffix
from genrec.doctor.findings import Finding, Places, ok, one_line, problem, warning

WHOLE = 8 * 2**20  # bytes of a file that is read to its end, where no config names it
_CHUNK = 1 << 20
_ROOT = "${data_root}/"


@dataclass(frozen=True)
class Wanted:
    """The files of a source: any of ``one_of``, and beside it any of each of ``beside``, whose keys say what is missed
    otherwise. ``name.*`` is a table in any format, ``*`` any table; a file may be gzipped."""

    one_of: tuple[str, ...]
    beside: Mapping[str, tuple[str, ...]]
    downloads: bool = False


_RATINGS = Wanted(
    ("ratings.csv", "ratings.dat", "u.data"), {"titles and genres": ("movies.csv", "movies.dat", "u.item")}, True
)
SOURCES = {
    "AmazonSource": Wanted(
        ("interactions.*", "sequences.txt", "reviews_{category}.json.gz"),
        {"titles and texts of items": ("items.*", "meta_{category}.json.gz")},
        True,
    ),
    "LastFMSource": Wanted(
        ("user_artists.tsv", "user_artists.dat"),
        {
            "names of artists": ("artists.csv", "artists.dat"),
            "tags": ("user_tagged_artists.tsv", "user_taggedartists.dat"),
            "names of tags": ("tags.csv", "tags.dat"),
            "friends": ("user_friends.tsv", "user_friends.dat"),
        },
        True,
    ),
    "MovieLensSource": _RATINGS,
    "MovieLensRatingsSource": _RATINGS,
    "TableSource": Wanted(("*",), {}),
}


@dataclass(frozen=True)
class NamedData:
    """An option of ``data=`` that reads files: its folder below ``data_root``, and its source as YAML has it."""

    option: str
    folder: Path
    source: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.source.get("_target_", "")).rpartition(".")[2]

    @property
    def wanted(self) -> Wanted:
        known = SOURCES.get(self.kind, Wanted(("*",), {}))
        category = self.source.get("category", "")
        names = tuple(name.format(category=category) for name in known.one_of)
        beside = {
            what: tuple(name.format(category=category) for name in any_of) for what, any_of in known.beside.items()
        }
        return Wanted(names, beside, known.downloads)


def check_data_root(places: Places) -> Iterator[Finding]:
    """There is a folder of data sets."""
    root = places.data_root
    if _is_remote_root(root):
        yield ok("data_root", f"{root} is remote: runs fetch what they read of it below {places.cache_dir}")
        return
    origin = "GENREC_DATA" if "data_root" not in places.given and os.environ.get("GENREC_DATA") else "data_root"
    remedy = "Name the folder of your data sets: export GENREC_DATA=/path/to/data"
    if root.is_dir():
        os.listdir(root)
        yield ok(origin, str(root))
    elif origin == "GENREC_DATA":
        yield problem(origin, f"{root} is not there", remedy)
    else:
        yield ok(origin, f"{root} is not there; generated data need none", remedy)


def _is_remote_root(root: Path) -> bool:
    """Whether a folder was given as an address, of which a path keeps one slash: s3:/bucket."""
    return re.match(r"[A-Za-z][\w+.-]*:/", str(root)) is not None and not root.exists()


def check_data_sets(places: Places) -> Iterator[Finding]:
    """The data sets that have a name and are here are whole."""
    if _is_remote_root(places.data_root):
        return
    absent: list[NamedData] = []
    for options, data in _by_folder(named_data(places.data_root)):
        if data.folder.exists():
            yield replace(state_of(data), name=options)
        else:
            absent.append(replace(data, option=options))
    fetched = [data.option for data in absent if data.wanted.downloads]
    if fetched:
        option = fetched[0].partition(",")[0]
        command = f"python -m genrec.run data={option} data.source.download=true{places.words('data_root')}"
        yield ok("not here", "; ".join(fetched), f"genrec can fetch each: {command}")
    others = [data.option for data in absent if not data.wanted.downloads]
    if others:
        yield ok("nor are", "; ".join(others), f"Put their files below {places.data_root} (docs/data.md).")


def _by_folder(named: Sequence[NamedData]) -> list[tuple[str, NamedData]]:
    """Options that read one folder, together."""
    folders: dict[Path, list[NamedData]] = {}
    for data in named:
        folders.setdefault(data.folder, []).append(data)
    return [(", ".join(data.option for data in same), same[0]) for same in folders.values()]


def named_data(root: Path) -> list[NamedData]:
    """The options of ``data=`` with a folder of their own below ``root``, by name; nothing is composed."""
    found = []
    for path in sorted((conf_dir() / "data").glob("*.yaml")):
        node = _yaml_option(path)
        place = str(node.get("path"))
        if place.startswith(_ROOT):
            found.append(NamedData(path.stem, root / place.removeprefix(_ROOT), node.get("source") or {}))
    return found


def state_of(data: NamedData) -> Finding:
    """What is in the folder of a data set that is there."""
    one_of, folder = data.wanted.one_of, data.folder
    found = files_of(data)
    if not found:
        fetch = f"python -m genrec.run data={data.option} data.source.download=true"
        parts = [path.name for path in folder.glob("*.part")] if folder.is_dir() else []
        if parts:
            return warning(data.option, f"{folder} holds a part of a download ({parts[0]})", f"Go on with it: {fetch}")
        remedy = (
            f"Fetch it: {fetch}" if data.wanted.downloads else f"Put its files there: ls {shlex.quote(str(folder))}"
        )
        return warning(data.option, f"{folder} holds none of {', '.join(one_of)}", remedy)
    for path in found:
        fault = file_fault(path, WHOLE)
        if fault:
            return problem(data.option, f"{path} {fault}", f"Delete it and fetch it again: rm {shlex.quote(str(path))}")
    missed = [what for what, any_of in data.wanted.beside.items() if not _any(folder, any_of)]
    if missed:
        return warning(data.option, f"{folder} has no {', no '.join(missed)}", _beside_remedy(data, missed[0]))
    return ok(data.option, f"{len(found)} {'file' if len(found) == 1 else 'files'} in {folder}")


def files_of(data: NamedData) -> list[Path]:
    """The files of a data set that would be read; empty where the main one is missing."""
    main = _any(data.folder, data.wanted.one_of)
    if not main:
        return []
    return main + [path for any_of in data.wanted.beside.values() for path in _any(data.folder, any_of)]


def file_fault(path: Path, limit: int | None = None) -> str:
    """Why a file cannot be read, or is cut short; empty where it can. Of a file of more than ``limit`` bytes only the
    beginning is looked at."""
    try:
        size = path.stat().st_size
        if size == 0:
            return "is empty"
        whole = limit is None or size <= limit
        if path.suffix.lower() == ".parquet":
            return _parquet_fault(path)
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            while stream.read(_CHUNK) and whole:
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"is damaged or cut short ({one_line(error)})"
    except OSError as error:
        return f"cannot be read ({error.strerror or one_line(error)})"
    return ""


def _parquet_fault(path: Path) -> str:
    with open(path, "rb") as stream:
        begin = stream.read(4)
        stream.seek(-4, os.SEEK_END)
        return "" if begin == stream.read(4) == b"PAR1" else "is damaged or cut short (it does not end as Parquet does)"


def _any(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The first of the names that is there; all tables of a folder where any will do."""
    if names == ("*",):
        return sorted(path for path in folder.iterdir() if path.is_file() and table_suffix(path) in SUFFIXES)
    for name in names:
        stem = name.removesuffix(".*")
        path = find_table(folder, stem) if stem != name else find_file(folder, name)
        if path is not None:
            return [path]
    return []


def _beside_remedy(data: NamedData, what: str) -> str:
    return f"Only what uses them misses them; put one of these there: {', '.join(data.wanted.beside[what])}."


def _yaml_option(path: Path) -> dict[str, Any]:
    """A file of a config group with those that it builds on; interpolations stay as they are written."""
    import yaml

    node = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    if not isinstance(node, dict):
        raise GenrecError(f"{path} is no mapping.")
    merged: dict[str, Any] = {}
    for entry in node.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            merged = _merged(merged, _yaml_option(path.with_name(f"{entry}.yaml")))
    return _merged(merged, node)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(below[name], above[name]) for name in below.keys() & above.keys() if _maps(below, above, name)
    }
    return {**below, **above, **both}


def _maps(below: Mapping[str, Any], above: Mapping[str, Any], name: str) -> bool:
    return isinstance(below[name], dict) and isinstance(above[name], dict)
