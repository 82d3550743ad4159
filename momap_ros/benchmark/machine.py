"""Where a measurement was made: processor, memory, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

LIBRARIES = (
    "momap_ros",
    "numpy",
    "opencv-python-headless",
    "scipy",
    "torch",
    "diffusers",
    "rosbags",
    "ros-rclpy",
    "ros-rmw-fastrtps-cpp",
)


def describe_machine() -> dict[str, str | int | float]:
    """Processor, cores this process may use, memory, load of the last minute, operating system."""
    memory_kib = int(_first_match(r"MemTotal:\s+(\d+)", Path("/proc/meminfo")) or 0)
    return {
        "processor": _first_match(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python, of LIBRARIES where they are installed as packages, and the name of a sourced ROS."""
    installed = {distribution.metadata["Name"]: distribution.version for distribution in distributions()}
    found = {"python": platform.python_version()} | {name: installed[name] for name in LIBRARIES if name in installed}
    if "ROS_DISTRO" in os.environ:
        found["ros_distro"] = os.environ["ROS_DISTRO"]
    return found


def describe_commit() -> str | None:
    """The commit of the source tree that is running; None where it is not a git checkout."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _first_match(pattern: str, path: Path) -> str | None:
    found = re.search(pattern, path.read_text(encoding="utf-8"))
    return found[1].strip() if found else None
