"""Where every pattern and emblem would lie on a figure, had its garment that one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from referencenet.paperdoll.palette import CLOTH, channels
from referencenet.paperdoll.render import Size, render
from referencenet.paperdoll.scene import Background, Scene

CLOTHS = (
    ("striped", "none"),
    ("pinstriped", "none"),
    ("dotted", "none"),
    ("checked", "none"),
    ("two-tone", "none"),
    ("plain", "star"),
    ("plain", "heart"),
    ("plain", "bolt"),
    ("plain", "cross"),
)
"""Pattern and emblem of each map; a circle covers about what a star and a heart do together."""


def cloth_maps(scene: Scene, size: Size = 64) -> np.ndarray:
    """Say how much of each pixel would show a pattern or emblem, whatever this character wears.

    The same figure in the same pose is rendered in black with white patterns, so that hands, hair and folds cover them
    as they would.

    Args:
        scene: Who, in which pose; their garment's cut counts, its pattern, emblem and colours do not.
        size: As for `render`.

    Returns:
        (cloths, height, width) float32 in [0, 1], in the order of `CLOTHS`.
    """
    shown = replace(scene, background=Background(name="plain", colour="white"))
    plain = _in_black(shown, "plain", "none", size)
    contrast = np.float32(np.subtract(channels(CLOTH["white"]), channels(CLOTH["black"])).mean())
    maps = [(_in_black(shown, pattern, emblem, size) - plain) / contrast for pattern, emblem in CLOTHS]
    return np.stack(maps).clip(0, 1)


def _in_black(scene: Scene, pattern: str, emblem: str, size: Size) -> np.ndarray:
    """Lightness, (height, width), of the figure in a black garment with a white pattern or emblem."""
    colours = {"upper_colour": "black", "pattern_colour": "white", "emblem_colour": "white"}
    character = replace(scene.character, pattern=pattern, emblem=emblem, **colours)
    return render(replace(scene, character=character), size).mean(axis=2, dtype=np.float32)
