"""The small model as two ONNX graphs, for runtimes other than torch; kept only where they compute what torch does.

One graph reads the scene, once per frame; the other is one denoising step of any number of futures. The sampler's few
lines between two steps stay with the caller: `OnnxNetworks.sample` is an example of them.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from momap_ros.conditioning import GRID, Conditioning
from momap_ros.files import atomic_path
from momap_ros.geometry import Float32
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.execution import made_up_scene
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import SceneEncoder, SceneEncoding

FORMAT = "momap-onnx/1"
OPSET = 18
SCENE_ENCODER, DENOISER, INFO = "scene_encoder.onnx", "denoiser.onnx", "onnx.json"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
# Fields of a SceneEncoding that the denoiser reads.
SHARED = ("maps", "context", "context_bias", "summary")
# Whitened latents are about 1; single precision of other kernels stays far below, a wrong graph does not.
TOLERANCE = 1e-3
MAX_HYPOTHESES = 64  # as ForecastConfig allows
COMPARED_HYPOTHESES, COMPARED_STEPS = (1, 2, 10), 4
_INPUTS = tuple(field.name for field in fields(Conditioning))
_OUTPUTS = tuple(field.name for field in fields(SceneEncoding))
# Before the names of a SceneEncoding's fields in the graphs; a Conditioning has maps too.
SCENE = "scene_"


class SceneGraph(nn.Module):
    """The scene encoder between plain tensors."""

    def __init__(self, encoder: SceneEncoder) -> None:
        """Wrap it."""
        super().__init__()
        self.encoder = encoder

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The fields of a Conditioning of one scene, in order -> those of its SceneEncoding."""
        encoding = self.encoder(Conditioning(*inputs))
        return tuple(getattr(encoding, name) for name in _OUTPUTS)


class DenoiserGraph(nn.Module):
    """One denoising step between plain tensors; all futures share one scene."""

    def __init__(self, denoiser: SmallDenoiser) -> None:
        """Wrap it."""
        super().__init__()
        self.denoiser = denoiser

    def forward(  # noqa: PLR0917  (the exporter cannot say of a bundle of tensors which of their sizes vary)
        self,
        noisy: torch.Tensor,
        timestep: torch.Tensor,
        maps: torch.Tensor,
        context: torch.Tensor,
        context_bias: torch.Tensor,
        summary: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (N, C, 32, 32), timestep (1,) and the SHARED fields -> clean latents, moving-cell logits."""
        count, shared = noisy.shape[0], (maps, context, context_bias, summary)
        of_draws = {name: x.expand(count, *x.shape[1:]) for name, x in zip(SHARED, shared, strict=True)}
        # The denoiser does not look at the other fields.
        scene = SceneEncoding(**{name: of_draws.get(name, noisy) for name in _OUTPUTS})
        clean, moving_logits = self.denoiser(noisy, timestep.expand(count), scene)
        return clean, moving_logits


class OnnxNetworks:
    """Both graphs, run by ONNX Runtime on the CPU.

    Args:
        folder: written by `export_onnx`.
        num_threads: of ONNX Runtime; 0 leaves its choice.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed.
        ValueError: the folder is not one of ours.
    """

    def __init__(self, folder: Path, num_threads: int = 0) -> None:
        """Load the graphs."""
        require(("onnxruntime",))
        import onnxruntime

        info_path = folder / INFO
        self.info: dict[str, Any] = json.loads(info_path.read_text(encoding="utf-8")) if info_path.is_file() else {}
        if self.info.get("format") != FORMAT:
            raise ValueError(
                f"{folder}: expected {INFO} of format {FORMAT!r}, got {self.info.get('format')!r}; make the "
                "folder with `momap export onnx`"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        # Threads that spin while they wait slow down everything else on a robot whose cores are shared.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._encoder, self._denoiser = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (SCENE_ENCODER, DENOISER)
        )

    def encode(self, conditioning: Conditioning) -> dict[str, Float32]:
        """The fields of the SceneEncoding of one scene."""
        feed = {name: getattr(conditioning, name).cpu().numpy() for name in _INPUTS}
        found = self._encoder.run([SCENE + name for name in _OUTPUTS], feed)
        return dict(zip(_OUTPUTS, found, strict=True))

    def denoise(self, noisy: Float32, timestep: int, encoding: dict[str, Float32]) -> tuple[Float32, Float32]:
        """(N, C, 32, 32) latents at a timestep of a scene -> clean latents and (N, 32, 32) moving-cell logits."""
        feed = {"noisy": noisy, "timestep": np.array([timestep], np.int64)}
        feed |= {SCENE + name: encoding[name] for name in SHARED}
        clean, moving_logits = self._denoiser.run(["clean", "moving_logits"], feed)
        return clean, moving_logits

    def sample(self, noise: Float32, encoding: dict[str, Float32], timesteps: Sequence[int]) -> tuple[Float32, Float32]:
        """Clean latents and moving-cell logits after several DDIM steps, from noise to nothing.

        Args:
            noise: (N, C, 32, 32) at the first of the timesteps.
            encoding: of one scene.
            timesteps: falling; those of `MoMapPipeline.timesteps`.
        """
        alphas, clean, moving_logits, latents = self.info["alphas_cumprod"], noise, noise[:, 0], noise
        stride = len(alphas) // len(timesteps)  # as the scheduler counts, also where the steps do not divide it
        for timestep in timesteps:
            clean, moving_logits = self.denoise(latents, timestep, encoding)
            alpha, alpha_next = alphas[timestep], alphas[timestep - stride] if timestep >= stride else 1.0
            remaining = (latents - alpha**0.5 * clean) / (1 - alpha) ** 0.5
            latents = (alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * remaining).astype(np.float32)
        return clean, moving_logits


def require(libraries: Sequence[str] = LIBRARIES) -> None:
    """Refuse to go on without the extra `onnx`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    from importlib.util import find_spec

    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"expected the package's extra 'onnx', could not import {', '.join(missing)}; "
            "pip install 'momap_ros[onnx]'",
            name=missing[0],
        )


def export_onnx(checkpoint: str, out: Path) -> dict[str, Any]:
    """Write scene_encoder.onnx, denoiser.onnx and onnx.json in single precision, whole or not at all.

    Args:
        checkpoint: name of a bundled small checkpoint, or its folder.
        out: folder; replaced as a whole.

    Returns:
        The content of onnx.json: opset, versions, inputs and outputs of both graphs, the scheduler's noise levels, and
        the largest difference of every output from torch's.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        ModuleNotFoundError: the extra `onnx` is not installed.
        ValueError: it is not a small model, or a graph computes something else than torch.
    """
    require()
    pipeline = MoMapPipeline.from_pretrained(checkpoint)
    if type(pipeline) is not MoMapPipeline:
        raise ValueError(f"checkpoint {checkpoint}: expected a small model, got {type(pipeline).__name__}")
    if pipeline.denoiser.prediction != "sample":
        raise ValueError(
            f"checkpoint {checkpoint}: expected a denoiser that predicts the clean sample, got one that predicts "
            f"{pipeline.denoiser.prediction!r}"
        )
    scenes = [made_up_scene(pipeline, seed) for seed in range(2)]
    with atomic_path(out) as folder:
        folder.mkdir()
        graphs = _write_graphs(pipeline, scenes[0], folder)
        info = {
            "format": FORMAT,
            "checkpoint": Path(checkpoint).name,
            "opset": OPSET,
            "versions": {name: version(name) for name in ("momap_ros", "torch", *LIBRARIES)},
            "graphs": graphs,
            "latent_channels": pipeline.codec.latent_channels,
            "prediction": "the clean latents; one DDIM step leads from those of a timestep to the next one",
            "timestep_spacing": pipeline.scheduler.config["timestep_spacing"],
            "alphas_cumprod": [float(alpha) for alpha in pipeline.scheduler.alphas_cumprod],
        }
        (folder / INFO).write_text(json.dumps(info) + "\n", encoding="utf-8")
        networks = OnnxNetworks(folder)
        differences: dict[str, float] = {}
        for scene in scenes:
            for name, value in _differences(pipeline, networks, scene).items():
                differences[name] = max(value, differences.get(name, 0.0))
        wrong = {name: value for name, value in differences.items() if not value <= TOLERANCE}
        if wrong:
            raise ValueError(
                f"checkpoint {checkpoint}: expected outputs within {TOLERANCE} of torch's, got {wrong}; nothing was "
                "written. Report it with the versions of `momap info`"
            )
        info["max_difference"] = differences
        (folder / INFO).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    return info


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of operators that are not ours, and of its own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    # The fused layer of inference is one opaque operator; its parts are in ONNX.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        logger.setLevel(level)


def _write_graphs(pipeline: MoMapPipeline, scene: Conditioning, folder: Path) -> dict[str, Any]:
    """Both graphs into a folder; returns their inputs and outputs by file name."""
    encoder_inputs = tuple(getattr(scene, name) for name in _INPUTS)
    with torch.no_grad():
        encoding = pipeline.scene_encoder(scene)
    shared = tuple(getattr(encoding, name) for name in SHARED)
    noisy = torch.zeros(3, pipeline.codec.latent_channels, GRID, GRID)  # 1 would be taken for a constant
    encoded = tuple(SCENE + name for name in _OUTPUTS)
    many = {0: torch.export.Dim("hypotheses", min=1, max=MAX_HYPOTHESES)}
    described = {}
    for name, graph, inputs, names, outputs, dynamic in (
        (SCENE_ENCODER, SceneGraph(pipeline.scene_encoder), encoder_inputs, _INPUTS, encoded, None),
        (
            DENOISER,
            DenoiserGraph(pipeline.denoiser),
            (noisy, torch.tensor([500]), *shared),
            ("noisy", "timestep", *(SCENE + name for name in SHARED)),
            ("clean", "moving_logits"),
            (many, None, None, None, None, None),
        ),
    ):
        with _quiet():
            program: Any = torch.onnx.export(
                graph.eval(),
                inputs,
                input_names=names,
                output_names=outputs,
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=dynamic,
                verbose=False,
            )
        program.save(folder / name, external_data=False)
        described[name] = {
            kind: [{"name": value.name, "shape": list(map(str, value.shape)), "type": str(value.dtype)} for value in of]
            for kind, of in (("inputs", program.model.graph.inputs), ("outputs", program.model.graph.outputs))
        }
    return described


@torch.inference_mode()
def _differences(pipeline: MoMapPipeline, networks: OnnxNetworks, scene: Conditioning) -> dict[str, float]:
    """Largest absolute difference from torch: of every output, and of the latents that the sampler ends with."""
    expected, found = pipeline.scene_encoder(scene), networks.encode(scene)
    worst = {SCENE + name: _distance(found[name], getattr(expected, name)) for name in _OUTPUTS}
    timesteps = pipeline.timesteps(COMPARED_STEPS)
    for count in COMPARED_HYPOTHESES:
        generator = torch.Generator().manual_seed(count)
        noise = torch.randn((count, pipeline.codec.latent_channels, GRID, GRID), generator=generator)
        repeated = expected.repeat(count)
        once = (
            pipeline.denoiser(noise, timesteps[1].expand(count), repeated),
            networks.denoise(noise.numpy(), int(timesteps[1]), found),
        )
        sampled = (
            pipeline.denoise(noise, repeated, timesteps),
            networks.sample(noise.numpy(), found, timesteps.tolist()),
        )
        for suffix, (ours, theirs) in (("", once), (f" after {COMPARED_STEPS} steps", sampled)):
            for name, value, reference in zip(("clean", "moving_logits"), theirs, ours, strict=True):
                key = name + suffix
                worst[key] = max(worst.get(key, 0.0), _distance(value, reference))
    return worst


def _distance(found: Float32, expected: torch.Tensor) -> float:
    return float(np.abs(found - expected.float().numpy()).max())
