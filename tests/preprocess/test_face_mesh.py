"""Face meshes: what is drawn, read, carried over and cropped, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from referencenet.preprocess.face_geometry import pose_matrices, projected
from referencenet.preprocess.face_mesh import FaceMeshFilm, draw_face_mesh, read_landmarks
from referencenet.preprocess.face_track import FaceTrack, crop_portrait, read_track, reenacted

RANDOM = np.random.default_rng(0)
HEAD = np.array([4.0, -3.0, 2.0, 0.5, 1.0, -30.0])


def track(frames: int) -> FaceTrack:
    poses = HEAD + RANDOM.normal(size=(frames, 6))
    return FaceTrack(
        vertices=RANDOM.normal(size=(frames, 468, 3)) * 3,
        matrices=pose_matrices(poses),
        blendshapes=RANDOM.random((frames, 51)),
        width=96,
        height=64,
    )


def test_a_landmark_outside_takes_its_edges_away() -> None:
    face = RANDOM.random((468, 2))
    whole = draw_face_mesh(face, 512, 512)
    lips = face.copy()
    lips[61, 0] = 1.5  # a corner of the mouth
    assert set(np.unique(whole.reshape(-1, 3), axis=0)[:, 0]) >= {0, 10, 180}
    assert 0 < (draw_face_mesh(lips, 512, 512) > 0).sum() < (whole > 0).sum()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_landmarks_are_read(suffix: str, tmp_path: Path) -> None:
    faces, path = RANDOM.random((3, 478, 3)), tmp_path / f"faces{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps({"landmarks": faces.tolist(), "rate": 25}))
    elif suffix == ".npz":
        np.savez(path, landmarks=faces, rate=25)
    else:
        np.save(path, faces)
    film = read_landmarks(path, width=40, height=24)
    assert (len(film), film.rate) == (3, 30 if suffix == ".npy" else 25)
    assert next(iter(film)).size == (40, 24)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (np.zeros((2, 68, 2)), r"shape \(2, 68, 2\); expected \(frames, 468 or 478"),
        (np.zeros((0, 468, 2)), "expected"),
        (np.full((1, 468, 2), np.nan), "NaN or infinite"),
    ],
)
def test_other_landmarks_are_refused(faces: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceMeshFilm(faces)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a film of landmarks"):
        read_landmarks(tmp_path / "a.json")
    with pytest.raises(ValueError, match="is not a face track"):
        read_track(tmp_path / "a.json")


def test_a_driver_that_rests_shows_the_portrait_whatever_its_own_proportions() -> None:
    portrait, driver = track(1), track(1)
    expected = projected(portrait.vertices, portrait.matrices, 96, 64)[0] / (96, 64)
    for size in ({}, {"width": 64, "height": 96}):
        rests = FaceTrack(vertices=driver.vertices.repeat(4, 0), matrices=portrait.matrices.repeat(4, 0), **size)
        assert np.allclose(reenacted(rests, portrait).landmarks, expected)


def test_a_track_is_read_as_it_was_written(tmp_path: Path) -> None:
    driver = track(5)
    np.savez(tmp_path / "track.npz", **vars(driver) | {"rate": 30})
    read = read_track(tmp_path / "track.npz")
    assert read.neutral == driver.blendshapes.sum(1).argmin()
    assert np.array_equal(reenacted(read, track(1)).landmarks.shape, (5, 468, 2))
    with pytest.raises(ValueError, match=r"expected \(frames, 468, 3\)"):
        FaceTrack(vertices=driver.vertices[:, :100], matrices=driver.matrices)


def test_a_small_face_is_cropped_and_a_large_one_gives_the_middle() -> None:
    portrait = Image.new("RGB", (200, 100), "white")
    small = 0.05 + 0.1 * RANDOM.random((468, 2))
    small[:2] = [[0.05, 0.05], [0.15, 0.15]]
    cropped = crop_portrait(portrait, small)
    assert cropped.size == (30, 30)  # 1.5 times a face 20 pixels wide
    assert cropped.getpixel((0, 0)) == (0, 0, 0) or cropped.getpixel((0, 0)) == (255, 255, 255)
    assert crop_portrait(portrait, small * 6).size == (100, 100)
