from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_outputs import BALL, BOX, output_of, scene, steady_motion

from momap_ros.geometry import Float64
from momap_ros.instances import InstanceMap
from momap_ros.model.groups import first_and_others, group_futures
from momap_ros.model.output import MoMapOutput


def shifts(*metres: float) -> list[dict[int, Float64]]:
    """Futures in which the box is carried so far to the right."""
    return [{BOX: steady_motion(np.zeros(3), (0.0, 0.0, 1.0), 0.0, np.array([x, 0.0, 0.0]))} for x in metres]


def forecast(*metres: float) -> MoMapOutput:
    return output_of(*scene(), shifts(*metres))


def test_futures_that_are_alike_share_a_group_and_the_largest_comes_first() -> None:
    groups = group_futures(forecast(0.3, 0.0, 0.31, -0.2, 0.29, -0.21), 3)
    assert groups.of_future.tolist() == [0, 2, 0, 1, 0, 1]


def test_groups_of_one_size_keep_the_order_of_their_first_futures() -> None:
    assert group_futures(forecast(0.0, 0.3, 0.01, 0.31), 2).of_future.tolist() == [0, 1, 0, 1]


def test_the_member_nearest_to_the_mean_speaks_for_its_group() -> None:
    """Means of 0.3 and -0.19."""
    assert group_futures(forecast(0.27, -0.15, 0.31, -0.2, 0.32, -0.22), 2).speakers.tolist() == [2, 3]


def test_what_does_not_move_does_not_tell_futures_apart() -> None:
    """The ball's drawn ways differ, but it is not believed to move: the box decides."""
    ways = [x | {BALL: y[BOX]} for x, y in zip(shifts(0.3, 0.0, 0.31, 0.01), shifts(0.5, 0.5, -0.5, -0.5), strict=True)]
    output = output_of(*scene(), ways)
    slot = output.grid.slot_ids.index(BALL) + 1
    assert group_futures(output, 2).of_future.tolist() == [0, 0, 1, 1]
    rests = output.moving_probability.clone()
    rests[:, slot] = 0.0
    assert group_futures(replace(output, moving_probability=rests), 2).of_future.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("count", [4, 9])
def test_as_many_groups_as_futures_keep_the_order_of_the_draws(count: int) -> None:
    groups = group_futures(forecast(0.3, 0.0, 0.31, 0.0), count)
    assert groups.speakers.tolist() == groups.of_future.tolist() == [0, 1, 2, 3]


def test_equal_futures_are_one_group() -> None:
    assert group_futures(forecast(0.2, 0.2, 0.2), 2).speakers.tolist() == [0]


def test_a_scene_without_instances_has_one_future() -> None:
    frame, instances = scene()
    output = output_of(frame, InstanceMap(np.zeros_like(instances.ids)), [{}, {}, {}])
    assert group_futures(output, 2).speakers.tolist() == [0]


def test_the_first_future_speaks_for_those_like_it() -> None:
    assert first_and_others(forecast(0.02, 0.3, 0.32, 0.0, 0.31, -0.2), 3).tolist() == [0, 4, 5]
    assert first_and_others(forecast(-0.2, 0.3, 0.32, 0.0, 0.31, 0.01), 3).tolist() == [0, 4, 3]
    assert first_and_others(forecast(0.1, 0.2), 1).tolist() == [0]


def test_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a whole number from 1 on, got 0"):
        group_futures(forecast(0.1), 0)
