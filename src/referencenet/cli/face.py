"""`refnet face`: pictures of the person on some photographs."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from PIL import Image

from referencenet.cli.checks import check_apart, check_given, check_pictures, check_system
from referencenet.cli.options import (
    MOST_SCALE,
    Base,
    Checkpoint,
    Count,
    Device,
    Dtype,
    FitTo,
    GuidanceScale,
    Offload,
    Overwrite,
    RandomTiny,
    Seed,
    Steps,
    VaeTiling,
    settings_of,
)
from referencenet.cli.settings import parse_size
from referencenet.later import later
from referencenet.media.files import refuse_taken
from referencenet.media.images import read_image
from referencenet.media.sheets import contact_sheet, write_image
from referencenet.preprocess.estimators import YuNet
from referencenet.preprocess.faces import FACE_SIZE, Face, crop_face, find_face, square_face

if TYPE_CHECKING:
    from referencenet.cli import run
    from referencenet.methods import flashface
else:
    run, flashface = later("referencenet.cli.run", "referencenet.methods.flashface")

STRENGTH, FACE_GUIDANCE = 1.2, 3.2
"""The system's own, which a test compares."""

TILE = 160
"""Pixels that a picture has at least on the preview."""

app = typer.Typer(add_completion=False)


@app.command()
def face(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the picture shows. Name an age: it helps.")],
    faces: Annotated[list[Path], typer.Option("--face", "-f", help="A photograph of the face; repeat for more.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="picture.png; several become picture-1.png and so on; picture-preview.png "
                     "shows them beside the faces."),
    ],
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="L,T,R,B", help="The face in each photograph, in pixels; default: all."),
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option("--detector", metavar="FOLDER", help="Finds the only face in each: the folder of YuNet's .onnx."),
    ] = None,
    person: Annotated[
        int | None,
        typer.Option(min=1, show_default="the only one", help="Which face --detector takes, counted from the left."),
    ] = None,
    fit: FitTo = None,
    place: Annotated[
        str | None, typer.Option(metavar="L,T,R,B", help="Where the face should be in the picture, as fractions of it.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the picture should not show.")] = "",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="the model's own", help="In pixels.")
    ] = None,
    strength: Annotated[
        float, typer.Option(min=0, max=MOST_SCALE, help="lambda_feat; usual: 0.7 to 1.4.")
    ] = STRENGTH,
    face_guidance: Annotated[
        float, typer.Option(min=0, max=MOST_SCALE, help="Scale; 1.8 to 4.")
    ] = FACE_GUIDANCE,
    guidance: GuidanceScale = None,
    steps: Steps = None,
    count: Count = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Draw the person of some face photographs, with FlashFace.

    Try: `refnet face "a young woman in space" -f a.jpg -f b.jpg --checkpoint flashface/ --base sd15/ --out her.png`
    """
    check_system(ctx, "flashface")
    preview = out.with_stem(f"{out.stem}-preview")
    width, height = parse_size(size, multiple=8) if size is not None else (None, None)
    target = None if place is None else numbers("--place", place)
    if target is not None and not (0 <= target[0] < target[2] <= 1 and 0 <= target[1] < target[3] <= 1):  # nor NaN
        raise ValueError(f"--place was {place!r}; expected fractions of the picture, 0 to 1, left before right.")
    check_given(ctx)
    check_pictures(out, count=count, overwrite=overwrite)
    refuse_taken([preview], overwrite)
    check_apart(ctx, preview)
    crops = cut_out(faces, box or [], detector, person)
    pipeline = run.need_weights(flashface.FlashFacePipeline, checkpoint, base, random_tiny)
    named = {f"face {i + 1}": crop for i, crop in enumerate(crops)}
    crops = list(run.fitted_pictures(named, (FACE_SIZE, FACE_SIZE), fit, "it gets a black border", "black").values())
    options = run.drawing_options(pipeline.spec, size, steps, guidance)
    settings: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "face_box": target,
        "lambda_feat": strength,
        "face_guidance": face_guidance,
        "text_guidance": options["guidance_scale"],
        "num_inference_steps": options["num_inference_steps"],
        "width": width,
        "height": height,
    }
    pipe = run.load(pipeline, checkpoint, base, device, dtype, offload=offload, vae_tiling=vae_tiling)
    call = {name: value for name, value in settings.items() if name not in ("width", "height") or value is not None}
    said = settings_of(ctx, "flashface") | settings
    images = run.draw_pictures(
        pipe, crops, out=out, count=count, seed=seed, what="drawing", settings=said, **call, **run.call_beside(pipeline)
    )
    sheet = contact_sheet([*map(square_face, crops), *images], title=prompt, least=TILE)
    write_image(sheet, preview, said)


def cut_out(
    faces: list[Path], boxes: list[str], detector: Path | None = None, person: int | None = None
) -> list[Image.Image]:
    """The photographs' faces: cut out by the boxes that are given, one for each, or by what a detector finds.

    Args:
        faces: The photographs.
        boxes: left,top,right,bottom in pixels.
        detector: Folder of what finds faces.
        person: Whose, from the left; None: there is only one.

    Raises:
        ValueError: If there are boxes, but not one for each; or not exactly one face is found.
    """
    if boxes and detector is not None:
        raise ValueError("--box says where the faces are and --detector finds them; give one of the two.")
    if person is not None and detector is None:
        raise ValueError("--person chooses among the faces that --detector finds, which was not given.")
    if boxes and len(boxes) != len(faces):
        raise ValueError(
            f"{len(boxes)} boxes were given for {len(faces)} photographs; give --box for each or for none."
        )
    images = [read_image(path) for path in faces]
    if detector is not None:
        find = YuNet(detector)
        return [find_face(image, find, person) for image in images]
    if not boxes:
        return images
    return [crop_face(image, Face(box=numbers("--box", text))) for image, text in zip(images, boxes, strict=True)]


def numbers(option: str, text: str) -> tuple[float, float, float, float]:
    """Read left,top,right,bottom.

    Raises:
        ValueError: If the text is something else.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
        if not all(map(math.isfinite, (left, top, right, bottom))):
            raise ValueError(text)
    except ValueError as error:
        raise ValueError(f"{option} was {text!r}; it is left,top,right,bottom, as in 0.3,0.2,0.6,0.5.") from error
    return left, top, right, bottom
