"""Talking portraits on the disk: what they hear, going on after a failure, bounded memory."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memory import LivingBytes
from referencenet.media.films import Film, parts_of
from referencenet.media.sound import read_sound
from referencenet.methods.tiny import tiny_speech_model
from referencenet.paperdoll.voice import speech
from referencenet.pipelines.talk_files import TalkSettings, num_steps, talk_film
from referencenet.preprocess import Portrait
from referencenet.preprocess import speech as speech_module
from sounds import tiny_wav2vec, write_sound
from talking import face_points, short_clips
from tiny import picture

PORTRAIT = Portrait(picture=picture(1, (32, 32)), landmarks=face_points(32), face=np.ones(512))
SETTINGS = TalkSettings(width=32, height=32, num_inference_steps=1, seed=3)
SYSTEMS = ["hallo", "emo"]


def heard(pipe: Any, seconds: float = 0.44, rate: Fraction | int = 25) -> Any:
    """Of 11 frames at 25 a second: three clips of four, the last one cut."""
    return pipe.hear(speech(0, seconds, 16000), tiny_speech_model(pipe), rate=rate)


def pixels(path: Path) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in Film(path)])


# --- what is heard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_call_takes_what_a_pipeline_hears_of_a_sound(system: str, tmp_path: Path) -> None:
    pipe = short_clips(system)
    model = tiny_speech_model(pipe)
    model.save_pretrained(tmp_path / "speech")
    write_sound(tmp_path / "a.wav", speech(0, 0.44, 16000), 16000)
    spoken = pipe.hear(tmp_path / "a.wav", tmp_path / "speech")
    assert (spoken.num_sounding, spoken.num_frames) == (11, 12 if system == "hallo" else 11)  # filled, as published
    options = {"width": 32, "height": 32, "num_inference_steps": 1, "output_type": "pt"}

    def call(audio: Any, **changes: Any) -> torch.Tensor:
        return pipe(PORTRAIT, audio, generator=torch.Generator().manual_seed(0), **options | changes).frames

    film = call(spoken)
    assert film.shape[1] == 11
    numbers = spoken.of(range(spoken.num_frames))[:, 1:]  # the layers' states, without what the first one takes
    assert torch.equal(call(numbers, num_frames=11), film)
    assert not torch.equal(call(pipe.hear(speech(1, 0.44, 16000), model)), film)
    with pytest.raises(ValueError, match="12 frames were asked for, but the audio has 11"):
        call(spoken, num_frames=12)


def test_another_speech_model_or_sound_itself_is_refused() -> None:
    pipe = short_clips("emo")
    with pytest.raises(ValueError, match="has 3 layers of 32 channels; expected 2 of 4"):
        pipe.hear(speech(0, 0.4, 16000), tiny_wav2vec())
    with pytest.raises(ValueError, match=r"a.wav is no .npy file of speech features; .* pipe.hear\(sound"):
        pipe(PORTRAIT, "a.wav", width=32, height=32)


@pytest.mark.parametrize("rate", [24, 25, Fraction(30000, 1001), 30])
def test_what_is_heard_belongs_to_its_frame(rate: Fraction | int) -> None:
    """The middle of a burst is heard less than half a frame from where the film shows that moment, also at the end."""
    model = tiny_wav2vec("layer")  # features of a moment depend on its sound alone, but for the encoder
    still = np.random.default_rng(0).normal(size=160_000).astype(np.float32) * 0.01
    for seconds in (1.02, 5.0, 9.1):
        loud, around = still.copy(), np.arange(-800, 800)
        loud[round(seconds * 16000) + around] += 0.1 * np.sin(around)
        found = []
        for sound in (still, loud):
            features = speech_module.SpeechFeatures(model, sound, rate=rate)
            wave = features._wave(0, features.num_samples)[None]
            steps = model.feature_extractor(wave)
            found.append(torch.nn.functional.interpolate(steps, size=len(features), mode="linear", align_corners=True))
        change = (found[1] - found[0]).square().sum(dim=(0, 1)).double()
        change *= change > change.max() * 0.05  # the level of the whole sound moved a little as well
        frame = float((change * torch.arange(len(change))).sum() / change.sum())
        assert abs(frame - seconds * float(rate)) < 0.5


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_film_has_the_frames_of_the_call_and_the_portrait_beside_them(system: str, tmp_path: Path) -> None:
    pipe, seen = short_clips(system), []
    audio = heard(pipe, rate=30)
    settings = replace(SETTINGS, side_by_side=True, guidance_scale=1.0)
    out = talk_film(pipe, PORTRAIT, audio, tmp_path / "film", settings, step_done=seen.append)
    assert seen == list(range(1, num_steps(pipe, audio, settings.settled(pipe, audio)) + 1))
    call = pipe(PORTRAIT, audio, width=32, height=32, num_inference_steps=1, guidance_scale=1.0, output_type="np",
                generator=torch.Generator().manual_seed(3)).frames[0]  # fmt: skip
    film = pixels(out)
    assert film.shape == (14, 32, 64, 3)
    assert np.abs(film[:, :, 32:] / 255 - call).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(film[5, :, :32], np.asarray(PORTRAIT.picture))
    assert not parts_of(out).exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """Inside, no file grows beyond 64 bytes, which the system itself refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def cut_short(failure: str, begin: Callable[..., Any]) -> None:
    """Begin a film that fails in its second clip: its user stops it, or nothing more can be written."""

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def fill(done: int) -> None:
        if done == 2:
            disk.__enter__()

    if failure == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            begin(step_done=stop)
        return
    disk = full_disk()
    try:
        with pytest.raises(OSError, match="frames 4 to 7 of .* could not be written .*What is finished stays in"):
            begin(step_done=fill)
    finally:
        disk.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("system", "ending", "failure"),
    [("hallo", ".mp4", "full"), ("hallo", "", "interrupt"), ("emo", "", "full"), ("emo", ".mp4", "interrupt")],
)
def test_an_interrupted_film_goes_on_behind_its_last_clip_to_the_bit(
    system: str, ending: str, failure: str, tmp_path: Path
) -> None:
    pipe = short_clips(system)
    audio, out = heard(pipe), tmp_path / f"cut{ending}"
    whole = talk_film(pipe, PORTRAIT, audio, tmp_path / f"whole{ending}", SETTINGS)

    def run(given: Any = audio, portrait: Any = PORTRAIT, settings: TalkSettings = SETTINGS, **options: Any) -> Path:
        return talk_film(short_clips(system), portrait, given, out, settings, **options)

    cut_short(failure, run)
    (piece,) = [path for path in parts_of(out).iterdir() if path.name.startswith("0")]
    assert piece.stem == "00000000-4"
    other = pipe.hear(speech(1, 0.44, 16000), tiny_speech_model(pipe))
    for changes, named in (
        ({"given": other}, "other sound"),
        ({"portrait": replace(PORTRAIT, face=None)}, "other reference"),
        ({"settings": replace(SETTINGS, seed=4)}, "seed was 3, now 4"),
        ({"given": heard(pipe, rate=24)}, "rate was 25, now 24"),
    ):
        with pytest.raises(ValueError, match=f"begun with other settings .*{named}"):
            run(**changes, resume=True)
    seen: list[int] = []
    run(resume=True, step_done=seen.append)
    assert seen == [2, 3]
    assert np.array_equal(pixels(out), pixels(whole))
    assert len(pixels(whole)) == 11


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_long_film_needs_no_more_memory_than_a_short_one(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "WHOLE", 0.1)
    monkeypatch.setattr(speech_module, "PIECE", 0.32)
    monkeypatch.setattr(speech_module, "CONTEXT", 0.16)
    monkeypatch.setattr(speech_module, "STRETCH", 20)
    pipe = short_clips(system)

    def peak(seconds: float) -> int:
        audio = heard(pipe, seconds)
        with LivingBytes() as living:
            clips = pipe.stream(PORTRAIT, audio, width=32, height=32, num_inference_steps=1, output_type="pt")
            assert sum(len(frames) for frames, _ in clips) == round(seconds * 25)
        return living.peak

    short, long = peak(0.96), peak(2.88)
    assert 0 < long <= 1.05 * short


def test_a_sound_becomes_the_track_whatever_is_heard(tmp_path: Path) -> None:
    pipe = short_clips("emo")
    music = write_sound(tmp_path / "music.wav", speech(5, 0.44, 48000), 48000)
    out = talk_film(pipe, PORTRAIT, heard(pipe), tmp_path / "film.mp4", SETTINGS, sound=music)
    found, expected = read_sound(out), read_sound(music)
    count = min(len(found), len(expected))
    assert np.corrcoef(found[:count], expected[:count])[0, 1] > 0.95
