"""`refnet turn`: the person of a portrait from other cameras."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from PIL import Image

from referencenet.cli.checks import check_film, check_given, check_models, check_system
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
    PersonModels,
    RandomTiny,
    Size,
    Steps,
    VaeTiling,
    WhichPerson,
    is_typed,
    method_option,
    settings_of,
)
from referencenet.later import later
from referencenet.media.films import Film, frame_rate, write_film
from referencenet.media.fitting import Fit, fitted
from referencenet.media.images import read_image, resize
from referencenet.media.sheets import beside
from referencenet.preprocess.head_proxy import FIELD_OF_VIEW, HeadCamera, HeadColours, HeadFilm, swing

if TYPE_CHECKING:
    import torch

    from referencenet.cli import portraits, run
    from referencenet.methods import systems
else:
    torch, portraits, run, systems = later(
        "torch", "referencenet.cli.portraits", "referencenet.cli.run", "referencenet.methods.systems"
    )

VIEWS, RATE = 16, 10  # of the published demonstration
HEAD = "Cameras of a drawn head, instead of --cameras"
RENDERED = (
    "cameras are a drawn head, but the released weights were trained with rendered people: how well they follow it has "
    "not been measured. --cameras takes pictures of a person from each camera."
)
ANGLES = ("yaw", "pitch", "roll", "field_of_view")

app = typer.Typer(add_completion=False)


@app.command()
def turn(
    ctx: typer.Context,
    portrait: Annotated[Path, typer.Option("--portrait", "-r", metavar="PICTURE", help="The person: head, and neck.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="film.mp4, .webm, .gif, or a folder for PNG pictures.")],
    cameras: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|FILM", help="For each view a picture of another person from the same "
                     "camera, framed alike."),
    ] = None,
    yaw: Annotated[
        str, typer.Option(metavar="DEGREES|FROM:TO", rich_help_panel=HEAD, help="Above 0 the face looks to the right "
                          "of the picture.")
    ] = "-40:40",
    pitch: Annotated[
        str, typer.Option(metavar="DEGREES|FROM:TO", rich_help_panel=HEAD, help="Above 0 the face looks up.")
    ] = "0",
    roll: Annotated[float, typer.Option(rich_help_panel=HEAD, help="Above 0 the head leans to the right.")] = 0.0,
    field_of_view: Annotated[
        float, typer.Option("--fov", rich_help_panel=HEAD, help="Degrees; the head keeps its size.")
    ] = FIELD_OF_VIEW,
    views: Annotated[
        int | None, typer.Option(min=1, show_default=f"{VIEWS}, or all --cameras", help="Pictures.")
    ] = None,
    proxies: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER|FILM", help="Per view a rough picture of the person from there, such as a 3D "
                     "GAN's inversion."),
    ] = None,
    start: Annotated[
        Literal["reference", "noise", "head"],
        typer.Option(help="Without --proxies: what the noise begins over. head: the drawn head in the portrait's "
                     "colours."),
    ] = "reference",
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="Empty in training and the released script.")] = "",
    negative_prompt: Annotated[str, typer.Option(help="With --balance: what is not shown.")] = "",
    balance: Annotated[bool, typer.Option("--balance", help="Guide by the prompts alone.")] = False,
    middle_everywhere: Annotated[
        bool, typer.Option("--middle-everywhere", help="Run the middle view module in both passes.")
    ] = False,
    method: Annotated[str, method_option("turn")] = "diffportrait3d",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Size = None,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames per second of a film.")] = RATE,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of all that is drawn at random.")] = 42,
    fit: FitTo = None,
    person: WhichPerson = None,
    models: PersonModels = None,
    overwrite: Overwrite = False,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Portrait, camera and result.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Show the person of a portrait from other cameras.

    Try: `refnet turn -r portrait.png --yaw -40:40 --views 16 --checkpoint DiffPortrait3D -o turned.mp4`
    """
    check_system(ctx, method)
    given = {"prompt": prompt, "negative_prompt": negative_prompt, "balance": balance}
    check_words(prompt, negative_prompt, balance)
    if proxies is not None and is_typed(ctx, "start"):
        raise ValueError("--start is for views without --proxies; give one of the two.")
    typed = [f"--{'fov' if name == 'field_of_view' else name}" for name in ANGLES if is_typed(ctx, name)]
    if cameras is not None and (typed or start == "head"):
        raise ValueError(
            f"for drawn cameras only: {', '.join(typed) or '--start head'}; with --cameras the pictures say where "
            "they are."
        )
    swung = {"yaw": read_range(yaw, "--yaw"), "pitch": read_range(pitch, "--pitch")}
    angles = [] if cameras else swing(views or VIEWS, roll=roll, field_of_view=field_of_view, **swung)
    check_models(person, models)
    check_given(ctx)
    check_film(out, overwrite=overwrite)
    shown = read_image(portrait) if person is None else around_face(portrait, person, models)
    pipeline = systems.pipelines("turn")[method]
    pipeline = run.need_weights(pipeline, checkpoint, base, random_tiny)
    options = run.drawing_options(pipeline.spec, size, steps, guidance)
    sides = (options["width"], options["height"])
    shown = run.fitted_pictures({"the portrait": shown}, sides, fit)["the portrait"]
    heads = run.drawn_heads_of(pipeline)
    if cameras is None and checkpoint is not None:
        note(RENDERED)
    seen = read_views(cameras, "--cameras", sides, views, fit) if cameras else heads(angles, sides)
    rough = (
        read_views(proxies, "--proxies", sides, len(seen), fit) if proxies else proxies_of(shown, angles, sides, start)
    )
    pipe = run.load(pipeline, checkpoint, base, device, dtype, offload=offload, vae_tiling=vae_tiling)
    with run.steps_shown("turning", options["num_inference_steps"]) as done:
        pictures = pipe(
            shown,
            seen,
            proxies=rough,
            start="noise" if start == "noise" else "reference",
            middle_everywhere=middle_everywhere,
            **given,
            **options,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=done,
        ).frames[0]
    if side_by_side:
        first = resize(shown, sides, how="stretch")
        pictures = [beside([first, *both]) for both in zip(seen, pictures, strict=True)]
    settings = settings_of(ctx, method) | options | {"views": len(pictures)}
    write_film(pictures, out, frame_rate(fps), overwrite=overwrite, settings=settings)
    say(f"{len(pictures)} views in {out}")


def around_face(portrait: Path, person: int, models: Path | None) -> Image.Image:
    """A square of a portrait around one of several faces, framed about as the drawn head is.

    Args:
        portrait: The picture.
        person: Whose face, counted from the left from 1.
        models: Folder of the networks; None: where they were fetched to.

    Raises:
        FileNotFoundError: If a network is missing.
        ValueError: If there is no such face, or too little is seen of it.
    """
    finder = portraits.face_finder(models, "It finds the face for --person; or cut the portrait yourself.")
    return read_image(portraits.found_portrait(read_image(portrait), finder, person, None).picture)


def read_range(text: str, option: str) -> tuple[float, float]:
    """Read -40:40, or one angle for all views.

    Args:
        text: As typed.
        option: What it is called, for errors.

    Raises:
        ValueError: If it is neither, or the first angle is the larger one.
    """
    try:
        ends = [float(part) for part in text.split(":")]
    except ValueError:
        ends = []
    if not 1 <= len(ends) <= 2:
        raise ValueError(f"{option} was {text!r}; it is one angle or FROM:TO in degrees, as in -40:40.")
    if ends[0] > ends[-1]:
        raise ValueError(f"{option} was {text}, from the larger angle to the smaller; write {ends[-1]:g}:{ends[0]:g}.")
    return ends[0], ends[-1]


def check_words(prompt: str, negative_prompt: str, balance: bool) -> None:
    """Refuse prompts that do not guide.

    Raises:
        ValueError: If they do not fit `balance`.
    """
    if balance and prompt == negative_prompt:
        raise ValueError("--balance guides by --prompt against --negative-prompt, which are the same; give another.")
    if negative_prompt and not balance:
        raise ValueError("--negative-prompt counts with --balance only: otherwise both passes have the prompt.")


def read_views(
    path: Path, option: str, size: tuple[int, int], views: int | None, fit: Fit | None = None
) -> list[Image.Image]:
    """Pictures of all views.

    Args:
        path: A folder or a film.
        option: What it is called, for errors.
        size: Of the result in pixels.
        views: How many are needed, of cameras at least; None: as many as there are.
        fit: How pictures of other proportions come to the result's; None: they are refused.

    Raises:
        ValueError: If there are too few, or one has other proportions than the result: a head is not to be cut or
            stretched.
    """
    film = Film(path)
    if views is not None and len(film) < views:
        raise ValueError(f"{option} {path} has {len(film)} pictures for {views} views; give one for each.")
    pictures = list(islice(film, views))
    if fit is not None:
        return [fitted(picture, size, fit, "black") for picture in pictures]
    for i, picture in enumerate(pictures):
        if picture.width * size[1] != picture.height * size[0]:
            raise ValueError(
                f"picture {i + 1} of {option} {path} is {picture.width} x {picture.height}, the result "
                f"{size[0]} x {size[1]}; give pictures of its proportions, framed as the portrait is, or another "
                "--size, or --fit."
            )
    return pictures


def proxies_of(
    person: Image.Image, angles: Sequence[HeadCamera], size: tuple[int, int], start: str
) -> list[Image.Image] | None:
    """The drawn head from all cameras in a portrait's colours, where the views are to start from it."""
    return HeadFilm(angles, size, HeadColours.of(person)).pictures if start == "head" else None
