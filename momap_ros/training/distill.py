"""Teach the small model to draw in one or two steps what it draws in more: `momap train distill --help`.

Progressive distillation (Salimans and Ho, arXiv:2202.00512) with all halvings at once: the student learns the clean
sample whose one DDIM step ends where several of the teacher's do, from the same noise. The scene encoder stays.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from momap_ros.files import atomic_path
from momap_ros.model.checkpoint import find_checkpoint, read_info, write_info
from momap_ros.model.codec import load_codec
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.device import training_autocast
from momap_ros.model.noise import NoiseShares
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import SceneEncoding
from momap_ros.model.schedule import NUM_TIMESTEPS
from momap_ros.training.batches import Batch
from momap_ros.training.drive import Course, Launch, drive
from momap_ros.training.loop import keep_options
from momap_ros.training.scene_run import SceneRun
from momap_ros.training.steps import DrawnStep, SmallTraining, error_map, latent_loss


@dataclass(frozen=True)
class Distillation(SmallTraining):
    """Everything that decides the result of a run, beside teacher and data; see `SmallTraining` for what they share.

    Attributes:
        teacher_steps: DDIM steps of the teacher; they divide the schedule's timesteps.
        student_steps: of the student; they divide the teacher's.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 50
    teacher_steps: int = 4
    student_steps: int = 1

    def __post_init__(self) -> None:
        """Check that the student's steps are made of whole steps of the teacher."""
        if NUM_TIMESTEPS % self.teacher_steps or self.teacher_steps % self.student_steps:
            raise ValueError(
                f"expected steps of the teacher that divide {NUM_TIMESTEPS}, and of the student that divide the "
                f"teacher's, got {self.teacher_steps} and {self.student_steps}"
            )


def levels(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of signal and of noise (B, 1, 1, 1) at timesteps (B,); below 0 there is no noise."""
    alpha = torch.where(timesteps < 0, torch.ones(()).to(alphas_cumprod), alphas_cumprod[timesteps.clamp(min=0)])
    alpha = alpha.float()[:, None, None, None]
    return alpha.sqrt(), (1 - alpha).sqrt()


@torch.no_grad()
def lesson(
    teacher: SmallDenoiser,
    scene: SceneEncoding,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    *,
    alphas_cumprod: torch.Tensor,
    options: Distillation,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the student shall predict at the beginning of one of its steps.

    Args:
        teacher: of the run.
        scene: B encodings.
        noisy: (B, C, 32, 32) latents.
        timesteps: (B,) where a step of the student begins.
        alphas_cumprod: (1000,) of the schedule.
        options: of the run.

    Returns:
        Clean latents (B, C, 32, 32), and the teacher's last word on which cells move: logits (B, 32, 32).
    """
    stride = NUM_TIMESTEPS // options.teacher_steps
    latents, now, logits = noisy, timesteps, noisy[:, 0]
    for _ in range(options.teacher_steps // options.student_steps):
        clean, logits = teacher(latents, now, scene)
        clean = clean.float()
        signal, noise = levels(alphas_cumprod, now)
        signal_next, noise_next = levels(alphas_cumprod, now - stride)
        latents = signal_next * clean + noise_next * (latents - signal * clean) / noise
        now = now - stride
    # One DDIM step from `noisy` ends at: signal_next x + noise_next (noisy - signal x) / noise. Solved for x.
    signal, noise = levels(alphas_cumprod, timesteps)
    signal_next, noise_next = levels(alphas_cumprod, now)
    kept = noise_next / noise
    return (latents - kept * noisy) / (signal_next - kept * signal), logits.float()


def distillation_loss(
    student: SmallDenoiser,
    teacher: MoMapPipeline,
    batch: Batch,
    *,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    weighing: torch.Tensor,
    options: Distillation,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """How far the student is from its lesson, weighted as in the teacher's own training.

    Args:
        student: learns.
        teacher: its scene encoder reads for both.
        batch: B scenes.
        noise: (B, C, 32, 32).
        timesteps: (B,) in 0..999, any; each is moved up to where the student's step that holds it begins.
        alphas_cumprod: (1000,) of the schedule.
        weighing: (C, C + 3), see `error_map`.
        options: of the run.
    """
    stride = NUM_TIMESTEPS // options.student_steps
    begins = (timesteps // stride + 1) * stride - 1
    signal, share = levels(alphas_cumprod, begins)
    noisy = signal * batch.latents + share * noise
    with training_autocast(noise.device):
        with torch.no_grad():
            scene = teacher.scene_encoder(batch.conditioning)
        wanted, moving = lesson(teacher.denoiser, scene, noisy, begins, alphas_cumprod=alphas_cumprod, options=options)
        clean, logits = student(noisy, begins, scene)
    latent = latent_loss(clean.float() - wanted, batch.weights, weighing)
    mask = ((logits.float().sigmoid() - moving.sigmoid()) ** 2 * batch.weights[:, 0]).mean()
    return latent + options.mask_weight * mask, {"latent": latent.detach(), "mask": mask.detach()}


def check_data(teacher: MoMapPipeline, data: Path) -> None:
    """Refuse data whose numbers mean other words or other motions than those that the teacher learned.

    Raises:
        ValueError: vocabulary or codec differ.
    """
    codec = load_codec(data / "codec")
    same = {
        "vocabulary": tuple(json.loads((data / "vocabulary.json").read_text())) == teacher.vocabulary.words,
        "codec": torch.equal(codec.basis, teacher.codec.basis)
        and torch.equal(codec.coefficient_std, teacher.codec.coefficient_std),
    }
    other = [name for name, found in same.items() if not found]
    if other:
        raise ValueError(
            f"{data}: expected the teacher's own {' and '.join(other)}, got another; take the folder of `momap train "
            "prepare` that the teacher was trained on"
        )


class Run(SceneRun[SmallDenoiser, Distillation]):
    """The state of a distillation: begun with the teacher's weights, or continued from its folder."""

    def __init__(self, teacher: str, data: Path, out: Path, options: Distillation, *, device: str = "cpu") -> None:
        """Load teacher and data, and resume where the folder has a state.

        Raises:
            CheckpointError: the teacher cannot be used.
            ValueError: it is not a small model, the data were not prepared as the teacher's, or are less than a batch.
        """
        self.options, self.device = options, torch.device(device)
        self.teacher = MoMapPipeline.from_pretrained(teacher)
        if type(self.teacher) is not MoMapPipeline or self.teacher.denoiser.prediction != "sample":
            raise ValueError(f"teacher {teacher}: expected a small model that predicts the clean sample, got another")
        check_data(self.teacher, data)
        self.teacher.to_device(device)
        self.split = options.split(data)
        student: SmallDenoiser = copy.deepcopy(self.teacher.denoiser).train()
        super().__init__(out, student, options, weight_decay=0.0, name="student")
        self.resume()
        self.alphas_cumprod = self.teacher.scheduler.alphas_cumprod.to(self.device)
        self.weighing = error_map(self.teacher.codec, options.end_weight).to(self.device)

    def step_loss(self, drawn: DrawnStep) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `distillation_loss`."""
        batch = drawn.batch(self.teacher.codec, self.device)
        return distillation_loss(
            self.model,
            self.teacher,
            batch,
            noise=drawn.noise(batch, NoiseShares(*self.options.noise_shares)),
            timesteps=drawn.timesteps.to(self.device),
            alphas_cumprod=self.alphas_cumprod,
            weighing=self.weighing,
            options=self.options,
        )

    def export(self, teacher: str) -> Path:
        """Write the averaged student as a checkpoint in half precision; returns its folder."""
        encoder, denoiser = (copy.deepcopy(part).cpu().half() for part in (self.teacher.scene_encoder, self.average))
        pipeline = MoMapPipeline(encoder, denoiser, self.teacher.codec, self.teacher.scheduler)
        training = {
            "options": asdict(self.options),
            "steps_done": self.step,
            "teacher": read_info(find_checkpoint(teacher)).get("training", {}),
        }
        with atomic_path(self.out / "checkpoint") as folder:
            pipeline.save_pretrained(folder)
            write_info(folder, self.teacher.num_steps, training, num_inference_steps=self.options.student_steps)
        return self.out / "checkpoint"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train distill",
        description="Teach the small model to draw in one or two steps what it draws in more. An interrupted run "
        "continues; OUT/checkpoint is the result.",
    )
    parser.add_argument("--teacher", required=True, help="bundled small checkpoint or its folder")
    parser.add_argument("--data", type=Path, required=True, help="folder written by momap train prepare")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an interrupted run continues from it")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps, all together")
    parser.add_argument("--teacher-steps", type=int, default=4, help="denoising steps of the teacher (default 4)")
    parser.add_argument("--student-steps", type=int, default=1, help="denoising steps of the student (default 1)")
    parser.add_argument("--batch-size", type=int, default=64, help="scenes per step (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=250, help="steps between two saved states (default 250)")
    parser.add_argument("--device", default="cpu", help="of torch (default cpu)")
    parser.add_argument("--loaders", type=int, default=0, help="processes that draw batches, for a GPU (default 0)")
    arguments = parser.parse_args()
    teacher = MoMapPipeline.from_pretrained(arguments.teacher)
    options = Distillation(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        teacher_steps=arguments.teacher_steps,
        student_steps=arguments.student_steps,
        noise_shares=tuple(teacher.denoiser.config["noise_shares"]),
        channels=tuple(teacher.denoiser.config["channels"]),
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    keep_options(arguments.out, options, teacher=str(find_checkpoint(arguments.teacher)))
    how = (arguments.save_every, arguments.device, arguments.loaders)
    launch = Launch(arguments.data, arguments.out, options, 1, *how)
    run = Run(arguments.teacher, launch.data, launch.out, options, device=launch.device)
    drive(run, Course("distill", ("latent", "mask"), ("latent",)), launch, run.save)
    tqdm.write(str(run.export(arguments.teacher)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
