"""`refnet face`: pictures of the person on some photographs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from referencenet.cli.options import (
    Base,
    Checkpoint,
    Count,
    Device,
    Dtype,
    Offload,
    RandomTiny,
    Seed,
    VaeTiling,
    settings_of,
)
from referencenet.cli.run import generators, load, need_weights, steps_shown, write_pictures
from referencenet.cli.settings import parse_size
from referencenet.media.images import read_image
from referencenet.media.sheets import check_picture_path, contact_sheet, write_image
from referencenet.methods.flashface import SPEC, FaceGuidance, FlashFacePipeline
from referencenet.preprocess.estimators import YuNet
from referencenet.preprocess.faces import Face, crop_face, find_face, square_face

app = typer.Typer()


@app.command()
def face(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the picture shows. Name an age: it helps.")],
    faces: Annotated[list[Path], typer.Option("--face", "-f", help="A photograph of the face; repeat for more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="picture.png; several become picture-1.png and so on.")],
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="L,T,R,B", help="The face in each photograph, in pixels; default: all."),
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option("--detector", metavar="FOLDER", help="Finds the one face of each: the folder of YuNet's .onnx."),
    ] = None,
    place: Annotated[
        str | None, typer.Option(metavar="L,T,R,B", help="Where the face shall be in the picture, as fractions of it.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the picture shall not show.")] = "",
    checkpoint: Checkpoint = None,
    base: Base = None,
    random_tiny: RandomTiny = False,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="the model's own", help="In pixels.")
    ] = None,
    strength: Annotated[float, typer.Option(min=0, help="lambda_feat; usual: 0.7 to 1.4.")] = FaceGuidance.lambda_feat,
    face_guidance: Annotated[float, typer.Option(min=0, help="Scale; 1.8 to 4.")] = FaceGuidance.face_guidance,
    guidance: Annotated[float, typer.Option(min=0, help="Scale of the prompt.")] = SPEC.scale,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = SPEC.steps,
    count: Count = 1,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
) -> None:  # fmt: skip
    """Draw the person of some face photographs, with FlashFace.

    Try: `refnet face "a young woman in space" -f a.jpg -f b.jpg --checkpoint flashface/ --base sd15/ --out her.png`
    """
    need_weights(FlashFacePipeline.published, checkpoint, base, random_tiny)
    check_picture_path(out)
    crops = cut_out(faces, box or [], detector)
    settings: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "face_box": None if place is None else numbers("--place", place),
        "lambda_feat": strength,
        "face_guidance": face_guidance,
        "text_guidance": guidance,
        "num_inference_steps": steps,
        "num_images_per_prompt": count,
    }
    if size is not None:
        settings["width"], settings["height"] = parse_size(size, multiple=8)
    pipe = load(FlashFacePipeline, checkpoint, base, device, dtype, offload=offload, vae_tiling=vae_tiling)
    with steps_shown("drawing", steps) as done:
        images = pipe(crops, **settings, generator=generators(seed, count), callback_on_step_end=done).images
    write_pictures(images, out, settings_of(ctx, "flashface") | settings)
    preview = contact_sheet([square_face(crop) for crop in crops] + list(images))
    write_image(preview, out.with_stem(f"{out.stem}-preview"))


def cut_out(faces: list[Path], boxes: list[str], detector: Path | None = None) -> list[Any]:
    """The photographs' faces: cut out by the boxes that are given, one for each, or by what a detector finds.

    Raises:
        ValueError: If there are boxes, but not one for each; or not exactly one face is found.
    """
    if boxes and detector is not None:
        raise ValueError("--box says where the faces are and --detector finds them; give one of the two.")
    if boxes and len(boxes) != len(faces):
        raise ValueError(
            f"{len(boxes)} boxes were given for {len(faces)} photographs; give --box for each or for none."
        )
    images = [read_image(path) for path in faces]
    if detector is not None:
        find = YuNet(detector)
        return [find_face(image, find) for image in images]
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
    except ValueError as error:
        raise ValueError(f"{option} was {text!r}; it is left,top,right,bottom, as in 0.3,0.2,0.6,0.5.") from error
    return left, top, right, bottom
