"""What commands take as faces in space: tracks, films and portraits; re-enactment as it is typed."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import told
from fetched import MODELS, needs_models
from films import picture
from referencenet.cli.app import app
from referencenet.cli.face_inputs import film_head_poses, film_track, reenactment, with_track
from referencenet.cli.preprocess import Frames
from referencenet.cli.talk import moving
from referencenet.links.bank import ReferenceBank
from referencenet.media.films import Film, write_film
from referencenet.pipelines.film_files import FilmSettings
from referencenet.preprocess.face_geometry import pose_matrices, projected
from referencenet.preprocess.face_track import FaceTrack, read_track, reenacted
from referencenet.preprocess.model_files import LANDMARKER
from referencenet.preprocess.talking_face import head_poses_of

RANDOM = np.random.default_rng(0)


def write_track(path: Path, frames: int, **size: int) -> FaceTrack:
    poses = np.array([5.0, 0, 0, 0, 0, -30]) + np.arange(frames)[:, None] * [0, 3, 0, 0.2, 0, 0]
    vertices = RANDOM.normal(size=(frames, 468, 3)) * 3
    track = FaceTrack(vertices=vertices, matrices=pose_matrices(poses), rate=Fraction(25), **size)
    np.savez(path, **track.document())
    return track


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A portrait of 64 x 48, its track and a driver's."""
    picture(0).resize((64, 48)).save(tmp_path / "hero.png")
    write_track(tmp_path / "hero.npz", 1, width=64, height=48)
    write_track(tmp_path / "driver.npz", 4, width=96, height=32)
    return tmp_path


def animate(folder: Path, *typed: object) -> Result:
    common = ("animate", "--method", "aniportrait", "-r", folder / "hero.png", "--random-tiny", "--device", "cpu")
    return CliRunner().invoke(app, [str(word) for word in (*common, "--steps", 1, *typed)])


def test_tracks_are_reenacted_at_the_portraits_proportions(folder: Path) -> None:
    driver, hero = (read_track(folder / f"{name}.npz") for name in ("driver", "hero"))
    hero_picture = picture(0)
    given = (folder / "driver.npz", folder / "hero.npz", hero_picture, None, None)
    subject, film = reenactment(*given, FilmSettings())
    assert subject is hero_picture
    assert np.array_equal(film.landmarks, reenacted(driver, hero).landmarks)
    assert (len(film), film.rate) == (4, 25)
    assert (film.width, film.height) == (592, 440)  # 4 : 3 at the area of 512 x 512
    _, small = reenactment(*given, FilmSettings(width=64, height=64))
    assert next(iter(small)).size == (64, 64)


def test_a_film_is_made_of_tracks_with_its_settings_beside_it(folder: Path) -> None:
    given = ("--driving", folder / "driver.npz", "--face", folder / "hero.npz", "--size", "64x48", "--side-by-side")
    result = animate(folder, *given, "--frames", 2, "-o", folder / "out.mp4")
    assert result.exit_code == 0, result.output
    film = list(Film(folder / "out.mp4"))
    assert [frame.size for frame in film] == [(3 * 64, 48)] * 2
    assert np.asarray(film[1])[:, 64:128].max() > 60  # a drawing
    settings = json.loads((folder / "out.mp4.json").read_text())
    assert (settings["driving"], settings["rate"]) == (str(folder / "driver.npz"), "25")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--driving", "{0}/driver.npz", "--models", "{0}"), "short_range.tflite; run `refnet models fetch`"),
        (("--driving", "{0}/driver.npz", "--face", "{0}/driver.npz"), "has the faces of 4 frames; expected that"),
        (("--driving", "{0}/hero.png", "--face", "{0}/hero.npz", "--models", "{0}"), "run `refnet models fetch`"),
        (("--driving", "{0}/none.mp4", "--face", "{0}/hero.npz"), "there is no --driving"),
        (("--face", "{0}/hero.npz", "-p", "{0}"), "--face is the portrait's for --driving"),
        (("--driving", "{0}/driver.npz", "--video", "x"), "--video and --driving were given; give one"),
        (("--models", "{0}", "-p", "{0}"), "none of them was given"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(folder: Path, typed: tuple[str, ...], message: str) -> None:
    write_film([picture(0)], folder / "film.mp4", 25)
    result = animate(folder, *(word.format(folder) for word in typed), "-o", folder / "out.mp4")
    assert result.exit_code == 2
    assert message.format(folder) in told(result)
    assert result.output.count("\n") == 1
    assert not (folder / "out.mp4").exists()


def test_a_bank_needs_the_portraits_track(folder: Path) -> None:
    bank = object.__new__(ReferenceBank)  # of which nothing is read
    with pytest.raises(ValueError, match="a bank shows no face; give the portrait's with --face NPZ"):
        with_track(None, bank, None)
    assert len(with_track(folder / "hero.npz", bank, None)[1].vertices) == 1


def test_head_poses_come_from_templates_and_tracks(folder: Path) -> None:
    np.save(folder / "poses.npy", np.ones((7, 6)))
    assert film_head_poses(folder / "poses.npy").shape == (7, 6)
    expected = head_poses_of(read_track(folder / "driver.npz"))
    assert np.array_equal(film_head_poses(folder / "driver.npz"), expected)


def test_every_other_frame_of_a_fast_film_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (40 * i, 0, 0)) for i in range(5)]
    write_film(frames, tmp_path / "film", 25)
    halved = Frames(tmp_path / "film", None, 2)
    assert [round(frame.getpixel((0, 0))[0] / 40) for frame in halved] == [0, 2, 4]
    assert (len(halved), halved.rate) == (3, Fraction(25, 2))
    limited = Frames(tmp_path / "film", 2, 2)
    assert len(limited) == len(list(limited)) == 2


def test_a_bundle_finds_the_faces_of_a_film_and_a_portrait(folder: Path) -> None:
    tasks = pytest.importorskip("task_files", reason="LiteRT and its schema write the bundle")
    mesh = RANDOM.normal(size=(468, 3)) * (5, 6, 3)
    points = np.concatenate([mesh * (10, -10, -10) + 128, np.full((10, 3), 100.0)])
    tasks.write_task(folder / LANDMARKER, points, RANDOM.normal(size=(52, 292)) / 1000, mesh)
    write_film([picture(i) for i in range(3)], folder / "film.mp4", 25)
    given = ("--driving", folder / "film.mp4", "--models", folder, "--size", "64x48", "--side-by-side")
    result = animate(folder, *given, "-o", folder / "out")
    assert result.exit_code == 0, result.output
    assert "3 frames in" in told(result)
    assert "approximate" not in told(result)
    _, portrait = with_track(None, picture(0), folder)
    expected = reenacted(film_track(folder / "film.mp4", folder), portrait)
    assert np.allclose(expected.landmarks, expected.landmarks[0])  # one face, held still
    assert len(list(Film(folder / "out"))) == 3


@pytest.fixture
def speaker(tmp_path: Path) -> Path:
    """The astronaut's face as a portrait; and turning in a film of 60 frames a second, of which one shows nobody."""
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    photograph = Image.fromarray(data.astronaut())
    close = photograph.crop((130, 30, 320, 220))
    close.save(tmp_path / "hero.png")
    frames = [close.rotate(3 * i, center=(95, 98)).resize((160, 160)) for i in range(6)]
    frames[4] = Image.new("RGB", (160, 160), "grey")
    write_film(frames, tmp_path / "driver.mp4", 60)
    return tmp_path


@needs_models
def test_a_portrait_with_a_small_face_is_cut_around_it(speaker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    close = Image.open(speaker / "hero.png")
    whole = Image.new("RGB", (600, 400), "grey")
    whole.paste(close, (380, 100))
    cut, track = with_track(None, whole, MODELS)
    assert "of the portrait, which is cut around it" in " ".join(capsys.readouterr().err.split())
    assert isinstance(cut, Image.Image)
    assert cut.width == cut.height < 190
    assert (track.width, track.height) == cut.size
    seen = projected(track.vertices, track.matrices, *cut.size)[0] / cut.size
    assert np.allclose((seen.min(axis=0) + seen.max(axis=0)) / 2, 0.5, atol=0.03)  # the face in the middle
    left, kept = with_track(None, close, MODELS)
    assert left is close
    assert (kept.width, kept.height) == close.size


@needs_models
def test_a_driving_film_moves_a_portrait_in_one_command(speaker: Path) -> None:
    given = ("--driving", speaker / "driver.mp4", "--models", MODELS, "--size", "64x64", "--side-by-side")
    result = animate(speaker, *given, "-o", speaker / "out.mp4")
    assert result.exit_code == 0, result.output
    for words in (
        "the film has 60 frames a second; one in 2 is taken",
        "1 of 3 frames do not show the person (from 0: 2)",
        "head poses are approximate",
        "3 frames in",
    ):
        assert words in told(result)
    shown = [np.asarray(frame).astype(int)[:, 64:128] for frame in Film(speaker / "out.mp4")]
    assert all(drawing.max() > 60 for drawing in shown)
    poses = film_head_poses(speaker / "driver.mp4", MODELS)
    assert poses.shape == (3, 6)
    assert np.array_equal(moving(speaker / "driver.mp4", None)["head_poses"], poses)  # `refnet talk --head-poses`
    track = film_track(speaker / "driver.mp4", MODELS)
    turned = np.degrees(np.arctan2(track.matrices[:, 1, 0], track.matrices[:, 0, 0]))
    assert turned[1] - turned[0] == pytest.approx(6, abs=2)  # frames 0 and 2 of the film
    assert turned[2] == turned[1]  # held
    Image.new("RGB", (64, 64), "grey").save(speaker / "hero.png")
    result = animate(speaker, *given, "-o", speaker / "none.mp4")
    assert (result.exit_code, "no face was found in the picture of" in told(result)) == (2, True)
