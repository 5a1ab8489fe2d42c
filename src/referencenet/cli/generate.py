"""`refnet generate`: pictures that refer to pictures, a contact sheet, and every setting to make them again.

Pictures are drawn one at a time, each from a generator of its own seed: `--seed 45` alone draws what
`--seed 42 --count 4` drew as its fourth.
"""

import inspect
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import click
import diffusers
import torch
import typer
from diffusers.utils import numpy_to_pil
from PIL import Image

from referencenet.builtin.load import GUIDANCE, STEPS
from referencenet.cli import styles
from referencenet.cli.console import note, progress_bar, say
from referencenet.cli.loaded import loaded
from referencenet.cli.models import (
    BUILTIN,
    check_offload,
    choose_device,
    choose_dtype,
    load_pipeline,
    load_referencenet,
    place,
)
from referencenet.cli.options import LARGEST_SEED, MOST_SCALE, MOST_STEPS, Device, Dtype, FitTo, Offload, VaeTiling
from referencenet.cli.run import fitted_pictures
from referencenet.cli.settings import (
    LinkChoice,
    Settings,
    StyleFrom,
    pairs,
    parse_size,
    read_document,
    to_document,
)
from referencenet.media.files import check_place, locked, written_whole
from referencenet.media.fitting import Fit, fitted
from referencenet.media.images import read_image, read_mask
from referencenet.media.sheets import contact_sheet, write_image
from referencenet.methods.reference_only import NAMED_LINKS, Reference, reference
from referencenet.pipelines.encoders import check_finite_result
from referencenet.pipelines.lifecycle import ReferencePipeline
from referencenet.version import __version__

app = typer.Typer(add_completion=False)

BUILTIN_DEFAULTS = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
Draw = Callable[[int, Callable[[], None]], Image.Image]  # from a seed, calling back at every step


def _use_settings(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take options that were not typed from an earlier run's settings.json."""
    if file is not None:
        options, changed = read_document(file)
        for name in changed:
            note(f"{name} is missing or no longer what it was; the pictures will differ.")
        ctx.default_map = {**(ctx.default_map or {}), **options}
    return file


@app.command()
def generate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures, sheet.png and settings.json.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the pictures show.")],
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", "-r", metavar="PICTURE", help="Refer to this. May be given again."),
    ] = None,
    style: styles.StylePicture = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="builtin|FOLDER|HUB_ID", help="A Stable Diffusion model.")
    ] = "builtin",
    link: Annotated[
        LinkChoice,
        typer.Option("--link", "-l", help="How references are read; referencenet is trained, aligned is for styles."),
    ] = "attention",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=LARGEST_SEED, show_default="random", help="Of the first picture; counts up."),
    ] = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 is no reference, 1 as published.")] = 1.0,
    style_fidelity: Annotated[
        float | None,
        typer.Option(min=0, max=1, show_default="0.5, with --style 0",
                     help="0: the prompt matters more; 1: the reference does."),
    ] = None,
    style_prompt: styles.StylePrompt = "",
    style_from: Annotated[
        StyleFrom, typer.Option(help="Invert the style's picture, or noise it.", rich_help_panel=styles.PANEL)
    ] = "inverted",
    style_weight: styles.StyleWeight = 1.0,
    share_attention: styles.ShareAttention = True,
    adain_queries: styles.AdainQueries = True,
    adain_keys: styles.AdainKeys = True,
    group_norm: styles.GroupNorm = False,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="PICTURE", help="White may be read. The first is the first reference's, and so on."),
    ] = None,
    result_mask: Annotated[
        str | None, typer.Option(metavar="PICTURE", help="White: here the result may read references.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=PICTURE", help="A condition, as in pose=skeleton.png. Needs a ControlNet, or "
                     "--link referencenet, which follows pose."),
    ] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option(metavar="KIND=FOLDER|HUB_ID", help="The ControlNet for a kind of --control.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the pictures shall not show.")] = "",
    steps: Annotated[
        int | None, typer.Option(min=1, max=MOST_STEPS, show_default="the model's", help="Denoising steps.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=MOST_SCALE, show_default="the model's", help="Guidance scale; 1 is none.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="N|WIDTHxHEIGHT", show_default="the model's", help="In pixels.")
    ] = None,
    fit: FitTo = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
    settings: Annotated[  # noqa: ARG001 - acts through its callback
        Path | None,
        typer.Option(
            "--settings", metavar="settings.json", callback=_use_settings, is_eager=True, exists=True, dir_okay=False,
            help="Take every option that is not typed from an earlier run: draws the same again.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Draw pictures that refer to pictures.

    Try: `refnet generate -r hero.png -p "full body, waving, facing front, smiling, plain blue background" --out out`
    """
    if style is not None and reference:
        raise ValueError("--style and --reference were both given; the style's picture is the only one that is read.")
    if style is None and not reference:
        raise click.UsageError("Missing option '--reference' / '-r', or '--style'.")
    chosen = Settings(
        prompt=prompt,
        reference=tuple(_absolute(reference or [style or ""])),
        mask=tuple(_absolute(mask or [])),
        result_mask=next(iter(_absolute([result_mask])), None) if result_mask else None,
        negative_prompt=negative_prompt,
        model=model,
        link=link if style is None else "aligned",
        style_fidelity=style_fidelity,
        strength=strength,
        control=tuple(f"{kind}={_absolute([path])[0]}" for kind, path in pairs(control or [], "--control").items()),
        controlnet=tuple(controlnet or []),
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
        fit=fit,
        device=device,
        dtype=dtype,
        offload=offload,
        vae_tiling=vae_tiling,
        style_prompt=style_prompt,
        style_from=style_from,
        style_weight=style_weight,
        share_attention=share_attention,
        adain_queries=adain_queries,
        adain_keys=adain_keys,
        group_norm=group_norm,
    )
    sheet = run_generate(chosen, out)
    say(f"{count} {'picture' if count == 1 else 'pictures'}, side by side in {sheet}")


def run_generate(settings: Settings, out: Path) -> Path:
    """Draw what the settings say into a folder.

    Args:
        settings: Of the run.
        out: Folder; made if it is missing.

    Returns:
        The path of the contact sheet.
    """
    check_place(out, folder=True)
    if settings.size is not None:
        parse_size(settings.size)
    references = _read_references(settings)  # before the model is loaded: a wrong path is told at once
    styles.check_style(settings)
    _check_controls(settings)
    with _artist(settings, references) as (draw, settings, made_with), locked(out / "settings.json"):
        seeds = range(settings.seed or 0, (settings.seed or 0) + settings.count)
        drawn: list[Image.Image] = []
        with progress_bar("drawing", settings.count * (settings.steps or 1)) as (bar, task):
            for seed in seeds:
                drawn.append(draw(seed, lambda: bar.advance(task)))
                (out / "settings.json").unlink(missing_ok=True)  # of an older run, whose pictures are replaced
                write_image(drawn[-1], out / f"seed-{seed}.png")
        word = "style" if settings.link == "aligned" else "reference"
        captions = [*[word] * len(references), *[f"seed {seed}" for seed in seeds]]
        shown = [*[read_image(path) for path in settings.reference], *drawn]
        sheet = write_image(contact_sheet(shown, captions=captions, cell=drawn[0].size), out / "sheet.png")
        pictures = [{"file": f"seed-{seed}.png", "seed": seed} for seed in seeds]
        with written_whole(out / "settings.json") as file:
            file.write_text(to_document(settings, made_with, pictures), encoding="utf-8")
    return sheet


@contextmanager
def _artist(settings: Settings, references: list[Reference]) -> Generator[tuple[Draw, Settings, dict[str, str]]]:
    """Load the model and link it.

    Yields:
        What draws a picture from a seed; the settings without open questions; what the pictures are made with.
    """
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    check_offload(settings.offload, device)
    is_trained = settings.link == "referencenet"
    source = (settings.model, is_trained, settings.controlnet, str(device), str(dtype), settings.offload,
              settings.vae_tiling)  # fmt: skip
    pipe: Any = loaded(source, partial(_load, settings, device, dtype))
    settings = _settled(settings, pipe, device, dtype)
    size = parse_size(settings.size or "")
    references = _fitted(references, settings.fit, size)
    if is_trained:
        path = pairs(settings.control, "--control")["pose"]
        pose = fitted_pictures({path: read_image(path)}, size, settings.fit, ground="black")[path]
        yield _drawer(pipe, settings, size, reference=references[0].image, pose=pose), settings, _made_with(pipe)
        return
    if settings.link == "aligned":
        with styles.in_style(pipe, settings):
            yield _drawer(pipe, settings, size, **_conditions(settings, size)), settings, _made_with(pipe)
        return
    with reference(pipe, references, links=NAMED_LINKS[settings.link], style_fidelity=settings.style_fidelity or 0.0):
        extra = {"negative_prompt": settings.negative_prompt or None, **_conditions(settings, size)}
        yield _drawer(pipe, settings, size, **extra), settings, _made_with(pipe)


def _load(settings: Settings, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of the settings, where it computes."""
    if settings.link == "referencenet":
        pipe: Any = load_referencenet(settings.model, dtype=dtype)
    else:
        pipe = load_pipeline(settings.model, controlnets=pairs(settings.controlnet, "--controlnet"), dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return place(pipe, device, offload=settings.offload, vae_tiling=settings.vae_tiling)


def _fitted(references: list[Reference], fit: Fit | None, size: tuple[int, int]) -> list[Reference]:
    """References with their masks at the result's proportions; None: they keep their own."""
    if fit is None:
        return references
    found: list[Reference] = []
    for each in references:
        pictures = {str(each.image): read_image(each.image)} | (
            {} if each.mask is None else {"mask": read_mask(each.mask)}
        )
        image, *mask = fitted_pictures(pictures, size, fit).values()
        found.append(replace(each, image=image, mask=mask[0] if mask else None))
    return found


def _conditions(settings: Settings, size: tuple[int, int]) -> dict[str, Any]:
    """The pictures that ControlNets follow, in their order, as the pipeline takes them."""
    paths = pairs(settings.control, "--control")
    given = {paths[kind]: read_image(paths[kind]) for kind in pairs(settings.controlnet, "--controlnet")}
    shown = fitted_pictures(given, size, settings.fit, ground="black")
    images = [fitted(picture, size, "stretch") for picture in shown.values()]
    return {"image": images if len(images) > 1 else images[0]} if images else {}


def _drawer(pipe: Any, settings: Settings, size: tuple[int, int], **extra: Any) -> Draw:
    """Bind the settings to the pipeline's call."""

    def draw(seed: int, on_step: Callable[[], None]) -> Image.Image:
        def step_done(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        generator = torch.Generator("cpu").manual_seed(seed)  # the same picture on every device, up to rounding
        told = {"prompt": settings.prompt, "generator": generator}
        if settings.link == "aligned":
            told = styles.beside_the_style(settings, seed)
        found = pipe(
            width=size[0],
            height=size[1],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            callback_on_step_end=step_done,
            output_type="np",
            **told,
            **extra,
        ).images[-1:]  # (1, height, width, 3) in [0, 1]
        check_finite_result(torch.from_numpy(found))
        return numpy_to_pil(found)[0]

    return draw


def _settled(settings: Settings, pipe: Any, device: torch.device, dtype: torch.dtype) -> Settings:
    """Fill in what was left to the model, so that the written settings leave nothing open."""
    if isinstance(pipe, ReferencePipeline):
        defaults = {"num_inference_steps": pipe.spec.steps, "guidance_scale": pipe.spec.scale}
    else:
        call = inspect.signature(pipe.__call__).parameters
        defaults = {name: call[name].default for name in ("num_inference_steps", "guidance_scale")}
    if settings.model == BUILTIN and settings.link != "referencenet":
        defaults = BUILTIN_DEFAULTS
    scale = pipe.vae_scale_factor
    default_size = pipe.unet.config.sample_size * scale
    width, height = parse_size(settings.size or str(default_size))
    if width % scale or height % scale:
        raise ValueError(f"--size {width}x{height} does not fit this model; both must be multiples of {scale}.")
    usual_fidelity = None if settings.link == "referencenet" else 0.0 if settings.link == "aligned" else 0.5
    return replace(
        settings,
        seed=random.SystemRandom().randrange(2**31) if settings.seed is None else settings.seed,
        steps=settings.steps or defaults["num_inference_steps"],
        guidance=defaults["guidance_scale"] if settings.guidance is None else settings.guidance,
        size=f"{width}x{height}",
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        style_fidelity=usual_fidelity if settings.style_fidelity is None else settings.style_fidelity,
    )


def _made_with(pipe: Any) -> dict[str, str]:
    return {
        "pipeline": type(pipe).__name__,
        "scheduler": type(pipe.scheduler).__name__,
        "referencenet": __version__,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }


def _read_references(settings: Settings) -> list[Reference]:
    """Read the pictures and their masks."""
    if len(settings.mask) > len(settings.reference):
        raise ValueError(f"--mask was given {len(settings.mask)} times for {len(settings.reference)} references.")
    masks = [*settings.mask, *[None] * (len(settings.reference) - len(settings.mask))]
    return [
        Reference(path, mask=mask, result_mask=settings.result_mask, strength=settings.strength)
        for path, mask in zip(settings.reference, masks, strict=True)
    ]


def _check_controls(settings: Settings) -> None:
    """Check that every condition has something that follows it, and that its picture can be read."""
    pictures, nets = pairs(settings.control, "--control"), pairs(settings.controlnet, "--controlnet")
    if settings.link == "referencenet":
        _check_referencenet(settings, pictures, nets)
        nets = {"pose": settings.model}
    for kind in pictures.keys() - nets.keys():
        raise ValueError(f"Nothing follows --control {kind}; add --controlnet {kind}=FOLDER.")
    for kind in nets.keys() - pictures.keys():
        raise ValueError(f"--controlnet {kind} has no picture to follow; add --control {kind}=PICTURE.")
    for path in pictures.values():
        read_image(path)


def _check_referencenet(settings: Settings, pictures: dict[str, str], nets: dict[str, str]) -> None:
    """Check that the trained ReferenceNet is asked for what it can do."""
    if pictures.keys() != {"pose"} or nets:
        raise ValueError("--link referencenet follows one skeleton: give --control pose=PICTURE, and no other control.")
    published = Settings(prompt="", reference=())
    unread = [
        name
        for name in ("mask", "result_mask", "negative_prompt", "strength", "style_fidelity")
        if getattr(settings, name) != getattr(published, name)
    ]
    if unread or len(settings.reference) > 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unread) or "more than one --reference"
        raise ValueError(f"--link referencenet does not take {options}; use --link attention for that.")


def _absolute(paths: list[str]) -> list[str]:
    """Make paths hold wherever the settings are read again."""
    return [str(Path(path).expanduser().absolute()) for path in paths]
