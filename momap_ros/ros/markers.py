"""Forecasts as RViz markers: one line list for all trajectories, an arrow and a text for every object."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from momap_ros.config import MarkersConfig
from momap_ros.geometry import Float32, Float64, transform_points
from momap_ros.momap import PointTrajectories
from momap_ros.msg import ObjectMotion, ObjectMotionArray
from momap_ros.ros.conversions import header_to_msg, poses_to_numpy

# Neighbouring ids get hues that are far apart: the golden ratio's fraction of the colour circle.
_HUE_STEP = 0.618034
_ARROW_SHAFT_M, _ARROW_HEAD_M = 0.006, 0.014


def forecast_markers(trajectories: PointTrajectories, motions: ObjectMotionArray, config: MarkersConfig) -> MarkerArray:
    """Everything shown of one forecast; what was shown before is deleted.

    Args:
        trajectories: drawn as lines, the first hypothesis only.
        motions: of the same frame, drawn as arrows and texts.
        config: what is drawn, and how large.
    """
    delete_all = Marker(header=motions.header, action=Marker.DELETEALL)
    return MarkerArray(
        markers=[delete_all, *trajectory_markers(trajectories, config), *object_markers(motions, config)]
    )


def trajectory_markers(trajectories: PointTrajectories, config: MarkersConfig) -> list[Marker]:
    """One line list, its lines from transparent (now) to the object's full colour (the horizon); none where all rest.

    Trajectories with an unknown step and those that end near their start are left out; of the others at most
    `config.max_tracks` are drawn, spread evenly.
    """
    paths = trajectories.positions[0]
    steps = np.unique(np.linspace(0, paths.shape[1] - 1, config.max_steps + 1).astype(int))
    moves = np.linalg.norm(paths[:, -1] - paths[:, 0], axis=-1) > config.min_displacement_m
    shown = np.flatnonzero(moves & np.isfinite(paths).all(axis=(1, 2)))
    if not len(shown):
        return []
    count = min(len(shown), config.max_tracks)
    shown = shown[np.arange(count) * len(shown) // count]
    lines = _marker(header_to_msg(trajectories.stamp_ns, trajectories.frame_id), "trajectories", Marker.LINE_LIST)
    lines.scale.x = config.line_width_m
    corners = paths[shown][:, steps].astype(float)
    segments = np.stack([corners[:, :-1], corners[:, 1:]], axis=2).reshape(-1, 3)
    lines.points = [Point(x=x, y=y, z=z) for x, y, z in segments.tolist()]
    lines.colors = _fading_colors(trajectories.object_ids[shown], len(steps) - 1)
    return [lines]


def object_markers(motions: ObjectMotionArray, config: MarkersConfig) -> list[Marker]:
    """An arrow from each moving object's place to where it goes, and a text at every object that was seen."""
    markers = []
    for motion in motions.objects:
        start = np.array([motion.centroid.x, motion.centroid.y, motion.centroid.z])
        if not np.isfinite(start).all():
            continue
        if any(motion.direction_flags):
            last = poses_to_numpy(motion)[-1]
            arrow = _marker(motions.header, "objects", Marker.ARROW, motion.id)
            arrow.points = [_point(start), _point(transform_points(last, start))]
            arrow.scale = Vector3(x=_ARROW_SHAFT_M, y=_ARROW_HEAD_M, z=0.0)
            arrow.color = _color(motion.id, 1.0)
            markers.append(arrow)
        text = _marker(motions.header, "texts", Marker.TEXT_VIEW_FACING, motion.id)
        text.pose.position = _point(start)
        text.scale.z = config.text_height_m
        text.color = _color(motion.id, 1.0)
        text.text = object_text(motion)
        markers.append(text)
    return markers


def object_text(motion: ObjectMotion) -> str:
    """What stands above an object: name or number, how far it goes, how sure that is."""
    name = motion.label or f"#{motion.id}"
    return f"{name} {motion.displacement * 100:.0f} cm, moves {motion.moving_probability:.0%}"


def _marker(header: Header, namespace: str, kind: int, marker_id: int = 0) -> Marker:
    marker = Marker(header=header, ns=namespace, id=int(marker_id) & 0x7FFFFFFF, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    return marker


def _point(xyz: Float64) -> Point:
    x, y, z = xyz.tolist()
    return Point(x=x, y=y, z=z)


def _color(object_id: int, alpha: float) -> ColorRGBA:
    """The colour of an id, the same in every message; grey for the background."""
    hue = object_id * _HUE_STEP % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 if object_id else 0.0, 0.95)
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)


def _fading_colors(object_ids: npt.NDArray[np.int32], segments: int) -> list[ColorRGBA]:
    """Two colours a segment, from transparent at the observation to opaque at the horizon."""
    alphas: Float32 = np.linspace(0.15, 1.0, segments + 1, dtype=np.float32)
    palette = {
        object_id: [_color(object_id, alpha) for alpha in np.repeat(alphas, 2)[1:-1].tolist()]
        for object_id in np.unique(object_ids).tolist()
    }
    return [color for object_id in object_ids.tolist() for color in palette[object_id]]
