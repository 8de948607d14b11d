from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from row_toys import PlantedView

from genrec.balancing import GradNorm, UncertaintyWeights
from genrec.contracts import DataSpec, GenrecError, RunContext
from genrec.models.deepfm import DeepFM
from genrec.models.esmm import ESMM
from genrec.models.mmoe import MMoE
from genrec.trainers import CTRTrainer, MTLTrainer
from genrec.trainers.checkpoints import FINAL, read_checkpoint
from genrec.trainers.hardware import Hardware

TASKS = ("click", "like", "rating")
METHODS = ("none", "uwl", "gradnorm", "metabalance", "pcgrad", "dwa")


def model_of(view: PlantedView) -> Any:
    torch.manual_seed(0)
    return MMoE(DataSpec(features=view.features), embedding_dim=4, num_experts=3, expert_dims=[12], tower_dims=[6])


def context(folder: Path, **changes: Any) -> RunContext:
    optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.02)  # noqa: E731
    return RunContext(folder, seed=3, optimizer=optimizer, progress=False, **changes)


def trainer_of(method: Any, **options: Any) -> MTLTrainer:
    return MTLTrainer(**{"max_epochs": 4, "batch_size": 128, "balancing": method, "patience": None, **options})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_teaches_every_task_and_tells_its_weights(method, tmp_path):
    view, trainer = PlantedView(TASKS), trainer_of(method)
    model = model_of(view)
    result = trainer.fit(model, view, context(tmp_path))
    for name in TASKS:
        losses = result.history[f"train/loss/{name}"]
        assert losses[-1] < losses[0]
    tested = trainer.test(model, view)
    assert tested["test/like/auc"] > 0.8 and tested["test/click/auc"] > 0.65 and tested["test/rating/r2"] > 0.2
    weights = [result.history.get(f"train/weight/{name}") for name in TASKS]
    if method == "none":
        assert weights == [None] * 3
    else:
        assert all(len(values) == 4 for values in weights if values is not None) and None not in weights
        unlike = {values[-1] for values in weights if values}
        assert len(unlike) == 3 or method == "pcgrad"  # which leaves gradients alone that do not conflict


def test_without_balancing_it_is_the_plain_sum(tmp_path):
    view, found = PlantedView(TASKS), []
    for trainer in (trainer_of("none"), CTRTrainer(max_epochs=4, batch_size=128, patience=None)):
        model = model_of(view)
        trainer.fit(model, view, context(tmp_path / type(trainer).__name__))
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("fused", [False, True])
def test_weights_of_one_are_the_plain_sum_for_fused_optimizers_too(fused, tmp_path):
    """The weights of dwa are 1 in its first two epochs."""
    view, found = PlantedView(TASKS), []
    for method in ("none", "dwa"):
        model, given = model_of(view), context(tmp_path / method)
        given.optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.02, fused=fused)
        found.append(trainer_of(method, max_epochs=2).fit(model, view, given).history["train/loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("method", ["none", "uwl"])
def test_the_loss_is_compiled_where_it_is_summed(method, tmp_path, monkeypatch, caplog):
    calls = []

    def compiled(loss: Any) -> Any:
        return lambda batch: calls.append(len(batch)) or loss(batch)

    monkeypatch.setattr(torch, "compile", compiled)
    view, hardware = PlantedView(TASKS), Hardware(accelerator="cpu", compile=True)
    trainer_of(method, max_epochs=1).fit(model_of(view), view, context(tmp_path, hardware=hardware))
    assert calls == ([128] * 8 if method == "none" else [])
    assert ("hardware.compile=true is left out: trainer.balancing=uwl" in caplog.text) == (method == "uwl")


class Killed(BaseException):
    pass


class KilledInEpochThree(MTLTrainer):
    def on_epoch_start(self) -> None:
        if self.current_epoch == 3:
            raise Killed


class KilledInStepTwenty(MTLTrainer):
    """After the checkpoint of step 18, the second of epoch 3."""

    def after_batch(self, learner: Any, *, stepped: bool) -> None:
        super().after_batch(learner, stepped=stepped)
        if self.global_step == 20:
            raise Killed


@pytest.mark.parametrize("mortal", [KilledInEpochThree, KilledInStepTwenty])
@pytest.mark.parametrize("method", ["uwl", "gradnorm", "metabalance", "pcgrad", "dwa"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(method, mortal, tmp_path):
    view, options = PlantedView(TASKS), {"checkpoint_every_steps": 6}
    trainer_of(method, **options).fit(model_of(view), view, context(tmp_path / "whole"))
    with pytest.raises(Killed):
        mortal(max_epochs=4, batch_size=128, balancing=method, patience=None, **options).fit(
            model_of(view), view, context(tmp_path / "parts")
        )
    resumed = trainer_of(method, **options)
    resumed.fit(model_of(view), view, context(tmp_path / "parts", resume=True))
    assert resumed.current_epoch == 4
    whole, parts = (read_checkpoint(tmp_path / name / "checkpoints" / FINAL) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.parametrize("method", ["none", "gradnorm", "pcgrad"])
def test_epoch_by_epoch_is_the_same_run(method, tmp_path):
    view, models = PlantedView(TASKS), [model_of(PlantedView(TASKS)) for _ in range(2)]
    trainer_of(method, max_epochs=2).fit(models[0], view, context(tmp_path / "whole"))
    by_hand = trainer_of(method, max_epochs=2)
    by_hand.train_epoch(models[1], view, context(tmp_path / "parts"))
    by_hand.train_epoch()
    by_hand.finish()
    assert all(map(torch.equal, models[0].state_dict().values(), models[1].state_dict().values()))


@pytest.mark.parametrize("method", METHODS)
def test_the_balanced_gradient_is_clipped_and_the_weights_learn_from_whole_ones(method, tmp_path):
    """The optimizer gets what the balancer made, no longer than the bound; the balancer's own steps know no bound."""
    norms: dict[float | None, list[float]] = {}
    own: dict[float | None, Any] = {}

    class Watching(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = closure()
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms[bound].append(float(torch.nn.utils.get_total_norm(gradients)))
            return loss  # the model stays as it is, so that both runs see the same losses

    view = PlantedView(TASKS)
    for bound in (None, 0.01):
        norms[bound] = []
        trainer = trainer_of(method, max_epochs=1, gradient_clip_norm=bound, use_scheduler=False)
        given = context(tmp_path / str(bound))
        given.optimizer = lambda groups: Watching(groups, lr=1.0)
        trainer.fit(model_of(view), view, given)
        own[bound] = trainer.balancer.weights if method != "none" else None
    assert min(norms[None]) > 0.02
    assert max(norms[0.01]) <= 0.01 * 1.001
    assert own[None] == own[0.01]


def test_stops_on_the_task_and_in_the_direction_that_is_asked_for(tmp_path):
    view = PlantedView(TASKS)
    trainer = trainer_of("uwl", monitor="val/rating/rmse", max_epochs=6)
    result = trainer.fit(model_of(view), view, context(tmp_path))
    assert trainer.direction == "min"
    assert result.best_value == min(result.history["val/rating/rmse"])


def test_regularisation_is_not_lost(tmp_path):
    """Fault of an original: MetaBalance and GradNorm trained without the regularisation."""
    view, sizes = PlantedView(TASKS), {}
    for l2 in (0.0, 1.0):
        torch.manual_seed(0)
        model = MMoE(DataSpec(features=view.features), embedding_dim=4, num_experts=2, embedding_l2=l2)
        trainer_of("metabalance").fit(model, view, context(tmp_path / str(l2)))
        sizes[l2] = float(model.fields.weight.detach().square().mean())
    assert sizes[1.0] < 0.5 * sizes[0.0]


def test_a_method_may_have_settings_of_its_own(tmp_path):
    view, trainer = PlantedView(TASKS), trainer_of(GradNorm(alpha=1.5, lr=0.1), max_epochs=1)
    result = trainer.fit(model_of(view), view, context(tmp_path))
    weights = [result.history[f"train/weight/{name}"][-1] for name in TASKS]
    assert sum(weights) == pytest.approx(3)
    assert isinstance(trainer_of(UncertaintyWeights(lr=0.1)).balancer, UncertaintyWeights)


def test_steps_of_the_weights_are_logged(tmp_path):
    seen: list[tuple[int, float]] = []

    class Recording(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            if "train/weight/click" in metrics and step in (4, 8):
                seen.append((step, metrics["train/weight/click"]))

    view, trainer = PlantedView(TASKS), trainer_of("uwl", max_epochs=1, log_every_steps=4)
    trainer.fit(model_of(view), view, context(tmp_path, loggers=[Recording(str(tmp_path))]))
    first, last = seen[0], seen[-1]
    assert (first[0], last[0]) == (4, 8) and first[1] != last[1]


def test_what_cannot_be_balanced_is_refused(tmp_path):
    view = PlantedView(TASKS)
    with pytest.raises(GenrecError, match=r"compares the gradients of whole steps.*accumulate_grad_batches=1"):
        trainer_of("gradnorm", accumulate_grad_batches=2).fit(model_of(view), view, context(tmp_path))
    one = PlantedView()
    with pytest.raises(GenrecError, match=r"MMoE learns one here \(click\). Use trainer=ctr"):
        trainer_of("none").fit(model_of(one), one, context(tmp_path))
    with pytest.raises(GenrecError, match=r"DeepFM learns one here \(click\)"):
        trainer_of("none").fit(DeepFM(DataSpec(features=one.features)), one, context(tmp_path))
    pair = PlantedView(("click", "buy"))
    with pytest.raises(GenrecError, match=r"GradNorm needs last_shared.*model=mmoe"):  # before data are read
        trainer_of("gradnorm").check_model(ESMM(DataSpec(features=pair.features)))
    with pytest.raises(GenrecError, match=r"gradnrm.*gradnorm"):
        trainer_of("gradnrm")
    half = context(tmp_path, hardware=Hardware(accelerator="cpu", precision="16-mixed"))
    with pytest.raises(GenrecError, match=r"hardware.precision=16-mixed does not reach|Use bf16-mixed or 32-true"):
        trainer_of("uwl").fit(model_of(view), view, half)
    trainer_of("none", accumulate_grad_batches=2, max_epochs=1).fit(model_of(view), view, context(tmp_path))
