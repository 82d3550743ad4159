"""The programs of docs/planners.md, each run as it is written there, in a process of its own, against a real node."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
pytest.importorskip("momap_ros.msg", reason="needs the generated messages")

from geometry_msgs.msg import PoseStamped
from ros_harness import (
    FRAME_ID,
    NUM_STEPS,
    STEP_S,
    VELOCITY_M_S,
    Camera,
    ConstantVelocityForecaster,
    start,
)

from momap_ros.ros.forecast_node import ForecastNode
from momap_ros.ros.planner_messages import PLANNER_TOPICS

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

HORIZON_S = (NUM_STEPS - 1) * STEP_S


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/planners.md").read_text(encoding="utf-8")


def run_program(ros: Ros, page: str, name: str, folder: Path) -> list[str]:
    """What a program of the page prints while a camera and a forecast node are at work."""
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if f'"""{name}' in block]
    program = folder / name
    program.write_text(block, encoding="utf-8")
    node = ros.add(ForecastNode(ConstantVelocityForecaster, context=ros.context, use_global_arguments=False))
    assert start(node)
    camera = Camera(ros)
    camera.wait_for_subscriber()
    process = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        frame = 0
        while process.poll() is None and frame < 300:
            camera.publish(frame)
            ros.spin_for(0.2)
            frame += 1
        printed, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return printed.splitlines()


@pytest.mark.slow
def test_the_path_follower_goes_where_the_object_goes(ros: Ros, page: str, tmp_path: Path) -> None:
    targets = ros.collect(PoseStamped, "/target_pose")

    run_program(ros, page, "path_follower.py", tmp_path)

    assert {target.header.frame_id for target in targets} == {FRAME_ID}
    places = np.array([[t.pose.position.x, t.pose.position.y, t.pose.position.z] for t in targets])
    # From where the tool was, along the object's straight way, to its end.
    np.testing.assert_allclose(places[-1], np.array([0.0, 0.0, 0.6]) + HORIZON_S * VELOCITY_M_S, atol=1e-3)
    across = np.cross(places - [0.0, 0.0, 0.6], VELOCITY_M_S / np.linalg.norm(VELOCITY_M_S))
    np.testing.assert_allclose(across, 0.0, atol=1e-3)
    along = (places - [0.0, 0.0, 0.6]) @ VELOCITY_M_S
    assert (np.diff(along) >= -1e-9).all()
    assert all(target.pose.orientation.w == pytest.approx(1.0, abs=1e-5) for target in targets)


@pytest.mark.slow
def test_waypoints_in_the_way_are_named(ros: Ros, page: str, tmp_path: Path) -> None:
    printed = run_program(ros, page, "keep_out.py", tmp_path)

    # The second waypoint is in the middle of the image, 70 cm ahead, where the left box passes; the others are far off.
    assert printed == ["blocked waypoints: [1]"]


@pytest.mark.slow
def test_moving_objects_are_met(ros: Ros, page: str, tmp_path: Path) -> None:
    printed = run_program(ros, page, "meet.py", tmp_path)

    assert sorted(line.split()[0] for line in printed) == ["object_1", "object_2"]
    # The boxes are 71 and 74 cm away and come nearer by 4 cm a second.
    depths = sorted(float(line.split()[3]) for line in printed)
    assert depths == pytest.approx(np.array([0.71, 0.74]) + 0.6 * VELOCITY_M_S[2], abs=0.002)
    for line in printed:
        assert float(line.split()[5]) == pytest.approx(np.linalg.norm(VELOCITY_M_S), abs=0.002)


@pytest.mark.slow
def test_alternatives_are_weighed(ros: Ros, page: str, tmp_path: Path) -> None:
    printed = run_program(ros, page, "alternatives.py", tmp_path)

    # Two futures, the second twice as fast: two ends of equal weight, and none to be sure of.
    ends = [line for line in printed if "50% end at" in line]
    assert len(ends) == 4
    assert all(line.endswith("+- nan") for line in ends)
    assert not [line for line in printed if "follow" in line]
    direction = VELOCITY_M_S / np.linalg.norm(VELOCITY_M_S)
    slides = [line for line in printed if "slides along" in line]
    assert len(slides) == 2
    for line in slides:
        numbers = [float(word) for word in line.split()[4:] if word != "by"]
        np.testing.assert_allclose(numbers[:3], direction, atol=0.01)
        assert numbers[3] == pytest.approx(HORIZON_S * np.linalg.norm(VELOCITY_M_S), abs=0.01)


def test_moveit_is_pointed_at_a_topic_that_exists(page: str) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    config = yaml.safe_load(block)

    for name in config["sensors"]:
        assert config[name]["point_cloud_topic"].replace("/forecast_node/", "~/") in PLANNER_TOPICS


def test_every_planner_topic_is_on_the_page(page: str) -> None:
    for topic, kind in PLANNER_TOPICS.items():
        package = kind.__module__.split(".")[0]
        assert f"`{topic}`" in page
        assert f"`{package}/{kind.__name__}`" in page
