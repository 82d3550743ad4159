#!/usr/bin/env python3
"""Time and memory of the full-size model, measured with random weights: forecasts and training steps.

    python benchmarks/full_model_speed.py --out out/full_model_speed --device cuda

The networks have the configurations of Stable Diffusion 1.5 and 2.1 and run in bfloat16; the time of a network does not
depend on its weights. A forecast is 10 futures in 4 denoising steps. A training step is forward, backward and AdamW,
fused where CUDA has it; its weights, gradients and moments are in bfloat16 here, so the memory is less than with
weights in single precision, which `momap init-full --describe` counts.

What comes out, in --out: full_model_speed.md and full_model_speed.json (medians over --repeats calls, peak memory).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from momap_ros.benchmark.machine import describe_commit, describe_machine, describe_versions
from momap_ros.benchmark.timing import Effort, measure
from momap_ros.files import atomic_path, write_json
from momap_ros.model.dense_scene import CONDITIONS
from momap_ros.model.size import HYPOTHESES, VARIANTS, full_calls, full_networks, reconstruct

STEPS = 4
IMAGE_SIZE = 256


def measured(call: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """Median and largest time of a call, milliseconds, after two that warm up, and its peak memory on a GPU, MiB."""
    cuda = device.type == "cuda"

    def finished() -> None:
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        call()
        if cuda:
            torch.cuda.synchronize(device)

    timing = measure(finished, Effort(warm_up=2, min_runs=repeats, max_runs=repeats, budget_s=0.0))
    found = {"median_ms": round(timing.median, 2), "max_ms": round(max(timing.times_ms), 2)}
    return found | ({"peak_mib": round(torch.cuda.max_memory_allocated(device) / 2**20, 1)} if cuda else {})


def forecast(calls: dict[str, Callable[[int], Any]]) -> None:
    """What `FullMoMapPipeline` calls for one forecast, CLIP apart: its text is kept between frames."""
    with torch.no_grad():
        calls["vae_encode"](len(CONDITIONS))
        for _ in range(STEPS):
            calls["unet"](HYPOTHESES)
        calls["momap_vae_decode"](HYPOTHESES)


def training_step(network: Any, call: Callable[[], Any], optimizer: torch.optim.Optimizer) -> None:  # noqa: ANN401
    """One step of one network; the optimizer's moments exist after the first."""
    network.train()
    call().float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(network: Any, call: Callable[[], Any], *, repeats: int, checkpointing: bool) -> dict[str, float]:  # noqa: ANN401
    """Time and memory of a training step."""
    device = next(network.parameters()).device
    network.requires_grad_(requires_grad=True)
    (network.enable_gradient_checkpointing if checkpointing else network.disable_gradient_checkpointing)()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=device.type == "cuda")
    found = measured(partial(training_step, network, call, optimizer), repeats, device)
    network.requires_grad_(requires_grad=False).eval()
    return found


def measure_variant(variant: str, batch: int, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """All rows of one variant."""
    networks = full_networks(variant, str(device))
    calls = full_calls(networks, IMAGE_SIZE)
    rows = [
        {"what": f"forecast, {HYPOTHESES} futures, {STEPS} steps"} | measured(partial(forecast, calls), repeats, device)
    ]
    for checkpointing in (False, True):
        how = f"batch {batch}{', activations computed again' if checkpointing else ''}"
        unet, vae = networks["unet"], networks["momap_vae"]
        steps: tuple[tuple[str, Any, Callable[[], Any]], ...] = (
            ("U-Net", unet, partial(calls["unet"], batch)),
            ("MoMap VAE", vae, partial(reconstruct, vae, IMAGE_SIZE, batch)),
        )
        for name, network, call in steps:
            found = trained(network, call, repeats=repeats, checkpointing=checkpointing)
            rows.append({"what": f"training step of the {name}, {how}"} | found)
    return [{"variant": variant} | row for row in rows]


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['date']}, {report['device']}, {IMAGE_SIZE} px, bfloat16, random weights",
        "",
        "| model | what | median, ms | largest, ms | peak memory, MiB |",
        "|---|---|---:|---:|---:|",
    ]
    for row in report["rows"]:
        memory = f"{row['peak_mib']:,.0f}" if "peak_mib" in row else "not counted"
        lines.append(
            f"| {row['variant']} | {row['what']} | {row['median_ms']:,.1f} | {row['max_ms']:,.1f} | {memory} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for both files")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="samples of a training step (default: 16)")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="calls that are timed (default: 10)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    rows = [
        row
        for variant in arguments.variants
        for row in measure_variant(variant, arguments.batch, arguments.repeats, device)
    ]
    report = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": describe_commit(),
        "device": name,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "full_model_speed.json", report)
    with atomic_path(arguments.out / "full_model_speed.md") as path:
        path.write_text(table(report), encoding="utf-8")
    tqdm.write(table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
