"""What frozen encoders made is kept by content: once each, with the numbers that they give without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from referencenet.training.cache import EncodedCache
from referencenet.training.system import Batch
from trainings import tiny_recipe

ENOUGH = 2**20


class Doubling(nn.Linear):
    """An encoder that counts what it is given."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.given: list[Any] = []

    def encode(self, contents: Any) -> tuple[Tensor, ...]:
        self.given += list(contents)
        rows = torch.stack([torch.full((2,), float(len(c))) if isinstance(c, str) else 2 * c for c in contents])
        return rows, -rows


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_the_same_content_is_encoded_once_and_changed_weights_anew(place: str, tmp_path: Path) -> None:
    where = place if place == "memory" else str(tmp_path / "kept")
    cache, encoder = EncodedCache(where, ENOUGH), Doubling()
    for _ in range(2):
        rows, negative = cache.rows("words", (encoder,), ["a", "bcd", "a"], encoder.encode)
        assert rows[:, 0].tolist() == [1.0, 3.0, 1.0]
        assert torch.equal(negative, -rows)
    assert encoder.given == ["a", "bcd"]
    pictures = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cache.rows("seen", (encoder,), pictures, encoder.encode)[0], 2 * pictures)
    cache.rows("seen", (encoder,), pictures.flip(0) + 0, encoder.encode)
    assert cache.num_encoded == 4
    cache.rows("otherwise", (encoder,), pictures, encoder.encode)
    assert cache.num_encoded == 6
    again = EncodedCache(where, ENOUGH)
    again.rows("words", (encoder,), ["a"], encoder.encode)
    assert again.num_encoded == (1 if place == "memory" else 0)
    with torch.no_grad():
        encoder.weight += 1
    fresh = EncodedCache(where, ENOUGH)
    fresh.rows("words", (encoder,), ["a"], encoder.encode)
    assert fresh.num_encoded == 1


def test_no_more_is_kept_than_the_limit() -> None:
    encoder, cache = Doubling(), EncodedCache("memory", 20)  # a row has 16 bytes
    for _ in range(2):
        cache.rows("words", (encoder,), ["a", "b"], encoder.encode)
    assert encoder.given == ["a", "b", "b"]
    assert cache.size == 16


def test_a_recipe_computes_the_same_with_the_cache_and_asks_its_encoders_once() -> None:
    generator = torch.Generator().manual_seed(0)
    shape, side = (2, 3, 64, 48), 32
    names = ("person", "dense", "garment")
    tensors = {name: torch.rand(shape, generator=generator) * 2 - 1 for name in names}
    tensors |= {"mask": torch.ones(2, 1, 64, 48), "clip": torch.rand(2, 3, side, side, generator=generator)}
    batch = Batch(step=0, places=(0, 1), tensors=tensors, texts={"description": ("a shirt", "stripes")})
    plain, kept = (tiny_recipe("idm_vton", "tryon", cache=cache) for cache in ("none", "memory"))
    for step in (0, 1):
        now = replace(batch, step=step, places=(2 * step, 2 * step + 1))
        one, other = plain.drawn(now), kept.drawn(now)
        assert torch.equal(one.noise, other.noise)
        for a, b in ((one.latents, other.latents), (one.given["space"], other.given["space"]),
                     (one.given["prompt"][0], other.given["prompt"][0]), (one.shown.context, other.shown.context),
                     (one.further["image_states"], other.further["image_states"])):  # fmt: skip
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert kept.cache.num_encoded == 14  # eight pictures less one: masked persons are alike; four texts, two states
    assert not torch.equal(kept.drawn(batch).latents, kept.drawn(replace(batch, places=(8, 9))).latents)


def test_an_encoder_that_learns_is_not_kept() -> None:
    recipe = tiny_recipe("idm_vton", "tryon", cache="memory", train=(r"text_encoder\..*",))
    recipe._words(["a"])
    assert recipe.cache.num_encoded == 0
