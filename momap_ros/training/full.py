"""Train the U-Net of a full checkpoint: `momap train full --help`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from momap_ros.data.shard_index import ShardIndex
from momap_ros.model.checkpoint import CheckpointError
from momap_ros.model.dense_scene import LATENT_STRIDE
from momap_ros.model.full_checkpoint import load_full, replace_parts
from momap_ros.model.full_pipeline import FullMoMapPipeline, encode_conditions, encode_text
from momap_ros.model.momap_vae import encode_momaps
from momap_ros.training.dense import DenseBatch, DenseDrops
from momap_ros.training.dense_loop import DenseLaunch, add_launch_options, given_options, launch_run

DESCRIPTION = """
Train the U-Net of a full checkpoint to draw the latents of stored samples' MoMaps, and the length of their motion.

VAEs and CLIP stay as they are. Needs a GPU at real size: `momap init-full --describe` says how much memory.

example:
  momap train full --checkpoint runs/vae/checkpoint --data shards --out runs/full --steps 50000 --batch-size 32
  momap train full ... --processes 4 --accumulate 2 --gradient-checkpointing      four GPUs, less memory each

what comes out, in --out: log.csv, state.pt (an interrupted run continues), checkpoint/ for `momap forecast
--checkpoint` and the node.
"""


@dataclass(frozen=True)
class FullTraining:
    """Everything that decides the result of a run, beside checkpoint and data.

    Attributes:
        steps: optimizer steps.
        batch_size: samples per step, all processes together.
        learning_rate: peak of the cosine.
        warmup_steps: linear rise.
        ema_decay: of the averaged weights that are kept.
        weight_decay: of AdamW.
        moving_weight: what a moving latent counts more than one at rest.
        duration_weight: of the duration loss.
        seed: of data order, faults and noise.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 3e-5
    warmup_steps: int = 1000
    ema_decay: float = 0.9999
    weight_decay: float = 1e-2
    moving_weight: float = 4.0
    duration_weight: float = 0.05
    seed: int = 0


class FullModel(nn.Module):
    """U-Net and duration head as one module, so that they train and average together."""

    def __init__(self, pipeline: FullMoMapPipeline) -> None:
        """Take the pipeline's."""
        super().__init__()
        self.unet, self.duration_head = pipeline.unet, pipeline.duration_head


@torch.no_grad()
def conditions_of(pipeline: FullMoMapPipeline, batch: DenseBatch) -> torch.Tensor:
    """(B, 12 + hint channels, S/8, S/8): latents of the images that are given, zeros for those that are not."""
    latents = encode_conditions(pipeline.vae, batch.images)
    per_image = latents.shape[1] // batch.kept.shape[1]
    latents = latents * batch.kept.repeat_interleave(per_image, dim=1)[..., None, None]
    return torch.cat([latents, batch.hints], dim=1) if pipeline.hint_channels else latents


def full_loss(
    model: FullModel, pipeline: FullMoMapPipeline, batch: DenseBatch, options: FullTraining
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Squared error of what the U-Net predicts, and the absolute one of the logarithm of the duration.

    Paper: Sec. 3.3.3; its loss is not described. This is Stable Diffusion's, weighted by what moves; v-prediction after
    Salimans and Ho, arXiv:2202.00512.
    """
    scheduler = pipeline.scheduler
    # Rounded latents would be what is learned.
    with torch.no_grad(), torch.autocast(batch.momaps.device.type, enabled=False):
        latents = encode_momaps(pipeline.momap_vae, batch.momaps)
    with torch.no_grad():
        conditions = conditions_of(pipeline, batch)
        text = encode_text(pipeline.text_encoder, pipeline.tokenizer, batch.prompts)
    noise = batch.noise(*latents.shape[1:])
    timesteps = batch.timesteps(int(scheduler.config["num_train_timesteps"]))
    noisy = scheduler.add_noise(latents, noise, timesteps)
    is_velocity = scheduler.config["prediction_type"] == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    predicted = model.unet(torch.cat([noisy, conditions], dim=1), timesteps, encoder_hidden_states=text).sample.float()
    weight = 1 + options.moving_weight * functional.max_pool2d(batch.moving, LATENT_STRIDE)
    weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)  # every sample counts alike
    denoising = ((predicted - target) ** 2 * weight).mean()
    images = conditions[:, : conditions.shape[1] - pipeline.hint_channels]
    duration = functional.l1_loss(model.duration_head(text, images).float(), batch.log_duration)
    loss = denoising + options.duration_weight * duration
    parts = {"loss": loss, "denoising": denoising, "duration": duration}
    return loss, {name: value.detach() for name, value in parts.items()}


class FullObjective:
    """The U-Net and the duration head, trained on the latents of true MoMaps."""

    def __init__(self, launch: DenseLaunch, options: FullTraining, device: str) -> None:
        """Load the checkpoint and freeze what is not trained.

        Raises:
            CheckpointError: the latents of its MoMap VAE were never measured.
        """
        self.launch, self.options = launch, options
        self.folder, self.pipeline, self.info = load_full(launch.checkpoint)
        if not self.info["latent_samples"]:
            raise CheckpointError(
                f"checkpoint {self.folder}: expected measured latents, without them noise of unit size does not fit; "
                "run momap train vae first (--steps 0 measures alone)"
            )
        self.image_size, self.num_steps = int(self.pipeline.config["image_size"]), self.pipeline.num_steps
        self.drops = DenseDrops(hints=self.pipeline.hint_channels > 0)
        for network in (self.pipeline.vae, self.pipeline.momap_vae, self.pipeline.text_encoder):
            network.to(device).requires_grad_(requires_grad=False).eval()
        self.trained = FullModel(self.pipeline).to(device).train()
        if launch.checkpointing:
            self.pipeline.unet.enable_gradient_checkpointing()

    @property
    def model(self) -> nn.Module:
        """U-Net and duration head."""
        return self.trained

    def loss(self, batch: DenseBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `full_loss`."""
        return full_loss(self.trained, self.pipeline, batch, self.options)

    def finish(self, average: nn.Module, index: ShardIndex, step: int) -> None:
        """Write the checkpoint with the averaged weights."""
        assert isinstance(average, FullModel)
        training = self.info["training"] | {
            "full": {
                "options": asdict(self.options),
                "steps_done": step,
                "samples_seen": step * self.options.batch_size,
                "samples": len(index),
            }
        }
        parts: dict[str, nn.Module] = {"unet": average.unet, "duration_head": average.duration_head}
        replace_parts(self.folder, self.launch.out / "checkpoint", parts, {"training": training})


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train full", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder made by momap train vae")
    add_launch_options(parser)
    arguments = parser.parse_args()
    options = FullTraining(**given_options(arguments))
    launch_run(arguments, arguments.checkpoint.absolute(), options, FullObjective)
    tqdm.write(f"{arguments.out / 'checkpoint'}: for momap forecast --checkpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
