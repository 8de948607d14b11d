"""The command as a user meets it: the table, the exit code, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from genrec.contracts import GenrecError
from genrec.doctor import command, environment
from genrec.doctor.command import CHECKS, CONFIG_CHECKS, DEVICE_CHECKS, HELP, main, parse, places_of
from genrec.doctor.findings import Check
from tests.report.run_folders import make_run

MOST = 20.0  # seconds of processor time; about 2 where nothing else runs
FREE = 50 * 10**9  # bytes of memory and of any disk, whatever this machine has
ROOMY = f"""
import types
from genrec.doctor import environment
environment.available_memory = lambda: {FREE}
environment.shutil.disk_usage = lambda _: types.SimpleNamespace(free={FREE})
"""
OFFLINE = """
import socket
def refuse(*_, **__): raise SystemExit('the network was asked')
socket.socket.connect = refuse
socket.getaddrinfo = refuse
"""
SPENT = """
import atexit, resource, sys
def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(one.ru_utime + one.ru_stime for one in used), file=sys.stderr)
atexit.register(spent)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENREC_DATA", raising=False)
    monkeypatch.setattr(environment, "available_memory", lambda: FREE)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: SimpleNamespace(free=FREE))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DEVICE_CHECKS", QUICK)


def called(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code: object = 0
    try:
        main(words)
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


QUICK = (Check("devices", "genrec.doctor.environment:check_python"),)  # in place of those that wait for torch


def doctor(*words: str, code: str = "", devices: bool = True) -> subprocess.CompletedProcess[str]:
    """A process of its own, of which ``code`` has spoilt something first; without ``devices`` torch is left alone."""
    quick = "" if devices else f"from genrec.doctor.findings import Check; command.DEVICE_CHECKS = {QUICK!r}"
    start = f"from genrec.doctor import command\n{quick}\n{code}\ncommand.main()"
    env = {**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[2])}
    return subprocess.run([sys.executable, "-c", start, *words], env=env, capture_output=True, text=True)


def test_a_healthy_place_exits_with_0_and_stays_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys=capsys)
    areas = ["environment", "devices", "extras", "data", "cache", "runs"]
    assert code == 0 and err == "" and [line for line in out.splitlines() if line in areas] == areas
    assert out.rstrip().endswith("0 problems.") and list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_a_problem_exits_with_1_and_json_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (make_run(tmp_path / "outputs" / "broken") / "run.json").write_text("{")
    code, out, _ = called("format=json", capsys=capsys)
    answer = json.loads(out)
    assert code == 1 and answer["state"] == "problem"
    assert [item["name"] for item in answer["findings"] if item["state"] == "problem"] == ["outputs/broken"]


@pytest.mark.usefixtures("quick")
def test_a_warning_alone_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "mine" / "killed", state="running")
    code, out, _ = called("runs_dir=mine", capsys=capsys)
    assert code == 0 and "mine/killed" in out and "resume=mine/killed" in out


@pytest.mark.usefixtures("quick")
def test_a_config_is_looked_at_beside_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called("format=json", "model=popularity", "trainer=simple", 'runs_dir=it\'s "mine"', capsys=capsys)
    areas = list(dict.fromkeys(item["area"] for item in json.loads(out)["findings"]))
    assert code == 0 and areas[-1] == "config" and 'it\'s "mine"' in out.replace("\\", "")
    code, out, _ = called("format=json", "trainer=advancd", capsys=capsys)
    assert code == 1 and "advancd" in out and '"environment"' in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fast"], "'--fast' is not known here"),
        (["format=xml"], "the choices are table, json"),
        (["tiger"], "'tiger' is no word of a config"),
        (["-m", "seed=1,2"], "leave out -m"),
        (["runs_dir="], "runs_dir= needs a folder"),
        (["--format"], "needs a value"),
    ],
)
def test_a_mistake_in_the_words_exits_with_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(*words, capsys=capsys)
    assert code == 2 and out == "" and told in err and err.count("\n") == 1


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert capsys.readouterr().out == HELP and all(f"{name}=" in HELP for name in command.VALUED)


def test_places_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    places = places_of(parse([]))
    assert [str(place) for place in (places.runs_dir, places.data_root, places.cache_dir)] == [
        "outputs",
        "data",
        "outputs/cache",
    ]
    monkeypatch.setenv("GENREC_DATA", "/sets")
    places = places_of(parse(["--runs-dir", "/scratch"]))
    assert [str(place) for place in (places.data_root, places.cache_dir)] == ["/sets", "/scratch/cache"]
    with pytest.raises(GenrecError):
        parse(["nothing"])


@pytest.mark.parametrize("check", [*CHECKS, *DEVICE_CHECKS, *CONFIG_CHECKS], ids=lambda check: check.function)
def test_every_check_exists(check: Check) -> None:
    import pkgutil

    assert callable(pkgutil.resolve_name(check.function))


@pytest.mark.parametrize("package", ["numpy", "polars", "yaml", "packaging", "rich", "omegaconf"])
def test_a_missing_package_is_a_finding_and_no_traceback(package: str) -> None:
    words = ["trainer=simple"] if package == "omegaconf" else []
    done = doctor(*words, code=f"import sys; sys.modules[{package!r}] = None", devices=False)
    assert "Traceback" not in done.stdout and done.stderr == ""
    assert "environment" in done.stdout and "problem" in done.stdout and done.returncode == 1


@pytest.mark.parametrize(
    ("torch", "told"),
    [
        ("raise ImportError('libtorch_cpu.so: cannot open')", "libtorch_cpu.so: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
        ("import sys; print('no such instruction', file=sys.stderr); import os; os._exit(2)", "no such instruction"),
    ],
    ids=["cannot be imported", "kills", "exits"],
)
def test_a_broken_torch_does_not_take_the_others_down(torch: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(torch)
    done = doctor("model=popularity", "trainer=simple", "format=json")
    assert done.returncode == 1 and done.stderr == "", done.stderr
    findings = json.loads(done.stdout)["findings"]
    broken = [item for item in findings if item["area"] == "devices" and item["state"] == "problem"]
    assert told in broken[0]["found"] and {"environment", "cache", "runs"} <= {item["area"] for item in findings}


@pytest.mark.parametrize(
    "spoil",
    [
        "import os; os.statvfs = None",
        "import genrec.config as config; config.conf_dir = lambda: 1 / 0",
        "import pathlib; pathlib.Path.glob = lambda *_: 1 / 0",
        "import tomllib; tomllib.loads = lambda *_: 1 / 0",
    ],
)
def test_whatever_is_broken_there_is_no_traceback(spoil: str, tmp_path: Path) -> None:
    make_run(tmp_path / "outputs" / "run")
    done = doctor(code=spoil, devices=False)
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == 1 and "problem" in done.stdout


def test_a_working_directory_that_is_gone_is_told() -> None:
    done = doctor(code="import os; os.rmdir(os.getcwd())")
    assert (done.returncode, done.stdout) == (2, "") and "cd ~" in done.stderr


def test_it_answers_soon_and_asks_no_network() -> None:
    done = doctor(code=ROOMY + OFFLINE + SPENT)
    assert done.returncode == 0 and "network was asked" not in done.stdout + done.stderr
    assert 0.1 < float(done.stderr) < MOST
