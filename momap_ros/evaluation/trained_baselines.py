"""Trained baselines behind the interface of everything that is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from momap_ros.conditioning import (
    GRID,
    MAX_WORDS,
    SceneGrid,
    Vocabulary,
    assemble,
    hint_arrays,
    scene_grid,
    slot_colors,
)
from momap_ros.evaluation.predictor import MoMapPrediction, Prediction, Predictor, Scene
from momap_ros.geometry import Float32
from momap_ros.instances import Int32
from momap_ros.shapes import check_shapes

if TYPE_CHECKING:
    import torch

    from momap_ros.baselines.checkpoint import Baseline
    from momap_ros.baselines.general_flow import Cloud
    from momap_ros.model.pipeline import MoMapPipeline

NUM_INTERPOLATED = 3


def load_baseline(folder: Path | str) -> Predictor:
    """What `momap train baseline` left in RUN/checkpoint, named by its kind.

    Raises:
        CheckpointError: the folder is not such a checkpoint, or is damaged.
    """
    from momap_ros.baselines.checkpoint import Baseline

    path = Path(folder)
    kind = Baseline.load(path).kind
    return MoMapVAEPredictor(path, kind) if kind == "momap-vae" else GeneralFlowPredictor(path, kind)


@dataclass(frozen=True)
class MoMapVAEPredictor:
    """MoMap-VAE in the small model's own pipeline: same cells, moving gate and projection on one motion per instance.

    The weights are read when it is first used, so that it can be pickled before.

    Attributes:
        folder: its checkpoint.
        name: of its row.
        told: nothing.
    """

    folder: Path
    name: str
    told: str = ""

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> MoMapPrediction:
        """Draw futures; one pass of the network for all of them."""
        import torch

        # White whatever noise the pipeline would draw for diffusion: the prior of the code is.
        shape = (num_hypotheses, self.pipeline.codec.latent_channels, GRID, GRID)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        output = self.pipeline(
            scene.frame,
            scene.instances,
            scene.prompt,
            hints=scene.hints,
            num_hypotheses=num_hypotheses,
            num_inference_steps=1,
            latents=noise,
        )
        return MoMapPrediction(output)

    @cached_property
    def pipeline(self) -> MoMapPipeline:
        """The network in the denoiser's place."""
        from momap_ros.baselines.checkpoint import Baseline
        from momap_ros.baselines.conditional_vae import ConditionalVAE
        from momap_ros.model.pipeline import MoMapPipeline
        from momap_ros.model.schedule import shifted_cosine_scheduler

        baseline = Baseline.load(self.folder)
        if not isinstance(baseline.model, ConditionalVAE):
            raise ValueError(f"{self.folder}: expected a momap-vae, got a {baseline.kind}; use load_baseline")
        model = baseline.model
        decoder = model.decoder
        return MoMapPipeline(
            model.scene_encoder,
            decoder,  # type: ignore[arg-type]  # called like the denoiser, and by nothing else
            baseline.codec,
            shifted_cosine_scheduler(1.0),
        )


@dataclass(frozen=True, eq=False)
class FlowPrediction:
    """Futures of the cells of instances; any pixel takes those of its instance's nearest cells.

    Attributes:
        scene: what was given.
        grid: the scene as the model saw it.
        cells: (Q,) indices of the cells, row by row.
        displacement_m: (N, Q, T, 3) metres, camera frame.
        step_s: seconds between two steps.
    """

    scene: Scene
    grid: SceneGrid
    cells: npt.NDArray[np.intp]
    displacement_m: Float32
    step_s: float

    def instance_moving_probability(self) -> dict[int, float]:
        """Empty: General Flow has no such head."""
        return {}

    def trajectories(self, pixels: Int32) -> Float32:
        """The futures of chosen pixels: inverse-distance interpolation between the nearest cells of the instance.

        Background pixels stay. Pixels without depth, and those of instances that own no cell with depth, are NaN.

        Args:
            pixels: (P, 2) int32 (u, v).

        Returns:
            (N, P, T, 3) metres, camera frame.
        """
        check_shapes(pixels=(pixels, "P 2"))
        u, v = pixels[:, 0], pixels[:, 1]
        ids, points = self.scene.instances.ids[v, u], self.scene.frame.points_in_camera[v, u]
        num_hypotheses, _, num_steps, _ = self.displacement_m.shape
        positions = np.repeat(points[None, :, None], num_hypotheses, axis=0).repeat(num_steps, axis=2)
        of_cells = np.array([0, *self.grid.slot_ids])[self.grid.slots.ravel()[self.cells]]
        cell_points = self.grid.points_in_camera.reshape(-1, 3)[self.cells]
        for instance_id in np.unique(ids[ids > 0]).tolist():
            rows, own = np.flatnonzero(ids == instance_id), np.flatnonzero(of_cells == instance_id)
            if not len(own):
                positions[:, rows, 1:] = np.nan
                continue
            distance = np.linalg.norm(points[rows, None] - cell_points[own], axis=-1)
            nearest = distance.argsort(axis=1, kind="stable")[:, :NUM_INTERPOLATED]
            weight = 1 / (np.take_along_axis(distance, nearest, axis=1) + 1e-8)
            weight /= weight.sum(axis=1, keepdims=True)
            positions[:, rows] += np.einsum("pk,npktc->nptc", weight, self.displacement_m[:, own[nearest]])
        return positions.astype(np.float32, copy=False)


@dataclass(frozen=True)
class GeneralFlowPredictor:
    """A variant of General Flow: its trajectories as they are, without our projection on one motion per instance.

    It is asked for all cells of instances at once; hints are not among its inputs. The weights are read when it is
    first used, so that it can be pickled before.

    Attributes:
        folder: its checkpoint.
        name: of its row.
        told: nothing.
    """

    folder: Path
    name: str
    told: str = ""

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> Prediction:
        """Draw futures."""
        import torch

        from momap_ros.baselines.general_flow import GeneralFlow

        model, codec = self.baseline.model, self.baseline.codec
        if not isinstance(model, GeneralFlow):
            raise ValueError(f"{self.folder}: expected a General Flow, got a {self.baseline.kind}; use load_baseline")
        grid = scene_grid(scene.frame, scene.instances)
        cloud = self._cloud(grid, scene.prompt)
        cells = torch.from_numpy(np.flatnonzero((grid.slots.ravel() > 0) & cloud.valid[0].numpy()))
        displacement_m = model.draw(
            cloud,
            cells,
            num_hypotheses=num_hypotheses,
            num_steps=codec.num_steps,
            generator=torch.Generator().manual_seed(seed),
        )
        with torch.no_grad():
            duration_s = float(model.log_duration(cloud.words).exp())
        return FlowPrediction(scene, grid, cells.numpy(), displacement_m.numpy(), duration_s / (codec.num_steps - 1))

    def _cloud(self, grid: SceneGrid, prompt: str) -> Cloud:
        """The scene through the small model's own inputs, as in training."""
        import torch

        from momap_ros.baselines.general_flow import Cloud

        words, _ = Vocabulary(self.baseline.vocabulary).encode(prompt)
        flags, given = hint_arrays({}, grid.slot_ids)

        def batched(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array)[None]

        scale_m = torch.tensor([grid.scale_m])
        conditioning = assemble(
            rgb=batched(grid.rgb).float() / 127.5 - 1,
            points_in_camera=batched(grid.points_in_camera),
            scale_m=scale_m,
            slots=batched(grid.slots).long(),
            colors=batched(slot_colors(grid.slot_ids, 0)),
            hint_flags=batched(flags),
            hint_given=batched(given),
            words=batched(words.reshape(MAX_WORDS)),
        )
        return Cloud.of(conditioning, scale_m)

    @cached_property
    def baseline(self) -> Baseline:
        """The loaded network with its codec and words."""
        from momap_ros.baselines.checkpoint import Baseline

        return Baseline.load(self.folder)
