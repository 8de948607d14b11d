"""Two processes that hold a half of a model each train as one that holds all of it, and as two that hold it twice."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from several import in_two
from test_several_models import CODES, ITEMS, NARROW, ROWS, _figures
from torch.distributed.tensor import DTensor
from trainer_toys import NUM_ITEMS, ToyModel, toy_context, toy_model, toy_view

from genrec.contracts import GenrecError, Losses, SequenceBatch
from genrec.optimizers import Lamb, Muon
from genrec.sharding import own_part
from genrec.trainers import learner
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import BaseTrainer
from genrec.trainers.callbacks.gradient_norm import GradientNorm
from genrec.trainers.callbacks.profiler import ProfilerWindow
from genrec.trainers.callbacks.sample_predictions import SamplePredictions
from genrec.trainers.callbacks.weight_average import WeightAverage
from genrec.trainers.checkpoints import LAST, read_checkpoint
from genrec.trainers.hardware import Hardware

STACK = [*NARROW, "model.num_heads=2", "model.num_layers=2"]
RUNS: dict[str, list[str]] = {
    "sasrec": [*ITEMS, "model=sasrec", *STACK],
    "text": [*ITEMS, "model=hstu", *STACK, "model.text=true"],
    "untied": [*ITEMS, "model=gru4rec", "model.embedding_dim=8", "model.dropout=0", "model.tie=false"],
    "tiger": [
        *ITEMS,
        "model=tiger",
        "trainer=tiger",
        "model.embedding_dim=16",
        "model.dropout=0",
        "optimizer.lr=0.002",
    ],
    "rpg": [*ITEMS, "model=rpg", "model.embedding_dim=16", "model.dropout=0", "optimizer.lr=0.002"],
    "deepfm": [*ROWS, "model=deepfm", "trainer=ctr", *NARROW],
    "din": [*ROWS, "model=din", "trainer=ctr", *NARROW],
    "lightgcn": [*ITEMS, "model=lightgcn", "model.embedding_dim=8"],
    "in_batch": [*ITEMS, "model=gru4rec", "trainer=match", *NARROW, "model.loss=in_batch"],
}
OFTEN = ["sgd", "adamw", "lamb"]
QUICK = ["sasrec", "deepfm"]
OPTIMIZERS: dict[str, Any] = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.3, momentum=0.9, nesterov=True, fused=True),
    "adam": functools.partial(torch.optim.Adam, lr=0.01, fused=True),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "nadam": functools.partial(torch.optim.NAdam, lr=0.01),
    "radam": functools.partial(torch.optim.RAdam, lr=0.01),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.003),
    "adagrad": functools.partial(torch.optim.Adagrad, lr=0.05, fused=True),
    "lamb": functools.partial(Lamb, lr=0.01),
}


def divided(hardware: Hardware) -> Hardware:
    if hardware.world.size > 1:
        hardware.strategy = "fsdp"
    return hardware


# -- models of every kind


def figures(hardware: Hardware, folder: str, names: list[str]) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two processes has: rounding grows fast in training
    try:
        return {name: _figures(divided(hardware), Path(folder) / name, RUNS[name]) for name in names}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("names", [QUICK, pytest.param(sorted({*RUNS} - {*QUICK}), marks=pytest.mark.slow)])
def test_parts_train_as_the_whole(tmp_path: Path, names: list[str]) -> None:
    single = figures(Hardware(accelerator="cpu"), str(tmp_path / "one"), names)
    pair = in_two(figures, str(tmp_path / "two"), names)
    for name in names:
        same_models(single[name], [found[name] for found in pair])


def same_models(one: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    assert len(one["losses"]) >= 4
    for found in pair:
        np.testing.assert_allclose(found["losses"][:12], one["losses"][:12], rtol=2e-5)
        np.testing.assert_allclose(found["losses"], one["losses"], rtol=1e-3)
        for key, value in one["weights"].items():
            # Rounding grows with every step: the first losses are the sharp comparison.
            assert np.linalg.norm(found["weights"][key] - value) <= 1e-2 * np.linalg.norm(value) + 1e-6, key
            np.testing.assert_array_equal(found["weights"][key], pair[0]["weights"][key], err_msg=key)
        assert found["final"] == {key: pytest.approx(value, rel=2e-3, abs=2e-3) for key, value in one["final"].items()}


# -- optimizers, clipping, accumulation, averages and what is kept


class Weighed(AdvancedTrainer):
    """Notes losses, and how many numbers this process holds of weights and of the optimizer's state."""

    losses: list[float]
    held: tuple[int, int]

    def after_batch(self, learner: Any, *, stepped: bool) -> None:
        super().after_batch(learner, stepped=stepped)
        self.losses.append(float(learner.latest))
        if stepped:
            weights = [own_part(weight).numel() for weight in learner.trained.parameters()]
            states = learner.trainer.optimizers[0].state.values()
            kept = [own_part(value).numel() for state in states for value in state.values() if value.ndim]
            self.held = sum(weights), sum(kept)
        if len(self.losses) == getattr(self, "falls_at", None):
            raise Fallen


class Fallen(BaseException):
    pass


def trained(
    hardware: Hardware, folder: str, name: str, model: Any = None, falls_at: int | None = None, **changes: Any
) -> dict[str, Any]:
    trainer = Weighed(max_epochs=3, batch_size=24, accumulate_grad_batches=2, gradient_clip_norm=0.5,
                      gradient_clip_value=0.3, checkpoint_every_steps=3)  # fmt: skip
    trainer.losses, trainer.held = [], (0, 0)
    trainer.falls_at = falls_at  # pyright: ignore[reportAttributeAccessIssue]
    sink = Sink()
    changes = {"callbacks": [WeightAverage(decay=0.5), GradientNorm(every_steps=1)], "loggers": [sink], **changes}
    context = toy_context(Path(folder), hardware=hardware, optimizer=OPTIMIZERS[name], **changes)
    model = toy_model(dropout=0.0) if model is None else model
    try:
        result = trainer.fit(model, toy_view(), context)
    except Fallen:
        return {}
    return {
        "losses": trainer.losses,
        "norms": sink.norms,
        "history": result.history,
        "final": trainer.test(model, toy_view(), context),
        "weights": {key: value.detach().numpy() for key, value in model.state_dict().items()},
        "held": trainer.held,
        "whole": not any(isinstance(weight, DTensor) for weight in model.parameters()),
    }


class Sink(DummyLogger):
    """A logger that keeps the norms of gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[float] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.norms += [value for name, value in metrics.items() if name == "train/gradient_norm"]


def with_optimizers(hardware: Hardware, folder: str, names: list[str]) -> dict[str, Any]:
    return {name: trained(divided(hardware), f"{folder}/{name}", name) for name in names}


@pytest.fixture(scope="module")
def optimized(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]], Path, Path]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    single = with_optimizers(Hardware(accelerator="cpu"), str(one), OFTEN)
    return single, in_two(with_optimizers, str(two), OFTEN), one, two


def same(found: dict[str, Any], one: dict[str, Any], steps: slice = slice(None)) -> None:
    np.testing.assert_allclose(found["losses"], one["losses"][steps], rtol=1e-4)
    for key, value in one["weights"].items():
        np.testing.assert_allclose(found["weights"][key], value, rtol=1e-3, atol=2e-5, err_msg=key)
    assert found["final"] == {key: pytest.approx(value, rel=1e-3, abs=1e-3) for key, value in one["final"].items()}


@pytest.mark.parametrize("name", OFTEN)
def test_optimizers_step_as_with_whole_weights(optimized: Any, name: str) -> None:
    same_steps(optimized[0][name], [each[name] for each in optimized[1]])


@pytest.mark.slow
def test_other_optimizers_step_as_with_whole_weights(tmp_path: Path) -> None:
    names = sorted({*OPTIMIZERS} - {*OFTEN})
    single = with_optimizers(Hardware(accelerator="cpu"), str(tmp_path / "one"), names)
    pair = in_two(with_optimizers, str(tmp_path / "two"), names)
    for name in names:
        same_steps(single[name], [found[name] for found in pair])


def same_steps(one: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    assert one["losses"][-1] < 0.95 * one["losses"][0]
    for found in pair:
        same(found, one)
        assert found["history"] == {key: pytest.approx(values, rel=1e-3) for key, values in one["history"].items()}
        assert found["whole"]
    assert len(one["norms"]) > 10
    np.testing.assert_allclose(pair[0]["norms"], one["norms"], rtol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_each_process_holds_a_half(optimized: Any, name: str) -> None:
    one, pair = optimized[0][name], [each[name] for each in optimized[1]]
    weights, state = one["held"]
    assert state == 2 * weights
    assert [sum(found["held"][part] for found in pair) for part in (0, 1)] == [weights, state]
    assert max(found["held"][1] for found in pair) < 0.51 * state


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_checkpoints_are_those_of_one_process(optimized: Any, name: str) -> None:
    one, two = (read_checkpoint(folder / name / "checkpoints" / LAST) for folder in optimized[2:])
    assert two["model"].keys() == one["model"].keys()
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-3, atol=2e-5)
    assert two["optimizer"]["state"].keys() == one["optimizer"]["state"].keys()
    for number, state in one["optimizer"]["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(two["optimizer"]["state"][number][key], value, rtol=1e-3, atol=1e-5)
    (averages,) = [state["average"] for state in two["callbacks"].values() if "average" in state]
    (expected,) = [state["average"] for state in one["callbacks"].values() if "average" in state]
    for average, value in zip(averages, expected, strict=True):
        torch.testing.assert_close(average, value, rtol=1e-3, atol=2e-5)


# -- going on, from parts to parts, to a whole, and from a whole

STEPS = 34


def fallen(hardware: Hardware, folder: str) -> None:
    trained(divided(hardware), folder, "adamw", falls_at=STEPS)


def gone_on(hardware: Hardware, folder: str, strategy: str) -> dict[str, Any]:
    hardware.strategy = strategy  # pyright: ignore[reportAttributeAccessIssue]
    return trained(hardware, folder, "adamw", resume=True)


@pytest.mark.parametrize(
    "way",
    [
        "parts -> parts",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("parts -> twice", "parts -> one")),
        "one -> parts",
    ],
)
def test_a_run_goes_on_however_its_model_is_held(optimized: Any, tmp_path: Path, way: str) -> None:
    one = optimized[0]["adamw"]
    if way.startswith("one"):
        fallen(Hardware(accelerator="cpu"), str(tmp_path))
    else:
        in_two(fallen, str(tmp_path))
    if way.endswith("one"):
        pair = [gone_on(Hardware(accelerator="cpu"), str(tmp_path), "auto")]
    else:
        pair = in_two(gone_on, str(tmp_path), "ddp" if way.endswith("twice") else "fsdp")
    for found in pair:
        count = len(found["losses"])
        assert len(one["losses"]) - STEPS <= count < len(one["losses"])
        same(found, one, slice(-count, None))


# -- weights that some processes, or none, have a gradient for


class Seldom(ToyModel):
    """``odd`` is used by rows of odd users alone, ``unused`` by none."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.odd = torch.nn.Embedding(NUM_ITEMS, 1)
        self.unused = torch.nn.Linear(3, 2)

    def loss(self, batch: SequenceBatch) -> Losses:
        losses = super().loss(batch)
        rows = batch.users % 2 == 1
        if not rows.any():
            return losses
        extra = self.odd(batch.items[rows]).squeeze(-1)[batch.targets[rows] >= 0].square().sum()
        return Losses(losses.total + extra / max(losses.count, 1), losses.count, losses.parts)


def seldom(hardware: Hardware, folder: str) -> dict[str, Any]:
    torch.manual_seed(0)
    return trained(divided(hardware), folder, "adamw", model=Seldom())


def test_weights_that_are_seldom_used_are_averaged_too(tmp_path: Path) -> None:
    one = seldom(Hardware(accelerator="cpu"), str(tmp_path / "one"))
    torch.manual_seed(0)
    start = Seldom().unused.weight.detach().numpy()
    for found in in_two(seldom, str(tmp_path / "two")):
        same(found, one)
        np.testing.assert_array_equal(found["weights"]["unused.weight"], start)  # neither moved nor decayed


# -- callbacks that look at the whole model


def watched(hardware: Hardware, folder: str) -> dict[str, str]:
    """The files of callbacks that this process has written, into a folder of its own."""
    own = Path(folder) / str(hardware.world.rank)
    callbacks = [WeightAverage(decay=0.5), SamplePredictions(num_users=6, k=4), ProfilerWindow(skip_batches=1)]
    context = toy_context(own, hardware=divided(hardware), optimizer=OPTIMIZERS["adamw"], callbacks=callbacks)
    BaseTrainer(max_epochs=2, batch_size=24).fit(toy_model(dropout=0.0), toy_view(), context)
    found = [path for name in ("samples", "profile") for path in sorted(own.glob(f"{name}/*"))]
    return {path.name: path.read_text() if path.suffix == ".txt" else "" for path in found}


def test_callbacks_see_the_model_as_it_is_and_the_leader_writes(tmp_path: Path) -> None:
    one = watched(Hardware(accelerator="cpu"), str(tmp_path / "one"))
    first, second = in_two(watched, str(tmp_path / "two"))
    samples = ["epoch_0001.txt", "epoch_0002.txt"]
    assert [first[name] for name in samples] == [one[name] for name in samples]
    assert len({text.partition("\n")[2] for text in map(one.get, samples) if text}) == 2  # it has learned meanwhile
    assert first.keys() == one.keys() == {*samples, "operators.txt", "trace.json"}
    assert second == {}


def places(hardware: Hardware, folder: str) -> list[str]:
    """Where the whole model is put together. The device of the training has a number here, as GPUs have."""
    found = []
    plain = learner.bring_together

    def noted(trained: torch.nn.Module, model: torch.nn.Module, device: torch.device) -> None:
        found.append(str(device))
        plain(trained, model, device)

    learner.bring_together = noted
    learner.Learner.device = property(lambda self: torch.device("cpu", 0))  # pyright: ignore[reportAttributeAccessIssue]
    trainer = BaseTrainer(max_epochs=1, batch_size=24, max_steps=9, checkpoint_every_steps=4)
    trainer.fit(toy_model(), toy_view(), toy_context(Path(folder), hardware=divided(hardware)))
    return found


def test_a_checkpoint_within_an_epoch_leaves_the_device_to_the_training(tmp_path: Path) -> None:
    assert in_two(places, str(tmp_path)) == [["cpu", "cpu", "cpu:0"]] * 2


# -- what cannot be divided


class Changing(ToyModel):
    def on_train_epoch_end(self) -> None:
        pass


class Scaled(ToyModel):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = torch.nn.Parameter(torch.tensor(1.0))


def refusals(hardware: Hardware, folder: str) -> dict[str, str]:
    hardware = divided(hardware)
    muon = functools.partial(Muon, lr=0.01)
    adafactor = functools.partial(torch.optim.Adafactor, lr=0.01)
    halves = Hardware(accelerator="cpu", precision="16-mixed", strategy="fsdp")
    compiled = Hardware(accelerator="cpu", compile=True, strategy="fsdp")
    halves.world = compiled.world = hardware.world
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "changing": (Changing(), {}),
        "number": (Scaled(), {}),
        "muon": (ToyModel(), {"optimizer": muon}),
        "adafactor": (ToyModel(), {"optimizer": adafactor}),
        "halves": (ToyModel(), {"hardware": halves}),
        "compiled": (ToyModel(), {"hardware": compiled}),
    }
    said = {}
    for name, (model, options) in cases.items():
        context = toy_context(Path(folder) / name, **{"hardware": hardware, **options})
        with pytest.raises(GenrecError) as raised:
            AdvancedTrainer(max_epochs=1).fit(model, toy_view(), context)
        said[name] = str(raised.value)
    for name, words in {"codes": [*ITEMS, *CODES], "balanced": MULTI}.items():
        with pytest.raises(GenrecError) as raised:
            _figures(hardware, Path(folder) / name, words)
        said[name] = str(raised.value)
    return said


MULTI = [*ROWS, "model=mmoe", "trainer=mtl", "data.tasks=[click,spend]", "trainer.balancing=pcgrad", *NARROW]


def test_what_cannot_be_divided_is_told(tmp_path: Path) -> None:
    words = {
        "changing": "Changing changes its weights outside of the optimizer. Use hardware=ddp",
        "number": "single numbers cannot be divided (temperature)",
        "muon": "Muon steps by whole matrices",
        "adafactor": "Adafactor steps by whole matrices",
        "halves": "not 16-mixed",
        "compiled": "hardware.compile=false",
        "codes": "VectorQuantizer (quantizer",
        "balanced": "averages the gradients of whole models itself",
    }
    for said in in_two(refusals, str(tmp_path)):
        for name, part in words.items():
            assert part in said[name], name
