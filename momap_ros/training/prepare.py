"""Reduce stored samples to training arrays: `momap train prepare --help`."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from pathlib import Path

import torch
from tqdm import tqdm

from momap_ros.conditioning import Vocabulary
from momap_ros.data.growing import LATER
from momap_ros.data.prepared import (
    OBSERVED_SHARE,
    UNNAMED_SPLIT,
    VALIDATION_SPLIT,
    balanced_trajectories,
    learn_vocabulary,
    prepare_shards,
    training_shards,
    write_words,
)
from momap_ros.data.sample import iterate_samples, shard_paths
from momap_ros.files import atomic_path
from momap_ros.model.codec import TemporalBasisCodec, load_codec
from momap_ros.training.follow import follow

FIT_SAMPLES = 2000
NUM_FUNCTIONS = 10


def functions_of(text: str) -> int | None:
    """A number of basis functions, or "raw", None: no compression in time."""
    if text == "raw":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, or raw, got {text!r}")
    return int(text)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="momap train prepare",
        description="Fit the temporal basis on the training split, learn its words and write memory-mapped arrays of "
        "its samples and of those of the split `strange`, whose made-up names stay unknown words.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of shards, see `momap simulate`")
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
    parser.add_argument(
        "--functions",
        type=functions_of,
        default=NUM_FUNCTIONS,
        metavar="K|raw",
        help="functions of time in the basis, 3 K latent channels; raw: every step for itself (default %(default)s)",
    )
    parser.add_argument(
        "--follow",
        type=int,
        metavar="SHARDS",
        help="instead: add shards that come later, so many at a time, to what is there, until this is ended; a run "
        "with --grows takes them up",
    )
    arguments = parser.parse_args()
    how = {"workers": arguments.workers, "observed_share": arguments.observed_share}
    if arguments.follow is not None:
        if arguments.follow < 1:
            parser.error(f"--follow: expected a whole number from 1 on, got {arguments.follow}")
        follow(arguments.data, arguments.out, least=arguments.follow, **how)
    prepare(
        arguments.data,
        arguments.out,
        num_functions=arguments.functions,
        keep_codec=arguments.keep_codec,
        **how,
    )
    return 0


def prepare(
    data: Path,
    out: Path,
    *,
    workers: int = 2,
    observed_share: float = OBSERVED_SHARE,
    num_functions: int | None = NUM_FUNCTIONS,
    keep_codec: bool = False,
) -> None:
    """Fit the codec, learn the vocabulary and write the training arrays; vocabulary.json is written last.

    Shards of `strange`, if there are any, are learned from beside those of `train`; their made-up names are no words.
    Shards of `val`, if there are any, are written with the same codec and words: training says how it does on them.

    Args:
        data: folder of shards.
        out: folder for train/, val/ where there is any, codec/ and vocabulary.json.
        workers: processes.
        observed_share: of the samples, see `momap_ros.data.prepared`.
        num_functions: K of the basis; None = no compression in time.
        keep_codec: keep the codec and the words that `out` has, if any.

    Raises:
        ValueError: more functions than steps.
    """
    vocabulary_path = out / "vocabulary.json"
    shutil.rmtree(out / LATER, ignore_errors=True)  # parts that were added to other samples
    kept = keep_codec and vocabulary_path.exists()
    codec = load_codec(out / "codec") if kept else fit_codec(data, out / "codec", num_functions)
    meta = prepare_shards(training_shards(data), out / "train", codec, workers=workers, observed_share=observed_share)
    texts = {text for row in meta if row["split"] != UNNAMED_SPLIT for text in row["texts"]}
    vocabulary = Vocabulary(json.loads(vocabulary_path.read_text())) if kept else learn_vocabulary(texts)
    write_words(out / "train", meta, vocabulary)
    if any(data.glob(f"{VALIDATION_SPLIT}-*.tar")):
        shards = shard_paths(data, VALIDATION_SPLIT)
        unseen = prepare_shards(shards, out / VALIDATION_SPLIT, codec, workers=workers, observed_share=0)
        write_words(out / VALIDATION_SPLIT, unseen, vocabulary)
    with atomic_path(vocabulary_path) as path:
        path.write_text(json.dumps(list(vocabulary.words)))
    tqdm.write(f"train: {len(meta)} samples, {len(vocabulary.words)} words, {len(texts)} sentences")


def fit_codec(data: Path, target: Path, num_functions: int | None = NUM_FUNCTIONS) -> TemporalBasisCodec:
    """Fit the codec on the first training samples, write it, and say how well it fits.

    Raises:
        ValueError: more functions than steps.
    """
    samples = itertools.islice(iterate_samples(data, "train"), FIT_SAMPLES)
    curves = torch.from_numpy(balanced_trajectories(samples, per_role=5, seed=0))
    steps = curves.shape[1] - 1  # the first one is always zero
    if num_functions is not None and not 1 <= num_functions <= steps:
        raise ValueError(
            f"--functions: expected 1 to {steps}, one per step after the first, or raw, got {num_functions}"
        )
    codec: TemporalBasisCodec = (
        TemporalBasisCodec.raw(curves) if num_functions is None else TemporalBasisCodec.fit(curves, num_functions)
    )
    codec.save_pretrained(target)
    error = (codec.decode(codec.encode(curves)) - curves).norm(dim=-1)
    share = float(error.square().mean().sqrt() / curves.norm(dim=-1).square().mean().sqrt())
    count = codec.latent_channels // 3
    tqdm.write(f"codec: {count} functions fitted on {len(curves)} trajectories, relative RMS residual {share:.3f}")
    return codec


if __name__ == "__main__":
    raise SystemExit(main())
