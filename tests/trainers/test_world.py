"""Two processes with half of every batch find what one process finds; all of them find the same."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from several import in_two
from trainer_toys import same_files, toy_context, toy_model, toy_view

from genrec.artifacts import write_json
from genrec.contracts import GenrecError
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.evidence import ListEvidence
from genrec.trainers.hardware import Hardware
from genrec.trainers.world import ALONE

OPTIONS: dict[str, Any] = {
    "max_epochs": 4,
    "batch_size": 24,
    "eval_batch_size": 16,
    "lr_patience": 1,
    "accumulate_grad_batches": 2,
}


def talk(hardware: Hardware) -> dict[str, Any]:
    world = hardware.world
    rank = world.rank
    return {
        "gather": world.gather(rank * 10),
        "in_turn": world.in_turn([f"{index}" for index in world.share(5)]),
        "agreed": world.agreed(f"of {rank}"),
        "told": world.told(f"by {rank}"),
        "sum": world.sum(torch.tensor([1.0, rank])).tolist(),
        "leads": world.leads,
        "array": world.array(np.arange(6, dtype=np.int16).reshape(2, 3) if world.leads else None),
        "brought": world.brought(rank),
    }


def test_what_processes_tell_each_other() -> None:
    found = in_two(talk)
    assert [one.pop("leads") for one in found] == [True, False]
    for found_array in (one.pop("array") for one in found):
        np.testing.assert_array_equal(found_array, np.arange(6, dtype=np.int16).reshape(2, 3))
    assert [one.pop("brought") for one in found] == [[0, 1], []]
    expected = {
        "gather": [0, 10],
        "in_turn": ["0", "1", "2", "3", "4"],
        "agreed": "of 0",
        "told": "by 0",
        "sum": [2.0, 1.0],
    }
    assert found == [expected, expected]


def test_one_process_needs_to_tell_nobody() -> None:
    assert ALONE.gather(3) == [3] and ALONE.in_turn([1, 2]) == [1, 2] and ALONE.agreed(4) == ALONE.told(4) == 4
    assert ALONE.met(torch.device("cpu")) is ALONE
    with ALONE.leader_first():
        pass


class Watching(AdvancedTrainer):
    """Remembers the loss of every step."""

    losses: list[float]

    def after_batch(self, learner: Any, *, stepped: bool) -> None:
        super().after_batch(learner, stepped=stepped)
        self.losses.append(float(learner.latest))


def trained(hardware: Hardware, folder: str, dropout: float = 0.0, kind: Any = None, **changes: Any) -> dict[str, Any]:
    """A run of the toy model; dropout draws other units in other processes, so comparisons do without."""
    trainer = (kind or Watching)(**{**OPTIONS, **changes.pop("options", {})})
    trainer.losses = []
    optimizer = functools.partial(torch.optim.SGD, lr=0.5)
    context = toy_context(Path(folder), hardware=hardware, optimizer=optimizer, **changes)
    model, view = toy_model(dropout=dropout), toy_view()
    evidence = trainer.collect = ListEvidence(view, [5, 10], num_samples=3)
    result = trainer.fit(model, view, context)
    final = trainer.test(model, view, context)
    if hardware.world.leads:
        write_json(Path(folder) / "metrics.json", {"final": final, "history": result.history})
    return {
        "losses": trainer.losses,
        "history": result.history,
        "epochs": result.epochs,
        "pruned": result.pruned,
        "best": result.best_epoch,
        "final": final,
        "weights": {name: value.detach().numpy() for name, value in model.state_dict().items()},
        "evidence": evidence.metrics().to_dict(as_series=False),
        "samples": evidence.lists,
        "lists": trainer.predict(model, view, k=5).items.numpy(),
    }


def several(hardware: Hardware, *arguments: Any, **changes: Any) -> dict[str, Any]:
    return trained(hardware, *arguments, **changes)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]], Path, Path]:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    return trained(Hardware(accelerator="cpu"), str(one)), in_two(trained, str(two)), one, two


def test_steps_weights_and_metrics_are_those_of_one_process(both: Any) -> None:
    single, pair, _, _ = both
    for found in pair:
        np.testing.assert_allclose(found["losses"], single["losses"], rtol=1e-5)
        assert found["history"].keys() == single["history"].keys() and found["final"].keys() == single["final"].keys()
        for name, values in single["history"].items():
            np.testing.assert_allclose(found["history"][name], values, rtol=1e-5, err_msg=name)
        for name, value in single["final"].items():
            assert found["final"][name] == pytest.approx(value, rel=1e-5), name
        for name, value in single["weights"].items():
            np.testing.assert_allclose(found["weights"][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert single["losses"][-1] < 0.8 * single["losses"][0]  # so that equal is not merely unmoved


def test_all_processes_end_with_the_same(both: Any) -> None:
    first, second = both[1]
    assert first["losses"] == second["losses"] and first["final"] == second["final"]
    for name, value in first["weights"].items():
        np.testing.assert_array_equal(value, second["weights"][name])


def test_every_user_is_counted_once(both: Any) -> None:
    """Weights differ in their last digits, so that two items of one score may change places."""
    single, pair, _, _ = both
    for found in pair:
        assert found["evidence"].keys() == single["evidence"].keys()
        assert found["evidence"]["user"] == single["evidence"]["user"]
        for name, values in single["evidence"].items():
            assert np.mean(np.array(found["evidence"][name]) != np.array(values)) < 0.02, name
        assert found["samples"].keys() == single["samples"].keys()
        assert found["lists"].shape == single["lists"].shape and np.mean(found["lists"] != single["lists"]) < 0.02


def test_only_the_leader_writes(both: Any) -> None:
    _, _, one, two = both
    names = [sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) for folder in (one, two)]
    assert names[0] == names[1]


def test_both_stop_early_and_go_back_to_the_best(tmp_path: Path) -> None:
    changes: Any = {"options": {"max_epochs": 30, "patience": 2, "monitor": "val/loss", "min_delta": 0.05}}
    single = trained(Hardware(accelerator="cpu"), str(tmp_path / "one"), **changes)
    pair = in_two(functools.partial(several, **changes), str(tmp_path / "two"))
    assert single["epochs"] < 30
    assert [(found["epochs"], found["best"]) for found in pair] == [(single["epochs"], single["best"])] * 2
    assert pair[0]["final"]["val/loss"] == pytest.approx(single["final"]["val/loss"], rel=1e-5)


def watched(hardware: Hardware, folder: str) -> dict[str, Any]:
    """Whoever prunes talks to the leader alone."""
    watch = (lambda epoch, value: epoch == 2) if hardware.world.leads else None
    return trained(hardware, folder, watch=watch)


def test_a_pruned_run_ends_in_all_processes(tmp_path: Path) -> None:
    assert [(found["epochs"], found["pruned"]) for found in in_two(watched, str(tmp_path))] == [(2, True)] * 2


def resumed(hardware: Hardware, folder: str) -> dict[str, Any]:
    """Stops within the second epoch as if it had been killed, and goes on from the last checkpoint."""
    killed(hardware, folder, 0.2)
    hardware.world.wait()  # a checkpoint may still be on its way; with a process that is dead it is not
    return trained(hardware, folder, 0.2, resume=True, options={"checkpoint_every_steps": 3})


def killed(hardware: Hardware, folder: str, dropout: float) -> None:
    class Killed(BaseException):
        pass

    class Falling(Watching):
        def after_batch(self, learner: Any, *, stepped: bool) -> None:
            super().after_batch(learner, stepped=stepped)
            if len(self.losses) == 60:
                raise Killed

    options = {**OPTIONS, "checkpoint_every_steps": 3}
    trainer = Falling(**options)
    trainer.losses = []
    optimizer = functools.partial(torch.optim.SGD, lr=0.5)
    context = toy_context(Path(folder), hardware=hardware, optimizer=optimizer)
    with pytest.raises(Killed):
        trainer.fit(toy_model(dropout=dropout), toy_view(), context)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """With dropout: each process goes on with the random numbers that it would have had."""
    changes: Any = {"dropout": 0.2, "options": {"checkpoint_every_steps": 3}}
    whole = in_two(functools.partial(several, **changes), str(tmp_path / "whole"))
    parts = in_two(resumed, str(tmp_path / "parts"))
    assert 0 < len(parts[0]["losses"]) < len(whole[0]["losses"])
    same_files(tmp_path / "whole", tmp_path / "parts", ["best_model.pt", "final_model.pt"])
    assert parts[0]["final"] == parts[1]["final"] == whole[0]["final"]


def in_folders_of_their_own(hardware: Hardware, folder: str) -> str:
    """Each process has another checkpoint, as on machines that do not share the output folder."""
    own = Path(folder) / str(hardware.world.rank)
    killed(hardware, str(own), 0.0)  # the leader alone writes
    with pytest.raises(GenrecError) as raised:
        trained(hardware, str(own), resume=True)
    return str(raised.value)


def test_processes_that_read_different_checkpoints_are_told(tmp_path: Path) -> None:
    for said in in_two(in_folders_of_their_own, str(tmp_path)):
        assert "(its step: process 0: 30, process 1: none)" in said and "share it between them" in said


def gone_on(hardware: Hardware, folder: str, dropout: float) -> dict[str, Any]:
    """Goes on with what another number of processes has left; ``draws`` are what this process would draw next."""
    draws = []

    class Drawing(Watching):
        def train_step(self, model: Any, batch: Any) -> Any:
            if not draws:
                draws.extend(torch.rand(3, generator=_copy_of_the_generator()).tolist())
            return super().train_step(model, batch)

    found = trained(hardware, folder, dropout, kind=Drawing, resume=True, options={"checkpoint_every_steps": 3})
    return {**found, "draws": draws}


def _copy_of_the_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return generator


@pytest.mark.parametrize("numbers", ["2 -> 1", "1 -> 2"])
def test_a_run_goes_on_with_another_number_of_processes(both: Any, tmp_path: Path, numbers: str) -> None:
    single = both[0]
    if numbers == "2 -> 1":
        in_two(killed, str(tmp_path), 0.0)
        found = [gone_on(Hardware(accelerator="cpu"), str(tmp_path), 0.0)]
    else:
        killed(Hardware(accelerator="cpu"), str(tmp_path), 0.0)
        found = in_two(gone_on, str(tmp_path), 0.0)
        assert found[0]["draws"] != found[1]["draws"]  # or both would drop the same units for their rows
    for one in found:
        assert 0 < len(one["losses"]) < len(single["losses"])
        np.testing.assert_allclose(one["losses"], single["losses"][-len(one["losses"]) :], rtol=1e-5)
        assert one["final"] == {name: pytest.approx(value, rel=1e-5) for name, value in single["final"].items()}


class Wide(AdvancedTrainer):
    """Has no room for the first batch."""

    steps = 0

    def train_step(self, model: Any, batch: Any) -> Any:
        self.steps += 1
        if self.steps == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")
        return super().train_step(model, batch)


def without_room(hardware: Hardware, folder: str) -> tuple[str, int]:
    trainer = Wide(**OPTIONS)
    with pytest.raises(GenrecError) as raised:
        trainer.fit(toy_model(), toy_view(), toy_context(Path(folder), hardware=hardware))
    return str(raised.value), trainer.steps


def test_half_a_batch_is_advised_where_the_others_would_have_to_try_it_too(tmp_path: Path) -> None:
    for said, steps in in_two(without_room, str(tmp_path)):
        assert (
            "with trainer.batch_size=12 trainer.accumulate_grad_batches=4, which takes steps of the same size" in said
        )
        assert "trial" not in said and steps == 1
