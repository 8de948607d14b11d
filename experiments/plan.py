"""What a study trains, as its ``study.yaml`` says it: read once, for its commands, its table and for rerunning it.

    question: What do messages along the graph add?
    rows: items                      # what a row of results.csv is about: items or labels
    seeds: [1, 2, 3]
    threads: 1                       # of every training
    protocols: [kept, masked]        # of rows: items; with the items of the history in the ranking and without
    words: [logger=none]             # of every command, in front of those of a run
    published: true                  # published figures of the same data sets beside ours
    runs:
      - {recipe: lightgcn_lastfm, data: lastfm, name: lightgcn}
      - {model: [deepfm, fm], data: [frappe, adult], words: [trainer=ctr], table: ranking}

A run names a ``recipe`` of conf/experiment, a ``model`` of conf/model, or lists of them, and ``data`` or a list; each
combination is a training per seed. Its ``name`` is what the table shows, ``id`` what tells it from another of the same
name. ``seeds``, ``protocols``, ``table`` and ``minutes`` (where results.csv has none) may differ from run to run, and
the run with ``baselines: true`` is the one whose data and encoder the baselines are measured with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from genrec.annotations import Count, Natural, accepts, as_yaml, checkable, describe
from genrec.artifacts import read_yaml
from genrec.contracts import GenrecError

HERE = Path(__file__).parent
PLAN_FILE = "study.yaml"
ROWS = ("items", "labels")
PROTOCOLS = {"kept": False, "masked": True}  # the items of the history in the ranking
DEFAULT_TABLE = "table"

_NAMES = str | list[str]
_SEEDS = list[Natural]
_STUDY: dict[str, Any] = {
    "question": str, "rows": str, "seeds": _SEEDS, "threads": Count, "protocols": list[str], "words": list,
    "tables": Annotated[list[str], MinLen(1)], "plot": dict, "published": bool, "runs": list[dict],
}  # fmt: skip
_RUN: dict[str, Any] = {
    "recipe": _NAMES, "model": _NAMES, "data": _NAMES, "name": str, "id": str, "words": list, "seeds": _SEEDS,
    "protocols": list[str], "table": str, "minutes": float | None, "baselines": bool,
}  # fmt: skip
_PLOT: dict[str, Any] = {"metric": str, "leave_out": list[str]}


@dataclass(frozen=True)
class Training:
    """One cell of a study, trained once per seed. ``words`` are those after ``python -m genrec.run`` but the seed."""

    name: str
    id: str
    data: str
    table: str
    words: tuple[str, ...]
    seeds: tuple[int, ...]
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    minutes: float | None = None
    baselines: bool = False


@dataclass(frozen=True)
class Plot:
    """What the picture shows: a metric, and the models that would squeeze the others together left out."""

    metric: str
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A folder with ``study.yaml``, ``results.csv`` and ``README.md``.

    ``commands`` are the words of multiruns, one per entry of ``runs``, each with the table that it belongs to.
    """

    folder: Path
    question: str
    rows: str
    tables: tuple[str, ...]
    plot: Plot
    published: bool
    threads: int
    trainings: tuple[Training, ...]
    commands: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def results(self) -> Path:
        return self.folder / "results.csv"

    @property
    def page(self) -> Path:
        return self.folder / "README.md"

    def picture(self, table: str) -> Path:
        return self.folder / ("plot.svg" if len(self.tables) == 1 else f"{table}.svg")

    def chosen(
        self, only: Sequence[str] = (), data: Sequence[str] = (), seeds: Sequence[int] = ()
    ) -> tuple[Training, ...]:
        """The trainings of these names or ids, data sets and seeds; an empty list takes all."""
        _expect("--only", only, {word for each in self.trainings for word in (each.name, each.id)})
        _expect("--data", data, {each.data for each in self.trainings})
        found = [each for each in self.trainings if not only or {each.name, each.id} & set(only)]
        found = [each for each in found if not data or each.data in data]
        if seeds:
            found = [replace(each, seeds=tuple(seed for seed in each.seeds if seed in seeds)) for each in found]
        found = [each for each in found if each.seeds]
        if not found:
            raise GenrecError(f"{self.name} has no training of these names, data and seeds. Leave one of them out.")
        return tuple(found)


def studies(root: Path = HERE) -> list[str]:
    """The names of the folders that hold a study."""
    return sorted(path.parent.name for path in root.glob(f"*/{PLAN_FILE}"))


def read_study(folder: Path) -> Study:
    """The study in ``folder``; ``GenrecError`` names what its ``study.yaml`` says wrongly."""
    path = folder / PLAN_FILE
    if not path.is_file():
        raise GenrecError(f"{folder} has no {PLAN_FILE}. Studies: {', '.join(studies(folder.parent))}.")
    plan = read_yaml(path, dict)
    _check(f"{path}:", plan, _STUDY, ("question", "rows", "seeds", "plot", "runs"))
    _check(f"{path}: plot:", plan["plot"], _PLOT, ("metric",))
    _expect(f"{path}: rows", [plan["rows"]], ROWS)
    tables = tuple(plan.get("tables", [DEFAULT_TABLE]))
    trainings, commands = [], []
    for entry in plan["runs"]:
        _check(f"{path}: runs:", entry, _RUN, ("data",))
        _expect(f"{path}: table", [entry.get("table", tables[0])], tables)
        _expect(f"{path}: protocols", entry.get("protocols", plan.get("protocols", ())), PROTOCOLS)
        trainings += _trainings(entry, plan, tables[0])
        commands.append((entry.get("table", tables[0]), _command(entry, plan)))
    _refuse_doubles(trainings, path)
    return Study(
        folder=folder,
        question=" ".join(plan["question"].split()),
        rows=plan["rows"],
        tables=tables,
        plot=Plot(plan["plot"]["metric"], tuple(plan["plot"].get("leave_out", ()))),
        published=plan.get("published", False),
        threads=plan.get("threads", 1),
        trainings=tuple(trainings),
        commands=tuple(commands),
    )


def _trainings(entry: Mapping[str, Any], plan: Mapping[str, Any], table: str) -> list[Training]:
    common = Training(
        name=entry.get("name", ""),
        id="",
        data="",
        table=entry.get("table", table),
        words=(),
        seeds=tuple(entry.get("seeds", plan["seeds"])),
        protocols=tuple(entry.get("protocols", plan.get("protocols", PROTOCOLS))),
        minutes=entry.get("minutes"),
        baselines=entry.get("baselines", False),
    )
    words = _words(entry, plan)
    group, choices = _choice(entry)
    found = []
    for chosen, data in product(choices, _listed(entry["data"])):
        name = entry.get("name", chosen)
        first = (f"{group}={chosen}", f"data={data}")
        found.append(replace(common, name=name, id=entry.get("id", name), data=data, words=(*first, *words)))
    return found


def _command(entry: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of one multirun that trains all of an entry."""
    group, choices = _choice(entry)
    seeds = ",".join(map(str, entry.get("seeds", plan["seeds"])))
    varied = [f"{group}={','.join(choices)}", f"data={','.join(_listed(entry['data']))}", f"seed={seeds}"]
    several = ["-m"] if any("," in word for word in varied) else []
    return (*several, *varied, *_words(entry, plan))


def _choice(entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The group that an entry chooses from, and what it chooses."""
    if ("recipe" in entry) == ("model" in entry):
        raise GenrecError(f"runs: {dict(entry)}: give either a recipe of conf/experiment or a model of conf/model.")
    return ("experiment", _listed(entry["recipe"])) if "recipe" in entry else ("model", _listed(entry["model"]))


def _words(entry: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[str, ...]:
    return (*_flat(plan.get("words", [])), *_flat(entry.get("words", [])))


def _flat(words: Any) -> list[str]:
    """Lists within lists, as anchors of YAML make them, in one."""
    return [word for each in words for word in _flat(each)] if isinstance(words, list) else [words]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _check(where: str, given: Mapping[str, Any], kinds: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises for keys that are unknown or missing, and for values of another kind than theirs."""
    _expect(where, map(str, given), kinds)
    missing = [name for name in needed if name not in given]
    if missing:
        raise GenrecError(f"{where} {', '.join(missing)}: missing. Give each of them.")
    for name, value in given.items():
        if not accepts(checkable(kinds[name]), value):
            raise GenrecError(f"{where} {name}={as_yaml(value)}: expected {describe(checkable(kinds[name]))}.")
    if not all(isinstance(word, str) for word in _flat(given.get("words", []))):
        raise GenrecError(f"{where} words: each is a text, such as trainer=ctr.")


def _expect(where: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    unknown = [word for word in given if word not in allowed]
    if unknown:
        raise GenrecError(f"{where} {', '.join(unknown)}: unknown. Allowed: {', '.join(sorted(allowed))}.")


def _refuse_doubles(trainings: Sequence[Training], path: Path) -> None:
    seen = set()
    for each in trainings:
        place = (each.table, each.data, each.id)
        if place in seen:
            raise GenrecError(f"{path}: two runs are called {each.id} on {each.data}. Give one of them another id.")
        seen.add(place)
