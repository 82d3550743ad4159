from __future__ import annotations

import json
from pathlib import Path

import pytest

from momap_ros.files import atomic_path, write_json


class InterruptedWriteError(Exception):
    """Raised by a writer half-way."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "result.npz"

    with atomic_path(target) as partial:
        partial.write_text("half", encoding="utf-8")
        assert not target.exists()
        assert partial.parent == target.parent
        assert partial.suffix == ".npz"
        partial.write_text("whole", encoding="utf-8")

    assert target.read_text(encoding="utf-8") == "whole"
    assert names(target.parent) == ["result.npz"]


def test_a_file_replaces_another(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old", encoding="utf-8")

    with atomic_path(target) as partial:
        partial.write_text("new", encoding="utf-8")
        assert target.read_text(encoding="utf-8") == "old"

    assert target.read_text(encoding="utf-8") == "new"


def test_a_folder_replaces_another(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    target.mkdir()
    (target / "old").write_text("", encoding="utf-8")

    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").write_text("", encoding="utf-8")
        assert names(target) == ["old"]

    assert names(target) == ["new"]
    assert names(tmp_path) == ["checkpoint", "new"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_leaves_everything_as_it_was(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "result"
    if kind == "folder":
        target.mkdir()
        (target / "old").write_text("", encoding="utf-8")
    else:
        target.write_text("old", encoding="utf-8")
    before = names(tmp_path)

    def write() -> None:
        with atomic_path(target) as partial:
            if kind == "folder":
                partial.mkdir()
            half = partial / "half" if kind == "folder" else partial
            half.write_text("", encoding="utf-8")
            raise InterruptedWriteError

    with pytest.raises(InterruptedWriteError):
        write()

    assert names(tmp_path) == before
    assert target.is_dir() == (kind == "folder")


def test_a_writer_that_writes_nothing_is_an_error_and_destroys_nothing(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    target.mkdir()
    (target / "old").write_text("", encoding="utf-8")

    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass

    assert names(tmp_path) == ["checkpoint", "old"]


def test_two_writers_do_not_share_a_partial_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first", encoding="utf-8")
        second.write_text("second", encoding="utf-8")

    assert target.read_text(encoding="utf-8") == "first"
    assert names(tmp_path) == ["a.txt"]


def test_a_link_to_a_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "kept").write_text("", encoding="utf-8")
    link = tmp_path / "latest"
    link.symlink_to(real)

    with atomic_path(link) as partial:
        partial.write_text("new", encoding="utf-8")

    assert names(real) == ["kept"]
    assert not link.is_symlink()


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.json"
    write_json(target, {"format": "a/1", "values": [1, 2.5]})
    assert json.loads(target.read_text(encoding="utf-8")) == {"format": "a/1", "values": [1, 2.5]}
    with pytest.raises(TypeError):
        write_json(target, {"values": object()})
    assert json.loads(target.read_text(encoding="utf-8"))["values"] == [1, 2.5]
    assert names(tmp_path) == ["new", "report.json"]
