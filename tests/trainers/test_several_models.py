"""Models of every kind, trained by two processes: the first losses, the last weights and the metrics of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from several import in_two

from genrec.config import compose_config
from genrec.pipeline import _built, _data, _policy, prepare
from genrec.trainers.hardware import Hardware

ITEMS = ["data.source.num_users=60", "data.source.num_items=40", "trainer.batch_size=48"]
ROWS = ["data=synthetic_clicks", "data.source.num_rows=2000", "trainer.batch_size=256"]
NARROW = ["model.embedding_dim=8", "model.dropout=0"]
CODES = ["model=rqvae", "trainer=rqvae", "trainer.batch_size=10", "model.num_embeddings=6", "model.restart_after=0"]
RUNS: dict[str, list[str]] = {
    "deepfm": [*ROWS, "model=deepfm", "trainer=ctr", *NARROW],
    "fcn": [*ROWS, "model=fcn", "trainer=ctr", *NARROW],
    "mmoe": [*ROWS, "model=mmoe", "trainer=mtl", "data.tasks=[click,spend]", *NARROW],
    "pcgrad": [*ROWS, "model=mmoe", "trainer=mtl", "data.tasks=[click,spend]", "trainer.balancing=pcgrad", *NARROW],
    "gradnorm": [*ROWS, "model=mmoe", "trainer=mtl", "data.tasks=[click,spend]", "trainer.balancing=gradnorm", *NARROW],
    "lightgcn": [*ITEMS, "model=lightgcn", "trainer=advanced", "model.embedding_dim=8"],
    "xsimgcl": [*ITEMS, "model=xsimgcl", "trainer=advanced", "model.embedding_dim=8", "model.noise=0"],
    "sasrec": [*ITEMS, "model=sasrec", "trainer=advanced", *NARROW, "model.num_heads=1", "model.num_layers=1"],
    "in_batch": [*ITEMS, "model=gru4rec", "trainer=match", *NARROW, "model.loss=in_batch"],
    "rqvae": [*ITEMS, *CODES],
    "ema": [*ITEMS, *CODES, "model.codebook_update=ema"],
    "din": [*ROWS, "model=din", "trainer=ctr", *NARROW],
}


def figures(hardware: Hardware, folder: str, names: list[str]) -> dict[str, Any]:
    """What training for two epochs gives, by the name of the run."""
    return {name: _figures(hardware, Path(folder) / name, RUNS[name]) for name in names}


def _figures(hardware: Hardware, folder: Path, words: list[str]) -> dict[str, Any]:
    rank = hardware.world.rank
    common = ["trainer.max_epochs=2", "baselines=null", "progress=false", "optimizer=sgd", "optimizer.lr=0.05"]
    config = compose_config([*common, *words, f"output_dir={folder}", f"cache_dir={folder}/cache_{rank}"])
    context, trainer = _policy(config, hardware, folder, resume=False)
    prepared = prepare(config, context)
    model = _built(config, prepared)
    data = _data(prepared, model)
    losses: list[float] = []
    after = trainer.after_batch
    trainer.after_batch = lambda learner, **options: (losses.append(float(learner.latest)), after(learner, **options))
    trainer.item_vectors = prepared.spec.item_vectors
    trainer.fit(model, data, context)
    final = trainer.test(model, data, context)
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    return {"losses": losses, "final": final, "weights": weights}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    names = list(RUNS)
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    return figures(Hardware(accelerator="cpu"), str(one), names), in_two(figures, str(two), names)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one(found: Any, name: str) -> None:
    single, pair = found[0][name], [each[name] for each in found[1]]
    assert len(single["losses"]) >= 4
    for each in pair:
        np.testing.assert_allclose(each["losses"], single["losses"], rtol=1e-4)
        assert each["final"].keys() == single["final"].keys()
        for key, value in single["weights"].items():
            np.testing.assert_allclose(each["weights"][key], value, rtol=1e-3, atol=2e-5, err_msg=key)
        for key, value in single["final"].items():
            assert each["final"][key] == pytest.approx(value, rel=1e-3, abs=1e-3), key
    same_in_both(pair)


def same_in_both(pair: list[dict[str, Any]]) -> None:
    for key, value in pair[0]["weights"].items():
        np.testing.assert_array_equal(value, pair[1]["weights"][key], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param([*ITEMS, "model=vae", "trainer=advanced"], id="vae"),
        pytest.param([*ITEMS, *CODES[:-1], "model.restart_after=2"], id="restarts"),
        pytest.param([*ITEMS, "model=bpr_mf", "trainer=apr", "model.embedding_dim=8"], id="apr"),
    ],
)
def test_processes_stay_together_where_each_draws_for_itself(words: list[str], tmp_path: Path) -> None:
    """The numbers are not those of one process, but those of both are the same, and training goes down."""
    pair = in_two(_figures, tmp_path, words)
    assert pair[0]["losses"] == pair[1]["losses"] and pair[0]["final"] == pair[1]["final"]
    assert np.isfinite(pair[0]["losses"]).all()
    same_in_both(pair)


def test_sparse_gradients_are_refused(tmp_path: Path) -> None:
    words = [*RUNS["deepfm"], "model.sparse_gradients=true"]
    with pytest.raises(AssertionError, match="sparse_gradients=false"):
        in_two(_figures, tmp_path, words)
