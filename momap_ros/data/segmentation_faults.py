"""True instances with the faults of the tabletop segmenter, at pixel level and as often as it commits them.

Pixels are those of an image 640 wide and scale with the width.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from momap_ros.config import SegmentationConfig
from momap_ros.data.depth_sensor import REFERENCE_WIDTH_PX, Mask, smooth_field
from momap_ros.data.sample import Role, Sample
from momap_ros.geometry import Float32
from momap_ros.instances import InstanceMap, Int32

TOUCHING_PX = 4.0  # instances this near in the image are neighbours
_ROUGHNESS_LENGTH_PX = 6.0
_SPAN_PX = 12.0  # boundaries move by less


@dataclass(frozen=True)
class RoleRates:
    """How often the instances of one role suffer.

    Attributes:
        miss: chance that nothing is found where the instance is.
        split: chance that it is found in two parts.
        merge: chance that it and a neighbour in the image become one. Pairs with the robot follow the robot's, others
            with a fixture the fixtures', the rest the objects'.
    """

    miss: float = 0.0
    split: float = 0.0
    merge: float = 0.0


# Measured by: python benchmarks/segmentation_faults.py --data DIR (its --help says how DIR was made); column "all" of
# benchmarks/results/data/segmentation_faults.json; merges by the rule of succession, (merged + 1) / (pairs + 2).
@dataclass(frozen=True)
class SegmentationRates:
    """How often the segmenter fails, as measured on simulated samples with simulated sensors.

    Attributes:
        objects: loose objects, the acted one included.
        robot: the arm, all links as one.
        fixtures: cabinets, drawers, doors.
        nothing: chance that it finds nothing at all, for want of a table.
        invented: mean number of instances per image where there is none.
        invented_px: their median area.
        smallest_px: smaller instances are never found; the segmenter's own setting.
        shift_px: mean distance from the true boundary to the found one; positive = found too large.
        shift_spread_px: standard deviation of this distance between instances.
        roughness_px: standard deviation of this distance along one boundary.
    """

    objects: RoleRates = RoleRates(miss=0.19, split=0.08, merge=0.077)
    robot: RoleRates = RoleRates(miss=0.33, split=0.44, merge=0.0126)
    fixtures: RoleRates = RoleRates(miss=0.19, split=0.28, merge=0.152)
    nothing: float = 0.044
    invented: float = 0.51
    invented_px: float = 2262.0
    smallest_px: float = SegmentationConfig().min_area_px
    shift_px: float = -0.52
    shift_spread_px: float = 1.86
    roughness_px: float = 3.36

    def of(self, role: Role) -> RoleRates:
        """The rates of a role."""
        if role == Role.ROBOT:
            return self.robot
        return self.fixtures if role == Role.FIXTURE else self.objects

    def merge_of(self, first: Role, second: Role) -> float:
        """The chance of two neighbours to become one."""
        pair = {first, second}
        return self.of(next((role for role in (Role.ROBOT, Role.FIXTURE) if role in pair), Role.OBJECT)).merge


def faulty_instances(
    sample: Sample, rng: np.random.Generator, rates: SegmentationRates = SegmentationRates()
) -> InstanceMap:
    """What the segmenter would have made of a sample's first frame.

    Instances keep the id and name of the body they show most; parts and inventions get new ids and no name.

    Args:
        sample: its body ids and roles are the truth.
        rng: source of every choice.
        rates: how often each fault happens.
    """
    true = sample.instance_map(merge_robot=True)
    roles = sample.instance_roles(merge_robot=True)
    ids = np.where(np.isin(true.ids, list(roles)), true.ids, 0).astype(np.int32)
    if rng.random() < rates.nothing:
        return InstanceMap(np.zeros_like(ids))
    scale = sample.camera.width / REFERENCE_WIDTH_PX
    ids = _merged(ids, roles, rng, rates)
    ids = _split_or_missed(ids, sample, roles, rng=rng, rates=rates)
    ids = _moved_boundaries(ids, rng, rates, scale)
    ids = _with_inventions(ids, rng, rates, scale)
    areas = np.bincount(ids.ravel())
    ids[(areas < rates.smallest_px * scale**2)[ids]] = 0
    return InstanceMap(ids, {label: name for label, name in true.labels.items() if label in ids})


def neighbours(ids: Int32, reach_px: int) -> list[tuple[int, int]]:
    """Pairs of instances, lower id first, that come within some pixels of each other along a row or a column."""
    step = max(1, reach_px)
    pairs = np.concatenate(
        [
            np.stack([first.ravel(), second.ravel()], axis=1)
            for first, second in ((ids[:, :-step], ids[:, step:]), (ids[:-step], ids[step:]))
        ]
    )
    pairs = np.sort(pairs[(pairs.min(axis=1) > 0) & (pairs[:, 0] != pairs[:, 1])], axis=1)
    return [(int(first), int(second)) for first, second in np.unique(pairs, axis=0)]


def _merged(ids: Int32, roles: dict[int, Role], rng: np.random.Generator, rates: SegmentationRates) -> Int32:
    """Neighbours made one; the larger one gives its id."""
    areas = np.bincount(ids.ravel())
    lookup = np.arange(len(areas), dtype=np.int32)
    reach_px = round(TOUCHING_PX * ids.shape[1] / REFERENCE_WIDTH_PX)
    for pair in neighbours(ids, reach_px):
        if rng.random() < rates.merge_of(*(roles[label] for label in pair)):
            first, second = (lookup[label] for label in pair)
            kept, gone = (first, second) if areas[first] >= areas[second] else (second, first)
            lookup[lookup == gone] = kept
    return np.asarray(lookup[ids], np.int32)


def _split_or_missed(
    ids: Int32, sample: Sample, roles: dict[int, Role], *, rng: np.random.Generator, rates: SegmentationRates
) -> Int32:
    """Instances cut in two, robots between links, others anywhere; and instances lost."""
    result = np.array(ids, np.int32)
    for label in np.unique(ids[ids > 0]):
        chances = rates.of(roles[int(label)])
        rows, columns = np.nonzero(ids == label)
        drawn = rng.random()
        if drawn < chances.miss:
            result[rows, columns] = 0
        elif drawn < chances.miss + chances.split:
            links = sample.body_ids[rows, columns]
            cuts = [last for last in np.unique(links) if 0.1 < np.mean(links > last) < 0.9]
            if cuts and roles[int(label)] == Role.ROBOT:
                part = links > rng.choice(cuts)
            else:
                angle = rng.uniform(0, np.pi)
                along = rows * np.sin(angle) + columns * np.cos(angle)
                part = along > np.quantile(along, rng.uniform(0.2, 0.8))
            result[rows[part], columns[part]] = result.max() + 1
    return result


def _moved_boundaries(ids: Int32, rng: np.random.Generator, rates: SegmentationRates, scale: float) -> Int32:
    """Every boundary moved in or out and made rough; instances grow over the background alone."""
    if not (rates.shift_px or rates.shift_spread_px or rates.roughness_px):
        return ids
    rough_px = rates.roughness_px * smooth_field(rng, ids.shape, _ROUGHNESS_LENGTH_PX * scale)
    margin = int(np.ceil(_SPAN_PX * scale))
    result = np.zeros_like(ids)
    for label in np.unique(ids[ids > 0]):
        rows, columns = np.flatnonzero((ids == label).any(axis=1)), np.flatnonzero((ids == label).any(axis=0))
        window = (
            slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
            slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
        )
        own = ids[window] == label
        outward_px = rates.shift_px + rates.shift_spread_px * rng.standard_normal() + rough_px[window]
        grown = outside_px(own) < np.clip(outward_px, -_SPAN_PX, _SPAN_PX) * scale
        result[window][grown & (own | (ids[window] == 0))] = label
    return result


def outside_px(mask: Mask) -> Float32:
    """(H, W) distance of each pixel centre from the mask's boundary, pixels: positive outside, negative inside."""
    inside = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(np.pad(~mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.where(mask, 0.5 - inside[1:-1, 1:-1], outside[1:-1, 1:-1] - 0.5), np.float32)


def _with_inventions(ids: Int32, rng: np.random.Generator, rates: SegmentationRates, scale: float) -> Int32:
    """Ellipses on the background, each a new instance."""
    result = np.array(ids, np.int32)
    v, u = np.indices(ids.shape, np.float32)
    for _ in range(rng.poisson(rates.invented)):
        free = np.flatnonzero(result == 0)
        if not len(free):
            break
        centre_v, centre_u = divmod(int(rng.choice(free)), ids.shape[1])
        excess_px = (rates.invented_px - rates.smallest_px) * 2 ** rng.standard_normal()
        radius_px = scale * np.sqrt(max(0.0, rates.smallest_px + excess_px) / np.pi)
        stretch, angle = 2 ** rng.uniform(-1, 1), rng.uniform(0, np.pi)
        along = (u - centre_u) * np.cos(angle) + (v - centre_v) * np.sin(angle)
        across = (v - centre_v) * np.cos(angle) - (u - centre_u) * np.sin(angle)
        inside = (along / stretch) ** 2 + (across * stretch) ** 2 < radius_px**2
        result[inside & (result == 0)] = result.max() + 1
    return result
