"""The passes of training-free reference control inside a pipeline's calls: write before each denoising pass, then read.

A session lasts for one `with` block, a `Call` for one call of the pipeline; the UNet is followed through forward hooks,
and the call's generator through the one method to which every pipeline hands it. Letters: r rows of the guidance batch,
b pictures (r or r / 2), c channels, (h, w) latents. How sites read is not known here; that is the links' part.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from referencenet.links.attach import Link, ReadBank
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.media.images import Resize, resize, to_tensor
from referencenet.sampling.guidance import half_weights, is_guided
from referencenet.sampling.references import Reference
from referencenet.sampling.unet_call import UNetCall

Noise = Literal["fresh", "fixed"] | Sequence[Tensor]
Generators = torch.Generator | list[torch.Generator] | None
Before = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `reference` was told beside the references.

    Attributes:
        style_fidelity: s in [0, 1]; the unconditional half reads by 1 - s.
        noise: Of the write pass.
        resize: How the reference is brought to the result's size.
        own_size: Whether SDXL is told the reference's own size in the write pass.
    """

    style_fidelity: float
    noise: Noise
    resize: Resize
    own_size: bool


@dataclass
class Call:
    """What lasts for one call of the pipeline.

    Attributes:
        generator: The call's.
        step: Denoising passes so far.
        latents: Reference number to its latents (1 or b, c, h, w).
        fixed_noise: Shape of latents to the noise shared by all steps and pictures.
        distinct: The conditions last seen, and for each row the first row with equal ones.
    """

    generator: Generators = None
    step: int = 0
    latents: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    fixed_noise: dict[torch.Size, Tensor] = field(default_factory=dict[torch.Size, Tensor])
    distinct: tuple[object, list[int]] | None = None


class Session:
    """Writes and reads for every denoising pass of a pipeline, from `watch` until its stack closes."""

    def __init__(self, pipe: Any, link: Link, references: Sequence[Reference], settings: Settings) -> None:
        self.pipe = pipe
        self.link = link
        self.references = references
        self.settings = settings
        self.call = Call()
        self.passes = ExitStack()
        self.is_writing = False

    def watch(self, undo: ExitStack) -> None:
        """Follow the pipeline's calls until `undo` closes."""
        announce = self.pipe.prepare_extra_step_kwargs
        signature = inspect.signature(announce)

        def announced(*args: Any, **kwargs: Any) -> Any:  # once per call, before its first step
            self.call = Call(signature.bind(*args, **kwargs).arguments.get("generator"))
            return announce(*args, **kwargs)

        self.pipe.prepare_extra_step_kwargs = announced
        undo.callback(self.pipe.__dict__.pop, "prepare_extra_step_kwargs", None)
        surround(self.pipe.unet, self.before, self.passes, undo)

    def before(self, _unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Write what is read at this step, and let the pass that follows read it."""
        if self.is_writing:
            return
        call = UNetCall.bind(self.link.unet, args, kwargs)
        active = [i for i, reference in enumerate(self.references) if self._is_active(reference)]
        halves = half_weights(guided=is_guided(self.pipe), style_fidelity=self.settings.style_fidelity)
        if active and any(halves):
            pictures = self._pictures(call, halves)
            latents = {i: self._latents(i, call, pictures) for i in active}
            rows, plan = self._rows(call, halves, pictures, latents)
            noise: dict[torch.Size, Tensor] = {}  # references of one shape share it: their order does not matter
            for each in latents.values():
                if each.shape[1:] not in noise:
                    noise[each.shape[1:]] = self._noise(each, pictures, call.rows)
            reads = [
                self._write(self.references[i], each, noise[each.shape[1:]], call, rows) for i, each in latents.items()
            ]
            once = self.link.can_read_once and self.pipe.unet is self.link.unet  # else a compiled wrapper of it
            self.passes.enter_context(self.link.reading(reads, plan=plan, once=once))
        self.call.step += 1

    def _is_active(self, reference: Reference) -> bool:
        """Whether a reference is read at this step, by the rule of diffusers' control_guidance_start and _end."""
        steps = getattr(self.pipe, "num_timesteps", None) or len(self.pipe.scheduler.timesteps)
        step = self.call.step % steps
        return reference.strength > 0 and step / steps >= reference.start and (step + 1) / steps <= reference.end

    def _pictures(self, call: UNetCall, halves: Sequence[float]) -> int:
        """The number of pictures b in the batch."""
        if call.rows % len(halves):
            raise ValueError(
                f"the UNet was called with {call.rows} rows under guidance; expected an even number, the unconditional "
                "half first."
            )
        return call.rows // len(halves)

    def _rows(
        self, call: UNetCall, halves: Sequence[float], pictures: int, latents: dict[int, Tensor]
    ) -> tuple[list[int], RowPlan]:
        """Which rows are written, and who reads them; rows that would be written alike are written once.

        Returns:
            The rows in whose place the reference is shown, and the plan of the reading batch over them.
        """
        weights = [halves[row // pictures] for row in range(call.rows)]
        alike = list(range(call.rows))
        if self.settings.noise == "fixed" and all(each.shape[0] == 1 for each in latents.values()):
            conditions = call.conditions.get("encoder_hidden_states")
            if self.call.distinct is None or self.call.distinct[0] is not conditions:
                self.call.distinct = (conditions, call.distinct_rows())
            alike = self.call.distinct[1]
        written = sorted({alike[row] for row in range(call.rows) if weights[row] > 0})
        places = {row: place for place, row in enumerate(written)}
        return written, plan_rows([places.get(alike[row], 0) for row in range(call.rows)], weights)

    def _write(self, reference: Reference, latents: Tensor, noise: Tensor, call: UNetCall, rows: list[int]) -> ReadBank:
        """One reference's bank for this step.

        Args:
            reference: What is shown.
            latents: Its latents, (1 or b, c, h, w).
            noise: Of this step, (1, b or r, c, h, w).
            call: The pass that will read.
            rows: The rows in whose place the reference is shown.
        """
        clean, shown = latents[[row % latents.shape[0] for row in rows]], noise[[row % noise.shape[0] for row in rows]]
        size = (latents.shape[-2], latents.shape[-1])
        readable, visible = _mask(reference.mask, size, clean), _mask(reference.result_mask, call.size, clean)
        conditions = call.conditions_of(rows, size)
        if self.settings.own_size and reference.picture is not None:
            conditions = self._with_own_size(conditions, reference.picture, size)
        self.is_writing = True
        try:
            sample = self._noised(clean, shown, call)
            # keys and values are twice the inputs, and a bank for half the rows or fewer can afford them; a bank for
            # every row is projected again while it is read, 1 to 3 % of a step for a fifth of its memory
            projected = 2 * len(rows) <= call.rows
            bank = self.link.write(sample, call.timestep_of(rows), readable=readable, projected=projected, **conditions)
        finally:
            self.is_writing = False
        return ReadBank(
            bank=bank, strength=reference.strength, weight=reference.weight, readable=readable, visible=visible
        )

    def _noised(self, clean: Tensor, noise: Tensor, call: UNetCall) -> Tensor:
        """The reference as the UNet takes it at this step, with the channels and axes of the denoising pass."""
        timestep = torch.as_tensor(call.timestep, device=clean.device)
        noised = self.pipe.scheduler.add_noise(clean, noise, timestep.reshape(-1)[:1]).to(call.sample.dtype)
        sample = self.pipe.scheduler.scale_model_input(noised, call.timestep)
        if call.sample.shape[1] == 2 * clean.shape[1] + 1:  # inpainting: [noised, nothing masked, clean]
            sample = torch.cat([sample, torch.zeros_like(sample[:, :1]), clean.to(sample.dtype)], dim=1)
        return sample.unsqueeze(2) if call.sample.ndim == 5 else sample  # one frame

    def _noise(self, latents: Tensor, pictures: int, rows: int) -> Tensor:
        """Noise for latents of one shape at this step: one entry for all pictures, for each picture or for each row."""
        given, shape = self.settings.noise, latents.shape[1:]
        if isinstance(given, str):
            if given == "fixed" and shape in self.call.fixed_noise:
                return self.call.fixed_noise[shape]
            count = 1 if given == "fixed" else pictures
            generator = _generator_for(self.call.generator, count)
            drawn = randn_tensor((count, *shape), generator=generator, device=latents.device, dtype=latents.dtype)
            if given == "fixed":
                self.call.fixed_noise[shape] = drawn
            return drawn
        step = self.call.step
        if step >= len(given):
            raise ValueError(f"noise has {len(given)} tensors, but this is step {step + 1}; give one per step.")
        noise = given[step].to(latents)
        if noise.shape[1:] != shape or noise.shape[0] not in (1, pictures, rows):
            raise ValueError(
                f"the noise of step {step + 1} is {tuple(noise.shape)}; expected {(pictures, *shape)}, or 1 or {rows} "
                f"in place of {pictures}."
            )
        return noise

    def _latents(self, index: int, call: UNetCall, pictures: int) -> Tensor:
        """A reference's latents, encoded once per call: (1 or b, c, h, w)."""
        if index not in self.call.latents:
            reference = self.references[index]
            if reference.picture is not None:
                latents = self._encode(reference.picture, call, pictures)
            else:
                assert reference.latents is not None  # a Reference has one or the other
                latents = reference.latents.to(call.sample)
            expected = int(self.link.unet.config.out_channels)  # pyright: ignore
            if latents.shape[1] != expected or latents.shape[0] not in (1, pictures):
                raise ValueError(
                    f"the reference latents are {tuple(latents.shape)}, but this call makes {pictures} pictures with "
                    f"{expected} latent channels; expected (1 or {pictures}, {expected}, height, width)."
                )
            self.call.latents[index] = latents
        return self.call.latents[index]

    def _encode(self, image: Image.Image, call: UNetCall, pictures: int) -> Tensor:
        """Samples of the VAE's posterior, scaled: one, or one per picture where each has a generator of its own."""
        vae, like, scale = self.pipe.vae, call.sample, self.pipe.vae_scale_factor
        image = resize(image, (call.size[1] * scale, call.size[0] * scale), how=self.settings.resize, multiple=scale)
        dtype = vae.dtype
        must_upcast = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
        if must_upcast:
            vae.to(torch.float32)
        encoded = vae.encode(to_tensor(image)[None].to(like.device, vae.dtype) * 2 - 1)
        if must_upcast:
            vae.to(dtype)
        if hasattr(encoded, "latents"):  # an autoencoder without a posterior
            return (encoded.latents * vae.config.scaling_factor).to(like.dtype)
        count = 1 if self.settings.noise == "fixed" else pictures
        generator = _generator_for(self.call.generator, count)
        generators = generator if isinstance(generator, list) else [generator]
        samples = torch.cat([encoded.latent_dist.sample(each) for each in generators])
        return (samples * vae.config.scaling_factor).to(like.dtype)

    def _with_own_size(self, conditions: dict[str, Any], image: Image.Image, size: tuple[int, int]) -> dict[str, Any]:
        """SDXL's added conditions, saying the reference's own size: (original, crop, target), each height first."""
        added = conditions.get("added_cond_kwargs") or {}
        if "time_ids" not in added:
            return conditions
        scale = self.pipe.vae_scale_factor
        own = [image.height, image.width, 0, 0, size[0] * scale, size[1] * scale]
        time_ids = added["time_ids"].clone()
        kept = 6 if time_ids.shape[1] == 6 else 4  # refiners have a score in the place of the target size
        time_ids[:, :kept] = time_ids.new_tensor(own[:kept])
        return {**conditions, "added_cond_kwargs": {**added, "time_ids": time_ids}}


def surround(unet: nn.Module, before: Before, passes: ExitStack, undo: ExitStack) -> None:
    """Run `before` ahead of every forward of the UNet, and close `passes` behind it, also when it raises."""
    undo.callback(passes.close)
    undo.callback(unet.register_forward_pre_hook(before, with_kwargs=True).remove)
    undo.callback(unet.register_forward_hook(lambda *_: passes.close(), always_call=True).remove)


def _mask(mask: Any, size: tuple[int, int], like: Tensor) -> Pyramid | None:
    """A mask for latents of one size, on the device of `like`: an offloaded UNet's own device may be `meta`."""
    return None if mask is None else Pyramid.of(to_tensor(mask)[0], size).to(like.device)


def _generator_for(generator: Generators, count: int) -> Generators:
    """The generator for `count` draws: a list only if it has one for each."""
    if isinstance(generator, list):
        return generator if len(generator) == count > 1 else generator[0]
    return generator
