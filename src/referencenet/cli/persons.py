"""`--person N` of commands that read whole people: pictures are cut around one of several."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageChops

from referencenet.cli.console import note
from referencenet.media.images import read_image, read_layers, read_mask
from referencenet.preprocess.mediapipe import BlazePose
from referencenet.preprocess.model_files import default_folder
from referencenet.preprocess.parts import PersonPart, Segment
from referencenet.preprocess.people import PersonCut, find_person


def people_finder(models: Path | None) -> BlazePose:
    """Finds people by the fetched networks.

    Raises:
        FileNotFoundError: If they are not there.
    """
    try:
        return BlazePose(models or default_folder())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} It finds people for --person; or cut the picture yourself.") from error


def person_cuts(
    pictures: Mapping[str, Image.Image], person: int, models: Path | None, size: tuple[int, int] | None = None
) -> dict[str, PersonCut]:
    """Where pictures are cut, with a word on each; one that shows nobody, as of a shoe, stays whole.

    Args:
        pictures: Name to picture.
        person: Who, counted from the left from 1.
        models: Folder of the networks; None: where they were fetched to.
        size: Of the result, whose proportions the cuts have where the pictures are large enough; None: as people are.

    Raises:
        FileNotFoundError: If a network is missing.
        ValueError: If a picture shows fewer people; names it.
    """
    finder = people_finder(models)
    found: dict[str, PersonCut] = {}
    for name, picture in pictures.items():
        try:
            cut = find_person(picture, finder, person, size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if cut is None:
            note(f"{name} shows nobody that --person could choose; it stays whole.")
            continue
        left, top, right, bottom = cut.box
        note(
            f"{name} is {picture.width} x {picture.height} pixels; {right - left} x {bottom - top} at {left},{top} are "
            f"cut out around person {person}."
        )
        found[name] = cut
    return found


def cut_parts(
    parts: list[PersonPart], person: int, models: Path | None, size: tuple[int, int]
) -> tuple[list[PersonPart], dict[str, Image.Image]]:
    """Parts of one of several people, and where that person is.

    Args:
        parts: Their pictures show people.
        person: Who, counted from the left from 1.
        models: Folder of the networks; None: where they were fetched to.
        size: Of the result in pixels.

    Returns:
        The parts with pictures and masks cut; label to mask of the person, of those that were cut.
    """
    layers = {part.label: read_layers(part.picture) for part in parts}
    named = {f"the picture of {label}": colours for label, (colours, _) in layers.items()}
    cuts = dict(zip(layers, map(person_cuts(named, person, models, size).get, named), strict=True))
    found: list[PersonPart] = []
    for part in parts:
        cut = cuts[part.label]
        if cut is None:
            found.append(part)
            continue
        colours, opacity = layers[part.label]
        mask = opacity if part.mask is None else read_mask(part.mask)
        found.append(replace(part, picture=colours.crop(cut.box), mask=None if mask is None else mask.crop(cut.box)))
    return found, {label: cut.mask for label, cut in cuts.items() if cut is not None}


def only_theirs(segment: Segment, people: Mapping[str, Image.Image]) -> Segment:
    """What a segmenter finds of one person, black where others are.

    Args:
        segment: The segmenter.
        people: Label to mask of that person, mode L.
    """

    def found(picture: Image.Image, label: str) -> Image.Image:
        mask = segment(picture, label)
        return ImageChops.darker(mask, people[label]) if label in people else mask

    return found


def cut_reference(path: str, mask: str | None, cut: PersonCut | None) -> tuple[Image.Image, Image.Image | None]:
    """A picture and the mask of what may be read of it, both cut.

    Args:
        path: Of the picture.
        mask: Of the mask, which may have another size.
        cut: Where; None: nowhere.
    """
    picture, white = read_image(path), None if mask is None else read_mask(mask)
    if cut is None:
        return picture, white
    if white is not None:
        white = white.resize(picture.size).crop(cut.box)
    return picture.crop(cut.box), white
