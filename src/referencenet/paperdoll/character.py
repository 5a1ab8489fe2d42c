"""Who is in the picture: a character, drawn from one integer, and which split it belongs to.

Everything that tells who somebody is lives here (skin, hair, face, build, garments); nothing that changes from picture
to picture does. All fields are names of the closed vocabulary, so captions and attribute scores read them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from referencenet.paperdoll.palette import CLOTH, EYES, HAIR, SKIN
from referencenet.paperdoll.streams import Stream

Split = Literal["train", "validation", "test"]

HAIR_STYLES = {
    "bald": 0.05,
    "short": 0.15,
    "long": 0.15,
    "bob": 0.14,
    "ponytail": 0.11,
    "bun": 0.1,
    "spiky": 0.12,
    "curly": 0.12,
    "mohawk": 0.06,
}
BUILDS = {"slim": 0.33, "medium": 0.37, "broad": 0.3}
HEIGHTS = {"short": 0.3, "middle": 0.4, "tall": 0.3}
FACES = ("round", "oval", "square")
HATS = {"none": 0.76, "cap": 0.1, "beanie": 0.09, "crown": 0.05}
UPPERS = {"t-shirt": 0.28, "sweater": 0.22, "hoodie": 0.16, "tank": 0.14, "jacket": 0.2}
LOWERS = {"trousers": 0.38, "shorts": 0.22, "skirt": 0.2, "dress": 0.2}
PATTERNS = {"plain": 0.34, "striped": 0.18, "pinstriped": 0.12, "dotted": 0.14, "checked": 0.12, "two-tone": 0.1}
EMBLEMS = {"none": 0.4, "star": 0.14, "heart": 0.14, "circle": 0.1, "bolt": 0.12, "cross": 0.1}
# Pairs that look alike as cloth beside cloth; neither may touch the other.
_NEAR = (
    {"red", "orange"},
    {"orange", "yellow"},
    {"red", "pink"},
    {"green", "teal"},
    {"teal", "blue"},
    {"blue", "purple"},
    {"white", "grey"},
    {"black", "grey"},
    {"orange", "brown"},
    {"black", "brown"},
    {"yellow", "white"},
    {"pink", "purple"},
    {"black", "purple"},
    {"red", "brown"},
    {"pink", "white"},
    {"yellow", "blond"},
    {"orange", "blond"},
    {"orange", "ginger"},
    {"red", "ginger"},
)


@dataclass(frozen=True, kw_only=True)
class Character:
    """One person of the world. `Character.from_seed(7)` is the same person on every machine."""

    seed: int
    skin: str
    hair_style: str
    hair_colour: str
    build: str
    height: str
    face: str
    eye_colour: str
    brow: float
    glasses: bool
    beard: bool
    hat: str
    hat_colour: str
    upper: str
    upper_colour: str
    pattern: str
    pattern_colour: str
    emblem: str
    emblem_colour: str
    lower: str
    lower_colour: str
    shoe_colour: str

    @classmethod
    def from_seed(cls, seed: int) -> Character:
        """Draw the character of this seed (any integer of 0 or more)."""
        return cls(seed=int(seed), **_draw_person(seed), **_draw_clothes(seed))


def _draw_person(seed: int) -> dict[str, Any]:
    body, hair, face = Stream("body", seed), Stream("hair", seed), Stream("face", seed)
    style = hair.weighted(HAIR_STYLES)
    colour = hair.choice(tuple(HAIR))
    hat = hair.weighted(HATS) if style not in ("mohawk", "bun", "spiky") else "none"
    return {
        "skin": body.choice(tuple(SKIN)),
        "build": body.weighted(BUILDS),
        "height": body.weighted(HEIGHTS),
        "hair_style": style,
        "hat": hat,
        "hair_colour": colour,
        "hat_colour": contrasting(hair, colour),
        "face": face.choice(FACES),
        "eye_colour": face.choice(tuple(EYES)),
        "brow": face.uniform(0.8, 1.5),
        "glasses": face.chance(0.18),
        "beard": face.chance(0.4) if style in ("bald", "short", "spiky", "mohawk") else False,
    }


def _draw_clothes(seed: int) -> dict[str, Any]:
    clothes, colours = Stream("clothes", seed), Stream("cloth colours", seed)
    lower = clothes.weighted(LOWERS)
    upper = clothes.weighted(UPPERS if lower != "dress" else {"t-shirt": 0.4, "sweater": 0.3, "tank": 0.3})
    pattern = clothes.weighted(PATTERNS)
    emblem = clothes.weighted(EMBLEMS) if pattern in ("plain", "two-tone") and upper != "jacket" else "none"
    if pattern == "plain" and emblem == "none" and upper != "jacket":
        emblem = clothes.weighted({name: share for name, share in EMBLEMS.items() if name != "none"} | {"none": 0.12})
    upper_colour = colours.choice(tuple(CLOTH))
    pattern_colour = contrasting(colours, upper_colour)
    return {
        "upper": upper,
        "lower": lower,
        "pattern": pattern,
        "emblem": emblem,
        "upper_colour": upper_colour,
        "pattern_colour": pattern_colour,
        "emblem_colour": contrasting(colours, upper_colour, pattern_colour if pattern == "two-tone" else upper_colour),
        "lower_colour": contrasting(colours, upper_colour),
        "shoe_colour": colours.choice(tuple(CLOTH)),
    }


def contrasting(stream: Stream, *others: str) -> str:
    """Draw a cloth colour that stands out against all the others."""
    clear = [name for name in CLOTH if all(name != other and {name, other} not in _NEAR for other in others)]
    return stream.choice(clear)


def split(character_seed: int) -> Split:
    """Say which split a character belongs to: 80 % train, 10 % validation, 10 % test, by a hash of the seed."""
    point = Stream("split", character_seed).uniform()
    return "train" if point < 0.8 else "validation" if point < 0.9 else "test"
