"""`refnet generate`: pictures that refer to pictures, a contact sheet, and every setting to make them again.

What was typed is checked here; `generate_run`, which loads models and draws, is imported behind that.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from referencenet.bases.names import BUILTIN, check_base, check_model, check_trained, parse_lora
from referencenet.bases.schedulers import find_scheduler
from referencenet.cli import styles
from referencenet.cli.checks import check_apart, check_models
from referencenet.cli.console import note, say
from referencenet.cli.options import (
    LARGEST_SEED,
    MOST_SCALE,
    MOST_STEPS,
    Device,
    Dtype,
    FitTo,
    Offload,
    PersonModels,
    VaeTiling,
    WhichPerson,
)
from referencenet.cli.settings import (
    LinkChoice,
    Settings,
    StyleFrom,
    is_named_pose,
    pairs,
    parse_size,
    read_document,
)
from referencenet.inputs import is_address
from referencenet.later import later
from referencenet.media.files import check_place, results_in
from referencenet.media.images import read_image, read_mask
from referencenet.paperdoll.captions import unknown_words
from referencenet.paperdoll.pose import POSES
from referencenet.telling import did_you_mean

if TYPE_CHECKING:
    from referencenet.cli import generate_run
else:
    (generate_run,) = later("referencenet.cli.generate_run")

app = typer.Typer(add_completion=False)

MODEL, FROM_PICTURE = "Model", "Begin from a picture"


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
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of runs; this one gets a folder in it: 0001, 0002 and so on.")
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the pictures show.")],
    reference: Annotated[
        list[str] | None,
        typer.Option("--reference", "-r", metavar="PICTURE", help="Refer to this. May be repeated."),
    ] = None,
    style: styles.StylePicture = None,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="builtin|FOLDER|FILE|HUB_ID", rich_help_panel=MODEL,
                     help="A Stable Diffusion model: a folder, a single file (1, 2, XL), or a name on the hub."),
    ] = "builtin",
    config: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|HUB_ID", rich_help_panel=MODEL, show_default="on the hub",
                     help="For a single file: any model of its family in diffusers' layout, for its configuration."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:SCALE]", rich_help_panel=MODEL, help="A LoRA. May be repeated."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=MODEL, show_default="the model's",
                     help="ddim, euler a, dpm++ 2m karras, ... or a class of diffusers."),
    ] = None,
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
    start: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps before which references are not read.")
    ] = 0.0,
    end: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps after which references are not read.")
    ] = 1.0,
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
        typer.Option(metavar="PICTURE", help="White: what may be read of the reference. The first mask "
                     "belongs to the first reference, and so on."),
    ] = None,
    result_mask: Annotated[
        str | None, typer.Option(metavar="PICTURE", help="White: here the result may read references.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=PICTURE", help="A condition, as in pose=skeleton.png, or pose=waving: a pose by its "
                     "name. Needs a ControlNet, or --link referencenet, which follows pose."),
    ] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option(metavar="KIND=FOLDER|HUB_ID", help="The ControlNet for a kind of --control.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="PICTURE", rich_help_panel=FROM_PICTURE, help="Begin from this instead of from noise."),
    ] = None,
    image_strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, rich_help_panel=FROM_PICTURE, show_default="0.8, with --inpaint-mask 1",
                     help="How much of it is drawn anew."),
    ] = None,
    inpaint_mask: Annotated[
        str | None,
        typer.Option(metavar="PICTURE", rich_help_panel=FROM_PICTURE, help="White is drawn anew, the rest stays."),
    ] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the pictures should not show.")] = "",
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
    person: WhichPerson = None,
    models: PersonModels = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offload: Offload = None,
    vae_tiling: VaeTiling = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the UNet: a minute or more at first, then faster steps.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into the folder itself, and replace the run that is there.")
    ] = False,
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
        model=_placed(model),
        config=None if config is None else _placed(config),
        lora=tuple(map(_placed, lora or [])),
        scheduler=scheduler,
        image=None if image is None else _absolute([image])[0],
        image_strength=image_strength,
        inpaint_mask=None if inpaint_mask is None else _absolute([inpaint_mask])[0],
        link=link if style is None else "aligned",
        style_fidelity=style_fidelity,
        strength=strength,
        start=start,
        end=end,
        control=tuple(
            f"{kind}={path if is_named_pose(kind, path) else _absolute([path])[0]}"
            for kind, path in pairs(control or [], "--control").items()
        ),
        controlnet=tuple(f"{kind}={_placed(net)}" for kind, net in pairs(controlnet or [], "--controlnet").items()),
        count=count,
        seed=seed,
        steps=steps,
        guidance=guidance,
        size=size,
        fit=fit,
        person=person,
        models=None if models is None else _placed(str(models)),
        device=device,
        dtype=dtype,
        offload=offload,
        vae_tiling=vae_tiling,
        compile=compile,
        style_prompt=style_prompt,
        style_from=style_from,
        style_weight=style_weight,
        share_attention=share_attention,
        adain_queries=adain_queries,
        adain_keys=adain_keys,
        group_norm=group_norm,
    )
    check_generate(chosen, out)
    if overwrite:
        check_apart(ctx, *results_in(out))
    if chosen.model == BUILTIN:
        _tell_unknown_words(chosen)
    sheet = generate_run.run_generate(chosen, out, overwrite=overwrite)
    say(f"{count} {'picture' if count == 1 else 'pictures'}, side by side in {sheet}")


def check_generate(settings: Settings, out: Path) -> None:
    """Check what can be checked without a model: places, sizes, pictures, and options that exclude each other.

    Raises:
        FileNotFoundError: If a picture is missing.
        ValueError: If something else is wrong.
    """
    check_place(out, folder=True)
    check_models(settings.person, None if settings.models is None else Path(settings.models))
    if settings.size is not None:
        parse_size(settings.size, multiple=8)
    if len(settings.mask) > len(settings.reference):
        raise ValueError(f"--mask was given {len(settings.mask)} times for {len(settings.reference)} references.")
    for path in settings.reference:
        read_image(path)
    for path in (*settings.mask, *([settings.result_mask] if settings.result_mask else [])):
        read_mask(path)
    if settings.start >= settings.end:
        raise ValueError(f"--start {settings.start:g} is not before --end {settings.end:g}: nothing would be read.")
    _check_image(settings)
    styles.check_style(settings)
    _check_controls(settings)
    check_base(settings.model, settings.config)
    for lora in settings.lora:
        parse_lora(lora)
    if settings.scheduler is not None:
        find_scheduler(settings.scheduler)
    for kind, net in pairs(settings.controlnet, "--controlnet").items():
        check_model(f"--controlnet {kind}", net, "config.json")


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
    for kind, path in pictures.items():
        if not is_named_pose(kind, path):
            read_image(path)
        elif path not in POSES:
            raise ValueError(
                f"--control pose={path}: there is no such picture, and no such pose; poses are {', '.join(POSES)}."
                f"{did_you_mean(path, POSES)}"
            )


def _check_image(settings: Settings) -> None:
    """Check what pictures begin from."""
    if settings.image is None:
        for option in ("inpaint_mask", "image_strength"):
            if getattr(settings, option) is not None:
                raise ValueError(f"--{option.replace('_', '-')} is for --image PICTURE, which was not given.")
        return
    picture = read_image(settings.image)
    if settings.inpaint_mask is None:
        return
    mask = read_mask(settings.inpaint_mask)
    if mask.width * picture.height != mask.height * picture.width:
        raise ValueError(
            f"--inpaint-mask is {mask.width} x {mask.height} and --image {picture.width} x {picture.height}; give a "
            "mask of its proportions."
        )


def _tell_unknown_words(settings: Settings) -> None:
    """Say which words the built-in model has never seen, and what it may know instead."""
    words = unknown_words(f"{settings.prompt} {settings.negative_prompt} {settings.style_prompt}")
    if words:
        named = ", ".join(word if near is None else f"{word} (it knows {near})" for word, near in words.items())
        note(f"the built-in model does not know {named}; docs/built-in-model.md lists its words.")


def _check_referencenet(settings: Settings, pictures: dict[str, str], nets: dict[str, str]) -> None:
    """Check that the trained ReferenceNet is asked for what it can do."""
    check_trained(settings.model)
    if pictures.keys() != {"pose"} or nets:
        raise ValueError("--link referencenet follows one skeleton: give --control pose=PICTURE, and no other control.")
    published = Settings(prompt="", reference=())
    unread = [
        name
        for name in (
            "mask",
            "result_mask",
            "negative_prompt",
            "strength",
            "style_fidelity",
            "start",
            "end",
            "image",
            "config",
        )
        if getattr(settings, name) != getattr(published, name)
    ]
    if unread or len(settings.reference) > 1:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in unread) or "more than one --reference"
        raise ValueError(f"--link referencenet does not take {options}; use --link attention for that.")


def _absolute(paths: list[str]) -> list[str]:
    """Make paths hold wherever the settings are read again; a web address is no path, as who reads it says."""
    return [path if is_address(path) else str(Path(path).expanduser().absolute()) for path in paths]


def _placed(name: str) -> str:
    """A model's name; of a folder or file the whole path, whatever scale stands behind it."""
    file, colon, scale = name.rpartition(":")
    for place, rest in ((name, ""), (file, f"{colon}{scale}")):
        if place and Path(place).expanduser().exists():
            return f"{Path(place).expanduser().absolute()}{rest}"
    return name
