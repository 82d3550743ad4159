"""Instances with the outlines of SAM 2: found on the table by depth, refined by a network from a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from momap_ros.config import SegmentationConfig
from momap_ros.geometry import Float32
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame, UInt8
from momap_ros.segmentation.base import SegmentationError
from momap_ros.segmentation.tabletop import TabletopSegmenter

if TYPE_CHECKING:
    import torch
    from transformers import Sam2Model

Bool = npt.NDArray[np.bool_]

MODEL_TYPES = ("sam2", "sam2_video")  # checkpoints of the video model hold the image model too
IMAGE_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, as SAM 2 was trained
IMAGE_STD = (0.229, 0.224, 0.225)
MIN_SCORE = 0.5  # least IoU that the network predicts for a mask it is trusted with
MIN_AGREEMENT = 0.3  # least IoU with the prompting instance; below, the mask shows something else
MAX_OVERLAP = 0.7  # masks that share more (IoU) are one object, found twice


class Sam2Segmenter:
    """Prompts SAM 2 with the box and the innermost point of every instance that the tabletop method finds.

    A mask replaces its instance where the network is sure of it and it still shows the instance; otherwise the instance
    stays as it was. Two instances with the same mask become one.

    Reference: N. Ravi et al., SAM 2, arXiv:2408.00714.
    """

    def __init__(self, config: SegmentationConfig) -> None:
        """Load the network.

        Args:
            config: `sam2_dir` names a folder with config.json and safetensors weights in transformers layout; the other
                settings are the tabletop method's.

        Raises:
            SegmentationError: the folder, its configuration or its weights are missing, incomplete or pickled.
        """
        import torch

        self.tabletop = TabletopSegmenter(config)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = _load(config.sam2_dir).to(self.device)  # type: ignore[arg-type]  # a device's name is one
        size = self.model.config.vision_config.backbone_config.image_size
        self.input_size = np.array([size, size] if isinstance(size, int) else size)

    def __call__(self, frame: RGBDFrame) -> InstanceMap:
        """The instances on the table with the network's outlines.

        Raises:
            SegmentationError: no depth was measured, or the image shows no table.
        """
        found = self.tabletop(frame)
        if not found.areas_px:
            return found
        prompts = np.stack([found.ids == instance_id for instance_id in found.areas_px])
        masks, scores = self._refine(frame.rgb, prompts)
        kept = _distinct(masks, scores)
        ids = np.zeros(found.ids.shape, np.int32)
        # The surest mask is drawn last and so on top.
        for number, index in reversed(list(enumerate(kept, start=1))):
            ids[masks[index]] = number
        return InstanceMap(ids)

    def _refine(self, rgb: UInt8, prompts: Bool) -> tuple[Bool, Float32]:
        """(N, H, W) masks and (N,) predicted IoUs for (N, H, W) prompting masks, which stay where the network fails."""
        import torch

        boxes, points = (torch.from_numpy(self._to_input(array, rgb.shape)) for array in _prompt(prompts))
        with torch.inference_mode():
            output = self.model(
                pixel_values=self._pixels(rgb),
                input_boxes=boxes.flatten(1)[None].to(self.device),
                input_points=points[None].to(self.device),
                input_labels=torch.ones((1, len(prompts), 1), dtype=torch.int64, device=self.device),
                multimask_output=False,
            )
            logits = torch.nn.functional.interpolate(
                output.pred_masks[0].float(), rgb.shape[:2], mode="bilinear", align_corners=False
            )
        masks = (logits[:, 0] > 0).cpu().numpy()
        scores = output.iou_scores[0, :, 0].float().cpu().numpy()
        common = np.sum(masks & prompts, axis=(1, 2))
        agreement = common / np.maximum(np.sum(masks | prompts, axis=(1, 2)), 1)
        trusted = (scores >= MIN_SCORE) & (agreement >= MIN_AGREEMENT)
        return np.where(trusted[:, None, None], masks, prompts), np.where(trusted, scores, 0.0).astype(np.float32)

    def _pixels(self, rgb: UInt8) -> torch.Tensor:
        """(1, 3, h, w) network input; the image is stretched to the network's size, as in training."""
        import torch

        image = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1)[None].float() / 255.0
        size = self.input_size.tolist()
        image = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(value, device=self.device)[:, None, None] for value in (IMAGE_MEAN, IMAGE_STD))
        return (image - mean) / std

    def _to_input(self, pixels: Float32, shape: tuple[int, ...]) -> Float32:
        """(..., 2) source pixels (u, v) in the stretched image; pixel centres have integer coordinates in both."""
        scale = (self.input_size / shape[:2])[::-1]
        return np.asarray((pixels + 0.5) * scale - 0.5, np.float32)


def _load(folder: str) -> Sam2Model:
    """The network of a folder, from safetensors alone, complete and in evaluation mode."""
    path = Path(folder)
    if not folder or not path.is_dir():
        raise SegmentationError(
            f"sam2_dir: expected a folder with a SAM 2 checkpoint in transformers layout, got {folder!r}; "
            "download one (for example facebook/sam2.1-hiera-tiny) or set method to tabletop"
        )
    if not (path / "config.json").is_file():
        raise SegmentationError(
            f"{path}: expected config.json beside the weights, found none; is this the right folder?"
        )
    model_type = _model_type(path / "config.json")
    if model_type not in MODEL_TYPES:
        raise SegmentationError(f"{path}: expected a model of type {' or '.join(MODEL_TYPES)}, got {model_type!r}")
    if not any(path.glob("*.safetensors")):
        others = sorted(file.name for file in path.iterdir() if file.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"})
        raise SegmentationError(
            f"{path}: expected weights as .safetensors, got {others or 'no weights'}; pickled files run code when "
            "opened and are refused: download the safetensors file of the same model"
        )
    from transformers import Sam2Model

    try:
        # Typed as if output_loading_info were always False.
        loaded: Any = Sam2Model.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model: Sam2Model = loaded[0]
        report: dict[str, Any] = loaded[1]
    except Exception as error:  # damaged files raise anything from KeyError to safetensors' own class
        raise SegmentationError(f"{path}: the weights cannot be read: {error}; download them again") from error
    absent = sorted(str(key) for key in {*report["missing_keys"], *report["mismatched_keys"]})
    if absent:
        raise SegmentationError(
            f"{path}: expected all weights of the model in config.json, got none that fit for {absent[:3]} "
            f"({len(absent)} in all); download the folder again"
        )
    model.requires_grad_(requires_grad=False)
    return model


def _model_type(file: Path) -> Any:  # noqa: ANN401 (whatever the file says)
    """The model type that a config.json states."""
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise SegmentationError(f"{file}: expected a JSON object, could not read it: {error}") from error


def _prompt(masks: Bool) -> tuple[Float32, Float32]:
    """(N, 2, 2) upper left and lower right corners, and (N, 1, 2) innermost pixels, (u, v), of (N, H, W) masks."""
    import cv2

    boxes, points = [], []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append([[columns[0], rows[0]], [columns[-1], rows[-1]]])
        # A frame of background, so that the image border counts as an edge.
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
        v, u = np.unravel_index(int(np.argmax(depth)), depth.shape)
        points.append([[u - 1, v - 1]])
    return np.array(boxes, np.float32), np.array(points, np.float32)


def _distinct(masks: Bool, scores: Float32) -> list[int]:
    """Indices of masks that show different objects, best score first (non-maximum suppression)."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    common = flat @ flat.T
    areas = np.diagonal(common)
    iou = common / np.maximum(areas[:, None] + areas[None] - common, 1.0)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(iou[index, other] <= MAX_OVERLAP for other in kept):
            kept.append(int(index))
    return kept
