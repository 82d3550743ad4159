"""The tree as a ROS workspace sees it: built by colcon (here with the wheels as the underlay), used as installed."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

# Set by the wheels' bootstrapper in this very process; a child must start without them, as from a shell.
BOOTSTRAP = {"LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONPATH"}


def environment() -> dict[str, str]:
    """Return the environment of a shell in which the wheels are the ROS installation."""
    inherited = {name: value for name, value in os.environ.items() if name not in BOOTSTRAP}
    path = f"{sys.prefix}/bin:{inherited['PATH']}"
    return {**inherited, "AMENT_PREFIX_PATH": sys.prefix, "CMAKE_PREFIX_PATH": sys.prefix, "PATH": path}


@pytest.fixture(scope="module")
def workspace(repository: Path, tracked_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("colcon", path=environment()["PATH"]) is None:
        pytest.skip("needs colcon and the ROS wheels: make setup")
    folder = tmp_path_factory.mktemp("workspace")
    for path in tracked_files:
        copy = folder / "src/momap_ros" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / path, copy)
    # Kilted has no wheel of ament_cmake_pytest; a ROS installation has it on every distribution.
    wheels = {distribution.name for distribution in importlib.metadata.distributions()}
    testing = "ON" if "ros-ament-cmake-pytest" in wheels else "OFF"
    arguments = [f"-DBUILD_TESTING={testing}", f"-DPython3_EXECUTABLE={sys.executable}"]
    command = ["colcon", "build", "--event-handlers", "console_direct+", "--cmake-args", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def run_in(workspace: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that has sourced the workspace, outside the repository."""
    script = f"source install/setup.bash && {command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=workspace, env=environment(), capture_output=True, text=True, timeout=60
    )


def test_modules_and_messages_come_from_the_install_space(workspace: Path) -> None:
    program = (
        "import momap_ros, momap_ros.geometry, momap_ros.msg as m; "
        "print(momap_ros.__file__, momap_ros.geometry.__file__, m.__file__, m.ObjectMotionArray().objects)"
    )
    done = run_in(workspace, f"python3 -c '{program}'")
    assert done.returncode == 0, done.stderr
    package, module, messages, objects = done.stdout.split()
    installed = workspace / "install/momap_ros/lib"
    assert all(Path(path).is_relative_to(installed) for path in (package, module, messages))
    assert objects == "[]"


def test_every_file_of_the_package_is_installed(workspace: Path, tracked_files: list[Path]) -> None:
    (package,) = (workspace / "install/momap_ros").glob("lib/python3*/site-packages/momap_ros")
    share = workspace / "install/momap_ros/share/momap_ros"
    expected = [package.parent / path for path in tracked_files if path.parts[0] == "momap_ros"]
    expected += [share / path for path in tracked_files if path.parts[0] in {"launch", "config", "rviz", "msg"}]
    expected.append(share / "config" / "fastdds.xml")
    assert [str(path) for path in expected if not path.is_file()] == []


def test_the_cmake_package_has_the_version_of_package_xml(workspace: Path) -> None:
    version = importlib.metadata.version("momap_ros")
    config = workspace / "install/momap_ros/share/momap_ros/cmake/momap_rosConfig-version.cmake"
    assert f'set(PACKAGE_VERSION "{version}")' in config.read_text()


def test_an_executable_starts(workspace: Path) -> None:
    done = run_in(workspace, "install/momap_ros/lib/momap_ros/bag_player --help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
