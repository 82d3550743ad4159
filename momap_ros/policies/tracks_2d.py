"""Forecasts as 2D tracks in the image: what im2Flow2Act and ATM policies are conditioned on.

Both policies look at square images; an image of another shape is stretched. Coordinates are those of the stretched
image divided by its size, (u, v) = (x right, y down), pixel centres at integers before the division, as in the tracks
that both policies were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from momap_ros.geometry import Float32, Float64, PinholeCamera, project
from momap_ros.instances import Int32
from momap_ros.momap import PointTrajectories
from momap_ros.policies.sampling import (
    Bool,
    Index,
    check_hypothesis,
    check_in_camera,
    draw_points,
    points_of,
    resample_in_time,
    uniform_times_s,
)

IM2FLOW2ACT_STEPS, IM2FLOW2ACT_POINTS, IM2FLOW2ACT_SIZE_PX = 32, 128, 256
ATM_STEPS, ATM_SIZE_PX, ATM_STEP_S = 16, 128, 0.05
_ATM_GRIDS = ((0.05, 0.85), (0.15, 0.95))
_ATM_GRID_SIDE = 4


@dataclass(frozen=True, eq=False)
class ImageTracks:
    """Tracks of N points over T steps in the image of the forecast's camera.

    Attributes:
        uv: (T, N, 2) float32, shares of the image's width and height; finite everywhere.
        valid: (T, N) bool; False where the position is unknown (uv stays at the last known one) or outside the image.
        points_in_camera: (N, 3) float32, metres, optical frame, at step 0.
        pixels: (N, 2) int32 (u, v) in the source image at step 0.
        object_ids: (N,) int32, 0 = background.
        times_s: (T,) seconds since the observation.
    """

    uv: Float32
    valid: Bool
    points_in_camera: Float32
    pixels: Int32
    object_ids: Int32
    times_s: Float64


def im2flow2act_flow(
    trajectories: PointTrajectories,
    camera: PinholeCamera,
    object_ids: Sequence[int],
    *,
    hypothesis: int = 0,
    num_steps: int = IM2FLOW2ACT_STEPS,
    num_points: int = IM2FLOW2ACT_POINTS,
    seed: int = 0,
) -> ImageTracks:
    """The task flow of an im2Flow2Act policy: 32 steps of 128 points of the objects that the task moves.

    Sampling: points are drawn at random from all points of the objects, repeated where there are too few; steps are
    spread evenly from the observation to the end of the forecast, positions linear in between. Normalisation: the
    image stretched to 256x256, coordinates clipped to [0, 255] and divided by 256.

    Reference: Im2Flow2Act, arXiv:2407.15208; github.com/real-stanford/im2Flow2Act at 1df89da,
    im2flow2act/diffusion_policy/dataloader/diffusion_flow_bc_dataset.py (MIT). What it also reads is here:
    `points_in_camera` is its initial point cloud; its third channel, visibility, is no part of a forecast.

    Args:
        trajectories: forecast in the camera's optical frame; foreground points are enough.
        camera: intrinsics of the image that was forecast.
        object_ids: instances whose points are the flow, for instance those that probably move.
        hypothesis: which future; the first is the most representative one.
        num_steps: T.
        num_points: N.
        seed: of the draw.

    Returns:
        Tracks with uv (32, 128, 2).

    Raises:
        ValueError: the objects have no points, there is no such hypothesis, or the trajectories are not this camera's.
    """
    check_hypothesis(trajectories, hypothesis)
    check_in_camera(trajectories, camera)
    chosen = draw_points(points_of(trajectories, object_ids), num_points, seed)
    times_s = uniform_times_s(trajectories, num_steps)
    tracks = _image_tracks(trajectories, camera, chosen, times_s, hypothesis=hypothesis, size_px=IM2FLOW2ACT_SIZE_PX)
    largest = (IM2FLOW2ACT_SIZE_PX - 1) / IM2FLOW2ACT_SIZE_PX
    return replace(tracks, uv=np.clip(tracks.uv, 0.0, np.float32(largest)))


def atm_tracks(
    trajectories: PointTrajectories,
    camera: PinholeCamera,
    *,
    hypothesis: int = 0,
    step_s: float = ATM_STEP_S,
    num_steps: int = ATM_STEPS,
) -> ImageTracks:
    """The tracks of an ATM policy, for one of its views: 16 steps of 32 points spread over the whole image.

    Sampling: of all points the nearest to each of 32 reference points, two 4x4 grids over 5 to 85 % and 15 to 95 % of
    the image, in the order of the grids, u before v. Steps are `step_s` apart from the observation on, positions linear
    in between and at rest after the end of the forecast. Normalisation: the image stretched to 128x128, coordinates
    divided by 128; points that leave the image have coordinates outside [0, 1].

    The reference points cover the background too: give it trajectories of the whole image, as from
    `PointTrajectories.from_momap` or a node with `forecast.dense`.

    Reference: ATM, arXiv:2401.00025; github.com/Large-Trajectory-Model/ATM at 6ebf2c9, atm/utils/flow_utils.py
    and atm/dataloader/bc_dataloader.py (MIT).

    Args:
        trajectories: forecast in the camera's optical frame.
        camera: intrinsics of the image that was forecast.
        hypothesis: which future; the first is the most representative one.
        step_s: seconds between two steps of the policy; LIBERO's simulation is controlled at 20 Hz.
        num_steps: T.

    Returns:
        Tracks with uv (16, 32, 2).

    Raises:
        ValueError: there is no point, no such hypothesis, or the trajectories are not this camera's.
    """
    check_hypothesis(trajectories, hypothesis)
    check_in_camera(trajectories, camera)
    if not step_s > 0:
        raise ValueError(f"step_s: expected positive seconds, got {step_s}")
    points = points_of(trajectories, np.unique(trajectories.object_ids).tolist())
    first = _normalised(trajectories.pixels[points].astype(np.float64), camera, ATM_SIZE_PX)
    apart = np.linalg.norm(first[:, None] - atm_reference_points()[None], axis=-1)
    times_s = np.arange(num_steps, dtype=np.float64) * step_s
    chosen = points[apart.argmin(axis=0)]
    return _image_tracks(trajectories, camera, chosen, times_s, hypothesis=hypothesis, size_px=ATM_SIZE_PX)


def atm_reference_points() -> Float64:
    """(32, 2) where ATM looks for its points, shares of the image's width and height."""
    grids = []
    for low, high in _ATM_GRIDS:
        along = np.linspace(low, high, _ATM_GRID_SIDE)
        grids.append(np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2))
    return np.concatenate(grids)


def _image_tracks(
    trajectories: PointTrajectories,
    camera: PinholeCamera,
    points: Index,
    times_s: Float64,
    *,
    hypothesis: int,
    size_px: int,
) -> ImageTracks:
    positions = trajectories.positions[hypothesis, points]
    resampled = resample_in_time(positions, trajectories.step_s, times_s).transpose(1, 0, 2)
    uv_px = project(resampled, camera)
    known: Bool = np.asarray(np.isfinite(uv_px).all(axis=-1))
    low, high = -0.5, np.array([camera.width, camera.height]) - 0.5
    with np.errstate(invalid="ignore"):  # unknown positions compare to nothing
        inside: Bool = np.asarray(((uv_px >= low) & (uv_px < high)).all(axis=-1))
    # Step 0 is known for every chosen point, so every step has a last known one.
    last_known = np.maximum.accumulate(np.where(known, np.arange(len(times_s))[:, None], 0), axis=0)
    held = np.take_along_axis(uv_px, last_known[..., None], axis=0)
    return ImageTracks(
        _normalised(held, camera, size_px).astype(np.float32),
        known & inside,
        np.asarray(positions[:, 0], np.float32),
        trajectories.pixels[points],
        trajectories.object_ids[points],
        times_s,
    )


def _normalised(uv_px: Float64, camera: PinholeCamera, size_px: int) -> Float64:
    """(..., 2) pixel coordinates of the image stretched to size_px x size_px, divided by that size."""
    scale = size_px / np.array([camera.width, camera.height])
    return ((uv_px + 0.5) * scale - 0.5) / size_px
