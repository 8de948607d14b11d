"""The recipes for one Amazon category run on another by one more word, with its own text vectors or prepared ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genrec.artifacts import read_json
from genrec.config import compose_config
from genrec.config.root import check, conf_dir
from genrec.pipeline import execute, load_run

RECIPES = sorted(path.stem for path in (conf_dir() / "experiment").glob("*_beauty.yaml"))
CATEGORIES = ("amazon_sports", "amazon_toys")
SMALL = {
    "tiger_beauty": ["model.num_layers=1", "model.num_decoder_layers=1", "model.head_dim=8"],
}


@pytest.fixture(scope="module")
def categories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small category: 60 users who walk around a ring of 40 items."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "amazon_sports"
    folder.mkdir()
    walks = [[str((7 * user + step) % 40 + 1) for step in range(5 + user % 6)] for user in range(60)]
    lines = [" ".join([str(user + 1), *walk]) for user, walk in enumerate(walks)]
    (folder / "sequences.txt").write_text("\n".join(lines) + "\n")
    items = [f"{item},Thing {item % 7} of kind {item % 5}" for item in range(1, 41)]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *items]) + "\n")
    vectors = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float16)
    np.save(folder / "item_emb_minilm_l6_v2_f16.npy", vectors)
    return root


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_right_for_other_categories(recipe: str, category: str, tmp_path: Path) -> None:
    config = compose_config([f"experiment={recipe}", f"data={category}"], output_dir=tmp_path)
    assert check(config) == []
    assert config.data.path.endswith(category)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_on_another_category(recipe: str, categories: Path, tmp_path: Path) -> None:
    """One epoch of a real run, from its files to a model that loads again."""
    overrides = [f"experiment={recipe}", "data=amazon_sports", f"data_root={categories}", *SMALL.get(recipe, [])]
    places = [f"runs_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"]
    fast = ["trainer.max_epochs=1", "hardware.precision=32-true", "hardware.num_threads=1", "logger=none", "seed=1"]
    config = compose_config([*overrides, *places, *fast, "progress=false"], output_dir=tmp_path / "run")
    outcome = execute(config)
    assert 0 < outcome.final["test/recall@20"] <= 1
    assert read_json(outcome.folder / "run.json")["state"] == "finished"
    loaded = load_run(outcome.folder)
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) > 0
