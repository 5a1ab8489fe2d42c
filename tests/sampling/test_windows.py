"""Context windows: ours cover every frame once and blend; the published ones are held by the golden case."""

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from referencenet.sampling.between import interpolate_frames
from referencenet.sampling.windows import (
    OVERLAP,
    PUBLISHED_OVERLAP,
    Window,
    Windows,
    add_prediction,
    cover,
    groups,
    published_windows,
    total_weights,
)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cover_gives_every_frame_the_weight_one_without_wrap_around(data: st.DataObject) -> None:
    num_frames, size = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 32))
    overlap = data.draw(st.integers(0, size // 2))
    windows = cover(num_frames, size, overlap)
    assert torch.allclose(total_weights(windows, num_frames), torch.ones(()), atol=1e-6)
    assert all(window.frames == tuple(range(window.frames[0], window.frames[-1] + 1)) for window in windows)
    assert len({window.frames for window in windows}) == len(windows)
    sizes = [len(window.frames) for window in windows]
    assert size >= sizes[0] >= sizes[-1] >= sizes[0] - 1
    assert sizes == sorted(sizes, reverse=True)
    assert all(weight > 0 for window in windows for weight in window.weights)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.integers(4, 32))
def test_neighbours_share_the_overlap(num_frames: int, size: int) -> None:
    windows = cover(num_frames, size, size // 3)
    for first, second in zip(windows, windows[1:], strict=False):
        assert len(set(first.frames) & set(second.frames)) == size // 3


@pytest.mark.parametrize(("num_frames", "ours", "theirs"), [(64, 68, 96), (25, 27, 48), (24, 24, 24), (1, 1, 1)])
def test_ours_predict_fewer_frames_than_the_published(num_frames: int, ours: int, theirs: int) -> None:
    assert sum(len(window.frames) for window in Windows().of(num_frames)) == ours
    assert sum(len(window.frames) for window in Windows(published=True).of(num_frames)) == theirs


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400))
def test_default_windows_cover_every_film_and_blend_every_seam(num_frames: int) -> None:
    """No wrap-around, no window twice, weights of a frame sum to one, neighbours share two frames that both weigh."""
    windows = Windows().of(num_frames)
    assert [window.frames for window in windows] == sorted({window.frames for window in windows})
    assert all(window.frames == tuple(range(window.frames[0], window.frames[-1] + 1)) for window in windows)
    assert {frame for window in windows for frame in window.frames} == set(range(num_frames))
    assert torch.allclose(total_weights(windows, num_frames), torch.ones(()), atol=1e-6)
    assert len(windows[0].frames) <= Windows().size
    for first, second in zip(windows, windows[1:], strict=False):
        shared = set(first.frames) & set(second.frames)
        assert len(shared) == OVERLAP
        parts = [dict(zip(window.frames, window.weights, strict=True)) for window in (first, second)]
        assert all(0 < part[frame] < 1 for part in parts for frame in shared)


@settings(max_examples=60, deadline=None)
@given(st.integers(49, 2000))
def test_default_film_costs_its_frames_and_two_per_seam(num_frames: int) -> None:
    """With as few seams as windows of 24 allow."""
    windows = Windows().of(num_frames)
    assert len(windows) == ceil((num_frames - OVERLAP) / (Windows().size - OVERLAP))
    assert sum(len(window.frames) for window in windows) == num_frames + (len(windows) - 1) * OVERLAP


def test_overlap_left_open_is_that_of_the_schedule() -> None:
    assert Windows().of(64) == Windows(overlap=OVERLAP).of(64) == cover(64, 24, 2)
    assert Windows(published=True).of(64) == Windows(published=True, overlap=PUBLISHED_OVERLAP).of(64)
    assert [window.frames[0] for window in Windows(published=True).of(64)] == [0, 20, 40, 60]


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
        (lambda: Windows(size=3), r"windows of 3 frames with an overlap of 2 cannot be"),
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


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 32))
def test_groups_have_one_size_and_count_every_frame_once(num_frames: int, size: int) -> None:
    found = groups(num_frames, size)
    assert Windows(size=size, overlap=0, filled=True).of(num_frames) == found
    assert len(found) == ceil(num_frames / size)
    assert {len(window.frames) for window in found} == {size}
    assert torch.equal(total_weights(found, num_frames), torch.ones(num_frames, 1, 1))
    counted = [frame for w in found for frame, weight in zip(w.frames, w.weights, strict=True) if weight]
    assert counted == list(range(num_frames))


def test_a_last_group_is_filled_with_what_is_before_it_or_with_the_last_frame() -> None:
    assert groups(9, 4)[-1] == Window((5, 6, 7, 8), (0.0, 0.0, 0.0, 1.0))
    assert groups(2, 4) == [Window((0, 1, 1, 1), (1.0, 1.0, 0.0, 0.0))]
    for settings_ in ({"overlap": 1}, {"published": True, "overlap": 0}, {}):
        with pytest.raises(ValueError, match="filled windows share no frames"):
            Windows(size=8, filled=True, **settings_)
