"""The stored sample: one view of one episode, from which the exact MoMap is computed again.

A sample keeps the first frame (colour, depth, body ids) and the rigid motion of every body that moves: about 60 kB at
128x128 where the dense MoMap would take 10 MB. Samples lie in plain tar shards with WebDataset names (`KEY.rgb.png`,
`KEY.depth.png`, `KEY.ids.png`, `KEY.motion.z`, `KEY.json`, and `KEY.visible.z` where visibility was asked for).

Recordings share the format. What nobody measured there is named in `lacks`, never made up.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from momap_ros.files import atomic_path
from momap_ros.geometry import (
    Float32,
    Float64,
    PinholeCamera,
    quaternions_from_rotations,
    rotations_from_quaternions,
    unproject_depth,
)
from momap_ros.instances import InstanceMap
from momap_ros.momap import MoMap, direction_flags
from momap_ros.shapes import check_shapes

UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
DEPTH_UNIT_M = 1e-4
# What a recording may lack; its arrays then hold what the attribute's text says.
LACKS = ("camera", "depth", "instances", "motion")
_VISIBLE = "visible.z"
_MOTION = "motion.z"
_POSE_FLOATS = 7  # quaternion (w, x, y, z), translation
_PNG_LEVEL = [int(cv2.IMWRITE_PNG_COMPRESSION), 1]  # smaller files cost more time here than they save
_PNG_PHOTO = [*_PNG_LEVEL, int(cv2.IMWRITE_PNG_STRATEGY), int(cv2.IMWRITE_PNG_STRATEGY_RLE)]  # a tenth smaller


class SampleError(ValueError):
    """A sample was asked for what it lacks, or its parts do not fit together."""


class Role(IntEnum):
    """What a body is in its episode."""

    WORLD = 0  # table, floor, walls
    ROBOT = 1
    ACTED = 2  # what the sentence asks to move
    OBJECT = 3
    FIXTURE = 4  # a cabinet, without its drawer or door
    HIDDEN = 5  # never in an image


@dataclass(frozen=True, eq=False)
class Sample:
    """One view of one episode.

    Attributes:
        key: unique within its split; sorts by episode, then view.
        split: name of the split.
        skill: name of the skill shown.
        kind: kind of the acted object, "drawer" or "door" included.
        text: the sentence.
        rgb: (H, W, 3) uint8, first frame.
        depth_m: (H, W) float32, metres along optical z; NaN where unknown (everywhere if depth is lacking).
        body_ids: (H, W) uint8, index of the body seen at each pixel; 0 = world.
        camera: intrinsics of the images; fx and fy differ where the image is stretched. Assumed if camera is lacking.
        camera_from_world: (4, 4), metres; world z is up.
        body_names: a readable name per body.
        body_roles: role per body.
        moving_bodies: (B,) uint8 ids of the bodies that move.
        motion_t_from_0: (T, B, 3, 4) float32, metres, camera frame: takes a point of moving body b as seen at step 0 to
            where it is at step t; identity at step 0.
        duration_s: seconds from step 0 to step T - 1; the steps are equal.
        paraphrases: other sentences for the same motion.
        text_frame: whose left, right, away and closer the sentences use: "camera", "robot", or "" where they use none.
        contacts: (body id, first, last second after step 0) of every time the robot touches a body.
        factors: what the scene was drawn from (arm, table, intrinsics, sector, ...), by name.
        first_frame: the same for all samples that begin with the very same image: several futures of one scene.
        visible: (T, H, W) bool, whether the point first seen at the pixel is seen at step t; None where not computed.
        source: "simulation", or where the recording comes from.
        lacks: which of LACKS nobody measured.
    """

    key: str
    split: str
    skill: str
    kind: str
    text: str
    rgb: UInt8
    depth_m: Float32
    body_ids: UInt8
    camera: PinholeCamera
    camera_from_world: Float64
    body_names: tuple[str, ...]
    body_roles: tuple[Role, ...]
    moving_bodies: UInt8
    motion_t_from_0: Float32
    duration_s: float
    paraphrases: tuple[str, ...] = ()
    text_frame: str = ""
    contacts: tuple[tuple[int, float, float], ...] = ()
    factors: Mapping[str, str] = field(default_factory=dict)
    first_frame: str = ""
    visible: Bool | None = None
    source: str = "simulation"
    lacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that all parts speak of the same image and bodies."""
        check_shapes(
            {"H": self.camera.height, "W": self.camera.width, "N": len(self.body_names)},
            rgb=(self.rgb, "H W 3"),
            depth_m=(self.depth_m, "H W"),
            body_ids=(self.body_ids, "H W"),
            camera_from_world=(self.camera_from_world, "4 4"),
            body_roles=(np.array(self.body_roles), "N"),
            moving_bodies=(self.moving_bodies, "B"),
            motion_t_from_0=(self.motion_t_from_0, "T B 3 4"),
        )
        if self.visible is not None:
            check_shapes(visible=(self.visible, "T H W"), motion_t_from_0=(self.motion_t_from_0, "T B 3 4"))
        if unknown := set(self.lacks) - set(LACKS):
            raise SampleError(f"{self.key}: lacks: expected names of {list(LACKS)}, got {sorted(unknown)}")

    @property
    def step_s(self) -> float:
        """Seconds between two steps; 0 where there is a single one."""
        return self.duration_s / max(len(self.motion_t_from_0) - 1, 1)

    @property
    def up_in_camera(self) -> Float64:
        """(3,) unit vector against gravity, camera frame."""
        return np.asarray(self.camera_from_world[:3, 2], np.float64)

    def momap(self) -> MoMap:
        """The true MoMap of this view: every point is carried along rigidly by its body, or stays.

        Raises:
            SampleError: camera, depth or motion are lacking.
        """
        self._require("camera", "depth", "motion")
        points = unproject_depth(self.depth_m, self.camera)
        xyz = np.repeat(points[None], len(self.motion_t_from_0), axis=0)
        for slot, body in enumerate(self.moving_bodies):
            seen = self.body_ids == body
            motion = self.motion_t_from_0[1:, slot]
            xyz[1:, seen] = points[seen] @ motion[..., :3].transpose(0, 2, 1) + motion[:, None, :, 3]
        return MoMap(xyz, np.isfinite(self.depth_m), self.step_s)

    def direction_flags(self, step: int = -1, *, threshold_m: float = 0.02) -> dict[int, npt.NDArray[np.int8]]:
        """Where every instance goes: id -> (3,) signs of its mean displacement at a step (paper Sec. 3.4.2).

        Args:
            step: 0 to T - 1, or from the end.
            threshold_m: shorter components are 0.

        Raises:
            SampleError: camera, depth or motion are lacking.
        """
        self._require("camera", "depth", "motion")
        points = unproject_depth(self.depth_m, self.camera)
        moved = np.zeros_like(points)
        for slot, body in enumerate(self.moving_bodies):
            seen, motion = self.body_ids == body, self.motion_t_from_0[step, slot]
            moved[seen] = points[seen] @ motion[:, :3].T + motion[:, 3] - points[seen]
        ids = self.instance_map(merge_robot=True).ids
        known = np.isfinite(self.depth_m)
        present = np.unique(ids[(ids > 0) & known]).tolist()
        return {i: direction_flags(moved[(ids == i) & known].mean(axis=0), threshold_m) for i in present}

    def instance_map(self, *, merge_robot: bool) -> InstanceMap:
        """Instances of the first frame: body ids, all robot links as the one id of its first body if `merge_robot`."""
        merged = self._instance_of_body(merge_robot=merge_robot)
        labels = {body: self.body_names[body] for body in self.instance_roles(merge_robot=merge_robot)}
        if merge_robot:
            labels |= {
                body: "robot" for body, role in enumerate(self.body_roles) if body in labels and role == Role.ROBOT
            }
        return InstanceMap(merged[self.body_ids], labels)

    def instance_roles(self, *, merge_robot: bool) -> dict[int, Role]:
        """Instance id -> role, for every instance of the scene, whether this view shows it or not."""
        merged = self._instance_of_body(merge_robot=merge_robot)
        return {
            int(instance): self.body_roles[int(instance)]
            for instance in np.unique(merged)
            if self.body_roles[int(instance)] not in {Role.WORLD, Role.HIDDEN}
        }

    def _require(self, *parts: str) -> None:
        if missing := sorted(set(parts) & set(self.lacks)):
            raise SampleError(
                f"{self.key}: expected a sample with true motion, got one of {self.source} that lacks "
                f"{', '.join(missing)}; take samples that `momap simulate` made"
            )

    def _instance_of_body(self, *, merge_robot: bool) -> npt.NDArray[np.int32]:
        bodies = np.arange(len(self.body_names), dtype=np.int32)
        robot = np.array(self.body_roles) == Role.ROBOT
        if merge_robot and robot.any():
            bodies[robot] = bodies[robot].min()
        return bodies


def write_shard(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as one tar, whole or not at all; returns their number. Equal samples give equal bytes."""
    count = 0
    with atomic_path(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for suffix, content in _encode(sample).items():
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            count += 1
    return count


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of one shard, in the order they were written.

    Raises:
        ValueError: a member is missing or does not belong to a sample.
    """
    with tarfile.open(path, "r:") as tar:
        parts: dict[str, bytes] = {}
        current = ""
        for member in tar:
            key, _, suffix = member.name.partition(".")
            if key != current and parts:
                yield decode_sample(path, current, parts)
                parts = {}
            content = tar.extractfile(member)
            if content is None:
                raise ValueError(f"{path}: expected files only, got {member.name!r}; write the shard again")
            current, parts[suffix] = key, content.read()
        if parts:
            yield decode_sample(path, current, parts)


def shard_paths(folder: Path, split: str) -> list[Path]:
    """The finished shards of a split, in order of their episodes.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = sorted(folder.glob(f"{split}-*.tar"))
    if not paths:
        raise FileNotFoundError(
            f"{folder}: expected shards named {split}-*.tar, found none; make them with "
            f"momap simulate --split {split} --count 1000 --out {folder}"
        )
    return paths


def iterate_samples(folder: Path, split: str) -> Iterator[Sample]:
    """Every sample of a split, in order of episode and view.

    Raises:
        FileNotFoundError: the folder holds no shard of the split.
    """
    for path in shard_paths(folder, split):
        yield from read_shard(path)


def _encode(sample: Sample) -> dict[str, bytes]:
    depth = np.round(np.nan_to_num(sample.depth_m) / DEPTH_UNIT_M).clip(0, 65535).astype(np.uint16)
    camera = sample.camera
    meta = {
        "split": sample.split,
        "skill": sample.skill,
        "kind": sample.kind,
        "text": sample.text,
        "camera": [camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy],
        "camera_from_world": sample.camera_from_world.tolist(),
        "body_names": sample.body_names,
        "body_roles": [int(role) for role in sample.body_roles],
        "moving_bodies": sample.moving_bodies.tolist(),
        "num_steps": len(sample.motion_t_from_0),
        "duration_s": sample.duration_s,
        "paraphrases": sample.paraphrases,
        "text_frame": sample.text_frame,
        "contacts": sample.contacts,
        "factors": dict(sample.factors),
        "first_frame": sample.first_frame,
        "source": sample.source,
        "lacks": sample.lacks,
    }
    parts = {
        "rgb.png": _png(cv2.cvtColor(sample.rgb, cv2.COLOR_RGB2BGR), _PNG_PHOTO),
        "depth.png": _png(depth),
        "ids.png": _png(sample.body_ids),
        _MOTION: _pack_motion(sample.motion_t_from_0),
        "json": json.dumps(meta).encode(),
    }
    if sample.visible is not None:
        parts[_VISIBLE] = zlib.compress(np.packbits(sample.visible).tobytes())
    return parts


def decode_sample(path: Path, key: str, parts: dict[str, bytes]) -> Sample:
    """One sample of its members' bytes, by suffix.

    Args:
        path: of the shard, for messages.
        key: of the sample.
        parts: suffix -> content.

    Raises:
        ValueError: members are missing or unknown, or of an earlier release.
    """
    expected = {"rgb.png", "depth.png", "ids.png", _MOTION, "json"}
    if set(parts) - {_VISIBLE} != expected:
        raise ValueError(
            f"{path}: sample {key}: expected {sorted(expected)}, got {sorted(parts)}; write the shard again"
        )
    meta = json.loads(parts["json"])
    if "num_steps" not in meta:
        raise ValueError(f"{path}: sample {key}: written by an earlier release of this package; make the shard again")
    depth = _from_png(parts["depth.png"]).astype(np.float32) * np.float32(DEPTH_UNIT_M)
    width, height, *intrinsics = meta["camera"]
    motion = _unpack_motion(parts[_MOTION], meta["num_steps"])
    visible: Bool | None = None
    if _VISIBLE in parts:
        bits = np.frombuffer(zlib.decompress(parts[_VISIBLE]), np.uint8)
        shape = (len(motion), height, width)
        visible = np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(np.bool_)
    return Sample(
        key=key,
        split=meta["split"],
        skill=meta["skill"],
        kind=meta["kind"],
        text=meta["text"],
        rgb=np.ascontiguousarray(_from_png(parts["rgb.png"])[..., ::-1]),
        depth_m=np.where(depth > 0, depth, np.float32(np.nan)),
        body_ids=_from_png(parts["ids.png"]),
        camera=PinholeCamera(width, height, *intrinsics),
        camera_from_world=np.array(meta["camera_from_world"]),
        body_names=tuple(meta["body_names"]),
        body_roles=tuple(Role(role) for role in meta["body_roles"]),
        moving_bodies=np.array(meta["moving_bodies"], np.uint8),
        motion_t_from_0=motion,
        duration_s=meta["duration_s"],
        paraphrases=tuple(meta["paraphrases"]),
        text_frame=meta["text_frame"],
        contacts=tuple((int(body), first, last) for body, first, last in meta["contacts"]),
        factors=meta["factors"],
        first_frame=meta["first_frame"],
        visible=visible,
        source=meta["source"],
        lacks=tuple(meta["lacks"]),
    )


def _pack_motion(motion: Float32) -> bytes:
    """Rigid motions (T, B, 3, 4) as quaternions and translations; bytes of equal weight lie together."""
    poses = np.empty((*motion.shape[:2], _POSE_FLOATS), np.float32)
    poses[..., :4] = quaternions_from_rotations(motion[..., :3])
    poses[..., 4:] = motion[..., 3]
    return zlib.compress(np.ascontiguousarray(poses.view(np.uint8).reshape(-1, 4).T).tobytes())


def _unpack_motion(content: bytes, num_steps: int) -> Float32:
    planes = np.frombuffer(zlib.decompress(content), np.uint8).reshape(4, -1)
    poses = np.ascontiguousarray(planes.T).view(np.float32).reshape(num_steps, -1, _POSE_FLOATS)
    motion = np.empty((*poses.shape[:2], 3, 4), np.float32)
    motion[..., :3] = rotations_from_quaternions(poses[..., :4])
    motion[..., 3] = poses[..., 4:]
    return motion


def _png(image: npt.NDArray[Any], options: list[int] = _PNG_LEVEL) -> bytes:
    return bytes(cv2.imencode(".png", image, options)[1])


def _from_png(content: bytes) -> npt.NDArray[Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))
