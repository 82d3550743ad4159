from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# What the tests of this folder share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from ros_harness import Ros


@pytest.fixture
def ros() -> Iterator[Ros]:
    """A ROS context and executor of the test's own."""
    pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")
    pytest.importorskip("momap_ros.msg", reason="needs the generated messages")
    from ros_harness import Ros

    harness = Ros()
    yield harness
    harness.close()
