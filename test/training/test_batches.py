from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch

from momap_ros.conditioning import GRID, HASH_BUCKETS, MAX_INSTANCES
from momap_ros.data.prepared import CELL_ROLES, PreparedSplit, sample_cells
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.training.batches import (
    HINT_THRESHOLD_M,
    LOSS_SHARE,
    STRANGE_NAME_SHARE,
    STRANGE_SHARE,
    TRAINING,
    Batch,
    Drops,
    loss_weights,
    make_batch,
    slot_names,
)

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

ALL = np.arange(12)
CLEAN = Drops(text=1.0, hints="none", faults=False)
UNMIRRORED = dataclasses.replace(TRAINING, mirrored=0.0)


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
    return make_batch(split, ALL, codec, drops=drops, rng=np.random.default_rng(seed))


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
    np.testing.assert_allclose(conditioning.maps[:, 1], rgb[:, 0, 0::2, 1::2], atol=1e-6)


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


def everything(count: int) -> np.ndarray:
    """Slots in which every cell belongs to an instance."""
    return np.ones((count, GRID, GRID), np.int64)


def test_loss_weights_give_every_group_its_share(split: PreparedSplit) -> None:
    weights = loss_weights(split, ALL, everything(len(ALL))).numpy()[:, 0]
    assert weights.mean() == pytest.approx(1.0)
    one_sample_each = [loss_weights(split, ALL[i : i + 1], everything(1)).numpy()[0, 0] for i in ALL]
    complete = 0
    for index, alone in enumerate(one_sample_each):
        role, body, moving = split.role[index], split.body[index], split.moving[index]
        is_object = (role != CELL_ROLES["world"]) & (role != CELL_ROLES["robot"])
        moved = [b for b in np.unique(body[is_object]) if moving[body == b].mean() > 0.5]
        groups = {
            "world": role == CELL_ROLES["world"],
            "robot": role == CELL_ROLES["robot"],
            "moved": is_object & np.isin(body, moved),
            "still": is_object & ~np.isin(body, moved),
        }
        sums = {name: float(alone[cells].sum()) for name, cells in groups.items()}
        sizes = [int(groups[name].sum()) for name in ("world", "robot", "still")]
        sizes += [int((body == b).sum()) for b in moved]
        if min(sizes) >= 4 and moved:  # no group is absent or too small for its share
            complete += 1
            for name, total in sums.items():
                assert total / (GRID * GRID) == pytest.approx(LOSS_SHARE[name], rel=1e-4)
        # In a batch only the common factor differs.
        np.testing.assert_allclose(weights[index] * alone.max(), alone * weights[index].max(), rtol=1e-4, atol=1e-6)
    assert complete >= 3


def test_two_moved_objects_halve_their_share_and_a_tiny_one_gets_part_of_it() -> None:
    """Of three moved objects two are large and one has 2 cells: 2 of the 4 that a full share takes."""
    body = np.zeros((1, GRID, GRID), np.uint8)
    body[0, 10:20, 0:8], body[0, 10:20, 12:14], body[0, 25, 0:2], body[0, 25, 10:20] = 7, 8, 9, 10
    moving = np.isin(body, (7, 8, 9))
    role = np.where(body > 0, CELL_ROLES["other"], CELL_ROLES["world"]).astype(np.uint8)
    role[body == 7] = CELL_ROLES["acted"]
    unused = np.zeros((1, 0))
    split = PreparedSplit(
        rgb=unused,
        points_in_camera=unused,
        seen_points_in_camera=unused,
        observed=unused,
        label=unused,
        body=body,
        role=role,
        mover=unused,
        moving=moving,
        latent_from_point=unused,
        words=unused,
        mirrored_words=unused,
        names=unused,
        scale_m=unused,
        duration_s=unused,
        meta=[{}],
    )
    weights = loss_weights(split, np.array([0]), everything(1)).numpy()[0, 0]
    sums = np.array([weights[body[0] == b].sum() for b in (0, 7, 8, 9, 10)])
    np.testing.assert_allclose(sums / sums[0], np.array([0.25, 0.1, 0.1, 0.05, 0.15]) / 0.25, rtol=1e-4)
    slots = np.where(body == 8, 0, 1).astype(np.int64)
    lost = loss_weights(split, np.array([0]), slots).numpy()[0, 0]
    assert not lost[body[0] == 8].any()  # no forecast can move what belongs to no instance
    assert lost[body[0] == 0].all()


def test_a_slot_has_the_name_of_most_of_its_cells() -> None:
    """Slot 1 covers six cells of body 3 and three of body 5; slot 2 has a body beyond the stored ones."""
    body = np.zeros((1, GRID, GRID), np.uint8)
    body[0, 0, :6], body[0, 1, :3], body[0, 2, :2] = 3, 5, 200
    slots = np.zeros((1, GRID, GRID), np.int64)
    slots[0, :2, :6], slots[0, 2, :2] = 1, 2
    slots[0, 1, 3:6] = 0
    names = np.zeros((1, 8, 3), np.int16)
    names[0, 0], names[0, 3], names[0, 5] = (9, 0, 0), (41, 42, 0), (43, 0, 0)
    split = SimpleNamespace(body=body, names=names)
    found = slot_names(cast("PreparedSplit", split), np.array([0]), slots)
    assert found.shape == (1, MAX_INSTANCES, 3)
    np.testing.assert_array_equal(found[0, :3], [(9, 0, 0), (41, 42, 0), (0, 0, 0)])
    assert not found[0, 3:].any()  # no cells, no name: not that of body 0


def test_names_become_unknown_words_more_often_than_other_words(
    split: PreparedSplit, codec: TemporalBasisCodec
) -> None:
    told = Drops(text=1.0, hints="none", faults=True)
    sentences = [drawn(split, codec, told, seed).conditioning.words.numpy() for seed in range(60)]
    named, others = [], []
    for index in ALL:
        for words in (sentence[index] for sentence in sentences):
            same = [w for w in split.words[index] if ((w == words) | ((words > 0) & (words <= HASH_BUCKETS))).all()]
            if len(same) == 1:
                is_name = np.isin(same[0], split.names[index])
                named.append((words != same[0])[is_name & (same[0] > 0)])
                others.append((words != same[0])[~is_name & (same[0] > 0)])
    for changed, share in ((named, STRANGE_NAME_SHARE), (others, STRANGE_SHARE)):
        values = np.concatenate(changed)
        assert abs(values.mean() - share) < 5 * np.sqrt(share / len(values))


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
