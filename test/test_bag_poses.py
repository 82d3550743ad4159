from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.bag_messages import transform_message
from momap_ros.bag_poses import BagPoses
from momap_ros.bag_types import TRANSFORMS
from momap_ros.bag_write import BagWriter
from momap_ros.geometry import Float64, se3_from_parts

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS


def pose(x_m: float, turn_deg: float) -> Float64:
    return se3_from_parts(Rotation.from_euler("z", turn_deg, degrees=True).as_matrix(), np.array([x_m, 0.0, 0.0]))


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> BagPoses:
    """World -> hand moves, hand -> optical rests; a housing that hangs on nothing; two frames in a circle."""
    path = tmp_path_factory.mktemp("poses") / "bag"
    with BagWriter(path) as bag:
        for stamp_ns, x_m, turn_deg in ((0, 0.0, 0.0), (100_000_000, 1.0, 90.0), (SECOND_NS, 5.0, 0.0)):
            bag.write_transform(pose(x_m, turn_deg), START_NS + stamp_ns, parent="world", child="hand")
        for parent, child in (("hand", "/optical"), ("housing", "lens"), ("a", "b"), ("b", "a")):
            message = transform_message(pose(0.5, 0.0), START_NS, parent=parent, child=child)
            bag.write("/tf_static", TRANSFORMS, message, START_NS)
    return BagPoses(path)


def test_a_chain_is_multiplied_and_interpolated(poses: BagPoses) -> None:
    at_start = poses.root_from("optical", START_NS)
    halfway = poses.root_from("/optical", START_NS + 50_000_000)
    assert at_start is not None
    assert halfway is not None
    np.testing.assert_allclose(at_start, pose(0.5, 0.0), atol=1e-9)
    np.testing.assert_allclose(halfway, pose(0.5, 45.0) @ pose(0.5, 0.0), atol=1e-9)


def test_a_time_without_a_transform_near_it_is_unknown(poses: BagPoses) -> None:
    assert poses.root_from("optical", START_NS + 250_000_000) is not None
    assert poses.root_from("optical", START_NS + 500_000_000) is None
    assert poses.root_from("optical", START_NS - SECOND_NS) is None


def test_two_frames_of_one_tree_are_joined(poses: BagPoses) -> None:
    hand_from_optical = poses.target_from("hand", "optical", START_NS + 50_000_000)
    assert hand_from_optical is not None
    np.testing.assert_allclose(hand_from_optical, pose(0.5, 0.0), atol=1e-9)
    assert poses.target_from("lens", "optical", START_NS) is None


@pytest.mark.parametrize(("frame", "follows"), [("optical", True), ("lens", False), ("world", False), ("a", False)])
def test_only_what_changes_follows_a_camera(poses: BagPoses, frame: str, *, follows: bool) -> None:
    assert poses.follows(frame) is follows


def test_a_circle_has_no_root(poses: BagPoses) -> None:
    assert poses.root_from("a", START_NS) is None
