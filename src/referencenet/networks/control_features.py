"""A ControlNet's embedding of its pictures, apart from the rest: it depends on neither step nor latents nor text.

`control_features` embeds once; inside `taking_features` the network takes what came of it in its pictures' place. Its
weights and its class stay what they are, so any ControlNetModel will do. Letters: n pictures, (H, W) pixels, (h, w)
latents.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from referencenet.links.offloading import bring, rests_in_groups

EMBEDDING = "controlnet_cond_embedding"
"""diffusers' name for it."""


def control_features(network: Any, pictures: Tensor) -> Tensor:
    """Embed pictures.

    Args:
        network: A ControlNetModel.
        pictures: (n, 3, H, W) in [0, 1], where the network computes, in its precision.

    Returns:
        (n, width, h, w); the pictures themselves where layers come and go during a pass (diffusers' group offloading),
        so that the embedding must not be run outside of one.
    """
    if rests_in_groups(network):
        return pictures
    bring(network)
    return getattr(network, EMBEDDING)(_ordered(network, pictures))


@contextmanager
def taking_features(network: Any) -> Generator[None]:
    """Inside, a ControlNet's `controlnet_cond` is what `control_features` gave; after it the network is as before."""
    if rests_in_groups(network):
        yield
        return
    own = getattr(network, EMBEDDING)
    setattr(network, EMBEDDING, _Ready(_is_reversed(network)))
    try:
        yield
    finally:
        setattr(network, EMBEDDING, own)


class _Ready(nn.Module):
    """Gives features (n, width, h, w) as they are, also where the network has turned their order as if of colours."""

    def __init__(self, is_reversed: bool) -> None:
        super().__init__()
        self.is_reversed = is_reversed

    def forward(self, features: Tensor) -> Tensor:
        """(n, width, h, w) to the same."""
        return features.flip(1) if self.is_reversed else features


def _ordered(network: Any, pictures: Tensor) -> Tensor:
    """Pictures with their colours in the order of the network's first layer."""
    return pictures.flip(1) if _is_reversed(network) else pictures


def _is_reversed(network: Any) -> bool:
    return network.config.controlnet_conditioning_channel_order == "bgr"
