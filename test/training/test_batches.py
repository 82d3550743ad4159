from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.conditioning import HASH_BUCKETS, MAX_INSTANCES
from momap_ros.data.prepared import PreparedSplit, sample_cells
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.training.batches import HINT_THRESHOLD_M, Batch, complete
from momap_ros.training.scenes import TRAINING, Drops, draw_scenes

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

ALL = np.arange(12)
CLEAN = Drops(text=1.0, hints="none", faults=False)
UNMIRRORED = dataclasses.replace(TRAINING, mirrored=0.0, cropped=0.0)


@pytest.fixture(scope="module")
def split(prepared_folder: Path) -> PreparedSplit:
    return PreparedSplit.open(prepared_folder / "train")


@pytest.fixture(scope="module")
def codec(prepared_folder: Path) -> TemporalBasisCodec:
    loaded: TemporalBasisCodec = TemporalBasisCodec.from_pretrained(
        prepared_folder / "codec", local_files_only=True, low_cpu_mem_usage=False
    )
    return loaded


def drawn(split: PreparedSplit, codec: TemporalBasisCodec, drops: Drops, seed: int = 0) -> Batch:
    return complete(draw_scenes(split, ALL, drops=drops, rng=np.random.default_rng(seed)), codec)


def assert_equal_batches(first: Batch, second: Batch) -> None:
    for field in dataclasses.fields(first):
        if field.name != "conditioning":
            assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name
    for field in dataclasses.fields(first.conditioning):
        one, other = getattr(first.conditioning, field.name), getattr(second.conditioning, field.name)
        assert torch.equal(one, other), field.name


def test_equal_seeds_give_equal_batches(split: PreparedSplit, codec: TemporalBasisCodec) -> None:
    assert_equal_batches(drawn(split, codec, TRAINING, 7), drawn(split, codec, TRAINING, 7))
    other = drawn(split, codec, TRAINING, 8).conditioning.maps
    assert not torch.equal(drawn(split, codec, TRAINING, 7).conditioning.maps, other)


def test_targets_are_the_true_motion_whatever_is_drawn(
    split: PreparedSplit, codec: TemporalBasisCodec, simulated: list[Sample]
) -> None:
    faulty, clean = drawn(split, codec, UNMIRRORED), drawn(split, codec, CLEAN)
    assert torch.equal(faulty.latents, clean.latents)
    for index, sample in enumerate(simulated):
        rows, columns = sample_cells(sample)
        truth = np.moveaxis(sample.momap().displacement_m[:, rows, columns], 0, 2)  # (32, 32, T, 3)
        wanted = codec.encode(torch.from_numpy(truth) / float(split.scale_m[index])).permute(2, 0, 1)
        np.testing.assert_allclose(clean.latents[index], wanted, atol=0.05)  # half-precision points; unit std
        np.testing.assert_array_equal(clean.moving[index] > 0, split.moving[index])
    np.testing.assert_allclose(clean.log_duration.exp(), [sample.duration_s for sample in simulated], rtol=1e-5)


def test_without_faults_the_conditioning_is_the_scene(
    split: PreparedSplit, codec: TemporalBasisCodec, simulated: list[Sample]
) -> None:
    conditioning = drawn(split, codec, CLEAN).conditioning
    np.testing.assert_array_equal(conditioning.words, split.words[:, 0])
    for index, sample in enumerate(simulated):
        rows, columns = sample_cells(sample)
        ids = sample.instance_map(merge_robot=True).ids[rows, columns]
        pairs = np.unique(np.stack([ids.ravel(), conditioning.slots[index].ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(ids)) == len(np.unique(conditioning.slots[index]))
        assert ((ids == 0) == (conditioning.slots[index].numpy() == 0)).all()
    rgb = split.rgb.astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    gray_value = 2 / 255
    np.testing.assert_allclose(conditioning.maps[:, 1], rgb[:, 0, 0::2, 1::2], atol=gray_value / 30)


def test_a_slot_moves_when_most_of_its_cells_move(split: PreparedSplit, codec: TemporalBasisCodec) -> None:
    batch = drawn(split, codec, UNMIRRORED, 3)
    for index in ALL:
        slots = batch.conditioning.slots[index].numpy()
        for slot in range(MAX_INSTANCES):
            cells = split.moving[index][slots == slot]
            assert bool(batch.slot_moves[index, slot]) == (len(cells) > 0 and cells.mean() > 0.5)


def test_prompts_are_dropped_as_a_whole(split: PreparedSplit, codec: TemporalBasisCodec) -> None:
    assert not drawn(split, codec, Drops(text=0.0, hints="none", faults=True)).conditioning.words.any()
    kept = torch.cat([drawn(split, codec, TRAINING, seed).conditioning.words.any(dim=1) for seed in range(12)])
    assert 0.75 < float(kept.float().mean()) < 0.95  # 0.85 of 144, standard deviation 0.03
    strange = drawn(split, codec, Drops(text=1.0, hints="none", faults=True)).conditioning.words.numpy()
    known = [[set(wording[wording > 0]) for wording in wordings] for wordings in split.words]
    for row, wordings in zip(strange, known, strict=True):
        learned = set(row[row > HASH_BUCKETS])
        assert any(learned <= wording for wording in wordings)
    texts = {tuple(drawn(split, codec, TRAINING, seed).conditioning.words[0].tolist()) for seed in range(12)}
    assert len(texts) > 3  # paraphrases


def hints_of(batch: Batch, index: int, cells: np.ndarray) -> np.ndarray:
    """(P, 3) flags of cells, after checking that they are given and one-hot."""
    hints = batch.conditioning.maps[index, 19:].permute(1, 2, 0).numpy()[cells]
    assert (hints[:, 9] == 1).all()
    one_hot = hints[:, :9].reshape(-1, 3, 3)
    assert (one_hot.sum(axis=2) == 1).all()
    return np.asarray(one_hot.argmax(axis=2) - 1)


def test_hints_are_the_signs_of_the_true_displacement(
    split: PreparedSplit, codec: TemporalBasisCodec, simulated: list[Sample]
) -> None:
    batch = drawn(split, codec, Drops(text=1.0, hints="all", faults=False))
    compared = 0
    for index, sample in enumerate(simulated):
        rows, columns = sample_cells(sample)
        final = sample.momap().displacement_m[-1, rows, columns]
        slots = batch.conditioning.slots[index].numpy()
        for slot in np.unique(slots[slots > 0]):
            mean = final[slots == slot].mean(axis=0)
            clear = abs(abs(mean) - HINT_THRESHOLD_M) > 0.006  # the codec's residual at the last step
            expected = np.where(abs(mean) > HINT_THRESHOLD_M, np.sign(mean), 0)
            flags = hints_of(batch, index, slots == slot)
            assert (flags[:, clear] == expected[clear]).all()
            compared += int((clear & (expected != 0)).sum())
        assert not batch.conditioning.maps[index, 19:].numpy()[:, slots == 0].any()
    assert compared > 15


def test_hints_are_given_to_half_of_the_scenes(split: PreparedSplit, codec: TemporalBasisCodec) -> None:
    none, moved_only, everything = 0, 0, 0
    for seed in range(12):
        batch = drawn(split, codec, dataclasses.replace(UNMIRRORED, faults=False), seed)
        given = batch.conditioning.maps[:, 28].numpy() > 0
        slots = batch.conditioning.slots.numpy()
        moves = np.take_along_axis(batch.slot_moves.numpy(), slots.reshape(12, -1), axis=1).reshape(slots.shape) > 0
        for index in ALL:
            foreground = slots[index] > 0
            if not given[index].any():
                none += 1
            elif (given[index] == foreground).all():
                everything += 1
            else:
                np.testing.assert_array_equal(given[index], foreground & moves[index])
                moved_only += 1
    assert none + moved_only + everything == 144
    assert 0.36 < none / 144 < 0.64  # a half, standard deviation 0.04
    assert 0.11 < moved_only / 144 < 0.39
    assert 0.11 < everything / 144 < 0.39


# --- mirrors


def test_a_mirrored_scene_moves_as_in_a_mirror(
    split: PreparedSplit, codec: TemporalBasisCodec, prepared_folder: Path
) -> None:
    """Points and motions change the sign of x, images are flipped, left is right; metres and times stay."""
    plain = drawn(split, codec, CLEAN)
    mirrored = drawn(split, codec, dataclasses.replace(CLEAN, mirrored=1.0))
    moved, seen = codec.decode(plain.latents.movedim(1, -1)), codec.decode(mirrored.latents.movedim(1, -1))
    torch.testing.assert_close(seen.flip(2) * torch.tensor([-1.0, 1, 1]), moved)
    points, other = plain.conditioning.maps[:, 15:18], mirrored.conditioning.maps[:, 15:18]
    torch.testing.assert_close(other.flip(3) * torch.tensor([-1.0, 1, 1])[:, None, None], points)
    first = plain.conditioning.maps[:, :12].unflatten(1, (3, 2, 2))  # colour channel, row and column in the cell
    second = mirrored.conditioning.maps[:, :12].unflatten(1, (3, 2, 2))
    torch.testing.assert_close(second.flip(5).flip(3), first)
    assert torch.equal(mirrored.weights.flip(3), plain.weights)
    assert torch.equal(mirrored.moving.flip(2), plain.moving)
    vocabulary = json.loads((prepared_folder / "vocabulary.json").read_text())
    word = {name: 1 + HASH_BUCKETS + vocabulary.index(name) for name in ("left", "right") if name in vocabulary}
    assert word  # some sentence says where to
    numbers, exchanged = plain.conditioning.words, mirrored.conditioning.words
    for name, opposite in (("left", "right"), ("right", "left")):
        if name in word and opposite in word:
            assert torch.equal(numbers == word[name], exchanged == word[opposite])


def test_hints_of_a_mirrored_scene_are_mirrored(split: PreparedSplit, codec: TemporalBasisCodec) -> None:
    told = Drops(text=1.0, hints="all", faults=False)
    plain, mirrored = drawn(split, codec, told), drawn(split, codec, dataclasses.replace(told, mirrored=1.0))
    flags = plain.conditioning.maps[:, 19:28].unflatten(1, (3, 3))  # axis, sign
    seen = mirrored.conditioning.maps[:, 19:28].unflatten(1, (3, 3)).flip(4)
    assert torch.equal(seen[:, 1:], flags[:, 1:])
    assert torch.equal(seen[:, 0].flip(1), flags[:, 0])
