"""Reduce stored samples to training arrays: `python -m momap_ros.training.prepare --help`."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from tqdm import tqdm

from momap_ros.conditioning import Vocabulary
from momap_ros.data.prepared import (
    OBSERVED_SHARE,
    balanced_trajectories,
    learn_vocabulary,
    prepare_split,
    write_words,
)
from momap_ros.data.sample import iterate_samples
from momap_ros.files import atomic_path
from momap_ros.model.codec import TemporalBasisCodec, load_codec

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
    parser.add_argument(
        "--keep-codec",
        action="store_true",
        help="keep the basis and the words that --out has, if it has any: for a run that goes on with more data",
    )
    arguments = parser.parse_args()

    vocabulary_path = arguments.out / "vocabulary.json"
    kept = arguments.keep_codec and vocabulary_path.exists()
    codec = load_codec(arguments.out / "codec") if kept else fit_codec(arguments.data, arguments.out / "codec")
    meta = prepare_split(
        arguments.data,
        "train",
        arguments.out / "train",
        codec,
        workers=arguments.workers,
        observed_share=arguments.observed_share,
    )
    texts = {text for row in meta for text in row["texts"]}
    vocabulary = Vocabulary(json.loads(vocabulary_path.read_text())) if kept else learn_vocabulary(texts)
    write_words(arguments.out / "train", meta, vocabulary)
    with atomic_path(vocabulary_path) as path:
        path.write_text(json.dumps(list(vocabulary.words)))
    tqdm.write(f"train: {len(meta)} samples, {len(vocabulary.words)} words, {len(texts)} sentences")
    return 0


def fit_codec(data: Path, target: Path) -> TemporalBasisCodec:
    """Fit the codec on the first training samples, write it, and say how well it fits."""
    samples = itertools.islice(iterate_samples(data, "train"), FIT_SAMPLES)
    curves = torch.from_numpy(balanced_trajectories(samples, per_role=5, seed=0))
    codec: TemporalBasisCodec = TemporalBasisCodec.fit(curves, NUM_FUNCTIONS)
    codec.save_pretrained(target)
    error = (codec.decode(codec.encode(curves)) - curves).norm(dim=-1)
    share = float(error.square().mean().sqrt() / curves.norm(dim=-1).square().mean().sqrt())
    tqdm.write(
        f"codec: {NUM_FUNCTIONS} functions fitted on {len(curves)} trajectories, relative RMS residual {share:.3f}"
    )
    return codec


if __name__ == "__main__":
    raise SystemExit(main())
