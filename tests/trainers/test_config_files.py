"""The YAML of this part lists every option with the value that the code has by default."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
OWN = [path for group in ("trainer", "scheduler", "hardware") for path in sorted((CONF / group).glob("*.yaml"))]
FOREIGN = [path for group in ("optimizer", "logger", "callbacks") for path in sorted((CONF / group).glob("*.yaml"))]
ON_PURPOSE = {
    "gpu.yaml": {"accelerator", "precision"},
    "cpu.yaml": {"accelerator"},
    "mps.yaml": {"accelerator"},
    "ddp.yaml": {"devices", "strategy"},
    "ddp_cpu.yaml": {"accelerator", "devices", "strategy"},
    "fsdp.yaml": {"accelerator", "devices", "strategy"},
    "torchrun.yaml": {"devices", "strategy", "launcher"},
    "slurm.yaml": {"devices", "strategy", "launcher"},
}


def target(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def default(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@pytest.mark.parametrize("path", OWN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_defaults_in_code_equal_defaults_in_yaml(path: Path) -> None:
    node = yaml.load(path.read_text(), Loader=yaml.SafeLoader)
    fields = {field.name: default(field) for field in dataclasses.fields(target(node.pop("_target_"))) if field.init}
    assert node.keys() == fields.keys()
    for name, value in node.items():
        if value != f"${{{name}}}" and name not in ON_PURPOSE.get(path.name, ()):
            assert value == fields[name], name


def nodes(path: Path) -> list[dict[str, Any]]:
    content = yaml.load(path.read_text(), Loader=yaml.SafeLoader)
    return [content] if "_target_" in content else [node for node in content.values() if "_target_" in node]


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_option_exists(path: Path) -> None:
    for node in nodes(path):
        parameters = inspect.signature(target(node["_target_"])).parameters
        unknown = [name for name in node if not name.startswith("_") and name not in parameters]
        assert unknown in ([], ["group", "tags"]), unknown  # WandbLogger passes these two on to wandb.init
