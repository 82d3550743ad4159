"""Widened networks do on images exactly what they did, and refuse what is not Stable Diffusion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sd_folders import TEXT_LENGTH, TEXT_WIDTH, tiny_unet, tiny_vae, write_stable_diffusion

from momap_ros.model.checkpoint import CheckpointError
from momap_ros.model.inflate import full_scheduler, inflate_unet, inflate_vae, read_stable_diffusion

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stable_diffusion(tmp_path_factory.mktemp("sd") / "stable-diffusion")


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy"))


def gradient(layer: Any) -> torch.Tensor:  # noqa: ANN401
    found: torch.Tensor = layer.weight.grad
    return found


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


# --- the function is kept


@torch.no_grad()
@pytest.mark.parametrize("num_steps", [7, 50])
def test_a_scene_at_rest_is_decoded_as_its_image(num_steps: int) -> None:
    # In double precision: how the sums over the steps round in single precision is each processor's own affair.
    vae, still = tiny_vae(), image().repeat(1, num_steps, 1, 1)
    wide = inflate_vae(vae, num_steps).double()
    vae.double()
    latents, expected = wide.encode(still).latent_dist.mode(), vae.encode(image()).latent_dist.mode()
    assert latents.shape == (1, 32, 8, 8)
    torch.testing.assert_close(latents[:, :4], expected, rtol=0, atol=1e-5)
    picture = vae.decode(expected).sample
    drawn = wide.decode(latents).sample.unflatten(1, (num_steps, 3))
    torch.testing.assert_close(drawn, picture[:, None].expand_as(drawn), rtol=0, atol=1e-5)
    assert float(picture.std()) > 0.05


@torch.no_grad()
def test_a_moving_scene_is_encoded_as_its_mean_over_time() -> None:
    vae = tiny_vae()
    wide = inflate_vae(vae).double()
    vae.double()
    moving = torch.cat([image(seed) for seed in range(50)], dim=1)
    mean = moving.unflatten(1, (50, 3)).mean(dim=1)
    found, expected = wide.encode(moving).latent_dist, vae.encode(mean).latent_dist
    torch.testing.assert_close(found.mean[:, :4], expected.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logvar[:, :4], expected.logvar, rtol=0, atol=1e-5)
    # The new latents are small, certain, and different from each other.
    assert float(found.mean[:, 4:].std()) < 0.5 * float(found.mean[:, :4].std())
    torch.testing.assert_close(found.logvar[:, 4:], torch.full_like(found.logvar[:, 4:], -6.0))
    assert torch.linalg.matrix_rank(found.mean[0, 4:].flatten(1)) == 28


@torch.no_grad()
def test_the_decoder_ignores_new_latents_until_it_is_trained() -> None:
    wide = inflate_vae(tiny_vae())
    latents = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    other = torch.cat([latents[:, :4], torch.randn(1, 28, 8, 8)], dim=1)
    torch.testing.assert_close(wide.decode(latents).sample, wide.decode(other).sample)
    with torch.enable_grad():
        wide.decode(latents).sample.square().mean().backward()
    assert float(gradient(wide.decoder.conv_in)[:, 4:].abs().max()) > 0, "they would never be used"


@torch.no_grad()
@pytest.mark.parametrize("inputs", [44, 54])
def test_the_first_outputs_of_the_u_net_are_what_they_were(inputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noisy, text = (torch.randn(2, *shape, generator=generator).double() for shape in ((inputs, 8, 8), (5, TEXT_WIDTH)))
    expected = tiny_unet().double()(noisy[:, :4], 500, encoder_hidden_states=text).sample
    wide = inflate_unet(tiny_unet(), inputs, 32).double()
    found = wide(noisy, 500, encoder_hidden_states=text).sample
    assert found.shape == (2, 32, 8, 8)
    torch.testing.assert_close(found[:, :4], expected, rtol=0, atol=1e-5)
    assert not found[:, 4:].any()
    assert float(expected.std()) > 0.01
    with torch.enable_grad():
        wide(noisy, 500, encoder_hidden_states=text).sample.sub(noisy[:, :32]).square().mean().backward()
    assert float(gradient(wide.conv_in)[:, 4:].abs().max()) > 0
    assert float(gradient(wide.conv_out)[4:].abs().max()) > 0


def test_the_configuration_says_what_the_weights_are(tmp_path: Path) -> None:
    vae, unet = inflate_vae(tiny_vae(scaling_factor=0.25), 16, 20), inflate_unet(tiny_unet(), 32, 20)
    assert (vae.config["in_channels"], vae.config["out_channels"], vae.config["latent_channels"]) == (48, 48, 20)
    # The scale of the image VAE's latents until they are measured.
    assert vae.config["latents_mean"] == [0.0] * 20
    assert vae.config["latents_std"] == [4.0] * 4 + [1.0] * 16
    for network in (vae, unet):
        network.save_pretrained(tmp_path / type(network).__name__)
        loaded = type(network).from_pretrained(tmp_path / type(network).__name__, low_cpu_mem_usage=False)
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.parameters(), strict=True))


def test_the_image_vae_stays_as_it_is() -> None:
    vae = tiny_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    inflate_vae(vae)
    assert vae.config["in_channels"] == 3
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())


def test_fewer_channels_than_there_were_are_refused() -> None:
    with pytest.raises(ValueError, match="at least the 4 of the image VAE, got 3"):
        inflate_vae(tiny_vae(), 50, 3)
    with pytest.raises(ValueError, match="at least the 4 inputs and 4 outputs"):
        inflate_unet(tiny_unet(), 44, 2)


# --- noise


def test_sampling_begins_at_pure_noise_and_ends_at_the_prediction() -> None:
    """Zero terminal SNR (arXiv:2305.08891, Algorithm 1): sqrt(alpha_bar) shifted to end at 0, first value kept."""
    scheduler = full_scheduler(NOISE, "v_prediction")
    usual = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    root = (1 - usual).cumprod(0).sqrt()
    shifted = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), shifted, rtol=1e-3, atol=1e-5)
    assert float(scheduler.alphas_cumprod[-1]) == 0
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_a_perfect_prediction_is_sampled_exactly(prediction_type: str) -> None:
    """Of one possible sample x: v = a e - s x with noise e, a^2 + s^2 = 1; the sampler must end at x."""
    scheduler: Any = full_scheduler(NOISE, prediction_type)
    generator = torch.Generator().manual_seed(0)
    wanted, latents = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 4, 8, 8, generator=generator)
    scheduler.set_timesteps(4)
    step = None
    if prediction_type == "epsilon":  # its first level is not pure noise
        latents = scheduler.add_noise(wanted, latents, scheduler.timesteps[:1])
    for timestep in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[timestep]
        noise = (latents - alpha.sqrt() * wanted) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * wanted
        step = scheduler.step(velocity if prediction_type == "v_prediction" else noise, timestep, latents)
        latents = step.prev_sample
    assert step is not None
    torch.testing.assert_close(step.pred_original_sample, wanted, rtol=1e-3, atol=1e-3)


def test_the_training_target_is_the_velocity() -> None:
    scheduler: Any = full_scheduler(NOISE, "v_prediction")
    clean, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)
    assert float(scheduler.get_velocity(clean, noise, torch.tensor([999]))) == -2.0
    assert float(scheduler.add_noise(clean, noise, torch.tensor([999]))) == 3.0
    alpha = float(scheduler.alphas_cumprod[500])
    expected = alpha**0.5 * 3 - (1 - alpha) ** 0.5 * 2
    assert float(scheduler.get_velocity(clean, noise, torch.tensor([500]))) == pytest.approx(expected, rel=1e-4)


def test_noise_prediction_keeps_the_levels_of_stable_diffusion() -> None:
    scheduler = full_scheduler(NOISE, "epsilon")
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0.00466, rel=0.01)  # Stable Diffusion's last level
    with pytest.raises(ValueError, match="expected one of"):
        full_scheduler(NOISE, "sample")


# --- folders


def test_a_folder_is_read_whole(source: Path) -> None:
    found = read_stable_diffusion(source)
    assert found.noise == NOISE
    stored = load_file(source / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in found.unet.state_dict().items())
    tokens = found.tokenizer("cab", padding="max_length", max_length=TEXT_LENGTH).input_ids
    assert tokens == [0, 4, 2, 31, *[1] * (TEXT_LENGTH - 4)]  # start, c, a, "b</w>", end


def test_half_precision_files_are_taken_where_there_are_no_others(copy: Path) -> None:
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = load_file(copy / part / f"{name}.safetensors")
        halved = {key: value.half() for key, value in weights.items()}
        save_file(halved, copy / part / f"{name}.fp16.safetensors", metadata={"format": "pt"})
        (copy / part / f"{name}.safetensors").unlink()
    found = read_stable_diffusion(copy)
    for network in (found.unet, found.text_encoder):
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_pickled_weights_are_refused_and_never_opened(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not a pickle")
    read_stable_diffusion(copy)  # beside safetensors they are left alone
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"unet: expected weights as .safetensors, got .*\.bin.* refused"):
        read_stable_diffusion(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointError, match=f"{part}/"):
        read_stable_diffusion(copy)


def test_what_is_no_stable_diffusion_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got no such folder"):
        read_stable_diffusion(tmp_path / "absent")
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "v1-5-pruned.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"v1-5-pruned.*from_single_file"):
        read_stable_diffusion(tmp_path / "single")
    index = json.loads((copy / "model_index.json").read_text())
    larger = index | {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModel"]}
    (copy / "model_index.json").write_text(json.dumps(larger))
    with pytest.raises(CheckpointError, match="got a StableDiffusionXLPipeline"):
        read_stable_diffusion(copy)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_stable_diffusion(copy)


def test_inpainting_is_refused(tmp_path: Path) -> None:
    folder = write_stable_diffusion(tmp_path / "inpainting", in_channels=9)
    with pytest.raises(CheckpointError, match="inputs of the U-Net: expected 4, got 9"):
        read_stable_diffusion(folder)


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_missing_and_damaged_weights_are_refused(copy: Path, part: str) -> None:
    path = copy / f"{part}.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({key: value for key, value in weights.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{part.split('/')[0]}: expected all weights of"):
        read_stable_diffusion(copy)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="could not be loaded"):
        read_stable_diffusion(copy)
