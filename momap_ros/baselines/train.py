"""Train a baseline on the small model's data, in its data order: `momap train baseline --help`."""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from momap_ros.baselines import conditional_vae, general_flow
from momap_ros.baselines.checkpoint import KINDS, Baseline, Widths
from momap_ros.data.prepared import PreparedSplit
from momap_ros.files import atomic_path
from momap_ros.model.codec import load_codec
from momap_ros.training.batches import TRAINING, make_batch
from momap_ros.training.loop import average_gradients, batch_indices, keep_options, save_state, update_average
from momap_ros.training.scene_losses import encoder_loss
from momap_ros.training.small import MALLOC
from momap_ros.training.steps import SmallTraining, coefficient_weight, step_size

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


class Run:
    """The state of a training run: built new or continued from its folder."""

    def __init__(self, data: Path, out: Path, options: BaselineTraining, *, rank: int, world: int) -> None:
        """Load data and codec, build the model, and resume where the folder has a state.

        Raises:
            ValueError: less data than one batch, or other data than the run began with.
        """
        self.out, self.options, self.rank, self.world = out, options, rank, world
        self.split = PreparedSplit.open(data / "train")
        if len(self.split) < options.batch_size:
            raise ValueError(
                f"{data / 'train'}: expected at least {options.batch_size} samples, one batch, got {len(self.split)}; "
                "generate more with `momap simulate`"
            )
        codec = load_codec(data / "codec")
        torch.manual_seed(options.seed)
        vocabulary = json.loads((data / "vocabulary.json").read_text())
        self.baseline = Baseline.new(options.kind, vocabulary, codec, options.widths)
        self.model = self.baseline.model
        self.average = copy.deepcopy(self.model).requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=1e-3
        )
        self.step = 0
        if (out / "state.pt").exists():
            state = torch.load(out / "state.pt", weights_only=True)
            if state["samples"] != len(self.split):
                raise ValueError(
                    f"{out}: expected the {state['samples']} samples that the run began with, got {len(self.split)} in "
                    f"{data}; give another --out for other data"
                )
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        self.coefficient_weight = coefficient_weight(codec)

    def save(self) -> None:
        """Write the state and the checkpoint, each whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "samples": len(self.split),
        }
        save_state(self.out / "state.pt", state)
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
                loss, parts = encoder_loss(model.scene_encoder, batch, self.coefficient_weight)
                return loss, dict.fromkeys(("latent", "kl", "mask"), torch.zeros(())) | parts
            code = (len(indices), conditional_vae.CODE_CHANNELS, conditional_vae.CODE_GRID, conditional_vae.CODE_GRID)
            return conditional_vae.training_loss(
                model,
                batch,
                noise=torch.randn(code, generator=generator),
                coefficient_weight=self.coefficient_weight,
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
        parameters = list(self.model.parameters())
        if self.world > 1:
            average_gradients(parameters, self.world)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = step_size(self.step, options.like_small)
        self.optimizer.step()
        update_average(self.average, self.model, self.step, options.ema_decay)
        self.step += 1
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
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=world)
    state = Run(launch.data, out, options, rank=rank, world=world)
    rows = kept_rows(out / "log.csv", state.step)
    started, first, history = time.monotonic(), state.step, []
    progress = tqdm(total=options.steps, initial=first, desc=f"train {options.kind}", unit="step", disable=rank > 0)
    while state.step < options.steps:
        history.append(state.train_step())
        progress.update()
        if rank > 0:
            continue
        ends = state.step == options.steps
        if state.step % LOG_EVERY == 0 or ends:
            row: dict[str, Any] = {"step": state.step, "samples": state.step * options.batch_size}
            row |= {name: f"{np.mean([h[name] for h in history]):.5g}" for name in history[0]}
            row["samples_per_s"] = round((state.step - first) * options.batch_size / (time.monotonic() - started), 1)
            progress.set_postfix({"kl": row["kl"], "per_s": row["samples_per_s"]})
            rows.append(row)
            write_log(out / "log.csv", rows)
            history = []
        if state.step % launch.save_every == 0 or ends:
            state.save()
    progress.close()
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()


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
    (arguments.out / "rendezvous").unlink(missing_ok=True)
    # glibc otherwise returns every large tensor to the kernel and spends the time in page faults.
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
    launch = Launch(arguments.data, arguments.out.absolute(), options, arguments.workers, arguments.save_every)
    torch.multiprocessing.start_processes(run, args=(launch,), nprocs=arguments.workers, start_method="spawn")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
