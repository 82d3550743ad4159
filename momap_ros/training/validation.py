"""Losses on samples that a run learns from and on others: the gap says whether more data or more steps are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from momap_ros.data.growing import GrowingSplit
from momap_ros.data.prepared import VALIDATION_SPLIT, PreparedSplit
from momap_ros.model.schedule import NUM_TIMESTEPS
from momap_ros.training.scenes import Drops, draw_scenes
from momap_ros.training.steps import DrawnStep

MOST_SAMPLES = 128
WATCHED = ("latent", "instance", "motion")
ASKED = Drops(text=1.0, hints="none", faults=False)


def evenly_spread(split: PreparedSplit | GrowingSplit) -> DrawnStep:
    """At most MOST_SAMPLES of a split, with their sentences and without faults, to be drawn from noise alone."""
    indices = np.unique(np.linspace(0, len(split) - 1, MOST_SAMPLES).astype(np.intp))
    scenes = draw_scenes(split, indices, drops=ASKED, rng=np.random.default_rng(0))
    return DrawnStep(scenes, torch.full((len(indices),), NUM_TIMESTEPS - 1), noise_seed=0)


@dataclass(frozen=True, eq=False)
class Validation:
    """What is looked at again and again during a run; nothing of it changes.

    Attributes:
        seen: training samples.
        unseen: of another split.
    """

    seen: DrawnStep
    unseen: DrawnStep

    @classmethod
    def of(cls, data: Path, trained_on: PreparedSplit | GrowingSplit) -> Validation | None:
        """Of a folder with prepared samples of another split beside those of `train`; None where there are none."""
        if not (data / VALIDATION_SPLIT).is_dir():
            return None
        return cls(evenly_spread(trained_on), evenly_spread(PreparedSplit.open(data / VALIDATION_SPLIT)))

    @torch.no_grad()
    def losses(self, loss: Callable[[DrawnStep], tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> dict[str, float]:
        """Parts of a model's loss, as `seen_latent`, `unseen_latent` and so on.

        Args:
            loss: of the model: the whole and its parts.
        """
        found: dict[str, float] = {}
        for name, drawn in (("seen", self.seen), ("unseen", self.unseen)):
            _, parts = loss(drawn)
            found |= {f"{name}_{part}": round(float(parts[part]), 5) for part in WATCHED}
        return found
