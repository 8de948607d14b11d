"""The page of a run: in every state, with the numbers of its files, without secrets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.artifacts import write_json
from genrec.contracts import GenrecError
from genrec.records import read_run
from genrec.report.run_page import rerun_command, run_page, write_run_page
from tests.report.page_reader import PageReader
from tests.report.run_folders import held, make_run, make_sweep
from tests.report.whole_runs import CONFIG, EVIL, make_ranking_run, make_retrieval_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_retrieval_run(tmp_path_factory.mktemp("runs") / "tiger")


@pytest.fixture(scope="module")
def read(folder: Path) -> PageReader:
    return PageReader(run_page(read_run(folder)))


def test_it_is_written_whole_beside_what_it_was_made_of(folder: Path) -> None:
    path = write_run_page(folder)
    assert path == folder / "report.html" and path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [other.name for other in folder.glob(".*report*")] == []


def test_every_section_is_there(read: PageReader) -> None:
    titles = ["Results", "Curves", "For whom it works", "Recommendations", "Semantic IDs", "Time and memory",
              "Environment", "Config"]  # fmt: skip
    assert [heading for heading in read.headings if heading in titles] == titles
    assert read.headings[0] == "tiger on synthetic" and read.open_tags == []


def test_the_first_look(read: PageReader) -> None:
    assert "test/recall@10 0.3000 50 % of what can be reached" in read.text
    assert "best val/recall@10 0.3000 epoch 7 of 10" in read.text
    assert "training 1 min 23 s 1 min 25 s in all" in read.text
    assert "parameters 289,856 801 MB of memory" in read.text
    assert "seed 7 seen items kept" in read.text


def test_time_memory_and_environment(read: PageReader) -> None:
    assert "2.0 s (median of 10)" in read.text
    assert "stage time peak memory data 0.5 s 301 MB fit 1 min 23 s 801 MB" in read.text
    assert "tells no peak of a stage" not in read.text
    assert "commit abcdef012345 files changed since 3 device cpu threads 1" in read.text
    assert "data fingerprint f1f2f3" in read.text and "torch 2.13.0" in read.text


def test_no_secret_is_shown_anywhere(folder: Path) -> None:
    text = run_page(read_run(folder))
    assert "sk-very-secret-123" not in text
    assert "logger.wandb.api_key=(hidden)" in text.replace("&#x27;", "'")


def test_titles_are_text(read: PageReader) -> None:
    assert EVIL in read.text
    assert len(read.attributes("script")) == 1


def test_recommendations_mark_what_was_held_out(read: PageReader) -> None:
    assert "for 1 of 3 something held out is among the items shown" in read.text
    assert "User 1 hit at 3" in read.text and "User 0 miss" in read.text
    hits = [attributes for attributes in read.attributes("li") if attributes.get("class") == "hit"]
    assert len(hits) == 1


def test_a_failed_run_says_why_first_and_shows_its_log(tmp_path: Path) -> None:
    folder = make_retrieval_run(
        tmp_path / "run", state="failed", error="The loss is NaN <b> with key sk-very-secret-123."
    )
    (folder / "run.log").write_text(
        "".join(f"line {n}\n" for n in range(500)) + "ERROR <i>boom</i> sk-very-secret-123\n"
    )
    text = run_page(read_run(folder))
    read = PageReader(text)
    assert "This run failed. The loss is NaN <b> with key (hidden)." in read.text
    assert read.headings.index("The end of the log") < read.headings.index("Curves")
    assert "ERROR <i>boom</i> (hidden)" in read.text and "line 499" in read.text and "line 3 " not in read.text
    assert "Results" not in read.headings  # those of an earlier attempt are not this run's
    assert "sk-very-secret-123" not in text


def test_a_killed_run_and_a_running_one_are_told_apart(tmp_path: Path) -> None:
    folder = make_retrieval_run(tmp_path / "run", state="running")
    (folder / "run.log").write_text("epoch 10\n")
    assert "This run was killed." in PageReader(run_page(read_run(folder))).text
    with held(folder):
        read = PageReader(run_page(read_run(folder)))
    assert "This run is running." in read.text and "Curves" in read.headings and "epoch 10" in read.text


def test_a_pruned_run(tmp_path: Path) -> None:
    final = {"val/recall@10": 0.25, "train/loss": 1.0}
    read = PageReader(run_page(read_run(make_retrieval_run(tmp_path / "run", state="pruned", final=final))))
    assert "This run was pruned. The search gave this run up" in read.text
    assert "Results" not in read.headings and "Curves" in read.headings


def test_a_run_that_left_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", state="failed", error="data.path=x does not exist.")
    for name in ("config.yaml", "overrides.yaml"):
        (folder / name).unlink()
    read = PageReader(run_page(read_run(folder)))
    assert "data.path=x does not exist." in read.text and read.headings == ["tiger on synthetic"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenrecError, match=r"is not a run folder: it has no run\.json"):
        write_run_page(tmp_path)


def test_a_page_again_is_the_same_page(folder: Path) -> None:
    assert run_page(read_run(folder)) == run_page(read_run(folder))


def test_broken_parts_take_nothing_from_the_rest(tmp_path: Path) -> None:
    folder = make_retrieval_run(tmp_path / "run")
    (folder / "semantic_ids.npz").write_bytes(b"torn")
    (folder / "test_users.parquet").unlink()
    read = PageReader(run_page(read_run(folder)))
    assert (
        "Results" in read.headings and "Semantic IDs" not in read.headings and "For whom it works" not in read.headings
    )


def test_runs_of_rows_have_their_own_sections(tmp_path: Path) -> None:
    read = PageReader(run_page(read_run(make_ranking_run(tmp_path / "run"))))
    assert {"Results", "Curves", "Predictions", "click", "buy"} <= set(read.headings)
    assert not {"For whom it works", "Recommendations", "Semantic IDs"} & set(read.headings)


@pytest.mark.parametrize(
    ("argv", "overrides", "expected"),
    [
        (["/a/genrec/run.py", "m=x", "data.tasks=[a,b]"], [], "python -m genrec.run m=x 'data.tasks=[a,b]'"),
        (["/a/genrec/run.py", "hydra.run.dir=here", "seed=2", "resume=auto"], [], "python -m genrec.run seed=2"),
        (["/bin/genrec", "seed=3"], ["seed=3"], "python -m genrec.run seed=3"),
        (["/x/pytest", "-q"], ["seed=4"], "python -m genrec.run seed=4"),
        (["/x/pytest", "-q"], [], ""),
        ([], ["~baselines.item_knn"], "python -m genrec.run '~baselines.item_knn'"),
    ],
)  # fmt: skip
def test_the_command_to_repeat_it(tmp_path: Path, argv: list[str], overrides: list[str], expected: str) -> None:
    folder = make_run(tmp_path / "run", overrides=overrides)
    if argv:
        write_json(folder / "environment.json", {"command": argv})
    assert rerun_command(read_run(folder)) == expected


def test_a_job_of_a_sweep_is_repeated_alone(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep")
    folder = make_run(sweep / "0", overrides=["optimizer.lr=0.01"], config=CONFIG)
    write_json(folder / "environment.json", {"command": ["/a/genrec/run.py", "-m", "optimizer.lr=0.01,0.1"]})
    assert rerun_command(read_run(folder)) == "python -m genrec.run optimizer.lr=0.01"


def test_a_page_needs_neither_torch_nor_hydra(tmp_path: Path, folder: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    program = ("import sys; from genrec.report.run_page import write_run_page; write_run_page(sys.argv[1]); "
               "print(sorted({'torch', 'hydra', 'omegaconf'} & set(sys.modules)))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program, str(copy)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_run_that_was_interrupted_says_so(tmp_path: Path) -> None:
    by_hand = make_run(tmp_path / "a", state="killed", error="Interrupted from the keyboard.")
    page, other = (write_run_page(folder).read_text() for folder in (by_hand, make_run(tmp_path / "b", state="killed")))
    assert "Interrupted from the keyboard. Repeat the command with resume=auto." in page
    assert "without a word" in other and "without a word" not in page
