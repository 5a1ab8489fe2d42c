"""The tabs whose result is a picture: refer, compose, dress, face."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from PIL import Image

from referencenet.builtin.load import GUIDANCE, STEPS
from referencenet.cli.settings import parse_size
from referencenet.media.images import read_layers
from referencenet.media.sheets import beside
from referencenet.methods.flashface import FaceGuidance
from referencenet.methods.reference_only import NAMED_LINKS, Reference, reference
from referencenet.pipelines.composite import composited
from referencenet.pipelines.garments import check_masks
from referencenet.preprocess.faces import square_face
from referencenet.preprocess.parts import PLACES, PersonPart, check_parts, mask_of
from referencenet.ui.drawing import Order, draw_pictures, sampling
from referencenet.ui.given import Given
from referencenet.ui.jobs import Job
from referencenet.ui.models import Model, kind_of

POSED = "referencenet"
"""The link of the trained pose ReferenceNet, beside the training-free ones."""


def refer(given: Given, model: Model) -> Order:
    """Pictures that refer to pictures."""
    link = given.text("link") or "attention"
    if link != POSED and link not in NAMED_LINKS:
        raise ValueError(f"the link is {link!r}; expected {', '.join([*NAMED_LINKS, POSED])}.")
    hero, painted = given.painted("reference", "a picture to refer to")
    others = given.pictures("others")
    size, count, seed = given.size(1), given.count(), given.seed()
    options: dict[str, Any] = {"num_inference_steps": given.steps(), "guidance_scale": given.guidance()}
    fidelity = given.number("style_fidelity", 0.5, 0, 1)
    strength = given.number("strength", 1.0, 0, 1)
    settings = {
        "link": link, "prompt": given.text("prompt"), "negative_prompt": given.text("negative_prompt"),
        "style_fidelity": fidelity, "strength": strength, "size": size, "count": count, "seed": seed, **options,
    }  # fmt: skip
    side_by_side = given.chosen("side_by_side")
    pose = given.picture("pose", "a skeleton: the link referencenet follows one") if link == POSED else None
    if pose is not None and (painted is not None or others or settings["negative_prompt"]):
        raise ValueError(
            "the link referencenet takes one reference without a mask, and no negative prompt; use attention for that."
        )

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        chosen = {name: value for name, value in options.items() if value is not None}
        if model.kind == "built in" and pose is None:
            chosen = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE} | chosen
        elif pose is not None:
            chosen = {"num_inference_steps": pipe.spec.steps, "guidance_scale": pipe.spec.scale} | chosen
        side = pipe.unet.config.sample_size * pipe.vae_scale_factor
        width, height = (side, side) if size is None else parse_size(size, multiple=pipe.vae_scale_factor)
        call = chosen | {"width": width, "height": height, "prompt": settings["prompt"]}
        wanted: dict[str, Any] = {"count": count, "seed": seed}
        if side_by_side:
            wanted["shown"] = lambda picture: beside([hero, *others, picture])
        if pose is not None:
            return draw_pictures(pipe, job, folder, **wanted, reference=hero, pose=pose, **call)
        read = [Reference(hero, mask=painted, strength=strength), *(Reference(o, strength=strength) for o in others)]
        with reference(pipe, read, links=NAMED_LINKS[link], style_fidelity=fidelity):  # pyright: ignore[reportArgumentType]
            call["negative_prompt"] = settings["negative_prompt"] or None
            return draw_pictures(pipe, job, folder, **wanted, **call)

    return Order(model=model, draw=draw, settings=settings, files=given.files, posed=pose is not None)


def compose(given: Given, model: Model) -> Order:
    """A person from pictures of parts in a pose, or in a garment."""
    kind = kind_of("compose", model)
    options = sampling(given, kind.spec)
    count, seed = given.count(), given.seed()
    words = {"prompt": given.text("prompt"), "negative_prompt": given.text("negative_prompt")}
    if "parts" in inspect.signature(kind.__call__).parameters:
        parts = _parts(given, (options["width"], options["height"]))
        pose = given.picture("pose", "a pose: a DensePose rendering on black")
        call: dict[str, Any] = {"parts": parts, "pose": pose}
        shown = [read_layers(part.picture)[0] for part in parts] + [pose]
        told: dict[str, Any] = {"parts": [part.label for part in parts]}
    else:
        garment = given.picture("garment", "a garment")
        told = {"garment_prompt": given.text("garment_prompt")}
        call, shown = {"garment": garment, **told}, [garment]
    settings = told | words | options | {"count": count, "seed": seed}
    return _pictures(given, model, settings, call | words | options, shown, count, seed)


def dress(given: Given, model: Model) -> Order:
    """The person of a picture in a garment."""
    kind = kind_of("dress", model)
    takes = inspect.signature(kind.__call__).parameters
    options = sampling(given, kind.spec)
    count, seed = given.count(), given.seed()
    person, painted = given.painted("person", "a picture of the person")
    garment = given.picture("garment", "a picture of the garment")
    mask = given.mask("mask") or painted
    if mask is None:
        raise ValueError("paint over what is to be repainted, or give a mask, white there.")
    check_masks(person, mask)
    call: dict[str, Any] = {"person": person, "garment": garment, "mask": mask}
    if "densepose" in takes:
        call["densepose"] = given.picture("densepose", f"the person's DensePose rendering on black: {model.system} "
                                                       "needs it")  # fmt: skip
    words = {
        name: given.text(name) for name in ("garment_description", "garment_prompt", "prompt")
        if name in takes and given.text(name) and (name != "prompt" or model.system != "idm_vton")
    }  # fmt: skip
    if given.chosen("composite"):
        options_of: dict[str, Any] = {"composite": True}
    else:
        options_of = {}
    settings = words | options | options_of | {"count": count, "seed": seed}
    side_by_side = given.chosen("side_by_side")

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        def shown(result: Image.Image) -> Image.Image:
            if options_of:
                (result,) = composited(pipe, person, mask, [result])
            return beside([person, garment, result]) if side_by_side else result

        return draw_pictures(pipe, job, folder, count=count, seed=seed, shown=shown, **call, **words, **options)

    return Order(model=model, draw=draw, settings=settings, files=given.files)


def face(given: Given, model: Model) -> Order:
    """The person of some face photographs."""
    kind = kind_of("face", model)
    faces = given.pictures("faces")
    if not faces:
        raise ValueError("give photographs of the face, cropped to it.")
    options = sampling(given, kind.spec)
    options["text_guidance"] = options.pop("guidance_scale")
    if given.size() is None:
        options = {name: value for name, value in options.items() if name not in ("width", "height")}
    count, seed = given.count(), given.seed()
    told: dict[str, Any] = {
        "prompt": given.text("prompt"),
        "negative_prompt": given.text("negative_prompt"),
        "lambda_feat": given.number("strength", FaceGuidance.lambda_feat, 0, 10),
        "face_guidance": given.number("face_guidance", FaceGuidance.face_guidance, 0, 10),
    } | options
    settings = told | {"count": count, "seed": seed}
    shown = [*map(square_face, faces)]
    return _pictures(given, model, settings, {"faces": faces} | told, shown, count, seed)


def _parts(given: Given, size: tuple[int, int]) -> list[PersonPart]:
    """The parts of a person, each with its mask or transparency."""
    parts: list[PersonPart] = []
    for number in range(1, PLACES + 1):
        path = given.maybe_file(f"part_{number}")
        if path is None:
            continue
        _, mask = given.painted(f"part_{number}", f"a picture as part {number}, or none")
        parts.append(PersonPart(picture=path, label=given.text(f"label_{number}"), mask=mask))
    for part in check_parts(parts):
        mask_of(part, size)
    return parts


def _pictures(
    given: Given, model: Model, settings: dict[str, Any], call: dict[str, Any], beside_it: list[Image.Image],
    count: int, seed: int,
) -> Order:  # fmt: skip
    """An order of pictures of one system's call."""
    side_by_side = given.chosen("side_by_side")

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        wanted: dict[str, Any] = {"count": count, "seed": seed}
        if side_by_side:
            wanted["shown"] = lambda picture: beside([*beside_it, picture])
        return draw_pictures(pipe, job, folder, **wanted, **call)

    return Order(model=model, draw=draw, settings=settings, files=given.files)
