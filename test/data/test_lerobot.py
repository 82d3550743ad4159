"""LeRobot data sets: tiny ones of both layouts, written here with known values, and what can be wrong with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from momap_ros.data.importing.common import RecordingError, Request
from momap_ros.data.importing.importer import find_importer, import_recordings
from momap_ros.data.sample import Sample, iterate_samples

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

RATE_HZ = 10
LENGTHS = (4, 3, 5)
TOP, WRIST = "observation.images.top", "observation.images.wrist"
TASKS = ("lift the cup", "open the drawer")
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def level(camera: str, episode: int, frame: int) -> int:
    """The grey of a frame: every one differs by at least 10 from all others."""
    return (10 if camera == TOP else 130) + 10 * (sum(LENGTHS[:episode]) + frame)


def write_video(path: Path, levels: Sequence[int], rate_hz: float = RATE_HZ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate_hz, (32, 24))  # type: ignore[attr-defined]
    for value in levels:
        writer.write(np.full((24, 32, 3), value, np.uint8))
    writer.release()


def rows(episode: int) -> list[dict[str, Any]]:
    """Rows of the data table; the task changes after the first frame of episode 2."""
    return [
        {
            "timestamp": frame / RATE_HZ,
            "frame_index": frame,
            "episode_index": episode,
            "task_index": int(episode == 1 or (episode == 2 and frame > 0)),
        }
        for frame in range(LENGTHS[episode])
    ]


def write_table(path: Path, content: list[dict[str, Any]], **options: Any) -> None:  # noqa: ANN401
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(content), path, **options)


def write_info(root: Path, version: str, *, dtype: str = "video", **changes: Any) -> None:  # noqa: ANN401
    info = {
        "codebase_version": version,
        "fps": RATE_HZ,
        "chunks_size": 2,
        "features": {
            "action": {"dtype": "float32", "shape": [6]},
            "observation.depth": {"dtype": "video", "shape": [24, 32, 1], "info": {"is_depth_map": True}},
            TOP: {"dtype": dtype, "shape": [24, 32, 3]},
            WRIST: {"dtype": dtype, "shape": [24, 32, 3], "info": {"video.codec": "mpeg4"}},
        },
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": V2_VIDEO,
    }
    if version == "v3.0":
        info |= {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": V3_VIDEO}
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info | changes))


def write_v2(root: Path, version: str = "v2.1") -> Path:
    write_info(root, version)
    tasks = [{"task_index": index, "task": task} for index, task in enumerate(TASKS)]
    episodes = [{"episode_index": index, "tasks": [], "length": length} for index, length in enumerate(LENGTHS)]
    for name, lines in (("tasks", tasks), ("episodes", episodes)):
        (root / "meta" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for episode, length in enumerate(LENGTHS):
        chunk = f"chunk-{episode // 2:03d}"
        write_table(root / "data" / chunk / f"episode_{episode:06d}.parquet", rows(episode))
        for camera in (TOP, WRIST):
            video = root / "videos" / chunk / camera / f"episode_{episode:06d}.mp4"
            write_video(video, [level(camera, episode, frame) for frame in range(length)])
    return root


def write_v3(root: Path, *, in_video: bool = True) -> Path:
    """Episodes 0 and 1 share a data file, 1 and 2 a video of the wrist; all share the top's video."""
    write_info(root, "v3.0", dtype="video" if in_video else "image")
    # As pandas writes a table whose nameless index holds the sentences.
    write_table(
        root / "meta" / "tasks.parquet",
        [{"task_index": index, "__index_level_0__": task} for index, task in enumerate(TASKS)],
    )
    places = {TOP: ((0, 0), (0, 4), (0, 7)), WRIST: ((0, 0), (1, 0), (1, 3))}  # file, first frame
    episodes = []
    for index, length in enumerate(LENGTHS):
        row: dict[str, Any] = {"episode_index": index, "tasks": ["x"], "length": length, "stats/action/mean": [0.5]}
        row |= {"data/chunk_index": 0, "data/file_index": index // 2}
        for camera, found in places.items():
            file, first = found[index]
            row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": file}
            row[f"videos/{camera}/from_timestamp"] = first / RATE_HZ
        episodes.append(row)
    write_table(root / "meta" / "episodes" / "chunk-000" / "file-000.parquet", episodes)
    content = [rows(episode) for episode in range(len(LENGTHS))]
    if not in_video:
        for row in (row for part in content for row in part):
            rgb = np.full((24, 32, 3), level(TOP, row["episode_index"], row["frame_index"]), np.uint8)
            row[TOP] = {"bytes": bytes(cv2.imencode(".png", rgb)[1]), "path": "frame.png"}
    write_table(root / "data/chunk-000/file-000.parquet", content[0] + content[1], row_group_size=3)
    write_table(root / "data/chunk-000/file-001.parquet", content[2])
    if in_video:
        for camera, found in places.items():
            for file in {file for file, _ in found}:
                inside = [index for index in range(len(LENGTHS)) if found[index][0] == file]
                levels = [level(camera, index, frame) for index in inside for frame in range(LENGTHS[index])]
                write_video(root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4", levels)
    return root


def imported(source: Path, out: Path, *, camera: str = "", every: int = 0) -> tuple[list[Sample], Any]:
    manifest = import_recordings(Request(source, camera, every), find_importer(source), out)
    return list(iterate_samples(out, "lerobot")), manifest


WRITERS: dict[str, Callable[[Path], Path]] = {
    "v2.0": lambda root: write_v2(root, "v2.0"),
    "v2.1": write_v2,
    "v3.0": write_v3,
    "v3.0 images": lambda root: write_v3(root, in_video=False),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_frames_and_sentences(tmp_path: Path, layout: str) -> None:
    samples, manifest = imported(WRITERS[layout](tmp_path / "in"), tmp_path / "out", every=2)
    expected = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(0, length, 2)]
    assert [sample.key for sample in samples] == [f"lerobot_{episode:07d}_{frame:05d}" for episode, frame in expected]
    np.testing.assert_allclose(
        [sample.rgb.mean() for sample in samples], [level(TOP, *place) for place in expected], atol=4
    )
    assert [sample.text for sample in samples] == [
        TASKS[episode == 1 or (episode == 2 and frame > 0)] for episode, frame in expected
    ]
    assert {sample.lacks for sample in samples} == {("camera", "depth", "instances", "motion")}
    assert {sample.factors["view"] for sample in samples} == {TOP}
    assert manifest["skipped"] == {}
    assert manifest["notes"] == {"observation.depth: depth maps are not imported: their intrinsics are unknown": 1}
    assert "meta/info.json" in manifest["files"]


@pytest.mark.parametrize("layout", ["v2.1", "v3.0"])
@pytest.mark.parametrize("camera", ["wrist", WRIST])
def test_another_camera_by_its_key_or_last_word(tmp_path: Path, layout: str, camera: str) -> None:
    samples, _ = imported(WRITERS[layout](tmp_path / "in"), tmp_path / "out", camera=camera)
    np.testing.assert_allclose(
        [sample.rgb.mean() for sample in samples], [level(WRIST, episode, 0) for episode in range(3)], atol=4
    )


def test_unusable_episodes_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "in")
    (root / f"videos/chunk-000/{TOP}/episode_000000.mp4").unlink()
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1 damaged")
    samples, manifest = imported(root, tmp_path / "out")
    assert [sample.factors["episode"] for sample in samples] == ["episode 2"]
    assert {reason.split(";")[0]: entry["episodes"] for reason, entry in manifest["skipped"].items()} == {
        "expected the episode's .mp4 file, found none": ["episode 0"],
        "expected a Parquet file of this layout, could not read it": ["episode 1"],
    }


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("videos/{TOP}/chunk-000/file-000.mp4", b"not a video", "could not decode one frame"),
        ("videos/{TOP}/chunk-000/file-000.mp4", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("data/chunk-000/file-000.parquet", b"", "expected a Parquet file"),
    ],
)
def test_one_bad_file_of_many_episodes(tmp_path: Path, path: str, content: bytes, reason: str) -> None:
    root = write_v3(tmp_path / "in")
    for name in ("data/chunk-000/file-001.parquet", path.replace("{TOP}", TOP)):
        (root / name).write_bytes(content)
    with pytest.raises(RecordingError, match=reason):
        imported(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_that_ends_early_or_runs_at_another_rate(tmp_path: Path) -> None:
    root = write_v2(tmp_path / "in")
    folder = root / f"videos/chunk-000/{TOP}"
    write_video(folder / "episode_000000.mp4", [level(TOP, 0, 0), level(TOP, 0, 1)])
    write_video(folder / "episode_000001.mp4", [50] * 3, rate_hz=25.0)
    samples, manifest = imported(root, tmp_path / "out", every=2)
    # What came before the damage stays.
    assert [sample.factors["episode"] for sample in samples] == ["episode 0", *["episode 2"] * 3]
    reasons = {entry["episodes"][0]: reason for reason, entry in manifest["skipped"].items()}
    assert "the video ends early" in reasons["episode 0"]
    assert "expected a video of 10 frames/s as info.json says, got 25" in reasons["episode 1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, r"expected codebase_version v2.0, v2.1, v3.0, got v1.6; convert"),
        ({"features": {}}, "expected one colour camera '', got none at all"),
        ({"features": None}, "expected a LeRobot description, could not read it"),
        ({"data_path": "../../{episode_index}.parquet"}, "got one that leads out of it"),
        ({"data_path": "data/{nothing}.parquet"}, "expected a description of the episode, KeyError: 'nothing'"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    root = write_v2(tmp_path / "in")
    write_info(root, "v2.1", **{name: value for name, value in changes.items() if name != "codebase_version"})
    if "codebase_version" in changes:
        write_info(root, changes["codebase_version"])
    with pytest.raises(RecordingError, match=message):
        imported(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_or_missing_descriptions(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "in")
    with pytest.raises(RecordingError, match=r"expected one colour camera 'side', got \['observation.images.top'"):
        imported(root, tmp_path / "out", camera="side")
    episodes = root / "meta/episodes/chunk-000/file-000.parquet"
    episodes.write_bytes(b"?")
    with pytest.raises(RecordingError, match=r"file-000.parquet: expected a Parquet file"):
        imported(root, tmp_path / "out")
    episodes.unlink()
    with pytest.raises(RecordingError, match=r"expected episodes/chunk-000/file-000.parquet and so on, got none"):
        imported(root, tmp_path / "out")
    (root / "meta" / "tasks.parquet").unlink()
    with pytest.raises(RecordingError, match=r"meta: expected the episode's .parquet file, found none"):
        imported(root, tmp_path / "out")
    (root / "meta" / "info.json").write_text("{")
    with pytest.raises(RecordingError, match="expected a LeRobot description"):
        imported(root, tmp_path / "out")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_v2(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"extra 'data', could not import pyarrow; pip install 'momap_ros\[data\]'"):
        imported(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
