"""``make bench``: every section in turn, each row printed as soon as it is known, results written after each task."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.speed import table
from experiments.speed.machine import Machine, measure_machine
from experiments.speed.measure import Referee, Rules
from experiments.speed.setting import Section, Setting

SECTIONS = {
    "startup": "experiments.speed.startup",
    "trie": "experiments.speed.trie",
    "evaluation": "experiments.speed.evaluation",
    "tokenizers": "experiments.speed.tokenizers",
    "decoding": "experiments.speed.decoding",
    "sasrec": "experiments.speed.training_sasrec",
    "graphs": "experiments.speed.graphs",
    "ranking": "experiments.speed.ranking",
    "training": "experiments.speed.training_tiger",
}
_FOLDER = Path(__file__).parent


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS], help="sections to measure; default: all of them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every contender; default: all cores")
    parser.add_argument("--quick", action="store_true", help="a rough answer in minutes; not for the README")
    parser.add_argument("--rounds", type=int, help="times every contender is timed; default 3, with --quick 1")
    parser.add_argument("--allow-busy", action="store_true", help="never run a turn again; mark disturbed rows")
    parser.add_argument("--resume", action="store_true", help="leave out tasks that are in the results already")
    parser.add_argument("--compile", action="store_true", help="run our training through torch.compile")
    parser.add_argument("--profile", action="store_true", help="show where our own time goes instead")
    parser.add_argument("--output", type=Path, help="folder of the results; default: this study's")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error("--threads must be 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # for everyone, as genrec's trainers do it
    machine = measure_machine(seconds=0.3 if options.quick else 2.0)
    _say(machine.describe())
    output = options.output or (_FOLDER / "quick" if options.quick else _FOLDER)
    with tempfile.TemporaryDirectory(prefix="genrec-bench-") as scratch:
        setting = Setting(machine, Path(scratch), quick=options.quick, compile=options.compile)
        if options.profile:
            return _profile(setting)
        wrong = _measure(setting, options, output)
    if wrong:
        _say(f"{wrong} row(s) were disturbed by other processes (marked busy) or are missing: --resume measures them.")
    return 1 if wrong and not options.allow_busy else 0


def _measure(setting: Setting, options: argparse.Namespace, output: Path) -> int:
    """Runs the chosen sections; returns the number of disturbed rows and of sections that ended early."""
    rounds = options.rounds or (1 if options.quick else 3)
    rules = Rules(rounds=rounds, min_seconds=0.3 if options.quick else 1.0, allow_busy=options.allow_busy)
    referee = Referee(rules, setting.machine.cores)
    old, known_machine = table.load(output)
    rows = old if options.only or options.resume else []
    if options.resume and known_machine and known_machine.get("cpu") != setting.machine.cpu:
        raise SystemExit("The results there are of another machine; run without --resume or with another --output.")
    busy = {row.task for row in old if row.busy}
    done = {row.task for row in old} - busy if options.resume else set()
    wrong = 0
    for name in options.only or SECTIONS:
        section: Section = importlib.import_module(SECTIONS[name]).tasks
        begun = time.monotonic()
        met: set[str] = set()
        try:
            for task in section(setting):
                met.add(task.name)
                if task.name in done:
                    continue
                _say(f"\n{task.name}")
                measured = referee.run(name, task)
                for row in measured:
                    _say(row.line())
                wrong += sum(row.busy for row in measured)
                rows = table.merge(rows, measured)
                table.save(rows, setting.machine.as_dict(), output)
            rows = [row for row in rows if row.section != name or row.task in met]  # of tasks that are no more
            table.save(rows, setting.machine.as_dict(), output)
        except Exception:  # the other sections may well work
            logging.getLogger("experiments.speed").exception("section %s ended early", name)
            wrong += 1
        _say(f"  ({name}: {time.monotonic() - begun:.0f} s, {referee.retries} turns run again so far)")
    _publish(rows, setting.machine, output)
    return wrong


def _publish(rows: list[table.Row], machine: Machine, output: Path) -> None:
    """The table into the README beside the results (where it has a place for it), and the chart."""
    table.write_into(output / "README.md", table.markdown(rows, machine.describe()))
    try:
        from experiments.speed.chart import draw

        draw(rows, output / "ratios.svg")
    except ImportError as error:
        _say(f"no chart: {error}")


def _profile(setting: Setting) -> int:
    from experiments.speed import profiling

    found = []
    for name, parts in profiling.reports(setting):
        _say(f"{name}: {profiling.line(parts)}")
        found.append((name, parts))
    table.write_into(_FOLDER / "README.md", profiling.markdown(found), (profiling.BEGIN, profiling.END))
    return 0


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="  %(message)s")
    for name in ("transformers", "pytorch_lightning", "lightning_fabric", "genrec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _quiet()  # here, so that calling main() from a test leaves the process as it was
    sys.exit(main())
