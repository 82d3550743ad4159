"""Train a baseline on the small model's data, in its data order: `momap train baseline --help`."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from momap_ros.baselines import conditional_vae, general_flow
from momap_ros.baselines.checkpoint import KINDS, Baseline, Widths
from momap_ros.data.prepared import PreparedSplit
from momap_ros.files import atomic_path
from momap_ros.model.codec import load_codec
from momap_ros.training.batches import make_batch
from momap_ros.training.loop import (
    TrainingState,
    batch_indices,
    check_samples,
    keep_options,
    process_group,
    start_workers,
)
from momap_ros.training.scene_losses import encoder_loss
from momap_ros.training.scenes import TRAINING
from momap_ros.training.steps import SmallTraining, error_map, step_size

KL_WEIGHTS = {
    "momap-vae": 1e-3,
    "general-flow-original": 1e-2,
    "general-flow-rollout": 1e-2,
    "general-flow-extend": 1e-2,
}
LOG_EVERY = 100


@dataclass(frozen=True)
class BaselineTraining:
    """Everything that decides the result of a run, beside the data and the number of processes.

    The defaults that the small model has too are its own, so that equal steps are an equal budget of samples.

    Attributes:
        kind: one of KINDS.
        steps: optimizer steps, all together.
        encoder_steps: the first of them, which train MoMap-VAE's scene encoder alone, as the small model's do.
        kl_weight: of the divergence from the prior.
        kl_warmup: share of the steps over which that weight rises from 0.
        widths: of the network.
        batch_size: scenes per step, all processes together.
        learning_rate: peak of the cosine.
        warmup_steps: linear rise of the learning rate.
        ema_decay: of the averaged weights that are kept.
        loss_weights: of the auxiliary losses; General Flow has the duration's alone.
        seed: of weights, data order, faults and noise.
    """

    kind: str
    steps: int
    kl_weight: float
    encoder_steps: int = 0
    kl_warmup: float = 0.2
    widths: Widths = field(default_factory=Widths)
    batch_size: int = SmallTraining.batch_size
    learning_rate: float = SmallTraining.learning_rate
    warmup_steps: int = SmallTraining.warmup_steps
    ema_decay: float = SmallTraining.ema_decay
    loss_weights: conditional_vae.LossWeights = field(default_factory=conditional_vae.LossWeights)
    seed: int = 0

    @property
    def like_small(self) -> SmallTraining:
        """The small model's options of the same data order and step sizes."""
        return SmallTraining(
            steps=self.steps,
            encoder_steps=self.encoder_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            seed=self.seed,
        )

    def kl_weight_at(self, step: int) -> float:
        """Linear rise, then constant."""
        rise = self.kl_warmup * (self.steps - self.encoder_steps)
        return self.kl_weight * min(1.0, (step + 1 - self.encoder_steps) / max(rise, 1))


@dataclass(frozen=True)
class Launch:
    """Where and how a run happens; none of it changes the result, but for the number of processes.

    Attributes:
        data: folder written by `momap train prepare`.
        out: run folder, absolute.
        options: of the run.
        workers: processes.
        save_every: steps between two saved states.
    """

    data: Path
    out: Path
    options: BaselineTraining
    workers: int
    save_every: int


class Run(TrainingState[conditional_vae.ConditionalVAE | general_flow.GeneralFlow]):
    """The state of a training run: built new or continued from its folder."""

    def __init__(self, data: Path, out: Path, options: BaselineTraining, *, rank: int, world: int) -> None:
        """Load data and codec, build the model, and resume where the folder has a state.

        Raises:
            ValueError: less data than one batch, or other data than the run began with.
        """
        self.options, self.rank, self.world = options, rank, world
        self.split = PreparedSplit.open(data / "train")
        check_samples(data / "train", len(self.split), options)
        codec = load_codec(data / "codec")
        torch.manual_seed(options.seed)
        vocabulary = json.loads((data / "vocabulary.json").read_text())
        self.baseline = Baseline.new(options.kind, vocabulary, codec, options.widths)
        super().__init__(out, self.baseline.model, options)
        began_with = self.resume().get("samples", len(self.split))
        if began_with != len(self.split):
            raise ValueError(
                f"{out}: expected the {began_with} samples that the run began with, got {len(self.split)} in {data}; "
                "give another --out for other data"
            )
        self.weighing = error_map(codec, options.like_small.end_weight)

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

    def loss(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of this process's part of the step's batch; everything random depends on step and process alone."""
        options, model = self.options, self.model
        indices = batch_indices(len(self.split), self.step, options.like_small)[self.rank :: self.world]
        rng = np.random.default_rng([options.seed, 2, self.step, self.rank])
        codec = self.baseline.codec
        batch = make_batch(self.split, indices, codec, drops=TRAINING, rng=rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        kl_weight = options.kl_weight_at(self.step)
        if isinstance(model, conditional_vae.ConditionalVAE):
            if self.step < options.encoder_steps:
                loss, parts = encoder_loss(model.scene_encoder, batch, self.weighing)
                return loss, dict.fromkeys(("latent", "kl", "mask"), torch.zeros(())) | parts
            code = (len(indices), conditional_vae.CODE_CHANNELS, conditional_vae.CODE_GRID, conditional_vae.CODE_GRID)
            return conditional_vae.training_loss(
                model,
                batch,
                noise=torch.randn(code, generator=generator),
                weighing=self.weighing,
                kl_weight=kl_weight,
                weights=options.loss_weights,
            )
        scale_m = torch.from_numpy(np.array(self.split.scale_m[indices]))
        flow = general_flow.flow_batch(batch, scale_m, codec=codec, settings=model.settings, generator=generator)
        noise = torch.randn(*flow.queries.cells.shape, model.settings.code_size, generator=generator)
        return general_flow.training_loss(
            model, flow, noise=noise, kl_weight=kl_weight, duration_weight=options.loss_weights.duration
        )

    def train_step(self) -> dict[str, float]:
        """One optimizer step; returns the parts of the loss."""
        options = self.options
        # The fused attention's backward pass is several times slower on a CPU than plain matrix products.
        with sdpa_kernel(SDPBackend.MATH):
            loss, parts = self.loss()
            self.optimizer.zero_grad()
            loss.backward()
        self.update(step_size(self.step, options.like_small), self.world)
        return {name: float(value.detach()) for name, value in parts.items()}


def kept_rows(log_path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of the log up to a step; later ones belong to steps that are taken again."""
    if not log_path.exists():
        return []
    with log_path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]


def write_log(log_path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the whole log, or nothing."""
    with atomic_path(log_path) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def run(rank: int, launch: Launch) -> None:
    """Train in this process; process 0 writes."""
    world, out, options = launch.workers, launch.out, launch.options
    torch.set_num_threads(1)
    with process_group(rank, world, out):
        state = Run(launch.data, out, options, rank=rank, world=world)
        rows, history = kept_rows(out / "log.csv", state.step), []
        name, steps = f"train {options.kind}", range(state.step, options.steps)
        progress = tqdm(steps, initial=state.step, total=options.steps, desc=name, unit="step", disable=rank > 0)
        for _ in progress:
            history.append(state.train_step())
            ends = state.step == options.steps
            if rank == 0 and (state.step % LOG_EVERY == 0 or ends):
                rows.append(state.log_row({n: f"{np.mean([h[n] for h in history]):.5g}" for n in history[0]}))
                progress.set_postfix({"kl": rows[-1]["kl"], "per_s": rows[-1]["samples_per_s"]})
                write_log(out / "log.csv", rows)
                history = []
            if rank == 0 and (state.step % launch.save_every == 0 or ends):
                state.save()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train baseline",
        description="Train what the paper compares with, on the data of `momap train small` and in its order.",
        epilog="example: momap train baseline --kind momap-vae --data prepared/ --out runs/vae --steps 6500. What "
        "comes out: RUN/checkpoint (safetensors, JSON), log.csv, options.json. An interrupted run continues.",
    )
    parser.add_argument("--kind", required=True, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--data", type=Path, required=True, help="folder written by `momap train prepare`")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run continues from it")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps of 64 scenes")
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each (default 2)")
    parser.add_argument("--save-every", type=int, default=250, help="steps between two saved states (default 250)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--encoder-steps",
        type=int,
        default=0,
        help="of these, first steps for the scene encoder alone, as of the small model; momap-vae only (default 0)",
    )
    arguments = parser.parse_args()
    if arguments.encoder_steps and arguments.kind != "momap-vae":
        raise ValueError(f"--encoder-steps: expected 0, {arguments.kind} has no scene encoder; leave the option out")
    options = BaselineTraining(
        kind=arguments.kind,
        steps=arguments.steps,
        kl_weight=KL_WEIGHTS[arguments.kind],
        encoder_steps=arguments.encoder_steps,
        seed=arguments.seed,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    keep_options(arguments.out, options)
    launch = Launch(arguments.data, arguments.out.absolute(), options, arguments.workers, arguments.save_every)
    start_workers(run, launch, out=launch.out, workers=launch.workers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
