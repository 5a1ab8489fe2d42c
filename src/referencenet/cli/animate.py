"""`refnet animate`: the person of a picture in a film of drawings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from referencenet.cli.checks import check_every, check_film, check_given, check_person, check_sources, check_system
from referencenet.cli.console import note, say
from referencenet.cli.options import (
    LARGEST_SEED,
    Base,
    Checkpoint,
    Device,
    Dtype,
    FitTo,
    FusionChoice,
    GuidanceScale,
    Offload,
    Overwrite,
    RandomTiny,
    Steps,
    VaeTiling,
    method_option,
    only,
    settings_of,
)
from referencenet.cli.settings import parse_size
from referencenet.later import later
from referencenet.media.films import frame_rate

if TYPE_CHECKING:
    from referencenet.cli import face_inputs, film_inputs, film_run, run
    from referencenet.methods import systems
    from referencenet.pipelines import film_files
else:
    face_inputs, film_inputs, film_run, run, systems, film_files = later(
        "referencenet.cli.face_inputs", "referencenet.cli.film_inputs", "referencenet.cli.film_run",
        "referencenet.cli.run", "referencenet.methods.systems",
        "referencenet.pipelines.film_files",
    )  # fmt: skip

BODY, FACE = only("animate_anyone", "magicpose"), only("aniportrait")
SEEN = only("animate_anyone", "magicpose", "aniportrait", "magic_animate")
WORDS, MAGIC_ANIMATE, MAGICPOSE = only("magic_animate", "magicpose"), only("magic_animate"), only("magicpose")

app = typer.Typer(add_completion=False)


@app.command()
def animate(
    ctx: typer.Context,
    reference: Annotated[str, typer.Option("--reference", "-r", metavar="PICTURE|BANK", help="The person.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="film.mp4, .webm, .gif, or a folder for PNG frames.")],
    poses: Annotated[
        list[Path] | None,
        typer.Option("--poses", "-p", metavar="FILM|FOLDER", help="Drawings: skeletons, DensePose for magic_animate, "
                     "face meshes for aniportrait. animate_anyone.reenact: head and mouth."),
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option("--keypoints", "-k", metavar="JSON|FOLDER", rich_help_panel=BODY,
                     help="Instead of --poses: OpenPose's key points."),
    ] = None,
    fit_to: Annotated[
        Path | None,
        typer.Option("--fit-to", metavar="JSON", rich_help_panel=BODY,
                     help="The person's own key points: --keypoints get their build."),
    ] = None,
    landmarks: Annotated[
        Path | None,
        typer.Option("--landmarks", metavar="NPZ|JSON", rich_help_panel=FACE,
                     help="Instead of --poses: MediaPipe's face mesh of the driving film."),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option("--video", metavar="FILM|FOLDER", rich_help_panel=SEEN,
                     help="Instead of --poses: an ordinary film; skeletons, face meshes or DensePose are found in it."),
    ] = None,
    driving: Annotated[
        Path | None,
        typer.Option("--driving", metavar="FILM|NPZ|JSON", rich_help_panel=FACE,
                     help="Instead of --poses: re-enactment, the film's face moves the portrait's."),
    ] = None,
    face: Annotated[
        Path | None,
        typer.Option("--face", metavar="NPZ|JSON", rich_help_panel=FACE, show_default="found in the portrait",
                     help="For --driving: the portrait's own face track."),
    ] = None,
    person: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=SEEN, show_default="the largest",
                     help="Which person in --video, --driving or --keypoints, from the left."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", rich_help_panel=SEEN, show_default="REFNET_MODELS, or the user's cache",
                     help="What `refnet models fetch` got, for --video and --driving."),
    ] = None,
    own_landmarks: Annotated[
        Path | None,
        typer.Option("--own-landmarks", metavar="NPZ|JSON", rich_help_panel=FACE,
                     help="The portrait's: it is cut around a small face, as published."),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, rich_help_panel=FACE, help="Draw every so many frames, insert the others; 3 is usual.")
    ] = 1,
    interpolator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=FACE, help="Inserts frames: FILM's film_net_fp16.pt."),
    ] = None,
    pose_range: Annotated[
        Literal["training", "official"] | None,
        typer.Option(rich_help_panel=FACE, show_default="training",
                     help="Of the drawings' values; official is that of the published scripts."),
    ] = None,
    prompt: Annotated[str, typer.Option(rich_help_panel=WORDS, help="Empty in training and all scripts.")] = "",
    negative_prompt: Annotated[
        str, typer.Option(rich_help_panel=WORDS, help="What is not shown. magicpose reads it with --balance.")
    ] = "",
    control_scale: Annotated[
        float, typer.Option(min=0, rich_help_panel=MAGIC_ANIMATE, help="Of the ControlNet that sees the drawings.")
    ] = 1.0,
    fusion_blocks: Annotated[
        FusionChoice | None,
        typer.Option(rich_help_panel=MAGIC_ANIMATE, show_default="midup", help="Where the reference is read."),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", rich_help_panel=MAGICPOSE, help="Guide by the prompts alone.")
    ] = False,
    method: Annotated[str, method_option("animate")] = "animate_anyone",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="that of the poses", help="In pixels.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, show_default="all poses", help="At most so many.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, show_default="the poses'", help="Frames per second.")] = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the noise.")] = 42,
    fit: FitTo = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Reference, poses, result in one film.")] = False,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a film that was cut short.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Animate the person of a picture.

    Try: `refnet animate -r hero.png -p dance.mp4 --checkpoint pretrained_weights --out film.mp4`
    """
    check_system(ctx, method)
    check_every(every, interpolator)
    check_sources(
        {"--poses": poses, "--keypoints": keypoints, "--landmarks": landmarks, "--video": video, "--driving": driving}
    )
    width, height = parse_size(size, multiple=8) if size else (None, None)
    if video is None and driving is None and (models is not None or (person is not None and keypoints is None)):
        raise ValueError(
            "--models is for --video and --driving, --person for these and --keypoints; none of them was given."
        )
    if driving is None and face is not None:
        raise ValueError("--face is the portrait's for --driving, which was not given.")
    if video is not None and method == "animate_anyone.reenact":
        raise ValueError(
            "animate_anyone.reenact is driven by drawings of head and mouth; --video finds none, give --poses."
        )
    check_given(ctx)
    check_film(out, resume=resume, overwrite=overwrite)
    rate = None if fps is None else frame_rate(fps)
    words = told(method, prompt, negative_prompt, balance, control_scale)
    if balance and reference.endswith(".safetensors"):
        raise ValueError("with --balance the reference is written for both prompts: give it as a picture.")
    check_person(reference)
    pipeline = systems.pipelines("animate")[method]
    pipeline = run.need_weights(pipeline, checkpoint, base, random_tiny)
    settings = film_files.FilmSettings(
        width=width,
        height=height,
        num_frames=frames,
        rate=rate,
        num_inference_steps=steps,
        guidance_scale=guidance,
        seed=seed,
        side_by_side=side_by_side,
        every=every,
        fit=fit,
        told=words,
    )
    subject = film_inputs.read_reference(reference, own_landmarks)
    found = None
    if driving is not None:
        subject, found = face_inputs.reenactment(driving, face, subject, models, person, settings)
    elif video is not None:
        found = film_inputs.estimated(video, film_inputs.found_for(method), models, person, settings)
    drawn = film_inputs.driving_films(poses or [], keypoints, landmarks, fit_to, subject, settings, found, person)
    films = film_files.open_films(pipeline, drawn, settings)
    own = {"pose_range": pose_range, "fusion_blocks": fusion_blocks}
    weights = film_run.Weights(
        pipeline=pipeline, checkpoint=checkpoint, base=base, device=device, dtype=dtype, offload=offload,
        vae_tiling=vae_tiling, own=own,
    )  # fmt: skip
    for film in films:
        if getattr(film, "has_sound", False):
            note(f"the sound of {getattr(film, 'path', 'the poses')} is not copied: the film is silent.")
    done = film_run.run_film(
        weights, subject, films, out, settings, resume=resume, interpolator=interpolator, overwrite=overwrite,
        beside=settings_of(ctx, method),
    )  # fmt: skip
    if done is not None:
        say(f"{done.num_written} frames in {out}")


def told(method: str, prompt: str, negative_prompt: str, balance: bool, control_scale: float) -> dict[str, Any]:
    """What a system's stream is told beside reference and drawings.

    Raises:
        ValueError: If words and `balance` do not fit together.
    """
    if method.startswith("magicpose"):
        if balance and prompt == negative_prompt:
            raise ValueError(
                "--balance guides by --prompt against --negative-prompt, which are the same; give another."
            )
        if negative_prompt and not balance:
            raise ValueError("magicpose reads --negative-prompt with --balance only: otherwise it has one prompt.")
        return {"prompt": prompt, "negative_prompt": negative_prompt, "balance": balance}
    if method.startswith("magic_animate"):
        words = {"prompt": prompt, "negative_prompt": negative_prompt}
        return words | {"controlnet_conditioning_scale": control_scale}
    return {}
