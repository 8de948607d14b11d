"""The config of a run as YAML, what was changed on the command line marked, and nothing secret in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from genrec.masking import HIDDEN, is_secret, masked_words, scrub, secret_values
from genrec.records import RunRecord, SweepRecord
from genrec.report.html import Markup, Section, details, element, inline_code, join, paragraph


def secrets_of(record: RunRecord) -> list[str]:
    """The secret values of a run's config and overrides, to be kept out of whatever else is shown."""
    return secret_values(record.config, record.words)


def secrets_of_sweep(record: SweepRecord) -> list[str]:
    """The secret values of the command of a sweep and of its runs."""
    found = {*secret_values({}, record.command), *(value for run in record.runs for value in secrets_of(run))}
    return sorted(found, key=lambda value: (-len(value), value))


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
