from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.conditioning import GRID, MAX_WORDS, Vocabulary, choose_cell_pixels
from momap_ros.config import SegmentationConfig
from momap_ros.data.prepared import (
    CELL_ROLES,
    FLUNG_M,
    MAX_BODIES,
    MAX_NAME_WORDS,
    MAX_WORDINGS,
    MOVING_THRESHOLD_M,
    FlungError,
    PreparedSplit,
    balanced_trajectories,
    cell_role,
    displacement_matrices,
    encode_names,
    learn_vocabulary,
    prepare_sample,
    prepare_shards,
    sample_cells,
    write_words,
)
from momap_ros.data.sample import Role, shard_paths, write_shard
from momap_ros.geometry import Float32
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.rgbd import RGBDFrame
from momap_ros.segmentation.tabletop import TabletopSegmenter

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample


@pytest.fixture(scope="module")
def split(prepared_folder: Path) -> PreparedSplit:
    return PreparedSplit.open(prepared_folder / "train")


@pytest.fixture(scope="module")
def codec(prepared_folder: Path) -> TemporalBasisCodec:
    loaded: TemporalBasisCodec = TemporalBasisCodec.from_pretrained(
        prepared_folder / "codec", local_files_only=True, low_cpu_mem_usage=False
    )
    return loaded


def true_displacement(sample: Sample) -> Float32:
    """(32, 32, T, 3) metres moved by the point of every cell."""
    rows, columns = sample_cells(sample)
    return np.moveaxis(sample.momap().displacement_m[:, rows, columns], 0, 2)


def test_samples_keep_their_order(split: PreparedSplit, simulated: list[Sample]) -> None:
    assert len(split) == len(simulated)
    for row, sample in zip(split.meta, simulated, strict=True):
        texts = [sample.text, *sample.paraphrases]
        assert row == {
            "key": sample.key,
            "split": sample.split,
            "skill": sample.skill,
            "kind": sample.kind,
            "texts": texts,
            "names": list(sample.body_names),
        }
    np.testing.assert_allclose(split.duration_s, [sample.duration_s for sample in simulated])


def test_latents_decode_to_the_true_motion_up_to_the_codec(
    split: PreparedSplit, codec: TemporalBasisCodec, simulated: list[Sample]
) -> None:
    """What is stored per body equals the codec's round trip of the true MoMap, half-precision points aside."""
    for index, sample in enumerate(simulated):
        points = split.points_in_camera[index].astype(np.float32).reshape(-1, 3)
        homogeneous = np.concatenate([points, np.ones((GRID * GRID, 1), np.float32)], axis=1)
        matrices = split.latent_from_point[index][split.mover[index].ravel()]
        latents = np.einsum("pij,pj->pi", matrices, homogeneous).astype(np.float32)
        scale_m = float(split.scale_m[index])
        decoded = codec.decode(torch.from_numpy(latents)).numpy() * scale_m
        truth = true_displacement(sample).reshape(GRID * GRID, -1, 3)
        round_trip = codec.decode(codec.encode(torch.from_numpy(truth / scale_m))).numpy() * scale_m
        np.testing.assert_allclose(decoded, round_trip, atol=2e-3)
        moved, rested = truth[split.mover[index].ravel() > 0], truth[split.mover[index].ravel() == 0]
        residual = np.linalg.norm(decoded[split.mover[index].ravel() > 0] - moved, axis=-1)
        assert np.sqrt((residual**2).mean()) < 0.1 * np.sqrt((moved**2).sum(axis=-1).mean())
        assert np.abs(rested).max() < 1e-3


def test_points_and_colours_are_those_of_the_image(split: PreparedSplit, simulated: list[Sample]) -> None:
    for index, sample in enumerate(simulated):
        rows, columns = sample_cells(sample)
        points = sample.momap().xyz[0, rows, columns]
        np.testing.assert_allclose(split.points_in_camera[index], points, rtol=1e-3, atol=1e-3)
        assert float(split.scale_m[index]) == pytest.approx(float(np.median(points[..., 2])), abs=1e-4)  # as stored
        mean = sample.rgb.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(split.rgb[index] - mean).max() <= 0.5


def test_roles_bodies_and_moving_cells(split: PreparedSplit, simulated: list[Sample]) -> None:
    wanted = {Role.WORLD: 0, Role.ROBOT: 1, Role.ACTED: 2, Role.OBJECT: 3, Role.FIXTURE: 3}
    for index, sample in enumerate(simulated):
        rows, columns = sample_cells(sample)
        body = sample.body_ids[rows, columns]
        np.testing.assert_array_equal(split.body[index], body)
        np.testing.assert_array_equal(split.role[index], [[wanted[sample.body_roles[b]] for b in row] for row in body])
        farthest = np.linalg.norm(true_displacement(sample), axis=-1).max(axis=2)
        clear = np.abs(farthest - MOVING_THRESHOLD_M) > 1e-4
        np.testing.assert_array_equal(split.moving[index][clear], farthest[clear] > MOVING_THRESHOLD_M)
        acted = split.moving[index][split.role[index] == CELL_ROLES["acted"]]
        assert len(acted) == 0 or acted.any()


def test_every_role_has_a_cell_role() -> None:
    assert [cell_role(role) for role in (Role.WORLD, Role.ROBOT, Role.ACTED)] == [0, 1, 2]
    assert {cell_role(role) for role in (Role.OBJECT, Role.FIXTURE)} == {CELL_ROLES["other"]}


def test_displacement_matrices_move_points_as_their_body_does(simulated: list[Sample]) -> None:
    sample = simulated[0]
    matrices, momap = displacement_matrices(sample), sample.momap()
    for slot, body in enumerate(sample.moving_bodies):
        rows, columns = np.nonzero(sample.body_ids == body)
        points = np.concatenate([momap.xyz[0, rows, columns], np.ones((len(rows), 1), np.float32)], axis=1)
        np.testing.assert_allclose(
            np.einsum("tcj,pj->tpc", matrices[:, slot], points), momap.displacement_m[:, rows, columns], atol=1e-5
        )


def test_trajectories_for_the_codec_weigh_robot_and_object_alike(simulated: list[Sample]) -> None:
    curves = balanced_trajectories(simulated, per_role=4, seed=0)
    with_robot = sum((np.array(sample.body_roles)[sample.body_ids] == Role.ROBOT).sum() > 20 for sample in simulated)
    assert curves.shape == (4 * (len(simulated) + with_robot), 50, 3)
    np.testing.assert_allclose(curves[:, 0], 0, atol=1e-6)
    np.testing.assert_array_equal(curves, balanced_trajectories(simulated, per_role=4, seed=0))
    sample = simulated[0]
    acted = balanced_trajectories([sample], per_role=4, seed=0)[4:]  # the robot's come first
    rows, columns = sample_cells(sample)
    scale_m = np.median(sample.depth_m[rows, columns])
    is_acted = np.array(sample.body_roles)[sample.body_ids[rows, columns]] == Role.ACTED
    candidates = true_displacement(sample)[is_acted] / scale_m
    for curve in acted:
        assert np.abs(candidates - curve).max(axis=(1, 2)).min() < 1e-4


def test_prompts_are_stored_in_the_learned_vocabulary(
    split: PreparedSplit, prepared_folder: Path, simulated: list[Sample]
) -> None:
    words = json.loads((prepared_folder / "vocabulary.json").read_text())
    texts = [text for sample in simulated for text in (sample.text, *sample.paraphrases)]
    assert words == sorted({word for text in texts for word in Vocabulary.split(text)})
    vocabulary = Vocabulary(words)
    for row, sample in zip(np.asarray(split.words), simulated, strict=True):
        for wording, text in zip(row, (sample.text, *sample.paraphrases), strict=False):
            np.testing.assert_array_equal(wording, vocabulary.encode(text)[0])
        assert not row[1 + len(sample.paraphrases) :].any()


def test_the_vocabulary_is_learned_from_words() -> None:
    assert learn_vocabulary(["Lift the red can.", "lift it"]).words == ("can", "it", "lift", "red", "the")


def test_names_keep_the_words_that_prompts_use_and_no_sides() -> None:
    vocabulary = Vocabulary(["faucet", "handle", "left", "orange"])
    numbers = encode_names(["world", "left_finger", "orange orange", "faucet_handle"], vocabulary)
    assert numbers.shape == (MAX_BODIES, MAX_NAME_WORDS)
    faucet, handle, _, orange = (int(vocabulary.encode(word)[0][0]) for word in vocabulary.words)
    np.testing.assert_array_equal(numbers[:4], [(0, 0, 0), (0, 0, 0), (orange, orange, 0), (faucet, handle, 0)])
    assert not numbers[4:].any()


def test_words_are_written_beside_the_arrays(tmp_path: Path) -> None:
    texts = [["b a", "a"], ["a left"]]
    write_words(
        tmp_path, [{"texts": wordings, "names": ["a"]} for wordings in texts], Vocabulary(["a", "b", "left", "right"])
    )
    stored, mirrored = np.load(tmp_path / "words.npy"), np.load(tmp_path / "mirrored_words.npy")
    assert stored.shape == mirrored.shape == (2, MAX_WORDINGS, MAX_WORDS)
    assert stored[0, 0, 0] == stored[1, 0, 0] + 1
    assert stored[0, 0, 1] == stored[0, 1, 0] == stored[1, 0, 0]
    np.testing.assert_array_equal(mirrored[0], stored[0])
    assert mirrored[1, 0, 1] == stored[1, 0, 1] + 1


def test_observed_samples_are_seen_through_a_sensor_and_keep_exact_targets(
    codec: TemporalBasisCodec, simulated: list[Sample]
) -> None:
    exact = [prepare_sample(sample, codec, 0.0) for sample in simulated]
    rows = [prepare_sample(sample, codec, 1.0) for sample in simulated]
    seen = [row for row in rows if row["observed"]]
    assert len(seen) > len(rows) / 2  # the others have no instance or no depth
    assert not any(row["observed"] for row in exact)
    holes = [np.isnan(row["seen_points_in_camera"][..., 2]).mean() for row in seen]
    assert 0.01 < float(np.mean(holes)) < 0.6
    for row, sample in zip(rows, simulated, strict=True):
        points = row["points_in_camera"].astype(np.float32)
        assert not np.isnan(points).any()
        bodies = np.unique(sample.body_ids)
        assert np.isin(row["body"], bodies).all()
        measured = row["seen_points_in_camera"].astype(np.float32)
        known = ~np.isnan(measured[..., 2])
        # The pixel of a cell is the same in both: its ray, whatever its depth.
        np.testing.assert_allclose(
            (measured[..., :2] / measured[..., 2:])[known], (points[..., :2] / points[..., 2:])[known], atol=4e-3
        )
        again = prepare_sample(sample, codec, 1.0)
        np.testing.assert_array_equal(again["label"], row["label"])


def test_instances_of_observed_samples_are_the_segmenters(codec: TemporalBasisCodec, simulated: list[Sample]) -> None:
    segmenter, compared = TabletopSegmenter(SegmentationConfig()), 0
    for sample in simulated:
        row = prepare_sample(sample, codec, 1.0)
        clean = np.array_equal(row["seen_points_in_camera"], row["points_in_camera"])
        if not (row["observed"] and clean):
            continue
        ids = segmenter(RGBDFrame(sample.rgb, sample.depth_m, sample.camera)).ids
        np.testing.assert_array_equal(row["label"], ids[choose_cell_pixels(ids, ~np.isnan(sample.depth_m))])
        compared += 1
    assert compared
    assert compared < len(simulated)  # the others are seen through a noisy camera


def test_a_ball_that_is_thrown_across_the_room_is_left_out_and_named(
    codec: TemporalBasisCodec, simulated: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = next(sample for sample in simulated if Role.ACTED in [sample.body_roles[b] for b in sample.moving_bodies])
    matrices = np.array(sample.motion_t_from_0)
    matrices[-1, :, 0, 3] += FLUNG_M + 1
    flung = dataclasses.replace(sample, key="train_0000000_0", motion_t_from_0=matrices)
    with pytest.raises(FlungError, match=rf"train_0000000_0 .*expected motions up to {FLUNG_M} m, got [2-9]"):
        prepare_sample(flung, codec)
    write_shard(tmp_path / "train-0000000-0000001.tar", [flung, dataclasses.replace(sample, key="train_0000000_1")])
    meta = prepare_shards(shard_paths(tmp_path, "train"), tmp_path / "train", codec, workers=1)
    assert [row["key"] for row in meta] == ["train_0000000_1"]
    assert len(np.load(tmp_path / "train" / "rgb.npy")) == 1
    said = capsys.readouterr()
    assert "left out: train_0000000_0" in said.out + said.err
    assert "1 samples left out" in said.out + said.err
