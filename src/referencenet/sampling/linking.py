"""A pipeline's UNet, linked for the length of a block, in one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from referencenet.links.attach import AnyLink, Link, attach
from referencenet.links.turns import Busy, turn
from referencenet.sampling.support import check_pipeline, linkable_unet


@contextmanager
def linked(
    pipe: Any, links: Sequence[AnyLink], *, busy: Busy, has_pictures: bool = False
) -> Generator[tuple[Link, ExitStack]]:
    """Check a pipeline, link its UNet, and undo everything that the caller adds to the stack.

    Args:
        pipe: Any diffusers pipeline with a UNet.
        links: At most one of each kind.
        busy: What happens while another thread is at the UNet, or at the pipeline's scheduler.
        has_pictures: Whether a reference is a picture, which the pipeline's VAE has to encode.

    Yields:
        The link, and the stack that closes with the block.

    Raises:
        TypeError: If the pipeline cannot be linked, or is none.
        ValueError: If its UNet is linked already, or no site is chosen.
        BusyError: If another thread is at it and `busy` refuses.
    """
    core = linkable_unet(pipe)
    check_pipeline(pipe, core, has_pictures=has_pictures)
    with ExitStack() as undo:
        undo.enter_context(turn([core, getattr(pipe, "scheduler", None)], busy))
        link = undo.enter_context(attach(core, links))
        link.belong_to(threading.get_ident())
        yield link, undo
