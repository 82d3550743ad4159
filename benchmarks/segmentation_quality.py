#!/usr/bin/env python3
"""Score the tabletop segmenter on a folder of labelled RGB-D images.

    python benchmarks/segmentation_quality.py --data ../shared/data/tabletop_labelled

The folder holds NAME_color.jpg (or .png), NAME_depth.png (16 bit, 0 = no reading), NAME_label.png (0 = none) and
camera.json with width, height, fx, fy, cx, cy and depth_unit_m. Every scene is one row: mean IoU over its true
instances, each assigned to at most one found instance, the share of them above 0.75, and the median processor time of
one thread per frame (so that other work on the machine does not count; set OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import Int32
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.scoring import RECALL_IOU, SegmentationScore, score_instances
from momap_ros.segmentation.tabletop import TabletopSegmenter

REPEATS = 5


@dataclass(frozen=True)
class SceneResult:
    """Score of one scene, and the processor time of every run, milliseconds."""

    name: str
    score: SegmentationScore
    times_ms: list[float]


def labelled_frames(folder: Path) -> Iterator[tuple[str, RGBDFrame, Int32]]:
    """Yield name, frame and true ids of every scene of a folder.

    Raises:
        FileNotFoundError: the folder holds no labelled scene, or a scene lacks an image.
    """
    labels = sorted(folder.glob("*_label.png"))
    if not labels:
        raise FileNotFoundError(f"{folder}: expected files named *_label.png, found none")
    camera = json.loads((folder / "camera.json").read_text(encoding="utf-8"))
    intrinsics = PinholeCamera(*(camera[key] for key in ("width", "height", "fx", "fy", "cx", "cy")))
    for label in labels:
        name = label.name.removesuffix("_label.png")
        color = next(iter(sorted(folder.glob(f"{name}_color.*"))), folder / f"{name}_color.jpg")
        bgr, depth, true = (
            cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (color, folder / f"{name}_depth.png", label)
        )
        if bgr is None or depth is None or true is None:
            raise FileNotFoundError(f"{folder}: scene {name} lacks its colour or depth image, or one cannot be read")
        depth_m = np.where(depth > 0, depth * camera["depth_unit_m"], np.nan).astype(np.float32)
        yield name, RGBDFrame(np.ascontiguousarray(bgr[..., ::-1]), depth_m, intrinsics), true.astype(np.int32)


def evaluate_folder(folder: Path) -> list[SceneResult]:
    """Score every scene of a folder with the default settings."""
    segmenter = TabletopSegmenter(SegmentationConfig())
    results = []
    for name, frame, true in labelled_frames(folder):
        times_ms = []
        found = segmenter(frame).ids
        for _ in range(REPEATS):
            start = time.thread_time()
            segmenter(frame)
            times_ms.append(1e3 * (time.thread_time() - start))
        results.append(SceneResult(name, score_instances(found, true), times_ms))
    return results


def table(results: list[SceneResult]) -> str:
    """The results as a Markdown table with a mean row."""
    rows = [
        f"| {r.name} | {len(r.score.ious)} | {r.score.num_found} | {r.score.mean_iou:.3f} | {r.score.recall:.2f} "
        f"| {statistics.median(r.times_ms):.1f} |"
        for r in results
    ]
    ious = np.concatenate([r.score.ious for r in results])
    times_ms = np.concatenate([r.times_ms for r in results])
    mean_iou = statistics.fmean(r.score.mean_iou for r in results)
    total = (
        f"| **all {len(results)}** | {len(ious)} | {sum(r.score.num_found for r in results)} | **{mean_iou:.3f}** "
        f"| {np.mean(ious > RECALL_IOU):.2f} | {np.median(times_ms):.1f} (p95 {np.percentile(times_ms, 95):.1f}) |"
    )
    header = f"| scene | instances | found | mIoU | recall@{RECALL_IOU} | ms |"
    return "\n".join([header, "|---|---|---|---|---|---|", *rows, total])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled scenes")
    cv2.setNumThreads(1)
    sys.stdout.write(table(evaluate_folder(parser.parse_args().data)) + "\n")


if __name__ == "__main__":
    main()
