from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

from momap_ros.data.sample import Role
from momap_ros.geometry import project
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.video import Video, render_video


@pytest.fixture(scope="module")
def video() -> Video:
    return render_video("val", 4, width=160, height=120, frame_rate_hz=5.0)


def test_frames_cover_the_motion_at_the_asked_rate(video: Video) -> None:
    stamps = np.array([frame.stamp_ns for frame in video.frames])
    np.testing.assert_array_equal(np.diff(stamps), 200_000_000)
    assert video.sample.duration_s - 0.2 < stamps[-1] * 1e-9 <= video.sample.duration_s
    assert all(frame.rgb.shape == (120, 160, 3) and frame.valid.all() for frame in video.frames)
    assert video.frames[0].camera == video.sample.camera
    assert video.sample.camera.fx == video.sample.camera.fy


def test_the_first_frame_is_the_sample(video: Video) -> None:
    np.testing.assert_array_equal(video.frames[0].rgb, video.sample.rgb)
    np.testing.assert_array_equal(video.frames[0].depth_m, video.sample.depth_m)
    np.testing.assert_array_equal(video.instance_maps[0].ids, video.sample.instance_map(merge_robot=True).ids)
    np.testing.assert_array_equal(video.sample.momap().xyz[0, ..., 2], video.frames[0].depth_m)


def test_later_frames_show_what_the_momap_says(video: Video) -> None:
    sample, momap = video.sample, video.sample.momap()
    acted = sample.body_roles.index(Role.ACTED)
    seen = sample.body_ids == acted
    agree, total = 0, 0
    for frame, instances in zip(video.frames[1:], video.instance_maps[1:], strict=True):
        step = round(frame.stamp_ns * 1e-9 / momap.step_s)
        points = momap.xyz[step][seen]
        columns, rows = project(points, frame.camera).round().astype(int).T
        inside = (columns >= 0) & (columns < 160) & (rows >= 0) & (rows < 120)
        depth = frame.depth_m[rows[inside], columns[inside]]
        visible = points[inside, 2] < depth + 0.005
        agree += int((instances.ids[rows[inside], columns[inside]] == acted)[visible].sum())
        total += int(visible.sum())
    assert total > 500
    assert agree > 0.8 * total  # the rest: outlines, as a frame lies up to half a step from the MoMap's step


def test_a_failed_demonstration_is_refused_with_what_to_do() -> None:
    tried = (simulate_episode(split, index) for index in range(100) for split in ("train", "composition", "scene"))
    failed = next(episode for episode in tried if episode is not None and not episode.rollout.success)
    with pytest.raises(ValueError, match="expected a successful demonstration; take another episode"):
        render_video(failed.split, failed.index, width=16, height=12)
