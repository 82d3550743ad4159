"""Train the small model: `python -m momap_ros.training.small --help`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from momap_ros.conditioning import BLINDABLE, CONDITION_CHANNELS
from momap_ros.data.growing import GrowingSplit
from momap_ros.data.prepared import PreparedSplit
from momap_ros.model.codec import load_codec
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.noise import NoiseShares
from momap_ros.model.prediction import PREDICTIONS, target_of
from momap_ros.model.scene_encoder import SceneEncoder
from momap_ros.model.schedule import shifted_cosine_scheduler
from momap_ros.training.batches import Batch
from momap_ros.training.earlier_weights import start_from
from momap_ros.training.loop import (
    TrainingState,
    append_row,
    check_samples,
    keep_options,
    process_group,
    start_workers,
)
from momap_ros.training.scene_losses import encoder_loss, scene_losses, turning_loss
from momap_ros.training.steps import (
    DrawnStep,
    SmallTraining,
    draw_step,
    drawn_ahead,
    error_map,
    latent_loss,
    step_size,
)
from momap_ros.training.time_box import TimeBox, fit_steps
from momap_ros.training.validation import Validation

LOSSES = ("latent", "mask", "instance", "naming", "motion", "duration", "turning", "expected_turn")


@dataclass(frozen=True)
class Launch:
    """Where and how a run happens; none of it changes the result, but for the number of processes.

    Attributes:
        data: folder written by `momap_ros.training.prepare`.
        out: run folder, absolute.
        options: of the run.
        workers: processes, one GPU each on CUDA.
        save_every: steps between two saved states.
        device: "cpu" or "cuda".
        loaders: processes per worker that draw batches ahead; 0 = the worker itself.
        compiled: True compiles the networks, for a GPU; it takes about two minutes.
        box: the time that the run may take, which decides its steps unless it has begun; None = `options.steps`.
    """

    data: Path
    out: Path
    options: SmallTraining
    workers: int
    save_every: int
    device: str = "cpu"
    loaders: int = 0
    compiled: bool = False
    box: TimeBox | None = None


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
    with torch.autocast(noise.device.type, torch.bfloat16):
        scene = model.scene_encoder(batch.conditioning)
        output, moving_logits = model.denoiser(noisy, timesteps, scene)
    error = output.float() - target_of(batch.latents, noise, alpha, options.prediction)
    latent = latent_loss(error, batch.weights, weighing)
    mask = functional.binary_cross_entropy_with_logits(moving_logits.float(), batch.moving, batch.weights[:, 0])
    parts = {"mask": mask} | scene_losses(scene, batch, weighing, turns=options.expects_turns)
    if options.turning_weight:
        parts["turning"] = turning_loss(error, batch, weighing)
    loss = latent + sum(getattr(options, f"{name}_weight") * value for name, value in parts.items())
    parts["latent"] = latent
    return loss, {name: value.detach() for name, value in parts.items()}


class Run(TrainingState[SmallModel]):
    """The state of a training run: built new or continued from its folder."""

    def __init__(
        self, data: Path, out: Path, options: SmallTraining, *, rank: int, world: int, device: str = "cpu"
    ) -> None:
        """Load data and codec, build the model, and resume where the folder has a state."""
        self.options, self.rank, self.world = options, rank, world
        self.device = torch.device(device)
        self.split = GrowingSplit(data) if options.grows else PreparedSplit.open(data / "train")
        check_samples(data / "train", len(self.split), options)
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

    def train_step(self, drawn: DrawnStep | None = None) -> dict[str, torch.Tensor]:
        """One optimizer step; everything random depends on the step, the process and the kind of device alone.

        Args:
            drawn: what `draw_step` gives for this step, where somebody has drawn it already.

        Returns:
            Parts of the loss, left on the device: to read one waits for the GPU.
        """
        options = self.options
        drawn = drawn or draw_step(self.split, options, self.step, rank=self.rank, world=self.world)
        if options.dropout:
            torch.manual_seed(drawn.noise_seed)  # the noise of the step has a generator of its own
        # The fused attention's backward pass is several times slower on a CPU than plain matrix products.
        with sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext():
            if self.step < options.encoder_steps:
                batch = drawn.batch(self.codec, self.device)
                loss, parts = encoder_loss(self.model.scene_encoder, batch, self.weighing)
            else:
                loss, parts = self.loss(self.model, drawn)
            self.optimizer.zero_grad()
            loss.backward()
        self.update(step_size(self.step, options), self.world)
        return {name: value.detach() for name, value in parts.items()}

    def steps_ahead(self, loaders: int) -> Iterator[DrawnStep | None]:
        """What the remaining steps need: drawn by other processes beside a GPU, or None: drawn in the step itself."""
        pinned = self.device.type == "cuda"
        return drawn_ahead(
            self.split, self.options, self.step, loaders, rank=self.rank, world=self.world, pinned=pinned
        )


def run(rank: int, launch: Launch) -> None:
    """Train in this process; process 0 writes."""
    world, out, options = launch.workers, launch.out, launch.options
    torch.set_num_threads(1)
    device = f"cuda:{rank}" if launch.device == "cuda" else launch.device
    with process_group(rank, world, out, launch.device):
        state = Run(launch.data, out, options, rank=rank, world=world, device=device)
        if launch.compiled:
            state.model.scene_encoder.compile()
            state.model.denoiser.compile()
        if launch.box and not state.step:
            options = state.options = fit_steps(state, launch.box, launch.loaders)
            keep_options(out, options)
        validation = Validation.of(launch.data, state.split) if rank == 0 else None
        history: list[dict[str, torch.Tensor]] = []
        progress = tqdm(total=options.steps, initial=state.step, desc="train small", unit="step", disable=rank > 0)
        for drawn in state.steps_ahead(launch.loaders):
            history.append(state.train_step(drawn))
            progress.update()
            ends = state.step == options.steps or (launch.box is not None and launch.box.left_s < 0)
            if rank == 0 and (state.step % 100 == 0 or ends):
                of = {name: [parts[name] for parts in history if name in parts] for name in LOSSES}
                row = state.log_row({n: round(float(torch.stack(of[n]).mean()), 5) if of[n] else "" for n in LOSSES})
                progress.set_postfix({"latent": row["latent"], "motion": row["motion"], "per_s": row["samples_per_s"]})
                append_row(out / "log.csv", row)
                history = []
            if rank == 0 and (state.step % launch.save_every == 0 or ends):
                state.save()
                if validation:
                    losses = validation.losses(partial(state.loss, state.average))
                    append_row(out / "validation.csv", {"step": state.step} | losses)
            if ends:
                break


def train(launch: Launch) -> None:
    """Train in processes of their own; the folder says with which options, and an interrupted run goes on.

    Raises:
        ValueError: the run began with other options, or several processes shall measure their time.
    """
    if launch.box and launch.workers > 1:
        raise ValueError(f"minutes: expected one worker, which measures its steps, got {launch.workers}")
    launch.out.mkdir(parents=True, exist_ok=True)
    if not launch.box or (launch.out / "options.json").exists():
        keep_options(launch.out, launch.options)
    start_workers(run, launch, out=launch.out, workers=launch.workers)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of the model and of its optimizer."""
    numbers = {
        "batch-size": "scenes per step, all processes together",
        "warmup-steps": "steps over which the learning rate rises",
        "encoder-width": "of the scene encoder's tokens",
        "encoder-layers": "of the scene encoder",
        "learning-rate": "its peak",
        "turning-weight": "share of the loss for how instances turn, measured by their own size",
        "dropout": "share of hidden values that is dropped",
    }
    for name, meaning in numbers.items():
        default = getattr(SmallTraining, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} (default {default})")
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
        "--blind-to", nargs="+", choices=list(BLINDABLE), default=[], help="conditions that the model never sees"
    )


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m momap_ros.training.small", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder written by momap_ros.training.prepare")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run continues from it")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="optimizer steps, all together")
    length.add_argument(
        "--minutes",
        type=float,
        help="as many steps as fit into this time, measured first; one worker. A run that has begun keeps its steps "
        "and ends when they are done or the time is up",
    )
    parser.add_argument(
        "--encoder-share",
        type=float,
        default=TimeBox.encoder_share,
        help="with --minutes: of the time, for the scene encoder alone (default 0.2)",
    )
    parser.add_argument(
        "--encoder-steps",
        type=int,
        default=0,
        help="the first of them, which train the scene encoder alone and are four times as fast (default 0)",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        help="begin with the weights of this run or checkpoint folder: to train longer, or to fit them to other data",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes with one thread each (default 2)")
    parser.add_argument("--save-every", type=int, default=250, help="steps between two saved states (default 250)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="one GPU per worker on cuda")
    parser.add_argument(
        "--loaders", type=int, default=0, help="processes per worker that build batches, for a GPU (default 0)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks first, for a GPU (two minutes)")
    parser.add_argument("--grows", action="store_true", help="read what momap train prepare --follow adds meanwhile")
    add_model_options(parser)
    return parser


def given_options(arguments: argparse.Namespace) -> SmallTraining:
    """What the command line asks for; in a given time, a run that has begun keeps the number of its steps."""
    given = {name: value for name, value in vars(arguments).items() if name in SmallTraining.__dataclass_fields__}
    given |= {
        "start_from": str(arguments.start_from.absolute()) if arguments.start_from else "",
        "blind_to": tuple(sorted(set(arguments.blind_to))),
        "channels": tuple(arguments.channels),
    }
    if arguments.minutes is not None:
        path = arguments.out / "options.json"
        begun = json.loads(path.read_text()) if path.exists() else {"steps": 1, "encoder_steps": 0}
        given |= {name: begun[name] for name in ("steps", "encoder_steps")}
    return SmallTraining(**given)


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()
    box = TimeBox(arguments.minutes, arguments.encoder_share) if arguments.minutes is not None else None
    how = (arguments.workers, arguments.save_every, arguments.device, arguments.loaders, arguments.compile)
    train(Launch(arguments.data, arguments.out.absolute(), given_options(arguments), *how, box))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
