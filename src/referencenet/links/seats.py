"""Seats: how a link gets a place in a module's forward pass, and gives it back as it was.

A seat is taken at an attention module (its processor is ours for a while) or behind a block (a forward hook). What it
does there is its slot's task, which exists only while a pass runs; without one the module computes what it always did.
Whoever replaces processors while a seat is taken (slicing, fused projections) finds it taken again before the next
pass; whoever saved ours meanwhile and puts it back afterwards gets plain attention, and a model that can be linked.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from referencenet.links.sites import Site

STANDARD_PROCESSORS = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "FusedAttnProcessor2_0",
    "SlicedAttnProcessor",
    "XFormersAttnProcessor",
)
"""Processors that compute plain self-attention, which the links may compute in their place."""

PERTURBED = {"PAGIdentitySelfAttnProcessor2_0": 2, "PAGCFGIdentitySelfAttnProcessor2_0": 3}
"""Those of perturbed-attention guidance, and the parts of their batch: plain but for the last, which sees itself."""

SAVED = "original_attn_processors"
"""Where diffusers' UNets keep processors while their projections are fused."""


@dataclass
class Slot:
    """Where a site finds its task; None: what the module computes without us.

    Attributes:
        task: For attention `(attn, hidden_states, attention_mask)` to the output; for blocks features to features.
        is_taken: Whether the link is still attached.
        thread: Identity of the only thread that does the task; None: whoever comes, as threads of autograd do.
    """

    task: Callable[..., Tensor] | None = None
    is_taken: bool = False
    thread: int | None = None

    @property
    def current(self) -> Callable[..., Tensor] | None:
        """The task, if it is this thread's: a pass that another thread began before goes on as it is."""
        is_ours = self.thread is None or torch.compiler.is_compiling() or self.thread == threading.get_ident()
        return self.task if is_ours else None


class Occupant:
    """What sits in a module for a link: a processor or a hook. A copy of the module gets none."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self)(Slot())


class ReferenceAttnProcessor(Occupant):
    """An attention processor that does its slot's task, or what the original processor does.

    Whoever asks a processor for its `__class__`, to make another like it (IP-Adapters) or to see whether it may be
    replaced, is told the original's.
    """

    def __init__(self, slot: Slot, original: Callable[..., Tensor]) -> None:
        super().__init__(slot)
        self.original = original

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self.original)

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None, *args: Any,
                 **kwargs: Any) -> Tensor:  # fmt: skip
        """Self-attention of (r, n, c), as diffusers calls it."""
        task = self.slot.current
        if task is not None:
            return task(attn, hidden_states, attention_mask)
        if temb is not None or args:  # SlicedAttnProcessor knows neither
            args = (temb, *args)
        return self.original(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.original, memo)


class BlockHook(Occupant):
    """A forward hook that hands a block's output to its slot's task; without a task it changes nothing."""

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Replace the features in the module's output, whatever shape the output has."""
        task = self.slot.current
        if task is None:
            return None
        if isinstance(output, Tensor):
            return task(output)
        if isinstance(output, tuple):
            return (task(output[0]), *output[1:])
        output.sample = task(output.sample)
        return output


class InputHook(Occupant):
    """A forward hook that hands a module's input to its slot's task, and changes nothing."""

    def __call__(self, _module: nn.Module, args: Any, _output: Any) -> None:
        """Hand the first input on."""
        task = self.slot.current
        if task is not None:
            task(args[0])


class Seat(ABC):
    """A site of a UNet, the module there, and the slot in which a pass finds its task."""

    def __init__(self, unet: nn.Module, site: Site) -> None:
        self.site = site
        self.module = unet.get_submodule(site.reader)
        self.slot = Slot()

    @abstractmethod
    def take(self, undo: ExitStack) -> None:
        """Sit down; `undo` gives the place back."""

    def renew(self) -> None:  # noqa: B027 - a hook stays where it is
        """Before a pass: sit down again if somebody took our place meanwhile.

        Raises:
            TypeError: If who sits there now computes something that a link must not replace.
        """


class ProcessorSeat(Seat):
    """The place of an attention module's processor.

    Args:
        unet: The network that is linked.
        site: Where.

    Raises:
        TypeError: If the attention there is of a kind that a link cannot compute in its place.
    """

    def __init__(self, unet: nn.Module, site: Site) -> None:
        super().__init__(unet, site)
        if not isinstance(self.module, Attention):
            raise TypeError(f"{site.reader} is a {type(self.module).__name__}; expected diffusers' Attention module.")
        self.attention: Attention = self.module
        self._check()

    @property
    def original(self) -> Callable[..., Tensor]:
        """The processor whose place is taken."""
        return beneath(self.attention.processor)

    def take(self, undo: ExitStack) -> None:
        """Put our processor in place; `undo` puts back the original, or what was set in its place meanwhile."""
        undo.callback(self._give_back)  # before the module is touched: an interrupt may come between any two lines
        self.slot.is_taken = True
        self._sit()

    def renew(self) -> None:
        """As `Seat.renew`."""
        if not self._is_ours():
            self._check(" now; it was replaced inside of the `with` block that links this UNet")
            self._sit()

    def _sit(self) -> None:
        self.attention.set_processor(ReferenceAttnProcessor(self.slot, self.original))  # pyright: ignore[reportArgumentType] - diffusers lists its own classes

    def _is_ours(self) -> bool:
        processor = self.attention.processor
        return isinstance(processor, ReferenceAttnProcessor) and processor.slot is self.slot

    def _give_back(self) -> None:
        if self._is_ours():
            self.attention.set_processor(self.original)  # pyright: ignore[reportArgumentType]
        self.slot.is_taken = False

    def _check(self, since: str = "") -> None:
        """Whether a link may compute this attention instead of its processor."""
        attn, processor = self.attention, type(self.original).__name__
        special = [
            part for part in ("spatial_norm", "group_norm", "norm_q", "norm_k") if getattr(attn, part, None) is not None
        ]
        if processor not in (*STANDARD_PROCESSORS, *PERTURBED) or special or attn.residual_connection:
            remedy = (
                "If the pipeline itself does so (as SAG, Attend-and-Excite and zero-shot films do), take another."
                if since
                else f"Give it one: unet.get_submodule({self.site.reader!r}).set_processor(AttnProcessor2_0())."
            )
            raise TypeError(
                f"the self-attention {self.site.reader} is computed by {processor}"
                f"{f' with {special}' if special else ''}{since}, which a link would replace; expected one of "
                f"{list(STANDARD_PROCESSORS)}. {remedy}"
            )


class HookSeat(Seat):
    """The place behind a block, where its output is handed on."""

    hook: ClassVar[Callable[[Slot], Callable[..., Any]]] = BlockHook

    def take(self, undo: ExitStack) -> None:
        """Hook the block until `undo` closes."""
        undo.callback(self._give_back)
        self.slot.is_taken = True
        undo.callback(self.module.register_forward_hook(self.hook(self.slot)).remove)

    def _give_back(self) -> None:
        self.slot.is_taken = False


class InputSeat(HookSeat):
    """The place before a module, where its input is seen."""

    hook = InputHook


def beneath(processor: Any) -> Any:
    """The processor under any of ours."""
    while isinstance(processor, ReferenceAttnProcessor):
        processor = processor.original
    return processor


def is_linked(unet: nn.Module) -> bool:
    """Whether a link is attached to this UNet now."""
    for module in unet.modules():
        for found in (vars(module).get("processor"), *module._forward_hooks.values()):  # pyright: ignore[reportPrivateUsage]
            if isinstance(found, Occupant) and found.slot.is_taken:
                return True
    return False


def forget_saved(unet: nn.Module) -> None:
    """Put the originals where diffusers saved processors of ours, for when it brings those back."""
    for name, processor in (vars(unet).get(SAVED) or {}).items():
        vars(unet)[SAVED][name] = beneath(processor)
