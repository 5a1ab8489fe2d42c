"""Every system on the drawn world: what it grows from, what is new, and that nothing is disturbed before it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from copies import made_once
from referencenet.builtin.load import load
from referencenet.builtin.start import start_pipeline
from referencenet.training.recipes.index import recipes

SHAPE = (2, 4, 16, 12)
WORDS = ["stripes", "a person, waving"]


@made_once
def shipped() -> Any:
    return load("referencenet")


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


def words() -> Tensor:
    pipe = shipped()
    ids = pipe.tokenizer(WORDS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(ids)[0]


def drawn(system: str, pipe: Any, latents: Tensor, context: Tensor) -> Tensor:
    """The denoiser's prediction, reading nothing, of single frames or pictures."""
    unet, beside = pipe.unet, {}
    if system in ("animate_anyone", "aniportrait", "magic_animate", "diffportrait3d"):
        return unet(latents.unsqueeze(2), 300, context, return_dict=False)[0].squeeze(2)
    if system == "hallo":
        from referencenet.networks.audio_attention import Held

        return unet(latents.unsqueeze(2), 300, [Held(context)], return_dict=False)[0].squeeze(2)
    if system == "flashface":
        latents = torch.cat([latents, noise(3, 2, 1, *SHAPE[2:])], dim=1)
    if system == "idm_vton":
        latents = torch.cat([latents, noise(3, 2, 9, *SHAPE[2:])], dim=1)
        context = torch.cat([context, noise(4, *context.shape)], dim=2)
        beside = {"added_cond_kwargs": {"text_embeds": noise(5, 2, 96), "time_ids": torch.ones(2, 6) * 64}}
    if system in ("idm_vton", "parts2whole"):
        context = (context, [noise(6, 2, 4, context.shape[2])])
    return unet(latents, 300, context, return_dict=False, **beside)[0]


@pytest.mark.parametrize("system", [name for name in recipes() if name != "emo"])  # EMO reads no words
def test_a_system_that_reads_nothing_draws_what_the_base_draws(system: str) -> None:
    latents, context = noise(1), words()
    with torch.no_grad():
        expected = shipped().unet(latents, 300, context, return_dict=False)[0]
        found = drawn(system, start_pipeline(system), latents, context)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
