from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from momap_ros.baselines.general_flow import (
    Cloud,
    FlowBatch,
    FlowSettings,
    GeneralFlow,
    draw_queries,
    flow_batch,
    split_trajectory,
    training_loss,
    variant,
)
from momap_ros.conditioning import MAX_WORDS
from momap_ros.data.prepared import PreparedSplit, sample_cells
from momap_ros.model.codec import TemporalBasisCodec
from momap_ros.training.batches import Batch, complete
from momap_ros.training.scenes import Drops, draw_scenes

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

CLEAN = Drops(text=1.0, hints="none", faults=False)
KINDS = ("original", "rollout", "extend")


@pytest.fixture(scope="module")
def codec(prepared_folder: Path) -> TemporalBasisCodec:
    loaded: TemporalBasisCodec = TemporalBasisCodec.from_pretrained(
        prepared_folder / "codec", local_files_only=True, low_cpu_mem_usage=False
    )
    return loaded


@pytest.fixture(scope="module")
def scenes(prepared_folder: Path, codec: TemporalBasisCodec) -> tuple[Batch, torch.Tensor]:
    """Four scenes without faults, and their scale in metres."""
    split, indices = PreparedSplit.open(prepared_folder / "train"), np.arange(4)
    batch = complete(draw_scenes(split, indices, drops=CLEAN, rng=np.random.default_rng(0)), codec)
    return batch, torch.from_numpy(np.array(split.scale_m[indices]))


def drawn(
    scenes: tuple[Batch, torch.Tensor], codec: TemporalBasisCodec, settings: FlowSettings, seed: int = 0
) -> FlowBatch:
    generator = torch.Generator().manual_seed(seed)
    return flow_batch(*scenes, codec=codec, settings=settings, generator=generator)


# --- variants


def test_the_variants_differ_as_the_paper_says() -> None:
    original, rollout, extend = (variant(kind, 50) for kind in KINDS)
    assert (original.horizon, rollout.horizon, extend.horizon) == (49, 3, 49)
    assert replace(rollout, horizon=49) == original  # nothing else
    assert (original.num_queries, original.code_size, extend.code_size) == (128, 16, 32)
    assert extend.num_queries > original.num_queries
    assert (original.semantic, extend.semantic) == (False, True)
    assert extend.num_layers > original.num_layers
    assert all(more > fewer for more, fewer in zip(extend.blocks, original.blocks, strict=True))
    with pytest.raises(ValueError, match="expected original, rollout or extend, got 'large'"):
        variant("large", 50)


# --- inputs and targets


def test_a_cloud_is_the_cells_in_metres(scenes: tuple[Batch, torch.Tensor], prepared_folder: Path) -> None:
    split = PreparedSplit.open(prepared_folder / "train")
    cloud = Cloud.of(scenes[0].conditioning, scenes[1])
    points = np.asarray(split.points_in_camera[:4], np.float32).reshape(4, -1, 3)
    valid = ~np.isnan(points[..., 2])
    np.testing.assert_array_equal(cloud.valid, valid)
    near = valid & (abs(points).max(axis=-1) < 2 * split.scale_m[:4, None])  # far ones are clipped for all models
    np.testing.assert_allclose(cloud.points_m.numpy()[near], points[near], atol=1e-5)
    colors = split.rgb[:4].reshape(4, 32, 2, 32, 2, 3).mean(axis=(2, 4)).reshape(4, -1, 3) / 127.5 - 1
    gray_value = 2 / 255
    np.testing.assert_allclose(cloud.colors, colors, atol=gray_value / 30)
    background = scenes[0].conditioning.slots.flatten(1) == 0
    assert not cloud.instance_colors[background].any()
    assert cloud.instance_colors[~background].any(dim=-1).all()


def test_a_trajectory_is_its_steps_over_its_length_and_the_length() -> None:
    steps = torch.tensor([[3.0, 0, 4], [0, 5, 0]])  # 5 m each
    moving = torch.stack([steps.cumsum(dim=0), torch.zeros(2, 3)])
    shape, length_m = split_trajectory(moving)
    torch.testing.assert_close(shape[0], steps / 10)
    torch.testing.assert_close(length_m[:, 0], torch.tensor([10.0, 0.0]))
    assert not shape[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_the_true_motion_from_the_drawn_step(
    kind: str, scenes: tuple[Batch, torch.Tensor], codec: TemporalBasisCodec, simulated: list[Sample]
) -> None:
    settings = variant(kind, codec.num_steps)
    batch = drawn(scenes, codec, settings)
    still = Cloud.of(scenes[0].conditioning, scenes[1])
    for row, sample in enumerate(simulated[:4]):
        rows, columns = sample_cells(sample)
        truth = sample.momap().displacement_m[:, rows, columns].reshape(codec.num_steps, -1, 3)
        shift = (batch.cloud.points_m - still.points_m)[row].numpy()
        usable = still.valid[row].numpy()
        # The cloud is that of one step; the codec leaves a few millimetres.
        wrong = [np.abs(step - shift)[usable].max() for step in truth[: codec.num_steps - settings.horizon]]
        start = int(np.argmin(wrong))
        assert wrong[start] < 0.02
        cells, own = batch.queries.cells[row].numpy(), batch.queries.valid[row].numpy()
        expected = truth[start + 1 : start + 1 + settings.horizon] - truth[start]
        found = batch.motion_m[row].numpy().transpose(1, 0, 2)
        assert np.abs(found - expected[:, cells])[:, own].max() < 0.03
    torch.testing.assert_close(batch.weights.sum(dim=1), torch.ones(4))
    assert all(len(set(cells.tolist())) == settings.num_queries for cells in batch.queries.cells)


def test_the_sum_over_drawn_cells_has_the_mean_of_the_sum_over_all() -> None:
    """Over 4000 draws; 40 cells weigh so much that they are nearly always drawn, 20 nothing."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(1, 300, generator=generator) * 0.1
    weights[0, :40], weights[0, 40:60] = 3.0, 0.0
    value = torch.linspace(-1, 2, 300)[None].expand(4000, -1)
    cells, corrected = draw_queries(weights.expand(4000, -1), 60, generator)
    assert all(len(set(row)) == 60 for row in cells[:20].tolist())
    assert not ((cells >= 40) & (cells < 60)).any()
    sums = (corrected * value.gather(1, cells)).sum(dim=1)
    expected, error = float((weights * value[:1]).sum()), float(sums.std()) / 4000**0.5
    assert float(sums.mean()) == pytest.approx(expected, abs=4 * error)


def test_cells_without_weight_only_fill_up() -> None:
    weights = torch.zeros(1, 20)
    weights[0, :3] = 2.0
    cells, corrected = draw_queries(weights, 5, torch.Generator())
    assert sorted(cells[0, :3].tolist()) == [0, 1, 2]
    torch.testing.assert_close(corrected[0], torch.tensor([2.0, 2, 2, 0, 0]))


def test_equal_generators_draw_equal_batches(scenes: tuple[Batch, torch.Tensor], codec: TemporalBasisCodec) -> None:
    settings = variant("rollout", codec.num_steps)
    first, second, other = (drawn(scenes, codec, settings, seed) for seed in (1, 1, 2))
    assert torch.equal(first.motion_m, second.motion_m)
    assert torch.equal(first.queries.cells, second.queries.cells)
    assert not torch.equal(first.queries.cells, other.queries.cells)


# --- the loss


def test_the_terms_are_those_of_their_definition(scenes: tuple[Batch, torch.Tensor], codec: TemporalBasisCodec) -> None:
    """With heads and posterior of zero the trajectories are predicted as rest, and the divergence is none."""
    batch = drawn(scenes, codec, variant("original", codec.num_steps))
    model = GeneralFlow(400, replace(variant("original", codec.num_steps), width=8, hidden=32, blocks=(2, 2)))
    last = [model.posterior, model.step_head[-1], model.length_head[-1], model.duration]
    for layer in last:
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    noise = torch.randn(4, 128, 16)
    loss, parts = training_loss(model, batch, noise=noise, kl_weight=0.5, duration_weight=0.25)
    truth = batch.motion_m.double().numpy()
    steps = np.diff(truth, axis=2, prepend=0)
    length = np.linalg.norm(steps, axis=-1).sum(axis=2)
    shape = steps / np.where(length > 1e-6, length, np.inf)[..., None, None]
    weights = batch.weights.double().numpy()
    expected = {
        "shape": ((shape**2).sum(axis=(2, 3)) * weights).sum() / 4,
        "length": (length**2 * weights).sum() / 4,
        "position": ((truth**2).sum(axis=(2, 3)) * weights).sum() / 4,
        "kl": 0.0,
        "duration": float(batch.log_duration.abs().mean()),
    }
    for name, value in expected.items():
        assert float(parts[name].detach()) == pytest.approx(value, rel=1e-3, abs=1e-6), name
    total = expected["shape"] + 25 * expected["length"] + expected["position"] + 0.25 * expected["duration"]
    assert float(loss.detach()) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_one_batch_is_learned_better_than_rest(
    kind: str, scenes: tuple[Batch, torch.Tensor], codec: TemporalBasisCodec
) -> None:
    """The error of predicting that nothing moves is the power of the motion: half of it must be explained."""
    torch.manual_seed(0)
    settings = replace(variant(kind, codec.num_steps), num_queries=64, width=8, hidden=64, blocks=(2, 2))
    batch = drawn(scenes, codec, settings)
    model = GeneralFlow(400, settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    noise = torch.randn(4, 64, settings.code_size, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        loss, _ = training_loss(model, batch, noise=noise, kl_weight=1e-3, duration_weight=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, parts = training_loss(model, batch, noise=noise, kl_weight=1e-3, duration_weight=0.05)
    rest = float(((batch.motion_m**2).sum(dim=(2, 3)) * batch.weights).sum(dim=1).mean())
    assert float(parts["position"].detach()) < 0.5 * rest
    assert float(parts["kl"].detach()) > 0


# --- drawing


@pytest.fixture(scope="module")
def one_scene(scenes: tuple[Batch, torch.Tensor]) -> tuple[Cloud, torch.Tensor]:
    """The first scene and its cells with depth that belong to instances."""
    all_scenes = Cloud.of(scenes[0].conditioning, scenes[1])
    cloud = Cloud(*(getattr(all_scenes, name)[:1] for name in Cloud.__dataclass_fields__))
    foreground = (scenes[0].conditioning.slots[0].flatten() > 0) & cloud.valid[0]
    return cloud, torch.nonzero(foreground)[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_futures_begin_at_rest_and_differ(kind: str, one_scene: tuple[Cloud, torch.Tensor]) -> None:
    torch.manual_seed(0)
    cloud, cells = one_scene
    model = GeneralFlow(400, replace(variant(kind, 12), width=8, hidden=32, blocks=(2, 2)))

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.draw(cloud, cells, num_hypotheses=3, num_steps=12, generator=generator)

    first = draw(0)
    assert first.shape == (3, len(cells), 12, 3)
    assert not first[:, :, 0].any()
    assert torch.isfinite(first).all()
    assert torch.equal(first, draw(0))
    assert not torch.allclose(first, draw(1))
    assert not torch.allclose(first[0], first[1])
    none = model.draw(cloud, cells[:0], num_hypotheses=3, num_steps=12, generator=torch.Generator())
    assert none.shape == (3, 0, 12, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_and_chunks_join_without_a_seam(kind: str, one_scene: tuple[Cloud, torch.Tensor]) -> None:
    """A network that always says (0, 0, 1) times 0.01 m per step makes straight lines, however it is asked."""
    cloud, cells = one_scene
    settings = replace(variant(kind, 12), width=8, hidden=32, blocks=(2, 2), max_queries=50)
    model = GeneralFlow(400, settings)
    for head, value in (
        (model.step_head, torch.tensor([0.0, 0, 1]).repeat(settings.horizon)),
        (model.length_head, 0.01),
    ):
        last = head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.as_tensor(value))
    found = model.draw(cloud, cells, num_hypotheses=2, num_steps=12, generator=torch.Generator())
    line = torch.zeros(12, 3)
    line[:, 2] = 0.01 * torch.arange(12)
    torch.testing.assert_close(found, line.expand(2, len(cells), 12, 3))


def test_a_rollout_begins_each_round_where_the_last_one_ended(
    one_scene: tuple[Cloud, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    cloud, cells = one_scene
    model = GeneralFlow(400, replace(variant("rollout", 12), width=8, hidden=32, blocks=(2, 2)))
    seen: list[torch.Tensor] = []
    context = model.context

    def watched(given: Cloud, queries: object) -> torch.Tensor:
        seen.append(given.points_m[:, cells] - cloud.points_m[:, cells])
        return context(given, queries)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "context", watched)
    found = model.draw(cloud, cells, num_hypotheses=2, num_steps=12, generator=torch.Generator())
    assert len(seen) == 4  # 11 steps, 3 per round
    for number, moved in enumerate(seen):
        torch.testing.assert_close(moved.expand(2, -1, -1), found[:, :, 3 * number], atol=1e-6, rtol=0)


def test_words_and_their_order_are_read() -> None:
    torch.manual_seed(0)
    model = GeneralFlow(400, replace(variant("original", 12), width=8, hidden=32, blocks=(2, 2)))
    words = torch.zeros(3, MAX_WORDS, dtype=torch.int64)
    words[0, :2], words[1, :2] = torch.tensor([40, 41]), torch.tensor([41, 40])
    first, second, none = model.read(words)
    assert not torch.allclose(first, second)
    assert not none.any()
