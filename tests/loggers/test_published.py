from __future__ import annotations

from pathlib import Path
from typing import Any

from genrec.loggers.published import PublishedRun, name_run, parameters, results

CONFIG = {
    "model": {"_target_": "genrec.models.tiger.TIGER", "num_layers": 4, "dropout": 0.1, "text": False, "init": None},
    "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.98]},
    "data": {"_target_": "genrec.data.dataset.Dataset", "source": {"_target_": "a.b.Csv", "path": "clicks.csv"}},
    "seed": 7,
    "monitor": None,
    "output_dir": "outputs/x",
    "logger": {"wandb": {"project": "p"}},
    "baselines": {"popularity": {"_target_": "genrec.models.popularity.Popularity"}},
    "environment": {"host": {"cpus": 2}},
}


def test_parameters_are_the_settings_that_may_explain_a_result() -> None:
    assert parameters(CONFIG) == {
        "model": "TIGER",
        "model.num_layers": 4,
        "model.dropout": 0.1,
        "model.text": False,
        "optimizer": "AdamW",
        "optimizer.lr": 1e-3,
        "optimizer.betas": "[0.9, 0.98]",
        "data": "Dataset",
        "data.source": "Csv",
        "data.source.path": "clicks.csv",
        "seed": 7,
    }


def test_a_run_alone_is_called_like_its_folder() -> None:
    name = name_run(Path("outputs/2026-01-02/03-04-05_tiger_beauty"), overrides=["seed=1"])
    assert (name.name, name.group, name.job_type) == ("03-04-05_tiger_beauty", None, None)


def test_a_run_of_a_sweep_is_called_by_what_only_it_was_told() -> None:
    sweep = Path("outputs/multirun/2026-01-02/03-04-05")
    command = ["-m", "+a=1e-3", "k_values=[5, 10]", "progress=false", "optimizer.lr=1e-3,1e-4", "seed=choice(1,2)"]
    overrides = ["+a=0.001", "k_values=[5,10]", "progress=False", "optimizer.lr=0.001", "seed=2"]
    name = name_run(sweep / "1", sweep=sweep, overrides=overrides, command=command)
    assert (name.name, name.group, name.job_type) == ("lr=0.001 seed=2", "2026-01-02_03-04-05", "sweep")


def test_names_that_would_read_the_same_keep_their_keys_and_long_numbers_are_rounded() -> None:
    overrides = ["model.dropout=0.123456789", "+tokenizer.dropout=3.141592e-05", "data.path=a_1.2345b"]
    name = name_run(Path("mine/0"), sweep=Path("mine"), overrides=overrides)
    assert name.name == "model.dropout=0.1235 tokenizer.dropout=3.142e-05 path=a_1.2345b"
    assert name.group == "mine"


def test_a_sweep_of_one_run_has_the_name_of_its_folder() -> None:
    assert name_run(Path("mine/0"), sweep=Path("mine"), overrides=["seed=1"], command=["seed=1"]).name == "0"


def test_names_are_no_longer_than_services_allow() -> None:
    overrides = [f"key_{index}={index}" for index in range(100)]
    assert len(name_run(Path("mine/0"), sweep=Path("mine"), overrides=overrides).name) == 128


def test_results_leave_the_names_of_curves_alone() -> None:
    final = {"val/recall@10": 0.3, "test/recall@10": 0.2, "train/loss": 1.0, "baseline/popularity/test/recall@10": 0.1}
    assert results(final) == {
        "final/val/recall@10": 0.3,
        "test/recall@10": 0.2,
        "final/train/loss": 1.0,
        "baseline/popularity/test/recall@10": 0.1,
    }


def test_files_are_found_by_pattern_and_identity_is_what_tells_equal_runs(tmp_path: Path) -> None:
    for name in ("report.html", "checkpoints/best_model.pt", "checkpoints/final_model.pt", "other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    environment: dict[str, Any] = {
        "data_fingerprint": "d1",
        "graph_fingerprint": None,
        "config_key": "k",
        "git": {"commit": "c0ffee"},
        "command": ["secret"],
    }
    run = PublishedRun(tmp_path, {}, {"seed": 3}, environment)
    found = [name for name, _ in run.files(["report.html", "checkpoints/*.pt", "missing.npz", "checkpoints"])]
    assert found == ["report.html", "checkpoints/best_model.pt", "checkpoints/final_model.pt"]
    assert run.identity == {"data_fingerprint": "d1", "config_key": "k", "seed": 3, "commit": "c0ffee"}
