"""`refnet face`: pictures of the person on some photographs."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from referencenet.checkpoints.flashface import PUBLISHED
from referencenet.cli.animate import files_needed
from referencenet.cli.console import progress_bar, tell
from referencenet.cli.models import choose_device, choose_dtype
from referencenet.cli.options import Checkpoint, Device, Dtype, RandomTiny
from referencenet.cli.settings import parse_size
from referencenet.media.files import written_whole
from referencenet.media.images import read_image
from referencenet.media.sheets import contact_sheet, write_image
from referencenet.methods.flashface import SPEC, FaceGuidance, FlashFacePipeline
from referencenet.methods.tiny import tiny_pipeline
from referencenet.preprocess.estimators import YuNet
from referencenet.preprocess.faces import Face, crop_face, find_face, square_face
from referencenet.version import __version__

app = typer.Typer()


@app.command()
def face(
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
    base: Annotated[
        str | None, typer.Option(metavar="FOLDER|HUB_ID", help="Stable Diffusion 1.5, for the released files.")
    ] = None,
    random_tiny: RandomTiny = False,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", show_default="the model's own", help="In pixels.")
    ] = None,
    strength: Annotated[float, typer.Option(min=0, help="lambda_feat; usual: 0.7 to 1.4.")] = FaceGuidance.lambda_feat,
    face_guidance: Annotated[float, typer.Option(min=0, help="Scale; 1.8 to 4.")] = FaceGuidance.face_guidance,
    guidance: Annotated[float, typer.Option(min=0, help="Scale of the prompt.")] = SPEC.scale,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = SPEC.steps,
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; the next ones count up.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:  # fmt: skip
    """Draw the person of some face photographs, with FlashFace.

    Try: `refnet face "a young woman in space" -f a.jpg -f b.jpg --checkpoint flashface/ --base sd15/ --out her.png`
    """
    if checkpoint is None and not random_tiny:
        tell(files_needed(PUBLISHED))
        raise typer.Exit(2)
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
        settings["width"], settings["height"] = parse_size(size)
    target = choose_device(device)
    pipe = load(checkpoint, base).to(device=target, dtype=choose_dtype(dtype, target))
    pipe.set_progress_bar_config(disable=True)
    with progress_bar("drawing", steps) as (bar, task):

        def done(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            bar.advance(task)
            return values

        generators = [torch.Generator().manual_seed(seed + i) for i in range(count)]
        images = pipe(crops, **settings, generator=generators, callback_on_step_end=done).images
    paths = [out] if count == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(count)]
    for image, path in zip(images, paths, strict=True):
        write_image(image, path)
    preview = contact_sheet([square_face(crop) for crop in crops] + list(images))
    write_image(preview, out.with_stem(f"{out.stem}-preview"))
    document = {
        "faces": [str(path) for path in faces],
        "boxes": box,
        "detector": detector and str(detector),
        **settings,
        "seed": seed,
        "size": size,
    }
    document |= {"checkpoint": str(checkpoint) if checkpoint else "random-tiny", "referencenet": __version__}
    with written_whole(out.with_name(f"{out.name}.json")) as file:
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    Console().print("\n".join(map(str, paths)), soft_wrap=True)


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


def load(checkpoint: Path | None, base: str | None) -> FlashFacePipeline:
    """The pipeline: of a converted folder, of released files, or tiny and random."""
    if checkpoint is None:
        tell("[yellow]note:[/] tiny random weights; the picture will show nothing.")
        return tiny_pipeline("flashface")
    if (checkpoint / "model_index.json").is_file():
        return FlashFacePipeline.from_pretrained(checkpoint)
    return FlashFacePipeline.from_published(checkpoint, base=base)
