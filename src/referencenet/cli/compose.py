"""`refnet compose`: a person from pictures of parts, or in a garment of a picture, drawn after words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from referencenet.cli.checks import check_given, check_models, check_pictures, check_system
from referencenet.cli.console import note
from referencenet.cli.options import (
    Base,
    Checkpoint,
    Count,
    Device,
    Dtype,
    FitTo,
    FusionChoice,
    GuidanceScale,
    Offload,
    Overwrite,
    RandomTiny,
    Seed,
    Size,
    Steps,
    VaeTiling,
    method_option,
    only,
    settings_of,
)
from referencenet.cli.settings import pairs
from referencenet.later import later
from referencenet.media.fitting import Fit, fitted
from referencenet.media.images import read_image, read_layers, read_mask
from referencenet.media.sheets import beside
from referencenet.preprocess.parts import LABELS, PLACES, PersonPart, check_parts, mask_of, own_mask, segmented
from referencenet.telling import did_you_mean

if TYPE_CHECKING:
    from referencenet.cli import persons, run
    from referencenet.methods import systems
    from referencenet.preprocess import clothes
else:
    persons, run, systems, clothes = later(
        "referencenet.cli.persons", "referencenet.cli.run", "referencenet.methods.systems",
        "referencenet.preprocess.clothes",
    )  # fmt: skip

PARTS, GARMENT = only("parts2whole"), only("stable_garment")
TYPED = ", ".join(label.replace(" ", "-") for label in LABELS)

app = typer.Typer(add_completion=False)


@app.command()
def compose(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="picture.png; several become picture-1.png and so on.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the picture shows.")] = "",
    negative_prompt: Annotated[str, typer.Option(help="What the picture should not show.")] = "",
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=PICTURE", rich_help_panel=PARTS, help="A part of the person, one to six times: "
                     f"{TYPED}. Words that tell it from the others are enough, as in upper=shirt.png."),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=PICTURE", rich_help_panel=PARTS, help="White: here the part is. A picture with "
                     "transparency needs none."),
    ] = None,
    segmenter: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", rich_help_panel=PARTS, help="Makes the masks that are missing: a SegFormer of "
                     "ATR's 18 labels, such as mattmdjaga/segformer_b2_clothes."),
    ] = None,
    pose: Annotated[
        Path | None, typer.Option(metavar="PICTURE", rich_help_panel=PARTS, help="A DensePose rendering, on black.")
    ] = None,
    first_label_everywhere: Annotated[
        bool,
        typer.Option("--first-label-everywhere", rich_help_panel=PARTS, help="As the released program: the first label "
                     "in place of all others and of the prompt."),
    ] = False,
    garment: Annotated[
        Path | None, typer.Option("--garment", "-g", metavar="PICTURE", rich_help_panel=GARMENT, help="The garment.")
    ] = None,
    garment_prompt: Annotated[str, typer.Option(rich_help_panel=GARMENT, help="What the garment is.")] = "",
    style_fidelity: Annotated[
        float, typer.Option(min=0, max=1, rich_help_panel=GARMENT, help="Below 1 the garment counts less.")
    ] = 1.0,
    magnify: Annotated[
        bool, typer.Option(rich_help_panel=GARMENT, help="Cut the garment's border off, as published.")
    ] = True,
    fusion_blocks: Annotated[
        FusionChoice | None, typer.Option(rich_help_panel=GARMENT, show_default="midup", help="Where it is read.")
    ] = None,
    person: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=PARTS, show_default="pictures stay whole", help="Cut each --part around "
                     "one of several people, counted from the left; --models find them."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", rich_help_panel=PARTS, show_default="REFNET_MODELS, or the user's cache",
                     help="What `refnet models fetch` got, for --person."),
    ] = None,
    fit: FitTo = None,
    method: Annotated[str, method_option("compose")] = "parts2whole",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Size = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    count: Count = 1,
    seed: Seed = 42,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="What was given, and the result.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Draw a person from pictures of parts, a pose and words; or, from words, a person in a garment.

    Try: `refnet compose --part face=face.png --part upper=shirt.png --pose densepose.png -p "a person in a park"
    --checkpoint parts2whole -o person.png`
    """
    check_system(ctx, method)
    check_models(person, models)
    check_given(ctx)
    check_pictures(out, count=count, overwrite=overwrite)
    makes_parts = method.startswith("parts2whole")
    parts = read_parts(part or [], mask or [], segmenter) if makes_parts else []
    if makes_parts:
        drawn = {"the pose": needed(pose, method, "--pose", "a DensePose rendering")}
    else:
        drawn = {"the garment": needed(garment, method, "--garment", "what is worn")}
    pipeline = systems.pipelines("compose")[method]
    pipeline = run.need_weights(pipeline, checkpoint, base, random_tiny)
    options = run.drawing_options(pipeline.spec, size, steps, guidance)
    sides = options["width"], options["height"]
    shown: list[Image.Image]
    if makes_parts:
        theirs: dict[str, Image.Image] = {}
        if person is not None:
            parts, theirs = persons.cut_parts(parts, person, models, sides)
        parts = [fitted_part(each, sides, fit) for each in with_masks(parts, segmenter, sides, theirs)]
        shown = [
            *(read_image(each.picture) for each in parts),
            *run.fitted_pictures(drawn, sides, fit, ground="black").values(),
        ]
        given = {"parts": parts, "pose": shown[-1], "first_label_everywhere": first_label_everywhere}
    else:
        shown = list(run.fitted_pictures(drawn, sides, fit).values())
        given = {"garment": shown[0], "garment_prompt": garment_prompt}
        given |= {"style_fidelity": style_fidelity, "magnify": magnify}
    pipe = run.load(
        pipeline, checkpoint, base, device, dtype, offload=offload, vae_tiling=vae_tiling, fusion_blocks=fusion_blocks
    )
    run.draw_pictures(
        pipe, out=out, count=count, seed=seed, what="drawing", settings=settings_of(ctx, method) | options,
        shown=lambda picture: beside([*shown, picture]) if side_by_side else picture,
        **given, prompt=prompt, negative_prompt=negative_prompt, **options,
    )  # fmt: skip


def fitted_part(part: PersonPart, size: tuple[int, int], fit: Fit | None) -> PersonPart:
    """A part whose picture and mask have the result's proportions, with a word on what was done."""
    colours, opacity = read_layers(part.picture)
    found = run.fitted_pictures({f"the picture of {part.label}": colours}, size, fit)
    picture = next(iter(found.values()))
    if picture is colours or fit is None:
        return part
    mask = read_mask(part.mask) if part.mask is not None else opacity
    return replace(part, picture=picture, mask=None if mask is None else fitted(mask, size, fit, "black"))


def needed(path: Path | None, method: str, option: str, what: str) -> Image.Image:
    """The picture of an option.

    Raises:
        ValueError: If it was not given.
    """
    if path is None:
        raise ValueError(f"{method} needs {option} PICTURE, {what}.")
    return read_image(path)


def read_parts(typed: Sequence[str], masks: Sequence[str], segmenter: Path | None) -> list[PersonPart]:
    """The parts of a person, each with its mask or with transparency, unless a segmenter makes those that are missing.

    Args:
        typed: LABEL=PICTURE each.
        masks: LABEL=PICTURE each.
        segmenter: Folder of what makes masks that are missing.

    Raises:
        FileNotFoundError: If a picture is missing.
        ValueError: If parts or masks cannot be read so, or a mask is missing.
    """
    if not 1 <= len(typed) <= PLACES:
        raise ValueError(
            f"{len(typed)} parts were given; parts2whole needs --part LABEL=PICTURE, 1 to {PLACES} times, of {TYPED}."
        )
    given = [(label_of(label), path) for label, path in pairs(typed, "--part", "face=face.png").items()]
    own = {label_of(label): path for label, path in pairs(masks, "--mask", "face=mask.png").items()}
    for label in own.keys() - {label for label, _ in given}:
        raise ValueError(f"--mask {label}: there is no --part of this label.")
    parts = check_parts([PersonPart(picture=path, label=label, mask=own.get(label)) for label, path in given])
    for part in parts:
        if segmenter is None or not is_opaque(part):
            own_mask(part)
    return parts


def is_opaque(part: PersonPart) -> bool:
    """Whether a part has neither a mask nor transparency."""
    return part.mask is None and read_layers(part.picture)[1] is None


def with_masks(
    parts: list[PersonPart], segmenter: Path | None, size: tuple[int, int], people: Mapping[str, Image.Image]
) -> list[PersonPart]:
    """The parts, all with masks.

    Args:
        parts: As `read_parts` gives them.
        segmenter: Folder of what makes masks that are missing.
        size: Of the result in pixels.
        people: Label to mask of the person who is meant, beyond which made masks are black.

    Raises:
        ValueError: If nothing is left of a mask at that size.
    """
    are_missing = any(is_opaque(part) for part in parts)
    if segmenter is not None and not are_missing:
        note("every part has a mask; --segmenter is not used.")
    if segmenter is not None and are_missing:
        find = persons.only_theirs(clothes.ClothesSegmenter.load(segmenter), people)
        parts = [segmented(part, find) for part in parts]
    for part in parts:
        mask_of(part, size)  # a wrong one is told before a model is loaded
    return parts


def label_of(text: str) -> str:
    """A part's label from what was typed: separated by spaces, - or _, or some of its words.

    Raises:
        ValueError: If it is none, or could be several.
    """
    words = re.split(r"[-_\s]+", text.strip().lower())
    found = [label for label in LABELS if " ".join(words) == label]
    found = found or [label for label in LABELS if set(words) <= set(label.split())]
    if len(found) != 1:
        several = f"could be {' or '.join(found)}" if found else "is not a part of a person"
        raise ValueError(f"{text!r} {several}; expected one of {TYPED}."
                         f"{did_you_mean(' '.join(words), LABELS)}")  # fmt: skip
    return found[0]
