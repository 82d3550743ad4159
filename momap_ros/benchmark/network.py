"""How fast the network alone is: by precision, compilation and runtime, for several numbers of futures and steps."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.benchmark.report import Report, Row, Stage, row, skipped_row
from momap_ros.benchmark.scene import Scene, first_scene
from momap_ros.benchmark.timing import QUICK, Effort, measure, on_cores
from momap_ros.conditioning import GRID, scene_grid
from momap_ros.config import ForecastConfig, ObjectMotionConfig, SegmentationConfig
from momap_ros.segmentation.tabletop import TabletopSegmenter

if TYPE_CHECKING:
    import torch

    from momap_ros.conditioning import Conditioning
    from momap_ros.geometry import Float32
    from momap_ros.model.pipeline import MoMapPipeline
    from momap_ros.model.scene_encoder import SceneEncoding

FORMAT = "momap-network-benchmark/1"
CORES = 2
HYPOTHESES, STEPS = (1, 10), (1, 2, 4)
# A long row is twelve runs: one to warm up, ten that count, one for the memory.
EFFORT = Effort(warm_up=1, min_runs=10, max_runs=100, budget_s=1.0)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the network.

    Attributes:
        name: begins the names of its rows.
        what: for readers.
        precision: of torch.
        compile: mode of torch.compile, or "none".
        onnx: True runs it by ONNX Runtime instead of torch.
        hypotheses: numbers of futures.
    """

    name: str
    what: str
    precision: str = "float32"
    compile: str = "none"
    onnx: bool = False
    hypotheses: tuple[int, ...] = HYPOTHESES

    def stages(self) -> Iterator[Stage]:
        """Its rows: what happens once at the start, then the scene encoder, then the denoiser."""
        if self.onnx:
            yield self._stage("export", "export and check of both graphs, once", unit="s")
        if self.compile == "none":  # the scene encoder is never compiled
            yield self._stage("encoder", "scene encoder, once per scene")
        for count in self.hypotheses:
            if self.compile != "none":
                yield self._stage(f"compile_n{count}", f"compilation for N = {count}, once", unit="s")
            for steps in STEPS:
                what = f"denoiser, N = {count}, {steps} step{'s' if steps > 1 else ''}"
                yield self._stage(f"n{count}_s{steps}", what)

    def _stage(self, name: str, what: str, *, unit: str = "ms") -> Stage:
        return Stage(f"{self.name}_{name}", f"{self.what}: {what}", CORES, unit=unit)


VARIANTS = (
    Variant("float32", "torch, float32"),
    Variant("bfloat16", "torch, bfloat16", "bfloat16"),
    Variant("compiled", "torch.compile, float32", compile="default"),
    # Every number of futures is compiled anew, which takes longer than everything else here: the default's is enough.
    Variant("compiled_bfloat16", "torch.compile, bfloat16", "bfloat16", "default", hypotheses=(10,)),
    Variant("cuda_graphs", "torch.compile with CUDA graphs, bfloat16", "bfloat16", "reduce-overhead"),
    Variant("onnxruntime", "ONNX Runtime on the CPU, float32", onnx=True),
)
STAGES = tuple(stage for variant in VARIANTS for stage in variant.stages())


class Network(Protocol):
    """Both halves of a forecast's network; a call returns when the work is done, also on a GPU."""

    def encode(self, conditioning: Conditioning) -> Any:  # noqa: ANN401  (of torch or of ONNX Runtime)
        """What the denoiser reads of one scene."""
        ...

    def sample(self, noise: torch.Tensor, encoding: Any, timesteps: torch.Tensor) -> object:  # noqa: ANN401
        """Clean latents from noise (N, C, 32, 32)."""
        ...


def named_variants(names: Sequence[str]) -> tuple[Variant, ...]:
    """Some of VARIANTS; all of them where none is named.

    Raises:
        ValueError: there is no variant of that name.
    """
    known = {variant.name: variant for variant in VARIANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--network: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return tuple(known[name] for name in names) or VARIANTS


def network_reports(bag: Path, config: ForecastConfig, *, variants: Sequence[Variant], quick: bool) -> Iterator[Report]:
    """Measure scene encoder and denoiser on the first frame of a bag; some minutes, of which compilation takes most.

    Args:
        bag: recording.
        config: its checkpoint, device and number of threads.
        variants: ways to run it.
        quick: a smoke test: everything runs twice, and the numbers mean nothing.

    Yields:
        After every variant, all that is known so far: who is interrupted keeps that.

    Raises:
        BagError: the bag has no usable frame.
        CheckpointError: the checkpoint cannot be used.
    """
    machine, scene, effort = describe_machine(), first_scene(bag), QUICK if quick else EFFORT
    rows: list[Row] = []
    for variant in variants:
        # Each in a process of its own: what one variant changes in torch must not reach another.
        of_variant, threads = on_cores(CORES, measure_variant, variant, scene, config, effort)
        rows += of_variant
        yield Report(
            FORMAT,
            date.today().isoformat(),
            describe_commit(),
            quick=quick,
            machine=machine,
            versions=describe_versions(),
            settings={
                "bag": bag.name,
                "checkpoint": Path(config.checkpoint).name,
                "device": config.device,
                "torch_threads": threads,
            },
            rows=tuple(rows),
        )


def measure_variant(variant: Variant, scene: Scene, config: ForecastConfig, effort: Effort) -> tuple[list[Row], int]:
    """The variant's rows, skipped ones where it cannot run here; and the number of torch's threads."""
    from momap_ros.forecaster import Forecaster

    config = dataclasses.replace(config, precision=variant.precision, compile="none")
    # Before torch is imported, as in a node: it has a say in torch's threads.
    forecaster = Forecaster(config, ObjectMotionConfig())
    import torch

    from momap_ros.model.execution import ExecutionError, prepare_execution

    pipeline, stages, rows = forecaster.pipeline, list(variant.stages()), []
    words, _ = pipeline.vocabulary.encode(scene.prompt)
    instances = TabletopSegmenter(SegmentationConfig())(scene.frame)
    conditioning = pipeline.condition(scene_grid(scene.frame, instances), words, {}, 0)
    with tqdm(stages, desc=variant.what, unit="row") as bar, TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # A first start has nothing compiled yet.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            prepare_execution(pipeline, dataclasses.replace(config, compile=variant.compile), forecaster.device)
            measurements = measured(variant, pipeline, conditioning, effort, checkpoint=config.checkpoint)
            for stage in bar:
                bar.set_postfix_str(stage.what.partition(": ")[2])
                rows.append(row(stage, *next(measurements)))
        except (ExecutionError, ModuleNotFoundError) as error:
            reason = str(error).partition(";")[0]
            bar.set_postfix_str(f"skipped: {reason}")
            rows = [skipped_row(stage, reason) for stage in stages]
    return rows, torch.get_num_threads()


def measured(
    variant: Variant, pipeline: MoMapPipeline, conditioning: Conditioning, effort: Effort, *, checkpoint: str
) -> Iterator[tuple[tuple[float, ...], float | None]]:
    """Values and peak memory of every row of the variant, in their order.

    Args:
        variant: what is run.
        pipeline: prepared for it.
        conditioning: of one scene.
        effort: how often each row runs that is not of the start.
        checkpoint: of the pipeline.

    Raises:
        ModuleNotFoundError: the extra `onnx` is not installed.
    """
    import torch

    network: Network = TorchNetwork(pipeline)
    if variant.onnx:
        started = time.perf_counter()
        network = OnnxNetwork(checkpoint)
        yield (time.perf_counter() - started,), None
    encoding = network.encode(conditioning)
    if variant.compile == "none":
        timing = measure(partial(network.encode, conditioning), effort)
        yield timing.times_ms, timing.peak_memory_mib
    for count in variant.hypotheses:
        noise = torch.randn(count, pipeline.codec.latent_channels, GRID, GRID).to(conditioning.maps.device)
        if variant.compile != "none":
            started = time.perf_counter()
            network.sample(noise, encoding, pipeline.timesteps(1))
            yield (time.perf_counter() - started,), None
        for steps in STEPS:
            timing = measure(partial(network.sample, noise, encoding, pipeline.timesteps(steps)), effort)
            yield timing.times_ms, timing.peak_memory_mib


class TorchNetwork:
    """As a forecast runs it."""

    def __init__(self, pipeline: MoMapPipeline) -> None:
        """Take the pipeline as it is prepared."""
        self.pipeline = pipeline

    def encode(self, conditioning: Conditioning) -> SceneEncoding:
        """See `Network`."""
        import torch

        with torch.inference_mode():
            encoding = self.pipeline.encode_scene(conditioning)
            encoding.summary.cpu()  # waits for a GPU to finish
        return encoding

    def sample(self, noise: torch.Tensor, encoding: SceneEncoding, timesteps: torch.Tensor) -> torch.Tensor:
        """See `Network`."""
        import torch

        with torch.inference_mode():
            return self.pipeline.denoise(noise, encoding.repeat(len(noise)), timesteps)[0].cpu()


class OnnxNetwork:
    """The exported graphs, with as many threads as torch."""

    def __init__(self, checkpoint: str) -> None:
        """Export them, which compares them with torch, and load them."""
        import torch

        from momap_ros.model.onnx_export import OnnxNetworks, export_onnx

        with TemporaryDirectory() as folder:
            export_onnx(checkpoint, Path(folder) / "onnx")
            self.networks = OnnxNetworks(Path(folder) / "onnx", torch.get_num_threads())

    def encode(self, conditioning: Conditioning) -> dict[str, Float32]:
        """See `Network`."""
        return self.networks.encode(conditioning)

    def sample(self, noise: torch.Tensor, encoding: dict[str, Float32], timesteps: torch.Tensor) -> Float32:
        """See `Network`."""
        return self.networks.sample(noise.cpu().numpy(), encoding, timesteps.tolist())[0]
