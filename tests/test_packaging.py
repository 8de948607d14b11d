"""What a user gets when they install genrec, and what the Makefile does on a machine it does not know."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import genrec


@pytest.fixture(scope="session")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="session")
def pins(repository: Path) -> list[str]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


@pytest.fixture(scope="session")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built without a network."""
    copy = tmp_path_factory.mktemp("source") / "genrec"
    for name in ("genrec", "conf", "tests"):
        shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in repository.iterdir():
        if path.is_file():
            shutil.copy2(path, copy / path.name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "dist"


def test_wheel_holds_the_code_and_every_config_file(built: Path, repository: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"genrec-{genrec.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"genrec/{path.relative_to(repository)}" for path in (repository / "conf").rglob("*.yaml")}
    assert expected and expected <= names
    assert {"genrec/run.py", "genrec/recommend.py", "genrec/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"genrec", f"genrec-{genrec.__version__}.dist-info"}


def test_wheel_names_its_licence_and_commands(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = f"genrec-{genrec.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
        assert b"Apache License" in archive.read(f"{info}/licenses/LICENSE")
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata
    assert "genrec = genrec.run:main" in commands and "genrec-recommend = genrec.recommend:main" in commands


def test_source_archive_can_be_tested(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"conf/config.yaml", "genrec/run.py", "tests/conftest.py", "Makefile", "constraints.txt", "LICENSE"} <= names


def unpacked(wheel_folder: Path, target: Path) -> dict[str, str]:
    """The wheel unpacked where Python finds it before the checkout; returns the environment to run in."""
    (wheel,) = wheel_folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target / "site")
    return {**os.environ, "PYTHONPATH": str(target / "site"), "HYDRA_FULL_ERROR": "1"}


def test_wheel_answers_from_an_empty_folder(built: Path, tmp_path: Path) -> None:
    environment = unpacked(built, tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    where = [sys.executable, "-c", "import genrec.config as c; print(c.__file__); print(c.conf_dir())"]
    done = subprocess.run(where, cwd=empty, env=environment, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(tmp_path / "site")) for line in done.stdout.split())
    command = [sys.executable, "-m", "genrec.run", "--cfg", "job", "model=popularity"]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "genrec.models.popularity" in done.stdout
    assert list(empty.iterdir()) == []


@pytest.mark.slow
def test_wheel_runs_in_two_processes(built: Path, tmp_path: Path) -> None:
    environment = unpacked(built, tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["experiment=quick", "hardware=ddp_cpu", "data.source.num_users=60", "baselines=null", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "genrec.run", *words]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "processes: 2" in (empty / "run" / "run.log").read_text()
    assert (empty / "run" / "metrics.json").exists()
    lists = ["-m", "genrec.recommend", "run=run", "users=all", "k=3"]
    for count in ("1", "2"):
        words = [*lists, f"processes={count}", f"output=of_{count}.csv"]
        done = subprocess.run([sys.executable, *words], cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (empty / "of_1.csv").read_bytes() == (empty / "of_2.csv").read_bytes()


@pytest.mark.slow
def test_wheel_installs_and_runs_in_an_empty_environment(built: Path, tmp_path: Path, repository: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    constraints = repository / "constraints.txt"
    for wanted in ("torch==2.13.0", str(wheel)):
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, wanted], check=True, env=environment)
    empty = tmp_path / "empty"
    empty.mkdir()
    small = ["experiment=quick", "data.source.num_users=200", "data.source.num_items=60", "progress=false"]
    for words in (
        [tmp_path / "venv" / "bin" / "genrec", *small],
        [tmp_path / "venv" / "bin" / "genrec-recommend", "run=latest", "users=all", "output=recs.parquet", "k=5"],
    ):
        done = subprocess.run([str(word) for word in words], cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (empty / "recs.parquet").stat().st_size > 0


def test_every_dependency_is_pinned(project: dict[str, Any], pins: list[str]) -> None:
    names = {name_of(pin) for pin in pins}
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    assert {name_of(requirement) for requirement in wanted} - names == set()


def test_pins_are_plain(pins: list[str]) -> None:
    assert pins[0] == "torch==2.13.0"  # no local version: the same file serves CPU and GPU builds
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", pin)] == []
    assert "genrec" not in {name_of(pin) for pin in pins}


def test_this_environment_is_the_pinned_one(pins: list[str]) -> None:
    from importlib.metadata import version

    for pin in pins:
        name, _, pinned = pin.partition("==")
        if name_of(name) in (
            "torch",
            "hydra-core",
            "omegaconf",
            "pytorch-lightning",
            "polars",
            "numpy",
            "transformers",
        ):
            assert version(name).partition("+")[0] == pinned, name


def test_console_scripts_exist(project: dict[str, Any]) -> None:
    import importlib

    for target in project["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_no_module_is_a_drawer_for_anything(repository: Path) -> None:
    names = {path.stem for path in (repository / "genrec").rglob("*.py")}
    assert names & {"utils", "common", "helpers", "misc"} == set()


def test_genrec_never_imports_experiments(repository: Path) -> None:
    pattern = re.compile(r"^\s*(from|import) (experiments|tests)\b", re.M)
    found = [path for path in (repository / "genrec").rglob("*.py") if pattern.search(path.read_text())]
    assert found == []


# -- the Makefile ------------------------------------------------------------------------------------------------------

TARGETS = (
    "setup",
    "train",
    "train-simple",
    "train-improved",
    "sweep",
    "test",
    "test-slow",
    "check",
    "bench",
    "reproduce",
    "schedules",
    "clean",
)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-C", str(folder), "--no-print-directory", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """The files that `make` reads, alone in a folder."""
    if shutil.which("make") is None:
        pytest.skip("no make here")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, tmp_path / name)
    return tmp_path


def fake_python(folder: Path, version: tuple[int, int], name: str = "python-fake") -> Path:
    """A program that answers as a Python of that version and writes down what it was asked to do.

    As a real one it makes environments: ``-m venv DIR`` puts itself into DIR/bin.
    """
    path = folder / name
    path.write_text(
        f"""#!/bin/sh
case "$1 $2" in
  "-c import sys"*) test {version[0]}{version[1]:02d} -ge 311 ;;
  "--version "*) echo "Python {version[0]}.{version[1]}.0" ;;
  "-m venv") for last; do :; done; mkdir -p "$last/bin" && cp "$0" "$last/bin/python" && echo venv >> calls ;;
  "-m pip") test "$3" = --version || echo "$@" >> calls ;;
  *) echo "$@" >> calls ;;
esac
"""
    )
    path.chmod(0o755)
    return path


def calls(checkout: Path) -> list[str]:
    path = checkout / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_make_alone_prints_every_target(checkout: Path) -> None:
    listed = make(checkout).stdout
    assert [target for target in TARGETS if not re.search(rf"^ +{target} +\w", listed, re.M)] == []


def test_an_old_python_is_named_and_refused(checkout: Path) -> None:
    done = make(checkout, "train", f"PYTHON={fake_python(checkout, (3, 9))}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr and "is Python 3.9.0" in done.stderr
    done = make(checkout, "train", "PYTHON=no-such-python")
    assert done.returncode != 0 and "no 'no-such-python' here" in done.stderr


def test_train_alone_sets_up_without_development_tools_and_runs(checkout: Path) -> None:
    python = fake_python(checkout, (3, 11))
    done = make(checkout, "train", f"PYTHON={python}", "ARGS=model=rqvae trainer=rqvae")
    assert done.returncode == 0, done.stderr
    venv, torch, package, run = calls(checkout)
    assert venv == "venv" and torch.endswith("-c constraints.txt torch==2.13.0")
    assert package.endswith("-c constraints.txt -e .")
    assert run == "-m genrec.run model=rqvae trainer=rqvae"
    make(checkout, "train-improved", f"PYTHON={python}", "ARGS=seed=1")
    assert calls(checkout) == ["-m genrec.run trainer=advanced seed=1"]  # nothing is installed twice


def test_reproduce_passes_on_the_study_and_what_else_is_said(checkout: Path) -> None:
    done = make(
        checkout, "reproduce", f"PYTHON={fake_python(checkout, (3, 11))}", "STUDY=lastfm", "ARGS=--only gat --seeds 1"
    )
    assert done.returncode == 0, done.stderr
    assert calls(checkout)[-1] == "-m experiments.reproduce lastfm --only gat --seeds 1"


def test_the_environment_is_updated_when_the_requirements_change(checkout: Path) -> None:
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    assert make(checkout, "setup", python).returncode == 0
    assert [line.split()[-1] for line in calls(checkout)] == ["venv", "torch==2.13.0", ".", ".[dev]"]
    for changed in ("pyproject.toml", "constraints.txt"):
        later = (checkout / ".venv" / ".installed-dev").stat().st_mtime + 5
        os.utime(checkout / changed, (later, later))
        assert make(checkout, "setup", python).returncode == 0
        assert [line.split()[-1] for line in calls(checkout)] == ["torch==2.13.0", ".", ".[dev]"]
        os.utime(checkout / changed, (0, 0))
    assert make(checkout, "setup", python).returncode == 0
    assert calls(checkout) == []


def test_a_broken_environment_is_built_anew(checkout: Path) -> None:
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    assert make(checkout, "train", python).returncode == 0
    assert calls(checkout)[0] == "venv"


def test_sweep_takes_another_search_space(checkout: Path) -> None:
    python = f"PYTHON={fake_python(checkout, (3, 11))}"
    make(checkout, "sweep", python)
    assert calls(checkout)[-1].split() == ["-m", "genrec.run", "-m", "sweep=lr_patience"]
    make(checkout, "sweep", python, "ARGS=sweep=optuna")
    assert calls(checkout)[-1].split() == ["-m", "genrec.run", "-m", "sweep=optuna"]
