"""The environment that Fast DDS reads; what it is good for is seen between processes, in test_ros_processes.py."""

from __future__ import annotations

import os
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")

from momap_ros.ros.transport import OWN_CHOICE, PROFILES, VARIABLES, allow_large_messages

pytestmark = pytest.mark.ros

# /dev/shm of a container, and the processes of bag.launch.py: player, two nodes, markers, RViz; and the ros2 command.
CONTAINER_BYTES, PROCESSES = 64 << 20, 6
FRAME_BYTES = 1280 * 720 * (3 + 2)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWN_CHOICE:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)


def test_both_generations_of_fast_dds_find_the_profiles() -> None:
    allow_large_messages()
    assert {os.environ[name] for name in VARIABLES} == {str(PROFILES)}


@pytest.mark.parametrize("name", OWN_CHOICE)
def test_a_choice_of_the_user_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "mine")
    allow_large_messages()
    assert {key: os.environ[key] for key in OWN_CHOICE if key in os.environ} == {name: "mine"}


def test_a_large_frame_fits_and_so_do_all_processes_in_a_container() -> None:
    (size,) = (element.text for element in ElementTree.parse(PROFILES).iter() if element.tag.endswith("segment_size"))
    assert size is not None
    assert FRAME_BYTES < int(size) < CONTAINER_BYTES / PROCESSES
