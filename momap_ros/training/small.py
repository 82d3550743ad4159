"""Train the small model: `python -m momap_ros.training.small --help`."""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
import torch.nn.functional as functional
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from momap_ros.conditioning import CONDITION_CHANNELS
from momap_ros.data.prepared import PreparedSplit
from momap_ros.files import atomic_path
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.scene_encoder import SceneEncoder
from momap_ros.model.schedule import NUM_TIMESTEPS, shifted_cosine_scheduler
from momap_ros.training.batches import TRAINING, Batch, make_batch
from momap_ros.training.loop import append_row, average_gradients, batch_indices, learning_rate, update_average

MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True)
class SmallTraining:
    """Everything that decides the result of a run, beside the data.

    Attributes:
        steps: optimizer steps.
        batch_size: scenes per step, all processes together.
        learning_rate: peak of the cosine.
        warmup_steps: linear rise.
        ema_decay: of the averaged weights that are kept.
        shift: of the noise schedule, see `shifted_cosine_scheduler`.
        channels: widths of the denoiser.
        mask_weight: of the moving-cell loss.
        instance_weight: of the which-instance-moves loss.
        duration_weight: of the duration loss.
        seed: of weights, data order, faults and noise.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 8e-4
    warmup_steps: int = 200
    ema_decay: float = 0.999
    shift: float = 6.0
    channels: tuple[int, int] = (96, 192)
    mask_weight: float = 0.15
    instance_weight: float = 0.1
    duration_weight: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Launch:
    """Where and how a run happens; none of it changes the result, but for the number of processes.

    Attributes:
        data: folder written by `momap_ros.training.prepare`.
        out: run folder, absolute.
        options: of the run.
        workers: processes.
        save_every: steps between two saved states.
    """

    data: Path
    out: Path
    options: SmallTraining
    workers: int
    save_every: int


class SmallModel(nn.Module):
    """Scene encoder and denoiser as one module, so that they train and average together."""

    def __init__(self, vocabulary: list[str], latent_channels: int, channels: tuple[int, int]) -> None:
        """Build both with random weights."""
        super().__init__()
        self.scene_encoder = SceneEncoder(vocabulary=vocabulary)
        condition_channels = CONDITION_CHANNELS + self.scene_encoder.config.written_channels
        self.denoiser = SmallDenoiser(
            latent_channels=latent_channels, condition_channels=condition_channels, channels=channels
        )


def training_loss(
    model: SmallModel,
    batch: Batch,
    *,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    coefficient_weight: torch.Tensor,
    options: SmallTraining,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Weighted clean-sample loss and the three auxiliary losses.

    Paper: Sec. 3.3.3 trains the denoiser on latents; the balance over instances and the auxiliary heads are ours.
    """
    alpha = alphas_cumprod[timesteps].float()[:, None, None, None]
    noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise
    with torch.autocast("cpu", torch.bfloat16):
        scene = model.scene_encoder(batch.conditioning)
        clean, moving_logits = model.denoiser(noisy, timesteps, scene)
    latent = ((clean.float() - batch.latents) ** 2 * coefficient_weight * batch.weights).mean()
    mask = functional.binary_cross_entropy_with_logits(moving_logits.float(), batch.moving, reduction="none")
    mask = (mask * batch.weights[:, 0]).mean()
    known = batch.conditioning.token_valid.clone()
    known[:, 0] = False
    instance = functional.binary_cross_entropy_with_logits(scene.moving_logits.float()[known], batch.slot_moves[known])
    duration = functional.l1_loss(scene.log_duration.float(), batch.log_duration)
    loss = latent + options.mask_weight * mask + options.instance_weight * instance + options.duration_weight * duration
    parts = {"latent": latent, "mask": mask, "instance": instance, "duration": duration}
    return loss, {name: float(value.detach()) for name, value in parts.items()}


class Run:
    """The state of a training run: built new or continued from its folder."""

    def __init__(self, data: Path, out: Path, options: SmallTraining, *, rank: int, world: int) -> None:
        """Load data and codec, build the model, and resume where the folder has a state."""
        self.out, self.options, self.rank, self.world = out, options, rank, world
        self.split = PreparedSplit.open(data / "train")
        if len(self.split) < options.batch_size:
            raise ValueError(
                f"{data / 'train'}: expected at least {options.batch_size} samples, one batch, got {len(self.split)}; "
                "generate more, see momap_ros.simulation.generate"
            )
        self.codec = TemporalBasisCodec.from_pretrained(data / "codec", local_files_only=True, low_cpu_mem_usage=False)
        vocabulary = json.loads((data / "vocabulary.json").read_text())
        torch.manual_seed(options.seed)
        self.model = SmallModel(vocabulary, self.codec.latent_channels, options.channels)
        self.average = copy.deepcopy(self.model).requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=1e-3
        )
        self.step = 0
        state_path = out / "state.pt"
        if state_path.exists():
            state = torch.load(state_path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
        scheduler = shifted_cosine_scheduler(options.shift)
        self.alphas_cumprod = scheduler.alphas_cumprod
        relative = (self.codec.coefficient_std / self.codec.coefficient_std[0]).sqrt()
        self.coefficient_weight = (relative / relative.mean()).repeat(3)[None, :, None, None]

    def save(self) -> None:
        """Write the state, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        with atomic_path(self.out / "state.pt") as path:
            torch.save(state, path)

    def train_step(self) -> dict[str, float]:
        """One optimizer step; everything random depends on the step and the process alone."""
        options = self.options
        indices = batch_indices(len(self.split), self.step, options)[self.rank :: self.world]
        rng = np.random.default_rng([options.seed, 2, self.step, self.rank])
        batch = make_batch(self.split, indices, self.codec, drops=TRAINING, rng=rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(batch.latents.shape, generator=generator)
        timesteps = torch.randint(0, NUM_TIMESTEPS, (len(indices),), generator=generator)
        # The fused attention's backward pass is several times slower on a CPU than plain matrix products.
        with sdpa_kernel(SDPBackend.MATH):
            loss, parts = training_loss(
                self.model,
                batch,
                noise=noise,
                timesteps=timesteps,
                alphas_cumprod=self.alphas_cumprod,
                coefficient_weight=self.coefficient_weight,
                options=options,
            )
            self.optimizer.zero_grad()
            loss.backward()
        parameters = list(self.model.parameters())
        if self.world > 1:
            average_gradients(parameters, self.world)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, options)
        self.optimizer.step()
        update_average(self.average, self.model, self.step, options.ema_decay)
        self.step += 1
        return parts


def run(rank: int, launch: Launch) -> None:
    """Train in this process; process 0 writes."""
    world, out, options = launch.workers, launch.out, launch.options
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=world)
    state = Run(launch.data, out, options, rank=rank, world=world)
    log_path = out / "log.csv"
    started, first, history = time.monotonic(), state.step, []
    progress = tqdm(total=options.steps, initial=state.step, desc="train small", unit="step", disable=rank > 0)
    while state.step < options.steps:
        history.append(state.train_step())
        progress.update()
        if rank == 0 and (state.step % 100 == 0 or state.step == options.steps):
            row: dict[str, Any] = {"step": state.step, "samples": state.step * options.batch_size}
            row |= {name: round(float(np.mean([h[name] for h in history])), 5) for name in history[0]}
            row["samples_per_s"] = round((state.step - first) * options.batch_size / (time.monotonic() - started), 1)
            progress.set_postfix({"latent": row["latent"], "per_s": row["samples_per_s"]})
            append_row(log_path, row)
            history = []
        if rank == 0 and (state.step % launch.save_every == 0 or state.step == options.steps):
            state.save()
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m momap_ros.training.small", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder written by momap_ros.training.prepare")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run continues from it")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps")
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each (default 2)")
    parser.add_argument("--save-every", type=int, default=250, help="steps between two saved states (default 250)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = SmallTraining(steps=arguments.steps, seed=arguments.seed)
    with atomic_path(arguments.out / "options.json") as path:
        path.write_text(json.dumps(asdict(options), indent=1) + "\n")
    (arguments.out / "rendezvous").unlink(missing_ok=True)
    # glibc otherwise returns every large tensor to the kernel and spends the time in page faults.
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
    launch = Launch(arguments.data, arguments.out.absolute(), options, arguments.workers, arguments.save_every)
    torch.multiprocessing.start_processes(run, args=(launch,), nprocs=arguments.workers, start_method="spawn")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
