"""What the doctor says of a config, healthy and with planted faults."""

from __future__ import annotations

import gzip
from pathlib import Path

import fsspec
import pytest

from genrec.doctor.command import COMPOSITION, CONFIG_CHECKS, places_of
from genrec.doctor.command import parse as parse_command
from genrec.doctor.configuration import Subject
from genrec.doctor.findings import Finding, examine
from tests.doctor.places import raises, states, the
from tests.report.run_folders import make_run

CSV = "user_id,item_id,timestamp\n" + "".join(f"u{user},i{(user + i) % 7},{i}\n" for user in range(9) for i in range(6))
SMALL = ["data.source.num_users=60", "data.source.num_items=40", "progress=false"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(*words: str) -> list[Finding]:
    """The findings in the area of the config."""
    subject = Subject(words)
    composed = examine([COMPOSITION], subject)
    if subject.config is None:
        return composed
    return composed + examine(CONFIG_CHECKS, places_of(parse_command(words), subject.config), subject)


def test_a_healthy_config_is_measured_and_leaves_nothing_behind(tmp_path: Path) -> None:
    findings = ask("model=sasrec", "trainer=advanced", "model.embedding_dim=32", *SMALL)
    assert set(states(findings).values()) == {"ok"}
    assert "60 users, 40 items" in the(findings, "data").found
    assert "weights" in the(findings, "memory of training").found
    assert list(tmp_path.iterdir()) == []


def test_every_fault_of_the_words_is_a_finding_of_its_own() -> None:
    findings = ask("trainer=advancd", "optimizer.lr=-1", "model.droput=0.1")
    assert states(findings) == {"trainer": "problem", "model.droput": "problem", "optimizer.lr": "problem"}
    assert "Did you mean advanced?" in the(findings, "trainer").remedy
    assert "Did you mean dropout?" in the(findings, "model.droput").remedy


def test_a_folder_of_groups_that_is_not_there_is_a_finding() -> None:
    (finding,) = examine([COMPOSITION], Subject(("model=tiger",), "nowhere"))
    assert finding.state == "problem" and "nowhere" in finding.found


def test_parts_that_do_not_fit_are_told_once() -> None:
    findings = ask("model=deepfm", "trainer=ctr", *SMALL)
    assert {name for name, state in states(findings).items() if state == "problem"} == {"rehearsal"}
    assert "DeepFM predicts labels" in the(findings, "rehearsal").found
    assert the(findings, "rehearsal").remedy.startswith("Choose a table")


def test_a_monitor_that_is_not_measured_is_told() -> None:
    findings = ask("model=sasrec", "trainer=advanced", "monitor=val/recall@7", *SMALL)
    assert "problem" in states(findings).values()


def test_data_that_is_not_there_comes_with_a_way_to_it(tmp_path: Path) -> None:
    finding = the(ask("model=sasrec", "data=amazon_beauty", f"data_root={tmp_path}"), "files")
    assert finding.state == "problem" and "amazon_beauty is not there" in finding.found
    assert "data.source.download=true" in finding.remedy
    finding = the(ask("model=sasrec", "data=folder", "data.path=nowhere.csv"), "files")
    assert finding.state == "problem" and "data.path=" in finding.remedy and "download" not in finding.remedy


def test_data_of_a_store_are_looked_for_and_not_fetched(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/doctor/x.csv", CSV.encode())
    words = ("model=sasrec", "data=folder", f"cache_dir={tmp_path}/cache")
    finding = the(ask(*words, "data.path=memory://doctor/x.csv"), "files")
    assert finding.state == "ok" and f"{len(CSV):,} bytes" in finding.found and not (tmp_path / "cache").exists()
    finding = the(ask(*words, "data.path=memory://doctor/gone.csv"), "files")
    assert finding.state == "problem" and "does not exist" in finding.found


def test_data_that_the_run_may_fetch_is_not_fetched_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    words = ("model=sasrec", "data=movielens", f"data_root={tmp_path}", "data.source.download=true")
    findings = ask(*words)
    assert the(findings, "files").state == "ok" and "needs a network" in the(findings, "files").found
    assert "without what grows with the data" in the(findings, "parameters").found


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    Path("my.csv").write_text(CSV)
    findings = ask("model=sasrec", "data=folder", "data.path=my.csv", "k_values=[5]")
    assert the(findings, "files").found == "my.csv" and "9 users, 7 items" in the(findings, "data").found


def test_a_file_with_other_columns_is_a_problem() -> None:
    Path("my.csv").write_text(CSV.replace("item_id", "thing"))
    finding = the(ask("model=sasrec", "data=folder", "data.path=my.csv"), "data")
    assert finding.state == "problem" and "item_id" in finding.found + finding.remedy


def test_a_file_that_was_cut_short_is_a_problem() -> None:
    Path("my.csv.gz").write_bytes(gzip.compress((CSV * 50).encode())[:-30])
    finding = the(ask("model=sasrec", "data=folder", "data.path=my.csv.gz"), "files")
    assert finding.state == "problem" and "cut short" in finding.found and finding.remedy.endswith("rm my.csv.gz")


def test_a_table_for_a_model_of_rows_is_read(tmp_path: Path) -> None:
    rows = "".join(f"u{i % 9},{i % 5},{i % 2}\n" for i in range(200))
    Path("clicks.csv").write_text("user,price,clicked\n" + rows)
    words = ["model=deepfm", "trainer=ctr", "data=table", "data.path=clicks.csv", "data.labels=[clicked]"]
    findings = ask(*words, "data.memory_map=true")
    assert set(states(findings).values()) == {"ok"} and "rows" in the(findings, "data").found
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.csv"]


def test_hardware_that_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    finding = the(ask("model=popularity", "trainer=simple", "hardware=gpu", *SMALL), "hardware")
    assert finding.state == "problem" and "hardware=cpu" in finding.remedy


def test_an_extra_that_the_config_needs_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    true_version = metadata.version

    def version(name: str) -> str:
        if name in ("sentence-transformers", "faiss-cpu"):
            raise metadata.PackageNotFoundError(name)
        return true_version(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = ask("model=popularity", "trainer=simple", "encoder=sentence_transformer", "logger=mlflow", *SMALL)
    assert the(findings, "extra text").state == "problem" and "[text]" in the(findings, "extra text").remedy
    assert the(findings, "extra mlflow").state == "ok"
    assert "extra text" not in states(ask("model=popularity", "trainer=simple", "encoder=minilm", *SMALL))


def test_a_run_that_cannot_be_continued_is_told(tmp_path: Path) -> None:
    words = ["model=popularity", "trainer=simple", *SMALL]
    assert the(ask(*words, "resume=outputs/nothing"), "resume").state == "problem"
    run = make_run(tmp_path / "outputs" / "run", state="failed")
    assert "another config" in the(ask(*words, f"resume={run}"), "resume").found
    assert the(ask(*words, "resume=auto"), "resume").state == "ok"


@pytest.mark.parametrize(("free", "state"), [(1e12, "ok"), (2.5e6, "warning"), (1e5, "problem")])
def test_memory_that_does_not_suffice_is_told(monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    monkeypatch.setattr("genrec.doctor.estimate.free_memory", lambda _: free)
    words = ("model=sasrec", "trainer=advanced", "model.embedding_dim=64", "model.num_layers=2")
    finding = the(ask(*words, *SMALL), "memory of training")
    assert finding.state == state, finding


def test_a_model_that_no_memory_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.doctor.estimate._build", raises(RuntimeError("can't allocate 314 GB\nstack")))
    finding = the(ask("model=sasrec", *SMALL), "memory of training")
    assert finding.state == "problem" and finding.found == "the model cannot be built here: can't allocate 314 GB"


def test_places_follow_the_config() -> None:
    subject = Subject(("model=popularity", "runs_dir=mine", "data_root=sets"))
    examine([COMPOSITION], subject)
    places = places_of(parse_command(["model=popularity"]), subject.config)
    assert [str(place) for place in (places.runs_dir, places.cache_dir, places.data_root)] == [
        "mine",
        "mine/cache",
        "sets",
    ]
