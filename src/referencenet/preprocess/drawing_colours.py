"""What kind of drawing a picture is, by its colours: DensePose in viridis, or a skeleton on black.

Systems are trained on one kind; of the other they make a film that is wrong without a word. So the first drawing of a
film is looked at: a skeleton for a DensePose system is refused and the other way round, and DensePose on another ground
than viridis' own purple (black, mostly) is warned of. What is neither passes: a look, not a proof.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from referencenet.telling import note

VIRIDIS = torch.tensor(
    [(68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121),
     (109, 205, 89), (180, 222, 44), (253, 231, 37)], dtype=torch.float32,
)  # fmt: skip
"""Ten evenly spaced colours of the map viridis, from 0 (the ground of a DensePose drawing) to 1."""

NEAR = 40.0  # sum of the differences of three channels, of 255; films are compressed
GROUND = 0.4  # part of a drawing that the ground covers at least
SURE = 0.6  # part of the figure that must be of a kind's colours

Kind = Literal["densepose", "densepose on another ground", "skeleton"]


def drawing_kind(drawing: Tensor) -> Kind | None:
    """What a drawing is, by its colours.

    Args:
        drawing: (3, height, width) in [0, 1].

    Returns:
        The kind; None: neither is certain.
    """
    pixels = drawing.detach().float().cpu().flatten(1).T * 255  # (pixels, 3)
    ground = _ground(drawing)
    if ground is None:
        return None
    figure = pixels[(pixels - ground).abs().sum(1) > NEAR]
    if (ground - VIRIDIS[0]).abs().sum() <= NEAR:
        return "densepose"
    if len(figure) == 0:
        return None
    if float(_is_viridis(figure).float().mean()) >= SURE:
        return "densepose on another ground"
    bright, dark = figure.amax(1), figure.amin(1)
    colourful = (bright - dark > 0.5 * bright) & (bright > 60)
    is_black = float(ground.sum()) <= NEAR
    return "skeleton" if is_black and float(colourful.float().mean()) >= SURE and _has_many_hues(figure) else None


def check_densepose(drawing: Tensor) -> None:
    """Refuse a skeleton, and warn of DensePose on another ground than viridis' purple.

    Args:
        drawing: (3, height, width) in [0, 1].

    Raises:
        ValueError: If it is a skeleton.
    """
    kind = drawing_kind(drawing)
    if kind == "skeleton":
        raise ValueError(
            "these drawings look like skeletons (bright limbs on black), but this system reads DensePose: body parts "
            "in the colours of viridis on its purple. Draw them with DensePose, or use a system for skeletons, such as "
            "animate_anyone."
        )
    ground = _ground(drawing)
    if kind == "densepose on another ground" or (ground is not None and kind is None):
        assert ground is not None  # both kinds have one
        red, green, blue = (round(float(channel)) for channel in ground)
        note(
            f"the ground of these DensePose drawings is ({red}, {green}, {blue}); the weights were trained on "
            "viridis' purple (68, 1, 84), and films on another ground come out worse. Draw part 0 in the map's colour."
        )


def check_skeleton(drawing: Tensor) -> None:
    """Refuse DensePose where skeletons are read.

    Args:
        drawing: (3, height, width) in [0, 1].

    Raises:
        ValueError: If it is DensePose.
    """
    if drawing_kind(drawing) in ("densepose", "densepose on another ground"):
        raise ValueError(
            "these drawings look like DensePose (the colours of viridis), but this system reads skeletons drawn on "
            "black. Draw them from key points, or use a system for DensePose, such as magic_animate."
        )


def _ground(drawing: Tensor) -> Tensor | None:
    """The colour (3,) of [0, 255] that surrounds the figure; None where the border is of many colours."""
    pixels = drawing.detach().float().cpu() * 255
    border = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], dim=1).T  # (n, 3)
    ground = border.median(0).values
    if float(((border - ground).abs().sum(1) <= NEAR).float().mean()) < SURE:
        return None
    share = float(((pixels.flatten(1).T - ground).abs().sum(1) <= NEAR).float().mean())
    return ground if share >= GROUND else None


def _is_viridis(pixels: Tensor) -> Tensor:
    """Which of (n, 3) colours lie near the map's line, its dark end left out."""
    steps = torch.linspace(0, 1, 8).view(-1, 1, 1)
    line = (VIRIDIS[:-1] * (1 - steps) + VIRIDIS[1:] * steps).flatten(0, 1)  # (72, 3)
    return torch.cdist(pixels, line, p=1).amin(1) <= NEAR


def _has_many_hues(pixels: Tensor) -> bool:
    """Whether each channel is the brightest somewhere, as in the rainbow of limbs; pixels (n, 3)."""
    brightest = pixels.argmax(1)
    return all(float((brightest == channel).float().mean()) > 0.02 for channel in range(3))
