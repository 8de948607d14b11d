"""The YAML of data sets and splits says what the code says."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from genrec.config import compose_config
from genrec.data.dataset import Dataset
from genrec.data.splits import GlobalTime

DATA = ["synthetic", "synthetic_music", "amazon", "movielens", "lastfm", "folder"]
RECIPES = ["amazon_beauty", "amazon_sports", "amazon_toys", "movielens_100k", "movielens_1m"]
SPLITS = ["leave_one_out", "ratio_per_user", "global_time"]


@pytest.mark.parametrize(("group", "name"), [("data", name) for name in DATA] + [("split", name) for name in SPLITS])
def test_yaml_lists_every_key_with_the_default_of_the_code(repository, group, name):
    node: Any = OmegaConf.load(repository / "conf" / group / f"{name}.yaml")
    node = node.source if group == "data" else node
    given: Any = OmegaConf.to_container(node, resolve=False)
    target = get_class(given.pop("_target_"))
    parameters = inspect.signature(target).parameters
    assert list(given) == list(parameters)
    for key, parameter in parameters.items():
        if key not in ("path", "progress", "storage_options", "cache_dir"):  # these are tied to other keys
            assert given[key] == parameter.default, key


@pytest.mark.parametrize("name", [name for name in DATA if name != "synthetic_music"] + RECIPES)
def test_every_data_set_composes_with_the_short_path(name, tmp_path):
    config = compose_config([f"data={name}", f"data.path={tmp_path}/here", "split=global_time", "split.val_from=0.5"])
    dataset = instantiate(config.data, _convert_="all")
    assert isinstance(dataset, Dataset)
    assert isinstance(dataset.splitter, GlobalTime)
    assert dataset.splitter.val_from == 0.5
    if name != "synthetic":
        assert config.data.source.path == f"{tmp_path}/here"


def test_recipes_lie_in_folders_of_their_own(monkeypatch):
    monkeypatch.setenv("GENREC_DATA", "/sets")
    paths = {name: compose_config([f"data={name}"]).data.source.path for name in RECIPES}
    assert paths["amazon_sports"] == "/sets/amazon_sports"
    assert len(set(paths.values())) == len(RECIPES)
