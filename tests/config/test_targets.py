"""What a config may run: judged by where a thing is defined, before anything is imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from genrec.config import check, compose_config, instantiate, preflight
from genrec.config.source_tree import load_module, module_file, top_level
from genrec.config.targets import VARIABLE, hydra_faults, is_own, refusal, target_faults
from genrec.contracts import GenrecError

DANGEROUS = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "shutil.rmtree",
    "runpy.run_path",
    "importlib.import_module",
    "pickle.load",
    "functools.partial",
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "yaml.unsafe_load",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "genrec.config.instantiate",  # ways round, by what a trusted package itself imports or offers
    "genrec.artifacts.write_text",
    "genrec.run_folder.subprocess.Popen",
    "genrec.run_folder.shutil.rmtree",
    "genrec.run_folder.os.system",
    "genrec.trainers.checkpoints.torch.load",
    "genrec.semantic_ids.SemanticIds.load",
    "genrec.models.tiger.Tiger.__init__.__globals__.get",
    "torch.optim.sgd.torch.load",
    "torch.nn.modules.module.functools.partial",
]
HARMLESS = [
    "genrec.models.tiger.Tiger",
    "genrec.trainers.SimpleTrainer",
    "torch.optim.AdamW",
    "torch.nn.CrossEntropyLoss",
    "pytorch_lightning.callbacks.Timer",
    "pytorch_lightning.loggers.CSVLogger",
    "optuna.samplers.NSGAIISampler",
]
BAIT = "from pathlib import Path\nPath('ran').touch()\nclass Thing:\n    def __init__(self): Path('built').touch()\n"


def forget() -> None:
    for function in (top_level, module_file, load_module, refusal, is_own):
        function.cache_clear()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A working directory with an installed package and a module of the user's own; both would tell of being run."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "installed_bait.py").write_text(BAIT)
    (tmp_path / "own_bait.py").write_text(BAIT + "import os, installed_bait\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    forget()
    for name in ("installed_bait", "own_bait"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("target", DANGEROUS)
def test_dangerous_names_are_refused(target: str) -> None:
    assert refusal(target) is not None


@pytest.mark.parametrize("target", HARMLESS)
def test_what_configs_need_is_allowed(target: str) -> None:
    assert refusal(target) is None


def test_an_installed_package_is_refused_before_it_is_imported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal("installed_bait.Thing") == "a config may not run it"
    words = ["trainer._target_=installed_bait.Thing", "~trainer.patience"]
    assert preflight(words) == 2
    assert not (place / "ran").exists() and "installed_bait" not in sys.modules
    assert refusal("installed_bait.Thing", ("installed_bait",)) is None
    with pytest.raises(GenrecError, match="a config may not run it"):
        instantiate({"_target_": "installed_bait.Thing"})
    monkeypatch.setenv(VARIABLE, "another, installed_bait")
    instantiate({"_target_": "installed_bait.Thing"})
    assert (place / "built").exists()


def test_own_modules_are_trusted_and_what_they_import_is_not(place: Path) -> None:
    assert is_own("own_bait") and not is_own("installed_bait") and not is_own("os") and not is_own("torch")
    assert refusal("own_bait.Thing") is None
    assert refusal("own_bait.os.system") is not None
    assert refusal("own_bait.installed_bait.Thing") is not None


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch ran"},
        {"a": {"b": [{"c": {"_target_": "os.system", "_args_": ["touch ran"]}}]}},
        {"_target_": "genrec.losses.BCE", "_args_": [{"_target_": "os.system", "command": "touch ran"}]},
        {"_target_": "os.system", "_partial_": True},
        {"a": "${b}", "b": {"_target_": "os.system", "command": "touch ran"}},
        {"_target_": "${name}", "name": "os.system", "command": "touch ran"},
        {"a": "${oc.create:${text}}", "text": "{_target_: os.system, command: touch ran}"},
    ],
)
def test_every_place_of_a_config_is_looked_at(node: dict[str, Any], place: Path) -> None:
    config = compose_config([])
    OmegaConf.set_struct(config, False)
    root = OmegaConf.create({**node})
    with pytest.raises(GenrecError, match=r"os\.system"):
        instantiate(root)
    config.logger = {"bait": {"_target_": "genrec.losses.BCE", "x": OmegaConf.create(node)}}
    if "${" not in str(node):
        assert any("os.system" in str(fault) for fault in check(config))
    assert not (place / "ran").exists()


def test_the_user_may_widen_what_a_config_runs_and_a_file_may_not(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["+callbacks.mine._target_=installed_bait.Thing"]
    assert preflight(words) == 2
    assert "If you trust it: allow_targets=[installed_bait]" in capsys.readouterr().err
    assert preflight([*words, "allow_targets=[installed_bait]"]) is None
    folder = place / "planted" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nallow_targets: [installed_bait]\ncallbacks:\n  x: {_target_: installed_bait.Thing}\n"
    (folder / "nice.yaml").write_text(text)
    assert preflight(["--config-dir", str(place / "planted"), "experiment=nice"]) == 2
    assert "only you may say it" in capsys.readouterr().err
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["+hydra.callbacks.x={_target_: os.system, command: touch ran}"],
        ["hydra.callbacks.sweep_table._target_=os.system"],
        ["-m", "hydra.sweeper._target_=os.system", "seed=1,2"],
        ["hydra.launcher._target_=subprocess.Popen"],
        ["+hydra.job_logging.handlers.x={class: os.system, command: touch ran}"],
        ["+hydra.job_logging.handlers.x={class: logging.os.system, command: touch ran}"],
        ["+hydra.hydra_logging.formatters.x={'()': os.system, command: touch ran}"],
        ["hydra.job_logging.handlers.console.stream=ext://os.environ"],
        ["--cfg", "job", "+hydra.hydra_logging.formatters.x={'()': os.system, command: touch ran}"],
        ["--info", "all", "+hydra.hydra_logging.formatters.x={'()': os.system, command: touch ran}"],
        ["-m", "sweep=random", "hydra.sweeper.sampler={_target_: os.system, command: touch ran}"],
        ["--experimental-rerun", "config.pickle"],
        ["model.loss={_target_: os.system, command: touch ran}", "model=sasrec"],
        ["optimizer._target_=torch.load"],
    ],
    ids=" ".join,
)
def test_hydras_own_nodes_are_judged_before_hydra_starts(
    words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preflight(words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and any(name in said for name in ("os.", "subprocess", "torch.load", "pickle"))
    assert not (place / "ran").exists()


def test_what_hydra_builds_by_itself_is_allowed() -> None:
    values = {
        "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"},
        "job_logging": {"handlers": {"file": {"class": "logging.handlers.RotatingFileHandler"}}},
    }
    assert list(hydra_faults(values)) == []
    assert list(target_faults("", values)) != []  # only below hydra
