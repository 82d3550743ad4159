"""`momap rollout`: forecasts drive the simulated hand, and the skills' own checks decide."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from momap_ros.commands.common import add_command, add_settings, positive, read_settings, say
from momap_ros.config import FollowerConfig

DESCRIPTION = """
Let forecasts drive the simulated hand, and count how often the skill's own check holds at the end.

Each episode starts at rest. One camera looks once; a forecast of that image alone says which object moves and where
to; the follower takes hold of it and goes along. The scripted demonstration is used for the oracle's future and for
the camera, nowhere else. Skills in which nobody acts are left out. The same command goes on where it was stopped, and
further policies may be added to a folder: docs/closed_loop.md says what drives what, and how failures are classed.

With --replan-every, the same camera looks again while the gripper holds the object. A new forecast is followed where
its way stays near to the rest of the plan (--replan-within-m), else the plan is kept; the gripper stops where the
object is not where the plan had it.

example:
  momap rollout --split val --episodes 5 --policy oracle ours static random --out out/rollout
  momap rollout --split val --episodes 5 --policy ours --no-prompt --out out/rollout
  momap rollout --split val --episodes 5 --policy oracle ours --replan-every 1 --out out/rollout
  momap rollout --split val --episodes 2 --policy oracle --skills lift push --videos 2 --out out/videos

what comes out: report.md (success with 95 % intervals per policy and skill, classes of failure), report.json,
rows.jsonl (one line per attempt), videos/ where asked for.
"""
# Without importing what needs mujoco and torch; a test holds both lists together.
POLICIES = ("oracle", "ours", "ours-draw", "static", "random", "skill-mean", "retrieval")


def add_parser(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type private)
    """Add the command."""
    parser = add_command(
        commands,
        "rollout",
        "let forecasts drive the simulated hand",
        usage="--policy POLICY [POLICY ...] --out DIR [options]",
        description=DESCRIPTION,
        run=run,
    )
    parser.add_argument(
        "--policy",
        nargs="+",
        required=True,
        choices=POLICIES,
        metavar="POLICY",
        help=f"where the forecast comes from: {', '.join(POLICIES)}",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--split", default="val", help="set of episodes (default: %(default)s)")
    parser.add_argument(
        "--episodes", type=positive, default=5, metavar="N", help="episodes of every skill (default: %(default)s)"
    )
    parser.add_argument(
        "--first-episode",
        type=int,
        default=0,
        metavar="N",
        help="look from this number on: to choose settings, take episodes of train beyond those trained on",
    )
    parser.add_argument("--skills", nargs="+", default=[], metavar="SKILL", help="these skills alone (default: all)")
    parser.add_argument(
        "--instances",
        default="true",
        choices=("true", "tabletop"),
        help="true ids, or those of the tabletop segmenter (default: %(default)s)",
    )
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--no-prompt", action="store_true", help="ours is not told the sentence")
    told.add_argument("--hints", action="store_true", help="ours is told the acted object's true directions instead")
    parser.add_argument("--checkpoint", default="small", help="of ours: bundled name or folder (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with train shards, for skill-mean and retrieval"
    )
    parser.add_argument(
        "--camera", type=int, default=0, metavar="N", help="number of the episodes' camera (default: %(default)s)"
    )
    parser.add_argument(
        "--videos", type=int, default=0, metavar="N", help="videos of successes, and as many of failures, per policy"
    )
    parser.add_argument(
        "--replan-every",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="forecast again at this rate while an object is held; 0 = one forecast per episode (default: %(default)s)",
    )
    add_settings(parser, FollowerConfig, leave_out=("replan_s",))  # the rate is the option above


def run(arguments: argparse.Namespace) -> int:
    """Try, and report."""
    from momap_ros.simulation.closed_loop_policies import PolicyChoice
    from momap_ros.simulation.closed_loop_run import REPORT, RunSettings
    from momap_ros.simulation.closed_loop_run import run as run_rollouts

    guidance = "none" if arguments.no_prompt else "hints" if arguments.hints else "text"
    choices = [
        PolicyChoice(name, guidance, arguments.checkpoint, arguments.data, arguments.replan_every)
        for name in dict.fromkeys(arguments.policy)
    ]
    settings = RunSettings(
        arguments.split,
        arguments.instances,
        camera=arguments.camera,
        first_episode=arguments.first_episode,
        follower=read_settings(arguments, FollowerConfig),
    )
    run_rollouts(
        settings,
        choices,
        arguments.out,
        episodes_per_skill=arguments.episodes,
        skills=arguments.skills,
        videos=arguments.videos,
    )
    report = arguments.out / f"{REPORT}.md"
    say(report.read_text(encoding="utf-8"))
    say(f"wrote {report}")
    return 0
