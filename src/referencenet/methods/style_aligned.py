"""StyleAligned on any Stable Diffusion pipeline, without training: the pictures of a batch in one style.

Hertz et al. 2023 (arXiv 2312.02133). Every picture of a batch attends to the first one; queries and keys take the first
one's mean and deviation. The first picture may be a given one: then its latents stand in the batch's first place.

    no writer, no bank: the reference is the first row of each guidance half
    link: attention over [first; own], AdaIN on queries and keys            norms: shared, if asked for

No pipeline is copied: `share` links the pipeline's UNet for the length of a `with` block.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from referencenet.links.aligned import Aligned
from referencenet.links.attach import AnyLink
from referencenet.links.link import Link
from referencenet.links.shared_norm import SharedNorm
from referencenet.links.turns import Busy
from referencenet.media.images import Picture
from referencenet.sampling.caller import find_caller
from referencenet.sampling.following import surround
from referencenet.sampling.linking import linked
from referencenet.sampling.session import Call, halves_of
from referencenet.sampling.style import Style, StyleFollower
from referencenet.sampling.unet_call import UNetCall


@contextmanager
def share(pipe: DiffusionPipeline, style: Style | Picture | None = None, *, attention: bool = True,
          adain_queries: bool = True, adain_keys: bool = True, group_norm: bool = False, strength: float = 1.0,
          weight: float = 1.0, key_scale: float = 1.0, style_fidelity: float = 0.0, layers: float = 1.0,
          guided: bool | None = None, busy: Busy = "refuse") -> Generator[Link]:  # fmt: skip
    """Let every picture of a batch refer to its first one (StyleAligned).

    In films every frame refers to the first frame of the first film. Without `adain_queries` and `adain_keys` it is
    attention sharing alone.

    Args:
        pipe: As for `reference`.
        style: A picture that takes the first place of the batch, whose prompt then says what it shows: a `Style`, or
            a picture, which is inverted. The first result is what the model makes of it.
        attention: Whether the others attend to the first picture's keys and values.
        adain_queries: Whether queries take the first picture's mean and deviation.
        adain_keys: Whether keys do.
        group_norm: Whether group norms take their statistics of a picture and the first one together.
        strength: In [0, 1]: how far the others' outputs move toward reading.
        weight: Above 0: how many times the first picture's tokens count. Its logarithm is the published shift of
            their scores, which is log 2 in the published example with a picture's style.
        key_scale: Above 0: what the first picture's keys, and so their scores, are multiplied with where others attend
            to them; 0.5 is published for pictures that the model knows too well.
        style_fidelity: In [0, 1]: how much less the unconditional half reads.
        layers: In [0, 1]: the link's weight, how many self-attentions take part.
        guided: As for `reference`.
        busy: As for `reference`.

    Yields:
        The link.

    Raises:
        TypeError, ValueError, RuntimeError: As for `reference`; ValueError also if nothing is shared, if norms are to
            be shared by a fraction, or, inside, if a batch has no place for the style.
    """
    _check(strength, weight, style_fidelity, group_norm=group_norm)
    links: list[AnyLink] = [SharedNorm()] if group_norm else []
    if attention or adain_queries or adain_keys or not group_norm:
        aligned = Aligned(
            weight=layers,
            attention=attention,
            adain_queries=adain_queries,
            adain_keys=adain_keys,
            key_scale=key_scale,
        )
        links = [aligned, *links]
    taken = style if style is None or isinstance(style, Style) else Style(style)
    with linked(pipe, links, busy=busy, has_pictures=taken is not None) as (link, undo):
        passes, follower = ExitStack(), None if taken is None else StyleFollower(link, taken)

        def before(unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
            if follower is not None and follower.is_inverting:
                return None
            caller = find_caller(link.unet)
            given = UNetCall.bind(link.unet, args, kwargs)
            halves = halves_of(caller, given, Call.of(caller, link), guided, style_fidelity)
            sample = None if follower is None else follower.placed(caller, given, len(halves))
            weights = [strength * half for half in halves]
            passes.enter_context(link.sharing(halves=len(halves), weights=weights, weight=weight))
            if sample is None:
                return None
            return ((), kwargs | {"sample": sample}) if "sample" in kwargs else ((sample, *args[1:]), kwargs)

        surround(pipe, before, passes, undo, busy)
        yield link


def _check(strength: float, weight: float, style_fidelity: float, *, group_norm: bool) -> None:
    if not 0.0 <= style_fidelity <= 1.0:
        raise ValueError(f"style_fidelity is {style_fidelity}; expected 0 (both halves share) to 1 (one half does).")
    if not 0.0 <= strength <= 1.0 or not 0.0 < weight < float("inf"):
        raise ValueError(f"strength={strength} must lie in [0, 1] and weight={weight} above 0.")
    if group_norm and not {strength, style_fidelity} <= {0.0, 1.0}:
        raise ValueError(
            f"norms are shared or not, but strength={strength} and style_fidelity={style_fidelity} ask for a part; "
            "give 0 or 1 for both, or leave group_norm out."
        )
