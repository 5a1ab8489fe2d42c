"""The tab Refer: pictures that refer to pictures, by training-free links, in a pose, or in a picture's style."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image

from referencenet.builtin.load import GUIDANCE, STEPS
from referencenet.cli.settings import StyleFrom, parse_size
from referencenet.media.fitting import fitted
from referencenet.media.sheets import beside
from referencenet.methods.reference_only import NAMED_LINKS, Reference, reference
from referencenet.methods.style_aligned import share
from referencenet.sampling.style import Style
from referencenet.ui.drawing import Order, at_size, draw_pictures
from referencenet.ui.given import Given
from referencenet.ui.jobs import Job
from referencenet.ui.models import Model

POSED = "referencenet"
"""The link of the trained pose ReferenceNet, beside the training-free ones."""
STYLED = "aligned"
"""The link that takes a picture's style alone: StyleAligned."""
LINKS = (*NAMED_LINKS, POSED, STYLED)
STYLES: tuple[str, ...] = get_args(StyleFrom)
Size = tuple[int, int]


def refer(given: Given, model: Model) -> Order:
    """Pictures that refer to pictures."""
    link = given.one_of("link", LINKS, "attention")
    hero, painted = given.painted("reference", "a picture to refer to")
    others, fit = given.pictures("others"), given.fit()
    size, count, seed = given.size(1), given.count(), given.seed()
    options: dict[str, Any] = {"num_inference_steps": given.steps(), "guidance_scale": given.guidance()}
    fidelity = given.number("style_fidelity", 0.5, 0, 1)
    settings: dict[str, Any] = {
        "link": link, "prompt": given.text("prompt"), "negative_prompt": given.text("negative_prompt"),
        "style_fidelity": fidelity, "strength": given.number("strength", 1.0, 0, 1), "size": size, "count": count,
        "seed": seed, "fit": fit, **options,
    }  # fmt: skip
    control = given.text("controlnet") or None
    followed = given.picture("control", f"a picture that the ControlNet {control} follows") if control else None
    pose = given.picture("pose", "a skeleton: the link referencenet follows one") if link == POSED else None
    if pose is not None and (painted is not None or others or settings["negative_prompt"] or control):
        raise ValueError(
            "the link referencenet takes one reference without a mask, no negative prompt and no ControlNet; use "
            "attention for that."
        )
    if link == STYLED:
        if painted is not None or others:
            raise ValueError("the style is that of one picture, without a mask; use attention for that.")
        settings |= _style(given)
    settings["controlnet"] = control
    side_by_side = given.chosen("side_by_side")

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        width, height = _size(pipe, size)
        call = _own_options(pipe, model, pose is not None, options) | {"width": width, "height": height}
        wanted: dict[str, Any] = {"count": count, "seed": seed, "prompt": settings["prompt"]}
        seen = [at_size(picture, (width, height), fit) for picture in (hero, *others)]
        if side_by_side:
            wanted["shown"] = lambda picture: beside([*seen, picture])
        if pose is not None:
            skeleton = at_size(pose, (width, height), fit, "black")
            return draw_pictures(pipe, job, folder, **wanted, reference=seen[0], pose=skeleton, **call)
        if followed is not None:
            call["image"] = fitted(followed, (width, height), fit or "stretch", "black")
        negative = settings["negative_prompt"]
        if link == STYLED:
            return _in_style(pipe, job, folder, hero, settings, wanted | call)
        mask = None if painted is None else at_size(painted, (width, height), fit, "black")
        strength = settings["strength"]
        read = [Reference(seen[0], mask=mask, strength=strength), *(Reference(o, strength=strength) for o in seen[1:])]
        with reference(pipe, read, links=NAMED_LINKS[link], style_fidelity=fidelity):  # pyright: ignore[reportArgumentType]
            return draw_pictures(pipe, job, folder, negative_prompt=negative or None, **wanted, **call)

    return Order(
        model=model, draw=draw, settings=settings, files=given.files, posed=pose is not None, controlnet=control
    )


def _style(given: Given) -> dict[str, Any]:
    """What is taken of a style; read as much in both halves of the guidance."""
    return {
        "style_prompt": given.text("style_prompt"),
        "style_from": given.one_of("style_from", STYLES, STYLES[0]),
        "style_weight": given.number("style_weight", 1.0, 0.001, 100),
        "style_fidelity": 0.0,
    }


def _in_style(
    pipe: Any, job: Job, folder: Path, hero: Image.Image, settings: dict[str, Any], call: dict[str, Any]
) -> list[Path]:
    """Each picture beside the style's, which has the first place of the batch, with its own words and noise."""
    style = Style(hero, how=settings["style_from"])
    told = {"prompt": [settings["style_prompt"], settings["prompt"]],
            "negative_prompt": [settings["negative_prompt"]] * 2}  # fmt: skip

    def noise(seed: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(each) for each in (0, seed)]

    with share(pipe, style, strength=settings["strength"], weight=settings["style_weight"]):
        return draw_pictures(pipe, job, folder, noise=noise, **call | told)


def _size(pipe: Any, size: str | None) -> Size:
    """Of the result: as typed, or what the model was made for."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return (side, side) if size is None else parse_size(size, multiple=pipe.vae_scale_factor)


def _own_options(pipe: Any, model: Model, posed: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Steps and guidance: as typed, or the model's own."""
    chosen = {name: value for name, value in options.items() if value is not None}
    if posed:
        return {"num_inference_steps": pipe.spec.steps, "guidance_scale": pipe.spec.scale} | chosen
    return ({"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} if model.kind == "built in" else {}) | chosen
