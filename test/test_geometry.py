"""Cameras against hand calculation; rotations against transforms3d, which shares no code with the package."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import transforms3d.euler
import transforms3d.quaternions

from momap_ros.geometry import (
    Float64,
    PinholeCamera,
    continuous_quaternions,
    fit_rigid,
    invert_se3,
    kabsch_rotations,
    project,
    quaternions_from_rotations,
    rotations_from_quaternions,
    se3_from_parts,
    transform_points,
    unproject_depth,
    wxyz_from_xyzw,
    xyzw_from_wxyz,
)
from momap_ros.shapes import ShapeError

CAMERA = PinholeCamera(640, 480, 500.0, 520.0, 310.0, 250.0)


def random_rotations(count: int, seed: int = 0) -> Float64:
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, (count, 3))
    return np.stack([transforms3d.euler.euler2mat(*triple) for triple in angles])


def random_motion(seed: int = 0) -> Float64:
    return se3_from_parts(random_rotations(1, seed)[0], np.random.default_rng(seed).normal(size=3))


class TestPinholeCamera:
    def test_matrix_projects_like_project(self) -> None:
        point = np.array([0.1, -0.2, 2.0])

        u, v, w = CAMERA.matrix @ point

        np.testing.assert_allclose(project(point, CAMERA), [u / w, v / w])
        np.testing.assert_allclose(project(point, CAMERA), [500 * 0.05 + 310, 520 * -0.1 + 250])

    def test_field_of_view_reaches_the_outer_edges_of_the_border_pixels(self) -> None:
        camera = PinholeCamera.from_fov(640, 480, vertical_fov_rad=np.pi / 2)

        # 45 degrees up at the edge half a pixel above the centre of row 0: focal length = half the height.
        assert camera.fx == camera.fy == pytest.approx(240.0)
        np.testing.assert_allclose(project(np.array([0.0, -1.0, 1.0]), camera), [319.5, -0.5])

    def test_rays_hit_pixel_centres(self) -> None:
        assert CAMERA.rays.shape == (480, 640, 3)
        assert CAMERA.rays.dtype == np.float32
        u, v = np.meshgrid(np.arange(640), np.arange(480))
        np.testing.assert_allclose(project(CAMERA.rays, CAMERA), np.stack([u, v], axis=-1), atol=1e-3)

    @pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 960), (256, 256), (641, 479)])
    def test_resizing_scales_outer_edges(self, width: int, height: int) -> None:
        points = np.random.default_rng(0).uniform([-1, -1, 1], [1, 1, 3], (50, 3))

        before, after = project(points, CAMERA), project(points, CAMERA.resized(width, height))

        # In coordinates with the image's corner at zero, resizing is a plain scale.
        np.testing.assert_allclose(after + 0.5, (before + 0.5) * [width / 640, height / 480])

    def test_resizing_there_and_back(self) -> None:
        back = CAMERA.resized(256, 256).resized(640, 480)

        np.testing.assert_allclose(dataclasses.astuple(back), dataclasses.astuple(CAMERA))

    def test_cropping_moves_the_origin(self) -> None:
        point = np.array([0.1, -0.2, 2.0])

        window = CAMERA.cropped(100, 50, 200, 150)

        assert (window.width, window.height) == (200, 150)
        np.testing.assert_allclose(project(point, window), project(point, CAMERA) - [100, 50])

    @pytest.mark.parametrize(("field", "value"), [("width", 0), ("height", -1)])
    def test_a_size_that_is_none_is_named(self, field: str, value: int) -> None:
        with pytest.raises(ValueError, match="camera size: expected positive pixels, got"):
            dataclasses.replace(CAMERA, **{field: value})

    @pytest.mark.parametrize(
        ("field", "value"), [("fx", 0.0), ("fy", -1.0), ("fx", np.nan), ("cx", np.nan), ("cy", np.inf), ("fy", np.inf)]
    )
    def test_intrinsics_that_are_none_are_named(self, field: str, value: float) -> None:
        intrinsics = {"fx": 500.0, "fy": 520.0, "cx": 310.0, "cy": 250.0} | {field: value}

        with pytest.raises(ValueError, match=rf"camera intrinsics: .*{field}={value}.*not calibrated"):
            PinholeCamera(640, 480, **intrinsics)


class TestProjection:
    def test_unprojecting_a_hand_computed_pixel(self) -> None:
        depth_m = np.full((480, 640), np.nan, np.float32)
        depth_m[302, 360] = 2.0

        points = unproject_depth(depth_m, CAMERA)

        np.testing.assert_allclose(points[302, 360], [0.2, 0.2, 2.0], rtol=1e-6)
        assert np.isnan(points).all(axis=-1).sum() == 480 * 640 - 1

    def test_projecting_undoes_unprojecting(self) -> None:
        depth_m = np.random.default_rng(0).uniform(0.2, 5.0, (480, 640)).astype(np.float32)

        pixels = project(unproject_depth(depth_m, CAMERA), CAMERA)

        u, v = np.meshgrid(np.arange(640), np.arange(480))
        np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1), atol=1e-3)

    def test_distance_does_not_move_the_pixel(self) -> None:
        points = np.random.default_rng(1).uniform([-1, -1, 1], [1, 1, 3], (20, 3))

        np.testing.assert_allclose(project(3.0 * points, CAMERA), project(points, CAMERA))

    @pytest.mark.parametrize("z", [0.0, -1.0, np.nan])
    def test_points_not_in_front_of_the_camera_have_no_pixel(self, z: float) -> None:
        assert np.isnan(project(np.array([0.1, 0.1, z]), CAMERA)).all()

    def test_depth_of_another_size_is_named(self) -> None:
        with pytest.raises(ShapeError, match=r"depth_m: expected \(H, W\), got \(240, 320\); axis H must be 480"):
            unproject_depth(np.ones((240, 320), np.float32), CAMERA)

    def test_points_have_three_coordinates(self) -> None:
        with pytest.raises(ShapeError, match="axis 3 must be 3"):
            project(np.ones((5, 2)), CAMERA)


class TestRigidTransforms:
    def test_parts_are_where_they_belong(self) -> None:
        rotation, translation = random_rotations(1)[0], np.array([1.0, 2.0, 3.0])

        matrix = se3_from_parts(rotation, translation)

        np.testing.assert_array_equal(matrix[:3, :3], rotation)
        np.testing.assert_array_equal(matrix[:, 3], [1.0, 2.0, 3.0, 1.0])
        np.testing.assert_array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0])

    def test_leading_axes_are_kept(self) -> None:
        assert se3_from_parts(random_rotations(6).reshape(2, 3, 3, 3), np.zeros((2, 3, 3))).shape == (2, 3, 4, 4)

    def test_inverse_is_that_of_linear_algebra(self) -> None:
        motions = np.stack([random_motion(seed) for seed in range(5)])

        np.testing.assert_allclose(invert_se3(motions), np.linalg.inv(motions), atol=1e-12)
        np.testing.assert_allclose(invert_se3(motions) @ motions, np.broadcast_to(np.eye(4), (5, 4, 4)), atol=1e-12)

    def test_points_move_as_homogeneous_coordinates(self) -> None:
        motion, points = random_motion(), np.random.default_rng(0).normal(size=(7, 3))

        expected = (motion @ np.concatenate([points, np.ones((7, 1))], axis=1).T).T[:, :3]

        np.testing.assert_allclose(transform_points(motion, points), expected, atol=1e-12)

    def test_leading_axes_broadcast(self) -> None:
        motions = np.stack([random_motion(seed) for seed in range(4)])
        points = np.random.default_rng(0).normal(size=(7, 3))

        moved = transform_points(motions[:, None], points)

        assert moved.shape == (4, 7, 3)
        np.testing.assert_allclose(moved[2], transform_points(motions[2], points))

    def test_composition_is_the_product(self) -> None:
        base_from_camera, camera_from_object = random_motion(1), random_motion(2)
        points = np.random.default_rng(0).normal(size=(7, 3))

        stepwise = transform_points(base_from_camera, transform_points(camera_from_object, points))

        np.testing.assert_allclose(
            transform_points(base_from_camera @ camera_from_object, points), stepwise, atol=1e-12
        )

    def test_distances_are_kept(self) -> None:
        points = np.random.default_rng(0).normal(size=(7, 3))

        moved = transform_points(random_motion(), points)

        np.testing.assert_allclose(
            np.linalg.norm(np.diff(moved, axis=0), axis=1), np.linalg.norm(np.diff(points, axis=0), axis=1)
        )

    def test_wrong_matrices_are_named(self) -> None:
        with pytest.raises(
            ShapeError, match=r"target_from_source: expected \(..., 4, 4\), got \(3, 4\); axis 4 must be 4"
        ):
            transform_points(np.ones((3, 4)), np.ones(3))


class TestQuaternions:
    def test_rotations_become_the_quaternions_of_transforms3d(self) -> None:
        rotations = random_rotations(50)

        expected = np.stack([transforms3d.quaternions.mat2quat(rotation) for rotation in rotations])

        np.testing.assert_allclose(quaternions_from_rotations(rotations), expected, atol=1e-9)

    def test_quaternions_become_the_rotations_of_transforms3d(self) -> None:
        quaternions = np.random.default_rng(0).normal(size=(50, 4))

        expected = np.stack([transforms3d.quaternions.quat2mat(quaternion) for quaternion in quaternions])

        np.testing.assert_allclose(rotations_from_quaternions(quaternions), expected, atol=1e-12)

    def test_identity_and_quarter_turn(self) -> None:
        quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

        np.testing.assert_allclose(quaternions_from_rotations(np.eye(3)), [1.0, 0.0, 0.0, 0.0], atol=1e-15)
        np.testing.assert_allclose(
            quaternions_from_rotations(quarter), [np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)], atol=1e-15
        )

    def test_the_real_part_is_never_negative(self) -> None:
        assert (quaternions_from_rotations(random_rotations(200))[:, 0] >= 0).all()

    def test_leading_axes_are_kept_both_ways(self) -> None:
        rotations = random_rotations(6).reshape(2, 3, 3, 3)

        quaternions = quaternions_from_rotations(rotations)

        assert quaternions.shape == (2, 3, 4)
        np.testing.assert_allclose(rotations_from_quaternions(quaternions), rotations, atol=1e-12)

    def test_length_of_a_quaternion_does_not_matter(self) -> None:
        quaternion = np.array([0.1, -0.7, 0.2, 0.4])

        np.testing.assert_allclose(rotations_from_quaternions(5.0 * quaternion), rotations_from_quaternions(quaternion))

    def test_a_full_turn_has_no_jump(self) -> None:
        angles = np.linspace(0.0, 2.0 * np.pi, 41)
        turning = np.stack([transforms3d.euler.euler2mat(0.0, 0.0, angle) for angle in angles])
        jumping = quaternions_from_rotations(turning)

        smooth = continuous_quaternions(jumping)

        step = np.linalg.norm(np.diff(smooth, axis=0), axis=1)
        assert np.linalg.norm(np.diff(jumping, axis=0), axis=1).max() > 1.9, "the input must jump"
        # A turn by a moves the quaternion by 2 sin(a / 4).
        np.testing.assert_allclose(step, 2.0 * np.sin(2.0 * np.pi / 40 / 4), atol=1e-9)
        np.testing.assert_allclose(rotations_from_quaternions(smooth), turning, atol=1e-9)
        np.testing.assert_array_equal(smooth[0], jumping[0])

    def test_tracks_side_by_side_are_made_continuous_apart(self) -> None:
        one = np.array([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
        other = np.array([[0.0, 1.0, 0.0, 0.0]] * 3)

        smooth = continuous_quaternions(np.stack([one, other], axis=1))

        np.testing.assert_array_equal(smooth[:, 0], [[1.0, 0.0, 0.0, 0.0]] * 3)
        np.testing.assert_array_equal(smooth[:, 1], other)

    def test_orders_of_the_core_and_of_ros(self) -> None:
        np.testing.assert_array_equal(xyzw_from_wxyz(np.array([1.0, 2.0, 3.0, 4.0])), [2.0, 3.0, 4.0, 1.0])
        np.testing.assert_array_equal(wxyz_from_xyzw(np.array([1.0, 2.0, 3.0, 4.0])), [4.0, 1.0, 2.0, 3.0])
        many = np.random.default_rng(0).normal(size=(2, 3, 4))
        np.testing.assert_array_equal(wxyz_from_xyzw(xyzw_from_wxyz(many)), many)


class TestFitRigid:
    @pytest.mark.parametrize("seed", range(5))
    def test_exact_motion_is_recovered(self, seed: int) -> None:
        motion, points = random_motion(seed), np.random.default_rng(seed).normal(size=(10, 3))

        np.testing.assert_allclose(fit_rigid(points, transform_points(motion, points)), motion, atol=1e-12)

    def test_three_points_suffice(self) -> None:
        motion, points = random_motion(), np.eye(3)

        np.testing.assert_allclose(fit_rigid(points, transform_points(motion, points)), motion, atol=1e-12)

    def test_a_mirror_image_gives_a_rotation(self) -> None:
        points = np.random.default_rng(0).normal(size=(30, 3))

        rotation = fit_rigid(points, points * [1.0, 1.0, -1.0])[:3, :3]

        assert np.linalg.det(rotation) == pytest.approx(1.0)

    def test_points_without_weight_do_not_count(self) -> None:
        motion, points = random_motion(), np.random.default_rng(0).normal(size=(10, 3))
        target = transform_points(motion, points)
        target[7:] += 100.0

        np.testing.assert_allclose(fit_rigid(points, target, np.array([1.0] * 7 + [0.0] * 3)), motion, atol=1e-10)

    def test_a_weight_of_two_is_a_point_twice(self) -> None:
        generator = np.random.default_rng(0)
        source, target = generator.normal(size=(2, 8, 3))
        weights = np.array([2.0, 1, 1, 1, 1, 1, 1, 1])

        doubled = fit_rigid(np.concatenate([source[:1], source]), np.concatenate([target[:1], target]))

        np.testing.assert_allclose(fit_rigid(source, target, weights), doubled, atol=1e-12)

    def test_no_other_motion_fits_better(self) -> None:
        generator = np.random.default_rng(0)
        source = generator.normal(size=(20, 3))
        target = transform_points(random_motion(), source) + 0.1 * generator.normal(size=(20, 3))
        best = fit_rigid(source, target)
        error = np.sum((transform_points(best, source) - target) ** 2)

        for _ in range(200):
            nudge = se3_from_parts(
                transforms3d.euler.euler2mat(*generator.normal(0, 0.02, 3)), generator.normal(0, 0.02, 3)
            )
            assert np.sum((transform_points(nudge @ best, source) - target) ** 2) > error

    @pytest.mark.parametrize("weights", [[0.0] * 4, [np.nan] * 4])
    def test_no_weight_at_all_is_named(self, weights: list[float]) -> None:
        with pytest.raises(ValueError, match="weights: expected at least one positive value for 4 points, got none"):
            fit_rigid(np.ones((4, 3)), np.ones((4, 3)), np.array(weights))

    def test_different_numbers_of_points_are_named(self) -> None:
        with pytest.raises(ShapeError, match="axis P must be 4"):
            fit_rigid(np.ones((4, 3)), np.ones((5, 3)))


@pytest.mark.parametrize("count", [4, 200])  # both ways of computing them
@pytest.mark.parametrize(
    "spreads",
    [
        (1.0, 0.5, 0.2),
        (1.0, 1.0, 1.0),
        (1.0, 0.5, 0.0),  # a plane
        (1.0, 0.5, -0.2),  # a mirror
        (1.0, 0.99, -0.9),
        (1.0, 1e-3, 1e-6),  # nearly a line
        (1e-4, 5e-5, 1e-5),
    ],
)
def test_kabsch_rotations_are_the_constructed_ones(spreads: tuple[float, float, float], count: int) -> None:
    # A = R V diag(s) V^T: R is the polar factor; with a negative last spread A is a mirror, and R its nearest rotation.
    rotations, axes = random_rotations(count, seed=1), random_rotations(count, seed=2)
    covariances = rotations @ axes @ np.diag(spreads) @ np.swapaxes(axes, 1, 2)

    found, determined = kabsch_rotations(covariances.reshape(2, -1, 3, 3), min_spread=1e-6)

    assert determined.all()
    np.testing.assert_allclose(found.reshape(-1, 3, 3), rotations, atol=1e-12)


@pytest.mark.parametrize("count", [4, 200])
def test_kabsch_rotations_of_lines_and_points_are_open(count: int) -> None:
    rotations, axes = random_rotations(count, seed=3), random_rotations(count, seed=4)
    for spreads in ((1.0, 0.0, 0.0), (1.0, 1e-8, 0.0), (0.0, 0.0, 0.0)):
        covariances = rotations @ axes @ np.diag(spreads) @ np.swapaxes(axes, 1, 2)
        found, determined = kabsch_rotations(covariances, min_spread=1e-6)
        assert not determined.any()
        np.testing.assert_array_equal(found, np.broadcast_to(np.eye(3), found.shape))
    assert kabsch_rotations(np.zeros((0, 5, 3, 3)), min_spread=1e-6)[0].shape == (0, 5, 3, 3)
