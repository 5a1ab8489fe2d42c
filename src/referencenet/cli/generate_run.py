"""The work of `refnet generate`: load the model, link it, draw, and write pictures, sheet and settings.

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
from typing import Any

import diffusers
import torch
from diffusers.utils import numpy_to_pil
from PIL import Image

from referencenet.builtin.load import GUIDANCE, STEPS
from referencenet.cli.console import progress_bar
from referencenet.cli.loaded import loaded
from referencenet.cli.model_names import BUILTIN
from referencenet.cli.models import (
    check_offload,
    choose_device,
    choose_dtype,
    load_pipeline,
    load_referencenet,
    place,
)
from referencenet.cli.run import fitted_pictures
from referencenet.cli.settings import Settings, pairs, parse_size, to_document
from referencenet.media.files import locked, written_whole
from referencenet.media.fitting import Fit, fitted
from referencenet.media.images import read_image, read_mask
from referencenet.media.sheets import contact_sheet, write_image
from referencenet.methods.reference_only import NAMED_LINKS, Reference, reference
from referencenet.methods.style_aligned import share
from referencenet.pipelines.encoders import check_finite_result
from referencenet.pipelines.lifecycle import ReferencePipeline
from referencenet.sampling.style import Style
from referencenet.version import __version__

BUILTIN_DEFAULTS = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
Draw = Callable[[int, Callable[[], None]], Image.Image]  # from a seed, calling back at every step


def run_generate(settings: Settings, out: Path) -> Path:
    """Draw what the settings say into a folder.

    Args:
        settings: Of the run, checked.
        out: Folder; made if it is missing.

    Returns:
        The path of the contact sheet.
    """
    references = _read_references(settings)
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
        with _in_style(pipe, settings):
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
            told = _beside_the_style(settings, seed)
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


@contextmanager
def _in_style(pipe: Any, settings: Settings) -> Generator[None]:
    """Inside, the pipeline's second picture of a batch is in the style of the settings' picture."""
    style = Style(settings.reference[0], how=settings.style_from)
    with share(
        pipe, style, attention=settings.share_attention, adain_queries=settings.adain_queries,
        adain_keys=settings.adain_keys, group_norm=settings.group_norm, strength=settings.strength,
        weight=settings.style_weight, style_fidelity=settings.style_fidelity or 0.0,
    ):  # fmt: skip
        yield


def _beside_the_style(settings: Settings, seed: int) -> dict[str, Any]:
    """What a call is told to draw one picture beside the style's: its own words and noise, in the second place."""
    return {
        "prompt": [settings.style_prompt, settings.prompt],
        "negative_prompt": [settings.negative_prompt] * 2,
        "generator": [torch.Generator("cpu").manual_seed(each) for each in (0, seed)],
    }


def _read_references(settings: Settings) -> list[Reference]:
    """Read the pictures and their masks."""
    masks = [*settings.mask, *[None] * (len(settings.reference) - len(settings.mask))]
    return [
        Reference(path, mask=mask, result_mask=settings.result_mask, strength=settings.strength)
        for path, mask in zip(settings.reference, masks, strict=True)
    ]
