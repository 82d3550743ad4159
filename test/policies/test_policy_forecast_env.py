"""The Gymnasium wrapper around an environment that plays an episode of the simulator, with a real (tiny) model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="needs the extra policy")
pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import gymnasium
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.forecaster import Forecaster
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.policies.forecast_env import ForecastObservation
from momap_ros.policies.tracks_2d import im2flow2act_flow
from momap_ros.rgbd import RGBDFrame
from momap_ros.simulation.video import Video, render_video

WIDTH, HEIGHT, NUM_POINTS, NUM_STEPS, EVERY = 96, 72, 40, 8, 3
EPISODE = 0  # of the validation split; its demonstration succeeds


class Playback(gymnasium.Env[dict[str, Any], Any]):
    """An episode of the simulator as an environment: actions change nothing, every step is the next image."""

    def __init__(self, video: Video) -> None:
        self.video, self.index = video, 0
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Dict(
            {
                "rgb": spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
                "depth": spaces.Box(0.0, np.inf, (HEIGHT, WIDTH, 1), np.float32),
            }
        )

    def _observation(self) -> dict[str, Any]:
        frame = self.video.frames[self.index]
        return {"rgb": frame.rgb.copy(), "depth": np.nan_to_num(frame.depth_m, nan=0.0)[..., None]}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.index = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        del action
        self.index += 1
        return self._observation(), 1.0, self.index == len(self.video.frames) - 1, False, {"at": self.index}

    def instances(self, frame: RGBDFrame) -> InstanceMap:
        del frame
        return self.video.instance_maps[self.index]


@pytest.fixture(scope="module")
def env() -> Playback:
    return Playback(render_video("val", EPISODE, width=WIDTH, height=HEIGHT, frame_rate_hz=2.0))


@pytest.fixture(scope="module")
def forecaster(tiny_checkpoint: Path) -> Forecaster:
    config = ForecastConfig(
        checkpoint=str(tiny_checkpoint), device="cpu", num_hypotheses=2, num_inference_steps=1, max_points=200
    )
    return Forecaster(config, ObjectMotionConfig())


@pytest.fixture
def wrapped(env: Playback, forecaster: Forecaster) -> ForecastObservation:
    return ForecastObservation(
        env, forecaster, env.video.frames[0].camera, env.instances, prompt="lift the red block",
        every=EVERY, num_points=NUM_POINTS, num_steps=NUM_STEPS,
    )  # fmt: skip


def test_observations_hold_the_forecast_of_the_newest_image(wrapped: ForecastObservation, env: Playback) -> None:
    observation, info = wrapped.reset(seed=0)
    assert wrapped.observation_space.contains(observation)
    assert info == {}
    np.testing.assert_array_equal(observation["rgb"], env.video.frames[0].rgb)
    forecast = wrapped.forecast
    assert forecast is not None
    tracks = forecast.trajectories
    known = observation["forecast.valid"].astype(bool)
    assert known.any()
    for point in np.flatnonzero(known.all(axis=1)).tolist():
        # The track of the same object that begins at the same place, by numpy's own interpolation.
        start, ids = observation["forecast.positions"][point, 0], tracks.object_ids
        (row,) = np.flatnonzero(
            (ids == observation["forecast.object_ids"][point]) & (tracks.positions[0, :, 0] == start).all(axis=1)
        )
        steps = np.linspace(0, tracks.num_steps - 1, NUM_STEPS)
        for axis in range(3):
            expected = np.interp(steps, np.arange(tracks.num_steps), tracks.positions[0, row, :, axis])
            np.testing.assert_allclose(observation["forecast.positions"][point, :, axis], expected, atol=1e-5)
    horizon_s = (tracks.num_steps - 1) * tracks.step_s
    assert observation["forecast.time_step_s"][0] * (NUM_STEPS - 1) == pytest.approx(horizon_s, rel=1e-5)
    assert im2flow2act_flow(tracks, env.video.frames[0].camera, [int(tracks.object_ids[0])]).uv.shape == (32, 128, 2)


def test_forecasts_are_kept_for_some_steps(wrapped: ForecastObservation) -> None:
    first, _ = wrapped.reset()
    ages, made = [], []
    for step in range(1, 8):
        observation, *rest = wrapped.step(0)
        assert rest == [1.0, False, False, {"at": step}]
        assert wrapped.observation_space.contains(observation)
        ages.append(int(observation["forecast.age_steps"][0]))
        made.append(wrapped.num_forecasts)
        if len(ages) < EVERY:
            np.testing.assert_array_equal(observation["forecast.positions"], first["forecast.positions"])
    assert ages == [1, 2, 0, 1, 2, 0, 1]
    assert made == [1, 1, 2, 2, 2, 3, 3]
    wrapped.prompt = "push the red block"
    observation, *_ = wrapped.step(0)
    assert (observation["forecast.age_steps"][0], wrapped.num_forecasts) == (0, 4)
    wrapped.reset()
    assert wrapped.num_forecasts == 5


@pytest.mark.filterwarnings("ignore:.*(different from the unwrapped|Box observation space m)")
def test_gymnasium_finds_nothing_wrong(wrapped: ForecastObservation) -> None:
    check_env(wrapped, skip_render_check=True)
    assert wrapped.num_forecasts > 0


def test_a_scene_without_objects_has_an_empty_forecast(env: Playback, forecaster: Forecaster) -> None:
    nothing = ForecastObservation(
        env,
        forecaster,
        env.video.frames[0].camera,
        lambda frame: InstanceMap(np.zeros(frame.depth_m.shape, np.int32)),
        num_points=NUM_POINTS,
    )
    observation, _ = nothing.reset()
    assert nothing.observation_space.contains(observation)
    for key in ("valid", "positions", "object_ids"):
        assert not observation[f"forecast.{key}"].any()


def test_environments_without_depth_are_refused(env: Playback, forecaster: Forecaster) -> None:
    camera = env.video.frames[0].camera
    with pytest.raises(ValueError, match=r"Dict with 'range' of shape \(72, 96\) or \(72, 96, 1\)"):
        ForecastObservation(env, forecaster, camera, env.instances, depth_key="range")
    with pytest.raises(ValueError, match=r"Dict with 'rgb' of shape \(24, 32, 3\)"):
        ForecastObservation(env, forecaster, PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5), env.instances)
    with pytest.raises(ValueError, match="got 0, 128, 16"):
        ForecastObservation(env, forecaster, camera, env.instances, every=0)


def test_without_gymnasium_the_way_out_is_named() -> None:
    program = "import sys; sys.modules['gymnasium'] = None; import momap_ros.policies.forecast_env"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "pip install 'momap_ros[policy]'" in done.stderr
