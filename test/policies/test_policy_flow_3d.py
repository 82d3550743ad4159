"""3D flow: values of known motions, masks, which points are taken, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.policies.flow_3d import dream2flow_flow, general_flow_keypoints

SIDE, NUM_STEPS, STEP_S = 40, 9, 0.25
VELOCITY_M_S = np.array([0.1, -0.05, 0.02])


def tracks(*, speeds: tuple[float, ...] = (1.0,), unknown_from: int | None = None) -> PointTrajectories:
    """One point per pixel, 1 cm apart, in a frame "base"; object 5 is the square [10, 30) and moves, 0 stays."""
    v, u = (axis.ravel() for axis in np.mgrid[0:SIDE, 0:SIDE])
    ids = np.where((u >= 10) & (u < 30) & (v >= 10) & (v < 30), 5, 0).astype(np.int32)
    start = np.stack([0.01 * u, 0.01 * v, np.full(u.size, 0.5)], axis=-1)
    path = np.arange(NUM_STEPS)[:, None] * STEP_S * VELOCITY_M_S
    moves = np.where(ids == 5, 1.0, 0.0)[:, None, None]
    positions = start[None, :, None] + np.array(speeds)[:, None, None, None] * (moves * path)[None]
    if unknown_from is not None:
        positions[:, ids == 5, unknown_from:] = np.nan
    pixels = np.stack([u, v], axis=-1).astype(np.int32)
    return PointTrajectories(positions.astype(np.float32), ids, pixels, SIDE, SIDE, STEP_S, None, "base")


def instances() -> InstanceMap:
    return InstanceMap(tracks().object_ids.reshape(SIDE, SIDE))


def test_dream2flow_is_the_objects_positions_and_a_mask() -> None:
    flow = dream2flow_flow(tracks(), 5)
    assert flow.positions.shape == (NUM_STEPS, 400, 3)
    assert flow.positions.dtype == np.float32
    assert flow.valid.dtype == np.bool_
    assert flow.frame_id == "base"
    start = np.concatenate([0.01 * flow.pixels, np.full((400, 1), 0.5)], axis=1)
    expected = start + np.arange(NUM_STEPS)[:, None, None] * STEP_S * VELOCITY_M_S
    np.testing.assert_allclose(flow.positions, expected, atol=1e-6)
    assert flow.valid.all()


def test_dream2flow_masks_the_unknown_and_takes_other_steps() -> None:
    flow = dream2flow_flow(tracks(unknown_from=5), 5, num_steps=5)
    np.testing.assert_allclose(flow.times_s, [0.0, 0.5, 1.0, 1.5, 2.0])
    assert flow.valid.all(axis=1).tolist() == [True, True, True, False, False]
    assert (flow.positions[~flow.valid] == 0).all()


def test_dream2flow_keeps_away_from_the_edge() -> None:
    flow = dream2flow_flow(tracks(), 5, instances=instances())
    # 11x11 around a pixel inside [10, 30): 5 pixels on each side remain.
    assert flow.pixels.min() == 15
    assert flow.pixels.max() == 24
    assert flow.positions.shape[1] == 100
    with pytest.raises(ValueError, match="at least 10 px from its edge, got none of 400"):
        dream2flow_flow(tracks(), 5, instances=instances(), erosion_px=21)
    with pytest.raises(ValueError, match="odd number of pixels, got 4"):
        dream2flow_flow(tracks(), 5, instances=instances(), erosion_px=4)


def test_dream2flow_spreads_few_points_over_the_object() -> None:
    flow = dream2flow_flow(tracks(), 5, max_points=4)
    assert {tuple(pixel) for pixel in flow.pixels.tolist()} == {(10, 10), (10, 29), (29, 10), (29, 29)}
    with pytest.raises(ValueError, match=r"among \[0, 5\], got \[6\]"):
        dream2flow_flow(tracks(), 6)


def test_general_flow_takes_what_is_near_the_gripper() -> None:
    gripper_m = np.array([0.2, 0.2, 0.53])
    flow = general_flow_keypoints(tracks(), gripper_m)
    assert flow.positions.shape == (256, 4, 3)
    distance_m = np.linalg.norm(flow.positions[:, 0] - gripper_m, axis=1)
    assert distance_m.max() < 0.08
    np.testing.assert_allclose(flow.weights, 1 / (distance_m + 0.1), rtol=1e-5)
    # pi (8^2 - 3^2) = 173 pixels lie that near, so all of them are there and some twice.
    u, v = np.mgrid[0:SIDE, 0:SIDE]
    near = ((0.01 * u - 0.2) ** 2 + (0.01 * v - 0.2) ** 2 + 0.03**2 < 0.08**2).sum()
    assert len(np.unique(flow.positions[:, 0].round(4), axis=0)) == near
    np.testing.assert_allclose(flow.times_s, np.linspace(0, 2.0, 4))
    expected = flow.positions[:, :1] + flow.times_s[:, None] * VELOCITY_M_S
    np.testing.assert_allclose(flow.positions, expected, atol=1e-6)
    assert flow.mean_path_m == pytest.approx(2.0 * np.linalg.norm(VELOCITY_M_S), rel=1e-5)


def test_general_flow_takes_the_nearest_where_there_are_too_many() -> None:
    gripper_m = np.array([0.2, 0.2, 0.5])
    flow = general_flow_keypoints(tracks(), gripper_m, radius_m=0.5, num_points=9)
    offsets = np.round((flow.positions[:, 0] - gripper_m) * 100).astype(int)
    expected = {(x, y, 0) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    assert {tuple(offset) for offset in offsets.tolist()} == expected


def test_general_flow_takes_the_future_that_goes_farthest() -> None:
    flow = general_flow_keypoints(tracks(speeds=(1.0, 3.0, 2.0)), np.array([0.2, 0.2, 0.5]), horizon_s=1.0)
    assert flow.hypothesis == 1
    assert flow.times_s[-1] == 1.0
    assert flow.mean_path_m == pytest.approx(3.0 * np.linalg.norm(VELOCITY_M_S), rel=1e-5)


def test_general_flow_leaves_out_the_robot_and_the_unknown() -> None:
    gripper_m = np.array([0.2, 0.2, 0.5])
    with pytest.raises(ValueError, match=r"within 0.08 m of .* the nearest is 0.1\d\d m away"):
        general_flow_keypoints(tracks(), gripper_m, robot_ids=[5])
    with pytest.raises(ValueError, match="in frame 'base', got none"):
        general_flow_keypoints(tracks(unknown_from=4), gripper_m)
    edge = general_flow_keypoints(tracks(), np.array([0.1, 0.1, 0.5]), robot_ids=[5])
    assert edge.mean_path_m == 0.0
    again = general_flow_keypoints(tracks(), np.array([0.1, 0.1, 0.5]), robot_ids=[5])
    np.testing.assert_array_equal(edge.positions, again.positions)
