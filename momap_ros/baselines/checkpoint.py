"""Trained baselines on disk: safetensors and JSON, nothing that runs code when it is opened."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from momap_ros.baselines.conditional_vae import ConditionalVAE
from momap_ros.baselines.general_flow import FlowSettings, GeneralFlow, variant
from momap_ros.conditioning import Vocabulary
from momap_ros.files import atomic_path
from momap_ros.model.checkpoint import CheckpointError
from momap_ros.model.codec import TemporalBasisCodec, load_codec
from momap_ros.training.small import SmallModel
from momap_ros.training.steps import SmallTraining

FORMAT = "momap-baseline/1"
GENERAL_FLOW = "general-flow-"
KINDS = ("momap-vae", "general-flow-original", "general-flow-rollout", "general-flow-extend")
_FILES = ("baseline.json", "model.safetensors", "codec")


def check_kind(kind: str) -> None:
    """Refuse names that are not in KINDS.

    Raises:
        ValueError: says which there are.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


@dataclass(frozen=True)
class Widths:
    """How wide the networks are; everything else about them is fixed by the kind.

    Attributes:
        channels: of MoMap-VAE's U-Net.
        points: of General Flow's finest stage.
        hidden: of General Flow's VAE.
    """

    channels: tuple[int, int] = (96, 192)
    points: int = 32
    hidden: int = 256


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline with all it needs to draw futures.

    Attributes:
        kind: one of KINDS.
        widths: of its network.
        vocabulary: learned words.
        codec: of the data it is trained on.
        model: the network.
    """

    kind: str
    widths: Widths
    vocabulary: list[str]
    codec: TemporalBasisCodec
    model: ConditionalVAE | GeneralFlow

    @classmethod
    def new(cls, kind: str, vocabulary: list[str], codec: TemporalBasisCodec, widths: Widths) -> Baseline:
        """One with random weights.

        Raises:
            ValueError: an unknown kind.
        """
        check_kind(kind)
        model: ConditionalVAE | GeneralFlow
        if kind.startswith(GENERAL_FLOW):
            settings: FlowSettings = variant(kind.removeprefix(GENERAL_FLOW), codec.num_steps)
            settings = replace(settings, width=widths.points, hidden=widths.hidden)
            model = GeneralFlow(len(Vocabulary(vocabulary)), settings)
        else:
            # White noise: a draw from the prior of the code.
            options = SmallTraining(steps=1, channels=widths.channels, noise_shares=(0.0, 0.0, 1.0))
            small = SmallModel(vocabulary, codec.latent_channels, options)
            model = ConditionalVAE(small.scene_encoder, small.denoiser)
        return cls(kind, widths, vocabulary, codec, model)

    def save(self, folder: Path, weights: nn.Module, training: dict[str, Any]) -> None:
        """Write the folder, whole or not at all.

        Args:
            folder: replaced as a whole.
            weights: a module of the same kind whose weights are stored, the average of a run.
            training: how they came to be.
        """
        info = {
            "format": FORMAT,
            "kind": self.kind,
            "widths": asdict(self.widths),
            "vocabulary": self.vocabulary,
            "training": training,
        }
        with atomic_path(folder) as partial:
            self.codec.save_pretrained(partial / "codec")
            save_file({k: v.detach().contiguous() for k, v in weights.state_dict().items()}, partial / _FILES[1])
            (partial / "baseline.json").write_text(json.dumps(info, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Baseline:
        """Read what `save` wrote.

        Raises:
            CheckpointError: no such folder, another format or kind, or weights that do not fit.
        """
        missing = [name for name in _FILES if not (folder / name).exists()]
        if missing:
            found = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else "no folder"
            raise CheckpointError(
                f"baseline {folder}: expected {missing} in it, got {found}; `momap train baseline --out RUN` writes "
                "RUN/checkpoint"
            )
        try:
            info = json.loads((folder / "baseline.json").read_text())
        except json.JSONDecodeError as error:
            raise CheckpointError(f"baseline {folder}: baseline.json is not JSON: {error}") from error
        if info.get("format") != FORMAT or info.get("kind") not in KINDS:
            raise CheckpointError(
                f"baseline {folder}: expected format {FORMAT!r} and a kind of {list(KINDS)}, got "
                f"{info.get('format')!r} and {info.get('kind')!r}; train it again with this version"
            )
        widths = Widths(**info["widths"] | {"channels": tuple(info["widths"]["channels"])})
        codec = load_codec(folder / "codec")
        baseline = cls.new(info["kind"], info["vocabulary"], codec, widths)
        try:
            baseline.model.load_state_dict(load_file(folder / "model.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]  # torch lists every tensor
            raise CheckpointError(f"baseline {folder}: model.safetensors does not fit: {reason}") from error
        baseline.model.requires_grad_(requires_grad=False).eval()
        return baseline
