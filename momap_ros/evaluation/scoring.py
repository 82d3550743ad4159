"""Scores one sample: every predictor on the same pixels, all metrics, one plain dictionary per predictor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.metrics import (
    average_displacement_error,
    energy_score,
    farthest_displacement,
    final_displacement_error,
    masked_displacement_error,
    spread_and_error,
)
from momap_ros.evaluation.metrics_paper import (
    direction_accuracy,
    distance_signature_error,
    foreground_mask_iou,
    local_distance_difference,
    moves,
    nearest_patch_accuracy,
    time_warped_error,
)
from momap_ros.evaluation.points import (
    MIN_POINTS,
    Bool,
    ScoredPoints,
    choose_points,
    frame_of,
    majority_roles,
    objects_by_role,
    role_image,
)
from momap_ros.evaluation.predictor import NoForecast, Predictor, Scene
from momap_ros.geometry import Float32, Float64
from momap_ros.instances import InstanceMap
from momap_ros.momap import direction_flags

Row = dict[str, Any]
HIGHER_IS_BETTER = {"fg_mask_iou", "patch_nearest_acc", "q_acc_1", "q_acc_4", "q_acc_16"}


@dataclass(frozen=True)
class Thresholds:
    """Every number that a metric depends on; printed with every result.

    Attributes:
        moving_m: a point moves if it is at any step farther than this from where it starts.
        direction_m: along an axis, a shorter motion over the span is "stay".
        num_neighbours: K of local_dist_diff.
        covered_end_m: a draw covers a true future if every object ends within this of it.
        covered_path_m: the same for the mean distance over all steps.
    """

    moving_m: float = 0.02
    direction_m: float = 0.003
    num_neighbours: int = 8
    covered_end_m: float = 0.03
    covered_path_m: float = 0.02


@dataclass(frozen=True)
class Condition:
    """What predictors are given.

    Attributes:
        instances: "true" ids or those of the "tabletop" segmenter.
        prompt: whether the sentence is given.
        hints: whether the true direction of every instance is given.
        num_hypotheses: N of best-of-N.
        thresholds: of the metrics.
    """

    instances: str = "true"
    prompt: bool = True
    hints: bool = False
    num_hypotheses: int = 10
    thresholds: Thresholds = Thresholds()

    @property
    def title(self) -> str:
        """For tables."""
        return ", ".join([self.instances, "text" if self.prompt else "no text", *(["hints"] if self.hints else [])])


def episode_of(key: str) -> str:
    """Views and futures of one episode are no independent samples: "val_0000012_1" -> "val_0000012"."""
    found = re.match(r".+?_\d{7}(?=_)", key)
    return found[0] if found else key


def scene_of(sample: Sample, condition: Condition) -> Scene:
    """What predictors are given of a sample."""
    frame = frame_of(sample)
    instances = sample.instance_map(merge_robot=True)
    if condition.instances == "tabletop":
        from momap_ros.config import SegmentationConfig
        from momap_ros.segmentation.base import SegmentationError
        from momap_ros.segmentation.tabletop import TabletopSegmenter

        try:
            instances = TabletopSegmenter(SegmentationConfig())(frame)
        except SegmentationError:
            instances = InstanceMap(np.zeros(sample.body_ids.shape, np.int32))
    hints = true_directions(sample, instances, condition.thresholds.moving_m) if condition.hints else {}
    return Scene(frame, instances, sample.text if condition.prompt else "", hints, sample)


def true_directions(sample: Sample, instances: InstanceMap, threshold_m: float) -> dict[int, list[int]]:
    """Signs of the true mean displacement of every instance with depth, along x, y, z of the optical frame."""
    moved = sample.momap().displacement_m[-1]
    known = np.isfinite(sample.depth_m)
    result = {}
    for instance_id in instances.areas_px:
        seen = (instances.ids == instance_id) & known
        if seen.any():
            result[instance_id] = direction_flags(moved[seen].mean(axis=0), threshold_m).tolist()
    return result


@dataclass(frozen=True, eq=False)
class Subject:
    """One sample that is scored, with everything that is the same for all predictors."""

    sample: Sample
    scene: Scene
    points: ScoredPoints
    thresholds: Thresholds


def score_sample(
    sample: Sample, predictors: Iterable[Predictor], condition: Condition, seed: int
) -> dict[str, Row | None]:
    """All figures of one sample, lengths in metres; predictor name -> row, None where it has no forecast.

    Args:
        sample: the truth.
        predictors: all get the same scene and are scored on the same pixels.
        condition: what they are given.
        seed: of pixels and draws.

    Raises:
        ValueError: a predictor's trajectories have another shape than asked for.
    """
    scene = scene_of(sample, condition)
    points = choose_points(sample, scene.instances, seed, moving_threshold_m=condition.thresholds.moving_m)
    facts = {
        "key": sample.key,
        "episode": episode_of(sample.key),
        "skill": sample.skill,
        "choice": sample.factors.get("acts_on") == "object",
        "median_depth_m": float(np.nanmedian(sample.depth_m)),
        "truth": _truth_figures(points),
    }
    subject = Subject(sample, scene, points, condition.thresholds)
    rows: dict[str, Row | None] = {}
    for predictor in predictors:
        try:
            prediction = predictor(scene, num_hypotheses=condition.num_hypotheses, seed=seed)
        except NoForecast:
            rows[predictor.name] = None
            continue
        drawn = prediction.trajectories(points.pixels)
        if drawn.ndim != 4 or drawn.shape[1:] != points.true.shape:
            raise ValueError(
                f"predictor {predictor.name}: expected trajectories (N, {', '.join(map(str, points.true.shape))}) for "
                f"sample {sample.key}, got {drawn.shape}; give every pixel, the sample's T, and x y z"
            )
        unknown = np.isnan(drawn[..., 0])
        drawn = rest_where_unknown(drawn, unknown, points.true)
        row: Row = facts | {"hypotheses": len(drawn), "roles": {}}
        for role, index in points.of_role.items():
            figures = _role_figures(drawn, subject, role)
            row["roles"][role] = figures | {"unknown": float(unknown[:, index].mean())}
        if not moves(points.true, condition.thresholds.moving_m).any():
            still = ~moves(drawn[:, points.grid], condition.thresholds.moving_m).any(axis=1)
            row["still"] = float(still.mean())
        probability = prediction.instance_moving_probability()
        row |= _joint(drawn, points)
        if Role.ACTED in sample.body_roles:
            row |= _binding(drawn, subject, probability)
        row["moving"] = _moving_cases(probability, subject)
        if np.isfinite(prediction.step_s):
            row["duration_ratio"] = prediction.step_s / sample.step_s
        rows[predictor.name] = row
    return rows


def rest_where_unknown(drawn: Float32, unknown: Bool, true: Float32) -> Float32:
    """What is unknown, for instance an object that the segmenter lost, is a forecast of rest: nothing moves it."""
    return np.where(unknown[..., None], true[None, :, :1], drawn) if unknown.any() else drawn


def _truth_figures(points: ScoredPoints) -> dict[str, dict[str, float]]:
    """Per role: errors of a forecast of rest, and how far a point goes in one step along one axis."""
    figures = {}
    for role, index in points.of_role.items():
        true = points.true[index]
        still = np.repeat(true[None, :, :1], true.shape[1], axis=2)
        figures[role] = {
            "static_ade_m": float(average_displacement_error(still, true)[0]),
            "static_fde_m": float(final_displacement_error(still, true)[0]),
            "step_m": float(np.abs(np.diff(true, axis=1)).mean()),
        }
    return figures


def _reduced(values: Float64, name: str, selected: int) -> dict[str, float]:
    """Best of N, the value of the hypothesis that the role's ADE selects, and mean of N; nothing where undefined."""
    if np.isnan(values).any():
        return {}
    best = values.max() if name in HIGHER_IS_BETTER else values.min()
    return {"best": float(best), "selected": float(values[selected]), "mean": float(values.mean())}


def _role_figures(drawn: Float32, subject: Subject, role: str) -> dict[str, Any]:
    """All metrics of one role; those of the paper are over its points that truly move."""
    points, thresholds = subject.points, subject.thresholds
    index = points.of_role[role]
    of_role, true = drawn[:, index], points.true[index]
    values = {"ade_m": average_displacement_error(of_role, true), "fde_m": final_displacement_error(of_role, true)}
    selected = int(values["ade_m"].argmin())
    if points.visible is not None:
        seen = points.visible[index]
        values["ade_visible_m"] = masked_displacement_error(of_role, true, seen)
        values["ade_occluded_m"] = masked_displacement_error(of_role, true, ~seen)
    values["fg_mask_iou"] = (
        foreground_mask_iou(drawn[:, points.grid], points.true[points.grid], threshold_m=thresholds.moving_m)
        if role == "all"
        else foreground_mask_iou(of_role, true, threshold_m=thresholds.moving_m)
    )
    foreground = moves(true, thresholds.moving_m)
    if foreground.sum() >= MIN_POINTS:
        values |= _foreground_metrics(of_role[:, foreground], true[foreground], thresholds)
    values["patch_nearest_acc"] = _patch_accuracy(drawn, subject, role)
    figures: dict[str, Any] = {name: _reduced(metric, name, selected) for name, metric in values.items()}
    figures["energy_path_m"] = energy_score(of_role, true)
    figures["energy_end_m"] = energy_score(of_role[:, :, -1:], true[:, -1:])
    if len(drawn) > 1:
        figures["variance_path"], figures["error_path"] = spread_and_error(of_role, true)
        figures["variance_end"], figures["error_end"] = spread_and_error(of_role[:, :, -1:], true[:, -1:])
    return figures


def _foreground_metrics(drawn: Float32, true: Float32, thresholds: Thresholds) -> dict[str, Float64]:
    """The paper's metrics that are means over moving points."""
    directions = {
        f"q_acc_{span}": direction_accuracy(drawn, true, span=span, threshold_m=thresholds.direction_m)
        for span in (1, 4, 16)
    }
    return {
        "ate_dtw_m": time_warped_error(drawn, true),
        "d_sig_m": distance_signature_error(drawn, true),
        "local_dist_diff_m": local_distance_difference(drawn, true, num_neighbours=thresholds.num_neighbours),
        **directions,
    }


def _patch_accuracy(drawn: Float32, subject: Subject, role: str) -> Float64:
    """Nearest-patch accuracy of the moving patches of one role; patches are the true instances."""
    points = subject.points
    if not points.of_patch:
        return np.full(len(drawn), np.nan)
    roles = subject.sample.instance_roles(merge_robot=True)
    wanted = {"acted": {Role.ACTED}, "robot": {Role.ROBOT}, "all": set(Role)}[role]
    true = np.stack([points.true[index].mean(axis=0) for index in points.of_patch.values()])
    centroids = np.stack([drawn[:, index].mean(axis=1) for index in points.of_patch.values()], axis=1)
    scored = moves(true, subject.thresholds.moving_m) & np.array([roles[i] in wanted for i in points.of_patch])
    return nearest_patch_accuracy(centroids, true, scored)


def _joint(drawn: Float32, points: ScoredPoints) -> Row:
    """ADE of acted object and robot in the one draw in which their sum is smallest."""
    if not {"acted", "robot"} <= points.of_role.keys():
        return {}
    errors = {
        role: average_displacement_error(drawn[:, points.of_role[role]], points.true[points.of_role[role]])
        for role in ("acted", "robot")
    }
    joint = int((errors["acted"] + errors["robot"]).argmin())
    return {"joint_m": {role: float(error[joint]) for role, error in errors.items()}}


def _binding(drawn: Float32, subject: Subject, probability: Mapping[int, float]) -> Row:
    """Whether the object that moves farthest is the one that is acted on."""
    objects = objects_by_role(subject.scene.instances, role_image(subject.sample))
    if not objects:
        return {"right_object": 0.0, "num_objects": 0}
    farthest = []
    for instance_id in objects:
        index = subject.points.of_instance[instance_id]
        farthest.append(farthest_displacement(drawn[:, index]) if len(index) else np.zeros(len(drawn)))
    distance = np.stack(farthest)  # (objects, N)
    is_acted = np.array([role == Role.ACTED for role in objects.values()])
    right = is_acted[distance.argmax(axis=0)] & (distance.max(axis=0) > 0)
    row: Row = {
        "right_object": float(right.mean()),
        "chance": 1 / len(objects),
        "num_objects": len(objects),
        "acted_segmented": float(is_acted.any()),
    }
    if probability:
        most_likely = max(objects, key=lambda i: probability.get(i, 0.0))
        row["right_object_head"] = float(objects[most_likely] == Role.ACTED)
    return row


def _moving_cases(probability: Mapping[int, float], subject: Subject) -> list[tuple[str, float, bool]]:
    """Per instance with depth and a stated probability: role, the probability, and whether half of it truly moves."""
    if not probability:
        return []
    names = {Role.ROBOT: "robot", Role.ACTED: "acted"}
    cases = []
    for instance_id, role in majority_roles(subject.scene.instances, role_image(subject.sample)).items():
        index = subject.points.of_instance[instance_id]
        if instance_id in probability and len(index):
            moving = bool(moves(subject.points.true[index], subject.thresholds.moving_m).mean() >= 0.5)
            cases.append((names.get(role, "other"), float(probability[instance_id]), moving))
    return cases
