"""The stages that need no ROS, each timed alone on the same frame."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from momap_ros.bag_messages import camera_info_message, color_message, depth_message
from momap_ros.benchmark.scene import Scene, twenty_objects
from momap_ros.benchmark.timing import Effort, Timing, measure
from momap_ros.conditioning import GRID, MAX_INSTANCES, scene_grid
from momap_ros.config import ForecastConfig, ObjectMotionConfig, SegmentationConfig
from momap_ros.images import frame_from_messages
from momap_ros.instances import InstanceMap
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, estimate_object_motions
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.tabletop import TabletopSegmenter
from momap_ros.segmentation.tracking import InstanceTracker

if TYPE_CHECKING:
    from momap_ros.forecaster import Forecaster
    from momap_ros.model.output import MoMapOutput

DENSE_SIZE = 256
NETWORK_RUNS = {"network_n1_s1": (1, 1), "network_n1_s4": (1, 4), "network_n10_s1": (10, 1), "network_n10_s4": (10, 4)}


@dataclass(frozen=True, eq=False)
class DefaultForecast:
    """What the forecast node publishes of the scene.

    Attributes:
        trajectories: of ~/trajectories.
        objects: of ~/object_motions.
        torch_threads: of the process that made it.
    """

    trajectories: PointTrajectories
    objects: list[ObjectMotion]
    torch_threads: int


def perception_stages(scene: Scene, effort: Effort) -> dict[str, Timing]:
    """Decoding, segmentation, tracking and the dense object motions."""
    frame, segmentation = scene.frame, SegmentationConfig()
    messages = (
        color_message(frame.rgb, 1, frame.frame_id),
        depth_message(frame.depth_m, 1, frame.frame_id, millimetres=True),
        camera_info_message(frame.camera, 1, frame.frame_id),
    )
    segmenter, tracker = TabletopSegmenter(segmentation), InstanceTracker(segmentation.max_lost_frames)
    instances = segmenter(frame)
    trajectories, motion = twenty_objects(), ObjectMotionConfig()
    return {
        "decode": measure(lambda: frame_from_messages(*messages), effort),
        "segment": measure(lambda: segmenter(frame), effort),
        "track": measure(lambda: tracker(fresh(frame), InstanceMap(instances.ids)), effort),
        "motion_dense": measure(lambda: estimate_object_motions(trajectories, motion), effort),
    }


def model_stages(scene: Scene, config: ForecastConfig, effort: Effort) -> tuple[dict[str, Timing], DefaultForecast]:
    """Everything from the instances to the objects' motions.

    Args:
        scene: the frame.
        config: the default forecast; its checkpoint is loaded here.
        effort: how often each stage runs.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    from momap_ros.forecaster import Forecaster, foreground_pixels
    from momap_ros.selection import published_trajectories

    config, motion = dataclasses.replace(config, prompt=scene.prompt), ObjectMotionConfig()
    forecaster = Forecaster(config, motion)  # before torch is imported, as in a node: it has a say in torch's threads
    import torch

    instances = TabletopSegmenter(SegmentationConfig())(scene.frame)
    forecast = forecaster(scene.frame, instances)
    moving, moves = all_moving(forecast.output), forecast.output.instance_moving_probability()
    pixels = foreground_pixels(scene.frame, instances, config.max_points)
    latents = torch.randn(DENSE_SIZE**2, moving.codec.latent_channels)
    timings = network_stages(forecaster, scene, instances, effort)
    timings |= {
        "codec_dense": measure(lambda: moving.codec.decode(latents).numpy(), effort),
        "codec_points": measure(
            lambda: dataclasses.replace(moving, frame=fresh(scene.frame)).trajectories(pixels), effort
        ),
        "dense_momap": measure(lambda: moving.momap(0, DENSE_SIZE, DENSE_SIZE), effort),
        "motion_default": measure(
            partial(estimate_object_motions, forecast.trajectories, motion, hypothesis=0, moving_probability=moves),
            effort,
        ),
        "forecast": measure(lambda: forecaster(fresh(scene.frame), instances), effort),
    }
    published = published_trajectories(forecast, config)
    return timings, DefaultForecast(published, forecast.objects, torch.get_num_threads())


def network_stages(forecaster: Forecaster, scene: Scene, instances: InstanceMap, effort: Effort) -> dict[str, Timing]:
    """The network's inputs, and the network alone at several numbers of futures and steps."""
    import torch

    pipeline = forecaster.pipeline
    words, _ = pipeline.vocabulary.encode(scene.prompt)
    conditioning = pipeline.condition(scene_grid(scene.frame, instances), words, {}, 0)

    def condition() -> None:
        pipeline.condition(scene_grid(scene.frame, InstanceMap(instances.ids)), words, {}, 0)

    def network(noise: torch.Tensor, num_steps: int) -> None:
        encoding = pipeline.scene_encoder(conditioning)
        clean, _ = pipeline.denoise(noise, encoding.repeat(len(noise)), pipeline.timesteps(num_steps))
        clean.cpu()  # waits for a GPU to finish

    timings = {"condition": measure(condition, effort)}
    with torch.inference_mode():
        for name, (num_hypotheses, num_steps) in NETWORK_RUNS.items():
            noise = torch.randn(num_hypotheses, pipeline.codec.latent_channels, GRID, GRID).to(forecaster.device)
            timings[name] = measure(partial(network, noise, num_steps), effort)
    return timings


def all_moving(output: MoMapOutput) -> MoMapOutput:
    """The forecast with every object moving in every future: the most work for the codec."""
    import torch

    return dataclasses.replace(output, moving_probability=torch.ones(output.num_hypotheses, MAX_INSTANCES))


def fresh(frame: RGBDFrame) -> RGBDFrame:
    """The frame as it comes from a camera: nothing computed of it or of its camera is remembered."""
    camera = dataclasses.replace(frame.camera)
    return RGBDFrame(np.asarray(frame.rgb), np.asarray(frame.depth_m), camera, frame.stamp_ns, frame.frame_id)
