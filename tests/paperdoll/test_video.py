"""Films and sound survive the disk."""

import av
import numpy as np
import pytest

from referencenet.paperdoll.film import talk
from referencenet.paperdoll.scores import psnr
from referencenet.paperdoll.video import read_video, read_wav, write_video, write_wav


def test_films_read_back_as_written(tmp_path):
    film = talk(5, 6, num_frames=10)
    frames = np.stack(list(film.frames((96, 64))))
    path = write_video(tmp_path / "a.mp4", frames, film.fps, audio=film.audio, sample_rate=film.sample_rate)
    read = read_video(path)
    assert read.shape == frames.shape
    assert psnr(read[0], frames[0]) > 28  # H.264 halves the colour's resolution
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
        assert container.streams.audio[0].rate == film.sample_rate


def test_sound_reads_back_as_written(tmp_path):
    audio = np.sin(np.arange(800) / 9).astype(np.float32)
    read, rate = read_wav(write_wav(tmp_path / "a.wav", audio, 8000))
    assert rate == 8000
    assert read == pytest.approx(audio, abs=1e-4)


def test_films_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(ValueError, match="frames are 65 x 64; expected even numbers"):
        write_video(tmp_path / "a.mp4", np.zeros((1, 64, 65, 3), dtype=np.uint8), 25)
    with pytest.raises(ValueError, match="frames is empty"):
        write_video(tmp_path / "b.mp4", [], 25)
