"""Signatures of config targets, read from source text: torch is never imported to learn what AdamW accepts.

``read_signature("torch.optim.AdamW")`` finds the file on ``sys.path``, follows re-exports, dataclass fields and base
classes through the syntax trees, and turns annotations into types that can be checked. Only what cannot be read
this way (C extensions, names made at run time) is imported for real.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Any

from genrec.annotations import from_runtime
from genrec.config.annotations import annotation_type
from genrec.config.source_tree import (
    Module,
    TargetNotFoundError,
    decorated,
    load_module,
    locate,
    module_file,
    resolve_expression,
)

_EMPTY_BASES = {"object", "typing.Protocol", "typing.Generic", "abc.ABC", "Exception", "ValueError"}
_INIT_NAMES = ("__init__", "__new__")
_DATACLASS = ("dataclasses.dataclass", "pydantic.dataclasses.dataclass")


class _UnreadableError(Exception):
    """The source does not tell; import it."""


@dataclass(frozen=True)
class Parameter:
    """One argument: ``annotation`` is Any where the type is not known."""

    name: str
    annotation: Any = Any
    required: bool = True
    keyword_only: bool = False

    @property
    def supplied(self) -> bool:
        """Whether a curried node leaves it to whoever calls it: ``spec`` of a model, ``params`` of an optimizer."""
        return self.required and not self.keyword_only


@dataclass(frozen=True)
class Signature:
    """What a target accepts, ``self`` left out. ``open`` targets take any keyword."""

    target: str
    parameters: dict[str, Parameter]
    open: bool = False

    @property
    def name(self) -> str:
        return self.target.rsplit(".", 1)[-1]

    @property
    def positional(self) -> list[str]:
        return [name for name, parameter in self.parameters.items() if not parameter.keyword_only]


def nearest(name: str, allowed: typing.Iterable[str]) -> str | None:
    """The allowed name most like ``name``, or None where nothing is near."""
    found = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return found[0] if found else None


@cache
def read_signature(target: str) -> Signature:
    """The signature of the class or function that a dotted name means; raises ``TargetNotFoundError``."""
    try:
        found = locate(target)
        if found is None:
            raise _UnreadableError
        module, node = found
        if isinstance(node, ast.ClassDef):
            return replace(_class_signature(module, node, ()), target=target)
        if isinstance(node, ast.FunctionDef):
            return _function_signature(target, module, node, skip=0)
        raise _UnreadableError
    except _UnreadableError:
        return _imported_signature(target)


# ---- reading signatures ---------------------------------------------------------------------------------------------


def _class_signature(module: Module, node: ast.ClassDef, below: tuple[ast.AST, ...]) -> Signature:
    if node in below or len(below) > 20:
        raise _UnreadableError
    for name in _INIT_NAMES:
        for statement in reversed(node.body):
            if (
                isinstance(statement, ast.FunctionDef)
                and statement.name == name
                and not decorated(statement, "overload")
            ):
                return _function_signature(node.name, module, statement, skip=1)
    if _dataclass_call(module, node) is not None:
        return Signature(node.name, dict(_dataclass_fields(module, node)))
    for base in node.bases:
        found = _definition(module, base)
        if isinstance(found, tuple) and isinstance(found[1], ast.ClassDef):
            inherited = _class_signature(found[0], found[1], (*below, node))
            if inherited.parameters or inherited.open or len(node.bases) == 1:
                return inherited
        elif not (isinstance(found, str) and found in _EMPTY_BASES):
            raise _UnreadableError
    return Signature(node.name, {})


def _definition(module: Module, base: ast.expr) -> tuple[Module, ast.AST] | Module | str | None:
    """What a base class is, opening its file where only its dotted name is known."""
    found = resolve_expression(module, base)
    if isinstance(found, str) and "." in found and found not in _EMPTY_BASES:
        return locate(found) or found
    return found


def _function_signature(target: str, module: Module, node: ast.FunctionDef, skip: int) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    found = [_parameter(module, item, default, False) for item, default in zip(positional, defaults, strict=True)][
        skip:
    ]
    keyword_only = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found += [_parameter(module, item, default, True) for item, default in keyword_only]
    return Signature(target, {item.name: item for item in found}, open=arguments.kwarg is not None)


def _parameter(module: Module, item: ast.arg, default: ast.expr | None, keyword_only: bool) -> Parameter:
    optional = isinstance(default, ast.Constant) and default.value is None
    annotation = annotation_type(module, item.annotation, resolve_expression, optional=optional)
    return Parameter(item.arg, annotation, default is None, keyword_only)


def _dataclass_call(module: Module, node: ast.ClassDef) -> dict[str, Any] | None:
    """The options of a ``@dataclass`` decorator, or None for an ordinary class."""
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if resolve_expression(module, call) in _DATACLASS:
            return _literal_keywords(decorator)
    return None


def _literal_keywords(node: ast.AST) -> dict[str, Any]:
    keywords = node.keywords if isinstance(node, ast.Call) else []
    return {word.arg: word.value.value for word in keywords if word.arg and isinstance(word.value, ast.Constant)}


def _dataclass_fields(module: Module, node: ast.ClassDef) -> Iterator[tuple[str, Parameter]]:
    fields: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        found = resolve_expression(module, base)
        if isinstance(found, tuple) and isinstance(found[1], ast.ClassDef):
            if _dataclass_call(found[0], found[1]) is not None:
                fields.update(_dataclass_fields(found[0], found[1]))
        elif not (isinstance(found, str) and found in _EMPTY_BASES):
            raise _UnreadableError
    keyword_only = bool((_dataclass_call(module, node) or {}).get("kw_only", False))
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        kind = resolve_expression(module, statement.annotation)
        if kind == "dataclasses.KW_ONLY":
            keyword_only = True
        elif kind != "typing.ClassVar":
            name, default = statement.target.id, statement.value
            fields.pop(name, None) if not _is_init_field(default) else None
            if _is_init_field(default):
                fields[name] = _field_parameter(module, statement, name, keyword_only)
    yield from fields.items()


def _is_init_field(default: ast.expr | None) -> bool:
    return not isinstance(default, ast.Call) or _literal_keywords(default).get("init", True) is not False


def _field_parameter(module: Module, statement: ast.AnnAssign, name: str, keyword_only: bool) -> Parameter:
    default = statement.value
    required = default is None
    optional = isinstance(default, ast.Constant) and default.value is None
    if isinstance(default, ast.Call) and resolve_expression(module, default.func) == "dataclasses.field":
        given = {word.arg: word.value for word in default.keywords}
        required = not ({"default", "default_factory"} & set(given))
        keyword_only = bool(_literal_keywords(default).get("kw_only", keyword_only))
    annotation = annotation_type(module, statement.annotation, resolve_expression, optional=optional)
    return Parameter(name, annotation, required, keyword_only)


# ---- the fallback: a real import ------------------------------------------------------------------------------------


def _imported_signature(target: str) -> Signature:
    found = _import_target(target)
    if not callable(found):
        raise TargetNotFoundError(f"{target} is a {type(found).__name__}, not a class or function")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # written in C without a signature: everything is let through
        return Signature(target, {}, open=True)
    hints = from_runtime(found)
    parameters = {
        name: Parameter(name, hints.get(name, Any), item.default is item.empty, item.kind is item.KEYWORD_ONLY)
        for name, item in signature.parameters.items()
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    open_ended = any(item.kind is item.VAR_KEYWORD for item in signature.parameters.values())
    return Signature(target, parameters, open=open_ended)


def _import_target(target: str) -> Any:
    parts = target.split(".")
    _refuse_unknown_name(parts)
    for depth in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:depth])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and name.startswith(error.name):
                continue
            raise TargetNotFoundError(f"{target} cannot be imported: {error}") from error
        except Exception as error:
            raise TargetNotFoundError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error
        for part in parts[depth:]:
            if not hasattr(found, part):
                near = nearest(part, [name for name in dir(found) if not name.startswith("_")])
                raise TargetNotFoundError(f"{name} has no '{part}'", f"{name}.{near}" if near else None)
            found = getattr(found, part)
        return found
    raise TargetNotFoundError(f"there is no module '{parts[0]}'")


def _refuse_unknown_name(parts: list[str]) -> None:
    """Raises for a name that a plain source file lacks, so that a typing mistake imports nothing."""
    depth = len(parts) - 1
    while depth and module_file(".".join(parts[:depth])) is None:
        depth -= 1
    where = ".".join(parts[:depth])
    module = load_module(where) if depth else None
    if module is None or module.stars or "__getattr__" in module.bindings:
        return
    part, rest = parts[depth], parts[depth + 1 :]
    offered = module.offered()
    if part in offered:
        return
    near = nearest(part, offered)
    if near is not None:
        whole = ".".join([where, near, *rest])
        near = whole if _exists(whole) else f"{where}.{near}"
    raise TargetNotFoundError(f"{where} has no '{part}'", near)


def _exists(target: str) -> bool:
    try:
        return locate(target) is not None
    except TargetNotFoundError:
        return False
