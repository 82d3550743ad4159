"""Train a baseline on the small model's data, in its data order: `momap train baseline --help`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from momap_ros.baselines import conditional_vae, general_flow
from momap_ros.baselines.checkpoint import KINDS, Baseline, Widths
from momap_ros.model.codec import load_codec
from momap_ros.training.drive import Course, Launch, add_run_options, drive, given_launch, given_options, start
from momap_ros.training.loop import device_of, process_group
from momap_ros.training.scene_losses import encoder_loss
from momap_ros.training.scene_run import SceneRun
from momap_ros.training.steps import DrawnStep, PhasedTraining, error_map
from momap_ros.training.time_box import begin

KL_WEIGHTS = {
    "momap-vae": 1e-3,
    "general-flow-original": 1e-2,
    "general-flow-rollout": 1e-2,
    "general-flow-extend": 1e-2,
}


@dataclass(frozen=True, kw_only=True)
class BaselineTraining(PhasedTraining):
    """Everything that decides the result of a run, beside the data and the number of processes.

    Attributes:
        kind: one of KINDS.
        kl_weight: of the divergence from the prior.
        kl_warmup: share of the steps over which that weight rises from 0.
        widths: of the network.
        loss_weights: of the auxiliary losses; General Flow has the duration's alone.
    """

    kind: str
    kl_weight: float
    kl_warmup: float = 0.2
    widths: Widths = field(default_factory=Widths)
    loss_weights: conditional_vae.LossWeights = field(default_factory=conditional_vae.LossWeights)

    def kl_weight_at(self, step: int) -> float:
        """Linear rise, then constant."""
        rise = self.kl_warmup * (self.steps - self.encoder_steps)
        return self.kl_weight * min(1.0, (step + 1 - self.encoder_steps) / max(rise, 1))

    @property
    def losses(self) -> tuple[str, ...]:
        """Parts of the loss."""
        own = ("latent", "kl", "mask", "instance", "naming", "motion", "duration")
        return own if self.kind == "momap-vae" else ("shape", "length", "position", "kl", "duration")


class Run(SceneRun[conditional_vae.ConditionalVAE | general_flow.GeneralFlow, BaselineTraining]):
    """The state of a training run: built new or continued from its folder."""

    def __init__(
        self, data: Path, out: Path, options: BaselineTraining, *, rank: int, world: int, device: str = "cpu"
    ) -> None:
        """Load data and codec, build the model, and resume where the folder has a state.

        Raises:
            ValueError: less data than one batch, or other data than the run began with.
        """
        self.options, self.rank, self.world, self.device = options, rank, world, torch.device(device)
        self.split = options.split(data)
        codec = load_codec(data / "codec")
        torch.manual_seed(options.seed)
        vocabulary = json.loads((data / "vocabulary.json").read_text())
        self.baseline = Baseline.new(options.kind, vocabulary, codec, options.widths)
        super().__init__(out, self.baseline.model.to(self.device), options)
        began_with = self.resume().get("samples", len(self.split))
        if began_with != len(self.split) and not options.grows:
            raise ValueError(
                f"{out}: expected the {began_with} samples that the run began with, got {len(self.split)} in {data}; "
                "give another --out for other data"
            )
        self.weighing = error_map(codec, options.end_weight).to(self.device)
        codec.to(self.device)  # type: ignore[arg-type]  # diffusers wraps it and loses its signature

    def save(self, **facts: int) -> None:
        """Write the state and the checkpoint, each whole or not at all."""
        super().save(samples=len(self.split), **facts)
        training = {
            "options": asdict(self.options),
            "steps_done": self.step,
            "samples_seen": self.step * self.options.batch_size,
            "samples": len(self.split),
        }
        self.baseline.save(self.out / "checkpoint", self.average, training)

    def step_loss(self, drawn: DrawnStep) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of the scene encoder alone in the first steps of MoMap-VAE, else of the whole model."""
        options, model, codec = self.options, self.model, self.baseline.codec
        batch = drawn.batch(codec, self.device)
        # Drawn on the CPU, so that a seed means the same on every device; there is little of it.
        generator = torch.Generator().manual_seed(drawn.noise_seed)
        kl_weight = options.kl_weight_at(self.step)
        if isinstance(model, conditional_vae.ConditionalVAE):
            if self.step < options.encoder_steps:
                return encoder_loss(model.scene_encoder, batch, self.weighing)
            code = (conditional_vae.CODE_CHANNELS, conditional_vae.CODE_GRID, conditional_vae.CODE_GRID)
            return conditional_vae.training_loss(
                model,
                batch,
                noise=torch.randn(len(batch.latents), *code, generator=generator).to(self.device),
                weighing=self.weighing,
                kl_weight=kl_weight,
                weights=options.loss_weights,
            )
        scale_m = drawn.scenes.scale_m.to(self.device)
        flow = general_flow.flow_batch(batch, scale_m, codec=codec, settings=model.settings, generator=generator)
        noise = torch.randn(*flow.queries.cells.shape, model.settings.code_size, generator=generator).to(self.device)
        return general_flow.training_loss(
            model, flow, noise=noise, kl_weight=kl_weight, duration_weight=options.loss_weights.duration
        )


def run(rank: int, launch: Launch[BaselineTraining]) -> None:
    """Train in this process; process 0 writes."""
    torch.set_num_threads(1)
    with process_group(rank, launch.workers, launch.out, launch.device):
        device = device_of(launch.device, rank)
        state = Run(launch.data, launch.out, launch.options, rank=rank, world=launch.workers, device=device)
        begin(state, launch.box, launch.loaders)
        course = Course(f"train {state.options.kind}", state.options.losses, ("kl",), rank == 0)
        drive(state, course, launch, state.save)


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="momap train baseline",
        description="Train what the paper compares with, on the data of `momap train small` and in its order.",
        epilog="example: momap train baseline --kind momap-vae --data prepared/ --out runs/vae --steps 6500. What "
        "comes out: RUN/checkpoint (safetensors, JSON), log.csv, options.json. An interrupted run continues.",
    )
    parser.add_argument("--kind", required=True, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    add_run_options(parser)
    return parser


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()
    reads = arguments.kind == "momap-vae"
    if arguments.encoder_steps and not reads:
        raise ValueError(f"--encoder-steps: expected 0, {arguments.kind} has no scene encoder; leave the option out")
    given = given_options(arguments, BaselineTraining)
    options = BaselineTraining(kl_weight=KL_WEIGHTS[arguments.kind], **given)
    start(run, Launch(options=options, **given_launch(arguments, has_encoder=reads)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
