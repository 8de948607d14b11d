"""The commands as a user runs them, over folders and configs that somebody else made, and with secrets to keep."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from genrec.artifacts import read_json
from genrec.masking import HIDDEN
from genrec.records import read_run

SECRET, PASSWORD = "sk-5ec2e75ec2e7", "pa55word99"
WORDS = [
    "trainer=simple",
    "logger=csv",
    "hardware=cpu",
    "hardware.num_threads=1",
    "progress=false",
    "baselines=null",
    "trainer.max_epochs=1",
]
SEQUENCES = [
    *WORDS,
    "model=sasrec",
    "model.embedding_dim=8",
    "data.source.num_users=60",
    "data.source.num_items=40",
]
ROWS = [*WORDS, "model=logistic_regression", "trainer=ctr", "data=synthetic_clicks", "data.source.num_rows=400"]
SECRETS = [
    f"logger.csv.token={SECRET}",
    f"++logger.csv.uri='http://me:{PASSWORD}@host/x'",
]


class Planted:
    """Unpickling it makes the file ``ran``."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def command(place: Path, module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    variables = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment}
    line = [sys.executable, "-m", f"genrec.{module}", *words]
    return subprocess.run(line, capture_output=True, text=True, cwd=place, env=variables, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two finished runs: ``items`` and ``rows``."""
    place = tmp_path_factory.mktemp("finished")
    for name, words in (("items", SEQUENCES), ("rows", ROWS)):
        done = command(place, "run", *words, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stdout + done.stderr
    (place / "new.csv").write_text("user_id,item_id\n1,2\n")
    return place


@pytest.fixture
def stolen(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def replaced(path: Path, key: str, value: Any) -> None:
    config = OmegaConf.load(path)
    OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.save(config, path)


def model_of_os(folder: Path) -> str:
    replaced(folder / "config.yaml", "model", {"_target_": "os.system", "command": "touch ran"})
    replaced(folder / "config.yaml", "allow_targets", ["os"])
    return "os.system"


def nested_node(folder: Path) -> str:
    node = {"_target_": "subprocess.Popen", "args": ["touch", "ran"]}
    replaced(folder / "config.yaml", "data.source.more", [{"inner": node}])
    return "subprocess.Popen"


def weights_of_pickle(folder: Path) -> str:
    torch.save({"weight": Planted()}, folder / "checkpoints" / "best_model.pt")
    return "best_model.pt cannot be read as a checkpoint (it holds more than tensors"


def whole_pickle(folder: Path) -> str:
    (folder / "checkpoints" / "best_model.pt").write_bytes(pickle.dumps({"weight": Planted()}))
    return "best_model.pt cannot be read as a checkpoint"


def environment_told(folder: Path) -> str:
    replaced(folder / "config.yaml", "cache_dir", "${oc.env:HOME}")
    return "oc.env"


ANSWERS = {
    "recommend": ["run=items", "history=[1,2]"],
    "generate": ["run=items"],
    "predict": ["run=rows", "data=new.csv", "output=out.csv"],
}


@pytest.mark.slow
@pytest.mark.parametrize("plant", [model_of_os, nested_node, weights_of_pickle, whole_pickle, environment_told])
@pytest.mark.parametrize("module", ANSWERS)
def test_a_run_folder_of_somebody_else_runs_nothing(module: str, plant: Callable[[Path], str], stolen: Path) -> None:
    if module == "generate" and plant in (weights_of_pickle, whole_pickle):
        pytest.skip("the same reader as that of recommend")
    words = ANSWERS[module]
    said = plant(stolen / words[0].partition("=")[2])
    answer = command(stolen, module, *words)
    assert answer.returncode == 2 and "Traceback" not in answer.stderr, answer.stderr
    assert said in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    assert not list(stolen.rglob("ran"))


@pytest.mark.slow
def test_the_untouched_folder_still_answers(stolen: Path) -> None:
    answer = command(stolen, "recommend", *ANSWERS["recommend"])
    assert answer.returncode == 0, answer.stderr


PLANTED_FILES = {
    "a model": ("model/nice.yaml", "_target_: os.system\ncommand: touch ran\n", "model=nice"),
    "a recipe": (
        "experiment/nice.yaml",
        "# @package _global_\nallow_targets: [os]\ncallbacks:\n  x: {_target_: os.system, command: touch ran}\n",
        "experiment=nice",
    ),
    "a callback of Hydra": (
        "experiment/nice.yaml",
        "# @package _global_\nhydra:\n  callbacks:\n    x: {_target_: os.system, command: touch ran}\n",
        "experiment=nice",
    ),
    "a log handler": (
        "experiment/nice.yaml",
        "# @package _global_\nhydra:\n  job_logging:\n    handlers:\n      x: {class: os.system, command: touch ran}\n",
        "experiment=nice",
    ),
}


@pytest.mark.parametrize("name", PLANTED_FILES)
@pytest.mark.parametrize("mode", [[], ["-m"], ["--cfg", "job"]], ids=["run", "multirun", "show"])
def test_a_config_folder_of_somebody_else_runs_nothing(name: str, mode: list[str], tmp_path: Path) -> None:
    file, text, choice = PLANTED_FILES[name]
    path = tmp_path / "theirs" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    answer = command(tmp_path, "run", *mode, "--config-dir", "theirs", choice, *WORDS[1:5])
    shown = mode == ["--cfg", "job"] and name in ("a model", "a recipe")  # which builds nothing
    assert (answer.returncode == 0) if shown else (answer.returncode == 2), answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.rglob("ran"))


def test_a_pickled_job_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(Planted()))
    answer = command(tmp_path, "run", "--experimental-rerun", "config.pickle")
    assert answer.returncode == 2 and "can run any code" in answer.stderr
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.slow
def test_a_planted_last_checkpoint_is_not_continued(stolen: Path) -> None:
    folder = stolen / "items"
    (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
    torch.save({"format": 1, "model": {}, "identity": Planted()}, folder / "checkpoints" / "last.ckpt")
    state = read_json(folder / "run.json")
    (folder / "run.json").write_text(json.dumps({**state, "state": "running"}))
    answer = command(stolen, "run", *SEQUENCES, "resume=items")
    assert answer.returncode == 1 and "could run code" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert not list(stolen.rglob("ran"))


LOGGER = """
from pytorch_lightning.loggers import CSVLogger

class Telling(CSVLogger):
    def __init__(self, save_dir, token=None, uri=None, name=None, version=None, **rest):
        super().__init__(save_dir, "telling")
        import logging
        logging.getLogger("genrec.run").warning("signed in with %s at %s", token, uri)
        if token and token.endswith("!"):
            raise RuntimeError(f"{token} is no token")
"""


@pytest.mark.slow
@pytest.mark.parametrize("multirun", [False, True], ids=["run", "sweep"])
def test_no_secret_is_written_anywhere(multirun: bool, tmp_path: Path) -> None:
    (tmp_path / "telling.py").write_text(LOGGER)
    secrets = ["logger.csv._target_=telling.Telling", f"+{SECRETS[0]}", SECRETS[1]]
    words = ["-m", "seed=1,2"] if multirun else []
    done = command(tmp_path, "run", *words, *SEQUENCES, *secrets, "runs_dir=out", WANDB_API_KEY="5ec2e7" * 7)
    assert done.returncode == 0, done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "telling.py"]
    assert len(written) > 10
    for path in written:
        content = path.read_bytes()
        assert SECRET.encode() not in content and PASSWORD.encode() not in content, path
    (config, *_) = sorted((tmp_path / "out").rglob("config.yaml"))
    assert OmegaConf.load(config).logger.csv.token == HIDDEN
    assert any(HIDDEN in path.read_text() for path in config.parent.glob("run.log"))
    record = read_run(config.parent)
    assert f"+logger.csv.token={HIDDEN}" in record.words
    if multirun:
        (whole,) = (tmp_path / "out").rglob("multirun.yaml")
        assert f"+logger.csv.token={HIDDEN}" in OmegaConf.load(whole).hydra.overrides.task
    else:
        state = read_json(config.parent / "run.json")
        (config.parent / "run.json").write_text(json.dumps({**state, "state": "running"}))
        again = command(tmp_path, "run", *SEQUENCES, *secrets, "runs_dir=out", "resume=auto")
        assert again.returncode == 0 and "continuing" in again.stdout, again.stdout + again.stderr
        assert "resume=auto: no unfinished" not in again.stdout
