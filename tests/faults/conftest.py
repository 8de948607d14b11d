"""The process that commands are started from, and runs that nothing has disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.faulty_runs import SERVER, Commands


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    place = tmp_path_factory.mktemp("server")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("SLURM_")]:
        del environment[name]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=place, env=environment, stdin=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def commands(server: subprocess.Popen[str], tmp_path: Path) -> Iterator[Commands]:
    made = Commands(server, tmp_path)
    yield made
    for command in made.started:
        if not command.ended:
            command.kill()


@pytest.fixture(scope="session")
def whole(server: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of an undisturbed run of the words, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*words: str) -> Path:
        if words not in made:
            commands = Commands(server, tmp_path_factory.mktemp("whole"))
            code, output = commands.run(*words)
            assert code == 0, output
            made[words] = commands.folder()
        return made[words]

    return run
