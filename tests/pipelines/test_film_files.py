"""Films on the disk: the whole path, going on after a failure, bounded memory, several processes."""

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
import torch.multiprocessing
from PIL import Image

from films import generator, picture, poses
from referencenet.media.films import Film, FilmWriter, parts_of, write_film
from referencenet.media.sound import SAMPLE_RATE, Track, read_sound
from referencenet.pipelines.film_files import FilmSettings, animate_film, num_predictions
from referencenet.sampling.windows import Windows
from sounds import tone, write_sound
from tiny import tiny_pipeline

SETTINGS = FilmSettings(num_inference_steps=2, window=4, overlap=1, seed=3)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_film(poses(9), tmp_path / "poses")


def quiet() -> Any:
    pipe = tiny_pipeline("animate_anyone")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixels(path: Path) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in Film(path)])


def test_film_has_the_poses_frames_and_counts_its_predictions(film: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    out = animate_film(quiet(), picture(0), [film], tmp_path / "out.mp4", SETTINGS, step_done=seen.append)
    assert pixels(out).shape == (9, 24, 32, 3)
    assert seen == list(range(1, num_predictions(quiet(), replace(SETTINGS, num_frames=9)) + 1))
    assert not parts_of(out).exists()


def straight(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A frame between two."""
    return torch.lerp(a, b, t.item())


def test_frames_are_inserted_also_between_pieces_and_on_resuming(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, every=2, window=2, overlap=0, num_frames=8)  # drawn: 0, 2, 4, 6
    seen: list[int] = []
    drawn = write_film([frame for i, frame in enumerate(poses(8)) if i % 2 == 0], tmp_path / "drawn-poses")
    few = replace(settings, every=1, num_frames=4)
    alone = pixels(animate_film(quiet(), picture(0), [drawn], tmp_path / "drawn", few)).astype(int)
    out = animate_film(
        quiet(), picture(0), [film], tmp_path / "out", settings, interpolator=straight, step_done=seen.append
    )
    frames = pixels(out).astype(int)
    assert (len(frames), settings.num_written, seen[-1]) == (7, 7, num_predictions(quiet(), settings))
    assert np.array_equal(frames[::2], alone)
    assert abs(frames[1::2] - (frames[:-1:2] + frames[2::2]) / 2).max() <= 1
    _cut_short(film, tmp_path / "cut", settings, monkeypatch, interpolator=straight, behind=3)
    again = animate_film(quiet(), picture(0), [film], tmp_path / "cut", settings, resume=True, interpolator=straight)
    assert np.array_equal(pixels(again), frames)
    with pytest.raises(ValueError, match="every is 2, with no interpolator"):
        animate_film(quiet(), picture(0), [film], tmp_path / "no", settings)


def _cut_short(
    film: Path, out: Path, settings: FilmSettings, monkeypatch: pytest.MonkeyPatch, behind: int = 5, **options: Any
) -> None:
    """Begin a film whose disk is full behind some frames."""
    write = FilmWriter.add

    def full(writer: FilmWriter, frames: Any) -> None:
        if writer.num_frames >= behind:
            raise OSError("No space left on device")
        write(writer, frames)

    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "add", full)
        with pytest.raises(OSError, match="No space left"):
            animate_film(quiet(), picture(0), [film], out, settings, **options)
    assert not out.exists()
    assert 0 < len(list(parts_of(out).rglob("*.png"))) < 9


def test_interrupted_film_goes_on_to_the_same_frames(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, side_by_side=True)
    whole = animate_film(quiet(), picture(0), [film], tmp_path / "whole", settings)
    _cut_short(film, tmp_path / "cut", settings, monkeypatch)
    with pytest.raises(ValueError, match="begun with other settings .*seed was 3, now 4"):
        animate_film(quiet(), picture(0), [film], tmp_path / "cut", replace(settings, seed=4), resume=True)
    animate_film(quiet(), picture(0), [film], tmp_path / "cut", settings, resume=True)
    assert np.array_equal(pixels(tmp_path / "cut"), pixels(whole))
    assert pixels(whole).shape == (9, 24, 96, 3)


def _noisy(pipe: Any) -> Any:
    """The same pipeline with one weight of another value."""
    with torch.no_grad():
        next(iter(pipe.unet.parameters())).view(-1)[5] += 1e-3
    return pipe


def test_an_interrupted_film_goes_on_only_as_the_one_it_is(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another reference, another pose among those that were read, another weight or type: not the same film."""
    out = tmp_path / "cut"
    _cut_short(film, out, SETTINGS, monkeypatch)
    other = write_film([*poses(2), picture(9), *poses(9)[3:]], tmp_path / "other")
    wrong = [
        (quiet(), 1, film, "other reference"),
        (_noisy(quiet()), 0, film, "other weights"),
        (quiet().to(torch.float64), 0, film, "dtype was torch.float32, now torch.float64"),
        (quiet(), 0, other, "pose 2 is not the one with which the unfinished film was begun"),
    ]
    for pipe, seed, drawings, message in wrong:
        with pytest.raises(ValueError, match=message):
            animate_film(pipe, picture(seed), [drawings], out, SETTINGS, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr("referencenet.pipelines.fingerprints.__version__", "0.0.1")
        with pytest.raises(ValueError, match="versions was referencenet .*, now referencenet 0.0.1"):
            animate_film(quiet(), picture(0), [film], out, SETTINGS, resume=True)
    picture(0).save(tmp_path / "hero.png")  # the same picture, as a file
    animate_film(quiet(), tmp_path / "hero.png", [film], out, SETTINGS, resume=True)
    assert len(Film(out)) == 9


def test_a_film_has_its_sound_also_when_joining_was_cut_short(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, rate=Fraction(30000, 1001))
    sound = write_sound(tmp_path / "s.wav", tone(1.0, 16000), 16000)
    out = tmp_path / "film.mp4"

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Track, "write_until", full)
        with pytest.raises(OSError, match="No space left"):
            animate_film(quiet(), picture(0), [film], out, settings, sound=sound)
    assert not out.exists()
    drawn: list[int] = []
    animate_film(quiet(), picture(0), [film], out, settings, sound=sound, resume=True, step_done=drawn.append)
    assert (drawn, len(Film(out))) == ([], 9)
    assert len(read_sound(out)) / SAMPLE_RATE == pytest.approx(0.3, abs=0.03)  # as long as the film
    with pytest.raises(ValueError, match="cannot hold sound"):
        animate_film(quiet(), picture(0), [film], tmp_path / "frames", settings, sound=sound)


def test_resume_without_anything_begins(film: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, num_frames=2)
    assert len(Film(animate_film(quiet(), picture(0), [film], tmp_path / "out", settings, resume=True))) == 2


@pytest.mark.parametrize(
    ("films", "changes", "message"),
    [
        (1, {"num_frames": 10}, "10 frames were asked for, but the pose film has 9"),
        (2, {}, "2 pose films were given, but AnimateAnyonePipeline takes 1"),
        (1, {"width": 20}, "must be multiples of 8"),
    ],
)
def test_wrong_films_are_told(film: Path, tmp_path: Path, films: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        animate_film(quiet(), picture(0), [film] * films, tmp_path / "out", replace(SETTINGS, **changes))


@pytest.mark.slow
def test_film_of_2000_frames_needs_no_more_memory_than_one_of_200(tmp_path: Path) -> None:
    pose = picture(1)

    def most_alive(num_frames: int) -> tuple[int, int]:
        """Bytes of tensors and number of pictures that live at once, looked at behind every 30th prediction."""
        poses_film = write_film((pose for _ in range(num_frames)), tmp_path / f"{num_frames}.mp4")
        most = (0, 0)

        def look(done: int) -> None:
            nonlocal most
            if done % 30 == 0:
                alive = gc.get_objects()  # asked for their types: isinstance wakes lazy objects of other libraries
                # of these two types alone: what a compiled function of another test has left has no bytes
                tensors = sum(thing.nbytes for thing in alive if type(thing) in (torch.Tensor, torch.nn.Parameter))
                pictures = sum(issubclass(type(thing), Image.Image) for thing in alive)
                most = max(most[0], tensors), max(most[1], pictures)

        settings = FilmSettings(num_inference_steps=2)
        out = animate_film(
            quiet(), picture(0), [poses_film], tmp_path / f"out{num_frames}.mp4", settings, step_done=look
        )
        assert len(Film(out)) == num_frames
        return most

    short, long = most_alive(400), most_alive(2000)
    assert long[0] <= 1.05 * short[0]
    assert long[1] <= short[1] + 5


def _film(*, across_processes: bool, seed: int) -> torch.Tensor:
    """A film whose windows touch up to three others, from noise that differs between processes."""
    windows, options = Windows(size=4, overlap=2), {"num_inference_steps": 2, "output_type": "latent", "eta": 0.5}
    return quiet()(
        picture(0), poses(9), windows=windows, generator=generator(seed), across_processes=across_processes, **options
    ).frames


def _one_of_two(rank: int, port: int, film: Path, folder: Path) -> None:
    """What each of two processes does: a call, and a film on the disk, which is begun anew and then gone on with."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    state = accelerate.PartialState(cpu=True)
    torch.save(_film(across_processes=True, seed=rank), folder / f"{rank}.pt")
    seen: list[int] = []
    animate_film(
        quiet(),
        picture(0),
        [film],
        folder / "both",
        SETTINGS,
        resume=True,
        across_processes=True,
        step_done=seen.append,
    )
    torch.save(seen, folder / f"seen{rank}.pt")
    state.destroy_process_group()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """How many threads share a sum decides its rounding: here as many as in the processes that are started."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_film_of_one(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call, also where they are given different noise; and a film on the disk that one process has begun."""
    _cut_short(film, tmp_path / "both", SETTINGS, monkeypatch)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_one_of_two, (port, film, tmp_path), nprocs=2)
    alone = _film(across_processes=False, seed=0)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone)
    seen = [torch.load(tmp_path / f"seen{rank}.pt", weights_only=True) for rank in range(2)]
    assert seen[0] == seen[1]
    assert seen[0][-1] == num_predictions(quiet(), replace(SETTINGS, num_frames=9))
    whole = animate_film(quiet(), picture(0), [film], tmp_path / "whole", SETTINGS)
    assert np.array_equal(pixels(tmp_path / "both"), pixels(whole))
    assert not parts_of(tmp_path / "both").exists()


@pytest.mark.slow
def test_launched_command_gives_the_film_of_one_process_and_one_of_them_writes(film: Path, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "hero.png")
    options = ["--random-tiny", "--steps", "1", "--seed", "3", "-r", str(tmp_path / "hero.png"), "-p", str(film)]
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--module"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    said = []
    for words, out in (([], "one"), (launch, "two")):
        command = [sys.executable, "-m", *words, "referencenet", "animate", *options, "-o", str(tmp_path / out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert said == [[f"9 frames in {tmp_path / 'one'}"], [f"9 frames in {tmp_path / 'two'}"]]
    assert np.array_equal(pixels(tmp_path / "one"), pixels(tmp_path / "two"))
