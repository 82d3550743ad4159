"""Stable ids: which instance of this frame is which of the frames before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from momap_ros.geometry import Float32, Float64
from momap_ros.instances import InstanceMap, renumbered
from momap_ros.rgbd import RGBDFrame

WORKING_WIDTH_PX = 160  # overlap and mean colour need no more
MIN_IOU = 0.2  # enough overlap to be the same object, wherever its centroid went
MAX_STEP_M = 0.15  # without overlap: farthest an object travels between two frames
MAX_COLOR_STEP = 0.15  # without overlap: largest change of the mean colour, RGB in [0, 1]
MAX_GROWTH = 3.0  # without overlap: largest ratio of the areas
REFUSED = 1e3  # cost of a pair that cannot be the same object


@dataclass(eq=False)
class _Track:
    """What is remembered of an instance.

    Attributes:
        mask: (P,) 1 where it was last seen, else 0, working pixels.
        centroid_m: (3,) median of its points; NaN without depth.
        color: (3,) mean colour, RGB in [0, 1]; NaN where it covers no working pixel.
        lost_frames: frames since it was seen.
    """

    mask: Float32
    centroid_m: Float64
    color: Float64
    lost_frames: int = 0


class InstanceTracker:
    """Gives the instances of a stream of frames ids that stay.

    An instance keeps its id when it overlaps where it just was, or appears near by with a similar colour and size; a
    lost one must do the latter. Among several candidates the assignment of least total cost decides (overlap,
    distance, colour). Forgotten ids are not given again. The camera may move slowly: overlap is measured in the image,
    distance in the camera frame.
    """

    def __init__(self, max_lost_frames: int) -> None:
        """A tracker without memory.

        Args:
            max_lost_frames: an id survives this many frames without its object being seen.
        """
        # Here, because this import takes half a second, which a frame cannot wait.
        from scipy.optimize import linear_sum_assignment

        self._assign = linear_sum_assignment
        self.max_lost_frames = max_lost_frames
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next instance has id 1."""
        self._tracks: dict[int, _Track] = {}
        self._next_id = 1
        self._shape: tuple[int, ...] = ()

    def __call__(self, frame: RGBDFrame, instances: InstanceMap) -> InstanceMap:
        """The instances with stable ids; names go with them. A change of the image size starts anew, as reset does.

        Args:
            frame: the frame in which the instances were found.
            instances: ids of this frame alone.

        Returns:
            The same regions under stable ids.
        """
        if instances.ids.shape != self._shape:
            self.reset()
            self._shape = instances.ids.shape
        seen = _describe(frame, instances)
        matches = self._match(seen)
        for track in self._tracks.values():
            track.lost_frames += 1
        for found_id, found in seen.items():
            if found_id not in matches:
                matches[found_id] = self._next_id
                self._next_id += 1
            self._tracks[matches[found_id]] = found
        self._tracks = {key: track for key, track in self._tracks.items() if track.lost_frames <= self.max_lost_frames}
        values = np.array([0, *seen], np.int32)
        stable = np.array([0, *(matches[found_id] for found_id in seen)], np.int32)
        names = {matches[key]: name for key, name in instances.labels.items() if key in matches}
        return InstanceMap(renumbered(instances.ids, values, stable), names)

    def _match(self, seen: dict[int, _Track]) -> dict[int, int]:
        """Id in this frame -> stable id, for the instances that were seen before."""
        if not seen or not self._tracks:
            return {}
        costs = _costs(list(self._tracks.values()), list(seen.values()))
        known, found_ids = list(self._tracks), list(seen)
        rows, columns = self._assign(costs)
        return {found_ids[c]: known[r] for r, c in zip(rows, columns, strict=True) if costs[r, c] < REFUSED}


def _describe(frame: RGBDFrame, instances: InstanceMap) -> dict[int, _Track]:
    """Mask, place and colour of every instance by its id in this frame, in rising order.

    An instance that covers no working pixel has neither, and gets a new id in every frame.
    """
    stride = max(1, frame.camera.width // WORKING_WIDTH_PX)
    ids = instances.ids[::stride, ::stride].ravel()
    points = (frame.camera.rays[::stride, ::stride] * frame.depth_m[::stride, ::stride, None]).reshape(-1, 3)
    colors = frame.rgb[::stride, ::stride].reshape(-1, 3)
    found = {}
    for instance_id in instances.areas_px:
        mask = ids == instance_id
        pixels = np.flatnonzero(mask)
        own = points[pixels]
        own = own[np.isfinite(own[:, 2])]
        centroid_m = np.median(own, axis=0).astype(np.float64) if len(own) else np.full(3, np.nan)
        color = colors[pixels].mean(axis=0) / 255.0 if len(pixels) else np.full(3, np.nan)
        found[instance_id] = _Track(mask.astype(np.float32), centroid_m, color)
    return found


def _costs(tracks: list[_Track], found: list[_Track]) -> Float64:
    """(K, N) cost of calling found instance n the same object as track k; REFUSED where it cannot be."""
    before, now = np.stack([track.mask for track in tracks]), np.stack([track.mask for track in found])
    areas_before, areas_now = before.sum(axis=1)[:, None], now.sum(axis=1)[None]
    common = (before @ now.T).astype(np.float64)
    iou = common / np.maximum(areas_before + areas_now - common, 1.0)
    apart = np.stack([t.centroid_m for t in tracks])[:, None] - np.stack([t.centroid_m for t in found])
    step = np.linalg.norm(apart, axis=-1) / MAX_STEP_M
    recolored = np.stack([t.color for t in tracks])[:, None] - np.stack([t.color for t in found])
    color_step = np.linalg.norm(recolored, axis=-1) / MAX_COLOR_STEP
    growth = np.maximum(areas_before, areas_now) / np.maximum(np.minimum(areas_before, areas_now), 1.0)
    # Comparisons with NaN are False: without depth only the overlap can tell.
    similar = (step <= 1.0) & (color_step <= 1.0) & (growth <= MAX_GROWTH)
    just_seen = np.array([track.lost_frames == 0 for track in tracks])[:, None]
    cost = (
        (1.0 - iou)
        + np.nan_to_num(np.minimum(step, 1.0), nan=1.0)
        + np.nan_to_num(np.minimum(color_step, 1.0), nan=1.0)
    )
    return np.asarray(np.where(similar | (just_seen & (iou >= MIN_IOU)), cost, REFUSED))
