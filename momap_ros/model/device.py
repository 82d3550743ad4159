"""Where a network runs, and in which precision it is fast there."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

# Instructions without which a CPU emulates bfloat16, slower than single precision.
_CPU_FLAGS = ("amx_bf16", "avx512_bf16")


def choose_device(name: str) -> str:
    """The device that a setting names; "auto" is CUDA where there is some, else the CPU."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def fast_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in single precision."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    info = Path("/proc/cpuinfo")
    return info.is_file() and any(flag in info.read_text(encoding="utf-8").split() for flag in _CPU_FLAGS)


def training_autocast(device: torch.device) -> torch.autocast:
    """Bfloat16 for what is safe in it, where that is fast; where a CPU emulates it, steps take ten times as long."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device.type))


def keep_numpy_single_threaded() -> None:
    """Leave the cores to torch: numpy's and scipy's matrix products run in the thread that asks for them, from now on.

    The products beside the network take milliseconds, but the threads that OpenBLAS starts for one go on to spin, while
    the network would need their cores. torch's own libraries keep their threads.
    """
    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "blas" and "torch" not in Path(library.filepath).parts:
            library.set_num_threads(1)
