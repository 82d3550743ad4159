"""What all training loops share: the order of samples, step sizes, several processes, the average, log and state."""

from __future__ import annotations

import builtins
import copy
import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import distributed, nn

from momap_ros.files import atomic_path, write_json
from momap_ros.processes import end_with_parent

# Values per message between processes: a copy of all gradients at once would need as much memory as the network.
MESSAGE_VALUES = 32_000_000
# glibc otherwise returns every large tensor to the kernel and spends the time in page faults.
MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "268435456",
}

Model = TypeVar("Model", bound=nn.Module)


class LoopOptions(Protocol):
    """What the loops need of a run's options."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples per step, all processes together."""
        ...

    @property
    def learning_rate(self) -> float:
        """Peak."""
        ...

    @property
    def warmup_steps(self) -> int:
        """Linear rise."""
        ...

    @property
    def ema_decay(self) -> float:
        """Of the averaged weights that are kept."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...


def check_samples(folder: Path, num_samples: int, options: LoopOptions) -> None:
    """Refuse data of which no batch can be made.

    Raises:
        ValueError: fewer samples than a batch.
    """
    if num_samples < options.batch_size:
        raise ValueError(
            f"{folder}: expected at least {options.batch_size} samples, one batch, got {num_samples}; make more with "
            "`momap simulate`, or take a smaller batch"
        )


def batch_indices(num_samples: int, step: int, options: LoopOptions) -> np.ndarray:
    """Samples of one step: every epoch is one permutation, and a resumed run continues exactly in it."""
    per_epoch = num_samples // options.batch_size
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([options.seed, 1, epoch]).permutation(num_samples)
    return np.sort(order[position * options.batch_size : (position + 1) * options.batch_size])


def learning_rate(step: int, options: LoopOptions, *, first: int = 0, last: int | None = None) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak.

    Args:
        step: optimizer steps before this one.
        options: of the run.
        first: step at which this phase of the run began.
        last: step at which it ends; the run's last one where None.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * (step - first) / ((last or options.steps) - first)))
    return options.learning_rate * min(1.0, (step - first + 1) / options.warmup_steps) * (0.02 + 0.98 * cosine)


def average_gradients(parameters: Sequence[nn.Parameter], world: int) -> None:
    """Mean of the gradients over all processes, in a few messages."""
    bundle: list[torch.Tensor] = []
    for parameter in parameters:
        if parameter.grad is not None:
            bundle.append(parameter.grad)
        if sum(gradient.numel() for gradient in bundle) >= MESSAGE_VALUES:
            _average(bundle, world)
            bundle = []
    if bundle:
        _average(bundle, world)


def _average(gradients: Sequence[torch.Tensor], world: int) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= world
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move the averaged weights toward the present ones, faster during the first steps.

    Args:
        average: copy of the model.
        model: the model after its step.
        step: steps before this one.
        decay: share that is kept, in the long run.
    """
    kept = min(decay, (step + 1) / (step + 10))
    averages: list[torch.Tensor] = list(average.parameters())
    torch._foreach_lerp_(averages, [parameter.detach() for parameter in model.parameters()], 1 - kept)


class TrainingState(Generic[Model]):
    """What a run changes step by step: the weights, their average and the optimizer; kept in its folder's state.pt.

    Args:
        out: run folder.
        model: what is trained, on its device.
        options: of the run.
        weight_decay: of AdamW.
        beta: AdamW's second.
        name: of the model in the file.
    """

    def __init__(
        self,
        out: Path,
        model: Model,
        options: LoopOptions,
        *,
        weight_decay: float = 1e-3,
        beta: float = 0.98,
        name: str = "model",
    ) -> None:
        """Begin at step 0."""
        self.out, self.model, self.step = out, model, 0
        self._ema_decay, self._batch_size = options.ema_decay, options.batch_size
        self._first, self._started = 0, time.monotonic()
        self.average = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=options.learning_rate,
            betas=(0.9, beta),
            weight_decay=weight_decay,
            fused=True if self.parameters[0].is_cuda else None,
        )
        self._parts: dict[str, Any] = {name: model, "average": self.average, "optimizer": self.optimizer}
        self._logs: set[str] = set()

    def resume(self) -> dict[str, Any]:
        """Go on from the folder's state; returns it, or an empty one where the run begins."""
        path = self.out / "state.pt"
        if not path.exists():
            return {}
        device = next(self.model.parameters()).device
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step = self._first = state["step"]
        return state

    def save(self, **facts: int) -> None:
        """Write the state, whole or not at all.

        Args:
            **facts: more to keep in it.
        """
        state = {name: part.state_dict() for name, part in self._parts.items()}
        with atomic_path(self.out / "state.pt") as partial:
            torch.save(state | {"step": self.step} | facts, partial)

    def update(self, rate: float, world: int = 1) -> None:
        """Take one optimizer step with the gradients that are there, of all processes together.

        Args:
            rate: learning rate of this step.
            world: processes.
        """
        if world > 1:
            average_gradients(self.parameters, world)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        update_average(self.average, self.model, self.step, self._ema_decay)
        self.step += 1

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Steps taken while it lasts do not count: then weights, optimizer and clock are as before the first step.

        Raises:
            ValueError: the run has begun.
        """
        if self.step:
            raise ValueError(f"rehearsal: expected a run at its beginning, got step {self.step}")
        parts = {name: part for name, part in self._parts.items() if name != "optimizer"}
        before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        yield
        for name, part in parts.items():
            part.load_state_dict(before[name])
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        self.step, self._started = 0, time.monotonic()

    def log_row(self, figures: Mapping[str, Any], *, digits: int = 1) -> dict[str, Any]:
        """A line of the log: step, samples seen, the figures, and samples per second since this process began.

        Args:
            figures: of the steps since the line before.
            digits: of the samples per second, behind the point.
        """
        rate = (self.step - self._first) * self._batch_size / (time.monotonic() - self._started)
        seen = {"step": self.step, "samples": self.step * self._batch_size}
        return seen | dict(figures) | {"samples_per_s": round(rate, digits)}

    def log(self, row: Mapping[str, Any], name: str = "log.csv") -> None:
        """Add a line to a log of the run folder; in a run that goes on, lines of steps taken again leave it first.

        Args:
            row: the step, and figures.
            name: of the file.
        """
        if name not in self._logs:
            forget_rows(self.out / name, self._first)
            self._logs.add(name)
        append_row(self.out / name, row)


def device_of(device: str, rank: int) -> str:
    """Of one of the processes of a run: a GPU each, or the CPU."""
    return f"cuda:{rank}" if device == "cuda" else device


@contextmanager
def process_group(rank: int, world: int, out: Path, device: str = "cpu") -> Iterator[None]:
    """While it lasts, the processes of a run can talk to each other; they end it together."""
    if world > 1:
        backend = "nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=world)
    yield
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def start_workers(run: Callable[..., None], *args: object, out: Path, workers: int) -> None:
    """Call `run(rank, *args)` in new processes, which may form a `process_group`, and wait for them.

    Args:
        run: a function of a module.
        *args: what it is given beside the rank.
        out: run folder.
        workers: processes.

    Raises:
        ValueError: a worker ended with an error that explains itself.
    """
    (out / "rendezvous").unlink(missing_ok=True)
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)
    try:
        torch.multiprocessing.start_processes(
            run_below, args=(run, os.getpid(), *args), nprocs=workers, start_method="spawn"
        )
    except torch.multiprocessing.ProcessRaisedException as error:
        raise _as_raised(error) from error


def _as_raised(error: Exception) -> Exception:
    """What a worker raised, of which torch hands over the traceback alone; unchanged where it is a bug."""
    name, _, text = str(error).strip().rpartition("\n")[2].partition(": ")
    kind = getattr(builtins, name, None)
    explains_itself = isinstance(kind, type) and issubclass(kind, ValueError | OSError | ImportError)
    return ValueError(text) if explains_itself or name.startswith("momap_ros.") else error


def run_below(rank: int, run: Callable[..., None], parent: int, *args: object) -> None:
    """Call `run(rank, *args)`, unless the parent process has died while this one was being started; end with it.

    torch interrupts workers whose parent dies, but only from the end of their imports on, and a job in the background
    ignores that. Such a worker would go on alone, and write to the folder of a run that was started again.
    """
    if os.getppid() == parent:
        end_with_parent()
        run(rank, *args)


def forget_rows(path: Path, step: int) -> None:
    """Drop what a killed run logged of steps that are taken again, and what it was cut off in.

    Args:
        path: CSV file whose first column is the step; it need not be there.
        step: the last one whose line stays.
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *lines = file.readlines() or [""]
    if not header.endswith("\n"):
        path.unlink()
        return
    kept = [line for line in lines if line.endswith("\n") and int(line.partition(",")[0]) <= step]
    if kept == lines:
        return
    with atomic_path(path) as partial, partial.open("w", newline="") as file:
        file.writelines([header, *kept])


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a CSV file; the first one brings its header.

    Raises:
        ValueError: the file has other columns.
    """
    new = not path.exists()
    if not new:
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
        if header != list(row):
            raise ValueError(
                f"{path}: expected the columns {', '.join(row)}, got {', '.join(header)}; another version wrote it: "
                "move it away"
            )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def keep_options(out: Path, options: Any, **facts: str) -> None:  # noqa: ANN401  (a dataclass, of any run)
    """Write a run's options beside its state, once.

    Args:
        out: run folder.
        options: dataclass.
        **facts: more that decides the result: checkpoint, data.

    Raises:
        ValueError: the run began with other options.
    """
    wanted = json.loads(json.dumps(asdict(options) | facts))
    path = out / "options.json"
    if path.exists():
        # Options that came later keep what runs did before as their default.
        defaults = {f.name: f.default for f in fields(options) if f.default is not MISSING}
        found = json.loads(json.dumps(defaults)) | json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        if changed:
            said = ", ".join(f"{name} {found.get(name)!r}" for name in changed)
            raise ValueError(f"{out}: expected the options that this run began with, {said}; choose another --out")
        return
    write_json(path, wanted)
