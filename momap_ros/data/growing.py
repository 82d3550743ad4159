"""Prepared samples that become more while they are read: those of the beginning, and parts that came later."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momap_ros.data.prepared import PreparedSplit

LATER = "later"  # folder of the parts, beside the samples that were prepared first


class GrowingSplit:
    """All samples that are there so far; what has been read keeps its number.

    Args:
        data: folder written by `momap train prepare`; `later/00001` and so on in it are whole from the moment that
            they are there.

    Raises:
        FileNotFoundError: nothing was prepared.
    """

    def __init__(self, data: Path) -> None:
        """Memory-map what is there."""
        self._later = data / LATER
        self._parts = [PreparedSplit.open(data / "train")]
        self.refresh()

    def __len__(self) -> int:
        """Number of samples at the last look."""
        return int(self._firsts[-1])

    def refresh(self) -> None:
        """Look for parts that came meanwhile."""
        known = len(self._parts) - 1
        for folder in sorted(self._later.glob("[0-9]*"))[known:]:
            self._parts.append(PreparedSplit.open(folder))
        self._firsts = np.cumsum([0, *(len(part) for part in self._parts)])

    def take(self, indices: npt.NDArray[np.integer]) -> PreparedSplit:
        """Some of the samples, in memory.

        Args:
            indices: in ascending order.

        Raises:
            ValueError: they are in another order.
        """
        if (np.diff(indices) < 0).any():
            raise ValueError("indices: expected them in ascending order; sort them")
        part_of = np.searchsorted(self._firsts, indices, side="right") - 1
        taken = [
            self._parts[part].take(indices[part_of == part] - self._firsts[part])
            for part in np.unique(part_of).tolist()
        ]
        arrays = {
            f.name: np.concatenate([getattr(part, f.name) for part in taken])
            for f in fields(PreparedSplit)
            if f.name != "meta"
        }
        return PreparedSplit(meta=[row for part in taken for row in part.meta], **arrays)
