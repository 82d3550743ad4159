"""Plays a bag with /clock and runs momap.launch.py on it in simulated time."""

from __future__ import annotations

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition, UnlessCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PLAYER_ARGUMENTS = [LaunchConfiguration("bag"), "--rate", LaunchConfiguration("rate"), "--wait", "60"]
FORWARDED = ("camera", "prompt", "namespace", "rviz")


def generate_launch_description() -> LaunchDescription:
    """Arguments, the nodes, and a player that waits for them."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 folder or .mcap file"),
            DeclareLaunchArgument("rate", default_value="1.0", description="bag seconds per second"),
            DeclareLaunchArgument("loop", default_value="false", description="start again at the end"),
            DeclareLaunchArgument("camera", default_value="bag", description="topic preset, see momap.launch.py"),
            DeclareLaunchArgument("prompt", default_value="", description="sentence that says what will happen"),
            DeclareLaunchArgument("namespace", default_value="", description="of all nodes"),
            DeclareLaunchArgument("rviz", default_value="true", description="open RViz and publish its markers"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(Path(__file__).resolve().with_name("momap.launch.py"))),
                launch_arguments={
                    "use_sim_time": "true",
                    **{name: LaunchConfiguration(name) for name in FORWARDED},
                }.items(),
            ),
            *(
                Node(
                    package="momap_ros",
                    executable="bag_player",
                    arguments=[*PLAYER_ARGUMENTS, *options],
                    condition=condition,
                    output="screen",
                )
                for condition, options in (
                    (IfCondition(LaunchConfiguration("loop")), ["--loop"]),
                    (UnlessCondition(LaunchConfiguration("loop")), []),
                )
            ),
        ]
    )
