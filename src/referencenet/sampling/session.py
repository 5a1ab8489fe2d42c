"""The passes of training-free reference control inside a pipeline's calls: write before each denoising pass, then read.

A session lasts for one `with` block, a `Call` for one call of a pipeline. The UNet is followed through forward hooks;
everything else comes from the pipeline that is calling it, which need not be the one that was linked: several may
share a UNet. Letters: r rows of the guidance batch, b pictures (r or r / 2), c channels, (h, w) latents. How sites read
is not known here; that is the links' part.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers.models.attention import FreeNoiseTransformerBlock
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from referencenet.links.attach import Link, ReadBank
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.links.turns import Busy
from referencenet.media.images import Resize, resize, to_tensor
from referencenet.sampling.caller import Caller, find_caller
from referencenet.sampling.following import surround
from referencenet.sampling.guidance import check_halves, half_weights, is_guided
from referencenet.sampling.latents import posterior_samples
from referencenet.sampling.levels import at_level
from referencenet.sampling.references import Reference
from referencenet.sampling.rewriting import Rewriting
from referencenet.sampling.support import check_pipeline
from referencenet.sampling.unet_call import UNetCall

Noise = Literal["fresh", "fixed"] | Sequence[Tensor]
Generators = torch.Generator | list[torch.Generator] | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `reference` was told beside the references.

    Attributes:
        style_fidelity: s in [0, 1]; the unconditional half reads by 1 - s.
        noise: Of the write pass.
        resize: How the reference is brought to the result's size.
        own_size: Whether SDXL is told the reference's own size in the write pass.
        guided: Whether passes have an unconditional half; None: as the pipeline says.
        write_every: There is writing at every so many steps.
    """

    style_fidelity: float
    noise: Noise
    resize: Resize
    own_size: bool
    guided: bool | None = None
    write_every: int = 1


@dataclass
class Call:
    """What lasts for one call of a pipeline.

    Attributes:
        pipe: The pipeline.
        generator: The call's.
        latents: Reference number to its latents (1 or b, c, h, w).
        fixed_noise: Shape of latents to the noise shared by all steps and pictures.
        distinct: The conditions last seen, and for each row the first row with equal ones.
        seen: What of this call's batches was looked at, by what it depends on.
        rewriting: What was written last, where not every step writes.
    """

    pipe: Any
    generator: Generators = None
    latents: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    fixed_noise: dict[torch.Size, Tensor] = field(default_factory=dict[torch.Size, Tensor])
    distinct: tuple[object, list[int]] | None = None
    seen: set[object] = field(default_factory=set[object])
    rewriting: Rewriting = field(default_factory=Rewriting)

    @classmethod
    def of(cls, caller: Caller, link: Link, *, has_pictures: bool = False) -> Call:
        """That of a pipeline's call, made at its first pass.

        Args:
            caller: The pipeline's call.
            link: What is attached to the UNet.
            has_pictures: Whether a reference is a picture.

        Raises:
            TypeError: If the pipeline's calls of the UNet are of a kind that no reference fits.
        """

        def begin() -> Call:
            check_pipeline(caller.pipe, link.unet, has_pictures=has_pictures)
            return cls(caller.pipe, caller.local("generator"))

        return caller.kept(f"call of link {id(link)}", begin)

    def once(self, key: object, check: Callable[[], None]) -> None:
        """Check what holds for the whole call, once."""
        if key not in self.seen:
            check()
            self.seen.add(key)


@dataclass(frozen=True)
class Pass:
    """A denoising pass that is about to read.

    Attributes:
        unet: The call of the UNet.
        pictures: The number of pictures b in the batch.
        halves: How much each guidance half reads.
        step: The number of the step, and of how many; None where nothing depends on it.
    """

    unet: UNetCall
    pictures: int
    halves: Sequence[float]
    step: tuple[int, int] | None


class Session:
    """Writes and reads for every denoising pass of the linked UNet, from `watch` until its stack closes."""

    def __init__(self, link: Link, references: Sequence[Reference], settings: Settings) -> None:
        self.link = link
        self.references = references
        self.settings = settings
        self.passes = ExitStack()
        self.is_writing = False

    def watch(self, pipe: Any, undo: ExitStack, busy: Busy = "refuse") -> None:
        """Follow the calls of a pipeline's UNet until `undo` closes, whichever pipeline makes them, in one thread."""
        surround(pipe, self.before, self.passes, undo, busy)

    def before(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Write what is read at this step, and let the pass that follows read it."""
        if self.is_writing:
            return
        caller = find_caller(self.link.unet)
        has_pictures = any(reference.picture is not None for reference in self.references)
        call = Call.of(caller, self.link, has_pictures=has_pictures)
        given = UNetCall.bind(self.link.unet, args, kwargs)
        step = self._step(caller, given)
        active = [i for i, reference in enumerate(self.references) if _is_active(reference, step)]
        halves = halves_of(caller, given, call, self.settings.guided, self.settings.style_fidelity)
        if not active or not any(halves):
            return
        now = Pass(given, given.rows // len(halves), halves, step)
        latents = {i: self._latents(i, call, now) for i in active}
        rows, plan = self._rows(call, now, latents)
        reads = self._kept(call, now, latents, rows) or self._written(call, now, latents, rows)
        can_empty = self.link.can_read_once and self.settings.write_every == 1
        once = can_empty and unet is self.link.unet  # else a compiled wrapper of it
        self.passes.enter_context(self.link.reading(reads, plan=plan, once=once))

    def _kept(self, call: Call, now: Pass, latents: dict[int, Tensor], rows: list[int]) -> Sequence[ReadBank] | None:
        """What an earlier step wrote for such a pass, where not every step writes."""
        if self.settings.write_every == 1:
            return None
        assert now.step is not None  # it was asked for, as banks are kept by step
        return call.rewriting.recall(now.step[0], self.settings.write_every, _like(now, latents, rows))

    def _written(self, call: Call, now: Pass, latents: dict[int, Tensor], rows: list[int]) -> list[ReadBank]:
        """The banks of this step; kept where others will read them."""
        noise: dict[torch.Size, Tensor] = {}  # references of one shape share it: their order does not matter
        for each in latents.values():
            if each.shape[1:] not in noise:
                noise[each.shape[1:]] = self._noise(each, call, now)
        reads = [
            self._write(self.references[i], each, noise[each.shape[1:]], call, now, rows) for i, each in latents.items()
        ]
        if self.settings.write_every > 1:
            call.rewriting.keep(_like(now, latents, rows), reads)
        return reads

    def _step(self, caller: Caller, call: UNetCall) -> tuple[int, int] | None:
        """The step's number, if anything depends on it."""
        reads_always = all(reference.start == 0.0 and reference.end == 1.0 for reference in self.references)
        if reads_always and isinstance(self.settings.noise, str) and self.settings.write_every == 1:
            return None
        step = caller.step(call.timestep)
        if step is None:
            raise ValueError(
                f"{type(caller.pipe).__name__} does not say at which of its steps its UNet is called, so start=, end=, "
                "write_every= and noise=[one per step] cannot be followed; leave them at their defaults."
            )
        return step

    def _rows(self, call: Call, now: Pass, latents: dict[int, Tensor]) -> tuple[list[int], RowPlan]:
        """Which rows are written, and who reads them; rows that would be written alike are written once.

        Returns:
            The rows in whose place the reference is shown, and the plan of the reading batch over them.
        """
        rows = now.unet.rows
        weights = [now.halves[row // now.pictures] for row in range(rows)]
        alike = list(range(rows))
        if self.settings.noise == "fixed" and all(each.shape[0] == 1 for each in latents.values()):
            conditions = now.unet.conditions.get("encoder_hidden_states")
            if call.distinct is None or call.distinct[0] is not conditions:
                call.distinct = (conditions, now.unet.distinct_rows())
            alike = call.distinct[1]
        written = sorted({alike[row] for row in range(rows) if weights[row] > 0})
        places = {row: place for place, row in enumerate(written)}
        return written, plan_rows([places.get(alike[row], 0) for row in range(rows)], weights)

    def _write(self, reference: Reference, latents: Tensor, noise: Tensor, call: Call, now: Pass,
               rows: list[int]) -> ReadBank:  # fmt: skip
        """One reference's bank for this step.

        Args:
            reference: What is shown.
            latents: Its latents, (1 or b, c, h, w).
            noise: Of this step, (1, b or r, c, h, w).
            call: The pipeline's call.
            now: The pass that will read.
            rows: The rows in whose place the reference is shown.
        """
        clean, shown = latents[[row % latents.shape[0] for row in rows]], noise[[row % noise.shape[0] for row in rows]]
        size = (latents.shape[-2], latents.shape[-1])
        readable, visible = _mask(reference.mask, size, clean), _mask(reference.result_mask, now.unet.size, clean)
        conditions = now.unet.conditions_of(rows, size)
        if self.settings.own_size and reference.picture is not None:
            pixels = (size[0] * call.pipe.vae_scale_factor, size[1] * call.pipe.vae_scale_factor)
            conditions = _with_own_size(conditions, reference.picture, pixels)
        self.is_writing = True
        try:
            sample = _noised(clean, shown, call, now.unet)
            # keys and values are twice the inputs, and a bank for half the rows or fewer can afford them; a bank for
            # every row is projected again while it is read, 1 to 3 % of a step for a fifth of its memory
            projected = 2 * len(rows) <= now.unet.rows
            with _single_frames(self.link.unet):
                bank = self.link.write(
                    sample, now.unet.timestep_of(rows), readable=readable, projected=projected, **conditions
                )
        finally:
            self.is_writing = False
        return ReadBank(
            bank=bank, strength=reference.strength, weight=reference.weight, readable=readable, visible=visible
        )

    def _noise(self, latents: Tensor, call: Call, now: Pass) -> Tensor:
        """Noise for latents of one shape at this step: one entry for all pictures, for each picture or for each row."""
        given, shape = self.settings.noise, latents.shape[1:]
        if isinstance(given, str):
            if given == "fixed" and shape in call.fixed_noise:
                return call.fixed_noise[shape]
            count = 1 if given == "fixed" else now.pictures
            generator = _generator_for(call.generator, count)
            drawn = randn_tensor((count, *shape), generator=generator, device=latents.device, dtype=latents.dtype)
            if given == "fixed":
                call.fixed_noise[shape] = drawn
            return drawn
        assert now.step is not None  # it was asked for, as noise is given by step
        step, pictures, rows = now.step[0], now.pictures, now.unet.rows
        if step >= len(given):
            raise ValueError(f"noise has {len(given)} tensors, but this is step {step + 1}; give one per step.")
        noise = given[step].to(latents)
        if noise.shape[1:] != shape or noise.shape[0] not in (1, pictures, rows):
            raise ValueError(
                f"the noise of step {step + 1} is {tuple(noise.shape)}; expected {(pictures, *shape)}, or 1 or {rows} "
                f"in place of {pictures}."
            )
        return noise

    def _latents(self, index: int, call: Call, now: Pass) -> Tensor:
        """A reference's latents, encoded once per call: (1 or b, c, h, w)."""
        if index not in call.latents:
            reference = self.references[index]
            if reference.picture is not None:
                latents = self._encode(reference.picture, call, now)
            else:
                assert reference.latents is not None  # a Reference has one or the other
                latents = reference.latents.to(now.unet.sample)
            expected = int(self.link.unet.config.out_channels)  # pyright: ignore
            if latents.shape[1] != expected or latents.shape[0] not in (1, now.pictures):
                raise ValueError(
                    f"the reference latents are {tuple(latents.shape)}, but this call makes {now.pictures} pictures "
                    f"with {expected} latent channels; expected (1 or {now.pictures}, {expected}, height, width)."
                )
            call.latents[index] = latents
        return call.latents[index]

    def _encode(self, image: Image.Image, call: Call, now: Pass) -> Tensor:
        """Samples of the VAE's posterior, scaled: one, or one per picture where each has a generator of its own."""
        vae, like, scale = call.pipe.vae, now.unet.sample, call.pipe.vae_scale_factor
        size = (now.unet.size[1] * scale, now.unet.size[0] * scale)
        image = resize(image, size, how=self.settings.resize, multiple=scale)
        count = 1 if self.settings.noise == "fixed" else now.pictures
        generator = _generator_for(call.generator, count)
        generators = generator if isinstance(generator, list) else [generator]
        return posterior_samples(vae, to_tensor(image)[None].to(like.device), generators).to(like.dtype)


def halves_of(caller: Caller, given: UNetCall, call: Call, guided: bool | None, style_fidelity: float) -> list[float]:
    """How much each guidance half of a pass reads.

    Args:
        caller: The pipeline's call.
        given: The pass.
        call: What lasts for the pipeline's call.
        guided: What the user said about guidance.
        style_fidelity: s in [0, 1].

    Raises:
        ValueError: If the batch is of a kind that is not known.
    """
    is_two = is_guided(caller, given, guided)
    if is_two:
        call.once(("halves", given.rows), lambda: check_halves(caller, given))
    return half_weights(guided=is_two, style_fidelity=style_fidelity)


@contextmanager
def _single_frames(unet: nn.Module) -> Generator[None]:
    """Inside, FreeNoise's windows over films hold one frame, as the film of a write pass does."""
    blocks = [module for module in unet.modules() if isinstance(module, FreeNoiseTransformerBlock)]
    usual = [(block.context_length, block.context_stride, block.weighting_scheme) for block in blocks]
    try:
        for block in blocks:
            block.set_free_noise_properties(1, 1)
        yield
    finally:
        for block, properties in zip(blocks, usual, strict=True):
            block.set_free_noise_properties(*properties)


def _like(now: Pass, latents: dict[int, Tensor], rows: list[int]) -> tuple[object, ...]:
    """What banks depend on beside the step, as a value."""
    return tuple(latents), tuple(rows), tuple(now.unet.sample.shape)


def _is_active(reference: Reference, step: tuple[int, int] | None) -> bool:
    """Whether a reference is read at a step, by the rule of diffusers' control_guidance_start and _end."""
    if reference.strength == 0.0 or step is None:
        return reference.strength > 0.0
    index, steps = step
    return index / steps >= reference.start and (index + 1) / steps <= reference.end


def _noised(clean: Tensor, noise: Tensor, call: Call, given: UNetCall) -> Tensor:
    """The reference as the UNet takes it at this step, with the channels and axes of the denoising pass."""
    sample = at_level(call.pipe.scheduler, clean, noise, given.timestep).to(given.sample.dtype)
    if given.sample.shape[1] != clean.shape[1]:  # inpainting: [noised, nothing masked, clean]
        call.once("channels", lambda: _check_inpainting(call.pipe, given.sample, clean.shape[1]))
        sample = torch.cat([sample, torch.zeros_like(sample[:, :1]), clean.to(sample.dtype)], dim=1)
    return sample.unsqueeze(2) if given.sample.ndim == 5 else sample  # one frame


def _check_inpainting(pipe: Any, sample: Tensor, channels: int) -> None:
    """See that a sample has the channels of an inpainting checkpoint in diffusers' order."""
    is_one = sample.ndim == 4 and sample.shape[1] == 2 * channels + 1
    mask = sample[:, channels : channels + 1]
    if not is_one or not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(
            f"{type(pipe).__name__} gives its UNet {sample.shape[1]} channels with a meaning of their own: channel "
            f"{channels} is no mask of zeros and ones. Expected [latents, mask, latents of the masked picture], as "
            "diffusers' inpainting pipelines have them; a reference cannot be shown in another order."
        )


def _with_own_size(conditions: dict[str, Any], image: Image.Image, size: tuple[int, int]) -> dict[str, Any]:
    """SDXL's added conditions, saying the reference's own size: (original, crop, target), each height first."""
    added = conditions.get("added_cond_kwargs") or {}
    if "time_ids" not in added:
        return conditions
    own = [image.height, image.width, 0, 0, *size]
    time_ids = added["time_ids"].clone()
    kept = 6 if time_ids.shape[1] == 6 else 4  # refiners have a score in the place of the target size
    time_ids[:, :kept] = time_ids.new_tensor(own[:kept])
    return {**conditions, "added_cond_kwargs": {**added, "time_ids": time_ids}}


def _mask(mask: Any, size: tuple[int, int], like: Tensor) -> Pyramid | None:
    """A mask for latents of one size, on the device of `like`: an offloaded UNet's own device may be `meta`."""
    return None if mask is None else Pyramid.of(to_tensor(mask)[0], size).to(like.device)


def _generator_for(generator: Generators, count: int) -> Generators:
    """The generator for `count` draws: a list only if it has one for each."""
    if isinstance(generator, list):
        return generator if len(generator) == count > 1 else generator[0]
    return generator
