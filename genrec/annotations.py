"""Annotations as types that a value can be checked against, and in words for a message.

Scalars are strict (``2.5`` is no int, ``"3"`` is no int, ``true`` is no number), but a whole number is a good float, a
string a good path, a YAML list a good tuple and a NumPy number a good number. A class that is unknown here (Tensor, a
Source) stands for any object in a union that has known members, and means Any where it stands alone.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types as at

from genrec.contracts import GenrecError

Count = Annotated[int, at.Ge(1)]
Natural = Annotated[int, at.Ge(0)]
Rate = Annotated[float, at.Ge(0), at.Lt(1)]
Share = Annotated[float, at.Ge(0), at.Le(1)]
Positive = Annotated[float, at.Gt(0)]
NotNegative = Annotated[float, at.Ge(0)]

_KNOWN: dict[Any, Any] = {
    **{kind: kind for kind in (int, float, str, bool, Path, list, dict)},
    **{None: None, type(None): None, tuple: list},
}
SEQUENCES = {"list", "set", "frozenset", "List", "Set", "Sequence", "MutableSequence", "Iterable", "Collection"}
MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "OrderedDict"}
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


class Unknown:
    """A class that cannot be checked here: no plain value (of a YAML file) is one of it."""


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a plain value (scalars, lists, dicts) may be given where ``annotation`` stands."""
    if annotation is Any:
        return True
    if annotation is Unknown:
        return not isinstance(value, str | numbers.Number | Sequence | Mapping | None)
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
    if not _is_instance(value, list):
        return False
    if origin is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(accepts, arguments, value))
    return all(accepts(arguments[0], item) for item in value)


def _is_instance(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    also: dict[Any, tuple[type, ...]] = {
        **{int: (numbers.Integral,), float: (numbers.Real,)},
        **{Path: (str,), list: (Sequence,), dict: (Mapping,)},
    }
    if kind is list and isinstance(value, str | bytes):
        return False
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
    return finished(_from_hint(hint))


def _from_hint(hint: Any) -> Any:
    if hint is Any:
        return Any
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return _KNOWN[hint] if _hashable_in(hint, _KNOWN) else Unknown
    if origin is Literal:
        return hint
    if origin is Annotated:
        bounds = [[item] for item in arguments[1:] if isinstance(item, at.BaseMetadata)]
        return annotated(_from_hint(arguments[0]), bounds)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return union([_from_hint(item) for item in arguments])
    inner = [_from_hint(item) for item in arguments if item is not Ellipsis]
    return generic(getattr(origin, "__name__", ""), inner, variadic=Ellipsis in arguments)


def _hashable_in(item: Any, table: Mapping[Any, Any]) -> bool:
    try:
        return item in table
    except TypeError:
        return False


def finished(kind: Any, optional: bool = False) -> Any:
    if kind is Unknown or kind is Any:
        return Any
    return Union[kind, None] if optional else kind  # noqa: UP007 (kind is a value here)


def generic(name: str, arguments: list[Any], *, variadic: bool) -> Any:
    known = [Any if item is Unknown else item for item in arguments]
    if name in ("tuple", "Tuple"):
        return tuple[known[0], ...] if variadic else tuple[tuple(known)]  # pyright: ignore[reportInvalidTypeForm]
    if name in SEQUENCES:
        return list[known[0]]
    if name in MAPPINGS:
        return dict[known[0], known[1]] if len(known) == 2 else dict
    return Unknown


def union(members: list[Any]) -> Any:
    if any(item is Any for item in members):
        return Any
    if not any(item is not None and item is not Unknown for item in members):
        return Unknown
    return Union[tuple(members)]  # noqa: UP007


def annotated(kind: Any, constraints: list[list[Any]]) -> Any:
    if kind is Unknown or kind is Any:
        return kind
    for found in constraints:
        for constraint in found:
            kind = Annotated[kind, constraint]
    return kind


# ---- checking -------------------------------------------------------------------------------------------------------


def check_fields(settings: Any, place: str) -> None:
    """Raises ``GenrecError`` where a field of a dataclass holds what its annotation does not allow.

    ``place`` is the key of the object in messages ("trainer").
    """
    types = _field_types(type(settings))
    _check({field.name: getattr(settings, field.name) for field in fields(settings) if field.init}, types, place)


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any], place: str) -> None:
    """The same of a function's arguments: ``check_arguments(Model.__init__, locals(), "model")``."""
    _check(given, _argument_types(function), place)


def _check(given: Mapping[str, Any], types: Mapping[str, Any], place: str) -> None:
    for name, value in given.items():
        if name in types and not accepts(types[name], value):
            raise GenrecError(f"{place}.{name}={as_yaml(value)}: expected {describe(types[name])}.")


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    """The checkable types of a class's fields; a class whose annotations do not resolve says nothing of its own."""
    found: dict[str, Any] = {}
    for owner in reversed(kind.__mro__):
        try:
            hints = inspect.get_annotations(owner, eval_str=True)
        except Exception:
            hints = dict.fromkeys(inspect.get_annotations(owner), Any)
        found.update({name: checkable(hint) for name, hint in hints.items()})
    return found


@functools.cache
def _argument_types(function: Callable[..., Any]) -> dict[str, Any]:
    return from_runtime(function)


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
        known = [item for item in arguments if item is not Unknown]
        return ", or ".join(describe(item) for item in sorted(known, key=lambda item: item is type(None)))
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
