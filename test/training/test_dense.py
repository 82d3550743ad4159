"""Stored samples at the model's size: true, deterministic, and as faulty as asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from momap_ros.data.sample import Role, write_shard
from momap_ros.data.shard_index import ShardIndex
from momap_ros.geometry import unproject_depth
from momap_ros.rgbd import RGBDFrame
from momap_ros.training.dense import EXACT, DenseBatch, DenseBatches, DenseDrops, collate, dense_sample, stretched

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

TENSORS = ("momaps", "valid", "moving", "images", "kept", "hints", "scale_m", "log_duration")


@dataclass(frozen=True)
class Options:
    steps: int = 6
    batch_size: int = 4
    learning_rate: float = 1e-3
    warmup_steps: int = 1
    seed: int = 0
    ema_decay: float = 0.99


@pytest.fixture(scope="module")
def index(simulated: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "train-0000000-0000008.tar", simulated[:8])
    return ShardIndex(folder, "train")


FAULTY = DenseDrops()


def batches(index: ShardIndex, drops: DenseDrops = FAULTY, **options: int) -> DenseBatches:
    return DenseBatches(index, Options(), drops, image_size=64, num_steps=50, **options)


def exact(sample: Sample) -> DenseBatch:
    return dense_sample(sample, 64, EXACT, np.random.default_rng(0))


def assert_same(first: DenseBatch, second: DenseBatch) -> None:
    for name in TENSORS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert (first.prompts, first.seeds) == (second.prompts, second.seeds)


def test_every_pixel_is_carried_along_by_its_body(simulated: list[Sample]) -> None:
    """A pixel of the model's image is the source pixel nearest its centre, unprojected by the stretched camera."""
    sample = max(simulated, key=lambda sample: len(sample.moving_bodies))
    batch = exact(sample)
    images = batch.momaps[0].unflatten(0, (50, 3))
    scale_m = float(batch.scale_m[0])
    camera = sample.camera.resized(64, 64)
    rng = np.random.default_rng(0)
    moved = 0
    for row, column in rng.integers(0, 64, (200, 2)):
        source = int((row + 0.5) * 2), int((column + 0.5) * 2)
        depth, body = float(sample.depth_m[source]), int(sample.body_ids[source])
        if np.isnan(depth):
            assert not batch.valid[0, 0, row, column]
            continue
        point = depth * np.array([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, 1.0])
        expected = np.repeat(point[None], 50, axis=0)
        if body in sample.moving_bodies:
            motion = sample.motion_t_from_0[:, list(sample.moving_bodies).index(body)].astype(np.float64)
            expected = motion[..., :3] @ point + motion[..., 3]
        expected = expected / scale_m - [0, 0, 1]
        found = images[:, :, row, column].numpy()
        inside = (np.abs(expected) < 3).all()
        if inside:
            np.testing.assert_allclose(found, expected, atol=1e-4)
            far = np.linalg.norm(expected - expected[0], axis=-1).max() * scale_m
            if abs(far - 0.01) > 1e-4:
                assert bool(batch.moving[0, 0, row, column]) == (far > 0.01)
            moved += far > 0.01
    assert moved > 5


def test_the_stretched_sample_is_the_stretched_frame(simulated: list[Sample]) -> None:
    sample = simulated[0]
    square = stretched(sample, 64)
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera).resized(64, 64)
    np.testing.assert_array_equal(unproject_depth(square.depth_m, square.camera), frame.points_in_camera)
    ids = sample.instance_map(merge_robot=True).resized(64, 64).ids
    np.testing.assert_array_equal(square.instance_map(merge_robot=True).ids, ids)


def test_exact_samples_lose_nothing(simulated: list[Sample]) -> None:
    batch = exact(simulated[0])
    assert batch.kept.tolist() == [[1.0, 1.0, 1.0]]
    assert batch.prompts[0] in (simulated[0].text, *simulated[0].paraphrases)
    assert not batch.hints.any()
    assert float(batch.log_duration[0]) == pytest.approx(np.log(simulated[0].duration_s), rel=1e-5)


def test_faults_and_drops_are_drawn(index: ShardIndex) -> None:
    many = [batches(index).sample(index[number % 8], np.random.default_rng(number)) for number in range(40)]
    kept = torch.cat([batch.kept for batch in many])
    assert 0 < float((kept == 0).float().mean()) < 0.3
    assert 1 <= sum(batch.prompts[0] == "" for batch in many) <= 15
    hinted = sum(bool(batch.hints.any()) for batch in many)
    assert 5 <= hinted <= 30
    clean = exact(index[0])
    assert not torch.equal(many[0].images[:, 0], clean.images[:, 0]), "colours of a real camera"
    # What is to be drawn stays exact: the scale alone comes from the faulty depth.
    ratio = float(many[0].scale_m / clean.scale_m)
    shift = torch.tensor([0.0, 0.0, 1.0]).repeat(50)[None, :, None, None]
    inside = (many[0].momaps.abs() < 2.9) & (clean.momaps.abs() < 2.9)
    wanted = (clean.momaps + shift) / ratio - shift
    torch.testing.assert_close(many[0].momaps[inside], wanted[inside], rtol=1e-3, atol=1e-4)


def test_hints_are_the_true_directions(simulated: list[Sample]) -> None:
    found = 0
    for sample in simulated:
        for seed in range(6):
            drops = replace(EXACT, hints=True)
            batch = dense_sample(sample, 64, drops, np.random.default_rng(seed))
            true = sample.direction_flags()
            acted = [body for body, role in enumerate(sample.body_roles) if role == Role.ACTED and body in true]
            ids = sample.instance_map(merge_robot=True).resized(64, 64).ids[4::8, 4::8]
            for body in acted:
                cells = batch.hints[0][:, torch.from_numpy(ids == body)]
                if not cells.numel() or not cells[9].any():
                    continue
                flags = cells[:9, 0].reshape(3, 3).argmax(dim=1).numpy() - 1
                found += int(np.array_equal(flags, true[body]))
                # A component near the threshold may round to the other side at half the resolution.
                assert np.abs(flags - true[body]).sum() <= 1
    assert found >= 5


def test_a_micro_batch_depends_on_its_number_alone(index: ShardIndex) -> None:
    assert_same(batches(index)[3], batches(index)[3])
    assert batches(index)[3].seeds != batches(index)[4].seeds


def test_processes_and_micro_batches_share_one_batch(index: ShardIndex) -> None:
    whole = batches(index)[2]
    assert len(whole) == 4
    parts = [batches(index, rank=rank, world=2)[2] for rank in (0, 1)]
    assert_same(collate([*parts]), DenseBatch(**_rows(whole, [0, 2, 1, 3])))  # every second one each
    micro = [batches(index, accumulate=2)[number] for number in (4, 5)]
    assert_same(collate(micro), whole)


def _rows(batch: DenseBatch, order: list[int]) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(batch, name)[order] for name in TENSORS}
    return values | {name: tuple(getattr(batch, name)[row] for row in order) for name in ("prompts", "seeds")}


def test_noise_belongs_to_the_sample(index: ShardIndex) -> None:
    whole, half = batches(index)[0], batches(index, rank=1, world=2)[0]
    assert torch.equal(whole.noise(3, 2)[[1, 3]], half.noise(3, 2))
    assert torch.equal(whole.timesteps(1000)[[1, 3]], half.timesteps(1000))
    many = torch.cat([batches(index)[number].noise(1000) for number in range(3)])
    assert float(many.mean()) == pytest.approx(0, abs=0.05)
    assert float(many.std()) == pytest.approx(1, abs=0.05)


def test_what_does_not_fit_is_refused(index: ShardIndex, tmp_path: Path, simulated: list[Sample]) -> None:
    with pytest.raises(ValueError, match="multiple of 3 processes x 1 micro-batches, got 4"):
        batches(index, world=3)
    write_shard(tmp_path / "train-0000000-0000001.tar", simulated[:1])
    with pytest.raises(ValueError, match="at least 4 samples, one batch, got 1"):
        batches(ShardIndex(tmp_path, "train"))
    short = DenseBatches(index, Options(), EXACT, image_size=64, num_steps=16)
    with pytest.raises(ValueError, match="expected T = 16 steps, as the checkpoint has, got 50"):
        short[0]
