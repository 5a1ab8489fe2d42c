"""`refnet preprocess` and `refnet models`: whole runs where the networks are fetched, else what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import told
from densepose_files import Newer, saved
from fetched import MODELS, needs_models
from referencenet.cli.app import app
from referencenet.cli.preprocess import tell_of
from referencenet.media.films import Film, write_film
from referencenet.media.images import read_image
from referencenet.preprocess.body import read_key_points
from referencenet.preprocess.face_geometry import projected
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.face_track import read_track
from referencenet.preprocess.following import Followed
from referencenet.preprocess.model_files import DENSEPOSE
from referencenet.preprocess.regions import Region
from tiny import picture

SIDE = 321  # odd: a coded film has even sides


def run(*typed: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in typed])


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """The astronaut moving to the left, and in frames 0 and 3 nobody."""
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    photograph = Image.fromarray(data.astronaut()).resize((360, 360))
    frames = [photograph.crop((6 * i, 0, 6 * i + SIDE, SIDE)) for i in range(5)]
    frames[0] = frames[3] = Image.new("RGB", (SIDE, SIDE), "grey")
    return write_film(frames, tmp_path / "film", 10)


@needs_models
@pytest.mark.parametrize("to", ["openpose", "face-track", "face-masks", "face-box", "person-mask"])
def test_films_become_films_as_long_with_a_preview(to: str, film: Path) -> None:
    out, preview = film.with_name("out.mp4"), film.with_name("preview.webm")
    result = run("preprocess", film, "--to", to, "-o", out, "--models", MODELS, "--preview", preview)
    assert result.exit_code == 0, result.output
    assert "2 of 5 frames do not show the person (from 0: 0, 3)" in told(result)
    made, count = list(Film(out)), 2 if to == "face-masks" else 1
    assert [frame.size for frame in made] == [(SIDE - 1, SIDE - 1)] * 5
    assert (len(Film(out)), Film(out).rate) == (5, 25)  # a folder's rate
    assert next(iter(Film(preview))).size == ((1 + count) * SIDE // 2 * 2, SIDE - 1)
    assert np.array(made[1]).max() > 200
    assert difference(made[0], made[1]) < difference(made[1], made[4])  # held, moved
    assert Path(film.with_name("out-lips.mp4")).exists() == (to == "face-masks")


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


@needs_models
def test_numbers_are_read_by_what_draws_them(film: Path) -> None:
    points, mesh, box, track, masks = (
        film.with_name(name) for name in ("points.json", "mesh.npz", "box.json", "track.npz", "masks.npz")
    )
    tos = ("openpose", "landmarks", "face-box", "face-track", "face-masks")
    for to, out in zip(tos, (points, mesh, box, track, masks), strict=True):
        result = run("preprocess", film, "--to", to, "-o", out, "--models", MODELS, "--frames", 3)
        assert result.exit_code == 0, result.output
    frames, size = read_key_points(points)
    assert (len(frames), size) == (3, (SIDE, SIDE))
    faces = read_landmarks(mesh)
    assert (len(faces), faces.rate) == (3, 25)
    places = json.loads(box.read_text())["frames"]
    left, top, right, bottom = places[2]["place"]
    nose = frames[2].body[0, :2] / SIDE
    assert left < nose[0] < right
    assert top < nose[1] < bottom
    heads = read_track(track)
    assert (heads.matrices.shape, heads.width, heads.rate) == ((3, 4, 4), SIDE, 25)
    seen = projected(heads.vertices, heads.matrices, SIDE, SIDE) / SIDE
    assert np.allclose(seen, faces.landmarks[:, :, :2], atol=1e-3)
    whole, lips = (FaceRegions.read(path, (SIDE, SIDE)) for path in (masks, box))
    assert np.array_equal(whole.place, lips.place)
    assert np.allclose(faces.landmarks[2].mean(axis=0)[:2], ((left + right) / 2, (top + bottom) / 2), atol=0.05)


@needs_models
def test_a_picture_becomes_a_picture_and_a_film_is_animated_at_once(film: Path) -> None:
    photograph = film / "000001.png"
    result = run("preprocess", photograph, "--to", "openpose", "-o", film.with_name("pose.png"), "--models", MODELS)
    assert result.exit_code == 0, result.output
    assert read_image(film.with_name("pose.png")).size == (SIDE, SIDE)
    for method in ("animate_anyone", "aniportrait"):
        result = run(
            "animate", "-r", photograph, "--video", film, "--method", method, "--random-tiny", "--models", MODELS,
            "--size", "64x64", "--frames", 2, "--steps", 1, "-o", film.with_name(f"{method}.gif"), "--device", "cpu",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "2 frames in" in told(result)


@needs_models
def test_films_without_anybody_are_told(tmp_path: Path) -> None:
    film = write_film([picture(0, (64, 64))] * 2, tmp_path / "film")
    result = run("preprocess", film, "--to", "openpose", "-o", tmp_path / "out.mp4", "--models", MODELS)
    assert result.exit_code == 2
    assert "none of 2 frames shows anybody" in told(result)
    assert not (tmp_path / "out.mp4").exists()


def test_bodies_are_found_by_a_densepose_file(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV has the colour maps")
    film = write_film([picture(i, (40, 30)) for i in range(2)], tmp_path / "film")
    saved(Newer(), tmp_path / DENSEPOSE)
    ground = {"densepose": (68, 1, 84), "densepose-black": (0, 0, 0)}
    for to, colour in ground.items():
        result = run("preprocess", film, "--to", to, "-o", tmp_path / to, "--models", tmp_path)
        assert result.exit_code == 0, result.output
        frames = list(Film(tmp_path / to))
        assert [frame.size for frame in frames] == [(40, 30)] * 2
        assert frames[1].getpixel((0, 0)) == colour
        assert frames[1].getpixel((8, 8)) not in ground.values()
    result = run(
        "animate", "-r", film / "000000.png", "--video", film, "--method", "magic_animate", "--random-tiny", "--models",
        tmp_path, "--steps", 1, "--size", "32x32", "-o", tmp_path / "film.gif", "--device", "cpu", "--side-by-side",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shown = next(iter(Film(tmp_path / "film.gif"))).getpixel((32, 0))  # the drawing's corner
    assert np.abs(np.subtract(shown, ground["densepose"])).max() < 24


def test_what_does_not_fit_is_refused_before_networks_are_read(tmp_path: Path) -> None:
    film = write_film([picture(0, (64, 64))], tmp_path / "film")
    picture(0, (64, 64)).save(tmp_path / "photo.png")
    refused = [
        (film, "landmarks", "out.json", "--to landmarks does not write .json; give .npz"),
        (film, "person-mask", "out.npz", "give a picture, a film or a folder"),
        (film, "openpose", "out.mov", "use .mp4"),
        (tmp_path / "photo.png", "openpose", "out.mp4", "names no picture format"),
        (tmp_path / "none.mp4", "openpose", "out.mp4", "there is no film"),
        (film, "openpose", "out.mp4", "run `refnet models fetch`"),
        (film, "densepose", "out.mp4", "get densepose_rcnn_R_50_FPN_s1x_fp32.pt from the releases of"),
    ]
    for source, to, out, words in refused:
        result = run("preprocess", source, "--to", to, "-o", tmp_path / out, "--models", tmp_path / "nothing")
        assert result.exit_code == 2
        assert words in told(result)


def test_what_was_found_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    def regions(image: Image.Image) -> list[Region]:
        return [Region(x=4 + 8 * i, y=4, side=8) for i in range(image.getpixel((0, 0))[0])]

    frames = [Image.new("RGB", (64, 8), (people, 0, 0)) for people in (1, 0, 2, *[1] * 10)]
    doubt = {"in profile": range(3, 13)}
    numbers = iter(number for number in range(13) if number != 1)
    followed = Followed(
        frames, regions, lambda *_: next(numbers), None,
        lambda number, _: next((why for why, those in doubt.items() if number in those), None),
    )  # fmt: skip
    list(followed)
    tell_of(followed, None)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 13 frames do not show the person (from 0: 1)" in said
    assert "the face is in profile in 10 of 13 frames (from 0: 3, 4, 5, 6, 7, 8, 9, 10, ...)" in said
    assert "up to 2 were found in a frame; the largest is followed. --person N takes another" in said


def test_options_of_a_video_need_one(tmp_path: Path) -> None:
    picture(0, (64, 64)).save(tmp_path / "photo.png")
    given = ("animate", "-r", tmp_path / "photo.png", "--random-tiny", "-o", tmp_path / "out.gif")
    assert "none of them was given" in told(run(*given, "--person", 2, "-p", tmp_path))
    result = run(*given, "--method", "animate_anyone.reenact", "--video", tmp_path)
    assert "head and mouth" in told(result)


def test_a_wrong_wheel_is_told(tmp_path: Path) -> None:
    result = run("models", "fetch", "--to", tmp_path, "--wheel", tmp_path / "none.whl")
    assert result.exit_code == 2
    assert "there is no" in told(result)
