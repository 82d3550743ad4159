"""How fast the network alone is: by precision, compilation and runtime, for several numbers of futures and steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.benchmark.report import Report, Stage, row, skipped_row
from momap_ros.benchmark.scene import Scene, first_scene
from momap_ros.benchmark.timing import QUICK, Effort, Timing, measure, on_cores
from momap_ros.conditioning import GRID, scene_grid
from momap_ros.config import ForecastConfig, ObjectMotionConfig, SegmentationConfig
from momap_ros.segmentation.tabletop import TabletopSegmenter

if TYPE_CHECKING:
    import torch

    from momap_ros.conditioning import Conditioning
    from momap_ros.model.pipeline import MoMapPipeline

FORMAT = "momap-network-benchmark/1"
CORES = 2
VARIANTS = {
    "float32": "torch, float32",
    "bfloat16": "torch, bfloat16",
    "compiled": "torch.compile, float32",
    "compiled_bfloat16": "torch.compile, bfloat16",
    "onnxruntime": "ONNX Runtime, float32",
}
HYPOTHESES, STEPS = (1, 10), (1, 2, 4, 10)
EFFORT = Effort(warm_up=1, min_runs=5, max_runs=100, budget_s=1.0)

# Inputs of one scene, noise (N, C, 32, 32), timesteps.
Network = Callable[["Conditioning", "torch.Tensor", "torch.Tensor"], None]


def stage_of(variant: str, num_hypotheses: int, num_steps: int) -> Stage:
    """One row of the report."""
    name = f"{variant}_n{num_hypotheses}_s{num_steps}"
    steps = "1 step" if num_steps == 1 else f"{num_steps} steps"
    return Stage(name, f"{VARIANTS[variant]}: N = {num_hypotheses}, {steps}", CORES)


def network_report(bag: Path, config: ForecastConfig, *, quick: bool) -> Report:
    """Measure scene encoder and sampler on the first frame of a bag; some minutes, of which compilation takes most.

    Args:
        bag: recording.
        config: its checkpoint, device and number of threads.
        quick: a smoke test: one future, one and two steps, twice each.

    Raises:
        BagError: the bag has no usable frame.
        CheckpointError: the checkpoint cannot be used.
    """
    machine, scene, rows, threads = describe_machine(), first_scene(bag), [], 0
    sizes = [(n, s) for n in HYPOTHESES for s in STEPS] if not quick else [(1, 1), (1, 2)]
    effort = QUICK if quick else EFFORT
    for variant in VARIANTS:
        # Each in a process of its own: what one variant changes in torch must not reach another.
        timings, threads = on_cores(CORES, measure_variant, variant, scene, config, sizes=sizes, effort=effort)
        for size in sizes:
            stage = stage_of(variant, *size)
            rows.append(
                skipped_row(stage, timings)
                if isinstance(timings, str)
                else row(stage, timings[size].times_ms, timings[size].peak_memory_mib)
            )
    settings: dict[str, str | int | float] = {
        "bag": bag.name,
        "checkpoint": Path(config.checkpoint).name,
        "device": config.device,
        "torch_threads": threads,
    }
    today = date.today().isoformat()
    return Report(FORMAT, today, describe_commit(), quick, machine, describe_versions(), settings, tuple(rows))


def measure_variant(
    variant: str, scene: Scene, config: ForecastConfig, *, sizes: list[tuple[int, int]], effort: Effort
) -> tuple[dict[tuple[int, int], Timing] | str, int]:
    """(futures, steps) -> timing, or why the variant cannot run here; and the number of torch's threads."""
    from momap_ros.forecaster import Forecaster

    config = dataclasses.replace(
        config,
        precision="bfloat16" if variant.endswith("bfloat16") else "float32",
        compile="default" if variant.startswith("compiled") else "none",
    )
    # Before torch is imported, as in a node: it has a say in torch's threads.
    forecaster = Forecaster(dataclasses.replace(config, compile="none"), ObjectMotionConfig())
    import torch

    from momap_ros.model.execution import ExecutionError, prepare_execution

    pipeline, threads = forecaster.pipeline, torch.get_num_threads()
    instances = TabletopSegmenter(SegmentationConfig())(scene.frame)
    words, _ = pipeline.vocabulary.encode(scene.prompt)
    conditioning = pipeline.condition(scene_grid(scene.frame, instances), words, {}, 0)
    with TemporaryDirectory() as folder:
        try:
            prepare_execution(pipeline, config, forecaster.device)
            network = of_onnx(config, Path(folder)) if variant == "onnxruntime" else of_torch(pipeline)
        except (ExecutionError, ModuleNotFoundError) as error:
            return str(error), threads
        timings = {}
        with torch.inference_mode():
            for num_hypotheses, num_steps in sizes:
                noise = torch.randn(num_hypotheses, pipeline.codec.latent_channels, GRID, GRID).to(forecaster.device)
                run = partial(network, conditioning, noise, pipeline.timesteps(num_steps))
                timings[num_hypotheses, num_steps] = measure(run, effort)
    return timings, threads


def of_torch(pipeline: MoMapPipeline) -> Network:
    """Scene encoder and sampler as a forecast runs them."""

    def network(conditioning: Conditioning, noise: torch.Tensor, timesteps: torch.Tensor) -> None:
        scene = pipeline.encode_scene(conditioning).repeat(len(noise))
        pipeline.denoise(noise, scene, timesteps)[0].cpu()  # waits for a GPU to finish

    return network


def of_onnx(config: ForecastConfig, folder: Path) -> Network:
    """The same by ONNX Runtime on the CPU, with as many threads as torch.

    Raises:
        ModuleNotFoundError: the extra `onnx` is not installed.
    """
    import torch

    from momap_ros.model.onnx_export import OnnxNetworks, export_onnx

    export_onnx(config.checkpoint, folder / "onnx")
    networks = OnnxNetworks(folder / "onnx", torch.get_num_threads())

    def network(conditioning: Conditioning, noise: torch.Tensor, timesteps: torch.Tensor) -> None:
        networks.sample(noise.cpu().numpy(), networks.encode(conditioning), timesteps.tolist())

    return network
