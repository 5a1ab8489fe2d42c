"""Films on the disk: the whole path, going on after a failure, bounded memory, several processes."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing
from PIL import Image

from films import generator, picture, poses
from referencenet.media.films import Film, FilmWriter, parts_of, write_film
from referencenet.methods.animation import FilmSettings, animate_film, num_predictions
from referencenet.methods.random_tiny import tiny_animate_anyone
from referencenet.sampling.windows import Windows

SETTINGS = FilmSettings(num_inference_steps=2, window=4, overlap=1, seed=3)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_film(poses(9), tmp_path / "poses")


def quiet() -> Any:
    pipe = tiny_animate_anyone()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixels(path: Path) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in Film(path)])


def test_film_has_the_poses_frames_and_counts_its_predictions(film: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    out = animate_film(quiet(), picture(0), [film], tmp_path / "out.mp4", SETTINGS, step_done=seen.append)
    assert pixels(out).shape == (9, 24, 32, 3)
    assert seen == list(range(1, num_predictions(replace(SETTINGS, num_frames=9)) + 1))
    assert not parts_of(out).exists()


def test_interrupted_film_goes_on_to_the_same_frames(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, side_by_side=True)
    whole = animate_film(quiet(), picture(0), [film], tmp_path / "whole", settings)
    write = FilmWriter.add

    def full(writer: FilmWriter, frames: Any) -> None:
        if writer.num_frames >= 5:
            raise OSError("No space left on device")
        write(writer, frames)

    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "add", full)
        with pytest.raises(OSError, match="No space left"):
            animate_film(quiet(), picture(0), [film], tmp_path / "cut", settings)
    kept = len(list((tmp_path / "cut").glob("*.png")))
    assert 0 < kept < 9
    with pytest.raises(ValueError, match="begun with other settings .*seed was 3, now 4"):
        animate_film(quiet(), picture(0), [film], tmp_path / "cut", replace(settings, seed=4), resume=True)
    animate_film(quiet(), picture(0), [film], tmp_path / "cut", settings, resume=True)
    assert np.array_equal(pixels(tmp_path / "cut"), pixels(whole))
    assert pixels(whole).shape == (9, 24, 96, 3)


def test_resume_without_anything_begins(film: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, num_frames=2)
    assert len(Film(animate_film(quiet(), picture(0), [film], tmp_path / "out", settings, resume=True))) == 2


@pytest.mark.parametrize(
    ("films", "changes", "message"),
    [
        (1, {"num_frames": 10}, "10 frames were asked for, but the pose film has 9"),
        (2, {}, "2 pose films were given, but this model has 1 pose nets"),
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
                tensors = sum(thing.nbytes for thing in alive if issubclass(type(thing), torch.Tensor))
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


def _one_of_two(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{port}", rank=rank, world_size=2)
    torch.save(_film(across_processes=True, seed=rank), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _film(*, across_processes: bool, seed: int) -> torch.Tensor:
    windows, options = Windows(size=4, overlap=1), {"num_inference_steps": 2, "output_type": "latent"}
    return quiet()(
        picture(0), poses(9), windows=windows, generator=generator(seed), across_processes=across_processes, **options
    ).frames


@pytest.mark.slow
def test_two_processes_give_the_film_of_one(tmp_path: Path) -> None:
    """Also where they are given different noise: all begin with the first one's."""
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    alone = _film(across_processes=False, seed=0)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone)
