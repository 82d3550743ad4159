"""Object motions as the bytes of momap_ros/ObjectMotionArray (CDR) and back, for topics and bags alike.

A forecast has some thousand poses. As message objects they take longer to make and to serialise than to publish; here
all poses are turned into numbers at once, and numbers into bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from momap_ros.articulation import Articulation, JointKind
from momap_ros.geometry import (
    Float64,
    continuous_quaternions,
    quaternions_from_rotations,
    rotations_from_quaternions,
    se3_from_parts,
    wxyz_from_xyzw,
    xyzw_from_wxyz,
)
from momap_ros.momap import PointTrajectories
from momap_ros.object_motion import MotionHypothesis, ObjectMotion, object_poses

# Plain CDR of little-endian numbers; alignment counts from behind these four bytes.
_ENCAPSULATION = b"\x00\x01\x00\x00"
_FLAGS = ("direction_flags", "direction_flags_1", "direction_flags_4", "direction_flags_16")
_POSE = 7  # numbers: x y z, quaternion x y z w


@dataclass(frozen=True, eq=False)
class ObjectMotions:
    """What a momap_ros/ObjectMotionArray says.

    Attributes:
        objects: one motion per object, in the order of the message; positions in metres in `frame_id`. The poses at the
            end that the message holds are `frame_from_object[-1]`.
        stamp_ns: time of the colour image, nanoseconds.
        frame_id: TF frame of all positions and directions.
        horizon_s: seconds from step 0 to the last step.
        step_s: seconds between two steps.
        model_name: what made the forecast.
        latency_s: seconds from the image's stamp to publication.
    """

    objects: list[ObjectMotion]
    stamp_ns: int
    frame_id: str
    horizon_s: float
    step_s: float
    model_name: str
    latency_s: float


def object_motions_from_cdr(data: bytes | memoryview) -> ObjectMotions:
    """Object motions from the bytes of one momap_ros/ObjectMotionArray.

    Many times faster than making message objects of the same bytes, see `momap bench`.

    Example:
        node.create_subscription(ObjectMotionArray, "/forecast_node/object_motions", receive, 1, raw=True)

        def receive(data: bytes) -> None:
            for motion in object_motions_from_cdr(data).objects:
                motion.motion_t_from_0  # (T, 4, 4) where it goes

    Args:
        data: plain little-endian CDR with its four bytes of encapsulation, as a subscription with `raw=True` gives it
            and a bag stores it.

    Returns:
        The content in arrays of its own; nothing of the bytes is kept.

    Raises:
        ValueError: another encoding, bytes that are missing or left over, a text that is not UTF-8, an unknown kind of
            joint, or a pose without an orientation.
    """
    source = _CdrReader(data)
    stamp_ns, frame_id = source.time(), source.string()
    horizon_s, step_s = source.time() * 1e-9, source.time() * 1e-9
    model_name, latency_s = source.string(), source.time() * 1e-9
    (count,) = source.unpack("I")
    objects = [_read_object(source) for _ in range(count)]
    source.finish()
    return ObjectMotions(objects, stamp_ns, frame_id, horizon_s, step_s, model_name, latency_s)


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
    out.pack("I", motion.goal_id)


def _write_articulation(out: _CdrWriter, articulation: Articulation) -> None:
    out.pack("B", int(articulation.kind))
    out.doubles(articulation.axis, articulation.axis_point)
    out.floats(articulation.positions)
    out.pack("f", articulation.residual_m)


def _read_object(source: _CdrReader) -> ObjectMotion:
    """One momap_ros/ObjectMotion."""
    (instance_id,), label, (moving_probability,) = source.unpack("I"), source.string(), source.unpack("f")
    centroid, size = source.doubles(6).reshape(2, 3)
    flags = source.int8s(3 * len(_FLAGS)).reshape(-1, 3)
    direction, (displacement_m, speed_m_s) = source.doubles(3), source.unpack("ff")
    track, residual_m = source.track(), source.floats()
    inlier_fraction, rigid, valid = source.unpack("f??")
    weight, spread_m = source.unpack("ff")
    covariance = source.end_covariance()
    (count,) = source.unpack("I")
    return ObjectMotion(
        instance_id=instance_id,
        label=label,
        moving_probability=moving_probability,
        centroid_m=centroid,
        size_m=size,
        direction_flags=flags[0],
        direction_flags_1=flags[1],
        direction_flags_4=flags[2],
        direction_flags_16=flags[3],
        direction=direction,
        displacement_m=displacement_m,
        speed_m_s=speed_m_s,
        motion_t_from_0=track,
        residual_m=residual_m,
        inlier_fraction=inlier_fraction,
        rigid=rigid,
        valid=valid,
        hypothesis_weight=weight,
        hypothesis_spread_m=spread_m,
        end_covariance=covariance,
        hypotheses=tuple(
            MotionHypothesis(source.unpack("f")[0], source.track(), source.end_covariance()) for _ in range(count)
        ),
        articulation=_read_articulation(source),
        goal_id=source.unpack("I")[0],
    )


def _read_articulation(source: _CdrReader) -> Articulation:
    (kind,) = source.unpack("B")
    axis, axis_point = source.doubles(6).reshape(2, 3)
    return Articulation(JointKind(kind), axis, axis_point, source.floats(), source.unpack("f")[0])


class _CdrReader:
    """Takes values in their order, each from a multiple of its own size.

    Tracks are given out at once and filled by `finish`, because turning them into matrices one by one takes longer than
    everything else here.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        """Look at the encapsulation; the second half of it are options that say nothing of plain CDR."""
        if len(data) < len(_ENCAPSULATION) or data[:2] != _ENCAPSULATION[:2]:
            raise ValueError(
                "object motions: expected plain little-endian CDR, bytes that begin with 00 01, got "
                f"{bytes(data[:4]).hex(' ') or 'none'}; take those of a subscription with raw=True"
            )
        self._data, self._at = data, len(_ENCAPSULATION)
        self._poses: list[npt.NDArray[np.float64]] = []
        self._motions = np.empty((len(data) // (8 * _POSE), 4, 4))  # as many as there can be
        self._num_poses = 0

    def _take(self, alignment: int, size: int) -> int:
        """The place of so many bytes, which are then behind."""
        start = self._at + -(self._at - len(_ENCAPSULATION)) % alignment
        self._at = start + size
        if self._at > len(self._data):
            raise ValueError(
                f"object motions: expected {size} bytes from byte {start} on, got {max(len(self._data) - start, 0)}; "
                "the message is cut off or damaged"
            )
        return start

    def unpack(self, form: str) -> tuple[Any, ...]:
        """Numbers as `struct` reads them; the largest comes first."""
        start = self._take(struct.calcsize(f"<{form[0]}"), struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{form}", self._data, start)

    def time(self) -> int:
        """A Time or a Duration, nanoseconds."""
        seconds, nanoseconds = self.unpack("iI")
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    def string(self) -> str:
        """A string, without its final zero."""
        (size,) = self.unpack("I")
        start = self._take(1, size)
        encoded = bytes(self._data[start : self._at])
        if not encoded.endswith(b"\x00"):
            raise ValueError(f"object motions: expected a text that ends with 00 at byte {start}, got {encoded[:20]!r}")
        return encoded[:-1].decode()

    def int8s(self, count: int) -> npt.NDArray[np.int8]:
        """(count,) int8."""
        values: npt.NDArray[np.int8] = np.frombuffer(self._data, np.int8, count, self._take(1, count)).copy()
        return values

    def doubles(self, count: int) -> Float64:
        """(count,) of points, vectors, poses and covariances."""
        return np.frombuffer(self._data, "<f8", count, self._take(8, 8 * count)).astype(np.float64)

    def floats(self) -> Float64:
        """A sequence of float32."""
        (count,) = self.unpack("I")
        return np.frombuffer(self._data, "<f4", count, self._take(4, 4 * count)).astype(np.float64)

    def end_covariance(self) -> Float64:
        """(6, 6) of a PoseWithCovariance, whose pose follows from the track."""
        return self.doubles(_POSE + 36)[_POSE:].reshape(6, 6)

    def track(self) -> Float64:
        """(T, 4, 4) motions of a sequence of poses; empty memory until `finish`."""
        (count,) = self.unpack("I")
        # Where there is no pose, nothing is padded for one.
        start = self._take(8 if count else 1, 8 * _POSE * count)
        self._poses.append(np.frombuffer(self._data, "<f8", _POSE * count, start).reshape(count, _POSE))
        self._num_poses += count
        return self._motions[self._num_poses - count : self._num_poses]

    def finish(self) -> None:
        """Fill the tracks; nothing may be left over."""
        if self._at != len(self._data):
            raise ValueError(
                f"object motions: expected {self._at} bytes, got {len(self._data)}; the message is damaged, or of "
                "another type"
            )
        if self._num_poses:
            poses = np.concatenate(self._poses)
            rotations = rotations_from_quaternions(wxyz_from_xyzw(poses[:, 3:]))
            self._motions[: self._num_poses] = se3_from_parts(rotations, poses[:, :3])


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
