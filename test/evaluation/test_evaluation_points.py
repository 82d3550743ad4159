from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from evaluation_scenes import BOWL, BOX, CUP, FINGER, HAND, STEPS, made_sample, moved, pushed

from momap_ros.data.sample import Role
from momap_ros.evaluation.points import (
    POINTS_PER_INSTANCE,
    POINTS_PER_ROLE,
    choose_points,
    moving_image,
    objects_by_role,
    role_image,
    sampled_pixels,
    true_trajectories,
)
from momap_ros.instances import InstanceMap

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


def test_true_trajectories_are_those_of_the_momap(simulated: list[Sample]) -> None:
    for sample in simulated[:3]:
        pixels = sampled_pixels(np.isfinite(sample.depth_m), np.random.default_rng(0), 500)
        xyz = sample.momap().xyz[:, pixels[:, 1], pixels[:, 0]].transpose(1, 0, 2)
        np.testing.assert_allclose(true_trajectories(sample, pixels), xyz, atol=1e-6)
        np.testing.assert_array_equal(moving_image(sample, 0.02), sample.momap().moving_mask(0.02))


def test_pixels_are_drawn_from_the_mask() -> None:
    mask = np.zeros((40, 50), np.bool_)
    mask[5:35, 10:30] = True
    pixels = sampled_pixels(mask, np.random.default_rng(0))
    assert pixels.shape == (POINTS_PER_ROLE, 2)
    assert mask[pixels[:, 1], pixels[:, 0]].all()
    assert len(np.unique(pixels, axis=0)) == POINTS_PER_ROLE
    few = sampled_pixels(mask & (np.arange(50) < 12), np.random.default_rng(0))
    assert len(few) == 60


def test_every_set_holds_its_own_pixels() -> None:
    sample = pushed()
    points = choose_points(sample, sample.instance_map(merge_robot=True), seed=0, moving_threshold_m=0.02)
    assert len(np.unique(points.pixels, axis=0)) == len(points.pixels)
    u, v = points.pixels.T
    bodies, roles = sample.body_ids[v, u], role_image(sample)[v, u]
    assert (roles[points.of_role["acted"]] == Role.ACTED).all()
    assert (roles[points.of_role["robot"]] == Role.ROBOT).all()
    assert set(bodies[points.of_role["all"]]) == {HAND, FINGER, CUP}
    assert {i: set(bodies[index]) for i, index in points.of_patch.items()} == {
        HAND: {HAND, FINGER},
        CUP: {CUP},
        BOWL: {BOWL},
        BOX: {BOX},
    }
    assert all(len(index) == POINTS_PER_INSTANCE for index in points.of_instance.values())
    # A 64 x 64 image is its own grid.
    assert len(points.grid) == 64 * 64
    assert points.true.shape == (64 * 64, STEPS, 3)
    assert points.visible is None


def test_pixels_of_a_role_depend_on_the_seed_alone() -> None:
    """Not on what the segmenter found, nor on the other roles: conditions are compared on the same pixels."""
    sample = pushed()
    chosen = []
    for instances, seed in itertools.product(
        (sample.instance_map(merge_robot=True), InstanceMap(np.zeros_like(sample.body_ids, np.int32))), (3, 3, 4)
    ):
        points = choose_points(sample, instances, seed=seed, moving_threshold_m=0.02)
        chosen.append({role: points.pixels[index].tolist() for role, index in points.of_role.items()})
    assert chosen[0] == chosen[1] == chosen[3] == chosen[4]
    assert chosen[0] != chosen[2] == chosen[5]


def test_where_nothing_moves_there_is_no_foreground() -> None:
    sample = made_sample({})
    points = choose_points(sample, sample.instance_map(merge_robot=True), seed=0, moving_threshold_m=0.02)
    assert set(points.of_role) == {"acted", "robot"}


def test_visibility_is_that_of_the_pixels() -> None:
    sample = pushed()
    visible = np.random.default_rng(0).random((STEPS, 64, 64)) < 0.5
    sample = replace(sample, visible=visible)
    points = choose_points(sample, sample.instance_map(merge_robot=True), seed=0, moving_threshold_m=0.02)
    assert points.visible is not None
    for (u, v), seen in zip(points.pixels[::97], points.visible[::97], strict=True):
        np.testing.assert_array_equal(seen, visible[:, v, u])


def test_objects_are_what_one_could_choose_among() -> None:
    sample = made_sample({CUP: moved((0.1, 0, 0))})
    objects = objects_by_role(sample.instance_map(merge_robot=True), role_image(sample))
    assert objects == {CUP: Role.ACTED, BOWL: Role.OBJECT, BOX: Role.OBJECT}
