"""All stages, one group after the other, each group in a process of its own with the cores it may use."""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.benchmark.report import FORMAT, STAGES, Report, Row, row, skipped_row
from momap_ros.benchmark.scene import HEIGHT, WIDTH, Scene, first_scene
from momap_ros.benchmark.stages import DefaultForecast, model_stages, perception_stages
from momap_ros.benchmark.timing import QUICK, Effort, Timing, on_cores
from momap_ros.config import ForecastConfig

NO_ROS = "needs rclpy and momap_ros.msg, by `make setup` or a sourced ROS 2 workspace"


def run_benchmark(bag: Path, config: ForecastConfig, *, quick: bool) -> Report:
    """Measure every stage; takes about two minutes on a machine that does nothing else.

    Args:
        bag: its first RGB-D frame is measured.
        config: the default forecast; its prompt is replaced by the bag's.
        quick: a smoke test: everything runs twice, and the numbers mean nothing.

    Raises:
        BagError: the bag has no usable frame.
        CheckpointError: the checkpoint cannot be used.
    """
    machine, effort = describe_machine(), QUICK if quick else Effort()
    scene = first_scene(bag)
    timings, forecast, network_ms = _timings(scene, config, effort)
    settings: dict[str, str | int | float] = {
        "bag": bag.name,
        "frame": f"{WIDTH}x{HEIGHT}",
        "checkpoint": Path(config.checkpoint).name,
        "device": config.device,
        "num_hypotheses": config.num_hypotheses,
        "num_inference_steps": config.num_inference_steps,
        "torch_threads": forecast.torch_threads,
        "objects": len(forecast.objects),
    }
    return Report(
        format=FORMAT,
        date=date.today().isoformat(),
        commit=describe_commit(),
        quick=quick,
        machine=machine,
        versions=describe_versions(),
        settings=settings,
        rows=_rows(timings, network_ms),
    )


def _timings(
    scene: Scene, config: ForecastConfig, effort: Effort
) -> tuple[dict[str, Timing], DefaultForecast, float | None]:
    """Name of the stage -> timing; the forecast; and the network's milliseconds in the node.

    Without ROS its stages are absent.
    """
    network_ms = None
    has_ros = find_spec("rclpy") is not None and find_spec("momap_ros.msg") is not None
    with tqdm(total=4 if has_ros else 2, desc="benchmark", unit="group") as bar:
        timings = on_cores(1, perception_stages, scene, effort)
        bar.update()
        of_model, forecast = on_cores(2, model_stages, scene, config, effort)
        bar.update()
        timings |= of_model
        if has_ros:
            from momap_ros.ros.benchmarking import end_to_end, message_stages

            timings |= on_cores(2, message_stages, forecast, effort)
            bar.update()
            timings["end_to_end"], network_ms = on_cores(2, end_to_end, scene, config, effort)
            bar.update()
    return timings, forecast, network_ms


def _rows(timings: dict[str, Timing], network_ms: float | None) -> tuple[Row, ...]:
    """One row per stage, in the stages' order."""
    rows = []
    for stage in STAGES:
        if stage.name in timings:
            timing = timings[stage.name]
            rows.append(row(stage, timing.times_ms, timing.peak_memory_mib))
        elif stage.name == "not_network" and network_ms is not None:
            shares = tuple(100 * (1 - network_ms / total_ms) for total_ms in timings["end_to_end"].times_ms)
            rows.append(row(stage, shares, None))
        else:
            rows.append(skipped_row(stage, NO_ROS))
    return tuple(rows)
