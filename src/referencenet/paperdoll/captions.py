"""What can be said of a scene, in a closed vocabulary small enough for a tiny text encoder."""

from __future__ import annotations

import re

from referencenet.paperdoll.character import EMBLEMS, HAIR_STYLES, HATS, LOWERS, PATTERNS, UPPERS, Character
from referencenet.paperdoll.palette import CLOTH, HAIR, PLAIN
from referencenet.paperdoll.pose import POSES
from referencenet.paperdoll.scene import BACKGROUNDS, EXPRESSIONS, SHOTS, Scene
from referencenet.telling import nearest

IDENTITY = ("skin", "hair", "upper", "lower", "extra")
ORDER = ("shot", "pose", "view", "expression", "background", *IDENTITY)
"""Of the aspects in a caption."""
_SKIN = {
    "porcelain": "pale",
    "rosy": "pale",
    "peach": "fair",
    "golden": "fair",
    "tan": "tan",
    "brown": "tan",
    "umber": "dark",
    "ebony": "dark",
}
_VIEWS = {"front": "facing front", "left": "facing left", "right": "facing right", "back": "seen from behind"}

_PLAIN_WORDS = "background skin head hair dress with and glasses beard"
_PHRASES = (
    *SHOTS, *POSES, *_VIEWS.values(), *EXPRESSIONS, *BACKGROUNDS, *PLAIN, *_SKIN.values(), *HAIR, *HAIR_STYLES, *CLOTH,
    *UPPERS, *LOWERS, *PATTERNS, *EMBLEMS, *HATS, _PLAIN_WORDS,
)  # fmt: skip
VOCABULARY = frozenset(re.findall(r"[a-z]+", " ".join(_PHRASES))) - {"none", "two", "tone"}
"""Every word that a caption may have."""


def unknown_words(text: str) -> dict[str, str | None]:
    """Words of a text that no caption has, each with the nearest one that captions have; None if none is near."""
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", text.lower()))
    return {word: nearest(word, sorted(VOCABULARY)) for word in words if word not in VOCABULARY}


def attributes(scene: Scene) -> dict[str, str]:
    """Give what a caption can say, by aspect.

    Returns:
        `pose`, `view`, `shot`, `expression`, `background`, and of the identity `skin`, `hair`, `upper`, `lower` and
        `extra`, but only what the picture shows (no expression from behind, no trousers in a portrait); every value is
        a phrase of the closed vocabulary.
    """
    who, place = scene.character, scene.background
    said = {
        "shot": scene.camera.shot,
        "pose": scene.pose.name,
        "view": _VIEWS[scene.pose.view],
        "background": f"plain {place.colour} background" if place.name == "plain" else f"{place.name} background",
        "skin": f"{_SKIN[who.skin]} skin",
        "hair": "bald head" if who.hair_style == "bald" else f"{who.hair_colour} {who.hair_style} hair",
        "upper": _upper(who, emblem=scene.pose.view != "back"),
        "lower": "" if who.lower == "dress" or scene.camera.shot == "portrait" else f"{who.lower_colour} {who.lower}",
        "extra": _extra(who),
    }
    if scene.pose.view != "back":
        said["expression"] = scene.expression.name
    return {aspect: phrase for aspect, phrase in said.items() if phrase}


def _upper(who: Character, *, emblem: bool) -> str:
    garment = "dress" if who.lower == "dress" else who.upper
    if who.pattern == "plain":
        words = f"{who.upper_colour} {garment}"
    elif who.pattern == "two-tone":
        words = f"{who.upper_colour} and {who.pattern_colour} {garment}"
    else:
        words = f"{who.pattern} {who.upper_colour} and {who.pattern_colour} {garment}"
    return words if who.emblem == "none" or not emblem else f"{words} with {who.emblem_colour} {who.emblem}"


def _extra(who: Character) -> str:
    hat = "" if who.hat == "none" else "crown" if who.hat == "crown" else f"{who.hat_colour} {who.hat}"
    return " and ".join(word for word in (hat, "glasses" if who.glasses else "", "beard" if who.beard else "") if word)


def caption(scene: Scene, *, identity: bool = True) -> str:
    """Say what a scene shows, always in the same order.

    Args:
        scene: What is drawn.
        identity: Whether to say who it is (skin, hair, clothes); else only framing, pose, view, expression and place.

    Returns:
        Phrases separated by commas, such as "full body, waving, facing front, smiling, meadow background, ...".
    """
    said = attributes(scene)
    return ", ".join(said[aspect] for aspect in ORDER if aspect in said and (identity or aspect not in IDENTITY))
