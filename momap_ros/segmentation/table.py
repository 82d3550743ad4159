"""The table of a depth image: its plane, how far every pixel is above it, and which pixels are over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, Float64, PinholeCamera
from momap_ros.segmentation.base import SegmentationError

Bool = npt.NDArray[np.bool_]
IntP = npt.NDArray[np.intp]

MIN_MEASURED_SHARE = 0.02  # of all pixels; below that there is nothing to fit a plane to
MIN_TABLE_SHARE = 0.08  # of the measured pixels near the image centre
SAMPLE_SIZE = 1500
HYPOTHESES = 160
MAX_DOWNWARD = 0.2  # a table's normal never points down in the image by more than this (sine of the angle)
MAX_PLANES = 4  # that are looked at
MIN_OTHER_SHARE = 0.05  # of the measured pixels near the image centre, of a plane that is looked at
PARALLEL_COSINE = 0.998  # planes within 4 degrees are parallel
FROM_THE_SIDE = -0.8  # y of a table's normal in the image: whoever looks down less steeply sees it from the side
MORE_LEVEL = 0.2  # a plane whose normal has a larger y by this is not level where such a table is seen
SUPPORTED = 0.15  # least support of a better plane, relative to the one with most
TABLE_HEIGHT_M = 0.35  # a table stands higher above its floor, and what stands on it is lower
LARGER = 1.2  # of two parallel planes, by area
ABOVE_FLOOR_SHARE = 0.5  # support of a table relative to the floor beneath it
CENTRE_SPREAD = 0.35  # standard deviation of the weight around the image centre, in image sizes
REFITS = 4  # of the table's surface, to the points that lie nearest to it
KEPT_SPREADS = 1.5  # by their distance in standard deviations
FLAT_M = 0.002  # points as near as this are always among them
HULL_PADDING = 0.5  # where the image ends the table goes on by this share of the image size
HULL_MARGIN_PX = 2  # working pixels at the table's edge that do not count, so that a wall behind it stays out


@dataclass(frozen=True, eq=False)
class Table:
    """The table plane and what follows from it.

    Attributes:
        normal: (3,) unit normal, towards the camera, optical frame.
        offset_m: distance of the camera from the plane, metres.
        height_m: (H, W) distance of every pixel's point above the table's surface, metres; NaN where there is no depth.
        over: (H, W) True where a point above three times the noise lies vertically over the visible table.
        noise_m: standard deviation of the table's own points around it, metres.
    """

    normal: Float64
    offset_m: float
    height_m: Float32
    over: Bool
    noise_m: float


@dataclass(frozen=True, eq=False)
class _Plane:
    """A plane that may be the table's.

    Attributes:
        normal: (3,) unit normal, towards the camera, optical frame.
        offset_m: distance of the camera from it, metres.
        support: share of the points that lie on it, those near the image centre counting more.
        extent_m2: product of the standard deviations of its points in their two main directions.
    """

    normal: Float64
    offset_m: float
    support: float
    extent_m2: float


def find_table(depth_m: Float32, camera: PinholeCamera, *, tolerance_m: float, seed: int) -> Table:
    """Find the table that a camera looks at.

    Gravity is unknown. The table is the plane that holds most points, those near the image centre counting more, among
    the planes whose normal does not point down in the image (a wall behind a table has such a normal where the camera
    looks down). Three others are preferred to it if they hold enough points: one that is level where the camera stands
    upright and this one is not (a wall behind a table seen from the side, the front of a cabinet); a parallel one far
    nearer to the camera (a table above its floor); and a parallel one close by that is larger (the table beneath a box
    whose top fills the image). Real depth images bend flat surfaces by several millimetres, so heights are measured
    from a quadratic surface fitted to the plane's points.

    Args:
        depth_m: (H, W) metres; NaN where there is no reading.
        camera: intrinsics of this very image.
        tolerance_m: distance from the plane that still counts as table.
        seed: seed of the random hypotheses; the same image and seed give the same table.

    Returns:
        The table.

    Raises:
        SegmentationError: nothing was measured, or no plane holds enough points.
    """
    measured = ~np.isnan(depth_m)
    share = float(measured.mean())
    if share < MIN_MEASURED_SHARE:
        what = "no depth at all" if share == 0 else f"depth in {share:.1%} of the pixels"
        raise SegmentationError(
            f"no table: expected depth in at least {MIN_MEASURED_SHARE:.0%} of the pixels, got {what}; "
            "check the depth topic, the camera's range and that the lens is not covered"
        )
    rng = np.random.default_rng(seed)
    rows, columns = _sample(measured, rng)
    points = camera.rays[rows, columns].astype(np.float64) * depth_m[rows, columns, None]
    normal, offset_m = _plane(points, _centrality(rows, columns, measured.shape), tolerance_m, rng)
    height_m = depth_m * (camera.rays @ normal.astype(np.float32)) + np.float32(offset_m)
    height_m -= _bend(height_m, (rows, columns), tolerance_m)
    deviation = np.abs(height_m[rows, columns])
    noise_m = _spread(deviation, 2.0 * tolerance_m)
    with np.errstate(invalid="ignore"):
        masks = np.abs(height_m) < tolerance_m, height_m > 3.0 * noise_m
    over = _over_table(depth_m, height_m, camera, normal, masks=masks)
    return Table(normal, offset_m, height_m, over, noise_m)


def _sample(measured: Bool, rng: np.random.Generator) -> tuple[IntP, IntP]:
    """Rows and columns of some measured pixels."""
    rows, columns = np.nonzero(measured)
    if len(rows) > SAMPLE_SIZE:
        chosen = np.sort(rng.choice(len(rows), SAMPLE_SIZE, replace=False))
        rows, columns = rows[chosen], columns[chosen]
    return rows, columns


def _centrality(rows: IntP, columns: IntP, shape: tuple[int, ...]) -> Float64:
    """(P,) weights that fall off from the image centre."""
    square = (rows / shape[0] - 0.5) ** 2 + (columns / shape[1] - 0.5) ** 2
    return np.asarray(np.exp(-0.5 * square / CENTRE_SPREAD**2))


def _plane(points: Float64, weights: Float64, tolerance_m: float, rng: np.random.Generator) -> tuple[Float64, float]:
    """Normal towards the camera and the camera's distance of the table, refitted by least squares.

    Reference: M. A. Fischler and R. C. Bolles, doi:10.1145/358669.358692, one plane after the other.
    """
    planes = _planes(points, weights, tolerance_m, rng)
    if not planes or planes[0].support < MIN_TABLE_SHARE:
        held = planes[0].support if planes else 0.0
        raise SegmentationError(
            f"no table: the best plane that faces the camera holds {held:.0%} of the central points, "
            f"expected at least {MIN_TABLE_SHARE:.0%}; point the camera at a flat surface that fills much of the image"
        )
    table = _table_of(planes)
    return _fitted(points[np.abs(points @ table.normal + table.offset_m) < tolerance_m])


def _planes(points: Float64, weights: Float64, tolerance_m: float, rng: np.random.Generator) -> list[_Plane]:
    """Planes that may be a table; each holds most of the points that none before it holds."""
    planes: list[_Plane] = []
    left = np.arange(len(points))
    while len(planes) < MAX_PLANES and len(left) >= 3:
        some = points[left]
        corners = some[rng.integers(0, len(some), (HYPOTHESES, 3))]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
        offsets = -np.sum(normals * corners[:, 0], axis=1)
        normals, offsets = (np.where(offsets < 0, -array.T, array.T).T for array in (normals, offsets))
        near = np.abs(some @ normals.T + offsets) < tolerance_m
        allowed = (normals[:, 1] <= MAX_DOWNWARD) & (lengths[:, 0] > 0)
        support = np.where(allowed, weights[left] @ near, 0.0) / weights.sum()
        best = int(np.argmax(support))
        held = near[:, best]
        if held.sum() < 3 or (planes and support[best] < MIN_OTHER_SHARE):
            break
        normal, offset_m = _fitted(some[held])
        across = np.linalg.eigvalsh(np.cov(some[held].T))[1:]
        planes.append(_Plane(normal, offset_m, float(support[best]), float(np.sqrt(across.clip(min=0.0).prod()))))
        left = left[np.abs(some @ normal + offset_m) >= tolerance_m]
    return planes


def _table_of(planes: list[_Plane]) -> _Plane:
    """Which of the planes is the table; the first has most support."""
    table = planes[0]
    # Whoever looks at a table from the side may see more of the wall behind it, or of the front of a cabinet.
    if table.normal[1] > FROM_THE_SIDE + MORE_LEVEL:
        level = [p for p in planes if p.normal[1] < FROM_THE_SIDE and p.support > SUPPORTED * table.support]
        table = level[0] if level else table
    parallel = [plane for plane in planes if plane.normal @ table.normal > PARALLEL_COSINE]
    for plane in parallel:  # a table above a floor
        if plane.offset_m < table.offset_m - TABLE_HEIGHT_M and plane.support > ABOVE_FLOOR_SHARE * table.support:
            table = plane
    # The top of a box on the table may fill more of the image, and so may the bottom of a sink; the table is larger.
    for plane in parallel:
        beneath = table.offset_m < plane.offset_m < table.offset_m + TABLE_HEIGHT_M
        above = table.offset_m - TABLE_HEIGHT_M < plane.offset_m < table.offset_m
        share = SUPPORTED if beneath else ABOVE_FLOOR_SHARE
        if (beneath or above) and plane.support > share * table.support and plane.extent_m2 > LARGER * table.extent_m2:
            table = plane
    return table


def _fitted(points: Float64) -> tuple[Float64, float]:
    """Normal towards the camera and the camera's distance of the least-squares plane."""
    centre = points.mean(axis=0)
    normal = np.linalg.eigh(np.cov((points - centre).T))[1][:, 0]
    normal = -normal if normal @ centre > 0 else normal
    return normal, float(-normal @ centre)


def _spread(deviation: Float64 | Float32, limit: float) -> float:
    """Standard deviation of what deviates less than a limit, from the median of its absolute deviations."""
    return 1.4826 * float(np.median(deviation[deviation < limit]))


def _bend(height_m: Float32, sample: tuple[IntP, IntP], tolerance_m: float) -> Float32:
    """(H, W) quadratic deviation of the table from its plane, metres, fitted to a sample; at most three tolerances."""
    rows, columns = sample
    v, u = (np.linspace(-1.0, 1.0, length) for length in height_m.shape)
    su, sv = u[columns], v[rows]
    terms = np.stack([np.ones_like(su), su, sv, su * su, su * sv, sv * sv], axis=1)
    heights = height_m[rows, columns].astype(np.float64)

    def fitted(near: Bool) -> Float64:
        return np.asarray(np.linalg.lstsq(terms[near], heights[near], rcond=None)[0], np.float64)

    factors: Float64 = np.zeros(6)
    for tolerance in (2.0 * tolerance_m, 1.5 * tolerance_m, tolerance_m):
        factors = fitted(np.abs(heights - terms @ factors) < tolerance)
    for _ in range(REFITS):  # what is flat and large, like a plate, lies within the tolerance, but above the table
        deviation = np.abs(heights - terms @ factors)
        kept_m = max(KEPT_SPREADS * _spread(deviation, tolerance_m), FLAT_M)
        factors = fitted(deviation < min(kept_m, tolerance_m))
    c = factors
    of_column, of_row = c[0] + c[1] * u + c[3] * u * u, c[2] * v + c[5] * v * v
    bend = (of_column + of_row[:, None] + c[4] * u * v[:, None]).astype(np.float32)
    return np.asarray(np.clip(bend, -3.0 * tolerance_m, 3.0 * tolerance_m), np.float32)


def _over_table(
    depth_m: Float32, height_m: Float32, camera: PinholeCamera, normal: Float64, *, masks: tuple[Bool, Bool]
) -> Bool:
    """(H, W) True where a raised point's foot falls into the convex hull of the table's pixels; masks: table, raised.

    Lines stay lines in a pinhole image, so hull and feet are compared there.
    """
    import cv2

    table, raised = masks
    height, width = table.shape
    eroded = cv2.erode(table.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(eroded, connectivity=4)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    if count < 2:
        return np.zeros_like(table)
    large = np.concatenate([[False], areas >= 0.1 * areas.max()])[labels]
    pad_x, pad_y = round(HULL_PADDING * width), round(HULL_PADDING * height)
    outline = cv2.convexHull((_extended_ends(large, pad_x, pad_y) + np.array([pad_x, pad_y])).astype(np.int32))
    canvas = np.zeros((height + 2 * pad_y + 1, width + 2 * pad_x + 1), np.uint8)
    cv2.fillConvexPoly(canvas, outline, 1)
    canvas = cv2.erode(canvas, np.ones((2 * HULL_MARGIN_PX + 1,) * 2, np.uint8), borderValue=0)
    # The foot of a point: down by its height along the normal, then projected.
    feet = camera.rays[raised] * depth_m[raised][:, None] - height_m[raised][:, None] * normal.astype(np.float32)
    u = np.clip(camera.fx * feet[:, 0] / feet[:, 2] + camera.cx + pad_x, 0, canvas.shape[1] - 1)
    v = np.clip(camera.fy * feet[:, 1] / feet[:, 2] + camera.cy + pad_y, 0, canvas.shape[0] - 1)
    over = np.zeros_like(raised)
    over[raised] = canvas[np.rint(v).astype(np.intp), np.rint(u).astype(np.intp)] > 0
    return over


def _extended_ends(mask: Bool, pad_x: int, pad_y: int) -> IntP:
    """(P, 2) columns and rows of the first and last pixel of every row, and these moved out where the image ends."""
    height, width = mask.shape
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), width - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)
    moved = [
        ends[at_border] + np.array(step)
        for at_border, step in (
            (ends[:, 0] <= 2, (-pad_x, 0)),
            (ends[:, 0] >= width - 3, (pad_x, 0)),
            (ends[:, 1] <= 2, (0, -pad_y)),
            (ends[:, 1] >= height - 3, (0, pad_y)),
        )
    ]
    return np.concatenate([ends, *moved])
