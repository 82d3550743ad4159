"""Train the small model: `momap train small --help`."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn

from momap_ros.conditioning import BLINDABLE, CONDITION_CHANNELS
from momap_ros.model.codec import load_codec
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.device import training_autocast
from momap_ros.model.noise import NoiseShares
from momap_ros.model.prediction import PREDICTIONS, target_of
from momap_ros.model.scene_encoder import SceneEncoder
from momap_ros.model.schedule import shifted_cosine_scheduler
from momap_ros.training.batches import Batch
from momap_ros.training.drive import (
    Course,
    Launch,
    add_numbers,
    add_run_options,
    drive,
    given_launch,
    given_options,
    start,
)
from momap_ros.training.earlier_weights import start_from
from momap_ros.training.loop import device_of, process_group
from momap_ros.training.scene_losses import encoder_loss, scene_losses, turning_loss, weighed_by_length
from momap_ros.training.scene_run import SceneRun
from momap_ros.training.steps import DrawnStep, SmallTraining, error_map, latent_loss
from momap_ros.training.time_box import begin
from momap_ros.training.validation import Validation

LOSSES = ("latent", "mask", "instance", "naming", "motion", "duration", "turning", "expected_turn")


@dataclass(frozen=True)
class SmallLaunch(Launch[SmallTraining]):
    """Where and how a run happens.

    Attributes:
        compiled: True compiles the networks, for a GPU; it takes about two minutes.
    """

    compiled: bool = False


class SmallModel(nn.Module):
    """Scene encoder and denoiser as one module, so that they train and average together."""

    def __init__(self, vocabulary: list[str], latent_channels: int, options: SmallTraining) -> None:
        """Build both with random weights."""
        super().__init__()
        self.scene_encoder = SceneEncoder(
            vocabulary=vocabulary,
            width=options.encoder_width,
            num_layers=options.encoder_layers,
            latent_channels=latent_channels,
            blind_to=tuple(options.blind_to),
            expects_turns=options.expects_turns,
        )
        written = self.scene_encoder.config.written_channels + latent_channels
        self.denoiser = SmallDenoiser(
            latent_channels=latent_channels,
            condition_channels=CONDITION_CHANNELS + written,
            channels=options.channels,
            context_width=options.encoder_width,
            noise_shares=options.noise_shares,
            prediction=options.prediction,
        )
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = options.dropout


def training_loss(
    model: SmallModel,
    batch: Batch,
    *,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    weighing: torch.Tensor,
    options: SmallTraining,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted squared error of what the denoiser predicts and what the scene encoder is asked besides.

    Paper: Sec. 3.3.3 trains the denoiser on latents; the balance over instances and the auxiliary heads are ours.
    """
    alpha = alphas_cumprod[timesteps].float()[:, None, None, None]
    noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise
    with training_autocast(noise.device):
        scene = model.scene_encoder(batch.conditioning)
        output, moving_logits = model.denoiser(noisy, timesteps, scene)
    error = output.float() - target_of(batch.latents, noise, alpha, options.prediction)
    weights = batch.weights
    if options.by_length:
        weights = weighed_by_length(weights, scene.motion.float(), batch, weighing)
    latent = latent_loss(error, weights, weighing)
    mask = functional.binary_cross_entropy_with_logits(moving_logits.float(), batch.moving, batch.weights[:, 0])
    parts = {"mask": mask} | scene_losses(
        scene, batch, weighing, turns=options.expects_turns, by_length=options.by_length
    )
    if options.turning_weight:
        parts["turning"] = turning_loss(error, batch, weighing)
    loss = latent + sum(getattr(options, f"{name}_weight") * value for name, value in parts.items())
    parts["latent"] = latent
    return loss, {name: value.detach() for name, value in parts.items()}


class Run(SceneRun[SmallModel, SmallTraining]):
    """The state of a training run: built new or continued from its folder."""

    def __init__(
        self, data: Path, out: Path, options: SmallTraining, *, rank: int, world: int, device: str = "cpu"
    ) -> None:
        """Load data and codec, build the model, and resume where the folder has a state."""
        self.options, self.rank, self.world = options, rank, world
        self.device = torch.device(device)
        self.split = options.split(data)
        self.codec = load_codec(data / "codec")
        vocabulary = json.loads((data / "vocabulary.json").read_text())
        torch.manual_seed(options.seed)
        super().__init__(out, SmallModel(vocabulary, self.codec.latent_channels, options).to(self.device), options)
        if not self.resume() and options.start_from:
            start_from(self.model, Path(options.start_from))
            self.average.load_state_dict(self.model.state_dict())
        scheduler = shifted_cosine_scheduler(options.shift)
        self.alphas_cumprod = scheduler.alphas_cumprod.to(self.device)
        self.weighing = error_map(self.codec, options.end_weight).to(self.device)

    def loss(self, model: SmallModel, drawn: DrawnStep) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of the whole model and its parts.

        Args:
            model: of this run: its present weights, or their average.
            drawn: scenes, timesteps and noise.
        """
        batch = drawn.batch(self.codec, self.device)
        return training_loss(
            model,
            batch,
            noise=drawn.noise(batch, NoiseShares(*self.options.noise_shares)),
            timesteps=drawn.timesteps.to(self.device),
            alphas_cumprod=self.alphas_cumprod,
            weighing=self.weighing,
            options=self.options,
        )

    def step_loss(self, drawn: DrawnStep) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of the scene encoder alone in the first steps, then of the whole model."""
        options = self.options
        if options.dropout:
            torch.manual_seed(drawn.noise_seed)  # the noise of the step has a generator of its own
        if self.step >= options.encoder_steps:
            return self.loss(self.model, drawn)
        batch = drawn.batch(self.codec, self.device)
        return encoder_loss(self.model.scene_encoder, batch, self.weighing, by_length=options.by_length)


def run(rank: int, launch: SmallLaunch) -> None:
    """Train in this process; process 0 writes."""
    torch.set_num_threads(1)
    with process_group(rank, launch.workers, launch.out, launch.device):
        device = device_of(launch.device, rank)
        state = Run(launch.data, launch.out, launch.options, rank=rank, world=launch.workers, device=device)
        if launch.compiled:
            state.model.scene_encoder.compile()
            state.model.denoiser.compile()
        begin(state, launch.box, launch.loaders)
        validation = Validation.of(launch.data, state.split) if rank == 0 else None

        def save() -> None:
            state.save()
            if validation:
                losses = validation.losses(partial(state.loss, state.average))
                state.log({"step": state.step} | losses, "validation.csv")

        drive(state, Course("train small", LOSSES, ("latent", "motion"), rank == 0), launch, save)


def train(launch: SmallLaunch) -> None:
    """Train in processes of their own, see `drive.start`."""
    start(run, launch)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of the model."""
    numbers = {
        "encoder-width": "of the scene encoder's tokens",
        "encoder-layers": "of the scene encoder",
        "turning-weight": "share of the loss for how instances turn, measured by their own size",
        "dropout": "share of hidden values that is dropped",
    }
    add_numbers(parser, SmallTraining, numbers)
    parser.add_argument(
        "--channels", type=int, nargs=2, default=SmallTraining.channels, help="of the denoiser (default 96 192)"
    )
    parser.add_argument(
        "--prediction",
        choices=PREDICTIONS,
        default="sample",
        help="what the denoiser predicts: clean latents (sample, the default), noise (epsilon), v or flow",
    )
    parser.add_argument("--expects-turns", action="store_true", help="the scene encoder says how instances turn, too")
    parser.add_argument(
        "--by-length",
        action="store_true",
        help="errors count by the length of a motion and not by its square: what goes a short way is learned as well",
    )
    parser.add_argument(
        "--blind-to", nargs="+", choices=list(BLINDABLE), default=[], help="conditions that the model never sees"
    )


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="momap train small",
        description="Train the small model, scene encoder and diffusion U-Net, on prepared samples. An interrupted "
        "run, even one that was killed, continues in the same order of samples. What comes out: log.csv, "
        "validation.csv (losses of the averaged weights on samples learned from and on others), options.json, and "
        "state.pt, of which `momap train export` makes a checkpoint.",
        epilog="examples: momap train small --data prepared --out runs/small --steps 6600 --encoder-steps 3000 (80 "
        "minutes of two cores); with a GPU: --workers 1 --device cuda --loaders 12 --batch-size 512 --minutes 8, or "
        "scripts/train_on_gpu.sh, which simulates the samples beside it",
    )
    add_run_options(parser)
    parser.add_argument(
        "--start-from",
        type=Path,
        help="begin with the weights of this run or checkpoint folder: to train longer, or to fit them to other data",
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks first, for a GPU (two minutes)")
    add_model_options(parser)
    return parser


def options_of(arguments: argparse.Namespace) -> SmallTraining:
    """What the command line asks for."""
    given = given_options(arguments, SmallTraining)
    given |= {
        "start_from": str(arguments.start_from.absolute()) if arguments.start_from else "",
        "blind_to": tuple(sorted(set(arguments.blind_to))),
        "channels": tuple(arguments.channels),
    }
    return SmallTraining(**given)


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()
    train(SmallLaunch(options=options_of(arguments), compiled=arguments.compile, **given_launch(arguments)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
