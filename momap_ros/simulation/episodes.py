"""One episode by its number: scene, demonstration, and every body's pose at equal time steps."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from momap_ros.data.sample import Role
from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.simulation.arm import MOCAP, ROBOT_BODIES
from momap_ros.simulation.scene import SEEN_CHOICES, UNSEEN_CHOICES, NoRoomError, Scene, build_scene
from momap_ros.simulation.skills import Rollout, perform

# The seed of an episode is (split, episode, stream): a split is disjoint from every other, and cameras drawn later
# never change the scene or the motion.
_SPLIT_SEEDS = {"train": 1, "val": 2, "objects": 3}
SPLITS = tuple(_SPLIT_SEEDS)
_SCENE_STREAM, _ROLLOUT_STREAM, _FIRST_VIEW_STREAM, _FIRST_VIDEO_STREAM = 0, 1, 10, 1000


@dataclass(frozen=True)
class Episode:
    """A scene and one demonstration in it.

    Attributes:
        split: one of SPLITS.
        index: number within the split.
        scene: the scene and its task.
        rollout: every simulated state.
    """

    split: str
    index: int
    scene: Scene
    rollout: Rollout

    def view_rng(self, view: int) -> np.random.Generator:
        """The random stream of one camera and its sentence."""
        return _rng(self.split, self.index, _FIRST_VIEW_STREAM + view)

    def video_rng(self, camera: int) -> np.random.Generator:
        """The random stream of one video camera and its sentence."""
        return _rng(self.split, self.index, _FIRST_VIDEO_STREAM + camera)

    def state_indices(self, num_steps: int) -> list[int]:
        """Indices of `num_steps` states at equal time steps over the whole motion."""
        return [int(i) for i in np.round(np.linspace(0, len(self.rollout.qpos) - 1, num_steps))]

    def restore(self, data: mujoco.MjData, state: int) -> None:
        """Put `data` at a recorded state: body poses are exactly those of the recorded joints."""
        data.qpos[:] = self.rollout.qpos[state]
        data.mocap_pos[0] = self.rollout.mocap_pos[state]
        data.mocap_quat[0] = self.rollout.mocap_quat[state]
        mujoco.mj_kinematics(self.scene.model, data)
        mujoco.mj_camlight(self.scene.model, data)

    def world_from_bodies(self, data: mujoco.MjData, states: list[int]) -> Float64:
        """(T, B, 4, 4) pose of every body at the given states, metres; leaves `data` at the last one."""
        rotations, positions = [], []
        for state in states:
            self.restore(data, state)
            rotations.append(data.xmat.reshape(-1, 3, 3).copy())
            positions.append(data.xpos.copy())
        return se3_from_parts(np.array(rotations), np.array(positions))


def simulate_episode(split: str, index: int) -> Episode | None:
    """The episode of this number, or None where its scene does not fit on the table.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in _SPLIT_SEEDS:
        raise ValueError(f"split: expected one of {list(SPLITS)}, got {split!r}")
    choices = UNSEEN_CHOICES if split == "objects" else SEEN_CHOICES
    try:
        scene = build_scene(choices, _rng(split, index, _SCENE_STREAM))
    except NoRoomError:
        return None
    return Episode(split, index, scene, perform(scene, _rng(split, index, _ROLLOUT_STREAM)))


def body_roles(scene: Scene) -> tuple[Role, ...]:
    """The role of every body of the model, in its order."""
    roles = []
    for body in range(scene.model.nbody):
        name = scene.model.body(body).name
        if body == 0:
            role = Role.WORLD
        elif name == MOCAP:
            role = Role.HIDDEN
        elif name in ROBOT_BODIES:
            role = Role.ROBOT
        elif name == scene.acted:
            role = Role.ACTED
        elif name == "cabinet":
            role = Role.FIXTURE
        else:
            role = Role.OBJECT
        roles.append(role)
    return tuple(roles)


def _rng(split: str, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([_SPLIT_SEEDS[split], index, stream])
