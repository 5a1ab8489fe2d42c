"""Attaching links to a UNet, and taking them away again.

`attach` checks everything, takes a seat at every site that its links choose, and gives all back in reverse when its
context ends, whatever happened inside. `write` is the short form for a UNet that only writes. Nothing here asks which
link it has: a kind says what it needs (`kind.py`). Letter: b bank rows.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.kind import Kind
from referencenet.links.link import Link
from referencenet.links.reading import ReadBank
from referencenet.links.seats import forget_saved, is_linked
from referencenet.links.sites import Site
from referencenet.links.writing import Writing

logger = logging.getLogger(__name__)

AnyLink = Kind

__all__ = ["AnyLink", "Link", "ReadBank", "attach", "choose_sites", "write"]


@contextmanager
def attach(unet: nn.Module, links: Sequence[AnyLink] = (Concat(),)) -> Generator[Link]:
    """Link a UNet for the length of a context.

    Args:
        unet: A diffusers UNet2DConditionModel or UNetMotionModel (not a compiled wrapper of one).
        links: At most one of each kind.

    Raises:
        TypeError: If `unet` has no sites or its attention is of a kind the links cannot replace.
        ValueError: If it is linked already, or no site is chosen.
    """
    chosen = _chosen(unet, links)
    if is_linked(unet):
        raise ValueError(
            "this UNet is linked already; leave the first `with` block before the second, or give all references to "
            "one."
        )
    seats = [(kind, kind.seat(unet, site)) for kind, site in chosen]
    link = Link(unet, seats)
    with ExitStack() as undo:
        undo.callback(logger.debug, "%s unlinked", type(unet).__name__)
        undo.callback(forget_saved, unet)
        for _, seat in seats:
            seat.take(undo)
        logger.debug("%s linked at %d sites by %s", type(unet).__name__, len(seats), list(links))
        yield link


def write(unet: nn.Module, latents: Tensor, *, timestep: Tensor | float = 0, encoder_hidden_states: Tensor | None,
          links: Sequence[AnyLink] = (Concat(),), **unet_kwargs: Any) -> ReferenceBank:  # fmt: skip
    """Write a reference with a UNet of its own, as the trained systems do: their readers project the bank themselves.

    Args:
        unet: The reference UNet.
        latents: (b, channels, height, width).
        timestep: 0 in most systems.
        encoder_hidden_states: The context, (b, tokens, channels).
        links: Which sites are written.
        unet_kwargs: Further arguments of the UNet.

    Returns:
        A bank of self-attention inputs, b rows; gradients flow through it.
    """
    with attach(unet, links) as link:
        stop = not getattr(unet, "is_gradient_checkpointing", False)  # recomputing a block needs all of it
        writing = Writing(projected=False, last=link.sites[-1].name if stop else None)
        context = {"encoder_hidden_states": encoder_hidden_states, **unet_kwargs}
        return link.write_as(writing, latents, timestep, **context)


def choose_sites(unet: nn.Module, links: Sequence[AnyLink]) -> list[Site]:
    """The sites of a UNet that take part.

    Raises:
        TypeError: If the module has no sites at all, or a link is of no known kind.
        ValueError: If there are no links, two of a kind, a weight outside [0, 1], or the weights choose no site.
    """
    return [site for _, site in _chosen(unet, links)]


def _chosen(unet: nn.Module, links: Sequence[AnyLink]) -> list[tuple[Kind, Site]]:
    """Every site that takes part, and the link that reads there."""
    if not isinstance(unet, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
        raise TypeError(f"links attach to a diffusers UNet, but were given a {type(unet).__name__}.")
    if not links:
        raise ValueError("no link was given; expected at least one of Concat() and AdaIN().")
    for link in links:
        if not isinstance(link, Kind):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
            raise TypeError(f"{link!r} is not a link; expected Concat(), AdaIN() or another Kind.")
        link.check()
    if len({link.place for link in links}) < len(links):
        raise ValueError(
            f"two links of one kind were given: {list(links)}; give one on attention and one on features at most."
        )
    chosen: list[tuple[Kind, Site]] = []
    for link in links:
        candidates = link.candidates(unet)
        if not candidates:
            raise TypeError(
                f"{type(unet).__name__} has no place where a reference could be read; give a diffusers UNet with "
                "spatial transformer blocks (Stable Diffusion 1, 2, XL or AnimateDiff)."
            )
        chosen += [(link, site) for site in candidates if link.chooses(site)]
    if not chosen:
        raise ValueError(f"the weights of {list(links)} choose no layer; raise one above 0, or do not link at all.")
    return chosen
