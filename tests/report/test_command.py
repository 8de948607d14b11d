from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
import webbrowser
from pathlib import Path

import pytest

from genrec.artifacts import write_text
from genrec.report import compare, listing, run_page
from genrec.report.command import HELP, SUBCOMMANDS, find_folder, main
from genrec.report.listing import ls_command
from tests.report.run_folders import NOW, make_run, make_sweep


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run and a younger sweep of two below ``outputs`` of the folder that the test is in."""
    monkeypatch.chdir(tmp_path)
    outputs = Path("outputs")
    final = {"val/recall@10": 0.2, "test/recall@10": 0.1}
    make_run(outputs / "day" / "one", final=final, epochs=[{"epoch": 1, "train/loss": 2.0}])
    sweep = make_sweep(outputs / "multirun" / "noon")
    for job in range(2):
        make_run(sweep / str(job), overrides=[f"seed={job}"], final=final, started=NOW + 9 + job)
    return outputs


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said on stderr; nothing else is written and the exit code is 2."""
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(words)
    told = capsys.readouterr()
    assert stopped.value.code == 2 and told.out == "" and sorted(Path.cwd().rglob("*")) == before
    assert told.err.startswith("genrec-report: ") and told.err.count("\n") == 1
    return told.err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["ls", "--help"], ["clean", "-h"]])
def test_help_lists_the_forms_with_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    assert capsys.readouterr().out == HELP
    for form in (*SUBCOMMANDS, "latest", "outputs/"):
        assert re.search(rf"^  python -m genrec.report {form}", HELP, re.M)


def test_help_names_every_option(root: Path) -> None:
    from genrec.report import cleaning

    for name in (*listing.VALUED, *listing.FLAGS, *cleaning.VALUED, *cleaning.FLAGS, "state", "since", "sweep", "open"):
        assert re.search(rf"^  {name}=", HELP, re.M), name
    for key in re.findall(r"^  (\w+)=", HELP.partition("\nls [")[2].partition("\nclean [")[0], re.M):
        assert key in (*listing.VALUED, *listing.FLAGS, "state", "since", "sweep")


def test_a_run_and_a_sweep_get_their_pages(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["outputs/day/one", "outputs/multirun/noon"])
    pages = capsys.readouterr().out.splitlines()
    assert pages == ["outputs/day/one/report.html", "outputs/multirun/noon/report.html"]
    texts = [Path(page).read_text(encoding="utf-8") for page in pages]
    assert all(text.lstrip().lower().startswith("<!doctype html>") for text in texts) and texts[0] != texts[1]


def test_a_page_is_written_anew(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(root / "day" / "one" / "report.html", "old")
    main(["outputs/day/one"])
    assert (root / "day" / "one" / "report.html").read_text(encoding="utf-8") != "old"


def test_nothing_is_written_where_one_of_the_folders_has_no_page(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'outputs/day/onne' is neither" in fails(capsys, "outputs/day/one", "outputs/day/onne")


def test_open_shows_the_page(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    main(["outputs/day/one"])
    assert shown == []
    main(["outputs/day/one", "--open"])
    assert shown == [(root / "day" / "one" / "report.html").absolute().as_uri()]


def test_latest_is_the_newest_run_or_the_sweep_that_it_belongs_to(root: Path) -> None:
    assert find_folder("latest", root) == root / "multirun" / "noon"
    make_run(root / "day" / "two", started=NOW + 99, state="failed")
    assert find_folder("latest", root) == root / "day" / "two"


def test_folders_are_found_from_here_and_from_the_folder_of_runs(root: Path, tmp_path: Path) -> None:
    for word in ("outputs/day/one", "outputs/day/one/", str(tmp_path / "outputs/day/one"), "day/one"):
        assert find_folder(word, root).resolve() == (root / "day" / "one").resolve()
    assert find_folder("multirun/noon/1", root) == root / "multirun" / "noon" / "1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "'list' is neither a folder nor a command. Did you mean ls?"),
        (["comparre", "a", "b"], "Did you mean compare?"),
        (["lastest"], "Did you mean latest?"),
        (["outputs/day/onne"], "Did you mean outputs/day/one?"),
        (["one"], "Did you mean outputs/day/one?"),
        (["qqqq"], "Commands are compare, ls, clean; python -m genrec.report ls lists the folders."),
        (
            ["outputs"],
            "outputs is the folder of neither a run nor a sweep. It holds 3 runs; name one, such as outputs/",
        ),
        (["latest", "opne=true"], "'opne=true' is not known here. Did you mean open=?"),
        (["latest", "open=maybe"], "open=maybe: give true or false."),
        (["open=true"], "Say of what: a folder of a run or a sweep, or latest."),
        (["latest", "runs_dir=nowhere"], "runs_dir=nowhere: there is no such folder."),
        (["ls", "--formatt=csv"], "Did you mean format=?"),
        (["ls", "modle=tiger"], "Did you mean model?"),
        (["clean", "state=finished"], "clean removes failed, killed, pruned runs only."),
    ],
)
def test_mistakes_are_one_sentence_with_the_nearest_right_name(
    root: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, *words)


def test_latest_of_nothing_says_how_to_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "Start one: python -m genrec.run" in fails(capsys, "latest", "runs_dir=empty")


def test_clean_refuses_without_a_terminal(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(root / "day" / "bad", state="failed")
    with pytest.raises(SystemExit) as stopped:
        main(["clean"])  # pytest's stdin is no terminal
    assert stopped.value.code == 2 and "there is no terminal to ask at" in capsys.readouterr().err
    assert (root / "day" / "bad").exists()


def test_subcommands_get_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(compare, "compare_command", given.append)
    main(["compare", "a", "b", "--help"])
    monkeypatch.setattr(listing, "ls_command", given.append)
    main(["ls", "seed=1"])
    assert given == [["a", "b", "--help"], ["seed=1"]]


def test_an_interrupt_is_no_traceback(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_page, "write_run_page", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["outputs/day/one"])
    assert stopped.value.code == 130


def test_faults_that_are_ours_are_not_swallowed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr(run_page, "write_run_page", broken)
    with pytest.raises(ZeroDivisionError):
        main(["outputs/day/one"])


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_reader_that_has_seen_enough_is_no_fault(root: Path, form: str) -> None:
    for number in range(60):
        make_run(root / "many" / str(number), overrides=[f"note={'long ' * 500}"])
    words = [sys.executable, "-m", "genrec.report", "ls", f"format={form}", "limit=all"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode not in (0, 2)


def test_it_answers_without_importing_what_trains(root: Path) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "genrec.report", "ls"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == 0 and "outputs/day/one" in done.stdout
    assert imported.isdisjoint({"torch", "hydra", "omegaconf", "pytorch_lightning", "polars", "scipy", "sklearn"})
    assert "genrec" in imported


def test_two_hundred_runs_are_listed_at_once(root: Path) -> None:
    for number in range(200):
        make_run(root / "many" / str(number), overrides=[f"seed={number}"], final={"test/recall@10": 0.1})
    begun = time.process_time()
    ls_command(["limit=all"])
    assert time.process_time() - begun < 2.0  # of the processor; a tenth of it here


def test_the_console_script_is_this_one(repository: Path) -> None:
    scripts = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["genrec-report"] == "genrec.report.command:main"
