"""Annotations read from source, without importing it, as the checkable types of ``genrec.annotations``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import annotated_types as at

from genrec.annotations import MAPPINGS, SEQUENCES, Unknown, annotated, finished, generic, union

if TYPE_CHECKING:
    from genrec.config.source_tree import Module

Resolver = Callable[["Module", ast.AST], Any]

_BY_NAME: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "pathlib.Path": Path,
    "os.PathLike": Path,
    "list": list,
    "tuple": list,
    "dict": dict,
    "set": list,
    "frozenset": list,
}
_BOUNDS = {"gt": at.Gt, "ge": at.Ge, "lt": at.Lt, "le": at.Le, "min_length": at.MinLen, "max_length": at.MaxLen}


def annotation_type(module: Module, node: ast.expr | None, resolve: Resolver, *, optional: bool = False) -> Any:
    """The checkable type that an annotation's syntax tree means in its module."""
    return finished(_read(module, node, resolve), optional)


def _read(module: Module, node: ast.AST | None, resolve: Resolver, depth: int = 0) -> Any:
    if node is None or depth > 20:
        return Unknown
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a quoted annotation
            try:
                return _read(module, ast.parse(node.value, mode="eval").body, resolve, depth + 1)
            except SyntaxError:
                return Unknown
        return None if node.value is None else Unknown
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return union([_read(module, side, resolve, depth + 1) for side in (node.left, node.right)])
    if isinstance(node, ast.Subscript):
        return _read_subscript(module, node, resolve, depth)
    found = resolve(module, node)
    if isinstance(found, str):
        last = found.rpartition(".")[2]
        if found in _BY_NAME:
            return _BY_NAME[found]
        if found == "typing.Any":
            return Any
        return list if last in SEQUENCES else dict if last in MAPPINGS else Unknown
    if isinstance(found, tuple) and isinstance(found[1], ast.expr):  # an alias: _PATH = Union[str, Path]
        return _read(found[0], found[1], resolve, depth + 1)
    return Unknown


def _read_subscript(module: Module, node: ast.Subscript, resolve: Resolver, depth: int) -> Any:
    head = resolve(module, node.value)
    if not isinstance(head, str):
        return Unknown
    name = head.rpartition(".")[2]
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return Literal[tuple(ast.literal_eval(item) for item in inner)]  # pyright: ignore[reportInvalidTypeForm]
    if name == "Annotated":
        return annotated(_read(module, inner[0], resolve, depth + 1), [_constraint(item) for item in inner[1:]])
    if name in ("tuple", "Tuple") and not inner:
        return list
    arguments = [_read(module, item, resolve, depth + 1) for item in inner if not _is_ellipsis(item)]
    if name in ("Optional", "Union"):
        return union([*arguments, None] if name == "Optional" else arguments)
    if name in ("ClassVar", "Final", "InitVar", "Required"):
        return arguments[0]
    return generic(name, arguments, variadic=any(_is_ellipsis(item) for item in inner))


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _constraint(node: ast.expr) -> list[Any]:
    """``Gt(0)`` and ``Field(gt=0)`` as annotated-types metadata; what is not a literal bound is let through."""
    if not isinstance(node, ast.Call):
        return []
    name = ast.unparse(node.func).rpartition(".")[2]
    try:
        given = [ast.literal_eval(item) for item in node.args]
        named = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg in _BOUNDS}
    except ValueError:
        return []
    by_class = {bound.__name__: bound for bound in _BOUNDS.values()}
    if name in by_class and given:
        return [by_class[name](given[0])]
    return [_BOUNDS[key](value) for key, value in named.items()]
