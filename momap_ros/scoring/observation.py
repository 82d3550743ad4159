"""Where an object went: the surface it showed at first, found again in a later frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float64, fit_rigid, invert_se3, project, se3_from_parts, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Bool = npt.NDArray[np.bool_]

MAX_SURFACE_POINTS = 400  # of an object in one frame: more do not change the fit by a millimetre
MIN_POINTS = 12  # fewer are an outline at best
KERNELS_M = (0.05, 0.03, 0.018, 0.012, 0.008)  # from "near by" to the noise of depth cameras
MAX_ROUNDS = 12  # per kernel
SETTLED_SHARE = 0.01  # of the kernel: a round that moves no point farther was the last with this kernel
MATCH_M, MATCH_PER_DEPTH = (
    0.006,
    0.008,
)  # farthest of a matched point from the other surface, and per metre of depth
HIDDEN_M, HIDDEN_PER_DEPTH = 0.005, 0.01  # how far behind what is seen a point is hidden, and per metre of depth
MIN_MATCHED = 0.8  # of the visible first surface, for a motion that explains what is seen
MIN_EXPLAINED = 0.6  # of what is seen now and could be seen before
MIN_VISIBLE = 0.25  # of the first surface; less says little about the whole
LEFT_M = 0.01  # farther than this from the moved surface, a place has been left
MIN_LEFT = 5  # fewer places left say nothing
MIN_IN_PLACE = 0.75  # of the first surface, for an object that rests
SURE = 0.9  # matched and explained shares of a motion beyond doubt


@dataclass(frozen=True, eq=False)
class ObservedScene:
    """A frame with its instances, seen from the reference camera's coordinates.

    Attributes:
        frame: registered colour and depth.
        instances: of the same size, with ids that are stable over the stream.
        camera_from_reference: (4, 4), metres, from the camera at the time of a forecast to this frame's; the identity
            for a camera at rest.
    """

    frame: RGBDFrame
    instances: InstanceMap
    camera_from_reference: Float64

    def surface(self, instance_id: int) -> Float64:
        """(S, 3) points of an instance, metres, reference coordinates; S <= MAX_SURFACE_POINTS."""
        rows, columns = np.nonzero((self.instances.ids == instance_id) & self.frame.valid)
        count = min(len(rows), MAX_SURFACE_POINTS)
        # At random, because an even stride over the rows of an image can fall on a few columns.
        chosen = np.random.default_rng(instance_id).choice(len(rows), count, replace=False)
        points = self.frame.camera.rays[rows[chosen], columns[chosen]]
        points = points * self.frame.depth_m[rows[chosen], columns[chosen], None]
        return transform_points(invert_se3(self.camera_from_reference), points)

    def visible(self, points_in_reference: Float64, instance_id: int) -> Bool:
        """(P,) whether the camera would see points of an instance that lie there.

        A point outside the image, or behind what another instance or the background shows at its pixel, is hidden. One
        behind its own instance is not: whether its object has turned or is elsewhere is what the fit must find out.
        """
        points = transform_points(self.camera_from_reference, points_in_reference)
        ids, seen_m = self._depth_at(points)
        in_front = seen_m < points[:, 2] - _by_depth(HIDDEN_M, HIDDEN_PER_DEPTH, points)
        return np.asarray((ids >= 0) & ~(in_front & (ids != instance_id)))

    def still_shows(self, points_in_reference: Float64) -> tuple[Bool, Bool]:
        """(P,) whether the frame shows a surface at the points, whatever its id, and whether something hides them."""
        points = transform_points(self.camera_from_reference, points_in_reference)
        seen_m = self._depth_at(points)[1]
        in_front = points[:, 2] - seen_m
        in_place = np.abs(in_front) < _by_depth(MATCH_M, MATCH_PER_DEPTH, points)  # False for NaN
        hidden = np.isnan(seen_m) | (~in_place & (in_front > _by_depth(HIDDEN_M, HIDDEN_PER_DEPTH, points)))
        return np.asarray(in_place), np.asarray(hidden)

    def _depth_at(self, points_in_camera: Float64) -> tuple[npt.NDArray[np.int32], Float64]:
        """(P,) ids and depth at the pixels of points; -1 and NaN outside the image."""
        uv = project(points_in_camera, self.frame.camera)
        height, width = self.frame.depth_m.shape
        inside = np.asarray(((uv > -0.5) & (uv < [width - 0.5, height - 0.5])).all(axis=1))  # NaN is outside
        columns, rows = np.rint(np.where(inside[:, None], uv, 0.0)).astype(int).T
        ids = np.where(inside, self.instances.ids[rows, columns], -1).astype(np.int32)
        return ids, np.where(inside, self.frame.depth_m[rows, columns], np.nan).astype(np.float64)


@dataclass(frozen=True, eq=False)
class SurfaceMotion:
    """The rigid motion that takes an object's first surface onto what is seen of it later.

    Attributes:
        motion: (4, 4), metres, reference coordinates.
        visible: share of the first surface's points that can be seen after the motion.
        matched: share of those that lie on the surface seen now.
        explained: share of the surface seen now, as far as the first frame could have shown it, that lies on the first.
        cost_m: sum of the mean distances, both ways, each point's at most the first kernel.
        rests: the first surface is still where it was, whatever has its id now; the motion is then the identity.
    """

    motion: Float64
    visible: float
    matched: float
    explained: float
    cost_m: float
    rests: bool = False

    @property
    def holds(self) -> bool:
        """Whether the motion explains what is seen."""
        return self.rests or (self.matched >= MIN_MATCHED and self.explained >= MIN_EXPLAINED)

    @property
    def enough_visible(self) -> bool:
        """Whether enough of the surface is in sight."""
        return self.visible >= MIN_VISIBLE


class FirstSurface:
    """The surface that an object shows when a forecast starts: what is looked for later.

    Attributes:
        points: (P, 3) metres, reference coordinates.
        spacing_m: median distance of a point from its nearest neighbour.
    """

    def __init__(self, scene: ObservedScene, instance_id: int) -> None:
        """Look at it.

        Args:
            scene: the frame in which it is seen first, with the identity as its pose.
            instance_id: the object.

        Raises:
            ValueError: it shows fewer than MIN_POINTS points.
        """
        from scipy.spatial import cKDTree

        self.points = scene.surface(instance_id)
        if len(self.points) < MIN_POINTS:
            raise ValueError(
                f"instance {instance_id}: expected at least {MIN_POINTS} pixels with depth, got {len(self.points)}; "
                "leave it out"
            )
        self.instance_id = instance_id
        self._scene = scene
        self._tree: cKDTree = cKDTree(self.points)
        self.spacing_m = float(np.median(self._tree.query(self.points, k=2)[0][:, 1]))

    def find(self, scene: ObservedScene, starts: Sequence[Float64]) -> SurfaceMotion | None:
        """Register the surface to what a later frame shows of the same instance.

        Iterative closest points, both ways: every point of the first surface looks for the surface seen now, and every
        point seen now for the first surface. Both ways, because one of them alone lets a small surface slide over a
        large one. A point that the other frame could not have shown, because something hid it, takes no part.
        Geman-McClure weights with a kernel that shrinks to the noise of depth disregard what only one frame shows.

        References: P. Besl and N. McKay, doi:10.1109/34.121791; for the weights and the shrinking kernel Q. Zhou,
        J. Park and V. Koltun, doi:10.1007/978-3-319-46475-6_47.

        Args:
            scene: the later frame.
            starts: (4, 4) motions to begin with, beside the one that joins the centres; the forecast must not be among
                them, or it would judge itself.

        Returns:
            The motion of least cost that what is seen does not contradict; the identity where no motion holds, but the
            surface is still where it was; None where next to nothing has its id, and it is not.
        """
        seen = scene.surface(self.instance_id)
        if len(seen) < MIN_POINTS:
            return self._resting(scene)
        from scipy.spatial import cKDTree

        pair = _Pair(self, self._scene, scene, tree=self._tree, seen=seen, seen_tree=cKDTree(seen))
        joined = se3_from_parts(np.eye(3), np.median(seen, axis=0) - np.median(self.points, axis=0))
        best: SurfaceMotion | None = None
        for start in sorted([*starts, joined], key=lambda motion: pair.judge(motion).cost_m):
            found = pair.judge(pair.fit(start))
            if best is None or found.cost_m < best.cost_m:
                best = found
            if best.matched > SURE and best.explained > SURE:  # another start would find the same
                break
        if best is None or not best.holds or pair.is_contradicted(best.motion):
            resting = self._resting(scene)
            if resting is not None or best is None:
                return resting
            return best if not best.holds else dataclasses.replace(best, matched=0.0)
        return best

    def _resting(self, scene: ObservedScene) -> SurfaceMotion | None:
        """The identity, where enough of the first surface is in sight and in place, whatever has its id now."""
        in_place, hidden = scene.still_shows(self.points)
        visible, share = float((~hidden).mean()), _mean(in_place[~hidden], 0.0)
        if visible < MIN_VISIBLE or share < MIN_IN_PLACE:
            return None
        return SurfaceMotion(np.eye(4), visible, share, share, 0.0, rests=True)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A first surface and the surface seen later, with their scenes and search trees."""

    first: FirstSurface
    before: ObservedScene
    now: ObservedScene
    tree: cKDTree
    seen: Float64
    seen_tree: cKDTree

    def fit(self, motion: Float64) -> Float64:
        """The motion after all rounds, from one start."""
        for kernel_m in KERNELS_M:
            for _ in range(MAX_ROUNDS):
                fitted, step_m = self._round(motion, kernel_m)
                motion = fitted
                if step_m < SETTLED_SHARE * kernel_m:
                    break
        return motion

    def is_contradicted(self, motion: Float64) -> bool:
        """Whether most of the places that the motion leaves still show the first surface.

        What moves uncovers what is behind it. Where that does not show, the id has gone to something else, or the
        outline has changed.
        """
        left_m = self.tree.query(transform_points(invert_se3(motion), self.first.points))[0]
        in_place, hidden = self.now.still_shows(self.first.points)
        left = (left_m > max(2.0 * self.first.spacing_m, LEFT_M)) & ~hidden
        return bool(left.sum() >= MIN_LEFT and in_place[left].mean() >= 0.5)

    def _round(self, motion: Float64, kernel_m: float) -> tuple[Float64, float]:
        """The next motion, and the farthest that it takes a point from where the last one did, metres."""
        moved, there, nearest, shown = self._forwards(motion)
        back, nearest_back, shown_back = self._backwards(motion)
        weights = _geman_mcclure(there, kernel_m) * shown
        weights_back = _geman_mcclure(back, kernel_m) * shown_back
        if not weights.any() and not weights_back.any():
            return motion, 0.0
        fitted = fit_rigid(
            np.concatenate([self.first.points, self.first.points[nearest_back]]),
            np.concatenate([self.seen[nearest], self.seen]),
            np.concatenate([weights / len(weights), weights_back / len(weights_back)]),
        )
        return fitted, float(np.linalg.norm(transform_points(fitted, self.first.points) - moved, axis=1).max())

    def judge(self, motion: Float64) -> SurfaceMotion:
        """How well a motion explains what is seen."""
        moved, there, _, shown = self._forwards(motion)
        back, _, shown_back = self._backwards(motion)
        match_m = _by_depth(MATCH_M, MATCH_PER_DEPTH, transform_points(self.now.camera_from_reference, moved))
        # A sparse first surface is as far away as its points are apart.
        match_back_m = max(float(np.median(match_m)), 2.0 * self.first.spacing_m)
        cap_m = KERNELS_M[0]
        return SurfaceMotion(
            motion,
            visible=float(shown.mean()),
            matched=_mean((there < match_m)[shown], 0.0),
            explained=_mean((back < match_back_m)[shown_back], 0.0),
            cost_m=_mean(np.minimum(there, cap_m)[shown], cap_m) + _mean(np.minimum(back, cap_m)[shown_back], cap_m),
        )

    def _forwards(self, motion: Float64) -> tuple[Float64, Float64, npt.NDArray[np.intp], Bool]:
        """First points moved, their distance from the surface seen now, its nearest points, which ones can be seen."""
        moved = transform_points(motion, self.first.points)
        there, nearest = self.seen_tree.query(moved)
        return moved, there, nearest, self.now.visible(moved, self.first.instance_id)

    def _backwards(self, motion: Float64) -> tuple[Float64, npt.NDArray[np.intp], Bool]:
        """For the points seen now: distance from the first surface, its nearest points, which ones it could show."""
        moved_back = transform_points(invert_se3(motion), self.seen)
        back, nearest = self.tree.query(moved_back)
        return back, nearest, self.before.visible(moved_back, self.first.instance_id)


def _mean(values: Float64 | Bool, otherwise: float) -> float:
    return float(np.mean(values)) if len(values) else otherwise


def _geman_mcclure(distance_m: Float64, kernel_m: float) -> Float64:
    """Weights in (0, 1]: 1 at distance 0, 1/4 at the kernel."""
    return np.asarray((kernel_m**2 / (kernel_m**2 + distance_m**2)) ** 2)


def _by_depth(base_m: float, per_depth: float, points_in_camera: Float64) -> Float64:
    """(P,) a tolerance in metres that grows with the distance from the camera, as the noise of depth does."""
    return np.asarray(base_m + per_depth * np.maximum(points_in_camera[:, 2] - 0.5, 0.0))
