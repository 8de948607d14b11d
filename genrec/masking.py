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
_IN_MAPPING = re.compile(
    rf"((?:^|[\s{{,._-])['\"]?(?:{_NAMES})['\"]?\s*:\s*)(\"[^\"]*\"|'[^']*'|[^,}}\]\n]+)", re.IGNORECASE
)
# user:password of an address; what stands before the @ of Azure is a container
_IN_ADDRESS = re.compile(r"(?<=://)(?<!abfs://)(?<!abfss://)[^/\s'\"]+(?=@)", re.IGNORECASE)
_IN_QUERY = re.compile(
    rf"([?&](?:[\w-]*(?:{_NAMES}|signature|sig)|AWSAccessKeyId|key|auth|code)=)[^&\s'\"]+", re.IGNORECASE
)
STORAGE_OPTIONS = "storage_options"  # what a remote file system is told: secret unless known to be none
_PLAIN_OPTIONS = re.compile(
    "anon|endpoint_url|region(_name)?|use_ssl|verify|project|account_name|requester_pays|version_aware|location|access"
    "|host|port|retries|mode|max_attempts|addressing_style|signature_version|default_block_size|(connect_|read_)?timeout"
)
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
    if key == STORAGE_OPTIONS:
        return masked_options(value)
    if isinstance(value, Mapping):
        return {name: masked(item, str(name)) for name, item in value.items()}
    if is_secret(key):
        return HIDDEN
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return scrub(value) if isinstance(value, str) else value


def masked_options(value: Any, key: str = "") -> Any:
    """The same of ``storage_options``: drivers call their secrets what they like, so only plain ones are shown."""
    if isinstance(value, Mapping):
        return {name: masked_options(item, str(name)) for name, item in value.items()}
    if value is None or isinstance(value, bool):
        return value
    plain = _PLAIN_OPTIONS.fullmatch(key) is not None and not isinstance(value, list | tuple)
    return (scrub(value) if isinstance(value, str) else value) if plain else HIDDEN


def storage_secrets(options: Mapping[str, Any]) -> list[str]:
    """The values of ``storage_options`` that must not be shown, the longest first."""
    found = (str(value) for key, value in _leaves(options) if masked_options(value, key) == HIDDEN)
    return _longest_first(value for value in found if len(value) >= _SHORTEST)


def masked_words(words: Iterable[str]) -> list[str]:
    """Words of a command line, the values of secret ones left out."""
    shown = []
    for word in words:
        name, sign, value = word.partition("=")
        secret = is_secret(name) or _is_hidden_option(name, value)
        hidden = f"{name}={HIDDEN}" if sign and secret else word
        shown.append(scrub(_IN_MAPPING.sub(rf"\g<1>{HIDDEN}", hidden) if "{" in word else hidden))
    return shown


def masked_text(text: str) -> str:
    """What somebody wrote, be it a word or a value: without what it sets under secret names."""
    return _IN_MAPPING.sub(rf"\g<1>{HIDDEN}", masked_words([text])[0])


def _is_hidden_option(name: str, value: str) -> bool:
    """Whether a word gives an option of a remote file system that is not known to be plain, or all of them at once."""
    head, found, option = name.rpartition(STORAGE_OPTIONS)
    if not found or (head and head[-1] not in ".+~"):
        return False
    return value != "null" if not option else not _PLAIN_OPTIONS.fullmatch(option.rpartition(".")[2])


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` without the secrets and without passwords in addresses."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _IN_QUERY.sub(rf"\g<1>{HIDDEN}", _IN_ADDRESS.sub(HIDDEN, text))


def secret_values(config: Mapping[str, Any], words: Iterable[str] = ()) -> list[str]:
    """The secrets of a config and of words of a command line, the longest first."""
    pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
    given = [value.strip("'\"") for name, value in pairs if is_secret(name) or _is_hidden_option(name, value)]
    found = [*given, *(str(value) for key, value in _leaves(config) if is_secret(key) and value is not None)]
    found += [secret for options in _storage_options(config) for secret in storage_secrets(options)]
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


def _storage_options(node: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of that name in a tree of plain values."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        if key == STORAGE_OPTIONS and isinstance(value, Mapping):
            yield value
        else:
            yield from _storage_options(value)


class MaskingFormatter(logging.Formatter):
    """Log lines, and the tracebacks below them, without the given secrets."""

    def __init__(self, pattern: str, secrets: Sequence[str]) -> None:
        super().__init__(pattern)
        self.secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record), self.secrets)
