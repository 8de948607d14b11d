"""Trains what a study plans, tests it, and tells the results as a page.

    python -m experiments.study lastfm run
    python -m experiments.study lastfm run --only lightgcn gat --seeds 1
    python -m experiments.study lastfm table
    python -m experiments.study ranking commands

A study is a folder beside this file; its ``study.yaml`` says what is trained (``experiments/plan.py``). Every training
is an ordinary ``python -m genrec.run`` in a folder of its own; one that has finished is not repeated, one that was
killed is continued. ``results.csv`` gets a row per training and protocol or label, and ``table`` writes the commands,
means and spreads into README.md and draws the plot. ``python -m experiments.reproduce`` trains anew and compares.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.page import by_hand, tables, write_page
from experiments.plan import HERE, read_study, studies
from experiments.results import LAYOUTS, add
from experiments.training import folder_of, rows_of, train
from genrec.contracts import GenrecError

log = logging.getLogger("genrec.experiments")


def choice_of_trainings(parser: argparse.ArgumentParser) -> None:
    """The options that choose from what a study plans."""
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the runs of these names")
    parser.add_argument("--data", nargs="+", default=[], help="on these data sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="with these seeds; default: the study's own")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=studies(), help="the folder whose results.csv and README.md are written")
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="train and test what study.yaml says")
    choice_of_trainings(run)
    run.add_argument("--outputs", type=Path, default=Path("outputs/studies"), help="where run folders are made")
    actions.add_parser("table", help="write tables, plots and commands into README.md")
    actions.add_parser("commands", help="list the commands that make all runs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    study = read_study(HERE / options.study)
    if options.action == "commands":
        sys.stdout.write("".join(f"{by_hand(words, study.threads)}\n" for _, words in study.commands))
        return 0
    try:
        if options.action == "run":
            runs_dir = options.outputs.absolute()
            for training in study.chosen(options.only, options.data, options.seeds):
                for seed in training.seeds:
                    folder = folder_of(training, seed, runs_dir / study.name)
                    log.info("%s on %s, seed %d", training.name, training.data, seed)
                    train(training, seed, folder, runs_dir, threads=study.threads)
                    rows = rows_of(training, seed, folder, study.rows, threads=study.threads)
                    add(rows, study.results, LAYOUTS[study.rows])
        write_page(study)
    except GenrecError as error:
        log.error("%s", error)
        return 2
    sys.stdout.write("\n\n".join(tables(study).values()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
