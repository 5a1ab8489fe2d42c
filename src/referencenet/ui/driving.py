"""What moves the person of the tab Animate: drawings, key points, landmarks, an ordinary film, or somebody's face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from referencenet.cli.animate import BODY, FACE, SEEN
from referencenet.cli.face_inputs import TRACKS, reenactment
from referencenet.cli.film_inputs import driving_films, estimated, found_for
from referencenet.cli.options import takes
from referencenet.inputs import regular_file
from referencenet.pipelines.film_files import FilmSettings
from referencenet.preprocess.conditions import CONDITIONS
from referencenet.preprocess.model_files import default_folder
from referencenet.ui.given import Given

SOURCES: Mapping[str, tuple[str, str]] = MappingProxyType({
    "poses": ("", "a film of drawings"),
    "video": (SEEN, "an ordinary film"),
    "keypoints": (BODY, "key points"),
    "landmarks": (FACE, "landmarks"),
    "driving": (FACE, "a face that moves the portrait's"),
})  # fmt: skip
"""Input to which systems take it, and what it is."""

Driven = tuple[Any, list[Any]]
"""The person, and films of drawings."""


def driven(
    given: Given, system: str, num_films: int, person: Image.Image, settings: FilmSettings
) -> Callable[[], Driven]:
    """See that one thing moves the person; what is found in a film is found when the result is called.

    Args:
        given: To the tab.
        system: That draws.
        num_films: Of drawings that it takes.
        person: Who moves.
        settings: Of the film.

    Raises:
        FileNotFoundError: If a network that is needed was not fetched.
        ValueError: If nothing or several things are given, or something that the system does not take.
    """
    named = [name for name in SOURCES if given.values.get(name)]
    chosen = [name for name in named if _moves(name, system)]  # the page does not show the others
    if len(chosen) > 1:
        what = " and ".join(SOURCES[name][1] for name in chosen)
        raise ValueError(f"the person moves by one thing, and {what} were given; take all but one away.")
    if named and not chosen:
        what = SOURCES[named[0]][1]
        raise ValueError(f"{system} is not moved by {what}; give a film of drawings, or choose another model.")
    (source,) = chosen or ["poses"]
    what, who = SOURCES[source][1], given.person()
    if source == "poses":
        films = [given.film("poses", what)]
        if num_films > 1:
            films.append(given.film("poses_2", f"a second film of drawings, of the mouth: {system} needs it"))
        return lambda: (person, films)
    if source == "video":
        condition = found_for(system)
        given.film("video", what)  # within the page's limits
        CONDITIONS[condition](default_folder())  # its networks are there
        path = given.files["video"]
        return lambda: (person, [estimated(path, condition, None, who, settings)])
    path = regular_file(given.file(source, what), what)
    if source == "driving":
        if path.suffix.lower() not in TRACKS:
            given.film("driving", what)
        face = given.maybe_file("face")
        if face is None or path.suffix.lower() not in TRACKS:
            CONDITIONS["face-track"](default_folder())
        return lambda: _reenacted(path, face, person, who, settings)
    points, landmarks = (path, None) if source == "keypoints" else (None, path)
    own = given.maybe_file("fit_to") if points else None
    drawn = driving_films([], points, landmarks, own, person, settings, None, who)
    return lambda: (person, drawn)


def _moves(source: str, system: str) -> bool:
    """Whether a system is moved by it; the two films of a re-enactment are drawings."""
    return takes(SOURCES[source][0], system) and (source == "poses" or system != "animate_anyone.reenact")


def _reenacted(path: Path, face: Path | None, person: Image.Image, who: int | None, settings: FilmSettings) -> Driven:
    subject, film = reenactment(path, face, person, None, who, settings)
    return subject, [film]
