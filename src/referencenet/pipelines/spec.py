"""What a system is, as a value: writer, link, guidance, conditions, schedule and defaults. `print(pipe.spec)` shows it.

A `Spec` is made of values that act, not of flags: where a system does something of its own, it is a class in the
system's file. Letters: r reference rows, b samples, p passes, f frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from referencenet.links.attach import AnyLink, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.pipelines.passes import Guidance
from referencenet.sampling.windows import Window, Windows


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What is drawn.

    Attributes:
        width: In pixels.
        height: In pixels.
        samples: b, pictures or films.
        frames: f; None: pictures.
        generator: One, or one per sample: for what is drawn at random of a reference.
    """

    width: int
    height: int
    samples: int = 1
    frames: int | None = None
    generator: torch.Generator | list[torch.Generator] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a writer is shown of a reference.

    Attributes:
        latents: Clean, (r, 4, h, w).
        context: Of its cross-attention, (r, tokens, channels).
        masks: Of the reference's pixels, (r, 1, H, W): only tokens below them are kept; None: all.
        kept: What else the denoiser needs of the reference; travels in the bank's context.
    """

    latents: Tensor
    context: Tensor
    masks: Tensor | None = None
    kept: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def with_blank(self) -> Shown:
        """The same behind as many rows of zeros, for passes that read the bank of a zero latent."""
        latents, context = (torch.cat([torch.zeros_like(x), x]) for x in (self.latents, self.context))
        return replace(self, latents=latents, context=context)


@dataclass(frozen=True, kw_only=True)
class Once:
    """The writer runs once, on clean latents.

    Attributes:
        timestep: Which it is told.
        link: What is written, where it is not what the denoiser's link reads.
    """

    timestep: int = 0
    link: AnyLink | None = None

    def bank(self, unet: nn.Module, shown: Shown, timestep: Any, link: AnyLink) -> ReferenceBank:  # noqa: ARG002
        """A bank of r rows, as shown."""
        context = shown.context.to(shown.latents)
        return write(
            unet, shown.latents, timestep=self.timestep, encoder_hidden_states=context, links=[self.link or link]
        )


@dataclass(frozen=True, kw_only=True)
class EachStep:
    """The writer runs at every step, on clean latents, at the denoiser's timestep.

    Attributes:
        link: What is written, where it is not what the denoiser's link reads.
    """

    link: AnyLink | None = None

    def bank(self, unet: nn.Module, shown: Shown, timestep: Any, link: AnyLink) -> ReferenceBank:
        """A bank of r rows, as shown."""
        context = shown.context.to(shown.latents)
        return write(unet, shown.latents, timestep=timestep, encoder_hidden_states=context, links=[self.link or link])


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where in the schedule the denoiser is.

    Attributes:
        latents: Scaled as the scheduler wants them, (b, c, h, w) or (b, c, f, h, w).
        timestep: Of the step.
        first: In films the place of the latents' first frame.
        windows: In films those that this step predicts, where a frame may be asked for again.
    """

    latents: Tensor
    timestep: Any
    first: int = 0
    windows: Sequence[Window] = ()

    def of(self, frames: Sequence[int] | None) -> Tensor:
        """The latents of some frames of the film, or of all."""
        if frames is None:
            return self.latents
        return self.latents[:, :, [frame - self.first for frame in frames]]


@dataclass(frozen=True, kw_only=True)
class UNetCall:
    """A pass of the denoiser as a value: conditions enter it one after the other.

    Attributes:
        sample: (p b, channels, h, w) or (p b, channels, f, h, w).
        arguments: Further arguments of the UNet.
        seated: Condition name to what its hooks add inside the UNet.
    """

    sample: Tensor
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seated: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def having(self, **arguments: Any) -> UNetCall:
        """The same with further arguments, in the sample's precision."""
        moved = {name: alike(value, self.sample) for name, value in arguments.items()}
        return replace(self, arguments={**self.arguments, **moved})

    def seating(self, name: str, value: Any) -> UNetCall:
        """The same with something for a condition's hooks."""
        return replace(self, seated={**self.seated, name: alike(value, self.sample)})


@dataclass
class Seat:
    """Where a condition's hooks find what they add in the present pass; None between passes."""

    value: Any = None


class Condition:
    """Something that the denoiser is told beside the reference.

    Args:
        name: What a pass may be blind to, and the key of what the call was given.

    Attributes:
        enters: What it is and where it enters the denoiser, in a few words.
    """

    enters: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, pipe: Any, call: Any) -> Any:
        """Once per call: what all steps share."""
        raise NotImplementedError

    def at_step(self, pipe: Any, value: Any, moment: Moment) -> Any:  # noqa: ARG002
        """Once per step: for what depends on the latents, such as a ControlNet."""
        return value

    def at_window(self, pipe: Any, value: Any, frames: Sequence[int] | None) -> Any:  # noqa: ARG002
        """The part for a window of a film; `frames` is None for pictures."""
        return value

    def seen(self, value: Any) -> Any:
        """What a pass gets that sees the condition: of 1 row, or of as many as divide the samples."""
        return value

    def blank(self, value: Any) -> Any:
        """What a blind pass gets; the very object that `seen` gives if there is no difference."""
        return torch.zeros_like(value)

    def joined(self, values: Sequence[Any], samples: int) -> Any:
        """The values of all passes behind each other, each spread over the samples: (p b, ...)."""
        return spread(values, samples)

    def enter(self, call: UNetCall, value: Any) -> UNetCall:
        """Into the pass, rows p b."""
        raise NotImplementedError

    def hooks(self, unet: nn.Module, seat: Seat) -> AbstractContextManager[None]:  # noqa: ARG002
        """Hooks that stay for the whole call and add `seat.value`; none by default."""
        return nullcontext()

    def __repr__(self) -> str:
        further = [f"{key}={value!r}" for key, value in vars(self).items() if key != "name"]
        return f"{type(self).__name__}({', '.join([repr(self.name), *further])})"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A system.

    Attributes:
        write: When the reference UNet runs, and what it is told; None: there is no writer.
        link: How the denoiser reads, a `Kind`; None: no bank is read, and the reference is a condition.
        joins: Whether all rows of a bank are one sequence: several references that are read together.
        guidance: The passes.
        apart: Whether the denoiser runs pass by pass instead of all in one batch: less memory, as many operations, but
            keys and values of what two passes read are made for each of them.
        conditions: In the order in which they enter the denoiser.
        scheduler: Makes the scheduler that a published set is used with.
        windows: How long films are cut; None: pictures.
        steps: Denoising steps.
        scale: Guidance scale.
        eta: Of DDIM and its relatives: how much noise each step adds.
        size: Width and height in pixels; None: those of the conditions.
        defaults: Where the defaults come from.
    """

    write: Once | EachStep | None = field(default_factory=Once)
    link: Any = field(default_factory=Concat)
    joins: bool = False
    guidance: Guidance
    apart: bool = False
    conditions: tuple[Condition, ...]
    scheduler: Callable[[], Any]
    windows: Windows | None = None
    steps: int
    scale: float
    eta: float = 0.0
    size: tuple[int, int] | None = None
    defaults: str = ""

    def __str__(self) -> str:
        return "\n".join(f"{item.name:<10} {_shown(getattr(self, item.name))}" for item in fields(self))


def spread(values: Sequence[Tensor], samples: int) -> Tensor:
    """Values of p passes, each (r, ...) with r that divides b, as (p b, ...); a view where one row serves all."""
    first = values[0]
    if len(values) == 1:
        return each_for(first, samples)
    if first.shape[0] == 1 and all(value is first for value in values):
        return first.expand(len(values) * samples, *first.shape[1:])
    return torch.cat([each_for(value, samples) for value in values])


def each_for(value: Tensor, samples: int) -> Tensor:
    """(r, ...) for b samples, r to each b / r of them: (b, ...).

    Raises:
        ValueError: If r does not divide b.
    """
    rows = value.shape[0]
    if rows == samples:
        return value
    if samples % rows:
        raise ValueError(f"{rows} conditions cannot serve {samples} results; give one for all, or one for each.")
    return value.expand(samples, *value.shape[1:]) if rows == 1 else value.repeat_interleave(samples // rows, dim=0)


def alike(value: Any, like: Tensor) -> Any:
    """Floating tensors inside a value on the device and in the precision of `like`."""
    if isinstance(value, Tensor):
        return value.to(like) if value.is_floating_point() else value.to(like.device)
    if isinstance(value, list | tuple):
        return type(value)(alike(part, like) for part in value)
    if isinstance(value, Mapping):
        return {key: alike(part, like) for key, part in value.items()}
    return value


def _shown(value: Any) -> str:
    """A field of a declaration in one line; conditions one below the other."""
    if isinstance(value, partial):
        keywords = ", ".join(f"{key}={word!r}" for key, word in value.keywords.items())
        return f"{value.func.__name__}({keywords})"
    if isinstance(value, tuple) and value and isinstance(value[0], Condition):
        return f"\n{'':<11}".join(map(repr, value))
    return getattr(value, "__name__", None) or repr(value)
