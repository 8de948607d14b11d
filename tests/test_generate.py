from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from genrec import generate
from genrec.contracts import DataSpec, GenrecError
from genrec.data.dataset import Dataset
from genrec.generate import answer, parse
from genrec.models.popularity import Popularity
from genrec.models.tiger import Tiger
from genrec.models.vae import VAE
from genrec.semantic_ids import SemanticIds
from tests.test_recommend import Loaded, run_folder


@pytest.fixture
def spec(cycle_dataset: Dataset) -> DataSpec:
    ids = SemanticIds(np.stack(np.unravel_index(np.arange(8), (2, 4)), axis=1), (2, 4), 2)
    return DataSpec(12, 8, semantic_ids=ids, train=cycle_dataset.sequences.train)


def tiger(spec: DataSpec) -> Tiger:
    torch.manual_seed(0)
    small: dict[str, Any] = {"embedding_dim": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    return Tiger(spec, **small, head_dim=4, feedforward_dim=16).eval()


def printed(arguments: list[str], loaded: Loaded, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("genrec.pipeline.load_run", lambda path, checkpoint: loaded)
    stream = io.StringIO()
    answer(parse([str(run_folder(folder / "run")), *arguments]), Console(file=stream, width=300))
    return stream.getvalue()


def test_histories_and_generated_titles_in_a_table(
    spec: DataSpec, cycle_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(cycle_dataset, tiger(spec))
    text = printed(["num_samples=3", "seed=1"], loaded, tmp_path, monkeypatch)
    assert "3 samples" in text and text.count("... > Title") == 3 and text.count("Title") == 12
    assert text == printed(["num_samples=3", "seed=1"], loaded, tmp_path, monkeypatch)
    assert text != printed(["num_samples=3", "seed=2"], loaded, tmp_path, monkeypatch)


def test_seen_items_follow_the_run_unless_given(
    spec: DataSpec, cycle_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight items six are in each history, so two are left where those are filtered."""
    loaded, path = Loaded(cycle_dataset, tiger(spec)), tmp_path / "samples.csv"

    def seen(*arguments: str) -> bool:
        printed(["num_samples=60", f"output={path}", *arguments], loaded, tmp_path, monkeypatch)
        table = pl.read_csv(path)
        places = [(user - 500, int(item[1:]) - 100) for user, item in table.select("user_id", "item_id").rows()]
        return any((item - user) % 8 < 6 for user, item in places)

    assert seen() and not seen("filter_seen=true")
    loaded.config.filter_seen = True
    assert not seen() and seen("filter_seen=false")


def test_what_is_not_given_is_the_run_s_own(
    spec: DataSpec, cycle_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Loaded(cycle_dataset, tiger(spec))
    plain = printed([], loaded, tmp_path, monkeypatch)
    loaded.config.trainer = OmegaConf.create({"generation_temperature": 2.0, "generation_top_k": 1})
    certain = printed([], loaded, tmp_path, monkeypatch)
    assert certain == printed(["top_k=1", "temperature=2"], Loaded(cycle_dataset, tiger(spec)), tmp_path, monkeypatch)
    assert plain == printed(["top_k=0", "temperature=1"], loaded, tmp_path, monkeypatch) != certain


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_has_a_row_per_item(
    suffix: str, spec: DataSpec, cycle_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"samples.{suffix}"
    torch.manual_seed(0)
    loaded = Loaded(cycle_dataset, VAE(spec, hidden_dims=(6,), latent_dim=3))
    text = printed([f"output={path}", "num_samples=5"], loaded, tmp_path, monkeypatch)
    table = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[suffix](path)
    assert table.columns == ["sample", "place", "item_id", "title", "log_prob"]  # nobody's history, so no user
    assert table["sample"].to_list() == [sample for sample in range(1, 6) for _ in range(4)]  # four training items each
    assert table["place"].to_list() == [1, 2, 3, 4] * 5
    assert table["title"].to_list() == [f"Title {int(item[1:]) - 100}" for item in table["item_id"]]
    assert (table["log_prob"] <= 0).all() and "20 rows" in text


def test_a_run_that_only_ranks_is_refused(
    spec: DataSpec, cycle_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GenrecError, match="Popularity generates nothing"):
        printed([], Loaded(cycle_dataset, Popularity(spec)), tmp_path, monkeypatch)
    with pytest.raises(GenrecError, match="no such folder"):
        answer(parse([f"run={tmp_path}/absent"]))


def test_parse() -> None:
    assert parse([]).run == parse(["run=latest"]).run == "latest"
    assert parse(["outputs/mine", "temperature=.8", "top_p=.9", "top_k=3", "seed=7"]) == generate.Request(
        run="outputs/mine", temperature=0.8, top_p=0.9, top_k=3, seed=7
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["temperature=0"], "temperature=0.0: give a number above 0"),
        (["temperature=-1"], "temperature=-1.0"),
        (["temperature=nan"], "temperature=nan"),
        (["temperature=hot"], "temperature=hot: give a number"),
        (["top_p=0"], "top_p=0.0: give a share above 0 and at most 1"),
        (["top_p=1.2"], "top_p=1.2"),
        (["top_k=-1"], "top_k=-1: give a whole number"),
        (["top_k=1.5"], "top_k=1.5: give a whole number"),
        (["num_samples=0"], "num_samples=0"),
        (["seed=-1"], "seed=-1"),
        (["temprature=1"], "Did you mean temperature="),
        (["run=a", "b"], "'b' is not known here"),
        (["top_k"], "needs a value"),
        (["output=x.xlsx"], "must end in"),
        (["checkpoint=last"], "best and final"),
        (["filter_seen=yes"], "true or false"),
    ],
)
def test_parse_says_what_is_wrong(arguments: list[str], message: str) -> None:
    with pytest.raises(GenrecError, match=message):
        parse(arguments)


def test_mistakes_exit_with_2_and_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["genrec-generate", "top_p=2"])
    with pytest.raises(SystemExit) as exited:
        generate.main()
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("genrec-generate: top_p=2.0") and error.count("\n") == 1


def test_help_lists_every_key_and_imports_neither_torch_nor_hydra() -> None:
    script = "import sys; from genrec.generate import main; main(); print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    assert all(f"\n  {key}=" in done.stdout for key in generate.ALLOWED_KEYS)
    assert done.stdout.endswith("set()\n")
