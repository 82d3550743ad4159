"""What is evaluated: anything that draws futures of a scene, the model included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from momap_ros.data.sample import Sample
from momap_ros.geometry import Float32
from momap_ros.instances import InstanceMap, Int32
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.model.output import MoMapOutput
    from momap_ros.model.pipeline import MoMapPipeline


class NoForecast(ValueError):  # noqa: N818  (no error: this predictor has nothing to say about this scene)
    """A predictor was given a scene that it cannot say anything about; the scene is counted, not scored."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What a predictor is given.

    Attributes:
        frame: registered colour and depth.
        instances: instance ids of the same image; 0 = background.
        prompt: the sentence; empty = none is given.
        hints: instance id -> signs of its displacement along x, y, z of the optical frame (paper Sec. 3.4.2).
        sample: the truth. Only oracles may read it, and they say so in their name or in `told`.
    """

    frame: RGBDFrame
    instances: InstanceMap
    prompt: str = ""
    hints: Mapping[int, Sequence[int]] = field(default_factory=lambda: MappingProxyType({}))
    sample: Sample | None = None


class Prediction(Protocol):
    """N drawn futures of one scene."""

    @property
    def step_s(self) -> float:
        """Seconds between two steps."""

    def trajectories(self, pixels: Int32) -> Float32:
        """The futures of chosen pixels.

        Args:
            pixels: (P, 2) int32 (u, v) in the scene's image.

        Returns:
            (N, P, T, 3) metres, the frame's camera, step 0 = the observed point; NaN = unknown.
        """

    def instance_moving_probability(self) -> dict[int, float]:
        """Instance id -> probability that it moves; empty where the predictor states none."""


class Predictor(Protocol):
    """Draws futures of scenes."""

    @property
    def name(self) -> str:
        """Of its row in every table; unique within an evaluation."""

    @property
    def told(self) -> str:
        """What it is told beyond frame, instance ids and prompt; "" if nothing."""

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> Prediction:
        """Draw futures; equal arguments give equal futures.

        Args:
            scene: what is known.
            num_hypotheses: futures wanted. A predictor that knows a single one gives that one.
            seed: of all its random numbers.

        Raises:
            NoForecast: it has nothing to say about this scene.
        """


@dataclass(frozen=True, eq=False)
class MoMapPrediction:
    """What the model drew, as a `Prediction`."""

    output: MoMapOutput

    @property
    def step_s(self) -> float:
        """Seconds between two steps, as predicted."""
        return self.output.step_s

    def trajectories(self, pixels: Int32) -> Float32:
        """(N, P, T, 3) metres; NaN where the model could not see the instance."""
        return self.output.trajectories(pixels).positions

    def instance_moving_probability(self) -> dict[int, float]:
        """Instance id -> mean probability over the futures; absent: what the model could not see."""
        return self.output.instance_moving_probability()


@dataclass(frozen=True)
class MoMapPredictor:
    """A checkpoint with its number of denoising steps; loaded when it is first used, so that it can be pickled before.

    Attributes:
        checkpoint: bundled name or folder.
        num_inference_steps: denoising steps.
        name: of its row.
        told: nothing.
        projected: on one motion per instance; False: every pixel moves as its instance's nearest cell was drawn.
        num_draws: futures drawn, of which those that speak for as many groups as futures are wanted are given, see
            `momap_ros.model.groups`; 0 = the wanted ones alone.
    """

    checkpoint: str = "small"
    num_inference_steps: int = 4
    name: str = "ours"
    told: str = ""
    projected: bool = True
    num_draws: int = 0

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> MoMapPrediction:
        """Draw futures with the noise of the seed."""
        import torch

        from momap_ros.model.groups import group_futures

        output = self.pipeline(
            scene.frame,
            scene.instances,
            scene.prompt,
            hints=scene.hints,
            num_hypotheses=max(num_hypotheses, self.num_draws),
            num_inference_steps=self.num_inference_steps,
            generator=torch.Generator().manual_seed(seed),
        )
        output = output.reordered(group_futures(output, num_hypotheses).speakers)
        if not self.projected:  # as what moves in parts is read
            output = replace(output, articulated=torch.ones_like(output.articulated))
        return MoMapPrediction(output)

    @cached_property
    def pipeline(self) -> MoMapPipeline:
        """The loaded model.

        Raises:
            CheckpointError: there is no such checkpoint, or it is damaged.
        """
        from momap_ros.model.pipeline import MoMapPipeline

        return MoMapPipeline.from_pretrained(self.checkpoint)
