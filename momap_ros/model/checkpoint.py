"""Checkpoint folders: where bundled ones lie, and what is refused before any weight is used."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from momap_ros.files import atomic_path

FORMAT = "momap-checkpoint/1"
MODELS = ("small", "full")
BUNDLED = Path(__file__).resolve().parent.parent / "weights"
# These formats run code when they are opened.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used; the message says what is wrong with it."""


def bundled_checkpoints() -> list[str]:
    """Names of the checkpoints that are installed with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/momap.json"))


def find_checkpoint(name_or_folder: str) -> Path:
    """The folder of a bundled checkpoint's name, or the folder itself.

    Raises:
        CheckpointError: neither exists, or the folder has no model_index.json and momap.json.
    """
    bundled = BUNDLED / name_or_folder
    folder = bundled if "/" not in name_or_folder and bundled.is_dir() else Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint {name_or_folder!r}: expected one of {bundled_checkpoints()} or an existing folder, got neither"
        )
    missing = [name for name in ("model_index.json", "momap.json") if not (folder / name).is_file()]
    if missing:
        found = sorted(path.name for path in folder.iterdir())[:8]
        raise CheckpointError(f"checkpoint {folder}: expected {missing} in it, got {found}; point to the folder itself")
    return folder


def read_info(folder: Path) -> dict[str, Any]:
    """The checkpoint's momap.json; checkpoints from before there were two models are small ones.

    Raises:
        CheckpointError: another format, an unknown model, or files in it that would have to be unpickled.
    """
    pickles = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(
            f"checkpoint {folder}: expected weights as .safetensors only, got {pickles}; pickled files run code when "
            "opened and are refused: convert them with safetensors on a machine you trust"
        )
    try:
        info: dict[str, Any] = json.loads((folder / "momap.json").read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"checkpoint {folder}: momap.json is not JSON: {error}") from error
    if info.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {folder}: expected format {FORMAT!r}, got {info.get('format')!r}")
    if info.setdefault("model", "small") not in MODELS:
        raise CheckpointError(f"checkpoint {folder}: expected a model of {list(MODELS)}, got {info['model']!r}")
    return info


def check_weights(folder: Path, components: dict[str, nn.Module]) -> None:
    """Compare the keys in the files with those of the loaded modules; loading alone leaves missing weights random.

    Raises:
        CheckpointError: keys are missing, unexpected, or of another shape; the first few are named.
    """
    from safetensors import SafetensorError, safe_open

    for name, module in components.items():
        files = sorted((folder / name).glob("*.safetensors"))
        if len(files) != 1:
            raise CheckpointError(f"checkpoint {folder}: expected one .safetensors file in {name}/, got {len(files)}")
        try:
            with safe_open(files[0], framework="pt") as stored:
                shapes = {key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise CheckpointError(f"checkpoint {files[0]}: truncated or not safetensors: {error}") from error
        expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        missing, extra = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
        other = sorted(key for key in expected.keys() & shapes.keys() if expected[key] != shapes[key])
        if missing or extra or other:
            raise CheckpointError(
                f"checkpoint {files[0]}: expected exactly the weights of {type(module).__name__}; missing "
                f"{missing[:3]}, unexpected {extra[:3]}, of another shape {other[:3]}; it belongs to another version "
                "of the model"
            )


def write_info(
    folder: Path, num_steps: int, training: dict[str, Any], *, model: str = "small", **facts: object
) -> None:
    """Write momap.json.

    Args:
        folder: of the checkpoint.
        num_steps: T.
        training: how the weights came to be.
        model: one of MODELS; says which pipeline draws with it.
        **facts: more that this model's commands need to know.
    """
    try:
        package_version = version("momap_ros")
    except PackageNotFoundError:
        package_version = "source tree"
    info = {
        "format": FORMAT,
        "model": model,
        "num_steps": num_steps,
        "package_version": package_version,
        **facts,
        "training": training,
    }
    with atomic_path(folder / "momap.json") as path:
        path.write_text(json.dumps(info, indent=2) + "\n")
