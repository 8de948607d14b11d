"""``python -m genrec.report compare A B [C ...]``: is B better than A, on the same test users?"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from genrec.contracts import GenrecError
from genrec.report.arguments import take_options
from genrec.report.bootstrap import CONFIDENCE, RESAMPLES
from genrec.report.comparison import ROW_RESAMPLES, Comparison, Options, compare
from genrec.report.sides import SEED, Side

HELP = f"""genrec.report compare: is B better than A, on the same test users?

  python -m genrec.report compare outputs/a outputs/b            two runs; the first is the reference
  python -m genrec.report compare outputs/a outputs/b outputs/c  several, each against the first
  python -m genrec.report compare outputs/b:item_knn outputs/b   a baseline that was evaluated in a run
  python -m genrec.report compare outputs/multirun/x outputs/multirun/y    runs of several seeds (seeds=5), their mean
  python -m genrec.report compare outputs/multirun/x:model=sasrec outputs/multirun/x:model=tiger    some runs of a sweep

Keys
  metrics=[recall@10,ndcg@10]   which; default: recall and NDCG, of predictions AUC and losses
  resamples={RESAMPLES}   how often the test users are drawn again; of rows by default at most {ROW_RESAMPLES[1]:,}
  confidence={CONFIDENCE}   of the intervals
  correction=none   holm: p-values and verdicts allow for the number of comparisons
  seed=0            of the resamples
  output=FILE.html  the page; default: below outputs/reports/
  runs_dir=outputs  where latest looks, and where folders are that are not found from here
"""

VALUED = ("metrics", "resamples", "confidence", "correction", "seed", "output", "runs_dir")
CORRECTIONS = ("none", "holm")
FEWEST_RESAMPLES = 100


def compare_command(arguments: Sequence[str]) -> int:
    """The words after ``python -m genrec.report compare``: prints tables and writes the page; returns the exit code 0.

    A mistake of the user is a ``GenrecError``, which ``python -m genrec.report`` tells in one sentence.
    """
    from rich.console import Console

    from genrec.report.compare_page import write_compare_page
    from genrec.report.compare_tables import print_comparison

    if {"-h", "--help", "help"} & set(arguments):
        sys.stdout.write(HELP)
        return 0
    words, given = take_options(arguments, VALUED)
    options = parse_options(words)
    output = Path(words["output"]).expanduser() if "output" in words else None
    if output is not None and output.suffix != ".html":
        raise GenrecError(f"output={output}: the name must end in .html.")
    console = Console() if sys.stdout.isatty() else Console(width=140)
    with console.status("resampling"):
        found = compare(given, options, runs_dir=Path(words.get("runs_dir", "outputs")))
    path = write_compare_page(found, output or default_output(found))
    print_comparison(found, console)
    console.print(f"page: {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def parse_options(words: Mapping[str, str]) -> Options:
    """The keys of the command line, checked."""
    correction = words.get("correction", "none")
    if correction not in CORRECTIONS:
        raise GenrecError(f"correction={correction}: the choices are {' and '.join(CORRECTIONS)}.")
    return Options(
        metrics=_metrics(words.get("metrics", "")),
        resamples=_whole(words, "resamples", least=FEWEST_RESAMPLES) if "resamples" in words else None,
        confidence=_confidence(words.get("confidence", str(CONFIDENCE))),
        correction=correction,
        seed=_whole(words, SEED, least=0) if SEED in words else 0,
    )


def default_output(found: Comparison) -> Path:
    """``outputs/reports/compare_A_B.html``: below the folder of the runs of B, named after both."""
    root = Path(found.sides[-1].run.config.get("runs_dir") or "outputs")
    names = [_file_name(side) for side in found.sides]
    return root / "reports" / f"compare_{'_'.join(names)[:150]}.html"


def _file_name(side: Side) -> str:
    folder = side.folder
    name = f"{folder.parent.name}_{folder.name}" if folder.name.isdecimal() or len(side.runs) > 1 else folder.name
    return re.sub(r"[^\w.=-]+", "_", f"{name}_{side.baseline}" if side.baseline else name)


def _metrics(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.strip("[] ").split(",") if (word := part.strip().removeprefix("test/")))


def _whole(words: Mapping[str, str], key: str, *, least: int) -> int:
    text = words[key].replace("_", "")
    if not text.isdecimal() or int(text) < least:
        raise GenrecError(f"{key}={words[key]}: give a whole number of {least} or more.")
    return int(text)


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value < 1:
        raise GenrecError(f"confidence={text}: give a number from 0.5 to below 1, such as 0.95.")
    return value
