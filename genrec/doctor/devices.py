"""What a run can compute on: torch and its build, GPUs, and the arithmetic that is fast here."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from genrec.doctor.findings import Finding, Places, ok, one_line, problem, warning

DRIVER = Path("/proc/driver/nvidia/version")
LITTLE_DEVICE_MEMORY = 1e9
_INSTALL = (
    "Install a build that fits: see https://pytorch.org/get-started/locally, or pip install --force-reinstall torch"
)


def check_torch(_: Places) -> Iterator[Finding]:
    """Torch is imported, is the one that is installed, and computes."""
    import torch

    installed, imported = metadata.version("torch"), str(torch.__version__)
    if installed.partition("+")[0] != imported.partition("+")[0]:
        found = f"{imported} is imported from {Path(torch.__file__).parent}, but {installed} is installed"
        yield problem("torch", found, "Leave one of them: pip install --force-reinstall torch")
        return
    fault = op_fault(torch, "cpu")
    if fault:
        yield problem("torch", f"{imported} does not compute: {fault}", _INSTALL)
    else:
        yield ok("torch", f"{imported}, built for {_built_for(torch)}")


def check_gpus(_: Places) -> Iterator[Finding]:
    """Every GPU that the machine has can be used by this build of torch."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _gpu(torch, index)
    elif DRIVER.exists() and torch.version.cuda is None and torch.version.hip is None:
        yield warning("GPU", "there is an NVIDIA driver, and this torch is built for CPUs only", _INSTALL)
    elif DRIVER.exists():
        found = f"there is an NVIDIA driver, but torch (CUDA {torch.version.cuda}) finds no GPU"
        yield problem(
            "GPU", found, "Ask nvidia-smi; a newer driver, or an older build of torch, is what is mostly missing."
        )
    elif torch.backends.mps.is_available():
        fault = op_fault(torch, "mps")
        if fault:
            yield problem("GPU", f"Apple's GPU does not compute: {fault}", "Use the CPU: hardware=cpu")
        else:
            yield ok("GPU", "Apple's, usable: hardware=mps")
    else:
        yield ok("GPU", "none; runs are computed by the CPU")


def check_arithmetic(_: Places) -> Iterator[Finding]:
    """Whether bfloat16 is worth its name here."""
    import torch

    from genrec.trainers.hardware import fast_bfloat16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fault = op_fault(torch, str(device), torch.bfloat16)
    if fault:
        yield warning("bfloat16", f"it does not compute: {fault}", "Stay with hardware.precision=32-true")
    elif fast_bfloat16(device):
        how = "by AMX" if device.type == "cpu" else "on the GPU"
        yield ok("bfloat16", f"fast here, {how}; hardware.precision=auto uses it")
    else:
        yield ok("bfloat16", "not faster than float32 here; hardware.precision=auto stays with float32")


def op_fault(torch: Any, device: str, dtype: Any = None) -> str:
    """Why a small product cannot be computed on a device; empty where it comes out right."""
    try:
        ones = torch.ones(8, 8, device=device, dtype=dtype)
        value = float((ones @ ones).sum())
        return "" if value == 512.0 else f"ones times ones gave {value}"
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        return one_line(str(error).partition("\n")[0])


def _gpu(torch: Any, index: int) -> Finding:
    name = f"GPU {index}"
    fault = op_fault(torch, f"cuda:{index}")
    if fault:
        return problem(name, f"{torch.cuda.get_device_name(index)} does not compute: {fault}", _INSTALL)
    from genrec.report.scales import format_bytes

    free, total = torch.cuda.mem_get_info(index)
    found = f"{torch.cuda.get_device_name(index)}, {format_bytes(free)} of {format_bytes(total)} free"
    if free < LITTLE_DEVICE_MEMORY:
        return warning(
            name, found, "See who holds the memory: nvidia-smi; another one is chosen by CUDA_VISIBLE_DEVICES=1"
        )
    return ok(name, found)


def _built_for(torch: Any) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return "Apple machines" if platform.system() == "Darwin" else "CPUs"
