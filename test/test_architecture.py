"""docs/architecture.md lists every module in import order; the code must keep to it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Names of ROS; every message package is one too.
ROS = (
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "launch",
    "launch_ros",
    "message_filters",
    "rclpy",
    "rosidl_runtime_py",
    "sensor_msgs_py",
    "tf2_ros",
)
SLOW_TO_IMPORT = (
    "cv2",
    "diffusers",
    "matplotlib",
    "mujoco",
    "numpy",
    "open3d",
    "rclpy",
    "scipy",
    "torch",
    "transformers",
)
GENERATED = ("momap_ros.msg",)
# Optional, for encodings our own decoder does not know, in bags as well as in nodes; a clear error where it is missing.
ALLOWED_OUTSIDE = {("images.py", "cv_bridge")}


@pytest.fixture(scope="module")
def rows(repository: Path) -> list[str]:
    """Paths in the table, in its order, relative to momap_ros/."""
    page = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([\w/]+\.py)` \| \S", page, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def modules(repository: Path, tracked_files: list[Path]) -> dict[str, ast.Module]:
    """Path relative to momap_ros/ -> syntax tree of every module."""
    sources = [path for path in tracked_files if path.parts[0] == "momap_ros" and path.suffix == ".py"]
    return {
        path.relative_to("momap_ros").as_posix(): ast.parse((repository / path).read_text(encoding="utf-8"))
        for path in sources
    }


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of everything a module imports, inside functions too; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: expected an absolute import, got a relative one"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_run_by(name: str, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Yield the modules that importing a dotted name of our own runs: the packages on the way and the module itself."""
    parts = name.split(".")[1:]
    for length in range(len(parts) + 1):
        stem = "/".join(parts[:length])
        yield from (path for path in (f"{stem}/__init__.py".lstrip("/"), f"{stem}.py") if path in modules)


def is_ros(name: str) -> bool:
    """Tell whether a dotted name belongs to ROS; our generated messages do."""
    top = name.split(".")[0]
    return top in ROS or top.endswith("_msgs") or name.startswith(GENERATED)


def test_the_table_lists_every_module_once(rows: list[str], modules: dict[str, ast.Module]) -> None:
    missing, gone = sorted(modules.keys() - set(rows)), sorted(set(rows) - modules.keys())
    assert not missing, f"docs/architecture.md: add a row below everything the module imports: {missing}"
    assert not gone, f"docs/architecture.md: rows without a module (remove them, or add the files to git): {gone}"
    assert len(rows) == len(set(rows))


def test_imports_point_up_the_table(rows: list[str], modules: dict[str, ast.Module]) -> None:
    position = {path: index for index, path in enumerate(rows)}
    wrong = [
        f"{path} imports {target}"
        for path, tree in modules.items()
        for name in imported_names(tree)
        if name.split(".")[0] == "momap_ros" and not name.startswith(GENERATED)
        for target in files_run_by(name, modules)
        if {path, target} <= position.keys() and position[target] > position[path]
    ]
    assert not wrong, "docs/architecture.md: a module imports only what stands above it: " + "; ".join(wrong)


def test_every_import_of_our_own_exists(modules: dict[str, ast.Module]) -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in modules.items()
        for name in imported_names(tree)
        if name.startswith("momap_ros.") and not name.startswith(GENERATED)
        if len(list(files_run_by(name, modules))) < 2  # the root package alone
    ]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize(("folder", "library"), [("ros", "ROS"), ("simulation", "mujoco")])
def test_a_library_is_imported_in_one_folder(folder: str, library: str, modules: dict[str, ast.Module]) -> None:
    wrong = [
        f"{path} imports {name}"
        for path, tree in modules.items()
        if not path.startswith(f"{folder}/")
        for name in imported_names(tree)
        if (is_ros(name) if library == "ROS" else name.split(".")[0] == library)
        if (path, name.split(".")[0]) not in ALLOWED_OUTSIDE
    ]
    assert not wrong, f"only momap_ros/{folder}/ imports {library}: " + "; ".join(wrong)


@pytest.mark.parametrize(
    ("program", "allowed"),
    [("import momap_ros", ()), ("sys.argv = ['momap', '--help']; from momap_ros.cli import main; main()", ("numpy",))],
    ids=["import momap_ros", "momap --help"],
)
def test_starts_without_heavy_libraries(program: str, allowed: tuple[str, ...]) -> None:
    report = f"import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); {program}"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[0] == "LOADED"
    assert set(loaded).isdisjoint(set(SLOW_TO_IMPORT) - set(allowed))


def test_the_checks_find_what_they_look_for() -> None:
    tree = ast.parse("def f():\n    from momap_ros.ros import conversions\n    import geometry_msgs.msg\n")
    names = list(imported_names(tree))
    assert names == ["momap_ros.ros.conversions", "geometry_msgs.msg"]
    assert [is_ros(name) for name in names] == [False, True]
    known = dict.fromkeys(["__init__.py", "ros/__init__.py", "ros/conversions.py"], tree)
    assert list(files_run_by(names[0], known)) == ["__init__.py", "ros/__init__.py", "ros/conversions.py"]
