"""`momap info`: versions, devices, ROS, bundled models."""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from momap_ros.commands.common import add_command, say

DESCRIPTION = """
Say what this installation is: versions, where the model would run, whether ROS is there, which models are bundled.

example:
  momap info
  momap info --words        every word the bundled model has learned; others only tell sentences apart

A bug report should begin with this output.
"""

LIBRARIES = (
    "numpy",
    "scipy",
    "opencv-python-headless",
    "rosbags",
    "torch",
    "diffusers",
    "onnxruntime",
    "open3d-cpu",
    "mujoco",
)


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands, "info", "versions, devices, ROS, models", usage="[--words]", description=DESCRIPTION, run=run
    )
    parser.add_argument("--words", action="store_true", help="list the words of the bundled models")


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    say(f"momap_ros   {_version('momap_ros')}, Python {platform.python_version()}, {platform.platform()}")
    say("libraries   " + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))
    say(f"devices     {_devices()}")
    say(f"ROS 2       {_ros()}")
    for line in _models(with_words=arguments.words):
        say(line)
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _devices() -> str:
    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPU cores"
    if find_spec("torch") is None:
        return f"{cores}; no torch: install momap_ros[model] to forecast"
    import torch

    if not torch.cuda.is_available():
        return f"{cores}, no CUDA: forecasts run on the CPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{cores}, CUDA: {', '.join(names)}"


def _ros() -> str:
    if find_spec("rclpy") is None:
        return "absent: the nodes and `momap demo` over DDS need `make setup` or a sourced ROS 2 installation"
    sourced = os.environ.get("ROS_DISTRO")
    origin = f"{sourced}, sourced" if sourced else f"Python wheels, rclpy {_version('ros-rclpy')}"
    has_messages = find_spec("momap_ros.msg") is not None
    return (
        f"{origin}; momap_ros messages {'built' if has_messages else 'not built: run `make setup` or `colcon build`'}"
    )


def _models(*, with_words: bool) -> list[str]:
    weights = Path(__file__).resolve().parents[1] / "weights"
    folders = sorted(path.parent for path in weights.glob("*/momap.json"))
    if not folders:
        return [f"models      none bundled in {weights}; give --checkpoint DIR"]
    lines = []
    for folder in folders:
        words = json.loads((folder / "scene_encoder" / "config.json").read_text(encoding="utf-8"))["vocabulary"]
        files = sorted(folder.rglob("*.safetensors"))
        size_mb = sum(file.stat().st_size for file in files) / 1e6
        count = sum(_parameters(file) for file in files)
        facts = f"{count / 1e6:.1f} M parameters, {size_mb:.1f} MB, {len(words)} words"
        lines += [f"model       {folder.name}: {facts}; {folder}", f"            {_card_line(folder)}"]
        if with_words:
            lines.append("            " + " ".join(sorted(words)))
    return lines


def _parameters(file: Path) -> int:
    """Number of values in a safetensors file, read from its header: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for axis in entry["shape"]:
                count *= axis
            total += count
    return total


def _card_line(folder: Path) -> str:
    """The first sentence of the model card below its title."""
    card = folder / "README.md"
    if not card.is_file():
        return "no model card"
    text = card.read_text(encoding="utf-8")
    if text.startswith("---\n"):  # metadata, as model hubs want it
        text = text.split("\n---\n", 1)[-1]
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in lines if line and not line.startswith(("#", "|", ">", "!"))), "empty model card")
