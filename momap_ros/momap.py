"""Motion Maps: an image whose pixels are 3D trajectories, and its sparse form.

Paper: MoMaps, ICCV 2025, Sec. 3.1. Pixel (v, u) holds where the surface point seen there at step 0 will be at each of T
steps, in metres, in the reference camera's optical frame.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from momap_ros.files import atomic_path
from momap_ros.geometry import Float32, FloatArray
from momap_ros.shapes import check_shapes

FILE_FORMAT = "momap/1"


@dataclass(frozen=True, eq=False)
class MoMap:
    """One dense future of a scene.

    Attributes:
        xyz: (T, H, W, 3) float32, metres, reference camera's optical frame; xyz[0] is the observed point map; NaN where
            `valid` is False.
        valid: (H, W) bool, pixels with an observed point.
        step_s: seconds between two steps.
        frame_id: TF name of the reference camera's optical frame.
        stamp_ns: time of step 0, nanoseconds.
    """

    xyz: Float32
    valid: npt.NDArray[np.bool_]
    step_s: float
    frame_id: str = "camera_color_optical_frame"
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        """Check sizes, dtypes and the step."""
        check_shapes(xyz=(self.xyz, "T H W 3"), valid=(self.valid, "H W"))
        if self.xyz.dtype != np.float32 or self.valid.dtype != np.bool_:
            raise ValueError(f"expected xyz float32 and valid bool, got {self.xyz.dtype} and {self.valid.dtype}")
        if not self.step_s > 0:
            raise ValueError(f"step_s: expected positive seconds, got {self.step_s}")

    @property
    def displacement_m(self) -> Float32:
        """(T, H, W, 3) metres moved since step 0."""
        return self.xyz - self.xyz[:1]

    def moving_mask(self, threshold_m: float) -> npt.NDArray[np.bool_]:
        """(H, W), True where a point is at any step farther than threshold_m from where it was seen."""
        farthest = np.linalg.norm(self.displacement_m, axis=-1).max(axis=0)
        return np.asarray(np.nan_to_num(farthest, nan=0.0) > threshold_m)

    def save(self, path: Path) -> None:
        """Write a compressed .npz, whole or not at all; a name without that suffix gets it."""
        with atomic_path(path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")) as partial:
            np.savez_compressed(
                partial,
                format=np.array(FILE_FORMAT),
                xyz=self.xyz,
                valid=self.valid,
                step_s=np.array(self.step_s),
                frame_id=np.array(self.frame_id),
                stamp_ns=np.array(self.stamp_ns, np.int64),
            )

    @classmethod
    def load(cls, path: Path) -> MoMap:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not a MoMap of this format.
        """
        try:
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
                content = {name: file[name] for name in file.files}
        except Exception as error:  # a damaged archive raises anything from BadZipFile to zlib's own class
            raise ValueError(
                f"{path}: expected a MoMap file (.npz, {FILE_FORMAT}), could not read it: {error}"
            ) from error
        if str(content.get("format")) != FILE_FORMAT:
            raise ValueError(f"{path}: expected format {FILE_FORMAT!r}, got {content.get('format')!s}")
        missing = sorted({"xyz", "valid", "step_s", "frame_id", "stamp_ns"} - content.keys())
        if missing:
            raise ValueError(f"{path}: expected a whole MoMap file, got one without {missing}")
        return cls(
            content["xyz"],
            content["valid"],
            float(content["step_s"]),
            str(content["frame_id"]),
            int(content["stamp_ns"]),
        )


@dataclass(frozen=True, eq=False)
class PointTrajectories:
    """Several futures of selected pixels: the sparse form of MoMaps, and the content of PointTrajectories.msg.

    Attributes:
        positions: (N, P, T, 3) float32, metres, frame `frame_id`; step 0 is the observation; NaN = unknown.
        object_ids: (P,) int32 instance of each point, 0 = background.
        pixels: (P, 2) int32 (u, v) in the source image.
        image_width: pixels of the source image.
        image_height: pixels of the source image.
        step_s: seconds between two steps.
        confidence: (N, P) float32 in [0, 1], the model's probability that the point moves as drawn, or None.
        frame_id: TF name of the frame of all positions.
        stamp_ns: time of step 0, nanoseconds.
    """

    positions: Float32
    object_ids: npt.NDArray[np.int32]
    pixels: npt.NDArray[np.int32]
    image_width: int
    image_height: int
    step_s: float
    confidence: Float32 | None = None
    frame_id: str = "camera_color_optical_frame"
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        """Check that all arrays speak of the same points and hypotheses."""
        lengths = check_shapes(
            positions=(self.positions, "N P T 3"), object_ids=(self.object_ids, "P"), pixels=(self.pixels, "P 2")
        )
        if self.confidence is not None:
            check_shapes(lengths, confidence=(self.confidence, "N P"))
        if not self.step_s > 0:
            raise ValueError(f"step_s: expected positive seconds, got {self.step_s}")

    @property
    def num_hypotheses(self) -> int:
        """Number of futures."""
        return int(self.positions.shape[0])

    @property
    def num_points(self) -> int:
        """Number of pixels followed."""
        return int(self.positions.shape[1])

    @property
    def num_steps(self) -> int:
        """Number of steps, the observation included."""
        return int(self.positions.shape[2])

    def reordered(self, order: npt.NDArray[np.intp]) -> PointTrajectories:
        """Futures of these, in another order: (M,) indices of the present one; all or some."""
        confidence = None if self.confidence is None else self.confidence[order]
        return replace(self, positions=self.positions[order], confidence=confidence)

    @classmethod
    def from_momap(cls, momap: MoMap, ids: npt.NDArray[np.int32], *, stride: int) -> PointTrajectories:
        """The valid pixels of a dense MoMap on a regular stride, as one hypothesis."""
        check_shapes(xyz=(momap.xyz, "T H W 3"), ids=(ids, "H W"))
        rows, columns = np.nonzero(momap.valid[::stride, ::stride])
        rows, columns = rows * stride, columns * stride
        return cls(
            np.ascontiguousarray(momap.xyz[:, rows, columns].transpose(1, 0, 2)[None]),
            ids[rows, columns],
            np.stack([columns, rows], axis=-1).astype(np.int32),
            momap.xyz.shape[2],
            momap.xyz.shape[1],
            momap.step_s,
            None,
            momap.frame_id,
            momap.stamp_ns,
        )


def representative_order(trajectories: PointTrajectories) -> npt.NDArray[np.intp]:
    """(N,) hypotheses in rising mean distance of their end points from those of all others; the first is the medoid.

    Points whose end is unknown in any hypothesis are left out; hypotheses at the same distance keep their order.
    """
    ends = trajectories.positions[:, :, -1].astype(np.float64)
    ends = ends[:, np.isfinite(ends).all(axis=(0, 2))]
    # (N, 3, P) and every pair once; the same numbers for both of a pair keep equal hypotheses equal.
    planes = np.ascontiguousarray(ends.transpose(0, 2, 1))
    distances = np.zeros((len(ends), len(ends)))
    for row, end in enumerate(planes):
        apart = np.sqrt(((planes[row + 1 :] - end) ** 2).sum(axis=1)).sum(axis=1)
        distances[row, row + 1 :] = distances[row + 1 :, row] = apart
    return np.argsort(distances.sum(axis=1), kind="stable")


def direction_flags(displacement_m: FloatArray, threshold_m: float) -> npt.NDArray[np.int8]:
    """Sign of each component, 0 below the threshold: the paper's nine flags (three axes x {-, stay, +}).

    Paper: Sec. 3.4.2 and 4.2 item 6. In an optical frame +x is right, +y down, +z forward.

    Args:
        displacement_m: (..., 3) metres.
        threshold_m: a component counts as motion from this length on.

    Returns:
        (..., 3) int8 in {-1, 0, 1}; 0 where the displacement is NaN.
    """
    check_shapes(displacement_m=(displacement_m, "... 3"))
    # A comparison with NaN is false.
    return np.where(np.abs(displacement_m) >= threshold_m, np.sign(displacement_m), 0).astype(np.int8)
