"""Frames inserted between others."""

from pathlib import Path

import pytest
import torch

from films import write_interpolator
from golden import GOLDENS, read_content
from referencenet.sampling.insertion import insert_frames, insertion_calls, read_interpolator


def test_frames_are_inserted_in_the_published_order() -> None:
    published = read_content(GOLDENS / "aniportrait-landmarks")["interpolation_calls"]
    for count in (1, 2, 3, 4):
        assert [[round(x, 6) for x in call] for call in insertion_calls(count)] == published[str(count)]


def test_inserted_frames_lie_between_and_in_range() -> None:
    frames = torch.rand(3, 3, 4, 6)
    film = insert_frames(frames, 2, lambda a, b, t: torch.lerp(a, b, t) + 5 * (t > 2))
    assert film.shape[0] == 7
    assert torch.equal(film[::3], frames)
    assert torch.allclose(film[4], torch.lerp(frames[1], frames[2], 1 / 3))


def test_an_archive_is_read_and_others_are_refused(tmp_path: Path) -> None:
    write_interpolator(tmp_path / "film.pt")
    frames = torch.rand(2, 3, 4, 6)
    between = insert_frames(frames, 1, read_interpolator(tmp_path / "film.pt"))[1]
    assert torch.allclose(between, frames.mean(0), atol=1e-6)
    (tmp_path / "no.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a TorchScript archive"):
        read_interpolator(tmp_path / "no.pt")
    with pytest.raises(FileNotFoundError, match="there is no interpolation network"):
        read_interpolator(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="expected 0 or more"):
        insertion_calls(-1)
