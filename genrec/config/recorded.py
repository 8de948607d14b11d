"""The ``config.yaml`` of a run folder, which may be somebody else's: it builds what this user trusts, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.config.targets import VARIABLE, named_by_user, target_faults
from genrec.contracts import GenrecError

if TYPE_CHECKING:
    from omegaconf import DictConfig

ADDRESSES = "GENREC_ALLOW_ADDRESSES"  # of the environment: beginnings of addresses, separated by commas
CONFIG_FILE = "config.yaml"
_NEEDED = ("model", "data")
_MOST = 100_000  # values


def recorded_config(folder: Path, *, data: bool = True) -> DictConfig:
    """The config of a run as it was written; ``GenrecError`` where genrec would not have written it so.

    What the file itself allows (``allow_targets``) counts for nothing, it may refer to nothing outside of itself, and
    no data are fetched for it: of remote ones the copies of earlier runs are taken (``data=False``: they are not
    needed), unless the environment names the addresses that may be read.
    """
    from omegaconf import OmegaConf

    path = Path(folder) / CONFIG_FILE
    values = _read(path)
    allowed = named_by_user()
    for fault in target_faults("", values, allowed):
        reason = (
            f"{fault.problem}, whatever the file says. If you trust it: {VARIABLE}={str(fault.given).split('.')[0]}"
        )
        raise GenrecError(f"{path} names {fault.given} as {fault.key}: {reason} in the environment.")
    values["allow_targets"] = list(allowed)
    source = values["data"].get("source")
    if isinstance(source, dict) and source.get("download"):
        source["download"] = False
    if data:
        _take_copies(values, path)
    return OmegaConf.create(values)


def _take_copies(values: dict[str, Any], path: Path) -> None:
    """Puts the copies of remote files in their places. What a store is told comes from the environment alone: options
    of somebody else could send your credentials to a server of theirs."""
    nodes = [values["data"], values["data"].get("source"), values.get("encoder"), values.get("tokenizer")]
    for node in nodes:
        if isinstance(node, dict):
            node.update({key: None for key in ("storage_options",) if key in node})
            for key in [key for key in ("path", "items_path", "users_path") if key in node]:
                node[key] = _copied(node[key], str(values.get("cache_dir") or ""), path)


def _copied(given: Any, cache_dir: str, path: Path) -> Any:
    from genrec.remote.addresses import is_remote, shown

    if isinstance(given, list):
        return [_copied(item, cache_dir, path) for item in given]
    named = is_remote(given) and ".." not in given.split("/") and given.startswith(tuple(_named_addresses()))
    if named or not is_remote(given):
        return given
    from genrec.remote.copies import cached_copy

    copy = cached_copy(given, cache_dir) if cache_dir else None
    if copy is None:
        place = shown(given).partition("?")[0]
        raise GenrecError(
            f"{path} reads {shown(given)}, of which {cache_dir}/ has no copy, and a run folder fetches nothing by "
            f"itself. If you trust it: {ADDRESSES}={place} in the environment."
        )
    return str(copy)


def _named_addresses() -> list[str]:
    """The beginnings of addresses that run folders may read."""
    given = (word.strip() for word in os.environ.get(ADDRESSES, "").split(","))
    return [word if word.endswith("/") or word.count("/") > 2 else f"{word}/" for word in given if "://" in word]


def _read(path: Path) -> dict[str, Any]:
    from genrec.artifacts import read_yaml  # which needs numpy: mistakes are answered without it

    if not path.exists():
        raise GenrecError(f"{path.parent} is not a run folder: it has no {path.name}. Give a folder below outputs/.")
    values: Any = read_yaml(path)
    if _more_than(_MOST, values):
        raise GenrecError(
            f"{path} is not the config of a run: it holds over {_MOST:,} values. Give another run folder."
        )
    whole = isinstance(values, dict) and all(
        isinstance(values.get(key), dict) and isinstance(values[key].get("_target_"), str) for key in _NEEDED
    )
    if not whole:
        raise GenrecError(f"{path} is not the config of a run: it names no model or no data. Give another run folder.")
    for place, text in _texts("", values):
        if "${" in text:
            raise GenrecError(
                f"{path} holds {text!r} at {place}. genrec writes configs resolved, so this one is not as it was "
                "written; give another run folder."
            )
    return values


def _more_than(count: int, value: Any) -> bool:
    """Whether a tree has more nodes than ``count``; aliases of YAML can make it endless."""

    waiting = [value]
    while waiting and count > 0:
        node = waiting.pop()
        count -= 1
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
    return bool(waiting)


def _texts(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(f"{place}.{key}".lstrip("."), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(f"{place}[{index}]", item)
    elif isinstance(value, str):
        yield place, value
