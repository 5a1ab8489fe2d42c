"""`refnet talk`: the person of a portrait says what is in a sound."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from referencenet.cli.console import note, say
from referencenet.cli.film_inputs import read_reference
from referencenet.cli.film_run import Weights, check_every, check_film, run_film
from referencenet.cli.models import choose_device
from referencenet.cli.options import (
    LARGEST_SEED,
    Base,
    Checkpoint,
    Device,
    Dtype,
    FitTo,
    GuidanceScale,
    Overwrite,
    RandomTiny,
    Size,
    Steps,
    check_apart,
    only,
    refuse_others,
    settings_of,
)
from referencenet.cli.run import need_weights
from referencenet.cli.settings import parse_size
from referencenet.media.films import frame_rate
from referencenet.media.sound import SAMPLE_RATE, TRACK_CODECS, check_sound, read_sound
from referencenet.methods.systems import pipelines
from referencenet.methods.tiny import tiny_talking_face
from referencenet.pipelines.film_files import FilmSettings, open_films
from referencenet.preprocess.face_mesh import CANVAS
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.speech import WHOLE
from referencenet.preprocess.talking_face import TRAINED_RATE, TalkingFace, read_head_poses

PIPELINES = {name: pipeline for name, pipeline in pipelines("talk").items() if hasattr(pipeline, "speech")}
MethodChoice = StrEnum("MethodChoice", {name: name for name in PIPELINES})
DEFAULT_METHOD = MethodChoice("aniportrait")
DRAWN = only("aniportrait")

app = typer.Typer(add_completion=False)


@app.command()
def talk(
    ctx: typer.Context,
    reference: Annotated[str, typer.Option("--reference", "-r", metavar="PICTURE|BANK", help="The portrait.")],
    audio: Annotated[
        Path, typer.Option("--audio", "-a", metavar="SOUND|FILM", help="What is said; becomes the film's track.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="film.mp4, .webm, .gif, or a folder for PNG frames.")],
    face: Annotated[
        Path | None,
        typer.Option(metavar="NPZ|JSON", rich_help_panel=DRAWN, help="The portrait's own face: a face track of one "
                     "frame, as MediaPipe's face landmarker finds it."),
    ] = None,
    head_poses: Annotated[
        Path | None,
        typer.Option(metavar="NPZ|JSON|NPY", rich_help_panel=DRAWN, help="The head moves as in a film, given by its "
                     "face track, or by a template of poses; forth and back."),
    ] = None,
    identity: Annotated[
        int | None,
        typer.Option(min=0, rich_help_panel=DRAWN, show_default="drawn by --seed",
                     help="Or by the sound, in one of 100 ways."),
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", rich_help_panel=DRAWN, show_default="that of --checkpoint",
                     help="Where audio2mesh.pt and audio2pose.pt are."),
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
    method: Annotated[
        MethodChoice,  # pyright: ignore[reportInvalidTypeForm] - the choices come from the registry
        typer.Option(help="Which released model."),
    ] = DEFAULT_METHOD,
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Size = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="the whole sound", help="Frames.")] = None,
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
) -> None:  # fmt: skip
    """Let the person of a portrait speak.

    Try: `refnet talk -r portrait.png --face portrait.npz -a speech.wav --checkpoint aniportrait -o film.mp4`
    """
    pipeline = PIPELINES[method]
    need_weights(pipeline.published, checkpoint, base, random_tiny, pipeline.speech)
    refuse_others(ctx, method)
    check_apart(ctx, out)
    check_every(every, interpolator)
    check_sound(audio)
    sound = audio if out.suffix.lower() in TRACK_CODECS else None
    check_film(out, sound, resume=resume, overwrite=overwrite)
    width, height = parse_size(size, multiple=8) if size else (CANVAS, CANVAS)
    settings = FilmSettings(
        width=width,
        height=height,
        num_frames=frames,
        rate=TRAINED_RATE if fps is None else frame_rate(fps),
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        side_by_side=side_by_side,
        every=every,
        fit=fit,
    )
    subject = read_reference(reference)
    portrait = own_face(face, str(method))
    samples = read_sound(audio)
    chosen = moving(head_poses, identity)
    speaker = load_speech(speech or checkpoint, random_tiny, device)
    if chosen == {"identity": None}:
        chosen["identity"] = speaker.identity_of(seed)
    drawings = speaker(samples, portrait, rate=settings.rate or TRAINED_RATE, width=width, height=height, **chosen)
    films = open_films(pipeline, [drawings], settings)
    if len(samples) > WHOLE * SAMPLE_RATE:
        note(f"beyond {WHOLE} s features of sound are an approximation: it is heard in pieces.")
    if sound is None:
        note(f"{out.name} cannot hold sound; .mp4 and .webm can.")
    del speaker, samples
    weights = Weights(
        pipeline=pipeline, checkpoint=checkpoint, base=base, device=device, dtype=dtype, own={"pose_range": pose_range}
    )
    done = run_film(
        weights, subject, films, out, settings, resume=resume, interpolator=interpolator, sound=sound,
        overwrite=overwrite, beside=settings_of(ctx, method) | {"identity": chosen.get("identity")},
    )  # fmt: skip
    if done is not None:
        say(f"{done.num_written} frames in {out}")


def own_face(path: Path | None, method: str) -> FaceTrack:
    """The portrait's own face.

    Raises:
        ValueError: If it is not given, or is that of a film.
    """
    if path is None:
        raise ValueError(f"{method} needs --face NPZ|JSON, the portrait's own face, which is moved.")
    track = read_track(path)
    if len(track.vertices) != 1:
        raise ValueError(f"{path} has the faces of {len(track.vertices)} frames; expected that of the portrait alone.")
    return track


def moving(head_poses: Path | None, identity: int | None) -> dict[str, Any]:
    """What the head moves by, as `TalkingFace` takes it.

    Raises:
        ValueError: If it is both, or the file holds no poses.
    """
    if head_poses is None:
        return {"identity": identity}
    if identity is not None:
        raise ValueError("--head-poses and --identity were given; the head moves as in a film, or by the sound.")
    return {"head_poses": read_head_poses(head_poses)}


def load_speech(folder: Path | None, random_tiny: bool, device: str) -> TalkingFace:
    """The networks from sound to drawings.

    Args:
        folder: Of the released files.
        random_tiny: Random weights instead.
        device: As the option says it.

    Raises:
        ValueError: If both are given.
    """
    if random_tiny and folder is not None:
        raise ValueError("--random-tiny makes its own weights; leave away either it or --speech.")
    face = tiny_talking_face() if random_tiny or folder is None else TalkingFace.from_published(folder)
    return face.to(choose_device(device))
