"""`refnet tryon`: the person of a picture in the garment of another."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console

from referencenet.checkpoints.idm_vton import PUBLISHED
from referencenet.cli.animate import files_needed
from referencenet.cli.console import progress_bar, tell
from referencenet.cli.models import choose_device, choose_dtype
from referencenet.cli.options import Checkpoint, Device, Dtype, RandomTiny
from referencenet.cli.settings import parse_size
from referencenet.media.files import written_whole
from referencenet.media.images import read_image
from referencenet.media.sheets import write_image
from referencenet.methods.idm_vton import IDMVTONPipeline
from referencenet.methods.tiny import tiny_pipeline
from referencenet.preprocess.agnostic import ARM_WIDTHS, agnostic_mask
from referencenet.version import __version__

MethodChoice = Literal["idm_vton"]
CategoryChoice = Literal["upper_body", "lower_body", "dresses"]

app = typer.Typer(add_completion=False)


@app.command()
def tryon(
    person: Annotated[Path, typer.Option("--person", "-p", metavar="PICTURE", help="Who wears it.")],
    garment: Annotated[Path, typer.Option("--garment", "-g", metavar="PICTURE", help="What is worn, lying flat.")],
    densepose: Annotated[Path, typer.Option(metavar="PICTURE", help="The person's DensePose rendering, on black.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write.")],
    mask: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="White is repainted. Without it: --parsing and --keypoints.")
    ] = None,
    parsing: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Human parsing, a grey picture of ATR's labels 0 to 18.")
    ] = None,
    keypoints: Annotated[
        Path | None, typer.Option(metavar="JSON", help="18 body points [[x, y], ...] in pixels of the parsing.")
    ] = None,
    category: Annotated[CategoryChoice, typer.Option(help="What the mask is made for.")] = "upper_body",
    arm_width: Annotated[
        int, typer.Option(min=1, help="Of the made mask's arms at a height of 512; 45 for DressCode's weights.")
    ] = ARM_WIDTHS["hd"],
    description: Annotated[str, typer.Option("--description", "-d", help="Of the garment.")] = "shirts",
    method: Annotated[MethodChoice, typer.Option(help="Which released model.")] = "idm_vton",
    checkpoint: Checkpoint = None,
    random_tiny: RandomTiny = False,
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="In pixels.")] = "768x1024",
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 30,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale; 1 is none.")] = 2.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 42,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Person, garment and result.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:  # fmt: skip
    """Dress the person of a picture in a garment.

    Try: `refnet tryon -p person.jpg -g shirt.jpg --densepose pose.png --mask mask.png --checkpoint IDM-VTON -o out.png`
    """
    if checkpoint is None and not random_tiny:
        tell(files_needed(PUBLISHED))
        raise typer.Exit(2)
    width, height = parse_size(size)
    white = read_or_make_mask(mask, parsing, keypoints, category, arm_width)
    target = choose_device(device)
    pipe = load(checkpoint, target, choose_dtype(dtype, target))
    pictures = [read_image(path) for path in (person, garment, densepose)]
    with progress_bar("dressing", steps) as (bar, task):

        def advance(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            bar.advance(task)
            return tensors

        (image,) = pipe(
            *(pictures[0], pictures[1], white, pictures[2], description), width=width, height=height,
            num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed), callback_on_step_end=advance,
        ).images  # fmt: skip
    settings = {
        "method": method, "person": str(person), "garment": str(garment), "densepose": str(densepose),
        "mask": str(mask or parsing), "category": category, "arm_width": arm_width,
        "description": description, "size": [width, height],
        "num_inference_steps": steps, "guidance_scale": guidance, "seed": seed, "referencenet": __version__,
    }  # fmt: skip
    write_image(beside([*pictures[:2], image]) if side_by_side else image, out)
    with written_whole(out.with_name(f"{out.name}.json")) as file:
        file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    Console().print(f"{out}", soft_wrap=True)


def read_or_make_mask(
    mask: Path | None, parsing: Path | None, keypoints: Path | None, category: Any, arm_width: int
) -> Any:
    """The mask that was given, or the agnostic mask of a parsing and body points.

    Raises:
        ValueError: If neither or both were given, or the points are no list of 18.
    """
    if (mask is None) == (parsing is None and keypoints is None):
        raise ValueError("give either --mask, or --parsing and --keypoints from which it is made.")
    if mask is not None:
        return mask
    if parsing is None or keypoints is None:
        raise ValueError("a mask is made from --parsing and --keypoints together; give both.")
    with Image.open(parsing) as picture:
        labels = np.array(picture)
    try:
        points = json.loads(keypoints.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{keypoints} is no JSON ({error}); expected [[x, y], ...], 18 of them.") from error
    return agnostic_mask(labels, points, category=category, arm_width=arm_width)


def load(checkpoint: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline: of a converted folder, of released files, or tiny and random."""
    if checkpoint is None:
        tell("[yellow]note:[/] tiny random weights; the picture will show nothing.")
        pipe = tiny_pipeline("idm_vton")
    elif (checkpoint / "model_index.json").is_file() and not (checkpoint / "unet_encoder").is_dir():
        pipe = IDMVTONPipeline.from_pretrained(checkpoint)
    else:
        pipe = IDMVTONPipeline.from_published(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device=device, dtype=dtype)


def beside(images: list[Image.Image]) -> Image.Image:
    """Pictures next to each other, all as high as the last."""
    height = images[-1].height
    fitted = [image.resize((round(image.width * height / image.height), height)) for image in images]
    sheet = Image.new("RGB", (sum(image.width for image in fitted), height))
    left = 0
    for image in fitted:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet
