"""Score a checkpoint on stored samples: `python -m momap_ros.evaluation.evaluate --help`."""

from __future__ import annotations

import argparse
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from momap_ros.data.sample import Role, Sample, iterate_samples, read_shard, shard_paths
from momap_ros.evaluation.baselines import SkillMotions
from momap_ros.evaluation.metrics import (
    average_displacement_error,
    farthest_displacement,
    final_displacement_error,
)
from momap_ros.files import atomic_path
from momap_ros.instances import InstanceMap, Int32
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.model.output import MoMapOutput

POINTS_PER_ROLE = 200
MIN_POINTS = 5
MIN_OBJECTS_FOR_BINDING = 3


@dataclass(frozen=True)
class Condition:
    """How one table is measured.

    Attributes:
        checkpoint: name or folder.
        instances: "true" ids or those of the "tabletop" segmenter.
        prompt: whether the sentence is given.
        num_hypotheses: N of best-of-N.
        num_inference_steps: denoising steps.
    """

    checkpoint: str
    instances: str = "true"
    prompt: bool = True
    num_hypotheses: int = 10
    num_inference_steps: int = 4


def frame_of(sample: Sample) -> RGBDFrame:
    """The sample's first frame."""
    return RGBDFrame(sample.rgb, sample.depth_m, sample.camera)


def sampled_pixels(mask: np.ndarray, rng: np.random.Generator) -> Int32:
    """(P, 2) at most POINTS_PER_ROLE random pixels (u, v) of a mask."""
    rows, columns = np.nonzero(mask)
    if len(rows) > POINTS_PER_ROLE:
        chosen = rng.choice(len(rows), POINTS_PER_ROLE, replace=False)
        rows, columns = rows[chosen], columns[chosen]
    return np.stack([columns, rows], axis=-1).astype(np.int32)


def role_image(sample: Sample) -> np.ndarray:
    """(H, W) role per pixel."""
    return np.array(sample.body_roles, np.uint8)[sample.body_ids]


def objects_by_role(instances: InstanceMap, roles: np.ndarray) -> dict[int, Role]:
    """Instance id -> role of most of its pixels, robot and background left out: the objects one could choose among."""
    result: dict[int, Role] = {}
    for instance_id in instances.areas_px:
        majority = Role(int(np.bincount(roles[instances.ids == instance_id], minlength=len(Role)).argmax()))
        if majority not in {Role.WORLD, Role.ROBOT, Role.HIDDEN}:
            result[instance_id] = majority
    return result


class Evaluator:
    """A loaded model with its condition; one per process.

    Args:
        condition: what is measured.
        skill_motions: the baselines' training motions.
    """

    def __init__(self, condition: Condition, skill_motions: SkillMotions) -> None:
        """Load the checkpoint."""
        import torch

        from momap_ros.model.pipeline import MoMapPipeline

        torch.set_num_threads(1)
        self.condition, self.skill_motions = condition, skill_motions
        self.pipeline = MoMapPipeline.from_pretrained(condition.checkpoint)

    def instances_of(self, sample: Sample, frame: RGBDFrame) -> InstanceMap:
        """Instance ids of the condition."""
        if self.condition.instances == "true":
            return sample.instance_map(merge_robot=True)
        from momap_ros.config import SegmentationConfig
        from momap_ros.segmentation.base import SegmentationError
        from momap_ros.segmentation.tabletop import TabletopSegmenter

        try:
            return TabletopSegmenter(SegmentationConfig())(frame)
        except SegmentationError:
            return InstanceMap(np.zeros(sample.body_ids.shape, np.int32))

    def __call__(self, sample: Sample, seed: int) -> dict[str, Any]:
        """All figures of one sample; lengths in millimetres."""
        import torch

        rng = np.random.default_rng(seed)
        frame = frame_of(sample)
        instances = self.instances_of(sample, frame)
        output = self.pipeline(
            frame,
            instances,
            sample.text if self.condition.prompt else "",
            num_hypotheses=self.condition.num_hypotheses,
            num_inference_steps=self.condition.num_inference_steps,
            generator=torch.Generator().manual_seed(seed),
        )
        true, roles = sample.momap().xyz, role_image(sample)
        row: dict[str, Any] = {"key": sample.key, "skill": sample.skill, "kind": sample.kind}
        row["choice"] = sample.factors.get("acts_on") == "object"
        errors = {}
        for name, role in (("acted", Role.ACTED), ("robot", Role.ROBOT)):
            pixels = sampled_pixels((roles == role) & frame.valid, rng)
            if len(pixels) < MIN_POINTS:
                continue
            drawn = output.trajectories(pixels).positions
            # An instance the segmenter lost is a forecast of rest: the model had nothing to move.
            drawn = np.where(np.isnan(drawn), drawn[:, :, :1], drawn)
            truth = true[:, pixels[:, 1], pixels[:, 0]].transpose(1, 0, 2)
            still = np.repeat(truth[None, :, :1], truth.shape[1], axis=2)
            errors[name] = average_displacement_error(drawn, truth)
            final = final_displacement_error(drawn, truth)
            row |= {
                f"{name}_static": 1e3 * float(average_displacement_error(still, truth)[0]),
                f"{name}_min": 1e3 * float(errors[name].min()),
                f"{name}_mean": 1e3 * float(errors[name].mean()),
                f"{name}_final_static": 1e3 * float(final_displacement_error(still, truth)[0]),
                f"{name}_final_min": 1e3 * float(final.min()),
                f"{name}_final_mean": 1e3 * float(final.mean()),
            }
            if name == "acted" and sample.skill in self.skill_motions.by_skill:
                mean = still + self.skill_motions.mean(sample)[:, None]
                retrieved = average_displacement_error(still + self.skill_motions.retrieve(sample, rng)[:, None], truth)
                row["acted_skill_mean"] = 1e3 * float(average_displacement_error(mean, truth)[0])
                row["acted_retrieval_min"] = 1e3 * float(retrieved.min())
                row["acted_retrieval_mean"] = 1e3 * float(retrieved.mean())
        if len(errors) == 2:
            joint = int((errors["acted"] + errors["robot"]).argmin())
            row["joint_acted"], row["joint_robot"] = (1e3 * float(errors[n][joint]) for n in ("acted", "robot"))
        if Role.ACTED in sample.body_roles:
            row |= self._binding(output, instances, roles, frame)
        row["duration_ratio"] = output.step_s / sample.step_s
        return row

    def _binding(
        self, output: MoMapOutput, instances: InstanceMap, roles: np.ndarray, frame: RGBDFrame
    ) -> dict[str, float]:
        """Whether the object that moves farthest is the one that is acted on."""
        objects = objects_by_role(instances, roles)
        if not objects:
            return {"right_object": 0.0, "num_objects": 0.0}
        farthest, probability = [], output.instance_moving_probability()
        for instance_id in objects:
            pixels = sampled_pixels((instances.ids == instance_id) & frame.valid, np.random.default_rng(0))[:50]
            known = np.zeros(self.condition.num_hypotheses)
            if len(pixels) and instance_id in probability:
                known = farthest_displacement(output.trajectories(pixels).positions)
            farthest.append(known)
        distance = np.stack(farthest)  # (objects, N)
        is_acted = np.array([role == Role.ACTED for role in objects.values()])
        moves = distance.max(axis=0) > 0
        by_probability = max(objects, key=lambda i: probability.get(i, 0.0))
        return {
            "right_object": float((is_acted[distance.argmax(axis=0)] & moves).mean()),
            "right_object_head": float(objects[by_probability] == Role.ACTED),
            "chance": 1 / len(objects),
            "num_objects": float(len(objects)),
            "acted_segmented": float(is_acted.any()),
        }


def _score_part(task: tuple[Path, int, int], condition: Condition, skill_motions: SkillMotions) -> list[dict[str, Any]]:
    shard, part, parts = task
    evaluator = Evaluator(condition, skill_motions)
    samples = itertools.islice(enumerate(read_shard(shard)), part, None, parts)
    return [evaluator(sample, number) for number, sample in samples]


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over samples, and the ratios the targets are stated in."""
    names = sorted({name for row in rows for name, value in row.items() if isinstance(value, float)})
    means = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    minima = [row["acted_min"] for row in rows if "acted_min" in row]
    binding = [r for r in rows if r["choice"] and r["num_objects"] >= MIN_OBJECTS_FOR_BINDING]
    means |= {
        "samples": float(len(rows)),
        "acted_min_standard_error": float(np.std(minima) / len(minima) ** 0.5),
    }
    for role in ("acted", "robot"):
        if means.get(f"{role}_static"):  # a few views show no robot, in some nothing moves
            means[f"{role}_ratio_min"] = means[f"{role}_min"] / means[f"{role}_static"]
            means[f"{role}_ratio_mean"] = means[f"{role}_mean"] / means[f"{role}_static"]
    if binding:
        means["binding_right_object"] = float(np.mean([row["right_object"] for row in binding]))
        means["binding_chance"] = float(np.mean([row["chance"] for row in binding]))
        means["binding_samples"] = float(len(binding))
    return means


def evaluate(data: Path, split: str, condition: Condition, *, workers: int, limit: int | None) -> dict[str, Any]:
    """Score one split under one condition."""
    training = itertools.islice(iterate_samples(data, "train"), 0, 6000, 3)
    skill_motions = SkillMotions(training)
    parts = workers * 4
    tasks = [(shard, part, parts) for shard in shard_paths(data, split) for part in range(parts)]
    score = partial(_score_part, condition=condition, skill_motions=skill_motions)
    with ProcessPoolExecutor(workers) as pool:
        description = f"{split}, {condition.instances} ids"
        rows = list(itertools.chain(*tqdm(pool.map(score, tasks), total=len(tasks), desc=description, unit="part")))
    rows = sorted(rows, key=lambda row: row["key"])[:limit]
    skills = sorted({row["skill"] for row in rows})
    return {
        "split": split,
        "condition": vars(condition),
        "all": summarise(rows),
        "by_skill": {skill: summarise([row for row in rows if row["skill"] == skill]) for skill in skills},
    }


COLUMNS = {
    "samples": "n",
    "acted_static": "static",
    "acted_skill_mean": "skill mean*",
    "acted_retrieval_min": "retrieval-10 min*",
    "acted_retrieval_mean": "retrieval-10 mean*",
    "acted_min": "**ours min**",
    "acted_mean": "ours mean",
    "acted_ratio_min": "**min/static**",
    "acted_ratio_mean": "mean/static",
    "robot_static": "robot static",
    "robot_min": "robot min",
    "robot_mean": "robot mean",
    "right_object": "**right object**",
    "chance": "chance",
    "binding_right_object": "right, >= 3 objects",
}


def digits(column: str) -> str:
    """Number format of a column: counts, shares, millimetres."""
    if column == "samples":
        return ".0f"
    return ".3f" if "ratio" in column or "right" in column or column == "chance" else ".1f"


def markdown(results: list[dict[str, Any]]) -> str:
    """A table with one row per split and condition, lengths in millimetres."""
    lines = [
        "| split, ids, prompt, steps | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for result in results:
        condition, means = result["condition"], result["all"]
        prompt = "text" if condition["prompt"] else "no text"
        name = f"{result['split']}, {condition['instances']}, {prompt}, {condition['num_inference_steps']}"
        cells = [f"{means[key]:{digits(key)}}" if key in means else "-" for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("\nADE in mm over all 50 steps at 256x256. *Told the skill and the acted object.")
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m momap_ros.evaluation.evaluate",
        description="Best-of-N and mean displacement errors of acted object and robot, right-object rate, baselines.",
    )
    parser.add_argument("--checkpoint", default="small", help="bundled name or folder (default small)")
    parser.add_argument("--data", type=Path, required=True, help="folder with val, objects and some train shards")
    parser.add_argument("--splits", nargs="+", default=["val", "objects"])
    parser.add_argument("--instances", nargs="+", default=["true", "tabletop"], choices=["true", "tabletop"])
    parser.add_argument("--no-prompt", action="store_true", help="measure without the sentence")
    parser.add_argument("--steps", type=int, nargs="+", default=[4], help="denoising steps (default 4)")
    parser.add_argument("--limit", type=int, help="samples per split")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; a Markdown table is printed")
    arguments = parser.parse_args()
    results = []
    for split, instances, steps in itertools.product(arguments.splits, arguments.instances, arguments.steps):
        condition = Condition(arguments.checkpoint, instances, not arguments.no_prompt, 10, steps)
        results.append(evaluate(arguments.data, split, condition, workers=arguments.workers, limit=arguments.limit))
    report = {"date": date.today().isoformat(), "results": results}
    with atomic_path(arguments.out) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    tqdm.write(markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
