"""Any stored sample by its number, out of many shards, without reading the others."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from momap_ros.data.sample import Sample, decode_sample, shard_paths


@dataclass(frozen=True)
class Place:
    """Where one sample lies.

    Attributes:
        shard: the tar file.
        key: of the sample.
        members: suffix -> first byte and length.
    """

    shard: Path
    key: str
    members: tuple[tuple[str, int, int], ...]


class ShardIndex:
    """The samples of one split, in order of episode and view.

    Args:
        folder: of shards.
        split: its name.

    Raises:
        FileNotFoundError: the folder holds no shard of the split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Read the headers of all shards."""
        self.folder = folder
        self.places = [place for path in shard_paths(folder, split) for place in _places(path)]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        """Read one sample.

        Raises:
            ValueError: its shard was changed meanwhile, or is damaged.
        """
        place = self.places[number]
        parts = {}
        with place.shard.open("rb") as file:
            for suffix, offset, size in place.members:
                file.seek(offset)
                parts[suffix] = file.read(size)
        return decode_sample(place.shard, place.key, parts)


def _places(path: Path) -> list[Place]:
    members: dict[str, list[tuple[str, int, int]]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            members.setdefault(key, []).append((suffix, member.offset_data, member.size))
    return [Place(path, key, tuple(parts)) for key, parts in members.items()]
