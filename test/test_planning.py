from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.config import ObjectMotionConfig, PlannerConfig
from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.planning import followed_object, moving_objects, steps_within, swept_volume, twists


def trajectories_of(positions: Float64, ids: list[int], step_s: float = 0.1) -> PointTrajectories:
    count = len(ids)
    return PointTrajectories(
        positions.astype(np.float32), np.array(ids, np.int32), np.zeros((count, 2), np.int32), 64, 48, step_s
    )


def motions() -> list[ObjectMotion]:
    """Object 2 goes 10 cm, 5 goes 20 cm, 7 rests, 9 is unknown; the first three are told to be likely to move."""
    generator = np.random.default_rng(0)
    box = generator.uniform(-0.03, 0.03, (20, 3)) + np.array([0.0, 0.0, 0.8])
    ends = {2: 0.1, 5: 0.2, 7: 0.0, 9: np.nan}
    share = np.linspace(0.0, 1.0, 5)[:, None] * np.array([1.0, 0.0, 0.0])
    positions = np.concatenate([box[:, None] + share * end for end in ends.values()])
    positions[-20:, 0] = box
    ids = np.repeat(list(ends), 20).tolist()
    probability = {2: 0.9, 5: 0.9, 7: 0.3, 9: 1.0}
    return estimate_object_motions(
        trajectories_of(positions[None], ids), ObjectMotionConfig(), moving_probability=probability
    )


def test_moving_objects_come_the_surest_first() -> None:
    assert [m.instance_id for m in moving_objects(motions(), PlannerConfig())] == [5, 2]
    assert [m.instance_id for m in moving_objects(motions(), PlannerConfig(min_moving_probability=0.3))] == [5, 2, 7]
    surest = [dataclasses.replace(m, moving_probability=0.95) if m.instance_id == 2 else m for m in motions()]
    assert [m.instance_id for m in moving_objects(surest, PlannerConfig())] == [2, 5]


def test_the_followed_object_is_the_named_one_or_the_surest() -> None:
    cases = {0: 5, 2: 2, 7: 7}
    for named, expected in cases.items():
        followed = followed_object(motions(), PlannerConfig(object_id=named))
        assert followed is not None
        assert followed.instance_id == expected
    # Not in the scene; and in it without a motion.
    assert followed_object(motions(), PlannerConfig(object_id=4)) is None
    assert followed_object(motions(), PlannerConfig(object_id=9)) is None
    assert followed_object([], PlannerConfig()) is None


@pytest.mark.parametrize(("horizon_s", "steps"), [(0.0, 11), (0.3, 4), (0.35, 4), (1.0, 11), (5.0, 11), (0.05, 1)])
def test_horizon_in_steps(horizon_s: float, steps: int) -> None:
    # Step 3 is at 0.3 s, although 0.3 / 0.1 is 2.9999999999999996.
    assert steps_within(11, 0.1, horizon_s) == steps


def test_twists_of_a_steady_screw_are_constant() -> None:
    step_s, turn_rad_s, shift_m_s = 0.05, np.array([0.3, -0.5, 1.0]), np.array([0.2, 0.0, -0.1])
    times_s = np.arange(40)[:, None] * step_s
    start = Rotation.from_rotvec([0.4, 0.2, -1.0])
    rotations = (Rotation.from_rotvec(times_s * turn_rad_s) * start).as_matrix()
    poses = se3_from_parts(rotations, np.array([0.1, 0.2, 0.7]) + times_s * shift_m_s)

    found = twists(poses, step_s)

    np.testing.assert_allclose(found, np.tile(np.concatenate([shift_m_s, turn_rad_s]), (40, 1)), atol=1e-12)


def test_twists_of_one_pose_and_of_a_bend() -> None:
    np.testing.assert_array_equal(twists(np.eye(4)[None], 0.1), np.zeros((1, 6)))
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = 0.0, 0.1, 0.1
    # One-sided at the ends, central in the middle.
    np.testing.assert_allclose(twists(poses, 0.1)[:, 0], [1.0, 0.5, 0.0], atol=1e-12)


def test_a_straight_sweep_fills_every_voxel_once() -> None:
    """Three points 2 mm apart, in one row of voxels of 1 cm, move by 10 cm in two steps."""
    start = np.array([[0.003, 0.004, 0.805], [0.005, 0.004, 0.805], [0.007, 0.004, 0.805]])
    positions = start[:, None] + np.array([0.0, 0.05, 0.1])[:, None] * np.array([1.0, 0.0, 0.0])

    swept = swept_volume(trajectories_of(positions[None], [1, 1, 1]), {1}, voxel_m=0.01, num_steps=3)

    # From x = 3 mm to x = 107 mm: the voxels from 0 to 10, whose middles are at 5 mm and so on.
    expected = np.stack([np.arange(11) * 0.01 + 0.005, np.full(11, 0.005), np.full(11, 0.805)], axis=1)
    np.testing.assert_allclose(swept[np.argsort(swept[:, 0])], expected, atol=1e-6)
    assert swept.dtype == np.float32


def test_a_sweep_ends_with_the_horizon_and_holds_chosen_objects_only() -> None:
    start = np.array([[0.005, 0.005, 0.5], [-0.205, 0.005, 0.5]])
    positions = start[:, None] + np.linspace(0.0, 0.1, 3)[:, None] * np.array([0.0, 1.0, 0.0])
    trajectories = trajectories_of(positions[None], [1, 2])

    first = swept_volume(trajectories, {1}, voxel_m=0.01, num_steps=2)

    np.testing.assert_allclose(np.sort(first[:, 1]), np.arange(6) * 0.01 + 0.005, atol=1e-6)
    assert (first[:, 0] > 0).all()
    # Negative coordinates fall into voxels of their own: the middle of -0.205 is there.
    second = swept_volume(trajectories, {2}, voxel_m=0.01, num_steps=2)
    np.testing.assert_allclose(second[:, 0], -0.205, atol=1e-6)
    assert len(swept_volume(trajectories, {1, 2}, voxel_m=0.01, num_steps=2)) == 12
    assert swept_volume(trajectories, {3}, voxel_m=0.01, num_steps=2).shape == (0, 3)


def test_all_futures_are_swept_and_unknown_points_are_not() -> None:
    start = np.array([[0.005, 0.005, 0.5], [0.005, 0.005, 0.5]])
    path = np.linspace(0.0, 0.03, 4)[:, None]
    futures = np.stack([start[:, None] + path * np.array(way) for way in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])])
    futures[:, 1, 1:] = np.nan

    swept = swept_volume(trajectories_of(futures, [1, 1]), {1}, voxel_m=0.01, num_steps=4)

    # Both ways have 4 voxels and share the first.
    assert len(swept) == 7


def test_points_beyond_the_grid_are_refused() -> None:
    far = np.full((1, 1, 2, 3), 3000.0)
    with pytest.raises(ValueError, match="expected points within 1049 m"):
        swept_volume(trajectories_of(far, [1]), {1}, voxel_m=0.001, num_steps=2)
