"""`refnet animate` and `refnet convert` as they are typed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner, Result

from films import picture, poses, write_interpolator, write_released
from referencenet.cli.animate import app
from referencenet.cli.app import app as front
from referencenet.media.films import Film, write_film
from referencenet.paperdoll import Character, Pose, Scene, keypoints
from referencenet.preprocess.body import BodyPoints, draw_body
from tiny import tiny_pipeline

RUNNER = CliRunner()


def test_random_tiny_runs_the_whole_path(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "hero.png")
    write_film(poses(3), tmp_path / "poses.mp4", 12)
    out = tmp_path / "film.mp4"
    typed = ["-r", str(tmp_path / "hero.png"), "-p", str(tmp_path / "poses.mp4"), "-o", str(out), "--random-tiny"]
    result = RUNNER.invoke(app, [*typed, "--steps", "1", "--frames", "2", "--side-by-side"])
    assert result.exit_code == 0, result.output
    film = Film(out)
    assert (len(film), film.rate, next(iter(film)).size) == (2, 12, (96, 24))
    settings = json.loads((tmp_path / "film.mp4.json").read_text())
    assert (settings["num_inference_steps"], settings["width"], settings["rate"]) == (1, 32, "12")


@pytest.mark.usefixtures("nothing_shipped")
def test_without_checkpoint_it_says_which_files_to_get(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    given = ["-r", str(tmp_path / "a.png"), "-p", str(tmp_path), "-o", str(tmp_path / "c.mp4")]
    result = RUNNER.invoke(app, given)
    assert result.exit_code == 2
    for part in ("motion_module.pth", "patrolli/AnimateAnyone", "licence", "sd-vae-ft-mse", "--random-tiny"):
        assert part in result.output
    assert len(result.output.splitlines()) <= 20
    assert "Traceback" not in result.output


def typed_with_key_points(folder: Path, *further: str) -> list[str]:
    """A film of two drawn poses, for a reference of another build."""
    scenes = [
        Scene(character=replace(Character.from_seed(1), build=build), pose=Pose.named(pose))
        for build, pose in (("slim", "standing"), ("slim", "waving"), ("broad", "standing"))
    ]
    frames = [
        {
            "people": [
                {"pose_keypoints_2d": (keypoints(scene, (48, 64)).astype(float) * (48, 64, 1)).ravel().tolist()}
            ],
            "canvas_width": 48,
            "canvas_height": 64,
        }
        for scene in scenes
    ]
    (folder / "dance.json").write_text(json.dumps(frames[:2]))
    (folder / "hero.json").write_text(json.dumps(frames[2]))
    picture(0).save(folder / "hero.png")
    given = ["-r", str(folder / "hero.png"), "-k", str(folder / "dance.json"), "--random-tiny", "--steps", "1"]
    return [*given, *further]


def test_key_points_are_drawn_and_fitted(tmp_path: Path) -> None:
    poses_shown = []
    for name, further in (("plain", []), ("fitted", ["--fit-to", str(tmp_path / "hero.json")])):
        out = tmp_path / name
        typed = typed_with_key_points(tmp_path, "-o", str(out), "--side-by-side", *further)
        result = RUNNER.invoke(app, typed)
        assert result.exit_code == 0, result.output
        film = Film(out)
        assert (len(film), next(iter(film)).size) == (2, (3 * 48, 64))
        poses_shown.append([np.asarray(frame)[:, 48:96] for frame in film])
    plain, fitted = ([np.flatnonzero(pose.any(axis=(0, 2))) for pose in film] for film in poses_shown)
    assert np.ptp(fitted[0]) > np.ptp(plain[0])  # the reference is broader
    settings = json.loads((tmp_path / "fitted.json").read_text())
    assert settings["fit_to"] == str(tmp_path / "hero.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-p", "poses.mp4"], "--poses and --keypoints were given; give one of --poses"),
        (["-k", "missing.json"], "there is no --keypoints missing.json"),
        (["--fit-to", "{folder}/dance.json"], "has 2 frames; expected one, of the reference picture"),
    ],
)
def test_wrong_key_points_are_told(tmp_path: Path, change: list[str], message: str) -> None:
    typed = typed_with_key_points(tmp_path, "-o", str(tmp_path / "out"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        RUNNER.invoke(app, [*typed, *(part.format(folder=tmp_path) for part in change)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A portrait, landmarks of it and of a driving film, skeletons, DensePose, and a network that inserts frames."""
    random = np.random.default_rng(3)
    face = random.random((468, 3)) * 0.5 + 0.25
    np.savez(tmp_path / "drive.npz", landmarks=np.stack([face + 0.01 * i for i in range(8)]), rate=12)
    (tmp_path / "portrait.json").write_text(json.dumps([(face * 0.2 + 0.3).tolist()]))
    picture(0).resize((64, 48)).save(tmp_path / "hero.png")
    joints = [np.column_stack([random.uniform((8, 8), (56, 88), (18, 2)), np.ones(18)]) for _ in range(3)]
    write_film([draw_body(BodyPoints(body=each), (64, 96)) for each in joints], tmp_path / "skeletons")
    part = Image.new("RGB", (64, 96), (68, 1, 84))
    part.paste((253, 231, 37), (16, 8, 40, 80))
    write_film([part] * 3, tmp_path / "densepose")
    write_interpolator(tmp_path / "film.pt")
    return tmp_path


def run(folder: Path, method: str, *typed: str, out: str = "out") -> Result:
    given = [word.format(folder) for word in typed]
    common = ["--method", method, "-r", str(folder / "hero.png"), "-o", str(folder / out), "--overwrite"]
    return RUNNER.invoke(front, ["animate", *common, *given])


TINY = ("--random-tiny", "--device", "cpu", "--steps")
LANDMARKS = ("--landmarks", "{0}/drive.npz", "--size", "64x64", *TINY, "1")


def shown(folder: Path, out: str = "out") -> np.ndarray:
    return np.stack([np.asarray(frame).astype(int) for frame in Film(folder / out)])


def test_landmarks_are_drawn_and_frames_inserted(folder: Path) -> None:
    assert run(folder, "aniportrait", *LANDMARKS, "--frames", "7").exit_code == 0
    given = (*LANDMARKS, "--every", "3", "--interpolator", "{0}/film.pt")
    result = run(folder, "aniportrait", *given, "--side-by-side", out="third")
    assert result.exit_code == 0, result.output
    assert "7 frames in" in result.stdout  # of 8 landmarks: 0, 3, 6 and what is between
    assert "3/3" not in result.output  # one window of one step is one prediction
    third = shown(folder, "third")
    assert third.shape == (7, 64, 192, 3)
    drawings, frames = third[:, :, 64:128], third[:, :, 128:]
    assert all((drawings[i] != drawings[i + 1]).any() for i in range(6))  # of every frame, not of the drawn ones
    assert abs(frames[1] - (2 * frames[0] + frames[3]) / 3).max() <= 1
    settings = json.loads((folder / "third.json").read_text())
    assert (settings["every"], settings["num_frames"], settings["rate"]) == (3, 8, "12")
    assert "balance" not in settings


def test_a_portrait_is_cut_and_the_range_of_drawings_chosen(folder: Path) -> None:
    films = []
    for further in ((), ("--own-landmarks", "{0}/portrait.json"), ("--pose-range", "official")):
        result = run(folder, "aniportrait", *LANDMARKS, "--frames", "2", "--side-by-side", *further)
        assert result.exit_code == 0, result.output
        films.append(shown(folder))
    assert (films[0][:, :, :64] != films[1][:, :, :64]).any()
    assert (films[0][:, :, 128:] != films[2][:, :, 128:]).any()


def test_magic_animate_takes_its_own_options(folder: Path) -> None:
    films = set()
    options = (("--fusion-blocks", "full"), ("--control-scale", "0.2"), ("--prompt", "knight"))
    for further in ((), *options):
        result = run(folder, "magic_animate", "-p", "{0}/densepose", *TINY, "1", "--frames", "1", *further)
        assert result.exit_code == 0, result.output
        films.add(shown(folder).tobytes())
    assert len(films) == 4


def test_magicpose_counts_the_timesteps_that_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []
    update = Progress.update
    monkeypatch.setattr(Progress, "update", lambda bar, task, **further: (
        bars.append((further["completed"], bar.tasks[0].total)), update(bar, task, **further)))  # fmt: skip
    given = ("-p", "{0}/skeletons", "--size", "32x32", "--frames", "1", *TINY)
    assert run(folder, "magicpose", *given, "6").exit_code == 0
    assert bars == [(i, 7) for i in range(1, 8)]
    result = run(folder, "magicpose", *given, "6", "--balance", "--prompt", "knight", out="balanced")
    assert result.exit_code == 0, result.output
    assert (shown(folder) != shown(folder, "balanced")).any()
    result = run(folder, "magicpose", *given, "3", out="none")
    assert (result.exit_code, "3 steps cannot be taken" in result.output) == (2, True)
    assert not (folder / "none").exists()


def test_other_drawings_leave_nothing_behind(folder: Path) -> None:
    before = sorted(folder.iterdir())
    for method, drawings in (("magicpose", "densepose"), ("magic_animate", "skeletons")):
        result = run(folder, method, "-p", f"{{0}}/{drawings}", *TINY, "1", out="out.mp4")
        assert (result.exit_code, "these drawings look like" in result.output) == (2, True)
    assert sorted(folder.iterdir()) == before


def test_a_converted_folder_keeps_its_settings_unless_they_are_typed(folder: Path) -> None:
    pipe = tiny_pipeline("magic_animate")
    pipe.register_to_config(fusion_blocks="full")
    pipe.save_pretrained(folder / "converted")
    given = ("-p", "{0}/densepose", "--device", "cpu", "--steps", "1", "--frames", "1")
    films = []
    for blocks in ((), ("--fusion-blocks", "full"), ("--fusion-blocks", "midup")):
        result = run(folder, "magic_animate", *given, "--checkpoint", "{0}/converted", *blocks)
        assert result.exit_code == 0, result.output
        films.append(shown(folder))
    assert abs(films[0] - films[1]).max() <= 1  # rounding
    assert abs(films[0] - films[2]).max() > 1


def test_released_files_are_read_with_a_base(folder: Path) -> None:
    pipe = tiny_pipeline("magic_animate")
    write_released(pipe, pipe.published, folder / "released")
    given = ("-p", "{0}/densepose", "--device", "cpu", "--steps", "1", "--frames", "1", "--checkpoint", "{0}/released")
    result = run(folder, "magic_animate", *given, "--base", "{0}/released/base")
    assert result.exit_code == 0, result.output
    result = run(folder, "magic_animate", *given, out="none")
    assert (result.exit_code, (folder / "none").exists()) == (2, False)


@pytest.mark.parametrize(
    ("method", "typed", "message"),
    [
        ("animate_anyone", ("--landmarks", "{0}/drive.npz"), "--landmarks is for aniportrait; animate_anyone does not"),
        ("animate_anyone", ("-p", "{0}/skeletons", "--balance"), "--balance is for magicpose"),
        ("magicpose", ("-p", "{0}/skeletons", "--fusion-blocks", "full"), "--fusion-blocks is for magic_animate"),
        ("magic_animate", ("-k", "x.json"), "--keypoints is for animate_anyone and magicpose"),
        ("aniportrait", ("--landmarks", "{0}/none.npz"), "there is no --landmarks"),
        ("aniportrait", ("--landmarks", "{0}/hero.png"), "holds no arrays that can be read"),
        ("aniportrait", ("--landmarks", "{0}/drive.npz", "-p", "x"), "--poses and --landmarks were given; give one"),
        ("aniportrait", (), "no film was given; give one of --poses"),
        ("aniportrait", ("--landmarks", "{0}/drive.npz", "--every", "3"), "--every above 1 and --interpolator"),
        ("aniportrait", ("--landmarks", "{0}/drive.npz", "--interpolator", "x"), "--every above 1 and --interpolator"),
        (
            "aniportrait",
            ("--landmarks", "{0}/drive.npz", "--every", "2", "--interpolator", "x"),
            "there is no --interpolator",
        ),
        (
            "aniportrait",
            ("--landmarks", "{0}/drive.npz", "--own-landmarks", "{0}/drive.npz"),
            "faces of 8 frames",
        ),
        ("aniportrait", ("--landmarks", "{0}/drive.npz", "--frames", "9"), "9 frames were asked for"),
        ("magicpose", ("-p", "{0}/skeletons", "--negative-prompt", "x"), "--negative-prompt with --balance only"),
        ("magicpose", ("-p", "{0}/skeletons", "--balance"), "which are the same"),
        ("magicpose", ("-p", "{0}/none"), "there is no --poses"),
        ("magicpose", ("-p", "{0}/skeletons", "--size", "33"), "multiples of 8"),
        ("magicpose", ("-p", "{0}/skeletons", "-o", "{0}/film.mov"), "use .mp4, .webm, .gif"),
        ("animate_anyone.reenact", ("-p", "{0}/skeletons"), "takes 2"),
    ],
)
def test_what_cannot_be_is_told_before_a_model_is_loaded(
    folder: Path, method: str, typed: tuple[str, ...], message: str
) -> None:
    before = sorted(folder.iterdir())
    result = run(folder, method, *typed, "--random-tiny")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert message in " ".join(result.output.split())
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("nothing_shipped")
def test_each_system_says_which_files_to_get(folder: Path) -> None:
    for method, words in (
        ("aniportrait", ("ZJYang/AniPortrait", "pose_guider.pth")),
        ("magic_animate", ("zcxu-eric/MagicAnimate", "densepose_controlnet", "(or --base)")),
        ("magicpose", ("MagicDance", "model_state-110000.th")),
    ):
        result = run(folder, method, "-p", "{0}/skeletons")
        assert result.exit_code == 2
        assert all(word in result.output for word in words)
