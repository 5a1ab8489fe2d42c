"""What every row of `trained_links` is made of: two ways of a step, where they compute, and counts of their parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import measuring
import torch
from published_parts import blocks, ended, hooked, stop
from torch import Tensor, nn

from referencenet.parity.seeded import fill, seeded_input
from referencenet.pipelines.prediction import Call, Prediction, predicting

TIMESTEP = 613  # of FlashFace's steps one behind the launch, where three branches run


@dataclass(frozen=True)
class Paths:
    """A system's step, both ways, and the FLOPs that no way can avoid."""

    published: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    ideal_flops: Callable[[], int]


@dataclass(frozen=True)
class Place:
    """Where and at which size networks and inputs are made.

    Attributes:
        device: Where they compute.
        dtype: Of weights and inputs.
        full: At the published size, with shapes only.
    """

    device: torch.device
    dtype: torch.dtype
    full: bool = False

    def network(self, case: str, name: str, module: nn.Module) -> Any:
        """A network with the golden rule's weights."""
        module.eval().requires_grad_(False)
        if self.full:
            return module
        fill(module, f"benchmark-{case}", name)
        return module.to(self.device, self.dtype)

    def draw(self, case: str, name: str, *shape: int) -> Tensor:
        """An input of the golden rule."""
        if self.full:
            return torch.empty(shape, device=self.device, dtype=self.dtype)
        return seeded_input(f"benchmark-{case}", name, shape).to(self.device, self.dtype)


def written(unet: nn.Module, latents: Tensor, timestep: int, context: Tensor) -> int:
    """FLOPs of a pass up to its last norm1: latents (r, 4, h, w), context (r, tokens, c)."""
    *_, (_, last) = blocks(unet)
    with hooked(last.attn1.register_forward_pre_hook(stop)):
        return measuring.flops(lambda: ended(lambda: unet(latents, timestep, encoder_hidden_states=context)))


def projection_flops(feature: Tensor) -> int:
    """FLOPs of keys and values of (r, t, c)."""
    return 2 * 2 * feature.numel() * feature.shape[2]


def product_flops(own: Tensor, feature: Tensor) -> int:
    """FLOPs of q k^T and its product with the values, one row (1, n, c) reading one row (1, t, c)."""
    return 2 * 2 * own.shape[1] * feature.shape[1] * own.shape[2]


class Standing:
    """A call of ours between two steps: what is made once per call is there, and its UNet stays linked.

    Args:
        pipe: Of the system; its UNet is nobody else's.
        call: Of it.
        frames: Of a film; None: a picture.
        window: Frames at a time; None: all.
    """

    def __init__(self, pipe: Any, call: Call, frames: int | None = None, window: int | None = None) -> None:
        self.pipe, self.call, self.frames, self.window = pipe, call, frames, window
        self.stack = ExitStack()
        self.opened: Prediction | None = None

    @torch.no_grad()
    def step(self, latents: Tensor, timestep: Any) -> Tensor:
        """The guided prediction like `latents`, (1, 4, h, w) or (1, 4, f, h, w)."""
        if self.opened is None:
            self.begun(latents, timestep)  # what windows and steps share is made by the first of them
        assert self.opened is not None
        return self._predict(self.opened, latents, timestep)

    def begun(self, latents: Tensor, timestep: Any) -> Tensor:
        """Open the call and take its first step; its prediction like `latents`."""
        self.opened = self.stack.enter_context(predicting(self.pipe, self.call))
        if self.frames is not None:
            self.opened.admit(0, self.frames)
        return self._predict(self.opened, latents, timestep)

    def _predict(self, prediction: Prediction, latents: Tensor, timestep: Any) -> Tensor:
        predict = prediction.begin(latents, timestep)
        if self.frames is None:
            return predict(None)
        film, window = range(self.frames), self.window or self.frames
        return torch.cat([predict(film[first : first + window]) for first in film[::window]], dim=2)
