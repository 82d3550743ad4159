"""A run whose steps are made of drawn scenes: of the small model, its students, and what it is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Generic, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from momap_ros.data.growing import GrowingSplit
from momap_ros.data.prepared import PreparedSplit
from momap_ros.training.loop import Model, TrainingState
from momap_ros.training.steps import DrawnStep, PhasedTraining, draw_step, drawn_ahead, step_size

Options = TypeVar("Options", bound=PhasedTraining)


class SceneRun(TrainingState[Model], Generic[Model, Options], ABC):
    """What such runs share; each says what its loss is.

    Attributes:
        options: of the run.
        split: its samples.
        device: where the model is.
        rank: of this process.
        world: processes.
    """

    options: Options
    split: PreparedSplit | GrowingSplit
    device: torch.device
    rank: int = 0
    world: int = 1

    @abstractmethod
    def step_loss(self, drawn: DrawnStep) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the present step makes smaller, and its parts.

        Args:
            drawn: scenes, timesteps and the seed of the noise.
        """

    def train_step(self, drawn: DrawnStep | None = None) -> dict[str, torch.Tensor]:
        """One optimizer step; everything random depends on the step, the process and the kind of device alone.

        Args:
            drawn: what `draw_step` gives for this step, where somebody has drawn it already.

        Returns:
            Parts of the loss, left on the device: to read one waits for the GPU.
        """
        drawn = drawn or draw_step(self.split, self.options, self.step, rank=self.rank, world=self.world)
        # The fused attention's backward pass is several times slower on a CPU than plain matrix products.
        with sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext():
            loss, parts = self.step_loss(drawn)
            self.optimizer.zero_grad()
            loss.backward()
        self.update(step_size(self.step, self.options), self.world)
        return {name: value.detach() for name, value in parts.items()}

    def steps_ahead(self, loaders: int) -> Iterator[DrawnStep | None]:
        """What the remaining steps need: drawn by other processes beside a GPU, or None: drawn in the step itself.

        Args:
            loaders: those processes; 0 = none.
        """
        pinned = self.device.type == "cuda"
        return drawn_ahead(
            self.split, self.options, self.step, loaders, rank=self.rank, world=self.world, pinned=pinned
        )
