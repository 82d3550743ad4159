from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from known_outputs import BALL, BOX, every_pixel, output_of, scene, steady_motion

from momap_ros.geometry import Float64
from momap_ros.instances import InstanceMap
from momap_ros.model.groups import first_and_others, group_of_futures, grouped, mean_futures
from momap_ros.model.output import MoMapOutput, fit_instances


def shifts(*metres: float) -> list[dict[int, Float64]]:
    """Futures in which the box is carried so far to the right."""
    return [{BOX: steady_motion(np.zeros(3), (0.0, 0.0, 1.0), 0.0, np.array([x, 0.0, 0.0]))} for x in metres]


def forecast(*metres: float) -> MoMapOutput:
    return output_of(*scene(), shifts(*metres))


def end_m(output: MoMapOutput) -> list[float]:
    """How far to the right the box is in the end, per future."""
    positions = output.trajectories(every_pixel(output.instances, BOX)).positions
    return [float(x) for x in (positions[:, :, -1, 0] - positions[:, :, 0, 0]).mean(axis=1)]


def test_futures_that_are_alike_share_a_group_and_the_largest_comes_first() -> None:
    output = forecast(0.3, 0.0, 0.31, -0.2, 0.29, -0.21)
    assert group_of_futures(output, 3).tolist() == [0, 2, 0, 1, 0, 1]


def test_groups_of_one_size_keep_the_order_of_their_first_futures() -> None:
    assert group_of_futures(forecast(0.0, 0.3, 0.01, 0.31), 2).tolist() == [0, 1, 0, 1]


def test_a_group_is_its_mean_future_with_its_share_of_the_draws() -> None:
    output, share = grouped(forecast(0.3, 0.0, 0.33, -0.2, 0.27, 0.02), 3)
    np.testing.assert_allclose(share, [3 / 6, 2 / 6, 1 / 6])
    np.testing.assert_allclose(end_m(output), [0.3, 0.01, -0.2], atol=2e-3)


def test_the_mean_of_maps_is_the_map_of_means() -> None:
    """Both ways to the same motion: maps are least squares, and those are linear in what they explain."""
    drawn = forecast(0.3, 0.0, 0.31)
    noise = torch.randn(drawn.latents.shape, generator=torch.manual_seed(0))
    latents, grid = drawn.latents + 0.1 * noise, drawn.grid
    slots = torch.from_numpy(grid.slots).long().flatten()
    points = torch.from_numpy(grid.points_in_camera / grid.scale_m).reshape(-1, 3)
    maps, centres = fit_instances(latents, slots, points, ~torch.isnan(points[:, 2]))
    mean = mean_futures(replace(drawn, latents=latents, maps=maps, centres=centres), np.array([0, 1, 0]))
    again, _ = fit_instances(mean.latents, slots, points, ~torch.isnan(points[:, 2]))
    torch.testing.assert_close(mean.maps, again, atol=1e-4, rtol=1e-4)


def test_what_does_not_move_does_not_tell_futures_apart() -> None:
    """The ball's drawn ways differ, but it is not believed to move: the box decides."""
    ways = [x | {BALL: y[BOX]} for x, y in zip(shifts(0.3, 0.0, 0.31, 0.01), shifts(0.5, 0.5, -0.5, -0.5), strict=True)]
    output = output_of(*scene(), ways)
    slot = output.grid.slot_ids.index(BALL) + 1
    assert group_of_futures(output, 2).tolist() == [0, 0, 1, 1]
    rests = output.moving_probability.clone()
    rests[:, slot] = 0.0
    assert group_of_futures(replace(output, moving_probability=rests), 2).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("count", [4, 9])
def test_as_many_groups_as_futures_leave_them_as_they_were_drawn(count: int) -> None:
    output = forecast(0.3, 0.0, 0.31, 0.0)
    few, share = grouped(output, count)
    torch.testing.assert_close(few.latents, output.latents)
    np.testing.assert_allclose(share, 0.25)


def test_equal_futures_are_one_group() -> None:
    few, share = grouped(forecast(0.2, 0.2, 0.2), 2)
    assert few.num_hypotheses == len(share) == 1


def test_a_scene_without_instances_has_one_future() -> None:
    frame, instances = scene()
    few, _ = grouped(output_of(frame, InstanceMap(np.zeros_like(instances.ids)), [{}, {}, {}]), 2)
    assert few.num_hypotheses == 1


def test_the_first_future_stays_and_stands_for_those_like_it() -> None:
    output = first_and_others(forecast(0.02, 0.3, 0.32, 0.0, 0.31, -0.2), 3)
    np.testing.assert_allclose(end_m(output), [0.02, 0.31, -0.2], atol=2e-3)
    assert first_and_others(forecast(0.1, 0.2), 1).num_hypotheses == 1


def test_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a whole number from 1 on, got 0"):
        grouped(forecast(0.1), 0)
