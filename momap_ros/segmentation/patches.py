"""Surface patches of a depth image: cut where surfaces meet or end, grown back, joined where one is hollow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32, Float64

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

ARM_SHARE = 1 / 80  # arm of the curvature stencil, share of the image width
MIN_SAG_M = 0.0025  # depth noise makes smaller dents everywhere
MIN_CORE_PX = 30  # a smaller piece between cuts is noise
GAP_SHARE = 1 / 48  # half of the widest gap of a cut that is closed, share of the image width
CUT_SHARE = 0.75  # least share of a common border along cuts of two pieces that a gap joins
HOLLOW_M = 0.003  # middle of a patch behind its rim by more: the inside of a container
HOLLOW_SAMPLES = 600
FRONT_SHARE = 0.1  # least share of a hollow's outline along the patch in front of it
RIM_TOLERANCE_M = 0.01  # front wall and inside of a container reach the same height


def concave_cuts(depth_m: Float32, focal_px: float, slope: float) -> Bool:
    """Pixels where one surface meets or hides another.

    Planes are linear in inverse depth, so its second difference vanishes on every plane, however slanted. Where it says
    that a pixel lies behind its two neighbours, surfaces meet in a concave edge (an object on another, or beside it) or
    the nearer one ends (the pixel belongs to what it hides). Convex edges, the faces of a box, stay uncut.

    Reference for cutting at concave edges: S. C. Stein et al., doi:10.1109/CVPR.2014.46.

    Args:
        depth_m: (H, W) metres; NaN where there is no reading.
        focal_px: focal length of this image, pixels.
        slope: how far behind, in lengths of the stencil's arm.

    Returns:
        (H, W) True where to cut.
    """
    import cv2

    known = ~np.isnan(depth_m)
    inverse = np.where(known, 1.0 / depth_m, np.float32(0.0))
    blurred = cv2.blur(inverse, (3, 3)) / np.maximum(cv2.blur(known.astype(np.float32), (3, 3)), np.float32(1e-6))
    blurred[~known] = np.nan
    # At the image border the mean is one-sided, which would bend a plane.
    blurred[[0, -1]], blurred[:, [0, -1]] = np.nan, np.nan
    arm = max(2, round(ARM_SHARE * depth_m.shape[1]))
    diagonal = max(1, round(arm * 0.7))
    behind = np.full_like(depth_m, -np.inf)
    for down, right in ((0, arm), (arm, 0), (diagonal, diagonal), (diagonal, -diagonal)):
        window = (slice(down, depth_m.shape[0] - down), slice(abs(right), depth_m.shape[1] - abs(right)))
        sides = _moved(blurred, window, (down, right)) + _moved(blurred, window, (-down, -right))
        # fmax passes over NaN: where one side is unknown the other directions decide
        np.fmax(behind[window], 0.5 * sides - blurred[window], out=behind[window])
    sag_m = behind * depth_m * depth_m
    with np.errstate(invalid="ignore"):
        return np.asarray((sag_m > slope * arm / focal_px * depth_m) & (sag_m > MIN_SAG_M))


def _moved(image: Float32, window: tuple[slice, slice], step: tuple[int, int]) -> Float32:
    """A window of an image, moved by (down, right) pixels."""
    rows, columns = (slice(part.start + by, part.stop + by) for part, by in zip(window, step, strict=True))
    return image[rows, columns]


def depth_jumps(depth_m: Float32, jump_m: float) -> Bool:
    """(H, W) True at the second pixel of every horizontal or vertical pair whose depths differ by more than jump_m."""
    jumps = np.zeros(depth_m.shape, bool)
    with np.errstate(invalid="ignore"):
        jumps[:, 1:] |= np.abs(np.diff(depth_m, axis=1)) > jump_m
        jumps[1:] |= np.abs(np.diff(depth_m, axis=0)) > jump_m
    return jumps


def connected_cores(mask: Bool) -> Int32:
    """(H, W) labels 1, 2, ... of the 4-connected pieces that are large enough, 0 elsewhere."""
    import cv2

    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return numbered(np.asarray(labels, np.int32), np.asarray(statistics[:, cv2.CC_STAT_AREA] >= MIN_CORE_PX))


def numbered(labels: Int32, keep: Bool) -> Int32:
    """The labels to keep as 1, 2, ... in their order, and 0 elsewhere; `keep` says it of every label."""
    keep = keep & (np.arange(len(keep)) > 0)
    return np.asarray(np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels])


def parted_cores(mask: Bool, cuts: Bool, depth_m: Float32, jump_m: float) -> Int32:
    """Pieces of a mask that cuts part, also where a cut has a gap: a contour is hardly ever cut all the way round.

    What lies farther from all cuts than half a gap falls apart where a gap is. Two such parts of a piece stay apart if
    the border between them, when they are whole again, runs along cuts but for the gap; the blade and the handle of a
    tool, which a narrow place without a cut joins, do not.

    Args:
        mask: (H, W) pixels that belong to pieces.
        cuts: (H, W) where surfaces meet or end.
        depth_m: (H, W) metres, known in the mask.
        jump_m: depth difference that separates objects.

    Returns:
        (H, W) labels 1, 2, ...; 0 on cuts and in pieces that are too small.
    """
    import cv2
    from scipy.sparse.csgraph import connected_components

    cores = connected_cores(mask & ~cuts)
    cuts = cuts & mask
    gap_px = GAP_SHARE * mask.shape[1]
    seeds = connected_cores((cores > 0) & (cv2.distanceTransform((~cuts).astype(np.uint8), cv2.DIST_L2, 3) > gap_px))
    home = np.zeros(int(seeds.max()) + 1, np.int32)
    home[seeds] = cores
    home[0] = 0
    apart = (np.bincount(home, minlength=int(cores.max()) + 1) > 1)[cores] & (cores > 0)
    if not apart.any():
        return cores
    whole = grow(np.where(apart, seeds, 0), apart | cuts, depth_m, jump_m=jump_m, rounds=round(2 * gap_px))
    near_cuts = cv2.dilate(cuts.astype(np.uint8), np.ones((3, 3), np.uint8))
    first, second, *along = _edges(whole, near_cuts)
    key, shape = first * len(home) + second, (len(home), len(home))
    border = np.bincount(key, minlength=len(home) ** 2).reshape(shape)
    cut = np.bincount(key, weights=along[0] | along[1], minlength=len(home) ** 2).reshape(shape)
    open_border = (cut + cut.T < CUT_SHARE * (border + border.T)) & (home[:, None] == home)
    part = connected_components(open_border, directed=False)[1]
    labels = np.where(apart, np.where(whole > 0, cores.max() + 1 + part[whole], 0), cores)
    return numbered(labels, np.bincount(labels.ravel()) > 0)


def grow(labels: Int32, mask: Bool, depth_m: Float32, *, jump_m: float, rounds: int) -> Int32:
    """Give unlabelled pixels of the mask to the neighbouring label that is nearest in depth.

    Pixels across a depth jump wait until every pixel without a jump had its rounds.

    Args:
        labels: (H, W), 0 = free.
        mask: (H, W) pixels that may be labelled.
        depth_m: (H, W) metres, known in the mask.
        jump_m: depth difference that separates objects.
        rounds: how many pixels far labels grow, with and then without regard to jumps.

    Returns:
        (H, W) labels.
    """
    height, width = labels.shape
    framed = np.pad(labels, 1).ravel()
    depth = np.pad(depth_m, 1, constant_values=np.nan).ravel()
    free = np.flatnonzero(np.pad(mask & (labels == 0), 1))
    steps = np.array([-1, 1, -(width + 2), width + 2])
    for limit_m in (jump_m, np.inf):
        for _ in range(rounds):
            neighbours = free + steps[:, None]
            apart = np.where(framed[neighbours] > 0, np.abs(depth[neighbours] - depth[free]), np.nan)
            apart = np.where(apart < limit_m, apart, np.inf)
            best = np.argmin(apart, axis=0)
            column = np.arange(len(free))
            reached = np.isfinite(apart[best, column])
            if not reached.any():
                break
            framed[free[reached]] = framed[neighbours[best, column][reached]]
            free = free[~reached]
    return np.ascontiguousarray(framed.reshape(height + 2, width + 2)[1:-1, 1:-1])


@dataclass(frozen=True, eq=False)
class Borders:
    """How patches touch, for N labels (0 = background).

    Attributes:
        share: (N, N) part of the first label's outline that runs along the second.
        step_m: (N, N) mean depth of the second label minus depth of the first along their border; 0 without a border.
    """

    share: Float64
    step_m: Float64


def _edges(labels: Int32, image: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Neighbouring pixels of different labels, every pair once: their labels, and an image's values at both."""
    pairs = []
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        edge = labels[first] != labels[second]
        pairs.append([array[part][edge] for array in (labels, image) for part in (first, second)])
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


def borders(labels: Int32, depth_m: Float32) -> Borders:
    """How the patches of a label image touch."""
    count = int(labels.max()) + 1
    first, second, near, far = _edges(labels, np.nan_to_num(depth_m, nan=0.0))
    key = np.concatenate([first * count + second, second * count + first])
    step = far - near
    length = np.bincount(key, minlength=count * count).reshape(count, count)
    total = np.bincount(key, weights=np.concatenate([step, -step]), minlength=count * count).reshape(count, count)
    outline = np.maximum(length.sum(axis=1, keepdims=True), 1)
    return Borders(length / outline, total / np.maximum(length, 1))


def hollowness_m(rows: Int32, columns: Int32, depth_m: Float32) -> float:
    """How far the middle of a patch lies behind its rim, metres; negative for a patch that bulges towards the camera.

    Args:
        rows: (P,) pixels of the patch.
        columns: (P,) pixels of the patch.
        depth_m: (P,) their depth, metres.

    Returns:
        Difference of the mean deviations from the best plane of the outer and the inner half, metres.
    """
    offsets = np.stack([columns - columns.mean(), rows - rows.mean()], axis=1)
    inverse = 1.0 / depth_m.astype(np.float64)
    scatter = offsets.T @ offsets / len(offsets) + 1e-3 * np.eye(2)
    inverse_scatter = np.linalg.inv(scatter)
    slope = inverse_scatter @ (offsets.T @ (inverse - inverse.mean())) / len(offsets)
    deviation = inverse - inverse.mean() - offsets @ slope
    distance = np.einsum("pi,ij,pj->p", offsets, inverse_scatter, offsets)
    outer = distance > np.median(distance)
    return float((deviation[outer].mean() - deviation[~outer].mean()) * float(np.mean(depth_m)) ** 2)


def join_patches(labels: Int32, cores: Int32, depth_m: Float32, height_m: Float32, *, min_px: int) -> Int32:
    """Put together patches that belong to one object for reasons a single cut cannot see.

    - The inside of a container is hollow and seen over its front wall: it joins the patch in front of it that is no
      higher than it, and takes the unlabelled pixels of its convex outline (a bottom as low as the table, a rim without
      depth).
    - A small patch that borders on one other patch for more than half of its outline is a fragment of it.

    Args:
        labels: (H, W) grown patches 1, 2, ...; 0 = none.
        cores: (H, W) the same patches before growing, away from edges.
        depth_m: (H, W) metres; NaN where there is no reading.
        height_m: (H, W) height above the table, metres.
        min_px: joined patches of fewer pixels are dropped; fragments have less than twice as many.

    Returns:
        (H, W) labels, some of them joined.
    """
    count = int(labels.max()) + 1
    touching = borders(labels, depth_m)
    areas = np.bincount(labels.ravel(), minlength=count)
    owner = np.arange(count)
    hollows = []
    members = _members(cores, count)
    tops_m = np.array([np.percentile(height_m[pixels], 95) if len(pixels[0]) else 0.0 for pixels in members])
    for label in range(1, count):
        share = touching.share[label].copy()
        share[0] = 0.0
        rows, columns = (axis[:: 1 + len(axis) // HOLLOW_SAMPLES] for axis in members[label])
        if hollowness_m(rows, columns, depth_m[rows, columns]) > HOLLOW_M:
            hollows.append(label)
            in_front = (touching.step_m[label] < 0) & (tops_m < tops_m[label] + RIM_TOLERANCE_M)
            share[~in_front] = 0.0
            joins = share.max() > FRONT_SHARE
        else:
            joins = areas[label] < 2 * min_px and share.max() > 0.5
        if joins:
            first, second = sorted((owner[label], owner[np.argmax(share)]))
            owner[owner == second] = first
    joined = owner.astype(np.int32)[labels]
    joined = np.where(np.bincount(joined.ravel())[joined] >= min_px, joined, np.int32(0))
    for label in hollows:
        _fill_outline(joined, labels == label, int(owner[label]), ~np.isnan(depth_m))
    return joined


def _members(labels: Int32, count: int) -> list[tuple[Int32, Int32]]:
    """Rows and columns of every label's pixels, by one sort."""
    flat = labels.ravel()
    labelled = np.flatnonzero(flat)
    order = labelled[np.argsort(flat[labelled].astype(np.int16), kind="stable")]
    ends = np.cumsum(np.bincount(flat[labelled], minlength=count))[:-1]
    return [
        (pixels // labels.shape[1], pixels % labels.shape[1])
        for pixels in (part.astype(np.int32) for part in np.split(order, ends))
    ]


def _fill_outline(labels: Int32, mask: Bool, label: int, known: Bool) -> None:
    """Give a label the unlabelled pixels with depth in a mask's convex outline, unless that more than doubles it."""
    import cv2

    rows, columns = np.nonzero(mask)
    inside = np.zeros(labels.shape, np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32)), 1)
    gained = (inside > 0) & (labels == 0) & known
    if gained.sum() <= len(rows):
        labels[gained] = label


def fill_holes(labels: Int32, max_px: int) -> Int32:
    """Close holes of at most max_px pixels that lie inside one label."""
    import cv2

    _, parts, statistics, _ = cv2.connectedComponentsWithStats((labels == 0).astype(np.uint8), connectivity=4)
    result = labels
    for part in np.flatnonzero(statistics[:, cv2.CC_STAT_AREA] <= max_px):
        if part == 0:
            continue
        left, top, width, height = statistics[part, :4]
        if left == 0 or top == 0 or left + width == labels.shape[1] or top + height == labels.shape[0]:
            continue
        window = np.s_[top - 1 : top + height + 1, left - 1 : left + width + 1]
        hole = parts[window] == part
        ring = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~hole
        around = np.unique(labels[window][ring])
        if len(around) == 1 and around[0] > 0:
            result = result.copy() if result is labels else result
            result[window][hole] = around[0]
    return result
