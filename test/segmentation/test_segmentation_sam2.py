"""The real Sam2Model of transformers at a tiny size with random weights: loading, geometry and post-processing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tabletop_scenes import Box, build_scene

from momap_ros.config import SegmentationConfig
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.sam2 import IMAGE_MEAN, IMAGE_STD, Sam2Segmenter, _distinct, _prompt
from momap_ros.segmentation.scoring import score_instances
from momap_ros.segmentation.tabletop import TabletopSegmenter

APART = (Box((-0.2, 0.0, 0.0), (0.08, 0.06, 0.1)), Box((0.05, 0.05, 0.0), (0.1, 0.1, 0.05)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of about 0.1 million random weights for images of 128 x 128 pixels."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig
    from transformers.models.sam2.configuration_sam2 import Sam2MaskDecoderConfig, Sam2PromptEncoderConfig

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[128, 128],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=128, mask_input_channels=4),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam2") / "tiny"
    Sam2Model(config).save_pretrained(path)
    return path


def config_of(folder: Path | str) -> SegmentationConfig:
    return SegmentationConfig(method="sam2", sam2_dir=str(folder))


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_runs_on_a_frame_and_is_repeatable(folder: Path) -> None:
    scene = build_scene(APART)
    segmenter = Sam2Segmenter(config_of(folder))

    first, second = segmenter(scene.frame), segmenter(scene.frame)

    np.testing.assert_array_equal(first.ids, second.ids)
    assert first.ids.shape == (240, 320)
    assert first.areas_px


def test_an_unsure_network_leaves_the_instances_as_they_were(folder: Path) -> None:
    """Random weights draw masks that show nothing of what prompted them."""
    scene = build_scene(APART)

    refined = Sam2Segmenter(config_of(folder))(scene.frame)

    plain = TabletopSegmenter(SegmentationConfig())(scene.frame)
    assert score_instances(refined.ids, plain.ids).ious.min() > 0.9


def test_an_empty_table_needs_no_network(folder: Path) -> None:
    assert Sam2Segmenter(config_of(folder))(build_scene(()).frame).areas_px == {}


def test_masks_of_a_sure_network_replace_the_instances(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's answer is set, since random weights know no objects; everything around it is real."""
    scene = build_scene(APART)
    segmenter = Sam2Segmenter(config_of(folder))
    received: dict[str, torch.Tensor] = {}
    true = torch.from_numpy(np.stack([scene.ids == body for body in (1, 2)])).float()
    small = torch.nn.functional.interpolate(true[None], (128, 128), mode="nearest")[0] * 20.0 - 10.0

    class Answer:
        pred_masks = small[None, :, None]
        iou_scores = torch.tensor([[[0.9], [0.8]]])

    def answer(**inputs: torch.Tensor) -> Answer:
        received.update(inputs)
        return Answer()

    found = TabletopSegmenter(SegmentationConfig())(scene.frame)
    order = [int(found.ids[scene.ids == body].max()) for body in (1, 2)]
    Answer.pred_masks = Answer.pred_masks[:, np.argsort(order).tolist()]
    Answer.iou_scores = Answer.iou_scores[:, np.argsort(order).tolist()]
    monkeypatch.setattr(segmenter, "model", answer)

    refined = segmenter(scene.frame)

    assert score_instances(refined.ids, scene.ids).ious.min() > 0.93
    assert tuple(received["pixel_values"].shape) == (1, 3, 128, 128)
    assert tuple(received["input_boxes"].shape) == (1, 2, 4)
    assert tuple(received["input_points"].shape) == (1, 2, 1, 2)
    for index, instance_id in enumerate((1, 2)):
        rows, columns = np.nonzero(found.ids == instance_id)
        # Stretched from 320 x 240 to 128 x 128; pixel edges map to pixel edges.
        expected = [columns.min() + 0.5, rows.min() + 0.5, columns.max() + 0.5, rows.max() + 0.5]
        box = received["input_boxes"][0, index].numpy() + 0.5
        np.testing.assert_allclose(box, np.array(expected) * [0.4, 128 / 240, 0.4, 128 / 240], rtol=1e-5)


def test_pixels_are_normalised_as_in_training(folder: Path) -> None:
    segmenter = Sam2Segmenter(config_of(folder))
    rgb = np.full((240, 320, 3), (0, 128, 255), np.uint8)

    pixels = segmenter._pixels(rgb)[0].cpu().numpy()

    expected = (np.array([0, 128, 255]) / 255.0 - IMAGE_MEAN) / IMAGE_STD
    np.testing.assert_allclose(pixels, np.broadcast_to(expected[:, None, None], (3, 128, 128)), atol=1e-5)


def test_prompts_are_box_and_innermost_pixel() -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 4:9, 10:21] = True
    masks[1, 0:7, 0:7] = True
    masks[1, 3, 7:15] = True

    boxes, points = _prompt(masks)

    np.testing.assert_array_equal(boxes, [[[10, 4], [20, 8]], [[0, 0], [14, 6]]])
    assert points[0, 0, 1] == 6
    assert 12 <= points[0, 0, 0] <= 18
    np.testing.assert_array_equal(points[1], [[3, 3]])


def test_masks_of_one_object_are_kept_once() -> None:
    masks = np.zeros((4, 10, 10), bool)
    masks[0, :5] = True
    masks[1, :5, :9] = True  # 0.9 of mask 0
    masks[2, 4:] = True  # touches it
    masks[3, :3] = True  # 0.6 of mask 0

    assert _distinct(masks, np.array([0.8, 0.9, 0.5, 0.7], np.float32)) == [1, 3, 2]


@pytest.mark.parametrize("name", ["", "no/such/folder"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(SegmentationError, match="sam2_dir: expected a folder with a SAM 2 checkpoint"):
        Sam2Segmenter(config_of(name))


def test_a_folder_without_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegmentationError, match=r"expected config\.json beside the weights, found none"):
        Sam2Segmenter(config_of(tmp_path))


@pytest.mark.parametrize(
    ("content", "text"),
    [('{"model_type": "clip"}', "got 'clip'"), ("{}", "got None"), ("[]", "JSON object"), ("{", "JSON object")],
)
def test_another_kind_of_model_is_named(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")

    with pytest.raises(SegmentationError, match=text):
        Sam2Segmenter(config_of(tmp_path))


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "sam2.1_hiera_tiny.pt", "model.pkl"])
def test_pickled_weights_are_refused_unopened(folder: Path, tmp_path: Path, weights: str) -> None:
    target = copied(folder, tmp_path / "pickled")
    (target / "model.safetensors").unlink()
    (target / weights).write_bytes(b"not even a pickle")

    with pytest.raises(SegmentationError, match=rf"got \['{re.escape(weights)}'\]; pickled files run code"):
        Sam2Segmenter(config_of(target))


def test_absent_weights_are_named(folder: Path, tmp_path: Path) -> None:
    target = copied(folder, tmp_path / "empty")
    (target / "model.safetensors").unlink()

    with pytest.raises(SegmentationError, match="got no weights"):
        Sam2Segmenter(config_of(target))


def test_truncated_weights_are_named(folder: Path, tmp_path: Path) -> None:
    target = copied(folder, tmp_path / "truncated")
    content = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(SegmentationError, match="the weights cannot be read"):
        Sam2Segmenter(config_of(target))


def test_incomplete_weights_are_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    target = copied(folder, tmp_path / "incomplete")
    weights = load_file(target / "model.safetensors")
    left_out = next(name for name in weights if name.startswith("mask_decoder"))
    save_file({name: value for name, value in weights.items() if name != left_out}, target / "model.safetensors")

    with pytest.raises(SegmentationError, match=re.escape(left_out)):
        Sam2Segmenter(config_of(target))


def test_a_configuration_of_another_size_is_named(folder: Path, tmp_path: Path) -> None:
    target = copied(folder, tmp_path / "resized")
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config["mask_decoder_config"]["mlp_dim"] = 48
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")

    with pytest.raises(SegmentationError, match="weights"):
        Sam2Segmenter(config_of(target))
