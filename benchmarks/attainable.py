#!/usr/bin/env python3
"""What could be known: the simulator itself as the forecaster, beside the checkpoint, on the same samples.

    momap simulate --split val --episodes 100 --views 2 --size 256 --out DIR
    python benchmarks/attainable.py --data DIR --limit 160 --out out/attainable

Whoever knew the scene exactly and how its demonstrations are made would draw from these. Each of the ten futures of a
sample is one more demonstration of its sentence, played in the simulator from the very same first state: the same skill
with the same object and the same thing that it goes to, but another place there, another length or pace, another hand.
Of skills that have one goal only (what falls or rolls by itself, what is swept) the very same is played again.
Where the sentence has a direction, demonstrations into another one are played and left out.

Left out are samples that begin in the middle of a demonstration (no other demonstration passes through that state), and
those of which ten such futures are not found in MAX_PLAYED demonstrations. The checkpoint is scored on the same samples
as the rest. Its best of ten cannot be expected below the simulator's; its mean can, as a forecast between the likely
futures is nearer to them, in the mean, than they are to each other.

Beside it, of all samples: which object a listener would point at who knows all colours and the names of training, and
sees of every object whether it is one of those. A name that training never says is then that of a strange object.

Interrupted, the same command goes on. DIR must be made by the simulator as it is: the motion of every sample is
compared with the one played here.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from momap_ros.benchmark.machine import describe_commit
from momap_ros.data.sample import Role, Sample, iterate_samples
from momap_ros.evaluation.baselines import KnownMotion, truth_of
from momap_ros.evaluation.predictor import NoForecast, Scene
from momap_ros.evaluation.predictors import build_entrants
from momap_ros.evaluation.report import look_up, number, table
from momap_ros.evaluation.run import Entrant, Plan, score_split
from momap_ros.evaluation.scoring import Condition, Row, episode_of
from momap_ros.evaluation.summary import summarise, summarise_skill
from momap_ros.files import atomic_path, write_json
from momap_ros.geometry import Float64, invert_se3, transform_points
from momap_ros.simulation.assets import KINDS
from momap_ros.simulation.episodes import Episode, demonstrate_again, simulate_episode
from momap_ros.simulation.language import WORLD_FROM_ROBOT_VIEWER, viewed_direction
from momap_ros.simulation.splits import STRANGE_KINDS, UNSEEN_KINDS
from momap_ros.simulation.views import body_centre, camera_motion, moving_bodies

MAX_PLAYED = 60
AGAIN = "make the samples again, see --help"
ACTED = ("roles", "acted")
CHECKPOINT = "ours"
HEARD = frozenset(KINDS) - UNSEEN_KINDS - STRANGE_KINDS  # names that training says
SAME_M = 1e-4  # float32 motions of bodies less than a metre away


@dataclass(frozen=True)
class Simulator:
    """Draws demonstrations of the sample's own sentence.

    Attributes:
        name: of its row.
        told: what no robot knows.
    """

    name: str = "simulator"
    told: str = "the scene, the skill, the objects it is about, and how demonstrations are made"

    def __call__(self, scene: Scene, *, num_hypotheses: int, seed: int) -> KnownMotion:
        """N demonstrations.

        Raises:
            NoForecast: nothing is acted on, the sample begins in the middle, or too few demonstrations say the same.
            ValueError: the sample was made by another simulator.
        """
        sample = truth_of(scene, self.name)
        index = int(episode_of(sample.key).rpartition("_")[2])
        shown, whole = (simulate_episode(sample.split, index, from_rest=whole) for whole in (False, True))
        if shown is None or whole is None:
            raise ValueError(f"{sample.key}: expected a scene, the simulator makes none of this number; {AGAIN}")
        check_same(sample, shown)
        if not shown.scene.acted:
            raise NoForecast(f"{sample.key}: nothing is acted on")
        if len(shown.rollout.qpos) != len(whole.rollout.qpos):
            raise NoForecast(f"{sample.key}: begins in the middle of a demonstration")
        direction = asked_direction(sample)
        asked = direction(whole)
        rng = np.random.default_rng([seed, index])
        found: list[Episode] = []
        for _ in range(MAX_PLAYED):
            again = demonstrate_again(whole, rng)
            if again is not None and direction(again) == asked:
                found.append(again)
            if len(found) == num_hypotheses:
                return as_prediction(scene, sample, found)
        raise NoForecast(f"{sample.key}: {len(found)} of {MAX_PLAYED} demonstrations say the same")


def check_same(sample: Sample, shown: Episode) -> None:
    """Refuse samples that another simulator made.

    Raises:
        ValueError: bodies do not move as they do here.
    """
    poses = poses_of(shown, len(sample.motion_t_from_0))
    moving = moving_bodies(poses)
    if moving == sample.moving_bodies.tolist():
        difference = camera_motion(sample.camera_from_world, poses[:, moving]) - sample.motion_t_from_0
        if not difference.size or np.abs(difference).max() < SAME_M:
            return
    raise ValueError(f"{sample.key}: expected the motion that the simulator plays now, got another; {AGAIN}")


def poses_of(episode: Episode, num_steps: int) -> Float64:
    """(T, B, 4, 4) pose of every body at the steps of a sample, metres, world."""
    return episode.world_from_bodies(mujoco.MjData(episode.scene.model), episode.state_indices(num_steps))


def asked_direction(sample: Sample) -> Callable[[Episode], str]:
    """Which direction an episode's sentence would have for who speaks in the sample's; "" where it has none."""
    if not sample.text_frame:
        return lambda _: ""
    viewer = WORLD_FROM_ROBOT_VIEWER if sample.text_frame == "robot" else invert_se3(sample.camera_from_world)

    def direction(episode: Episode) -> str:
        scene = episode.scene
        poses = poses_of(episode, 2)[:, scene.model.body(scene.acted).id]
        first, last = transform_points(poses, body_centre(scene.model, scene.acted))
        return viewed_direction(last - first, viewer)

    return direction


def as_prediction(scene: Scene, sample: Sample, futures: Sequence[Episode]) -> KnownMotion:
    """Where demonstrations take every pixel's body."""
    num_steps = len(sample.motion_t_from_0)
    poses = np.stack([poses_of(future, num_steps) for future in futures])  # (N, T, B, 4, 4)
    moving = sorted({body for one in poses for body in moving_bodies(one)})
    group = np.full(poses.shape[2], -1, np.int32)
    group[moving] = np.arange(len(moving))
    first = invert_se3(poses[:, :1, moving])
    motions = sample.camera_from_world @ poses[:, :, moving] @ first @ invert_se3(sample.camera_from_world)
    step_s = float(np.mean([future.rollout.duration_s for future in futures])) / (num_steps - 1)
    return KnownMotion(scene, step_s, num_steps, group[sample.body_ids], motions.transpose(0, 2, 1, 3, 4))


def meant_by(sample: Sample) -> tuple[str, float] | None:
    """What tells the acted object from the others, and the chance that a listener points at it; None where it is none.

    The listener knows colours and the names of training. Parts of fixtures, and what is not seen, do not count.
    """
    seen = np.unique(sample.body_ids)
    labels = {
        role: [sample.body_names[body].partition(" ") for body in seen if sample.body_roles[body] == role]
        for role in (Role.ACTED, Role.OBJECT)
    }
    if sample.factors.get("acts_on") != "object" or not labels[Role.ACTED]:
        return None
    color, _, kind = labels[Role.ACTED][0]
    says_color = f"{color} {kind}" in sample.text
    objects = [*labels[Role.ACTED], *labels[Role.OBJECT]]
    of_color = [name for name in objects if not says_color or name[0] == color]
    of_name = [name for name in of_color if (name[2] == kind if kind in HEARD else name[2] not in HEARD)]
    told_by = "its colour" if says_color and len(of_color) == 1 else "its name" if len(of_name) == 1 else "nothing"
    return told_by, 1 / len(of_name)


def of_listeners(samples: Iterable[Sample], rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Shares of right objects by what tells them: a listener's, the checkpoint's draws', its scene encoder's."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    by_key = {row["key"]: row for row in rows}
    for sample in samples:
        row, meant = by_key.get(sample.key), meant_by(sample)
        if row is not None and meant is not None:
            scores = (meant[1], row["right_object"], row.get("right_object_head", np.nan))
            found[meant[0]].append(scores)
            found["all"].append(scores)
    names = ("listener", CHECKPOINT, "scene encoder")
    return {
        told_by: {"n": len(scores), **dict(zip(names, np.mean(scores, axis=0).tolist(), strict=True))}
        for told_by, scores in sorted(found.items())
    }


def common_rows(scored: Mapping[str, Mapping[str, list[Row]]]) -> dict[str, list[Row]]:
    """The rows of every predictor on the samples that all of them forecast, in order."""
    keys = [{row["key"] for row in found["rows"]} for found in scored.values()]
    shared = set.intersection(*keys)
    return {name: [row for row in found["rows"] if row["key"] in shared] for name, found in scored.items()}


def markdown(report: Mapping[str, Any]) -> str:
    """What could be known, what the checkpoint knows, and where the difference lies."""
    lines = ["# What could be known", "", report["about"], ""]
    for split, found in report["splits"].items():
        lines += [f"## {split}: {found['samples']} samples of {found['of']}", ""]
        lines += ["Acted object, over static, with 95 % intervals over episodes.", ""]
        columns = [
            ("forecast", lambda row: row["name"]),
            ("best of 10 v", lambda row: number(row, *ACTED, "ade_share_of_static", "best", interval=True)),
            ("mean v", lambda row: number(row, *ACTED, "ade_share_of_static", "mean", interval=True)),
            ("energy v [mm]", lambda row: number(row, *ACTED, "energy_path_m", scale=1e3, digits=1)),
            ("spread / error", lambda row: number(row, *ACTED, "dispersion_path", "ratio", digits=2)),
        ]
        lines += table([{"name": name} | summary for name, summary in found["summary"].items()], columns)
        lines += ["Per skill, millimetres; most of the checkpoint's best error first.", ""]
        lines += ["| skill | n | static | " + " | ".join(f"{n}, best | {n}, mean" for n in found["summary"]) + " |"]
        lines += ["|---" * (3 + 2 * len(found["summary"])) + "|"]
        for skill, row in found["skills"].items():
            of_all = [f"{row[n][kind] * 1e3:.0f}" for n in found["summary"] for kind in ("best", "mean")]
            lines.append(f"| {skill} | {row['n']} | {row['static'] * 1e3:.0f} | " + " | ".join(of_all) + " |")
        lines += ["", "Right object ^, of all samples in which an object is acted on and seen.", ""]
        lines += [f"| told by | n | listener | {CHECKPOINT} | scene encoder |", "|---|---|---|---|---|"]
        for told_by, row in found["listeners"].items():
            shares = [f"{row[name]:.3f}" for name in ("listener", CHECKPOINT, "scene encoder")]
            lines.append(f"| {told_by} | {row['n']} | " + " | ".join(shares) + " |")
        lines.append("")
    return "\n".join(lines)


def of_skills(rows: Mapping[str, list[Row]]) -> dict[str, dict[str, Any]]:
    """Mean errors of the acted object per skill, metres; most of the checkpoint's best error first."""
    by_skill: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for name, of_name in rows.items():
        for row in of_name:
            if look_up(row, *ACTED):
                by_skill[row["skill"]][name].append(row)
    found: dict[str, dict[str, Any]] = {}
    for skill, of_skill in by_skill.items():
        figures = {name: summarise_skill(of_name)["acted"] for name, of_name in of_skill.items()}
        static = next(iter(figures.values()))["static"]
        found[skill] = {"n": static["samples"], "static": static["value"]}
        found[skill] |= {name: {kind: own[kind]["value"] for kind in ("best", "mean")} for name, own in figures.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]["n"] * item[1][CHECKPOINT]["best"]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables and rows")
    parser.add_argument("--checkpoint", default="small", help="bundled name or folder (default: small)")
    parser.add_argument("--splits", nargs="+", default=["val"], metavar="NAME", help="default: val")
    parser.add_argument("--limit", type=int, metavar="SAMPLES", help="first samples of each split; all where absent")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    given = parser.parse_args(argv)
    simulator = Entrant(Simulator(), f"MuJoCo {mujoco.__version__}, at most {MAX_PLAYED} demonstrations")
    splits = {}
    for split in given.splits:
        num_steps = len(next(iterate_samples(given.data, split)).motion_t_from_0)
        ours = build_entrants(["ours"], given.checkpoint, [4], data=given.data, num_steps=num_steps)
        plan = Plan(given.data, given.out, [simulator, *ours], given.limit, given.workers)
        scored = dict(
            zip((simulator.predictor.name, CHECKPOINT), score_split(plan, split, Condition()).values(), strict=True)
        )
        rows = common_rows(scored)
        splits[split] = {
            "samples": len(rows[CHECKPOINT]),
            "of": sum(map(len, (scored["simulator"]["rows"], scored["simulator"]["no_forecast"]))),
            "left_out": scored["simulator"]["no_forecast"],
            "summary": {name: summarise(of_name) for name, of_name in rows.items()},
            "skills": of_skills(rows),
            "listeners": of_listeners(iterate_samples(given.data, split), scored[CHECKPOINT]["rows"]),
        }
    about = f"{datetime.date.today().isoformat()}, commit {describe_commit()}, MuJoCo {mujoco.__version__}."
    report = {"about": about, "splits": splits}
    write_json(given.out / "attainable.json", report)
    with atomic_path(given.out / "attainable.md") as path:
        path.write_text(markdown(report), encoding="utf-8")
    sys.stdout.write(markdown(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
