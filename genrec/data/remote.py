"""Paths of data, here or in a remote store: which files they mean, and these as files of this machine."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from genrec.contracts import GenrecError
from genrec.data.tables import SUFFIXES, table_suffix
from genrec.remote.addresses import has_magic, is_remote, name_of, shown
from genrec.remote.copies import (
    DEFAULT_CACHE,
    Options,
    listed,
    localised_files,
    localised_folder,
    on_this_machine,
)


def files_of(path: str | Path, options: Options = None, *, suffixes: Sequence[str] = SUFFIXES) -> list[str]:
    """The files that a path means, by name: one file, those of a folder that are tables, or those of a pattern.

    ``path`` is of this machine or an address of a remote store, and so is each of the result. A GenrecError where
    there is none.
    """
    place = on_this_machine(path)
    if place is not None:
        found = _local_files(place, suffixes)
    else:
        found = [file.url for file in listed(str(path), options)]
        if len(found) != 1 or found[0] != path:
            found = [url for url in found if table_suffix(Path(name_of(url))) in suffixes]
    if not found:
        raise GenrecError(f"{shown(str(path))} holds no table ({', '.join(suffixes)}, each perhaps with .gz).")
    return found


def _local_files(place: Path, suffixes: Sequence[str]) -> list[str]:
    if place.is_file():
        return [str(place)]
    if place.is_dir():
        inside = sorted(item for item in place.iterdir() if item.is_file() and not item.name.startswith((".", "_")))
        return [str(item) for item in inside if table_suffix(item) in suffixes]
    if has_magic(str(place)):
        inside = sorted(Path(item) for item in glob.glob(str(place), recursive=True) if Path(item).is_file())
        if inside:
            return [str(item) for item in inside if table_suffix(item) in suffixes]
        raise GenrecError(f"No file matches {place}. Correct the pattern.")
    raise GenrecError(f"{place} does not exist. Give a file, a folder or a pattern such as data/*.parquet.")


def table_files(
    path: str | Path,
    cache_dir: str | Path,
    options: Options = None,
    *,
    choose: Callable[[list[str]], list[str]] = list,
    progress: bool = True,
) -> list[Path]:
    """The tables that a path means, by name, as files of this machine: of several in a remote store those are fetched
    that ``choose`` takes of their names."""
    place = on_this_machine(path)
    if place is not None:
        return [Path(name) for name in files_of(place)]
    url = str(path)
    return localised_files(url, cache_dir, options, lambda names: choose(_tables(names, url)), progress=progress)


def _tables(names: Sequence[str], url: str) -> list[str]:
    found = [name for name in names if table_suffix(Path(name)) in SUFFIXES]
    if not found:
        raise GenrecError(f"{shown(url)} holds no table ({', '.join(SUFFIXES)}, each perhaps with .gz).")
    return found


def data_folder(
    path: str | Path,
    names: Sequence[str],
    cache_dir: str | Path = DEFAULT_CACHE,
    options: Options = None,
    *,
    download: bool = False,
    progress: bool = True,
) -> Path:
    """The folder of a data set that consists of files of certain names, each perhaps with .gz; ``items.*`` is a table
    in any format. Of a remote folder only these are fetched."""
    if not is_remote(path):
        return Path(path)
    url = str(path)
    if download:
        raise GenrecError(
            f"data.source.download=true puts files into a folder of this machine, and data.path={shown(url)} is none. "
            "Leave one of the two out."
        )

    def chosen(found: list[str]) -> list[str]:
        wanted = [name for name in found if _is_wanted(name, names)]
        if not wanted:
            listing = ", ".join(found[:12]) or "nothing"
            raise GenrecError(
                f"Looked for {', '.join(names)} in {shown(url)}, which holds {listing}. Correct data.path or data_root."
            )
        return wanted

    return localised_folder(url, cache_dir, options, chosen, progress=progress)


def _is_wanted(found: str, names: Sequence[str]) -> bool:
    plain = found.removesuffix(".gz")
    tables = [name.removesuffix(".*") for name in names if name.endswith(".*")]
    return plain in names or (plain.partition(".")[0] in tables and table_suffix(Path(found)) in SUFFIXES)
