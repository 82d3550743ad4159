"""What the model drew, kept in compact form and turned into metres where somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional

from momap_ros.conditioning import MAX_INSTANCES, SceneGrid
from momap_ros.instances import InstanceMap, Int32
from momap_ros.model.codec import MotionCodec
from momap_ros.momap import MoMap, PointTrajectories
from momap_ros.rgbd import RGBDFrame
from momap_ros.shapes import check_shapes

# Ridge of the linear part, in squared scene scales, 3 cm at a metre: turns drawn for what is smaller are mostly noise,
# so that it falls back to pure translation.
RIDGE = 1e-3
MOVING_GATE = 0.5


def fit_instances(
    latents: torch.Tensor, slots: torch.Tensor, points: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares affine map from point to latent for every instance.

    A rigid motion is affine in the point at step 0, so the map both upsamples the cells to any pixel of the instance
    and removes the part of the drawn latents that no rigid or linear motion explains.

    Args:
        latents: (N, C, 1024) drawn latents per cell.
        slots: (1024,) int64 slot per cell.
        points: (1024, 3) points at step 0 in scene scales; anything where not valid.
        valid: (1024,) bool, cells with depth.

    Returns:
        (N, MAX_INSTANCES, 4, C) maps of [1, point - centre], and (MAX_INSTANCES, 3) centres in scene scales.
    """
    check_shapes(latents=(latents, "N C P"), slots=(slots, "P"), points=(points, "P 3"), valid=(valid, "P"))
    count_used = int(slots.max()) + 1  # most scenes have fewer instances than there are slots
    member = functional.one_hot(slots, count_used).T.float()  # (M, P)
    with_depth = member * valid
    # An instance without any depth still moves as its cells say, without a linear part.
    used = torch.where(with_depth.sum(dim=1, keepdim=True) > 0, with_depth, member)
    count = used.sum(dim=1).clamp(min=1)
    known = torch.where(valid[:, None], points, torch.zeros(()))
    centres = (used @ known) / count[:, None]
    offset = (known[None] - centres[:, None]) * valid[None, :, None]  # (M, P, 3)
    design = torch.cat([torch.ones_like(offset[..., :1]), offset], dim=-1) * used[..., None]  # (M, P, 4)
    ridge = torch.diag(torch.tensor([1e-6, RIDGE, RIDGE, RIDGE])) * count[:, None, None]
    gram = design.transpose(1, 2) @ design + ridge  # (M, 4, 4)
    moments = design.transpose(1, 2).flatten(0, 1) @ latents.flatten(0, 1).T  # (4M, N C), one product for all
    solved = torch.linalg.solve(gram, moments.unflatten(0, (count_used, 4))).unflatten(2, latents.shape[:2])
    maps = torch.zeros(len(latents), MAX_INSTANCES, 4, latents.shape[1])
    maps[:, :count_used] = solved.permute(2, 0, 1, 3)  # (M, 4, N, C) -> (N, M, 4, C)
    return maps, functional.pad(centres, (0, 0, 0, MAX_INSTANCES - count_used))


@dataclass(frozen=True, eq=False)
class MoMapOutput:
    """N drawn futures of one frame.

    Attributes:
        frame: the frame they start from.
        instances: its instance map.
        grid: the frame as the model saw it.
        codec: turns latents into displacements.
        latents: (N, C, 1024) drawn latents, raw, per cell.
        maps: (N, MAX_INSTANCES, 4, C) affine maps from point to latent, see `fit_instances`.
        centres: (MAX_INSTANCES, 3) their origins, scene scales.
        moving_probability: (N, MAX_INSTANCES) mean over an instance's cells of the probability that they move.
        articulated: (MAX_INSTANCES,) bool, instances whose parts move differently: cells speak for themselves.
        step_s: seconds between two steps, from the predicted length of the motion.
        ignored_words: words of the prompt that are unknown or beyond the length limit.
        applied_hints: instance id -> (x, y, z) direction flags that the drawing was conditioned on.
        goals: instance id -> id of the instance that it is expected to go to; only of those that have such a goal.
        network_s: seconds that the networks took, until what they drew was on the CPU.
    """

    frame: RGBDFrame
    instances: InstanceMap
    grid: SceneGrid
    codec: MotionCodec
    latents: torch.Tensor
    maps: torch.Tensor
    centres: torch.Tensor
    moving_probability: torch.Tensor
    articulated: torch.Tensor
    step_s: float
    ignored_words: tuple[str, ...] = ()
    applied_hints: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    goals: Mapping[int, int] = field(default_factory=dict)
    network_s: float = 0.0

    @property
    def num_hypotheses(self) -> int:
        """N."""
        return int(self.latents.shape[0])

    def instance_moving_probability(self) -> dict[int, float]:
        """Instance id -> probability that it moves, mean over the hypotheses; absent: what the model could not see."""
        mean = self.moving_probability.mean(dim=0)
        return {instance_id: float(mean[slot]) for slot, instance_id in enumerate(self.grid.slot_ids, start=1)}

    def reordered(self, order: npt.NDArray[np.intp]) -> MoMapOutput:
        """Futures of these, in another order: (M,) indices of the present one; all or some."""
        rows = torch.from_numpy(order)
        return replace(
            self, latents=self.latents[rows], maps=self.maps[rows], moving_probability=self.moving_probability[rows]
        )

    def trajectories(self, pixels: Int32, hypotheses: Sequence[int] | None = None) -> PointTrajectories:
        """The futures of chosen pixels of the source image.

        Background pixels stay where they are. Pixels of an instance that the model could not see (`grid.dropped_ids`)
        and pixels without depth are NaN: unknown, not at rest.

        Args:
            pixels: (P, 2) int32 (u, v).
            hypotheses: indices of the futures wanted; all where None.
        """
        check_shapes(pixels=(pixels, "P 2"))
        u, v = pixels[:, 0], pixels[:, 1]
        ids = self.instances.ids[v, u]
        points = self.frame.points_at(u, v)
        chosen = list(range(self.num_hypotheses)) if hypotheses is None else list(hypotheses)
        positions, confidence = self._positions(points, ids, pixels, chosen)
        camera = self.frame.camera
        return PointTrajectories(
            positions,
            ids,
            pixels,
            camera.width,
            camera.height,
            self.step_s,
            confidence,
            self.frame.frame_id,
            self.frame.stamp_ns,
        )

    def momap(self, hypothesis: int, width: int = 256, height: int = 256) -> MoMap:
        """One future as a dense MoMap of the frame stretched to width x height."""
        frame = self.frame.resized(width, height)
        ids = self.instances.resized(width, height).ids
        rows, columns = np.nonzero(frame.valid)
        scale = np.array([self.frame.camera.width / width, self.frame.camera.height / height])
        source = ((np.stack([columns, rows], axis=-1) + 0.5) * scale).astype(np.int32)
        positions, _ = self._positions(frame.points_in_camera[rows, columns], ids[rows, columns], source, [hypothesis])
        xyz = np.full((self.codec.num_steps, height, width, 3), np.nan, np.float32)
        xyz[:, rows, columns] = positions[0].transpose(1, 0, 2)
        return MoMap(xyz, frame.valid, self.step_s, self.frame.frame_id, self.frame.stamp_ns)

    @cached_property
    def _slot_of_id(self) -> npt.NDArray[np.int64]:
        """Slot per instance id; -1 = an instance the model could not see."""
        lookup = np.full(max([0, *self.instances.areas_px]) + 1, -1, np.int64)
        lookup[0] = 0
        for slot, instance_id in enumerate(self.grid.slot_ids, start=1):
            lookup[instance_id] = slot
        return lookup

    def _positions(
        self, points: np.ndarray, ids: Int32, pixels: Int32, hypotheses: list[int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(N, P, T, 3) metres and (N, P) confidence."""
        positions = np.empty((len(hypotheses), len(points), self.codec.num_steps, 3), np.float32)
        # Whole rows at once: several times faster than three numbers at a time.
        rows = positions.reshape(len(hypotheses), len(points), 3 * self.codec.num_steps)
        rows[:] = np.tile(points, self.codec.num_steps)
        confidence = np.ones((len(hypotheses), len(points)), np.float32)
        slots = self._slot_of_id[ids]
        known = ~np.isnan(points[:, 2])
        positions[:, (slots < 0), 1:] = np.nan
        confidence[:, (slots < 0) | ~known] = 0
        for slot in range(1, len(self.grid.slot_ids) + 1):
            of_slot = np.flatnonzero((slots == slot) & known)
            probability = self.moving_probability[hypotheses, slot].numpy()
            confidence[:, of_slot] = np.maximum(probability, 1 - probability)[:, None]
            moving = np.flatnonzero(probability > MOVING_GATE)
            if len(of_slot) and len(moving):
                drawn = [hypotheses[row] for row in moving]
                moved = self._displacements(drawn, slot, points[of_slot], pixels[of_slot])
                is_run = of_slot[-1] - of_slot[0] == len(of_slot) - 1  # then nothing needs to be copied
                chosen = slice(of_slot[0], of_slot[-1] + 1) if is_run else of_slot
                for row, displacement in zip(moving, moved, strict=True):
                    positions[row, chosen] += displacement
        return positions, confidence

    def _displacements(
        self, hypotheses: list[int], slot: int, points: np.ndarray, pixels: Int32
    ) -> Iterator[npt.NDArray[np.float32]]:
        """(P, T, 3) displacements, metres, of points of one instance in each of the futures."""
        scale_m = self.grid.scale_m
        if self.articulated[slot]:
            nearest = self._nearest_cells(slot, pixels)
            for hypothesis in hypotheses:
                yield (self.codec.decode(self.latents[hypothesis][:, nearest].T) * scale_m).numpy()
            return
        # The codec is linear, so a map is decoded once, and not at every point.
        offset = torch.from_numpy(points / scale_m).float() - self.centres[slot]
        design = torch.cat([torch.ones_like(offset[:, :1]), offset], dim=1).numpy()
        for decoded in (self.codec.decode(self.maps[hypotheses, slot]) * scale_m).numpy():  # (4, T, 3)
            yield (design @ decoded.reshape(4, -1)).reshape(len(points), *decoded.shape[1:])

    def _nearest_cells(self, slot: int, pixels: Int32) -> npt.NDArray[np.intp]:
        """(P,) the instance's cell nearest to each of its pixels."""
        cells = np.flatnonzero(self.grid.slots.ravel() == slot)
        row, column = np.divmod(cells, self.grid.slots.shape[1])
        camera = self.frame.camera
        at = (pixels + 0.5) * np.array(
            [self.grid.slots.shape[1] / camera.width, self.grid.slots.shape[0] / camera.height]
        )
        distance = (at[:, :1] - column - 0.5) ** 2 + (at[:, 1:] - row - 0.5) ** 2
        return np.asarray(cells[distance.argmin(axis=1)])
