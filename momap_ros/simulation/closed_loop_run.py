"""Many closed-loop episodes, one line of a file after the other: a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from momap_ros.animation import save_animation
from momap_ros.config import FollowerConfig
from momap_ros.drawing import Canvas
from momap_ros.files import atomic_path, write_json
from momap_ros.rgbd import UInt8
from momap_ros.simulation.closed_loop import Attempt, attempt
from momap_ros.simulation.closed_loop_checks import CHECKS
from momap_ros.simulation.closed_loop_policies import Policy, PolicyChoice, make_policy
from momap_ros.simulation.closed_loop_replanning import Replanning
from momap_ros.simulation.closed_loop_report import Row, markdown, summarise
from momap_ros.simulation.closed_loop_view import FirstView, first_view
from momap_ros.simulation.episodes import Episode, simulate_episode, skill_of_episode
from momap_ros.simulation.splits import SPLITS
from momap_ros.simulation.stage import Stage, open_stage

ROWS, SETTINGS, LEFT_OUT = "rows.jsonl", "settings.json", "left_out.jsonl"
REPORT = "report"
_SCANNED_PER_EPISODE = 400  # episode numbers looked at for each episode wanted, before a rare skill is given up
_FRAMES_PER_S, _VIDEO_WIDTH = 12.5, 640


@dataclass(frozen=True)
class RunSettings:
    """Which episodes, seen how; the same for all policies of a folder.

    Attributes:
        split: one of SPLITS.
        instances: "true" ids, or those of the "tabletop" segmenter.
        image_size: pixels, across and down.
        camera: number of the episode's camera.
        first_episode: number of the first episode that is looked at.
        follower: limits and measures.
    """

    split: str
    instances: str = "true"
    image_size: int = 256
    camera: int = 0
    first_episode: int = 0
    follower: FollowerConfig = field(default_factory=FollowerConfig)


def run(
    settings: RunSettings,
    choices: Sequence[PolicyChoice],
    out: Path,
    *,
    episodes_per_skill: int,
    skills: Sequence[str] = (),
    videos: int = 0,
) -> dict[str, Any]:
    """Try every policy on the same episodes; writes rows.jsonl, report.json and report.md into a folder.

    Args:
        settings: which episodes, seen how.
        choices: the policies.
        out: folder; what it already holds of the same settings is kept, not done again.
        episodes_per_skill: of every skill that occurs in the split and in which somebody acts.
        skills: these alone; all where empty.
        videos: of successes, and as many of failures, per policy.

    Returns:
        The report.

    Raises:
        ValueError: unknown split or skill, or the folder holds a run of other settings.
    """
    wanted = _wanted_skills(settings.split, skills)
    done = _Folder(out, settings)
    policies: dict[str, Policy] = {}
    total = episodes_per_skill * len(wanted) * len(choices)
    with tqdm(total=total, desc=f"{settings.split}, closed loop", unit="attempt") as bar:
        for index, skill in _episodes(settings, wanted, done, episodes_per_skill):
            missing = [choice for choice in choices if (index, choice.label) not in done.known]
            bar.update(len(choices) - len(missing))
            if not missing:
                continue
            for choice in missing:
                if choice.label not in policies:
                    policies[choice.label] = make_policy(choice)
            bar.set_postfix_str(skill)
            tried = [(choice, policies[choice.label]) for choice in missing]
            _one_episode(settings, index, tried, done, videos=videos, bar=bar)
    return done.report([choice.label for choice in choices])


def _wanted_skills(split: str, skills: Sequence[str]) -> tuple[str, ...]:
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {list(SPLITS)}, got {split!r}")
    known = tuple(name for name in CHECKS if SPLITS[split].allows_skill(name))
    if unknown := sorted(set(skills) - set(known)):
        raise ValueError(f"skills: expected names of {sorted(known)}, got {unknown}")
    return tuple(skills) or known


def _episodes(settings: RunSettings, skills: Sequence[str], done: _Folder, per_skill: int) -> Iterator[tuple[int, str]]:
    """(number, skill) of the first episodes of every skill that are not left out by the time they are reached."""
    found: Counter[str] = Counter()
    first = settings.first_episode
    for index in range(first, first + _SCANNED_PER_EPISODE * per_skill):
        if all(found[skill] >= per_skill for skill in skills):
            return
        name = skill_of_episode(settings.split, index).name
        if name not in skills or found[name] >= per_skill or index in done.left_out:
            continue
        yield index, name
        found[name] += index not in done.left_out


def _one_episode(
    settings: RunSettings,
    index: int,
    policies: Sequence[tuple[PolicyChoice, Policy]],
    done: _Folder,
    *,
    videos: int,
    bar: Any,  # noqa: ANN401
) -> None:
    episode = simulate_episode(settings.split, index, from_rest=True)
    if episode is None or not episode.rollout.success:
        done.leave_out(index, "scene does not fit on the table" if episode is None else "demonstration fails")
        return
    stage = open_stage(episode, settings.image_size, settings.image_size)
    try:
        view = first_view(stage, settings.image_size, camera=settings.camera, instances=settings.instances)
        if view is None:
            done.leave_out(index, "no camera sees the task")
            return
        for choice, policy in policies:
            result = _one_attempt(settings, stage, view, (choice, policy))
            row = _row(episode, view, choice, result)
            path = done.video_path(row, videos)
            if path is not None:
                save_animation(path, video_frames(stage, view, result, row), frame_s=1 / _FRAMES_PER_S)
            done.add(row)
            bar.update()
    finally:
        stage.renderer.close()


def _one_attempt(settings: RunSettings, stage: Stage, view: FirstView, tried: tuple[PolicyChoice, Policy]) -> Attempt:
    (choice, policy), episode = tried, stage.episode
    rng = np.random.default_rng([SPLITS[settings.split].seed, episode.index])
    motions, step_s = policy(view, rng)
    again = None
    if choice.replan_every_s:
        again = Replanning(stage, view, lambda later: policy(later, rng), choice.replan_every_s, settings.instances)
    return attempt(episode, view, motions, step_s, config=settings.follower, replanning=again)


def _row(episode: Episode, view: FirstView, choice: PolicyChoice, result: Attempt) -> Row:
    what = (episode.split, episode.index, view.sample.skill, view.sample.kind, choice.label)
    how = (result.success, result.failure, result.details, result.contact, round(result.plan_s, 3))
    replans = (choice.replan_every_s, result.replans.taken, result.replans.kept, result.replans.stopped)
    return Row(*what, *how, view.sample.text, *replans)


def video_frames(stage: Stage, view: FirstView, result: Attempt, row: Row) -> Iterator[UInt8]:
    """What the camera saw of an attempt, with the sentence, the policy and the verdict."""
    from dataclasses import replace

    episode = replace(stage.episode, rollout=result.rollout)
    stride = max(1, round(1 / _FRAMES_PER_S / result.rollout.step_s))
    verdict = "success" if row.success else row.failure
    for state in range(0, len(result.rollout.qpos), stride):
        episode.restore(stage.data, state)
        canvas = Canvas(stage.renderer.rgb(stage.data, view.view), min_width=_VIDEO_WIDTH)
        canvas.text([f"“{row.sentence}”", f"{row.policy}: {verdict}"], (10, 10), size=17)
        yield canvas.image
    stage.episode.restore(stage.data, 0)


class _Folder:
    """What a folder holds: rows, episodes left out, and what they were made with."""

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path, self.split = path, settings.split
        path.mkdir(parents=True, exist_ok=True)
        stated = json.loads(json.dumps(asdict(settings)))
        file = path / SETTINGS
        if file.exists() and (before := json.loads(file.read_text(encoding="utf-8"))) != stated:
            raise ValueError(f"{path}: expected a run of {stated}, got one of {before}; take another folder")
        write_json(file, stated)
        self.rows = [Row(**line) for line in _read_lines(path / ROWS)]
        self.left_out: dict[int, str] = {line["index"]: line["reason"] for line in _read_lines(path / LEFT_OUT)}

    @property
    def known(self) -> set[tuple[int, str]]:
        """(episode, policy) of every row."""
        return {(row.index, row.policy) for row in self.rows}

    def add(self, row: Row) -> None:
        self.rows.append(row)
        _append_line(self.path / ROWS, row.as_json())

    def leave_out(self, index: int, reason: str) -> None:
        self.left_out[index] = reason
        _append_line(self.path / LEFT_OUT, {"index": index, "reason": reason})

    def video_path(self, row: Row, limit: int) -> Path | None:
        """Where to put the video of a row; None where there are enough of its policy and verdict."""
        folder = (
            self.path
            / "videos"
            / row.policy.replace(", ", "_").replace(" ", "_")
            / ("success" if row.success else "failure")
        )
        if limit <= 0 or (folder.is_dir() and len(list(folder.iterdir())) >= limit):
            return None
        why = "" if row.success else "_" + row.failure.replace(" ", "_")
        return folder / f"{row.skill}_{row.index:07d}{why}.gif"

    def report(self, order: Sequence[str]) -> dict[str, Any]:
        """Write report.json and report.md of all rows, the policies of this run first."""
        rank = {label: number for number, label in enumerate(order)}
        rows = sorted(self.rows, key=lambda row: (rank.get(row.policy, len(rank)), row.policy, row.index))
        left_out = dict(Counter(self.left_out.values()))
        summary = summarise(rows)
        report = {"split": self.split, "left_out": left_out, "policies": summary}
        write_json(self.path / f"{REPORT}.json", report)
        with atomic_path(self.path / f"{REPORT}.md") as partial:
            partial.write_text(markdown(self.split, summary, left_out), encoding="utf-8")
        return report


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; what a kill left of a last one is cut off, so that the next line begins where it did."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _append_line(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content) + "\n")
