from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import MIN_POINTS_PER_OBJECT, Forecaster, all_pixels, foreground_pixels
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import FrameError, RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path) -> ForecastConfig:
    return ForecastConfig(
        checkpoint=str(tiny_checkpoint), device="cpu", num_hypotheses=2, num_inference_steps=1, max_points=300
    )


@pytest.fixture(scope="module")
def forecaster(config: ForecastConfig) -> Forecaster:
    return Forecaster(config, ObjectMotionConfig())


@pytest.fixture(scope="module")
def scene(simulated: list[Sample]) -> tuple[RGBDFrame, InstanceMap]:
    sample = max(simulated, key=lambda sample: len(sample.instance_map(merge_robot=True).areas_px))
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera, stamp_ns=42, frame_id="wrist")
    return frame, sample.instance_map(merge_robot=True)


# --- the pixels that are followed


def striped(areas: dict[int, int], holes: float = 0.0) -> tuple[RGBDFrame, InstanceMap, npt.NDArray[np.int32]]:
    """Instances with the given areas in reading order, and where they have depth."""
    ids = np.zeros((120, 160), np.int32)
    ids.flat[: sum(areas.values())] = np.repeat(list(areas), list(areas.values()))
    depth = np.ones((120, 160), np.float32)
    depth[np.random.default_rng(0).random(depth.shape) < holes] = np.nan
    frame = RGBDFrame(np.zeros((120, 160, 3), np.uint8), depth, PinholeCamera(160, 120, 100.0, 100.0, 80.0, 60.0))
    return frame, InstanceMap(ids), np.where(np.isnan(depth), 0, ids)


@pytest.mark.parametrize("max_points", [1, 3, 100, 500, 10_000])
def test_followed_pixels_lie_on_instances_with_depth(max_points: int) -> None:
    frame, instances, usable = striped({5: 9000, 7: 40, 9: 2000}, holes=0.3)
    pixels = foreground_pixels(frame, instances, max_points)
    assert len(pixels) <= max_points
    assert (usable[pixels[:, 1], pixels[:, 0]] > 0).all()
    assert len(np.unique(pixels, axis=0)) == len(pixels)


def test_a_small_object_gets_all_its_pixels_and_the_others_share_the_rest_by_area() -> None:
    frame, instances, _ = striped({5: 9000, 7: 40, 9: 3000})
    pixels = foreground_pixels(frame, instances, 1000)
    counts = np.bincount(instances.ids[pixels[:, 1], pixels[:, 0]], minlength=10)
    assert counts[7] == 40
    # 48 for each of the three; the other 856 by area: 9000, 40 and 3000 of 12040.
    assert counts[5] == MIN_POINTS_PER_OBJECT + int(856 * 9000 / 12040)
    assert counts[9] == MIN_POINTS_PER_OBJECT + int(856 * 3000 / 12040)


def test_no_object_is_forgotten_where_points_are_few() -> None:
    frame, instances, _ = striped({5: 9000, 7: 40, 9: 3000})
    pixels = foreground_pixels(frame, instances, 30)
    counts = np.bincount(instances.ids[pixels[:, 1], pixels[:, 0]], minlength=10)
    assert (counts[[5, 7, 9]] >= 10).all()


def test_all_pixels_are_followed_where_they_fit() -> None:
    frame, instances, usable = striped({5: 900, 7: 40}, holes=0.2)
    pixels = foreground_pixels(frame, instances, 10_000)
    assert len(pixels) == (usable > 0).sum()


def test_followed_pixels_are_spread_over_the_object() -> None:
    frame, instances, _ = striped({5: 9600})  # the upper half, row by row
    pixels = foreground_pixels(frame, instances, 240)
    rows = np.bincount(pixels[:, 1], minlength=60)
    assert rows.min() >= 3  # 4 per row on average
    assert rows.max() <= 5


def test_without_instances_no_pixel_is_followed() -> None:
    frame, instances, _ = striped({})
    assert foreground_pixels(frame, instances, 100).shape == (0, 2)


def test_all_pixels_have_depth() -> None:
    frame, _, _ = striped({}, holes=0.4)
    pixels = all_pixels(frame)
    assert len(pixels) == frame.valid.sum()
    assert frame.valid[pixels[:, 1], pixels[:, 0]].all()


# --- forecasts


def test_a_forecast_holds_everything_about_the_objects(
    forecaster: Forecaster, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    frame, instances = scene
    forecast = forecaster(frame, instances, "lift the zygote")
    tracks = forecast.trajectories
    assert tracks.positions.shape == (2, tracks.num_points, 50, 3)
    assert tracks.num_points <= 300
    assert (tracks.frame_id, tracks.stamp_ns) == ("wrist", 42)
    np.testing.assert_array_equal(
        tracks.positions[:, :, 0], [frame.points_in_camera[tracks.pixels[:, 1], tracks.pixels[:, 0]]] * 2
    )
    assert [motion.instance_id for motion in forecast.objects] == sorted(set(tracks.object_ids.tolist()))
    for motion in forecast.objects:
        assert motion.label == instances.labels[motion.instance_id]
    assert forecast.ignored_words == ("zygote",)
    assert forecast.dropped_ids == forecast.output.grid.dropped_ids
    assert set(forecast.timings_s) == {"network", "model", "decode", "objects"}
    assert all(seconds > 0 for seconds in forecast.timings_s.values())
    assert forecast.timings_s["network"] == forecast.output.network_s < forecast.timings_s["model"]
    assert forecast.seconds == pytest.approx(sum(forecast.timings_s.values()) - forecast.output.network_s)


def test_the_dense_map_agrees_with_the_trajectories(
    forecaster: Forecaster, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    forecast = forecaster(*scene)
    width, height = scene[0].camera.width, scene[0].camera.height
    u, v = forecast.trajectories.pixels.T
    dense = forecast.momap(1, width, height).xyz[:, v, u].transpose(1, 0, 2)
    np.testing.assert_allclose(dense, forecast.trajectories.positions[1], atol=1e-5)


def test_equal_settings_give_equal_forecasts(
    forecaster: Forecaster, config: ForecastConfig, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    first, second = forecaster(*scene).trajectories, forecaster(*scene).trajectories
    np.testing.assert_array_equal(first.positions, second.positions)
    loaded_again = Forecaster(config, ObjectMotionConfig())
    np.testing.assert_array_equal(loaded_again(*scene).trajectories.positions, first.positions)
    other_seed = Forecaster(replace(config, seed=1), ObjectMotionConfig())
    assert np.abs(other_seed(*scene).trajectories.positions - first.positions).max() > 1e-3
    other_seed.config = config  # as a node does when a parameter changes
    np.testing.assert_array_equal(other_seed(*scene).trajectories.positions, first.positions)


def test_the_configured_prompt_is_used_where_none_is_given(
    config: ForecastConfig, forecaster: Forecaster, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    configured = Forecaster(replace(config, prompt="lift the red block"), ObjectMotionConfig())
    lifted = configured(*scene).trajectories.positions
    np.testing.assert_array_equal(lifted, forecaster(*scene, prompt="lift the red block").trajectories.positions)
    silent = configured(*scene, prompt="").trajectories.positions
    np.testing.assert_array_equal(silent, forecaster(*scene).trajectories.positions)
    assert np.abs(lifted - silent).max() > 1e-4


def test_hints_reach_the_model(forecaster: Forecaster, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    hinted = forecaster(*scene, hints={max(scene[1].areas_px): (1, 1, 1)}).trajectories.positions
    assert np.abs(hinted - forecaster(*scene).trajectories.positions).max() > 1e-4
    with pytest.raises(ValueError, match="got 4321"):
        forecaster(*scene, hints={4321: (1, 1, 1)})


def test_a_scene_without_instances_gives_an_empty_forecast(
    forecaster: Forecaster, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    frame, instances = scene
    forecast = forecaster(frame, InstanceMap(np.zeros_like(instances.ids)))
    assert forecast.trajectories.positions.shape == (2, 0, 50, 3)
    assert forecast.objects == []
    assert not forecast.momap(0).moving_mask(0.0).any()


def test_a_frame_without_depth_is_refused(forecaster: Forecaster, scene: tuple[RGBDFrame, InstanceMap]) -> None:
    frame, instances = scene
    with pytest.raises(FrameError, match="none in the whole image"):
        forecaster(replace(frame, depth_m=np.full_like(frame.depth_m, np.nan)), instances)


def test_warming_up_takes_the_time_it_says(forecaster: Forecaster) -> None:
    assert 0 < forecaster.warm_up(640, 480) < 60


@pytest.mark.slow
def test_waiting_threads_give_their_core_away(tiny_checkpoint: Path) -> None:
    """What torch's thread pool reports of its settings when it is loaded; without ours it would spin 300000 times."""
    program = (
        "from momap_ros.config import ForecastConfig, ObjectMotionConfig\n"
        "from momap_ros.forecaster import Forecaster\n"
        f"Forecaster(ForecastConfig(checkpoint={str(tiny_checkpoint)!r}), ObjectMotionConfig())\n"
    )
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    environment = unset | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this build of torch has another thread pool than libgomp")
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


# --- going on, and deadlines


def test_a_warm_start_goes_on_from_the_frame_before(
    config: ForecastConfig, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    frame, instances = scene
    warm = Forecaster(replace(config, warm_start=True, num_inference_steps=4), ObjectMotionConfig())
    first = warm(frame, instances, "lift the red block")
    later = replace(frame, stamp_ns=frame.stamp_ns + 100_000_000)
    second = warm(later, instances, "lift the red block")
    assert (first.continued, second.continued) == (False, True)
    assert (first.num_inference_steps, second.num_inference_steps) == (4, 2)
    assert not warm(later, instances, "lift the red block").continued  # the same frame again
    assert not warm(replace(later, stamp_ns=later.stamp_ns + 1), instances, "push it").continued  # another question
    hour = 3_600_000_000_000
    assert not warm(replace(frame, stamp_ns=later.stamp_ns + hour), instances, "push it").continued  # long over
    assert not warm(frame, instances, "push it").continued  # time went back


def test_a_deadline_costs_steps_and_the_forecast_says_so(
    config: ForecastConfig, scene: tuple[RGBDFrame, InstanceMap]
) -> None:
    hurried = Forecaster(replace(config, num_inference_steps=50, deadline_s=1e-3), ObjectMotionConfig())
    assert hurried(*scene).num_inference_steps == 50  # nothing is known yet
    assert hurried(*scene).num_inference_steps == 1
    hurried.config = replace(hurried.config, deadline_s=0.0)
    assert hurried(*scene).num_inference_steps == 50
