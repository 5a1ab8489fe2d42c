"""Films: one person, moving smoothly, with a mouth that follows the sound."""

import numpy as np
import pytest

from referencenet.paperdoll.film import between, dance, talk
from referencenet.paperdoll.maps import lip_mask
from referencenet.paperdoll.pose import Pose, joints
from referencenet.paperdoll.voice import mouth_track


def test_dances_are_their_seeds_own_and_keep_person_and_place():
    film = dance(5, 6, num_frames=30)
    assert film.scenes == dance(5, 6, num_frames=30).scenes
    assert len(film) == 30
    assert len({scene.character for scene in film.scenes}) == 1
    assert len({scene.background for scene in film.scenes}) == 1


def test_dances_move_but_never_jump():
    film = dance(5, 6, num_frames=60)
    places = np.array([[point for point in joints(s.character, s.pose).values()] for s in film.scenes])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=-1)
    assert steps.max() < 9  # of a figure about 95 high
    assert np.ptp(places, axis=0).max() > 10


def test_between_two_poses_lies_the_middle():
    a, b = Pose.named("standing"), Pose.named("t-pose", "right")
    middle = between(a, b, 0.5)
    assert middle.yaw == pytest.approx(21)
    assert middle.right_arm == pytest.approx(tuple((x + y) / 2 for x, y in zip(a.right_arm, b.right_arm, strict=True)))
    assert between(a, b, 0.0) == a
    assert between(a, b, 1.0) == b


def test_talkers_mouths_follow_their_sound():
    film = talk(5, 6, num_frames=40)
    assert film.audio is not None
    track = mouth_track(film.audio, film.sample_rate, film.fps, 40)[:, 0]
    assert [scene.expression.mouth for scene in film.scenes] == pytest.approx(track.tolist())
    areas = [lip_mask(scene, 96).sum() for scene in film.scenes]
    assert np.corrcoef(areas, track)[0, 1] > 0.9


def test_talkers_heads_move_as_far_as_is_asked():
    moving, still = talk(5, 6, num_frames=40), talk(5, 6, num_frames=40, sway=0)
    assert len({scene.pose.head_turn for scene in moving.scenes}) == 40
    assert {(s.pose.head_turn, s.pose.head_pitch, s.pose.head_tilt) for s in still.scenes} == {(0, 0, 0)}
    assert [scene.expression for scene in still.scenes] == [scene.expression for scene in moving.scenes]


def test_talkers_follow_any_sound_and_blink():
    silent = talk(5, 6, num_frames=100, audio=np.zeros(64000))
    assert max(scene.expression.mouth for scene in silent.scenes) == 0
    eyes = [scene.expression.eyes for scene in silent.scenes]
    assert 2 <= eyes.count(0.0) < 20


def test_frames_are_drawn_in_the_size_asked_for():
    assert [frame.shape for frame in dance(1, 1, num_frames=2).frames((48, 64))] == [(64, 48, 3)] * 2


def test_empty_films_are_refused():
    for make in (dance, talk):
        with pytest.raises(ValueError, match="num_frames is 0"):
            make(1, 1, num_frames=0)
