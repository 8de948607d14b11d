"""Which names a config may build: a ``_target_`` is called, so whoever writes it runs code of their choice.

A name is judged before its module is imported. Allowed are classes of ``TRUSTED``, whatever stands in the user's own
modules (on the module search path, outside of Python's library and of installed packages), and what the user names.
"""

from __future__ import annotations

import ast
import os
import re
import site
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from genrec.config.faults import Fault
from genrec.config.source_tree import TargetNotFoundError, locate, top_level

VARIABLE = "GENREC_ALLOW_TARGETS"  # of the environment: packages, separated by commas
TRUSTED = (
    "genrec",
    "torch.optim",
    "torch.nn",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "optuna.samplers",
    "optuna.pruners",
)
PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins")  # what Hydra itself builds, below the key hydra
_LOGGING = ("job_logging", "hydra_logging")  # nodes of logging.config.dictConfig, which calls what they name as well
_HANDLER = re.compile(r"logging(\.handlers)?\.[A-Z]\w*")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def named_by_user(config: Any = None) -> tuple[str, ...]:
    """The packages that the environment and ``allow_targets`` of a config name."""
    from omegaconf.errors import OmegaConfBaseException

    given = None
    with suppress(OmegaConfBaseException):  # an interpolation that leads nowhere, which check() tells
        given = config.get("allow_targets") if config is not None else None
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else ()  # which check() refuses
    words = [*os.environ.get(VARIABLE, "").split(","), *listed]
    return tuple(dict.fromkeys(str(word).strip() for word in words if str(word).strip()))


def target_faults(place: str, value: Any, allowed: Sequence[str] = ()) -> Iterator[Fault]:
    """A fault for every ``_target_`` in a tree of plain values that may not be built."""
    for path, target in _targets(place, value):
        reason = refusal(target, tuple(allowed)) if isinstance(target, str) else _NOT_A_NAME
        if reason is not None:
            yield Fault(path, reason, str(target), None, _way_out(target))


_NOT_A_NAME = "a class must be named outright, not by what is known only later"


def _targets(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    from genrec.config.plain import UNRESOLVED

    if isinstance(value, dict):
        target = value.get("_target_")
        if isinstance(target, str) or target is UNRESOLVED:
            yield f"{place}._target_".lstrip("."), target
        for key, item in value.items():
            yield from _targets(f"{place}.{key}".lstrip("."), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _targets(f"{place}[{index}]", item)


def hydra_faults(values: dict[str, Any], allowed: Sequence[str] = ()) -> Iterator[Fault]:
    """The same of the node ``hydra``: its callbacks, sweeper and launcher, and what its logging calls."""
    yield from target_faults("hydra", values, (*allowed, *PLUGINS))
    for name in _LOGGING:
        yield from _logging_faults(f"hydra.{name}", values.get(name), tuple(allowed))


def _logging_faults(place: str, value: Any, allowed: tuple[str, ...]) -> Iterator[Fault]:
    """``()`` and ``class`` are called by ``dictConfig``, ``ext://`` imports what it names."""
    if isinstance(value, str) and value.startswith("ext://") and value not in _STREAMS:
        yield Fault(place, f"logging may name {' and '.join(_STREAMS)} only", value)
    items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        called = key in ("()", "class") and not (isinstance(item, str) and _HANDLER.fullmatch(item))
        reason = refusal(str(item), allowed) if called else None
        if reason is not None:
            yield Fault(f"{place}.{key}", reason, str(item), None, _way_out(item))
        yield from _logging_faults(f"{place}.{key}", item, allowed)


def _way_out(target: Any) -> str:
    listed = f"Allowed are classes of {', '.join(TRUSTED)}, and modules of your own."
    return f"{listed} If you trust it: allow_targets=[{str(target).partition('.')[0]}]."


@cache
def refusal(target: str, allowed: tuple[str, ...] = ()) -> str | None:
    """Why a config may not build ``target``; None where it may, and where there is no such thing.

    ``allowed`` are packages or names that the user trusts, functions in them included.
    """
    parts = target.split(".")
    if any(part.startswith("__") for part in parts):
        return "it reaches into the inside of Python"
    if top_level(parts[0]) is None:
        return None
    if not _covered(target, (*TRUSTED, *allowed)) and not is_own(parts[0]):
        return "a config may not run it"
    try:
        found = locate(target)
    except TargetNotFoundError:
        return None
    if found is not None and isinstance(found[1], ast.ClassDef | ast.FunctionDef):
        return _judged(found[0].name, isinstance(found[1], ast.ClassDef), allowed)
    return _refused_object(parts, allowed)


def _judged(home: str, is_class: bool, allowed: tuple[str, ...]) -> str | None:
    """Why something defined in the module ``home`` may not be built."""
    if _covered(home, allowed) or (home.partition(".")[0] != "genrec" and is_own(home.partition(".")[0])):
        return None
    if not _covered(home, TRUSTED):
        return f"it is of the module {home}, which a config may not run"
    return None if is_class else "it is a function, and of these packages a config may build classes only"


def _refused_object(parts: Sequence[str], allowed: tuple[str, ...]) -> str | None:
    """What the source does not tell is imported, module by module, as far as these are trusted."""
    found: Any = None
    for depth, part in enumerate(parts):
        if depth and hasattr(found, part):
            found = getattr(found, part)
        elif depth and not isinstance(found, ModuleType):
            return None
        else:
            try:
                found = import_module(".".join(parts[: depth + 1]))
            except Exception:  # which reading the signature reports, in the same way
                return None
        if isinstance(found, ModuleType) and not _leads_to(found.__name__, allowed):
            return f"it is of the module {found.__name__}, which a config may not run"
    home = getattr(found, "__module__", None) or type(found).__module__
    return _judged(str(home), isinstance(found, type), allowed)


def _leads_to(module: str, allowed: tuple[str, ...]) -> bool:
    names = (*TRUSTED, *allowed)
    above = any(name.startswith(f"{module}.") for name in names)
    return above or _covered(module, names) or is_own(module.partition(".")[0])


def _covered(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@cache
def is_own(name: str) -> bool:
    """Whether a top-level module lies neither in Python's library nor among installed packages."""
    places = top_level(name) if name != "genrec" else None
    return bool(places) and not any(_is_installed(place) for place in places or ())


def _is_installed(place: Path) -> bool:
    place = place.resolve()
    if {"site-packages", "dist-packages"} & set(place.parts):
        return True
    return any(place.is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [*(sysconfig.get_paths()[name] for name in names), site.getusersitepackages()]
    return tuple(Path(folder).resolve() for folder in folders)
