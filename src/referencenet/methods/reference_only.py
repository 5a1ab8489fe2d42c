"""Reference-Only and Reference-AdaIN on any Stable Diffusion pipeline, without training.

Published in the sd-webui ControlNet extension (2023), later as diffusers community pipelines. At every step the
reference's latents are noised to the step's level and shown to the same UNet (write); then the UNet denoises and reads
what was left (read). Guidance decides who reads: the conditional half in full, the unconditional half by 1 - s.

    write: each step, same UNet, the result's timestep     sites: by the published rank rule
    link: attention (concat) and/or AdaIN                   unconditional half: blend by style fidelity s

No pipeline is copied: `reference` links the pipeline's UNet for the length of a `with` block.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from diffusers import DiffusionPipeline
from torch import nn

from referencenet.links.adain import AdaIN
from referencenet.links.attach import AnyLink, attach
from referencenet.links.concat import Concat
from referencenet.links.link import Link
from referencenet.media.images import Picture, Resize
from referencenet.sampling.caller import find_caller
from referencenet.sampling.following import surround
from referencenet.sampling.references import Reference, as_references
from referencenet.sampling.session import Call, Noise, Session, Settings, halves_of
from referencenet.sampling.support import check_pipeline, linkable_unet
from referencenet.sampling.unet_call import UNetCall

LinkName = Literal["attention", "adain"]

LINKS: dict[str, type[Concat] | type[AdaIN]] = {"attention": Concat, "adain": AdaIN}


@contextmanager
def reference(pipe: DiffusionPipeline, references: Reference | Picture | Sequence[Reference | Picture], *,
              links: LinkName | AnyLink | Sequence[LinkName | AnyLink] = "attention", style_fidelity: float = 0.5,
              noise: Noise = "fresh", resize: Resize = "fit", own_size: bool = False,
              guided: bool | None = None, write_every: int = 1) -> Generator[Link]:  # fmt: skip
    """Let every call of a pipeline inside the `with` block refer to pictures.

    So does every call of another pipeline that shares the UNet, such as one that `from_pipe` made. The block belongs to
    the thread that entered it.

    Args:
        pipe: A diffusers pipeline with a UNet: Stable Diffusion 1, 2, XL, text-to-image, img2img, inpaint, ControlNet,
            InstructPix2Pix, depth-to-image, panorama, AnimateDiff, with perturbed-attention guidance, IP-Adapter and
            LoRA or without. `docs/pipelines.md` lists what is refused, and why.
        references: One or several.
        links: `"attention"`, `"adain"`, or `Concat(weight=...)` and `AdaIN(weight=...)`; one or both.
        style_fidelity: s in [0, 1]. 1: the unconditional half sees no reference, so guidance pushes toward it; 0: it
            sees the same, and the prompt matters more.
        noise: Of the write pass. `"fresh"`: new at each step from the call's generator, as published. `"fixed"`: one
            per call, shared by all pictures, so that one write serves them. Or one tensor per step, each
            (1, pictures or guidance rows, channels, height, width).
        resize: `"fit"` keeps the reference's proportions, `"stretch"` gives it the result's size, as published.
        own_size: Tell SDXL the reference's own size instead of the result's in the write pass.
        guided: Whether the first half of the UNet's rows is an unconditional one. None: as the pipeline says, which is
            held against the batch; a pipeline that does not say is refused.
        write_every: The writer runs at every so many steps, and the steps between read what was written last. Above 1
            an approximation: the reference is seen at the noise level of an earlier step.

    Yields:
        The link; `print` shows where it reads.

    Raises:
        TypeError: If the pipeline has no UNet that can be linked, or a link or picture is of no known kind.
        ValueError: If a value is out of range, there is no reference, or the UNet is linked already; inside, if a
            call's batch, steps or channels are of a kind that is not known.
        RuntimeError: Inside, if the UNet is called in another thread, or outside of a pipeline's call.
    """
    chosen = as_references(references)
    parsed = [_as_link(link) for link in ([links] if isinstance(links, str | Concat | AdaIN) else links)]
    _check_options(style_fidelity, noise, resize)
    if write_every < 1:
        raise ValueError(f"write_every is {write_every}; expected at least 1: the writer runs at every so many steps.")
    settings = Settings(
        style_fidelity=style_fidelity,
        noise=noise,
        resize=resize,
        own_size=own_size,
        guided=guided,
        write_every=write_every,
    )
    has_pictures = any(one.picture is not None for one in chosen)
    with _linked(pipe, parsed, has_pictures=has_pictures) as (link, undo):
        Session(link, chosen, settings).watch(pipe, undo)
        yield link


@contextmanager
def share(pipe: DiffusionPipeline, *, strength: float = 1.0, weight: float = 1.0, style_fidelity: float = 0.0,
          layers: float = 1.0, guided: bool | None = None) -> Generator[Link]:  # fmt: skip
    """Let every picture of a batch refer to its first one (StyleAligned, Hertz et al. 2023, the attention part).

    In films every frame refers to the first frame of the first film.

    Args:
        pipe: As for `reference`.
        strength: In [0, 1]: how far the others' outputs move toward reading.
        weight: Above 0: how many times the first picture's tokens count.
        style_fidelity: In [0, 1]: how much less the unconditional half reads.
        layers: In [0, 1]: the link's weight, how many layers take part.
        guided: As for `reference`.

    Yields:
        The link.

    Raises:
        TypeError, ValueError, RuntimeError: As for `reference`.
    """
    _check_options(style_fidelity, "fresh", "fit")
    if not 0.0 <= strength <= 1.0 or not 0.0 < weight < float("inf"):
        raise ValueError(f"strength={strength} must lie in [0, 1] and weight={weight} above 0.")
    with _linked(pipe, [Concat(weight=layers)]) as (link, undo):
        passes = ExitStack()

        def before(_unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caller = find_caller(link.unet)
            call = Call.of(caller, link)
            halves = halves_of(caller, UNetCall.bind(link.unet, args, kwargs), call, guided, style_fidelity)
            weights = [strength * half for half in halves]
            passes.enter_context(link.sharing(halves=len(halves), weights=weights, weight=weight))

        surround(pipe, before, passes, undo)
        yield link


@contextmanager
def _linked(pipe: Any, links: list[AnyLink], *, has_pictures: bool = False) -> Generator[tuple[Link, ExitStack]]:
    """Check the pipeline, link its UNet, and undo everything that the caller adds to the stack."""
    core = linkable_unet(pipe)
    check_pipeline(pipe, core, has_pictures=has_pictures)
    with ExitStack() as undo:
        link = undo.enter_context(attach(core, links))
        yield link, undo


def _as_link(given: Any) -> AnyLink:
    """A link from its name."""
    if not isinstance(given, str):
        return given
    if given not in LINKS:
        raise ValueError(f"unknown link {given!r}; expected one of {sorted(LINKS)}, or Concat(...) and AdaIN(...).")
    return LINKS[given]()


def _check_options(style_fidelity: float, noise: Noise, resize: Resize) -> None:
    if not 0.0 <= style_fidelity <= 1.0:
        raise ValueError(
            f"style_fidelity is {style_fidelity}; expected 0 (the prompt matters more) to 1 (the reference does)."
        )
    if isinstance(noise, str) and noise not in ("fresh", "fixed"):
        raise ValueError(f"noise is {noise!r}; expected 'fresh', 'fixed', or one tensor per step.")
    if resize not in ("fit", "stretch"):
        raise ValueError(f"resize is {resize!r}; expected 'fit' or 'stretch'.")
