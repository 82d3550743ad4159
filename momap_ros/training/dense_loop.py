"""The loop that trains parts of the full model: any number of processes, on CUDA or the CPU, killed at any time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from momap_ros.data.shard_index import ShardIndex
from momap_ros.model.device import choose_device, fast_bfloat16
from momap_ros.training.dense import DenseBatch, DenseBatches, DenseDrops
from momap_ros.training.drive import logged_mean
from momap_ros.training.loop import (
    LoopOptions,
    TrainingState,
    device_of,
    keep_options,
    learning_rate,
    process_group,
    start_workers,
)


class DenseOptions(LoopOptions, Protocol):
    """What the loop needs of a run's options."""

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""
        ...


@dataclass(frozen=True)
class DenseLaunch:
    """Where and how a run happens; none of it changes the result beyond rounding.

    Attributes:
        checkpoint: full checkpoint to begin with, a folder.
        data: folder of shards.
        split: of the shards.
        out: run folder, absolute.
        device: "cuda" or "cpu".
        processes: one per GPU, or CPU processes.
        accumulate: micro-batches per step and process; more need less memory.
        loader_workers: processes per process that make batches; 0 = the process itself.
        bfloat16: True computes in bfloat16 where autocast deems it safe.
        checkpointing: True computes activations again in the backward pass instead of keeping them.
        save_every: steps between two saved states.
        log_every: steps per line of log.csv.
    """

    checkpoint: Path
    data: Path
    split: str
    out: Path
    device: str = "cpu"
    processes: int = 1
    accumulate: int = 1
    loader_workers: int = 0
    bfloat16: bool = False
    checkpointing: bool = False
    save_every: int = 500
    log_every: int = 50


class Objective(Protocol):
    """What is trained, and on what."""

    @property
    def model(self) -> nn.Module:
        """The trained weights, on the device."""
        ...

    @property
    def image_size(self) -> int:
        """S."""
        ...

    @property
    def num_steps(self) -> int:
        """T."""
        ...

    @property
    def drops(self) -> DenseDrops:
        """What a sample is given."""
        ...

    def loss(self, batch: DenseBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The mean loss of a micro-batch, and its parts for the log, on the device: to read one waits for a GPU."""
        ...

    def finish(self, average: nn.Module, index: ShardIndex, step: int) -> None:
        """Write the checkpoint with the averaged weights."""
        ...


MakeObjective = Callable[[DenseLaunch, Any, str], Objective]


class DenseRun(TrainingState[nn.Module]):
    """The state of a training run: built new or continued from its folder."""

    def __init__(
        self, launch: DenseLaunch, options: DenseOptions, objective: Objective, *, rank: int, device: str
    ) -> None:
        """Resume where the folder has a state."""
        self.launch, self.options, self.objective = launch, options, objective
        self.rank, self.device = rank, device
        super().__init__(launch.out, objective.model, options, weight_decay=options.weight_decay, beta=0.99)
        self.index = ShardIndex(launch.data, launch.split)
        self.batches = DenseBatches(
            self.index,
            options,
            objective.drops,
            image_size=objective.image_size,
            num_steps=objective.num_steps,
            rank=rank,
            world=launch.processes,
            accumulate=launch.accumulate,
        )
        self.resume()

    def loader(self) -> Iterator[DenseBatch]:
        """The micro-batches from the present step on."""
        first = self.step * self.launch.accumulate
        return iter(
            DataLoader(
                self.batches,
                batch_size=None,
                sampler=range(first, len(self.batches)),
                num_workers=self.launch.loader_workers,
                multiprocessing_context="spawn" if self.launch.loader_workers else None,
            )
        )

    def train_step(self, loader: Iterator[DenseBatch]) -> dict[str, torch.Tensor]:
        """One optimizer step; returns the mean parts of the loss."""
        self.optimizer.zero_grad()
        history = []
        for _ in range(self.launch.accumulate):
            batch = next(loader).to(self.device)
            with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.launch.bfloat16):
                loss, parts = self.objective.loss(batch)
            (loss / self.launch.accumulate).backward()
            history.append(parts)
        self.update(learning_rate(self.step, self.options), self.launch.processes)
        return mean_of(history)


def mean_of(history: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Mean per name."""
    return {name: torch.stack([row[name] for row in history]).mean() for name in history[0]}


def run(rank: int, launch: DenseLaunch, options: Any, make: MakeObjective) -> None:  # noqa: ANN401  (any run's options)
    """Train in this process; process 0 writes."""
    device = device_of(launch.device, rank)
    if launch.device == "cuda":
        torch.cuda.set_device(rank)
    if launch.processes > 1 and launch.device == "cpu":
        torch.set_num_threads(1)
    with process_group(rank, launch.processes, launch.out, launch.device):
        torch.manual_seed(options.seed)
        state = DenseRun(launch, options, make(launch, options, device), rank=rank, device=device)
        loop(state, name=launch.out.name)
        if rank == 0:
            state.objective.finish(state.average, state.index, state.step)


def loop(state: DenseRun, *, name: str) -> None:
    """Train to the last step, with a progress bar, a log and saved states."""
    launch, options = state.launch, state.options
    loader, history = state.loader(), []
    with tqdm(total=options.steps, initial=state.step, desc=name, unit="step", disable=state.rank > 0) as progress:
        while state.step < options.steps:
            history.append(state.train_step(loader))
            progress.update()
            last = state.step == options.steps
            if state.rank == 0 and (state.step % launch.log_every == 0 or last):
                means = {name: logged_mean(history, name) for name in history[0]}
                row = state.log_row(means, digits=2) | {"peak_memory_mib": peak_memory_mib(launch.device)}
                state.log(row)
                progress.set_postfix(loss=row["loss"], per_s=row["samples_per_s"])
                history = []
            if state.rank == 0 and (state.step % launch.save_every == 0 or last):
                state.save()


def peak_memory_mib(device: str) -> int:
    """Most memory that this process had allocated on its GPU; 0 on the CPU."""
    return torch.cuda.max_memory_allocated() // 2**20 if device == "cuda" else 0


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Options of where and how a run happens."""
    parser.add_argument("--data", type=Path, required=True, help="folder of shards, see momap simulate")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run continues from it")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps")
    parser.add_argument("--split", default="train", help="of the shards (default: train)")
    parser.add_argument("--batch-size", type=int, default=16, help="samples per step, all processes (default: 16)")
    parser.add_argument("--learning-rate", type=float, help="peak of the cosine (default: the options' own)")
    parser.add_argument("--warmup-steps", type=int, help="linear rise (default: the options' own)")
    parser.add_argument("--seed", type=int, default=0, help="of data order, faults and noise (default: 0)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="(default: auto)")
    parser.add_argument("--processes", type=int, default=1, help="one per GPU, or CPU processes (default: 1)")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches per step and process (default: 1)")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory: compute activations twice, keep few"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="auto: bfloat16 where the device is fast at it (default: %(default)s)",
    )
    parser.add_argument("--loader-workers", type=int, default=2, help="processes that make batches (default: 2)")
    parser.add_argument("--save-every", type=int, default=500, help="steps between two saved states (default: 500)")
    parser.add_argument("--log-every", type=int, default=50, help="steps per line of log.csv (default: 50)")


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a run that the command line names."""
    names = ("steps", "batch_size", "learning_rate", "warmup_steps", "seed")
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def launch_run(arguments: argparse.Namespace, checkpoint: Path, options: DenseOptions, make: MakeObjective) -> None:
    """Start the processes of a run and wait for them.

    Raises:
        ValueError: the run folder began with other options.
    """
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    keep_options(out, options, checkpoint=str(arguments.checkpoint), split=arguments.split)
    device = choose_device(arguments.device)
    wanted = arguments.precision == "bfloat16" or (arguments.precision == "auto" and fast_bfloat16(device))
    launch = DenseLaunch(
        checkpoint,
        arguments.data,
        arguments.split,
        out,
        device=device,
        processes=arguments.processes,
        accumulate=arguments.accumulate,
        loader_workers=arguments.loader_workers,
        bfloat16=wanted,
        checkpointing=arguments.gradient_checkpointing,
        save_every=arguments.save_every,
        log_every=arguments.log_every,
    )
    start(launch, options, make)


def start(launch: DenseLaunch, options: DenseOptions, make: MakeObjective) -> None:
    """Run in this process, or in several new ones."""
    if launch.processes == 1:
        run(0, launch, options, make)
        return
    start_workers(run, launch, options, make, out=launch.out, workers=launch.processes)
