"""What a robot knows before it acts, or while it does: one image, its instances, and their points in space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np

from momap_ros.config import SegmentationConfig
from momap_ros.data.sample import Role, Sample
from momap_ros.geometry import Float64, invert_se3, se3_from_parts, transform_points
from momap_ros.instances import InstanceMap
from momap_ros.policies.contacts import Surroundings
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError
from momap_ros.simulation.cameras import View
from momap_ros.simulation.stage import Stage
from momap_ros.simulation.views import build_sample, camera_motion, draw_views, find_view

_REACH_M = 1.2  # points farther away than that are walls and floor


@dataclass(frozen=True, eq=False)
class FirstView:
    """The first image of an episode, or a later one of the same camera.

    Attributes:
        view: the camera.
        sample: image, sentence, and the true future.
        frame: the image with its depth.
        instances: true ids, or those of the tabletop segmenter.
        robot_ids: instances that are mostly robot: a robot knows where it is itself.
    """

    view: View
    sample: Sample
    frame: RGBDFrame
    instances: InstanceMap
    robot_ids: frozenset[int]

    @property
    def world_from_camera(self) -> Float64:
        """(4, 4), metres; world z is up, the table at 0."""
        return invert_se3(self.sample.camera_from_world)

    def body_of(self, instance_id: int) -> int:
        """The body that most of an instance's pixels show."""
        return int(np.bincount(self.sample.body_ids[self.instances.ids == instance_id]).argmax())

    def instance_of_acted(self) -> int | None:
        """The instance most of whose pixels show what the sentence asks to move; None where there is none."""
        roles = self.sample.body_roles
        for instance_id in self.instances.areas_px:
            if instance_id not in self.robot_ids and roles[self.body_of(instance_id)] == Role.ACTED:
                return int(instance_id)
        return None

    def surroundings(self, instance_id: int, base_from_world: Float64) -> Surroundings:
        """Points of an instance, and of everything else within reach but the robot; base frame."""
        base_from_camera = base_from_world @ self.world_from_camera
        own = (self.instances.ids == instance_id) & self.frame.valid
        robot = np.array(self.sample.body_roles)[self.sample.body_ids] == Role.ROBOT
        rest = self.frame.valid & ~own & ~robot
        others = transform_points(base_from_camera, self.frame.points_in_camera[rest])
        near = np.linalg.norm(others, axis=1) < _REACH_M
        points = transform_points(base_from_camera, self.frame.points_in_camera[own])
        return Surroundings(points, others[near], other_ids=self.instances.ids[rest][near])


def first_view(stage: Stage, size: int, *, camera: int = 0, instances: str = "true") -> FirstView | None:
    """What one of the episode's cameras sees at its first state; None where no camera sees the task.

    Args:
        stage: the episode, from rest.
        size: width and height of the image, pixels.
        camera: number of the camera.
        instances: "true" ids, or those of the "tabletop" segmenter.
    """
    episode = stage.episode
    rng = episode.view_rng(camera)
    first = find_view(stage, draw_views(stage, rng, size, size))
    if first is None:
        return None
    sample = build_sample(stage, first, rng, key=f"{episode.split}_{episode.index:07d}_{camera}")
    return _seen(first.view, sample, instances)


def later_view(stage: Stage, first: FirstView, data: mujoco.MjData, *, step: int, instances: str = "true") -> FirstView:
    """What the same camera sees while somebody acts; the true future is the rest of the demonstration.

    Args:
        stage: the episode.
        first: what the camera saw at the first state.
        data: the simulation now; its poses are those of its last step.
        step: of the demonstration, which the state now is nearest to: its later steps are what is still to come.
        instances: "true" ids, or those of the "tabletop" segmenter.
    """
    depth_m, bodies = stage.renderer.depth_and_bodies(data, first.view)
    now = se3_from_parts(data.xmat.reshape(-1, 3, 3), data.xpos)
    steps = len(stage.world_from_bodies)
    ahead = stage.world_from_bodies[np.minimum(np.arange(step + 1, step + steps), steps - 1)]
    moving = first.sample.moving_bodies.astype(np.intp)
    sample = replace(
        first.sample,
        rgb=stage.renderer.rgb(data, first.view),
        depth_m=depth_m,
        body_ids=np.maximum(bodies, 0).astype(np.uint8),
        motion_t_from_0=camera_motion(first.sample.camera_from_world, np.append(now[None], ahead, axis=0)[:, moving]),
        visible=None,
    )
    return _seen(first.view, sample, instances)


def _seen(view: View, sample: Sample, instances: str) -> FirstView:
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
    found = sample.instance_map(merge_robot=True) if instances == "true" else _on_table(frame)
    robot = np.array(sample.body_roles)[sample.body_ids] == Role.ROBOT
    mine = [number for number in found.areas_px if robot[found.ids == number].mean() > 0.5]
    return FirstView(view, sample, frame, found, frozenset(int(number) for number in mine))


def _on_table(frame: RGBDFrame) -> InstanceMap:
    from momap_ros.segmentation.tabletop import TabletopSegmenter

    try:
        return TabletopSegmenter(SegmentationConfig())(frame)
    except SegmentationError:
        return InstanceMap(np.zeros(frame.depth_m.shape, np.int32))
