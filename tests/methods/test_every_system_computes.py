"""Every system in other types, with other autoencoders, and with parts of different precision."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderTiny, DPMSolverMultistepScheduler

from referencenet.methods.tiny import filled
from systems import SYSTEMS, System, every_system_in_time
from tolerances import ROUNDING, relative_error


@every_system_in_time
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.03), (torch.bfloat16, 0.2)], ids=str)
def test_half_precision_gives_nearly_the_same(system: System, dtype: torch.dtype, tolerance: float) -> None:
    """Also from noise in single precision, as everywhere in diffusers; guided steps amplify the rounding."""
    pipe = system.make()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    full = system.call(pipe, latents=system.noise())
    half = system.call(pipe.to(dtype), latents=system.noise())
    assert half.dtype == torch.float32  # steps are in single precision
    assert relative_error(half, full) < tolerance
    assert bool(system.call(pipe, num_inference_steps=1, output_type="pt").isfinite().all())


@every_system_in_time
def test_the_autoencoder_may_be_of_another_precision(system: System) -> None:
    pipe = system.make()
    expected = system.call(pipe, num_inference_steps=1, output_type="pt", latents=system.noise())
    pipe.vae.to(torch.bfloat16)
    ours = system.call(pipe, num_inference_steps=1, output_type="pt", latents=system.noise())
    assert relative_error(ours.float(), expected) < 0.2


def guiders(pipe: Any) -> list[str]:
    """Networks beside the denoiser that read conditions in pixels, by name."""
    return [name for name, part in pipe.components.items()
            if isinstance(part, torch.nn.Module) and re.search("guider|controlnet|locator", name)]  # fmt: skip


@pytest.mark.parametrize("system", [system for system in SYSTEMS if guiders(system.make())], ids=lambda s: s.name)
def test_guiders_may_be_of_another_precision(system: System) -> None:
    pipe = system.make()
    expected = system.call(pipe, num_inference_steps=1, latents=system.noise())
    for name in guiders(pipe):
        getattr(pipe, name).to(torch.bfloat16)
    ours = system.call(pipe, num_inference_steps=1, latents=system.noise())
    assert ours.dtype == torch.float32
    assert 0 < relative_error(ours, expected) < 0.2


def _tiny_autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        act_fn="relu",
    )


def _asymmetric_autoencoder() -> AsymmetricAutoencoderKL:
    return AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        down_block_out_channels=(4, 4, 8, 8),
        layers_per_down_block=1,
        up_block_types=("UpDecoderBlock2D",) * 4,
        up_block_out_channels=(4, 4, 8, 8),
        layers_per_up_block=1,
        norm_num_groups=2,
    )


@every_system_in_time
@pytest.mark.parametrize("make", [_tiny_autoencoder, _asymmetric_autoencoder], ids=["tiny", "asymmetric"])
def test_other_autoencoders_of_diffusers_serve(system: System, make: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        vae = make()
    pipe = system.kind(**system.make().components | {"vae": filled(vae, 0)})
    pipe.set_progress_bar_config(disable=True)
    pixels = system.call(pipe, num_inference_steps=1, output_type="pt")
    assert pixels.shape[-2:] == system.size[::-1]
    assert bool(pixels.isfinite().all())


@every_system_in_time
def test_a_sliced_or_tiled_autoencoder_serves(system: System) -> None:
    pipe = system.make()
    options = {"num_inference_steps": 1, "output_type": "pt"}
    expected = system.call(pipe, **{system.several: 2}, **options)
    pipe.enable_vae_slicing()
    assert relative_error(system.call(pipe, **{system.several: 2}, **options), expected) < ROUNDING
    whole = system.call(pipe, width=64, **options)
    pipe.enable_vae_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 32, 4
    tiled = system.call(pipe, width=64, **options)
    assert 0 < relative_error(tiled, whole) < float("inf")


@every_system_in_time
def test_an_attention_backend_is_taken(system: System) -> None:
    pipe = system.make()
    expected = system.call(pipe)
    pipe.unet.set_attention_backend("native")
    assert relative_error(system.call(pipe), expected) < ROUNDING
