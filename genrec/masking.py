"""What must not be written down: passwords, tokens and keys, told by the names they stand under."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "(hidden)"
_NAMES = r"api_?key|access_?key|private_?key|token|password|passwd|secret|credentials?"
_SECRET_KEY = re.compile(rf"(^|[._-])({_NAMES})$", re.IGNORECASE)
_IN_MAPPING = re.compile(rf"((?:^|[\s{{,._-])['\"]?(?:{_NAMES})['\"]?\s*:\s*)([^\s,}}\]]+)", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")  # user:password of an address
_IN_QUERY = re.compile(rf"([?&][\w-]*(?:{_NAMES}|signature|sig)=)[^&\s'\"]+", re.IGNORECASE)
_SHORTEST = 4  # shorter ones would be found everywhere
_SHORTEST_OF_ENVIRONMENT = 12  # where names are given by others


def is_secret(key: str) -> bool:
    """Whether the value of a key is secret: ``api_key``, ``wandb.token``, ``db_password``; not ``num_tokens``."""
    return _SECRET_KEY.search(key) is not None


def masked(value: Any, key: str = "") -> Any:
    """Plain nested values as they may be written: what stands under a secret key is hidden, and so are the passwords
    of addresses."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {name: masked(item, str(name)) for name, item in value.items()}
    if is_secret(key):
        return HIDDEN
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return scrub(value) if isinstance(value, str) else value


def masked_words(words: Iterable[str]) -> list[str]:
    """Words of a command line, the values of secret ones left out."""
    shown = []
    for word in words:
        name, sign, _ = word.partition("=")
        hidden = f"{name}={HIDDEN}" if sign and is_secret(name) else word
        shown.append(scrub(_IN_MAPPING.sub(rf"\g<1>{HIDDEN}", hidden) if "{" in word else hidden))
    return shown


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` without the secrets and without passwords in addresses."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _IN_QUERY.sub(rf"\g<1>{HIDDEN}", _IN_ADDRESS.sub(HIDDEN, text))


def secret_values(config: Mapping[str, Any], words: Iterable[str] = ()) -> list[str]:
    """The secrets of a config and of words of a command line, the longest first."""
    given = [value for name, _, value in (word.partition("=") for word in words) if is_secret(name)]
    found = [*given, *(str(value) for key, value in _leaves(config) if is_secret(key) and value is not None)]
    return _longest_first(value for value in found if len(value) >= _SHORTEST)


def secrets_of_environment() -> list[str]:
    """The values of environment variables with secret names, such as WANDB_API_KEY."""
    found = (value for name, value in os.environ.items() if is_secret(name))
    return _longest_first(value for value in found if len(value) >= _SHORTEST_OF_ENVIRONMENT)


def _longest_first(values: Iterable[str]) -> list[str]:
    return sorted({value for value in values if value != HIDDEN}, key=lambda value: (-len(value), value))


def _leaves(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, list | tuple):
            yield from ((str(key), item) for item in value if not isinstance(item, Mapping))
            for item in value:
                yield from _leaves(item) if isinstance(item, Mapping) else ()
        else:
            yield str(key), value


class MaskingFormatter(logging.Formatter):
    """Log lines, and the tracebacks below them, without the given secrets."""

    def __init__(self, pattern: str, secrets: Sequence[str]) -> None:
        super().__init__(pattern)
        self.secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record), self.secrets)
