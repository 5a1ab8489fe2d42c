"""Sound in and out: every format and layout becomes the same mono samples, faults are told, and films stay in step."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from referencenet.media.films import FilmWriter, write_film
from referencenet.media.sound import SAMPLE_RATE, read_sound
from sounds import tone, write_sound

RATES = [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)]


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """Correlation over what both have, without the ends."""
    length = min(len(found), len(expected))
    a, b = found[800 : length - 800], expected[800 : length - 800]
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("name", ["s.wav", "s.mp3", "s.m4a", "s.flac", "s.ogg"])
def test_every_format_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    rate = 48000 if name == "s.ogg" else 44100
    found = read_sound(write_sound(tmp_path / name, tone(1.0, rate), rate))
    assert found.dtype == np.float32
    assert found.ndim == 1
    assert abs(len(found) - SAMPLE_RATE) < 0.06 * SAMPLE_RATE  # codecs fill their last block
    assert likeness(found, tone(1.0, SAMPLE_RATE)) > 0.99
    assert np.abs(found[800:15200]).max() == pytest.approx(0.5, abs=0.05)  # codecs ring where a tone breaks off


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_every_rate_becomes_16_khz(rate: int, tmp_path: Path) -> None:
    found = read_sound(write_sound(tmp_path / "s.wav", tone(1.0, rate), rate))
    assert abs(len(found) - SAMPLE_RATE) <= 1
    assert likeness(found, tone(1.0, SAMPLE_RATE)) > 0.9999
    assert np.allclose(read_sound(tone(1.0, rate), rate), found, atol=1e-6)


def test_channels_are_mixed_and_never_louder_than_full_scale(tmp_path: Path) -> None:
    loud = np.ones((6, 8000), dtype=np.float32)
    found = read_sound(write_sound(tmp_path / "s.wav", loud, 16000, "5.1"))
    assert np.allclose(found, 1, atol=1e-5)
    rumble = np.zeros((6, 8000), dtype=np.float32)
    rumble[3] = tone(0.5, 16000, 50)
    assert not read_sound(write_sound(tmp_path / "s.wav", rumble, 16000, "5.1")).any()  # the subwoofer's
    centre = np.zeros((6, 8000), dtype=np.float32)
    centre[2] = tone(0.5, 16000)
    assert likeness(read_sound(write_sound(tmp_path / "s.wav", centre, 16000, "5.1")), tone(0.5, 16000)) > 0.9999


def test_a_silent_channel_halves_the_other(tmp_path: Path) -> None:
    stereo = np.stack([tone(0.5, 16000), np.zeros(8000, dtype=np.float32)])
    found = read_sound(write_sound(tmp_path / "s.wav", stereo, 16000, "stereo"))
    assert np.allclose(found, tone(0.5, 16000) / 2, atol=1e-6)
    assert np.allclose(read_sound(stereo), found, atol=1e-6)


def test_arrays_are_read_without_being_touched() -> None:
    own = np.array([0.5, 1.5, -2.0], dtype=np.float32)
    assert read_sound(own).tolist() == [0.5, 1.0, -1.0]
    assert own.tolist() == [0.5, 1.5, -2.0]
    assert read_sound(np.array([16384, -32768], dtype=np.int16)).tolist() == [0.5, -1.0]
    assert read_sound(torch.full((2, 5), 0.25)).tolist() == [0.25] * 5


def test_faults_are_told_in_a_line(tmp_path: Path) -> None:
    broken = tone(1.0, 16000)
    broken[8000] = np.nan
    (tmp_path / "text.wav").write_text("no sound at all")
    empty = tmp_path / "empty.wav"
    with wave.open(str(empty), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    loud = np.full(1600, 20000.0, dtype=np.float32)
    cases = [
        (write_sound(tmp_path / "nan.wav", broken, 16000), ValueError, r"nan\.wav holds NaN .*, the first at 0\.50 s"),
        (empty, ValueError, "empty.wav has no sample"),
        (write_sound(tmp_path / "loud.wav", loud, 16000), ValueError, "samples up to 20000; expected floats"),
        (write_film([Image.new("RGB", (32, 32))], tmp_path / "film.mp4"), ValueError, "film.mp4 has no sound; give"),
        (tmp_path / "text.wav", ValueError, "text.wav is not a sound that can be read"),
        (tmp_path / "none.wav", FileNotFoundError, "there is no sound"),
        (tmp_path, ValueError, "is a folder; give the path of a sound in it"),
        (np.zeros(0), ValueError, "has no sample"),
        (np.zeros((2, 2, 2)), ValueError, r"shape \(2, 2, 2\) were given; expected \(samples,\)"),
        (np.zeros((16000, 2)), ValueError, r"expected \(samples,\) or \(channels, samples\)"),
        (np.zeros(5, dtype=np.uint8), TypeError, "samples are of type uint8"),
    ]
    for source, kind, message in cases:
        with pytest.raises(kind, match=message) as told:
            read_sound(source)
        assert "\n" not in str(told.value)


# --- films with a track -----------------------------------------------------------------------------------------------


def film_with_clicks(path: Path, rate: Fraction, seconds: int) -> list[int]:
    """A dark film with white frames that click, in pieces of 100 frames."""
    num_frames = int(seconds * rate)
    marked = [3, num_frames // 2, num_frames - 4]
    sound = np.zeros(seconds * 44100, dtype=np.float32)
    for frame in marked:
        at = round(frame / rate * 44100)
        sound[at : at + 40] = 0.9
    write_sound(path.with_suffix(".wav"), sound, 44100)
    frames = (Image.new("RGB", (16, 16), (255,) * 3 if i in marked else (0,) * 3) for i in range(num_frames))
    write_film(frames, path, rate, sound=path.with_suffix(".wav"))
    return marked


def check_clicks(path: Path, rate: Fraction, marked: list[int], seconds: int) -> None:
    with av.open(str(path)) as film:
        decoded = [(frame.time, frame.to_ndarray(format="gray").mean() > 128) for frame in film.decode(video=0)]
    heard = np.abs(read_sound(path))
    assert [i for i, (_, white) in enumerate(decoded) if white] == marked
    assert abs(len(decoded) / rate - seconds) < 0.05
    assert abs(len(heard) / SAMPLE_RATE - len(decoded) / rate) < 0.03
    for frame in marked:
        time = decoded[frame][0]
        start = max(0, int((time - 0.3) * SAMPLE_RATE))
        part = heard[start : int((time + 0.3) * SAMPLE_RATE)]
        click = (start + int(np.argmax(part > part.max() / 2))) / SAMPLE_RATE
        assert abs(click - time) < 0.1 / rate, (frame, click, time)  # asked for: half a frame


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.4g}")
def test_clicks_lie_on_their_frames(rate: Fraction, ending: str, tmp_path: Path) -> None:
    marked = film_with_clicks(tmp_path / f"film{ending}", rate, 9)
    check_clicks(tmp_path / f"film{ending}", rate, marked, 9)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".mp4", ".webm"])
@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.4g}")
def test_clicks_lie_on_their_frames_at_the_end_of_two_minutes(rate: Fraction, ending: str, tmp_path: Path) -> None:
    marked = film_with_clicks(tmp_path / f"film{ending}", rate, 120)
    check_clicks(tmp_path / f"film{ending}", rate, marked, 120)


def test_sound_is_cut_at_the_films_end_and_may_be_shorter(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16))] * 25
    for seconds, expected in ((3.0, 1.0), (0.4, 0.4)):
        sound = write_sound(tmp_path / "s.wav", np.stack([tone(seconds, 44100)] * 2), 44100, "stereo")
        film = write_film(frames, tmp_path / "film.mp4", 25, sound=sound)
        assert len(read_sound(film)) / SAMPLE_RATE == pytest.approx(expected, abs=0.05)
        with av.open(str(film)) as opened:
            assert opened.streams.audio[0].channels == 2
            assert len([packet for packet in opened.demux(video=0) if packet.size]) == 25


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_tone_that_breaks_off_does_not_ring(ending: str, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "s.wav", tone(1.3, 44100), 44100)
    film = write_film([Image.new("RGB", (16, 16))] * 30, tmp_path / f"film{ending}", 25, sound=sound)
    assert np.abs(read_sound(film)).max() < 0.6


def test_a_films_own_track_stays_with_the_film(tmp_path: Path) -> None:
    marked = film_with_clicks(tmp_path / "first.mp4", Fraction(25), 4)
    frames = (Image.new("RGB", (16, 16), (255,) * 3 if i in marked else (0,) * 3) for i in range(100))
    film = write_film(frames, tmp_path / "second.webm", 25, sound=tmp_path / "first.mp4")
    check_clicks(film, Fraction(25), marked, 4)


def test_a_track_that_begins_later_keeps_its_place(tmp_path: Path) -> None:
    pictures = write_film([Image.new("RGB", (16, 16))] * 50, tmp_path / "silent.mp4", 25)
    with av.open(str(pictures)) as given, av.open(str(tmp_path / "film.mp4"), "w") as film:
        video = film.add_stream_from_template(given.streams.video[0])
        audio = film.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0, 16000)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 8000
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                film.mux(packet)
        film.mux(audio.encode(frame))
        film.mux(audio.encode(None))
    found = read_sound(tmp_path / "film.mp4")
    assert not found[:6500].any()  # AAC begins up to a block of 1024 samples earlier
    assert np.abs(found[8000:9000]).max() > 0.4
    assert likeness(found[8000:], tone(1.0, 16000)) > 0.99


def test_gaps_in_a_track_are_silent(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "s.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (0, 24000):  # half a second is missing
            frame = av.AudioFrame.from_ndarray(
                (tone(1.0, 16000)[None] * 32767).astype(np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read_sound(tmp_path / "s.mkv")
    assert abs(len(found) - 40000) < 20
    assert not found[16020:23980].any()
    assert likeness(found[24000:], tone(1.0, 16000)) > 0.99


def test_a_film_that_cannot_have_the_sound_is_not_begun(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "s.wav", tone(0.1, 16000), 16000)
    for name in ("film.gif", "frames"):
        with pytest.raises(ValueError, match="cannot hold sound; use .mp4 or .webm"):
            FilmWriter(tmp_path / name, Fraction(25), sound=sound)
    with pytest.raises(FileNotFoundError, match="there is no sound"):
        FilmWriter(tmp_path / "film.mp4", Fraction(25), sound=tmp_path / "none.wav")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.wav"]
