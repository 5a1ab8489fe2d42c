"""What the plain writings of the published systems share: hooks, processors, features in front of attention."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

STAGES = ("down_blocks", "mid_block", "up_blocks")


class Done(Exception):
    """Nothing after this is run."""


def blocks(unet: nn.Module) -> list[tuple[str, Any]]:
    """The spatial transformer blocks in the order in which a pass reaches them."""
    named = [
        (name, module)
        for name, module in unet.named_modules()
        if isinstance(module, BasicTransformerBlock) and ".attentions." in name
    ]
    return sorted(named, key=lambda item: STAGES.index(item[0].split(".")[0]))


def stop(*_: Any) -> None:
    """A hook that ends the pass."""
    raise Done


@contextmanager
def hooked(*handles: Any) -> Generator[None]:
    """Inside the hooks are there."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def processed(processors: Mapping[Any, Any]) -> Generator[None]:
    """Inside these attentions have these processors."""
    with ExitStack() as undo:
        for attention, processor in processors.items():
            undo.callback(attention.set_processor, attention.processor)
            attention.set_processor(processor)
        yield


def features(run: Callable[[], Any], written: list[tuple[str, Any]]) -> list[Tensor]:
    """What a pass gives at the first norm of each block, (r, n, c); a hook may have ended the pass."""
    found: list[Tensor] = []
    handles = [
        block.norm1.register_forward_hook(lambda _module, _args, output: found.append(output)) for _, block in written
    ]
    with hooked(*handles):
        ended(run)
    return found


def ended(run: Callable[[], Any]) -> None:
    """A pass that a hook may end."""
    try:
        run()
    except Done:
        pass
