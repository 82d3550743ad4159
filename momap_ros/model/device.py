"""Where a network runs, and in which precision it is fast there."""

from __future__ import annotations

from pathlib import Path

import torch

# Instructions without which a CPU emulates bfloat16, slower than single precision.
_CPU_FLAGS = ("amx_bf16", "avx512_bf16")


def choose_device(name: str) -> str:
    """The device that a setting names; "auto" is CUDA where there is some, else the CPU."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def fast_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in single precision."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    info = Path("/proc/cpuinfo")
    return info.is_file() and any(flag in info.read_text(encoding="utf-8").split() for flag in _CPU_FLAGS)
