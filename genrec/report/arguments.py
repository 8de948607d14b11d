"""The words of a command line: options in either spelling, ``limit=5`` and ``--limit 5``, apart from the others."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from genrec.contracts import GenrecError


def take_options(
    arguments: Sequence[str],
    valued: Sequence[str],
    flags: Sequence[str] = (),
    short: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], list[str]]:
    """The options by name and the other words in their order.

    ``valued`` are options that take a value, ``flags`` those that are true or false and may stand alone after ``--``,
    ``short`` names flags by a letter: ``{"-v": "errors"}``.
    """
    options: dict[str, str] = {}
    rest: list[str] = []
    words = [f"--{short[word]}" if short and word in short else word for word in arguments]
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        name, separator, value = word.lstrip("-").partition("=")
        known = name.replace("-", "_") if word.startswith("--") else name
        if known not in (*valued, *flags):
            if word.startswith("-"):
                raise GenrecError(_unknown(word, known, [*valued, *flags]))
            rest.append(word)
        elif separator:
            options[known] = value.strip()
        elif word.startswith("--") and known in flags:
            options[known] = "true"
        elif word.startswith("--") and position < len(words):
            options[known] = words[position]
            position += 1
        else:
            raise GenrecError(f"{word!r} needs a value: {known}={'true' if known in flags else '...'}")
    return options, rest


def truth(options: Mapping[str, str], name: str) -> bool:
    """An option that is true or false, by default false."""
    text = options.get(name, "false").lower()
    if text not in ("true", "false"):
        raise GenrecError(f"{name}={options[name]}: give true or false.")
    return text == "true"


def count(options: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A whole number of 1 or more; None is ``all``."""
    if name not in options:
        return default
    text = options[name]
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise GenrecError(f"{name}={text}: give a whole number of 1 or more, or all.")
    return int(text)


def one_of(options: Mapping[str, str], name: str, allowed: Sequence[str]) -> str:
    """One of several words, by default the first."""
    text = options.get(name, allowed[0])
    if text not in allowed:
        near = difflib.get_close_matches(text, allowed, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise GenrecError(f"{name}={text}: the choices are {', '.join(allowed)}.{hint}")
    return text


def folder(options: Mapping[str, str], name: str, default: str) -> Path:
    return Path(options.get(name, default)).expanduser()


def _unknown(word: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}=?" if near else ""
    return f"{word!r} is not known here.{hint} The options are {', '.join(known)}; --help explains them."
