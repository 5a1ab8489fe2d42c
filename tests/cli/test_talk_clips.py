"""`refnet talk` with Hallo and EMO as it is typed: from a portrait and a sound to a film with that sound."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fetched import MODELS, needs_models
from films import write_released
from referencenet.cli.app import app
from referencenet.media.films import Film, frame_rate, parts_of
from referencenet.media.sound import SAMPLE_RATE, read_sound
from referencenet.methods.hallo import PUBLISHED
from referencenet.methods.tiny import tiny_speech_model
from referencenet.paperdoll.voice import speech
from referencenet.preprocess import Portrait
from referencenet.preprocess.face_geometry import pose_matrices
from released import write_released as write_with_keys
from sounds import write_sound
from talking import face_points
from tiny import picture, tiny_pipeline

SIDE = 32
SHOWN = 64  # pixels of the portrait, in which the face is not tiny
CLICK = 0.21  # seconds


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A portrait, its landmarks and 0.3 s of sound, as typed."""
    picture(0, (SHOWN, SHOWN)).save(tmp_path / "portrait.png")
    np.savez(tmp_path / "face.npz", landmarks=face_points(1)[None])
    write_sound(tmp_path / "speech.wav", speech(0, 0.3, 44100), 44100)
    return [
        "talk", "-r", str(tmp_path / "portrait.png"), "--face", str(tmp_path / "face.npz"), "-a",
        str(tmp_path / "speech.wav"), "--size", str(SIDE), "--steps", "1", "-o", str(tmp_path / "film.mp4"),
    ]  # fmt: skip


def said(*typed: object, status: int = 0) -> str:
    """What a command says in lines without breaks."""
    result = CliRunner().invoke(app, [str(word) for word in typed])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def one_line(*typed: object) -> str:
    """The lesson of a refused command: one line."""
    result = CliRunner().invoke(app, [str(word) for word in typed])
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
    return result.output


def told(typed: list[Any]) -> str:
    """The last line of a command that is refused after others."""
    result = CliRunner().invoke(app, [str(word) for word in typed])
    assert result.exit_code == 2, result.output
    return result.output.splitlines()[-1]


def pixels(path: Path) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in Film(path)])


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "typed", "frames"),
    [("hallo", "24", 8), ("emo", None, 8), ("hallo", "29.97", 9), ("emo", "30", 9)],
)
def test_a_click_lies_on_its_frame_at_every_rate(
    method: str, typed: str | None, frames: int, given: list[str], tmp_path: Path
) -> None:
    samples = np.zeros(4800, dtype=np.float32)
    samples[round(CLICK * 16000)] = 1.0
    write_sound(tmp_path / "speech.wav", samples, 16000)
    said(*given, "--method", method, "--random-tiny", *([] if typed is None else ["--fps", typed]))
    rate = frame_rate(float(typed or 25))
    with av.open(str(tmp_path / "film.mp4")) as film:
        times = [float(frame.time or 0) for frame in film.decode(video=0)]
    assert len(times) == frames
    track = np.abs(read_sound(tmp_path / "film.mp4"))
    click = float(np.argmax(track > track.max() / 2)) / SAMPLE_RATE
    shown = times[round(CLICK * float(rate))]  # the frame whose moment is the click's, as it is played
    assert abs(click - CLICK) < 0.1 / rate
    assert abs(click - shown) < 0.5 / rate + 0.1 / rate  # half a frame, as a moment may lie between two
    assert np.allclose(times, np.arange(frames) / float(rate), atol=1e-4)


def test_settings_lie_beside_a_film_with_the_portrait_in_it(given: list[str], tmp_path: Path) -> None:
    output = said(*given, "--method", "hallo", "--random-tiny", "--side-by-side", "--lip-weight", "2", "--seed", "5")
    assert "tiny random weights" in output
    assert "8 frames in" in output
    assert next(iter(Film(tmp_path / "film.mp4"))).size == (2 * SIDE, SIDE)
    found = json.loads((tmp_path / "film.mp4.json").read_text())
    expected = {"method": "hallo", "lip_weight": 2.0, "pose_weight": 1.0, "rate": "25", "num_frames": 8, "width": SIDE,
                "num_inference_steps": 1, "guidance_scale": 3.5, "seed": 5}  # fmt: skip
    assert expected.items() <= found.items()
    assert "head_speed" not in found


@pytest.mark.parametrize(
    ("method", "further"),
    [("hallo", {"--face-embedding": "known.npy", "--pose-weight": "3", "--face-weight": "3", "--lip-weight": "3",
                "--vocals": "voice.wav", "--guidance": "1"}),
     ("emo", {"--head-speed": "6", "--vocals": "voice.wav"})],
)  # fmt: skip
def test_options_change_the_film(method: str, further: dict[str, str], given: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "known.npy", np.random.default_rng(0).normal(size=512))
    write_sound(tmp_path / "voice.wav", speech(7, 0.3, 16000), 16000)
    typed = [*given, "--method", method, "--random-tiny", "--frames", "1", "--fps", "4"]
    said(*typed, "-o", tmp_path / "plain")
    for option, value in further.items():
        changed = str(tmp_path / value) if "." in value else value
        said(*typed, "-o", tmp_path / "other", option, changed, "--overwrite")
        assert not np.array_equal(pixels(tmp_path / "other"), pixels(tmp_path / "plain")), option


def test_the_voice_is_heard_and_the_sound_is_the_track(given: list[str], tmp_path: Path) -> None:
    write_sound(tmp_path / "voice.wav", speech(7, 0.3, 16000), 16000)
    said(*given, "--method", "emo", "--random-tiny", "--vocals", tmp_path / "voice.wav")
    found, expected = read_sound(tmp_path / "film.mp4"), read_sound(tmp_path / "speech.wav")
    count = min(len(found), len(expected))
    assert np.corrcoef(found[:count], expected[:count])[0, 1] > 0.95
    write_sound(tmp_path / "voice.wav", speech(7, 0.5, 16000), 16000)
    lesson = one_line(*given, "--method", "emo", "--random-tiny", "--overwrite", "--vocals", tmp_path / "voice.wav")
    assert "has 0.50 s" in lesson
    assert "0.30 s; expected the voice of that sound" in lesson


def test_a_face_track_is_as_good_as_landmarks(given: list[str], tmp_path: Path) -> None:
    """A frontal mesh 30 before the camera whose projection is the landmarks'."""
    side, focal = 64, 1 / np.tan(np.radians(31.5))
    flat = (face_points(2)[:, :2] - 1) * 30 * 1.0001 / focal
    vertices = np.concatenate([flat * (1, -1), np.zeros((468, 1))], axis=1)[None]
    matrices = pose_matrices(np.array([[0, 0, 0, 0, 0, -30.0]]))
    np.savez(tmp_path / "track.npz", vertices=vertices, matrices=matrices, width=side, height=side, rate=30)
    typed = [*given, "--method", "emo", "--random-tiny", "--frames", "2"]
    said(*typed, "-o", tmp_path / "a")
    said(*typed, "-o", tmp_path / "b", "--face", tmp_path / "track.npz")
    assert np.array_equal(pixels(tmp_path / "a"), pixels(tmp_path / "b"))


def test_a_bank_speaks_as_its_portrait(given: list[str], tmp_path: Path) -> None:
    typed = [*given, "--method", "hallo", "--random-tiny", "--frames", "2"]
    said(*typed, "-o", tmp_path / "portrait")
    shown = Portrait(picture=tmp_path / "portrait.png", landmarks=face_points(SHOWN))
    tiny_pipeline("hallo").write(shown, width=SIDE, height=SIDE).save(tmp_path / "bank.safetensors")
    bank = [word for word in typed if word not in ("--face", str(tmp_path / "face.npz"))]
    said(*bank, "-r", tmp_path / "bank.safetensors", "-o", tmp_path / "bank")
    assert np.array_equal(pixels(tmp_path / "portrait"), pixels(tmp_path / "bank"))
    assert "knows its face; leave --face out" in one_line(*typed, "-r", tmp_path / "bank.safetensors")


def test_an_interrupted_command_goes_on_and_only_as_it_was_begun(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(tmp_path / "speech.wav", speech(0, 0.6, 16000), 16000)  # 15 frames, two clips
    typed = [*given, "--method", "emo", "--random-tiny"]
    said(*typed, "-o", tmp_path / "whole")

    def stop(_bar: Any, _task: Any, done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("referencenet.cli.talk_clips.show", stop)
        said(*typed, "-o", tmp_path / "cut", status=130)
    assert len(list(parts_of(tmp_path / "cut").glob("00000000-12/*.png"))) == 12
    other = told([*typed, "-o", tmp_path / "cut", "--resume", "--head-speed", "3"])
    assert "was begun with other settings (head_speed was 0.5, now 3.0)" in other
    said(*typed, "-o", tmp_path / "cut", "--resume")
    assert np.array_equal(pixels(tmp_path / "cut"), pixels(tmp_path / "whole"))


@pytest.mark.parametrize("is_converted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_released_and_saved_files_speak(is_converted: bool, given: list[str], tmp_path: Path) -> None:
    pipe = tiny_pipeline("hallo")
    folder = tmp_path / "files"
    if is_converted:
        pipe.save_pretrained(folder)
    else:
        write_with_keys(pipe, PUBLISHED, folder)
    tiny_speech_model(pipe).save_pretrained(folder / "wav2vec" / "wav2vec2-base-960h")
    typed = [*given, "--method", "hallo", "--frames", "2"]
    base = [] if is_converted else ["--base", folder / "base"]
    said(*typed, "-o", tmp_path / "a", "--random-tiny")
    said(*typed, "-o", tmp_path / "b", "--checkpoint", folder, *base)
    assert np.abs(pixels(tmp_path / "a").astype(int) - pixels(tmp_path / "b")).max() <= 1
    elsewhere = (folder / "wav2vec").rename(tmp_path / "elsewhere") / "wav2vec2-base-960h"
    said(*typed, "-o", tmp_path / "c", "--checkpoint", folder, *base, "--speech", elsewhere)
    assert np.array_equal(pixels(tmp_path / "b"), pixels(tmp_path / "c"))
    lesson = one_line(*typed, "-o", tmp_path / "d", "--checkpoint", folder, *base)
    assert "hallo hears by a speech model, not found at" in lesson
    assert "with --speech. Get it from huggingface.co/facebook" in lesson


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_shipped")
def test_without_a_checkpoint_it_says_which_files_to_get(given: list[str]) -> None:
    screen = said(*given, "--method", "hallo", status=2)
    for part in ("hallo/net.pth", "wav2vec2-base-960h", "sd-vae-ft-mse", "fudan-generative-ai/hallo", "licence"):
        assert part in screen
    screen = said(*given, "--method", "emo", status=2)
    for part in ("has no weights: its authors published neither code nor weights", "mm_sd_v15_v2.ckpt"):
        assert part in screen


REFUSED: dict[str, tuple[list[str], str]] = {
    "another system's option": (["--method", "emo", "--lip-weight", "2"], "--lip-weight is for hallo"),
    "another system's speed": (["--method", "hallo", "--head-speed", "2"], "--head-speed is for emo"),
    "no number": (["--method", "hallo", "--lip-weight", "nan"], "--lip-weight is nan; give a finite number"),
    "no square": (["--method", "hallo", "--size", "64x32"], "hallo draws squares, such as --size 512x512"),
    "more frames than sound": (["--method", "emo", "--frames", "9"], "--frames is 9, but the sound has 8 frames"),
    "no landmarks": (["--method", "emo", "--face", __file__], "is no .npz, .npy or .json file"),
    "no file of landmarks": (["--method", "emo", "--face", "x.npz"], "there is no --face x.npz"),
    "no embedding": (["--method", "hallo", "--face-embedding", "x.npy"], "there is no --face-embedding x.npy"),
    "both ways to a face": (["--method", "emo", "--person", "1"], "give one of them"),
    "no sound": (["--method", "hallo", "--audio", "none.wav"], "there is no --audio none.wav"),
    "two speech models": (["--method", "hallo", "--speech", "."], "leave out either it or --speech"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_told_in_a_line(case: str, given: list[str], tmp_path: Path) -> None:
    typed, message = REFUSED[case]
    assert message in one_line(*given, "--random-tiny", *typed)
    assert not (tmp_path / "film.mp4").exists()


def test_several_processes_cannot_share_a_film_of_clips(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "several processes cannot share a film" in one_line(*given, "--method", "emo", "--random-tiny")


def test_faces_that_cannot_speak_are_told_in_a_line(given: list[str], tmp_path: Path) -> None:
    typed = [*given, "--method", "hallo", "--random-tiny"]
    for points, message in (
        (face_points(1, yaw=70), "the face is in profile"),
        (face_points(1, yaw=70)[:, :2], "the face is in profile"),
        (face_points(1, middle=(0.1, 0.5)), "cut off by the left border"),
        (np.stack([face_points(1)] * 2), "has the faces of 2 frames"),
    ):
        np.savez(tmp_path / "face.npz", landmarks=points.reshape(-1, 468, points.shape[-1]))
        assert message in one_line(*typed)
    np.save(tmp_path / "short.npy", np.zeros(511))
    np.savez(tmp_path / "face.npz", landmarks=face_points(1)[None])
    assert "expected 512 numbers of glintr100" in one_line(*typed, "--face-embedding", tmp_path / "short.npy")
    picture(0, (40, 32)).save(tmp_path / "portrait.png")
    assert "is 40 x 32 pixels, and --face is of all of it; crop it to a square" in one_line(*typed)


def test_doubtful_faces_are_told_and_speak(given: list[str], tmp_path: Path) -> None:
    for points, message in (
        (face_points(1, yaw=52), "the face is turned aside; what is made of it may be wrong there"),
        (face_points(1, share=0.3), "the face is very small"),
        (face_points(1, share=0.3), "the face is 30% as wide as the picture; crop it"),
    ):
        np.savez(tmp_path / "face.npz", landmarks=points[None])
        assert message in said(*given, "--method", "emo", "--random-tiny", "--frames", "1", "--overwrite")


@needs_models
def test_faces_are_looked_for(given: list[str], tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    one = Image.fromarray(data.astronaut()).crop((120, 0, 340, 220))
    both = Image.new("RGB", (440, 220), "grey")
    both.paste(one.resize((200, 200)), (0, 20))
    both.paste(one, (220, 0))
    found = [word for word in given if word not in ("--face", str(tmp_path / "face.npz"))]
    typed = [*found, "--method", "emo", "--random-tiny", "--models", MODELS, "--frames", "1", "--side-by-side",
             "-o", tmp_path / "film", "--overwrite"]  # fmt: skip
    assert "no face was found in the picture of 64 x 64 pixels" in told(typed)
    both.save(tmp_path / "portrait.png")
    screen = said(*typed)
    assert "the picture shows 2 faces; the largest is taken, person 2 from the left" in screen
    assert "the portrait is 440 x 220 pixels; a square of " in screen
    largest, first = pixels(tmp_path / "film"), said(*typed, "--person", "1")
    assert "2 faces" not in first
    assert not np.array_equal(pixels(tmp_path / "film"), largest)
    said(*typed, "--person", "2")
    assert np.array_equal(pixels(tmp_path / "film"), largest)
    assert "face 3 from the left was asked for" in told([*typed, "--person", "3"])
    screen = said(*typed, "--fit", "pad", "--person", "2")
    assert "it gets a border" in screen  # and stays whole, with a face that is smaller than it should be
    assert "as wide as the picture; crop it until it is half to two thirds" in screen
    assert "a square of" not in screen
    one.save(tmp_path / "portrait.png")
    said(*typed)


def test_missing_networks_are_told(given: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT runs the networks")
    found = [word for word in given if word not in ("--face", str(tmp_path / "face.npz"))]
    lesson = one_line(*found, "--method", "emo", "--random-tiny", "--models", tmp_path)
    assert "run `refnet models fetch`" in lesson
    assert "or say where that is with --face NPZ|JSON" in lesson


def test_a_transparent_portrait_is_laid_on_white(given: list[str], tmp_path: Path) -> None:
    typed = [*given, "--method", "emo", "--random-tiny", "--frames", "1"]
    plain = picture(0, (SHOWN, SHOWN))
    clear = plain.convert("RGBA")
    clear.putalpha(Image.new("L", plain.size, 255))
    clear.paste((9, 9, 9, 0), (0, 0, 16, SHOWN))
    white = plain.copy()
    white.paste((255, 255, 255), (0, 0, 16, SHOWN))
    films = []
    for shown, is_told in ((clear, True), (white, False)):
        shown.save(tmp_path / "portrait.png")
        assert ("transparent parts become white" in said(*typed, "-o", tmp_path / "film", "--overwrite")) == is_told
        films.append(pixels(tmp_path / "film"))
    assert np.array_equal(films[0], films[1])


# --- another system's files -------------------------------------------------------------------------------------------

OTHERS = [("hallo", "emo"), ("emo", "hallo"), ("idm_vton", "stable_garment"), ("stable_garment", "idm_vton")]


@pytest.mark.parametrize(("whose", "method"), OTHERS)
@pytest.mark.parametrize("is_saved", [False, True])
def test_another_systems_files_are_told_in_a_line(
    whose: str, method: str, is_saved: bool, given: list[str], tmp_path: Path
) -> None:
    pipe = tiny_pipeline(whose)
    folder = tmp_path / "files"
    if is_saved:
        pipe.save_pretrained(folder)
    elif whose == "emo":
        write_released(pipe, pipe.published, folder)
    else:
        write_with_keys(pipe, pipe.published, folder)
    if method in ("hallo", "emo"):
        typed: list[Any] = given
    else:
        portrait = tmp_path / "portrait.png"
        typed = ["tryon", "-p", portrait, "-g", portrait, "--densepose", portrait, "--mask", portrait, "-o", "x.png"]
    lesson = one_line(*typed, "--method", method, "--checkpoint", folder)
    kind = type(pipe).__name__
    expected = f"files holds a {kind}, not a " if is_saved else f"files holds the files of {whose}."
    assert expected in lesson
    assert "give another --checkpoint or --method" in lesson
    if is_saved:
        with pytest.raises(ValueError, match=f"holds a {kind}, not a .*it has no .*referencenet.load read it"):
            type(tiny_pipeline(method)).from_pretrained(folder)
