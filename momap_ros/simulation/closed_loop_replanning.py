"""Looks and forecasts again while the simulated gripper holds an object; the library's `Follower` decides.

A forecast takes no simulated time: the simulation waits for it. Which instance of the new image is the object that is
held, and where it is by now, is the simulator's, as a tracker's would be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from momap_ros.config import FollowerConfig
from momap_ros.geometry import Float64, FloatArray, invert_se3, transform_points
from momap_ros.object_motion import ObjectMotion
from momap_ros.policies.contacts import Surroundings
from momap_ros.policies.follower import Plan
from momap_ros.policies.replanning import Follower
from momap_ros.simulation.closed_loop_view import FirstView, later_view
from momap_ros.simulation.stage import Stage

_ONSET_M = 0.003  # a body has begun to move when one of its marks is so far from where it rested
_MARKS_M = 0.1 * np.concatenate([np.zeros((1, 3)), np.eye(3)])  # of a body, in its frame: where it is and how turned


@dataclass(frozen=True, eq=False)
class Replanning:
    """How an attempt looks and forecasts again.

    Attributes:
        stage: the episode, its renderer open.
        view: the first image; later ones are of the same camera.
        forecast: an image -> motions of its instances, camera frame, and seconds between two of their steps.
        every_s: seconds between two forecasts; positive.
        instances: "true" ids, or those of the "tabletop" segmenter.
    """

    stage: Stage
    view: FirstView
    forecast: Callable[[FirstView], tuple[list[ObjectMotion], float]]
    every_s: float
    instances: str = "true"


@dataclass(frozen=True)
class Replans:
    """What became of the forecasts made while an object was held.

    Attributes:
        taken: the gripper followed the new way.
        kept: it went on along the rest of the plan before: the object was not seen, or the new way was another one.
        stopped: the object was not where the plan had it, or the new hypotheses are too spread.
    """

    taken: int = 0
    kept: int = 0
    stopped: int = 0


class Replanner:
    """One object that is held, forecast again and again.

    Attributes:
        replans: what became of the forecasts so far.
    """

    def __init__(
        self,
        replanning: Replanning,
        plan: Plan,
        body: int,
        *,
        config: FollowerConfig,
        centroid_in_camera: FloatArray,
        base_from_camera: Float64,
    ) -> None:
        """Begin with the plan of the first forecast, whose way begins now.

        Args:
            replanning: how to look and forecast.
            plan: of the first forecast.
            body: what is held.
            config: bounds; the rate is that of `replanning`.
            centroid_in_camera: (3,) of the object in the first forecast, metres.
            base_from_camera: (4, 4).
        """
        self.replans = Replans()
        self._replanning, self._body, self._base_from_camera = replanning, body, base_from_camera
        self._instance_id = plan.instance_id
        self._centroid = transform_points(base_from_camera, np.asarray(centroid_in_camera, np.float64))
        self._follower = Follower(replace(config, replan_s=0.0))
        self._follower.begin(0.0, plan, self._centroid)
        self._places = transform_points(replanning.stage.world_from_bodies[:, body, None], _MARKS_M)  # (T, 4, 3)
        self._step, self._looked_s = 0, 0.0

    @property
    def every_s(self) -> float:
        """Seconds between two forecasts."""
        return self._replanning.every_s

    @property
    def stopped(self) -> str:
        """Why the follower stopped: a class of failure and its figures; "" while it has not."""
        return self._follower.stopped

    def look(self, data: mujoco.MjData, time_s: float, moved: Float64) -> Plan | None:
        """Render, forecast, decide.

        Args:
            data: the simulation now.
            time_s: since the first plan's way began.
            moved: (4, 4) motion of the object since the first forecast, base frame, as a tracker sees it.

        Returns:
            The plan that is new; None where the one before is kept, and after a stop.
        """
        before = self._follower.plan
        self._step, self._looked_s = self._step_now(data, time_s - self._looked_s), time_s
        how = self._replanning
        view = later_view(how.stage, how.view, data, step=self._step, instances=how.instances)
        motions, step_s = how.forecast(view)
        centroid = transform_points(invert_se3(self._base_from_camera) @ moved, self._centroid)
        own = self._instance_in(view)
        tracked = [
            replace(motion, instance_id=self._instance_id, centroid_m=centroid)
            for motion in motions
            if motion.instance_id == own
        ]
        plan = self._follower.update(
            time_s, tracked, step_s, surroundings=_no_points, base_from_camera=self._base_from_camera
        )
        name = "stopped" if plan is None else "kept" if plan is before else "taken"
        self.replans = replace(self.replans, **{name: getattr(self.replans, name) + 1})
        return plan if name == "taken" else None

    def _instance_in(self, view: FirstView) -> int | None:
        """The largest instance most of whose pixels show what is held; None where there is none."""
        areas = {
            number: area
            for number, area in view.instances.areas_px.items()
            if number not in view.robot_ids and view.body_of(number) == self._body
        }
        return max(areas, key=lambda number: areas[number], default=None)

    def _step_now(self, data: mujoco.MjData, passed_s: float) -> int:
        """The demonstration's step that the object is nearest to, of those it can have reached since the last look.

        A way that comes back to where it was is thus not cut short.
        """
        moved_m = np.linalg.norm(self._places[self._step :] - self._places[self._step], axis=-1).max(axis=-1)
        begins = self._step + max(int((moved_m > _ONSET_M).argmax()) - 1, 0)
        farthest = begins + int(np.ceil(passed_s / self._replanning.stage.step_s))
        now = _MARKS_M @ data.xmat[self._body].reshape(3, 3).T + data.xpos[self._body]
        apart_m = np.linalg.norm(self._places[self._step : farthest + 1] - now, axis=-1).max(axis=-1)
        return self._step + int(apart_m.argmin())


def _no_points(_instance_id: int) -> Surroundings:
    raise AssertionError("a follower that has a plan asks for no points")
