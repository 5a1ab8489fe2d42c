"""What EMO's denoiser is told beside the portrait: the face's place, sound, motion frames, and the head's speed.

Letters: b films, p passes, f frames, n motion frames, t tokens, c channels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from referencenet.networks.audio_attention import Held
from referencenet.networks.portrait_layers import with_positions
from referencenet.pipelines.spec import Condition, UNetCall, spread
from referencenet.pipelines.talking import Located


class FacePlace(Condition):
    """Features of where the face may move, made once with the portrait's bank; all passes and frames have them."""

    enters = "features of a mask, added to the noisy latents (or after the first convolution)"

    def encode(self, pipe: Any, call: Any) -> tuple[Tensor, bool]:
        """Features (1, width, h, w), and whether they are for the latents."""
        return Located(self.name).encode(pipe, call), pipe.config.face_locator_target == "latent"

    def joined(self, values: Sequence[tuple[Tensor, bool]], samples: int) -> tuple[Tensor, bool]:
        """(p b, width, h, w)."""
        return spread([value[0] for value in values], samples), values[0][1]

    def enter(self, call: UNetCall, value: tuple[Tensor, bool]) -> UNetCall:
        """To every frame."""
        features, is_latent = value[0].unsqueeze(2).to(call.sample), value[1]
        if is_latent:
            return UNetCall(sample=call.sample + features, arguments=call.arguments, seated=call.seated)
        return call.having(condition=features.expand(-1, -1, call.sample.shape[2], -1, -1))


class Sound(Condition):
    """A clip's sound (f, t, c), whose keys and values are made once; blind passes hear silence."""

    enters = "tokens of each frame and its neighbours, in an attention of their own after that to the reference"

    def encode(self, pipe: Any, call: Any) -> Held:  # noqa: ARG002
        """Tokens (f, t, c)."""
        return Held(call.given[self.name])

    def blank(self, value: Held) -> None:  # noqa: ARG002
        """Silence."""
        return

    def joined(self, values: Sequence[Held | None], samples: int) -> list[Held | None]:  # noqa: ARG002
        """One for each pass."""
        return list(values)

    def enter(self, call: UNetCall, value: list[Held | None]) -> UNetCall:
        """As the UNet's `audio`."""
        return call.having(audio=value)


class MotionMaps(Condition):
    """Features of the frames before a clip by place, (1 or b, n, h w, c); zeros in the first clip; all passes."""

    enters = "feature maps before the frames, in the temporal layers; zeros before the first clip"

    def encode(self, pipe: Any, call: Any) -> Mapping[str, Tensor]:  # noqa: ARG002
        """As given."""
        return call.given[self.name]

    def joined(self, values: Sequence[Mapping[str, Tensor]], samples: int) -> list[Mapping[str, Tensor]]:  # noqa: ARG002
        """One for each pass."""
        return list(values)

    def enter(self, call: UNetCall, value: list[Mapping[str, Tensor]]) -> UNetCall:
        """As the UNet's `motion`."""
        return UNetCall(sample=call.sample, arguments={**call.arguments, "motion": value}, seated=call.seated)


class HeadSpeed(Condition):
    """Features of the head's speed (f, c), whose keys and values are made once; all passes."""

    enters = "features of each frame and its neighbours, in an attention along time"

    def encode(self, pipe: Any, call: Any) -> Held:
        """With positions behind the motion frames, (1, f, c)."""
        return Held(with_positions(call.given[self.name].unsqueeze(0), pipe.config.motion_frames))

    def joined(self, values: Sequence[Held], samples: int) -> Held:  # noqa: ARG002 - the layers spread it
        """The same for all passes."""
        return values[0]

    def enter(self, call: UNetCall, value: Held) -> UNetCall:
        """As the UNet's `speed`."""
        return call.having(speed=value)
