"""The config of a run as YAML, what was changed on the command line marked, and nothing secret in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from genrec.records import RunRecord, SweepRecord
from genrec.report.html import Markup, Section, details, element, inline_code, join, paragraph

HIDDEN = "(hidden)"
_SECRET_KEY = re.compile(
    r"(^|[._-])(api_?key|access_?key|private_?key|token|password|passwd|secret|credentials?)$", re.IGNORECASE
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")  # user:password of an address
_SHORTEST_SECRET = 4  # shorter ones would be found everywhere


def is_secret(key: str) -> bool:
    """Whether the value of a key is secret: ``api_key``, ``wandb.token``, ``db_password``; not ``num_tokens``."""
    return _SECRET_KEY.search(key) is not None


def secrets_of(record: RunRecord) -> list[str]:
    """The secret values of a run's config and overrides, to be kept out of whatever else is shown."""
    found = [str(value) for key, value in _leaves(record.config) if is_secret(key) and value is not None]
    return _long_first([*_secrets_in(record.words), *found])


def secrets_of_sweep(record: SweepRecord) -> list[str]:
    """The secret values of the command of a sweep and of its runs."""
    return _long_first([*_secrets_in(record.command), *(value for run in record.runs for value in secrets_of(run))])


def _secrets_in(words: Sequence[str]) -> list[str]:
    return [value for name, _, value in (word.partition("=") for word in words) if is_secret(name)]


def _long_first(values: Sequence[str]) -> list[str]:
    """Those that are long enough; one that is part of another comes after it."""
    return sorted({value for value in values if len(value) >= _SHORTEST_SECRET}, key=len, reverse=True)


def without_secrets(node: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose secret values are hidden."""
    return {
        key: without_secrets(value)
        if isinstance(value, Mapping)
        else HIDDEN
        if is_secret(str(key)) and value is not None
        else value
        for key, value in node.items()
    }


def scrub(text: str, secrets: Sequence[str]) -> str:
    """``text`` without the secrets and without passwords in addresses."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _IN_ADDRESS.sub(HIDDEN, text)


def masked_words(words: Sequence[str]) -> list[str]:
    """Overrides as they were given, the values of secret ones left out."""
    shown = []
    for word in words:
        name, sign, _ = word.partition("=")
        shown.append(f"{name}={HIDDEN}" if sign and is_secret(name) else scrub(word, ()))
    return shown


def config_section(record: RunRecord) -> Section | None:
    """The whole config, folded; the overrides stand before it."""
    if not record.config:
        return None
    secrets = secrets_of(record)
    lines = [_line(line, secrets) for line in yaml_lines(record.config, record.overrides)]
    changed = masked_words(record.words)
    told = join(["Changed: ", *_spaced(changed)]) if changed else "Nothing was changed on the command line."
    folded = details("The whole config", element("pre", *lines, class_="yaml"))
    return Section("Config", join([paragraph(told), folded]))


def yaml_lines(config: Mapping[str, Any], overrides: Mapping[str, str]) -> list[tuple[int, str, str, bool]]:
    """The config line by line: depth, key, value as YAML ("" for a mapping) and whether it was changed.

    A chosen group (``model=tiger``) marks the line of its name; a value marks its own.
    """
    return list(_yaml_lines(config, overrides, "", 0))


def _yaml_lines(
    node: Mapping[str, Any], overrides: Mapping[str, str], above: str, depth: int
) -> Iterator[tuple[int, str, str, bool]]:
    for key, value in node.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield depth, str(key), "", path in overrides
            yield from _yaml_lines(value, overrides, f"{path}.", depth + 1)
        else:
            yield (
                depth,
                str(key),
                HIDDEN if is_secret(str(key)) and value is not None else _scalar(value),
                path in overrides,
            )


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _line(line: tuple[int, str, str, bool], secrets: Sequence[str]) -> Markup:
    depth, key, value, changed = line
    shown = element("span", value, class_="hidden") if value == HIDDEN else scrub(value, secrets)
    return element("span", "  " * depth, element("span", f"{key}:", class_="key"), " " if value else None, shown,
                   class_="line changed" if changed else "line")  # fmt: skip


def _spaced(words: Sequence[str]) -> list[object]:
    return [part for word in words for part in (inline_code(word), " ")]


def _leaves(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(key), value
