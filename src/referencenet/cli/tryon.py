"""`refnet tryon`: the person of a picture in the garment of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from PIL import Image

from referencenet.cli.checks import check_given, check_pictures, check_system
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
    is_typed,
    method_option,
    only,
    own_options,
    settings_of,
    takes,
)
from referencenet.later import later
from referencenet.media.images import read_image, read_labels, read_mask
from referencenet.media.sheets import beside
from referencenet.preprocess.agnostic import ARM_WIDTHS, agnostic_mask
from referencenet.preprocess.body import read_key_points

if TYPE_CHECKING:
    from referencenet.cli import run
    from referencenet.methods import systems
    from referencenet.pipelines import composite as compositing
    from referencenet.pipelines import dressing, encoders, garments
else:
    run, systems, compositing, dressing, encoders, garments = later(
        "referencenet.cli.run", "referencenet.methods.systems", "referencenet.pipelines.composite",
        "referencenet.pipelines.dressing", "referencenet.pipelines.encoders", "referencenet.pipelines.garments",
    )  # fmt: skip

CategoryChoice = Literal["upper_body", "lower_body", "dresses"]
BOTH, IDM, STABLE = only("idm_vton", "stable_garment"), only("idm_vton"), only("stable_garment")
HALF_A_MASK = "a mask is made from --parsing and --keypoints together; give both."

app = typer.Typer(add_completion=False)


@app.command()
def tryon(
    ctx: typer.Context,
    person: Annotated[Path, typer.Option("--person", "-p", metavar="PICTURE", help="Who wears it.")],
    garment: Annotated[Path, typer.Option("--garment", "-g", metavar="PICTURE", help="What is worn, lying flat.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="picture.png; several become picture-1.png and so on.")],
    densepose: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE", rich_help_panel=BOTH, help="The person's DensePose rendering, on black; they need it."
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="White is repainted. Without it: --parsing and --keypoints.")
    ] = None,
    parsing: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Human parsing, a grey picture of ATR's labels 0 to 18.")
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="18 body points [[x, y], ...] in pixels of the parsing, or OpenPose's file."),
    ] = None,
    person_number: Annotated[
        int | None,
        typer.Option(min=1, show_default="the only one", help="Which person in --keypoints, from the left."),
    ] = None,
    fit: FitTo = None,
    category: Annotated[CategoryChoice, typer.Option(help="What the mask is made for.")] = "upper_body",
    arm_width: Annotated[
        int, typer.Option(min=1, help="Of the made mask's arms at a height of 512; 45 for DressCode's weights.")
    ] = ARM_WIDTHS["hd"],
    negative_prompt: Annotated[
        str | None,
        typer.Option(rich_help_panel=BOTH, show_default="the system's", help="What the picture should not show."),
    ] = None,
    description: Annotated[
        str, typer.Option("--description", "-d", rich_help_panel=IDM, help="Of the garment.")
    ] = "shirts",
    prompt: Annotated[str, typer.Option(rich_help_panel=STABLE, help="What is drawn.")] = "a photo of a woman",
    garment_prompt: Annotated[str, typer.Option(rich_help_panel=STABLE, help="What the garment is.")] = "",
    style_fidelity: Annotated[
        float, typer.Option(min=0, max=1, rich_help_panel=STABLE, help="Below 1 the garment counts less.")
    ] = 1.0,
    fusion_blocks: Annotated[
        FusionChoice | None,
        typer.Option(rich_help_panel=STABLE, show_default="full", help="Where the garment is read."),
    ] = None,
    agnostic: Annotated[
        bool, typer.Option("--agnostic", rich_help_panel=STABLE, help="The person's garment is grey already.")
    ] = False,
    control_scale: Annotated[
        float, typer.Option(min=0, rich_help_panel=STABLE, help="Of the ControlNet that sees the person.")
    ] = 1.0,
    control_start: Annotated[
        float, typer.Option(min=0, max=1, rich_help_panel=STABLE, help="Share of the steps before it begins.")
    ] = 0.0,
    control_end: Annotated[
        float, typer.Option(min=0, max=1, rich_help_panel=STABLE, help="Share of the steps after which it ends.")
    ] = 1.0,
    guess_mode: Annotated[
        bool, typer.Option("--guess-mode", rich_help_panel=STABLE, help="Only the guided half sees the person.")
    ] = False,
    method: Annotated[str, method_option("tryon")] = "idm_vton",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Size = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    count: Count = 1,
    seed: Seed = 42,
    composite: Annotated[
        bool, typer.Option("--composite", help="Outside of the mask the person stays as it is; the border is blended.")
    ] = False,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Person, garment and result.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Dress the person of a picture in a garment.

    Try: `refnet tryon -p person.png -g garment.png --densepose densepose.png --mask person_mask.png
    --checkpoint IDM-VTON -o out.png`
    """
    check_system(ctx, method)
    check_pictures(out, count=count, overwrite=overwrite)
    if mask is not None and (is_typed(ctx, "category") or is_typed(ctx, "arm_width")):
        raise ValueError("--category and --arm-width are for masks that are made; --mask is one already.")
    if densepose is None and takes(BOTH, method):
        raise ValueError(f"{method} needs --densepose, the person's DensePose rendering on black.")
    check_mask_options(mask, parsing, keypoints)
    check_given(ctx)
    white = read_or_make_mask(mask, parsing, keypoints, category, arm_width, person_number)
    pictures = {"person": read_image(person), "garment": read_image(garment)}
    drawn = None if densepose is None else read_image(densepose)
    pipeline = systems.pipelines("tryon")[method]
    pipeline = run.need_weights(pipeline, checkpoint, base, random_tiny)
    options = run.drawing_options(pipeline.spec, size, steps, guidance)
    garments.check_masks(pictures["person"], white)
    size_of = (options["width"], options["height"])
    cuts = method.startswith("catvton")
    usual = "its middle is kept" if cuts else run.STRETCHED
    persons = run.fitted_pictures({"person": pictures["person"], "mask": white}, size_of, fit, usual)
    worn = run.fitted_pictures({"garment": pictures["garment"]}, size_of, fit, "it gets a border" if cuts else usual)
    pictures = persons | worn
    if not cuts or fit is not None:  # what is left of the mask is told before a model is loaded
        factor = run.pixels_per_latent(pipeline)
        dressing.mask_to_latent_size(
            encoders.mask_pixels([pictures["mask"]], size_of), (size_of[1] // factor, size_of[0] // factor)
        )
    if drawn is not None:
        drawn = run.fitted_pictures({"densepose": drawn}, size_of, fit, ground="black")["densepose"]
    panels: dict[str, dict[str, Any]] = {
        BOTH: {"densepose": drawn, "negative_prompt": negative_prompt},
        IDM: {"garment_description": description},
        STABLE: {
            "prompt": prompt,
            "garment_prompt": garment_prompt,
            "style_fidelity": style_fidelity,
            "is_agnostic": agnostic,
            "guess_mode": guess_mode,
            "controlnet_conditioning_scale": control_scale,
            "control_guidance_start": control_start,
            "control_guidance_end": control_end,
        },
    }
    pipe = run.load(
        pipeline, checkpoint, base, device, dtype, offload=offload, vae_tiling=vae_tiling, fusion_blocks=fusion_blocks
    )

    def shown(result: Image.Image) -> Image.Image:
        if composite:
            (result,) = compositing.composited(pipe, pictures["person"], pictures["mask"], [result])
        return beside([pictures["person"], pictures["garment"], result]) if side_by_side else result

    run.draw_pictures(
        pipe, out=out, count=count, seed=seed, what="dressing", settings=settings_of(ctx, method) | options,
        shown=shown, **pictures, **own_options(panels, method), **options,
    )  # fmt: skip


def check_mask_options(mask: Path | None, parsing: Path | None, keypoints: Path | None) -> None:
    """Make sure that a mask is given, or all that it is made from.

    Raises:
        ValueError: If neither or both were given.
    """
    if (mask is None) == (parsing is None and keypoints is None):
        raise ValueError("give either --mask, or --parsing and --keypoints from which it is made.")
    if mask is None and (parsing is None or keypoints is None):
        raise ValueError(HALF_A_MASK)


def read_or_make_mask(
    mask: Path | None, parsing: Path | None, keypoints: Path | None, category: Any, arm_width: int,
    person: int | None = None,
) -> Image.Image:  # fmt: skip
    """The mask that was given, or the agnostic mask of a parsing and body points.

    Args:
        mask: A picture.
        parsing: A picture of labels.
        keypoints: Of the body.
        category: What the mask is made for.
        arm_width: Of its arms.
        person: Who of several has the key points, from the left; None: there is only one.

    Raises:
        ValueError: If the files hold something else, or one of the two is missing.
    """
    if mask is not None:
        return read_mask(mask)
    if parsing is None or keypoints is None:
        raise ValueError(HALF_A_MASK)
    frames, canvas = read_key_points(keypoints, person)
    if len(frames) != 1 or (person is not None and not frames[0].is_seen):
        who = "" if person is None else f", and no person {person} from the left"
        raise ValueError(f"{keypoints} has {len(frames)} frames{who}; expected the 18 body points of one picture.")
    labels = read_labels(parsing)
    points = frames[0] if canvas is None else frames[0].scaled(labels.shape[1] / canvas[0], labels.shape[0] / canvas[1])
    seen = points.body[:, :2] * (points.body[:, 2:] > 0)  # (0, 0) is not seen
    return agnostic_mask(labels, seen, category=category, arm_width=arm_width)
