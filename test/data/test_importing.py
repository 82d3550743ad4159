"""Recordings that others made, as samples: BRIDGE in both forms, bags, and what cannot be imported."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from momap_ros.bag_write import BagWriter
from momap_ros.data.importing import importer as importer_module
from momap_ros.data.importing.common import MAX_DEPTH_M, EpisodeError, Frame, RecordingError, Request, sample_of
from momap_ros.data.importing.episodes_mp4 import scene_and_task
from momap_ros.data.importing.importer import IMPORTERS, find_importer, import_recordings
from momap_ros.data.importing.tfrecord import crc32c
from momap_ros.data.sample import Role, Sample, SampleError, iterate_samples
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
CAMERA = PinholeCamera(32, 24, 30.0, 31.0, 15.5, 11.5)
UInt8 = npt.NDArray[np.uint8]


def image(seed: int) -> UInt8:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def png(rgb: UInt8) -> bytes:
    return bytes(cv2.imencode(".png", rgb[..., ::-1])[1])


def field(number: int, payload: bytes) -> bytes:
    """One field of a protocol buffer message."""
    size, rest = b"", len(payload)
    while rest >= 128:
        size, rest = size + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + size + bytes([rest]) + payload


def example(features: Mapping[str, Sequence[bytes]]) -> bytes:
    """A tf.train.Example of byte strings."""
    entries = b"".join(
        field(1, field(1, name.encode()) + field(2, field(1, b"".join(field(1, value) for value in values))))
        for name, values in features.items()
    )
    return field(1, entries)


def write_records(path: Path, *contents: bytes) -> None:
    def checked(data: bytes) -> bytes:
        crc = crc32c(data)
        return data + (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")

    path.write_bytes(b"".join(checked(len(data).to_bytes(8, "little")) + checked(data) for data in contents))


def rlds_episode(number: int, steps: int = 3) -> bytes:
    black = np.zeros((24, 32, 3), np.uint8)
    return example(
        {
            "steps/language_instruction": [b"put carrot on plate"] * steps,
            "steps/observation/image_1": [png(black)] * steps,
            "steps/observation/image_0": [png(image(10 * number + step)) for step in range(steps)],
        }
    )


def imported(
    source: Path,
    out: Path,
    *,
    kind: str = "",
    camera: str = "",
    every: int = 0,
    segment: bool = False,
    **options: Any,  # noqa: ANN401
) -> list[Sample]:
    importer = IMPORTERS[kind] if kind else find_importer(source)
    import_recordings(Request(source, camera, every, segment), importer, out, **options)
    manifest = manifest_of(out)
    samples = list(iterate_samples(out, manifest["split"]))
    assert len(samples) == manifest["samples"] == sum(manifest["shards"].values())
    assert len({sample.key for sample in samples}) == len(samples)
    return samples


def manifest_of(out: Path) -> Any:  # noqa: ANN401
    return json.loads((out / "manifest.json").read_text())


def test_colour_alone_is_labelled_and_the_camera_assumed() -> None:
    frame = Frame("e", 5, "lift the cup", image(0))
    sample = sample_of(frame, 3, split="x", source="s", vertical_fov_deg=90.0)
    assert sample.key == "x_0000003_00005"
    assert sample.lacks == ("camera", "depth", "instances", "motion")
    assert np.isnan(sample.depth_m).all()
    # Half of 24 rows are seen under 45 degrees: the focal length is half the height.
    assert sample.camera.fy == pytest.approx(12.0)
    assert (sample.camera.cx, sample.camera.cy) == (15.5, 11.5)
    assert sample.factors["camera"] == "assumed: vertical field of view 90 deg"
    assert (sample.body_names, sample.body_roles) == (("world",), (Role.WORLD,))
    assert sample.motion_t_from_0.shape == (1, 0, 3, 4)
    assert not sample.body_ids.any()
    np.testing.assert_array_equal(sample.up_in_camera, [0, -1, 0])  # y points down in an image
    rotation = sample.camera_from_world[:3, :3]
    np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    with pytest.raises(SampleError, match="lacks camera, depth, motion"):
        sample.momap()


def test_more_instances_than_a_sample_holds_are_refused() -> None:
    labels = InstanceMap(np.arange(24 * 32, dtype=np.int32).reshape(24, 32))
    frame = Frame("e", 0, "", image(0), instances=labels)
    with pytest.raises(EpisodeError, match="at most 255 instances in an image, got 767"):
        sample_of(frame, 0, split="x", source="s", vertical_fov_deg=45.0)


def test_rlds_episodes_come_back_as_written(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_records(source / "a-train.tfrecord-00000-of-00001", rlds_episode(0), rlds_episode(1))
    samples = imported(source, tmp_path / "out", every=2, licence="CC BY 4.0")
    assert [sample.key for sample in samples] == [
        f"bridge_{episode:07d}_{step:05d}" for episode in (0, 1) for step in (0, 2)
    ]
    for sample, seed in zip(samples, (0, 2, 10, 12), strict=True):
        np.testing.assert_array_equal(sample.rgb, image(seed))
        assert (sample.text, sample.source) == ("put carrot on plate", "bridge-rlds: in")
    assert samples[2].factors["episode"] == "a-train.tfrecord-00000-of-00001:1"
    manifest = manifest_of(tmp_path / "out")
    assert manifest["licence"] == "CC BY 4.0"
    assert manifest["lacks"] == {"camera": 4, "depth": 4, "instances": 4, "motion": 4}
    assert manifest["shards"] == {"bridge-0000000-0000002.tar": 4}


def test_unusable_records_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    missing = example({"steps/observation/wrist": [png(image(0))], "steps/language_instruction": [b"a"]})
    damaged = example({"steps/observation/image_0": [b"no image"]})
    write_records(tmp_path / "x.tfrecord", rlds_episode(0), missing, damaged, b"\x0b", rlds_episode(4))
    samples = imported(tmp_path / "x.tfrecord", tmp_path / "out")
    assert [sample.rgb.tolist() for sample in samples] == [image(0).tolist(), image(40).tolist()]
    skipped = manifest_of(tmp_path / "out")["skipped"]
    reasons = {entry["episodes"][0]: reason for reason, entry in skipped.items()}
    assert {entry["count"] for entry in skipped.values()} == {1}
    assert "expected a feature steps/observation/image_0, got" in reasons["x.tfrecord:1"]
    assert "expected a JPEG or PNG image" in reasons["x.tfrecord:2"]
    assert "expected a tf.train.Example" in reasons["x.tfrecord:3"]


def test_images_that_stand_in_for_a_camera_are_left_out(tmp_path: Path) -> None:
    write_records(tmp_path / "x.tfrecord", rlds_episode(0), rlds_episode(1))
    with pytest.raises(RecordingError, match=r"got none: 2x camera image_1: expected an image, got one colour"):
        imported(tmp_path / "x.tfrecord", tmp_path / "out", camera="image_1")
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "in.tfrecord"
    write_records(path, rlds_episode(0), rlds_episode(1))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RecordingError, match="record 1: expected"):
        imported(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_shards_are_named_by_their_episodes_and_equal_sources_give_equal_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer_module, "EPISODES_PER_SHARD", 2)
    write_records(tmp_path / "x.tfrecord", *(rlds_episode(number, steps=1) for number in range(6)))
    for out in ("a", "b"):
        imported(tmp_path / "x.tfrecord", tmp_path / out, split="real", max_episodes=5)
    names = ["manifest.json", "real-0000000-0000002.tar", "real-0000002-0000004.tar", "real-0000004-0000005.tar"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@needs_data
def test_real_rlds_file(tmp_path: Path) -> None:
    samples = imported(DATA / "bridge_rlds", tmp_path / "out")
    assert Counter(sample.text for sample in samples) == {
        "put carrot on plate": 8,
        "put cup from counter or drying rack into sink": 6,
        "turn lever vertical to front": 6,
        "flip pot upright which is in sink": 5,
    }
    assert {sample.rgb.shape for sample in samples} == {(64, 64, 3)}
    assert min(sample.rgb.std() for sample in samples) > 20  # photographs
    name = "bridge_dataset-train.tfrecord-00000-of-00001"
    digest = hashlib.sha256((DATA / "bridge_rlds" / name).read_bytes()).hexdigest()
    assert manifest_of(tmp_path / "out")["files"] == {name: digest}
    assert len(imported(DATA / "bridge_rlds", tmp_path / "all", every=1, max_episodes=2)) == 20


@needs_data
def test_real_episode_videos(tmp_path: Path) -> None:
    samples = imported(DATA / "bridge_episodes", tmp_path / "out", every=1000)
    assert [sample.text for sample in samples] == [
        "put clothes in laundry machine",
        "pick up sponge and wipe plate",
        "pick up any cup",
        "pick up closest rainbow Allen key set",
        "put banana on plate",
        "flip salt upright",
        "turn lever vertical to front",
        "put banana in pot or pan",
        "close cabinet",
        "put beet in pot sink",
    ]
    capture = cv2.VideoCapture(str(DATA / "bridge_episodes" / samples[4].factors["episode"]))
    np.testing.assert_array_equal(samples[4].rgb, capture.read()[1][..., ::-1])
    focal = 120 / math.tan(math.radians(43.3 / 2))
    assert samples[4].camera == PinholeCamera(320, 240, samples[4].camera.fx, samples[4].camera.fx, 159.5, 119.5)
    assert samples[4].camera.fx == pytest.approx(focal)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bridge_data_v1_berkeley_toysink3_bww_take_lid_off_pot_or_pan", ("toysink3_bww", "take lid off pot or pan")),
        ("bridge_data_v1_berkeley_tabletop_dark_wood_lift_bowl", ("tabletop_dark_wood", "lift bowl")),
        ("bridge_data_v1_berkeley_garage_lift_bowl", ("", "")),
        ("episode_000001", ("", "")),
    ],
)
def test_tasks_in_file_names(name: str, expected: tuple[str, str]) -> None:
    assert scene_and_task(name) == expected


def write_video(path: Path, *, levels: Sequence[int], rate_hz: float = 10.0) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate_hz, (32, 24))  # type: ignore[attr-defined]
    for level in levels:
        writer.write(np.full((24, 32, 3), level, np.uint8))
    writer.release()


def test_broken_videos_are_counted_and_nameless_ones_have_no_text(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_video(source / "b.mp4", levels=[50, 100, 150, 200])
    (source / "a.mp4").write_bytes(b"not a video")
    (source / "c.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    samples = imported(source, tmp_path / "out", every=3)
    assert [sample.text for sample in samples] == ["", ""]
    np.testing.assert_allclose([sample.rgb.mean() for sample in samples], [50, 200], atol=4)
    manifest = manifest_of(tmp_path / "out")
    assert manifest["samples_without_text"] == 2
    reasons = {entry["episodes"][0]: reason for reason, entry in manifest["skipped"].items()}
    assert "could not decode one frame" in reasons["a.mp4"]
    assert "got a Git LFS pointer" in reasons["c.mp4"]


def write_bag(path: Path, *, instances: bool = False) -> RGBDFrame:
    depth_m = np.full((24, 32), 0.75, np.float32)
    depth_m[0, 0], depth_m[1, 1] = np.nan, 8.0
    frame = RGBDFrame(image(1), depth_m, CAMERA, 2_000_000_000, "optical")
    with BagWriter(path) as bag:
        bag.write_prompt("open the drawer", 1_000_000_000)
        bag.write_frame(frame, millimetres=True)
        if instances:
            ids = np.zeros((24, 32), np.int32)
            ids[:5], ids[5:9] = 700, 9
            bag.write_instances(InstanceMap(ids), frame.stamp_ns, frame.frame_id)
    return frame


def test_bags_keep_camera_depth_instances_and_prompt(tmp_path: Path) -> None:
    frame = write_bag(tmp_path / "bags" / "a", instances=True)
    write_bag(tmp_path / "bags" / "b")
    with BagWriter(tmp_path / "bags" / "c") as bag:
        bag.write_color(image(0), 1_000_000_000, "optical")
    first, second = imported(tmp_path / "bags", tmp_path / "out")
    assert (first.lacks, second.lacks) == (("motion",), ("instances", "motion"))
    assert first.camera == CAMERA
    assert first.text == second.text == "open the drawer"
    np.testing.assert_array_equal(first.rgb, frame.rgb)
    near = frame.depth_m < MAX_DEPTH_M
    np.testing.assert_allclose(first.depth_m[near], 0.75, atol=1e-6)
    assert np.isnan(first.depth_m[~near]).all()
    assert first.body_names == ("world", "instance 9", "instance 700")
    assert first.body_roles == (Role.WORLD, Role.OBJECT, Role.OBJECT)
    np.testing.assert_array_equal(first.body_ids[[0, 5, 9], 3], [2, 1, 0])
    manifest = manifest_of(tmp_path / "out")
    assert manifest["notes"] == {"depth beyond 6.55 m left out: samples hold no more": 2}
    ((reason, skipped),) = manifest["skipped"].items()
    assert reason.startswith("no depth")
    assert skipped == {"count": 1, "episodes": ["c"]}
    assert set(manifest["files"]) == {f"{name}/{file}" for name in "abc" for file in (f"{name}.mcap", "metadata.yaml")}


def test_no_table_means_no_instances_and_a_note(tmp_path: Path) -> None:
    depth_m = np.full((24, 32), np.nan, np.float32)
    depth_m[0, 0] = 1.0
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_frame(RGBDFrame(image(1), depth_m, CAMERA, 2_000_000_000, "optical"), millimetres=True)
    (sample,) = imported(tmp_path / "bag", tmp_path / "out", segment=True)
    assert sample.lacks == ("instances", "motion")
    (note,) = manifest_of(tmp_path / "out")["notes"]
    assert note.startswith("no instances: no table")


@needs_data
def test_instances_are_found_on_a_real_table(tmp_path: Path) -> None:
    from momap_ros.bag_import import find_images, import_images, read_camera_file

    source = DATA / "tabletop_rgbd"
    import_images(find_images(source), read_camera_file(source / "camera.json"), tmp_path / "bag")
    (sample,) = imported(tmp_path / "bag", tmp_path / "out", segment=True)
    assert sample.lacks == ("motion",)
    assert sample.factors["instances"] == "tabletop segmenter"
    assert len(sample.body_names) > 5  # the scene shows a dozen objects
    assert set(np.unique(sample.body_ids)) == set(range(len(sample.body_names)))


@needs_data
def test_a_bag_of_ros_1_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="got a ROS 1 bag; convert it with"):
        imported(DATA / "bad_inputs" / "ros1_pointcloud_only.bag", tmp_path / "out")


def test_unknown_sources_are_described_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos" / "depth").mkdir(parents=True)
    (tmp_path / "photos" / "0.png").write_bytes(png(image(0)))
    (tmp_path / "notes.txt").write_text("x")
    for name, got in (
        ("absent", "nothing of this name"),
        ("empty", "an empty folder"),
        ("photos", "1 files .png, a folder depth"),
        ("notes.txt", "a file .txt"),
    ):
        with pytest.raises(RecordingError) as caught:
            find_importer(tmp_path / name)
        assert f"expected recordings of a known kind, got {got}; known are " in str(caught.value)
        assert all(kind in str(caught.value) for kind in IMPORTERS)
    for kind in ("bridge-rlds", "bridge-mp4", "bag", "lerobot"):
        with pytest.raises(RecordingError, match="empty"):
            imported(tmp_path / "empty", tmp_path / "out", kind=kind)
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_write_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", levels=[0, 1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(RecordingError, match="expected a new folder, it exists already"):
        imported(tmp_path / "a.mp4", tmp_path / "full")
    with pytest.raises(RecordingError, match="expected letters, digits and underscores, got 'bridge-mp4'"):
        imported(tmp_path / "a.mp4", tmp_path / "out", split="bridge-mp4")
    with pytest.raises(RecordingError, match="expected degrees from 1 to below 180, got 180"):
        imported(tmp_path / "a.mp4", tmp_path / "out", vertical_fov_deg=180.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "full"]
