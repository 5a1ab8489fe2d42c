"""Skeletons fitted to another body, against the truth: paperdoll draws the other body in that pose."""

from dataclasses import replace

import numpy as np
import pytest

from referencenet.paperdoll import Character, Pose, Scene, keypoints
from referencenet.preprocess import BodyPoints, fit_bodies
from referencenet.preprocess.body import NOBODY

SIZE = (384, 512)
POSES = (
    "standing",
    "arms raised",
    "waving",
    "walking",
    "running",
    "t-pose",
    "pointing",
    "dancing",
    "kicking",
    "flexing",
)


def character(build: str, height: str) -> Character:
    return replace(Character.from_seed(3), build=build, height=height, face="oval")


def points(who: Character, pose: str) -> BodyPoints:
    found = keypoints(Scene(character=who, pose=Pose.named(pose)), SIZE).astype(np.float64)
    return BodyPoints(body=found * (*SIZE, 1))


def error(ours: list[BodyPoints], truth: list[BodyPoints]) -> float:
    """Mean distance in pixels of points that both see."""
    return float(
        np.mean(
            [
                np.hypot(*(a.body[:, :2] - b.body[:, :2]).T)[(a.body[:, 2] > 0) & (b.body[:, 2] > 0)].mean()
                for a, b in zip(ours, truth, strict=True)
            ]
        )
    )


def film(who: Character, poses: tuple[str, ...] = POSES) -> list[BodyPoints]:
    return [points(who, pose) for pose in poses]


SLIM_SHORT, BROAD_TALL, MEDIUM = character("slim", "short"), character("broad", "tall"), character("medium", "middle")


@pytest.mark.parametrize(
    ("driving", "reference"),
    [(SLIM_SHORT, BROAD_TALL), (BROAD_TALL, SLIM_SHORT), (MEDIUM, BROAD_TALL), (SLIM_SHORT, MEDIUM)],
    ids=["small to large", "large to small", "middle to large", "small to middle"],
)
def test_fitted_points_are_ten_times_closer_to_the_other_body_s_true_ones(
    driving: Character, reference: Character
) -> None:
    truth, given = film(reference), film(driving)
    fitted = fit_bodies(given, points(reference, "standing"))
    assert error(fitted, truth) <= 0.1 * error(given, truth)


def test_two_frames_are_enough_to_be_closer_in_most_poses() -> None:
    """A figure that is measured standing and in one other pose."""
    closer = []
    for pose in POSES[1:]:
        poses = ("standing", pose)
        truth, given = film(BROAD_TALL, poses), film(SLIM_SHORT, poses)
        fitted = fit_bodies(given, points(BROAD_TALL, "standing"))
        closer.append(error(fitted[1:], truth[1:]) / error(given[1:], truth[1:]))
    assert max(closer) < 1
    assert float(np.mean(closer)) <= 0.25


def test_own_proportions_change_nothing() -> None:
    given = film(MEDIUM)
    assert error(fit_bodies(given, points(MEDIUM, "standing")), given) < 0.1


def test_figure_stands_where_the_reference_does_and_moves_by_its_size() -> None:
    reference = points(MEDIUM, "standing")
    smaller = BodyPoints(body=reference.body * (0.5, 0.5, 1) + (100, 40, 0))
    strides = [BodyPoints(body=reference.body + (20 * i, -6 * i, 0)) for i in range(3)]
    fitted = fit_bodies(strides, smaller)
    assert np.allclose(fitted[0].body, smaller.body, atol=1e-6)
    assert np.allclose(fitted[2].body[:, :2] - fitted[0].body[:, :2], (20, -6), atol=1e-6)


def test_hands_follow_wrists_and_faces_follow_noses() -> None:
    body = points(MEDIUM, "t-pose").body
    seen = np.ones((21, 1))
    around = np.linspace(0, 6, 21)[:, None]
    hand = np.hstack([body[7, :2] + around * (3.0, 0.5), seen])
    face = np.hstack([body[0, :2] + np.random.default_rng(0).normal(size=(68, 2)) * 9, np.ones((68, 1))])
    large = BodyPoints(body=body, left_hand=hand, face=face)
    reference = BodyPoints(body=large.body * (0.5, 0.5, 1), left_hand=large.left_hand * (0.4, 0.4, 1))
    (fitted,) = fit_bodies([large], reference)
    assert np.allclose(fitted.left_hand[0, :2], fitted.body[7, :2])
    assert np.allclose(np.ptp(fitted.left_hand[:, :2], axis=0), 0.4 * np.ptp(hand[:, :2], axis=0))
    assert np.allclose(fitted.face[:, :2] - fitted.body[0, :2], 0.5 * (face[:, :2] - body[0, :2]), atol=1e-6)
    assert fitted.right_hand is None


def test_unseen_points_stay_unseen_and_empty_frames_empty() -> None:
    given = film(MEDIUM, ("standing", "waving"))
    body = given[1].body.copy()
    body[[3, 8, 16]] = 0
    fitted = fit_bodies([given[0], NOBODY, BodyPoints(body=body)], points(BROAD_TALL, "standing"))
    assert not fitted[1].is_seen
    assert np.array_equal(fitted[2].body[:, 2], body[:, 2])
    assert not fitted[2].body[[3, 8, 16]].any()
    assert np.isfinite(fitted[2].body).all()


def test_a_figure_from_the_knees_up_is_placed_by_its_neck() -> None:
    given = film(MEDIUM, ("standing", "waving"))
    close = [BodyPoints(body=np.where(np.isin(np.arange(18), (10, 13))[:, None], 0, f.body)) for f in given]
    reference = points(BROAD_TALL, "standing")
    assert np.allclose(fit_bodies(close, reference)[0].body[1, 1], reference.body[1, 1])


@pytest.mark.parametrize(
    ("driving", "reference", "message"),
    [
        ([NOBODY], points(MEDIUM, "standing"), "the driving film shows no one"),
        (film(MEDIUM, ("standing",)), NOBODY, "the reference shows no one"),
        (film(MEDIUM, ("standing",)), BodyPoints(body=np.eye(18)[:, :1] * (5, 5, 1)), "the reference shows no bone"),
    ],
)
def test_figures_that_share_nothing_are_told(driving: list[BodyPoints], reference: BodyPoints, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_bodies(driving, reference)
