"""The work of `refnet generate`: load the model, link it, draw, and write pictures, sheet and settings.

Pictures are drawn one at a time, each from a generator of its own seed: `--seed 45` alone draws what
`--seed 42 --count 4` drew as its fourth.
"""

import inspect
import random
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image

from referencenet.bases.devices import check_offload, choose_device, choose_dtype, place
from referencenet.bases.load import Task, load_base, load_referencenet
from referencenet.bases.loras import add_loras
from referencenet.bases.names import BUILTIN
from referencenet.bases.schedulers import with_scheduler
from referencenet.builtin.load import GUIDANCE, STEPS
from referencenet.cli.console import note, progress_bar
from referencenet.cli.loaded import loaded
from referencenet.cli.persons import cut_reference, person_cuts
from referencenet.cli.quiet import quiet
from referencenet.cli.run import fitted_pictures
from referencenet.cli.settings import Settings, is_named_pose, pairs, parse_size, to_document, to_record
from referencenet.media.files import locked, new_run, results_in, written_whole
from referencenet.media.fitting import fitted
from referencenet.media.images import Picture, read_image, read_mask, resize
from referencenet.media.sheets import contact_sheet, write_image
from referencenet.methods.reference_only import NAMED_LINKS, Reference, reference
from referencenet.methods.style_aligned import share
from referencenet.paperdoll.skeleton import named_skeleton
from referencenet.pipelines.composite import BORDER, faded
from referencenet.pipelines.lifecycle import ReferencePipeline
from referencenet.pipelines.seeds import draw_one
from referencenet.sampling.style import Style
from referencenet.version import __version__

BUILTIN_DEFAULTS = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
Draw = Callable[[int, Callable[[], None]], Image.Image]  # from a seed, calling back at every step


OF_THE_MODEL = ("model", "config", "controlnet", "lora", "scheduler", "offload", "vae_tiling", "compile")
"""Settings that decide what is loaded."""

TILE = 160
"""Pixels that a picture has at least on the sheet."""

LONGEST_PROMPT, LONGEST_SEED = 200, 12
"""Characters of them on the sheet."""


def run_generate(settings: Settings, out: Path, *, overwrite: bool = False) -> Path:
    """Draw what the settings say into a folder.

    Args:
        settings: Of the run, checked.
        out: Folder of runs; this one gets a new, numbered folder in it when its first picture is there.
        overwrite: Write into `out` itself, in place of the run that is there.

    Returns:
        The path of the contact sheet.

    Raises:
        ValueError: If another process is overwriting the same folder, or the settings do not fit the model.
    """
    references = _read_references(settings)
    with ExitStack() as held:
        draw, settings, made_with = held.enter_context(_artist(settings, references))
        if overwrite:
            held.enter_context(locked(out / "settings.json"))
        seeds = range(settings.seed or 0, (settings.seed or 0) + settings.count)
        drawn: list[Image.Image] = []
        folder = out
        with progress_bar("drawing", settings.count * _num_steps(settings)) as (bar, task):
            for seed in seeds:
                drawn.append(draw(seed, lambda: bar.advance(task)))
                if seed == seeds[0]:
                    folder = _cleared(out) if overwrite else new_run(out)
                write_image(drawn[-1], folder / f"seed-{seed}.png", to_record(settings, made_with, seed=seed, count=1))
        sheet = write_image(_sheet(settings, drawn, seeds), folder / "sheet.png", to_record(settings, made_with))
        pictures = [{"file": f"seed-{seed}.png", "seed": seed} for seed in seeds]
        with written_whole(folder / "settings.json") as file:
            file.write_text(to_document(settings, made_with, pictures), encoding="utf-8")
    return sheet


def _cleared(out: Path) -> Path:
    """A folder without an older run's pictures; whatever else is in it stays."""
    for file in results_in(out):
        file.unlink(missing_ok=True)
    return out


def _sheet(settings: Settings, drawn: list[Image.Image], seeds: Iterable[int]) -> Image.Image:
    """References and pictures, with what was asked for."""
    word = "style" if settings.link == "aligned" else "reference"
    names = [str(seed) for seed in seeds]
    names = [f"...{name[-LONGEST_SEED:]}" if len(name) > LONGEST_SEED else name for name in names]
    prompt = settings.prompt if len(settings.prompt) <= LONGEST_PROMPT else f"{settings.prompt[:LONGEST_PROMPT]}..."
    said = [settings.link, f"strength {settings.strength:g}", f"{settings.steps} steps"]
    if settings.style_fidelity is not None:
        said.insert(2, f"style fidelity {settings.style_fidelity:g}")
    return contact_sheet(
        [*(read_image(path) for path in settings.reference), *drawn],
        captions=[*[word] * len(settings.reference), *(f"seed {name}" for name in names)],
        title=f"{prompt}\n{', '.join(said)}",
        cell=drawn[0].size,
        least=TILE,
    )


def _num_steps(settings: Settings) -> int:
    """Steps of a picture."""
    steps = settings.steps or 1
    share = settings.image_strength if settings.image is not None and settings.image_strength is not None else 1.0
    return max(1, min(int(steps * share), steps))


@contextmanager
def _artist(settings: Settings, references: list[Reference]) -> Generator[tuple[Draw, Settings, dict[str, str]]]:
    """Load the model and link it.

    Yields:
        What draws a picture from a seed; the settings without open questions; what the pictures are made with.
    """
    quiet()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    source = [getattr(settings, name) for name in OF_THE_MODEL]
    pipe = loaded((*source, settings.link == "referencenet", _task(settings), str(device), str(dtype)),
                  partial(_load, settings, device, dtype))  # fmt: skip
    settings = _settled(settings, pipe, device, dtype)
    size = parse_size(settings.size or "")
    references = _fitted(references, settings, size)
    if settings.link == "referencenet":
        pose = _controls(settings, size)["pose"]
        yield _drawer(pipe, settings, size, reference=references[0].image, pose=pose), settings, _made_with(pipe)
        return
    if settings.link == "aligned":
        with _in_style(pipe, settings):
            yield _drawer(pipe, settings, size, **_conditions(settings, size)), settings, _made_with(pipe)
        return
    with reference(pipe, references, links=NAMED_LINKS[settings.link], style_fidelity=settings.style_fidelity or 0.0):
        extra = {"negative_prompt": settings.negative_prompt or None, **_conditions(settings, size)}
        yield _drawer(pipe, settings, size, **extra), settings, _made_with(pipe)


def _task(settings: Settings) -> Task:
    """What kind of pipeline the settings need."""
    return "text" if settings.image is None else "image" if settings.inpaint_mask is None else "inpaint"


def _load(settings: Settings, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of the settings, where it computes."""
    if settings.link == "referencenet":
        check_offload(settings.offload, device, compiled=settings.compile)
        pipe: Any = add_loras(load_referencenet(settings.model, dtype=dtype), settings.lora)
        if settings.scheduler is not None:
            with_scheduler(pipe, settings.scheduler)
        place(pipe, device, offload=settings.offload, vae_tiling=settings.vae_tiling, compiled=settings.compile)
    else:
        pipe = load_base(
            settings.model,
            task=_task(settings),
            config=settings.config,
            controlnets=pairs(settings.controlnet, "--controlnet"),
            loras=settings.lora,
            scheduler=settings.scheduler,
            device=device,
            dtype=dtype,
            offload=settings.offload,
            vae_tiling=settings.vae_tiling,
            compiled=settings.compile,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _fitted(references: list[Reference], settings: Settings, size: tuple[int, int]) -> list[Reference]:
    """References with their masks at the result's proportions; without --fit they keep their own."""
    if settings.fit is None:
        return references
    found: list[Reference] = []
    for path, each in zip(settings.reference, references, strict=True):
        pictures = {path: read_image(each.image)} | ({} if each.mask is None else {"mask": read_mask(each.mask)})
        image, *mask = fitted_pictures(pictures, size, settings.fit).values()
        found.append(replace(each, image=image, mask=mask[0] if mask else None))
    return found


def _controls(settings: Settings, size: tuple[int, int]) -> dict[str, Image.Image]:
    """The pictures that are followed, by kind, at the result's size; poses by their names are drawn."""
    given = pairs(settings.control, "--control")
    drawn = {kind: path for kind, path in given.items() if is_named_pose(kind, path)}
    shown = {path: read_image(path) for kind, path in given.items() if kind not in drawn}
    shown = fitted_pictures(shown, size, settings.fit, ground="black")
    return {
        kind: Image.fromarray(named_skeleton(path, size)) if kind in drawn else fitted(shown[path], size, "stretch")
        for kind, path in given.items()
    }


def _conditions(settings: Settings, size: tuple[int, int]) -> dict[str, Any]:
    """The pictures that a pipeline follows and begins from, as it takes them."""
    controls = _controls(settings, size)
    images = [controls[kind] for kind in pairs(settings.controlnet, "--controlnet")]
    followed = images if len(images) > 1 else images[0] if images else None
    if settings.image is None:
        return {} if followed is None else {"image": followed}
    given: dict[str, Any] = {"image": _begun(settings, size), "strength": settings.image_strength}
    if followed is not None:
        given["control_image"] = followed
    if settings.inpaint_mask is not None:
        given["mask_image"] = _inpaint_mask(settings, size)
    return given


def _begun(settings: Settings, size: tuple[int, int]) -> Image.Image:
    """The picture that a drawing begins from, at the result's size."""
    picture = fitted_pictures({"--image": read_image(settings.image or "")}, size, settings.fit)["--image"]
    return fitted(picture, size, "stretch")


def _inpaint_mask(settings: Settings, size: tuple[int, int]) -> Image.Image:
    """What is drawn anew, at the result's size: mode L."""
    mask = read_mask(settings.inpaint_mask or "")
    return fitted(mask, size, settings.fit or "stretch", "black").point([0] * 128 + [255] * 128)


def _drawer(pipe: Any, settings: Settings, size: tuple[int, int], **extra: Any) -> Draw:
    """Bind the settings to the pipeline's call."""
    given: dict[str, Any] = {
        "num_inference_steps": settings.steps, "guidance_scale": settings.guidance, **extra
    }  # fmt: skip
    if "width" in inspect.signature(pipe.__call__).parameters or isinstance(pipe, ReferencePipeline):
        given |= {"width": size[0], "height": size[1]}  # others take the size of the picture that they begin from

    def draw(seed: int, on_step: Callable[[], None]) -> Image.Image:
        def step_done(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        generator = torch.Generator("cpu").manual_seed(seed)  # the same picture on every device, up to rounding
        told = {"prompt": settings.prompt, "generator": generator}
        if settings.link == "aligned":
            told = _beside_the_style(settings, seed)
        picture = draw_one(pipe, callback_on_step_end=step_done, **told, **given)
        if "mask_image" in given:  # outside of the mask the picture stays, to the bit
            inside = faded(given["mask_image"], round(min(size) * BORDER))
            picture = Image.composite(picture, given["image"], inside)
        return picture

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
    native = pipe.unet.config.sample_size * scale
    width, height = parse_size(settings.size or str(native))
    if settings.size is None and settings.image is not None:  # its proportions, as large as the model draws
        width, height = resize(read_image(settings.image), (native, native), multiple=scale).size
    _tell_size(settings, (width, height), native)
    if width % scale or height % scale:
        raise ValueError(f"--size {width}x{height} does not fit this model; both must be multiples of {scale}.")
    usual_fidelity = None if settings.link == "referencenet" else 0.0 if settings.link == "aligned" else 0.5
    usual_share = None if settings.image is None else 0.8 if settings.inpaint_mask is None else 1.0
    return replace(
        settings,
        image_strength=usual_share if settings.image_strength is None else settings.image_strength,
        seed=random.SystemRandom().randrange(2**31) if settings.seed is None else settings.seed,
        steps=settings.steps or defaults["num_inference_steps"],
        guidance=defaults["guidance_scale"] if settings.guidance is None else settings.guidance,
        size=f"{width}x{height}",
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        style_fidelity=usual_fidelity if settings.style_fidelity is None else settings.style_fidelity,
    )


def _tell_size(settings: Settings, size: tuple[int, int], native: int) -> None:
    """Say that a model draws worse at another size than it was made for."""
    area = size[0] * size[1] / native**2
    if settings.model == BUILTIN and size != (native, native):
        note(f"the built-in model was made for {native}x{native} pixels; at {size[0]}x{size[1]} it draws several small "
             "figures, or parts of one.")  # fmt: skip
    elif not 0.5 <= area <= 2.0:
        note(f"this model was made for about {native}x{native} pixels; at {size[0]}x{size[1]} pictures get worse: try "
             "another --size.")  # fmt: skip


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
    """Read the pictures and their masks, cut around the person who is meant."""
    masks = [*settings.mask, *[None] * (len(settings.reference) - len(settings.mask))]
    pictures: list[tuple[Picture, Picture | None]] = list(zip(settings.reference, masks, strict=True))
    if settings.person is not None:
        named = {path: read_image(path) for path in settings.reference}
        cuts = person_cuts(named, settings.person, None if settings.models is None else Path(settings.models))
        pictures = [
            cut_reference(path, mask, cuts.get(path)) for path, mask in zip(settings.reference, masks, strict=True)
        ]
    return [
        Reference(
            picture,
            mask=mask,
            result_mask=settings.result_mask,
            strength=settings.strength,
            start=settings.start,
            end=settings.end,
        )
        for picture, mask in pictures
    ]
