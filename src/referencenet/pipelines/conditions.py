"""Where conditions enter a denoiser: its context, beside it, its channels, behind its first layer or blocks, skips.

A system that needs more writes a class of its own beside its `SPEC`. Letters: b samples, p passes, f frames, (h, w)
latents, (H, W) pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from referencenet.networks.control_features import control_features, taking_features
from referencenet.pipelines.spec import Condition, Moment, Seat, UNetCall, each_for


class Context(Condition):
    """Tokens (r, n, c) for the cross-attention: given, or left in the bank by the reference; zeros where blind."""

    enters = "tokens, in cross-attention"

    def encode(self, pipe: Any, call: Any) -> Any:
        """The tokens.

        Raises:
            ValueError: If neither the call nor the bank has them: the bank is another system's.
        """
        if self.name in call.given:
            return call.given[self.name]
        kept = call.kept
        if self.name not in kept:
            raise ValueError(
                f"this bank has no {self.name!r} in its context, so it is not of this system; write one with "
                f"{type(pipe).__name__}.write."
            )
        return kept[self.name]

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, n, c) as the context."""
        return call.having(encoder_hidden_states=value)


class Text(Context):
    """A prompt's states as the context; blind passes get the negative prompt's. Given as (positive, negative)."""

    enters = "words, in cross-attention"

    def encode(self, pipe: Any, call: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Both, each (r, n, c); one object twice if they are the same words."""
        return call.given[self.name]

    def seen(self, value: tuple[Tensor, Tensor]) -> Tensor:
        """The prompt's states (r, n, c)."""
        return value[0]

    def blank(self, value: tuple[Tensor, Tensor]) -> Tensor:
        """The negative prompt's states (r, n, c)."""
        return value[1]


class BesideContext(Text):
    """Tokens with keys and values of their own beside the context (IP-Adapter). Given as (positive, negative)."""

    enters = "tokens with keys and values of their own, beside the words in cross-attention"

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, n, c) beside the context, which entered before."""
        return call.having(encoder_hidden_states=(call.arguments["encoder_hidden_states"], [value]))


class Channels(Condition):
    """Further input channels (r, c, h, w) behind the latents; all passes see them."""

    enters = "further input channels"

    def encode(self, pipe: Any, call: Any) -> Tensor:  # noqa: ARG002
        """As given."""
        return call.given[self.name]

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, c, h, w) behind the latents."""
        sample = torch.cat([call.sample, value.to(call.sample)], dim=1)
        return UNetCall(sample=sample, arguments=call.arguments, seated=call.seated)


class Added(Condition):
    """SDXL's added conditions: a mapping of tensors (r, ...). Given as (positive, negative)."""

    enters = "pooled words and sizes, in the time embedding"

    def encode(self, pipe: Any, call: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ARG002
        """Both."""
        return call.given[self.name]

    def seen(self, value: tuple[dict[str, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The prompt's."""
        return value[0]

    def blank(self, value: tuple[dict[str, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The negative prompt's."""
        return value[1]

    def joined(self, values: Sequence[dict[str, Tensor]], samples: int) -> dict[str, Tensor]:
        """By name, (p b, ...)."""
        return {name: torch.cat([each_for(value[name], samples) for value in values]) for name in values[0]}

    def enter(self, call: UNetCall, value: dict[str, Tensor]) -> UNetCall:
        """As the UNet's `added_cond_kwargs`."""
        return call.having(added_cond_kwargs=value)


class AfterConvIn(Condition):
    """Features (r, width, h, w) added behind the denoiser's first convolution; guiders run once per call.

    Args:
        name: Of the condition; pictures (r, 3, H, W) in [0, 1] are given.
        networks: The pipeline's guiders; with several, one picture is given for each and features are added up.
    """

    enters = "features of a guider, added after the first convolution"

    def __init__(self, name: str, *networks: str) -> None:
        super().__init__(name)
        self.networks = networks

    def guided(self, pipe: Any, pictures: Sequence[Tensor]) -> Tensor:
        """Features of one batch of pictures (r, 3, H, W) per guider, added up."""
        guiders = [getattr(pipe, name) for name in self.networks]
        features = [
            guider(each.to(pipe.device_of(guider), guider.dtype))
            for guider, each in zip(guiders, pictures, strict=True)
        ]
        return sum(features[1:], start=features[0])

    def encode(self, pipe: Any, call: Any) -> Any:
        """Features (r, width, h, w)."""
        return self.guided(pipe, call.given[self.name])

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, width, h, w) for the hook."""
        return call.seating(self.name, value)

    @contextmanager
    def hooks(self, unet: nn.Module, seat: Seat) -> Generator[None]:
        """Add behind `conv_in`."""
        handle = unet.get_submodule("conv_in").register_forward_hook(lambda _module, _args, output: output + seat.value)
        try:
            yield
        finally:
            handle.remove()


class FilmAfterConvIn(AfterConvIn):
    """The same for films, whose UNet takes the features as a value; drawings are given by `(start, stop)`."""

    def encode(self, pipe: Any, call: Any) -> FrameStore:
        """Features per frame, made when frames are admitted."""
        return FrameStore(call.given[self.name], lambda pictures: self.guided(pipe, pictures))

    def at_window(self, pipe: Any, value: FrameStore, frames: Sequence[int] | None) -> Tensor:  # noqa: ARG002
        """(1, width, f, h, w)."""
        return value.of(frames or ()).transpose(0, 1).unsqueeze(0)

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, width, f, h, w)."""
        return call.having(condition=value)

    def hooks(self, unet: nn.Module, seat: Seat) -> Any:
        """None: the UNet has an argument for it."""
        return Condition.hooks(self, unet, seat)


class AfterBlocks(Condition):
    """Feature maps added after the first convolution and each down block, where skips have been taken already.

    Its value is a list of tensors, one per place, each (r, width, h, w) or, in films, (f, width, h, w).
    """

    enters = "feature maps of a guider, added after the first convolution and every down block"

    def blank(self, value: list[Tensor]) -> list[Tensor]:
        """Zeros."""
        return [torch.zeros_like(level) for level in value]

    def joined(self, values: Sequence[list[Tensor]], samples: int) -> list[Tensor]:
        """By place (p b, ...); the frames of a film are repeated for every sample."""
        return [torch.cat([part for part in level for _ in range(samples)]) for level in zip(*values, strict=True)]

    def enter(self, call: UNetCall, value: list[Tensor]) -> UNetCall:
        """For the hooks."""
        return call.seating(self.name, value)

    @contextmanager
    def hooks(self, unet: nn.Module, seat: Seat) -> Generator[None]:
        """Add behind `conv_in` and each of `down_blocks`."""

        def adding(place: int) -> Any:
            def add(_module: nn.Module, _args: Any, output: Any) -> Any:
                extra = seat.value[place]
                return (output[0] + extra, *output[1:]) if isinstance(output, tuple) else output + extra

            return add

        with ExitStack() as undo:
            blocks: Any = unet.get_submodule("down_blocks")
            for place, module in enumerate((unet.get_submodule("conv_in"), *blocks)):
                undo.callback(module.register_forward_hook(adding(place)).remove)
            yield


class Residuals(Condition):
    """A ControlNet's residuals: it runs once per step and picture (or frame), whatever the number of passes or windows.

    Given: pictures (b, 3, H, W) in [0, 1], or for films what gives them by `(start, stop)`. They are embedded once per
    call; what comes of a film's frames rests where its drawings do.

    Args:
        name: Of the condition.
        network: The pipeline's ControlNet.
        context: Name of the `Text` condition whose prompt the ControlNet is told.
    """

    enters = "residuals of a ControlNet, added to the skips"

    def __init__(self, name: str, network: str = "controlnet", context: str = "prompt") -> None:
        super().__init__(name)
        self.network, self.context = network, context

    def encode(self, pipe: Any, call: Any) -> tuple[Any, Tensor]:
        """What the ControlNet makes of the pictures (b, width, h, w) or of a film's frames, and the context."""
        network, pictures = getattr(pipe, self.network), call.given[self.name]

        def embed(drawn: Tensor) -> Tensor:
            seen = self.as_seen(drawn).to(pipe.device_of(network), network.dtype)
            return control_features(network, seen).to(drawn.device)

        features = FrameStore(pictures, lambda films: embed(films[0])) if callable(pictures) else embed(pictures)
        return features, call.given[self.context][0]

    def as_seen(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) in [0, 1] in the range that the ControlNet was trained with; as they are."""
        return pictures

    def at_step(self, pipe: Any, value: tuple[Any, Tensor], moment: Moment) -> StepResiduals:
        """What gives the residuals of this step, frame by frame where there are frames."""
        features, context = value
        return StepResiduals(self.running(pipe), features, context, moment)

    def running(self, pipe: Any) -> Callable[..., list[Tensor]]:
        """The ControlNet as `run` takes its arguments, where and in which precision it computes at this step."""
        network = getattr(pipe, self.network)
        return partial(self.run, network, (pipe.device_of(network), network.dtype))

    def run(
        self, network: Any, place: tuple[torch.device, torch.dtype], latents: Tensor, timestep: Any, features: Tensor,
        context: Tensor,
    ) -> list[Tensor]:  # fmt: skip
        """Residuals of latents (n, 4, h, w): those of the down blocks, then the middle's."""
        with taking_features(network):
            down, middle = network(
                latents.to(*place), timestep, encoder_hidden_states=each_for(context, len(latents)).to(*place),
                controlnet_cond=each_for(features, len(latents)).to(*place), return_dict=False,
            )  # fmt: skip
        return [*down, middle]

    def at_window(self, pipe: Any, value: StepResiduals, frames: Sequence[int] | None) -> list[Tensor]:  # noqa: ARG002
        """The residuals, (b, ...) or (b f, ...) each."""
        return value.of(frames)

    def blank(self, value: list[Tensor]) -> list[Tensor]:
        """Zeros, without storage of their own."""
        return [level.new_zeros(()).expand_as(level) for level in value]

    def joined(self, values: Sequence[list[Tensor]], samples: int) -> list[Tensor]:  # noqa: ARG002 - they have samples
        """By level, all passes behind each other."""
        return values[0] if len(values) == 1 else [torch.cat(level) for level in zip(*values, strict=True)]

    def enter(self, call: UNetCall, value: list[Tensor]) -> UNetCall:
        """As the UNet's additional residuals."""
        return call.having(down_block_additional_residuals=tuple(value[:-1]), mid_block_additional_residual=value[-1])


class ScaledResiduals(Residuals):
    """The same times a factor, which is given under the condition's name with `_scale` behind it."""

    def encode(self, pipe: Any, call: Any) -> tuple[Any, ...]:
        """Features, context and the factor."""
        return (*super().encode(pipe, call), call.given[f"{self.name}_scale"])

    def at_step(self, pipe: Any, value: Any, moment: Moment) -> StepResiduals:
        """What gives the residuals of this step."""
        features, context, scale = value
        running = self.running(pipe)

        def run(*given: Any) -> list[Tensor]:
            return [level * scale for level in running(*given)]

        return StepResiduals(run, features, context, moment)


class FrameStore:
    """What a condition makes of a film's frames: made once as frames come, given by window, dropped behind.

    Args:
        read: Gives the drawings of frames [start, stop): one (frames, 3, H, W) in [0, 1] per driving film. Called in
            order, once for every frame.
        make: From those to a tensor (frames, ...); given a few at a time, since what lies between a drawing and what is
            kept of it may be many times as large.
    """

    AT_A_TIME = 8

    def __init__(
        self, read: Callable[[int, int], Sequence[Tensor]], make: Callable[[Sequence[Tensor]], Tensor]
    ) -> None:
        self.read, self.make = read, make
        self.kept: dict[int, Tensor] = {}

    def admit(self, start: int, stop: int) -> None:
        """Make the values of frames [start, stop)."""
        films = self.read(start, stop)
        for first in range(0, stop - start, self.AT_A_TIME):
            part = [film[first : first + self.AT_A_TIME] for film in films]
            made = self.make(part)
            self.kept.update(zip(range(start + first, start + first + len(part[0])), made.unbind(0), strict=True))

    def of(self, frames: Sequence[int]) -> Tensor:
        """(frames, ...)."""
        return torch.stack([self.kept[frame] for frame in frames])

    def drop_before(self, frame: int) -> None:
        """Forget frames that no window needs any more."""
        for known in [known for known in self.kept if known < frame]:
            del self.kept[known]


class StepResiduals:
    """A ControlNet's residuals at one step: a frame's are made for its first window, and let go behind its last.

    Args:
        run: (latents (n, 4, h, w), timestep, features (n or 1, width, h, w), context) to the residuals.
        features: Of the pictures, (b, width, h, w), or a film's `FrameStore` of them.
        context: (1 or b, tokens, channels).
        moment: Of the step.
    """

    def __init__(self, run: Callable[..., list[Tensor]], features: Any, context: Tensor, moment: Moment) -> None:
        self.run, self.features, self.context, self.moment = run, features, context, moment
        self.kept: dict[int, list[Tensor]] = {}
        self.awaited = Counter(frame for window in moment.windows for frame in window.frames)

    def of(self, frames: Sequence[int] | None) -> list[Tensor]:
        """Residuals of pictures (b, ...), or of a film's frames (b f, ...), row = sample * f + frame."""
        if frames is None:
            return self.run(self.moment.latents, self.moment.timestep, self.features, self.context)
        new = [frame for frame in dict.fromkeys(frames) if frame not in self.kept]
        if new:
            self.kept.update(zip(new, self._frames(new), strict=True))
        levels = list(zip(*(self.kept[frame] for frame in frames), strict=True))
        self.awaited.subtract(frames)
        self.kept = {frame: kept for frame, kept in self.kept.items() if self.awaited[frame] > 0}
        return [torch.stack(level, dim=1).flatten(0, 1) for level in levels]  # (b f, c, h, w)

    def _frames(self, frames: list[int]) -> list[list[Tensor]]:
        """By frame, each level (b, c, h, w)."""
        latents = self.moment.of(frames)  # (b, 4, f, h, w)
        samples = latents.shape[0]
        features = self.features.of(frames).repeat(samples, 1, 1, 1)
        levels = self.run(latents.transpose(1, 2).flatten(0, 1), self.moment.timestep, features, self.context)
        unfolded = [level.unflatten(0, (samples, len(frames))) for level in levels]
        return [[level[:, i] for level in unfolded] for i in range(len(frames))]
