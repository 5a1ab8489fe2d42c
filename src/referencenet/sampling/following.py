"""Following a UNet's passes by its hooks, in one thread, whichever pipeline calls it, compiled or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from referencenet.links.turns import Busy, turn

Before = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""Returns None, or the positional and named arguments that the forward gets instead."""


def surround(pipe: Any, before: Before, passes: ExitStack, undo: ExitStack, busy: Busy) -> None:
    """Run `before` ahead of every forward of a pipeline's UNet, and close `passes` behind it, also when it raises.

    What sites do during a pass lies in the UNet, so only the thread that came here may call it until `undo` closes;
    others wait until then, or are refused. A pipeline may have the UNet compiled while another, which shares it, has it
    as it is: both are followed.

    Args:
        pipe: Has the UNet.
        before: Gets the module that was called and its arguments.
        passes: What lasts for a pass.
        undo: Ends it.
        busy: What becomes of other threads.
    """
    called: nn.Module = pipe.unet
    core: nn.Module = getattr(called, "_orig_mod", called)
    follower = _Follower(called, before, passes, busy)
    undo.callback(passes.close)
    undo.callback(called.register_forward_pre_hook(follower.begin, with_kwargs=True).remove)
    undo.callback(called.register_forward_hook(follower.end, always_call=True).remove)
    if core is not called:
        begin, end = _unless_compiling(follower.begin), _unless_compiling(follower.end)
        undo.callback(core.register_forward_pre_hook(begin, with_kwargs=True).remove)
        undo.callback(core.register_forward_hook(end, always_call=True).remove)


def _unless_compiling(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that is nothing in compiled code: there the wrapper's hooks do the work."""

    def hook_or_nothing(*args: Any) -> Any:
        return None if torch.compiler.is_compiling() else hook(*args)

    return hook_or_nothing


class _Follower:
    """What the hooks of a UNet do; `inside` has the modules whose forward is running, the outermost first."""

    def __init__(self, called: nn.Module, before: Before, passes: ExitStack, busy: Busy) -> None:
        self.called = called
        self.before = before
        self.passes = passes
        self.busy: Busy = busy
        self.owner = threading.current_thread()
        self.inside: list[nn.Module] = []

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_part_of_another(module):
            return None
        if threading.get_ident() != self.owner.ident:
            with turn([getattr(module, "_orig_mod", module)], self.busy):
                return None
        self.inside.append(module)
        return self.before(module, args, kwargs)

    def end(self, module: nn.Module, *_: Any) -> None:
        if self._is_part_of_another(module) or threading.get_ident() != self.owner.ident or not self.inside:
            return
        self.inside.pop()
        if not self.inside:
            self.passes.close()

    def _is_part_of_another(self, module: nn.Module) -> bool:
        """Whether this is the UNet run by its compiled wrapper, which could not compile it."""
        is_ours = threading.get_ident() == self.owner.ident
        return module is not self.called and is_ours and self.called in self.inside
