"""What drawn pictures get wrong, in numbers: pure functions of pictures whose truth is known.

Letters: n pictures, f frames, v views, (H, W) pixels; pictures are uint8, masks bool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from referencenet.paperdoll.scores import WINDOW, ssim_map

MOST_LAG = 5
"""Frames by which a mouth is looked for before and behind its voice."""


def squared_error(pictures: np.ndarray, truth: np.ndarray, masks: np.ndarray | None = None) -> float:
    """Mean squared error of values in [0, 1]: of each picture inside its mask, then over the pictures.

    Args:
        pictures: (n, H, W, 3).
        truth: Of the same shape.
        masks: (n, H, W); None: all of the picture. Pictures with an empty mask do not count.
    """
    return float(np.mean(errors(pictures, truth, masks)))


def mean_psnr(pictures: np.ndarray, truth: np.ndarray, masks: np.ndarray | None = None) -> float:
    """Mean over the pictures of the peak signal-to-noise ratio inside their masks, in decibels; arguments as above."""
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(errors(pictures, truth, masks))))


def errors(pictures: np.ndarray, truth: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Each picture's mean squared error inside its mask, (n,); arguments as for `squared_error`.

    Raises:
        ValueError: If shapes differ, or all masks are empty.
    """
    pictures, truth = _alike(pictures, truth)
    by_pixel = ((pictures - truth) / 255.0) ** 2
    by_pixel = by_pixel.mean(axis=-1)
    if masks is None:
        return by_pixel.reshape(len(by_pixel), -1).mean(axis=1)
    counted = masks.any(axis=(1, 2))
    if not counted.any():
        raise ValueError("all masks are empty; expected one that shows something.")
    return np.array([error[mask].mean() for error, mask in zip(by_pixel[counted], masks[counted], strict=True)])


def masked_ssim(pictures: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> float:
    """Mean structural similarity of the windows whose middle lies in a picture's mask; arguments as above."""
    edge = WINDOW // 2
    found: list[float] = []
    for picture, true, mask in zip(pictures, truth, masks, strict=True):
        inner = mask[edge:-edge, edge:-edge]
        if inner.any():
            found.append(float(ssim_map(picture, true)[inner].mean()))
    return float(np.mean(found))


def colour_error(pictures: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> float:
    """Mean difference of the masks' mean colours, 0 to 255: right colours in other places are no error."""
    pictures, truth = _alike(pictures, truth)
    found = [
        np.abs(picture[mask].mean(axis=0) - true[mask].mean(axis=0)).mean()
        for picture, true, mask in zip(pictures, truth, masks, strict=True)
        if mask.any()
    ]
    return float(np.mean(found))


def frame_error(films: np.ndarray, truth: np.ndarray) -> float:
    """Mean difference, 0 to 255, of what changes from a frame to the next: what flickers, and what stands still.

    Args:
        films: (n, f, H, W, 3), at least two frames.
        truth: Of the same shape.

    Raises:
        ValueError: If there is one frame only.
    """
    films, truth = _alike(films, truth)
    if films.shape[1] < 2:
        raise ValueError("the films have one frame; expected at least two, of which one can follow another.")
    return float(np.abs(np.diff(films, axis=1) - np.diff(truth, axis=1)).mean())


def colour_spread(views: np.ndarray, truth: np.ndarray, masks: Sequence[np.ndarray]) -> float:
    """How much a person's colours differ from view to view, 0 to 255, beyond what they do in the truth.

    Of every part the difference of its mean colour to the truth's is taken view by view; a difference that all views
    share is none of consistency, so its standard deviation over the views is what counts.

    Args:
        views: Of one person, (v, H, W, 3).
        truth: Of the same shape.
        masks: Of each part where it is in every view, (v, H, W).
    """
    views, truth = _alike(views, truth)
    found: list[float] = []
    for part in masks:
        seen = [i for i, mask in enumerate(part) if mask.any()]
        if len(seen) > 1:
            apart = [views[i][part[i]].mean(axis=0) - truth[i][part[i]].mean(axis=0) for i in seen]
            found.append(float(np.std(apart, axis=0).mean()))
    return float(np.mean(found))


def mouth_opening(
    frames: np.ndarray, closed: np.ndarray, opened: np.ndarray, masks: np.ndarray, reach: int = 0
) -> np.ndarray:
    """How far a mouth is open in each frame, by least squares on the way from the closed mouth to the open one.

    Args:
        frames: (f, H, W, 3).
        closed: The same person and head with the mouth closed, of the same shape.
        opened: Likewise, wide open.
        masks: Where the mouth may be, (f, H, W).
        reach: Pixels by which the mouth is looked for beside its place, where the head may have moved: what fits best.

    Returns:
        (f,): 0 is closed, 1 is wide open.
    """
    frames, closed = _alike(frames, closed)
    way = opened.astype(np.float64) - closed
    offsets = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]

    def track(frame: np.ndarray, start: np.ndarray, step: np.ndarray, mask: np.ndarray) -> float:
        rows, columns = np.nonzero(mask)
        begin, going = start[rows, columns], step[rows, columns]
        fits: list[tuple[float, float]] = []
        for y, x in offsets:
            beyond = frame[np.clip(rows + y, 0, len(frame) - 1), np.clip(columns + x, 0, frame.shape[1] - 1)] - begin
            opening = float(np.clip(np.sum(beyond * going) / max(np.sum(going**2), 1e-9), 0, 1))
            fits.append((float(np.sum((beyond - opening * going) ** 2)), opening))
        return min(fits)[1]

    return np.array([track(*each) for each in zip(frames, closed, way, masks, strict=True)])


def correlation(track: np.ndarray, voice: np.ndarray, lag: int = 0) -> float:
    """Pearson's correlation of two tracks (f,), the first taken `lag` frames later; 0 where one does not move."""
    first, last = max(0, lag), len(track) + min(0, lag)
    a, b = track[first:last], voice[first - lag : last - lag]
    if len(a) < 2 or np.std(a) < 1e-6 or np.std(b) < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def lag_of(track: np.ndarray, voice: np.ndarray, most: int = MOST_LAG) -> int:
    """By how many frames a track (f,) is behind another where they agree best; negative: before it."""
    lags = sorted(range(-most, most + 1), key=abs)
    return max(lags, key=lambda lag: correlation(track, voice, lag))


def share_seen(seen: Sequence[Mapping[str, str]], asked: Sequence[Mapping[str, str]], aspects: Sequence[str]) -> float:
    """Mean over aspects of the share of pictures in which an aspect is seen as asked.

    Args:
        seen: Of each picture aspect to value.
        asked: Likewise; where a picture is not asked for an aspect it does not count.
        aspects: Which.
    """
    found: list[float] = []
    for aspect in aspects:
        hits = [one[aspect] == other[aspect] for one, other in zip(seen, asked, strict=True) if aspect in other]
        if hits:
            found.append(float(np.mean(hits)))
    return float(np.mean(found))


def share_strayed(
    seen: Sequence[Mapping[str, str]],
    own: Sequence[Mapping[str, str]],
    others: Sequence[Mapping[str, set[str]]],
    aspects: Sequence[str],
) -> float:
    """Share of aspects that are seen as in a source which is not their own: how much the sources are mixed up.

    Args:
        seen: Of each picture aspect to value.
        own: Aspect to the value in its own source.
        others: Aspect to the values in the other sources; where one of them is the own value it is not counted.
        aspects: Which.
    """
    hits = [
        one[aspect] in other[aspect] - {right[aspect]}
        for one, right, other in zip(seen, own, others, strict=True)
        for aspect in aspects
        if aspect in right and other.get(aspect, set()) - {right[aspect]}
    ]
    return float(np.mean(hits)) if hits else 0.0


def gap_closed(score: float, cut: float, best: float) -> float | None:
    """Share of the way from the score of the cut link (0) to the best that can be (1); None where there is no way."""
    return None if best == cut else (score - cut) / (best - cut)


def _alike(pictures: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64.

    Raises:
        ValueError: If their shapes differ.
    """
    if pictures.shape != truth.shape:
        raise ValueError(f"the pictures are {pictures.shape}, the truth {truth.shape}; expected one shape.")
    return pictures.astype(np.float64), truth.astype(np.float64)
