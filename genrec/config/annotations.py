"""Annotations as types that can be checked, and in words for a message.

Scalars are strict (``2.5`` is no int, ``"3"`` is no int, ``true`` is no number), but a whole number is a good float, a
string a good path and a YAML list a good tuple. A class that is unknown here (Tensor, a Source) is dropped from a union
that has known members, and means Any where it stands alone.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import annotated_types as at

if TYPE_CHECKING:
    from genrec.config.source_tree import Module

Resolver = Callable[["Module", ast.AST], Any]

_KNOWN: dict[Any, Any] = {
    **{kind: kind for kind in (int, float, str, bool, Path, list, dict)},
    **{None: None, type(None): None, tuple: list},
}
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
_SEQUENCES = {"list", "set", "frozenset", "List", "Set", "Sequence", "MutableSequence", "Iterable", "Collection"}
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "OrderedDict"}
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
    None: "null",
    list: "a list",
    dict: "a mapping",
    Any: "anything",
}
_BOUNDS = {"gt": at.Gt, "ge": at.Ge, "lt": at.Lt, "le": at.Le, "min_length": at.MinLen, "max_length": at.MaxLen}


class _Unknown:
    """A class that cannot be checked here."""


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a plain value (scalars, lists, dicts) may be given where ``annotation`` stands."""
    if annotation is Any:
        return True
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None:
        return _is_instance(value, annotation)
    if origin is Annotated:
        return accepts(arguments[0], value) and all(_within(bound, value) for bound in arguments[1:])
    if origin is Literal:
        return any(type(value) is type(word) and value == word for word in arguments)
    if origin is Union:
        return any(accepts(item, value) for item in arguments)
    if origin is dict:
        key, item = arguments
        return isinstance(value, Mapping) and all(accepts(key, k) and accepts(item, v) for k, v in value.items())
    if not isinstance(value, list | tuple):
        return False
    if origin is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(accepts, arguments, value))
    return all(accepts(arguments[0], item) for item in value)


def _is_instance(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    also: dict[Any, tuple[type, ...]] = {float: (int,), Path: (str,), list: (tuple,), dict: (Mapping,)}
    return isinstance(value, (kind, *also.get(kind, ())))


def _within(bound: Any, value: Any) -> bool:
    """Whether a value keeps a bound of annotated-types; what is no bound keeps nobody out."""
    if isinstance(bound, at.Gt):
        return value > bound.gt
    if isinstance(bound, at.Ge):
        return value >= bound.ge
    if isinstance(bound, at.Lt):
        return value < bound.lt
    if isinstance(bound, at.Le):
        return value <= bound.le
    if isinstance(bound, at.MinLen):
        return len(value) >= bound.min_length
    return not isinstance(bound, at.MaxLen) or len(value) <= bound.max_length


def annotation_type(module: Module, node: ast.expr | None, resolve: Resolver, *, optional: bool = False) -> Any:
    """The checkable type that an annotation's syntax tree means in its module."""
    return _finished(_read(module, node, resolve), optional)


def _finished(kind: Any, optional: bool = False) -> Any:
    if kind is _Unknown or kind is Any:
        return Any
    return Union[kind, None] if optional else kind  # noqa: UP007 (kind is a value here)


def _read(module: Module, node: ast.AST | None, resolve: Resolver, depth: int = 0) -> Any:
    if node is None or depth > 20:
        return _Unknown
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a quoted annotation
            try:
                return _read(module, ast.parse(node.value, mode="eval").body, resolve, depth + 1)
            except SyntaxError:
                return _Unknown
        return None if node.value is None else _Unknown
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_read(module, side, resolve, depth + 1) for side in (node.left, node.right)])
    if isinstance(node, ast.Subscript):
        return _read_subscript(module, node, resolve, depth)
    found = resolve(module, node)
    if isinstance(found, str):
        last = found.rpartition(".")[2]
        if found in _BY_NAME:
            return _BY_NAME[found]
        if found == "typing.Any":
            return Any
        return list if last in _SEQUENCES else dict if last in _MAPPINGS else _Unknown
    if isinstance(found, tuple) and isinstance(found[1], ast.expr):  # an alias: _PATH = Union[str, Path]
        return _read(found[0], found[1], resolve, depth + 1)
    return _Unknown


def _read_subscript(module: Module, node: ast.Subscript, resolve: Resolver, depth: int) -> Any:
    head = resolve(module, node.value)
    if not isinstance(head, str):
        return _Unknown
    name = head.rpartition(".")[2]
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return Literal[tuple(ast.literal_eval(item) for item in inner)]  # pyright: ignore[reportInvalidTypeForm]
    if name == "Annotated":
        return _annotated(_read(module, inner[0], resolve, depth + 1), [_constraint(item) for item in inner[1:]])
    if name in ("tuple", "Tuple") and not inner:
        return list
    arguments = [_read(module, item, resolve, depth + 1) for item in inner if not _is_ellipsis(item)]
    if name in ("Optional", "Union"):
        return _union([*arguments, None] if name == "Optional" else arguments)
    if name in ("ClassVar", "Final", "InitVar", "Required"):
        return arguments[0]
    return _generic(name, arguments, variadic=any(_is_ellipsis(item) for item in inner))


def _is_ellipsis(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _generic(name: str, arguments: list[Any], *, variadic: bool) -> Any:
    known = [Any if item is _Unknown else item for item in arguments]
    if name in ("tuple", "Tuple"):
        return tuple[known[0], ...] if variadic else tuple[tuple(known)]  # pyright: ignore[reportInvalidTypeForm]
    if name in _SEQUENCES:
        return list[known[0]]
    if name in _MAPPINGS:
        return dict[known[0], known[1]] if len(known) == 2 else dict
    return _Unknown


def _union(members: list[Any]) -> Any:
    if any(item is Any for item in members):
        return Any
    known = [item for item in members if item is not _Unknown]
    if not any(item is not None for item in known):
        return _Unknown
    return Union[tuple(known)]  # noqa: UP007


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


def _annotated(kind: Any, constraints: list[list[Any]]) -> Any:
    if kind is _Unknown or kind is Any:
        return kind
    for found in constraints:
        for constraint in found:
            kind = Annotated[kind, constraint]
    return kind


# ---- types of imported objects --------------------------------------------------------------------------------------


def from_runtime(target: Any) -> dict[str, Any]:
    """The checkable types of an imported class or function; empty where its annotations do not resolve."""
    function = target.__init__ if isinstance(target, type) else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:
        return {}
    return {name: checkable(hint) for name, hint in hints.items()}


def checkable(hint: Any) -> Any:
    """A real type hint under the same rules as one read from source."""
    return _finished(_from_hint(hint))


def _from_hint(hint: Any) -> Any:
    if hint is Any:
        return Any
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return _KNOWN[hint] if _hashable_in(hint, _KNOWN) else _Unknown
    if origin is Literal:
        return hint
    if origin is Annotated:
        bounds = [[item] for item in arguments[1:] if isinstance(item, at.BaseMetadata)]
        return _annotated(_from_hint(arguments[0]), bounds)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return _union([_from_hint(item) for item in arguments])
    inner = [_from_hint(item) for item in arguments if item is not Ellipsis]
    return _generic(getattr(origin, "__name__", ""), inner, variadic=Ellipsis in arguments)


def _hashable_in(item: Any, table: Mapping[Any, Any]) -> bool:
    try:
        return item in table
    except TypeError:
        return False


# ---- in words -------------------------------------------------------------------------------------------------------


def describe(annotation: Any) -> str:
    """What an annotation allows, in words: "a number greater than 0, or null"."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        bounds = " and ".join(text for text in (_bound_words(item) for item in arguments[1:]) if text)
        head, comma, tail = describe(arguments[0]).partition(", ")
        return f"{head} {bounds}".strip() + comma + tail
    if origin is Literal:
        return "one of " + ", ".join(str(item) for item in arguments)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return ", or ".join(describe(item) for item in sorted(arguments, key=lambda item: item is type(None)))
    if origin is list:
        return f"a list, each {describe(arguments[0])}"
    if origin is tuple:
        if Ellipsis in arguments:
            return f"a list, each {describe(arguments[0])}"
        return f"a list of {len(arguments)}: " + "; ".join(describe(item) for item in arguments)
    if origin is dict:
        return f"a mapping, each value {describe(arguments[1])}"
    return str(annotation)


def choices(annotation: Any) -> list[str]:
    """The words that an annotation allows by name (its literals)."""
    if typing.get_origin(annotation) is Literal:
        return [str(item) for item in typing.get_args(annotation)]
    return [name for item in typing.get_args(annotation) for name in choices(item)]


def _bound_words(bound: Any) -> str:
    if isinstance(bound, at.Gt):
        return f"greater than {bound.gt}"
    if isinstance(bound, at.Ge):
        return f"of at least {bound.ge}"
    if isinstance(bound, at.Lt):
        return f"below {bound.lt}"
    if isinstance(bound, at.Le):
        return f"of at most {bound.le}"
    if isinstance(bound, at.MinLen):
        return f"with at least {_entries(bound.min_length)}"
    return f"with at most {_entries(bound.max_length)}" if isinstance(bound, at.MaxLen) else ""


def _entries(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count} entries"


def as_yaml(value: Any) -> str:
    """A value as one would write it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value if value else "''"
    if isinstance(value, Sequence):
        return "[" + ",".join(as_yaml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_yaml(item)}" for key, item in value.items()) + "}"
    return str(value)
