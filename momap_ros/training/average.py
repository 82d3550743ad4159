"""Average the weights of checkpoints of one lineage: `momap train average --help`.

Weights that a run went through at different times often do better together than the last ones alone (Izmailov et al.,
"Averaging Weights Leads to Wider Optima and Better Generalization", arXiv:1803.05407).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from momap_ros.files import atomic_path
from momap_ros.model.checkpoint import find_checkpoint, read_info, write_info
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.denoiser import SmallDenoiser
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import SceneEncoder

Network = TypeVar("Network", SceneEncoder, SmallDenoiser)
LATER_PARTS = {"expects_turns"}  # options that add a part to a model which can do without


def average(checkpoints: Sequence[str], shares: Sequence[float], out: Path) -> None:
    """Write a checkpoint of the weighted mean of the weights, in half precision.

    Args:
        checkpoints: folders, or names of bundled ones. The first has all parts of the result; of parts that another one
            lacks, because they were added later, the mean is that of the others.
        shares: of each, positive, together 1.
        out: checkpoint folder; replaced as a whole.

    Raises:
        CheckpointError: one of them cannot be used.
        ValueError: fewer than two, shares that are no shares, or models that differ in more than their weights.
    """
    if len(checkpoints) < 2 or len(shares) != len(checkpoints):
        raise ValueError(
            f"expected two checkpoints or more and a share for each, got {len(checkpoints)} and {len(shares)}"
        )
    if min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"shares: expected positive ones that add up to 1, got {list(shares)}")
    first, *others = (_loaded(name) for name in checkpoints)
    for name, other in zip(checkpoints[1:], others, strict=True):
        _check_alike(checkpoints[0], first, name, other)
    pipelines = (first, *others)
    encoder = _mean([pipeline.scene_encoder for pipeline in pipelines], shares)
    denoiser = _mean([pipeline.denoiser for pipeline in pipelines], shares)
    codec = TemporalBasisCodec.from_arrays(first.codec.basis, first.codec.coefficient_std)
    infos = [read_info(find_checkpoint(name)) for name in checkpoints]
    of_each = [{"share": share} | info.get("training", {}) for share, info in zip(shares, infos, strict=True)]
    training = of_each[0] | {"averaged_with": of_each[1:]}
    with atomic_path(out) as folder:
        MoMapPipeline(encoder, denoiser, codec, first.scheduler).save_pretrained(folder)
        write_info(folder, first.num_steps, training)


def _loaded(name: str) -> MoMapPipeline:
    pipeline = MoMapPipeline.from_pretrained(name)
    if type(pipeline) is not MoMapPipeline:
        raise ValueError(f"{name}: expected a small model, got a {type(pipeline).__name__}")
    return pipeline


def _config(part: SceneEncoder | SmallDenoiser) -> dict[str, Any]:
    """What a network was built with, without where it was loaded from."""
    return {name: value for name, value in part.config.items() if not name.startswith("_")}


def _check_alike(first: str, one: MoMapPipeline, second: str, other: MoMapPipeline) -> None:
    for part in ("scene_encoder", "denoiser"):
        networks = getattr(one, part), getattr(other, part)
        configs = [{name: of for name, of in _config(n).items() if name not in LATER_PARTS} for n in networks]
        if configs[0] != configs[1] or networks[1].state_dict().keys() - networks[0].state_dict().keys():
            raise ValueError(f"{first} and {second}: expected models that differ in their weights alone, in {part} too")
    if not torch.equal(one.codec.basis, other.codec.basis):
        raise ValueError(
            f"{first} and {second}: expected the same temporal basis, got two; they mean different motions"
        )


def _mean(networks: Sequence[Network], shares: Sequence[float]) -> Network:
    """A new network with the mean of the weights, in half precision."""
    values = [network.float().state_dict() for network in networks]

    def mean(name: str) -> torch.Tensor:
        of = [(share, weights[name]) for share, weights in zip(shares, values, strict=True) if name in weights]
        return torch.stack([share * weight for share, weight in of]).sum(dim=0) / sum(share for share, _ in of)

    network: Network = type(networks[0])(**_config(networks[0]))
    network.load_state_dict({name: mean(name) for name in values[0]})
    network.half()
    return network


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train average",
        description="Average the weights of checkpoints that grew out of one another into a new checkpoint.",
    )
    parser.add_argument("--checkpoints", nargs="+", required=True, help="folders, two or more")
    parser.add_argument("--shares", nargs="+", type=float, required=True, help="of each; they add up to 1")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    arguments = parser.parse_args()
    average(arguments.checkpoints, arguments.shares, arguments.out)
    tqdm.write(str(arguments.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
