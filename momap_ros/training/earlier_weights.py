"""Weights that are there already, for a run to begin with."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


def start_from(model: nn.Module, folder: Path) -> list[str]:
    """Begin with the weights of a checkpoint folder, or with the averaged ones of a run.

    Args:
        model: with a `scene_encoder` and a `denoiser`.
        folder: of the checkpoint or run.

    Returns:
        Parameters that the folder lacks: they keep their values, and are to be learned.

    Raises:
        ValueError: no weights there, or those of a model with other words or of another size.
    """
    if (folder / "state.pt").exists():
        weights = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")["average"]
    elif (folder / "denoiser").is_dir():
        weights = {
            f"{part}.{name}": value.float()
            for part in ("scene_encoder", "denoiser")
            for name, value in load_file(folder / part / "diffusion_pytorch_model.safetensors").items()
        }
    else:
        raise ValueError(f"{folder}: expected a run (state.pt) or a checkpoint folder (denoiser/), found neither")
    own = model.state_dict()
    unfit = sorted(name for name in weights if name not in own or own[name].shape != weights[name].shape)
    if unfit:
        raise ValueError(
            f"{folder}: expected weights of this model, {len(unfit)} do not fit, {unfit[0]} the first; prepare the "
            "data with their vocabulary and codec (momap train prepare --keep-codec), and give the sizes of their model"
        )
    model.load_state_dict(weights, strict=False)
    return sorted(set(own) - set(weights))
