from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from momap_ros.conditioning import GRID, HASH_BUCKETS, MAX_INSTANCES
from momap_ros.data.prepared import CELL_ROLES, PreparedSplit
from momap_ros.training.scenes import (
    HINT_MODES,
    LOSS_SHARE,
    STRANGE_NAME_SHARE,
    STRANGE_SHARE,
    TRAINING,
    DrawnScenes,
    Drops,
    draw_scenes,
    loss_weights,
    slot_names,
)

ALL = np.arange(12)


@pytest.fixture(scope="module")
def split(prepared_folder: Path) -> PreparedSplit:
    return PreparedSplit.open(prepared_folder / "train")


def test_equal_seeds_give_equal_scenes(split: PreparedSplit) -> None:
    first, again, other = (draw_scenes(split, ALL, drops=TRAINING, rng=np.random.default_rng(n)) for n in (7, 7, 8))
    for field in fields(DrawnScenes):
        torch.testing.assert_close(
            getattr(first, field.name), getattr(again, field.name), rtol=0, atol=0, equal_nan=True, msg=field.name
        )
    assert not torch.equal(first.rgb, other.rgb)


def test_colors_tell_instances_apart_and_the_background_has_none(split: PreparedSplit) -> None:
    colors = draw_scenes(split, ALL, drops=TRAINING, rng=np.random.default_rng(0)).colors
    assert not colors[:, 0].any()
    assert colors.abs().max() <= 1
    assert len(torch.unique(colors[:, 1:].flatten(0, 1), dim=0)) == len(ALL) * (MAX_INSTANCES - 1)


@pytest.mark.parametrize("mode", HINT_MODES)
def test_hints_are_as_asked(split: PreparedSplit, mode: str) -> None:
    drops = Drops(text=1.0, hints=mode, faults=False)
    scenes = draw_scenes(split, ALL, drops=drops, rng=np.random.default_rng(0))
    assert (scenes.hint_modes == HINT_MODES.index(mode)).all()


def everything(count: int) -> np.ndarray:
    """Slots in which every cell belongs to an instance."""
    return np.ones((count, GRID, GRID), np.int64)


def test_loss_weights_give_every_group_its_share(split: PreparedSplit) -> None:
    weights = loss_weights(split, ALL, everything(len(ALL)))
    assert weights.mean() == pytest.approx(1.0)
    one_sample_each = [loss_weights(split, ALL[i : i + 1], everything(1))[0] for i in ALL]
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
    weights = loss_weights(split, np.array([0]), everything(1))[0]
    sums = np.array([weights[body[0] == b].sum() for b in (0, 7, 8, 9, 10)])
    np.testing.assert_allclose(sums / sums[0], np.array([0.25, 0.1, 0.1, 0.05, 0.15]) / 0.25, rtol=1e-4)
    slots = np.where(body == 8, 0, 1).astype(np.int64)
    lost = loss_weights(split, np.array([0]), slots)[0]
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


def test_names_become_unknown_words_more_often_than_other_words(split: PreparedSplit) -> None:
    told = Drops(text=1.0, hints="none", faults=True)
    sentences = [draw_scenes(split, ALL, drops=told, rng=np.random.default_rng(n)).words.numpy() for n in range(60)]
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
