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
from contextlib import contextmanager
from typing import Any, Literal

from diffusers import DiffusionPipeline

from referencenet.links.adain import AdaIN
from referencenet.links.attach import AnyLink
from referencenet.links.concat import Concat
from referencenet.links.link import Link
from referencenet.links.turns import Busy
from referencenet.media.images import Picture, Resize
from referencenet.sampling.linking import linked
from referencenet.sampling.references import Reference, as_references
from referencenet.sampling.session import Noise, Session, Settings

LinkName = Literal["attention", "adain"]

NAMED_LINKS: dict[str, list[LinkName]] = {
    "attention": ["attention"],
    "adain": ["adain"],
    "both": ["attention", "adain"],
}
"""What commands and nodes call them, alone and together."""

LINKS: dict[str, type[Concat] | type[AdaIN]] = {"attention": Concat, "adain": AdaIN}


@contextmanager
def reference(pipe: DiffusionPipeline, references: Reference | Picture | Sequence[Reference | Picture], *,
              links: LinkName | AnyLink | Sequence[LinkName | AnyLink] = "attention", style_fidelity: float = 0.5,
              noise: Noise = "fresh", resize: Resize = "fit", own_size: bool = False,
              guided: bool | None = None, write_every: int = 1, busy: Busy = "refuse") -> Generator[Link]:  # fmt: skip
    """Let every call of a pipeline inside the `with` block refer to pictures.

    So does every call of another pipeline that shares the UNet, such as one that `from_pipe` made. The block belongs to
    the thread that entered it: see `busy`.

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
        busy: While another thread is in such a block with the same UNet or scheduler, `"refuse"` raises and `"wait"`
            waits for its end. So do calls of the UNet from other threads while this block lasts.

    Yields:
        The link; `print` shows where it reads.

    Raises:
        TypeError: If the pipeline has no UNet that can be linked, or a link or picture is of no known kind.
        ValueError: If a value is out of range, there is no reference, or the UNet is linked already; inside, if a
            call's batch, steps or channels are of a kind that is not known.
        RuntimeError: Inside, if the UNet is called outside of a pipeline's call; its kind BusyError if another thread
            is at it, and, there, if the UNet is called in another thread.
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
    with linked(pipe, parsed, busy=busy, has_pictures=has_pictures) as (link, undo):
        Session(link, chosen, settings).watch(pipe, undo, busy)
        yield link


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
