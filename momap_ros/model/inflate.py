"""Stable Diffusion's networks made wider, so that they read and draw Motion Maps and still do on images what they did.

Paper: Sec. 3.3.2 widens the VAE "by carefully initializing" its outer layers, Sec. 3.3.3 those of the U-Net. How is not
said. Here every new weight is chosen so that the old function is kept exactly: a scene at rest is decoded as the image
it is, a moving one is encoded as its mean over time, and the U-Net ignores its new inputs until it is trained.

Channels of a MoMap are step-major: channel 3 t + c holds component c of step t.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn

from momap_ros.model.checkpoint import PICKLE_SUFFIXES, CheckpointError

NUM_STEPS = 50
LATENT_CHANNELS = 32
IMAGE_CHANNELS = 3
# The first features of a new latent channel: random, and small beside those that Stable Diffusion's latents have.
NEW_LATENT_SCALE = 0.1
NEW_LATENT_LOG_VARIANCE = -6.0
COMPONENTS = {
    "vae": "AutoencoderKL",
    "unet": "UNet2DConditionModel",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
PREDICTION_TYPES = ("v_prediction", "epsilon")


@dataclass(frozen=True, eq=False)
class StableDiffusion:
    """What is taken from a Stable Diffusion folder.

    Attributes:
        vae: image VAE, 3 channels to 4 latents.
        unet: its U-Net, 4 latents to 4.
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        noise: beta_start, beta_end, beta_schedule and num_train_timesteps of its noise schedule.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: Any
    tokenizer: Any
    noise: dict[str, Any]


def read_stable_diffusion(folder: Path) -> StableDiffusion:
    """Load a local folder of Stable Diffusion 1.5 or 2.1 in diffusers' layout, safetensors only, in single precision.

    Raises:
        CheckpointError: not such a folder, weights as pickles, missing weights, or another model's shapes.
    """
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # ours is one bar for all parts
    _check_folder(folder)
    vae = _load(AutoencoderKL, folder, "vae")
    unet = _load(UNet2DConditionModel, folder, "unet")
    text_encoder = _load(CLIPTextModel, folder, "text_encoder")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'tokenizer'}: could not be loaded: {_short(error)}") from error
    _check_shapes_of(folder, vae, unet, text_encoder)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")
    missing = [name for name in names if name not in scheduler]
    if missing:
        raise CheckpointError(f"{folder / 'scheduler'}: expected a noise schedule with {list(names)}, lacks {missing}")
    return StableDiffusion(vae, unet, text_encoder, tokenizer, {name: scheduler[name] for name in names})


def inflate_vae(
    vae: AutoencoderKL, num_steps: int = NUM_STEPS, latent_channels: int = LATENT_CHANNELS, *, seed: int = 0
) -> AutoencoderKL:
    """An image VAE made a MoMap VAE; the argument stays as it is.

    Paper: Sec. 3.3.2. The first layer averages over time, the last one repeats the image at every step. Latents that
    the image VAE had come first, and the decoder ignores the new ones until it is trained.

    Args:
        vae: 3 channels to L latents.
        num_steps: T; the result has 3 T channels.
        latent_channels: of the result, at least L.
        seed: of the first features of the new latents.
    """
    old = int(vae.config["latent_channels"])
    if latent_channels < old:
        raise ValueError(f"latent_channels: expected at least the {old} of the image VAE, got {latent_channels}")
    wide: AutoencoderKL = copy.deepcopy(vae)
    channels = IMAGE_CHANNELS * num_steps
    with torch.no_grad():
        wide.encoder.conv_in = first = _conv_like(vae.encoder.conv_in, channels, None)
        first.weight.copy_(vae.encoder.conv_in.weight.repeat(1, num_steps, 1, 1) / num_steps)
        _bias(first).copy_(_bias(vae.encoder.conv_in))
        wide.decoder.conv_out = last = _conv_like(vae.decoder.conv_out, None, channels)
        last.weight.copy_(vae.decoder.conv_out.weight.repeat(num_steps, 1, 1, 1))
        _bias(last).copy_(_bias(vae.decoder.conv_out).repeat(num_steps))
        wide.encoder.conv_out = _wider_moments(vae.encoder.conv_out, old, latent_channels, seed)
        wide.decoder.conv_in = draw = _conv_like(vae.decoder.conv_in, latent_channels, None)
        draw.weight[:, :old] = vae.decoder.conv_in.weight
        _bias(draw).copy_(_bias(vae.decoder.conv_in))
        moments = [*range(old), *range(latent_channels, latent_channels + old)]
        wide.quant_conv = _wider_mixing(vae.quant_conv, moments, 2 * latent_channels)
        wide.post_quant_conv = _wider_mixing(vae.post_quant_conv, list(range(old)), latent_channels)
    scale = 1.0 / float(vae.config["scaling_factor"])
    wide.register_to_config(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latent_channels,
        scaling_factor=1.0,
        latents_mean=[0.0] * latent_channels,
        latents_std=[scale] * old + [1.0] * (latent_channels - old),
    )
    return wide


def inflate_unet(unet: UNet2DConditionModel, in_channels: int, out_channels: int) -> UNet2DConditionModel:
    """Give a U-Net more inputs and outputs, in place: the first ones do what they did, the new ones do nothing yet.

    Paper: Sec. 3.3.3. Zeros keep Stable Diffusion's function exactly and still receive gradients.
    """
    old_in, old_out = int(unet.config["in_channels"]), int(unet.config["out_channels"])
    if in_channels < old_in or out_channels < old_out:
        raise ValueError(
            f"expected at least the {old_in} inputs and {old_out} outputs of the U-Net, got {in_channels} and "
            f"{out_channels}"
        )
    with torch.no_grad():
        first, last = _conv_like(unet.conv_in, in_channels, None), _conv_like(unet.conv_out, None, out_channels)
        first.weight[:, :old_in] = unet.conv_in.weight
        _bias(first).copy_(_bias(unet.conv_in))
        last.weight[:old_out] = unet.conv_out.weight
        _bias(last)[:old_out] = _bias(unet.conv_out)
    unet.conv_in, unet.conv_out = first, last
    unet.register_to_config(in_channels=in_channels, out_channels=out_channels)
    return unet


def full_scheduler(noise: dict[str, Any], prediction_type: str) -> DDIMScheduler:
    """The noise schedule of a full model: Stable Diffusion's levels, with trailing steps.

    Stable Diffusion never trained on pure noise, where sampling begins; with few steps this shows (Lin et al.,
    arXiv:2305.08891). For v-prediction the levels are therefore rescaled to end in pure noise. A network that predicts
    the noise cannot say there what the sample is, so its levels stay as they are.

    Args:
        noise: see `StableDiffusion`.
        prediction_type: "v_prediction", or "epsilon" to keep the meaning of Stable Diffusion 1.5's outputs.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type: expected one of {list(PREDICTION_TYPES)}, got {prediction_type!r}")
    scheduler: DDIMScheduler = DDIMScheduler(
        **noise,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return scheduler


def _conv_like(old: nn.Conv2d, in_channels: int | None, out_channels: int | None) -> nn.Conv2d:
    """A convolution of zeros with the old one's kernel, and other numbers of channels where given."""
    new = nn.Conv2d(
        in_channels or old.in_channels,
        out_channels or old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # torch declares a longer tuple
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
    )
    nn.init.zeros_(new.weight)
    nn.init.zeros_(_bias(new))
    return new


def _bias(layer: nn.Conv2d) -> torch.Tensor:
    """The layer's bias, which all layers that are widened have."""
    assert layer.bias is not None
    return layer.bias


def _wider_moments(old: nn.Conv2d, latents: int, wider: int, seed: int) -> nn.Conv2d:
    """The encoder's last layer: means of all latents, then logarithms of their variances."""
    new = _conv_like(old, None, 2 * wider)
    spread = NEW_LATENT_SCALE * float(old.weight[:latents].std())
    drawn = torch.randn(new.weight[:wider].shape, generator=torch.Generator().manual_seed(seed))
    new.weight[:wider] = drawn * spread
    new.weight[:latents] = old.weight[:latents]
    new.weight[wider : wider + latents] = old.weight[latents:]
    bias = _bias(new)
    bias[wider:] = NEW_LATENT_LOG_VARIANCE
    bias[:latents] = _bias(old)[:latents]
    bias[wider : wider + latents] = _bias(old)[latents:]
    return new


def _wider_mixing(old: nn.Conv2d | None, kept: list[int], channels: int) -> nn.Conv2d | None:
    """A 1x1 convolution that does on the kept channels what it did, and leaves the others as they are."""
    if old is None:
        return None
    new = _conv_like(old, channels, channels)
    rows = torch.tensor(kept)
    new.weight[:, :, 0, 0] = torch.eye(channels)
    new.weight[rows[:, None], rows[None]] = old.weight
    _bias(new)[rows] = _bias(old)
    return new


def _check_folder(folder: Path) -> None:
    """Refuse what is not a Stable Diffusion 1.5 or 2.1 folder before anything large is read."""
    index = folder / "model_index.json"
    if not index.is_file():
        found = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"{folder}: expected a Stable Diffusion 1.5 or 2.1 folder in diffusers' layout (model_index.json, unet/, "
            f"vae/, text_encoder/, tokenizer/, scheduler/), got {found}; a single .safetensors file has to be "
            "converted with diffusers' StableDiffusionPipeline.from_single_file(FILE).save_pretrained(DIR)"
        )
    try:
        entries: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{index}: not JSON: {error}") from error
    found_classes = {name: (entries.get(name) or [None, None])[1] for name in COMPONENTS}
    if found_classes != COMPONENTS or "text_encoder_2" in entries:
        raise CheckpointError(
            f"{folder}: expected the parts of Stable Diffusion 1.5 or 2.1, {COMPONENTS}, got a "
            f"{entries.get('_class_name')} with {found_classes}"
        )
    for name in COMPONENTS:
        part = folder / name
        if not part.is_dir():
            raise CheckpointError(f"{folder}: expected the folder {name}/, which model_index.json names; got none")
        if name == "tokenizer" or list(part.glob("*.safetensors")):
            continue
        files = sorted(path.name for path in part.iterdir())
        pickles = [file for file in files if Path(file).suffix in PICKLE_SUFFIXES]
        raise CheckpointError(
            f"{part}: expected weights as .safetensors, got {pickles or files}; "
            + ("pickled files run code when opened and are refused: " if pickles else "")
            + "download the .safetensors files of this model"
        )
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise CheckpointError(f"{folder}: expected scheduler/scheduler_config.json, got none")


def _load(component: Any, folder: Path, name: str) -> Any:  # noqa: ANN401  (three unrelated classes)
    """One network in single precision; half-precision files are taken where there are no others."""
    files = [path.name for path in (folder / name).glob("*.safetensors")]
    options: dict[str, Any] = {"variant": "fp16"} if all(".fp16" in file for file in files) else {}
    if name != "text_encoder":
        options["low_cpu_mem_usage"] = False  # the other way needs the package accelerate
    fixed = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        network, report = component.from_pretrained(folder, subfolder=name, **fixed, **options)
    except Exception as error:  # damaged files raise anything from OSError to safetensors' own class
        raise CheckpointError(f"{folder / name}: could not be loaded: {_short(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(f"{folder / name}: expected all weights of {type(network).__name__}, lacks {missing[:3]}")
    return network.float().eval()


def _check_shapes_of(folder: Path, vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: Any) -> None:  # noqa: ANN401
    """Refuse relatives of Stable Diffusion whose networks have other inputs or outputs."""
    found = {
        "channels of the VAE": (int(vae.config["in_channels"]), 3),
        "latents of the VAE": (int(vae.config["latent_channels"]), 4),
        "inputs of the U-Net": (int(unet.config["in_channels"]), 4),
        "outputs of the U-Net": (int(unet.config["out_channels"]), 4),
        "width of the text": (int(text_encoder.config.hidden_size), unet.config["cross_attention_dim"]),
    }
    wrong = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    if wrong:
        said = ", ".join(f"{name}: expected {expected}, got {got}" for name, (got, expected) in wrong.items())
        raise CheckpointError(f"{folder}: not Stable Diffusion 1.5 or 2.1: {said}; inpainting and others do not fit")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]  # torch lists every tensor
