"""One environment for all tests: set before any test module imports ROS or numpy."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from momap_ros.data.sample import Sample

# Assigning a wrong type to a message field fails at once; without this ROS converts, truncates or crashes later.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
# Nodes of a test run see neither the network nor another run on this machine. Domain ids above 101 may collide with the
# ephemeral ports of Linux; 0 is everybody's default.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
# The threads of numpy and torch would fight over few cores with the nodes under test.
os.environ.setdefault("OMP_NUM_THREADS", "2")

REPOSITORY = Path(__file__).parents[1]
NUM_SIMULATED = 12


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Loads a Python file outside the package, by its path in the repository, as a module of its own."""

    def load(path: str) -> ModuleType:
        name = Path(path).name.partition(".")[0]
        specification = importlib.util.spec_from_file_location(name, REPOSITORY / path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # dataclasses look their module up
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """Files under version control, relative to the repository's root, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip(f"needs a git checkout: {listed.stderr.strip()}")
    paths = (Path(name) for name in listed.stdout.split("\0") if name)
    return sorted(path for path in paths if (REPOSITORY / path).is_file())


@pytest.fixture(scope="session")
def simulated() -> list[Sample]:
    """One 128x128 view of each of the first successful episodes of the validation split in which a robot acts."""
    pytest.importorskip("momap_ros.simulation", exc_type=ImportError)
    from momap_ros.simulation.episodes import simulate_episode
    from momap_ros.simulation.views import render_samples

    samples: list[Sample] = []
    episode_index = 0
    while len(samples) < NUM_SIMULATED:
        episode = simulate_episode("val", episode_index)
        if episode is not None and episode.rollout.success and episode.skill.perform is not None:
            samples += render_samples(episode, 1, 128)
        episode_index += 1
    return samples


@pytest.fixture(scope="session")
def prepared_folder(simulated: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `momap_ros.training.prepare` makes of the simulated samples: train/, codec/ and vocabulary.json."""
    from momap_ros.data.sample import write_shard

    folder = tmp_path_factory.mktemp("prepared")
    write_shard(folder / "shards" / "train-0000000-0000008.tar", simulated[:8])
    write_shard(folder / "shards" / "train-0000008-0000012.tar", simulated[8:])
    command = [sys.executable, "-m", "momap_ros.training.prepare", "--data", str(folder / "shards"), "--workers", "1"]
    command += ["--observed-share", "0"]
    subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True, cwd=REPOSITORY)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model with random weights that moves every instance, as a checkpoint folder."""
    import torch

    from momap_ros.model.checkpoint import write_info
    from momap_ros.model.codec import TemporalBasisCodec
    from momap_ros.model.pipeline import MoMapPipeline
    from momap_ros.model.schedule import shifted_cosine_scheduler
    from momap_ros.training.small import SmallModel
    from momap_ros.training.steps import SmallTraining

    codec = TemporalBasisCodec.pinned_cosines(50, 10)
    torch.manual_seed(0)
    options = SmallTraining(steps=1, channels=(32, 64))
    model = SmallModel(["block", "lift", "red", "the"], codec.latent_channels, options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        bias = model.denoiser.conv_out.bias
        bias[4 * codec.latent_channels :] = 6.0  # the logits of "this cell moves", for the four cells of a pixel
        model.scene_encoder.moving.bias.fill_(6.0)
        model.scene_encoder.duration.bias.fill_(math.log(2.0))
    pipeline = MoMapPipeline(model.scene_encoder, model.denoiser, codec, shifted_cosine_scheduler(6.0))
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    pipeline.save_pretrained(folder)
    write_info(folder, codec.num_steps, {})
    return folder


@pytest.fixture(scope="session")
def tiny_full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full-size model's checkpoint at tiny size, for images of 64x64 pixels: inflated, not trained."""
    from sd_folders import write_stable_diffusion

    from momap_ros.model.full_checkpoint import make_full_checkpoint

    folder = tmp_path_factory.mktemp("full")
    make_full_checkpoint(write_stable_diffusion(folder / "stable-diffusion"), folder / "tiny", image_size=64)
    return folder / "tiny"
