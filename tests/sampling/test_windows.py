"""Context windows: ours cover every frame once and blend; the published ones are held by the golden case."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from referencenet.sampling.between import interpolate_frames
from referencenet.sampling.windows import Window, Windows, add_prediction, cover, published_windows, total_weights


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cover_gives_every_frame_the_weight_one_without_wrap_around(data: st.DataObject) -> None:
    num_frames, size = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 32))
    overlap = data.draw(st.integers(0, size // 2))
    windows = cover(num_frames, size, overlap)
    assert torch.allclose(total_weights(windows, num_frames), torch.ones(()), atol=1e-6)
    assert all(window.frames == tuple(range(window.frames[0], window.frames[-1] + 1)) for window in windows)
    assert len({window.frames for window in windows}) == len(windows)
    assert len({len(window.frames) for window in windows}) == 1
    assert len(windows[0].frames) <= size
    assert all(weight > 0 for window in windows for weight in window.weights)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.integers(4, 32))
def test_neighbours_share_at_least_the_overlap(num_frames: int, size: int) -> None:
    windows = cover(num_frames, size, size // 3)
    for first, second in zip(windows, windows[1:], strict=False):
        assert len(set(first.frames) & set(second.frames)) >= size // 3


@pytest.mark.parametrize(("num_frames", "ours", "theirs"), [(64, 72, 96), (25, 30, 48), (24, 24, 24), (1, 1, 1)])
def test_ours_predict_fewer_frames_than_the_published(num_frames: int, ours: int, theirs: int) -> None:
    assert sum(len(window.frames) for window in Windows().of(num_frames)) == ours
    assert sum(len(window.frames) for window in Windows(published=True).of(num_frames)) == theirs


def test_published_windows_wrap_around() -> None:
    assert published_windows(25, 24)[1] == [20, 21, 22, 23, 24, *range(19)]


def test_a_frame_twice_in_a_window_counts_twice() -> None:
    """The published accumulation keeps only one of them."""
    total = torch.zeros(1, 1, 3, 1, 1)
    window = Window((0, 1, 0), (1.0, 1.0, 1.0))
    add_prediction(total, torch.tensor([1.0, 5.0, 3.0]).view(1, 1, 3, 1, 1), window)
    assert (total.flatten() / total_weights([window], 3).flatten())[:2].tolist() == [2.0, 5.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Windows(size=0), "expected a size of at least 1"),
        (lambda: Windows(size=8, overlap=5), r"an overlap from 0 to 4"),
        (lambda: Windows(size=8, overlap=8, published=True), r"an overlap from 0 to 7"),
        (lambda: Windows(stride=2), "expected 1, or with published=True"),
        (lambda: Windows().of(0), "a film of 0 frames cannot be made"),
        (lambda: Windows(published=True).of(0), "a film of 0 frames cannot be made"),
        (lambda: interpolate_frames(torch.zeros(1, 1, 2, 1, 1), 0), "factor 0"),
    ],
)
def test_wrong_windows_are_told(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # pyright: ignore[reportCallIssue]


def test_factor_one_leaves_latents_as_they_are() -> None:
    latents = torch.randn(1, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert interpolate_frames(latents, 1) is latents
