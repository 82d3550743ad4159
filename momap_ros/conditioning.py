"""Frame, instances, prompt and hints -> the tensors a MoMap model is conditioned on.

The model sees a square of 32x32 cells. Every cell is represented by one real pixel of one instance, never by an
average over a boundary; the colour image enters at twice that resolution. All lengths are divided by the scene scale,
the median depth.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from momap_ros.geometry import Float32
from momap_ros.instances import InstanceMap, Int32, count_ids, renumbered
from momap_ros.rgbd import FrameError, RGBDFrame
from momap_ros.shapes import check_shapes

if TYPE_CHECKING:
    import torch

GRID = 32
RGB_GRID = 64
IMAGE_SIZE = 256
MAX_INSTANCES = 20
MAX_WORDS = 16
HASH_BUCKETS = 32
HINT_CHANNELS = 10
CONDITION_CHANNELS = 12 + 3 + 3 + 1 + HINT_CHANNELS
TOKEN_FEATURES = 6 + 6 + HINT_CHANNELS + 3 + 2
# What a model can be blind to, for ablations: its channels of `Conditioning.maps` and of `Conditioning.tokens`.
BLINDABLE = {
    "points": (tuple(range(15, 19)), (*range(6, 12), 26)),  # where a cell is, and whether that is known
    "colors": (tuple(range(12, 15)), tuple(range(22, 25))),  # of instances; the image stays
}
MAX_POINT_SCALES = 3.0
# A label represents its cell from this share of the cell's pixels on; small objects win over large ones.
MIN_CELL_SHARE = 3 / 16
Cell = TypeVar("Cell", bound=np.generic)


@dataclass(frozen=True, eq=False)
class SceneGrid:
    """A frame reduced to the model's cells, still in metres.

    Attributes:
        rgb: (64, 64, 3) uint8.
        points_in_camera: (32, 32, 3) float32, metres, optical frame; NaN where the cell has no depth.
        slots: (32, 32) int32 in [0, MAX_INSTANCES): 0 = background, otherwise the instance slot of the cell.
        slot_ids: instance id of slot 1, 2, ...
        dropped_ids: instances that found no slot: beyond MAX_INSTANCES (smallest first) or owning no cell.
        scale_m: scene scale, the median depth of the cells, metres.
    """

    rgb: npt.NDArray[np.uint8]
    points_in_camera: Float32
    slots: Int32
    slot_ids: tuple[int, ...]
    dropped_ids: tuple[int, ...]
    scale_m: float


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Model inputs of B scenes; torch tensors.

    Attributes:
        maps: (B, CONDITION_CHANNELS, 32, 32): colour (2x2 cells unshuffled), instance colour, normalised points,
            validity, direction hints.
        slots: (B, 32, 32) int64 instance slot per cell.
        tokens: (B, MAX_INSTANCES, TOKEN_FEATURES) pooled features per slot.
        token_valid: (B, MAX_INSTANCES) bool, slots that own a cell.
        words: (B, MAX_WORDS) int64, 0 = padding.
    """

    maps: torch.Tensor
    slots: torch.Tensor
    tokens: torch.Tensor
    token_valid: torch.Tensor
    words: torch.Tensor

    @property
    def positions(self) -> torch.Tensor:
        """(B, MAX_INSTANCES, 3) mean of each slot's points, in scene scales from the point at the scene's depth."""
        return self.tokens[..., 6:9]


class Vocabulary:
    """Words of prompts as integers; unknown words share a few hashed numbers and are reported.

    Args:
        words: the learned words, in the order of their numbers.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Number the words; 0 is padding and the hash buckets follow it."""
        self.words = tuple(words)
        self._index = {word: 1 + HASH_BUCKETS + number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        """Number of distinct integers, padding and hash buckets included."""
        return 1 + HASH_BUCKETS + len(self.words)

    @staticmethod
    def split(prompt: str) -> list[str]:
        """Lower-case words of a prompt; punctuation and digits separate words."""
        return re.findall(r"[^\W\d_]+", prompt.lower())

    def encode(self, prompt: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Numbers of a prompt's first MAX_WORDS words.

        Returns:
            (MAX_WORDS,) int64, 0 = padding; and the words that are unknown or were cut off, for the user to see.
        """
        words = self.split(prompt)
        numbers = np.zeros(MAX_WORDS, np.int64)
        ignored = words[MAX_WORDS:]
        for position, word in enumerate(words[:MAX_WORDS]):
            # crc32 and not hash(): the latter differs between processes.
            numbers[position] = self._index.get(word, 1 + zlib.crc32(word.encode()) % HASH_BUCKETS)
            if word not in self._index:
                ignored.append(word)
        return numbers, ignored


def choose_cell_pixels(
    ids: Int32, usable: npt.NDArray[np.bool_], grid: int = GRID
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pixel that represents each cell of the model's grid.

    Of the labels that cover at least MIN_CELL_SHARE of the cell the one with the smallest image area wins, so that
    small objects keep cells; of its pixels the usable one nearest the cell's centre is taken.

    Args:
        ids: (S, S) labels of a square image, S a multiple of `grid`.
        usable: (S, S), pixels with depth.
        grid: G, cells along a side.

    Returns:
        Rows and columns, (G, G) each.
    """
    size = check_shapes(ids=(ids, "S S"), usable=(usable, "S S"))["S"]
    if size % grid:
        raise ValueError(f"ids: expected a square whose side is a multiple of {grid}, got {size}")
    cell = size // grid
    values, area = count_ids(ids)
    compact = renumbered(ids, values.astype(np.int32), np.arange(len(values), dtype=np.int32))

    def by_cell(image: npt.NDArray[Cell]) -> npt.NDArray[Cell]:
        tiles: npt.NDArray[Cell] = image.reshape(grid, cell, grid, cell).transpose(0, 2, 1, 3)
        return tiles.reshape(grid * grid, cell * cell)

    labels = by_cell(compact)
    of_cell = np.arange(grid * grid)[:, None] * len(area)
    share = np.bincount((of_cell + labels).ravel(), minlength=grid * grid * len(area)).reshape(grid * grid, -1)
    rank = np.where(share >= MIN_CELL_SHARE * cell * cell, area[None], np.iinfo(np.int64).max)
    winner = rank.argmin(axis=1)
    winner = np.where(rank.min(axis=1) == np.iinfo(np.int64).max, share.argmax(axis=1), winner)
    row, column = np.divmod(np.arange(cell * cell), cell)
    distance = (row - (cell - 1) / 2) ** 2 + (column - (cell - 1) / 2) ** 2
    cost = distance[None] + 1e3 * ~by_cell(usable) + 1e6 * (labels != winner[:, None])
    best = cost.argmin(axis=1)
    cell_row, cell_column = np.divmod(np.arange(grid * grid), grid)
    rows = (cell_row * cell + row[best]).reshape(grid, grid)
    columns = (cell_column * cell + column[best]).reshape(grid, grid)
    return rows, columns


def scene_grid(
    frame: RGBDFrame, instances: InstanceMap, *, image_size: int = IMAGE_SIZE, grid: int = GRID
) -> SceneGrid:
    """Reduce a frame of any size and aspect to the model's cells; the image is stretched to a square.

    Args:
        frame: registered colour and depth.
        instances: instance map of the same size.
        image_size: side of the square, pixels; a multiple of RGB_GRID and of `grid`.
        grid: cells along a side.

    Raises:
        ShapeError: frame and instances differ in size.
        FrameError: no cell has depth.
    """
    check_shapes({"H": frame.camera.height, "W": frame.camera.width}, ids=(instances.ids, "H W"))
    square = frame.resized(image_size, image_size)
    ids = instances.resized(image_size, image_size).ids
    rows, columns = choose_cell_pixels(ids, square.valid, grid)
    points = square.points_in_camera[rows, columns]
    cell_ids = ids[rows, columns]
    owned = [i for i in np.unique(cell_ids).tolist() if i > 0]
    owned.sort(key=lambda i: -instances.areas_px[i])
    slot_ids = tuple(sorted(owned[: MAX_INSTANCES - 1]))
    slots = np.zeros((grid, grid), np.int32)
    for slot, instance_id in enumerate(slot_ids, start=1):
        slots[cell_ids == instance_id] = slot
    block = image_size // RGB_GRID
    # Rows first and in integers: several times faster than a mean over both axes, and exact.
    of_rows = square.rgb.reshape(RGB_GRID, block, image_size, 3).sum(axis=1, dtype=np.uint16)
    rgb = of_rows.reshape(RGB_GRID, RGB_GRID, block, 3).sum(axis=2) / block**2
    return SceneGrid(
        np.round(rgb).astype(np.uint8),
        points,
        slots,
        slot_ids,
        tuple(i for i in instances.areas_px if i not in slot_ids),
        scene_scale(points),
    )


def scene_scale(points_in_camera: Float32) -> float:
    """Median depth of the cells that have one, metres: the unit of length inside the model.

    Raises:
        FrameError: no cell has depth.
    """
    depth = points_in_camera[..., 2]
    if np.isnan(depth).all():
        raise FrameError("depth_m: expected readings, got none in the whole image; is the camera covered or too close?")
    return float(np.nanmedian(depth))


def hint_arrays(
    hints: Mapping[int, Sequence[int]], slot_ids: Sequence[int]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Direction hints per slot.

    Paper: Sec. 3.4.2, the direction DSL. A hint is the sign (-1, 0, 1) of the object's displacement over the whole
    horizon along x (right), y (down) and z (forward) of the camera's optical frame.

    Returns:
        (MAX_INSTANCES, 3) int8 flags and (MAX_INSTANCES,) bool, which slots have one.

    Raises:
        ValueError: a hint for an instance that is not in the scene, or flags other than three of -1, 0, 1.
    """
    flags = np.zeros((MAX_INSTANCES, 3), np.int8)
    given = np.zeros(MAX_INSTANCES, np.bool_)
    for instance_id, hint in hints.items():
        if instance_id not in slot_ids:
            raise ValueError(f"hints: expected instance ids among {list(slot_ids)}, got {instance_id}")
        if len(hint) != 3 or any(flag not in (-1, 0, 1) for flag in hint):
            raise ValueError(f"hints[{instance_id}]: expected three flags of -1, 0 or 1 (x, y, z), got {list(hint)}")
        slot = slot_ids.index(instance_id) + 1
        flags[slot], given[slot] = hint, True
    return flags, given


def slot_colors(slot_ids: Sequence[int], seed: int) -> Float32:
    """(MAX_INSTANCES, 3) random colour in [-1, 1] per slot, 0 for the background. Paper: Sec. 3.3.3."""
    colors = np.zeros((MAX_INSTANCES, 3), np.float32)
    for slot, instance_id in enumerate(slot_ids, start=1):
        colors[slot] = np.random.default_rng([seed, instance_id]).uniform(-1, 1, 3)
    return colors


def assemble(
    *,
    rgb: torch.Tensor,
    points_in_camera: torch.Tensor,
    scale_m: torch.Tensor,
    slots: torch.Tensor,
    colors: torch.Tensor,
    hint_flags: torch.Tensor,
    hint_given: torch.Tensor,
    words: torch.Tensor,
) -> Conditioning:
    """Turn B scenes into model inputs; training and inference both end here.

    Args:
        rgb: (B, 64, 64, 3) float in [-1, 1].
        points_in_camera: (B, 32, 32, 3) metres, NaN where a cell has no depth.
        scale_m: (B,) scene scale, metres.
        slots: (B, 32, 32) int64.
        colors: (B, MAX_INSTANCES, 3) in [-1, 1].
        hint_flags: (B, MAX_INSTANCES, 3) in {-1, 0, 1}.
        hint_given: (B, MAX_INSTANCES) bool.
        words: (B, MAX_WORDS) int64.
    """
    import torch
    import torch.nn.functional as functional

    check_shapes(
        {"G": GRID, "R": RGB_GRID, "M": MAX_INSTANCES},
        rgb=(rgb, "B R R 3"),
        points_in_camera=(points_in_camera, "B G G 3"),
        slots=(slots, "B G G"),
        colors=(colors, "B M 3"),
        hint_flags=(hint_flags, "B M 3"),
    )
    batch = rgb.shape[0]
    flat = slots.reshape(batch, -1)  # (B, 1024)
    valid = ~torch.isnan(points_in_camera[..., 2]).reshape(batch, -1, 1)  # (B, 1024, 1)
    scale = scale_m.reshape(batch, 1, 1)
    centred = points_in_camera.reshape(batch, -1, 3) - torch.tensor([0.0, 0.0, 1.0], device=rgb.device) * scale
    normalised = torch.where(valid, centred / scale, torch.zeros(())).clamp(-MAX_POINT_SCALES, MAX_POINT_SCALES)

    one_hot_flags = functional.one_hot(hint_flags.long() + 1, 3).reshape(batch, MAX_INSTANCES, 9).float()
    hints = torch.cat([one_hot_flags, torch.ones_like(one_hot_flags[..., :1])], dim=-1) * hint_given[..., None]

    def per_cell(per_slot: torch.Tensor) -> torch.Tensor:  # (B, M, C) -> (B, 1024, C)
        return per_slot.gather(1, flat[..., None].expand(-1, -1, per_slot.shape[-1]))

    image = rgb.permute(0, 3, 1, 2)
    cells = torch.cat([per_cell(colors), normalised, valid.float(), per_cell(hints)], dim=-1)  # (B, 1024, 17)
    maps = torch.cat(
        [functional.pixel_unshuffle(image, 2), cells.transpose(1, 2).reshape(batch, -1, GRID, GRID)], dim=1
    )

    member = functional.one_hot(flat, MAX_INSTANCES).float()  # (B, 1024, M)
    count = member.sum(dim=1)
    with_depth = member * valid

    def pooled(values: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:  # mean and std, (B, M, 2C)
        total = membership.sum(dim=1).clamp(min=1)[..., None]
        mean = torch.einsum("bpm,bpc->bmc", membership, values) / total
        square = torch.einsum("bpm,bpc->bmc", membership, values**2) / total
        return torch.cat([mean, (square - mean**2).clamp(min=0).sqrt()], dim=-1)

    small = functional.avg_pool2d(image, 2).flatten(2).transpose(1, 2)  # (B, 1024, 3)
    share = with_depth.sum(dim=1) / count.clamp(min=1)
    size = torch.stack([(count + 1).log() / 3 - 1, share], dim=-1)
    tokens = torch.cat([pooled(small, member), pooled(normalised, with_depth), hints, colors, size], dim=-1)
    return Conditioning(maps, slots, tokens, count > 0, words)
