"""Body key points: what they are, files that hold them, and their published drawing.

Points are the 18 of OpenPose's body model, with 21 of either hand and 68 of the face where they are known. The drawing
is DWPose's, on which Animate Anyone's released weights were trained: limbs at 0.6 of their brightness, joints, hands, a
white face; widths grow with the picture. Nothing is estimated here.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from referencenet.inputs import as_numbers, read_json
from referencenet.media.films import DEFAULT_RATE
from referencenet.media.folders import natural
from referencenet.media.images import MAX_PIXELS

SEEN = 0.3  # points of a lower score are not drawn, as published

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of body points: neck 1, right arm 2 to 4, left arm 5 to 7, legs 8 to 10 and 11 to 13, nose 0, eyes and ears."""

FINGERS = tuple((0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5)
                for joint in range(4))  # fmt: skip
"""Pairs of hand points: from the wrist 0 along thumb, index, middle, ring and little finger."""

BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
"""Where the 18 points stand among OpenPose's newer 25."""

PARTS = {"body": 18, "left_hand": 21, "right_hand": 21, "face": 68}

FARTHEST = 1e6  # pixels that a point may be outside

SIDE = 512  # the widths below are in pixels of a picture whose shorter side has so many
LIMB, JOINT, FINGER, FACE = 4.0, 4.0, 2.0, 3.0  # half a limb's width, radius, a line's width, radius
DIMMED = 0.6


def _points(given: Any, name: str, count: int) -> np.ndarray:
    """(count, 3) float64 of what was given."""
    points = as_numbers(given, f"the list of key points of the {name}")
    if points.ndim != 2 or points.shape[0] != count or points.shape[1] not in (2, 3):
        raise ValueError(
            f"the key points of the {name} are {points.shape}; expected ({count}, 3): x, y and score of the {count} "
            "points of one person."
        )
    if not np.isfinite(points).all():
        raise ValueError(f"the key points of the {name} hold NaN or infinite values; leave unseen points at zero.")
    if np.abs(points).max() > FARTHEST:
        raise ValueError(
            f"the key points of the {name} reach to {np.abs(points).max():.6g}; expected pixels of a picture."
        )
    return points if points.shape[1] == 3 else np.column_stack([points, points.any(axis=1)])


@dataclass(frozen=True, eq=False, kw_only=True)
class BodyPoints:
    """One person's key points in one picture: arrays (points, 3) of x and y in pixels and a score, 0 = not seen.

    Attributes:
        body: (18, 3), in OpenPose's order; (18, 2) counts every point as seen but (0, 0).
        left_hand: (21, 3) or None.
        right_hand: (21, 3) or None.
        face: (68, 3) or None.

    Raises:
        ValueError: If an array has another shape, or holds what is no number.
    """

    body: np.ndarray
    left_hand: np.ndarray | None = None
    right_hand: np.ndarray | None = None
    face: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, count in PARTS.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _points(getattr(self, name), name, count))

    @property
    def is_seen(self) -> bool:
        """Whether any point of the body is."""
        return bool((self.body[:, 2] > 0).any())

    def scaled(self, x: float, y: float) -> BodyPoints:
        """The points of a picture that is stretched: coordinates times `x` and `y`."""
        parts = {name: getattr(self, name) for name in PARTS}
        return BodyPoints(**{name: p if p is None else p * (x, y, 1.0) for name, p in parts.items()})


NOBODY = BodyPoints(body=np.zeros((18, 3)))
"""Of a picture that shows no one."""


def draw_body(points: BodyPoints, size: tuple[int, int]) -> Image.Image:
    """Draw key points as Animate Anyone's pose frames show them, on black.

    Args:
        points: In pixels of the drawing.
        size: Width and height of the drawing in pixels.

    Returns:
        RGB.
    """
    image = Image.new("RGB", size)
    draw, unit = ImageDraw.Draw(image), min(size) / SIDE
    body = points.body
    for i, (a, b) in enumerate(LIMBS):
        if body[a, 2] >= SEEN and body[b, 2] >= SEEN:
            colour = tuple(int(DIMMED * channel) for channel in _hue(i / 18))
            draw.polygon(_spindle(body[a, :2], body[b, :2], max(LIMB * unit, 0.8)), fill=colour)
    _dots(draw, body, JOINT * unit, [_hue(i / 18) for i in range(18)])
    for hand in (points.left_hand, points.right_hand):
        if hand is not None:
            for i, (a, b) in enumerate(FINGERS):
                if hand[a, 2] >= SEEN and hand[b, 2] >= SEEN:
                    ends = (*hand[a, :2], *hand[b, :2])
                    draw.line(ends, fill=_hue(i / len(FINGERS)), width=max(1, round(FINGER * unit)))
            _dots(draw, hand, JOINT * unit, [(0, 0, 255)] * 21)
    if points.face is not None:
        _dots(draw, points.face, FACE * unit, [(255, 255, 255)] * 68)
    return image


class SkeletonFilm:
    """A film of drawn key points, each frame drawn when it is read.

    Args:
        frames: Key points of each frame, in pixels of the film.
        size: Width and height in pixels.
        rate: Frames per second.

    Raises:
        ValueError: If there is no frame, or nobody in any.
    """

    def __init__(self, frames: Sequence[BodyPoints], size: tuple[int, int], rate: Fraction = DEFAULT_RATE) -> None:
        if not any(frame.is_seen for frame in frames):
            raise ValueError(f"a film of {len(frames)} frames shows no one; give key points of a person.")
        self.frames, self.size, self.rate = frames, size, rate

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Image.Image]:
        """Drawings in order, mode RGB."""
        return (draw_body(frame, self.size) for frame in self.frames)


def read_key_points(path: str | Path, person: int | None = None) -> tuple[list[BodyPoints], tuple[int, int] | None]:
    """Read key points of a picture or a film, as OpenPose and the DWPose tools write them.

    Args:
        path: A JSON file with one frame or a list of frames, or a folder with a JSON file for each frame. A frame is
            {"people": [{"pose_keypoints_2d": [x, y, score, ...], "hand_left_keypoints_2d": ..., ...}]}, with
            canvas_width and canvas_height if they are known (coordinates may then be fractions of them), or the body
            points alone, [[x, y], ...] or [[x, y, score], ...]. A folder's files come in natural order.
        person: Who of several, counted from the left from 1 in every frame; None: there is only one.

    Returns:
        The points of each frame in pixels, and width and height if the files say them.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is something else, a frame shows others than the person that is meant, or its size is
            enormous.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted((file for file in path.glob("*.json") if not file.name.startswith(".")), key=natural)
    if not files or not files[0].exists():
        raise FileNotFoundError(f"there are no key points at {path}; give a JSON file, or a folder of them.")
    frames: list[BodyPoints] = []
    size: tuple[int, int] | None = None
    for file in files:
        document = read_json(file, "key points as OpenPose writes them")
        for i, frame in enumerate(document if _is_film(document) else [document]):
            points, found = _read_frame(frame, f"frame {i} of {file}" if _is_film(document) else str(file), person)
            frames.append(points)
            size = size or found
    return frames, size


def only_person(people: Sequence[BodyPoints], where: str = "the picture") -> BodyPoints:
    """The one person of a picture.

    Args:
        people: All that were found in it.
        where: It is called in an error.

    Raises:
        ValueError: If there is none, or more than one.
    """
    if len(people) != 1:
        advice = "give a clearer picture" if not people else "cut the one you mean out, or choose by its number"
        raise ValueError(f"{len(people) or 'no'} people are seen in {where}; exactly one is needed: {advice}.")
    return people[0]


def _is_film(document: Any) -> bool:
    """Whether a document is a list of frames, not the list of one frame's points."""
    if not isinstance(document, list) or not document:
        return False
    first = document[0]
    return isinstance(first, dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], list))


def _read_frame(frame: Any, where: str, number: int | None) -> tuple[BodyPoints, tuple[int, int] | None]:
    """One frame's points and its size if it says it."""
    if isinstance(frame, list):
        return _person(where, body=frame), None
    if not isinstance(frame, dict) or not isinstance(frame.get("people"), list):
        raise ValueError(f"{where} has no list of people; expected key points as OpenPose writes them.")
    sides = frame.get("canvas_width"), frame.get("canvas_height")
    size = None if None in sides else _canvas(sides, where)
    given = frame["people"]
    if number is None and len(given) > 1:
        only_person([NOBODY] * len(given), where)
    people = sorted((_person(where, **dict(_read_parts(each, where))) for each in given), key=_left)
    if len(people) < (number or 1):
        return NOBODY, size
    person = people[(number or 1) - 1]
    is_fractions = size is not None and bool(np.abs(person.body[:, :2]).max() <= 2)
    return (person.scaled(*size) if size is not None and is_fractions else person), size


def _left(person: BodyPoints) -> float:
    """Where a person is, from the left: the mean x of the points that are seen."""
    seen = person.body[person.body[:, 2] > 0, 0]
    return float(seen.mean()) if len(seen) else float("inf")


def _person(where: str, **parts: Any) -> BodyPoints:
    """Key points, or an error that says of which frame."""
    try:
        return BodyPoints(**parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _canvas(sides: Sequence[Any], where: str) -> tuple[int, int] | None:
    """Width and height of a frame's picture; None where they are zero, as where they are not known."""
    try:
        size = as_numbers(sides, "the canvas")
    except ValueError:
        size = np.full(2, np.nan)
    if size.shape != (2,) or not ((size >= 0) & (size == size.round())).all() or size.prod() > MAX_PIXELS:
        raise ValueError(
            f"{where} has canvas_width and canvas_height {str(sides)[:80]}; expected two whole numbers, of at most "
            f"{MAX_PIXELS // 10**6} million pixels."
        )
    return (int(size[0]), int(size[1])) if size.all() else None


def _read_parts(person: Any, where: str) -> Iterable[tuple[str, np.ndarray]]:
    """The parts of a person by name."""
    names = {
        "body": "pose_keypoints_2d",
        "left_hand": "hand_left_keypoints_2d",
        "right_hand": "hand_right_keypoints_2d",
        "face": "face_keypoints_2d",
    }
    if not isinstance(person, dict) or not person.get(names["body"]):
        raise ValueError(f"{where} has a person without pose_keypoints_2d; expected 18 points of three numbers.")
    for part, name in names.items():
        if person.get(name):
            numbers = as_numbers(person[name], f"{name} in {where}")
            if numbers.ndim != 1 or len(numbers) % 3:
                raise ValueError(
                    f"{where} has numbers of shape {numbers.shape} in {name}; expected x, y and score per point."
                )
            points = numbers.reshape(-1, 3)
            if part == "body" and len(points) == 25:
                points = points[list(BODY_25)]
            yield part, points[:68] if part == "face" else points  # OpenPose's 70 end with the pupils


def _hue(turn: float) -> tuple[int, int, int]:
    """The bright colour at a part of the circle of hues: red at 0, green at 1/3."""
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(turn, 1, 1))
    return red, green, blue


def _spindle(a: np.ndarray, b: np.ndarray, half: float) -> list[tuple[float, float]]:
    """The outline of an ellipse from point to point."""
    along = (b - a) / 2
    length = max(float(np.hypot(*along)), 1e-6)
    across = np.array((-along[1], along[0])) / length * half
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    outline = (a + b) / 2 + np.cos(turns)[:, None] * along + np.sin(turns)[:, None] * across  # (48, 2)
    return [(float(x), float(y)) for x, y in outline]


def _dots(
    draw: ImageDraw.ImageDraw, points: np.ndarray, radius: float, colours: Sequence[tuple[int, int, int]]
) -> None:
    """A filled circle for each point that is seen."""
    radius = max(radius, 0.5)
    for (x, y, score), colour in zip(points, colours, strict=True):
        if score >= SEEN:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
