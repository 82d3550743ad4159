from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from tabletop_scenes import Bowl, Box, Scene, Surroundings, build_scene

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.scoring import SegmentationScore, score_instances
from momap_ros.segmentation.tabletop import TabletopSegmenter

CONFIG = SegmentationConfig()
APART = (Box((-0.2, 0.0, 0.0), (0.08, 0.06, 0.1)), Box((0.0, 0.05, 0.0), (0.05, 0.05, 0.05)), Bowl((0.2, 0.0), 0.07))
STACKED = (Box((0.0, 0.0, 0.0), (0.16, 0.12, 0.06)), Box((0.02, 0.02, 0.06), (0.08, 0.06, 0.07)))


def segment(scene: Scene, config: SegmentationConfig = CONFIG) -> InstanceMap:
    return TabletopSegmenter(config)(scene.frame)


def score(scene: Scene, config: SegmentationConfig = CONFIG) -> SegmentationScore:
    return score_instances(segment(scene, config).ids, scene.ids)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (640, 480), (1280, 720), (640, 360)])
def test_objects_apart_at_any_image_size(width: int, height: int) -> None:
    result = score(build_scene(APART, Surroundings(width=width, height=height)))

    assert result.num_found == 3
    # The middle one is a cube of 5 cm, 17 working pixels wide: one pixel along its outline is a tenth of its area.
    assert result.ious.min() > 0.8
    assert np.delete(result.ious, 1).min() > 0.9


def test_stacked_objects_are_separated() -> None:
    result = score(build_scene(STACKED))

    assert result.num_found == 2
    assert result.ious.min() > 0.9


def test_touching_objects_of_different_depth_are_separated() -> None:
    side_by_side = (Box((-0.05, 0.0, 0.0), (0.1, 0.12, 0.1)), Box((0.05, 0.0, 0.0), (0.1, 0.04, 0.05)))

    result = score(build_scene(side_by_side))

    assert result.num_found == 2
    assert result.ious.min() > 0.85


def test_one_box_behind_another_is_separated() -> None:
    result = score(build_scene((Box((0.0, 0.12, 0.0), (0.2, 0.05, 0.1)), Box((0.0, 0.0, 0.0), (0.1, 0.05, 0.08)))))

    assert result.num_found == 2
    assert result.ious.min() > 0.9


@pytest.mark.parametrize("pitch_rad", [0.5, 0.8, 1.2])
def test_a_bowl_is_one_object_with_its_inside(pitch_rad: float) -> None:
    result = score(build_scene((Bowl((0.0, 0.0), 0.08),), Surroundings(pitch_rad=pitch_rad)))

    assert result.num_found == 1
    assert result.ious[0] > 0.93


def test_an_object_in_a_bowl_stays_its_own() -> None:
    result = score(build_scene((Bowl((0.0, 0.0), 0.1), Box((0.0, 0.0, 0.02), (0.04, 0.04, 0.14)))))

    assert result.num_found == 2
    assert result.ious.min() > 0.85


@pytest.mark.parametrize("seed", range(3))
def test_sensor_noise_and_holes_cost_little(seed: int) -> None:
    around = Surroundings(noise_m=0.0015, holes=0.05, width=640, height=480)

    for objects in (APART, STACKED):
        result = score(build_scene(objects, around, seed=seed))
        assert result.num_found == len(objects)
        assert result.ious.min() > 0.8


def test_a_noisy_empty_table_has_no_instances() -> None:
    for noise_m in (0.0, 0.002, 0.005):
        instances = segment(build_scene((), Surroundings(noise_m=noise_m, holes=0.05, width=640, height=480)))
        assert instances.areas_px == {}
        assert instances.ids.shape == (480, 640)


def test_ids_count_from_one() -> None:
    assert list(segment(build_scene(APART)).areas_px) == [1, 2, 3]


def test_the_same_frame_gives_the_same_instances() -> None:
    scene = build_scene(APART, Surroundings(noise_m=0.002))

    np.testing.assert_array_equal(segment(scene).ids, segment(scene).ids)


def test_colour_does_not_matter() -> None:
    scene = build_scene(APART)
    random = np.random.default_rng(0).integers(0, 256, scene.frame.rgb.shape, dtype=np.uint8)

    np.testing.assert_array_equal(TabletopSegmenter(CONFIG)(replace(scene.frame, rgb=random)).ids, segment(scene).ids)


def test_mirrored_image_gives_mirrored_instances() -> None:
    scene = build_scene(APART)
    mirrored = RGBDFrame(
        np.ascontiguousarray(scene.frame.rgb[:, ::-1]),
        np.ascontiguousarray(scene.frame.depth_m[:, ::-1]),
        scene.frame.camera,
    )

    result = score_instances(TabletopSegmenter(CONFIG)(mirrored).ids[:, ::-1].copy(), segment(scene).ids)

    assert result.num_found == 3
    assert result.ious.min() > 0.97


def test_walls_floors_and_things_beside_the_table_are_no_objects() -> None:
    around = Surroundings(table_x=(-0.35, 0.35), table_y=(-0.5, 0.2), wall_y=0.2)
    shelf = Box((0.45, 0.0, -0.7), (0.1, 0.4, 0.9))

    result = score(build_scene((Box((0.0, 0.0, 0.0), (0.1, 0.1, 0.1)), shelf), around))

    assert result.num_found == 1
    assert result.ious[0] > 0.95


def test_what_is_higher_than_allowed_is_cut_off() -> None:
    tall = build_scene((Box((0.0, 0.0, 0.0), (0.06, 0.06, 0.3)),))
    height_m = -(tall.frame.points_in_camera @ [0.0, np.cos(0.8), np.sin(0.8)]) + tall.offset_m

    found = segment(tall, SegmentationConfig(max_height_m=0.1)).ids > 0

    assert height_m[found].max() < 0.1 + 0.01
    assert (found & (tall.ids == 1)).sum() > 100


def test_what_is_lower_than_required_is_table() -> None:
    flat = build_scene((Box((0.0, 0.0, 0.0), (0.1, 0.1, 0.02)),))

    assert len(segment(flat).areas_px) == 1
    assert segment(flat, SegmentationConfig(min_height_m=0.03)).areas_px == {}


def test_area_limits() -> None:
    scene = build_scene((Box((0.0, 0.0, 0.0), (0.1, 0.1, 0.1)),))
    # 320 pixels wide: a quarter of the area that the same object has at 640.
    area_at_640 = 4 * int((scene.ids == 1).sum())

    assert len(segment(scene, SegmentationConfig(min_area_px=int(0.9 * area_at_640))).areas_px) == 1
    assert segment(scene, SegmentationConfig(min_area_px=int(1.1 * area_at_640))).areas_px == {}
    share = area_at_640 / (640 * 480)
    assert len(segment(scene, SegmentationConfig(max_area_share=1.1 * share)).areas_px) == 1
    assert segment(scene, SegmentationConfig(max_area_share=0.9 * share)).areas_px == {}


def test_concavity_and_depth_jump_decide_what_is_separate() -> None:
    stacked = build_scene(STACKED)
    behind = build_scene((Box((0.0, 0.1, 0.0), (0.2, 0.05, 0.1)), Box((0.0, 0.0, 0.0), (0.1, 0.1, 0.08))))

    assert score(stacked, SegmentationConfig(concavity=2.0)).num_found == 1
    merged = SegmentationConfig(concavity=2.0, depth_jump_m=1.0)
    assert score(behind, merged).num_found == 1
    assert score(behind).num_found == 2


def test_instances_grow_back_over_the_cuts() -> None:
    scene = build_scene(STACKED)

    eroded, grown = (score(scene, SegmentationConfig(grow_px=pixels)).mean_iou for pixels in (0, 8))

    assert grown > eroded + 0.1


def test_stride_trades_detail_for_speed() -> None:
    scene = build_scene(APART, Surroundings(width=640, height=480))

    fine, coarse = (score(scene, SegmentationConfig(stride=stride)).mean_iou for stride in (1, 6))

    assert fine > coarse > 0.5


def test_tolerance_of_the_table_takes_in_its_bend() -> None:
    scene = build_scene((Box((0.0, 0.0, 0.0), (0.08, 0.08, 0.08)),), Surroundings(noise_m=0.006))

    assert score(scene, SegmentationConfig(plane_tolerance_m=0.02)).num_found == 1


def test_no_depth_and_no_table_are_named() -> None:
    camera = PinholeCamera.from_fov(320, 240, vertical_fov_rad=0.8)
    black = np.zeros((240, 320, 3), np.uint8)

    with pytest.raises(SegmentationError, match="got no depth at all"):
        TabletopSegmenter(CONFIG)(RGBDFrame(black, np.full((240, 320), np.nan, np.float32), camera))
    noise = np.random.default_rng(0).uniform(0.3, 3.0, (240, 320)).astype(np.float32)
    with pytest.raises(SegmentationError, match="no table"):
        TabletopSegmenter(CONFIG)(RGBDFrame(black, noise, camera))


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/segmentation_quality.py")


def test_real_kinect_scenes_reach_the_published_score(shared_data: Path, benchmark: ModuleType) -> None:
    results = benchmark.evaluate_folder(shared_data / "tabletop_labelled")

    assert len(results) == 14
    assert np.mean([result.score.mean_iou for result in results]) > 0.88
    assert np.mean(np.concatenate([result.score.ious for result in results]) > 0.75) > 0.9
    assert "| **all 14** | 35 |" in benchmark.table(results)


def test_a_folder_without_labels_is_named(tmp_path: Path, benchmark: ModuleType) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected files named \*_label\.png, found none"):
        benchmark.evaluate_folder(tmp_path)


def test_a_missing_image_is_named(tmp_path: Path, benchmark: ModuleType) -> None:
    camera = {"width": 4, "height": 3, "fx": 5.0, "fy": 5.0, "cx": 1.5, "cy": 1.0, "depth_unit_m": 0.001}
    (tmp_path / "camera.json").write_text(json.dumps(camera), encoding="utf-8")
    cv2.imwrite(str(tmp_path / "07_label.png"), np.zeros((3, 4), np.uint8))

    with pytest.raises(FileNotFoundError, match="scene 07 lacks its colour or depth image"):
        benchmark.evaluate_folder(tmp_path)


def recorded_frame(color: Path, depth: Path, camera: Path) -> RGBDFrame:
    content = json.loads(camera.read_text(encoding="utf-8"))
    bgr, raw = cv2.imread(str(color)), cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)
    assert bgr is not None
    assert raw is not None
    depth_m = np.where(raw > 0, raw * content["depth_unit_m"], np.nan).astype(np.float32)
    intrinsics = PinholeCamera(*(content[key] for key in ("width", "height", "fx", "fy", "cx", "cy")))
    return RGBDFrame(np.ascontiguousarray(bgr[..., ::-1]), depth_m, intrinsics)


# Objects counted by eye in the colour images; parts and things at the table's far edge may add some.
REALSENSE_COUNTS = {
    "0000": 10,
    "0001": 10,
    "0002": 9,
    "0003": 10,
    "0004": 4,
    "0005": 3,
    "0006": 13,
    "0007": 5,
    "0008": 10,
}


@pytest.mark.parametrize("name", REALSENSE_COUNTS)
def test_real_realsense_scenes(name: str, shared_data: Path) -> None:
    folder = shared_data / "tabletop_rgbd"

    frame = recorded_frame(folder / f"{name}_color.jpg", folder / f"{name}_depth.png", folder / "camera.json")
    areas_px = TabletopSegmenter(CONFIG)(frame).areas_px

    assert 0.6 * REALSENSE_COUNTS[name] <= len(areas_px) <= 2.0 * REALSENSE_COUNTS[name]
    assert max(areas_px.values()) < 0.12 * 640 * 480, "no wall, floor or table is an object"


def test_real_stereo_camera_in_a_kitchen(shared_data: Path) -> None:
    folder = shared_data / "pour_water_rgbd"
    stamp = "1739654368.000"

    frame = recorded_frame(folder / "color" / f"{stamp}.jpg", folder / "depth" / f"{stamp}.png", folder / "camera.json")
    ids = TabletopSegmenter(CONFIG)(frame).ids

    cup, bag = ids[439, 650], ids[130, 740]
    assert cup > 0
    assert bag > 0
    assert cup != bag
    assert 1500 < (ids == cup).sum() < 12_000
    assert ids[500, 450] == 0, "the counter is no object"
    assert ids[650, 600] == 0, "the floor is no object"
