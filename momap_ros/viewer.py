"""Forecasts in space: a window to look around in, or an orbit around the scene as a moving picture."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from momap_ros.drawing import Canvas, instance_color, time_colors
from momap_ros.geometry import Float32, Float64, PinholeCamera, project, se3_from_parts, transform_points
from momap_ros.momap import MoMap, PointTrajectories
from momap_ros.rgbd import RGBDFrame, UInt8
from momap_ros.splatting import splat_points

MOVING_THRESHOLD_M = 0.02
_MAX_TRACKS = 32
ORBIT_FRAME_S = 0.08
_ORBIT_FRAMES = 72
_ORBIT_YAW_RAD, _ORBIT_PITCH_RAD = 0.45, 0.12
_BACKDROP = (30, 33, 40)
_KEY_SPACE, _KEY_RIGHT, _KEY_LEFT = 32, 262, 263


class ViewerError(RuntimeError):
    """No window can be shown here; the message says what to do instead."""


@dataclass(frozen=True, eq=False)
class ViewScene:
    """Coloured points and how some of them move; metres, the camera's optical frame.

    Attributes:
        points: (T, P, 3) positions of all points at each step; NaN = unknown.
        colors: (P, 3) uint8.
        tracks: (N, T, 3) trajectories that are drawn as lines.
        step_s: seconds between two steps.
        camera: a camera at the origin that sees the scene.
    """

    points: Float32
    colors: UInt8
    tracks: Float32
    step_s: float
    camera: PinholeCamera


def scene_from_momap(momap: MoMap) -> ViewScene:
    """A dense MoMap, which has no colours: grey by distance, moving points orange."""
    moving = momap.moving_mask(MOVING_THRESHOLD_M)[momap.valid]
    points = momap.xyz[:, momap.valid]
    near, far = np.percentile(points[0, :, 2], (1, 99))
    grey = 205 - 130 * np.clip((points[0, :, 2] - near) / max(far - near, 1e-6), 0, 1)
    colors = np.where(moving[:, None], np.array([255, 150, 60]), grey[:, None]).astype(np.uint8)
    height, width = momap.valid.shape
    tracks = _thinned(points[:, moving].transpose(1, 0, 2))
    return ViewScene(points, colors, tracks, momap.step_s, _fitted_camera(points[0], width, height))


def scene_from_forecast(frame: RGBDFrame, trajectories: PointTrajectories, *, hypothesis: int = 0) -> ViewScene:
    """The image's points in its colours, standing still, and the followed points moving through them."""
    positions = trajectories.positions[hypothesis]
    still = frame.points_in_camera[frame.valid]
    followed = np.ascontiguousarray(positions.transpose(1, 0, 2))
    points = np.concatenate([np.broadcast_to(still, (trajectories.num_steps, *still.shape)), followed], axis=1)
    pixels = np.minimum(trajectories.pixels, np.array(frame.rgb.shape[1::-1]) - 1)
    own_colors = frame.rgb[pixels[:, 1], pixels[:, 0]]
    colors = np.concatenate([frame.rgb[frame.valid] // 2 + 20, own_colors])
    farthest = np.nan_to_num(np.linalg.norm(positions - positions[:, :1], axis=-1)).max(axis=1)
    return ViewScene(
        points, colors, _thinned(positions[farthest > MOVING_THRESHOLD_M]), trajectories.step_s, frame.camera
    )


def scene_from_points(trajectories: PointTrajectories, *, hypothesis: int = 0) -> ViewScene:
    """The followed points alone, in the colours of their objects, for forecasts whose images are not at hand."""
    positions = trajectories.positions[hypothesis]
    palette = {instance_id: instance_color(int(instance_id)) for instance_id in np.unique(trajectories.object_ids)}
    colors = np.array([palette[instance_id] for instance_id in trajectories.object_ids], np.uint8).reshape(-1, 3)
    points = np.ascontiguousarray(positions.transpose(1, 0, 2))
    camera = _fitted_camera(points[0], trajectories.image_width, trajectories.image_height)
    return ViewScene(points, colors, _thinned(positions), trajectories.step_s, camera)


def orbit_frames(scene: ViewScene, *, width: int = 720) -> Iterator[UInt8]:
    """Pictures of one swing around the scene's centre while the forecast plays twice.

    Args:
        scene: what to draw.
        width: of the pictures, pixels.
    """
    camera = scene.camera.resized(width, round(scene.camera.height * width / scene.camera.width))
    centre = np.nanmedian(scene.points[0], axis=0)
    backdrop = np.full((camera.height, camera.width, 3), _BACKDROP, np.uint8)
    nothing = np.full((camera.height, camera.width), np.nan, np.float32)
    steps = len(scene.points)
    colors = time_colors(max(steps - 1, 1))
    for index in range(_ORBIT_FRAMES):
        phase = 2 * np.pi * index / _ORBIT_FRAMES
        pose = _orbit_pose(centre, _ORBIT_YAW_RAD * np.sin(phase), _ORBIT_PITCH_RAD * np.cos(phase))
        step = min(int(2 * steps * index / _ORBIT_FRAMES) % steps, steps - 1)
        points = transform_points(pose, scene.points[step])
        picture = splat_points(backdrop, nothing, points, scene.colors, camera=camera, size_px=3)
        canvas = Canvas(picture, min_width=width)
        uv = project(transform_points(pose, scene.tracks), camera)
        for earlier in range(steps - 1):
            drawn = np.isfinite(uv[:, earlier : earlier + 2]).all(axis=(1, 2))
            color = int(colors[earlier][0]), int(colors[earlier][1]), int(colors[earlier][2])
            canvas.lines(uv[drawn, earlier], uv[drawn, earlier + 1], color, 2 if earlier < step else 1)
        canvas.text([f"+{step * scene.step_s:.1f} s"], (12, canvas.image.shape[0] - 12), size=17, anchor="left bottom")
        yield canvas.image


def show_window(scene: ViewScene, title: str) -> None:
    """Open a window and return when it is closed. Space plays and pauses, left and right step, R starts again.

    Raises:
        ViewerError: Open3D is not installed, or there is no display.
    """
    try:
        import open3d as o3d
    except ImportError as error:
        raise ViewerError(
            "viewer: expected Open3D, got none; install it with `pip install open3d-cpu` (or open3d), or write a "
            "moving picture with --save FILE.mp4"
        ) from error
    o3d.utility.set_verbosity_level(o3d.utility.VerbosityLevel.Error)
    window = o3d.visualization.VisualizerWithKeyCallback()
    # Without a display some versions of Open3D "open" a window that nobody sees and nobody can close.
    has_display = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_display or not window.create_window(title, 1280, 800):
        raise ViewerError(
            "viewer: expected a display, got none; run it on a desktop (or with ssh -X), or write a moving picture "
            "with --save FILE.mp4"
        )
    _play(o3d, window, scene)


def _play(o3d: Any, window: Any, scene: ViewScene) -> None:  # noqa: ANN401  (Open3D has no types)
    """Show the scene until the window is closed."""
    state = {"step": 0, "playing": True}
    cloud = o3d.geometry.PointCloud()
    cloud.colors = o3d.utility.Vector3dVector(scene.colors / 255.0)

    def show(step: int) -> None:
        state["step"] = step % len(scene.points)
        # Open3D has no missing points: these go where nothing is looked at.
        positions = np.nan_to_num(scene.points[state["step"]], nan=0.0).astype(np.float64)
        cloud.points = o3d.utility.Vector3dVector(positions)
        window.update_geometry(cloud)

    def on_key(key: int, *, change: int = 0, step: int | None = None, toggle: bool = False) -> None:
        def act(_window: object) -> bool:
            state["playing"] = not state["playing"] if toggle else False
            if not toggle:
                show(state["step"] + change if step is None else step)
            return False

        window.register_key_callback(key, act)

    show(0)
    for geometry in (cloud, _track_lines(o3d, scene), o3d.geometry.TriangleMesh.create_coordinate_frame(0.1)):
        window.add_geometry(geometry)
    view = window.get_view_control()
    view.set_front([0.0, 0.0, -1.0])
    view.set_up([0.0, -1.0, 0.0])
    on_key(_KEY_SPACE, toggle=True)
    on_key(_KEY_RIGHT, change=1)
    on_key(_KEY_LEFT, change=-1)
    on_key(ord("R"), step=0)
    due = time.monotonic()
    while window.poll_events():
        if state["playing"] and time.monotonic() >= due:
            due = time.monotonic() + scene.step_s
            show(state["step"] + 1)
        window.update_renderer()
        time.sleep(0.005)
    window.destroy_window()


def _track_lines(o3d: Any, scene: ViewScene) -> Any:  # noqa: ANN401  (Open3D has no types)
    """All tracks as line segments coloured by time."""
    count, steps = scene.tracks.shape[:2]
    first = (np.arange(count)[:, None] * steps + np.arange(steps - 1)).reshape(-1)
    colors = np.tile(time_colors(max(steps - 1, 1)) / 255.0, (count, 1))
    known = np.isfinite(scene.tracks).all(axis=-1).reshape(-1)
    drawn = known[first] & known[first + 1]
    points = np.nan_to_num(scene.tracks).reshape(-1, 3).astype(np.float64)
    lines = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(points),
        o3d.utility.Vector2iVector(np.stack([first, first + 1], axis=1)[drawn].astype(np.int32)),
    )
    lines.colors = o3d.utility.Vector3dVector(colors[drawn])
    return lines


def _orbit_pose(centre: Float64, yaw_rad: float, pitch_rad: float) -> Float64:
    """(4, 4) camera_from_scene of a camera turned about the scene's centre."""
    cy, sy, cp, sp = np.cos(yaw_rad), np.sin(yaw_rad), np.cos(pitch_rad), np.sin(pitch_rad)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    rotation = about_x @ about_y
    return se3_from_parts(rotation, centre - rotation @ centre)


def _thinned(tracks: Float32) -> Float32:
    """At most _MAX_TRACKS of (N, T, 3) tracks, evenly chosen."""
    return np.ascontiguousarray(tracks[np.linspace(0, len(tracks) - 1, min(len(tracks), _MAX_TRACKS)).astype(int)])


def _fitted_camera(points: Float32, width: int, height: int) -> PinholeCamera:
    """A camera at the origin whose image of the points is about as large as the image they come from."""
    x, y = np.abs(points[:, 0] / points[:, 2]).max(), np.abs(points[:, 1] / points[:, 2]).max()
    focal = min(width / (2 * x), height / (2 * y))
    return PinholeCamera(width, height, float(focal), float(focal), (width - 1) / 2, (height - 1) / 2)
