"""Encodings of references are kept between calls: the same bits, never of other weights, never too many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny

from referencenet import reference, replica
from referencenet.sampling import latents as next_to_it
from referencenet.sampling.encodings import ENCODINGS, Encodings, weights_sum
from systems import SYSTEMS
from tiny import picture, tiny


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Encodings:
    """Encodings of this test alone."""
    monkeypatch.setattr(next_to_it, "ENCODINGS", own := Encodings())
    return own


def drawn(pipeline: Any, which: int = 1, seed: int = 1) -> torch.Tensor:
    with reference(pipeline.pipe, picture(which)):
        return pipeline(generator=torch.Generator().manual_seed(seed))


def test_a_reference_is_encoded_once_and_drawn_the_same_to_the_bit(kept: Encodings) -> None:
    pipeline = tiny("sd")
    kept.most_bytes = 0
    expected = [drawn(pipeline, seed=seed) for seed in (1, 2)]
    kept.most_bytes = 2**20
    found = [drawn(pipeline, seed=seed) for seed in (1, 2, 1)]
    assert (kept.misses, kept.hits) == (1, 2)
    assert all(torch.equal(a, b) for a, b in zip(found, [*expected, expected[0]], strict=True))
    assert not torch.equal(drawn(pipeline, which=2), expected[0])
    assert kept.misses == 2


def in_place(vae: Any) -> None:
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1.1)


def behind_the_counter(vae: Any) -> None:
    vae.encoder.conv_in.weight.data += 0.1  # as merged LoRAs are added


def exchanged(vae: Any) -> None:
    vae.load_state_dict({name: tensor + 0.01 for name, tensor in vae.state_dict().items()})


def turned(vae: Any) -> None:
    with torch.no_grad():
        vae.encoder.conv_in.weight.copy_(vae.encoder.conv_in.weight.flip(0))


def cast(vae: Any) -> None:
    vae.to(torch.float64)


@pytest.mark.parametrize("change", [in_place, behind_the_counter, exchanged, turned, cast])
def test_other_weights_encode_anew(kept: Encodings, change: Callable[[Any], None]) -> None:
    vae, pixels = tiny("sd").pipe.vae, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = next_to_it.posterior_mode(vae, pixels)
        change(vae)
        after = next_to_it.posterior_mode(vae, pixels)
        kept.most_bytes = 0
        assert torch.equal(after, next_to_it.posterior_mode(vae, pixels))
    assert kept.misses == 2
    assert not torch.equal(before, after.to(before.dtype))


def test_tiles_and_replaced_encoders_count(kept: Encodings, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, pixels = tiny("sd").pipe.vae, torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        next_to_it.posterior_mode(vae, pixels)
        vae.enable_tiling()
        next_to_it.posterior_mode(vae, pixels)
        usual = type(vae).encode
        monkeypatch.setattr(vae, "encode", lambda given: usual(vae, given))
        next_to_it.posterior_mode(vae, pixels)
    assert (kept.misses, kept.hits) == (3, 0)


def test_equal_weights_share_and_the_oldest_is_forgotten(kept: Encodings) -> None:
    pipeline = tiny("sd")
    other = tiny("sd")
    other.pipe = replica(pipeline.pipe)
    drawn(pipeline)
    drawn(other)
    assert (kept.misses, kept.hits) == (1, 1)
    kept.most_bytes = 2 * 4 * 8 * 8 * 8  # two posteriors of 8 channels in single precision
    for which in (1, 2, 1, 3, 2):
        drawn(pipeline, which)
    assert (kept.misses, kept.hits) == (4, 3)


def test_a_tiny_autoencoder_is_kept_too(kept: Encodings) -> None:
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                          num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        first, second = (next_to_it.posterior_samples(vae, pixels, [None]) for _ in range(2))
    assert torch.equal(first, second)
    assert kept.hits == 1


def test_gradients_and_hidden_weights_are_not_kept(kept: Encodings) -> None:
    vae, pixels = tiny("sd").pipe.vae, torch.rand(1, 3, 64, 64)
    kept.of(vae, pixels)
    with torch.no_grad():
        kept.of(vae.to("meta"), pixels.to("meta"))
    assert (kept.misses, kept.hits) == (0, 0)
    assert weights_sum(vae) is None


@pytest.mark.parametrize("system", [each for each in SYSTEMS if each.name in ("animate_anyone", "parts2whole")],
                         ids=lambda system: system.name)  # fmt: skip
def test_systems_keep_their_references(system: Any) -> None:
    pipe = system.make()
    first = system.call(pipe, num_inference_steps=1, output_type="pt")
    hits = ENCODINGS.hits
    assert torch.equal(system.call(pipe, num_inference_steps=1, output_type="pt"), first)
    assert ENCODINGS.hits > hits
