"""Turn a training run into a checkpoint folder: `momap train export --help`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from momap_ros.conditioning import GRID, IMAGE_SIZE
from momap_ros.data.prepared import UNNAMED_SPLIT
from momap_ros.files import atomic_path
from momap_ros.model.checkpoint import read_info, write_info
from momap_ros.model.codec import TemporalBasisCodec, load_codec
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.schedule import shifted_cosine_scheduler
from momap_ros.training.small import SmallModel
from momap_ros.training.steps import SmallTraining


def export(run: Path, data: Path, manifest: Path, out: Path) -> int:
    """Write the averaged weights of a run in half precision; returns the size of the folder in bytes.

    Args:
        run: folder of `momap_ros.training.small`.
        data: folder of `momap_ros.training.prepare`, for codec and vocabulary.
        manifest: manifest.json of the generated samples, kept as provenance.
        out: checkpoint folder; replaced as a whole.
    """
    state = torch.load(run / "state.pt", weights_only=True)
    options = SmallTraining(**json.loads((run / "options.json").read_text()))
    stored = load_codec(data / "codec")
    codec = TemporalBasisCodec.from_arrays(stored.basis, stored.coefficient_std)  # without the folder it came from
    vocabulary = json.loads((data / "vocabulary.json").read_text())
    model = SmallModel(vocabulary, codec.latent_channels, options)
    model.load_state_dict(state["average"])
    model.half()
    scheduler = shifted_cosine_scheduler(options.shift, bounded=options.prediction == "epsilon")
    pipeline = MoMapPipeline(model.scene_encoder, model.denoiser, codec, scheduler)
    samples: dict[str, Any] = json.loads(manifest.read_text())
    training = {
        "options": asdict(options) | {"start_from": Path(options.start_from).name},
        "steps_done": state["step"],
        "samples_seen": state["step"] * options.batch_size,
        "image_size": IMAGE_SIZE,
        "grid": GRID,
        "simulator": {"mujoco": samples["mujoco"], "package": samples["package"], "splits": _training_splits(samples)},
    }
    if options.start_from:
        training["began_with"] = _began_with(Path(options.start_from))
    with atomic_path(out) as folder:
        pipeline.save_pretrained(folder)
        write_info(folder, codec.num_steps, training)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _began_with(folder: Path) -> dict[str, Any]:
    """How the weights were trained that a run began with: those of a run, or of a checkpoint folder."""
    if not (folder / "state.pt").exists():
        training: dict[str, Any] = read_info(folder)["training"]
        return training
    options = json.loads((folder / "options.json").read_text())
    steps = int(torch.load(folder / "state.pt", weights_only=True)["step"])
    began = {"began_with": _began_with(Path(options["start_from"]))} if options.get("start_from") else {}
    return {"options": options | {"start_from": Path(options.get("start_from", "")).name}, "steps_done": steps} | began


def _training_splits(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What regenerates the training samples, of each split."""
    splits = manifest["splits"]
    return {name: _training_split(splits[name]) for name in ("train", UNNAMED_SPLIT) if name in splits}


def _training_split(split: dict[str, Any]) -> dict[str, Any]:
    """Episodes (first, one past the last), views, image size, count."""
    episodes: list[list[int]] = []
    for first, last in split["episodes"]:
        if episodes and episodes[-1][1] == first:
            episodes[-1][1] = last
        else:
            episodes.append([first, last])
    return {"episodes": episodes, "views": split["num_views"], "size": split["size"], "samples": split["samples"]}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train export",
        description="Write the averaged weights of a run as a checkpoint folder in half precision.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of `momap train small`")
    parser.add_argument("--data", type=Path, required=True, help="folder of `momap train prepare`")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.json beside the generated shards")
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoint folder, for example momap_ros/weights/small"
    )
    arguments = parser.parse_args()
    size = export(arguments.run, arguments.data, arguments.manifest, arguments.out)
    tqdm.write(f"{arguments.out}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
