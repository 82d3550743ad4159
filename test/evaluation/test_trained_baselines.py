from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from momap_ros.baselines.checkpoint import KINDS, Baseline, Widths
from momap_ros.baselines.conditional_vae import ConditionalVAE
from momap_ros.conditioning import scene_grid
from momap_ros.evaluation.predictor import Scene
from momap_ros.evaluation.trained_baselines import (
    FlowPrediction,
    GeneralFlowPredictor,
    MoMapVAEPredictor,
    load_baseline,
)
from momap_ros.instances import InstanceMap
from momap_ros.model.checkpoint import CheckpointError
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.rgbd import RGBDFrame

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

NUM_STEPS = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every kind, narrow, with random weights that move everything."""
    root = tmp_path_factory.mktemp("baselines")
    for kind in KINDS:
        torch.manual_seed(0)
        codec = TemporalBasisCodec.pinned_cosines(NUM_STEPS, 4)
        baseline = Baseline.new(kind, ["lift", "the"], codec, Widths(channels=(32, 64), points=8, hidden=32))
        with torch.no_grad():
            for parameter in baseline.model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            if isinstance(baseline.model, ConditionalVAE):
                bias = baseline.model.decoder.unet.conv_out.bias
                assert bias is not None
                bias[4 * codec.latent_channels :] = 6.0  # the logits of "this cell moves", for four cells of a pixel
        baseline.save(root / kind, baseline.model, {})
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def scene(simulated: list[Sample]) -> Scene:
    sample = simulated[0]
    frame = RGBDFrame(sample.rgb, sample.depth_m, sample.camera)
    return Scene(frame, sample.instance_map(merge_robot=True), sample.text)


def some_pixels(mask: np.ndarray, count: int = 40) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    chosen = np.linspace(0, len(rows) - 1, count).astype(int)
    return np.stack([columns[chosen], rows[chosen]], axis=-1).astype(np.int32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_baseline_draws_futures(kind: str, folders: dict[str, Path], scene: Scene) -> None:
    predictor = load_baseline(folders[kind])
    assert (predictor.name, predictor.told) == (kind, "")
    prediction = predictor(scene, num_hypotheses=3, seed=1)
    assert prediction.step_s > 0
    seen = ~np.isnan(scene.frame.depth_m)
    pixels = some_pixels((scene.instances.ids > 0) & seen)
    found = prediction.trajectories(pixels)
    assert found.shape == (3, len(pixels), NUM_STEPS, 3)
    assert found.dtype == np.float32
    points = scene.frame.points_in_camera[pixels[:, 1], pixels[:, 0]]
    np.testing.assert_allclose(found[:, :, 0], np.broadcast_to(points, (3, *points.shape)), atol=1e-6)
    known = ~np.isnan(found[0, :, -1, 0])
    assert known.mean() > 0.8
    moved = np.linalg.norm(found[:, known, -1] - found[:, known, 0], axis=-1)
    assert (moved > 0).all()
    assert not np.allclose(found[0][known], found[1][known], atol=1e-5)  # futures differ
    background = some_pixels((scene.instances.ids == 0) & seen)
    at_rest = prediction.trajectories(background)
    assert (at_rest == at_rest[:, :, :1]).all()


@pytest.mark.parametrize("kind", ["momap-vae", "general-flow-rollout"])
def test_equal_seeds_give_equal_futures(kind: str, folders: dict[str, Path], scene: Scene) -> None:
    pixels = some_pixels((scene.instances.ids > 0) & ~np.isnan(scene.frame.depth_m))
    predictor = pickle.loads(pickle.dumps(load_baseline(folders[kind])))  # as evaluation processes get it
    first, second, other = (predictor(scene, num_hypotheses=2, seed=seed).trajectories(pixels) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(np.nan_to_num(first), np.nan_to_num(other), atol=1e-5)


def test_only_the_vae_says_what_moves(folders: dict[str, Path], scene: Scene) -> None:
    vae = load_baseline(folders["momap-vae"])(scene, num_hypotheses=2, seed=0)
    assert vae.instance_moving_probability()
    assert all(0.6 < probability <= 1 for probability in vae.instance_moving_probability().values())
    flow = load_baseline(folders["general-flow-original"])(scene, num_hypotheses=2, seed=0)
    assert flow.instance_moving_probability() == {}


def test_a_scene_without_instances_rests(folders: dict[str, Path], scene: Scene) -> None:
    empty = Scene(scene.frame, InstanceMap(np.zeros_like(scene.instances.ids)))
    pixels = some_pixels(~np.isnan(scene.frame.depth_m))
    for kind in KINDS:
        found = load_baseline(folders[kind])(empty, num_hypotheses=2, seed=0).trajectories(pixels)
        assert found.shape == (2, len(pixels), NUM_STEPS, 3)
        assert (found == found[:, :, :1]).all()


def test_pixels_take_the_futures_of_their_instances_nearest_cells(scene: Scene) -> None:
    """Cells of one instance shift along x by their column number, in centimetres: so do the pixels, in between."""
    grid = scene_grid(scene.frame, scene.instances)
    instance_id = max(grid.slot_ids, key=lambda i: int((grid.slots == grid.slot_ids.index(i) + 1).sum()))
    slot = grid.slot_ids.index(instance_id) + 1
    cells = np.flatnonzero((grid.slots.ravel() == slot) & ~np.isnan(grid.points_in_camera[..., 2].ravel()))
    displacement = np.zeros((1, len(cells), 2, 3), np.float32)
    displacement[0, :, 1, 0] = 0.01 * (cells % 32)
    prediction = FlowPrediction(scene, grid, cells, displacement, 0.1)
    seen = ~np.isnan(scene.frame.depth_m)
    pixels = some_pixels((scene.instances.ids == instance_id) & seen)
    found = prediction.trajectories(pixels)[0]
    moved = found[:, 1] - found[:, 0]
    of_pixel = 0.01 * (pixels[:, 0] * 32 / scene.frame.camera.width - 0.5)
    assert np.median(abs(moved[:, 0] - of_pixel)) < 0.01  # one column
    assert not moved[:, 1:].any()
    # At a cell's own pixel: that cell.
    points = grid.points_in_camera.reshape(-1, 3)[cells]
    at_pixels = scene.frame.points_in_camera[pixels[:, 1], pixels[:, 0]]
    distance = np.linalg.norm(at_pixels[:, None] - points, axis=-1)
    same = distance.min(axis=1) < 1e-6
    np.testing.assert_allclose(moved[same, 0], 0.01 * (cells % 32)[distance.argmin(axis=1)][same], atol=1e-4)
    # Other instances were not asked for: unknown.
    others = some_pixels((scene.instances.ids > 0) & (scene.instances.ids != instance_id) & seen)
    unknown = prediction.trajectories(others)
    assert np.isnan(unknown[:, :, 1:]).all()
    assert not np.isnan(unknown[:, :, 0]).any()


def test_the_wrong_folder_is_refused(tmp_path: Path, folders: dict[str, Path], scene: Scene) -> None:
    with pytest.raises(CheckpointError, match=r"expected .*baseline\.json"):
        load_baseline(tmp_path)
    with pytest.raises(ValueError, match="expected a momap-vae, got a general-flow-extend; use load_baseline"):
        MoMapVAEPredictor(folders["general-flow-extend"], "x")(scene, num_hypotheses=1, seed=0)
    with pytest.raises(ValueError, match="expected a General Flow, got a momap-vae; use load_baseline"):
        GeneralFlowPredictor(folders["momap-vae"], "x")(scene, num_hypotheses=1, seed=0)
