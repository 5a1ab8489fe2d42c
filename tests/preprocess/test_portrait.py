"""Portraits: found in a photograph, their regions and landmarks from files, and faces that cannot be used."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fetched import MODELS, needs_models
from heads import aside, head
from referencenet.preprocess import FaceMesh, FaceRegions, Portrait
from referencenet.preprocess.conditions import FaceBox, FaceMasks, Landmarks
from referencenet.preprocess.face_doubts import TURNED
from referencenet.preprocess.portrait import square_around
from referencenet.preprocess.regions import Region

SIZE = (320, 240)


def face(x: float, y: float, turn: float = 0) -> np.ndarray:
    """Landmarks (468, 3) in pixels of a face 60 pixels wide and 80 high, turned aside by so many degrees."""
    return aside(head(), turn) * (4.3, -4.4, -4.3) + (x, y, 0)


class Reader:
    """Finds the faces that it was told of."""

    def __init__(self, *faces: np.ndarray | None, places: int = 0) -> None:
        self.faces, self.places = faces, places or len(faces)

    def regions(self, _image: Image.Image) -> list[Region]:
        return [Region(x=50 + 100 * i, y=120, side=80 - i) for i in range(self.places)]

    def read(self, _image: Image.Image, region: Region) -> np.ndarray | None:
        return self.faces[round((region.x - 50) / 100)]


def test_a_square_is_cut_around_the_face_and_landmarks_move_with_it() -> None:
    image = Image.new("RGB", SIZE)
    image.putpixel((150, 100), (255, 255, 255))
    found = Portrait.found(image, Reader(face(150, 110)))
    points = found.points()
    width, height = found.picture.size
    assert width == height == pytest.approx(80 / 0.6, abs=3)
    shift = face(150, 110)[0, :2] - points[0]
    assert found.picture.getpixel(tuple((np.array([150, 100]) - shift).round().astype(int).tolist())) == (255,) * 3
    assert np.allclose(points.max(axis=0) + points.min(axis=0), width, atol=2)  # in the middle
    assert found.located().place.shape == (height, width)


def test_a_square_stays_inside_and_a_full_square_is_left_whole() -> None:
    points = face(20, 40)[:, :2]
    left, top, side = square_around(points, SIZE)
    assert (left, top) == (0, 0)
    assert side < SIZE[1]
    assert square_around(points * 4, SIZE)[2] == SIZE[1]
    assert square_around(face(60, 60), (120, 120)) == (0, 0, 120)


def test_who_is_meant_and_what_is_doubtful_is_told() -> None:
    image, said = Image.new("RGB", SIZE), []
    two = Reader(face(60, 110), face(250, 110))
    largest = Portrait.found(image, two, told=said.append)
    assert said == ["the picture shows 2 faces; the largest is taken, person 1 from the left."]
    second = Portrait.found(image, two, person=2, told=said.append)
    assert len(said) == 1
    assert largest.picture.size == second.picture.size
    with pytest.warns(UserWarning, match="the picture shows 2 faces"):
        Portrait.found(image, two)
    with pytest.warns(UserWarning, match=f"the face is {TURNED}"):
        Portrait.found(image, Reader(face(150, 110, turn=55)))
    for refused, words in (
        ((Reader(face(300, 110)), None), "cut off by the right border: give a picture with the whole face"),
        ((Reader(face(150, 110, turn=78)), None), "in profile: .* looks at the camera"),
        ((two, 3), "face 3 from the left was asked for, but the picture of 320 x 240 pixels shows 2"),
    ):
        with pytest.raises(ValueError, match=words):
            Portrait.found(image, refused[0], person=refused[1])
    with pytest.raises(ValueError, match=r"no face was found in the picture of 320 x 240"):
        Portrait.found(image, Reader())
    with pytest.raises(ValueError, match="is not a face that can be read"):
        Portrait.found(image, Reader(None, places=1))


def written(kind: type[Landmarks], path: Path, *faces: np.ndarray) -> Path:
    """A file as `refnet preprocess` writes it."""
    condition = object.__new__(kind)  # without networks
    condition.write(faces, path, SIZE, Fraction(25))
    return path


def test_files_of_preprocess_are_the_regions_of_the_landmarks(tmp_path: Path) -> None:
    points = face(150.3, 110.6)
    expected = vars(FaceRegions.of(points, SIZE))
    for kind, name in ((FaceMasks, "masks.npz"), (Landmarks, "points.npz"), (FaceBox, "box.json")):
        read = FaceRegions.read(written(kind, tmp_path / name, points), SIZE)
        for part, value in expected.items():
            assert np.array_equal(vars(read)[part], value), (name, part)
    film = [points, points + (12, -7, 0)]
    trained = vars(FaceRegions.of_film(film, SIZE))
    for kind, name in ((FaceMasks, "film.npz"), (Landmarks, "film-points.npz"), (FaceBox, "film.json")):
        read = FaceRegions.read(written(kind, tmp_path / name, *film), SIZE)
        assert all(np.array_equal(vars(read)[part], value) for part, value in trained.items()), name


def test_a_portrait_takes_those_files(tmp_path: Path) -> None:
    square, points = Image.new("RGB", (240, 240)), face(120, 110)
    scaled = points * (SIZE[0] / 240, 1, 1)  # fractions are the same
    by_landmarks = Portrait(picture=square, landmarks=written(Landmarks, tmp_path / "points.npz", scaled))
    assert np.allclose(by_landmarks.points(), points[:, :2], atol=1e-3)
    expected = FaceRegions.of(by_landmarks.points(), (240, 240))
    assert np.array_equal(by_landmarks.located().lip, expected.lip)
    with pytest.raises(ValueError, match="is of a picture of 320 x 240, the portrait is 240 x 240"):
        Portrait(picture=square, regions=written(FaceBox, tmp_path / "box.json", points)).located()
    document = json.loads((tmp_path / "box.json").read_text()) | {"width": 240}
    (tmp_path / "box.json").write_text(json.dumps(document))
    by_box = Portrait(picture=square, regions=tmp_path / "box.json").located()
    assert np.array_equal(by_box.face, FaceRegions.of(points, (240, 240)).face)
    with pytest.raises(ValueError, match="faces of 2 frames"):
        Portrait(picture=square, landmarks=written(Landmarks, tmp_path / "film.npz", points, points)).points()
    with pytest.raises(ValueError, match="the portrait has no landmarks"):
        Portrait(picture=square).points()


def test_other_files_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", depth=np.zeros(3))
    (tmp_path / "other.json").write_text('{"frames": [{}]}')
    (tmp_path / "text.npz").write_text("no numbers")
    for name in ("other.npz", "other.json", "text.npz"):
        with pytest.raises(ValueError, match=r"does not say where a face is .*--to face-masks"):
            FaceRegions.read(tmp_path / name, SIZE)
    with pytest.raises(FileNotFoundError):
        FaceRegions.read(tmp_path / "none.npz", SIZE)


@needs_models
def test_the_astronaut_becomes_a_portrait_of_her_face() -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    image = Image.fromarray(data.astronaut()).convert("RGBA")
    found = Portrait.found(image, FaceMesh(MODELS))
    side = found.picture.width
    assert found.picture.size == (side, side)
    points = found.points()
    assert 0.5 < np.ptp(points, axis=0).max() / side < 0.7
    assert 0.03 < found.located().place.mean() / 255 < 0.8
