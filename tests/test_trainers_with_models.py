"""Every trainer of ``conf/trainer`` with every model of ``conf/model``: it trains and tests it, or says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from genrec.config import compose_config, instantiate
from genrec.contracts import IGNORE, DataSpec, GenrecError, RunContext
from genrec.data.dataset import Dataset
from genrec.data.row_splits import IN_TEST, IN_TRAIN, IN_VAL
from genrec.data.rows import Lists, Rows, RowsView
from genrec.data.sources.synthetic import SyntheticSource
from genrec.data.splits import LeaveOneOut
from genrec.semantic_ids import SemanticIds
from genrec.trainers.base import trainable
from genrec.trainers.checkpoints import BEST, LAST, read_checkpoint
from tests.models.row_contract import row_batch, row_spec

CONF = Path(__file__).parents[1] / "conf"
TRAINERS = sorted(path.stem for path in (CONF / "trainer").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
NUM_ITEMS = 60
SMALL = {"embedding_dim": 16, "num_layers": 1, "num_decoder_layers": 1, "feedforward_dim": 16, "num_heads": 2,
         "hidden_dims": [16], "latent_dim": 4, "num_embeddings": 8, "max_iter": 5}  # fmt: skip
TOWERS = {"dssm", "youtube_dnn", "gru4rec", "comirec"}
NEXT_ITEMS = {"tiger", "tiger_item", "rpg", "sasrec", "hstu"} | TOWERS
COUNTS = {"popularity", "item_knn", "text_knn"}  # nothing to train
ONE_LABEL = {"logistic_regression", "fm", "wide_deep", "deepfm", "dcnv2", "autoint", "din", "fcn"}
SEVERAL_LABELS = {"shared_bottom", "esmm", "mmoe", "ple", "aitm"}
ROWS = ONE_LABEL | SEVERAL_LABELS | {"base_rate", "gradient_boosting"}
RECOMMENDERS = set(MODELS) - {"rqvae"} - ROWS
CLAIMS = {
    "simple": set(MODELS),
    "advanced": RECOMMENDERS,  # others unless the monitor is a metric of theirs, see below
    "tiger": RECOMMENDERS,
    "rqvae": {"rqvae"},
    "curriculum": NEXT_ITEMS | COUNTS,
    "apr": RECOMMENDERS - COUNTS,
    "online": NEXT_ITEMS | COUNTS,
    "ctr": ROWS,
    "mtl": SEVERAL_LABELS,
    "match": TOWERS | {"sasrec", "hstu", "gat", "lightgcn", "xsimgcl", "bpr_mf"},
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset(SyntheticSource(num_users=60, num_items=NUM_ITEMS), LeaveOneOut())


@pytest.fixture(scope="module")
def spec(data: Dataset) -> DataSpec:
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.permutation(64)[:NUM_ITEMS], (4, 4, 4)), axis=1)
    vectors = rng.normal(size=(NUM_ITEMS, 8)).astype(np.float32)
    return replace(data.spec, semantic_ids=SemanticIds(codes, (4, 4, 4), 3), item_vectors=vectors)


def rows_and_spec(model_name: str) -> tuple[RowsView, DataSpec]:
    """The planted table with as many labels as the model learns, "buy" given "click"."""
    tasks = ("click",) if model_name in ONE_LABEL else ("click", "buy")
    batch, spec = row_batch(600, tasks=tasks), row_spec(tasks)
    features = spec.features
    assert features is not None and batch.groups is not None
    history = replace(features.sequences[0], pooling="attention")
    features = replace(features, sequences=(history, *features.sequences[1:]))
    lists = [
        Lists(ids[ids != IGNORE].numpy(), np.cumsum([0, *(ids != IGNORE).sum(1).tolist()])) for ids in batch.sequences
    ]
    rows = Rows(batch.dense.numpy(), batch.sparse.numpy(), tuple(lists), batch.labels.numpy(), batch.groups.numpy())
    parts = np.array([IN_TRAIN, IN_VAL, IN_TEST])[np.repeat([0, 1, 2], [400, 100, 100])]
    view = RowsView(rows, features, parts)
    return view, replace(spec, features=features, training_rows=view.training_rows)


def test_every_trainer_says_which_models_it_claims() -> None:
    assert CLAIMS.keys() == set(TRAINERS) and len(TRAINERS) * len(MODELS) >= 70


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("trainer_name", TRAINERS)
def test_pair(trainer_name: str, model_name: str, data: Dataset, spec: DataSpec, tmp_path: Path) -> None:
    config = compose_config([f"model={model_name}", f"trainer={trainer_name}"], output_dir=str(tmp_path))
    for name, value in SMALL.items():
        if name in config.model:
            config.model[name] = value
    torch.manual_seed(0)
    table, table_spec = rows_and_spec(model_name) if model_name in ROWS else (None, spec)
    model: Any = instantiate(config.model, _partial_=True, _convert_="all")(table_spec)
    trainer: Any = instantiate(config.trainer, _convert_="all")
    trainer.max_epochs, trainer.batch_size, trainer.max_steps = 2, 64, None
    view: Any = table or (data.view(model.view, vectors=spec.item_vectors) if model.view == "items" else data)
    context = RunContext(tmp_path, progress=False)
    if model_name not in CLAIMS[trainer_name]:
        with pytest.raises(GenrecError, match=f"{type(model).__name__}.*(Use|has none)"):
            trainer.fit(model, view, context)
        assert not (tmp_path / "checkpoints").exists()
        return
    before = [weight.detach().clone() for weight in model.parameters()] if isinstance(model, nn.Module) else []
    trainer.fit(model, view, context)
    metrics = trainer.test(model, view)
    assert metrics and all(np.isfinite(value) for value in metrics.values())
    assert any(name.startswith("test/") for name in metrics)
    if not trainable(model):
        return
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    saved = read_checkpoint(tmp_path / "checkpoints" / BEST)
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert read_checkpoint(tmp_path / "checkpoints" / LAST)["epoch"] == 2


def test_advanced_trains_what_makes_no_recommendations_by_its_loss(
    spec: DataSpec, data: Dataset, tmp_path: Path
) -> None:
    overrides = ["model=rqvae", "trainer=advanced", "trainer.monitor=val/loss", "trainer.max_epochs=2"]
    config = compose_config(overrides, output_dir=str(tmp_path))
    for name in ("hidden_dims", "latent_dim", "num_embeddings"):
        config.model[name] = SMALL[name]
    model: Any = instantiate(config.model, _partial_=True, _convert_="all")(spec)
    trainer: Any = instantiate(config.trainer, _convert_="all")
    result = trainer.fit(model, data.view("items", vectors=spec.item_vectors), RunContext(tmp_path, progress=False))
    assert len(result.history["val/loss"]) == 2 and result.best_epoch >= 1
