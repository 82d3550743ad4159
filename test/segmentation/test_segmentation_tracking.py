from __future__ import annotations

import numpy as np
import pytest
from tabletop_scenes import Box, Surroundings, build_scene

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.tabletop import TabletopSegmenter
from momap_ros.segmentation.tracking import InstanceTracker

WIDTH, HEIGHT = 320, 240
CAMERA = PinholeCamera(WIDTH, HEIGHT, 300.0, 300.0, 159.5, 119.5)
RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)

Square = tuple[int, int, tuple[int, int, int]]  # left, top, colour


def frame_of(squares: dict[int, Square], depth_m: float = 0.8) -> tuple[RGBDFrame, InstanceMap]:
    """Squares of 30 pixels (8 cm) under the ids of one frame; later ones cover earlier ones."""
    rgb = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    for key, (left, top, color) in squares.items():
        rgb[top : top + 30, left : left + 30] = color
        ids[top : top + 30, left : left + 30] = key
    return RGBDFrame(rgb, np.full((HEIGHT, WIDTH), depth_m, np.float32), CAMERA), InstanceMap(ids)


def id_at(instances: InstanceMap, square: Square) -> int:
    return int(instances.ids[square[1] + 15, square[0] + 15])


def test_ids_stay_while_the_frames_own_ids_change() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    seen = set()
    for step in range(10):
        left, right = (20 + 4 * step, 100, RED), (200 - 3 * step, 50, GREEN)
        order = {1: left, 2: right} if step % 2 == 0 else {1: right, 2: left}
        tracked = tracker(*frame_of(order))
        seen.add((id_at(tracked, left), id_at(tracked, right)))
    assert seen == {(1, 2)}


def test_new_instances_get_new_ids() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    old, new = (20, 100, RED), (220, 100, BLUE)

    tracker(*frame_of({5: old}))
    tracked = tracker(*frame_of({1: new, 2: old}))

    assert (id_at(tracked, old), id_at(tracked, new)) == (1, 2)


@pytest.mark.parametrize(("gone_for", "expected"), [(1, 1), (3, 1), (4, 2)])
def test_lost_instances_keep_their_id_for_some_frames(gone_for: int, expected: int) -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    square = (100, 100, RED)

    tracker(*frame_of({1: square}))
    for _ in range(gone_for):
        assert tracker(*frame_of({})).areas_px == {}
    tracked = tracker(*frame_of({1: (110, 104, RED)}))

    assert id_at(tracked, (110, 104, RED)) == expected


def test_nothing_is_kept_when_no_frame_may_be_missed() -> None:
    tracker = InstanceTracker(max_lost_frames=0)
    square = (100, 100, RED)

    assert id_at(tracker(*frame_of({1: square})), square) == 1
    assert id_at(tracker(*frame_of({1: square})), square) == 1
    tracker(*frame_of({}))
    assert id_at(tracker(*frame_of({1: square})), square) == 2


def test_a_fast_object_is_known_again_by_place_and_colour() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    tracker(*frame_of({1: (100, 100, RED), 2: (180, 100, GREEN)}))

    # 46 and 40 pixels are 12.3 and 10.7 cm at 0.8 m and 300 pixels focal length: no overlap left, within 15 cm.
    tracked = tracker(*frame_of({1: (140, 100, GREEN), 2: (130, 135, RED)}))

    assert id_at(tracked, (130, 135, RED)) == 1
    assert id_at(tracked, (140, 100, GREEN)) == 2


def test_too_far_or_recoloured_is_another_object() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    tracker(*frame_of({1: (20, 100, RED)}))
    # 80 pixels are 21 cm.
    assert id_at(tracker(*frame_of({1: (100, 100, RED)})), (100, 100, RED)) == 2
    assert id_at(tracker(*frame_of({1: (140, 100, BLUE)})), (140, 100, BLUE)) == 3


def test_overlap_decides_while_an_object_is_seen_whatever_its_colour() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    tracker(*frame_of({1: (100, 100, RED)}))

    assert id_at(tracker(*frame_of({1: (104, 100, BLUE)})), (104, 100, BLUE)) == 1


def test_what_appears_in_the_place_of_a_lost_object_is_not_taken_for_it() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    tracker(*frame_of({1: (100, 100, RED)}))
    tracker(*frame_of({}))

    assert id_at(tracker(*frame_of({1: (100, 100, BLUE)})), (100, 100, BLUE)) == 2
    assert id_at(tracker(*frame_of({1: (100, 100, RED)})), (100, 100, RED)) == 1


def test_total_cost_decides_between_two_candidates() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    tracker(*frame_of({1: (100, 100, RED), 2: (120, 100, RED)}))

    # Both move right by 12 pixels: 1 now overlaps the old 2 as well, but the pair of matches is unique.
    tracked = tracker(*frame_of({1: (112, 100, RED), 2: (132, 100, RED)}))

    assert id_at(tracked, (105, 100, RED)) == 1
    assert id_at(tracked, (132, 100, RED)) == 2


def test_without_depth_overlap_still_works() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    for left in (100, 104, 108):
        frame, instances = frame_of({1: (left, 100, RED)})
        blind = RGBDFrame(frame.rgb, np.full_like(frame.depth_m, np.nan), CAMERA)
        assert id_at(tracker(blind, instances), (left, 100, RED)) == 1


def test_names_go_with_their_objects() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    tracker(*frame_of({1: (100, 100, RED)}))
    frame, instances = frame_of({4: (200, 100, GREEN), 9: (100, 100, RED)})

    tracked = tracker(frame, InstanceMap(instances.ids, {4: "pot", 9: "cup", 30: "gone"}))

    assert tracked.labels == {1: "cup", 2: "pot"}


def test_reset_and_another_image_size_start_anew() -> None:
    tracker = InstanceTracker(max_lost_frames=3)
    square = (100, 100, RED)
    tracker(*frame_of({1: (20, 20, BLUE)}))
    tracker(*frame_of({1: (20, 20, BLUE), 2: square}))
    tracker.reset()
    assert id_at(tracker(*frame_of({2: square})), square) == 1

    tracker(*frame_of({2: square, 3: (200, 100, GREEN)}))
    frame, instances = frame_of({3: (200, 100, GREEN)})
    half = tracker(frame.resized(160, 120), instances.resized(160, 120))
    assert list(half.areas_px) == [1]


def test_ids_stay_on_segmented_frames() -> None:
    """The real segmenter numbers by position; objects that change their order must not change their ids."""
    segment, tracker = TabletopSegmenter(SegmentationConfig()), InstanceTracker(max_lost_frames=3)
    ids = []
    for step in range(9):
        x = 0.05 * step
        moving = Box((-0.2 + x, -0.1, 0.0), (0.06, 0.06, 0.08))
        resting = Box((0.0, 0.1, 0.0), (0.06, 0.06, 0.06))
        scene = build_scene((moving, resting), Surroundings(noise_m=0.001), seed=step)
        tracked = tracker(scene.frame, segment(scene.frame))
        ids.append(tuple(int(np.bincount(tracked.ids[scene.ids == body]).argmax()) for body in (1, 2)))

    assert len(set(ids)) == 1
    assert sorted(ids[0]) == [1, 2]
