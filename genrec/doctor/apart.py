"""Checks in a process of their own: a build of torch that does not fit takes its process down, and a driver may hang.

Meanwhile the other checks go on.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import genrec
from genrec.doctor.findings import Check, Finding, Places, examine, one_line, problem

WAITED = 60.0  # seconds for devices to answer; a cold disk reads torch for a while
_START = "import sys; sys.path.append(sys.argv[1]); from genrec.doctor.apart import main; main()"
_MARK = "\x1e"  # comes before the answer, behind whatever libraries have printed
_REINSTALL = "Install a build that fits this machine: pip install --force-reinstall torch"


class Apart:
    """Checks of one area that were started; ``findings`` waits for them."""

    def __init__(self, checks: Sequence[Check], places: Places) -> None:
        self.area = checks[0].area
        self.died = False
        folders = [str(places.runs_dir), str(places.data_root), str(places.cache_dir)]
        asked = json.dumps({"checks": [asdict(check) for check in checks], "places": folders})
        home = str(Path(genrec.__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, home, asked],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def findings(self, timeout: float = WAITED) -> list[Finding]:
        """What they have found; a process that dies or hangs is a problem itself, and ``died`` says so."""
        try:
            said, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return self._lost(
                f"no answer within {timeout:g} seconds", "Ask nvidia-smi; a driver that hangs needs a restart."
            )
        code = self._process.returncode
        noise, mark, answer = said.rpartition(_MARK)
        if code == 0 and mark:
            return [Finding(**fields) for fields in json.loads(answer)]
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = (noise or answer).strip().rpartition("\n")[2]
        told = f"{why}: {one_line(last)}" if last else why
        return self._lost(f"to import and try torch ends the process ({told})", _REINSTALL)

    def _lost(self, found: str, remedy: str) -> list[Finding]:
        self.died = True
        return [replace(problem(self.area, found, remedy), area=self.area)]


def main() -> None:
    """The other end: runs the checks and prints what they found."""
    asked = json.loads(sys.argv[2])
    runs_dir, data_root, cache_dir = map(Path, asked["places"])
    findings = examine([Check(**fields) for fields in asked["checks"]], Places(runs_dir, data_root, cache_dir))
    sys.stdout.write(_MARK + json.dumps([asdict(finding) for finding in findings]))
