"""Pinhole cameras, point maps and rigid motions: the only place where pixels become metres.

Conventions, everywhere in this package: metres; the camera is its optical frame (x right, y down, z forward; REP 103);
the centre of pixel (u, v) lies at exactly (u, v), as in ROS and OpenCV; a rigid transform is a 4x4 matrix named
`target_from_source`; quaternions are (w, x, y, z) in the core and (x, y, z, w) only in ROS messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from momap_ros.shapes import check_shapes

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating]

# From so many matrices on a Newton iteration over all of them is faster than LAPACK, one after the other.
MANY_MATRICES = 30
# Entries of a 3x3 matrix in a 4x4 one whose rows and columns are its second, third, first and second.
WRAPPED = (3 * np.array([[1], [2], [0], [1]]) + np.array([1, 2, 0, 1])).ravel()


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of an undistorted image.

    Attributes:
        width: pixels.
        height: pixels.
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels; a pixel's centre has integer coordinates.
        cy: principal point, pixels.

    Raises:
        ValueError: a size or focal length is not positive, or a number is not finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        """Refuse intrinsics that cannot belong to a camera."""
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"camera size: expected positive pixels, got {self.width}x{self.height}")
        if not np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() or self.fx <= 0 or self.fy <= 0:
            raise ValueError(
                f"camera intrinsics: expected finite values and positive focal lengths, got fx={self.fx}, "
                f"fy={self.fy}, cx={self.cx}, cy={self.cy}; the camera_info is probably not calibrated"
            )

    @classmethod
    def from_fov(cls, width: int, height: int, *, vertical_fov_rad: float) -> PinholeCamera:
        """A camera with square pixels and a central principal point."""
        focal = 0.5 * height / np.tan(0.5 * vertical_fov_rad)
        return cls(width, height, float(focal), float(focal), (width - 1) / 2, (height - 1) / 2)

    @property
    def matrix(self) -> Float64:
        """The 3x3 intrinsic matrix K, pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The camera of this image stretched to another size; x and y may scale differently."""
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> PinholeCamera:
        """The camera of the window whose upper left pixel is (left, top)."""
        return PinholeCamera(width, height, self.fx, self.fy, self.cx - left, self.cy - top)

    @cached_property
    def rays(self) -> Float32:
        """(H, W, 3) viewing rays with z = 1; a point is its ray times its depth."""
        return _rays(self)


@lru_cache(maxsize=4)
def _rays(camera: PinholeCamera) -> Float32:
    """Of `PinholeCamera.rays`, kept from frame to frame; read-only, because frames share it."""
    u = (np.arange(camera.width, dtype=np.float64) - camera.cx) / camera.fx
    v = (np.arange(camera.height, dtype=np.float64) - camera.cy) / camera.fy
    rays = np.ones((camera.height, camera.width, 3), np.float32)
    rays[..., 0] = u
    rays[..., 1] = v[:, None]
    rays.flags.writeable = False
    return rays


def unproject_depth(depth_m: Float32, camera: PinholeCamera) -> Float32:
    """Lift a depth image to a point map.

    Paper: Sec. 3.3.1, the first frame's "XYZ map".

    Args:
        depth_m: (H, W), metres along optical z; NaN where there is no reading.
        camera: intrinsics of this very image.

    Returns:
        (H, W, 3), metres, optical frame; NaN exactly where depth_m is NaN.

    Raises:
        ShapeError: depth_m is not (camera.height, camera.width).
    """
    check_shapes({"H": camera.height, "W": camera.width}, depth_m=(depth_m, "H W"))
    return camera.rays * depth_m.astype(np.float32, copy=False)[..., None]


def project(points_in_camera: FloatArray, camera: PinholeCamera) -> Float64:
    """Image coordinates (u, v), pixels, of (..., 3) points in metres; NaN for points not in front of the camera."""
    check_shapes(points_in_camera=(points_in_camera, "... 3"))
    points = np.asarray(points_in_camera, np.float64)
    depth = np.where(points[..., 2] > 0, points[..., 2], np.nan)
    u = camera.fx * points[..., 0] / depth + camera.cx
    v = camera.fy * points[..., 1] / depth + camera.cy
    return np.stack([u, v], axis=-1)


def se3_from_parts(rotation: FloatArray, translation_m: FloatArray) -> Float64:
    """(..., 4, 4) rigid transforms from (..., 3, 3) rotations and (..., 3) translations in metres."""
    check_shapes(rotation=(rotation, "... 3 3"), translation_m=(translation_m, "... 3"))
    matrix = np.zeros((*rotation.shape[:-2], 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation_m
    matrix[..., 3, 3] = 1.0
    return matrix


def invert_se3(target_from_source: FloatArray) -> Float64:
    """(..., 4, 4) source_from_target, exactly rigid: the rotation is transposed, never numerically inverted."""
    check_shapes(target_from_source=(target_from_source, "... 4 4"))
    rotation_t = np.swapaxes(target_from_source[..., :3, :3], -1, -2)
    return se3_from_parts(rotation_t, -np.einsum("...ij,...j->...i", rotation_t, target_from_source[..., :3, 3]))


def transform_points(target_from_source: FloatArray, points_in_source: FloatArray) -> Float64:
    """(..., 3) points in the target frame, metres; the leading axes of both arguments broadcast."""
    check_shapes(target_from_source=(target_from_source, "... 4 4"), points_in_source=(points_in_source, "... 3"))
    rotated = np.einsum("...ij,...j->...i", target_from_source[..., :3, :3], points_in_source)
    return np.asarray(rotated + target_from_source[..., :3, 3], np.float64)


def quaternions_from_rotations(rotations: FloatArray) -> Float64:
    """(..., 4) unit quaternions (w, x, y, z) of (..., 3, 3) rotations, with w >= 0."""
    check_shapes(rotations=(rotations, "... 3 3"))
    from scipy.spatial.transform import Rotation

    xyzw = Rotation.from_matrix(np.reshape(rotations, (-1, 3, 3))).as_quat()
    wxyz = xyzw[:, [3, 0, 1, 2]]
    return np.asarray(np.where(wxyz[:, :1] < 0, -wxyz, wxyz).reshape(*rotations.shape[:-2], 4), np.float64)


def rotations_from_quaternions(quaternions: FloatArray) -> Float64:
    """(..., 3, 3) rotations of (..., 4) quaternions (w, x, y, z) of any non-zero length."""
    check_shapes(quaternions=(quaternions, "... 4"))
    from scipy.spatial.transform import Rotation

    wxyz = np.reshape(quaternions, (-1, 4))
    return np.asarray(Rotation.from_quat(wxyz[:, [1, 2, 3, 0]]).as_matrix().reshape(*quaternions.shape[:-1], 3, 3))


def continuous_quaternions(quaternions: FloatArray) -> Float64:
    """(T, ..., 4) the same rotations with signs chosen so that neighbours along the first axis never jump."""
    check_shapes(quaternions=(quaternions, "... 4"))
    agrees = np.sum(quaternions[1:] * quaternions[:-1], axis=-1) >= 0
    signs = np.cumprod(np.where(agrees, 1.0, -1.0), axis=0)
    result = np.array(quaternions, np.float64)
    result[1:] *= signs[..., None]
    return result


def xyzw_from_wxyz(quaternions: FloatArray) -> Float64:
    """(..., 4) ROS order from core order; with wxyz_from_xyzw the only two places that know both orders."""
    return np.asarray(np.roll(quaternions, -1, axis=-1), np.float64)


def wxyz_from_xyzw(quaternions: FloatArray) -> Float64:
    """(..., 4) core order from ROS order."""
    return np.asarray(np.roll(quaternions, 1, axis=-1), np.float64)


def fit_rigid(source: FloatArray, target: FloatArray, weights: FloatArray | None = None) -> Float64:
    """The rigid transform that moves source points onto target points with the least weighted squared error.

    Reference: W. Kabsch, doi:10.1107/S0567739476001873; the sign fix that excludes mirrors is S. Umeyama's,
    doi:10.1109/34.88573.

    Args:
        source: (P, 3), metres.
        target: (P, 3), metres.
        weights: (P,), non-negative, not all zero; equal where absent.

    Returns:
        (4, 4) target_from_source. Where the points do not determine the rotation (fewer than three, or on a line) it is
        one of the equally good ones: check the spread of the points first.

    Raises:
        ValueError: no point has a positive weight.
    """
    check_shapes(source=(source, "P 3"), target=(target, "P 3"))
    share = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    check_shapes({"P": len(source)}, weights=(share, "P"))
    if not share.sum() > 0:
        raise ValueError(f"weights: expected at least one positive value for {len(source)} points, got none")
    share = share / share.sum()
    source_centre, target_centre = share @ source, share @ target
    covariance = (target - target_centre).T @ (share[:, None] * (source - source_centre))
    left, _, right_t = np.linalg.svd(covariance)
    mirror = np.sign(np.linalg.det(left @ right_t))
    rotation = left @ np.diag([1.0, 1.0, mirror]) @ right_t
    return se3_from_parts(rotation, target_centre - rotation @ source_centre)


def kabsch_rotations(covariances: FloatArray, min_spread: float) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """The rotations R with the largest trace(R^T A), as from singular values, but faster for many matrices.

    With A = U diag(s1, s2, s3) V^T and the sign d of its determinant, R = U diag(1, 1, d) V^T. The cofactor matrix of A
    is R V diag(d s2 s3, d s1 s3, s1 s2) V^T, so A + cof(A) / s1 is R times a positive definite matrix, for mirrors and
    planes too: its polar factor is R. A polynomial comes near it; Newton's iteration, which converges quadratically,
    takes away what is left.

    Reference: N. Higham, Functions of Matrices (2008), doi:10.1137/1.9780898717778, Sec. 8.3 and 8.6.

    Args:
        covariances: (..., 3, 3) sums of target times source, both relative to their means.
        min_spread: a rotation is determined where the second singular value is at least this; must be positive.

    Returns:
        (..., 3, 3) rotations, the identity where not determined, and (...) bool, where they are.
    """
    check_shapes(covariances=(covariances, "... 3 3"))
    if covariances.size < 9 * MANY_MATRICES:
        left, spread, right_t = np.linalg.svd(covariances)
        left[..., 2] *= np.linalg.det(left @ right_t)[..., None].round()  # a mirror becomes the nearest rotation
        known = spread[..., 1] >= min_spread
        return np.where(known[..., None, None], left @ right_t, np.eye(3)), np.asarray(known)
    # One row of numbers per entry, (3, 3, M): several times faster than matrices one after the other.
    planes = np.ascontiguousarray(covariances.reshape(-1, 9).T, np.float64).reshape(3, 3, -1)
    cofactors = _cofactors(planes)
    first, second, determinant = _singular_values(planes, cofactors)
    determined = second >= min_spread
    if not determined.all():
        planes, cofactors = (np.where(determined, values, np.eye(3)[..., None]) for values in (planes, cofactors))
        first, second, determinant = (np.where(determined, values, 1.0) for values in (first, second, determinant))
    matrix = _polar_factor(planes + cofactors / first, first, second, determinant / (first * second))
    for _ in range(20):
        inverse_t = _cofactors(matrix)
        inverse_t /= (matrix[0] * inverse_t[0]).sum(axis=0)
        size, inverse_size = _squared_norm(matrix), _squared_norm(inverse_t)
        scale = (inverse_size / size) ** 0.25
        matrix = 0.5 * (scale * matrix + inverse_t / scale)
        # The sum is that of (s - 1/s)^2 over the singular values s before this step, which squares their error.
        if (size + inverse_size).max(initial=0.0) - 6.0 < 1e-14:
            break
    return matrix.transpose(2, 0, 1).reshape(covariances.shape), determined.reshape(covariances.shape[:-2])


def _polar_factor(lifted: Float64, first: Float64, second: Float64, third: Float64) -> Float64:
    """The polar factor of (3, 3, M) matrices X = A + cof(A) / s1, to rounding times their condition.

    Their singular values are a = s1 + s2 s3 / s1 and twice b = s2 + s3, with the determinant's sign in s3; those of
    cof(X) are b^2 and twice a b along the same axes. So X + cof(X) / b has three times a + b.
    """
    a = first + second * third / first
    b = np.maximum(second + third, np.finfo(float).eps * a)
    return np.asarray((lifted + _cofactors(lifted) / b) / (a + b))


def _singular_values(planes: Float64, cofactors: Float64) -> tuple[Float64, Float64, Float64]:
    """The two largest singular values of (3, 3, M) matrices, and the determinants.

    Their squares are the roots of x^3 - 3 m x^2 + p x - d^2, with 3 m and p the squared norms of the matrix and of its
    cofactors. Near a double root the largest is good to half the digits only, which is enough for `_polar_factor`.
    """
    determinant = (planes[0] * cofactors[0]).sum(axis=0)
    mean, pairs = _squared_norm(planes) / 3.0, _squared_norm(cofactors)
    radius = np.sqrt(np.maximum(mean**2 - pairs / 3.0, 0.0))
    cubic = mean * (2.0 * mean**2 - pairs) + determinant**2
    cosine = np.minimum(np.maximum(cubic / np.maximum(2.0 * radius**3, np.finfo(float).tiny), -1.0), 1.0)
    first = mean + 2.0 * radius * np.cos(np.arccos(cosine) / 3.0)
    # The other two from their product and sum.
    divisor = np.maximum(first, np.finfo(float).tiny)
    product = determinant**2 / divisor
    half = 0.5 * (pairs - product) / divisor
    second = half + np.sqrt(np.maximum(half**2 - product, 0.0))
    return np.sqrt(first), np.sqrt(np.maximum(second, 0.0)), determinant


def _cofactors(planes: Float64) -> Float64:
    """(3, 3, M) cofactors of (3, 3, M) matrices; row i is the cross product of the other two rows."""
    wrapped = planes.reshape(9, -1)[WRAPPED].reshape(4, 4, -1)
    return np.asarray(wrapped[:3, :3] * wrapped[1:, 1:] - wrapped[:3, 1:] * wrapped[1:, :3])


def _squared_norm(planes: Float64) -> Float64:
    """(M,) squared Frobenius norms of (3, 3, M) matrices."""
    return np.asarray(np.einsum("ijm,ijm->m", planes, planes))
