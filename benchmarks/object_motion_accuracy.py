#!/usr/bin/env python3
"""Measure object motions against the bodies' true poses: how far off, and are joints told from free motion?

    python benchmarks/object_motion_accuracy.py --data data_cache --out benchmarks/results/object_motion

Reads stored samples (`momap simulate`), with true instances, and writes object_motion.json and object_motion.md. Every
object that moves by a centimetre or more and has MIN_POINTS followed points is one case; the robot is none. Motions are
fitted to

- true: the sample's exact MoMap;
- noisy: the same with white noise on every position of every step, and a share of the object's points, all on one side
  of it, left where they were; and once more with smoothing;
- true, alone is free: the same joints, but what stands APART_M or farther from every other instance but the robot has
  none: its fixture would be seen beside it;
- forecast: what the checkpoint draws for the sample's sentence, the representative future and the best of all.

Errors of an object: RMS distance of its points from where the true motion takes them, over all steps after 0; distance
of its centroid and angle of its rotation at the last step. "static" is the forecast that nothing moves.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from momap_ros.articulation import Articulation, JointKind, PointSpread, fit_articulation
from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.data.sample import Role, Sample, iterate_samples
from momap_ros.files import atomic_path
from momap_ros.forecaster import Forecaster, foreground_pixels
from momap_ros.geometry import Float64, transform_points
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import estimate_object_motions
from momap_ros.rgbd import RGBDFrame
from momap_ros.rigid_tracks import fit_rigid_tracks

if TYPE_CHECKING:
    from momap_ros.instances import InstanceMap

TRUE_JOINTS = {
    **dict.fromkeys(("drawer", "slider", "button"), "prismatic"),
    **dict.fromkeys(("door", "lid", "knob", "faucet", "lever", "lamp"), "revolute"),
}
MIN_POINTS = 20
MIN_TRAVEL_M = 0.01
APART_M = 0.04
NOISE_M = 0.003
OUTLIER_SHARE = 0.4
SMOOTHING_STEPS = 8.0
SOURCES = ("true", "noisy", "noisy, smoothed", "forecast", "forecast, smoothed")


@dataclass(frozen=True, eq=False)
class Case:
    """One moving object of one sample: which it is, where its points are, how it really moves, what is beside it.

    `truth` is (T, 4, 4), `apart_m` the metres from the object to the nearest followed point of another instance but
    the robot; infinite where there is none.
    """

    instance_id: int
    name: str
    joint: str
    body: PointSpread
    truth: Float64
    apart_m: float = np.inf


def moving_cases(sample: Sample, trajectories: PointTrajectories) -> Iterator[Case]:
    """Yield the objects of a sample that really move and are followed at enough points."""
    robot = [body_id for body_id, role in enumerate(sample.body_roles) if role is Role.ROBOT]
    fixed = (trajectories.object_ids > 0) & ~np.isin(trajectories.object_ids, robot)
    for slot, body_id in enumerate(sample.moving_bodies.tolist()):
        if sample.body_roles[body_id] not in {Role.ACTED, Role.OBJECT}:
            continue
        points = trajectories.positions[0, trajectories.object_ids == body_id, 0]
        if len(points) < MIN_POINTS:
            continue
        truth = np.tile(np.eye(4), (len(sample.motion_t_from_0), 1, 1))
        truth[:, :3] = sample.motion_t_from_0[:, slot]
        body, name = PointSpread.of(points), sample.body_names[body_id]
        if body.distance_m(truth, np.eye(4)).max() >= MIN_TRAVEL_M:
            others = trajectories.positions[0, fixed & (trajectories.object_ids != body_id), 0]
            apart_m = float(cKDTree(points).query(others)[0].min()) if len(others) else np.inf
            yield Case(body_id, name, TRUE_JOINTS.get(name, "none"), body, truth, apart_m)


def true_trajectories(sample: Sample, frame: RGBDFrame, instances: InstanceMap, max_points: int) -> PointTrajectories:
    """The exact futures of the pixels that a forecast follows."""
    pixels = foreground_pixels(frame, instances, max_points)
    u, v = pixels[:, 0], pixels[:, 1]
    positions = sample.momap().xyz[:, v, u].transpose(1, 0, 2)[None]
    size = frame.camera
    return PointTrajectories(
        np.ascontiguousarray(positions), instances.ids[v, u], pixels, size.width, size.height, sample.step_s
    )


def spoilt(trajectories: PointTrajectories, rng: np.random.Generator) -> PointTrajectories:
    """The same with noise, and with points on one side of every object left behind."""
    positions = trajectories.positions.copy()
    for instance_id in np.unique(trajectories.object_ids):
        members = np.flatnonzero(trajectories.object_ids == instance_id)
        towards = positions[0, members, 0] @ rng.normal(size=3)
        left = members[np.argsort(towards)[: int(OUTLIER_SHARE * len(members))]]
        positions[:, left] = positions[:, left, :1]
    positions[:, :, 1:] += rng.normal(0.0, NOISE_M, positions[:, :, 1:].shape)
    return replace(trajectories, positions=positions)


def error_of(motion: Float64, case: Case) -> dict[str, float]:
    """Errors of a (T, 4, 4) motion: millimetres over all steps, and millimetres and degrees at the last."""
    apart = case.body.distance_m(motion[1:], case.truth[1:])
    ends = transform_points(np.stack([motion[-1], case.truth[-1]]), case.body.centroid)
    turn = Rotation.from_matrix(motion[-1, :3, :3] @ case.truth[-1, :3, :3].T).magnitude()
    return {
        "points_mm": 1e3 * float(np.sqrt(np.mean(apart**2))),
        "end_mm": 1e3 * float(np.linalg.norm(ends[0] - ends[1])),
        "end_deg": float(np.degrees(turn)),
    }


def true_axis(case: Case) -> tuple[Float64, Float64]:
    """Direction and a point of a fixture's axis, from its true motion at the step where it is farthest from rest."""
    step = int(case.body.distance_m(case.truth, np.eye(4)).argmax())
    motion = case.truth[step]
    if case.joint == "prismatic":
        return motion[:3, 3] / np.linalg.norm(motion[:3, 3]), case.body.centroid
    axis = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
    point = np.linalg.lstsq(np.eye(3) - motion[:3, :3], motion[:3, 3], rcond=1e-6)[0]
    return axis / np.linalg.norm(axis), point


def axis_errors(found: Articulation, case: Case) -> dict[str, float]:
    """Degrees between the axes, and for a hinge millimetres from the found axis point to the true axis."""
    axis, point = true_axis(case)
    errors = {"axis_deg": float(np.degrees(np.arccos(min(abs(float(found.axis @ axis)), 1.0))))}
    if found.kind is JointKind.REVOLUTE:
        errors["axis_mm"] = 1e3 * float(np.linalg.norm(np.cross(found.axis_point - point, axis)))
    return errors


class Study:
    """One checkpoint and the settings of all fits."""

    def __init__(self, checkpoint: str) -> None:
        """Load the model."""
        self.motion = ObjectMotionConfig()
        self.smooth = replace(self.motion, smoothing_steps=SMOOTHING_STEPS)
        self.forecaster = Forecaster(ForecastConfig(checkpoint=checkpoint, num_threads=1), self.motion)

    def rows(self, sample: Sample, seed: int) -> list[dict[str, Any]]:
        """One row per moving object."""
        frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
        instances = sample.instance_map(merge_robot=True)
        exact = true_trajectories(sample, frame, instances, self.forecaster.config.max_points)
        cases = list(moving_cases(sample, exact))
        if not cases:
            return []
        noisy = spoilt(exact, np.random.default_rng(seed))
        drawn = self.forecaster(frame, instances, sample.text).trajectories
        motions = {
            source: {m.instance_id: m for m in estimate_object_motions(trajectories, config, hypothesis=0)}
            for source, trajectories, config in (
                ("true", exact, self.motion),
                ("noisy", noisy, self.motion),
                ("noisy, smoothed", noisy, self.smooth),
                ("forecast", drawn, self.motion),
                ("forecast, smoothed", drawn, self.smooth),
            )
        }
        rows = []
        for case in cases:
            row: dict[str, Any] = {"key": sample.key, "skill": sample.skill, "name": case.name, "joint": case.joint}
            row["static"] = error_of(np.tile(np.eye(4), (len(case.truth), 1, 1)), case)
            for source in SOURCES:
                found = motions[source][case.instance_id]
                row[source] = error_of(found.motion_t_from_0, case) | {
                    "told": found.articulation.kind.name.lower(),
                    "deformable": found.deformable,
                }
                if found.articulation.kind.name.lower() == case.joint:
                    row[source] |= axis_errors(found.articulation, case)
            alone = case.apart_m >= APART_M and row["true"]["told"] != "unknown"
            row["true, alone is free"] = row["true"] | ({"told": "free"} if alone else {})
            row["best of all"] = self._best(drawn, case)
            rows.append(row)
        return rows

    def _best(self, drawn: PointTrajectories, case: Case) -> dict[str, Any]:
        """Errors of the future whose fitted motion is nearest to the truth, and the joint it looks like."""
        positions = drawn.positions[:, drawn.object_ids == case.instance_id]
        tracks = fit_rigid_tracks(positions[0, :, 0], positions, iterations=self.motion.reweighting_iterations)
        errors = [error_of(motion, case) for motion in tracks.motion_t_from_0]
        best = min(range(len(errors)), key=lambda n: errors[n]["points_mm"])
        joint = fit_articulation(
            tracks.motion_t_from_0[best],
            case.body,
            min_travel_m=self.motion.joint_min_travel_m,
            tolerance_m=self.motion.joint_tolerance_m,
            tolerance_share=self.motion.joint_tolerance_share,
        )
        rigid = float(np.nanmax(tracks.residual_m[best])) <= self.motion.rigid_residual_m
        return errors[best] | {"told": joint.kind.name.lower() if rigid else "unknown", "deformable": not rigid}


def build_report(samples: Iterable[Sample], checkpoint: str, data: str, split: str) -> dict[str, Any]:
    """Rows of all samples with what they add up to."""
    machine, commit = describe_machine(), describe_commit()
    study = Study(checkpoint)
    found = [study.rows(sample, seed) for seed, sample in enumerate(samples)]
    rows = list(itertools.chain(*found))
    if not rows:
        raise ValueError(f"{data}: expected samples of split {split} in which an object moves, found none")
    return {
        "format": "momap-object-motion/1",
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "commit": commit,
        "machine": machine,
        "versions": describe_versions(),
        "split": split,
        "checkpoint": checkpoint,
        "samples": len(found),
        "objects": len(rows),
        "settings": {
            "motion": vars(study.motion),
            "noise_mm": 1e3 * NOISE_M,
            "outlier_share": OUTLIER_SHARE,
            "smoothing_steps": SMOOTHING_STEPS,
            "hypotheses": study.forecaster.config.num_hypotheses,
        },
        "errors": {source: errors_of(rows, source) for source in ("static", *SOURCES, "best of all")},
        "joints": {source: joints_of(rows, source) for source in ("true, alone is free", *SOURCES, "best of all")},
        "axes": {source: axes_of(rows, source) for source in SOURCES},
        "free_by_skill": {source: free_by_skill(rows, source) for source in ("true", "forecast")},
    }


def errors_of(rows: list[dict[str, Any]], source: str) -> dict[str, float]:
    """Median, mean and 95th percentile of every error."""
    figures: dict[str, float] = {}
    for name in ("points_mm", "end_mm", "end_deg"):
        values = [row[source][name] for row in rows]
        figures |= {
            f"{name} median": round(float(np.median(values)), 3),
            f"{name} mean": round(float(np.mean(values)), 3),
            f"{name} p95": round(float(np.percentile(values, 95)), 3),
        }
    if source != "static":
        figures["deformable share"] = round(float(np.mean([row[source]["deformable"] for row in rows])), 4)
    return figures


def joints_of(rows: list[dict[str, Any]], source: str) -> dict[str, dict[str, int]]:
    """True joint -> what was told -> number of objects."""
    return {
        joint: dict(sorted(Counter(row[source]["told"] for row in rows if row["joint"] == joint).items()))
        for joint in ("prismatic", "revolute", "none")
    }


def axes_of(rows: list[dict[str, Any]], source: str) -> dict[str, dict[str, float]]:
    """Median errors of the axes of joints that were told rightly."""
    figures: dict[str, dict[str, float]] = {}
    for joint in ("prismatic", "revolute"):
        right = [row[source] for row in rows if row["joint"] == joint and "axis_deg" in row[source]]
        figures[joint] = {
            f"{name} median": round(float(np.median([errors[name] for errors in right if name in errors])), 3)
            for name in ("axis_deg", "axis_mm")
            if any(name in errors for errors in right)
        }
    return figures


def free_by_skill(rows: list[dict[str, Any]], source: str) -> dict[str, dict[str, int]]:
    """Skill -> what was told of objects without a joint -> number."""
    skills = sorted({row["skill"] for row in rows if row["joint"] == "none"})
    return {
        skill: dict(
            sorted(Counter(r[source]["told"] for r in rows if r["skill"] == skill and r["joint"] == "none").items())
        )
        for skill in skills
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    machine, told = report["machine"], ("prismatic", "revolute", "free", "unknown")
    lines = [
        f"{report['objects']} moving objects in {report['samples']} samples of `{report['split']}`, true instances; "
        f"checkpoint {report['checkpoint']}; {report['date']}, commit {report['commit']}; {machine['processor']}, "
        f"{machine['cores']} cores.",
        "",
        "| motion | points, median (mean) | end, median (mean) | rotation at the end, median (mean) | not rigid |",
        "|---|---:|---:|---:|---:|",
    ]
    for source, row in report["errors"].items():
        cells = [
            f"{row[f'{name} median']:.2f} ({row[f'{name} mean']:.2f}) {unit}"
            for name, unit in (("points_mm", "mm"), ("end_mm", "mm"), ("end_deg", "deg"))
        ]
        share = row.get("deformable share")
        lines.append(f"| {source} | {' | '.join(cells)} | {'' if share is None else f'{share:.0%}'} |")
    for source, table in report["joints"].items():
        lines += [
            "",
            f"Joints told from the motion: {source}",
            "",
            f"| true | {' | '.join(told)} |",
            "|---|" + "---:|" * 4,
        ]
        lines += [f"| {joint} | {' | '.join(str(row.get(name, 0)) for name in told)} |" for joint, row in table.items()]
    lines += ["", "Median errors of the axes of joints told rightly: " + "; ".join(_axes(report["axes"])) + "."]
    lines += [
        "",
        "Objects without a joint, by skill (true motion): " + "; ".join(_skills(report["free_by_skill"]["true"])),
    ]
    return "\n".join(lines) + ".\n"


def _axes(axes: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    for source, joints in axes.items():
        for joint, figures in joints.items():
            if figures:
                place = f", {figures['axis_mm median']:.1f} mm" if "axis_mm median" in figures else ""
                yield f"{source} {joint} {figures['axis_deg median']:.2f} deg{place}"


def _skills(skills: dict[str, dict[str, int]]) -> Iterator[str]:
    for skill, told in skills.items():
        yield f"{skill} " + ", ".join(f"{count} {name}" for name, count in told.items())


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--split", default="val", help="which samples")
    parser.add_argument("--checkpoint", default="small", help="name of a bundled checkpoint, or a folder")
    parser.add_argument("--every", type=int, default=1, help="take each n-th sample only")
    parser.add_argument("--limit", type=int, default=None, help="samples at most; all where absent")
    parser.add_argument("--out", type=Path, required=True, help="folder for object_motion.json and object_motion.md")
    arguments = parser.parse_args()
    taken = itertools.islice(iterate_samples(arguments.data, arguments.split), 0, None, arguments.every)
    samples = itertools.islice(taken, arguments.limit)
    report = build_report(
        tqdm(samples, total=arguments.limit, unit="sample"), arguments.checkpoint, str(arguments.data), arguments.split
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    contents = {"object_motion.json": json.dumps(report, indent=1) + "\n", "object_motion.md": markdown(report)}
    for name, text in contents.items():
        with atomic_path(arguments.out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    sys.stdout.write(contents["object_motion.md"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
