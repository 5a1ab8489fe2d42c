"""The colours of the world, by the names that captions use, and how shadow and outline are made from a colour."""

from __future__ import annotations

from functools import lru_cache

SKIN = {
    "porcelain": "#ffe3d0",
    "rosy": "#ffcdb2",
    "peach": "#f5b98f",
    "golden": "#e0a36a",
    "tan": "#c98a55",
    "brown": "#a2683d",
    "umber": "#7a4a2c",
    "ebony": "#54311f",
}
HAIR = {
    "black": "#2b2735",
    "brown": "#7a4526",
    "blond": "#f6cf55",
    "ginger": "#e8702a",
    "white": "#e9e9f2",
    "blue": "#3f7fe8",
    "pink": "#f576b4",
    "green": "#3fae5c",
    "purple": "#8d51cf",
}
CLOTH = {
    "red": "#e5383b",
    "orange": "#fb8b24",
    "yellow": "#ffd23f",
    "green": "#38a24f",
    "teal": "#1fb5ad",
    "blue": "#2f6fe4",
    "purple": "#8b4fd0",
    "pink": "#ff7eb6",
    "white": "#f6f6f8",
    "grey": "#8d94a3",
    "black": "#34323f",
    "brown": "#8a5a36",
}
EYES = {
    "brown": "#6b3d1e",
    "blue": "#2b7de0",
    "green": "#2e9b4f",
    "grey": "#71798a",
    "amber": "#d58a18",
    "violet": "#8146c8",
}
PLAIN = {
    "white": "#f4f2ee",
    "grey": "#b9bec8",
    "pink": "#f9cfdc",
    "blue": "#b5d8f5",
    "green": "#c3e6bd",
    "yellow": "#fbeab0",
    "purple": "#d6c8f0",
}
INK = "#211a2c"


def channels(colour: str) -> tuple[int, int, int]:
    """Split `#rrggbb` into three numbers of 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@lru_cache(maxsize=4096)
def mix(first: str, second: str, share: float) -> str:
    """Mix two colours; `share` of the second in [0, 1]."""
    pairs = zip(channels(first), channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def outline(colour: str) -> str:
    """Give the dark line that runs around a surface of this colour."""
    return mix(colour, INK, 0.72)


def shadow(colour: str) -> str:
    """Give the one shadow tone of a surface of this colour."""
    return mix(colour, "#3b2a6b", 0.26)


def light(colour: str) -> str:
    """Give the lit tone of a surface of this colour."""
    return mix(colour, "#fff6dc", 0.28)
