"""Segmentation, forecast and markers for a running RGB-D camera."""

from __future__ import annotations

from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetLaunchConfiguration
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(__file__).resolve().parents[1]
INPUTS = ("color/image_raw", "depth/image_raw", "color/camera_info")

# camera -> topic of each input, and whether its images are rectified.
CAMERAS = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((SHARE / "config" / "cameras").glob("*.yaml"))
}

# A preset is chosen by a configuration whose name begins with the camera's: "realsense.color/image_raw".
PRESETS = [
    SetLaunchConfiguration(f"{camera}.{name}", str(value))
    for camera, preset in CAMERAS.items()
    for name, value in {**preset["remappings"], "rectified": preset["rectified"]}.items()
]
CAMERA_REMAPPINGS = [(name, LaunchConfiguration([LaunchConfiguration("camera"), f".{name}"])) for name in INPUTS]
RECTIFIED = LaunchConfiguration([LaunchConfiguration("camera"), ".rectified"])

COMMON_PARAMETERS = {
    "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
    "input.rectified": ParameterValue(RECTIFIED, value_type=bool),
}
FORECAST_PARAMETERS = {
    "instances_source": "topic",
    "forecast.prompt": ParameterValue(LaunchConfiguration("prompt"), value_type=str),
}
NAMESPACE = LaunchConfiguration("namespace")
PARAMS_FILE = LaunchConfiguration("params_file")


def generate_launch_description() -> LaunchDescription:
    """Arguments, then the nodes. What params_file says wins over the arguments."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "camera", default_value="realsense", choices=list(CAMERAS), description="topic preset"
            ),
            DeclareLaunchArgument("prompt", default_value="", description="sentence that says what will happen"),
            DeclareLaunchArgument("namespace", default_value="", description="of all nodes"),
            DeclareLaunchArgument(
                "params_file", default_value=str(SHARE / "config" / "momap.yaml"), description="parameters of the nodes"
            ),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="time from /clock, for bags"),
            DeclareLaunchArgument("rviz", default_value="false", description="open RViz and publish its markers"),
            *PRESETS,
            Node(
                package="momap_ros",
                executable="segmentation_node",
                namespace=NAMESPACE,
                parameters=[COMMON_PARAMETERS, PARAMS_FILE],
                remappings=CAMERA_REMAPPINGS,
                output="screen",
            ),
            Node(
                package="momap_ros",
                executable="forecast_node",
                namespace=NAMESPACE,
                parameters=[COMMON_PARAMETERS, FORECAST_PARAMETERS, PARAMS_FILE],
                remappings=[*CAMERA_REMAPPINGS, ("instances", "segmentation_node/instances")],
                output="screen",
            ),
            Node(
                package="momap_ros",
                executable="markers_node",
                namespace=NAMESPACE,
                parameters=[PARAMS_FILE],
                remappings=[
                    ("trajectories", "forecast_node/trajectories"),
                    ("object_motions", "forecast_node/object_motions"),
                ],
                condition=IfCondition(LaunchConfiguration("rviz")),
                output="screen",
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=NAMESPACE,
                arguments=["-d", str(SHARE / "rviz" / "momap.rviz")],
                parameters=[{"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
