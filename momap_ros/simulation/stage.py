"""An episode ready to be looked at: its renderer, and where every body is at every step of a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco

from momap_ros.data.sample import Role
from momap_ros.geometry import Float64
from momap_ros.simulation.episodes import Episode, body_roles
from momap_ros.simulation.render import SceneRenderer

NUM_STEPS = 50


@dataclass(frozen=True)
class Stage:
    """An episode ready to be looked at.

    Attributes:
        episode: the episode.
        data: the simulation, at step 0.
        states: (T,) indices of the recorded states that are the steps.
        step_s: seconds between two steps.
        world_from_bodies: (T, B, 4, 4) pose of every body at every step, metres.
        renderer: draws the episode's scene.
    """

    episode: Episode
    data: mujoco.MjData
    states: list[int]
    step_s: float
    world_from_bodies: Float64
    renderer: SceneRenderer

    @property
    def subjects(self) -> list[int]:
        """Bodies of which a view must show one: the acted one; where nothing is acted on, any object or fixture."""
        roles = body_roles(self.episode.scene)
        wanted = {Role.ACTED} if Role.ACTED in roles else {Role.OBJECT, Role.FIXTURE}
        return [body for body, role in enumerate(roles) if role in wanted]

    @property
    def goals(self) -> list[int]:
        """Bodies that a sentence may name as what the acted object goes to or comes from: a view must show them too."""
        task, model = self.episode.scene.task, self.episode.scene.model
        names = [task.target.name] if task.target else []
        if task.item and task.fixture:
            names.append(task.fixture.body)
        return [int(model.body(name).id) for name in names]


def open_stage(
    episode: Episode,
    width: int,
    height: int,
    *,
    num_steps: int = NUM_STEPS,
    step_s: float | None = None,
    supersampling: int = 1,
) -> Stage:
    """Prepare an episode for images of up to this size; close the renderer when done.

    Args:
        episode: the episode.
        width: pixels.
        height: pixels.
        num_steps: of a sample, at least 2, the first image included.
        step_s: seconds between two steps; so that the steps span the whole motion where absent.
        supersampling: each colour pixel averages this many samples across and down.

    Raises:
        ValueError: fewer than two steps, or a step that is not positive.
    """
    if num_steps < 2 or (step_s is not None and not step_s > 0):
        raise ValueError(
            f"steps: expected at least 2 of positive length, got {num_steps} of {step_s} s; "
            "leave the length out to span the whole motion"
        )
    states = episode.state_indices(num_steps, step_s)
    data = mujoco.MjData(episode.scene.model)
    world_from_bodies = episode.world_from_bodies(data, states)
    episode.restore(data, 0)
    renderer = SceneRenderer(episode.scene.model, width, height, supersampling=supersampling)
    step = episode.rollout.duration_s / (num_steps - 1) if step_s is None else step_s
    return Stage(episode, data, states, step, world_from_bodies, renderer)


def restaged(stage: Stage, future: Episode) -> Stage:
    """The stage of another demonstration in the same scene, from the same first state; both share the renderer."""
    num_steps = len(stage.states)
    states = future.state_indices(num_steps)
    poses = future.world_from_bodies(stage.data, states)
    future.restore(stage.data, 0)
    return replace(
        stage,
        episode=future,
        states=states,
        step_s=future.rollout.duration_s / (num_steps - 1),
        world_from_bodies=poses,
    )
