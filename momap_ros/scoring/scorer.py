"""Keeps forecasts and compares them with the frames that follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, Float64, invert_se3, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.rgbd import RGBDFrame
from momap_ros.scoring.camera import BackgroundReference, MovingCameraError
from momap_ros.scoring.observation import MIN_POINTS, FirstSurface, ObservedScene, SurfaceMotion
from momap_ros.scoring.scores import ObjectScore, Outcome

HORIZONS_S = (0.5, 1.0, 2.0, 5.0)
MAX_POINTS = 96  # of an object are compared
WORKING_WIDTH_PX = 320  # a forecast keeps its first frame at this width at most
SLACK = 0.2  # of a horizon: farthest that the frame which is compared may be from it
MAX_PENDING = 32  # forecasts that wait for their horizons


@dataclass(eq=False)
class _Object:
    """One object of a forecast that waits.

    Attributes:
        surface: what is looked for.
        positions: (N, P, T, 3) forecast positions, metres, reference coordinates.
        motions: observed motions at earlier horizons, the newest last: where to begin at the next.
    """

    surface: FirstSurface
    positions: Float32
    motions: list[Float64] = field(default_factory=lambda: [np.eye(4)])


@dataclass(eq=False)
class _Pending:
    """One forecast whose horizons have not all come."""

    stamp_ns: int
    step_s: float
    labels: dict[int, str]
    objects: dict[int, _Object]
    background: BackgroundReference | None
    reference_from_world: Float64 | None
    horizons_s: deque[float]


class ForecastScorer:
    """Scores forecasts by the frames that follow them.

    For every object of a forecast and every horizon, the surface it showed in the forecast's frame is registered to
    what the frame at the horizon shows under its id. That gives the points' observed positions, with which the forecast
    ones and the unmoved ones are compared. The forecast has no part in the registration.

    The camera must rest, or its poses must be given; where neither is so, `observe` refuses, unless the poses are to be
    estimated from the background.

    Example:
        scorer = ForecastScorer()
        scorer.add(forecast.trajectories, frame, instances)
        for frame, instances in later:
            scores += scorer.observe(frame, instances)
    """

    def __init__(self, horizons_s: Sequence[float] = HORIZONS_S, *, estimate_camera: bool = False) -> None:
        """A scorer without forecasts.

        Args:
            horizons_s: when to compare, seconds after the forecast's frame.
            estimate_camera: estimate the poses of a camera that moves from the background, where they are not given.

        Raises:
            ValueError: no horizon, or one that is not positive.
        """
        if not horizons_s or not min(horizons_s) > 0:
            raise ValueError(f"horizons_s: expected positive seconds, got {list(horizons_s)}")
        self.horizons_s = tuple(sorted(horizons_s))
        self.estimate_camera = estimate_camera
        self.dropped = 0
        self._pending: deque[_Pending] = deque()
        self._last_stamp_ns: int | None = None

    @property
    def num_pending(self) -> int:
        """Forecasts that wait for a horizon."""
        return len(self._pending)

    def reset(self) -> None:
        """Forget all forecasts: ids or time start anew."""
        self._pending.clear()
        self._last_stamp_ns = None

    def add(
        self,
        trajectories: PointTrajectories,
        frame: RGBDFrame,
        instances: InstanceMap,
        *,
        world_from_camera: Float64 | None = None,
    ) -> None:
        """Keep a forecast; the oldest is dropped beyond MAX_PENDING.

        Args:
            trajectories: positions in the camera's optical frame at the forecast's time; every hypothesis is compared.
            frame: the frame that the forecast starts from.
            instances: its instances, with stable ids.
            world_from_camera: (4, 4) the camera's pose in any frame that rests; give it always or never.

        Raises:
            ValueError: the forecast starts from another frame.
        """
        if trajectories.stamp_ns != frame.stamp_ns or trajectories.frame_id != frame.frame_id:
            raise ValueError(
                f"trajectories: expected those of the frame at {frame.stamp_ns} ns in {frame.frame_id!r}, got "
                f"{trajectories.stamp_ns} ns in {trajectories.frame_id!r}; give the forecast with its own frame, in "
                "the camera's coordinates"
            )
        horizon_s = (trajectories.num_steps - 1) * trajectories.step_s
        horizons = deque(wanted for wanted in self.horizons_s if wanted <= horizon_s + 0.5 * trajectories.step_s)
        objects = _objects(trajectories, frame, instances)
        if not horizons or not objects:
            return
        world = None if world_from_camera is None else invert_se3(world_from_camera)
        background = BackgroundReference(*_small(frame, instances)) if world is None else None
        labels = {key: instances.labels.get(key, "") for key in objects}
        self._pending.append(
            _Pending(frame.stamp_ns, trajectories.step_s, labels, objects, background, world, horizons)
        )
        if len(self._pending) > MAX_PENDING:
            self._pending.popleft()
            self.dropped += 1

    def observe(
        self, frame: RGBDFrame, instances: InstanceMap, *, world_from_camera: Float64 | None = None
    ) -> list[ObjectScore]:
        """Compare the forecasts whose horizon this frame is nearest to.

        A frame is taken for a horizon when the next one, as far from it as the last, would be farther away.

        Args:
            frame: newer than all before.
            instances: its instances, under the ids of the forecasts' frames.
            world_from_camera: (4, 4) as in `add`.

        Returns:
            One score per object and horizon that came; empty where none did.

        Raises:
            MovingCameraError: the camera moved and nobody knows where to; the forecasts concerned are dropped.
        """
        last_ns, self._last_stamp_ns = self._last_stamp_ns, frame.stamp_ns
        half_interval_s = 0.0 if last_ns is None else 0.5e-9 * (frame.stamp_ns - last_ns)
        scores: list[ObjectScore] = []
        for pending in list(self._pending):
            lead_s = (frame.stamp_ns - pending.stamp_ns) * 1e-9
            while pending.horizons_s and pending.horizons_s[0] <= lead_s + min(
                half_interval_s, SLACK * pending.horizons_s[0]
            ):
                horizon_s = pending.horizons_s.popleft()
                if lead_s > (1 + SLACK) * horizon_s:
                    continue  # the stream had no frame for it
                try:
                    scene = self._scene(pending, frame, instances, world_from_camera)
                except MovingCameraError:
                    self._pending.remove(pending)
                    raise
                scores += [
                    _score(pending, instance_id, scene, horizon_s=horizon_s, lead_s=lead_s)
                    for instance_id in pending.objects
                ]
            if not pending.horizons_s:
                self._pending.remove(pending)
        return scores

    def _scene(
        self, pending: _Pending, frame: RGBDFrame, instances: InstanceMap, world_from_camera: Float64 | None
    ) -> ObservedScene:
        if pending.background is None and world_from_camera is not None and pending.reference_from_world is not None:
            reference_from_camera = pending.reference_from_world @ world_from_camera
            return ObservedScene(frame, instances, invert_se3(reference_from_camera))
        if pending.background is None:
            raise MovingCameraError(
                "world_from_camera: expected the camera's pose, as at the forecast's frame, got none; give it for all "
                "frames or for none"
            )
        motion = pending.background.compare(*_small(frame, instances))
        if motion.rests:
            return ObservedScene(frame, instances, np.eye(4))
        if self.estimate_camera and motion.camera_from_reference is not None:
            return ObservedScene(frame, instances, motion.camera_from_reference)
        lead_s = (frame.stamp_ns - pending.stamp_ns) * 1e-9
        moved = (
            f"the background shifted by {motion.shift_px:.0f} pixels of 640"
            if np.isfinite(motion.shift_px)
            else f"the background's depth changed by {motion.depth_change_m * 100:.1f} cm in the median"
        )
        advice = (
            "and its corners do not agree on one motion: give the camera's poses"
            if self.estimate_camera
            else "give the camera's poses, or have them estimated from the background"
        )
        raise MovingCameraError(
            f"camera: expected one that rests, got one that moved ({moved} in {lead_s:.1f} s); what moves cannot be "
            f"told from the camera's own motion, {advice}"
        )


def chosen_points(trajectories: PointTrajectories, instance_id: int) -> npt.NDArray[np.intp]:
    """Indices of the points that stand for an object: at most MAX_POINTS with known futures."""
    known = np.isfinite(trajectories.positions).all(axis=(0, 2, 3))
    points = np.flatnonzero(known & (trajectories.object_ids == instance_id))
    return np.random.default_rng(instance_id).choice(points, min(len(points), MAX_POINTS), replace=False)


def _objects(trajectories: PointTrajectories, frame: RGBDFrame, instances: InstanceMap) -> dict[int, _Object]:
    """The objects of a forecast that show enough points, by id."""
    scene = ObservedScene(*_small(frame, instances), np.eye(4))
    objects = {}
    for instance_id in np.unique(trajectories.object_ids[trajectories.object_ids > 0]).tolist():
        positions = trajectories.positions[:, chosen_points(trajectories, instance_id)]
        if positions.shape[1] and len(scene.surface(instance_id)) >= MIN_POINTS:
            objects[instance_id] = _Object(FirstSurface(scene, instance_id), positions)
    return objects


def _score(
    pending: _Pending, instance_id: int, scene: ObservedScene, *, horizon_s: float, lead_s: float
) -> ObjectScore:
    """Look for one object and compare."""
    waiting = pending.objects[instance_id]
    found = waiting.surface.find(scene, [np.eye(4), waiting.motions[-1]])
    outcome = _outcome(found, waiting, scene)
    stated = (pending.stamp_ns, instance_id, pending.labels[instance_id], horizon_s, lead_s, outcome)
    if found is None or outcome != Outcome.SCORED:
        return ObjectScore(*stated)
    waiting.motions.append(found.motion)
    first = waiting.positions[0, :, 0].astype(np.float64)
    observed = transform_points(found.motion, first)
    forecast = positions_at(waiting.positions, lead_s / pending.step_s)
    errors_m = np.linalg.norm(forecast - observed, axis=-1).mean(axis=-1)
    return ObjectScore(
        *stated,
        errors_m=tuple(errors_m.tolist()),
        static_error_m=float(np.linalg.norm(first - observed, axis=-1).mean()),
    )


def _outcome(found: SurfaceMotion | None, waiting: _Object, scene: ObservedScene) -> Outcome:
    if found is None:
        # Nothing, or next to nothing, has its id. Is something in front of where it was last seen?
        there = transform_points(waiting.motions[-1], waiting.surface.points)
        hidden = not scene.visible(there, waiting.surface.instance_id).mean() >= 0.5
        return Outcome.OCCLUDED if hidden else Outcome.LOST
    if not found.enough_visible:
        return Outcome.OCCLUDED
    return Outcome.SCORED if found.holds else Outcome.UNMATCHED


def positions_at(positions: Float32, step: float) -> Float64:
    """(..., 3) positions at a time between the steps of (..., T, 3) ones, linearly; at the last step beyond it."""
    last = positions.shape[-2] - 1
    before = int(np.clip(np.floor(step), 0, max(last - 1, 0)))
    share = min(step - before, 1.0)
    after = min(before + 1, last)
    return np.asarray((1.0 - share) * positions[..., before, :] + share * positions[..., after, :], np.float64)


def _small(frame: RGBDFrame, instances: InstanceMap) -> tuple[RGBDFrame, InstanceMap]:
    """The frame at the width that is kept; depth and ids are never mixed."""
    if frame.camera.width <= WORKING_WIDTH_PX:
        return frame, instances
    height = round(frame.camera.height * WORKING_WIDTH_PX / frame.camera.width)
    return frame.resized(WORKING_WIDTH_PX, height), instances.resized(WORKING_WIDTH_PX, height)
