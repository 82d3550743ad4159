"""Prepare shards as they come, for a run that is under way: `momap train prepare --follow`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NoReturn

from momap_ros.conditioning import Vocabulary
from momap_ros.data.growing import LATER
from momap_ros.data.prepared import OBSERVED_SHARE, SHARDS, prepare_shards, training_shards, write_words
from momap_ros.files import atomic_path
from momap_ros.model.codec import load_codec

LOOKS_EVERY_S = 3.0


def prepared_shards(out: Path) -> set[str]:
    """Names of the shards that were prepared already."""
    parts = [out / "train", *sorted((out / LATER).glob("[0-9]*"))]
    return {name for part in parts for name in json.loads((part / SHARDS).read_text())}


def prepare_later(
    data: Path, out: Path, *, least: int, workers: int = 2, observed_share: float = OBSERVED_SHARE
) -> int:
    """Prepare the shards that came since the last time as one more part, whole or not at all.

    Args:
        data: folder of shards, which may be growing.
        out: folder that `prepare` wrote; its basis and words are kept.
        least: shards; nothing is done for fewer.
        workers: processes.
        observed_share: of the samples, see `momap_ros.data.prepared`.

    Returns:
        Number of samples.

    Raises:
        FileNotFoundError: nothing has been prepared there yet.
    """
    if not all(path.is_file() for path in (out / "vocabulary.json", out / "train" / SHARDS)):
        raise FileNotFoundError(
            f"{out}: expected samples to add to, and a list of their shards, found none; run it without --follow first"
        )
    done = prepared_shards(out)
    shards = [path for path in training_shards(data) if path.name not in done]
    if len(shards) < least:
        return 0
    codec, vocabulary = load_codec(out / "codec"), Vocabulary(json.loads((out / "vocabulary.json").read_text()))
    number = 1 + len(list((out / LATER).glob("[0-9]*")))
    with atomic_path(out / LATER / f"{number:05d}") as part:
        meta = prepare_shards(shards, part, codec, workers=workers, observed_share=observed_share)
        write_words(part, meta, vocabulary)
    return len(meta)


def follow(data: Path, out: Path, *, least: int, workers: int, observed_share: float) -> NoReturn:
    """Call `prepare_later` again and again, until the process is ended."""
    while True:
        if not prepare_later(data, out, least=least, workers=workers, observed_share=observed_share):
            time.sleep(LOOKS_EVERY_S)
