"""How a model's networks are run: in which precision, compiled or not. Chosen once, when the model is loaded."""

from __future__ import annotations

import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from momap_ros.conditioning import GRID, Conditioning, scene_grid
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.config import ForecastConfig

# Of each precision, one after the other, so that what else the machine does meets both; the shortest counts.
PROBE_RUNS = 5
# bfloat16 has to be faster by a tenth: its rounding costs a little accuracy.
WORTHWHILE = 0.9


class ExecutionError(ValueError):
    """The networks cannot be run as asked; the message says what is missing."""


@dataclass(frozen=True)
class Execution:
    """How the networks are run.

    Attributes:
        precision: "float32" or "bfloat16".
        compile: torch.compile's mode, or "none".
        probe_ms: precision -> milliseconds of one denoising step; empty where nothing was measured.
    """

    precision: str
    compile: str = "none"
    probe_ms: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        """For logs: "bfloat16 (a step takes 71.3 ms in float32, 40.1 ms in bfloat16), compiled (default)"."""
        text = self.precision
        if self.probe_ms:
            text += f" (a step takes {', '.join(f'{ms:.1f} ms in {name}' for name, ms in self.probe_ms)})"
        return text if self.compile == "none" else f"{text}, compiled ({self.compile})"


def prepare_execution(pipeline: MoMapPipeline, config: ForecastConfig, device: str) -> Execution:
    """Move the networks to a device, choose their precision, and have them compiled when they first run.

    Args:
        pipeline: changed in place.
        config: its precision, compile and num_hypotheses.
        device: "cpu" or "cuda", with a number or without.

    Raises:
        ExecutionError: compilation is asked for and impossible: another device, no compiler, the full-size model.
    """
    check_compile(pipeline, config.compile, device)
    pipeline.to_device(device, config.precision)
    probe: dict[str, float] = {}
    if config.precision == "auto" and type(pipeline) is MoMapPipeline:
        probe = measure_precisions(pipeline, config.num_hypotheses)
        pipeline.precision = faster(probe)
    if pipeline.precision == "bfloat16" and type(pipeline) is MoMapPipeline:
        # A little faster. Single precision keeps its order of sums, and so every bit.
        pipeline.denoiser.to(memory_format=torch.channels_last)
    if config.compile != "none":
        pipeline.denoiser.compile(mode=config.compile, dynamic=False)
    return Execution(pipeline.precision, config.compile, tuple(probe.items()))


def faster(step_ms: dict[str, float]) -> str:
    """The precision to take: bfloat16 where it is faster by a tenth at least."""
    return "bfloat16" if step_ms["bfloat16"] <= WORTHWHILE * step_ms["float32"] else "float32"


@torch.inference_mode()
def measure_precisions(pipeline: MoMapPipeline, num_hypotheses: int) -> dict[str, float]:
    """Milliseconds of one denoising step of so many futures, by precision; on a CPU, those of all its cores together.

    The pipeline's own precision is left as it was.
    """
    chosen, device = pipeline.precision, next(pipeline.denoiser.parameters()).device
    scene = pipeline.encode_scene(made_up_scene(pipeline)).repeat(num_hypotheses)
    noise = torch.randn((num_hypotheses, pipeline.codec.latent_channels, GRID, GRID), device=device)
    timesteps = pipeline.timesteps(1)
    # On a CPU the time of its cores: what else they do while a robot starts must not decide.
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def step() -> None:
        pipeline.denoise(noise, scene, timesteps)[0].cpu()  # waits for a GPU to finish

    shortest: dict[str, float] = {}
    try:
        for run in range(PROBE_RUNS + 1):
            for precision in ("float32", "bfloat16"):
                pipeline.precision = precision
                duration_ms = 1e3 * _seconds(step, clock)
                if run:  # the first one is slower
                    shortest[precision] = min(duration_ms, shortest.get(precision, duration_ms))
    finally:
        pipeline.precision = chosen
    return shortest


def _seconds(run: Callable[[], None], clock: Callable[[], float]) -> float:
    started = clock()
    run()
    return clock() - started


def check_compile(pipeline: MoMapPipeline, mode: str, device: str) -> None:
    """Refuse what torch.compile cannot do here, before it fails in the middle of a forecast.

    Raises:
        ExecutionError: with what is missing.
    """
    if mode == "none":
        return
    on_gpu = device.startswith("cuda")
    if type(pipeline) is not MoMapPipeline:
        raise ExecutionError(f"forecast.compile: expected none for a {type(pipeline).__name__}, got {mode!r}")
    if mode == "reduce-overhead" and not on_gpu:
        raise ExecutionError(
            f"forecast.compile: reduce-overhead records CUDA graphs and needs a CUDA device, got {device!r}; "
            "choose default"
        )
    missing = missing_for_compile(on_gpu=on_gpu)
    if missing:
        raise ExecutionError(
            f"forecast.compile: expected {' and '.join(missing)}, found none; install it (Debian, Ubuntu: "
            "apt-get install g++ python3-dev), or choose forecast.compile none"
        )


def missing_for_compile(*, on_gpu: bool = False) -> list[str]:
    """What torch.compile needs and this machine lacks, in words; empty where it can work."""
    compiler = os.environ.get("CXX", "g++")  # as torch looks for it
    wanted = {
        f"a C++ compiler {compiler!r} (or another one, named in CXX)": shutil.which(compiler) is not None,
        "the headers of Python": (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
        "the Python package triton": not on_gpu or find_spec("triton") is not None,
    }
    return [name for name, found in wanted.items() if not found]


def made_up_scene(pipeline: MoMapPipeline, seed: int = 0) -> Conditioning:
    """The inputs of one scene that nobody has seen: noisy instances, one of them hinted, learned and unknown words."""
    rng = np.random.default_rng(seed)
    size = 64
    ids = np.kron(rng.integers(0, 8, (4, 4)), np.ones((16, 16))).astype(np.int32)
    depth_m = (0.7 - 0.01 * ids + rng.normal(size=ids.shape) * 0.002).astype(np.float32)
    depth_m[rng.random(ids.shape) < 0.1] = np.nan
    rgb = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    frame = RGBDFrame(rgb, depth_m, PinholeCamera.from_fov(size, size, vertical_fov_rad=1.0))
    grid = scene_grid(frame, InstanceMap(ids))
    words, _ = pipeline.vocabulary.encode(" ".join([*pipeline.vocabulary.words[seed : seed + 3], "zygote"]))
    return pipeline.condition(grid, words, {grid.slot_ids[0]: (1, 0, -1)}, seed)
