"""`refnet talk`: the person of a portrait says what is in a sound."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from referencenet.cli.checks import (
    built_in_method,
    check_every,
    check_film,
    check_given,
    check_person,
    check_speech,
    check_system,
)
from referencenet.cli.console import note, say
from referencenet.cli.options import (
    LARGEST_SEED,
    Base,
    Checkpoint,
    Device,
    Dtype,
    FitTo,
    GuidanceScale,
    Offload,
    Overwrite,
    RandomTiny,
    Size,
    Steps,
    VaeTiling,
    method_option,
    only,
    settings_of,
    takes,
)
from referencenet.cli.settings import parse_size
from referencenet.later import later
from referencenet.media.films import frame_rate
from referencenet.media.sound import SAMPLE_RATE, TRACK_CODECS, read_sound
from referencenet.preprocess.face_mesh import CANVAS, only_face
from referencenet.preprocess.face_track import FaceTrack, read_track

if TYPE_CHECKING:
    from referencenet.bases import devices as places
    from referencenet.cli import face_inputs, film_inputs, film_run, run, talk_clips
    from referencenet.methods import systems, tiny
    from referencenet.pipelines import film_files
    from referencenet.preprocess import speech as hearing
    from referencenet.preprocess import talking_face
else:
    face_inputs, film_inputs, film_run, run, talk_clips, places = later(
        "referencenet.cli.face_inputs", "referencenet.cli.film_inputs", "referencenet.cli.film_run",
        "referencenet.cli.run", "referencenet.cli.talk_clips", "referencenet.bases.devices",
    )  # fmt: skip
    systems, tiny, film_files, hearing, talking_face = later(
        "referencenet.methods.systems", "referencenet.methods.tiny", "referencenet.pipelines.film_files",
        "referencenet.preprocess.speech", "referencenet.preprocess.talking_face",
    )  # fmt: skip

DRAWN, HALLO, EMO, CLIPS = only("aniportrait"), only("hallo"), only("emo"), only("hallo", "emo")
SAME_LENGTH = 0.1  # seconds by which a voice may be longer or shorter than the sound that it was separated from

app = typer.Typer(add_completion=False)


@app.command()
def talk(
    ctx: typer.Context,
    reference: Annotated[str, typer.Option("--reference", "-r", metavar="PICTURE|BANK", help="The portrait.")],
    audio: Annotated[
        Path, typer.Option("--audio", "-a", metavar="SOUND|FILM", help="The speech; it becomes the film's sound.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="film.mp4, .webm, .gif, or a folder for PNG frames.")],
    vocals: Annotated[
        Path | None,
        typer.Option(metavar="SOUND", help="The voice of --audio alone, if you have separated it: this is heard, and "
                     "--audio becomes the track."),
    ] = None,
    face: Annotated[
        Path | None,
        typer.Option(metavar="NPZ|JSON", help="The portrait's own face: a face track of one frame, as MediaPipe's face "
                     "landmarker finds it. For hallo and emo landmarks are enough, or nothing: it is looked for."),
    ] = None,
    face_embedding: Annotated[
        Path | None,
        typer.Option(metavar="NPY|ONNX", rich_help_panel=HALLO,
                     show_default="zeros, as for a face that is not recognised",
                     help="512 numbers of the face by InsightFace's glintr100, or that network, glintr100.onnx."),
    ] = None,
    pose_weight: Annotated[
        float, typer.Option(rich_help_panel=HALLO, help="How much sound moves all but a face.")
    ] = 1.0,
    face_weight: Annotated[
        float, typer.Option(rich_help_panel=HALLO, help="How much it moves the face.")
    ] = 1.0,
    lip_weight: Annotated[
        float, typer.Option(rich_help_panel=HALLO, help="How much it moves the lips.")
    ] = 1.0,
    head_speed: Annotated[
        float,
        typer.Option(min=0, max=9, rich_help_panel=EMO, help="How fast the head turns, in degrees a frame."),
    ] = 0.5,
    person: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=CLIPS, show_default="the largest", help="Which face, from the left."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", rich_help_panel=CLIPS, show_default="REFNET_MODELS, or the user's cache",
                     help="What `refnet models fetch` got: it finds the face."),
    ] = None,
    head_poses: Annotated[
        Path | None,
        typer.Option(metavar="FILM|NPZ|JSON|NPY", rich_help_panel=DRAWN, help="The head moves as in a film, given "
                     "itself or by its face track, or by a template of poses; forth and back."),
    ] = None,
    identity: Annotated[
        int | None,
        typer.Option(min=0, rich_help_panel=DRAWN, show_default="drawn by --seed",
                     help="Or by the sound, in one of 100 ways."),
    ] = None,
    speech: Annotated[
        str | None,
        typer.Option(metavar="builtin|FOLDER", show_default="that of --checkpoint, or of the built-in weights",
                     help="The speech model: wav2vec2-base-960h, or builtin, the small model of `refnet paperdoll "
                     "--speech builtin`; for aniportrait where audio2mesh.pt and audio2pose.pt are."),
    ] = None,
    every: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=DRAWN, help="Draw every so many frames, insert the others; 3 is usual."),
    ] = 1,
    interpolator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=DRAWN, help="Inserts frames: FILM's film_net_fp16.pt."),
    ] = None,
    pose_range: Annotated[
        Literal["training", "official"] | None,
        typer.Option(rich_help_panel=DRAWN, show_default="training",
                     help="Of the drawings' values; official is that of the published scripts."),
    ] = None,
    method: Annotated[str, method_option("talk")] = "aniportrait",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Size = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="the whole sound", help="At most so many.")] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=1, show_default="the system's", help="Frames per second: 24, 25, 29.97, 30 or others."),
    ] = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the noise, and of the identity.")] = 42,
    fit: FitTo = None,
    overwrite: Overwrite = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Portrait, drawings, result in one film.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a film that was cut short.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Let the person of a portrait speak.

    Try: `refnet talk --method hallo -r portrait.png -a voice.wav --checkpoint pretrained_models -o film.mp4`
    """
    method = built_in_method(ctx, method, "hallo", "talk")
    check_system(ctx, method)
    if random_tiny and speech is not None:
        raise ValueError("--random-tiny makes its own weights; leave out either it or --speech.")
    check_every(every, interpolator)
    check_moving(head_poses, identity)
    clipwise = takes(CLIPS, method)
    check_speech(speech, None if clipwise else method)
    check_given(ctx)
    sound = audio if out.suffix.lower() in TRACK_CODECS else None
    check_film(out, sound, resume=resume, overwrite=overwrite)
    check_person(reference)
    dimensions = parse_size(size, multiple=8) if size else None
    if clipwise and dimensions is not None and dimensions[0] != dimensions[1]:
        raise ValueError(f"--size is {size}; {method} draws squares, such as --size 512x512.")
    typed_rate = None if fps is None else frame_rate(fps)
    samples = read_spoken(audio, vocals)
    if not clipwise:
        own_face(face, method)
    pipeline = systems.pipelines("talk")[method]
    pipeline = run.need_weights(pipeline, checkpoint, base, random_tiny, pipeline.speech)
    rate = typed_rate or (hearing.RATE if clipwise else talking_face.TRAINED_RATE)
    own = {"pose_range": pose_range}
    weights = film_run.Weights(
        pipeline=pipeline, checkpoint=checkpoint, base=base, device=device, dtype=dtype, offload=offload,
        vae_tiling=vae_tiling, own=own,
    )  # fmt: skip
    common = {"num_frames": frames, "num_inference_steps": steps, "guidance_scale": guidance, "seed": seed,
              "side_by_side": side_by_side}  # fmt: skip
    typed = settings_of(ctx, method)
    if clipwise:
        panels = {
            HALLO: {"pose_weight": pose_weight, "face_weight": face_weight, "lip_weight": lip_weight},
            EMO: {"head_speed": head_speed},
        }
        plan = talk_clips.clip_settings(panels, method, dimensions, samples, rate, **common)
        subject = (
            talk_clips.drawn_speaker(reference, face, face_embedding)
            if isinstance(pipeline, run.ShippedSystem)
            else talk_clips.speaker(
                reference, face=face, embedding=face_embedding, models=models, person=person, fit=fit
            )
        )
        model = None if random_tiny else talk_clips.heard_by(pipeline, speech, checkpoint, method, samples)
        tell_of_sound(samples, out, sound)
        done: Any = talk_clips.run_clips(
            weights, subject, samples, model, out, plan, rate, resume=resume, sound=sound, overwrite=overwrite,
            beside=typed,
        )  # fmt: skip
        written = done.num_frames
    else:
        width, height = dimensions or (CANVAS, CANVAS)
        settings = film_files.FilmSettings(width=width, height=height, rate=rate, every=every, fit=fit, **common)
        subject = film_inputs.read_reference(reference)
        portrait = own_face(face, method)
        chosen = moving(head_poses, identity)
        face_that_speaks = load_speech(checkpoint if speech is None else Path(speech), random_tiny, device)
        if chosen == {"identity": None}:
            chosen["identity"] = face_that_speaks.identity_of(seed)
        drawings = face_that_speaks(samples, portrait, rate=rate, width=width, height=height, **chosen)
        films = film_files.open_films(pipeline, [drawings], settings)
        tell_of_sound(samples, out, sound)
        face_that_speaks.to("cpu")  # where faces are drawn, while the device denoises
        del face_that_speaks, samples
        done = film_run.run_film(
            weights, subject, films, out, settings, resume=resume, interpolator=interpolator, sound=sound,
            overwrite=overwrite, beside=typed | {"identity": chosen.get("identity")},
        )  # fmt: skip
        if done is None:
            return
        written = done.num_written
    say(f"{written} frames in {out}")


def read_spoken(audio: Path, vocals: Path | None) -> np.ndarray:
    """What is heard, at 16 kHz: the sound, or its voice alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or the voice is that of another sound.
    """
    samples = read_sound(audio)
    if vocals is None:
        return samples
    voice = read_sound(vocals)
    if abs(len(voice) - len(samples)) > SAME_LENGTH * SAMPLE_RATE:
        raise ValueError(
            f"--vocals {vocals} has {len(voice) / SAMPLE_RATE:.2f} s, --audio {audio} {len(samples) / SAMPLE_RATE:.2f} "
            "s; expected the voice of that sound, as long as it is."
        )
    return voice


def tell_of_sound(samples: np.ndarray, out: Path, sound: Path | None) -> None:
    """Say what is approximate of a long sound, and that a film has none."""
    if len(samples) > hearing.WHOLE * SAMPLE_RATE:
        note(f"beyond {hearing.WHOLE} s features of sound are an approximation: it is heard in pieces.")
    if sound is None:
        note(f"{out.name} cannot hold sound; .mp4 and .webm can.")


def own_face(path: Path | None, method: str) -> FaceTrack:
    """The portrait's own face.

    Raises:
        ValueError: If it is not given, or is that of a film.
    """
    if path is None:
        raise ValueError(f"{method} needs --face NPZ|JSON, the portrait's own face, which is moved.")
    track = read_track(path)
    only_face(track.vertices, path)
    return track


def moving(head_poses: Path | None, identity: int | None) -> dict[str, Any]:
    """What the head moves by, as `TalkingFace` takes it.

    Raises:
        ValueError: If it is both, or the file holds no poses.
    """
    check_moving(head_poses, identity)
    if head_poses is None:
        return {"identity": identity}
    return {"head_poses": face_inputs.film_head_poses(head_poses)}


def check_moving(head_poses: Path | None, identity: int | None) -> None:
    """Make sure that the head moves by one thing.

    Raises:
        ValueError: If it is both a film and a way of the sound.
    """
    if head_poses is not None and identity is not None:
        raise ValueError("--head-poses and --identity were given; the head moves as in a film, or by the sound.")


def load_speech(folder: Path | None, random_tiny: bool, device: str) -> "talking_face.TalkingFace":
    """The networks from sound to drawings.

    Args:
        folder: Of the released files.
        random_tiny: Random weights instead.
        device: As the option says it.
    """
    face = (
        tiny.tiny_talking_face() if random_tiny or folder is None else talking_face.TalkingFace.from_published(folder)
    )
    return face.to(places.choose_device(device))
