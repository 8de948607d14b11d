"""No command in the documentation is a mere promise: each is run here in a small version, or checked.

A code block that follows ``<!-- run -->`` is executed in a folder where a small default run has finished. Every other
bash block is taken apart: overrides must compose and pass the config check, make targets and files must exist.
"""

from __future__ import annotations

import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from experiments import reproduce, study
from experiments.big_catalogue.__main__ import parse as parse_big_catalogue
from experiments.big_data.__main__ import parse as parse_big_data
from experiments.lastfm import fidelity
from experiments.speed.__main__ import parse as parse_bench
from genrec import config as genrec_config
from genrec.config.command_line import preflight
from genrec.doctor.command import parse as parse_doctor
from genrec.generate import parse as parse_generate
from genrec.predict import parse as parse_predict
from genrec.recommend import parse
from genrec.report import cleaning, compare, listing
from genrec.report.arguments import take_options
from tests.fuzz import command as fuzz

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("**/*.md")),
    *sorted((REPOSITORY / "experiments").glob("*/README.md")),
]
RUN = "<!-- run -->"
FILE = re.compile(r"<!-- file: (\S+) -->")
TINY = [
    "experiment=quick",
    "data.source.num_users=60",
    "data.source.num_items=120",
    "trainer.max_epochs=1",
    "progress=false",
]


@dataclass(frozen=True)
class Block:
    """A fenced piece of code: where it stands, its language, its text, whether it is to be executed, and the file that
    it is said to be."""

    page: str
    line: int
    language: str
    text: str
    run: bool
    file: str | None = None

    @property
    def commands(self) -> list[str]:
        """Bash commands, continuation lines joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path) -> list[Block]:
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    opened, before = None, ""
    for number, line in enumerate(lines, start=1):
        fence = re.match(r"```(\w*)", line)
        if fence and opened is None:
            file = FILE.fullmatch(before)
            opened = (number, fence.group(1), before == RUN, file.group(1) if file else None)
        elif fence and opened is not None:
            start, language, run, file = opened
            found.append(Block(page.name, start, language, "\n".join(lines[start : number - 1]), run, file))
            opened = None
        if line.strip():
            before = line.strip()
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]
CHECKED = [
    pytest.param(command, id=f"{block.page}:{block.line} {command}")
    for block in BLOCKS
    if block.language == "bash" and not block.run
    for command in block.commands
]
EXECUTED = [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS if block.run]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder below which one small run of the default model has finished."""
    folder = tmp_path_factory.mktemp("finished")
    command = [sys.executable, "-m", "genrec.run", *TINY]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def environment() -> dict[str, str]:
    """The caller's, with ``python`` and the console scripts of this interpreter first, and the checkout importable."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.parametrize("block", EXECUTED)
def test_block_runs(
    block: Block, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.language == "python":
        compose = genrec_config.compose_config

        def compose_small(overrides: Any = (), *arguments: Any, **options: Any) -> Any:
            small = [] if any(word.startswith("data=") for word in overrides) else TINY
            return compose([*overrides, *small], *arguments, **options)

        monkeypatch.setattr(genrec_config, "compose_config", compose_small)
        monkeypatch.chdir(tmp_path)
        exec(
            compile(block.text, f"{block.page}:{block.line}", "exec", dont_inherit=True), {"__name__": "documentation"}
        )
        return
    finished = request.getfixturevalue("finished")
    for command in block.commands:
        words = [*shlex.split(command), *(TINY if "genrec.run" in command else ())]
        done = subprocess.run(words, cwd=finished, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("command", CHECKED)
def test_command_is_valid(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in BLOCKS:
        if block.file is not None:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text + "\n")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        name, _, value = words.pop(0).partition("=")
        monkeypatch.setenv(name, value)
    program, arguments = program_of(words)
    assert program in CHECKS, f"{command!r}: tests/test_docs.py does not know how to check {program!r}"
    CHECKS[program](arguments)


def program_of(words: list[str]) -> tuple[str, list[str]]:
    """What is run, by one name for a module and its console script, and its arguments."""
    if words[:2] in (["python", "-m"], ["python3", "-m"]):
        words = words[2:]
    elif words[0] == "python" and words[1].endswith(".py"):
        words = words[1:]
    scripts = {"genrec": "genrec.run", "genrec-recommend": "genrec.recommend", "genrec-generate": "genrec.generate"}
    scripts |= {"genrec-predict": "genrec.predict", "genrec-report": "genrec.report"}
    scripts |= {"genrec-doctor": "genrec.doctor"}
    return scripts.get(words[0], words[0]), words[1:]


def check_run(arguments: list[str]) -> None:
    answer = preflight(arguments)
    assert answer == (0 if "--help" in arguments else None), f"the config check refuses {arguments}"


def check_recommend(arguments: list[str]) -> None:
    if "--help" not in arguments:
        parse(arguments)


def check_generate(arguments: list[str]) -> None:
    if "--help" not in arguments:
        parse_generate(arguments)


def check_predict(arguments: list[str]) -> None:
    if "--help" not in arguments:
        parse_predict(arguments)


def check_report(arguments: list[str]) -> None:
    """The words are taken; folders that are named need not exist here."""
    command, *rest = arguments
    parsers = {"ls": listing.parse, "clean": cleaning.parse}
    if "--help" in arguments:
        return
    if command in parsers:
        parsers[command](rest)
        return
    options, folders = take_options(rest if command == "compare" else arguments, (*compare.VALUED, "open"))
    assert len(folders) >= (2 if command == "compare" else 1) and not any("=" in folder for folder in folders)
    if command == "compare":
        compare.parse_options(options)


def check_doctor(arguments: list[str]) -> None:
    request = parse_doctor(arguments)
    if request.words:
        check_run(list(request.words))


def check_make(arguments: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    overrides = [word for word in arguments if re.match(r"[a-z_.]+=", word)]
    if overrides:
        check_run(overrides)
    checks = {"bench": parse_bench, "fuzz": check_fuzz, "reproduce": lambda words: check_reproduce([*studies, *words])}
    studies = [word.removeprefix("STUDY=") for word in arguments if word.startswith("STUDY=")]
    check = checks.get(arguments[0], check_run)
    if studies:
        check([])
    for word in arguments:
        if word.startswith("ARGS="):
            check(shlex.split(word.removeprefix("ARGS=")))
        elif "=" not in word:
            assert re.search(rf"^{word}:.*## ", makefile, re.M), f"the Makefile has no target {word!r}"


def check_fuzz(arguments: list[str]) -> None:
    assert set(fuzz.arguments().parse_args(arguments).areas) <= set(fuzz.areas())


def check_study(arguments: list[str]) -> None:
    check_choice(study.parse(arguments))


def check_reproduce(arguments: list[str]) -> None:
    check_choice(reproduce.parse(arguments))


def check_choice(options: Any) -> None:
    """The trainings that are asked for are in the plan of the study."""
    planned = study.read_study(study.HERE / options.study)
    assert planned.chosen(getattr(options, "only", ()), getattr(options, "data", ()), getattr(options, "seeds", ()))


def check_fidelity(arguments: list[str]) -> None:
    fidelity.parse(arguments)


def check_pip(arguments: list[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert arguments[0] == "install"
    for option, value in pairwise(arguments):
        if option == "-c":
            assert (REPOSITORY / value).exists()
        if option == "-e":
            extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", value)
            assert extras, f"-e {value}: only the checkout itself"
            assert set((extras.group(1) or "").split(",")) - {""} <= set(project["optional-dependencies"])


def check_installed(module: str) -> Any:
    def check(arguments: list[str]) -> None:
        assert find_spec(module) is not None, f"{module} is not a dependency"

    return check


MIGRATION = (REPOSITORY / "docs/migration.md").read_text(encoding="utf-8")
SPANS = [
    span
    for line in MIGRATION.splitlines()
    if line.startswith("|")
    for span in re.findall(r"`([^`]+)`", line.split("|")[2])
]


@pytest.mark.parametrize("overrides", sorted({span for span in SPANS if re.match(r"[\w./]+=\S", span)}))
def test_overrides_of_the_migration_page_are_taken(overrides: str) -> None:
    check_run(shlex.split(overrides))


@pytest.mark.parametrize("name", sorted({span for span in SPANS if re.fullmatch(r"genrec(\.\w+)+", span)}))
def test_names_of_the_migration_page_exist(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None


CHECKS = {
    "experiments/lastfm/fidelity.py": check_fidelity,
    "genrec.run": check_run,
    "genrec.generate": check_generate,
    "genrec.recommend": check_recommend,
    "genrec.predict": check_predict,
    "genrec.report": check_report,
    "genrec.doctor": check_doctor,
    "experiments.big_catalogue": parse_big_catalogue,
    "experiments.study": check_study,
    "experiments.reproduce": check_reproduce,
    "experiments.big_data": parse_big_data,
    "make": check_make,
    "pip": check_pip,
    "build": check_installed("build"),
    "pytest": check_installed("pytest"),
    "tensorboard": check_installed("tensorboard"),
    "wandb": check_installed("wandb"),
    "mlflow": check_installed("mlflow"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_readme_lists_the_groups_and_options_that_exist() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", (REPOSITORY / "README.md").read_text(), re.M)
    listed = {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}
    conf = REPOSITORY / "conf"
    existing = {
        folder.name: {path.stem for path in folder.glob("*.yaml")}
        for folder in conf.iterdir()
        if folder.is_dir() and folder.name != "hydra"
    }
    assert listed == existing


def test_languages_of_blocks_are_known() -> None:
    """A block without a language, or marked ``sh``, would escape the checks above."""
    known = {"bash", "python", "yaml", "text", "csv", "json", "toml"}
    assert [f"{block.page}:{block.line}" for block in BLOCKS if block.language not in known] == []


def test_python_blocks_compile() -> None:
    for block in BLOCKS:
        if block.language == "python":
            compile(block.text, f"{block.page}:{block.line}", "exec")


def test_readme_begins_with_one_sentence_and_one_command() -> None:
    text = (REPOSITORY / "README.md").read_text()
    title, sentence, first = [part for part in text.split("\n\n") if part][:3]
    assert title == "# genrec" and sentence.count(". ") == 0 and sentence.endswith(".")
    assert first == "```bash\nmake train\n```"


def test_make_knows_how_to_do_what_the_readme_says() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    listed = subprocess.run(["make", "-C", str(REPOSITORY), "help"], capture_output=True, text=True, check=True).stdout
    assert all(target in listed for target in ("train", "sweep", "test", "check", "bench"))
