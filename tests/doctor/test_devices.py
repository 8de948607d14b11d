"""GPUs that are there and work, and those that do not: torch is told what to say of them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec.doctor import devices
from genrec.doctor.devices import check_arithmetic, check_gpus, check_torch, op_fault
from tests.doctor.places import places_in, raises, states

PLACES = places_in(Path())


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An NVIDIA driver on a machine whose torch finds no GPU."""
    path = tmp_path / "version"
    path.write_text("NVRM version")
    monkeypatch.setattr(devices, "DRIVER", path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return path


def test_this_torch_computes() -> None:
    (finding,) = check_torch(PLACES)
    assert finding.state == "ok" and str(torch.__version__) in finding.found
    assert op_fault(torch, "cpu") == "" and op_fault(torch, "cpu", torch.bfloat16) == ""


def test_two_torches_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "2.0.1")
    (finding,) = check_torch(PLACES)
    assert finding.state == "problem" and "2.0.1 is installed" in finding.found


def test_a_torch_that_does_not_compute_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "ones", raises(RuntimeError("no kernel\nmore lines")))
    (finding,) = check_torch(PLACES)
    assert finding.state == "problem" and finding.found.endswith("does not compute: no kernel")


def test_wrong_results_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    true_ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *sides, **options: 2 * true_ones(*sides, **options))
    assert op_fault(torch, "cpu") == "ones times ones gave 2048.0"


def test_a_machine_without_gpus_is_in_order(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    driver.unlink()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (finding,) = check_gpus(PLACES)
    assert finding.state == "ok" and "CPU" in finding.found


def test_a_gpu_that_this_build_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = check_gpus(PLACES)
    assert finding.state == "warning" and "built for CPUs only" in finding.found
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    (finding,) = check_gpus(PLACES)
    assert finding.state == "problem" and "CUDA 12.4" in finding.found


@pytest.mark.parametrize(("free", "state"), [(70e9, "ok"), (0.2e9, "warning")])
def test_every_gpu_is_tried(monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    answers: dict[str, Any] = {"cuda:0": "", "cuda:1": "no kernel image is available"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free, 80e9))
    monkeypatch.setattr(devices, "op_fault", lambda torch, device, dtype=None: answers[device])
    findings = list(check_gpus(PLACES))
    assert states(findings) == {"GPU 0": state, "GPU 1": "problem"}
    assert "Card 0" in findings[0].found and "80 GB" in findings[0].found and "no kernel image" in findings[1].found


def test_the_gpu_of_an_apple_machine_is_tried(monkeypatch: pytest.MonkeyPatch, driver: Path) -> None:
    driver.unlink()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    (finding,) = check_gpus(PLACES)
    assert finding.state == "problem"  # here there is none, whatever torch was made to say
    monkeypatch.setattr(devices, "op_fault", lambda *_: "")
    (finding,) = check_gpus(PLACES)
    assert finding.state == "ok" and "hardware=mps" in finding.found


@pytest.mark.parametrize("fast", [True, False])
def test_the_arithmetic_that_auto_chooses_is_told(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
    (finding,) = check_arithmetic(PLACES)
    assert finding.state == "ok" and ("by AMX" in finding.found) is fast


def test_bfloat16_that_does_not_compute_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "op_fault", lambda *_: "not implemented")
    (finding,) = check_arithmetic(PLACES)
    assert finding.state == "warning" and "32-true" in finding.remedy
