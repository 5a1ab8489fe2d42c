"""The tabs of systems whose result is a picture: compose, dress, face."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from referencenet.cli.compose import fitted_part
from referencenet.cli.run import call_beside
from referencenet.cli.tryon import CategoryChoice, read_or_make_mask
from referencenet.media.images import read_layers
from referencenet.media.sheets import beside
from referencenet.methods.flashface import FaceGuidance
from referencenet.pipelines.composite import composited
from referencenet.pipelines.garments import check_masks
from referencenet.preprocess.agnostic import ARM_WIDTHS
from referencenet.preprocess.faces import FACE_SIZE, square_face
from referencenet.preprocess.parts import PLACES, PersonPart, check_parts, mask_of
from referencenet.ui.drawing import Order, at_size, draw_pictures, sampling
from referencenet.ui.given import Given
from referencenet.ui.jobs import Job
from referencenet.ui.models import Model, kind_of

CATEGORIES: tuple[str, ...] = get_args(CategoryChoice)
"""What a mask is made for."""


def compose(given: Given, model: Model) -> Order:
    """A person from pictures of parts in a pose, or in a garment."""
    kind = kind_of("compose", model)
    options = sampling(given, kind.spec)
    count, seed = given.count(), given.seed()
    words = {"prompt": given.text("prompt"), "negative_prompt": given.text("negative_prompt")}
    sides, fit = (options["width"], options["height"]), given.fit()
    if "parts" in inspect.signature(kind.__call__).parameters:
        parts = [fitted_part(part, sides, fit) for part in _parts(given, sides)]
        pose = at_size(given.picture("pose", "a pose: a DensePose rendering on black"), sides, fit, "black")
        call: dict[str, Any] = {"parts": parts, "pose": pose}
        shown = [read_layers(part.picture)[0] for part in parts] + [pose]
        told: dict[str, Any] = {"parts": [part.label for part in parts]}
    else:
        garment = at_size(given.picture("garment", "a garment"), sides, fit)
        told = {"garment_prompt": given.text("garment_prompt")}
        call, shown = {"garment": garment, **told}, [garment]
    settings = told | words | options | {"fit": fit, "count": count, "seed": seed}
    return _pictures(given, model, settings, call | words | options, shown, count, seed)


def dress(given: Given, model: Model) -> Order:
    """The person of a picture in a garment."""
    kind = kind_of("dress", model)
    takes = inspect.signature(kind.__call__).parameters
    options = sampling(given, kind.spec)
    count, seed = given.count(), given.seed()
    person, painted = given.painted("person", "a picture of the person")
    garment = given.picture("garment", "a picture of the garment")
    mask, made = _mask(given, painted)
    check_masks(person, mask)
    sides, fit = (options["width"], options["height"]), given.fit()
    person, garment, mask = (
        at_size(person, sides, fit),
        at_size(garment, sides, fit),
        at_size(mask, sides, fit, "black"),
    )
    call: dict[str, Any] = {"person": person, "garment": garment, "mask": mask}
    if "densepose" in takes:
        drawn = given.picture("densepose", f"the person's DensePose rendering on black: {model.system} needs it")
        call["densepose"] = at_size(drawn, sides, fit, "black")
    words = {
        name: given.text(name) for name in ("garment_description", "garment_prompt", "prompt")
        if name in takes and given.text(name) and (name != "prompt" or model.system != "idm_vton")
    }  # fmt: skip
    composite = given.chosen("composite")
    settings = words | options | made | {"composite": composite or None, "fit": fit, "count": count, "seed": seed}
    side_by_side = given.chosen("side_by_side")

    def draw(pipe: Any, job: Job, folder: Path) -> list[Path]:
        def shown(result: Image.Image) -> Image.Image:
            if composite:
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
    fit = given.fit()
    faces = [at_size(face, (FACE_SIZE, FACE_SIZE), fit, "black") for face in faces]
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
    settings = told | {"fit": fit, "count": count, "seed": seed}
    shown = [*map(square_face, faces)]
    call = {"faces": faces} | told | call_beside(kind)
    return _pictures(given, model, settings, call, shown, count, seed)


def _mask(given: Given, painted: Image.Image | None) -> tuple[Image.Image, dict[str, Any]]:
    """Where a person is repainted: painted, given, or made of a parsing and key points; and what it was made for.

    Raises:
        ValueError: If there is none, or half of what it is made from.
    """
    parsing, points = given.maybe_file("parsing"), given.maybe_file("keypoints")
    if parsing is not None or points is not None:
        if painted is not None or given.maybe_file("mask") is not None:
            raise ValueError("a mask is painted, given, or made of a parsing and key points: give one of these.")
        if parsing is None or points is None:
            raise ValueError("a mask is made of a parsing and key points together; give both.")
        category = given.one_of("category", CATEGORIES, CATEGORIES[0])
        given.picture("parsing", "a parsing")  # within the page's limits
        found = read_or_make_mask(None, parsing, points, category, ARM_WIDTHS["hd"], given.person())
        return found, {"category": category}
    mask = given.mask("mask") or painted
    if mask is None:
        raise ValueError("paint over what is to be repainted, or give a mask, white there.")
    return mask, {}


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
