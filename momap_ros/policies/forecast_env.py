"""A Gymnasium environment whose observations hold a forecast: for any policy of any RGB-D environment.

Needs gymnasium, which the extra `policy` installs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, SupportsFloat

import numpy as np

try:
    import gymnasium
    from gymnasium import spaces
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}; momap_ros.policies.forecast_env wraps Gymnasium environments: pip install 'momap_ros[policy]'"
    ) from error

from momap_ros.forecaster import Forecast
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.policies.sampling import fixed_tracks
from momap_ros.rgbd import RGBDFrame

PREFIX = "forecast."
Observation = dict[str, Any]


class MakesForecasts(Protocol):
    """What is needed of momap_ros.forecaster.Forecaster."""

    def __call__(self, frame: RGBDFrame, instances: InstanceMap, prompt: str | None = None) -> Forecast:
        """Forecast one frame."""
        ...


class ForecastObservation(gymnasium.Wrapper[Observation, Any, Observation, Any]):
    """Adds the forecast of the newest image to the observation of an RGB-D environment.

    Observations of the environment are dictionaries with a colour image, (H, W, 3) uint8, and the depth image
    registered to it, (H, W) or (H, W, 1) float32 metres; depth that is 0, negative, NaN or infinite is no reading.
    What is added (P points, T steps, the first hypothesis; all in the camera's frame at the time of the forecast):

    - `forecast.positions`: (P, T, 3) float32, metres; zeros where not valid.
    - `forecast.valid`: (P, T) int8, 1 where the position is known; all 0 where there is no object.
    - `forecast.object_ids`: (P,) int32, the instance of each point; 0 where there is no object.
    - `forecast.time_step_s`: (1,) float32, seconds between two steps.
    - `forecast.age_steps`: (1,) int32, steps of the environment since the forecasted image.

    Steps are evenly spread over the forecast, positions linear in between. Points are drawn from all objects, repeated
    where there are too few. The forecast itself stays in `forecast`, for the adapters of this package.

    Attributes:
        prompt: sentence that says what will happen; may be set between steps, then the next step forecasts anew.
        forecast: the present forecast, None before the first reset.
        num_forecasts: how many were made.
    """

    def __init__(
        self,
        env: gymnasium.Env[Observation, Any],
        forecaster: MakesForecasts,
        camera: PinholeCamera,
        segment: Callable[[RGBDFrame], InstanceMap],
        *,
        prompt: str = "",
        every: int = 10,
        num_points: int = 128,
        num_steps: int = 16,
        color_key: str = "rgb",
        depth_key: str = "depth",
        seed: int = 0,
    ) -> None:
        """Wrap an environment.

        Args:
            env: with a Dict observation space that has the two images.
            forecaster: makes the forecasts.
            camera: intrinsics of the images.
            segment: finds the instances of a frame; for instance `momap_ros.segmentation.tabletop.TabletopSegmenter`.
            prompt: sentence that says what will happen.
            every: forecast at each reset and then after so many steps; in between the last forecast is kept.
            num_points: P.
            num_steps: T.
            color_key: key of the colour image.
            depth_key: key of the depth image.
            seed: of the draw of points.

        Raises:
            ValueError: the observation space has no such images, or a count is not positive.
        """
        super().__init__(env)
        if every < 1 or num_points < 1 or num_steps < 2:
            raise ValueError(
                f"expected every and num_points from 1 and num_steps from 2 on, got {every}, {num_points}, {num_steps}"
            )
        self._check_space(env.observation_space, camera, color_key, depth_key)
        self.prompt, self.num_forecasts = prompt, 0
        self.forecast: Forecast | None = None
        self._forecaster, self._segment, self._camera = forecaster, segment, camera
        self._every, self._shape, self._seed = every, (num_points, num_steps), seed
        self._keys = (color_key, depth_key)
        self._age, self._prompt_of_forecast = 0, prompt
        self._added: Observation = {}
        inner = dict(env.observation_space.spaces) if isinstance(env.observation_space, spaces.Dict) else {}
        self.observation_space = spaces.Dict(inner | self._added_spaces())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset the environment and forecast its first image."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._renew(observation)
        return self._with_forecast(observation), info

    def step(self, action: Any) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Step the environment; forecast where the last one is old or about another sentence."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._age += 1
        if self._age >= self._every or self.prompt != self._prompt_of_forecast:
            self._renew(observation)
        return self._with_forecast(observation), reward, terminated, truncated, info

    def _renew(self, observation: Observation) -> None:
        color, depth = (np.asarray(observation[key]) for key in self._keys)
        depth_m = np.array(depth.reshape(depth.shape[:2]), np.float32)
        depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
        frame = RGBDFrame(np.ascontiguousarray(color), depth_m, self._camera)
        self.forecast = self._forecaster(frame, self._segment(frame), self.prompt)
        self.num_forecasts += 1
        self._age, self._prompt_of_forecast = 0, self.prompt
        self._added = self._arrays(self.forecast)

    def _arrays(self, forecast: Forecast) -> Observation:
        """What is added to observations until the next forecast."""
        trajectories = forecast.trajectories
        num_points, num_steps = self._shape
        positions, valid, object_ids = fixed_tracks(trajectories, num_points, num_steps, self._seed)
        last_s = (trajectories.num_steps - 1) * trajectories.step_s
        return {
            "positions": positions,
            "valid": valid.astype(np.int8),
            "object_ids": object_ids,
            "time_step_s": np.array([last_s / (num_steps - 1)], np.float32),
        }

    def _with_forecast(self, observation: Observation) -> Observation:
        # Copies: whoever keeps or changes an observation must not reach those that come after it.
        added = {f"{PREFIX}{key}": value.copy() for key, value in self._added.items()}
        return {**observation, **added, f"{PREFIX}age_steps": np.array([self._age], np.int32)}

    def _added_spaces(self) -> dict[str, spaces.Space[Any]]:
        num_points, num_steps = self._shape
        largest_id = np.iinfo(np.int32).max
        return {
            f"{PREFIX}positions": spaces.Box(-np.inf, np.inf, (num_points, num_steps, 3), np.float32),
            f"{PREFIX}valid": spaces.MultiBinary((num_points, num_steps)),
            f"{PREFIX}object_ids": spaces.Box(0, largest_id, (num_points,), np.int32),
            f"{PREFIX}time_step_s": spaces.Box(0.0, np.inf, (1,), np.float32),
            f"{PREFIX}age_steps": spaces.Box(0, largest_id, (1,), np.int32),
        }

    @staticmethod
    def _check_space(space: spaces.Space[Any], camera: PinholeCamera, color_key: str, depth_key: str) -> None:
        size = (camera.height, camera.width)
        found: dict[str, tuple[int, ...] | None] = (
            {key: inner.shape for key, inner in space.spaces.items()} if isinstance(space, spaces.Dict) else {}
        )
        wanted: dict[str, list[tuple[int, ...]]] = {color_key: [(*size, 3)], depth_key: [size, (*size, 1)]}
        for key, shapes in wanted.items():
            if found.get(key) not in shapes:
                raise ValueError(
                    f"observation_space: expected a Dict with {key!r} of shape {' or '.join(map(str, shapes))}, as the "
                    f"camera says, got {found or space}; name the images with color_key and depth_key"
                )
