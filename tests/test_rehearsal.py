"""Faults of a configuration are told before any data is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class

from genrec.config import compose_config, instantiate
from genrec.config.command_line import preflight
from genrec.contracts import GenrecError
from genrec.data.sources.synthetic import SyntheticSource
from genrec.pipeline import execute
from genrec.rehearsal import rehearse

PARTS = ["hardware.strategy=fsdp", "hardware.devices=2"]
FAULTS = {
    "type": (["trainer.max_epochs=ten"], "trainer.max_epochs=ten: expected a whole number of at least 1."),
    "range": (["optimizer.lr=-0.001"], "optimizer.lr=-0.001: expected a number greater than 0."),
    "entry of a list": (["optimizer.betas=[0.9,1.5]"], "optimizer.betas=[0.9,1.5]: expected a list of 2"),
    "name of an option": (["trainer=advancd"], "no trainer 'advancd'. Did you mean advanced?"),
    "name of a key": (["trainer.patiense=3"], "trainer.patiense"),
    "name of a metric": (["trainer=advanced", "trainer.monitor=val/recall"], "Did you mean val/recall@20?"),
    "missing key": (["tokenizer=file"], "tokenizer.path: it has no default"),
    "keys that exclude each other": (
        ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"],
        "optimizer.nesterov=true: it needs a momentum above 0",
    ),
    "model and option": (["model=tiger", "model.score_items=true"], "needs model.normalize=catalogue (it is level)"),
    "width and heads": (["model=sasrec", "model.embedding_dim=50", "model.num_heads=4"], "must be a multiple of"),
    "rate of a model": (
        ["model=tiger", "model.dropout=1.5"],
        "model.dropout=1.5: expected a number of at least 0 and below 1",
    ),
    "trainer and model": (["model=rqvae", "trainer=tiger"], "trainer=tiger scores recommendations"),
    "trainer and training": (["model=vae", "trainer=online"], "trainer=online learns next items in their order"),
    "trainer and tables": (["model=popularity", "trainer=apr"], "trainer=apr perturbs embedding tables"),
    "trainer and schedule": (["trainer=simple", "scheduler=plateau"], "SimpleTrainer does not validate"),
    "borders of the split": (
        ["split=global_time", "split.val_from=0.9", "split.test_from=0.8"],
        "0 < val_from < test_from is needed, got 0.9 and 0.8",
    ),
    "rows for a model of histories": (
        ["data=synthetic_clicks", "model=tiger"],
        "Tiger learns from interactions of users",
    ),
    "histories for a model of rows": (["model=deepfm"], "DeepFM predicts labels of the rows of a table"),
    "labels of a model": (["model=deepfm", "data=adult"], "DeepFM learns one label, and the data has income, never_m"),
    "sequence of a model": (["model=din", "data=frappe"], "DIN"),
    "split of a table": (["model=deepfm", "data=frappe", "split=leave_one_out"], "split=random_rows"),
    "metric of rows": (
        ["model=deepfm", "trainer=ctr", "data=frappe", "monitor=val/acu"],
        "trainer.monitor=val/acu: that is not measured of label. Did you mean val/auc?",
    ),
    "type of a field": (
        ["model=deepfm", "data=frappe", "data.features.user=spars"],
        "data.features.user=spars: no type of field. Did you mean sparse?",
    ),
    "option of a field": (
        ["model=deepfm", "data=frappe", "data.features.user={type: sparse, mincount: 2}"],
        "data.features.user.mincount: no such option. Did you mean min_count?",
    ),
    "name of a method": (
        ["model=mmoe", "trainer=mtl", "data=adult", "trainer.balancing=gradnrom"],
        "no such method. Did you mean gradnorm?",
    ),
    "name of a loss": (["model=dssm", "model.loss=pairwize"], "Did you mean pairwise?"),
    "tasks of a trainer": (["model=mmoe", "trainer=mtl", "data=adult", "data.tasks=[income]"], "MMoE learns one here"),
    "a model in parts": (["model=rqvae", "trainer=rqvae", *PARTS], "VectorQuantizer (quantizer.levels.0) changes its"),
    "an optimizer of parts": (["model=tiger", "optimizer=muon", *PARTS], "Muon steps by whole matrices"),
    "precision": (["hardware.precision=8"], "hardware.precision='8' is not known"),
}


class ReadError(Exception):
    """Data was read."""


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Any) -> Any:
        raise ReadError

    monkeypatch.setattr(SyntheticSource, "load", load)


def attempt(overrides: list[str], folder: Path) -> None:
    common = [f"runs_dir={folder}", f"cache_dir={folder / 'cache'}", "logger=none", "hardware=cpu", "progress=false"]
    execute(compose_config([*common, *overrides], output_dir=folder / "run"))


@pytest.mark.usefixtures("_no_data")
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_told_before_data_is_read(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, message = FAULTS[kind]
    if preflight(overrides) is not None:
        assert message in capsys.readouterr().err
        return
    with pytest.raises(GenrecError) as error:
        attempt(overrides, tmp_path)
    assert message in str(error.value)


@pytest.mark.usefixtures("_no_data")
def test_a_sound_configuration_goes_on_to_the_data(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        attempt(["model=tiger", "trainer=advanced"], tmp_path)


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("conf/model").glob("*.yaml")))
def test_every_model_can_be_rehearsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built, that is, and shown to the trainer: the default settings of none ask more than the invented shop has."""
    wanted = Path(f"conf/model/{name}.yaml").read_text(encoding="utf-8").split("_target_: ")[1].split()[0]
    rows = ["data=synthetic_clicks", "data.tasks=[click,buy]"] if get_class(wanted).view == "rows" else []
    if rows and get_class(wanted).learns_tasks == 1:
        rows[1] = "data.tasks=[click]"
    config = compose_config([f"model={name}", *rows])
    seen = []
    trainer = instantiate(config.trainer, _convert_="all")
    monkeypatch.setattr(trainer, "check_model", seen.append)
    rehearse(config, trainer, None)
    assert [type(model) for model in seen] == [get_class(wanted)]


@pytest.mark.parametrize("given", ["target: item", "table: item", "table: item, target: item"])
def test_a_sequence_may_be_weighed_by_a_field_that_is_inferred(given: str) -> None:
    table = ["data=table", "data.path=nowhere.csv", "data.labels=click", "model=din", "trainer=ctr"]
    hist = f"data.features={{hist: {{type: sequence, pooling: attention, {given}}}}}"
    config = compose_config([*table, hist])
    rehearse(config, instantiate(config.trainer, _convert_="all"), None)
    with pytest.raises(GenrecError, match="attention weighs a sequence by a sparse field"):
        rehearse(compose_config([*table, hist, "data.infer=false"]), instantiate(config.trainer, _convert_="all"), None)
