from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import GenrecError
from genrec.trainers.engine import build_engine
from genrec.trainers.hardware import Hardware
from genrec.trainers.simple import SimpleTrainer
from genrec.trainers.world import World


@pytest.mark.parametrize(
    ("given", "read"),
    [(16, "16-mixed"), (32, "32-true"), (64, "64-true"), ("32", "32-true"), ("bf16-mixed", "bf16-mixed")],
)
def test_precision(given: Any, read: str) -> None:
    assert Hardware(precision=given).precision == read


def test_gpus_is_an_older_name(caplog: pytest.LogCaptureFixture) -> None:
    assert (Hardware(gpus=0).accelerator, Hardware(gpus=0).devices) == ("cpu", 1)
    assert (Hardware(gpus=1).accelerator, Hardware(gpus=1).devices) == ("gpu", 1)
    assert Hardware(devices="auto").devices == 1
    assert "hardware.accelerator" in caplog.text


@pytest.mark.parametrize("options", [{"precision": "8"}, {"accelerator": "tpu"}, {"deterministic": "maybe"}])
def test_unknown_values_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GenrecError, match=next(iter(options))):
        Hardware(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(GenrecError, match="hardware=cpu"):
        _ = Hardware(accelerator="gpu").device


def test_prepare_sets_the_switches() -> None:
    threads = torch.get_num_threads()
    try:
        Hardware(accelerator="cpu", num_threads=1, deterministic=True).prepare()
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert float(torch.tensor(1e-40) * 1.0) == 0.0  # denormals are flushed
        Hardware(accelerator="cpu", deterministic=False).prepare()
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)


def test_evaluation_runs_in_training_s_precision() -> None:
    with Hardware(precision="bf16-mixed").autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="needs a machine with one GPU at most")
@pytest.mark.parametrize(
    "options", [{"num_threads": 0}, {"devices": 0}, {"devices": "two"}, {"devices": 2, "accelerator": "auto"}]
)
def test_impossible_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GenrecError, match=f"hardware.{next(iter(options))}="):
        Hardware(**options)


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_automatic_precision_is_bfloat16_where_it_is_fast(fast: bool, expected: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
    assert Hardware(accelerator="cpu", precision="auto").precision == expected


def test_devices_of_one_machine() -> None:
    assert Hardware(accelerator="cpu", devices=3).num_processes == 3
    assert Hardware(accelerator="cpu", devices="auto", strategy="ddp").num_processes == 1
    single = Hardware(accelerator="cpu", devices=3).alone()
    assert (single.num_processes, single.world.size) == (1, 1)


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_a_launcher_that_is_not_there_is_named(launcher: Any) -> None:
    with pytest.raises(GenrecError, match=rf"launcher={launcher}.*hardware=ddp"):
        Hardware(accelerator="cpu", strategy="ddp", launcher=launcher).join()


def test_what_is_trained_beside_is_held_whole() -> None:
    hardware = Hardware(accelerator="cpu", strategy="fsdp", devices=2)
    assert (hardware.undivided().strategy, hardware.strategy) == ("ddp", "fsdp")
    assert hardware.undivided().devices == 2
    assert Hardware(accelerator="cpu").undivided().strategy == "auto"


def test_several_processes_do_not_come_of_themselves(tmp_path: Path) -> None:
    hardware = Hardware(accelerator="cpu", devices=2)
    with pytest.raises(GenrecError, match="python -m genrec"):
        SimpleTrainer(max_epochs=1).fit(toy_model(), toy_view(), toy_context(tmp_path, hardware=hardware))


@pytest.mark.parametrize(("visible", "own"), [(1, 0), (8, 5)], ids=["a GPU for each task", "all GPUs for each"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_process_trains_on_its_own_gpu(strategy: Any, visible: int, own: int, monkeypatch: Any) -> None:
    """Lightning itself would count the GPUs of a machine, of which a process may see one."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1] if current else 0)
    hardware = Hardware(accelerator="gpu", devices=1, strategy=strategy)
    hardware.world = World(rank=13, size=16, local_rank=5, local_size=8)
    hardware.use_device_of(hardware.world)
    engine = build_engine(SimpleTrainer(), hardware, [])
    assert engine.strategy.root_device == hardware.device == torch.device("cuda", own)
    assert (engine.num_devices, engine.num_nodes, engine.world_size) == (8, 2, 16)
    assert (engine.global_rank, engine.local_rank, engine.node_rank) == (13, 5, 1)
