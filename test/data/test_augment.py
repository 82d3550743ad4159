from __future__ import annotations

import numpy as np
import pytest

from momap_ros.conditioning import GRID, MAX_INSTANCES
from momap_ros.data.augment import (
    Cells,
    faulty_colors,
    faulty_labels,
    faulty_points,
    slots_from_labels,
)
from momap_ros.data.prepared import CELL_ROLES, ROBOT_LABEL, true_labels

DRAWS = 600
ACTED, OTHER = 12, 13


def table() -> tuple[Cells, Cells]:
    """(body, role): an arm of five links, an acted object touching another one, and a table with an id of its own."""
    body = np.zeros((GRID, GRID), np.uint8)
    role = np.full((GRID, GRID), CELL_ROLES["world"], np.uint8)
    for link in range(5):
        body[2 + 3 * link : 5 + 3 * link, 2:6] = 1 + link
    role[2:17, 2:6] = CELL_ROLES["robot"]
    body[20:25, 10:16], role[20:25, 10:16] = ACTED, CELL_ROLES["acted"]
    body[20:25, 16:22], role[20:25, 16:22] = OTHER, CELL_ROLES["other"]
    body[28:] = 40  # still world
    return body, role


def draws(seed: int = 0) -> list[Cells]:
    body, role = table()
    rng = np.random.default_rng(seed)
    return [faulty_labels(body, role, rng) for _ in range(DRAWS)]


def plane() -> np.ndarray:
    v, u = np.mgrid[:GRID, :GRID]
    points = np.stack([(u - 15.5) / 30, (v - 15.5) / 30, np.ones_like(u)], axis=-1)
    return np.asarray(points * (0.5 + 0.01 * v[..., None]), np.float32)


def test_true_labels_merge_the_robot_and_forget_the_world() -> None:
    body, role = table()
    labels = true_labels(body, role)
    assert set(np.unique(labels)) == {0, ACTED, OTHER, ROBOT_LABEL}
    np.testing.assert_array_equal(labels == ROBOT_LABEL, role == CELL_ROLES["robot"])
    np.testing.assert_array_equal(labels == 0, role == CELL_ROLES["world"])


def test_equal_seeds_give_equal_faults() -> None:
    for first, second in zip(draws(3), draws(3), strict=True):
        np.testing.assert_array_equal(first, second)
    assert any((first != second).any() for first, second in zip(draws(3), draws(4), strict=True))


def test_every_fault_occurs_about_as_often_as_it_should() -> None:
    body, role = table()
    truth = true_labels(body, role)
    robot, acted, other, world = (role == CELL_ROLES[name] for name in ("robot", "acted", "other", "world"))
    counts = dict.fromkeys(("same", "split", "merged", "cut", "lost", "invented"), 0)
    for labels in draws():
        counts["same"] += (labels == truth).all()
        counts["split"] += len(np.unique(labels[robot])) > 1
        counts["merged"] += bool(set(labels[acted]) & set(labels[other]) - {0})
        counts["cut"] += len(np.unique(labels[acted])) > 1 or len(np.unique(labels[other])) > 1
        counts["lost"] += (labels[other] == 0).all() or (labels[robot] == 0).all()
        counts["invented"] += bool(labels[world].any())
    share = {name: count / DRAWS for name, count in counts.items()}
    # Faults are drawn with .4, .15, .15, .1 and .15; a split of the robot can come out whole, a cut can hit the robot,
    # an invention can lie on objects alone, and links of a split robot are neighbours too.
    assert 0.2 < share["same"] < 0.5
    assert 0.25 < share["split"] < 0.55
    assert 0.03 < share["merged"] < 0.15
    assert 0.05 < share["cut"] < 0.16
    assert 0.03 < share["lost"] < 0.1
    assert 0.1 < share["invented"] < 0.17


def test_faults_change_labels_only_as_a_segmenter_would() -> None:
    role = table()[1]
    world = role == CELL_ROLES["world"]
    acted = role == CELL_ROLES["acted"]
    for labels in draws(1):
        assert labels.dtype == np.int32
        assert labels.shape == (GRID, GRID)
        assert labels.min() >= 0
        assert len(np.unique(labels[world])) <= 2  # background and one invention
        assert len(np.unique(labels[acted])) <= 2  # whole, or cut once


def test_slots_keep_the_partition() -> None:
    rng = np.random.default_rng(0)
    for labels in draws(2)[:100]:
        slots = slots_from_labels(labels, rng)
        np.testing.assert_array_equal(slots == 0, labels == 0)
        pairs = np.unique(np.stack([labels.ravel(), slots.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(labels)) == len(np.unique(slots))
        assert slots.max() == len(np.unique(labels[labels > 0]))


def test_the_number_of_a_slot_is_random() -> None:
    body, role = table()
    labels, rng = true_labels(body, role), np.random.default_rng(0)
    drawn = [int(slots_from_labels(labels, rng)[22, 12]) for _ in range(300)]
    counts = np.bincount(drawn, minlength=4)[1:]
    assert len(counts) == 3
    assert counts.min() > 60  # 100 expected, standard deviation 8


def test_beyond_the_last_slot_the_smallest_are_lost() -> None:
    labels = np.zeros((GRID, GRID), np.int32)
    for label in range(1, GRID):
        labels[label, : 1 + label] = label
    slots = slots_from_labels(labels, np.random.default_rng(0))
    kept = np.unique(labels[slots > 0])
    np.testing.assert_array_equal(kept, np.arange(GRID - MAX_INSTANCES + 1, GRID))
    assert slots.max() == MAX_INSTANCES - 1


def test_an_empty_scene_has_no_slots() -> None:
    empty = np.zeros((GRID, GRID), np.int32)
    assert not slots_from_labels(empty, np.random.default_rng(0)).any()
    rng = np.random.default_rng(0)
    for _ in range(50):  # every fault meets a scene without anything
        labels = faulty_labels(np.zeros_like(empty), np.zeros_like(empty), rng)
        assert len(np.unique(labels)) <= 2


def test_depth_noise_moves_points_along_their_ray() -> None:
    points, labels = plane(), true_labels(*table())
    for seed in range(40):
        faulty = faulty_points(points, labels, np.random.default_rng(seed))
        known = ~np.isnan(faulty[..., 2])
        np.testing.assert_array_equal(np.isnan(faulty).any(axis=-1), ~known)
        assert 1 - known.mean() < 0.9
        np.testing.assert_allclose(
            faulty[known] / faulty[known][:, 2:], points[known] / points[known][:, 2:], rtol=1e-5, atol=1e-6
        )
        ratio = faulty[known][:, 2] / points[known][:, 2]
        assert abs(ratio.mean() - 1) < 0.05  # a common error of 1 %
        assert ratio.std() < 0.004  # depth times at most 0.4 %


def test_holes_occur_and_differ_in_size() -> None:
    points, labels, rng = plane(), true_labels(*table()), np.random.default_rng(0)
    missing = np.array([np.isnan(faulty_points(points, labels, rng)[..., 2]).mean() for _ in range(200)])
    assert (missing == 0).mean() > 0.15
    assert (missing > 0.15).mean() > 0.03
    assert missing.max() < 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_seeds_give_equal_points_and_colours(seed: int) -> None:
    rgb = np.random.default_rng(9).uniform(-1, 1, (64, 64, 3)).astype(np.float32)
    first, second = (np.random.default_rng(seed) for _ in range(2))
    labels = true_labels(*table())
    np.testing.assert_array_equal(faulty_points(plane(), labels, first), faulty_points(plane(), labels, second))
    np.testing.assert_array_equal(faulty_colors(rgb, first), faulty_colors(rgb, second))


def test_another_exposure_is_close_to_a_linear_map_per_channel() -> None:
    rgb = np.random.default_rng(9).uniform(-1, 1, (64, 64, 3)).astype(np.float32)
    for seed in range(20):
        faulty = faulty_colors(rgb, np.random.default_rng(seed))
        assert faulty.dtype == np.float32
        gains, residuals = [], []
        for channel in range(3):
            gain, offset = np.polyfit(rgb[..., channel].ravel(), faulty[..., channel].ravel(), 1)
            gains.append(gain)
            residuals.append((faulty[..., channel] - gain * rgb[..., channel] - offset).std())
            assert abs(offset) < 0.24
        assert 0.69 < min(gains) <= max(gains) < 1.26
        assert np.ptp(gains) < 0.02  # one gain for all channels
        assert max(residuals) < 0.065
