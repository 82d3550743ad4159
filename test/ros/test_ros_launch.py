"""Everything in launch/, config/ and rviz/ except launch itself, which is no Python wheel: names, parameters, files."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from ros_harness import ConstantVelocityForecaster, start

from momap_ros.config import (
    ForecastConfig,
    ForecastNodeConfig,
    InputConfig,
    MarkersConfig,
    NodeConfig,
    ObjectMotionConfig,
    SegmentationConfig,
    Settings,
)
from momap_ros.ros.bag_player import _parser
from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.markers_node import MarkersNode
from momap_ros.ros.parameters import named_fields
from momap_ros.ros.segmentation_node import SegmentationNode

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
CAMERA_INPUTS = {"color/image_raw", "depth/image_raw", "color/camera_info"}

# executable -> settings groups of its node.
GROUPS: dict[str, list[type[Settings]]] = {
    "segmentation_node": [NodeConfig, InputConfig, SegmentationConfig],
    "forecast_node": [ForecastNodeConfig, InputConfig, SegmentationConfig, ForecastConfig, ObjectMotionConfig],
    "markers_node": [MarkersConfig],
    "bag_player": [],
}


def declared(executable: str) -> dict[str, Any]:
    """Parameter -> default of a node, with what rclpy declares itself."""
    fields = {name: field.default for group in GROUPS[executable] for name, field in named_fields(group)}
    return {**fields, "use_sim_time": False}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def constants(tree: ast.AST) -> list[str]:
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def own_nodes(tree: ast.Module) -> dict[str, dict[str, ast.expr]]:
    """Executable -> arguments of the Node actions of this package."""
    arguments = [keywords(call) for call in calls(tree, "Node")]
    return {
        ast.literal_eval(found["executable"]): found
        for found in arguments
        if ast.literal_eval(found["package"]) == "momap_ros"
    }


def assigned(tree: ast.Module) -> dict[str, ast.expr]:
    """Module-level name -> what is assigned to it."""
    return {
        ast.unparse(target): statement.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    }


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_import_launch_and_nothing_of_ours(path: Path) -> None:
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {str(module).split(".")[0] for module in modules} <= {
        "__future__",
        "pathlib",
        "yaml",
        "launch",
        "launch_ros",
    }


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_start_existing_executables(path: Path) -> None:
    executables = own_nodes(parsed(path))
    assert executables
    for executable in executables:
        assert (ROOT / "scripts" / executable).is_file()
        assert executable in GROUPS


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_configurations_are_declared(path: Path) -> None:
    tree = parsed(path)
    arguments = {ast.literal_eval(call.args[0]) for call in calls(tree, "DeclareLaunchArgument")}
    used = {call.args[0].value for call in calls(tree, "LaunchConfiguration") if isinstance(call.args[0], ast.Constant)}
    assert used <= arguments
    assert all("description" in keywords(call) for call in calls(tree, "DeclareLaunchArgument"))


def test_momap_launch_has_the_documented_arguments() -> None:
    tree = parsed(ROOT / "launch" / "momap.launch.py")
    arguments = {ast.literal_eval(call.args[0]) for call in calls(tree, "DeclareLaunchArgument")}
    assert arguments == {"namespace", "params_file", "use_sim_time", "camera", "prompt", "rviz"}
    forwarded = ast.literal_eval(assigned(parsed(ROOT / "launch" / "bag.launch.py"))["FORWARDED"])
    assert set(forwarded) <= arguments


def test_parameters_in_launch_files_are_declared_by_their_nodes() -> None:
    tree = parsed(ROOT / "launch" / "momap.launch.py")
    names = assigned(tree)
    checked = set()
    for executable, arguments in own_nodes(tree).items():
        sources = arguments["parameters"]
        assert isinstance(sources, ast.List)
        for source in sources.elts:
            value = names[ast.unparse(source)]
            if isinstance(value, ast.Dict):
                keys = {ast.literal_eval(key) for key in value.keys if key is not None}
                assert keys <= set(declared(executable)), executable
                checked |= keys
    assert checked == {"use_sim_time", "input.rectified", "forecast.prompt", "instances_source"}


def test_files_named_in_launch_files_exist() -> None:
    tree = parsed(ROOT / "launch" / "momap.launch.py")
    paths = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and ast.unparse(node).startswith("SHARE")
    ]
    assert len(paths) >= 4
    for path in paths:
        assert ROOT.joinpath(*re.findall(r"'([^']+)'", path)).exists(), path
    assert (ROOT / "launch" / "momap.launch.py").is_file()


def test_options_given_to_the_bag_player_exist() -> None:
    tree = parsed(ROOT / "launch" / "bag.launch.py")
    options = {value for value in constants(tree) if value.startswith("--")}
    assert options == {"--rate", "--wait", "--loop"}
    known = {option for action in _parser()._actions for option in action.option_strings}
    assert options <= known


def test_remapped_names_are_topics_of_the_nodes(ros: Ros) -> None:
    arguments = {"context": ros.context, "use_global_arguments": False}
    started = {
        "segmentation_node": ros.add(SegmentationNode(**arguments)),
        "forecast_node": ros.add(
            ForecastNode(
                ConstantVelocityForecaster, cli_args=["--ros-args", "-p", "instances_source:=topic"], **arguments
            )
        ),
    }
    assert all(start(node) for node in started.values())
    markers = ros.add(MarkersNode(**arguments))
    subscribed = {
        executable: {subscription.topic_name.lstrip("/") for subscription in node.subscriptions}
        for executable, node in {**started, "markers_node": markers}.items()
    }
    tree = parsed(ROOT / "launch" / "momap.launch.py")
    for executable, found in own_nodes(tree).items():
        sources = {
            ast.literal_eval(pair.elts[0]) for pair in ast.walk(found["remappings"]) if isinstance(pair, ast.Tuple)
        }
        names = CAMERA_INPUTS | sources if "CAMERA_REMAPPINGS" in ast.unparse(found["remappings"]) else sources
        assert names <= subscribed[executable], executable
    assert set(ast.literal_eval(assigned(tree)["INPUTS"])) == CAMERA_INPUTS
    published = {
        publisher.topic_name.lstrip("/") for node in (*started.values(), markers) for publisher in node.publishers
    }
    targets = {
        ast.literal_eval(pair.elts[1])
        for found in own_nodes(tree).values()
        for pair in ast.walk(found["remappings"])
        if isinstance(pair, ast.Tuple)
    }
    assert targets <= published
    displays = yaml.safe_load((ROOT / "rviz" / "momap.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    assert len(shown) == 3
    assert shown <= published


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "cameras").glob("*.yaml")), ids=lambda path: path.stem)
def test_camera_presets_name_every_input(path: Path) -> None:
    preset = yaml.safe_load(path.read_text())
    assert set(preset) == {"remappings", "rectified"}
    assert set(preset["remappings"]) == CAMERA_INPUTS
    assert all(topic.startswith("/") for topic in preset["remappings"].values())
    assert isinstance(preset["rectified"], bool)


def test_presets_are_the_documented_ones() -> None:
    presets = {path.stem for path in (ROOT / "config" / "cameras").glob("*.yaml")}
    assert {"realsense", "azure_kinect", "zed", "bag"} <= presets


@pytest.mark.parametrize("uncommented", [False, True])
def test_values_in_the_parameter_file_are_declared_defaults(*, uncommented: bool) -> None:
    text = (ROOT / "config" / "momap.yaml").read_text()
    if uncommented:
        text = re.sub(r"^(\s+)# (\w+: )", r"\1\2", text, flags=re.MULTILINE)
    content = yaml.safe_load(text)
    assert set(content) == {"/**", "/**/forecast_node", "/**/markers_node"}
    count = 0
    for pattern, section in content.items():
        executable = pattern.split("/")[-1] if "node" in pattern else "segmentation_node"
        for name, value in flattened(section["ros__parameters"]).items():
            default = declared(executable)[name]
            assert (value, type(value)) == (default, type(default)), name
            count += 1
    assert count == (24 if uncommented else 6)


def test_parameter_file_is_accepted_by_the_nodes(ros: Ros) -> None:
    cli_args = ["--ros-args", "--params-file", str(ROOT / "config" / "momap.yaml")]
    arguments: dict[str, Any] = {"context": ros.context, "use_global_arguments": False, "cli_args": cli_args}
    segmentation = ros.add(SegmentationNode(**arguments))
    forecast = ros.add(ForecastNode(ConstantVelocityForecaster, **arguments))
    ros.add(MarkersNode(**arguments))
    assert forecast.parameters.read(ForecastConfig) == ForecastConfig()
    assert segmentation.parameters.read(SegmentationConfig) == SegmentationConfig()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_itself_loads_the_file(path: Path, load_script: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("launch_ros", reason="launch is part of a ROS installation only")
    module = load_script(str(path))
    assert len(module.generate_launch_description().entities) > 5
