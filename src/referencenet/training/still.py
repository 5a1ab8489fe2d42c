"""Motion modules that are passed by: a stage of single frames learns as if there were none."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn


@contextmanager
def without_motion(unet: nn.Module) -> Generator[None]:
    """Inside, the UNet's motion modules give what they are given; they are not run.

    Args:
        unet: With motion modules, or without any.
    """

    def given(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states

    modules = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    try:
        for module in modules:
            module.forward = given  # pyright: ignore[reportAttributeAccessIssue]
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)
