"""Train the MoMap VAE of a full checkpoint, and measure its latents: `momap train vae --help`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from momap_ros.data.shard_index import ShardIndex
from momap_ros.model.full_checkpoint import load_full, replace_parts
from momap_ros.model.inflate import IMAGE_CHANNELS
from momap_ros.model.momap_vae import set_latent_statistics
from momap_ros.training.dense import EXACT, DenseBatch, DenseDrops, dense_sample
from momap_ros.training.dense_loop import DenseLaunch, add_launch_options, given_options, launch_run

DESCRIPTION = """
Train the MoMap VAE of a full checkpoint on stored samples, then measure mean and size of its latents.

example:
  momap train vae --checkpoint full-0 --data shards --out runs/vae --steps 20000 --batch-size 16
  momap train vae --checkpoint full-0 --data shards --out runs/statistics --steps 0      measure alone

what comes out, in --out: log.csv, state.pt (an interrupted run continues), checkpoint/ for `momap train full`.
"""


@dataclass(frozen=True)
class VaeTraining:
    """Everything that decides the result of a run, beside checkpoint and data.

    Attributes:
        steps: optimizer steps; 0 measures the latents alone.
        batch_size: samples per step, all processes together.
        learning_rate: peak of the cosine.
        warmup_steps: linear rise.
        ema_decay: of the averaged weights that are kept.
        weight_decay: of AdamW.
        motion_weight: of the displacements' error, beside that of the positions.
        moving_weight: what a moving pixel counts more than one at rest.
        kl_weight: of the latents' divergence from unit Gaussians, per value of the MoMap; Stable Diffusion's.
        statistics_samples: samples that the latents are measured on.
        seed: of data order and noise.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-4
    warmup_steps: int = 500
    ema_decay: float = 0.999
    weight_decay: float = 1e-4
    motion_weight: float = 1.0
    moving_weight: float = 4.0
    kl_weight: float = 1e-6
    statistics_samples: int = 1000
    seed: int = 0


def vae_loss(vae: Any, batch: DenseBatch, options: VaeTraining) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # noqa: ANN401
    """Reconstruction of positions and of displacements, and the latents' divergence.

    Paper: Sec. 3.3.2 finetunes the VAE "with MoMap data" and names no loss. Absolute errors and the divergence are
    those of Stable Diffusion's VAE (Rombach et al., arXiv:2112.10752) without its losses on pictures; the displacements
    are ours, because they are what is decoded for.

    Returns:
        The loss; and its parts, with `moving_mm`: mean error of the displacements of moving pixels, millimetres.
    """
    true = batch.momaps.unflatten(1, (-1, IMAGE_CHANNELS))  # (B, T, 3, S, S)
    posterior = vae.encode(batch.momaps).latent_dist
    latents = posterior.mean + posterior.std * batch.noise(*posterior.mean.shape[1:])
    drawn = vae.decode(latents).sample.float().unflatten(1, (-1, IMAGE_CHANNELS))
    weight = (batch.valid * (1 + options.moving_weight * batch.moving))[:, None]  # (B, 1, 1, S, S)
    weight = weight / weight.mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-6)  # every sample counts alike
    position = ((drawn - true).abs() * weight).mean()
    wrong = (drawn - drawn[:, :1]) - (true - true[:, :1])
    motion = (wrong.abs() * weight).mean()
    divergence = posterior.kl().sum() / batch.momaps.numel()
    loss = position + options.motion_weight * motion + options.kl_weight * divergence
    with torch.no_grad():
        mask = (batch.moving * batch.valid)[:, None, 0]  # (B, 1, S, S)
        error_m = wrong.norm(dim=2) * batch.scale_m[:, None, None, None]
        moving_mm = 1e3 * (error_m * mask).sum() / (mask.sum() * wrong.shape[1]).clamp(min=1)
    parts = {"loss": loss, "position": position, "motion": motion, "divergence": divergence, "moving_mm": moving_mm}
    return loss, {name: value.detach() for name, value in parts.items()}


@torch.no_grad()
def measure_latents(
    vae: Any,  # noqa: ANN401
    index: ShardIndex,
    image_size: int,
    *,
    samples: int,
    seed: int,
    progress: bool = True,
) -> int:
    """Store mean and standard deviation of every latent channel, over samples spread evenly; returns their number."""
    device = next(vae.parameters()).device
    numbers = np.unique(np.linspace(0, len(index) - 1, min(samples, len(index))).astype(int))
    total = square = torch.zeros((), dtype=torch.float64)
    count = 0
    for number in tqdm(numbers, desc="latents", unit="sample", disable=not progress):
        rng = np.random.default_rng([seed, 3, int(number)])
        images = dense_sample(index[int(number)], image_size, EXACT, rng).momaps.to(device)
        latents = vae.encode(images).latent_dist.mode().double().cpu()
        total = total + latents.sum(dim=(0, 2, 3))
        square = square + (latents**2).sum(dim=(0, 2, 3))
        count += latents[:, 0].numel()
    mean = total / count
    set_latent_statistics(vae, mean, (square / count - mean**2).clamp(min=0).sqrt())
    return len(numbers)


class VaeObjective:
    """The MoMap VAE, trained to say what it reads."""

    drops: DenseDrops = EXACT

    def __init__(self, launch: DenseLaunch, options: VaeTraining, device: str) -> None:
        """Load the checkpoint's MoMap VAE."""
        self.launch, self.options = launch, options
        self.folder, pipeline, self.info = load_full(launch.checkpoint)
        self.image_size, self.num_steps = int(pipeline.config["image_size"]), pipeline.num_steps
        self.vae = pipeline.momap_vae.to(device).train()
        if launch.checkpointing:
            self.vae.enable_gradient_checkpointing()

    @property
    def model(self) -> nn.Module:
        """The VAE."""
        vae: nn.Module = self.vae
        return vae

    def loss(self, batch: DenseBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `vae_loss`."""
        return vae_loss(self.vae, batch, self.options)

    def finish(self, average: nn.Module, index: ShardIndex, step: int) -> None:
        """Measure the averaged network's latents and write the checkpoint."""
        options = self.options
        average.eval()
        count = measure_latents(average, index, self.image_size, samples=options.statistics_samples, seed=options.seed)
        training = self.info["training"] | {
            "vae": {"options": asdict(options), "steps_done": step, "samples_seen": step * options.batch_size}
        }
        facts: dict[str, object] = {"latent_samples": count, "training": training}
        replace_parts(self.folder, self.launch.out / "checkpoint", {"momap_vae": average}, facts)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train vae", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder made by momap init-full")
    add_launch_options(parser)
    # A displacement is a difference of positions: the eight bits of bfloat16 would leave several millimetres.
    parser.set_defaults(precision="float32")
    parser.add_argument(
        "--statistics-samples", type=int, default=1000, help="samples the latents are measured on (default: 1000)"
    )
    arguments = parser.parse_args()
    options = VaeTraining(statistics_samples=arguments.statistics_samples, **given_options(arguments))
    launch_run(arguments, arguments.checkpoint.absolute(), options, VaeObjective)
    tqdm.write(f"{arguments.out / 'checkpoint'}: for momap train full")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
