"""Trains a study anew and says which of its figures moved by more than the noise between seeds.

    python -m experiments.reproduce lastfm
    python -m experiments.reproduce lastfm --only bpr_mf lightgcn --seeds 1
    python -m experiments.reproduce ranking --data adult --quick
    make reproduce STUDY=amazon_beauty ARGS="--only rpg_beauty --seeds 1"

New results go to outputs/reproduce/STUDY: results.csv, a README.md with every figure beside the committed one, a plot.
The committed ones are replaced with ``--accept`` alone. Runs that have finished under the same code are not repeated,
killed ones are continued, and one that fails is told of while the others go on. The rule of what is noise stands in
``experiments/noise.py`` and in the report. Exit code: 0 all the same, 1 a figure moved, 2 a run failed or has no data.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from experiments.noise import MOVED, SAME, UNKNOWN, Verdict, judge
from experiments.page import in_words, minutes_of, of_table, write_page
from experiments.plan import HERE, Study, Training, read_study, studies
from experiments.plot import draw
from experiments.results import (
    LAYOUTS,
    MODEL,
    SEED,
    Group,
    Key,
    Row,
    add,
    figure,
    groups_of,
    read_results,
    shown,
    with_spread,
    write_results,
)
from experiments.study import choice_of_trainings
from experiments.training import folder_of, is_finished, rows_of, train
from genrec.artifacts import file_fingerprint, fingerprint, write_text
from genrec.contracts import GenrecError

QUICK = ("trainer.max_epochs=1",)
ALL_SAME, SOME_MOVED, SOME_FAILED = 0, 1, 2

RULE = """A figure is the same where the new mean differs from the committed one by no more than
t(.975, n - 1) s sqrt(1/n + 1/m) + .0001: `s` is the standard deviation over the n committed seeds, m counts the new
ones, and .0001 is what rounding can do. Where one seed is committed, `s` is the largest spread of another model on the
same data; where there is none the verdict is unknown. What has no seeds has no noise. One in twenty figures of a study
that is trained with new randomness would move by chance; with the same seeds, code and machine none should."""


@dataclass
class Again:
    """What was measured anew: rows, and why runs failed, by what they are."""

    rows: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """A verdict and the two groups it is about."""

    committed: Group
    new: Group
    verdict: Verdict


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def code_fingerprint(root: Path = HERE.parent) -> str:
    """A hash of what decides results: the sources of genrec and its configuration."""
    files = [*sorted(root.glob("genrec/**/*.py")), *sorted(root.glob("conf/**/*.yaml"))]
    return fingerprint({str(path.relative_to(root)): file_fingerprint(path) for path in files})


def run_all(study: Study, trainings: Sequence[Training], folder: Path, *, quick: bool = False) -> Again:
    """Trains and tests one after another; a failure is recorded and the rest goes on."""
    committed, layout = read_results(study.results), LAYOUTS[study.rows]
    runs = folder / "runs" / code_fingerprint()[:8]
    jobs = [(training, seed, folder_of(training, seed, runs)) for training in trainings for seed in training.seeds]
    expected = [minutes_of(training, committed, layout) or 0.0 for training, _, _ in jobs]
    left = [0.0 if is_finished(place) else minutes for (_, _, place), minutes in zip(jobs, expected, strict=True)]
    done = sum(is_finished(place) for _, _, place in jobs)
    say(f"{study.name}: {len(jobs)} trainings, {done} of them finished before. {_forecast(sum(left), quick)}")
    again = Again()
    for number, (training, seed, place) in enumerate(jobs):
        name = f"{training.id} on {training.data}, seed {seed}"
        to_go = "" if quick else f": {in_words(left[number])}, then {in_words(sum(left[number + 1 :]))}"
        say(f"[{number + 1}/{len(jobs)}] {name}{to_go}")
        started = time.monotonic()
        try:
            _refuse_missing_data(training)
            train(training, seed, place, folder.parent, threads=study.threads, more=QUICK if quick else ())
            rows = rows_of(training, seed, place, study.rows, threads=study.threads)
        except Exception as error:  # whatever happens to one run, the others go on
            reason = str(error) if isinstance(error, GenrecError) else f"{type(error).__name__}: {error}"
            again.failures[name] = reason
            say(f"    failed: {reason}")
            continue
        again.rows += rows
        say(
            f"    {_headline(rows, [] if quick else committed, study)}, {(time.monotonic() - started) / 60:.1f} minutes"
        )
    return again


def _forecast(minutes: float, quick: bool) -> str:
    return "One epoch of each." if quick else f"By the times on record, training takes {in_words(minutes)}."


def _headline(rows: Sequence[Row], committed: Sequence[Row], study: Study) -> str:
    """The first figures of a run beside those of the same seed."""
    layout = LAYOUTS[study.rows]
    old = {tuple(str(row[name]) for name in layout.names): row for row in committed}
    parts = []
    for row in rows:
        if str(row[SEED]) and row.get(layout.best):
            known = old.get(tuple(str(row[name]) for name in layout.names))
            was = f" (was {figure(float(known[layout.best]))})" if known else ""
            parts.append(f"{layout.metrics[layout.best]} {figure(float(row[layout.best]))}{was}")
    return "; ".join(parts)


def _refuse_missing_data(training: Training) -> None:
    path = _data_path(training.data)
    if path is not None and not Path(path).exists():
        raise GenrecError(
            f"data={training.data} is read from {path}, which is not there. Set the environment variable GENREC_DATA "
            "to the folder that holds the data sets; docs/data.md says where they come from."
        )


@cache
def _data_path(data: str) -> str | None:
    """Where a data set of conf/data is read from; None for an invented one and for lists of files."""
    from omegaconf import OmegaConf

    from genrec.config import compose_config

    config = compose_config([f"data={data}"], output_dir=Path("outputs"))
    path = OmegaConf.select(config, "data.path")
    return path if isinstance(path, str) else None


def compare(study: Study, new: Sequence[Row]) -> list[Compared]:
    """A verdict per figure that is both committed and measured anew, in the order of the committed table."""
    layout = LAYOUTS[study.rows]
    old_groups, new_groups = groups_of(read_results(study.results), layout), groups_of(new, layout)
    found = []
    for key, group in new_groups.items():
        if key not in old_groups:
            continue
        beside = [
            each for other, each in old_groups.items() if _panel(other, layout.names) == _panel(key, layout.names)
        ]
        for metric in layout.metrics:
            verdict = judge(old_groups[key], group, beside, metric)
            if verdict is not None:
                found.append(Compared(old_groups[key], group, verdict))
    return found


def _panel(key: Key, names: Sequence[str]) -> Key:
    """What of a key is common to the models that are compared with each other."""
    kept = [name for name in names if name != SEED]
    return tuple(value for name, value in zip(kept, key, strict=True) if name != MODEL)


def comparison_table(compared: Sequence[Compared], study: Study) -> str:
    """Markdown: a line per figure."""
    layout = LAYOUTS[study.rows]
    heads = [*layout.shown.values(), "metric", "committed", "seeds", "new", "seeds", "difference", "noise", "verdict"]
    lines = [f"| {' | '.join([*heads, 'equal seeds'])} |", "|---" * (len(heads) + 1) + "|"]
    for each in compared:
        lines.append(f"| {' | '.join(_cells(each, study))} |")
    return "\n".join(lines)


def _cells(each: Compared, study: Study) -> Iterator[str]:
    layout, verdict = LAYOUTS[study.rows], each.verdict
    yield from (shown(name, each.committed.key[name]) for name in layout.shown)
    yield layout.metrics[verdict.metric]
    for group in (each.committed, each.new):
        yield with_spread(group.mean(verdict.metric), group.spread(verdict.metric))
        yield str(len(group.seeds) or "")
    yield f"{'+' if verdict.difference > 0 else ''}{figure(verdict.difference)}"
    yield "" if verdict.bound is None else f"± {figure(verdict.bound)}"
    yield f"**{MOVED}**" if verdict.verdict == MOVED else verdict.verdict
    yield f"{verdict.alike} of {verdict.shared}" if verdict.shared else ""


def summary(compared: Sequence[Compared], failures: dict[str, str], *, quick: bool = False) -> str:
    """One sentence that says how it went."""
    failed = f" {len(failures)} of the runs failed." if failures else ""
    if quick:
        return f"One epoch each, so no figure is compared.{failed}"
    verdicts = [each.verdict.verdict for each in compared]
    alike = sum(each.verdict.alike == each.verdict.shared for each in compared)
    return (
        f"{len(compared)} figures: {verdicts.count(SAME)} are the same within seed noise, {verdicts.count(MOVED)} "
        f"moved, {verdicts.count(UNKNOWN)} unknown; {alike} are equal to the last digit in every seed.{failed}"
    )


def write_report(study: Study, again: Again, compared: Sequence[Compared], folder: Path, *, quick: bool) -> None:
    """results.csv, README.md and a plot per table."""
    layout = LAYOUTS[study.rows]
    write_results(again.rows, folder / "results.csv", layout)
    text = [f"# {study.name}, measured again", study.question, summary(compared, again.failures, quick=quick)]
    text += [f"Code: `{code_fingerprint()}`, {time.strftime('%Y-%m-%d %H:%M')}. Committed: `{study.results}`."]
    if not quick:
        text += [RULE, comparison_table(compared, study), *_pictures(study, again, folder)]
    if again.failures:
        text += ["## Runs that failed", "\n".join(f"- {name}: {reason}" for name, reason in again.failures.items())]
    write_text(folder / "README.md", "\n\n".join(text) + "\n")


def _pictures(study: Study, again: Again, folder: Path) -> Iterator[str]:
    """Draws what was measured anew below the committed rows, and yields the Markdown of each picture."""
    layout, committed = LAYOUTS[study.rows], read_results(study.results)
    measured = {(row["data"], row[MODEL]) for row in again.rows}
    for table in study.tables:
        old = [row for row in of_table(committed, table) if (row["data"], row[MODEL]) in measured]
        if old:
            name = study.picture(table).name
            write_text(folder / name, draw(old, layout, study.plot, again=of_table(again.rows, table)))
            yield f"![Committed and new figures]({name})"


def accept(study: Study, rows: Sequence[Row]) -> None:
    """Puts new rows in the place of the committed ones and brings the page up to date."""
    add(rows, study.results, LAYOUTS[study.rows])
    write_page(study)


def exit_code(compared: Sequence[Compared], failures: dict[str, str]) -> int:
    if failures:
        return SOME_FAILED
    return SOME_MOVED if any(each.verdict.verdict == MOVED for each in compared) else ALL_SAME


def parse(arguments: Sequence[str] | None = None, root: Path = HERE) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=studies(root), help="a folder of experiments/")
    choice_of_trainings(parser)
    parser.add_argument("--quick", action="store_true", help="one epoch of the first seed: does everything still run?")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/reproduce"), help="where runs and reports go")
    parser.add_argument("--accept", action="store_true", help="put the new results in the place of the committed ones")
    options = parser.parse_args(arguments)
    if options.quick and options.accept:
        parser.error("--quick trains for one epoch, which is nothing to --accept. Leave one of them out.")
    return options


def main(arguments: Sequence[str] | None = None, root: Path = HERE) -> int:
    options = parse(arguments, root)
    try:
        study = read_study(root / options.study)
        trainings = study.chosen(options.only, options.data, options.seeds)
    except GenrecError as error:
        say(str(error))
        return SOME_FAILED
    folder = options.outputs.absolute() / study.name
    if options.quick:
        folder /= "quick"
        trainings = tuple(replace(each, seeds=each.seeds[:1]) for each in trainings)
    again = run_all(study, trainings, folder, quick=options.quick)
    compared = [] if options.quick else compare(study, again.rows)
    write_report(study, again, compared, folder, quick=options.quick)
    if compared:
        say(f"\n{comparison_table(compared, study)}")
    say(f"\n{summary(compared, again.failures, quick=options.quick)}\nReport: {folder / 'README.md'}")
    if options.accept:
        accept(study, again.rows)
        say(f"Accepted into {study.results}.")
    return exit_code(compared, again.failures)


if __name__ == "__main__":
    sys.exit(main())
