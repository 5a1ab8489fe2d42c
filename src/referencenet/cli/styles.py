"""`refnet generate --style`: pictures in the style of a picture, by StyleAligned.

The style's picture stands in the first place of every batch, so each picture is drawn beside it, from its own seed.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import typer

from referencenet.cli.options import only
from referencenet.cli.settings import Settings
from referencenet.methods.style_aligned import share
from referencenet.sampling.style import Style

PANEL = only("--link aligned")

SWITCHES = (
    "style_prompt",
    "style_from",
    "style_weight",
    "share_attention",
    "adain_queries",
    "adain_keys",
    "group_norm",
)
"""Settings that this link alone reads."""

StylePicture = Annotated[
    str | None, typer.Option("--style", metavar="PICTURE", help="Take its style: --link aligned --reference PICTURE.")
]
StylePrompt = Annotated[
    str, typer.Option(help="What the style's picture shows.", rich_help_panel=PANEL, show_default="nothing")
]
StyleWeight = Annotated[
    float, typer.Option(min=0.001, help="How many times the style's tokens count.", rich_help_panel=PANEL)
]
ShareAttention = Annotated[bool, typer.Option(help="Attend to the style's picture.", rich_help_panel=PANEL)]
AdainQueries = Annotated[
    bool, typer.Option(help="Bring queries to the style's mean and deviation.", rich_help_panel=PANEL)
]
AdainKeys = Annotated[bool, typer.Option(help="Bring keys to the style's mean and deviation.", rich_help_panel=PANEL)]
GroupNorm = Annotated[bool, typer.Option(help="Normalise together with the style.", rich_help_panel=PANEL)]


def check_style(settings: Settings) -> None:
    """See that the link is asked for what it can do, and that its own settings are not given for another link.

    Raises:
        ValueError: If not.
    """
    usual = Settings(prompt="", reference=())
    if settings.link != "aligned":
        names = [name for name in SWITCHES if getattr(settings, name) != getattr(usual, name)]
        if names:
            raise ValueError(f"{_options(names)} is for --style PICTURE (--link aligned), not for {settings.link}.")
        return
    unread = [name for name in ("mask", "result_mask") if getattr(settings, name) != getattr(usual, name)]
    if unread or len(settings.reference) > 1:
        what = _options(unread) or "more than one --reference"
        raise ValueError(f"--link aligned does not take {what}; use --link attention for that.")


@contextmanager
def in_style(pipe: Any, settings: Settings) -> Generator[None]:
    """Inside, the pipeline's second picture of a batch is in the style of the settings' picture."""
    style = Style(settings.reference[0], how=settings.style_from)
    with share(
        pipe, style, attention=settings.share_attention, adain_queries=settings.adain_queries,
        adain_keys=settings.adain_keys, group_norm=settings.group_norm, strength=settings.strength,
        weight=settings.style_weight, style_fidelity=settings.style_fidelity or 0.0,
    ):  # fmt: skip
        yield


def beside_the_style(settings: Settings, seed: int) -> dict[str, Any]:
    """What a call is told to draw one picture beside the style's: its own words and noise, in the second place."""
    return {
        "prompt": [settings.style_prompt, settings.prompt],
        "negative_prompt": [settings.negative_prompt] * 2,
        "generator": [torch.Generator("cpu").manual_seed(each) for each in (0, seed)],
    }


def _options(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
