"""What all training loops share: the order of samples, step sizes, several processes, the average, log and state."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed, nn

from momap_ros.files import atomic_path

# Values per message between processes: a copy of all gradients at once would need as much memory as the network.
MESSAGE_VALUES = 32_000_000


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
    def seed(self) -> int:
        """Of everything random."""
        ...


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


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a CSV file; the first one brings its header."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state, whole or not at all."""
    with atomic_path(path) as partial:
        torch.save(state, partial)


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
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
