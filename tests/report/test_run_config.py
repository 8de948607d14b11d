"""The config on the page: valid YAML, changes marked, nothing secret."""

from __future__ import annotations

from pathlib import Path

import yaml

from genrec.records import read_run
from genrec.report.run_config import config_section, secrets_of, yaml_lines
from tests.report.page_reader import PageReader
from tests.report.run_folders import make_run

CONFIG = {
    "model": {"_target_": "a.B", "dropout": 0.1, "name": "on", "empty": {}, "none": None},
    "optimizer": {"lr": 0.001, "betas": [0.9, 0.999]},
    "logger": {"mlflow": {"tracking_uri": "http://me:pass99@host/x", "token": "abcdef", "password": None}},
}


def test_lines_are_the_config() -> None:
    lines = yaml_lines({name: CONFIG[name] for name in ("model", "optimizer")}, {})
    text = "\n".join(f"{'  ' * depth}{key}: {value}" for depth, key, value, _ in lines)
    assert yaml.safe_load(text) == {name: CONFIG[name] for name in ("model", "optimizer")}


def test_changes_are_marked() -> None:
    lines = yaml_lines(CONFIG, {"optimizer.lr": "1e-3", "model": "tiger"})
    assert [key for _, key, _, changed in lines if changed] == ["model", "lr"]


def test_secrets_are_hidden_wherever_they_stand(tmp_path: Path) -> None:
    overrides = ["logger.mlflow.token=abcdef", "optimizer.lr=1e-3", "x.uri=http://me:pass99@host/x"]
    record = read_run(make_run(tmp_path / "run", config=CONFIG, overrides=overrides))
    section = config_section(record)
    assert section is not None
    read = PageReader(section.body)
    assert "abcdef" not in section.body and "pass99" not in section.body
    assert "token: (hidden)" in read.text and "password: null" in read.text
    assert "tracking_uri: http://(hidden)@host/x" in read.text
    assert "logger.mlflow.token=(hidden)" in read.text and "optimizer.lr=1e-3" in read.text
    assert secrets_of(record) == ["abcdef"]


def test_no_config_no_section(tmp_path: Path) -> None:
    assert config_section(read_run(make_run(tmp_path / "run"))) is None
