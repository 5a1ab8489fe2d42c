"""The passes of training-free reference control inside a pipeline's calls: write before each denoising pass, then read.

A session lasts for one `with` block, a `Call` for one call of a pipeline. The UNet is followed through forward hooks;
everything else comes from the pipeline that is calling it, which need not be the one that was linked: several may
share a UNet. Letters: r rows of the guidance batch, b pictures (r over the parts of guidance), c channels, (h, w)
latents. How sites read is not known here; that is the links' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from referencenet.links.attach import Link, ReadBank
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.links.turns import Busy
from referencenet.media.images import Resize, resize, to_tensor
from referencenet.sampling.caller import Caller, find_caller
from referencenet.sampling.channels import Beside, beside_latents, only_where_shown, shown_beside
from referencenet.sampling.following import surround
from referencenet.sampling.guidance import Batch, batch_of
from referencenet.sampling.latents import posterior_samples
from referencenet.sampling.levels import at_level
from referencenet.sampling.references import Reference
from referencenet.sampling.rewriting import Rewriting
from referencenet.sampling.support import check_pipeline
from referencenet.sampling.undivided import undivided
from referencenet.sampling.unet_call import UNetCall, with_own_size

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
        beside: Reference number to what stands beside its latents (1 or b, further channels, h, w).
        fixed_noise: Shape of latents to the noise shared by all steps and pictures.
        distinct: The conditions last seen, and for each row the first row with equal ones.
        batches: What the rows of its passes are for, by what that depends on.
        kinds: Number of channels to what stands beside the latents.
        rewriting: What was written last, where not every step writes.
    """

    pipe: Any
    generator: Generators = None
    latents: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    beside: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    fixed_noise: dict[torch.Size, Tensor] = field(default_factory=dict[torch.Size, Tensor])
    distinct: tuple[object, list[int]] | None = None
    batches: dict[object, Batch] = field(default_factory=dict[object, Batch])
    kinds: dict[int, Beside] = field(default_factory=dict[int, Beside])
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


@dataclass(frozen=True)
class Pass:
    """A denoising pass that is about to read.

    Attributes:
        unet: The call of the UNet.
        batch: What its rows are for.
        amounts: How much each row reads.
        beside: What stands beside its latents.
        step: The number of the step, and of how many; None where nothing depends on it.
        scheduler: What leads it.
    """

    unet: UNetCall
    batch: Batch
    amounts: Sequence[float]
    beside: Beside
    step: tuple[int, int] | None
    scheduler: Any


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
        batch = batch_of(caller, given, self.settings.guided, call.batches)
        amounts = batch.amounts(self.settings.style_fidelity)
        if not active or not any(amounts):
            return
        channels = given.sample.shape[1]
        if channels not in call.kinds:
            call.kinds[channels] = beside_latents(caller, given, _channels(self.link.unet))
        now = Pass(given, batch, amounts, call.kinds[channels], step, caller.scheduler)
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
            self._write(
                self.references[i], self._shown(i, each, noise[each.shape[1:]], call, now, rows), call, now, rows
            )
            for i, each in latents.items()
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
        alike = now.batch.writers()
        if self.settings.noise == "fixed" and all(each.shape[0] == 1 for each in latents.values()):
            conditions = now.unet.conditions.get("encoder_hidden_states")
            if call.distinct is None or call.distinct[0] is not conditions:
                call.distinct = (conditions, now.unet.distinct_rows(now.beside == "picture"))
            alike = [call.distinct[1][row] for row in alike]
        written = sorted({alike[row] for row in range(rows) if now.amounts[row] > 0})
        places = {row: place for place, row in enumerate(written)}
        return written, plan_rows([places.get(alike[row], 0) for row in range(rows)], now.amounts)

    def _shown(self, index: int, latents: Tensor, noise: Tensor, call: Call, now: Pass, rows: list[int]) -> Tensor:
        """A reference as the UNet takes it at this step, (rows, channels, h, w), or a film of one such frame.

        Args:
            index: Which reference.
            latents: Its latents, (1 or b, c, h, w).
            noise: Of this step, (1, b or r, c, h, w).
            call: The pipeline's call.
            now: The pass that will read.
            rows: The rows in whose place it is shown.
        """
        given, pictures = now.unet.sample, now.batch.pictures

        def of(entries: Tensor) -> Tensor:
            """The entries for the rows: one for all, one for each picture or one for each row."""
            places = range(now.unet.rows) if len(entries) == now.unet.rows else pictures
            return entries[[places[row] if len(entries) > 1 else 0 for row in rows]]

        sample = at_level(now.scheduler, of(latents), of(noise), now.unet.timestep).to(given.dtype)
        if now.beside != "nothing":
            if index not in call.beside:
                picture = partial(self._picture, self.references[index], call, now)
                call.beside[index] = shown_beside(now.beside, call.pipe, latents, picture).to(given.dtype)
            beside = of(call.beside[index])
            sample = torch.cat(
                [sample, only_where_shown(beside, given[rows]) if now.beside == "picture" else beside], 1
            )
        return sample.unsqueeze(2) if given.ndim == 5 else sample  # one frame

    def _write(self, reference: Reference, sample: Tensor, call: Call, now: Pass, rows: list[int]) -> ReadBank:
        """One reference's bank for this step.

        Args:
            reference: What is shown.
            sample: As it is shown.
            call: The pipeline's call.
            now: The pass that will read.
            rows: The rows in whose place the reference is shown.
        """
        size = (sample.shape[-2], sample.shape[-1])
        readable, visible = _mask(reference.mask, size, sample), _mask(reference.result_mask, now.unet.size, sample)
        conditions = now.unet.conditions_of(rows, size)
        if self.settings.own_size and reference.picture is not None:
            pixels = (size[0] * call.pipe.vae_scale_factor, size[1] * call.pipe.vae_scale_factor)
            conditions = with_own_size(conditions, reference.picture, pixels)
        # keys and values are twice the inputs, and a bank for half the rows or fewer can afford them; a bank for every
        # row is projected again while it is read, 1 to 3 % of a step for a fifth of its memory
        projected = 2 * len(rows) <= now.unet.rows
        self.is_writing = True
        try:
            with undivided(self.link.unet):
                timestep = now.unet.timestep_of(rows)
                bank = self.link.write(sample, timestep, readable=readable, projected=projected, **conditions)
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
            count = 1 if given == "fixed" else now.batch.count
            generator = _generator_for(call.generator, count)
            drawn = randn_tensor((count, *shape), generator=generator, device=latents.device, dtype=latents.dtype)
            if given == "fixed":
                call.fixed_noise[shape] = drawn
            return drawn
        assert now.step is not None  # it was asked for, as noise is given by step
        step, pictures, rows = now.step[0], now.batch.count, now.unet.rows
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
            if reference.latents is not None:
                latents = reference.latents.to(now.unet.sample)
            else:
                latents = self._encode(reference, call, now)
            expected, pictures = _channels(self.link.unet), now.batch.count
            if latents.shape[1] != expected or latents.shape[0] not in (1, pictures):
                raise ValueError(
                    f"the reference latents are {tuple(latents.shape)}, but this call makes {pictures} pictures "
                    f"with {expected} latent channels; expected (1 or {pictures}, {expected}, height, width)."
                )
            call.latents[index] = latents
        return call.latents[index]

    def _encode(self, reference: Reference, call: Call, now: Pass) -> Tensor:
        """Samples of the VAE's posterior, scaled: one, or one per picture where each has a generator of its own."""
        image, like = self._picture(reference, call, now), now.unet.sample
        assert image is not None  # a Reference has latents or a picture
        count = 1 if self.settings.noise == "fixed" else now.batch.count
        generator = _generator_for(call.generator, count)
        generators = generator if isinstance(generator, list) else [generator]
        return posterior_samples(call.pipe.vae, to_tensor(image)[None].to(like.device), generators).to(like.dtype)

    def _picture(self, reference: Reference, call: Call, now: Pass) -> Image.Image | None:
        """A reference's picture, if it is one, at the size at which it is shown."""
        scale = call.pipe.vae_scale_factor
        size = (now.unet.size[1] * scale, now.unet.size[0] * scale)
        picture = reference.picture
        return None if picture is None else resize(picture, size, how=self.settings.resize, multiple=scale)


def halves_of(caller: Caller, given: UNetCall, call: Call, guided: bool | None, style_fidelity: float) -> list[float]:
    """How much each part of a pass's guidance batch reads.

    Args:
        caller: The pipeline's call.
        given: The pass.
        call: What lasts for the pipeline's call.
        guided: What the user said about guidance.
        style_fidelity: s in [0, 1].

    Raises:
        ValueError: If the batch is of a kind that is not known, or has no parts behind each other.
    """
    batch = batch_of(caller, given, guided, call.batches)
    if batch.by_picture or "perturbed" in batch.parts:
        raise ValueError(
            f"the batch of {type(caller.pipe).__name__} holds {'views' if batch.by_picture else 'a perturbed part'}, "
            "whose rows cannot share their first picture; use reference()."
        )
    return batch.amounts(style_fidelity)[:: batch.count]


def _like(now: Pass, latents: dict[int, Tensor], rows: list[int]) -> tuple[object, ...]:
    """What banks depend on beside the step, as a value."""
    return tuple(latents), tuple(rows), tuple(now.unet.sample.shape)


def _is_active(reference: Reference, step: tuple[int, int] | None) -> bool:
    """Whether a reference is read at a step, by the rule of diffusers' control_guidance_start and _end."""
    if reference.strength == 0.0 or step is None:
        return reference.strength > 0.0
    index, steps = step
    return index / steps >= reference.start and (index + 1) / steps <= reference.end


def _channels(unet: nn.Module) -> int:
    """Of the latents that a UNet works on."""
    return int(unet.config.out_channels)  # pyright: ignore


def _mask(mask: Any, size: tuple[int, int], like: Tensor) -> Pyramid | None:
    """A mask for latents of one size, on the device of `like`: an offloaded UNet's own device may be `meta`."""
    return None if mask is None else Pyramid.of(to_tensor(mask)[0], size).to(like.device)


def _generator_for(generator: Generators, count: int) -> Generators:
    """The generator for `count` draws: a list only if it has one for each."""
    if isinstance(generator, list):
        return generator if len(generator) == count > 1 else generator[0]
    return generator
