from __future__ import annotations

import numpy as np
import pytest
from box_scene import BOX, STILL, moved, pose, render

from momap_ros.geometry import Float64, invert_se3, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.scoring.observation import FirstSurface, ObservedScene, SurfaceMotion


def first_surface(frame: RGBDFrame, instances: InstanceMap) -> FirstSurface:
    return FirstSurface(ObservedScene(frame, instances, np.eye(4)), BOX)


def found_and_true(after: Float64, **seen: object) -> tuple[SurfaceMotion, float]:
    """What is found after the box moved, and the mean distance of its points from where they truly are, metres."""
    surface = first_surface(*render(pose()))
    found = surface.find(ObservedScene(*render(after, **seen), STILL), [np.eye(4)])  # type: ignore[arg-type]
    assert found is not None
    true = transform_points(after @ np.linalg.inv(pose()), surface.points)
    return found, float(np.linalg.norm(transform_points(found.motion, surface.points) - true, axis=1).mean())


@pytest.mark.parametrize(
    ("shift_m", "turn_deg"),
    [((0, 0, 0), 0), ((0.01, 0, 0), 0), ((0.1, -0.05, 0), 0), ((0, 0, -0.1), 0), ((0.08, 0.02, -0.05), 35)],
)
def test_a_rigid_motion_is_found_to_millimetres(shift_m: tuple[float, float, float], turn_deg: float) -> None:
    found, off_m = found_and_true(moved(pose(), shift_m, turn_deg))
    assert found.holds
    assert found.enough_visible
    assert off_m < 0.003


def test_what_hides_a_part_does_not_pull_the_motion() -> None:
    after = moved(pose(), (0.04, 0, 0))
    found, off_m = found_and_true(after, screen=(0, 172))  # hides about half of the box
    assert 0.3 < found.visible < 0.75
    assert found.holds
    assert off_m < 0.003


def test_what_was_hidden_at_first_does_not_pull_it_either() -> None:
    frame, instances = render(pose(), screen=(0, 155))
    surface = first_surface(frame, instances)
    after = moved(pose(), (0.05, 0.02, 0))
    found = surface.find(ObservedScene(*render(after), STILL), [np.eye(4)])
    assert found is not None
    assert found.holds
    true = transform_points(after @ np.linalg.inv(pose()), surface.points)
    assert np.linalg.norm(transform_points(found.motion, surface.points) - true, axis=1).mean() < 0.004


def test_little_in_sight_is_said() -> None:
    found, _ = found_and_true(pose(), screen=(0, 170))
    assert not found.enough_visible


def test_something_of_another_shape_is_not_taken_for_it() -> None:
    found, _ = found_and_true(moved(pose(), (0.1, 0, 0)), size_m=np.array([0.05, 0.2, 0.03]))
    assert not found.holds


def test_too_small_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 12 pixels with depth, got 0"):
        FirstSurface(ObservedScene(*render(None), STILL), BOX)


def test_nothing_to_look_at_gives_nothing() -> None:
    surface = first_surface(*render(pose()))
    assert surface.find(ObservedScene(*render(None), STILL), [np.eye(4)]) is None


def test_a_pose_carries_what_a_moved_camera_sees_back() -> None:
    surface = first_surface(*render(pose()))
    world_from_camera = moved(np.eye(4), (0.06, -0.03, 0.05), 8.0)
    after = moved(pose(), (0.03, 0, 0))
    scene = ObservedScene(*render(after, world_from_camera=world_from_camera), invert_se3(world_from_camera))
    found = surface.find(scene, [np.eye(4)])
    assert found is not None
    true = transform_points(after @ np.linalg.inv(pose()), surface.points)
    assert np.linalg.norm(transform_points(found.motion, surface.points) - true, axis=1).mean() < 0.004


def test_an_id_that_went_to_something_else_leaves_the_object_where_it_is_seen() -> None:
    frame, instances = render(pose())
    surface = first_surface(frame, instances)
    copied, ids = frame.depth_m.copy(), np.where(instances.ids == BOX, 7, 0).astype(np.int32)
    shift_px = 90  # the same shape at another place now has the box's id
    there = np.roll(instances.ids == BOX, shift_px, axis=1)
    copied[there], ids[there] = np.roll(frame.depth_m, shift_px, axis=1)[there], BOX
    later = RGBDFrame(frame.rgb, copied, frame.camera, frame.stamp_ns + 1, frame.frame_id)
    found = surface.find(ObservedScene(later, InstanceMap(ids), STILL), [np.eye(4)])
    assert found is not None
    assert found.rests
    np.testing.assert_array_equal(found.motion, np.eye(4))


def test_what_lost_its_id_but_is_seen_in_place_rests() -> None:
    frame, instances = render(pose())
    nothing = InstanceMap(np.zeros_like(instances.ids))
    found = first_surface(frame, instances).find(ObservedScene(frame, nothing, STILL), [np.eye(4)])
    assert found is not None
    assert found.rests
