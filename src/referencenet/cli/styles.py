"""`refnet generate --style`: the options of pictures in the style of a picture, by StyleAligned."""

from __future__ import annotations

from typing import Annotated

import typer

from referencenet.cli.options import only
from referencenet.cli.settings import Settings

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
    unread = [
        name
        for name in ("mask", "result_mask", "person", "start", "end", "image")
        if getattr(settings, name) != getattr(usual, name)
    ]
    if unread or len(settings.reference) > 1:
        what = _options(unread) or "more than one --reference"
        raise ValueError(f"--link aligned does not take {what}; use --link attention for that.")


def _options(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
