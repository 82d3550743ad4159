"""Draws coloured points with a depth buffer: the renderer of moving pictures, without OpenGL."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, PinholeCamera, project
from momap_ros.rgbd import UInt8
from momap_ros.shapes import check_shapes

# A point this little behind the static scene is still drawn: depth noise would tear surfaces that touch.
DEPTH_TOLERANCE_M = 0.01


def splat_points(
    background: UInt8,
    background_depth_m: Float32,
    points_in_camera: npt.NDArray[np.floating],
    colors: UInt8,
    *,
    camera: PinholeCamera,
    size_px: int = 2,
) -> UInt8:
    """Draw points as squares over an image; nearer ones hide farther ones, and the background hides what is behind it.

    A point always has the pixel it falls on, unless something is in front; the rest of its square only fills gaps and
    covers what is clearly farther away, so that an image drawn as points stays sharp.

    Args:
        background: (H, W, 3) uint8.
        background_depth_m: (H, W) metres of what the background shows; NaN hides nothing.
        points_in_camera: (P, 3) metres, optical frame; NaN points are not drawn.
        colors: (P, 3) uint8.
        camera: of the image.
        size_px: side of the squares; one of even size reaches a pixel farther to the right and down.

    Returns:
        (H, W, 3) a new image.
    """
    size = {"H": camera.height, "W": camera.width}
    check_shapes(size, background=(background, "H W 3"), background_depth_m=(background_depth_m, "H W"))
    check_shapes(points_in_camera=(points_in_camera, "P 3"), colors=(colors, "P 3"))
    uv = project(points_in_camera, camera)
    # Far points first: of several assignments to a pixel the last one stays.
    order = np.argsort(-points_in_camera[:, 2])
    order = order[np.isfinite(uv[order]).all(axis=1)]
    pixel = np.floor(uv[order] + 0.5).astype(np.int64)
    depth, color = points_in_camera[order, 2], colors[order]
    limit = np.where(np.isnan(background_depth_m), np.inf, background_depth_m + DEPTH_TOLERANCE_M)
    image: UInt8 = background.copy()
    nearest = np.full((camera.height, camera.width), np.inf)
    reach = range(-((size_px - 1) // 2), size_px // 2 + 1)
    for offset_v, offset_u in sorted(
        itertools.product(reach, reach), key=lambda offset: abs(offset[0]) + abs(offset[1])
    ):
        u, v = pixel[:, 0] + offset_u, pixel[:, 1] + offset_v
        inside = np.flatnonzero((u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height))
        u, v, z = u[inside], v[inside], depth[inside]
        in_front = (z <= limit[v, u]) & (z < nearest[v, u] - DEPTH_TOLERANCE_M)
        u, v, z, chosen = u[in_front], v[in_front], z[in_front], inside[in_front]
        image[v, u] = color[chosen]
        nearest[v, u] = z
    return image


def nearest_weights(
    pixels: npt.NDArray[np.floating], references: npt.NDArray[np.floating], *, neighbours: int = 4
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Interpolation from scattered pixels by inverse squared distance.

    Args:
        pixels: (Q, 2) where values are wanted.
        references: (P, 2) where values are known, P >= 1.
        neighbours: references that contribute to a pixel, at most.

    Returns:
        (Q, K) indices into references and (Q, K) weights that sum to 1; a pixel on a reference takes its value alone.
    """
    from scipy.spatial import cKDTree

    check_shapes(pixels=(pixels, "Q 2"), references=(references, "P 2"))
    count = min(neighbours, len(references))
    distance, index = cKDTree(references).query(pixels, k=count)
    distance, index = distance.reshape(len(pixels), count), index.reshape(len(pixels), count)
    weight = 1.0 / np.maximum(distance, 1e-6) ** 2
    return index, weight / weight.sum(axis=1, keepdims=True)
