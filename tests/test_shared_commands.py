"""Commands about finished runs in two real processes: the bytes of one, and nothing left of what was cut short."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genrec import generate, predict, recommend
from genrec.config import compose_config
from genrec.contracts import GenrecError
from genrec.pipeline import execute

SMALL = ["model.embedding_dim=16", "trainer.max_epochs=1", "progress=false", "logger=none", "baselines=null"]
LISTS = ["model.num_layers=1", "model.num_heads=2", "data.source.num_users=700", "data.source.num_items=60"]
TIGER = [
    *LISTS,
    "model.num_decoder_layers=1",
    "model.head_dim=8",
    "model.feedforward_dim=32",
    "tokenizer.codebook_size=16",
    "trainer.max_steps=2",
    "data.source.num_users=300",
]


def trained(folder: Path, *words: str) -> Path:
    execute(compose_config([*SMALL, *words, f"runs_dir={folder.parent}", f"output_dir={folder}", "hardware=cpu"]))
    return folder


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists") / "run"
    return trained(folder, "model=sasrec", "trainer=advanced", "data=synthetic", *LISTS)


def command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"genrec.{name}", *words, "device=cpu"]


def done(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=200)


def same_bytes(name: str, ending: str, folder: Path, *words: str) -> Path:
    """Asserts that two processes write the file that one writes; returns it."""
    one, two = folder / f"one{ending}", folder / f"two{ending}"
    module: Any = {"recommend": recommend, "generate": generate, "predict": predict}[name]
    module.answer(module.parse([*words, f"output={one}", "device=cpu"]))
    found = done(command(name, *words, f"output={two}", "processes=2"))
    assert found.returncode == 0, found.stderr
    assert f"{len(read(one)):,} rows" in found.stdout.replace("\n", "")
    assert one.read_bytes() == two.read_bytes()
    return two


def read(path: Path) -> pl.DataFrame:
    readers: dict[str, Any] = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}
    return readers[path.suffix](path)


@pytest.mark.parametrize("ending", [".parquet", pytest.param(".csv", marks=pytest.mark.slow)])
def test_lists_of_all_users(lists: Path, tmp_path: Path, ending: str) -> None:
    """In several blocks: of 128 batches of 3 users each."""
    path = same_bytes("recommend", ending, tmp_path, f"run={lists}", "users=all", "k=4", "batch_size=3")
    found = read(path)
    assert found["user_id"].n_unique() == 700 and found["rank"].to_list() == [1, 2, 3, 4] * 700
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.slow
def test_samples(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    run = trained(tmp_path_factory.mktemp("samples") / "run", "model=tiger", "trainer=tiger", "data=synthetic", *TIGER)
    path = same_bytes("generate", ".jsonl", tmp_path, f"run={run}", "num_samples=600", "seed=3")
    found = read(path)
    assert found["sample"].unique(maintain_order=True).to_list() == list(range(1, 601))
    assert found.select("user_id", "item_id").n_unique() > 300  # users come again, and get others then


def test_predictions_of_rows(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder = tmp_path_factory.mktemp("rows") / "run"
    words = ["model=fm", "trainer=ctr", "data=synthetic_clicks", "data.source.num_rows=3000"]
    run = trained(folder, *words)
    table = execute_source(run).head(1000)
    table.write_parquet(tmp_path / "rows.parquet")
    words = [f"run={run}", f"data={tmp_path / 'rows.parquet'}", "batch_size=90", f"keep=[{table.columns[0]}]"]
    found = read(same_bytes("predict", ".csv", tmp_path, *words))
    assert found["row"].to_list() == list(range(1000)) and found[table.columns[0]].to_list() == table[:, 0].to_list()


def execute_source(run: Path) -> pl.DataFrame:
    """The raw rows that a run was trained on."""
    from genrec.config import instantiate, recorded_config

    return pl.concat(list(instantiate(recorded_config(run).data.source, _convert_="all").chunks()))


@pytest.mark.slow
def test_torchrun_starts_them_as_well(lists: Path, tmp_path: Path) -> None:
    request = recommend.parse([f"run={lists}", "users=all", f"output={tmp_path / 'one.csv'}", "batch_size=16"])
    recommend.answer(request)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    words = ["genrec.recommend", f"run={lists}", "users=all", f"output={tmp_path / 'two.csv'}", "batch_size=16"]
    found = done([*start, *words])
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if path.read_text(encoding="utf-8").rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


SLOW_MODEL = """
import time
from genrec.models.sasrec import SASRec

class Slow(SASRec):
    calls = 0
    def recommend(self, batch, k):
        Slow.calls += 1
        if Slow.calls > 128:
            time.sleep(0.05)
        return super().recommend(batch, k)
"""


@pytest.fixture
def slow_lists(lists: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run, whose lists take a while from the second block on."""
    folder = tmp_path_factory.mktemp("slow") / "run"
    shutil.copytree(lists, folder)
    config, model = folder / "config.yaml", "genrec.models.sasrec.SASRec"
    text = config.read_text(encoding="utf-8")
    assert model in text
    config.write_text(text.replace(model, "slow_lists.Slow"), encoding="utf-8")
    (folder.parent / "slow_lists.py").write_text(SLOW_MODEL)
    places = [str(folder.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return folder


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["another", pytest.param("leader", marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_command(lists: Path, slow_lists: Path, tmp_path: Path, victim: str) -> None:
    """While half of the table is written beside the output."""
    words = [f"run={slow_lists}", f"users=[{','.join(str(user) for user in range(1, 700))}]", "batch_size=1"]
    words += [f"output={tmp_path / 'lists.csv'}", "processes=2"]
    process = subprocess.Popen(command("recommend", *words), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(".lists.csv.*/whole")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    (other,) = children(process.pid)
    os.kill(other if victim == "another" else process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=100)
    while alive(other) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(other) and not (tmp_path / "lists.csv").exists()
    if victim == "another":
        assert process.returncode == 1 and list(tmp_path.iterdir()) == []
        assert said.startswith("genrec-recommend: Process 2 of 2 was killed by SIGKILL") and said.count("\n") == 1
    else:
        assert list(tmp_path.glob(".lists.csv.*/whole"))
        request = recommend.parse([f"run={lists}", "users=[1]", f"output={tmp_path / 'others.csv'}"])
        recommend.answer(request)
        assert [path.name for path in tmp_path.iterdir()] == ["others.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["users=all", "output=a.csv", "processes=0"], r"processes=0: give a whole number"),
        (["user=3", "processes=2"], r"processes=2 divides many users"),
        (["users=all", "output=a.csv", "device=tpu"], r"device=tpu: the choices are auto, cpu, cuda"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        recommend.parse(words)


def test_a_mistake_is_told_once_and_before_others_are_started(tmp_path: Path) -> None:
    found = done(command("recommend", f"run={tmp_path}", "users=all", f"output={tmp_path / 'a.csv'}", "processes=2"))
    assert found.returncode == 2 and found.stderr.count("\n") == 1 and "is no run folder" in found.stderr
