"""Checkpoint folders of the full model: made of a Stable Diffusion folder, and with parts replaced after training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from momap_ros.conditioning import HINT_CHANNELS
from momap_ros.files import atomic_path
from momap_ros.model.checkpoint import CheckpointError, find_checkpoint, read_info, write_info
from momap_ros.model.dense_scene import CONDITIONS, check_image_size
from momap_ros.model.duration_head import DurationHead
from momap_ros.model.full_pipeline import FullMoMapPipeline
from momap_ros.model.inflate import (
    LATENT_CHANNELS,
    NUM_STEPS,
    full_scheduler,
    inflate_unet,
    inflate_vae,
    read_stable_diffusion,
)
from momap_ros.model.pipeline import MoMapPipeline


def make_full_checkpoint(
    stable_diffusion: Path,
    out: Path,
    *,
    num_steps: int = NUM_STEPS,
    latent_channels: int = LATENT_CHANNELS,
    image_size: int = 256,
    prediction_type: str = "v_prediction",
    with_hints: bool = False,
    seed: int = 0,
) -> int:
    """Inflate a local Stable Diffusion folder into a full checkpoint, whole or not at all.

    Args:
        stable_diffusion: 1.5 or 2.1 in diffusers' layout, safetensors.
        out: checkpoint folder, new.
        num_steps: T.
        latent_channels: of the MoMap VAE.
        image_size: side of the square images, pixels; a multiple of 64.
        prediction_type: what the U-Net predicts, see `full_scheduler`.
        with_hints: True gives the U-Net inputs for direction hints.
        seed: of the few weights that are new and not zero.

    Returns:
        Size of the folder, bytes.

    Raises:
        CheckpointError: the source cannot be used.
        FileExistsError: `out` is there already.
    """
    if out.exists():
        raise FileExistsError(f"{out}: expected a new folder, it exists already; remove it or choose another")
    check_image_size(image_size)
    with tqdm(total=4, desc="init-full", unit="part") as progress:
        progress.set_postfix_str("reading")
        source = read_stable_diffusion(stable_diffusion)
        progress.update()
        progress.set_postfix_str("widening the VAE")
        momap_vae = inflate_vae(source.vae, num_steps, latent_channels, seed=seed)
        progress.update()
        progress.set_postfix_str("widening the U-Net")
        scene_channels = len(CONDITIONS) * int(source.vae.config["latent_channels"])
        inputs = latent_channels + scene_channels + (HINT_CHANNELS if with_hints else 0)
        pipeline = FullMoMapPipeline(
            vae=source.vae,
            momap_vae=momap_vae,
            unet=inflate_unet(source.unet, inputs, latent_channels),
            text_encoder=source.text_encoder,
            tokenizer=source.tokenizer,
            duration_head=DurationHead(
                text_width=int(source.text_encoder.config.hidden_size), scene_channels=scene_channels
            ),
            scheduler=full_scheduler(source.noise, prediction_type),
            image_size=image_size,
        )
        progress.update()
        progress.set_postfix_str("writing")
        with atomic_path(out) as folder:
            pipeline.save_pretrained(folder)
            write_info(folder, num_steps, {}, model="full", latent_samples=0)
        progress.update()
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def load_full(name_or_folder: str | Path) -> tuple[Path, FullMoMapPipeline, dict[str, Any]]:
    """A full checkpoint's folder, its pipeline on the CPU, and its momap.json.

    Raises:
        CheckpointError: it cannot be used, or is a small one.
    """
    folder = find_checkpoint(str(name_or_folder))
    info = read_info(folder)
    if info["model"] != "full":
        raise CheckpointError(
            f"checkpoint {folder}: expected a full-size one, got a {info['model']} one; make it with "
            "`momap init-full --sd-dir DIR --out DIR`"
        )
    pipeline = MoMapPipeline.from_pretrained(folder)
    assert isinstance(pipeline, FullMoMapPipeline)
    return folder, pipeline, info


def replace_parts(base: Path, out: Path, parts: dict[str, nn.Module], facts: dict[str, object]) -> None:
    """Write a copy of a full checkpoint with some of its networks replaced, whole or not at all.

    Args:
        base: checkpoint folder that the others come from.
        out: checkpoint folder; replaced if it is there.
        parts: component -> network, a diffusers model.
        facts: fields of momap.json that change.
    """
    info = read_info(base) | facts
    with atomic_path(out) as folder:
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns(*parts))
        for name, network in parts.items():
            network.save_pretrained(folder / name)  # type: ignore[operator]  # diffusers' mix-in
        known = ("format", "package_version")
        write_info(folder, **{name: value for name, value in info.items() if name not in known})
