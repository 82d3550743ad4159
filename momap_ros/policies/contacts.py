"""Where a gripper takes hold of an object that is about to move, found from points of one image alone.

Frames: `base` has its origin at the foot of the arm and z up; `gripper` has its origin at the grasp centre between the
finger pads, x along the fingers towards their ends, y along the closing direction. Metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, FloatArray, se3_from_parts, transform_points
from momap_ros.shapes import check_shapes

_SPACING_M, _FINE_M = 0.006, 0.003  # of the points that are looked at, and of those of something small
_NEAR_M = 0.15  # of the object, where other points count
_YAWS, _PITCHES_RAD = 12, (0.5, 0.9)  # of fingers that point down, and below the horizontal of those that do not
_SEEDS = 40
_INSERTIONS_M = (
    0.028,
    0.020,
    0.012,
    0.004,
    -0.004,
    -0.009,
)  # of the grasp centre below the first point between the fingers
_CLEAR_M = 0.0015  # kept between fingers and table, and around fingers
_ON_TABLE_M = 0.01  # what is seen down to this height stands on the table
_MIN_BETWEEN = 3  # points that must be between the fingers
_LARGE_M = 0.075  # half the diagonal of the box around what is furniture
_STRAIGHT_RAD, _STRAIGHT_SHARE = 0.35, 0.85  # turn and share of the way down of what is pressed
_LEVEL_M = 0.012  # vertical motion of what stays on the table
_ROLLS_RAD, _ROLLS_TILT = 0.6, 0.6  # turn about an axis whose vertical share is smaller
_STAYS_SHARE = 0.4  # of the longest way: points of a hinged object that move less are near its axis
_SET_GOING_M_S = 0.2  # faster than this, something that rolls has been let go
_SAME_PLACE_M, _SAME_WAY_COS = 0.015, 0.9  # so near, and so much from the same side, it is the same grasp
_GRID = 13  # points across the box in which the axis of something that rolls is looked for
_PRESSED_M, _MOST_PRESSED_M = 0.006, 0.03  # least and longest way of what is pressed


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
        other_ids: (Q,) instances that the others belong to, 0 = none of them; None where that is not known.
    """

    points: Float64
    others: Float64
    table_m: float = 0.0
    other_ids: npt.NDArray[np.int32] | None = None


def choose_contact(
    seen: Surroundings,
    motion_t_from_0: FloatArray,
    step_s: float,
    config: FollowerConfig,
    *,
    tried: Sequence[FloatArray] = (),
) -> Contact | None:
    """The best way to make an object move as forecast.

    What rolls, faster than a hand would lead it, is pushed at its trailing side, and what goes straight down is
    pressed. All else is grasped where both fingers find room and a part of the object is between them: near its middle,
    or, where it turns about an axis far from its middle (a door), where it moves farthest. What is too wide for that is
    dragged if it stays on the table.

    Args:
        seen: points of the object and around it.
        motion_t_from_0: (T, 4, 4) forecast motion, base frame.
        step_s: seconds between two steps.
        config: measures of the gripper.
        tried: (4, 4) base_from_gripper of grasps in which the fingers closed on nothing, not to be taken again.

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
    if rolls(seen, motion) and _fastest_m_s(seen, motion, step_s) > _SET_GOING_M_S:
        return _push(seen, motion, config)
    if _goes_straight_down(seen.points, motion):
        return Contact(ContactKind.PRESS, _top_pose(seen, config))
    grasp = _best_grasp(seen, motion, config, tried)
    if grasp is not None:
        return grasp
    path = transform_points(motion, seen.points.mean(axis=0))
    if np.ptp(path[:, 2]) < _LEVEL_M:
        return Contact(ContactKind.DRAG, _top_pose(seen, config))
    return None


def rolls(seen: Surroundings, motion: Float64) -> bool:
    """Whether an object turns about a level axis and some point of it stays level while none stays behind.

    What turns about a hinge, or falls over its foot, has points that stay where they are.
    """
    turns = _rotation_vectors(motion[:, :3, :3])
    most = turns[int(np.linalg.norm(turns, axis=1).argmax())]
    angle = float(np.linalg.norm(most))
    if angle < _ROLLS_RAD or abs(most[2]) > _ROLLS_TILT * angle:
        return False
    # The axis of something seen from above may lie below all that is seen of it, but not below the table.
    low, high = seen.points.min(axis=0), seen.points.max(axis=0)
    low[2] = max(low[2] - (high - low)[2], seen.table_m)
    inside = np.stack(np.meshgrid(*np.linspace(low, high, _GRID).T, indexing="ij"), axis=-1).reshape(-1, 3)
    heights = inside @ motion[:, 2, :3].T + motion[:, 2, 3]
    moved = farthest_m(seen.points, motion)
    return bool((np.ptp(heights, axis=1) < _LEVEL_M).any() and moved.min() > _STAYS_SHARE * moved.max())


def _fastest_m_s(seen: Surroundings, motion: Float64, step_s: float) -> float:
    path = transform_points(motion, (seen.points.min(axis=0) + seen.points.max(axis=0)) / 2)
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).max()) / step_s


def farthest_m(points: Float64, motion: Float64) -> Float64:
    """(P,) how far each of (P, 3) points gets from its start under (T, 4, 4) motions, metres."""
    moved = np.einsum("tij,pj->tpi", motion[:, :3, :3], points) + motion[:, None, :3, 3]
    return np.asarray(np.linalg.norm(moved - points, axis=2).max(axis=0))


def pointing_down(yaw_rad: float) -> Float64:
    """(3, 3) base_from_gripper of fingers that point down and close along (-sin yaw, cos yaw)."""
    sin, cos = np.sin(yaw_rad), np.cos(yaw_rad)
    return np.stack([[0.0, 0.0, -1.0], [-sin, cos, 0.0], [cos, sin, 0.0]], axis=1)


def _near(seen: Surroundings) -> Surroundings:
    """The object's points and those near it but above the table, evenly spaced, so that no finger fits between them."""
    low, high = seen.points.min(axis=0) - _NEAR_M, seen.points.max(axis=0) + _NEAR_M
    near = ((seen.others > low) & (seen.others < high)).all(axis=1) & (seen.others[:, 2] > seen.table_m + 2 * _CLEAR_M)
    spacing_m = _FINE_M if np.linalg.norm(high - low - 2 * _NEAR_M) < 2 * _LARGE_M else _SPACING_M
    return Surroundings(_spaced(seen.points, spacing_m), _spaced(seen.others[near], _SPACING_M), seen.table_m)


def _spaced(points: Float64, spacing_m: float) -> Float64:
    """The first point of every cube of that size."""
    _, first = np.unique(np.floor(points / spacing_m).astype(np.int64), axis=0, return_index=True)
    return np.asarray(points[np.sort(first)])


def _goes_straight_down(points: Float64, motion: Float64) -> bool:
    path = transform_points(motion, points.mean(axis=0)) - points.mean(axis=0)
    turn = np.linalg.norm(_rotation_vectors(motion[:, :3, :3]), axis=1).max()
    lowest = path[path[:, 2].argmin()]
    down = -lowest[2] / max(float(np.linalg.norm(lowest)), 1e-9)
    straight = path[:, 2].max() < 0.3 * -lowest[2] and down > _STRAIGHT_SHARE
    return bool(turn < _STRAIGHT_RAD and straight and _PRESSED_M < -lowest[2] < _MOST_PRESSED_M)


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


def _best_grasp(
    seen: Surroundings, motion: Float64, config: FollowerConfig, tried: Sequence[FloatArray]
) -> Contact | None:
    points = seen.points
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    moved = farthest_m(points, motion)
    share = moved / max(float(moved.max()), 1e-9)
    # What turns about an axis outside its middle is held where it moves; what moves as a whole, at its middle.
    middle_share = float(farthest_m(centre[None], motion)[0]) / max(float(moved.max()), 1e-9)
    hinged = middle_share > 0.3 and float(np.quantile(share, 0.05)) < 0.45
    size = max(float(np.linalg.norm(np.ptp(points, axis=0))) / 2, 0.01)
    outwards = np.array([*(centre[:2] / max(float(np.linalg.norm(centre[:2])), 1e-9)), 0.0])
    drawn = points[np.random.default_rng(0).permutation(len(points))[:_SEEDS]]
    seeds = np.append(drawn, centre[None], axis=0)
    rotations, down = _orientations(centre)
    best: Contact | None = None
    for rotation, points_down in zip(rotations, down, strict=True):
        # A hand that is carried round until it points back at its own arm is beyond the wrist's range.
        backwards = max(0.0, -float((motion[:, :3, :3] @ rotation[:, 0] @ outwards).min()))
        failed = [pose[:3, 3] for pose in tried if float(pose[:3, 0] @ rotation[:, 0]) > _SAME_WAY_COS]
        for place, insertion, width_m in _placed(seen, rotation, seeds, config):
            if any(float(np.linalg.norm(place - other)) < _SAME_PLACE_M for other in failed):
                continue
            held = share[np.linalg.norm(points - place, axis=1).argmin()]
            off = float(np.linalg.norm((place - centre)[:2])) / size
            faces_away = float((place - centre) @ outwards) / size
            where = 2.0 * held - 0.3 * faces_away if hinged else -1.5 * off
            if size > _LARGE_M and not hinged:  # furniture, taken at the side that faces the arm, where handles are
                where = -2.0 * faces_away - 0.3 * off
            score = float(where + 0.5 * insertion / _INSERTIONS_M[0] + 0.4 * float(points_down))
            score -= 1.5 * backwards + 0.5 * width_m / (2 * config.opening_m)  # straight across, not askew
            if best is None or score > best.score:
                best = Contact(ContactKind.GRASP, se3_from_parts(rotation, place), score)
    return best


def _placed(
    seen: Surroundings, rotation: Float64, seeds: Float64, config: FollowerConfig
) -> list[tuple[Float64, float, float]]:
    """Grasp centres (3,) near the seeds where open fingers touch nothing and hold something; their depth and width."""
    own, others, starts = seen.points @ rotation, seen.others @ rotation, seeds @ rotation
    everything = np.append(own, others, axis=0)
    # Below its lowest point begins what the object stands on, seen or not.
    lowest_m = float(seen.points[:, 2].min())
    floor_m = lowest_m if lowest_m > seen.table_m + _ON_TABLE_M else seen.table_m
    found = []
    for start in starts:
        centred = _centred(own, start, config)
        if centred is None:
            continue
        centre, width_m = centred
        for insertion in _INSERTIONS_M:
            at = centre + np.array([insertion, 0.0, 0.0])
            reaches = float((rotation @ at)[2]) - _reach_down(rotation, config) < floor_m + _CLEAR_M
            if not reaches and _is_free(everything, at, config) and _holds(own, at, config):
                found.append((rotation @ at, insertion, width_m))
                break
    return found


def _centred(own: Float64, start: Float64, config: FollowerConfig) -> tuple[Float64, float] | None:
    """(3,) gripper axes: above the part of the object between the fingers, in their middle, and the part's width.

    None where it is too wide.
    """
    beside = np.abs(own - start)
    column = own[(beside[:, 2] < config.finger_width_m / 2) & (beside[:, 1] < config.opening_m)]
    if len(column) < _MIN_BETWEEN:
        return None
    top = float(column[:, 0].min())
    part = column[column[:, 0] < top + 0.03]
    low, high = float(part[:, 1].min()), float(part[:, 1].max())
    if high - low > 2 * (config.opening_m - _CLEAR_M):
        return None
    return np.array([top, (low + high) / 2, start[2]]), high - low


def _reach_down(rotation: Float64, config: FollowerConfig) -> float:
    """How far below the grasp centre the lowest corner of the open fingers is, metres."""
    aside = config.opening_m + config.finger_thickness_m
    half = np.array([0.0, aside, config.finger_width_m / 2])
    ends = np.array([config.fingertip_m, -config.finger_length_m])
    return float(-(rotation[2, 0] * ends).min() + np.abs(rotation[2]) @ half)


def _is_free(everything: Float64, at: Float64, config: FollowerConfig) -> bool:
    """Whether no point is in either finger."""
    half = config.finger_width_m / 2
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
