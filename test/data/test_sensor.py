"""Simulated cameras against the formulas they are made of."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from momap_ros.data.color_sensor import ColorSensor, measured_color
from momap_ros.data.depth_sensor import DepthSensor, measured_depth, smooth_field
from momap_ros.data.sample import Role, Sample
from momap_ros.data.sensor import SENSORS, Sensor, fitting_sensors, observe
from momap_ros.geometry import Float32, PinholeCamera

SIZE = 160


def sample_of(depth_m: Float32, *, body_ids: np.ndarray | None = None, rgb: np.ndarray | None = None) -> Sample:
    """A grey sample of this depth; body 1 is an object where body_ids say so."""
    height, width = depth_m.shape
    return Sample(
        key="val_0000000_0",
        split="val",
        skill="push",
        kind="block",
        text="push the block",
        rgb=np.full((height, width, 3), 128, np.uint8) if rgb is None else rgb,
        depth_m=depth_m.astype(np.float32),
        body_ids=np.zeros((height, width), np.uint8) if body_ids is None else body_ids,
        camera=PinholeCamera(width, height, 0.9 * width, 0.9 * width, (width - 1) / 2, (height - 1) / 2),
        camera_from_world=np.eye(4),
        body_names=("world", "block"),
        body_roles=(Role.WORLD, Role.ACTED),
        moving_bodies=np.array([1], np.uint8),
        motion_t_from_0=np.tile(np.eye(3, 4, dtype=np.float32), (5, 1, 1, 1)),
        duration_s=2.0,
    )


def wall(depth_m: float = 0.8) -> Sample:
    return sample_of(np.full((SIZE, SIZE), depth_m, np.float32))


def box() -> Sample:
    """A box of 32 x 32 pixels, 0.4 m before a wall at 0.8 m."""
    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[64:96, 64:96] = 1
    return sample_of(np.where(ids, 0.4, 0.8).astype(np.float32), body_ids=ids)


def colourful() -> Sample:
    """A slope with holes, in random colours, not square."""
    rng = np.random.default_rng(5)
    depth = np.tile(np.linspace(0.5, 1.5, 96, dtype=np.float32)[:, None], (1, 128))
    depth[10:30, 40:60] = np.nan
    return sample_of(depth, rgb=rng.integers(0, 256, (96, 128, 3), np.uint8))


def test_a_perfect_camera_changes_nothing() -> None:
    sample = colourful()
    observed = observe(sample, np.random.default_rng(0), Sensor())
    assert observed.rgb.tobytes() == sample.rgb.tobytes()
    assert observed.depth_m.tobytes() == sample.depth_m.tobytes()


@pytest.mark.parametrize("name", sorted(SENSORS))
def test_only_colour_and_depth_change_and_equal_seeds_give_equal_bytes(name: str) -> None:
    sample = colourful()
    first, again, other = (observe(sample, np.random.default_rng(seed), SENSORS[name]) for seed in (1, 1, 2))
    for part in ("rgb", "depth_m"):
        true, drawn = getattr(sample, part), getattr(first, part)
        assert (drawn.shape, drawn.dtype) == (true.shape, true.dtype)
        assert drawn.tobytes() == getattr(again, part).tobytes() != getattr(other, part).tobytes()
    for item in fields(sample):
        if item.name not in {"rgb", "depth_m"}:
            assert getattr(first, item.name) is getattr(sample, item.name)
    assert (first.depth_m[np.isfinite(first.depth_m)] > 0).all()


def test_without_a_camera_one_is_drawn() -> None:
    rng = np.random.default_rng(0)
    steps = {bytes(observe(wall(), rng).depth_m[:1].tobytes()) for _ in range(4)}
    assert len(steps) == 4


@pytest.mark.parametrize(
    ("depth_m", "names"),
    [
        (0.8, ["kinect_v1", "realsense_d415", "realsense_d435", "time_of_flight", "zed_2"]),
        (0.35, ["realsense_d415", "realsense_d435", "time_of_flight", "zed_2"]),
        (0.19, ["realsense_d435"]),
        (4.5, ["kinect_v1", "realsense_d415", "zed_2"]),
        (0.1, sorted(SENSORS)),  # out of range of all alike
    ],
)
def test_cameras_fit_what_lies_in_their_range(depth_m: float, names: list[str]) -> None:
    assert fitting_sensors(wall(depth_m)) == names


def test_a_tenth_of_a_view_may_be_out_of_range_and_the_camera_with_most_in_range_is_the_last_choice() -> None:
    depth_m = np.full((100, 100), 0.8, np.float32)
    depth_m[:10] = 0.1
    assert fitting_sensors(sample_of(depth_m)) == sorted(SENSORS)
    depth_m[10:40] = 0.25  # 0.9 of it in the range of these two, 0.6 in that of the others
    assert fitting_sensors(sample_of(depth_m)) == ["realsense_d435", "time_of_flight"]
    depth_m[:30] = 0.1  # 0.7 and 0.6
    assert fitting_sensors(sample_of(depth_m)) == ["realsense_d435", "time_of_flight"]
    depth_m[:] = np.nan
    assert fitting_sensors(sample_of(depth_m)) == sorted(SENSORS)


@pytest.mark.parametrize("depth_m", [0.4, 0.8, 1.6])
@pytest.mark.parametrize("length_px", [0.0, 2.0, 24.0])
def test_depth_noise_grows_with_the_square_of_depth(depth_m: float, length_px: float) -> None:
    """Depth^2 / (f b) times the noise of disparity, for small noise (Chatterjee and Govindu, arXiv:1505.01936)."""
    sensor = DepthSensor(focal_px=600, baseline_m=0.05, disparity_noise_px=0.05, noise_length_px=length_px)
    drawn = [measured_depth(wall(depth_m), np.random.default_rng(seed), sensor) for seed in range(12)]
    assert np.std(drawn) == pytest.approx(depth_m**2 / (600 * 0.05) * 0.05, rel=0.06)
    assert np.mean(drawn) == pytest.approx(depth_m, abs=0.001)


@pytest.mark.parametrize("length_px", [1.0, 3.0, 9.0])
def test_noise_is_correlated_as_a_smoothed_one(length_px: float) -> None:
    field = smooth_field(np.random.default_rng(0), (512, 512), length_px)
    assert field.std() == pytest.approx(1, abs=0.08)
    lag = round(2 * length_px)
    correlation = np.mean(field[:, lag:] * field[:, :-lag]) / field.var()
    assert correlation == pytest.approx(np.exp(-(lag**2) / (4 * length_px**2)), abs=0.07)


def test_disparity_and_depth_come_in_exact_steps() -> None:
    sample = colourful()
    known = np.isfinite(sample.depth_m)
    disparity = (
        600
        * 0.05
        / measured_depth(
            sample, np.random.default_rng(0), DepthSensor(focal_px=600, baseline_m=0.05, disparity_step_px=1 / 8)
        )
    )
    np.testing.assert_allclose(8 * disparity[known], np.rint(8 * disparity[known]), atol=1e-4)
    assert np.abs(disparity - 30 / sample.depth_m)[known].max() <= 1 / 16 + 1e-5
    millimetres = 1000 * measured_depth(sample, np.random.default_rng(0), DepthSensor(depth_step_m=0.001))
    np.testing.assert_allclose(millimetres[known], np.rint(millimetres[known]), atol=1e-3)
    assert np.abs(millimetres - 1000 * sample.depth_m)[known].max() <= 0.5 + 1e-3


def test_shadows_are_as_wide_as_the_difference_of_disparities() -> None:
    sample = box()
    depth = measured_depth(sample, np.random.default_rng(0), DepthSensor(shadow_m=0.052))
    width_px = sample.camera.fx * 0.052 * (1 / 0.4 - 1 / 0.8)  # 9.4
    hidden = np.isnan(depth)
    np.testing.assert_array_equal(hidden[64:96].sum(axis=1), round(width_px))
    assert hidden[64:96, 64 - round(width_px) : 64].all()
    assert not hidden[:64].any()
    strip = np.isnan(measured_depth(sample, np.random.default_rng(0), DepthSensor(shadow_m=0.052, left_strip=True)))
    np.testing.assert_array_equal(strip[0], np.arange(SIZE) < sample.camera.fx * 0.052 / 0.8)


def test_depth_appears_from_nothing_only_at_edges() -> None:
    sample = colourful()
    noisy = replace(SENSORS["realsense_d435"].depth, edge_px=5.0)  # of an image 640 wide: one pixel here
    reach = cv2.dilate(np.isfinite(sample.depth_m).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    appeared = np.zeros(reach.shape, bool)
    for seed in range(10):
        measured = np.isfinite(measured_depth(sample, np.random.default_rng(seed), noisy))
        assert not measured[~reach].any()
        appeared |= measured & np.isnan(sample.depth_m)
        flat = np.isfinite(measured_depth(sample, np.random.default_rng(seed), replace(noisy, edge_px=0.0)))
        assert not flat[np.isnan(sample.depth_m)].any()
    assert appeared.any()


def test_edges_bleed_as_often_as_they_should_and_slopes_stay() -> None:
    sensor = DepthSensor(edge_px=8.0, fatten_share=0.3, thin_share=0.2, flying_share=0.1)
    drawn = np.array([measured_depth(box(), np.random.default_rng(seed), sensor) for seed in range(60)])
    outside, inside = drawn[:, 70:90, 62:64], drawn[:, 70:90, 64:66]  # two pixels each side of the box's left edge
    assert np.mean(outside < 0.41) == pytest.approx(0.3 * 0.9, abs=0.05)
    assert np.mean(inside > 0.79) == pytest.approx(0.2 * 0.9, abs=0.05)
    between = (drawn > 0.401) & (drawn < 0.799)
    assert np.mean(between[:, 70:90, 62:66]) == pytest.approx(0.1, abs=0.02)
    assert not between[:, :60].any()
    slope: Float32 = np.repeat((1 / np.linspace(0.8, 2.5, SIZE)).astype(np.float32)[:, None], SIZE, axis=1)
    np.testing.assert_array_equal(measured_depth(sample_of(slope), np.random.default_rng(0), sensor), slope)


def test_holes_take_their_share() -> None:
    sample = wall()
    sample.rgb[:40] = 10
    sample.rgb[40:80] = 255
    sensor = DepthSensor(patch_share=0.05, dark_hole_share=0.5, bright_hole_share=0.2)
    holes = np.array([np.isnan(measured_depth(sample, np.random.default_rng(seed), sensor)) for seed in range(60)])
    shares = [holes[:, rows].mean() for rows in (slice(0, 40), slice(40, 80), slice(80, None))]
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.05], atol=0.03)


def test_range_and_missing_bodies() -> None:
    near_only = measured_depth(box(), np.random.default_rng(0), DepthSensor(max_depth_m=0.6))
    far_only = measured_depth(box(), np.random.default_rng(0), DepthSensor(min_depth_m=0.6))
    np.testing.assert_array_equal(np.isnan(near_only), ~np.isnan(far_only))
    lost = [
        np.isnan(measured_depth(box(), np.random.default_rng(seed), DepthSensor(missing_chance=0.5)))
        for seed in range(80)
    ]
    assert not any(mask[:64].any() for mask in lost)  # the world is no body
    assert np.mean([mask.mean() > 0.1 * 0.04 for mask in lost]) == pytest.approx(0.5, abs=0.17)


def test_colour_noise_is_shot_and_read_noise() -> None:
    """Standard deviation in linear light, sqrt(signal / N + (read / N)^2), through the slope of the sRGB curve."""
    sensor = ColorSensor(electrons=(1000.0, 1000.0), read_noise=10.0)
    for value in (60, 128, 220):
        drawn = measured_color(np.full((128, 128, 3), value, np.uint8), np.random.default_rng(0), sensor)
        linear = ((value / 255 + 0.055) / 1.055) ** 2.4
        slope = 1.055 / 2.4 * linear ** (1 / 2.4 - 1) * 255
        expected = slope * np.hypot(np.sqrt(linear / 1000), 10 / 1000)
        assert drawn.std() == pytest.approx(expected, rel=0.05)
        assert drawn.mean() == pytest.approx(value, abs=1)


def test_exposure_moves_all_channels_and_white_balance_red_and_blue() -> None:
    rgb = np.full((4, 4, 3), 100, np.uint8)
    exposed, tinted = (
        np.array([measured_color(rgb, np.random.default_rng(seed), sensor)[0, 0] for seed in range(40)], float)
        for sensor in (ColorSensor(exposure_spread=0.3), ColorSensor(white_balance_spread=0.3))
    )
    assert (exposed.max(axis=1) == exposed.min(axis=1)).all()
    assert (tinted[:, 1] == 100).all()
    # Half a stop is a factor of 2^(0.5 / 2.4) in sRGB, but for the curve's offset.
    assert np.std(np.log2((exposed[:, 0] / 255 + 0.055) / 1.055)) == pytest.approx(0.3 / 2.4, rel=0.3)
    assert tinted[:, 0].std() > 5
    assert tinted[:, 2].std() > 5


def test_blur_keeps_the_light_and_widens_a_point() -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[32, 32] = 255
    for sensor in (ColorSensor(defocus_px=40.0), ColorSensor(motion_px=100.0)):
        spread = [(measured_color(rgb, np.random.default_rng(seed), sensor)[..., 0] > 0).sum() for seed in range(10)]
        assert max(spread) > 8
    smeared = measured_color(rgb, np.random.default_rng(1), ColorSensor(motion_px=200.0))[..., 0]
    across, along = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack(np.nonzero(smeared)))))
    assert along > 3 * across


def test_jpeg_is_the_one_of_opencv() -> None:
    rgb = colourful().rgb
    coded = cv2.imencode(".jpg", rgb[..., ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), 60])[1]
    expected = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1]
    drawn = measured_color(rgb, np.random.default_rng(0), ColorSensor(jpeg_quality=(60, 60)))
    np.testing.assert_array_equal(drawn, expected)


def test_impossible_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a positive focal length and baseline"):
        DepthSensor(focal_px=0)
    with pytest.raises(ValueError, match="fatten_share"):
        DepthSensor(fatten_share=0.7, thin_share=0.4)


def test_the_kinect_has_the_steps_of_real_frames(repository: Path) -> None:
    """Depth of a real Kinect around 0.9 m comes in steps of 2.3 mm; ours too."""
    path = repository.parent / "shared" / "data" / "tabletop_labelled" / "03_depth.png"
    if not path.is_file():
        pytest.skip("needs the real recordings in ../shared/data")

    def step_mm(depth_mm: np.ndarray) -> float:
        values = np.unique(np.rint(depth_mm[(depth_mm > 850) & (depth_mm < 950)]))
        return float(np.diff(values).mean())

    real = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert real is not None
    slope = np.tile(np.linspace(0.8, 1.0, 400, dtype=np.float32)[:, None], (1, 400))
    kinect = replace(SENSORS["kinect_v1"].depth, scale_spread=0.0)
    ours = 1000 * measured_depth(sample_of(slope), np.random.default_rng(0), kinect)
    assert step_mm(ours) == pytest.approx(step_mm(real), rel=0.1)
