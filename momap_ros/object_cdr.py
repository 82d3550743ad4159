"""Object motions as the bytes of momap_ros/ObjectMotionArray (CDR), for topics and bags alike.

A forecast has some thousand poses. As message objects they take longer to make and to serialise than to publish; here
all poses are turned into numbers at once, and numbers into bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from momap_ros.articulation import Articulation
from momap_ros.geometry import Float64, continuous_quaternions, quaternions_from_rotations, xyzw_from_wxyz
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import ObjectMotion, object_poses

# Plain CDR of little-endian numbers; alignment counts from behind these four bytes.
_ENCAPSULATION = b"\x00\x01\x00\x00"
_FLAGS = ("direction_flags", "direction_flags_1", "direction_flags_4", "direction_flags_16")


def objects_cdr(
    motions: Sequence[ObjectMotion], trajectories: PointTrajectories, *, model_name: str, latency_s: float
) -> bytes:
    """Object motions as one serialised momap_ros/ObjectMotionArray.

    Args:
        motions: of one frame, positions in the trajectories' frame; empty is legitimate.
        trajectories: of the same frame; header and steps are theirs.
        model_name: what made the forecast.
        latency_s: seconds from the image's stamp to now.
    """
    out = _CdrWriter()
    out.time(trajectories.stamp_ns)
    out.string(trajectories.frame_id)
    out.time(round(trajectories.step_s * (trajectories.num_steps - 1) * 1e9))
    out.time(round(trajectories.step_s * 1e9))
    out.string(model_name)
    out.time(round(latency_s * 1e9))
    out.pack("I", len(motions))
    tracks, ends = _poses(motions)
    row = 0
    for motion in motions:
        rows = slice(row, row + 1 + len(motion.hypotheses))
        _write_object(out, motion, tracks[rows], ends[rows])
        row = rows.stop
    return bytes(out.data)


def poses_of_tracks(motion_t_from_0: Float64) -> Float64:
    """(M, T, 7) x y z and quaternions x y z w of (M, T, 4, 4) rigid motions; neighbours' signs never jump."""
    quaternions = quaternions_from_rotations(np.swapaxes(motion_t_from_0, 0, 1)[..., :3, :3])
    xyzw = np.swapaxes(xyzw_from_wxyz(continuous_quaternions(quaternions)), 0, 1)
    return np.concatenate([motion_t_from_0[..., :3, 3], xyzw], axis=-1)


def _poses(motions: Sequence[ObjectMotion]) -> tuple[Float64, Float64]:
    """(M, T, 7) tracks and (M, 7) poses at the end: of each object its own, then those of its hypotheses."""
    if not motions:
        return np.zeros((0, 0, 7)), np.zeros((0, 7))
    tracks = [
        track
        for motion in motions
        for track in (motion.motion_t_from_0, *(item.motion_t_from_0 for item in motion.hypotheses))
    ]
    centroids = [motion.centroid_m for motion in motions for _ in range(1 + len(motion.hypotheses))]
    ends = object_poses(np.stack([track[-1] for track in tracks]), np.stack(centroids))
    return poses_of_tracks(np.stack(tracks)), poses_of_tracks(ends[:, None])[:, 0]


def _write_object(out: _CdrWriter, motion: ObjectMotion, tracks: Float64, ends: Float64) -> None:
    """One momap_ros/ObjectMotion; tracks and ends are its own, then those of its hypotheses."""
    out.pack("I", motion.instance_id)
    out.string(motion.label)
    out.pack("f", motion.moving_probability)
    out.doubles(motion.centroid_m, motion.size_m)
    for name in _FLAGS:
        out.data += np.asarray(getattr(motion, name), np.int8).tobytes()
    out.doubles(motion.direction)
    out.pack("ff", motion.displacement_m, motion.speed_m_s)
    out.poses(tracks[0])
    out.floats(motion.residual_m)
    out.pack("f??", motion.inlier_fraction, motion.rigid, motion.valid)
    out.pack("ff", motion.hypothesis_weight, motion.hypothesis_spread_m)
    out.doubles(ends[0], motion.end_covariance)
    out.pack("I", len(motion.hypotheses))
    for item, track, end in zip(motion.hypotheses, tracks[1:], ends[1:], strict=True):
        out.pack("f", item.weight)
        out.poses(track)
        out.doubles(end, item.end_covariance)
    _write_articulation(out, motion.articulation)


def _write_articulation(out: _CdrWriter, articulation: Articulation) -> None:
    out.pack("B", int(articulation.kind))
    out.doubles(articulation.axis, articulation.axis_point)
    out.floats(articulation.positions)
    out.pack("f", articulation.residual_m)


class _CdrWriter:
    """Appends values, each at a multiple of its own size.

    Attributes:
        data: what was written so far.
    """

    def __init__(self) -> None:
        self.data = bytearray(_ENCAPSULATION)

    def align(self, size: int) -> None:
        """Pad with zeros."""
        self.data += bytes(-(len(self.data) - len(_ENCAPSULATION)) % size)

    def pack(self, form: str, *values: float) -> None:
        """Numbers as `struct` writes them; the largest comes first."""
        self.align(struct.calcsize(f"<{form[0]}"))
        self.data += struct.pack(f"<{form}", *values)

    def time(self, nanoseconds: int) -> None:
        """A Time or a Duration."""
        self.pack("iI", *divmod(nanoseconds, 1_000_000_000))

    def string(self, text: str) -> None:
        """A string, with its final zero."""
        encoded = text.encode()
        self.pack("I", len(encoded) + 1)
        self.data += encoded + b"\x00"

    def doubles(self, *arrays: Float64) -> None:
        """Points, vectors, poses and covariances: float64 one after the other."""
        self.align(8)
        for values in arrays:
            self.data += np.ascontiguousarray(values, "<f8").tobytes()

    def floats(self, values: npt.NDArray[np.floating]) -> None:
        """A sequence of float32."""
        self.pack("I", len(values))
        self.data += np.ascontiguousarray(values, "<f4").tobytes()

    def poses(self, values: Float64) -> None:
        """A sequence of (T, 7) poses."""
        self.pack("I", len(values))
        self.doubles(values)
