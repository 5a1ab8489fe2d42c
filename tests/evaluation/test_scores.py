"""Scores of pictures whose score is known: planted errors move the right one, and no other."""

import numpy as np
import pytest

from referencenet.evaluation import scores
from referencenet.paperdoll.film import talk
from referencenet.paperdoll.maps import garment_mask
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene

SIZE = (48, 64)
SCENES = [Scene.from_seeds(character, 3, view="front", shot="upper body") for character in (4, 5)]
TRUTH = np.stack([render(scene, SIZE) for scene in SCENES])
GARMENTS = np.stack([garment_mask(scene, SIZE) for scene in SCENES])


def changed(masks: np.ndarray, by: int) -> np.ndarray:
    """The truth, other by so much inside of masks, away from where it would be cut off."""
    lighter = TRUTH.astype(int) + np.where(TRUTH < 128, by, -by)
    return np.where(masks[..., None], lighter, TRUTH).astype(np.uint8)


def test_the_truth_scores_perfectly() -> None:
    assert scores.squared_error(TRUTH, TRUTH) == 0
    assert scores.mean_psnr(TRUTH, TRUTH, GARMENTS) == float("inf")
    assert scores.masked_ssim(TRUTH, TRUTH, GARMENTS) == pytest.approx(1)
    assert scores.colour_error(TRUTH, TRUTH, GARMENTS) == 0


def test_an_error_in_the_mask_is_none_outside_and_the_reverse() -> None:
    inside, outside = changed(GARMENTS, 51), changed(~GARMENTS, 51)
    assert scores.squared_error(inside, TRUTH, GARMENTS) == pytest.approx(0.2**2)
    assert scores.mean_psnr(inside, TRUTH, GARMENTS) == pytest.approx(-20 * np.log10(0.2))
    assert scores.squared_error(inside, TRUTH, ~GARMENTS) == 0
    assert scores.squared_error(outside, TRUTH, GARMENTS) == 0
    assert scores.colour_error(outside, TRUTH, GARMENTS) == 0


def test_right_colours_in_other_places_are_no_error_of_colour() -> None:
    stirred = TRUTH.copy()
    for picture, mask in zip(stirred, GARMENTS, strict=True):
        picture[mask] = picture[mask][::-1]
    assert scores.colour_error(stirred, TRUTH, GARMENTS) == pytest.approx(0, abs=1e-9)
    assert scores.squared_error(stirred, TRUTH, GARMENTS) > 0
    assert scores.masked_ssim(stirred, TRUTH, GARMENTS) < 0.9


def test_pictures_of_another_shape_and_empty_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        scores.squared_error(TRUTH, TRUTH[:, 1:])
    with pytest.raises(ValueError, match="all masks are empty"):
        scores.squared_error(TRUTH, TRUTH, np.zeros_like(GARMENTS))
    one_is_empty = GARMENTS * np.array([True, False])[:, None, None]
    assert scores.squared_error(changed(GARMENTS, 51), TRUTH, one_is_empty) == pytest.approx(0.2**2)


def test_what_flickers_is_an_error_in_time_and_what_is_wrong_alike_in_all_frames_is_none() -> None:
    film = np.stack(list(talk(4, 9, num_frames=6).frames(32)))[None].clip(20, 235)
    assert scores.frame_error(film, film) == 0
    assert scores.frame_error(film + np.uint8(20), film) == 0
    flickers = film + np.uint8(20) * np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8).reshape(1, 6, 1, 1, 1)
    assert scores.frame_error(flickers, film) == pytest.approx(20)
    still = np.repeat(film[:, :1], 6, axis=1)
    assert scores.frame_error(still, film) > 0
    with pytest.raises(ValueError, match="at least two"):
        scores.frame_error(film[:, :1], film[:, :1])


def test_colours_that_differ_between_views_are_told_from_those_that_are_wrong_in_all() -> None:
    views = TRUTH[:1].repeat(4, axis=0).clip(40, 215)
    masks = [GARMENTS[:1].repeat(4, axis=0)]
    assert scores.colour_spread(views, views, masks) == 0
    assert scores.colour_spread(views + np.uint8(30), views, masks) == 0
    other = views.copy()
    other[1::2] += 40
    assert scores.colour_spread(other, views, masks) == pytest.approx(20)


def test_a_mouth_is_read_from_pixels_and_its_lag_is_found() -> None:
    wave = (1 + np.sin(np.arange(20) * 1.3) * np.cos(np.arange(20) * 0.4)) / 2
    closed = np.full((20, 8, 8, 3), 200.0)
    opened = closed.copy()
    opened[:, 2:6, 2:6] = 60
    masks = np.ones((20, 8, 8), dtype=bool)
    frames = closed + (opened - closed) * wave[:, None, None, None]
    track = scores.mouth_opening(frames, closed, opened, masks)
    assert track == pytest.approx(wave)
    assert scores.correlation(track, wave) == pytest.approx(1)
    assert scores.lag_of(track, wave) == 0
    late = np.roll(wave, 2)
    assert scores.lag_of(late, wave) == 2
    assert scores.lag_of(wave, late) == -2
    assert scores.correlation(late, wave, lag=2) == pytest.approx(1)
    assert scores.correlation(np.full(20, 0.5), wave) == 0
    assert scores.correlation(1 - wave, wave) == pytest.approx(-1)


def test_a_mouth_is_looked_for_beside_its_place() -> None:
    wave = np.array([0.0, 0.25, 1.0, 0.5])
    closed = np.full((4, 20, 20, 3), 200.0)
    closed[:, 9, 8:12] = 120  # the line of the lips
    opened = closed.copy()
    opened[:, 8:12, 8:12] = 60
    masks = np.zeros((4, 20, 20), dtype=bool)
    masks[:, 6:14, 6:14] = True
    frames = closed + (opened - closed) * wave[:, None, None, None]
    moved = np.roll(frames, (2, -1), axis=(1, 2))
    assert scores.mouth_opening(moved, closed, opened, masks, reach=2) == pytest.approx(wave)
    assert scores.mouth_opening(moved, closed, opened, masks) != pytest.approx(wave, abs=0.1)


def test_aspects_are_counted_by_their_own_source_and_by_others() -> None:
    own = [{"colour": "red", "hair": "bun"}, {"colour": "blue"}]
    others = [{"colour": {"red", "green"}, "hair": {"bun"}}, {"colour": {"blue", "green"}}]
    right = [{"colour": "red", "hair": "bun"}, {"colour": "blue", "hair": "bob"}]
    names = ("colour", "hair")
    assert scores.share_seen(right, own, names) == 1
    assert scores.share_strayed(right, own, others, names) == 0
    strayed = [{"colour": "green", "hair": "bun"}, right[1]]
    assert scores.share_seen(strayed, own, names) == pytest.approx(0.75)  # half of colours, all of hair
    assert scores.share_strayed(strayed, own, others, names) == 0.5  # the hair has no other source
    elsewhere = [{"colour": "pink", "hair": "bun"}, right[1]]
    assert scores.share_strayed(elsewhere, own, others, names) == 0


def test_the_gap_is_measured_from_the_cut_link_whichever_way_is_better() -> None:
    assert scores.gap_closed(0.04, cut=0.06, best=0.02) == pytest.approx(0.5)
    assert scores.gap_closed(0.8, cut=0.2, best=1.0) == pytest.approx(0.75)
    assert scores.gap_closed(0.1, cut=0.2, best=1.0) == pytest.approx(-0.125)
    assert scores.gap_closed(0.5, cut=0.5, best=0.5) is None
