"""Poses of a frame from the transforms of a bag, without ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from momap_ros.bag import BagReader
from momap_ros.bag_types import TRANSFORMS, Message
from momap_ros.geometry import (
    Float64,
    invert_se3,
    quaternions_from_rotations,
    rotations_from_quaternions,
    se3_from_parts,
    wxyz_from_xyzw,
    xyzw_from_wxyz,
)
from momap_ros.images import stamp_ns_of

MAX_GAP_NS = 200_000_000  # farthest that the nearest transform may be from the time asked for
STATIC_NAME = "tf_static"


@dataclass(eq=False)
class _Link:
    """The transforms from one frame to its parent, in rising order of their stamps."""

    parent: str
    static: bool
    stamps_ns: list[int] = field(default_factory=list)
    parent_from_child: list[Float64] = field(default_factory=list)

    def at(self, stamp_ns: int) -> Float64 | None:
        """(4, 4) at a time, between two stamps by interpolation; None where none is near."""
        if self.static:
            return self.parent_from_child[-1]
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        near = [i for i in (after - 1, after) if 0 <= i < len(self.stamps_ns)]
        near = [i for i in near if abs(self.stamps_ns[i] - stamp_ns) <= MAX_GAP_NS]
        if not near:
            return None
        if len(near) == 1 or self.stamps_ns[near[1]] == stamp_ns:
            return self.parent_from_child[near[-1]]
        first, second = near
        share = (stamp_ns - self.stamps_ns[first]) / (self.stamps_ns[second] - self.stamps_ns[first])
        return _between(self.parent_from_child[first], self.parent_from_child[second], share)


class BagPoses:
    """Where a frame is in the root of its transform tree, at any time of a bag."""

    def __init__(self, path: Path) -> None:
        """Read all transforms of a bag; a bag without any is no error.

        Raises:
            BagError: not a bag, or a damaged one.
        """
        self._links: dict[str, _Link] = {}
        with BagReader(path) as bag:
            for topic in (topic for topic in bag.topics if topic.type_name == TRANSFORMS):
                static = topic.parts[-1] == STATIC_NAME
                for _, message in bag.messages(topic.name):
                    for transform in message.transforms:
                        self._add(transform, static=static)
        for link in self._links.values():
            order = np.argsort(link.stamps_ns, kind="stable")
            link.stamps_ns = [link.stamps_ns[i] for i in order]
            link.parent_from_child = [link.parent_from_child[i] for i in order]

    def follows(self, frame_id: str) -> bool:
        """Whether the bag says how the frame moves: a transform on its way to the root changes with time.

        Drivers publish the place of an image sensor in its housing on /tf_static; that alone says nothing of a camera
        in somebody's hand.
        """
        name, passed = frame_id.lstrip("/"), set[str]()
        while name in self._links and name not in passed:
            if not self._links[name].static:
                return True
            passed.add(name)
            name = self._links[name].parent
        return False

    def root_from(self, frame_id: str, stamp_ns: int) -> Float64 | None:
        """(4, 4) pose of a frame in the root of its tree, metres; None where it is not known at this time."""
        return self._climb(frame_id.lstrip("/"), stamp_ns)[1]

    def target_from(self, target_id: str, frame_id: str, stamp_ns: int) -> Float64 | None:
        """(4, 4) target_from_frame at this time, metres; None where it is not known."""
        (root, root_from_frame), (target_root, root_from_target) = (
            self._climb(name.lstrip("/"), stamp_ns) for name in (frame_id, target_id)
        )
        if root != target_root or root_from_frame is None or root_from_target is None:
            return None
        return np.asarray(invert_se3(root_from_target) @ root_from_frame)

    def _climb(self, frame_id: str, stamp_ns: int) -> tuple[str, Float64 | None]:
        """The root above a frame, and the frame's pose in it."""
        root_from_frame = np.eye(4)
        passed = {frame_id}
        while frame_id in self._links:
            parent_from_child = self._links[frame_id].at(stamp_ns)
            frame_id = self._links[frame_id].parent
            if parent_from_child is None or frame_id in passed:
                return frame_id, None
            passed.add(frame_id)
            root_from_frame = parent_from_child @ root_from_frame
        return frame_id, root_from_frame

    def _add(self, message: Message, *, static: bool) -> None:
        child = str(message.child_frame_id).lstrip("/")
        link = self._links.setdefault(child, _Link(str(message.header.frame_id).lstrip("/"), static))
        shift, turn = message.transform.translation, message.transform.rotation
        rotation = rotations_from_quaternions(wxyz_from_xyzw(np.array([[turn.x, turn.y, turn.z, turn.w]])))[0]
        link.stamps_ns.append(stamp_ns_of(message))
        link.parent_from_child.append(se3_from_parts(rotation, np.array([shift.x, shift.y, shift.z], np.float64)))


def _between(first: Float64, second: Float64, share: float) -> Float64:
    """The pose at a share of the way: translation on a line, rotation on the shortest arc."""
    from scipy.spatial.transform import Rotation, Slerp

    ends = Rotation.from_quat(xyzw_from_wxyz(quaternions_from_rotations(np.stack([first, second])[:, :3, :3])))
    rotation = Slerp([0.0, 1.0], ends)([share]).as_matrix()[0]
    return se3_from_parts(rotation, (1.0 - share) * first[:3, 3] + share * second[:3, 3])
