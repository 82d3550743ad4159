"""Bags made of image folders and videos."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from momap_ros.bag import BagReader
from momap_ros.bag_check import FAILURE, check_bag
from momap_ros.bag_import import CameraFile, find_images, import_images, read_camera_file
from momap_ros.bag_types import BagError
from momap_ros.bag_write import COLOR_TOPIC
from momap_ros.geometry import PinholeCamera

CAMERA = PinholeCamera(32, 24, 30.0, 31.0, 15.5, 11.5)
NUMBERS = {"width": 32, "height": 24, "fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 11.5}
DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def rgb_image(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def write_images(folder: Path, *, pattern: str, count: int = 3, depth_size: tuple[int, int] = (24, 32)) -> None:
    """Colour and depth images; `pattern` has {kind} and {index}."""
    for index in range(count):
        for kind in ("color", "depth"):
            file = folder / pattern.format(kind=kind, index=index)
            file.parent.mkdir(parents=True, exist_ok=True)
            depth = np.full(depth_size, 500 + index, np.uint16)
            depth[0, 0] = 0
            assert cv2.imwrite(str(file), rgb_image(index)[..., ::-1] if kind == "color" else depth)


@pytest.mark.parametrize("pattern", ["{kind}/{index}.png", "{index:04}_{kind}.png", "{kind}_camera_{index}.png"])
def test_folder_layouts_give_the_same_frames(tmp_path: Path, pattern: str) -> None:
    write_images(tmp_path / "in", pattern=pattern)
    result = import_images(find_images(tmp_path / "in"), CameraFile(CAMERA), tmp_path / "bag")
    assert (result.written, result.has_depth, dict(result.skipped)) == (3, True, {})
    with BagReader(tmp_path / "bag") as bag:
        items = list(bag.frames())
    for index, item in enumerate(items):
        np.testing.assert_array_equal(item.frame.rgb, rgb_image(index))
        assert item.frame.camera == CAMERA
        assert np.isnan(item.frame.depth_m[0, 0])
        np.testing.assert_allclose(item.frame.depth_m[1:], (500 + index) / 1000, rtol=1e-6)
    stamps = [item.frame.stamp_ns for item in items]
    assert np.diff(stamps).tolist() == [200_000_000] * 2
    assert stamps[0] > 0


def test_camera_file_gives_intrinsics_unit_stamps_and_prompt(tmp_path: Path) -> None:
    write_images(tmp_path / "in", pattern="{kind}/{index}.png")
    content = {**NUMBERS, "depth_unit_m": 0.0001, "stamps_s": [10.0, 10.5, 12.25], "instruction": "open the drawer"}
    (tmp_path / "camera.json").write_text(json.dumps(content))
    description = read_camera_file(tmp_path / "camera.json")
    import_images(find_images(tmp_path / "in"), description, tmp_path / "bag", storage="sqlite3")
    with BagReader(tmp_path / "bag") as bag:
        items = list(bag.frames())
    assert [item.frame.stamp_ns for item in items] == [10_000_000_000, 10_500_000_000, 12_250_000_000]
    assert {item.prompt for item in items} == {"open the drawer"}
    np.testing.assert_allclose(items[1].frame.depth_m[1:], 0.0501, rtol=1e-6)


def test_label_images_become_instances(tmp_path: Path) -> None:
    write_images(tmp_path / "in", pattern="{index}_{kind}.png", count=1)
    labels = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) % 7
    cv2.imwrite(str(tmp_path / "in" / "0_label.png"), labels)
    import_images(find_images(tmp_path / "in"), CameraFile(CAMERA), tmp_path / "bag")
    with BagReader(tmp_path / "bag") as bag:
        (item,) = bag.frames()
    assert item.instances is not None
    np.testing.assert_array_equal(item.instances.ids, labels)


@pytest.mark.parametrize(
    ("names", "rate_hz", "expected_ns"),
    [
        (["1739654368.5", "1739654369.0"], None, [1739654368_500_000_000, 1739654369_000_000_000]),
        (["1739654368500000001", "1739654369000000002"], None, [1739654368500000001, 1739654369000000002]),
        (["000", "001"], None, [1_000_000_000, 1_200_000_000]),
        (["1739654368.5", "1739654369.0"], 4.0, [1_000_000_000, 1_250_000_000]),
    ],
)
def test_stamps_of_colour_only_folders(
    tmp_path: Path, names: list[str], rate_hz: float | None, expected_ns: list[int]
) -> None:
    for index, name in enumerate(names):
        cv2.imwrite(str(tmp_path / f"{name}.png"), rgb_image(index))
    result = import_images(find_images(tmp_path), CameraFile(), tmp_path / "bag", rate_hz=rate_hz)
    assert not result.has_depth
    with BagReader(tmp_path / "bag") as bag:
        stamps = [message.header.stamp for _, message in bag.messages(COLOR_TOPIC)]
        assert {topic.name for topic in bag.topics} == {COLOR_TOPIC}
    assert [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps] == expected_ns


def test_frames_without_depth_readings_are_counted_and_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "in", pattern="{kind}/{index}.png")
    cv2.imwrite(str(tmp_path / "in" / "depth" / "1.png"), np.zeros((24, 32), np.uint16))
    result = import_images(find_images(tmp_path / "in"), CameraFile(CAMERA), tmp_path / "bag")
    assert result.written == 2
    assert list(result.skipped.values()) == [1]
    assert "expected readings, got none" in next(iter(result.skipped))


def import_error(source: Path, description: CameraFile, out: Path) -> str:
    with pytest.raises(BagError) as caught:
        import_images(find_images(source), description, out)
    assert not out.exists()
    assert not list(out.parent.glob(".*partial*"))
    return str(caught.value)


def test_errors_say_what_to_do_and_leave_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "bag"
    assert "expected a folder of images or a video" in import_error(source, CameraFile(), out)
    source.mkdir()
    assert "expected colour images" in import_error(source, CameraFile(), out)
    write_images(source, pattern="{kind}/{index}.png", depth_size=(20, 30))
    assert "intrinsics: expected the colour camera's" in import_error(source, CameraFile(), out)
    message = import_error(source, CameraFile(CAMERA), out)
    assert "3x depth not registered: expected the colour image's size 32x24, got 30x20" in message
    message = import_error(source, CameraFile(CAMERA, stamps_s=(1.0,)), out)
    assert "stamps_s: expected one for each of 3 images, got 1" in message
    cv2.imwrite(str(source / "depth" / "0.png"), np.zeros((24, 32, 3), np.uint8))
    assert "expected 16-bit depth of one channel, got uint8" in import_error(source, CameraFile(CAMERA), out)
    (source / "depth" / "1.png").unlink()
    assert "got none for 1 of 3 (1.png)" in import_error(source, CameraFile(CAMERA), out)
    (source / "color" / "0.png").write_bytes(b"not an image")
    (source / "depth" / "1.png").write_bytes(b"x")
    assert "0.png: expected an image, could not decode it" in import_error(source, CameraFile(CAMERA), out)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert "expected a video, could not decode one frame" in import_error(tmp_path / "broken.mp4", CameraFile(), out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON object"),
        ("[1, 2]", "expected a JSON object"),
        (json.dumps({"fx": 3}), "got no cx, cy, fy, height, width"),
    ],
)
def test_camera_files_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "camera.json").write_text(content)
    with pytest.raises(BagError, match=message):
        read_camera_file(tmp_path / "camera.json")


@needs_data
@pytest.mark.parametrize(
    ("folder", "count", "instances"), [("tabletop_rgbd", 9, False), ("tabletop_labelled", 14, True)]
)
def test_real_table_tops_become_bags_without_failures(
    tmp_path: Path, folder: str, count: int, *, instances: bool
) -> None:
    description = read_camera_file(DATA / folder / "camera.json")
    result = import_images(find_images(DATA / folder), description, tmp_path / "bag")
    assert (result.written, dict(result.skipped)) == (count, {})
    assert not [finding for finding in check_bag(tmp_path / "bag") if finding.verdict == FAILURE]
    with BagReader(tmp_path / "bag") as bag:
        assert [item.instances is not None for item in bag.frames()] == [instances] * count


@needs_data
def test_real_hand_held_recording_keeps_its_stamps_and_sentence(tmp_path: Path) -> None:
    description = read_camera_file(DATA / "pour_water_rgbd" / "camera.json")
    result = import_images(find_images(DATA / "pour_water_rgbd"), description, tmp_path / "bag")
    assert result.written == 14
    with BagReader(tmp_path / "bag") as bag:
        item = next(bag.frames())
    assert item.frame.stamp_ns == 1739654368 * 10**9
    assert item.frame.rgb.shape == (720, 1280, 3)
    assert item.prompt == "pour water from the bottle into the cup"
    assert 0.10 < 1 - item.frame.valid.mean() < 0.25  # the data set states 14 % missing on average


@needs_data
def test_real_unregistered_depth_is_refused(tmp_path: Path) -> None:
    source = DATA / "bad_inputs" / "unregistered_depth"
    camera = PinholeCamera(960, 540, 698.128, 698.617, 478.459, 274.426)
    message = import_error(source, CameraFile(camera), tmp_path / "bag")
    assert "depth not registered: expected the colour image's size 960x540, got 848x480" in message
