from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from genrec.doctor.findings import ok, problem, warning
from genrec.doctor.table import as_json, plain_lines, show, summary

COMMAND = "rm -r " + "/a/very/long/folder" * 20
FINDINGS = [
    replace(ok("Python", "3.11"), area="environment"),
    replace(warning("disk", "[bold]2 GB[/bold] free", "Make room"), area="environment"),
    replace(problem("an entry", "torn", COMMAND), area="cache"),
]


def shown(**options: object) -> str:
    stream = io.StringIO()
    show(FINDINGS, Console(file=stream, **options))  # pyright: ignore[reportArgumentType]
    return stream.getvalue()


def test_a_file_gets_a_table_by_area_with_whole_commands() -> None:
    lines = shown(width=60).splitlines()
    assert [line for line in lines if line in ("environment", "cache")] == ["environment", "cache"]
    assert "ok       Python    3.11" in lines and f"                   {COMMAND}" in lines
    assert "warning  disk      [bold]2 GB[/bold] free" in lines  # markup of others is not ours
    assert lines[-1] == "1 ok, 1 warning, 1 problem." and all(line == line.rstrip() for line in lines)


def test_a_window_is_not_overrun() -> None:
    lines = shown(width=60, force_terminal=True, color_system=None).splitlines()
    assert max(map(len, lines)) <= 60
    assert COMMAND.replace(" ", "") in "".join(line[19:].strip() for line in lines).replace(" ", "")


def test_json_tells_the_same() -> None:
    answer = json.loads(as_json(FINDINGS))
    assert answer["state"] == "problem" and answer["counts"] == {"ok": 1, "warning": 1, "problem": 1}
    expected = {"area": "cache", "name": "an entry", "state": "problem", "found": "torn", "remedy": COMMAND}
    assert answer["findings"][2] == expected


def test_plain_lines_tell_the_same_without_rich() -> None:
    lines = list(plain_lines(FINDINGS))
    assert lines[0] == "ok      environment: Python: 3.11" and lines[1].endswith("free -> Make room")
    assert lines[-1] == summary(FINDINGS)


def test_nothing_found_is_in_order() -> None:
    assert summary([]) == "0 ok, 0 warnings, 0 problems." and json.loads(as_json([]))["state"] == "ok"
