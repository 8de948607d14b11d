"""``python -m genrec.report``: pages of runs and sweeps, comparisons, the list of runs, and a clean-up.

It answers fast: what a subcommand needs is imported when it is called, and torch by none of them.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from genrec.console import command
from genrec.contracts import GenrecError

HELP = """genrec-report: what runs have left, as pages and tables.

  python -m genrec.report outputs/2026-11-20/09-15-02_tiger_synthetic     write report.html of a run
  python -m genrec.report outputs/multirun/2026-11-20/10-00-00            of a sweep
  python -m genrec.report latest open=true                                of the newest, and show it in the browser
  python -m genrec.report compare FOLDER FOLDER                           is one better? See compare --help
  python -m genrec.report ls                                              the runs, the newest first
  python -m genrec.report ls model=tiger 'optimizer.lr<1e-3' since=7d     some of them, by what was changed
  python -m genrec.report clean                                           remove failed and killed runs, after asking

Pages: FOLDER ... [key=value]
  open=BOOL         open the pages in the browser
  runs_dir=outputs  where latest looks, and where folders are that are not found from here

ls [WORD ...] [FILTER ...] [key=value ...]
  WORD              a piece of the folder or of what was changed
  FILTER            KEY=VALUE, by value: optimizer.lr=1e-3 finds 0.001. Several values: seed=1,2. Signs: = != < <= > >=
                    (quote < and > for the shell). A key is one of the config, a group, or a metric: 'test/auc>0.8'
  state=STATE,...   running, finished, failed, killed, pruned
  since=7d          started in the last 30m, 12h, 7d, 2w, or since 2026-11-20; before=7d: earlier than that
  sweep=FOLDER      the runs of one sweep
  all=BOOL          each run of a sweep on its own line (-a)
  sort=when         or time, folder, a metric (the best first) or any key
  limit=20          lines; all
  errors=BOOL       why runs failed (-v)
  format=table      or csv, json: every run, all metrics
  runs_dir=outputs  where the runs are

clean [WORD ...] [FILTER ...] [key=value ...]   filters as above
  state=failed,killed   or pruned. Running and finished runs are never touched
  dry_run=BOOL      only say what would go (-n)
  yes=BOOL          do not ask (-y); needed where there is no terminal
  cache=BOOL        empty unfinished entries of the cache instead
  cache_dir=FOLDER  default: cache in runs_dir
  runs_dir=outputs  where the runs are
"""

SUBCOMMANDS = ("compare", "ls", "clean")
LATEST = "latest"


def main(argv: Sequence[str] | None = None) -> None:
    """Console entry: a mistake of the user is one sentence on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command("genrec-report", lambda: _dispatch(arguments))


def _dispatch(arguments: list[str]) -> None:
    first, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if first in ("-h", "--help", "help") or (first in ("ls", "clean") and {"-h", "--help"} & set(rest)):
        sys.stdout.write(HELP)
    elif first == "compare":
        from genrec.report.compare import compare_command

        compare_command(rest)
    elif first == "ls":
        from genrec.report.listing import ls_command

        ls_command(rest)
    elif first == "clean":
        from genrec.report.cleaning import clean_command

        clean_command(rest)
    else:
        pages_command(arguments)


def pages_command(arguments: Sequence[str]) -> None:
    """Writes the page of each folder and prints where it is; nothing is written where one of them has none."""
    from genrec.records import is_sweep
    from genrec.report.arguments import folder, take_options, truth

    options, words = take_options(arguments, ("runs_dir",), ("open",))
    runs_dir, show = folder(options, "runs_dir", "outputs"), truth(options, "open")
    if not words:
        raise GenrecError("Say of what: a folder of a run or a sweep, or latest.")
    for word in words:
        key, separator, _ = word.partition("=")
        if separator and not Path(word).exists():
            raise GenrecError(
                f"{word!r} is not known here.{_near(key, ('open', 'runs_dir'))} Give folders, or open=true."
            )
    for place in [find_folder(word, runs_dir) for word in words]:
        if is_sweep(place):
            from genrec.report.sweep_page import write_sweep_page as write
        else:
            from genrec.report.run_page import write_run_page as write
        page = write(place)
        sys.stdout.write(f"{page}\n")
        if show:
            import webbrowser

            webbrowser.open(Path(page).absolute().as_uri())


def find_folder(word: str, runs_dir: Path) -> Path:
    """The folder of a run or a sweep by its path, from here or from ``runs_dir``, or ``latest``; ``GenrecError`` if it
    is none."""
    from genrec.records import is_run, is_sweep

    if word == LATEST:
        return _latest(runs_dir)
    found = [folder for folder in (Path(word), runs_dir / word) if folder.is_dir()]
    for folder in found:
        if is_run(folder) or is_sweep(folder):
            return folder
    if found:
        raise GenrecError(f"{found[0]} is the folder of neither a run nor a sweep.{_inside(found[0])}")
    raise GenrecError(f"{word!r} is neither a folder nor a command.{_meant(word, runs_dir)}")


def _latest(runs_dir: Path) -> Path:
    """The newest run, or the sweep that it belongs to."""
    from genrec.report.selection import runs_below, sweep_of

    runs = runs_below(runs_dir)
    if not runs:
        raise GenrecError(f"latest: no runs below {runs_dir}/ yet. Start one: python -m genrec.run")
    return sweep_of(runs[0]) or runs[0].folder


def _inside(folder: Path) -> str:
    from genrec.report.selection import runs_below

    runs = runs_below(folder)
    return f" It holds {len(runs)} runs; name one, such as {runs[0].folder}." if runs else " Nor does it hold any."


def _meant(word: str, runs_dir: Path) -> str:
    from genrec.report.selection import runs_below

    near = _near(word, (*SUBCOMMANDS, LATEST), "")
    if near:
        return near
    folders = [str(run.folder) for run in runs_below(runs_dir)] if runs_dir.is_dir() else []
    holding = [folder for folder in folders if word.strip("/") in folder] or difflib.get_close_matches(
        word, folders, n=1
    )
    if holding:
        return f" Did you mean {holding[0]}?"
    return f" Commands are {', '.join(SUBCOMMANDS)}; python -m genrec.report ls lists the folders."


def _near(word: str, known: Sequence[str], ending: str = "=") -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}{ending}?" if near else ""
