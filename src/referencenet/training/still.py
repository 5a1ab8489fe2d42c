"""Motion modules that are passed by: a stage of single frames learns as if there were none."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn

from referencenet.training.borrowed import passing


@contextmanager
def without_motion(unet: nn.Module) -> Generator[None]:
    """Inside, the UNet's motion modules give what they are given; they are not run.

    Args:
        unet: With motion modules, or without any.
    """

    def given(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states

    with ExitStack() as undo:
        for module in unet.modules():
            if isinstance(module, AnimateDiffTransformer3D):
                undo.enter_context(passing(module, given))
        yield
