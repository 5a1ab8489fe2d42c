"""What measurements of films share: drawing them one by one, and doing so without motion modules."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from referencenet.evaluation.task import as_bytes


def films_of(draw: Callable[[int], Any], number: int, drawn: Callable[[int], None]) -> np.ndarray:
    """Films one after the other, (n, f, H, W, 3) uint8.

    Args:
        draw: Number of a case to what its call gave, with `output_type="np"`.
        number: Of cases.
        drawn: Called with 1 after each.
    """
    found: list[np.ndarray] = []
    for case in range(number):
        found.append(as_bytes(draw(case).frames[0]))
        drawn(1)
    return np.stack(found)


@contextmanager
def without_motion(unet: Any) -> Generator[int]:
    """Inside, a denoiser's motion modules give what they are given, so that every frame is drawn by itself.

    Yields:
        How many there are.
    """
    modules = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_hook(lambda _module, given, _result: given[0])
            stack.callback(handle.remove)
        yield len(modules)
