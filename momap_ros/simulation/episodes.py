"""One episode by its number: scene, demonstration, and every body's pose at equal time steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import numpy as np

from momap_ros.data.sample import Role
from momap_ros.geometry import Float64, se3_from_parts
from momap_ros.simulation.arm import MOCAP, ROBOT_BODIES
from momap_ros.simulation.hand import Rollout, ScriptedHand, Simulation
from momap_ros.simulation.scene import NoRoomError, Scene, build_scene
from momap_ros.simulation.skill import Skill
from momap_ros.simulation.skills.registry import SKILLS, draw_skill
from momap_ros.simulation.splits import SPLITS, Split
from momap_ros.simulation.task import Task

# The seed of an episode is (split, episode, stream): a split is disjoint from every other, and cameras drawn later
# never change the scene or the motion.
_SCENE_STREAM, _ROLLOUT_STREAM, _TIMING_STREAM, _FUTURE_STREAM = 0, 1, 2, 100
_FIRST_VIEW_STREAM, _FIRST_VIDEO_STREAM = 10, 1000
MAX_DURATION_S, MIN_DURATION_S = 15.0, 5.0  # of a demonstration, as in BRIDGE
_SLOWEST = 4.0  # longest a quasi-static motion is stretched
_MID_TASK_SHARE = 0.35
_TRIES_PER_FUTURE = 3
_DRAWS_OF_TASK = 100  # until one is about the same object and target
_MIN_REST_M = 0.02  # of the acted motion that a start in the middle leaves to be seen


@dataclass(frozen=True)
class Episode:
    """A scene and one demonstration in it.

    Attributes:
        split: one of SPLITS.
        index: number within the split.
        scene: the scene and its task.
        rollout: every simulated state.
        future: number of the demonstration, where several start from the same first frame.
    """

    split: str
    index: int
    scene: Scene
    rollout: Rollout
    future: int = 0

    @property
    def skill(self) -> Skill:
        """What is demonstrated."""
        return SKILLS[self.scene.skill]

    def view_rng(self, view: int) -> np.random.Generator:
        """The random stream of one camera and its sentence; futures of one first frame share their cameras."""
        return _rng(self.split, self.index, _FIRST_VIEW_STREAM + view)

    def video_rng(self, camera: int) -> np.random.Generator:
        """The random stream of one video camera and its sentence."""
        return _rng(self.split, self.index, _FIRST_VIDEO_STREAM + camera)

    def state_indices(self, num_steps: int, step_s: float | None = None) -> list[int]:
        """Indices of the states at `num_steps` equal time steps.

        Args:
            num_steps: T.
            step_s: seconds between two steps; the whole motion is covered where None. Beyond its end, the last state.
        """
        last = len(self.rollout.qpos) - 1
        if step_s is None:
            return [int(i) for i in np.round(np.linspace(0, last, num_steps))]
        return [min(round(i * step_s / self.rollout.step_s), last) for i in range(num_steps)]

    def restore(self, data: mujoco.MjData, state: int) -> None:
        """Put `data` at a recorded state: body poses are exactly those of the recorded joints."""
        data.qpos[:] = self.rollout.qpos[state]
        data.mocap_pos[:] = self.rollout.mocap_pos[state]
        data.mocap_quat[:] = self.rollout.mocap_quat[state]
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


def simulate_episode(split: str, index: int, *, from_rest: bool = False) -> Episode | None:
    """The episode of this number, or None where its scene does not fit on the table.

    Args:
        split: one of SPLITS.
        index: number within the split.
        from_rest: the demonstration is shown from its beginning, in episodes too that are stored from their middle on.

    Raises:
        ValueError: the split is unknown.
    """
    scene = _build(_find_split(split), index)
    if scene is None:
        return None
    rollout = perform(scene, _rng(split, index, _ROLLOUT_STREAM))
    timing = _rng(split, index, _TIMING_STREAM)
    return Episode(split, index, scene, (_stretched if from_rest else _retimed)(scene, rollout, timing))


def skill_of_episode(split: str, index: int) -> Skill:
    """The skill of an episode, without building its scene.

    Raises:
        ValueError: the split is unknown.
    """
    return draw_skill(_find_split(split), _rng(split, index, _SCENE_STREAM))


def start_episode(episode: Episode) -> Simulation:
    """The episode's scene once more, in the very state in which its demonstration from rest begins; recording."""
    return _begin(episode.scene, _rng(episode.split, episode.index, _ROLLOUT_STREAM), episode.scene)


def simulate_futures(split: str, index: int) -> list[Episode]:
    """Demonstrations that start from the very same state: other goals, other objects, other skills.

    The first is what the scene was made for. Only successful ones are returned; fewer than the split asks for where
    the scene does not offer more.

    Raises:
        ValueError: the split is unknown.
    """
    asked = _find_split(split)
    scene = _build(asked, index)
    if scene is None:
        return []
    rng = _rng(split, index, _FUTURE_STREAM)
    others = [skill for skill in SKILLS.values() if asked.allows_skill(skill.name) and _could_happen(skill, scene)]
    found: list[Episode] = []
    for attempt in range(_TRIES_PER_FUTURE * asked.num_futures):
        task = _another_task(asked, scene, others, rng) if attempt else scene.task
        if task is None:
            continue
        variant = scene.with_task(task)
        rollout = perform(variant, _rng(split, index, _ROLLOUT_STREAM), start_of=scene, habits=rng)
        if rollout.success:
            found.append(Episode(split, index, variant, _stretched(variant, rollout, rng), len(found)))
        if len(found) == asked.num_futures:
            break
    return found


def demonstrate_again(episode: Episode, rng: np.random.Generator) -> Episode | None:
    """One more demonstration of an episode's task, from the very same first state: another goal, other habits.

    What is acted on, and what that goes to, stay the same; where exactly, how far and how is drawn anew.

    Args:
        episode: from its beginning, see `simulate_episode`.
        rng: source.

    Returns:
        None where the skill draws this task too rarely, or the demonstration failed.
    """
    scene, retarget = episode.scene, episode.skill.retarget
    tasks = (retarget(scene, rng) if retarget else scene.task for _ in range(_DRAWS_OF_TASK))
    task = next((task for task in tasks if task is not None and task.about == scene.task.about), None)
    if task is None:
        return None
    variant = scene.with_task(task)
    rollout = perform(variant, _rng(episode.split, episode.index, _ROLLOUT_STREAM), start_of=scene, habits=rng)
    again = Episode(episode.split, episode.index, variant, _stretched(variant, rollout, rng))
    return again if rollout.success else None


def perform(
    scene: Scene, rng: np.random.Generator, *, start_of: Scene | None = None, habits: np.random.Generator | None = None
) -> Rollout:
    """Play the scene's skill from rest to rest.

    Args:
        scene: the scene and its task.
        rng: draws where everything is at the beginning, and how the skill is played.
        start_of: the same scene with the task that decides how it begins; its own where None.
        habits: draws how the skill is played, instead of rng.
    """
    skill, simulation = SKILLS[scene.skill], _begin(scene, rng, start_of or scene)
    played_by = habits or rng
    if skill.perform is not None and isinstance(simulation, ScriptedHand):
        simulation.draw_habits(played_by)
        success = skill.perform(scene, simulation, played_by)
    else:
        assert skill.unfold is not None  # a skill has one of the two
        success = skill.unfold(scene, simulation, played_by)
    return simulation.rollout(success=success)


def body_roles(scene: Scene) -> tuple[Role, ...]:
    """The role of every body of the model, in its order."""
    fixed = {name for fixture in scene.fixtures for name in (fixture.body, *fixture.parts)}
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
        elif name in fixed:
            role = Role.FIXTURE
        else:
            role = Role.OBJECT
        roles.append(role)
    return tuple(roles)


def _find_split(name: str) -> Split:
    if name not in SPLITS:
        raise ValueError(f"split: expected one of {list(SPLITS)}, got {name!r}")
    return SPLITS[name]


def _build(split: Split, index: int) -> Scene | None:
    rng = _rng(split.name, index, _SCENE_STREAM)
    try:
        skill = draw_skill(split, rng)
        return build_scene(split, skill.furnish, rng, needs_arm=skill.unfold is None)
    except NoRoomError:
        return None


def _begin(scene: Scene, rng: np.random.Generator, beginning: Scene) -> Simulation:
    """Everything at rest where `beginning`, the same scene with its first task, has it; recording."""
    simulation = Simulation(scene) if scene.arm is None else ScriptedHand(scene, rng)
    start = SKILLS[beginning.skill].start
    if start is not None:
        start(beginning, simulation, rng)
    simulation.settle()
    simulation.start_recording()
    return simulation


def _could_happen(skill: Skill, scene: Scene) -> bool:
    """Whether a skill could be played from the first frame of a scene made for another one."""
    if skill.retarget is None or (SKILLS[scene.skill].unfold is not None and scene.acted):
        return False  # what falls by itself falls, whatever else happens
    return scene.arm is not None or skill.perform is None


def _another_task(split: Split, scene: Scene, skills: list[Skill], rng: np.random.Generator) -> Task | None:
    if not skills:
        return None
    skill = skills[int(rng.integers(len(skills)))]
    if skill.retarget is None or (scene.arm is None and skill.perform is not None):
        return None
    task = skill.retarget(scene, rng)
    if task is None or (task.item is not None and not split.acted_kinds(task.skill, [task.item.kind])):
        return None
    return task


def _retimed(scene: Scene, rollout: Rollout, rng: np.random.Generator) -> Rollout:
    """As long as people take for it, and sometimes seen from its middle on only."""
    stretched = _stretched(scene, rollout, rng)
    in_parts = scene.acted and SKILLS[scene.skill].quasi_static  # what falls or swings begins at rest
    if not in_parts or not rollout.success or rng.random() >= _MID_TASK_SHARE:
        return stretched
    first = int(rng.uniform(0.1, 0.6) * len(rollout.qpos))
    return stretched.from_state(first) if _still_to_move_m(scene, rollout, first) > _MIN_REST_M else stretched


def _stretched(scene: Scene, rollout: Rollout, rng: np.random.Generator) -> Rollout:
    """The same states over a longer time, where physics would allow it."""
    if not SKILLS[scene.skill].quasi_static or any(fixture.latch for fixture in scene.fixtures):
        return rollout
    wanted_s = rng.uniform(MIN_DURATION_S, MAX_DURATION_S)
    factor = float(np.clip(wanted_s / rollout.duration_s, 1.0, _SLOWEST))
    return replace(rollout, step_s=rollout.step_s * factor)


def _still_to_move_m(scene: Scene, rollout: Rollout, first: int) -> float:
    """How far the acted body's geoms get from where they are at a state, metres."""
    data = mujoco.MjData(scene.model)
    geoms = scene.model.geom_bodyid == scene.model.body(scene.acted).id
    places = []
    for state in np.linspace(first, len(rollout.qpos) - 1, 8).astype(int):
        data.qpos[:] = rollout.qpos[state]
        mujoco.mj_kinematics(scene.model, data)
        places.append(data.geom_xpos[geoms].copy())
    return float(np.linalg.norm(np.array(places) - places[0], axis=-1).max())


def _rng(split: str, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([SPLITS[split].seed, index, stream])
