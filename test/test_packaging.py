"""package.xml, setup.py, CMakeLists.txt, msg/ and what gets installed say the same."""

from __future__ import annotations

import ast
import email
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MESSAGES = (
    "Articulation",
    "MotionHint",
    "MotionHints",
    "ObjectHypothesis",
    "ObjectMotion",
    "ObjectMotionArray",
    "PointTrajectories",
)
# ROS packages whose Python module has another name.
MODULES = {"tf2_ros_py": "tf2_ros"}
FIELD = re.compile(r"^(?P<type>[\w/]+(?:\[\d*\])?) +(?P<name>\w+) +# (?P<comment>.+)$")
CONSTANT = re.compile(r"^\w+ +[A-Z_]+=\d+ +# .+$")
# A unit in brackets, a shape, or what is counted or named.
UNIT_OR_SHAPE = re.compile(r"\[.+?\]|shape \(|\bnumber\b|\bid\b|range \[")
UNITLESS = {"std_msgs/Header", "string", "bool"}


@dataclass(frozen=True)
class Wheel:
    """What pip would install: metadata and the paths of the files."""

    metadata: Message
    files: set[str]


@pytest.fixture(scope="module")
def manifest(repository: Path) -> ElementTree.Element:
    return ElementTree.parse(repository / "package.xml").getroot()


@pytest.fixture(scope="module")
def wheel(repository: Path, tracked_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in tracked_files:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / path, source / path)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*build, "-w", target, source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = target.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        return Wheel(email.message_from_bytes(archive.read(metadata)), set(names))


def test_pip_and_package_xml_agree(manifest: ElementTree.Element, wheel: Wheel) -> None:
    for tag, key in [("name", "Name"), ("version", "Version"), ("description", "Summary"), ("license", "License")]:
        assert wheel.metadata[key] == manifest.findtext(tag)


def test_the_installed_version_is_the_trees(manifest: ElementTree.Element) -> None:
    assert importlib.metadata.version("momap_ros") == manifest.findtext("version"), "run make setup"


def test_pip_installs_every_file_of_the_package(wheel: Wheel, tracked_files: list[Path]) -> None:
    in_package = {path.as_posix() for path in tracked_files if path.parts[0] == "momap_ros"}
    assert in_package - wheel.files == set(), "setup.py: package_data, or a missing __init__.py"
    definitions = {Path(name).name for name in wheel.files if "/data/share/momap_ros/msg/" in name}
    assert definitions == {f"{name}.msg" for name in MESSAGES}


def top_level_names(requirements: list[str]) -> set[str]:
    """Return what some distributions can be imported as; those that are not installed by their own name."""
    names = set()
    for requirement in requirements:
        name = Requirement(requirement).name
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:  # an extra, or not for this version of Python
            names.add(name.replace("-", "_"))
            continue
        names |= {file.parts[0].split(".")[0] for file in files}
    return names


def test_every_import_is_a_declared_dependency(
    manifest: ElementTree.Element, wheel: Wheel, repository: Path, tracked_files: list[Path]
) -> None:
    packages = [element.text or "" for tag in ("depend", "exec_depend") for element in manifest.findall(tag)]
    # A C++ package and its Python half, NAME_py, hold one Python module.
    declared = {*packages, *(name.removesuffix("_py") for name in packages)}
    declared |= top_level_names(wheel.metadata.get_all("Requires-Dist", []))
    declared |= sys.stdlib_module_names | {"momap_ros"}
    undeclared = set()
    for path in tracked_files:
        if path.suffix != ".py" or path.parts[0] not in {"momap_ros", "launch"}:
            continue
        for node in ast.walk(ast.parse((repository / path).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            undeclared |= {f"{path} imports {name}" for name in names if name.split(".")[0] not in declared}
    assert not undeclared, "declare it in package.xml (ROS) or setup.py (others)"


def test_the_dependency_table_names_every_dependency_and_its_licence(wheel: Wheel, repository: Path) -> None:
    section = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Dependencies")[2]
    rows = re.findall(r"^\| ([\w, -]+) \| ([\w, .-]+) \| .+ \| \d.+ \|$", section, flags=re.MULTILINE)
    licences = {name: licence for names, licence in rows for name in names.split(", ")}
    required = {canonicalize_name(Requirement(text).name) for text in wheel.metadata.get_all("Requires-Dist", [])}
    assert licences.keys() == required
    for name, licence in licences.items():
        try:
            stated = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:  # an extra, or not for this version of Python
            continue
        fields = [text for key in ("License-Expression", "License", "Classifier") for text in stated.get_all(key) or []]
        text = " ".join(fields).replace("Python Software Foundation", "PSF")
        for word in licence.split(", "):
            assert word.split("-")[0] in text, f"{name}: CONTRIBUTING.md says {word}, its metadata does not"


def test_every_ros_wheel_is_pinned(repository: Path) -> None:
    lists = sorted((repository / "requirements").glob("ros-*.txt"))
    assert [path.name for path in lists] == [
        "ros-jazzy-build.txt", "ros-jazzy.txt", "ros-kilted-build.txt", "ros-kilted.txt",
    ]  # fmt: skip
    for path in lists:
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert lines
        assert [line for line in lines if not re.fullmatch(r"[\w\[\]-]+==[\d.]+", line)] == []


def test_cmake_generates_and_declares_what_msg_holds(manifest: ElementTree.Element, repository: Path) -> None:
    text = (repository / "CMakeLists.txt").read_text()
    assert re.findall(r'"msg/(\w+)\.msg"', text) == sorted(path.stem for path in (repository / "msg").iterdir())
    used = {
        field.split("/")[0]
        for path in (repository / "msg").iterdir()
        for field in re.findall(r"^([a-z_]+/\w+)", path.read_text(), flags=re.MULTILINE)
    } - {"momap_ros"}
    (listed,) = re.findall(r"DEPENDENCIES ([\w ]+)", text)
    assert set(listed.split()) == used
    assert used <= {element.text for element in manifest.findall("depend")}


def test_cmake_installs_every_executable(repository: Path) -> None:
    executables = {path.name for path in (repository / "scripts").iterdir() if path.suffix == ""}
    assert executables == {"bag_player", "forecast_node", "markers_node", "momap_nodes", "segmentation_node"}
    listed = re.findall(r"^  scripts/(\w+)$", (repository / "CMakeLists.txt").read_text(), flags=re.MULTILINE)
    assert set(listed) == executables
    for name in executables:
        assert os.access(repository / "scripts" / name, os.X_OK)
        # `env python3` follows the active virtual environment, where torch is.
        assert (repository / "scripts" / name).read_text().startswith("#!/usr/bin/env python3\n")


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_says_its_unit_or_shape(name: str, repository: Path) -> None:
    lines = (repository / f"msg/{name}.msg").read_text().splitlines()
    fields = [line for line in lines if line and not line.startswith("#") and not CONSTANT.match(line)]
    assert fields
    for line in fields:
        match = FIELD.match(line)
        assert match, f"{name}: expected TYPE NAME # COMMENT, got {line!r}"
        assert match["type"] in UNITLESS or UNIT_OR_SHAPE.search(match["comment"]), f"{name}.{match['name']}"
        if match["type"].endswith("]"):
            assert "shape (" in match["comment"], f"{name}.{match['name']}"


@pytest.mark.ros
@pytest.mark.parametrize("name", MESSAGES)
def test_generated_messages_have_the_fields_of_their_definition(name: str, repository: Path) -> None:
    messages = pytest.importorskip("momap_ros.msg")
    defined = re.findall(r"^[\w/\[\]]+ +(\w+) ", (repository / f"msg/{name}.msg").read_text(), flags=re.MULTILINE)
    assert list(getattr(messages, name).get_fields_and_field_types()) == defined, "run make setup"


def message_round_trip(message: Any) -> Any:  # noqa: ANN401  (generated classes have no common type)
    serialization = importlib.import_module("rclpy.serialization")
    return serialization.deserialize_message(serialization.serialize_message(message), type(message))


@pytest.mark.ros
def test_trajectories_survive_the_wire() -> None:
    messages = pytest.importorskip("momap_ros.msg")
    positions = np.arange(2 * 3 * 4 * 3, dtype=np.float32) / 7
    positions[5] = np.nan
    message = messages.PointTrajectories(num_hypotheses=2, num_points=3, num_steps=4, image_width=640, image_height=480)
    message.header.frame_id = "camera_color_optical_frame"
    message.time_step.nanosec = 100_000_000
    message.positions.frombytes(positions.data.cast("B"))
    message.object_ids.extend([0, 1, 4_294_967_295])
    message.pixels.extend([0, 0, 639, 479, 65535, 1])
    back = message_round_trip(message)
    np.testing.assert_array_equal(np.frombuffer(back.positions, np.float32), positions)  # NaN included
    assert list(back.object_ids) == [0, 1, 4_294_967_295]
    assert list(back.pixels) == [0, 0, 639, 479, 65535, 1]
    assert (back.header, back.time_step, back.num_steps) == (message.header, message.time_step, 4)
    assert len(back.confidence) == 0


@pytest.mark.ros
def test_object_motions_survive_the_wire() -> None:
    messages = pytest.importorskip("momap_ros.msg")
    geometry = importlib.import_module("geometry_msgs.msg")
    motion = messages.ObjectMotion(id=3, label="cup", moving_probability=0.75, rigid=True, valid=True)
    motion.direction_flags_16 = np.array([-1, 0, 1], dtype=np.int8)
    motion.poses = [geometry.Pose(), geometry.Pose(position=geometry.Point(x=0.1, y=-0.2, z=0.3))]
    motion.residual.extend([0.0, 0.25])
    message = messages.ObjectMotionArray(model_name="small", objects=[motion, messages.ObjectMotion(id=4)])
    back = message_round_trip(message)
    assert back == message
    assert back.objects[0].direction_flags_16.tolist() == [-1, 0, 1]
    assert back.objects[0].poses[1].position.y == -0.2
    # The identity rotation is the default: an object without a fit needs no special case.
    assert back.objects[0].poses[0].orientation.w == 1.0


def run_make(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Without what a make that runs these tests hands down.
    inherited = {"AMENT_PREFIX_PATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ROS_DISTRO"}
    clean = {name: value for name, value in os.environ.items() if name not in inherited}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=repository, env={**clean, **environment}, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "bench"])
def test_make_refuses_a_sourced_ros(target: str, repository: Path) -> None:
    assert run_make(repository, "-n", target).returncode == 0
    refused = run_make(repository, "-n", target, ROS_DISTRO="jazzy")
    assert refused.returncode == 2
    assert "colcon build" in refused.stderr


def test_make_help_lists_every_target(repository: Path) -> None:
    listed = run_make(repository).stdout
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (repository / "Makefile").read_text(), flags=re.MULTILINE)
    assert [line.split()[1] for line in listed.splitlines()] == phony.split()


def test_setup_names_what_it_expected(repository: Path) -> None:
    for variables, expected in [
        ({"ROS_DISTRO_WHEELS": "humble"}, "expected jazzy or kilted, got 'humble'"),
        ({"PYTHON": "no-such-python"}, "expected Python 3.10, 3.11 or 3.12, got no-such-python"),
    ]:
        done = subprocess.run(
            [repository / "scripts/setup.sh", "venv"],
            env={"PATH": "/usr/bin:/bin", **variables},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert expected in done.stderr
