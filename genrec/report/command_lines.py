"""Command lines to paste: the best run of a sweep once more, and the rest of a sweep that was killed.

Nothing is composed here. What a sweep's YAML file set besides the search (``override /trainer: advanced``) is looked up
in the file and taken from what the run had; where that is not certain the line keeps ``sweep=NAME hydra.mode=RUN``,
which is exact as well, only longer.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from genrec.config import conf_dir
from genrec.contracts import GenrecError
from genrec.records import FINISHED, WATCHING_OPTIONS, RunRecord, SweepRecord
from genrec.report.trials import best_run

_PROGRAM = ("python", "-m", "genrec.run")
_NO_PART_OF_A_RUN = ("resume", "seeds")  # how a sweep is run, not what its runs compute
_COMPUTE_NOTHING = ("logger", "progress")
_OPTIONS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
_PLAIN = re.compile(r"[A-Za-z_/][\w./@%-]*")  # words that Hydra reads as they are
_MEANS_SOMETHING = re.compile(r"(null|true|false|inf|nan)", re.IGNORECASE)


def best_command(record: SweepRecord) -> str:
    """The line that runs the best run of a sweep alone; empty where none has finished."""
    best = best_run(record.runs, *record.objectives[0]) if record.objectives else None
    return run_command(record, best) if best is not None else ""


def run_command(record: SweepRecord, run: RunRecord) -> str:
    """The line that repeats one run of a sweep, quoted for the shell."""
    options = _options(record.command)
    words = [word for word in run.words if _name(word) not in _NO_PART_OF_A_RUN]
    chosen = [word.partition("=")[2] for word in words if _name(word) == "sweep"]
    others = [word for word in words if _name(word) != "sweep"]
    if chosen and chosen[-1] != "null":
        added = _set_by_sweep(chosen[-1], options, run, {_name(word) for word in others})
        others = [f"sweep={chosen[-1]}", "hydra.mode=RUN", *others] if added is None else [*added, *others]
    groups = [word for word in others if "." not in _name(word)]
    return shlex.join([*_PROGRAM, *options, *groups, *(word for word in others if word not in groups)])


def resume_command(record: SweepRecord) -> str:
    """The line that goes on with a sweep where it stopped; empty where it has finished or its command is unknown."""
    if record.state == FINISHED or not record.command:
        return ""
    words = [word for word in record.command if _name(word) != "resume"]
    return shlex.join([*_PROGRAM, *words, f"resume={_relative(record.folder)}"])


def sweep_command(record: SweepRecord) -> str:
    """The line that started the sweep; empty where it is unknown."""
    return shlex.join([*_PROGRAM, *record.command]) if record.command else ""


def _relative(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else folder


def _name(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _options(command: Sequence[str]) -> list[str]:
    """Where the config is read from: what every run of the sweep needs as well."""
    kept = []
    for index, word in enumerate(command):
        if word in _OPTIONS:
            kept += [word, *command[index + 1 : index + 2]]
        elif word.partition("=")[0] in _OPTIONS:
            kept.append(word)
    return kept


def _set_by_sweep(name: str, options: Sequence[str], run: RunRecord, given: set[str]) -> list[str] | None:
    """What the file of a sweep sets besides its search, as overrides; None where that cannot be told."""
    file = _sweep_file(name, options)
    if file is None:
        return None
    words = []
    for group, option in _choices(file.get("defaults") or []):
        if group is None:
            return None
        option = run.run.get("choices", {}).get(group, option)
        if not group.startswith("hydra/") and group not in given and not _only_watches(group, option):
            words.append(f"{group}={_in_hydra(option)}")
    for key in _leaves({name: node for name, node in file.items() if name not in ("defaults", "hydra")}):
        group, _, below = key.partition(".")
        if key not in given and not _only_watches(group, below.partition(".")[0]):
            found, value = _look_up(run.config, key)
            if not found:
                return None
            words.append(f"{key}={_in_hydra(value)}")
    return words


def _only_watches(group: str, name: Any) -> bool:
    """Whether an option, or an entry, of a group changes nothing of what a run computes."""
    return group in _COMPUTE_NOTHING or (group == "callbacks" and str(name) in WATCHING_OPTIONS)


def _sweep_file(name: str, options: Sequence[str]) -> dict[str, Any] | None:
    import yaml

    for folder in [*_config_dirs(options), *_own_dir()]:
        path = folder / "sweep" / f"{name}.yaml"
        if path.is_file():
            try:
                return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            except yaml.YAMLError:
                return None
    return None


def _config_dirs(options: Sequence[str]) -> list[Path]:
    words = " ".join(options).replace("=", " ").split(" ")
    return [Path(value) for word, value in pairwise(words) if word in ("--config-dir", "-cd")]


def _own_dir() -> list[Path]:
    try:
        return [conf_dir()]
    except GenrecError:
        return []


def _choices(defaults: Sequence[Any]) -> Iterator[tuple[str | None, Any]]:
    """``(group, option)`` of each entry ``override /group: option``; the group is None where an entry is something
    else."""
    for entry in defaults:
        if entry == "_self_":
            continue
        if not isinstance(entry, Mapping):
            yield None, None
            continue
        for key, option in entry.items():
            match = re.fullmatch(r"override\s+/?(\S+)", str(key))
            yield (match[1] if match and option is not None else None), option


def _leaves(node: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _look_up(config: Any, key: str) -> tuple[bool, Any]:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return False, None
        config = config[part]
    return True, config


def _in_hydra(value: Any) -> str:
    """A plain value as Hydra's override grammar writes it."""
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_in_hydra, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_in_hydra(entry)}" for key, entry in value.items()) + "}"
    if _PLAIN.fullmatch(value) and not _MEANS_SOMETHING.fullmatch(value):
        return value
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value)
    return f'"{escaped}"'
