"""Films in and out: what is written is read again, pieces join without loss, and failures leave what is finished."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from referencenet.media import encoding
from referencenet.media.films import Film, FilmWriter, frames_of, parts_of, write_film


def frame(level: int, size: tuple[int, int] = (32, 16)) -> Image.Image:
    """A picture of one grey."""
    return Image.new("RGB", size, (level, level, level))


def levels(film: Film) -> list[int]:
    return [round(float(np.asarray(picture).mean())) for picture in film]


GREYS = [20 + 9 * i for i in range(23)]


@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "film.gif", "frames"])
def test_written_film_is_read_again(name: str, tmp_path: Path) -> None:
    path = write_film((frame(level) for level in GREYS), tmp_path / name, 10)
    film = Film(path)
    assert len(film) == len(GREYS)
    assert np.allclose(levels(film), GREYS, atol=3)
    assert levels(film) == levels(film)  # again from the start
    assert name == "frames" or film.rate == 10
    assert not parts_of(path).exists()


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_pieces_join_to_the_film_written_at_once(ending: str, tmp_path: Path) -> None:
    with FilmWriter(tmp_path / f"film{ending}", Fraction(25)) as writer:
        for start, stop in ((0, 5), (5, 6), (6, 23)):
            writer.add([frame(level) for level in GREYS[start:stop]])
        writer.finish()
    assert np.allclose(levels(Film(tmp_path / f"film{ending}")), GREYS, atol=3)


def test_later_writer_goes_on_behind_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with FilmWriter(path, Fraction(25)) as writer:
        writer.add([frame(level) for level in GREYS[:5]])
        writer.add([frame(level) for level in GREYS[5:9]])
    assert not path.exists()
    with FilmWriter(path, Fraction(25), keep_frames=5) as writer:  # the second piece was not vouched for
        assert writer.num_frames == 5
        writer.add([frame(level) for level in GREYS[5:]])
        writer.finish()
    assert np.allclose(levels(Film(path)), GREYS, atol=3)
    with pytest.raises(ValueError, match="holds 0 finished frames, not 7"):
        FilmWriter(path, Fraction(25), keep_frames=7)


def test_failed_piece_leaves_finished_ones_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.mp4"
    with FilmWriter(path, Fraction(25)) as writer:
        writer.add([frame(9)] * 4)

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("av.open", full)
            with pytest.raises(OSError, match=r"frames 4 to 5 of .*No space left on device.*mend the cause and resume"):
                writer.add([frame(9)] * 2)
        assert [piece.name for piece in writer.pieces] == ["00000000-4.mp4"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.mp4", FileNotFoundError, "there is no film missing.mp4"),
        ([], ValueError, "a film without frames"),
        (np.zeros((4, 4, 3), np.uint8), ValueError, r"expected four axes: \(frames, height, width, 3\)"),
        (torch.zeros(3, 4, 4), ValueError, "expected four axes"),
        (Image.new("RGB", (4, 4)), TypeError, "one picture was given where a film is expected"),
    ],
)
def test_no_film_is_told(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(frames_of(source))


def test_files_that_are_no_films_are_told(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no film at all" * 9)
    with pytest.raises(ValueError, match=r"broken.mp4 is not a film that can be read"):
        Film(tmp_path / "broken.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no frame"):
        Film(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"ends with '.avi'; use .mp4, .webm, .gif"):
        FilmWriter(tmp_path / "film.avi", Fraction(25))


def test_too_long_gif_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_GIF_FRAMES", 2)
    with pytest.raises(ValueError, match="a GIF of 3 frames is too long, at most 2"):
        write_film([frame(9)] * 3, tmp_path / "film.gif")
