#!/usr/bin/env python3
"""Measure how the tabletop segmenter fails on simulated samples seen through simulated cameras.

    momap simulate --split val --episodes 400 --views 2 --size 256 --out DIR
    python benchmarks/segmentation_faults.py --data DIR --json benchmarks/results/data/segmentation_faults.json

Views from nearer than `--least-depth` are left out: real depth cameras measure hardly anything there, and what they do
not measure, `observe` already leaves out.

Its figures are the defaults of momap_ros.data.segmentation_faults.SegmentationRates, which draws the same faults on
purpose. Every sample is observed once by each camera of momap_ros.data.sensor.SENSORS, or by the one that is named.
`--of-generator` measures drawn faults instead: the figures must come out as they went in.

What counts, for true instances of at least the segmenter's smallest area:

  missed     less than a quarter of its pixels lie in any found instance
  split      two or more found instances show mostly it, each with at least a tenth of its pixels
  merged     a pair of neighbours in the image of which one found instance holds more than half of each; pairs with
             the robot count for it, others with a fixture for fixtures, the rest for objects
  invented   a found instance that is mostly background
  boundary   where the found instance assigned to it (largest sum of IoUs) has an IoU above 0.5 and is neither split nor
             merged: distance from the true boundary to the found one, pixels of an image 640 wide, positive outside;
             and boundary IoU within 2 % of the diagonal (B. Cheng et al., doi:10.1109/CVPR46437.2021.01508)
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from momap_ros.benchmark.machine import describe_commit
from momap_ros.config import SegmentationConfig
from momap_ros.data.depth_sensor import REFERENCE_WIDTH_PX, Mask
from momap_ros.data.sample import Role, Sample, iterate_samples
from momap_ros.data.segmentation_faults import TOUCHING_PX, faulty_instances, neighbours, outside_px
from momap_ros.data.sensor import SENSORS, observe
from momap_ros.files import write_json
from momap_ros.instances import Int32
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.tabletop import TabletopSegmenter

FARTHEST_PX = 10.0  # boundary pixels farther off count as this far
PRECEDENCE = ["objects", "fixtures", "robot"]  # a pair counts for the later of its two
ROLES = {Role.ACTED: "objects", Role.OBJECT: "objects", Role.ROBOT: "robot", Role.FIXTURE: "fixtures"}


class Tally:
    """Counts and lengths, collected image by image."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.counts: dict[str, list[bool]] = defaultdict(list)  # "objects missed" -> one entry per instance
        self.invented: list[int] = []  # per image
        self.nothing: list[bool] = []  # per image
        self.lengths: dict[str, list[float]] = defaultdict(list)

    def add(self, found: Int32, sample: Sample) -> None:
        """Compare the (H, W) instances that were found with the true ones."""
        scale = sample.camera.width / REFERENCE_WIDTH_PX
        roles = {label: ROLES[role] for label, role in sample.instance_roles(merge_robot=True).items()}
        true = sample.instance_map(merge_robot=True)
        large = [i for i, a in true.areas_px.items() if i in roles and a >= SegmentationConfig().min_area_px * scale**2]
        if not large:
            return
        self.nothing.append(not found.any())
        if not found.any():
            return
        ids = np.where(np.isin(true.ids, list(roles)), true.ids, 0)
        found_ids = np.unique(found[found > 0])
        common = np.array([[np.sum((ids == i) & (found == j)) for j in found_ids] for i in roles], float)
        areas = {"true": np.array([np.sum(ids == i) for i in roles]), "found": np.bincount(found.ravel())[found_ids]}
        covered = common / np.maximum(areas["true"], 1)[:, None]
        background = 1 - common.sum(axis=0) / areas["found"]
        self.invented.append(int(np.sum(background > 0.5)))
        self.lengths["invented_px"] += (areas["found"][background > 0.5] / scale**2).tolist()

        row = {label: index for index, label in enumerate(roles)}
        parts = (covered >= 0.1) & (common.argmax(axis=0) == np.arange(len(roles))[:, None]) & (background <= 0.5)
        whole = set(large)
        for label in large:
            self.counts[f"{roles[label]} missed"].append(bool(covered[row[label]].sum() < 0.25))
            self.counts[f"{roles[label]} split"].append(bool(parts[row[label]].sum() >= 2))
            if parts[row[label]].sum() >= 2:
                whole.discard(label)
        for pair in neighbours(np.where(np.isin(ids, large), ids, 0), round(TOUCHING_PX * scale)):
            first, second = (covered[row[label]] for label in pair)
            together = bool(((first > 0.5) & (second > 0.5)).any())
            kind = max((roles[label] for label in pair), key=PRECEDENCE.index)
            self.counts[f"{kind} merged"].append(together)
            if together:
                whole -= set(pair)
        self._add_boundaries(found, ids, (common, areas, found_ids), {label: row[label] for label in whole})

    def _add_boundaries(
        self,
        found: Int32,
        ids: Int32,
        overlap: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray],
        row: dict[int, int],
    ) -> None:
        common, areas, found_ids = overlap
        iou = common / (areas["true"][:, None] + areas["found"][None] - common)
        partner = dict(zip(*linear_sum_assignment(-iou), strict=True))
        for label, index in row.items():
            if index in partner and iou[index, partner[index]] > 0.5:
                pair = ids == label, found == found_ids[partner[index]]
                offsets_px = boundary_offsets_px(*pair)
                self.lengths["shift_px"].append(float(offsets_px.mean()))
                self.lengths["roughness_px"].append(float(offsets_px.std()))
                self.lengths["boundary_iou"].append(boundary_iou(*pair))
                self.lengths["iou"].append(float(iou[index, partner[index]]))

    def summary(self) -> dict[str, float | int]:
        """All rates, with the numbers they rest on."""
        result: dict[str, float | int] = {"images": len(self.nothing), "nothing": float(np.mean(self.nothing))}
        for kind in PRECEDENCE:
            for fault in ("missed", "split", "merged"):
                seen = self.counts[f"{kind} {fault}"]
                result[f"{kind}_{fault}"] = float(np.mean(seen)) if seen else 0.0
                result[f"{kind}_{fault}_of"] = len(seen)
        lengths = {name: np.array(values) for name, values in self.lengths.items()}
        return result | {
            "invented": float(np.mean(self.invented)),
            "invented_px": float(np.median(self.lengths["invented_px"] or [0.0])),
            "boundaries": len(lengths["shift_px"]),
            "shift_px": float(lengths["shift_px"].mean()),
            "shift_spread_px": float(lengths["shift_px"].std()),
            "roughness_px": float(lengths["roughness_px"].mean()),
            "boundary_iou": float(lengths["boundary_iou"].mean()),
            "iou": float(lengths["iou"].mean()),
        }


def boundary_offsets_px(true: Mask, found: Mask) -> np.ndarray:
    """How far each boundary pixel of the found mask lies outside the true one, pixels of an image 640 wide."""
    rim = found & (cv2.erode(found.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    offsets_px = (outside_px(true)[rim] + 0.5) * REFERENCE_WIDTH_PX / true.shape[1]
    return np.clip(offsets_px, -FARTHEST_PX, FARTHEST_PX)


def boundary_iou(true: Mask, found: Mask) -> float:
    """IoU of the two masks' inner rims, as wide as 2 % of the image's diagonal."""
    width = max(1, round(0.02 * float(np.hypot(*true.shape))))
    first, second = (mask & (outside_px(mask) > -width) for mask in (true, found))
    return float((first & second).sum() / (first | second).sum())


def found_instances(sample: Sample) -> Int32:
    """(H, W) what the segmenter finds; nothing where it sees no table."""
    try:
        return TabletopSegmenter(SegmentationConfig())(RGBDFrame(sample.rgb, sample.depth_m, sample.camera)).ids
    except SegmentationError:
        return np.zeros_like(sample.body_ids, np.int32)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Tally]:
    """One tally per camera, and one of all; `exact` is exact depth."""
    tallies: dict[str, Tally] = {name: Tally() for name in [*options.sensors, "all"]}
    for number, sample in enumerate(first_samples(folder, options)):
        for index, name in enumerate(options.sensors):
            rng = np.random.default_rng([options.seed, number, index])
            if options.of_generator:
                found = faulty_instances(sample, rng).ids
            elif name == "exact":
                found = found_instances(sample)
            else:
                found = found_instances(observe(sample, rng, SENSORS[name]))
            tallies[name].add(found, sample)
            tallies["all"].add(found, sample)
    return tallies


def first_samples(folder: Path, options: argparse.Namespace) -> Iterator[Sample]:
    """As many samples of the split as were asked for, from far enough away."""
    far = (s for s in iterate_samples(folder, options.split) if np.nanmedian(s.depth_m) >= options.least_depth)
    yield from itertools.islice(far, options.samples)


def table(summaries: dict[str, dict[str, float | int]]) -> str:
    """One row per figure, one column per camera."""
    header = "| | " + " | ".join(summaries) + " |"
    rows = [
        f"| {name} | " + " | ".join(f"{summary[name]:.4g}" for summary in summaries.values()) + " |"
        for name in next(iter(summaries.values()))
    ]
    return "\n".join([header, "|---" * (len(summaries) + 1) + "|", *rows])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--split", default="val", help="split of the shards (default: val)")
    parser.add_argument("--samples", type=int, default=240, help="at most this many samples (default: 240)")
    parser.add_argument(
        "--least-depth", type=float, default=0.45, metavar="M", help="median depth of a view, metres (default: 0.45)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the cameras' noise (default: 0)")
    parser.add_argument(
        "--sensors",
        nargs="+",
        choices=[*SENSORS, "exact"],
        default=list(SENSORS),
        help="cameras; exact = none (default: all but exact)",
    )
    parser.add_argument("--of-generator", action="store_true", help="measure faults drawn by faulty_instances")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    summaries = {name: tally.summary() for name, tally in measure(options.data, options).items()}
    sys.stdout.write(table(summaries) + "\n")
    if options.json:
        report = {
            "commit": describe_commit(),
            **{name: getattr(options, name) for name in ("split", "seed", "least_depth")},
            "sensors": summaries,
        }
        write_json(options.json, report)


if __name__ == "__main__":
    main()
