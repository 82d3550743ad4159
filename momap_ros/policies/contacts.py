"""Where a gripper takes hold of an object that is about to move, found from points of one image alone.

Frames: `base` has its origin at the foot of the arm and z up; `gripper` has its origin at the grasp centre between the
finger pads, x along the fingers towards their ends, y along the closing direction. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, FloatArray, se3_from_parts, transform_points
from momap_ros.shapes import check_shapes

_MAX_POINTS, _MAX_OTHERS, _NEAR_M = 500, 1500, 0.15
_YAWS, _PITCHES_RAD = 12, (0.5, 0.9)  # of fingers that point down, and below the horizontal of those that do not
_SEEDS = 40
_INSERTIONS_M = (0.028, 0.020, 0.012, 0.004, -0.006)  # of the grasp centre below the first point between the fingers
_CLEAR_M = 0.0015  # kept between fingers and table, and around fingers
_MIN_BETWEEN = 3  # points that must be between the fingers
_STRAIGHT_RAD, _STRAIGHT_SHARE = 0.2, 0.85  # turn and share of the way down of what is pressed
_LEVEL_M = 0.012  # vertical motion of what stays on the table
_ROLLS_RAD, _ROLLS_TILT = 0.6, 0.6  # turn about an axis whose vertical share is smaller


class ContactKind(Enum):
    """How the gripper moves the object."""

    GRASP = "grasp"  # between the fingers; the object is then part of the gripper
    DRAG = "drag"  # closed fingertips press on it from above and take it along over the table
    PRESS = "press"  # closed fingertips push it straight down
    PUSH = "push"  # the outside of the closed fingers pushes its trailing side


@dataclass(frozen=True, eq=False)
class Contact:
    """Where and how the gripper touches an object.

    Attributes:
        kind: how it moves the object.
        base_from_gripper: (4, 4) at the moment of touch, metres.
        score: larger is better; comparable among contacts of one object.
    """

    kind: ContactKind
    base_from_gripper: Float64
    score: float = 0.0


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What one image shows, in the base frame.

    Attributes:
        points: (P, 3) points of the object, metres.
        others: (Q, 3) points of everything else but the robot, metres.
        table_m: height of the table.
    """

    points: Float64
    others: Float64
    table_m: float = 0.0


def choose_contact(seen: Surroundings, motion_t_from_0: FloatArray, config: FollowerConfig) -> Contact | None:
    """The best way to make an object move as forecast.

    What rolls is pushed at its trailing side, and what goes straight down is pressed. All else is grasped where both
    fingers find room and a part of the object is between them: near its middle, or, where it turns about an axis far
    from its middle (a door), where it moves farthest. What is too wide for that is dragged if it stays on the table.

    Args:
        seen: points of the object and around it.
        motion_t_from_0: (T, 4, 4) forecast motion, base frame.
        config: measures of the gripper.

    Returns:
        The contact, or None where the gripper finds no place.

    Raises:
        ShapeError: the arrays have other shapes.
    """
    check_shapes(points=(seen.points, "P 3"), others=(seen.others, "Q 3"), motion=(motion_t_from_0, "T 4 4"))
    if not len(seen.points):
        return None
    motion = np.asarray(motion_t_from_0, np.float64)
    seen = _near(seen)
    if rolls(seen.points, motion):
        return _push(seen, motion, config)
    if _goes_straight_down(seen.points, motion):
        return Contact(ContactKind.PRESS, _top_pose(seen, config))
    grasp = _best_grasp(seen, motion, config)
    if grasp is not None:
        return grasp
    path = transform_points(motion, seen.points.mean(axis=0))
    if np.ptp(path[:, 2]) < _LEVEL_M:
        return Contact(ContactKind.DRAG, _top_pose(seen, config))
    return None


def rolls(points: Float64, motion: Float64) -> bool:
    """Whether an object turns about a level axis while its middle stays level, as only something round does."""
    path = transform_points(motion, points.mean(axis=0))
    turns = _rotation_vectors(motion[:, :3, :3])
    most = turns[int(np.linalg.norm(turns, axis=1).argmax())]
    angle = float(np.linalg.norm(most))
    level = np.ptp(path[:, 2]) < _LEVEL_M and np.linalg.norm(path[-1, :2] - path[0, :2]) > _LEVEL_M
    return bool(level and angle > _ROLLS_RAD and abs(most[2]) < _ROLLS_TILT * angle)


def farthest_m(points: Float64, motion: Float64) -> Float64:
    """(P,) how far each of (P, 3) points gets from its start under (T, 4, 4) motions, metres."""
    moved = np.einsum("tij,pj->tpi", motion[:, :3, :3], points) + motion[:, None, :3, 3]
    return np.asarray(np.linalg.norm(moved - points, axis=2).max(axis=0))


def pointing_down(yaw_rad: float) -> Float64:
    """(3, 3) base_from_gripper of fingers that point down and close along (-sin yaw, cos yaw)."""
    sin, cos = np.sin(yaw_rad), np.cos(yaw_rad)
    return np.stack([[0.0, 0.0, -1.0], [-sin, cos, 0.0], [cos, sin, 0.0]], axis=1)


def _near(seen: Surroundings) -> Surroundings:
    """An even choice of the object's points, and of those near it."""
    low, high = seen.points.min(axis=0) - _NEAR_M, seen.points.max(axis=0) + _NEAR_M
    others = seen.others[((seen.others > low) & (seen.others < high)).all(axis=1)]
    rng = np.random.default_rng(0)
    return Surroundings(_some(seen.points, _MAX_POINTS, rng), _some(others, _MAX_OTHERS, rng), seen.table_m)


def _some(points: Float64, at_most: int, rng: np.random.Generator) -> Float64:
    return points if len(points) <= at_most else points[rng.choice(len(points), at_most, replace=False)]


def _goes_straight_down(points: Float64, motion: Float64) -> bool:
    path = transform_points(motion, points.mean(axis=0)) - points.mean(axis=0)
    turn = np.linalg.norm(_rotation_vectors(motion[:, :3, :3]), axis=1).max()
    lowest = path[path[:, 2].argmin()]
    down = -lowest[2] / max(float(np.linalg.norm(lowest)), 1e-9)
    return bool(turn < _STRAIGHT_RAD and path[:, 2].max() < 0.3 * -lowest[2] and down > _STRAIGHT_SHARE)


def _top_pose(seen: Surroundings, config: FollowerConfig) -> Float64:
    """(4, 4) closed fingertips on top of the middle of the object's upper side."""
    high = np.quantile(seen.points[:, 2], 0.9)
    upper = seen.points[seen.points[:, 2] > high - 0.01]
    middle = np.array([*(upper[:, :2].min(axis=0) + upper[:, :2].max(axis=0)) / 2, high + config.fingertip_m])
    return se3_from_parts(pointing_down(float(np.arctan2(middle[1], middle[0]))), middle)


def _push(seen: Surroundings, motion: Float64, config: FollowerConfig) -> Contact | None:
    """Behind the object, at its middle's height, the fingers' outer face across the way."""
    centre = (seen.points.min(axis=0) + seen.points.max(axis=0)) / 2
    path = transform_points(motion, centre)
    way = path[-1, :2] - path[0, :2]
    direction = np.array([*(way / np.linalg.norm(way)), 0.0])
    yaw = float((np.arctan2(direction[1], direction[0]) + np.pi) % np.pi - np.pi / 2)
    # The side away from the camera is not seen: what is round is as long as it is wide.
    across = (seen.points - centre) @ np.array([-direction[1], direction[0], 0.0])
    front = (seen.points - centre) @ direction
    back_m = max(-float(front.min()), min(float(np.ptp(across)) / 2, float(seen.points[:, 2].max()) / 2))
    place = centre - direction * (back_m + config.finger_thickness_m)
    place[2] = max(centre[2], seen.table_m + config.fingertip_m + 2 * _CLEAR_M)
    return Contact(ContactKind.PUSH, se3_from_parts(pointing_down(yaw), place))


def _orientations(centre: Float64) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """(A, 3, 3) base_from_gripper rotations to try at a place, and which of them point down."""
    down = [pointing_down(yaw) for yaw in np.arange(_YAWS) * np.pi / _YAWS]
    outwards = np.array([centre[0], centre[1], 0.0])
    outwards /= max(float(np.linalg.norm(outwards)), 1e-9)
    aside = np.array([-outwards[1], outwards[0], 0.0])
    tilted = []
    for pitch in _PITCHES_RAD:
        x = outwards * np.cos(pitch) - np.array([0.0, 0.0, np.sin(pitch)])
        tilted += [np.stack([x, y, np.cross(x, y)], axis=1) for y in (aside, np.cross(x, aside))]
    return np.array(down + tilted), np.arange(len(down) + len(tilted)) < len(down)


def _best_grasp(seen: Surroundings, motion: Float64, config: FollowerConfig) -> Contact | None:
    points = seen.points
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    moved = farthest_m(points, motion)
    share = moved / max(float(moved.max()), 1e-9)
    # What turns about an axis outside its middle is held where it moves; what moves as a whole, at its middle.
    middle_share = float(farthest_m(centre[None], motion)[0]) / max(float(moved.max()), 1e-9)
    hinged = middle_share > 0.3 and float(np.quantile(share, 0.05)) < 0.45
    size = max(float(np.linalg.norm(np.ptp(points, axis=0))) / 2, 0.01)
    rng = np.random.default_rng(0)
    seeds = np.append(_some(points, _SEEDS, rng), centre[None], axis=0)
    rotations, down = _orientations(centre)
    best: Contact | None = None
    for rotation, points_down in zip(rotations, down, strict=True):
        for place, insertion in _placed(seen, rotation, seeds, config):
            held = share[np.linalg.norm(points - place, axis=1).argmin()]
            off = float(np.linalg.norm((place - centre)[:2])) / size
            where = 2.0 * held if hinged else -1.5 * off
            score = float(where + 0.5 * insertion / _INSERTIONS_M[0] + 0.4 * float(points_down))
            if best is None or score > best.score:
                best = Contact(ContactKind.GRASP, se3_from_parts(rotation, place), score)
    return best


def _placed(
    seen: Surroundings, rotation: Float64, seeds: Float64, config: FollowerConfig
) -> list[tuple[Float64, float]]:
    """Grasp centres (3,) near the seeds at which open fingers touch nothing but hold something, and their depth."""
    own, others, starts = seen.points @ rotation, seen.others @ rotation, seeds @ rotation
    everything = np.append(own, others, axis=0)
    found = []
    for start in starts:
        centre = _centred(own, start, config)
        if centre is None:
            continue
        for insertion in _INSERTIONS_M:
            at = centre + [insertion, 0.0, 0.0]
            if _is_free(everything, at, rotation, seen.table_m, config) and _holds(own, at, config):
                found.append((rotation @ at, insertion))
                break
    return found


def _centred(own: Float64, start: Float64, config: FollowerConfig) -> Float64 | None:
    """(3,) gripper axes: above the part of the object between the fingers, in their middle; None where it is wide."""
    beside = np.abs(own - start)
    column = own[(beside[:, 2] < config.finger_width_m / 2) & (beside[:, 1] < config.opening_m)]
    if len(column) < _MIN_BETWEEN:
        return None
    top = float(column[:, 0].min())
    part = column[column[:, 0] < top + 0.03]
    low, high = float(part[:, 1].min()), float(part[:, 1].max())
    if high - low > 2 * (config.opening_m - _CLEAR_M):
        return None
    return np.array([top, (low + high) / 2, start[2]])


def _is_free(everything: Float64, at: Float64, rotation: Float64, table_m: float, config: FollowerConfig) -> bool:
    """Whether no point is in either finger, and neither reaches into the table."""
    half = config.finger_width_m / 2
    corners = [
        [config.fingertip_m, side * (config.opening_m + config.finger_thickness_m), z]
        for side in (-1, 1)
        for z in (-half, half)
    ]
    if float(((np.array(corners) + at) @ rotation.T)[:, 2].min()) < table_m + _CLEAR_M:
        return False
    relative = everything - at
    x, y, z = relative[:, 0], np.abs(relative[:, 1]), np.abs(relative[:, 2])
    inside = (z < half + _CLEAR_M) & (x > -config.finger_length_m) & (x < config.fingertip_m + _CLEAR_M)
    inside &= (y > config.opening_m - _CLEAR_M) & (y < config.opening_m + config.finger_thickness_m + _CLEAR_M)
    return int(inside.sum()) == 0


def _holds(own: Float64, at: Float64, config: FollowerConfig) -> bool:
    relative = np.abs(own - at)
    between = (relative[:, 1] < config.opening_m) & (relative[:, 2] < config.finger_width_m / 2)
    ahead = own[:, 0] - at[0]
    return int((between & (ahead < config.fingertip_m) & (ahead > -config.finger_length_m)).sum()) >= _MIN_BETWEEN


def _rotation_vectors(rotations: Float64) -> Float64:
    """(T, 3) axis times angle of (T, 3, 3) rotations, radians; an angle beyond half a turn is its complement."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(rotations).as_rotvec(), np.float64)
