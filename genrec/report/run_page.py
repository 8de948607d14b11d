"""``report.html`` of a run: everything its folder knows, as one page that needs nothing else.

It can be written at any time, while a run trains and after it has failed; a section without data is left out.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genrec.artifacts import write_text
from genrec.masking import masked_words, scrub
from genrec.records import (
    FAILED,
    FINISHED,
    KILLED,
    PRUNED,
    REPORT_FILE,
    RUNNING,
    RunRecord,
    is_sweep,
    read_run,
    read_sweep,
)
from genrec.report.charts import bar_chart
from genrec.report.html import (
    Markup,
    Section,
    badge,
    banner,
    code,
    definition_list,
    element,
    grid,
    inline_code,
    join,
    page,
    paragraph,
    table,
    tiles,
)
from genrec.report.run_codebooks import codebook_section
from genrec.report.run_config import config_section, secrets_of
from genrec.report.run_curves import best_epoch, curves_section
from genrec.report.run_ranking import ranking_section
from genrec.report.run_results import headline_metric, results_section
from genrec.report.run_samples import samples_section
from genrec.report.run_segments import segments_section
from genrec.report.scales import format_bytes, format_number, format_seconds

LOG_FILE = "run.log"
LOG_LINES = 60
_NO_TRAINING = 0.1  # seconds: what a baseline takes that counts and learns nothing
_NOT_AGAIN = ("hydra.run.dir", "resume")  # the new run would take the folder of this one
BADGES = {RUNNING: "busy", FINISHED: "good", FAILED: "bad", KILLED: "warn", PRUNED: "warn"}
_TOLD = {
    KILLED: "{why} Repeat the command with resume=auto.",
    PRUNED: "The search gave this run up by its validation curve, so nothing was tested.",
    RUNNING: "It is still training. This page was written at {now}; python -m genrec.report writes it anew.",
}


def write_run_page(folder: Path) -> Path:
    """Writes ``report.html`` of the run folder ``folder``, whole or not at all, and returns its path."""
    record = read_run(Path(folder))
    path = record.folder / REPORT_FILE
    write_text(path, run_page(record))
    return path


def run_page(record: RunRecord) -> str:
    """The page as text."""
    parts = [
        _overview(record),
        _log(record) if record.state == FAILED else None,
        results_section(record),
        curves_section(record),
        segments_section(record),
        ranking_section(record),
        samples_section(record),
        codebook_section(record),
        _cost(record),
        _environment(record),
        config_section(record),
        _log(record) if record.state in (KILLED, RUNNING) else None,
    ]
    title = f"{record.model} on {record.data}"
    return page(title, [part for part in parts if part is not None], subtitle=_subtitle(record))


def _subtitle(record: RunRecord) -> Markup:
    words = [_when(record.started)] if record.started else []
    if record.ended and record.started:
        words.append(f"took {format_seconds(max(record.ended - record.started, 0.0))}")
    told = element("span", " · ".join(words)) if words else None
    name = Path(*record.folder.resolve().parts[-2:])
    return join([badge(record.state, BADGES.get(record.state, "")), told, inline_code(name)])


def _overview(record: RunRecord) -> Section:
    command = rerun_command(record)
    body = [_banner(record), tiles(_tiles(record)), code(command) if command else None]
    return Section("", join(body), id="overview")


def _banner(record: RunRecord) -> Markup | None:
    if record.state == FINISHED:
        return None
    why = record.error or "The process ended without a word, by a signal or a lack of memory."
    told = _TOLD.get(record.state, "").format(now=_when(time.time()), why=why)
    if record.state == FAILED:
        told = scrub(record.error or "It ended with an error; the end of its log stands below.", secrets_of(record))
    return banner(f"This run {'is running' if record.state == RUNNING else _verb(record.state)}. ", told,
                  BADGES.get(record.state, "bad"))  # fmt: skip


def _verb(state: str) -> str:
    return {FAILED: "failed", KILLED: "was killed", PRUNED: "was pruned"}.get(state, state)


def _tiles(record: RunRecord) -> list[tuple[str, object, str]]:
    found: list[tuple[str, object, str]] = []
    test = headline_metric(record)
    if test is not None:
        found.append(test)
    best = best_epoch(record)
    if best is not None:
        value, epoch, last = best
        found.append((f"best {record.monitor}", format_number(value), f"epoch {epoch} of {last}" if last > 1 else ""))
    if record.seconds.get("fit", 0.0) >= _NO_TRAINING:
        total = record.seconds.get("total")
        found.append(
            ("training", format_seconds(record.seconds["fit"]), f"{format_seconds(total)} in all" if total else "")
        )
    if record.resources.get("parameters"):
        found.append(("parameters", f"{record.resources['parameters']:,.0f}", _memory_words(record)))
    seed = record.config.get("seed")
    if seed is not None:
        found.append(("seed", str(seed), _lists_words(record)))
    return found


def _memory_words(record: RunRecord) -> str:
    peak = record.resources.get("peak_resident_bytes")
    return f"{format_bytes(peak)} of memory" if peak else ""


def _lists_words(record: RunRecord) -> str:
    seen = record.config.get("filter_seen")
    if not any(name.startswith("test/recall@") for name in record.final) or seen is None:
        return ""
    return "seen items left out" if seen else "seen items kept"


def rerun_command(record: RunRecord) -> str:
    """The line that repeats the run, without secrets; empty where it is not known how it was started."""
    if is_sweep(record.folder.parent):
        from genrec.report.command_lines import run_command

        return scrub(run_command(read_sweep(record.folder.parent), record), secrets_of(record))
    argv = [str(word) for word in record.environment.get("command") or []]
    known = bool(argv) and re.search(r"(^|/)(genrec|run\.py|genrec/__main__\.py)$", argv[0]) is not None
    words = argv[1:] if known else record.words
    if not known and not words:
        return ""
    again = [word for word in words if word.partition("=")[0].lstrip("+") not in _NOT_AGAIN]
    return shlex.join(["python", "-m", "genrec.run", *masked_words(again)])


def _cost(record: RunRecord) -> Section | None:
    stages = {name: value for name, value in record.seconds.items() if name != "total"}
    epochs = [row["seconds"] for row in record.epochs if "seconds" in row]
    facts = _cost_facts(record, epochs)
    if not stages and not facts:
        return None
    chart = None
    if stages:
        labels = [format_seconds(value) for value in stages.values()]
        chart = bar_chart(list(stages), {"time": list(stages.values())}, title="Seconds per stage", horizontal=True,
                          labels={"time": labels})  # fmt: skip
    return Section("Time and memory", join([grid(chart, definition_list(facts), wide=True), _stages(record)]))


def _stages(record: RunRecord) -> Markup | None:
    """What each stage took; runs before there were such figures have none."""
    stages = record.stages
    devices = any("peak_device_bytes" in stage for stage in stages.values())
    head = ["stage", "time", "peak memory", *(["of the GPU"] if devices else [])]
    keys = ("peak_resident_bytes", *(("peak_device_bytes",) if devices else ()))
    rows = [
        [
            name,
            format_seconds(stage["seconds"]),
            *(format_bytes(stage[key]) if stage.get(key) else None for key in keys),
        ]
        for name, stage in stages.items()
    ]
    if not rows:
        return None
    own = record.resources.get("stage_peaks") == "own"
    note = None if own else paragraph("This system tells no peak of a stage alone: each is the highest up to its end.")
    return join([table(head, rows, sortable=False), note])


def _cost_facts(record: RunRecord, epochs: Sequence[float]) -> dict[str, object]:
    resources, facts = record.resources, {}
    if "total" in record.seconds:
        facts["in all"] = format_seconds(record.seconds["total"])
    if epochs:
        facts["an epoch"] = f"{format_seconds(sorted(epochs)[len(epochs) // 2])} (median of {len(epochs)})"
    for name, title in (("peak_resident_bytes", "peak memory"), ("peak_device_bytes", "peak memory of the GPU")):
        if resources.get(name):
            facts[title] = format_bytes(resources[name])
    if resources.get("parameters"):
        facts["parameters"] = f"{resources['parameters']:,.0f}"
    return facts


def _environment(record: RunRecord) -> Section | None:
    found = record.environment
    if not found:
        return None
    git, host = found.get("git") or {}, found.get("host") or {}
    facts: dict[str, Any] = {
        "commit": element("code", git["commit"][:12]) if git.get("commit") else None,
        "files changed since": git.get("changed_files"),
        **{name: str(value) for name, value in host.items()},
        "host": record.run.get("host"),
        **{name.replace("_", " "): element("code", value) for name, value in found.items()
           if name.endswith("_fingerprint") and value},
        "config key": element("code", found["config_key"]) if found.get("config_key") else None,
    }  # fmt: skip
    versions = {name: str(value) for name, value in (found.get("versions") or {}).items()}
    return Section("Environment", join([definition_list(facts), element("h3", "Versions"), definition_list(versions)]))


def _log(record: RunRecord) -> Section | None:
    """The end of the log; that of a run that ended well stands in its folder."""
    path = record.folder / LOG_FILE
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    if not lines:
        return None
    secrets = secrets_of(record)
    shown = [_log_line(scrub(line, secrets)) for line in lines]
    return Section("The end of the log", element("pre", *shown, class_="log"), id="log")


def _log_line(line: str) -> Markup:
    kind = "error" if re.search(r"\b(ERROR|CRITICAL)\b|Error\b", line) else "warning" if " WARNING " in line else None
    return join([element("span", line, class_=kind), "\n"])


def _when(seconds: float) -> str:
    return time.strftime("%d %B %Y, %H:%M", time.localtime(seconds)).lstrip("0")
