"""Which runs are meant: the words of ``ls`` and ``clean`` as a selection, and the runs below a folder that it chooses.

A condition compares by value: ``optimizer.lr=1e-3`` finds 0.001, whether it was given on the command line or is what
the resolved config says.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from genrec.contracts import GenrecError
from genrec.records import RUNNING, STATES, RunRecord, find_runs, is_sweep
from genrec.report.trials import objective_value

log = logging.getLogger("genrec.report")

CONDITION = re.compile(r"(?P<key>[\w@/.+~-]+?)(?P<sign><=|>=|!=|=|<|>)(?P<value>.*)", re.DOTALL)
SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
MAX_VALUES = 8  # that are named where a filter finds nothing
MAX_KEYS = 5

Value = Any  # a number, a truth, a text, None, or a tuple of such


@dataclass(frozen=True)
class Condition:
    """One filter: a key, a sign and the values of which any may hold."""

    key: str
    sign: str
    values: tuple[Value, ...]
    text: str

    def holds(self, run: RunRecord) -> bool:
        """Whether the run fulfils it; a run that does not know the key fulfils none."""
        known, value = value_of(run, self.key)
        if not known:
            return False
        if self.sign == "=":
            return any(_equal(value, wanted) for wanted in self.values)
        if self.sign == "!=":
            return not any(_equal(value, wanted) for wanted in self.values)
        return _ordered(value, self.sign, self.values[0])


@dataclass(frozen=True)
class Selection:
    """What is asked for: words to be found in the folder or the overrides, states, times (seconds since 1970), a sweep
    and conditions. An empty one chooses every run."""

    words: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    since: float | None = None
    before: float | None = None
    sweep: Path | None = None
    conditions: tuple[Condition, ...] = ()

    def tests(self) -> list[tuple[str, Callable[[RunRecord], bool]]]:
        """Its parts by the words that a person gave, the quick ones first."""
        parts: list[tuple[str, Callable[[RunRecord], bool]]] = []
        if self.states:
            parts.append((f"state={','.join(self.states)}", lambda run: run.state in self.states))
        if self.since is not None:
            parts.append(("since", lambda run: run.started >= (self.since or 0.0)))
        if self.before is not None:
            parts.append(("before", lambda run: run.started < (self.before or 0.0)))
        if self.sweep is not None:
            parts.append((f"sweep={self.sweep}", lambda run: run.folder.parent == self.sweep))
        parts += [(repr(word), lambda run, word=word: _mentions(run, word)) for word in self.words]
        parts += [(condition.text, condition.holds) for condition in self.conditions]
        return parts

    def chooses(self, run: RunRecord) -> bool:
        return all(holds(run) for _, holds in self.tests())


def runs_below(root: Path) -> list[RunRecord]:
    """Every run below ``root``, the newest first; none in hidden folders, which a clean that was interrupted leaves."""
    if not root.is_dir():
        raise GenrecError(
            f"runs_dir={root}: there is no such folder. Name the one that holds the runs, runs_dir=FOLDER."
        )
    found = [mended(run) for run in find_runs(root) if not _is_hidden(run.folder.relative_to(root))]
    return sorted(found, key=lambda run: (run.started, _natural(run.folder)), reverse=True)


def mended(run: RunRecord) -> RunRecord:
    """The run, a broken file of it taken for a missing one: the log tells of it."""
    parts: dict[str, type] = {"overrides": dict, "final": dict, "epochs": list, "seconds": dict}
    if run.state == RUNNING or not {"model", "data"} <= run.run.keys():  # else it is read where a filter asks for it
        parts["config"] = dict
    for name, kind in parts.items():
        try:
            if not isinstance(getattr(run, name), kind):
                raise GenrecError(f"they are no {kind.__name__}.")
        except (GenrecError, OSError, AttributeError, TypeError, ValueError) as error:
            log.warning("%s is read without its %s: %s", run.folder, name, " ".join(str(error).split()))
            vars(run)[name] = kind()  # where the cached property keeps it
    return run


def select(runs: Iterable[RunRecord], selection: Selection) -> list[RunRecord]:
    """Those chosen, in the order given; a run with a broken file is told of in the log and left out."""
    return [run for run in runs if _guarded(run, selection.chooses)]


def parse_selection(words: Sequence[str], *, runs_dir: Path, now: float | None = None) -> Selection:
    """The words of a command line that filter; ``now`` in seconds since 1970."""
    now = time.time() if now is None else now
    given: dict[str, Any] = {}
    free, conditions = [], []
    for word in words:
        found = CONDITION.fullmatch(word)
        if found is None:
            free.append(word)
            continue
        key, sign, value = found["key"], found["sign"], found["value"].strip()
        if value == "":
            raise GenrecError(f"{word!r} needs a value: {key}{sign}...")
        if key == "state" and sign == "=":
            given["states"] = _states(value)
        elif key in ("since", "before") and sign == "=":
            given[key] = _moment(key, value, now)
        elif key == "sweep" and sign == "=" and (folder := _sweep(value, runs_dir)) is not None:
            given["sweep"] = folder
        else:
            conditions.append(_condition(word, key, sign, value))
    return Selection(words=tuple(free), conditions=tuple(conditions), **given)


def check_keys(runs: Sequence[RunRecord], keys: Iterable[str], options: Sequence[str] = ()) -> None:
    """``GenrecError`` for a key that no run knows, with the nearest right one."""
    for key in keys:
        if runs and not any(_guarded(run, lambda run, key=key: value_of(run, key)[0]) for run in runs):
            known = [*options, *dict.fromkeys(name for run in runs for name in _keys(run))]
            raise GenrecError(f"No run knows the key {key!r}.{_near(key, known)}")


def why_nothing(runs: Sequence[RunRecord], selection: Selection, root: Path) -> str:
    """What there is instead, where a selection finds none of ``runs``."""
    if not runs:
        return f"No runs below {root}/ yet. Start one: python -m genrec.run"
    alone = [(text, sum(_guarded(run, holds) for run in runs)) for text, holds in selection.tests()]
    barren = [text for text, count in alone if not count]
    if not barren:
        each = ", ".join(f"{text}: {count}" for text, count in alone)
        return f"None of the {len(runs)} runs below {root}/ fulfils everything at once; alone, {each}."
    parts = [f"None of the {len(runs)} runs below {root}/ fulfils {' nor '.join(barren)}."]
    if selection.states:
        parts.append(_there_is("state", (run.state for run in runs)))
    for condition in selection.conditions:
        if condition.text in barren:
            values = [value for run in runs if (known := value_of(run, condition.key))[0] for value in [known[1]]]
            parts.append(_there_is(condition.key, map(show, values)))
    return " ".join(parts)


def value_of(run: RunRecord, key: str) -> tuple[bool, Value]:
    """Whether a run knows a key, and the value: what was changed, a choice of a group, a metric, the resolved config.

    The config is looked at last: reading it takes longer than everything else together.
    """
    if key in ("model", "data"):
        return True, getattr(run, key)
    if key in ("state", "monitor", "host"):
        return True, run.state if key == "state" else run.run.get(key)
    if key in run.overrides and "$" not in run.overrides[key]:
        return True, parse_value(run.overrides[key])
    choices = run.run.get("choices") or {}
    if key in choices:
        return True, parse_value(choices[key]) if isinstance(choices[key], str) else choices[key]
    if "/" in key:
        value = metric_of(run, key)
        return value is not None, value
    return _in_config(run.config, key)


def metric_of(run: RunRecord, name: str) -> float | None:
    """A final metric or, of a run without, the best of its epochs; None for a failed run and where there is none."""
    return objective_value(run, name, run.direction if name == run.monitor else None)


def sweep_of(run: RunRecord) -> Path | None:
    """The folder of the sweep that a run belongs to."""
    parent = run.folder.parent
    return parent if (parent / "sweep.json").is_file() or (run.folder.name.isdecimal() and is_sweep(parent)) else None


def parse_value(text: str) -> Value:
    """A word as a value: a number, true, false, null, a list in brackets as a tuple, or the text without quotes."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return tuple(parse_value(part) for part in split_commas(text[1:-1]))
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("null", "none", "~"):
        return None
    if re.fullmatch(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)", text):
        return float(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def split_commas(text: str) -> list[str]:
    """The parts between commas that stand in no bracket: ``a,[1,2]`` has two."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def show(value: Any) -> str:
    """A value as a person would type it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return f"[{','.join(show(part) for part in value)}]"
    return str(value.get("_target_", "{...}")) if isinstance(value, Mapping) else str(value)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The name that was probably meant: one that ends in the word (``lr``: ``optimizer.lr``), or one spelled alike."""
    ending = [name for name in known if name.endswith((f".{word}", f"/{word}"))]
    alike = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return alike[0] if alike else next(iter(ending), None)


def _near(key: str, known: Sequence[str]) -> str:
    near = nearest(key, known)
    ending = [name for name in dict.fromkeys(known) if name.endswith(f".{key}")]
    if len(ending) > 1:
        return f" Did you mean one of {', '.join(ending[:MAX_KEYS])}?"
    return f" Did you mean {near}?" if near else " A key is one of the config, such as optimizer.lr, or a metric."


def _condition(text: str, key: str, sign: str, value: str) -> Condition:
    values = tuple(parse_value(part) for part in (split_commas(value) if sign in ("=", "!=") else [value]))
    if sign not in ("=", "!=") and not _is_number(values[0]):
        raise GenrecError(f"{text}: {sign} compares numbers, so give one, for example '{key}{sign}0.001'.")
    return Condition(key.lstrip("+~"), sign, values, text)


def _states(text: str) -> tuple[str, ...]:
    states = tuple(split_commas(text))
    for state in states:
        if state not in STATES:
            near = difflib.get_close_matches(state, STATES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise GenrecError(f"state={text}: {state!r} is no state.{hint} The states are {', '.join(STATES)}.")
    return states


def _moment(key: str, text: str, now: float) -> float:
    """``7d`` before now, or a date."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if ago:
        return now - float(ago[1]) * SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise GenrecError(
            f"{key}={text}: give an age such as 30m, 12h, 7d or 2w, or a date such as 2026-11-20."
        ) from None


def _sweep(text: str, runs_dir: Path) -> Path | None:
    """The folder that is named, as the runs' own paths begin; None where it names none, but may be a choice."""
    for folder in (Path(text), runs_dir / text):
        if folder.is_dir():
            if not is_sweep(folder):
                raise GenrecError(
                    f"sweep={text}: {folder} is not the folder of a sweep. They are below {runs_dir}/multirun/."
                )
            return _spelt_like(folder, runs_dir)
    if "/" in text:
        raise GenrecError(f"sweep={text}: there is no such folder. Sweeps are below {runs_dir}/multirun/.")
    return None


def _spelt_like(folder: Path, root: Path) -> Path:
    """The same folder with ``root`` in front, however it was written, so that parents of runs compare equal to it."""
    absolute, below = folder.resolve(), root.resolve()
    return root / absolute.relative_to(below) if absolute.is_relative_to(below) else folder


def _mentions(run: RunRecord, word: str) -> bool:
    word = word.lower()
    return word in str(run.folder).lower() or any(
        word in f"{key}={value}".lower() for key, value in run.overrides.items()
    )


def _guarded(run: RunRecord, ask: Callable[[RunRecord], Any]) -> bool:
    try:
        return bool(ask(run))
    except (GenrecError, OSError, AttributeError, TypeError, ValueError) as error:
        log.warning("%s is left out, a file in it is broken: %s", run.folder, error)
        return False


def _equal(value: Any, wanted: Value) -> bool:
    value = _plain(value)
    if _is_number(value) and _is_number(wanted):
        return math.isclose(value, wanted, rel_tol=1e-9)
    return type(value) is type(wanted) and value == wanted


def _ordered(value: Any, sign: str, wanted: Any) -> bool:
    value = _plain(value)
    if not _is_number(value):
        return False
    return {"<": value < wanted, "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted}[sign]


def _plain(value: Any) -> Any:
    """A value of the config as ``parse_value`` makes them of words."""
    if isinstance(value, str):
        return parse_value(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(part) for part in value)
    return float(value) if _is_number(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_config(config: Mapping[str, Any], key: str) -> tuple[bool, Value]:
    node: Any = config
    for part in key.split("."):
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return False, None
    if isinstance(node, Mapping) and "_target_" in node:  # optimizer=adam of a run that tells no choices
        return True, str(node["_target_"]).rsplit(".", 2)[-2:][0]
    return True, node


def _keys(run: RunRecord) -> Iterator[str]:
    """Every key that ``value_of`` knows of a run."""
    yield from ("model", "data", "state", "monitor", "host", *run.overrides, *(run.run.get("choices") or {}))
    yield from run.final
    yield from (name for row in run.epochs[-1:] for name in row)
    yield from _config_keys(run.config)


def _config_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _config_keys(value, f"{prefix}{name}.")


def _there_is(key: str, values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    listed = ", ".join(f"{value} ({count})" for value, count in counts[:MAX_VALUES])
    more = f" and {len(counts) - MAX_VALUES} more" if len(counts) > MAX_VALUES else ""
    return f"There is {key}={listed}{more}."


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _natural(folder: Path) -> list[tuple[int, str]]:
    """Job 10 after job 9."""
    return [(int(part) if part.isdecimal() else -1, part) for part in folder.parts]
