"""Coverage: several true futures of one and the same first frame, and how many of them the draws come close to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from momap_ros.data.sample import Role, Sample
from momap_ros.evaluation.calibration import coverage
from momap_ros.evaluation.metrics import lengths
from momap_ros.evaluation.metrics_paper import moves
from momap_ros.evaluation.points import MIN_POINTS, POINTS_PER_INSTANCE, sampled_pixels, true_trajectories
from momap_ros.evaluation.predictor import Predictor
from momap_ros.evaluation.scoring import Condition, Row, episode_of, rest_where_unknown, scene_of
from momap_ros.geometry import Float32, Float64
from momap_ros.instances import Int32


def groups_of(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Consecutive samples that begin with the very same image, where there are at least two of them."""
    for first_frame, group in itertools.groupby(samples, key=lambda sample: sample.first_frame):
        futures = list(group)
        if first_frame and len(futures) > 1:
            yield futures


def score_futures(
    futures: Sequence[Sample], predictors: Iterable[Predictor], condition: Condition, seed: int
) -> dict[str, Row]:
    """Draw once per predictor, without sentence and hints, and count the true futures that some draw comes close to.

    A draw is as far from a future as the worst of the objects that move in any of the futures; the distance of an
    object is the mean over its points, at the last step or over all of them. The robot does not count. Predictors that
    are told something are left out: they would be told one of the futures.

    Args:
        futures: samples of one first frame.
        predictors: those to score.
        condition: N, the thresholds, and whose instances are used.
        seed: of the draws.

    Returns:
        Predictor name -> counts; empty where nothing but the robot moves in any future.
    """
    condition = replace(condition, prompt=False, hints=False)
    objects = moving_objects(futures, condition.thresholds.moving_m)
    if not objects:
        return {}
    pixels = np.concatenate(objects)
    ends = np.cumsum([len(of_object) for of_object in objects])
    true = np.stack([true_trajectories(sample, pixels) for sample in futures])  # (F, P, T, 3)
    between = _distances(true, true, ends)
    scene = scene_of(futures[0], condition)
    rows: dict[str, Row] = {}
    for predictor in predictors:
        if predictor.told:
            continue
        drawn = predictor(scene, num_hypotheses=condition.num_hypotheses, seed=seed).trajectories(pixels)
        drawn = rest_where_unknown(drawn, np.isnan(drawn[..., 0]), true[0])
        row: dict[str, Any] = {"first_frame": futures[0].first_frame, "episode": episode_of(futures[0].key)}
        limits = {"end": condition.thresholds.covered_end_m, "path": condition.thresholds.covered_path_m}
        distances = _distances(drawn, true, ends)
        for name, limit_m in limits.items():
            row[name] = vars(coverage(distances[name], between[name], threshold_m=limit_m))
        rows[predictor.name] = row
    return rows


def moving_objects(futures: Sequence[Sample], threshold_m: float) -> list[Int32]:
    """Pixels (P, 2) of every object, robot left out, whose visible points move in some future."""
    ids = futures[0].instance_map(merge_robot=True)
    roles = futures[0].instance_roles(merge_robot=True)
    objects = []
    for instance_id in ids.areas_px:
        mask = (ids.ids == instance_id) & np.isfinite(futures[0].depth_m)
        pixels = sampled_pixels(mask, np.random.default_rng(0), POINTS_PER_INSTANCE)
        if roles[instance_id] == Role.ROBOT or len(pixels) < MIN_POINTS:
            continue
        if any(moves(true_trajectories(sample, pixels), threshold_m).mean() >= 0.5 for sample in futures):
            objects.append(pixels)
    return objects


def _distances(first: Float32, second: Float32, ends: np.ndarray) -> dict[str, Float64]:
    """(N, F) metres at the end and over the path, of every one of (N, P, T, 3) to every one of (F, P, T, 3)."""
    result = {name: np.zeros((len(first), len(second))) for name in ("end", "path")}
    for i, j in itertools.product(range(len(first)), range(len(second))):
        distance = lengths(first[i] - second[j])  # (P, T)
        of_objects = np.split(distance, ends[:-1])
        result["end"][i, j] = max(float(rows[:, -1].mean()) for rows in of_objects)
        result["path"][i, j] = max(float(rows.mean()) for rows in of_objects)
    return result
