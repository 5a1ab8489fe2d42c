"""Mask pyramids: one map per level, each value the share of white below it."""

from __future__ import annotations

import pytest
import torch

from referencenet.links import Pyramid
from tiny import latents


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (3, 2), (16, 6)])
def test_levels_halve_as_a_unet_does(size: tuple[int, int]):
    pyramid = Pyramid.of(torch.ones(64, 48), size)
    height, width = size
    down = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
    features = torch.zeros(1, 1, height, width)
    while features.shape[-2:].numel() > 1:
        assert pyramid.maps[tuple(features.shape[-2:])].shape == features.shape[-2:]
        assert pyramid.tokens(features[0, 0].numel()).shape == (features[0, 0].numel(),)
        features = down(features)


def test_values_are_shares_of_white():
    mask = torch.zeros(16, 16)
    mask[:4, :8] = 1
    pyramid = Pyramid.of(mask, (4, 4))
    assert pyramid.maps[4, 4].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert pyramid.maps[2, 2].tolist() == [[0.5, 0], [0, 0]]
    assert pyramid.tokens(4).tolist() == [0.5, 0, 0, 0]


def test_a_small_mask_is_stretched():
    assert Pyramid.of(torch.tensor([[1.0, 0.0]]), (2, 4)).maps[2, 4].tolist() == [[1, 1, 0, 0]] * 2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(8, 8), "black everywhere"),
        (torch.ones(1, 8, 8), r"\(1, 8, 8\)"),
        (torch.full((8, 8), 255.0), r"\[0, 1\]"),
        (torch.full((8, 8), float("nan")), r"\[0, 1\]"),
    ],
)
def test_what_is_no_mask_is_refused(mask: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Pyramid.of(mask, (4, 4))


def test_a_count_of_no_level_is_refused():
    with pytest.raises(ValueError, match="5 tokens"):
        Pyramid.of(latents(1, 8, 8).sigmoid(), (4, 4)).tokens(5)
