"""``run`` measures what is missing, ``table`` writes the table into the README and draws the picture."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.big_catalogue.measure import FOLDER, RUNS, measure, read_results
from experiments.big_catalogue.picture import draw, table
from genrec.artifacts import write_text
from genrec.contracts import GenrecError

_TABLE = re.compile(r"(<!-- table: begin -->\n).*?(<!-- table: end -->)", re.DOTALL)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.big_catalogue", description=__doc__)
    parser.add_argument("do", choices=["run", "table"])
    parser.add_argument("--items", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], help="sizes to measure")
    parser.add_argument("--only", nargs="+", default=[], choices=[run.name for run in RUNS], help="some of the runs")
    parser.add_argument("--place", type=Path, default=Path("outputs/big_catalogue"), help="folder of data and runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every run; default: all cores")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.do == "run":
            measure(options.items, options.place.absolute(), threads=options.threads, names=options.only)
        publish()
    except GenrecError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def publish() -> None:
    """The table and the picture of what is known."""
    rows = read_results()
    if not rows:
        raise GenrecError("There are no results yet. Measure first: python -m experiments.big_catalogue run")
    page = FOLDER / "README.md"
    write_text(page, with_table(page.read_text(encoding="utf-8")))
    write_text(FOLDER / "plot.svg", draw(rows))


def with_table(text: str) -> str:
    """The README with the table of the results between its markers."""
    return _TABLE.sub(lambda found: f"{found[1]}{table(read_results())}\n{found[2]}", text)


if __name__ == "__main__":
    sys.exit(main())
