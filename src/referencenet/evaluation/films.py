"""What measurements of films share: scores of their frames, drawing them one by one, also without motion modules."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from referencenet.evaluation.looking import Seen, likeness, look
from referencenet.evaluation.scores import mean_psnr, squared_error
from referencenet.evaluation.task import Measure, as_bytes
from referencenet.networks.observer import Observer

OF_FRAMES = (
    Measure(name="error", told="squared error of values in [0, 1]", better="less"),
    Measure(name="psnr", told="PSNR of a frame, dB", better="more"),
    Measure(name="identity", told="likeness to who was shown, as the observer sees it", better="more"),
)
"""What `frame_scores` gives."""
OF_CHANGES = Measure(name="frame_error", told="error of what changes from frame to frame, 0 to 255", better="less")


def frame_scores(
    films: np.ndarray, truth: np.ndarray, shown: np.ndarray, observer: Observer
) -> tuple[dict[str, float], Seen]:
    """Scores over all frames, and what the observer sees in them.

    Args:
        films: (n, f, H, W, 3) uint8.
        truth: Of the same shape.
        shown: Who is in each film, (n, H, W, 3) uint8.
        observer: The measure.
    """
    frames, wanted = (found.reshape(-1, *found.shape[-3:]) for found in (films, truth))
    seen, people = look(observer, frames), look(observer, shown).embeddings.repeat_interleave(films.shape[1], dim=0)
    scores = {
        "error": squared_error(frames, wanted),
        "psnr": mean_psnr(frames, wanted),
        "identity": likeness(seen.embeddings, people),
    }
    return scores, seen


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
