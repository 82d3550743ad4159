"""What a set of stored samples consists of: figures of every sample, summed up one sample after the other."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.data.sample import Role, Sample
from momap_ros.geometry import Float32, Float64, unproject_depth
from momap_ros.momap import direction_flags
from momap_ros.report import direction_in_words
from momap_ros.shapes import check_shapes

FORMAT = "momap-statistics/1"
DIRECTIONS = ("left", "right", "up", "down", "closer", "away", "stays")
# Stored depth ends at 6.5535 m.
DEPTH_STEP_M = 0.05
DEPTH_EDGES_M: Float64 = np.arange(133, dtype=np.float64) * DEPTH_STEP_M
# Evenly spread pixels of a body that stand for all of them: the body is rigid, so its motion varies smoothly.
_PIXELS_PER_BODY = 128
_TOP_WORDS = 30


@dataclass(frozen=True)
class Figure:
    """One number per sample.

    Attributes:
        name: of the number; lengths are metres, times seconds, shares parts of all pixels of the image.
        what: for readers.
        unit: readers see it in; "%" and "cm" are hundredths.
    """

    name: str
    what: str
    unit: str

    @property
    def scale(self) -> float:
        """Readers' units per stored unit."""
        return 100.0 if self.unit in {"%", "cm"} else 1.0


FIGURES = (
    Figure("moving_share", "moving pixels", "%"),
    Figure("robot_moving_share", "moving pixels of the robot", "%"),
    Figure("object_moving_share", "moving pixels of objects", "%"),
    Figure("acted_share", "pixels of the acted object", "%"),
    Figure("acted_motion_m", "farthest the acted object gets", "cm"),
    Figure("num_instances", "instances, the robot as one", ""),
    Figure("duration_s", "duration", "s"),
    Figure("depth_m", "median depth", "m"),
)


@dataclass(frozen=True, eq=False)
class BodyMotion:
    """A body that moves and is seen.

    Attributes:
        body: its id.
        moving_px: pixels that are at any step farther than the threshold from where they were seen.
        centre_m: (T, 3) centre of its seen points, metres, camera frame.
    """

    body: int
    moving_px: float
    centre_m: Float64

    @property
    def farthest_m(self) -> float:
        """Largest distance of the centre from its start, metres."""
        return float(np.linalg.norm(self.centre_m - self.centre_m[0], axis=-1).max())


def carried_points(points_m: npt.NDArray[np.floating], motion_t_from_0: Float32) -> Float64:
    """(T, P, 3) where a rigid motion takes points: (P, 3) metres, (T, 3, 4) from step 0 to each step."""
    check_shapes(points_m=(points_m, "P 3"), motion_t_from_0=(motion_t_from_0, "T 3 4"))
    rotated = np.asarray(points_m, np.float64) @ motion_t_from_0[..., :3].transpose(0, 2, 1)
    return np.asarray(rotated + motion_t_from_0[:, None, :, 3], np.float64)


def body_motions(sample: Sample, *, moving_threshold_m: float) -> Iterator[BodyMotion]:
    """The moving bodies with a pixel of known depth, without the dense MoMap."""
    points = unproject_depth(sample.depth_m, sample.camera).reshape(-1, 3)
    ids = np.where(np.isnan(sample.depth_m), 0, sample.body_ids).ravel()
    for slot, body in enumerate(sample.moving_bodies):
        pixels = np.flatnonzero(ids == body)
        if not len(pixels) or body == 0:
            continue
        motion = sample.motion_t_from_0[:, slot]
        chosen = pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), _PIXELS_PER_BODY)).astype(np.intp)]
        way = carried_points(points[chosen], motion) - points[chosen]
        moves = np.einsum("tpc,tpc->tp", way, way).max(axis=0) > moving_threshold_m**2
        centre = points[pixels].mean(axis=0, dtype=np.float64)
        yield BodyMotion(int(body), float(moves.mean() * len(pixels)), carried_points(centre[None], motion)[:, 0])


def azimuth_deg(displacement_m: Float64, up_in_camera: Float64) -> float:
    """Direction over the ground, seen from above: 0 = to the camera's right, 90 = away from it, counterclockwise.

    Args:
        displacement_m: (3,) camera frame.
        up_in_camera: (3,) unit vector against gravity.

    Returns:
        Degrees in (-180, 180]; NaN where the displacement is vertical, or the camera's x axis is.
    """
    right = np.array([1.0, 0.0, 0.0]) - up_in_camera[0] * up_in_camera
    away = np.cross(up_in_camera, right)
    along_right, along_away = float(displacement_m @ right), float(displacement_m @ away)
    if np.hypot(along_right, along_away) < 1e-9:
        return float("nan")
    return float(np.degrees(np.arctan2(along_away, along_right)))


def words_of(sentence: str) -> list[str]:
    """The words of a sentence, in lower case."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", sentence.lower())


class Statistics:
    """The figures of the samples added so far; a few numbers are kept per sample, never the sample.

    Attributes:
        num_samples: added so far.
        counts: what is counted -> its values -> how often.
        azimuths_deg: of the acted objects that move, see `azimuth_deg`.
        depth_px: pixels per interval of DEPTH_EDGES_M.
        skills: of each sample, in order.
    """

    def __init__(self, *, moving_threshold_m: float) -> None:
        """Start empty; a pixel or object moves when it is at any step farther than the threshold from its start."""
        self._threshold_m = moving_threshold_m
        self.num_samples = 0
        names = ("skills", "kinds", "sentences", "words", "directions", "text_frames", "sources", "lacks")
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.azimuths_deg = array("d")
        self.depth_px: npt.NDArray[np.int64] = np.zeros(len(DEPTH_EDGES_M) - 1, np.int64)
        self.skills: list[str] = []
        self._values = {figure.name: array("d") for figure in FIGURES}
        self._all_sentences: set[str] = set()

    def add(self, sample: Sample) -> None:
        """Take a sample into account; figures that it lacks the data for leave it out."""
        self.num_samples += 1
        self.skills.append(sample.skill)
        for name, value in (("skills", sample.skill), ("kinds", sample.kind), ("text_frames", sample.text_frame)):
            self.counts[name][value or "none"] += 1
        self.counts["sources"][sample.source] += 1
        self.counts["lacks"].update(sample.lacks)
        if sample.text:
            self.counts["sentences"][sample.text] += 1
            self.counts["words"].update(words_of(sample.text))
        self._all_sentences.update(filter(None, (sample.text, *sample.paraphrases)))
        figures = {"duration_s": sample.duration_s} | self._seen(sample) | self._moved(sample)
        for name, values in self._values.items():
            values.append(figures.get(name, np.nan))

    def values(self, name: str) -> Float64:
        """(S,) a figure of every sample in the order they were added; NaN where it is unknown."""
        return np.array(self._values[name], np.float64)

    def _seen(self, sample: Sample) -> dict[str, float]:
        figures: dict[str, float] = {}
        measured = sample.depth_m[np.isfinite(sample.depth_m)]
        if "depth" not in sample.lacks and measured.size:
            intervals = (measured / DEPTH_STEP_M).astype(np.intp).clip(0, len(self.depth_px) - 1)
            self.depth_px += np.bincount(intervals, minlength=len(self.depth_px))
            figures["depth_m"] = float(np.median(measured))
        if "instances" not in sample.lacks:
            roles = np.array(sample.body_roles)
            pixels = np.bincount(sample.body_ids.ravel(), minlength=len(roles))
            seen = roles[pixels > 0]
            others = (Role.ACTED, Role.OBJECT, Role.FIXTURE)
            figures["num_instances"] = float(np.isin(seen, others).sum() + (seen == Role.ROBOT).any())
            if Role.ACTED in sample.body_roles:
                figures["acted_share"] = float(pixels[roles == Role.ACTED].sum() / sample.body_ids.size)
        return figures

    def _moved(self, sample: Sample) -> dict[str, float]:
        if {"camera", "depth", "instances", "motion"} & set(sample.lacks):
            return {}
        motions = list(body_motions(sample, moving_threshold_m=self._threshold_m))
        roles = sample.body_roles
        robot_px = sum(motion.moving_px for motion in motions if roles[motion.body] == Role.ROBOT)
        all_px = sum(motion.moving_px for motion in motions)
        shares = {"moving_share": all_px, "robot_moving_share": robot_px, "object_moving_share": all_px - robot_px}
        figures = {name: pixels / sample.body_ids.size for name, pixels in shares.items()}
        acted = [motion for motion in motions if roles[motion.body] == Role.ACTED]
        if acted:
            farthest = max(acted, key=lambda motion: motion.farthest_m)
            figures["acted_motion_m"] = farthest.farthest_m
            self._count_direction(farthest.centre_m[-1] - farthest.centre_m[0], sample.up_in_camera)
        return figures

    def _count_direction(self, displacement_m: Float64, up_in_camera: Float64) -> None:
        words = direction_in_words(direction_flags(displacement_m, self._threshold_m))
        self.counts["directions"].update(words.split(", "))
        over_ground = displacement_m - displacement_m @ up_in_camera * up_in_camera
        azimuth = azimuth_deg(displacement_m, up_in_camera)
        if np.linalg.norm(over_ground) > self._threshold_m and np.isfinite(azimuth):
            self.azimuths_deg.append(azimuth)

    def summary(self) -> dict[str, Any]:
        """All figures as plain data for JSON: SI units, shares in [0, 1]; figures that no sample has are left out."""
        counts = {name: dict(counter.most_common()) for name, counter in self.counts.items() if name != "sentences"}
        words = counts.pop("words")
        moving = {name: float(np.nansum(self.values(f"{name}_share"))) for name in ("moving", "robot_moving")}
        return {
            "format": FORMAT,
            "samples": self.num_samples,
            "moving_threshold_m": self._threshold_m,
            "distinct_sentences": len(self.counts["sentences"]),
            "distinct_sentences_with_paraphrases": len(self._all_sentences),
            "distinct_words": len(words),
            "robot_share_of_moving_pixels": moving["robot_moving"] / moving["moving"] if moving["moving"] else None,
            "figures": {
                figure.name: _distribution(self.values(figure.name))
                for figure in FIGURES
                if np.isfinite(self.values(figure.name)).any()
            },
            "per_skill": self._per_skill(),
            **counts,
            "top_words": dict(self.counts["words"].most_common(_TOP_WORDS)),
            "azimuth_deg": _histogram(self.azimuths_deg, np.linspace(-180, 180, 25)),
            "depth_m": {"edges": DEPTH_EDGES_M.round(3).tolist(), "pixels": self.depth_px.tolist()},
        }

    def _per_skill(self) -> dict[str, dict[str, float | None]]:
        skills = np.array(self.skills)
        means: dict[str, dict[str, float | None]] = {}
        for skill, count in self.counts["skills"].most_common():
            means[skill] = {"samples": count}
            for name in ("moving_share", "acted_share", "acted_motion_m", "duration_s"):
                known = self.values(name)[skills == ("" if skill == "none" else skill)]
                known = known[np.isfinite(known)]
                means[skill][name] = float(known.mean()) if len(known) else None
        return means


def _distribution(values: Float64) -> dict[str, float]:
    known = values[np.isfinite(values)]
    p5, median, p95 = np.percentile(known, [5, 50, 95])
    named = {"mean": known.mean(), "p5": p5, "median": median, "p95": p95, "min": known.min(), "max": known.max()}
    return {"samples": len(known), **{name: float(value) for name, value in named.items()}}


def _histogram(values: Sequence[float], edges: Float64) -> dict[str, list[float]]:
    return {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()}


def markdown(summary: dict[str, Any], *, title: str) -> str:
    """The summary as tables in Markdown, readable as plain text, too."""
    lines = [f"# {title}", "", _headline(summary), ""]
    rows: list[tuple[str, ...]] = [("figure", "mean", "5 %", "median", "95 %", "samples")]
    for figure in FIGURES:
        if found := summary["figures"].get(figure.name):
            numbers = [f"{found[name] * figure.scale:.1f}" for name in ("mean", "p5", "median", "p95")]
            rows.append(
                (f"{figure.what} {f'[{figure.unit}]' if figure.unit else ''}".strip(), *numbers, f"{found['samples']}")
            )
    lines += [*_table(rows), ""]
    rows = [("skill", "samples", "moving pixels [%]", "acted pixels [%]", "acted gets [cm]", "duration [s]")]
    for skill, found in summary["per_skill"].items():
        means = [found[name] for name in ("moving_share", "acted_share", "acted_motion_m")]
        percents = ["-" if mean is None else f"{mean * 100:.1f}" for mean in means]
        rows.append((skill, f"{found['samples']:,}", *percents, f"{found['duration_s']:.1f}"))
    lines += [*_table(rows), ""]
    rows = [("direction of the acted object, camera frame", "samples")]
    rows += [(word, f"{summary['directions'].get(word, 0):,}") for word in DIRECTIONS]
    lines += [*_table(rows), ""]
    for name, what in (("kinds", "acted kinds"), ("top_words", "most frequent words"), ("sources", "sources")):
        lines += [f"{what}: " + ", ".join(f"{value} {count:,}" for value, count in summary[name].items()), ""]
    return "\n".join(lines)


def _headline(summary: dict[str, Any]) -> str:
    lacks = ", ".join(f"{name} in {count:,}" for name, count in summary["lacks"].items())
    robot = summary["robot_share_of_moving_pixels"]
    return (
        f"{summary['samples']:,} samples; {summary['distinct_sentences']:,} distinct sentences "
        f"({summary['distinct_sentences_with_paraphrases']:,} with paraphrases), {summary['distinct_words']:,} words. "
        + (f"Of all moving pixels {robot:.0%} are the robot's. " if robot is not None else "")
        + f"Moving: farther than {summary['moving_threshold_m'] * 100:g} cm from the start at any step."
        + (f" Lacking: {lacks}." if lacks else "")
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [
        [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:])]
