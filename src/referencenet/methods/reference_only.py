"""Reference-Only and Reference-AdaIN on any Stable Diffusion pipeline, without training.

Published in the sd-webui ControlNet extension (2023), later as diffusers community pipelines. At every step the reference's
latents are noised to the step's level and shown to the same UNet (write); then the UNet denoises and reads what was left
(read). Guidance decides who reads: the conditional half in full, the unconditional half by 1 - style fidelity.

    write: each step, same UNet, the result's timestep     sites: by the published rank rule
    link: attention (concat) and/or AdaIN                   unconditional half: blend by style fidelity

No pipeline is copied: `reference` links the pipeline's UNet for the length of a `with` block. Letters: r rows of the
guidance batch, b pictures (r or r / 2), c channels, (h, w) latents.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from referencenet.links.adain import AdaIN
from referencenet.links.attach import AnyLink, Link, ReadBank, attach
from referencenet.links.concat import Attention
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.media.images import Picture, Resize, read_image, read_mask, to_tensor
from referencenet.media.images import resize as resize_image
from referencenet.sampling.guidance import half_weights
from referencenet.sampling.unet_call import UNetCall

Noise = Literal["fresh", "fixed"] | Sequence[Tensor]
Generators = torch.Generator | list[torch.Generator] | None
LinkName = Literal["attention", "adain"]

LINKS: dict[str, type[Attention] | type[AdaIN]] = {"attention": Attention, "adain": AdaIN}


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture to refer to, and how.

    Attributes:
        image: The picture: PIL, numpy (H, W, C), tensor (3, H, W) in [0, 1], or a path.
        latents: Instead of a picture its scaled VAE latents, (1 or b, c, h, w).
        strength: In [0, 1]: 0 is off, exactly; 1 as published; between, outputs are interpolated.
        weight: Above 0: how many times it counts beside other references and the result's own tokens.
        mask: Which of its pixels may be read (white may), as a picture.
        result_mask: Where in the result it may be read (white may, grey partly), as a picture.
        start: Fraction of the schedule before which it is not read.
        end: Fraction of the schedule after which it is not read.

    Raises:
        TypeError, ValueError, FileNotFoundError: If a picture cannot be read or a number is out of range.
    """

    image: Picture | None = None
    _: KW_ONLY
    latents: Tensor | None = None
    strength: float = 1.0
    weight: float = 1.0
    mask: Picture | None = None
    result_mask: Picture | None = None
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if (self.image is None) == (self.latents is None):
            raise ValueError("a Reference is made of either a picture or latents=...; give exactly one of them.")
        if self.latents is not None:
            _check_latents(self.latents)
        for name in ("strength", "start", "end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number from 0 to 1.")
        if self.start >= self.end:
            raise ValueError(f"start={self.start} is not before end={self.end}; the reference would never be read.")
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(
                f"weight is {self.weight}; expected a number above 0 (strength=0 switches a reference off)."
            )
        if self.image is not None:
            object.__setattr__(self, "image", read_image(self.image))
        for name in ("mask", "result_mask"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, read_mask(getattr(self, name)))


@contextmanager
def reference(pipe: DiffusionPipeline, references: Reference | Picture | Sequence[Reference | Picture], *,
              links: LinkName | AnyLink | Sequence[LinkName | AnyLink] = "attention", style_fidelity: float = 0.5,
              noise: Noise = "fresh", resize: Resize = "fit", own_size: bool = False) -> Iterator[Link]:  # fmt: skip
    """Let every call of a pipeline inside the `with` block refer to pictures.

    Args:
        pipe: Any diffusers pipeline with a UNet: Stable Diffusion 1, 2, XL, text-to-image, img2img, inpaint, ControlNet,
            AnimateDiff, with IP-Adapter and LoRA or without.
        references: One or several.
        links: `"attention"`, `"adain"`, or `Attention(weight=...)` and `AdaIN(weight=...)`; one or both.
        style_fidelity: s in [0, 1]. 1: the unconditional half sees no reference, so guidance pushes toward it; 0: it sees
            the same, and the prompt matters more.
        noise: Of the write pass. `"fresh"`: new at each step from the call's generator, as published. `"fixed"`: one per call,
            shared by all pictures, so that one write serves them. Or one tensor per step, (1, b or r, c, h, w) latents each.
        resize: `"fit"` keeps the reference's proportions, `"stretch"` gives it the result's size, as published.
        own_size: Tell SDXL the reference's own size instead of the result's in the write pass.

    Yields:
        The link; `print` shows where it reads.

    Raises:
        TypeError: If the pipeline has no UNet that can be linked, or a link or picture is of no known kind.
        ValueError: If a value is out of range, there is no reference, or the UNet is linked already.
    """
    chosen = _as_references(references)
    parsed = [_as_link(link) for link in ([links] if isinstance(links, str | Attention | AdaIN) else links)]
    _check_options(style_fidelity, noise, resize)
    with _linked(pipe, parsed) as (link, undo):
        _Session(pipe, link, chosen, style_fidelity, noise, resize, own_size).watch(undo)
        yield link


@contextmanager
def share(pipe: DiffusionPipeline, *, strength: float = 1.0, weight: float = 1.0, style_fidelity: float = 0.0,
          layers: float = 1.0) -> Iterator[Link]:  # fmt: skip
    """Let every picture of a batch refer to the batch's first one (StyleAligned, Hertz et al. 2023, its attention part).

    Args:
        pipe: As for `reference`.
        strength: In [0, 1]: how far the others' outputs move toward reading.
        weight: Above 0: how many times the first picture's tokens count.
        style_fidelity: In [0, 1]: how much less the unconditional half reads.
        layers: In [0, 1]: the link's weight, how many layers take part.

    Yields:
        The link.
    """
    _check_options(style_fidelity, "fresh", "fit")
    if not 0.0 <= strength <= 1.0 or not 0.0 < weight < float("inf"):
        raise ValueError(f"strength={strength} must lie in [0, 1] and weight={weight} above 0.")
    with _linked(pipe, [Attention(weight=layers)]) as (link, undo):
        passes = ExitStack()

        def before(unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            halves = half_weights(guided=_is_guided(pipe), style_fidelity=style_fidelity)
            passes.enter_context(
                link.sharing(halves=len(halves), weights=[strength * half for half in halves], weight=weight)
            )

        _surround(pipe.unet, before, passes, undo)
        yield link


@dataclass
class _Call:
    """What lasts for one call of the pipeline."""

    generator: Generators = None
    step: int = 0
    latents: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    fixed_noise: dict[torch.Size, Tensor] = field(default_factory=dict[torch.Size, Tensor])
    distinct: tuple[object, list[int]] | None = None


class _Session:
    """The write and read passes of `reference`, from the first call inside its block to the last."""

    def __init__(self, pipe: Any, link: Link, references: list[Reference], style_fidelity: float, noise: Noise,
                 resize: Resize, own_size: bool) -> None:  # fmt: skip
        self.pipe = pipe
        self.link = link
        self.references = references
        self.style_fidelity = style_fidelity
        self.noise: Noise = noise
        self.resize: Resize = resize
        self.own_size = own_size
        self.call = _Call()
        self.passes = ExitStack()
        self.is_writing = False

    def watch(self, undo: ExitStack) -> None:
        """Follow the pipeline's calls until `undo` closes."""
        pipe, announce = self.pipe, self.pipe.prepare_extra_step_kwargs
        signature = inspect.signature(announce)

        def announced(
            *args: Any, **kwargs: Any
        ) -> Any:  # every call tells its generator here, once, before its first step
            self.call = _Call(signature.bind(*args, **kwargs).arguments.get("generator"))
            return announce(*args, **kwargs)

        pipe.prepare_extra_step_kwargs = announced
        undo.callback(pipe.__dict__.pop, "prepare_extra_step_kwargs", None)
        _surround(pipe.unet, self.before, self.passes, undo)

    def before(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Write what is read at this step, and let the pass that follows read it."""
        if self.is_writing:
            return
        call = UNetCall.bind(self.link.unet, args, kwargs)
        active = [i for i, reference in enumerate(self.references) if self._is_active(reference)]
        halves = half_weights(guided=_is_guided(self.pipe), style_fidelity=self.style_fidelity)
        if active and any(halves):
            sources, plan = self._rows(call, halves, active)
            noise: dict[torch.Size, Tensor] = {}
            reads = [self._write(i, call, sources, noise) for i in active]
            self.passes.enter_context(self.link.reading(reads, plan=plan))
        self.call.step += 1

    def _is_active(self, reference: Reference) -> bool:
        """Whether a reference is read at this step; the same rule as diffusers' control_guidance_start and _end."""
        steps = getattr(self.pipe, "num_timesteps", None) or len(self.pipe.scheduler.timesteps)
        step = self.call.step % steps
        return reference.strength > 0 and step / steps >= reference.start and (step + 1) / steps <= reference.end

    def _rows(self, call: UNetCall, halves: list[float], active: list[int]) -> tuple[list[int], RowPlan]:
        """Which rows are written, and who reads them: rows that would be written alike are written once.

        Returns:
            The rows in whose place the reference is shown, and the plan of the reading batch over them.
        """
        pictures = call.rows // len(halves)
        weights = [halves[row // pictures] for row in range(call.rows)]
        own_latents = any(self._latents(i, call).shape[0] > 1 for i in active)
        if self.noise == "fixed" and not own_latents:
            conditions = call.conditions.get("encoder_hidden_states")
            if self.call.distinct is None or self.call.distinct[0] is not conditions:
                self.call.distinct = (conditions, call.distinct_rows())
            alike = self.call.distinct[1]
        else:
            alike = list(range(call.rows))
        written = sorted({alike[row] for row in range(call.rows) if weights[row] > 0})
        places = {row: place for place, row in enumerate(written)}
        return written, plan_rows([places.get(alike[row], 0) for row in range(call.rows)], weights)

    def _write(self, index: int, call: UNetCall, rows: list[int], noise: dict[torch.Size, Tensor]) -> ReadBank:
        """One reference's bank for this step.

        Args:
            index: Which reference.
            call: The pass that will read.
            rows: The rows in whose place the reference is shown.
            noise: Of this step by shape: references of one shape share it, so that their order does not matter.
        """
        reference, latents = self.references[index], self._latents(index, call)
        pictures = call.rows // len(half_weights(guided=_is_guided(self.pipe), style_fidelity=0.0))
        if latents.shape not in noise:
            noise[latents.shape] = self._noise(latents, pictures, call.rows)
        drawn = noise[latents.shape]
        clean = latents[[row % latents.shape[0] for row in rows]]
        shown = drawn[[row % drawn.shape[0] for row in rows]]
        scheduler, timestep = self.pipe.scheduler, torch.as_tensor(call.timestep, device=latents.device)
        noised = scheduler.add_noise(clean, shown, timestep.reshape(-1)[:1]).to(call.sample.dtype)
        sample = scheduler.scale_model_input(noised, call.timestep)
        if call.sample.shape[1] == 2 * latents.shape[1] + 1:  # inpainting: [noised, nothing masked, clean]
            sample = torch.cat([sample, torch.zeros_like(sample[:, :1]), clean.to(sample.dtype)], dim=1)
        if call.sample.ndim == 5:
            sample = sample.unsqueeze(2)  # one frame
        size = (latents.shape[-2], latents.shape[-1])
        readable, visible = self._mask(reference.mask, size), self._mask(reference.result_mask, call.size)
        conditions = call.conditions_of(rows, size)
        if self.own_size:
            conditions = self._with_own_size(conditions, reference, size)
        self.is_writing = True
        try:
            bank = self.link.write(sample, call.timestep_of(rows), readable=readable, **conditions)
        finally:
            self.is_writing = False
        return ReadBank(
            bank=bank, strength=reference.strength, weight=reference.weight, readable=readable, visible=visible
        )

    def _noise(self, latents: Tensor, pictures: int, rows: int) -> Tensor:
        """Noise for one shape of latents at this step: one entry for all pictures, for each picture or for each row."""
        shape = latents.shape[1:]
        if isinstance(self.noise, str):
            if self.noise == "fixed" and shape in self.call.fixed_noise:
                return self.call.fixed_noise[shape]
            count = 1 if self.noise == "fixed" else pictures
            generator = self.call.generator
            if isinstance(generator, list):
                generator = generator[0] if count != len(generator) else generator
            drawn = randn_tensor((count, *shape), generator=generator, device=latents.device, dtype=latents.dtype)
            self.call.fixed_noise[shape] = drawn
            return drawn
        if self.call.step >= len(self.noise):
            raise ValueError(
                f"noise has {len(self.noise)} tensors, but this is step {self.call.step + 1}; give one per step."
            )
        given = self.noise[self.call.step].to(latents)
        if given.shape[1:] != shape or given.shape[0] not in (1, pictures, rows):
            raise ValueError(
                f"the noise of step {self.call.step + 1} is {tuple(given.shape)}; expected {(pictures, *shape)}, or 1 or "
                f"{rows} in place of {pictures}."
            )
        return given

    def _latents(self, index: int, call: UNetCall) -> Tensor:
        """A reference's latents, encoded once per call: (1 or b, c, h, w)."""
        if index not in self.call.latents:
            reference = self.references[index]
            like = call.sample
            if reference.latents is not None:
                latents = reference.latents.to(like)
            else:
                latents = self._encode(self._prepared(reference, call), like)
            self.call.latents[index] = latents
        return self.call.latents[index]

    def _prepared(self, reference: Reference, call: UNetCall) -> Image.Image:
        """The reference's picture at the size it is encoded."""
        scale = self.pipe.vae_scale_factor
        wanted = (call.size[1] * scale, call.size[0] * scale)
        assert isinstance(reference.image, Image.Image)  # read when the Reference was made
        return resize_image(reference.image, wanted, how=self.resize, multiple=scale)

    def _encode(self, image: Image.Image, like: Tensor) -> Tensor:
        """A sample of the VAE's posterior, scaled: (1, c, h, w)."""
        vae = self.pipe.vae
        dtype = vae.dtype
        if upcast := dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
            vae.to(torch.float32)
        pixels = to_tensor(image)[None].to(like.device, vae.dtype) * 2 - 1
        encoded = vae.encode(pixels)
        if upcast:
            vae.to(dtype)
        if hasattr(encoded, "latents"):  # an autoencoder without a posterior
            return (encoded.latents * vae.config.scaling_factor).to(like.dtype)
        posterior = encoded.latent_dist
        generator = self.call.generator[0] if isinstance(self.call.generator, list) else self.call.generator
        return (posterior.sample(generator) * vae.config.scaling_factor).to(like.dtype)

    def _mask(self, mask: Picture | None, size: tuple[int, int]) -> Pyramid | None:
        """A mask for latents of one size."""
        if mask is None:
            return None
        assert isinstance(mask, Image.Image)  # read when the Reference was made
        return Pyramid.of(to_tensor(mask)[0], size).to(self.pipe.unet.device)

    def _with_own_size(self, conditions: dict[str, Any], reference: Reference, size: tuple[int, int]) -> dict[str, Any]:
        """SDXL's added conditions, saying the reference's own size: (original, crop, target), each height first."""
        added = conditions.get("added_cond_kwargs") or {}
        if "time_ids" not in added or not isinstance(reference.image, Image.Image):
            return conditions
        scale = self.pipe.vae_scale_factor
        own = [reference.image.height, reference.image.width, 0, 0, size[0] * scale, size[1] * scale]
        time_ids = added["time_ids"].clone()
        kept = 6 if time_ids.shape[1] == 6 else 4  # refiners have a score in the place of the target size
        time_ids[:, :kept] = time_ids.new_tensor(own[:kept])
        return {**conditions, "added_cond_kwargs": {**added, "time_ids": time_ids}}


@contextmanager
def _linked(pipe: Any, links: list[AnyLink]) -> Iterator[tuple[Link, ExitStack]]:
    """Check the pipeline, link its UNet, and undo everything that the caller adds to the stack."""
    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(f"reference() links a diffusers pipeline, but was given a {type(pipe).__name__}.")
    unet = getattr(pipe, "unet", None)
    core = getattr(unet, "_orig_mod", unet)  # torch.compile's wrapper runs hooks outside of the compiled code
    if not isinstance(core, nn.Module) or not hasattr(pipe, "prepare_extra_step_kwargs"):
        raise TypeError(
            f"{type(pipe).__name__} has no UNet that could read a reference; expected a Stable Diffusion 1, 2, XL or "
            "AnimateDiff pipeline. Transformers (SD 3, Flux) work differently."
        )
    with ExitStack() as undo:
        link = undo.enter_context(attach(core, links))
        yield link, undo


def _surround(unet: nn.Module, before: Any, passes: ExitStack, undo: ExitStack) -> None:
    """Run `before` ahead of every forward of the UNet, and close `passes` behind it, also when it raises."""
    undo.callback(passes.close)
    undo.callback(unet.register_forward_pre_hook(before, with_kwargs=True).remove)
    undo.callback(unet.register_forward_hook(lambda *_: passes.close(), always_call=True).remove)


def _is_guided(pipe: Any) -> bool:
    return bool(getattr(pipe, "do_classifier_free_guidance", False))


def _as_references(given: Any) -> list[Reference]:
    """One or several references, as a list."""
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several:
        raise ValueError("the list of references is empty; give at least one picture, or do not link at all.")
    return [one if isinstance(one, Reference) else Reference(one) for one in several]


def _as_link(given: LinkName | AnyLink) -> AnyLink:
    """A link from its name."""
    if not isinstance(given, str):
        return given
    if given not in LINKS:
        raise ValueError(f"unknown link {given!r}; expected one of {sorted(LINKS)}, or Attention(...) and AdaIN(...).")
    return LINKS[given]()


def _check_options(style_fidelity: float, noise: Noise, resize: Resize) -> None:
    if not 0.0 <= style_fidelity <= 1.0:
        raise ValueError(
            f"style_fidelity is {style_fidelity}; expected 0 (the prompt matters more) to 1 (the reference)."
        )
    if isinstance(noise, str) and noise not in ("fresh", "fixed"):
        raise ValueError(f"noise is {noise!r}; expected 'fresh', 'fixed', or one tensor per step.")
    if resize not in ("fit", "stretch"):
        raise ValueError(f"resize is {resize!r}; expected 'fit' or 'stretch'.")


def _check_latents(latents: Tensor) -> None:
    if not isinstance(latents, Tensor) or latents.ndim != 4:
        shape = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"reference latents are (pictures, channels, height, width), but these are {shape}.")
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            "the reference latents hold NaN or infinite values; a half-precision VAE often causes that: encode in float32."
        )
