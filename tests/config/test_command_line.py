"""The command line: every mistake in one short answer, everything that is right goes on to Hydra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.config.command_line import preflight
from genrec.config.usage import examples, help_text


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What stderr says to a wrong command line."""
    assert preflight(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    "argv",
    [
        ["+logger.wandb.api_key=sk-5ec2e7"],
        ["+logger.wandb.api_key='sk-5ec2e7'"],
        ["logger=wandb", "logger.wandb.api_key=sk-5ec2e7,b"],
        ["logger.wandb={api_key:sk-5ec2e7}"],
        ["+loger={wandb:{api_key: 'sk-5ec2e7 and more'}}"],
        ["+model.extra=[{token:sk-5ec2e7}]"],
        ["logger=wandb", "logger.wandb.password=sk-5ec2e7[b"],
        ["logger=wandb", "logger.wandb.password=[sk-5ec2e7"],
        ["api_key:sk-5ec2e7"],
        ["seed=x", "logger.password=sk-5ec2e7"],
        ["seed.api_key=sk-5ec2e7"],
        ["logger.tensorboard.token=sk-5ec2e7"],
        ["--hydra-help", "api_key=sk-5ec2e7"],
    ],
    ids=str,
)
def test_a_secret_in_what_is_refused_is_hidden(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, *argv)
    assert "5ec2e7" not in said and "and more" not in said and "(hidden)" in said


def test_config_of_several_runs_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--multirun and --cfg" in answer(capsys, "-m", "seed=1,2", "--cfg", "job")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["model=tigr"], ["model=tigr", "Did you mean tiger?", "Options:", "popularity"]),
        (["modle=tiger"], ["modle=tiger", "Did you mean model?"]),
        (["traner.patience=3"], ["traner", "Did you mean trainer?"]),
        (["trainer.patiance=3"], ["trainer.patiance=3", "Did you mean patience?"]),
        (["optimizer.lr=fast", "model.num_layer=2"], ["2 faults", "optimizer.lr=fast", "Did you mean num_layers?"]),
        (["model=tigr", "optimizer.lr=fast", "modle=a"], ["3 faults", "tiger", "optimizer.lr=fast", "modle"]),
        (["optimizer.foreach=true"], ["AdamW takes it", "+optimizer.foreach=true"]),
        (["++optimizer.forech=true"], ["Did you mean foreach?"]),
        (["data=folder"], ["data.path", "data.path="]),
        (["data/source=x"], ["no such group"]),
        (["scheduler=cosin"], ["cosine"]),
        (["seed=abc"], ["seed=abc", "whole number"]),
        (["baselines=[popularity]"], ["baselines"]),
        (["model.num_layers"], ["key=value"]),
        (["optimizer.lr=[1,"], ["optimizer.lr=[1,", "can be read"]),
        (["hydra.run.dirr=x"], ["hydra.run.dirr"]),
        (["experiment=quik"], ["Did you mean quick?"]),
        (["--config-dir", "./does_not_exist"], ["./does_not_exist"]),
        (["--config-name", "does_not_exist"], ["does_not_exist"]),
        (["optimizer.lr=1e-3,1e-4"], ["-m"]),
        (["-m", "optimizer.lr=1e-3,fast", "model=tiger,tigr"], ["optimizer.lr=fast", "model=tigr", "2 faults"]),
        (["-m", "trainer.patience=choice(2,ten)"], ["trainer.patience=ten"]),
        (["-m", "seed=range(-1,3)"], ["seed=-1"]),
        (["-m", "optimizer.lr=interval(1e-4,1e-2)"], ["an interval has no end of values", "sweep=optuna"]),
        (["-m", "sweep=optuna", "optimizer.lr=interval(-1,1)"], ["optimizer.lr=-1.0", "greater than 0"]),
        (["-m", "sweep=optuna", "optimizer.lr=interval(a,b)"], ["interval(a,b)", "can be read"]),
        (["-m", "sweep=optuna", "optimizer.lr=tag(log,interval(0,1))"], ["a log scale begins above 0"]),
        (
            ["-m", "sweep=optuna", "model.num_layers=interval(1,4)"],
            ["num_layers=1.0", "num_layers=4.0", "whole number"],
        ),
        (["-m", "sweep=optuna", "optimiser.lr=1,2"], ["Did you mean optimizer?"]),
        (["-m", "sweep=optuna", "trainer=simple,advancd"], ["Did you mean advanced?", "trainer is never advanced"]),
        (["-m", "sweep=optuna", "hydra.sweeper.sampler=tpee"], ["hydra.sweeper.sampler=tpee", "Did you mean tpe?"]),
        (["-m", "sweep=optuna", "hydra.sweeper.sampler=grid"], ["optimizer.lr: a grid needs values"]),
        (["-m", "sweep=optuna", "hydra.sweeper.n_trials=0"], ["hydra.sweeper.n_trials=0", "at least 1"]),
        (["-m", "sweep=optuna", "hydra.sweeper.n_trails=3"], ["n_trails=3", "Did you mean n_trials?"]),
        (["-m", "hydra.swep.dir=x", "hydra.job.nam=z"], ["Did you mean sweep?", "Did you mean name?"]),
        (["-m", "hydra.launcher.n_jobs=2", "seed=1,2"], ["no such key", "hydra.launcher has no keys here"]),
        (["-m", "hydra/sweper=optuna"], ["no such group", "Did you mean hydra/sweeper?"]),
        (["-m", "hydra/launcher=joblb", "seed=1,2"], ["no hydra/launcher 'joblb'", "Did you mean joblib?"]),
        (["hydra.searchpath=x", "model=tiger"], ["hydra.searchpath must be a list"]),
        (["-m", "sweep=optuna", "hydra.sweeper.objectives=[test/recall@10]"], ["what is tested must not choose"]),
        (["-m", "sweep=optuna", "hydra.sweeper.objectives=[val/recal@10]"], ["Did you mean val/recall@10?"]),
        (["-m", "sweep=pareto", "hydra.sweeper.pruner=median"], ["several objectives cannot prune"]),
        (["-m", "sweep=pareto", "hydra.sweeper.sampler=cmaes"], ["one objective only"]),
        (["-m", "sweep=pareto", "hydra.sweeper.directions=[max]"], ["one direction for each of 2"]),
        (["-m", "hydra/sweeper=optuna", "seed=1"], ["there is nothing to search"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and len(value) < 4 else None,
)
def test_mistakes_get_a_short_answer(capsys: pytest.CaptureFixture[str], argv: list[str], expected: list[str]) -> None:
    text = answer(capsys, *argv)
    assert [word for word in expected if word not in text] == []
    assert "Nothing was run" in text or "--config-dir" in text
    assert len(text.splitlines()) <= 6


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["model=popularity"],
        ["+optimizer.amsgrad=true"],
        ["++optimizer.lr=0.1"],
        ["~optimizer.weight_decay"],
        ["~baselines.item_knn"],
        ["~scheduler"],
        ["baselines=null"],
        ["+model@baselines.second=tiger"],
        ["experiment=quick"],
        ["model=sasrec", "model.loss={_target_:genrec.losses.SampledSoftmax,num_negatives:256,logq:true}"],
        ["output_dir=/tmp/x"],
        ["hydra.run.dir=/tmp/x"],
        ["sweep=lr_patience"],
        ["-m", "trainer.patience=2,4", "optimizer.lr=1e-3,3e-4"],
        ["-m", "seed=range(1,14)", "optimizer.lr=1e-3,3e-4"],
        ["-m", "hydra/sweeper=optuna", "seed=range(1,14)", "optimizer.lr=interval(1e-5,1e-2)"],
        ["-m", "sweep=optuna", "trainer=simple,advanced"],
        ["-m", "sweep=optuna", "trainer=simple"],
        ["-m", "sweep=random", "model.num_layers=int(interval(1,3))", "hydra.sweeper.n_trials=3"],
        ["-m", "sweep=pareto", "hydra.sweeper.objectives=[val/ndcg@10,seconds/total]"],
        ["sweep=cmaes"],
        ["--cfg", "job", "optimizer.lr=fast"],
        ["--info", "searchpath"],
        ["--hydra-help"],
    ],
    ids=" ".join,
)
def test_what_is_right_goes_on(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert preflight(argv) is None
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: groups of their own beside a module of their own."""
    for name, text in {
        "mine/model/mine.yaml": "_target_: my_own_module.MyModel\nwidth: 3\n",
        "mine/augment/flip.yaml": "_target_: my_own_module.Flip\nshare: 0.5\n",
        "my_own_module.py": "import torch\nclass MyModel:\n    def __init__(self, spec, *, width: int = 3): ...\n"
        "class Flip:\n    def __init__(self, share: float): ...\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "mine"


def test_a_users_config_dir_adds_groups_and_options(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight(["--config-dir", "./mine", "model=mine", "+augment=flip"]) is None
    assert preflight(["--config-dir", "./mine", "model=tiger"]) is None
    text = answer(capsys, "--config-dir", "./mine", "model=mine", "model.widht=2", "+augment=flip", "augment.share=a")
    assert "Did you mean width?" in text and "augment.share=a" in text and "2 faults" in text
    assert "Did you mean mine?" in answer(capsys, "--config-dir", "./mine", "model=mne")
    assert "my_own_module" not in sys.modules


def test_a_users_search_path_adds_groups_and_options(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"hydra.searchpath=[file://{mine}]"
    assert preflight([where, "model=mine", "+augment=flip", "seed=3"]) is None
    assert preflight(["-m", where, "model=mine,popularity"]) is None
    assert "Did you mean mine?" in answer(capsys, where, "model=mne")
    (mine / "model" / "bad.yaml").write_text("_target_: os.system\ncommand: ls\n")
    assert "a config may not run it" in answer(capsys, where, "model=bad")


def test_help_names_groups_keys_and_examples(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("model", "tiger*", "popularity", "seed", "k_values", "--cfg job", "lr_patience", "experiment=quick"):
        assert word in text
    assert len(examples()) >= 5 and all(example in text for example in examples())
    assert "augment" not in text and "augment" in help_text("./mine")


@pytest.mark.parametrize("example", examples())
def test_every_example_of_the_help_is_valid(example: str) -> None:
    assert preflight(example.removeprefix("python -m genrec.run").split()) is None


def test_another_class_may_take_other_keys(capsys: pytest.CaptureFixture[str]) -> None:
    loss = "model.loss={_target_:genrec.losses.SampledSoftmax,num_negatives:256}"
    command = [sys.executable, "-m", "genrec.run", "model=sasrec", loss, "--cfg", "job", "--package", "model.loss"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.split()[-4:] == ["_target_:", "genrec.losses.SampledSoftmax", "num_negatives:", "256"]
    assert preflight(["model=sasrec", loss.replace("negatives", "negativs")]) == 2
    assert "Did you mean num_negatives?" in capsys.readouterr().err


def test_answers_need_neither_torch_nor_lightning(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom genrec.config.root import preflight\n"
        "assert preflight(['--help']) == 0\nassert 'hydra' not in sys.modules\n"
        "assert preflight(['optimizer.lr=fast', 'model.num_layer=2']) == 2\n"
        "loaded = {'torch', 'pytorch_lightning', 'torch_geometric', 'numpy', 'sklearn', 'polars'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, capture_output=True)
