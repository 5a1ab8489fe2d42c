"""A portrait that speaks: lengths that fail as published, rates, head poses of films and templates, released files."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.methods.tiny import filled
from referencenet.paperdoll.voice import speech
from referencenet.preprocess import speech as speech_module
from referencenet.preprocess import talking_face as module
from referencenet.preprocess.face_geometry import pose_matrices, projected
from referencenet.preprocess.face_track import FaceTrack
from referencenet.preprocess.talking_face import (
    TalkingFace,
    at_rate,
    forth_and_back,
    head_poses_of,
    read_head_poses,
)

RNG = np.random.default_rng(0)
PORTRAIT = FaceTrack(
    vertices=RNG.normal(size=(1, 468, 3)) * 4, matrices=pose_matrices(np.array([[5, 2, 1, 0, 0, -30.0]]))
)


@pytest.fixture(scope="module")
def face() -> TalkingFace:
    return TalkingFace(
        *(filled(build(AUDIO2LMK.tiny_config), i) for i, build in enumerate(AUDIO2LMK.build.values()))  # pyright: ignore
    )


def film_track(num_frames: int, rate: Fraction = Fraction(30)) -> FaceTrack:
    """A head that turns by a degree a frame, from a pose that is not neutral."""
    turns = np.zeros((num_frames, 6))
    turns[:, 1] = np.arange(num_frames)
    start = pose_matrices(np.array([10, -5, 3, 1, 2, -30.0]))
    return FaceTrack(vertices=np.zeros((num_frames, 468, 3)), matrices=start @ pose_matrices(turns), rate=rate)


@pytest.mark.parametrize("seconds", [0.03, 1.0, 4.99, 5.0, 9.99, 10.0, 12.34])
def test_every_length_has_as_many_poses_as_frames(face: TalkingFace, seconds: float) -> None:
    sound = speech(0, seconds)
    frames = ceil(Fraction(len(sound), 16000) * 30)
    assert face.poses(sound, 0).shape == (frames, 6)
    assert face.offsets(sound).shape == (frames, 468, 3)


def test_poses_are_decoded_in_chunks_of_five_seconds_the_last_takes_the_rest(face: TalkingFace) -> None:
    decoded: list[int] = []
    handle = face.audio2pose.register_forward_hook(lambda _m, _a, out: decoded.append(out.shape[1]))
    for seconds in (4.0, 5.0, 9.9, 10.0, 12.0):
        face.poses(speech(0, seconds), 0)
    handle.remove()
    assert decoded == [120, 150, 297, 150, 150, 150, 210]


def test_angles_are_halved_and_smoothed(face: TalkingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.from_numpy(RNG.normal(size=(1, 30, 6))).float()
    monkeypatch.setattr(face.audio2pose, "forward", lambda *_: raw)
    found = face.poses(speech(0, 1.0), 0)
    halved = raw[0].double().numpy() * [0.5, 0.5, 0.5, 1, 1, 1]
    assert np.allclose(found[10], halved[7:14].mean(axis=0))
    assert np.allclose(found[0], halved[:4].mean(axis=0))


def test_landmarks_are_the_portraits_mesh_moved_and_projected(face: TalkingFace) -> None:
    sound = speech(0, 0.5)
    film = face(sound, PORTRAIT, identity=7)
    mesh = PORTRAIT.vertices[0] + face.offsets(sound)
    matrices = PORTRAIT.matrices[0] @ pose_matrices(face.poses(sound, 7))
    assert np.allclose(film.landmarks * 512, projected(mesh, matrices, 512, 512))
    assert (len(film), film.rate, next(iter(film)).size) == (15, 30, (512, 512))


def test_identities_are_drawn_by_the_seed(face: TalkingFace) -> None:
    sound = speech(0, 0.5)
    drawn = {face.identity_of(seed) for seed in range(200)}
    assert face.identities == 100
    assert drawn <= set(range(100))
    assert len(drawn) > 50
    assert np.array_equal(face(sound, PORTRAIT, seed=3).landmarks, face(sound, PORTRAIT, seed=3).landmarks)
    own = face(sound, PORTRAIT, identity=face.identity_of(3)).landmarks
    assert np.array_equal(face(sound, PORTRAIT, seed=3).landmarks, own)
    with pytest.raises(ValueError, match="identity is 100, of 15 frames; expected 0 to 99"):
        face(sound, PORTRAIT, identity=100)
    with pytest.raises(ValueError, match="by one of them"):
        face(sound, PORTRAIT, identity=1, head_poses=np.zeros((3, 6)))


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)], ids=float)
def test_every_rate_shows_the_same_movement(face: TalkingFace, rate: Fraction) -> None:
    sound = speech(0, 2.0)
    film, trained = face(sound, PORTRAIT, rate=rate), face(sound, PORTRAIT)
    assert (len(film), film.rate) == (ceil(2 * rate), rate)
    middle = int(rate)  # one second in
    assert np.abs(film.landmarks[middle] - trained.landmarks[round(middle / rate * 30)]).max() < 0.01
    poses = np.zeros((4, 6))
    poses[:, 1] = [0, 10, 20, 30]
    assert len(face(sound, PORTRAIT, rate=rate, head_poses=poses)) == len(film)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30)], ids=float)
def test_faces_are_made_in_blocks_and_the_same(face: TalkingFace, rate: Fraction, monkeypatch: Any) -> None:
    sound = speech(0, 2.0)
    whole = face(sound, PORTRAIT, identity=1, rate=rate).landmarks
    monkeypatch.setattr(module, "BLOCK", 7)
    asked: list[int] = []
    handle = face.audio2mesh.register_forward_hook(lambda _m, args, _o: asked.append(args[0].shape[1]))
    film = face(sound, PORTRAIT, identity=1, rate=rate)
    assert asked == []  # nothing is made before it is read
    assert np.allclose(film.landmarks, whole, atol=1e-6)
    handle.remove()
    assert len(film) == 2 * rate
    assert max(asked) <= 10  # 7 frames of the film and the next


def test_a_long_sounds_film_holds_no_faces(face: TalkingFace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "WHOLE", 4)
    monkeypatch.setattr(speech_module, "PIECE", 2)
    held: list[int] = []
    for seconds in (10, 30):
        sound = np.resize(speech(0, 4.0), 16000 * seconds)
        tracemalloc.start()
        film = face(sound, PORTRAIT, head_poses=np.zeros((3, 6)), rate=25)
        assert sum(1 for _ in film.faces()) == len(film) == 25 * seconds
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    a_second = (held[1] - held[0]) / 20
    assert a_second < 1.2 * 4 * 16000  # the sound itself; faces would take 25 * 468 * 2 * 8 more


def test_templates_are_played_forth_and_back() -> None:
    poses = np.arange(4)[:, None] * np.ones(6)
    assert forth_and_back(poses, 11)[:, 0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2]
    assert forth_and_back(poses[:2], 5)[:, 0].tolist() == [0, 1, 0, 1, 0]
    assert forth_and_back(poses[:1], 3)[:, 0].tolist() == [0, 0, 0]


def test_a_films_head_poses_are_relative_to_its_first_frame() -> None:
    poses = head_poses_of(film_track(31))
    assert poses.shape == (31, 6)
    assert np.allclose(poses[2:-2, 1], np.arange(2, 29))  # averaged over five frames
    assert np.allclose(np.delete(poses, 1, axis=1), 0, atol=1e-9)
    slow = head_poses_of(film_track(16, Fraction(15)))  # the same second at half the rate
    assert slow.shape == (31, 6)
    assert np.allclose(slow[2:-2, 1], np.arange(2, 29) / 2)


def test_frames_between_are_interpolated_and_the_last_one_stays() -> None:
    values = np.arange(4.0)[:, None]
    assert at_rate(values, Fraction(30), Fraction(60), 9)[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3, 3]
    assert at_rate(values, Fraction(30), Fraction(30), 3)[:, 0].tolist() == [0, 1, 2]


def test_head_poses_come_from_templates_and_tracks(tmp_path: Path) -> None:
    np.save(tmp_path / "temp.npy", np.ones((165, 6), dtype=np.float32))
    assert read_head_poses(tmp_path / "temp.npy").shape == (165, 6)
    track = film_track(5)
    np.savez(tmp_path / "film.npz", vertices=track.vertices, matrices=track.matrices, width=512, height=512, rate=30)
    assert np.allclose(read_head_poses(tmp_path / "film.npz"), head_poses_of(track))
    for value in (np.ones((3, 7)), np.ones(6), np.full((2, 6), np.nan), np.ones((0, 6))):
        np.save(tmp_path / "wrong.npy", value)
        with pytest.raises(ValueError, match=r"wrong.npy holds no head poses .*expected \(frames, 6\)"):
            read_head_poses(tmp_path / "wrong.npy")
    (tmp_path / "wrong.npy").write_text("no numbers")
    with pytest.raises(ValueError, match="wrong.npy holds no arrays"):
        read_head_poses(tmp_path / "wrong.npy")


def released(face: TalkingFace, folder: Path, **renames: str) -> dict[str, dict[str, Any]]:
    """The two files, as published: with the table of positions, and perhaps torch's former names of weight norm."""
    states: dict[str, dict[str, Any]] = {}
    for name in AUDIO2LMK.components:
        state = getattr(face, name).state_dict()
        for ours, theirs in renames.items():
            state = {key.replace(f"parametrizations.weight.{ours}", theirs): value for key, value in state.items()}
        states[name] = state
    states["audio2pose"]["PPE.pe"] = torch.zeros(1, 600, 16)
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pt")
    return states


@pytest.mark.parametrize("renames", [{}, {"original0": "weight_g", "original1": "weight_v"}], ids=["today's", "former"])
def test_released_files_are_read_strictly(face: TalkingFace, renames: dict[str, str], tmp_path: Path) -> None:
    states = released(face, tmp_path, **renames)
    read = TalkingFace.from_published(tmp_path, config=AUDIO2LMK.tiny_config)
    sound = speech(0, 0.5)
    assert np.array_equal(read(sound, PORTRAIT).landmarks, face(sound, PORTRAIT).landmarks)
    del states["audio2mesh"]["out_fn.bias"]
    torch.save(states["audio2mesh"], tmp_path / "audio2mesh.pt")
    with pytest.raises(CheckpointError, match=r"lacks 1 of its keys: out_fn\.bias"):
        TalkingFace.from_published(tmp_path, config=AUDIO2LMK.tiny_config)
    (tmp_path / "audio2pose.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs audio2pose\.pt, not found .*ZJYang/AniPortrait"):
        TalkingFace.from_published(tmp_path, config=AUDIO2LMK.tiny_config)
