from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from momap_ros.conditioning import MAX_INSTANCES, scene_grid
from momap_ros.data.prepared import displacement_matrices
from momap_ros.data.sample import Role, write_shard
from momap_ros.evaluation.baselines import SkillMotions
from momap_ros.evaluation.evaluate import (
    POINTS_PER_ROLE,
    Condition,
    Evaluator,
    digits,
    markdown,
    objects_by_role,
    role_image,
    sampled_pixels,
    summarise,
)
from momap_ros.instances import InstanceMap
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.model.output import MoMapOutput
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

LOSSLESS = TemporalBasisCodec.pinned_cosines(50, 49)


class Oracle:
    """Knows the truth of one sample: every rigid instance moves by its exact affine map, robot links cell by cell."""

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


@pytest.fixture
def evaluator(tiny_checkpoint: Path, simulated: list[Sample]) -> Evaluator:
    return Evaluator(Condition(str(tiny_checkpoint), num_hypotheses=2), SkillMotions(simulated))


def test_a_perfect_predictor_scores_zero(evaluator: Evaluator, simulated: list[Sample]) -> None:
    with_robot = 0
    for sample in simulated:
        evaluator.pipeline = Oracle(sample)  # type: ignore[assignment]  # called like a pipeline
        row = evaluator(sample, seed=0)
        assert row["acted_static"] > 5
        assert row["acted_min"] < 0.01
        assert row["acted_mean"] < 0.01
        assert row["acted_final_min"] < 0.01
        assert row["duration_ratio"] == pytest.approx(1.0)
        assert row["right_object"] == 1.0
        assert row["acted_segmented"] == 1.0
        if "robot_static" in row:  # links in one instance: known cell by cell, a few millimetres apart
            with_robot += 1
            assert row["robot_min"] < 0.25 * row["robot_static"]
            assert row["joint_acted"] < 0.01
    assert with_robot >= 6


def test_a_model_that_moves_nothing_scores_as_static(evaluator: Evaluator, simulated: list[Sample]) -> None:
    with torch.no_grad():
        for parameter in evaluator.pipeline.denoiser.conv_out.parameters():
            parameter.zero_()
    rows = [evaluator(sample, seed=0) for sample in simulated[:4]]
    for row in rows:
        for name in ("acted", "robot"):
            if f"{name}_static" in row:
                assert row[f"{name}_min"] == row[f"{name}_mean"] == row[f"{name}_static"]
                assert row[f"{name}_final_min"] == row[f"{name}_final_static"]
        assert row["right_object"] == 0.0  # nothing moves, so nothing moves farthest
    means = summarise(rows)
    assert means["acted_ratio_min"] == means["acted_ratio_mean"] == 1.0
    assert means["robot_ratio_min"] == 1.0


def test_static_error_is_the_mean_length_of_the_true_motion(evaluator: Evaluator, simulated: list[Sample]) -> None:
    sample = simulated[1]
    acted = role_image(sample) == Role.ACTED
    displacement = np.linalg.norm(sample.momap().displacement_m[:, acted], axis=-1)
    row = evaluator(sample, seed=0)
    # At most 200 of the pixels are drawn.
    assert row["acted_static"] == pytest.approx(1e3 * displacement.mean(), rel=0.1)
    assert row["acted_final_static"] == pytest.approx(1e3 * displacement[-1].mean(), rel=0.1)


def test_equal_seeds_give_equal_rows(evaluator: Evaluator, simulated: list[Sample]) -> None:
    assert evaluator(simulated[0], seed=3) == evaluator(simulated[0], seed=3)
    assert evaluator(simulated[0], seed=3)["acted_min"] != evaluator(simulated[0], seed=4)["acted_min"]


def test_the_right_object_by_chance_is_one_in_the_objects(evaluator: Evaluator, simulated: list[Sample]) -> None:
    for sample in simulated[:4]:
        instances = sample.instance_map(merge_robot=True)
        roles = sample.instance_roles(merge_robot=True)
        loose = [i for i in instances.areas_px if roles[i] != Role.ROBOT]
        assert objects_by_role(instances, role_image(sample)) == {i: roles[i] for i in loose}
        assert evaluator(sample, seed=0)["chance"] == 1 / len(loose)


def test_pixels_are_drawn_from_the_mask() -> None:
    mask = np.zeros((40, 50), np.bool_)
    mask[5:35, 10:30] = True
    pixels = sampled_pixels(mask, np.random.default_rng(0))
    assert pixels.shape == (POINTS_PER_ROLE, 2)
    assert mask[pixels[:, 1], pixels[:, 0]].all()
    assert len(np.unique(pixels, axis=0)) == POINTS_PER_ROLE
    few = sampled_pixels(mask & (np.arange(50) < 12), np.random.default_rng(0))
    assert len(few) == 60


def row_of(skill: str, acted: tuple[float, float, float], num_objects: float, right: float) -> dict[str, Any]:
    static, least, mean = acted
    return {
        "key": "k",
        "skill": skill,
        "choice": not skill.endswith("door"),
        "acted_static": static,
        "acted_min": least,
        "acted_mean": mean,
        "right_object": right,
        "chance": 1 / num_objects,
        "num_objects": num_objects,
    }


def test_summaries_are_ratios_of_means_and_count_choices_only() -> None:
    rows = [
        row_of("push", (100.0, 40.0, 80.0), 4.0, 0.5),
        row_of("open_door", (20.0, 20.0, 40.0), 3.0, 1.0),
        row_of("lift", (60.0, 30.0, 60.0), 2.0, 1.0),
    ]
    means = summarise(rows)
    assert means["acted_ratio_min"] == pytest.approx(90 / 180)
    assert means["acted_ratio_mean"] == pytest.approx(1.0)
    assert means["samples"] == 3
    assert means["right_object"] == pytest.approx(2.5 / 3)
    # A door leaves no choice, and two objects little of it.
    assert (means["binding_samples"], means["binding_right_object"], means["binding_chance"]) == (1, 0.5, 0.25)
    assert "robot_ratio_min" not in means
    assert means["acted_min_standard_error"] == pytest.approx(np.std([40, 20, 30]) / 3**0.5)


def test_where_nothing_moves_there_is_no_share_of_static() -> None:
    means = summarise([row_of("wait", (0.0, 0.0, 3.0), 3.0, 0.0)])
    assert means["acted_mean"] == 3.0
    assert "acted_ratio_mean" not in means


def test_tables_have_a_cell_per_column() -> None:
    result = {
        "split": "val",
        "condition": {"instances": "true", "prompt": False, "num_inference_steps": 4},
        "all": summarise([row_of("push", (100.0, 40.0, 80.0), 4.0, 0.5)]),
    }
    header, rule, row, *_ = markdown([result]).splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| val, true, no text, 4 | 1 | 100.0 | - |")
    assert (digits("samples"), digits("acted_min"), digits("acted_ratio_min")) == (".0f", ".1f", ".3f")


@pytest.mark.slow
def test_the_command_scores_a_split(tiny_checkpoint: Path, simulated: list[Sample], tmp_path: Path) -> None:
    write_shard(tmp_path / "val-0000000-0000004.tar", simulated[:4])
    write_shard(tmp_path / "train-0000000-0000012.tar", simulated)
    command = [sys.executable, "-m", "momap_ros.evaluation.evaluate", "--checkpoint", str(tiny_checkpoint)]
    command += ["--data", str(tmp_path), "--splits", "val", "--steps", "1", "--workers", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "result.json")], check=True, capture_output=True, text=True
    )
    true, tabletop = json.loads((tmp_path / "result.json").read_text())["results"]
    assert true["condition"]["instances"] == "true"
    assert tabletop["condition"]["instances"] == "tabletop"
    for result in (true, tabletop):
        assert result["all"]["samples"] == 4
        assert sum(means["samples"] for means in result["by_skill"].values()) == 4
    assert true["all"]["acted_segmented"] == 1.0
    assert done.stdout.count("| val, ") == 2
