"""What IDM-VTON is told: garments as latents, words and image prompts; persons as nine channels of what is repainted.

Letters: r rows, n tokens, c channels, (H, W) pixels, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries, Schedule
from referencenet.pipelines.conditions import BesideContext
from referencenet.pipelines.encoders import Generators, encode_pixels, listed, mask_pixels, pixels_of, stretched
from referencenet.pipelines.garments import num_garments
from referencenet.pipelines.options import Settings
from referencenet.pipelines.sdxl import sdxl_states
from referencenet.pipelines.spec import Canvas, Shown, each_for

BICUBIC = Image.Resampling.BICUBIC  # as the published programs resize


class GarmentPrompt(BesideContext):
    """Image tokens of garments beside the text: given as (garment's, blank picture's), or left by the reference."""

    def encode(self, pipe: Any, call: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - a condition's signature
        """Both, (r, n, c) and (1, n, c).

        Raises:
            ValueError: If there are none.
        """
        if self.name in call.given:
            return call.given[self.name]
        if self.name not in call.kept:
            raise ValueError(
                "the image prompt needs a garment picture and an image_encoder, or image_states (and "
                "negative_image_states where guidance_scale is above 1); give one or the other."
            )
        seen = call.kept[self.name]
        return seen, call.kept.get(f"blank_{self.name}", seen)


def clip_processor(image_encoder: CLIPVisionModelWithProjection | None) -> CLIPImageProcessor:
    """CLIP's picture processor, at its encoder's size; 224 pixels as published."""
    side = image_encoder.config.image_size if image_encoder is not None else 224
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def fitted(pictures: Any, canvas: Canvas) -> list[Image.Image]:
    """Pictures at the canvas's size; none where none were given."""
    return [] if pictures is None else [stretched(picture, canvas.size, BICUBIC) for picture in listed(pictures)]


def is_written(garment: Any) -> bool:
    """Whether a garment comes as more than pictures: written before, or encoded."""
    return isinstance(garment, ReferenceBank | BankSeries | Shown) or callable(garment)


def image_prompt(
    pipe: Any, garments: Sequence[Image.Image], states: Tensor | None, blank_states: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """The resampler's tokens of garments (r, n, c) and, with guidance, of a blank picture (1, n, c).

    Args:
        pipe: With a resampler, CLIP and its processor.
        garments: Pictures.
        states: Instead of them, CLIP's last but one states, (r, tokens, c).
        blank_states: Those of the blank picture, (1 or r, tokens, c).

    Returns:
        None if there is nothing to make them of.
    """
    guided = pipe.do_classifier_free_guidance
    if states is None or (guided and blank_states is None):
        if not garments or pipe.image_encoder is None:
            return None
        encoder = pipe.image_encoder
        pixels = pipe.feature_extractor(list(garments), return_tensors="pt").pixel_values
        if guided:  # the mean colour after normalisation
            pixels = torch.cat([torch.zeros_like(pixels[:1]), pixels])
        place = (pipe.device_of(encoder), encoder.dtype)
        encoded = encoder(pixels.to(*place), output_hidden_states=True).hidden_states[-2]
        blank_states, states = (encoded[:1], encoded[1:]) if guided else (None, encoded)
    resampler = pipe.image_projection
    place = (pipe.device_of(resampler), resampler.dtype)
    tokens = resampler(states.to(*place))
    return tokens, tokens if blank_states is None or not guided else resampler(blank_states.to(*place))


def show_garment(
    pipe: Any,
    garments: Any,
    prompts: Sequence[str],
    canvas: Canvas,
    *,
    latents: Tensor | None,
    prompt_embeds: Tensor | None,
    image_states: Tensor | None,
    blank_image_states: Tensor | None,
) -> Shown:
    """Draws from the posteriors of garments (r, 4, h, w), their words, and their image prompts.

    Args:
        pipe: IDM-VTON's.
        garments: Pictures.
        prompts: What GarmentNet is told, one for all or one each.
        canvas: Its size is theirs; with a generator for each result, each has a draw of its own.
        latents: Instead of pictures for GarmentNet, (r, 4, h, w) of any size.
        prompt_embeds: Instead of `prompts`, (1 or r, tokens, c).
        image_states: As `image_prompt` takes them.
        blank_image_states: As `image_prompt` takes them.

    Raises:
        ValueError: If there is no garment, or counts do not fit.
    """
    count, pictures = count_garments(None, latents, garments), fitted(garments, canvas)
    told = len(prompts) if prompt_embeds is None else len(prompt_embeds)
    if told not in (1, count):
        raise ValueError(f"{told} garment prompts were given for {count} garments; give one for all, or one each.")
    tokens = image_prompt(pipe, pictures, image_states, blank_image_states)
    states = sdxl_states(pipe, prompts) if prompt_embeds is None else prompt_embeds
    if latents is None:
        latents = encode_pixels(pipe, pixels_of(pictures), canvas.generator, sample=True, keep=True)
    kept = {} if tokens is None else {"image": tokens[0], "blank_image": tokens[1]}
    return Shown(latents=latents, context=each_for(states, len(latents)), kept=kept)


def mask_to_latent_size(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """What is repainted, as TryonNet sees it: 1 where the mask is at least a half, taken at every corner of a cell.

    Args:
        mask: (batch, 1, height, width) in [0, 1].
        size: (height, width) of the latents.

    Returns:
        (batch, 1, *size) of zeros and ones.

    Raises:
        ValueError: If nothing of a mask is left: it falls between the corners.
    """
    white = mask >= 0.5
    small = F.interpolate(white.to(mask.dtype), size=size)  # nearest, as published
    if mask.is_meta:  # shapes without numbers, with which operations are counted
        return small
    for i, (before, left) in enumerate(zip(white, small, strict=True)):
        if not bool(left.any()):
            raise ValueError(
                f"mask {i} has {int(before.sum())} white pixels, so few and thin that none is left at the size of the "
                f"latents, {size[1]} x {size[0]}: nothing would be repainted; make the white area larger."
            )
    return small


def repainted_space(
    pipe: Any,
    canvas: Canvas,
    *,
    person: Any,
    mask: Any,
    densepose: Any,
    mask_image: Tensor | None,
    masked_image_latents: Tensor | None,
    densepose_latents: Tensor | None,
    generator: Generators,
) -> Tensor:
    """Mask, masked persons and DensePose, (r, 9, h, w); latents are draws from posteriors, persons first.

    Args:
        pipe: With an autoencoder.
        canvas: What is drawn.
        person: Pictures.
        mask: Pictures, white where persons are repainted.
        densepose: Renderings.
        mask_image: Instead of `mask`, (r, 1, H, W) in [0, 1].
        masked_image_latents: Instead of `person`, scaled latents (r, 4, h, w), grey where masked.
        densepose_latents: Instead of `densepose`, scaled latents (r, 4, h, w).
        generator: One; or one for each result, so that each has draws of its own.

    Raises:
        ValueError: If a mask is black everywhere, or latents are of another size.
    """
    size = (canvas.height // pipe.vae_scale_factor, canvas.width // pipe.vae_scale_factor)
    for name, given in (("masked_image_latents", masked_image_latents), ("densepose_latents", densepose_latents)):
        if given is not None and tuple(given.shape[2:]) != size:
            raise ValueError(f"{name} are {tuple(given.shape)}; expected (persons, 4, {size[0]}, {size[1]}).")
    white = mask_pixels(listed(mask), canvas.size) if mask_image is None else mask_image
    if masked_image_latents is None:
        shown = pixels_of(fitted(person, canvas)) * (white < 0.5)
        masked_image_latents = encode_pixels(pipe, shown, generator, sample=True)
    if densepose_latents is None:
        densepose_latents = encode_pixels(pipe, pixels_of(fitted(densepose, canvas)), generator, sample=True)
    parts = (mask_to_latent_size(white, size), masked_image_latents, densepose_latents)
    rows = max(map(len, parts))
    return torch.cat([each_for(part.to(pipe._execution_device), rows) for part in parts], dim=1)


def count_given(what: str, pictures: Any, ready: Tensor | None, name: str) -> int:
    """How many of something a call was given, as pictures or ready-made under another name.

    Raises:
        ValueError: If there is none, or both.
    """
    if pictures is None and ready is None:
        raise ValueError(f"no {what} was given; give {what}=a picture, or {name}.")
    if pictures is not None and ready is not None:
        raise ValueError(f"{what} was given twice, as a picture and as {name}; give one of them.")
    return len(listed(pictures)) if ready is None else len(ready)


def count_garments(written: Any, latents: Tensor | None, pictures: Any) -> int:
    """How many garments a call was given: written before, as latents, or as pictures.

    Raises:
        ValueError: If there is none.
    """
    given = [garments for garments in (written, latents, pictures) if garments is not None]
    if not given:
        raise ValueError("no garment was given; give a picture, garment_latents, or what `write` gave.")
    return num_garments(given[0])


def series_of(pipe: Any, banks: Mapping[int, ReferenceBank], settings: Settings) -> BankSeries:
    """Banks by timestep, as the last release wrote them, as a series for a call.

    Args:
        pipe: The call's.
        banks: One for every timestep.
        settings: The call's.

    Raises:
        ValueError: If a timestep of the call has no bank.
    """
    width, height = pipe.sides(settings.width, settings.height)
    schedule = Schedule.of(pipe.scheduled(settings.num_inference_steps), width=width, height=height)
    missing = [timestep for timestep in schedule.timesteps if timestep not in banks]
    if missing:
        raise ValueError(
            f"garment_banks has no bank for the timesteps {missing[:4]} (it has {sorted(banks)[:4]}); write the "
            "garment with the same scheduler and num_inference_steps."
        )
    return BankSeries(banks, schedule)


def texts_of(texts: str | Sequence[str] | None, beginning: str, descriptions: str | Sequence[str]) -> list[str]:
    """Texts as given, or the descriptions behind a beginning."""
    if texts is None:
        return [beginning + each for each in ([descriptions] if isinstance(descriptions, str) else descriptions)]
    return [texts] if isinstance(texts, str) else list(texts)
