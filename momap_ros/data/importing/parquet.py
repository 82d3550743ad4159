"""The few things read from Parquet files; pyarrow is needed here alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class ParquetError(ValueError):
    """A file that is no Parquet file, is damaged, or lacks a column."""


def read_rows(path: Path, *, leave_out: str = "") -> list[dict[str, Any]]:
    """All rows of a small table, by column name.

    Args:
        path: the file.
        leave_out: columns whose names begin so are not read.

    Raises:
        ParquetError: it cannot be read.
        ImportError: pyarrow is missing.
    """
    file = _opened(path)
    names = [name for name in file.schema_arrow.names if not leave_out or not name.startswith(leave_out)]
    rows: list[dict[str, Any]] = _read(path, lambda: file.read(columns=names)).to_pylist()
    return rows


class TableReader:
    """A table of which some integer columns are read at once and single cells of others on demand.

    Attributes:
        path: the file.
        columns: name -> (N,) int64.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Read the integer columns.

        Raises:
            ParquetError: the file cannot be read or lacks one of them.
            ImportError: pyarrow is missing.
        """
        self.path = path
        self._file = _opened(path)
        names = self._file.schema_arrow.names
        if missing := sorted(set(columns) - set(names)):
            raise ParquetError(f"{path}: expected columns {', '.join(columns)}, got no {', '.join(missing)}")
        table = _read(path, lambda: self._file.read(columns=list(columns)))
        self.columns: dict[str, npt.NDArray[np.int64]] = {
            name: np.asarray(table.column(name).to_numpy(), np.int64) for name in columns
        }
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._first_rows = np.concatenate([[0], np.cumsum(sizes)])
        self._loaded: tuple[int, str, Any] = (-1, "", None)

    def cell(self, column: str, row: int) -> Any:  # noqa: ANN401  (a Parquet cell can be anything)
        """One value; the row group around it stays in memory until another is needed.

        Raises:
            ParquetError: no such column, or a damaged file.
        """
        group = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        if self._loaded[:2] != (group, column):
            if column not in self._file.schema_arrow.names:
                raise ParquetError(f"{self.path}: expected a column {column}, got none")
            values = _read(self.path, lambda: self._file.read_row_group(group, columns=[column])).column(column)
            self._loaded = (group, column, values)
        return self._loaded[2][row - int(self._first_rows[group])].as_py()


def _opened(path: Path) -> Any:  # noqa: ANN401  (pyarrow is not typed)
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(
            "LeRobot data sets: expected the package's extra 'data', could not import pyarrow; "
            "pip install 'momap_ros[data]'"
        ) from error
    return _read(path, lambda: ParquetFile(path))


def _read(path: Path, read: Callable[[], Any]) -> Any:  # noqa: ANN401  (pyarrow is not typed)
    from pyarrow import ArrowException

    try:
        return read()
    except (ArrowException, OSError) as error:
        raise ParquetError(f"{path}: expected a Parquet file, could not read it ({error}); copy it again") from error
