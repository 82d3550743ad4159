from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from evaluation_scenes import CUP, pushed

from momap_ros.conditioning import MAX_INSTANCES, scene_grid
from momap_ros.data.prepared import displacement_matrices
from momap_ros.data.sample import Role
from momap_ros.evaluation.predictor import MoMapPrediction, MoMapPredictor, Scene
from momap_ros.evaluation.scoring import Condition, scene_of, score_sample
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.groups import group_futures
from momap_ros.model.output import MoMapOutput

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample
    from momap_ros.instances import InstanceMap
    from momap_ros.rgbd import RGBDFrame

LOSSLESS = TemporalBasisCodec.pinned_cosines(50, 49)


class Oracle:
    """A pipeline that knows the truth of one sample: rigid instances by their exact affine map, links cell by cell."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __call__(
        self, frame: RGBDFrame, instances: InstanceMap, prompt: str, *, num_hypotheses: int, **_: object
    ) -> MoMapOutput:
        assert prompt == self.sample.text
        sample, grid = self.sample, scene_grid(frame, instances)
        matrices = displacement_matrices(sample)  # (T, B, 3, 4)
        # [1, point / scale] -> displacement / scale, so only the constant part is divided.
        affine = np.concatenate([matrices[..., 3:] / grid.scale_m, matrices[..., :3]], axis=-1)
        maps = torch.zeros(1, MAX_INSTANCES, 4, LOSSLESS.latent_channels)
        for body, motion in zip(sample.moving_bodies, affine.transpose(1, 3, 0, 2), strict=True):
            if int(body) in grid.slot_ids and sample.body_roles[body] != Role.ROBOT:
                maps[0, grid.slot_ids.index(int(body)) + 1] = LOSSLESS.encode(torch.from_numpy(motion))
        rows, columns = np.divmod(np.arange(1024), 32)
        pixels = (np.stack([rows, columns]) * 4 + 2).astype(int)
        truth = sample.momap().displacement_m[:, pixels[0], pixels[1]] / grid.scale_m
        latents = LOSSLESS.encode(torch.from_numpy(truth).transpose(0, 1)).T[None]
        robots = [i for i, role in sample.instance_roles(merge_robot=True).items() if role == Role.ROBOT]
        articulated = torch.zeros(MAX_INSTANCES, dtype=torch.bool)
        articulated[[grid.slot_ids.index(i) + 1 for i in robots if i in grid.slot_ids]] = True
        return MoMapOutput(
            frame=frame,
            instances=instances,
            grid=grid,
            codec=LOSSLESS,
            latents=latents.expand(num_hypotheses, -1, -1),
            maps=maps.expand(num_hypotheses, -1, -1, -1),
            centres=torch.zeros(MAX_INSTANCES, 3),
            moving_probability=torch.ones(num_hypotheses, MAX_INSTANCES),
            articulated=articulated,
            step_s=sample.step_s,
        )


def test_a_model_that_knows_the_truth_scores_zero(simulated: list[Sample]) -> None:
    of_robots = []  # error over that of staying
    for sample in simulated:
        model = MoMapPredictor()
        vars(model)["pipeline"] = Oracle(sample)
        row = score_sample(sample, [model], Condition(num_hypotheses=2), 0)["ours"]
        assert row is not None
        acted = row["roles"]["acted"]
        assert row["truth"]["acted"]["static_ade_m"] > 0.005
        assert acted["ade_m"]["mean"] < 1e-5
        assert acted["fde_m"]["best"] < 1e-5
        assert row["duration_ratio"] == pytest.approx(1.0)
        assert row["right_object"] == row["acted_segmented"] == 1.0
        if "robot" in row["roles"]:
            of_robots.append(row["roles"]["robot"]["ade_m"]["best"] / row["truth"]["robot"]["static_ade_m"])
            assert row["joint_m"]["acted"] < 1e-5
    # Links in one instance are known cell by cell: a point whose nearest cell shows another link goes with that.
    assert len(of_robots) >= 6
    assert max(of_robots) < 0.5
    assert np.mean(of_robots) < 0.2


def test_the_model_draws_what_its_pipeline_draws(tiny_checkpoint: Path, simulated: list[Sample]) -> None:
    scene = scene_of(simulated[0], Condition())
    model = MoMapPredictor(str(tiny_checkpoint), 1)
    prediction = model(scene, num_hypotheses=3, seed=5)
    output = model.pipeline(
        scene.frame,
        scene.instances,
        scene.prompt,
        num_hypotheses=3,
        num_inference_steps=1,
        generator=torch.Generator().manual_seed(5),
    )
    pixels = np.array([[10, 20], [64, 64], [90, 100]], np.int32)
    np.testing.assert_array_equal(prediction.trajectories(pixels), output.trajectories(pixels).positions)
    assert prediction.instance_moving_probability() == output.instance_moving_probability()
    assert prediction.step_s == output.step_s


def test_a_predictor_is_loaded_late_and_travels_light() -> None:
    model = MoMapPredictor("no_such_checkpoint")
    assert pickle.loads(pickle.dumps(model)) == model
    with pytest.raises(Exception, match="no_such_checkpoint"):
        model(
            Scene(scene_of(pushed(), Condition()).frame, pushed().instance_map(merge_robot=True)),
            num_hypotheses=1,
            seed=0,
        )


def test_a_scene_hides_the_truth_unless_given() -> None:
    scene = scene_of(pushed(), Condition())
    bare = Scene(scene.frame, scene.instances)
    assert (bare.prompt, dict(bare.hints), bare.sample) == ("", {}, None)
    assert CUP in bare.instances.areas_px


def test_without_projection_pixels_move_as_the_nearest_cell_was_drawn(
    tiny_checkpoint: Path, simulated: list[Sample]
) -> None:
    scene = scene_of(simulated[0], Condition())
    model = MoMapPredictor(str(tiny_checkpoint), 1, projected=False)
    output = model(scene, num_hypotheses=2, seed=5).output
    projected = MoMapPredictor(str(tiny_checkpoint), 1)(scene, num_hypotheses=2, seed=5).output
    assert torch.equal(output.latents, projected.latents)
    rows, columns = np.nonzero((output.grid.slots > 0) & ~np.isnan(output.grid.points_in_camera[..., 2]))
    size = scene.frame.camera.width // 32
    middle = np.stack([columns * size + size // 2, rows * size + size // 2], axis=-1).astype(np.int32)
    ids, slots = scene.instances.ids[middle[:, 1], middle[:, 0]], output.grid.slots[rows, columns]
    own = np.array([0, *output.grid.slot_ids])[slots] == ids  # the middle of the cell shows the cell's instance
    own &= ~np.isnan(scene.frame.points_in_camera[middle[:, 1], middle[:, 0], 2])
    assert own.sum() > 20
    latents = output.latents[:, :, rows[own] * 32 + columns[own]].transpose(1, 2)
    drawn = output.codec.decode(latents).numpy() * output.grid.scale_m
    start = scene.frame.points_in_camera[middle[own, 1], middle[own, 0]]
    found = MoMapPrediction(output).trajectories(middle[own]) - start[None, :, None]
    np.testing.assert_allclose(found, drawn, atol=1e-5)


def test_of_many_draws_those_that_speak_for_groups_are_given(tiny_checkpoint: Path, simulated: list[Sample]) -> None:
    scene = scene_of(simulated[0], Condition())
    few = MoMapPredictor(str(tiny_checkpoint), 1, num_draws=12)(scene, num_hypotheses=3, seed=5).output
    many = MoMapPredictor(str(tiny_checkpoint), 1)(scene, num_hypotheses=12, seed=5).output
    assert few.num_hypotheses <= 3
    assert torch.equal(few.latents, many.latents[torch.from_numpy(group_futures(many, 3).speakers)])
    # Fewer draws than futures wanted are no draws less.
    plain = MoMapPredictor(str(tiny_checkpoint), 1, num_draws=2)(scene, num_hypotheses=12, seed=5).output
    assert torch.equal(plain.latents, many.latents)
