"""What a talking portrait's denoiser is told beside the portrait: face, audio, the face's place, and motion frames.

All but the audio and the motion frames is known of the portrait alone, and travels in its bank. Letters: b films, f
frames, n motion frames, t tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from referencenet.links.bank import ReferenceBank
from referencenet.networks.audio_attention import Heard, Held
from referencenet.pipelines.conditions import AfterConvIn
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.spec import Condition, Seat, UNetCall

FACE, NO_FACE, LOCATED, MASKS = "face", "no_face", "locator", "masks"
"""What of the portrait lies in its bank's context."""

By = Mapping[str, Tensor]
"""Site name to features of motion frames, (1 or b, n, h w, c)."""


@dataclass(frozen=True, kw_only=True)
class BesideNoFace(TwoWay):
    """`TwoWay` whose bank has a row written beside the tokens of no face before that of the face."""

    @property
    def reads_blank(self) -> bool:
        """That of no face stands where others have the bank of a zero latent."""
        return True


class Face(Condition):
    """The face's tokens, whose keys and values are made once a clip; blind passes have the tokens of no face."""

    enters = "tokens of its embedding, in cross-attention"

    def encode(self, pipe: Any, call: Any) -> tuple[Held, Held]:  # noqa: ARG002
        """Tokens of the face and of none, (1, t, c) each."""
        return Held(kept_of(call.kept, FACE)), Held(kept_of(call.kept, NO_FACE))

    def seen(self, value: tuple[Held, Held]) -> Held:
        """The face's."""
        return value[0]

    def blank(self, value: tuple[Held, Held]) -> Held:
        """Those of no face."""
        return value[1]

    def joined(self, values: Sequence[Held], samples: int) -> list[Held]:  # noqa: ARG002 - the UNet spreads them
        """One for each pass."""
        return list(values)

    def enter(self, call: UNetCall, value: list[Held]) -> UNetCall:
        """As the UNet's `face`."""
        return call.having(face=value)


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Audio as a condition.

    Attributes:
        tokens: Of a clip, (f, t, c); None: silence.
        masks: Number of the picture's tokens to the masks of pose, face and lip, (3, 1, h w).
        weights: How much each of them counts.
    """

    tokens: Held | None
    masks: Mapping[int, Tensor]
    weights: Sequence[float]


class Audio(Condition):
    """A clip's audio, whose keys and values are made once; blind passes hear nothing. Given as (tokens, weights)."""

    enters = "tokens of each frame, in three masked attentions after each spatial transformer"

    def encode(self, pipe: Any, call: Any) -> Speech:
        """Tokens (f, t, c), and the masks by the size of levels."""
        tokens, weights = call.given[self.name]
        canvas, factor = call.canvas, pipe.vae_scale_factor
        size = (canvas.height // factor, canvas.width // factor)
        levels = level_sizes(size, len(pipe.unet.config.block_out_channels))
        parts = kept_of(call.kept, MASKS).split([height * width for height, width in levels], dim=1)
        return Speech(tokens=Held(tokens), masks={part.shape[1]: part.unsqueeze(1) for part in parts}, weights=weights)

    def blank(self, value: Speech) -> Speech:
        """Silence."""
        return Speech(tokens=None, masks=value.masks, weights=value.weights)

    def joined(self, values: Sequence[Speech], samples: int) -> Heard:  # noqa: ARG002 - the layers spread it
        """All passes."""
        first = values[0]
        return Heard(tokens=[value.tokens for value in values], masks=first.masks, weights=first.weights)

    def enter(self, call: UNetCall, value: Heard) -> UNetCall:
        """As the UNet's `heard`."""
        return call.having(heard=value)


class Located(AfterConvIn):
    """The face's place: a guider's features, made once with the portrait's bank and added to every frame."""

    def encode(self, pipe: Any, call: Any) -> Tensor:
        """Features (1, width, h, w).

        Raises:
            ValueError: If the bank was written at another size.
        """
        features, factor = kept_of(call.kept, LOCATED), pipe.vae_scale_factor
        height, width = (side * factor for side in features.shape[-2:])
        if (width, height) != call.canvas.size:
            asked = " x ".join(map(str, call.canvas.size))
            raise ValueError(f"the bank was written at {width} x {height}, but {asked} is to be drawn; write another.")
        return features

    @contextmanager
    def hooks(self, unet: nn.Module, seat: Seat) -> Generator[None]:
        """Add behind `conv_in`, whose rows are frames: row = (pass * b + film) * f + frame."""

        def add(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            by_film = output.unflatten(0, (seat.value.shape[0], -1))  # (p b, f, width, h, w)
            return (by_film + seat.value.unsqueeze(1)).flatten(0, 1)

        handle = unet.get_submodule("conv_in").register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()


class MotionFrames(Condition):
    """Features of the frames before a clip; given for the pass that sees the face, and for the one that does not."""

    enters = "features before the frames, in the motion modules"

    def encode(self, pipe: Any, call: Any) -> tuple[By, By | None]:  # noqa: ARG002
        """Both; None: the second was not written."""
        return call.given[self.name]

    def seen(self, value: tuple[By, By | None]) -> By:
        """Of the pass that sees the face."""
        return value[0]

    def blank(self, value: tuple[By, By | None]) -> By:
        """Of the other.

        Raises:
            ValueError: If the call began without guidance.
        """
        if value[1] is None:
            raise ValueError(
                "the call began without guidance, so nothing was written for a pass without the face; begin with a "
                "guidance_scale above 1, and let the callback lower it."
            )
        return value[1]

    def joined(self, values: Sequence[By], samples: int) -> list[By]:  # noqa: ARG002 - the layers spread them
        """One for each pass."""
        return list(values)

    def enter(self, call: UNetCall, value: list[By]) -> UNetCall:
        """As the UNet's `motion`."""
        return call.having(motion=value)


def kept_of(kept: Mapping[str, Tensor], name: str) -> Tensor:
    """What of the portrait lies in a bank's context, of any shape.

    Raises:
        ValueError: If it does not: the bank is another system's.
    """
    if name not in kept:
        raise ValueError(f"the bank has no {name!r} in its context, so it is of no portrait; write one by `write`.")
    return kept[name]


def level_sizes(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """(height, width) of a UNet's features at each level, for latents of the given size."""
    sizes = [size]
    for _ in range(levels - 1):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def contexts_of(motion_frames: int, *, guided: bool, tiled: bool) -> list[list[int]]:
    """Beside which context each pass's images are written: 0 no face, 1 the face; image 0 is the portrait.

    Args:
        motion_frames: n.
        guided: Whether there are two passes.
        tiled: As published: contexts take turns over the images of both passes, so that they are mixed up.

    Returns:
        For each pass, 1 + n contexts.
    """
    images = range(1 + motion_frames)
    if not guided:
        return [[1 for _ in images]]
    if not tiled:
        return [[half for _ in images] for half in (0, 1)]
    return [[((1 + motion_frames) * half + image) % 2 for image in images] for half in (0, 1)]


def of_portrait(bank: ReferenceBank, contexts: Sequence[int]) -> dict[str, Tensor]:
    """Motion features of a film's first clip: the portrait stands for every frame, by the contexts of a pass's frames.

    Args:
        bank: Of the portrait: beside no face and the face, or the face alone.
        contexts: One for each motion frame.

    Returns:
        By site, (1, n, h w, c).
    """
    rows = [context if bank.rows > 1 else 0 for context in contexts]
    return {site: hidden[rows].unsqueeze(0) for site, hidden in bank.hidden.items()}


def of_frames(
    write: Callable[[Tensor, Tensor], ReferenceBank],
    latents: Tensor,
    faces: Sequence[Tensor],
    passes: Sequence[Sequence[int]],
) -> list[dict[str, Tensor]]:
    """Motion features of the last frames of a clip: each is written once beside every context that it needs.

    Args:
        write: From latents (r, 4, h, w) and their contexts (r, t, c) to a bank.
        latents: Of the frames, (b, n, 4, h, w).
        faces: Tokens of no face and of the face, (1, t, c) each.
        passes: For each pass the contexts of its frames.

    Returns:
        For each pass, by site, (b, n, h w, c).
    """
    films = latents.shape[0]
    needed = sorted({pair for contexts in passes for pair in enumerate(contexts)})
    shown = torch.cat([latents[:, i] for i, _ in needed])
    written = write(shown, torch.cat([faces[context].expand(films, -1, -1) for _, context in needed]))
    rows = {site: hidden.unflatten(0, (len(needed), films)) for site, hidden in written.hidden.items()}
    return [
        {
            site: torch.stack([hidden[needed.index(pair)] for pair in enumerate(contexts)], dim=1)
            for site, hidden in rows.items()
        }
        for contexts in passes
    ]
