"""Reduce stored samples to training arrays: `python -m momap_ros.training.prepare --help`."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from tqdm import tqdm

from momap_ros.data.prepared import (
    OBSERVED_SHARE,
    balanced_trajectories,
    learn_vocabulary,
    prepare_split,
    write_words,
)
from momap_ros.data.sample import iterate_samples
from momap_ros.files import atomic_path
from momap_ros.model.codec import TemporalBasisCodec

FIT_SAMPLES = 2000
NUM_FUNCTIONS = 10


def main() -> int:
    """Fit the codec, learn the vocabulary and write the training arrays."""
    parser = argparse.ArgumentParser(
        prog="python -m momap_ros.training.prepare",
        description="Fit the temporal basis on the training split, learn its words and write memory-mapped arrays.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of shards, see momap_ros.simulation.generate")
    parser.add_argument("--out", type=Path, required=True, help="folder for train/, codec/ and vocabulary.json")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument(
        "--observed-share",
        type=float,
        default=OBSERVED_SHARE,
        help="share of the samples seen by a simulated real camera and segmenter; the others stay exact and get their "
        "faults in training (default %(default)s)",
    )
    arguments = parser.parse_args()

    samples = itertools.islice(iterate_samples(arguments.data, "train"), FIT_SAMPLES)
    curves = torch.from_numpy(balanced_trajectories(samples, per_role=5, seed=0))
    codec = TemporalBasisCodec.fit(curves, NUM_FUNCTIONS)
    codec.save_pretrained(arguments.out / "codec")
    error = (codec.decode(codec.encode(curves)) - curves).norm(dim=-1)
    share = float(error.square().mean().sqrt() / curves.norm(dim=-1).square().mean().sqrt())
    tqdm.write(
        f"codec: {NUM_FUNCTIONS} functions fitted on {len(curves)} trajectories, relative RMS residual {share:.3f}"
    )

    meta = prepare_split(
        arguments.data,
        "train",
        arguments.out / "train",
        codec,
        workers=arguments.workers,
        observed_share=arguments.observed_share,
    )
    vocabulary = learn_vocabulary(text for row in meta for text in row["texts"])
    write_words(arguments.out / "train", meta, vocabulary)
    with atomic_path(arguments.out / "vocabulary.json") as path:
        path.write_text(json.dumps(list(vocabulary.words)))
    sentences = len({text for row in meta for text in row["texts"]})
    tqdm.write(f"train: {len(meta)} samples, {len(vocabulary.words)} words, {sentences} sentences")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
