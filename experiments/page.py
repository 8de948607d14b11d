"""What a study's README has from its plan and its results: the commands, the tables and the pictures.

Each part stands between two markers and is written by ``python -m experiments.study STUDY table``.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from experiments.plan import Study, Training
from experiments.plot import draw
from experiments.results import DATA, LAYOUTS, MODEL, SEED, Layout, Row, read_results, table
from genrec.artifacts import write_text
from genrec.contracts import GenrecError
from genrec.report.published import published_for

COMMANDS = "commands"
_MANY = 8  # commands; of more the page has the first and the last of each table


def write_page(study: Study) -> None:
    """Brings README.md and the pictures up to date with ``study.yaml`` and ``results.csv``."""
    write_text(study.page, with_parts(study.page.read_text(encoding="utf-8"), study))
    for name, text in pictures(study).items():
        write_text(study.folder / name, text)


def with_parts(page: str, study: Study) -> str:
    """The page with each part between its markers."""
    page = between(page, COMMANDS, commands(study), study)
    for name in study.tables:
        page = between(page, name, tables(study)[name], study)
    return page


def tables(study: Study) -> dict[str, str]:
    """The Markdown of each table."""
    layout, rows = LAYOUTS[study.rows], read_results(study.results)
    return {name: table(of_table(rows, name), layout, published_rows(study)) for name in study.tables}


def pictures(study: Study) -> dict[str, str]:
    """The SVG of each table by its file's name."""
    layout, rows = LAYOUTS[study.rows], read_results(study.results)
    return {
        study.picture(name).name: draw(of_table(rows, name), layout, study.plot, published_rows(study))
        for name in study.tables
    }


def of_table(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of one table; rows that name none belong to the only one."""
    return [row for row in rows if row.get("table", name) == name]


def published_rows(study: Study) -> list[Row]:
    """Published figures on the study's data sets, where it asks for them, each with its ``source``."""
    if not study.published:
        return []
    masked = {None: "", True: "True", False: "False"}
    return [
        {DATA: data, MODEL: each.model, SEED: "", "filter_seen": masked[each.masks_seen], "source": each.source}
        | {name: str(value) for name, value in each.metrics.items()}
        for data in sorted({training.data for training in study.trainings})
        for each in published_for(data)
    ]


def between(page: str, name: str, text: str, study: Study) -> str:
    """The page with ``text`` between the markers of this name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise GenrecError(f"{study.page} needs the lines {begin} and {end}, once each.")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def commands(study: Study) -> str:
    """Markdown: how to run the study again, and the single commands that it is made of."""
    first = study.trainings[0]
    some = f'make reproduce STUDY={study.name} ARGS="--only {first.id} --seeds {first.seeds[0]}"'
    blocks = {
        f"make reproduce STUDY={study.name}": f"train all again and compare with the table: {duration(study)}",
        some: "some of it",
        f"python -m experiments.study {study.name} run": "train it, and its rows into results.csv",
        f"python -m experiments.study {study.name} table": "this table and plot from results.csv",
    }
    width = max(map(len, blocks))
    lines = [f"{command:<{width}}  # {why}" for command, why in blocks.items()]
    single = _block([by_hand(words, study.threads) for words in _examples(study)])
    intro = "The trainings themselves are ordinary runs; each line makes several, and `study.yaml` lists them:"
    if len(study.commands) > _MANY:
        intro = (
            f"The trainings themselves are ordinary runs: {len(study.commands)} commands, each of which makes several. "
            f"`python -m experiments.study {study.name} commands` lists them; the first and the last of each table are:"
        )
    return f"{_block(lines)}\n\n{intro}\n\n{single}"


def _examples(study: Study) -> list[tuple[str, ...]]:
    """The commands that the page shows."""
    if len(study.commands) <= _MANY:
        return [words for _, words in study.commands]
    by_table: dict[str, list[tuple[str, ...]]] = {}
    for table_name, words in study.commands:
        by_table.setdefault(table_name, []).append(words)
    return [words for found in by_table.values() for words in (found[0], found[-1])]


def by_hand(words: Sequence[str], threads: int) -> str:
    """The command line of a run, as one would type it."""
    return f"OMP_NUM_THREADS={threads} GENREC_DATA=data python -m genrec.run {shlex.join(words)}"


def _block(lines: Sequence[str]) -> str:
    return "\n".join(["```bash", *lines, "```"])


def duration(study: Study) -> str:
    """How long all trainings take by the times on record."""
    layout, rows = LAYOUTS[study.rows], read_results(study.results)
    minutes = [(minutes_of(each, rows, layout) or 0.0) * len(each.seeds) for each in study.trainings]
    return in_words(sum(minutes))


def in_words(minutes: float) -> str:
    """Minutes as a person says them."""
    if minutes < 1.5:
        return "about a minute" if minutes > 0.5 else "less than a minute"
    return f"about {math.ceil(minutes)} minutes" if minutes < 90 else f"about {minutes / 60:.1f} hours"


def minutes_of(training: Training, rows: Sequence[Row], layout: Layout) -> float | None:
    """The minutes of one training, the mean of those on record; what the plan says where there are none."""
    mine = [
        float(row[layout.clock]) * layout.seconds / 60
        for row in of_table(rows, training.table)
        if (row["data"], row["model"]) == (training.data, training.name) and row.get(layout.clock)
    ]
    return sum(mine) / len(mine) if mine else training.minutes
