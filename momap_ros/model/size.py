"""What the full-size model costs: parameters, arithmetic and memory, counted on tensors without content.

The networks are built with the configurations of Stable Diffusion 1.5 and 2.1 on torch's "meta" device, where every
operation computes shapes alone. Nothing of it is a measurement of a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.model.dense_scene import CONDITIONS, LATENT_STRIDE
from momap_ros.model.inflate import LATENT_CHANNELS, NUM_STEPS

FORMAT = "momap-full-model-size/1"
IMAGE_SIZES = (256, 512)
TEXT_TOKENS = 77
HYPOTHESES = 10
# Per parameter in training: weight, gradient, two moments of Adam and average in single precision, the copy in bfloat16
# that autocast computes with.
TRAINING_BYTES = 5 * 4 + 2
# Calls per unit of work. A backward pass is counted as two forward passes.
WORK: dict[str, dict[str, int]] = {
    f"forecast, {HYPOTHESES} futures, 4 steps": {
        "vae_encode": len(CONDITIONS),
        "unet": 4 * HYPOTHESES,
        "momap_vae_decode": HYPOTHESES,
    },
    "training step, per sample": {"momap_vae_encode": 1, "vae_encode": len(CONDITIONS), "unet": 3},
    "training step of the VAE, per sample": {"momap_vae_encode": 3, "momap_vae_decode": 3},
}
ASSUMED_TFLOP_S = 100
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
# Parts in which the two differ: U-Net, CLIP text model.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sd-1.5": (
        {"cross_attention_dim": 768, "attention_head_dim": 8},
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    ),
    "sd-2.1": (
        {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
    ),
}


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and still alive, and the most at any time; views count once."""

    def __init__(self) -> None:
        """Begin at zero: what exists before is not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        # Storage -> its size, 0 where it was there before. A weak reference keeps the address from being used again.
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(  # noqa: D105  (torch's own interface)
        self,
        function: Any,  # noqa: ANN401
        _types: Any,  # noqa: ANN401
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        self._note((args, kwargs), made=False)
        result = function(*args, **(kwargs or {}))
        self._note(result, made=True)
        return result

    def _note(self, values: object, *, made: bool) -> None:
        new = False
        for tensor in _tensors_of(values):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._storages:
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes() if made else 0
                new = made
        if new:
            self._storages = {key: known for key, known in self._storages.items() if not known[0].expired()}
            self.peak = max(self.peak, sum(size for _, size in self._storages.values()))


def _tensors_of(values: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention as a GPU does it, without its matrix of scores; without a device torch would write that out.

    Replaced by name: a mode would not reach the second forward pass of gradient checkpointing.
    """
    usual = functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        result: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return result

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = usual


def parameters_of(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def gflop(call: Callable[[], object]) -> float:
    """10^9 operations of a call; a multiplication and an addition are two."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call()
    return round(float(counter.get_total_flops()) / 1e9, 1)


def peak_mib(call: Callable[[], object]) -> float:
    """Most memory that a call needs at any time beyond weights and inputs, MiB."""
    with fused_attention(), LiveMemory() as memory:
        result = call()
    del result
    return round(float(memory.peak) / 2**20, 1)


def full_networks(variant: str, device: str = "meta") -> dict[str, Any]:
    """All networks of a full model, in bfloat16: without content on "meta", with random weights elsewhere.

    Args:
        variant: of VARIANTS.
        device: torch device.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    unet, text = VARIANTS[variant]
    inputs = LATENT_CHANNELS + 4 * len(CONDITIONS)
    wide = {"in_channels": 3 * NUM_STEPS, "out_channels": 3 * NUM_STEPS, "latent_channels": LATENT_CHANNELS}
    with torch.device(device):
        networks: dict[str, Any] = {
            "unet": UNet2DConditionModel(in_channels=inputs, out_channels=LATENT_CHANNELS, **UNET, **unet),
            "momap_vae": AutoencoderKL(**wide, **VAE),
            "vae": AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, **VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
        }
    return {name: network.bfloat16().requires_grad_(requires_grad=False) for name, network in networks.items()}


def full_calls(networks: dict[str, Any], image_size: int) -> dict[str, Callable[[int], Any]]:
    """What one forecast calls, each as a function of the batch, on the device of the networks.

    Args:
        networks: of `full_networks`.
        image_size: side of the images, pixels.
    """
    unet, side = networks["unet"], image_size // LATENT_STRIDE
    device = next(unet.parameters()).device
    width = int(unet.config["cross_attention_dim"])

    def empty(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, device=device, dtype=torch.bfloat16)

    def denoise(batch: int) -> Any:  # noqa: ANN401
        noisy = empty(batch, int(unet.config["in_channels"]), side, side)
        return unet(
            noisy, torch.zeros((), device=device), encoder_hidden_states=empty(batch, TEXT_TOKENS, width)
        ).sample

    return {
        "unet": denoise,
        "momap_vae_decode": lambda batch: (
            networks["momap_vae"].decode(empty(batch, LATENT_CHANNELS, side, side)).sample
        ),
        "momap_vae_encode": lambda batch: networks["momap_vae"].encode(empty(batch, 3 * NUM_STEPS, *[image_size] * 2)),
        "vae_encode": lambda batch: networks["vae"].encode(empty(batch, 3, image_size, image_size)),
    }


def reconstruct(vae: Any, image_size: int, batch: int) -> Any:  # noqa: ANN401
    """A MoMap through the VAE and back, as in its training."""
    shape, device = (batch, 3 * NUM_STEPS, image_size, image_size), next(vae.parameters()).device
    images = torch.zeros(shape, device=device, dtype=torch.bfloat16)
    return vae.decode(vae.encode(images).latent_dist.mode()).sample


def training_mib(network: Any, call: Callable[[int], Any], *, checkpointing: bool) -> float:  # noqa: ANN401
    """Most memory of one training sample, forward and backward, beyond weights and their gradients, MiB."""
    network.requires_grad_(requires_grad=True).train()
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)  # there before counting begins
    (network.enable_gradient_checkpointing if checkpointing else network.disable_gradient_checkpointing)()
    found = peak_mib(lambda: call(1).sum().backward())
    network.disable_gradient_checkpointing()
    network.requires_grad_(requires_grad=False).eval()
    return found


def _costs(networks: dict[str, Any], image_size: int) -> dict[str, Any]:
    """Arithmetic and memory at one image size."""
    calls = full_calls(networks, image_size)
    flops, peaks = {}, {}
    for name, call in calls.items():
        flops[name] = gflop(partial(call, 1))
        with torch.no_grad():
            peaks[name] = peak_mib(partial(call, 1))
    with torch.no_grad():
        peaks[f"unet_{HYPOTHESES}_futures"] = peak_mib(partial(calls["unet"], HYPOTHESES))
    for suffix, checkpointing in (("training", False), ("training_checkpointed", True)):
        peaks[f"unet_{suffix}"] = training_mib(networks["unet"], calls["unet"], checkpointing=checkpointing)
        vae, call = networks["momap_vae"], partial(reconstruct, networks["momap_vae"], image_size)
        peaks[f"momap_vae_{suffix}"] = training_mib(vae, call, checkpointing=checkpointing)
    return {"image_size": image_size, "gflop": flops, "activations_mib": peaks}


def describe_full_models() -> dict[str, Any]:
    """Parameters, arithmetic and memory of the full model, as a report that JSON can hold."""
    rows = []
    for variant in VARIANTS:
        networks = full_networks(variant)
        counts = {name: parameters_of(network) for name, network in networks.items()}
        total = sum(counts.values())
        memory = {
            "weights_bfloat16_mib": round(2 * total / 2**20, 1),
            "unet_training_state_mib": round(TRAINING_BYTES * counts["unet"] / 2**20, 1),
        }
        sizes = [_costs(networks, image_size) for image_size in IMAGE_SIZES]
        rows.append({"variant": variant, "parameters": counts, "memory": memory, "sizes": sizes})
    return {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": describe_commit(),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "note": "counted from shapes on the meta device, bfloat16 activations, fused attention; nothing ran on a GPU",
        "settings": {
            "num_steps": NUM_STEPS,
            "latent_channels": LATENT_CHANNELS,
            "text_tokens": TEXT_TOKENS,
            "hypotheses": HYPOTHESES,
        },
        "models": rows,
    }


def size_table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = []
    for model in report["models"]:
        counts, memory = model["parameters"], model["memory"]
        parameters = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items())
        lines += [
            f"{model['variant']}: {parameters}; all weights in bfloat16 {memory['weights_bfloat16_mib']:,.0f} MiB; "
            "training the U-Net: weights, gradients, Adam, average and autocast's copy "
            f"{memory['unet_training_state_mib']:,.0f} MiB",
            "",
            "| | " + " | ".join(f"{size['image_size']} px" for size in model["sizes"]) + " |",
            "|---|" + "---:|" * len(model["sizes"]),
        ]
        for key, unit in (("gflop", "GFLOP"), ("activations_mib", "activations, MiB")):
            for name in model["sizes"][0][key]:
                values = " | ".join(f"{size[key][name]:,.1f}" for size in model["sizes"])
                lines.append(f"| {name.replace('_', ' ')}, {unit} | {values} |")
        for name, calls in WORK.items():
            totals = [sum(count * size["gflop"][part] for part, count in calls.items()) for size in model["sizes"]]
            lines.append(f"| {name}, GFLOP | " + " | ".join(f"{total:,.0f}" for total in totals) + " |")
            times = " | ".join(f"{total / ASSUMED_TFLOP_S:,.1f}" for total in totals)
            lines.append(f"| {name}, ms at an assumed {ASSUMED_TFLOP_S} TFLOP/s | {times} |")
        lines.append("")
    return "\n".join([*lines, str(report["note"])])
