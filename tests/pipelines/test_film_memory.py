"""A stream's memory does not grow with its film, in every system that makes films."""

from typing import Any

import pytest
import torch

from films import SIZE, picture
from memory import LivingBytes
from referencenet.methods.tiny import tiny_pipeline
from referencenet.sampling.windows import Windows

FRAMES = {"animate_anyone": 512, "aniportrait": 176, "magicpose": 176, "magic_animate": 176}


def peak_bytes(pipe: Any, num_frames: int) -> int:
    """The most that a stream of so many frames holds, its reference and drawings included."""
    # both films are cut into windows of equal size, as long as they are
    windows = Windows(size=16, overlap=0) if pipe.spec.windows.num_shared == 0 else Windows(size=22, overlap=8)
    assert {len(window.frames) for window in windows.of(num_frames)} == {windows.size}
    seen = 0

    def read(start: int, stop: int) -> list[torch.Tensor]:
        nonlocal seen
        seen += stop - start
        return [torch.zeros(stop - start, 3, SIZE[1], SIZE[0]) for _ in range(pipe.num_driving)]

    with LivingBytes() as living:
        pieces = pipe.stream(
            picture(0), read, num_frames=num_frames, width=SIZE[0], height=SIZE[1], num_inference_steps=2,
            windows=windows,
        )  # fmt: skip
        assert sum(len(frames) for frames, _ in pieces) == seen == num_frames
    return living.peak


@pytest.mark.slow
@pytest.mark.parametrize("system", FRAMES)
@pytest.mark.filterwarnings("ignore:.*DensePose:UserWarning")
def test_a_long_film_needs_no_more_than_one_of_64_frames(system: str) -> None:
    pipe = tiny_pipeline(system)
    pipe.set_progress_bar_config(disable=True)
    short, long = peak_bytes(pipe, 64), peak_bytes(pipe, FRAMES[system])
    assert 0 < short
    assert long <= 1.1 * short
