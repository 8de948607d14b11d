"""What is compared: runs, runs of several seeds, or a baseline evaluated in a run; and whether that is fair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genrec.contracts import GenrecError
from genrec.records import (
    FAILED,
    FINISHED,
    KILLED,
    ROWS_FILE,
    RUNNING,
    USERS_FILE,
    RunRecord,
    deciding_callbacks,
    is_run,
    is_sweep,
    read_run,
    read_sweep,
)  # fmt: skip

SEED = "seed"
ABSENT = "-"  # in place of the value of a key that a config does not have
# What computes nothing, and what the root config repeats for a node.
_VOLATILE = (
    "output_dir", "runs_dir", "cache_dir", "resume", "seeds", "logger", "progress", "data_root", "sweep",
    "baselines", "data.split", "data.cache_dir", "trainer.k_values", "trainer.filter_seen",
)  # fmt: skip
_OF_A_BASELINE = ("model", "data", "split", "filter_seen", "k_values")  # what of the config a baseline depends on
_KEYS_IN_A_NAME = 2
_KINDS = {"users": USERS_FILE, "rows": ROWS_FILE}
_NO_EVIDENCE = "It was made by an older genrec, or trains nothing that is tested. Run it again."


@dataclass(frozen=True)
class Side:
    """One of the things compared: finished runs that differ in nothing but their seed, or a baseline of theirs.

    ``given`` is how the user named it, ``name`` a short name that no other side has.
    """

    given: str
    name: str
    runs: tuple[RunRecord, ...]
    baseline: str | None = None
    left_out: int = 0  # runs that did not finish

    @property
    def run(self) -> RunRecord:
        return self.runs[0]

    @property
    def folder(self) -> Path:
        """That of the run, or of the sweep whose runs these are."""
        return self.run.folder.parent if len(self.runs) > 1 else self.run.folder

    @property
    def seeds(self) -> list[Any]:
        return [run.config.get(SEED) for run in self.runs]

    @property
    def is_trained(self) -> bool:
        """Whether a seed decides what its weights are; baselines and models without parameters have none."""
        return self.baseline is None and self.run.resources.get("parameters") != 0

    @property
    def settings(self) -> dict[str, Any]:
        """The config with flat names, ``{"optimizer.lr": 0.001}``, less what computes nothing; seeds as one text."""
        config = self.run.config
        if self.baseline is not None:
            own = (config.get("baselines") or {}).get(self.baseline)
            config = {**{key: config[key] for key in _OF_A_BASELINE if key in config}, "model": own or {}}
        flat = _flat(config)
        if len(self.runs) > 1 and SEED in flat:
            flat[SEED] = ", ".join(str(seed) for seed in self.seeds)
        return flat


def costs(sides: Sequence[Side]) -> dict[str, list[float | None]]:
    """What each side took, by name: parameters, seconds and bytes, means over its runs; None where it is not known, as
    of a baseline, whose run measured that of its model."""
    sources: dict[str, Callable[[RunRecord], float | None]] = {
        "parameters": lambda run: run.resources.get("parameters"),
        "epochs": lambda run: len(run.epochs) or None,
        "seconds to train": lambda run: run.seconds.get("fit"),
        "seconds in all": lambda run: run.seconds.get("total"),
        "peak memory": lambda run: run.resources.get("peak_resident_bytes"),
        "peak memory of the GPU": lambda run: run.resources.get("peak_device_bytes"),
    }
    rows = {name: [_mean(side, source) for side in sides] for name, source in sources.items()}
    return {name: row for name, row in rows.items() if any(value for value in row)}


def _mean(side: Side, source: Callable[[RunRecord], float | None]) -> float | None:
    found = [value for run in side.runs if not side.baseline and (value := source(run)) is not None]
    return sum(found) / len(found) if found else None


def read_sides(given: Sequence[str], runs_dir: Path = Path("outputs")) -> list[Side]:
    """The sides in the order given; a GenrecError says which of them cannot be compared, and why."""
    sides = [_read(text, runs_dir) for text in given]
    names = _unique([side.name for side in sides], sides)
    sides = [replace(side, name=name) for side, name in zip(sides, names, strict=True)]
    _check_sides(sides)
    return sides


def changed_settings(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """The config keys whose values differ, with the value of each side; beside a baseline, those it has too."""
    rows = differing([side.settings for side in sides])
    if any(side.baseline for side in sides):
        rows = {name: row for name, row in rows.items() if name.partition(".")[0] in _OF_A_BASELINE}
    return rows


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The names whose values are not the same everywhere, with the value of each; ``ABSENT`` where there is none."""
    names = dict.fromkeys(name for flat in settings for name in flat)
    rows = {name: [flat.get(name, ABSENT) for flat in settings] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as ``("optimizer.lr", 0.001)``; lists stay whole."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """With flat names, less what computes nothing."""
    callbacks = {f"callbacks.{name}": node for name, node in deciding_callbacks(config.get("callbacks")).items()}
    others = {key: node for key, node in config.items() if key != "callbacks"}
    return {key: value for key, value in flattened({**others, **callbacks}) if not _is_under(key, _VOLATILE)}


def _read(given: str, runs_dir: Path) -> Side:
    place, _, chosen = given.rpartition(":") if ":" in given and not Path(given).exists() else (given, "", "")
    folder = _folder(place, runs_dir)
    if is_run(folder):
        if "=" in chosen:
            raise GenrecError(f"{given}: {folder} is a single run; {chosen} chooses among the runs of a sweep.")
        runs, left_out = [read_run(folder)], 0
    elif is_sweep(folder):
        runs, left_out = _runs_of_sweep(folder, chosen if "=" in chosen else "")
    else:
        raise GenrecError(
            f"{given} is neither a run folder nor that of a sweep. Give a folder below outputs/, and for a baseline "
            "that was evaluated in it FOLDER:NAME, such as outputs/x:item_knn; python -m genrec.report ls lists runs."
        )
    for run in runs:
        _check_finished(run)
    baseline = chosen if chosen and "=" not in chosen else None
    return Side(given, baseline or runs[0].model, tuple(runs), baseline, left_out)


def _folder(place: str, runs_dir: Path) -> Path:
    from genrec.report.command import LATEST, find_folder

    if place == LATEST:
        return find_folder(place, runs_dir)
    return next((folder for folder in (Path(place), runs_dir / place) if folder.is_dir()), Path(place))


def _runs_of_sweep(folder: Path, chosen: str) -> tuple[list[RunRecord], int]:
    """The finished runs of a sweep that ``chosen`` (``model=tiger,optimizer.lr=1e-3``) names, and how many are not."""
    wanted = dict(part.strip().split("=", 1) for part in chosen.split(",") if "=" in part)
    runs = [run for run in read_sweep(folder).runs if wanted.items() <= run.overrides.items()]
    if not runs:
        raise GenrecError(f"No run of {folder} has {chosen}. Spell it as in the overrides.yaml of its runs.")
    finished = [run for run in runs if run.state == FINISHED]
    if not finished:
        raise GenrecError(f"No run of {folder} has finished. Continue it, or compare another.")
    others = [name for name in _differing_settings(finished) if name != SEED]
    if others:
        example = f"{others[0]}={finished[0].overrides.get(others[0], '...')}"
        raise GenrecError(
            f"The runs of {folder} differ in {_listed(others)}, not in their seed alone, so they have no mean. "
            f"Choose with {folder}:{example}, or give one of them, {finished[0].folder}."
        )
    return finished, len(runs) - len(finished)


def _differing_settings(runs: Sequence[RunRecord]) -> list[str]:
    return list(differing([_flat(run.config) for run in runs]))


def _check_finished(run: RunRecord) -> None:
    advice = {
        RUNNING: "Wait for it.",
        KILLED: "Continue it: repeat its command with resume=auto.",
        FAILED: "Its run.log says why.",
    }
    if run.state in advice:
        raise GenrecError(f"{run.folder} has not finished (its state is {run.state}). {advice[run.state]}")


def _check_sides(sides: Sequence[Side]) -> None:
    """Refuses what would compare two experiments with different questions."""
    kinds = {side.given: kind_of(side) for side in sides}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{given} {'predicts labels' if kind == 'rows' else 'recommends items'}" for given, kind in kinds.items())  # noqa: E501 # fmt: skip
        raise GenrecError(f"These runs have no metric in common: {told}. Compare runs of one kind.")
    runs = [(side.given, run) for side in sides for run in side.runs]
    first, reference = runs[0]
    for given, run in runs[1:]:
        if kinds[given] == "users":
            _check_data(first, reference, given, run)
            _check_same(first, reference, given, run, "filter_seen", "whether items of the history may be recommended")
        _check_same(first, reference, given, run, "split", "which part of the data is tested")


def kind_of(side: Side) -> str:
    """ "users" of a retrieval run, "rows" of a ranking run; a GenrecError where neither was written."""
    kinds = {kind for run in side.runs for kind in _KINDS if (run.folder / _KINDS[kind]).exists()}
    if len(kinds) != 1:
        raise GenrecError(f"{side.run.folder} holds no results per user or row to compare. {_NO_EVIDENCE}")
    return kinds.pop()


def _check_data(first: str, reference: RunRecord, given: str, run: RunRecord) -> None:
    ours, theirs = (record.environment.get("data_fingerprint") for record in (reference, run))
    if ours == theirs:
        return
    names = f"{reference.data} and {run.data}" if reference.data != run.data else f"{run.data}, of different content"
    raise GenrecError(
        f"{first} and {given} were tested on different data ({names}; fingerprints {ours} and {theirs}), so their "
        "users cannot be paired. Run both with the same data= and its options."
    )


def _check_same(first: str, reference: RunRecord, given: str, run: RunRecord, key: str, meaning: str) -> None:
    ours, theirs = reference.config.get(key), run.config.get(key)
    if ours == theirs:
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        rows = differing([dict(flattened(ours)), dict(flattened(theirs))])
        told = "; ".join(f"{key}.{name} is {a} and {b}" for name, (a, b) in rows.items())
    else:
        told = f"{key} is {ours} and {theirs}"
    raise GenrecError(
        f"{first} and {given} were not tested alike: {told} ({meaning}). Run one of them again with the {key} of the "
        "other."
    )


def _unique(names: Sequence[str], sides: Sequence[Side]) -> list[str]:
    """Names that no two sides share: what was changed is added where models are the same, else the folder."""
    if len(set(names)) == len(names):
        return list(names)
    alike = [side for side, name in zip(sides, names, strict=True) if names.count(name) > 1]
    changed = _changed_by_hand(alike)
    told = {side.given: [f"{key.rpartition('.')[2]}={row[place]}" for key, row in changed.items()]
            for place, side in enumerate(alike)}  # fmt: skip
    longer = [" ".join([name, *told.get(side.given, [])]) for side, name in zip(sides, names, strict=True)]
    if len(set(longer)) == len(longer):
        return longer
    folders = [f"{name} {side.folder.name}" for name, side in zip(names, sides, strict=True)]
    if len(set(folders)) == len(folders):
        return folders
    return [f"{name} ({chr(ord('A') + place)})" for place, name in enumerate(names)]


def _changed_by_hand(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """Of what differs, that which somebody wrote on a command line: the first two keys or choices of a group."""
    named = dict.fromkeys(key for side in sides for run in side.runs for key in run.overrides)
    choices = differing([dict(side.run.run.get("choices") or {}) for side in sides])
    rows = {**differing([side.settings for side in sides]), **choices}
    found = {key: rows[key] for key in named if key in rows and not _is_under(key, ("model", SEED, *_VOLATILE))}
    return dict(list(found.items())[:_KEYS_IN_A_NAME])


def _is_under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
