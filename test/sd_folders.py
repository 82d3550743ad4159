"""Tiny Stable Diffusion folders with random weights, written by diffusers and transformers themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

TEXT_WIDTH = 16
TEXT_LENGTH = 12


def tiny_vae(seed: int = 0, **changed: Any) -> Any:  # noqa: ANN401  (diffusers' classes are untyped)
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 64,
    }
    network: Any = AutoencoderKL(**options | changed)
    return network.eval()


def tiny_unet(seed: int = 0, **changed: Any) -> Any:  # noqa: ANN401
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    network: Any = UNet2DConditionModel(**options | changed)
    return network.eval()


def write_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer that knows single letters alone, in the files that Stable Diffusion ships; number of words."""
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_LENGTH, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(words)


def write_stable_diffusion(folder: Path, *, prediction_type: str = "epsilon", **unet: Any) -> Path:  # noqa: ANN401
    """A Stable Diffusion 1.5 folder (2.1 with prediction_type "v_prediction"), about half a megabyte."""
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    text = CLIPTextConfig(
        vocab_size=write_tokenizer(folder / "tokenizer"),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    parts = {
        "vae": ("diffusers", tiny_vae()),
        "unet": ("diffusers", tiny_unet(**unet)),
        "text_encoder": ("transformers", CLIPTextModel(text)),
        "scheduler": ("diffusers", scheduler),
    }
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "tokenizer": ["transformers", "CLIPTokenizer"]}
    for name, (library, part) in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [library, type(part).__name__]
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
