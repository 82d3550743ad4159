"""Forecasts as LeRobot observations: the keys, arrays and feature descriptions that its data sets and policies use.

Reference: github.com/huggingface/lerobot at 7427f31, src/lerobot/datasets (Apache-2.0). Its rules kept here: every
feature has dtype, shape and names; images are height x width x channels; only `observation.environment_state` is a
policy's environment input, and it is one flat float32 vector; a frame of a data set also has the sentence, as `task`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import FloatArray
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion
from momap_ros.policies.sampling import fixed_tracks
from momap_ros.rgbd import RGBDFrame
from momap_ros.shapes import check_shapes

STATE, ENVIRONMENT_STATE, TASK = "observation.state", "observation.environment_state", "task"
POSITIONS, VALID = "observation.forecast.positions", "observation.forecast.valid"
# What is said of one object, in this order; metres, in the frame of the object motions.
OBJECT_FIELDS = (
    "present",
    "moving_probability",
    *(f"centroid_{axis}_m" for axis in "xyz"),
    *(f"size_{axis}_m" for axis in "xyz"),
    *(f"displacement_{axis}_m" for axis in "xyz"),
    *(f"flag_{axis}" for axis in "xyz"),
)
FORECAST_STEPS = 16
Features = dict[str, dict[str, Any]]
Observation = dict[str, Any]


def lerobot_features(
    *,
    camera_name: str,
    width: int,
    height: int,
    max_objects: int = 4,
    state_names: Sequence[str] = (),
    num_points: int = 0,
    video: bool = True,
) -> Features:
    """The `features` that a LeRobot data set is created with, for the observations of `lerobot_observation`.

    Args:
        camera_name: the image's key is observation.images.CAMERA_NAME.
        width: of the image, pixels.
        height: of the image, pixels.
        max_objects: object slots of the environment state.
        state_names: names of the robot's state, one per number; without them there is no observation.state.
        num_points: points of observation.forecast.positions; without them there are no trajectories, because older
            LeRobot policies take every further observation for the robot's state.
        video: the images are stored as video, else as pictures.
    """
    _check_key(camera_name)
    names = [f"object_{slot}.{field}" for slot in range(max_objects) for field in OBJECT_FIELDS]
    features: Features = {
        f"observation.images.{camera_name}": {
            "dtype": "video" if video else "image",
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        },
        ENVIRONMENT_STATE: {"dtype": "float32", "shape": (len(names),), "names": names},
    }
    if state_names:
        features[STATE] = {"dtype": "float32", "shape": (len(state_names),), "names": list(state_names)}
    if num_points:
        shape = (num_points, FORECAST_STEPS)
        features[POSITIONS] = {"dtype": "float32", "shape": (*shape, 3), "names": ["point", "step", "xyz"]}
        features[VALID] = {"dtype": "bool", "shape": shape, "names": ["point", "step"]}
    return features


def lerobot_observation(
    features: Features,
    frame: RGBDFrame,
    objects: Sequence[ObjectMotion],
    trajectories: PointTrajectories,
    *,
    prompt: str = "",
    state: FloatArray | None = None,
    seed: int = 0,
) -> Observation:
    """One frame with its forecast, as `LeRobotDataset.add_frame` takes it.

    The environment state is one slot per object, in falling order of the probability that it moves, so that slot 0 is
    what the sentence is about; slots without an object are zeros, their `present` too. Numbers of an object whose
    motion could not be fitted are zeros but for its place and size. The trajectories are those of the first hypothesis:
    points drawn at random from all objects (repeated where there are too few), 16 steps evenly over the forecast,
    positions linear in between, zeros where unknown.

    Args:
        features: what `lerobot_features` returned; says which keys there are.
        frame: the image, of the size the features say.
        objects: its object motions.
        trajectories: its point trajectories, for the features of trajectories.
        prompt: the sentence, becomes `task`.
        state: (S,) the robot's state, where the features have one.
        seed: of the draw of points.

    Returns:
        Key -> array (image uint8, the others float32 and bool), and `task`.

    Raises:
        ShapeError: image or state are not of the size that the features say.
        ValueError: the features have a state and none is given, or the other way round.
    """
    observation: Observation = {TASK: prompt}
    if (state is None) == (STATE in features):
        given, wanted = ("none", "one") if state is None else ("one", "none")
        raise ValueError(f"state: expected {wanted}, as the features say, got {given}; give lerobot_features the names")
    for key, feature in features.items():
        if key.startswith("observation.images."):
            height, width, _ = feature["shape"]
            check_shapes(rgb=(frame.rgb, f"{height} {width} 3"))
            observation[key] = frame.rgb
        elif key == ENVIRONMENT_STATE:
            observation[key] = _environment_state(objects, feature["shape"][0] // len(OBJECT_FIELDS))
        elif key == STATE and state is not None:
            check_shapes(state=(state, str(feature["shape"][0])))
            observation[key] = np.asarray(state, np.float32)
        elif key == POSITIONS:
            num_points, num_steps, _ = feature["shape"]
            tracks = fixed_tracks(trajectories, num_points, num_steps, seed)
            observation[POSITIONS], observation[VALID], _ = tracks
    return observation


def _environment_state(objects: Sequence[ObjectMotion], max_objects: int) -> npt.NDArray[np.float32]:
    values = np.zeros((max_objects, len(OBJECT_FIELDS)), np.float32)
    ranked = sorted(objects, key=lambda motion: (-motion.moving_probability, motion.instance_id))
    for slot, motion in enumerate(ranked[:max_objects]):
        values[slot] = [
            1.0,
            motion.moving_probability,
            *np.nan_to_num(motion.centroid_m),
            *motion.size_m,
            *(motion.direction * motion.displacement_m),
            *motion.direction_flags,
        ]
    return values.ravel()


def _check_key(name: str) -> None:
    if not name or "/" in name:
        raise ValueError(f"camera_name: expected a name without slashes, as LeRobot's keys are, got {name!r}")
