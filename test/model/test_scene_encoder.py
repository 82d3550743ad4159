from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from momap_ros.conditioning import (
    CONDITION_CHANNELS,
    GRID,
    HASH_BUCKETS,
    MAX_INSTANCES,
    MAX_WORDS,
    RGB_GRID,
    Conditioning,
    assemble,
)
from momap_ros.model.pipeline import MoMapPipeline
from momap_ros.model.scene_encoder import Pointing, SceneEncoder, SceneEncoding

NUM_SLOTS = 5


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> SceneEncoder:
    loaded: SceneEncoder = MoMapPipeline.from_pretrained(tiny_checkpoint).scene_encoder
    return loaded


def scene_inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    words = torch.zeros((batch, MAX_WORDS), dtype=torch.int64)
    words[:, :3] = torch.randint(1, HASH_BUCKETS, (batch, 3), generator=generator)
    colors = torch.rand((batch, MAX_INSTANCES, 3), generator=generator) * 2 - 1
    hint_flags = torch.randint(-1, 2, (batch, MAX_INSTANCES, 3), generator=generator)
    return {
        "rgb": torch.rand((batch, RGB_GRID, RGB_GRID, 3), generator=generator) * 2 - 1,
        "points_in_camera": torch.rand((batch, GRID, GRID, 3), generator=generator) + 0.2,
        "scale_m": torch.rand(batch, generator=generator) + 0.4,
        "slots": torch.randint(0, NUM_SLOTS, (batch, GRID, GRID), generator=generator),
        "colors": colors,
        "hint_flags": hint_flags,
        "hint_given": torch.arange(MAX_INSTANCES)[None].repeat(batch, 1) % 2 == 1,
        "words": words,
    }


def assert_same(first: SceneEncoding, second: SceneEncoding) -> None:
    """Compare what does not depend on the order of the tokens."""
    for name in ("maps", "summary", "log_duration"):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_shapes_are_those_documented(encoder: SceneEncoder) -> None:
    encoding = encoder(assemble(**scene_inputs()))
    width, length = encoder.config["width"], 1 + MAX_WORDS + MAX_INSTANCES
    written = encoder.config["written_channels"] + encoder.config["latent_channels"]
    assert encoding.maps.shape == (2, CONDITION_CHANNELS + written, GRID, GRID)
    assert encoding.context.shape == (2, length, width)
    assert encoding.context_bias.shape == (2, length)
    assert encoding.summary.shape == (2, width)
    assert encoding.moving_logits.shape == (2, MAX_INSTANCES)
    assert encoding.motion.shape == (2, MAX_INSTANCES, encoder.config["latent_channels"])
    assert encoding.names.shape == (2, MAX_INSTANCES, 1 + HASH_BUCKETS + len(encoder.config["vocabulary"]))
    assert encoding.log_duration.shape == (2,)


@torch.inference_mode()
def test_the_conditioning_maps_pass_through(encoder: SceneEncoder) -> None:
    conditioning = assemble(**scene_inputs())
    assert torch.equal(encoder(conditioning).maps[:, :CONDITION_CHANNELS], conditioning.maps)


@torch.inference_mode()
def test_what_is_written_back_is_constant_on_an_instance(encoder: SceneEncoder) -> None:
    inputs = scene_inputs()
    written = encoder(assemble(**inputs)).maps[:, CONDITION_CHANNELS:]
    for scene in range(2):
        values = [written[scene][:, inputs["slots"][scene] == slot] for slot in range(NUM_SLOTS)]
        assert all((value == value[:, :1]).all() for value in values)
        assert not torch.allclose(values[1][:, 0], values[2][:, 0])


@torch.inference_mode()
def test_the_expected_motion_is_written_back(encoder: SceneEncoder) -> None:
    inputs = scene_inputs()
    encoding = encoder(assemble(**inputs))
    for scene in range(2):
        for slot in range(NUM_SLOTS):
            cells = encoding.maps[scene, -encoder.config["latent_channels"] :, inputs["slots"][scene] == slot]
            torch.testing.assert_close(cells, encoding.motion[scene, slot][:, None].expand_as(cells))


@torch.inference_mode()
def test_the_look_of_an_instance_beyond_its_means_is_read(encoder: SceneEncoder) -> None:
    """Left and right half of an instance change places: every pooled mean and deviation stays as it was."""
    inputs = scene_inputs(1)
    inputs["slots"] = torch.zeros((1, GRID, GRID), dtype=torch.int64)
    inputs["slots"][:, 8:16, 8:16] = 1
    inputs["rgb"][:, 16:32, 16:24] = 0.9
    inputs["rgb"][:, 16:32, 24:32] = -0.9
    striped = dict(inputs, rgb=inputs["rgb"].clone())
    striped["rgb"][:, 16:32, 16:32] = torch.tensor([0.9, 0.9, -0.9, -0.9]).repeat(4)[None, None, :, None]
    torch.testing.assert_close(assemble(**inputs).tokens, assemble(**striped).tokens, atol=1e-5, rtol=1e-5)
    first, second = encoder(assemble(**inputs)).motion[0, 1], encoder(assemble(**striped)).motion[0, 1]
    assert not torch.allclose(first, second, atol=1e-3)


@torch.inference_mode()
def test_an_instance_hears_of_the_words_that_name_it(tiny_checkpoint: Path) -> None:
    """With the attention switched off only a word that names the instance changes its token."""
    encoder: SceneEncoder = MoMapPipeline.from_pretrained(tiny_checkpoint).scene_encoder
    encoder.layers = torch.nn.ModuleList()
    last = encoder.names[-1]
    assert isinstance(last, torch.nn.Linear)
    last.weight.zero_()
    last.bias.fill_(-30.0)
    last.bias[5] = 30.0  # everything is called by word 5
    inputs = scene_inputs(1)
    inputs["words"][0, :3] = torch.tensor([7, 5, 9])
    named = encoder(assemble(**inputs)).motion[0]
    inputs["words"][0, :3] = torch.tensor([8, 5, 6])  # other words around it say nothing
    torch.testing.assert_close(encoder(assemble(**inputs)).motion[0], named)
    inputs["words"][0, :3] = torch.tensor([5, 7, 9])  # where it stands does: is it put, or is something put on it?
    assert not torch.allclose(encoder(assemble(**inputs)).motion[0], named, atol=1e-4)
    inputs["words"][0, :3] = torch.tensor([7, 8, 9])  # not named
    unnamed = encoder(assemble(**inputs)).motion[0]
    inputs["words"][0, :3] = 0  # no sentence
    torch.testing.assert_close(encoder(assemble(**inputs)).motion[0], unnamed)
    assert not torch.allclose(unnamed, named, atol=1e-4)


@torch.inference_mode()
def test_a_head_that_points_at_an_instance_moves_there() -> None:
    """Course 1 for the first function of time and 0.5 for the second: all go to where slot 2 is, and it rests."""
    pointing = Pointing(width=4, latent_channels=9, heads=1, key_width=2)
    for layer in (pointing.query, pointing.key):
        layer.weight.zero_()
        layer.bias.zero_()
    pointing.query.bias.fill_(50.0)
    pointing.key.weight[:, 0] = 1.0
    pointing.course.bias[:2] = torch.tensor([1.0, 0.5])
    tokens = torch.zeros(1, 4, 4)
    tokens[0, 2, 0] = 1.0  # the one that is pointed at
    tokens[0, 3, 0] = 9.0  # does not exist
    positions = torch.tensor([[[0.0, 0, 0], [1, 2, 3], [4, 4, 4], [7, 7, 7]]])
    motion, courses = pointing(tokens, positions, torch.tensor([[True, True, True, False]]))
    motion = motion.unflatten(2, (3, 3))
    toward = torch.tensor([[4.0, 4, 4], [3, 2, 1], [0, 0, 0]])
    torch.testing.assert_close(motion[0, :3, :, 0], toward)
    torch.testing.assert_close(motion[0, :3, :, 1], toward / 2)
    assert not motion[..., 2].any()
    torch.testing.assert_close(courses[0, :3, 2], torch.tensor([[1.0, 0.5, 0.0]]).expand(3, 3))
    torch.testing.assert_close(courses[0, :, [0, 1, 3]], torch.zeros(4, 3, 3))
    untrained, _ = Pointing(width=4, latent_channels=9)(tokens, positions, torch.ones(1, 4, dtype=torch.bool))
    assert not untrained.any()


@torch.inference_mode()
def test_positions_are_the_means_of_the_points() -> None:
    inputs = scene_inputs()
    conditioning = assemble(**inputs)
    scale = inputs["scale_m"][1]
    points = inputs["points_in_camera"][1][inputs["slots"][1] == 3]
    expected = (points.mean(dim=0) - torch.tensor([0.0, 0.0, 1.0]) * scale) / scale
    torch.testing.assert_close(conditioning.positions[1, 3], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_number_of_a_slot_says_nothing(encoder: SceneEncoder) -> None:
    inputs = scene_inputs()
    order = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(MAX_INSTANCES - 1)])  # new -> old
    renamed = dict(inputs)
    renamed["slots"] = torch.argsort(order)[inputs["slots"]]
    for name in ("colors", "hint_flags", "hint_given"):
        renamed[name] = inputs[name][:, order]
    first, second = encoder(assemble(**inputs)), encoder(assemble(**renamed))
    assert_same(first, second)
    known = torch.unique(inputs["slots"])
    new = torch.argsort(order)[known]
    torch.testing.assert_close(first.moving_logits[:, known], second.moving_logits[:, new], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_padding_does_not_matter(tiny_checkpoint: Path, encoder: SceneEncoder) -> None:
    conditioning = assemble(**scene_inputs())
    other = MoMapPipeline.from_pretrained(tiny_checkpoint).scene_encoder
    other.words.weight[0] += 3  # the embedding of "no word"
    other.positions[3:] += 3  # positions without a word
    tokens = torch.where(conditioning.token_valid[..., None], conditioning.tokens, torch.full((), 7.0))
    first, second = encoder(conditioning), other(dataclasses.replace(conditioning, tokens=tokens))
    assert_same(first, second)
    real = first.context_bias == 0
    torch.testing.assert_close(first.context[real], second.context[real], rtol=1e-4, atol=1e-5)
    assert torch.equal(real, second.context_bias == 0)
    assert int(real.sum()) == 2 * (1 + 3 + NUM_SLOTS)  # the empty prompt, three words, the slots in the image


@torch.inference_mode()
def test_words_and_their_order_matter(encoder: SceneEncoder) -> None:
    inputs = scene_inputs()
    summary = encoder(assemble(**inputs)).summary
    reordered = dict(inputs, words=inputs["words"][:, [1, 0, *range(2, MAX_WORDS)]])
    assert not torch.allclose(encoder(assemble(**reordered)).summary, summary, atol=1e-3)
    silent = dict(inputs, words=torch.zeros_like(inputs["words"]))
    assert not torch.allclose(encoder(assemble(**silent)).summary, summary, atol=1e-3)


def split(conditioning: Conditioning, scene: int) -> Conditioning:
    fields = {field.name: getattr(conditioning, field.name) for field in dataclasses.fields(conditioning)}
    return Conditioning(**{name: value[scene : scene + 1] for name, value in fields.items()})


@torch.inference_mode()
def test_a_batch_equals_its_scenes_one_by_one(encoder: SceneEncoder) -> None:
    conditioning = assemble(**scene_inputs(3))
    together = encoder(conditioning)
    for scene in range(3):
        alone = encoder(split(conditioning, scene))
        for field in dataclasses.fields(alone):
            value = getattr(together, field.name)[scene : scene + 1]
            torch.testing.assert_close(value, getattr(alone, field.name), rtol=1e-4, atol=1e-5)


def test_training_and_inference_compute_the_same(encoder: SceneEncoder) -> None:
    """The transformer layer takes another path where no gradient is asked for."""
    conditioning = assemble(**scene_inputs())
    with torch.no_grad():
        evaluated = encoder(conditioning)
    trained = encoder.train()(conditioning)
    encoder.eval()
    assert trained.summary.requires_grad
    assert_same(evaluated, trained)


@torch.inference_mode()
def test_hypotheses_of_a_scene_lie_next_to_each_other(encoder: SceneEncoder) -> None:
    encoding = encoder(assemble(**scene_inputs()))
    repeated = encoding.repeat(3)
    np.testing.assert_array_equal(repeated.summary[[0, 1, 2]], encoding.summary[:1].expand(3, -1))
    np.testing.assert_array_equal(repeated.maps[3:], encoding.maps[1:].expand(3, -1, -1, -1))
    assert len(repeated.log_duration) == 6


# --- blind models


def blind_encoder(*names: str) -> SceneEncoder:
    torch.manual_seed(0)
    encoder: SceneEncoder = SceneEncoder(vocabulary=("block",), blind_to=names).eval()
    return encoder


@torch.inference_mode()
@pytest.mark.parametrize(("name", "changed"), [("points", "points_in_camera"), ("colors", "colors")])
def test_what_a_model_is_blind_to_changes_nothing(name: str, changed: str) -> None:
    inputs, other = scene_inputs(), scene_inputs()
    other[changed] = other[changed].flip(1) * 0.5
    if name == "points":
        other[changed][0, :3, :7] = torch.nan  # what has no depth is not seen either
    seeing, blind = SceneEncoder(vocabulary=("block",)).eval(), blind_encoder(name)
    for field in dataclasses.fields(SceneEncoding):
        one, two = (getattr(blind(assemble(**scene)), field.name) for scene in (inputs, other))
        assert torch.equal(one, two), field.name
    assert not torch.equal(seeing(assemble(**inputs)).maps, seeing(assemble(**other)).maps)


@torch.inference_mode()
def test_a_blind_model_sees_everything_else() -> None:
    """All channels that change with anything else are left: those of points and colours are counted here."""
    maps = blind_encoder("points", "colors")(assemble(**scene_inputs())).maps[:, :CONDITION_CHANNELS]
    original = assemble(**scene_inputs()).maps
    hidden = [
        channel for channel in range(CONDITION_CHANNELS) if not torch.equal(maps[:, channel], original[:, channel])
    ]
    assert hidden == [12, 13, 14, 15, 16, 17, 18]  # behind 2x2 pixels of 3 colours: a colour, a point, its validity
    tokens = blind_encoder("points", "colors")._seen(assemble(**scene_inputs())).tokens
    assert int((tokens == 0).all(dim=(0, 1)).sum()) == 6 + 1 + 3  # mean and deviation of points, their share, a colour


def test_blindness_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    blind_encoder("points").save_pretrained(tmp_path)
    loaded = SceneEncoder.from_pretrained(tmp_path, local_files_only=True, low_cpu_mem_usage=False)
    assert not loaded._seen(assemble(**scene_inputs())).maps[:, 15:19].any()
    with pytest.raises(ValueError, match="blind_to: expected some of points, colors, got depth"):
        blind_encoder("depth")


# --- encoders that expect turns


def turning_encoder(seed: int = 0) -> SceneEncoder:
    torch.manual_seed(seed)
    encoder: SceneEncoder = SceneEncoder(vocabulary=("block",), expects_turns=True).eval()
    return encoder


@torch.inference_mode()
def test_an_untrained_encoder_expects_no_turns() -> None:
    torch.manual_seed(0)
    plain: SceneEncoder = SceneEncoder(vocabulary=("block",)).eval()
    turning = turning_encoder(seed=1)
    turning.load_state_dict(plain.state_dict(), strict=False)
    conditioning = assemble(**scene_inputs())
    for field in dataclasses.fields(SceneEncoding):
        torch.testing.assert_close(getattr(turning(conditioning), field.name), getattr(plain(conditioning), field.name))


@torch.inference_mode()
def test_an_expected_turn_is_linear_in_the_point_about_the_middle_of_its_instance() -> None:
    encoder, inputs = turning_encoder(), scene_inputs(batch=1)
    assert encoder.turning is not None
    for layers in (encoder.turning.turns, encoder.turning.places):
        for parameter in layers[-1].parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    channels = encoder.config["latent_channels"]
    on_cells = encoder(assemble(**inputs)).maps[0, -channels:].flatten(1).T.numpy()  # (1024, C)
    points = inputs["points_in_camera"].reshape(-1, 3).numpy()
    slots = inputs["slots"].flatten().numpy()
    for slot in range(NUM_SLOTS):
        own = slots == slot
        about = np.append(np.ones((own.sum(), 1)), points[own] - points[own].mean(axis=0), axis=1)
        fitted, residual, *_ = np.linalg.lstsq(about, on_cells[own], rcond=None)
        np.testing.assert_allclose(residual, 0, atol=1e-6)
        assert (np.abs(fitted[1:]).max() > 0.01) == (slot > 0)  # the background does not turn


def test_expecting_turns_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    turning_encoder().save_pretrained(tmp_path)
    loaded = SceneEncoder.from_pretrained(tmp_path, local_files_only=True, low_cpu_mem_usage=False)
    assert loaded.turning is not None
