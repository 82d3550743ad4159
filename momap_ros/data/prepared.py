"""Stored samples reduced to the arrays a training step reads: memory-mapped, about 40 kB per sample.

A sample's motion is not stored per pixel: for every moving body a (3K, 4) matrix maps a point [x, y, z, 1] in metres to
its whitened latent exactly, because both rigid transport and the temporal basis are linear.

Half of the samples are kept as a real camera and the tabletop segmenter see them; for the others faults are drawn at
every reading (`momap_ros.data.augment`), since nothing is as varied as new draws.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from momap_ros.conditioning import GRID, MAX_WORDS, RGB_GRID, Vocabulary, choose_cell_pixels, scene_scale
from momap_ros.config import SegmentationConfig
from momap_ros.data.sample import Role, Sample, read_shard, shard_paths
from momap_ros.data.sensor import observe
from momap_ros.files import atomic_path
from momap_ros.geometry import Float32, unproject_depth
from momap_ros.instances import Int32
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.tabletop import TabletopSegmenter

if TYPE_CHECKING:
    from momap_ros.model.codec import TemporalBasisCodec

MAX_MOVERS = 20
MOVING_THRESHOLD_M = 0.01
# Nothing on a table goes farther: a ball that contacts threw across the room. One such sample outweighs thousands.
FLUNG_M = 2.5
# Links are told apart in the stored ids; the loss and the metrics know four kinds of cells.
CELL_ROLES = {"world": 0, "robot": 1, "acted": 2, "other": 3}
ROBOT_LABEL = 255
OBSERVED_SHARE = 0.5
CLEAN_SHARE = 0.25  # of the observed samples, seen by a camera without noise: the segmenter's own faults, as simulated
SHARDS = "shards.json"  # which ones a folder's samples are of
UNNAMED_SPLIT = "strange"  # learned from beside `train`, but its made-up names are no words
VALIDATION_SPLIT = "val"  # prepared beside `train`, to be looked at during training
MAX_WORDINGS = 9  # the sentence and eight paraphrases
MAX_BODIES = 32
MAX_NAME_WORDS = 3
MIRRORED_WORDS = {"left": "right", "right": "left"}
_CELL_ROLE_OF = {Role.WORLD: 0, Role.ROBOT: 1, Role.ACTED: 2}
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class PreparedSplit:
    """All samples of one split.

    Attributes:
        rgb: (S, 64, 64, 3) uint8.
        points_in_camera: (S, 32, 32, 3) float16, metres, exact.
        seen_points_in_camera: (S, 32, 32, 3) float16, what the camera measured; NaN in holes. Exact where not observed.
        observed: (S,) bool, seen by a simulated real camera and segmenter.
        label: (S, 32, 32) uint8 instance per cell, 0 = none: the segmenter's where observed, else the true one with all
            links of the robot together as ROBOT_LABEL.
        body: (S, 32, 32) uint8 body id per cell.
        role: (S, 32, 32) uint8, values of CELL_ROLES.
        mover: (S, 32, 32) uint8, 0 = static, otherwise the row of `latent_from_point`.
        moving: (S, 32, 32) bool, cells whose point moves more than 1 cm at any step.
        latent_from_point: (S, MAX_MOVERS + 1, 3K, 4) float32.
        words: (S, MAX_WORDINGS, MAX_WORDS) int16: the sentence, then its paraphrases, then zeros.
        mirrored_words: the same with left and right exchanged, for the mirrored scene.
        names: (S, MAX_BODIES, MAX_NAME_WORDS) int16: the words of each body's name that prompts use, then zeros.
        scale_m: (S,) float32 scene scale.
        duration_s: (S,) float32 length of the motion.
        meta: key, texts, skill, kind and names of the bodies of every sample.
    """

    rgb: Array
    points_in_camera: Array
    seen_points_in_camera: Array
    observed: Array
    label: Array
    body: Array
    role: Array
    mover: Array
    moving: Array
    latent_from_point: Array
    words: Array
    mirrored_words: Array
    names: Array
    scale_m: Array
    duration_s: Array
    meta: list[dict[str, Any]]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.meta)

    @classmethod
    def open(cls, folder: Path) -> PreparedSplit:
        """Memory-map what `prepare_shards` wrote.

        Raises:
            FileNotFoundError: nothing was written there.
        """
        if not (folder / "meta.json").is_file():
            raise FileNotFoundError(f"{folder}: expected samples written by `momap train prepare`, found none")
        meta = json.loads((folder / "meta.json").read_text())
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
        return cls(meta=meta, **arrays)

    def take(self, indices: npt.NDArray[np.integer]) -> PreparedSplit:
        """Some of the samples, in memory."""
        arrays = {f.name: getattr(self, f.name)[indices] for f in fields(self) if f.name != "meta"}
        return PreparedSplit(meta=[self.meta[index] for index in indices], **arrays)


class FlungError(ValueError):
    """A sample in which something is thrown out of the scene, as physics engines do now and then."""


def displacement_matrices(sample: Sample) -> Float32:
    """(T, M, 3, 4) matrices taking a point [x, y, z, 1] of a moving body to its displacement at each step, metres."""
    matrices = np.array(sample.motion_t_from_0, np.float64)
    matrices[..., :3] -= np.eye(3)
    return matrices.astype(np.float32)


def sample_cells(sample: Sample) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pixel of each cell; robot links count as one body so that small links do not crowd out small objects."""
    return choose_cell_pixels(sample.instance_map(merge_robot=True).ids, ~np.isnan(sample.depth_m))


def true_labels(body: npt.NDArray[np.integer], role: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """(32, 32) exact instances: 0 = world, all robot links ROBOT_LABEL, else the body."""
    labels = np.where(role == CELL_ROLES["world"], 0, body.astype(np.int32))
    return np.where(role == CELL_ROLES["robot"], ROBOT_LABEL, labels).astype(np.int32)


def _seen(sample: Sample, observed_share: float) -> tuple[bool, Sample, Int32]:
    """Whether a sample is observed, what the camera then saw, and its instances; drawn from the sample's key."""
    rng = np.random.default_rng(zlib.crc32(sample.key.encode()))
    if rng.random() < observed_share:
        seen = sample if rng.random() < CLEAN_SHARE else observe(sample, rng)
        with suppress(SegmentationError):
            ids = TabletopSegmenter(SegmentationConfig())(RGBDFrame(seen.rgb, seen.depth_m, seen.camera)).ids
            if ids.any():  # else a forecast has nothing to move
                return True, seen, ids
    return False, sample, sample.instance_map(merge_robot=True).ids


def prepare_sample(
    sample: Sample, codec: TemporalBasisCodec, observed_share: float = OBSERVED_SHARE
) -> dict[str, Array]:
    """The arrays of one sample, without its words; which samples are observed, and how, follows from their keys.

    Raises:
        FlungError: something is thrown out of the scene.
    """
    observed, seen, ids = _seen(sample, observed_share)
    rows, columns = choose_cell_pixels(ids, ~np.isnan(seen.depth_m))
    points = unproject_depth(sample.depth_m, sample.camera)[rows, columns]
    seen_points = unproject_depth(seen.depth_m, sample.camera)[rows, columns]
    if np.isnan(seen_points[..., 2]).all():
        seen_points = points
    scale_m = scene_scale(seen_points)
    body = sample.body_ids[rows, columns]
    role = np.array([cell_role(role) for role in sample.body_roles], np.uint8)[body]
    mover_of_body = np.zeros(256, np.uint8)
    movers = sample.moving_bodies[:MAX_MOVERS].astype(np.intp)
    mover_of_body[movers] = 1 + np.arange(len(movers))
    mover = np.where(np.isnan(points[..., 2]), 0, mover_of_body[body]).astype(np.uint8)
    matrices = displacement_matrices(sample)[:, : len(movers)]  # (T, M, 3, 4)
    reach_m = _reach_m(matrices, points, mover)
    if reach_m.max() > FLUNG_M:
        raise FlungError(
            f"{sample.key} ({sample.skill}): expected motions up to {FLUNG_M} m, got {reach_m.max():.1f} m"
        )
    basis, std = codec.basis.numpy(), codec.coefficient_std.numpy()
    latent = np.zeros((MAX_MOVERS + 1, 3 * len(std), 4), np.float32)
    coefficients = np.einsum("tk,tmcj->mckj", basis, matrices) / (scale_m * std[:, None])
    latent[1 : 1 + len(movers)] = coefficients.reshape(len(movers), 3 * len(std), 4)
    return {
        "rgb": _shrunk(seen.rgb),
        "points_in_camera": points.astype(np.float16),
        "seen_points_in_camera": seen_points.astype(np.float16),
        "observed": np.bool_(observed),
        "label": (ids[rows, columns] if observed else true_labels(body, role)).astype(np.uint8),
        "body": body.astype(np.uint8),
        "role": role,
        "mover": mover,
        "moving": reach_m > MOVING_THRESHOLD_M,
        "latent_from_point": latent,
        "scale_m": np.float32(scale_m),
        "duration_s": np.float32(sample.duration_s),
    }


def _shrunk(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    factor = rgb.shape[0] // RGB_GRID
    blocks = rgb.reshape(RGB_GRID, factor, RGB_GRID, factor, 3).mean(axis=(1, 3))
    return np.asarray(np.round(blocks), np.uint8)


def _reach_m(matrices: Float32, points: Float32, mover: npt.NDArray[np.uint8]) -> Float32:
    """(32, 32) how far the point of each cell gets from where it begins, metres."""
    reach_m = np.zeros((GRID, GRID), np.float32)
    inside = mover > 0
    homogeneous = np.concatenate([points[inside], np.ones((int(inside.sum()), 1), np.float32)], axis=1)
    displacement = np.einsum("tpcj,pj->tpc", matrices[:, mover[inside].astype(int) - 1], homogeneous)
    reach_m[inside] = np.linalg.norm(displacement, axis=-1).max(axis=0, initial=0)
    return reach_m


def cell_role(role: Role) -> int:
    """Cell role of a body: what the loss and the metrics tell apart."""
    return _CELL_ROLE_OF.get(role, CELL_ROLES["other"])


def balanced_trajectories(samples: Iterable[Sample], *, per_role: int, seed: int) -> Float32:
    """(P, T, 3) displacements in scene scales of robot and acted points in equal numbers, to fit a codec on."""
    rng = np.random.default_rng(seed)
    curves = []
    for sample in samples:
        rows, columns = sample_cells(sample)
        points = unproject_depth(sample.depth_m, sample.camera)[rows, columns]
        body = sample.body_ids[rows, columns]
        moving_bodies = sample.moving_bodies.tolist()
        matrices, scale_m = displacement_matrices(sample), scene_scale(points)
        for role in (Role.ROBOT, Role.ACTED):
            candidates = np.argwhere(np.isin(body, [b for b in moving_bodies if sample.body_roles[b] == role]))
            if not len(candidates):
                continue
            chosen = candidates[rng.integers(0, len(candidates), per_role)]
            mover = [moving_bodies.index(int(body[row, column])) for row, column in chosen]
            homogeneous = np.concatenate([points[chosen[:, 0], chosen[:, 1]], np.ones((per_role, 1))], axis=1)
            curves.append(np.einsum("tpcj,pj->ptc", matrices[:, mover], homogeneous) / scale_m)
    return np.concatenate(curves).astype(np.float32)


def _prepare_shard(
    shard: Path, codec: TemporalBasisCodec, observed_share: float
) -> tuple[dict[str, Array], list[dict[str, Any]], list[str]]:
    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Array]] = []
    meta: list[dict[str, Any]] = []
    flung: list[str] = []
    for sample in read_shard(shard):
        try:
            rows.append(prepare_sample(sample, codec, observed_share))
        except FlungError as error:
            flung.append(str(error))
            continue
        texts = [sample.text, *sample.paraphrases][:MAX_WORDINGS]
        named = {"texts": texts, "names": list(sample.body_names)}
        meta.append({"key": sample.key, "split": sample.split, "skill": sample.skill, "kind": sample.kind} | named)
    return {name: np.stack([row[name] for row in rows]) for name in (rows[0] if rows else {})}, meta, flung


def training_shards(source: Path) -> list[Path]:
    """The finished shards of a folder that a model learns from: of `train` and of UNNAMED_SPLIT.

    Raises:
        FileNotFoundError: there is none.
    """
    unnamed = sorted(source.glob(f"{UNNAMED_SPLIT}-*.tar"))
    return unnamed if unnamed and not any(source.glob("train-*.tar")) else [*shard_paths(source, "train"), *unnamed]


def prepare_shards(
    shards: Sequence[Path],
    target: Path,
    codec: TemporalBasisCodec,
    *,
    workers: int = 2,
    observed_share: float = OBSERVED_SHARE,
) -> list[dict[str, Any]]:
    """Reduce every stored sample of some shards; words are added by `write_words` once the vocabulary is known.

    Samples in which something is thrown out of the scene are left out, named and counted.

    Args:
        shards: in the order of their samples.
        target: folder to be written.
        codec: of the latents.
        workers: processes.
        observed_share: of the samples.

    Returns:
        The samples' key, split, texts (sentence and paraphrases), skill, kind and names of bodies, in order.
    """
    meta: list[dict[str, Any]] = []
    flung: list[str] = []
    parts: dict[str, list[Array]] = {}
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(partial(_prepare_shard, codec=codec, observed_share=observed_share), shards)
        for arrays, shard_meta, shard_flung in tqdm(
            results, total=len(shards), desc=f"prepare {target.name}", unit="shard"
        ):
            meta += shard_meta
            flung += shard_flung
            for name, array in arrays.items():
                parts.setdefault(name, []).append(array)
    with atomic_path(target) as folder:
        folder.mkdir()
        for name in list(parts):
            np.save(folder / f"{name}.npy", np.concatenate(parts.pop(name)))
        (folder / "meta.json").write_text(json.dumps(meta))
        (folder / SHARDS).write_text(json.dumps([shard.name for shard in shards]))
    for reason in flung:
        tqdm.write(f"left out: {reason}")
    if flung:
        tqdm.write(f"{target.name}: {len(flung)} samples left out, in which something is thrown out of the scene")
    return meta


def encode_wordings(texts: Sequence[str], vocabulary: Vocabulary, *, mirrored: bool) -> npt.NDArray[np.int16]:
    """(MAX_WORDINGS, MAX_WORDS) numbers of a sentence and its paraphrases; mirrored: as said of the mirrored scene."""
    numbers = np.zeros((MAX_WORDINGS, MAX_WORDS), np.int16)
    for row, text in enumerate(texts[:MAX_WORDINGS]):
        words = Vocabulary.split(text)
        if mirrored:
            words = [MIRRORED_WORDS.get(word, word) for word in words]
        numbers[row] = vocabulary.encode(" ".join(words))[0]
    return numbers


def encode_names(names: Sequence[str], vocabulary: Vocabulary) -> npt.NDArray[np.int16]:
    """(MAX_BODIES, MAX_NAME_WORDS) numbers of the words of bodies' names.

    Words that no prompt uses are left out, and sides: they change in a mirror.
    """
    usable = set(vocabulary.words) - set(MIRRORED_WORDS)
    numbers = np.zeros((MAX_BODIES, MAX_NAME_WORDS), np.int16)
    for body, name in enumerate(names[:MAX_BODIES]):
        known = [word for word in Vocabulary.split(name.replace("_", " ")) if word in usable]
        numbers[body, : len(known)] = [vocabulary.encode(word)[0][0] for word in known[:MAX_NAME_WORDS]]
    return numbers


def write_words(target: Path, meta: Sequence[dict[str, Any]], vocabulary: Vocabulary) -> None:
    """Add the encoded prompts and names to a prepared split."""
    arrays = {
        "words": [encode_wordings(row["texts"], vocabulary, mirrored=False) for row in meta],
        "mirrored_words": [encode_wordings(row["texts"], vocabulary, mirrored=True) for row in meta],
        "names": [encode_names(row["names"], vocabulary) for row in meta],
    }
    for name, rows in arrays.items():
        with atomic_path(target / f"{name}.npy") as path, path.open("wb") as file:
            np.save(file, np.stack(rows))


def learn_vocabulary(texts: Iterable[str]) -> Vocabulary:
    """All words of the training prompts, in alphabetical order."""
    return Vocabulary(sorted({word for text in texts for word in Vocabulary.split(text)}))
