"""``python -m genrec.doctor``: what is in order on this machine, what is not, and the command that mends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genrec.console import command
from genrec.contracts import GenrecError
from genrec.doctor.apart import Apart
from genrec.doctor.configuration import Subject
from genrec.doctor.findings import PROBLEM, Check, Finding, Places, examine, worst
from genrec.doctor.table import as_json, plain_lines, show
from genrec.report.arguments import folder, one_of, take_options

HELP = """genrec-doctor: is everything in order, and what mends it?

  python -m genrec.doctor                                                 machine, devices, extras, data, cache, runs
  python -m genrec.doctor model=tiger data=amazon_beauty trainer=advanced   and a config: faults, data, size
  python -m genrec.doctor format=json                                     the same for a program

[group=option ...] [key=value ...]   a config, in the words of genrec.run; nothing is trained, fetched or written
  config_dir=FOLDER    your own groups, as --config-dir of genrec.run
  runs_dir=outputs     where the runs are
  cache_dir=FOLDER     default: cache in runs_dir
  data_root=FOLDER     default: GENREC_DATA, or data
  format=table         or json

The exit code is 0 where nothing is a problem, 1 where something is, and 2 for a mistake in the words above.
"""

PLACES = ("runs_dir", "data_root", "cache_dir")
VALUED = (*PLACES, "config_dir", "format")
FORMATS = ("table", "json")
_HERE = "genrec.doctor."
CHECKS = tuple(
    Check(area, _HERE + function)
    for area, function in (
        ("environment", "environment:check_python"),
        ("environment", "environment:check_packages"),
        ("environment", "environment:check_threads"),
        ("environment", "environment:check_memory"),
        ("environment", "environment:check_folders"),
        ("environment", "environment:check_clock"),
        ("extras", "extras:check_extras"),
        ("data", "data:check_data_root"),
        ("data", "data:check_data_sets"),
        ("cache", "cache:check_entries"),
        ("cache", "cache:check_temporary_files"),
        ("runs", "runs:check_runs"),
        ("runs", "runs:check_leftovers"),
    )
)
DEVICE_CHECKS = tuple(Check("devices", f"{_HERE}devices:check_{name}") for name in ("torch", "gpus", "arithmetic"))
COMPOSITION = Check("config", _HERE + "configuration:check_composition")
CONFIG_CHECKS = tuple(
    Check("config", f"{_HERE}configuration:check_{name}")
    for name in ("packages", "hardware", "rehearsal", "data", "size", "continuation")
)


@dataclass(frozen=True)
class Request:
    """The command line, checked; ``words`` are those of a config, if any."""

    options: dict[str, str]
    words: tuple[str, ...] = ()
    format: str = "table"

    @property
    def given(self) -> tuple[str, ...]:
        """The places that were named."""
        return tuple(name for name in PLACES if name in self.options)


def main(argv: Sequence[str] | None = None) -> None:
    """Console entry; a mistake of the user is one sentence on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help", "help"} & set(arguments):
        sys.stdout.write(HELP)
        return
    command("genrec-doctor", lambda: _answer(arguments))
    sys.exit(0)


def _answer(arguments: Sequence[str]) -> int:
    """Prints what was found; the exit code."""
    request = parse(arguments)
    _check_working_directory()
    findings = diagnose(request)
    _print(findings, request.format)
    return 1 if worst(findings) == PROBLEM else 0


def parse(arguments: Sequence[str]) -> Request:
    """The command line as a ``Request``; every fault is a GenrecError that says what is allowed."""
    if {"-m", "--multirun"} & set(arguments):
        raise GenrecError("One config is looked at, not a sweep: leave out -m, and give each key one value.")
    options, words = take_options(arguments, VALUED)
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise GenrecError(f"{word!r} is no word of a config: give group=option or key=value, such as model=tiger.")
    for name in ("config_dir", *PLACES):
        if options.get(name) == "":
            raise GenrecError(f"{name}= needs a folder: {name}=...")
    return Request(options, tuple(words), one_of(options, "format", FORMATS))


def diagnose(request: Request) -> list[Finding]:
    """All findings: of the machine, and of the config if there is one."""
    apart = Apart(DEVICE_CHECKS, places_of(request))
    if not request.words:
        machine = examine(CHECKS, places_of(request))
        return _in_order(machine, apart.findings())
    devices = apart.findings()
    if apart.died:  # and so would this process
        machine = examine(CHECKS, places_of(request))
        remedy = "Mend what is found of the devices first, and look again."
        return [*_in_order(machine, devices), Finding("config", PROBLEM, "not looked at", remedy, COMPOSITION.area)]
    named = [f"{name}={_in_hydra(request.options[name])}" for name in request.given]
    subject = Subject((*request.words, *named), request.options.get("config_dir"))
    composed = examine([COMPOSITION], subject)
    places = places_of(request, subject.config)
    found = [*_in_order(examine(CHECKS, places), devices), *composed]
    return found if subject.config is None else found + examine(CONFIG_CHECKS, places, subject)


def _in_order(machine: Sequence[Finding], devices: Sequence[Finding]) -> list[Finding]:
    """The devices behind what they stand on."""
    first = [finding for finding in machine if finding.area == CHECKS[0].area]
    return [*first, *devices, *machine[len(first) :]]


def places_of(request: Request, config: Any = None) -> Places:
    """Where to look: what was given, else what the config says, else what a run would do without one."""
    runs_dir = folder(request.options, "runs_dir", _default(config, "runs_dir", "outputs"))
    root = _default(config, "data_root", os.environ.get("GENREC_DATA") or "data")
    return Places(
        runs_dir=runs_dir,
        data_root=folder(request.options, "data_root", root),
        cache_dir=folder(request.options, "cache_dir", _default(config, "cache_dir", str(runs_dir / "cache"))),
        given=request.given,
    )


def _default(config: Any, name: str, otherwise: str) -> str:
    return otherwise if config is None else str(config[name])


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError:
        raise GenrecError("The working directory is gone; enter another one: cd ~") from None


def _in_hydra(text: str) -> str:
    """A folder as Hydra's grammar takes any text."""
    return '"' + text.replace('"', '\\"') + '"'


def _print(findings: Sequence[Finding], form: str) -> None:
    if form == "json":
        sys.stdout.write(as_json(findings))
        return
    try:
        show(findings)
    except ImportError:  # rich may be what is missing
        sys.stdout.writelines(f"{line}\n" for line in plain_lines(findings))
