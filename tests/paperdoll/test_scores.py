"""Scores against values worked out by hand."""

import numpy as np
import pytest

from referencenet.paperdoll.scores import psnr, ssim

RNG = np.random.Generator(np.random.PCG64(5))


def test_psnr_of_a_constant_error():
    truth = np.full((16, 16, 3), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0)
    assert psnr(truth, truth) == float("inf")


def test_bytes_and_fractions_are_the_same_picture():
    a, b = (RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8) for _ in range(2))
    assert psnr(a, b) == pytest.approx(psnr(a / 255, b / 255))
    assert ssim(a, b) == pytest.approx(ssim(a / 255, b / 255))


def test_ssim_of_constant_pictures_is_the_luminance_term():
    a, b = np.full((16, 16), 0.3), np.full((16, 16), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4))


def test_ssim_of_an_inverted_pattern_is_the_structure_term():
    """Two checkerboards of opposite phase have equal means and variances and the covariance -variance."""
    board = (np.indices((11, 11)).sum(axis=0) % 2).astype(float)
    offsets = np.arange(11) - 5
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    m = float((window * board).sum())
    v = m - m * m  # values 0 and 1: their squares are themselves
    expected = (2 * m * (1 - m) + 1e-4) * (-2 * v + 9e-4) / ((m * m + (1 - m) ** 2 + 1e-4) * (2 * v + 9e-4))
    assert ssim(board, 1 - board) == pytest.approx(expected)


def test_ssim_of_a_picture_with_itself_is_one():
    picture = RNG.random((40, 24, 3))
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert ssim(picture, np.clip(picture + 0.05, 0, 1)) < 1


@pytest.mark.parametrize(
    ("picture", "truth", "message"),
    [
        (np.zeros((16, 16)), np.zeros((16, 17)), "expected the same shape"),
        (np.zeros(16), np.zeros(16), r"picture has shape \(16,\); expected"),
        (np.full((16, 16), np.nan), np.zeros((16, 16)), "picture holds NaN"),
    ],
)
def test_pictures_that_cannot_be_compared_are_refused(picture, truth, message):
    for score in (psnr, ssim):
        with pytest.raises(ValueError, match=message):
            score(picture, truth)


def test_pictures_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="expected at least 11 pixels each way"):
        ssim(np.zeros((10, 30)), np.zeros((10, 30)))
