"""Files that are either whole or absent: every writer of this package goes through here."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there (a file or a folder) replaces `path` on success.

    On an exception nothing is left behind and an existing `path` stays as it was.

    Args:
        path: the final path; its folder is created.

    Yields:
        A path that does not exist yet, with the same suffix and on the same file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        if path.is_dir() and not path.is_symlink():
            _replace_folder(path, partial)
        else:
            partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401  (whatever JSON can say)
    """Write a JSON file for programs and readers, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _replace_folder(path: Path, partial: Path) -> None:
    """Put `partial` in the place of a folder, which a file system cannot do in one step unless the folder is empty."""
    old = path.with_name(f"{partial.name}.old")
    path.replace(old)
    try:
        partial.replace(path)
    except OSError:
        old.replace(path)
        raise
    shutil.rmtree(old)
