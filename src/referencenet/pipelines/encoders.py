"""Pictures, texts and noise to tensors, and latents to pictures: what every system does alike, written once.

Every autoencoder of diffusers for pictures works here: KL, asymmetric and tiny, with shift, mean and deviation or
without. Letters: r rows, b samples, c channels, f frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image, ImageOps
from torch import Tensor

from referencenet.media.images import Picture, read_image, read_mask, to_tensor
from referencenet.pipelines.spec import each_for
from referencenet.sampling.encodings import ENCODINGS, posterior_of
from referencenet.sampling.latents import in_safe_precision, scaled, unscaled
from referencenet.telling import note

Generators = torch.Generator | list[torch.Generator] | None

GREY, MOST_GREY = (0.15, 0.85), 0.4
"""Between which values a mask's pixel is neither black nor white, and in how many that is odd: edges are few."""

IMAGE_TOKEN = "image_token"
"""Name of the reference's CLIP token, as a condition and in a bank's context."""


def listed(given: Any) -> list[Any]:
    """One picture or several as a list; an array or tensor of four axes is several.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(given, np.ndarray | Tensor):
        pictures = list(given) if given.ndim == 4 else [given]
    else:
        pictures = list(given) if isinstance(given, list | tuple) else [given]
    if not pictures:
        raise ValueError("an empty list of pictures was given; give at least one.")
    return pictures


def read_pictures(given: Any) -> list[Image.Image]:
    """One picture or several, each in any form that `read_image` takes."""
    return [read_image(picture) for picture in listed(given)]


def read_one(given: Any) -> Image.Image:
    """One picture, also as a list or an array (1, H, W, 3) of one.

    Raises:
        ValueError: If there are several.
    """
    pictures = listed(given)
    if len(pictures) > 1:
        raise ValueError(f"{len(pictures)} pictures were given as the reference; give one.")
    return read_image(pictures[0])


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as (r, 3, H, W) in [-1, 1]."""
    return torch.stack([to_tensor(picture) for picture in pictures]) * 2 - 1


def stretched(picture: Picture, size: tuple[int, int], how: Any = Image.Resampling.LANCZOS) -> Image.Image:
    """A picture at (width, height), as the published scripts resize: proportions are not kept."""
    return read_image(picture).resize(size, how)


def squared(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """The largest centred part of a size's proportions, resized bilinearly: of 512 x 512 MagicPose's published crop."""
    return ImageOps.fit(read_image(picture), size, Image.Resampling.BILINEAR)


def mask_pixels(masks: Sequence[Picture], size: tuple[int, int], *, what: str = "mask") -> Tensor:
    """Masks at (width, height) as (r, 1, H, W) of zeros and ones; a photograph in a mask's place is warned of.

    Raises:
        ValueError: If a mask is black everywhere.
    """
    found = torch.stack([to_tensor(read_mask(mask).resize(size)) for mask in masks])
    for i, mask in enumerate(found):
        if not bool((mask >= 0.5).any()):
            raise ValueError(f"{what} {i} is black everywhere, so it marks nothing; white marks what is meant.")
        grey = float(((mask > GREY[0]) & (mask < GREY[1])).float().mean())
        if grey > MOST_GREY:
            note(f"{what} {i} is grey in {grey:.0%} of its pixels, as a photograph is and a mask is not: what is "
                 "brighter than half counts as white.")  # fmt: skip
    return (found >= 0.5).float()


def encode_pixels(
    pipe: Any, pixels: Tensor, generator: Generators = None, *, sample: bool = False, vae: Any = None,
    keep: bool = False,
) -> Tensor:  # fmt: skip
    """Scaled latents (r, c, h, w) of pictures (r, 3, H, W) in [-1, 1]; as many as generators, if those are several.

    Args:
        pipe: Whose autoencoder.
        pixels: The pictures.
        generator: For `sample`: one, or several, whose number r divides. Each draws, so that a result with a generator
            of its own is what it would be alone.
        sample: Draw from the posterior, as some published scripts do, instead of taking its mean.
        vae: Another autoencoder than `pipe.vae`.
        keep: For references, which are given again: keep what they are encoded to for further calls.
    """
    vae = pipe.vae if vae is None else vae
    with in_safe_precision(vae) as dtype:
        given = pixels.to(pipe.device_of(vae), dtype)
        encoded = ENCODINGS.of(vae, given) if keep else posterior_of(vae, given)
    if isinstance(encoded, Tensor):  # a tiny autoencoder has no posterior
        latents = encoded
    elif not sample:
        latents = encoded.mode()
    else:
        latents = _sampled(encoded, generator)
    return scaled(latents, vae.config)


def decode_latents(pipe: Any, latents: Tensor) -> Tensor:
    """Pictures (r, 3, H, W) in [-1, 1], float32, of scaled latents (r, c, h, w).

    Raises:
        ValueError: If they are no numbers: pictures of them would be black.
    """
    vae = pipe.vae
    with in_safe_precision(vae) as dtype:
        given = unscaled(latents, vae.config).to(pipe.device_of(vae), dtype)
        return check_finite_result(vae.decode(given, return_dict=False)[0].float(), given)


def check_finite_result(pixels: Tensor, latents: Tensor | None = None) -> Tensor:
    """A result that is about to be encoded, if it is one.

    Args:
        pixels: Of any shape.
        latents: That it was decoded from, to say whose fault it is.

    Raises:
        ValueError: If it holds NaN or infinite values.
    """
    if pixels.is_meta or bool(torch.isfinite(pixels).all()):
        return pixels
    was_fine = latents is not None and bool(torch.isfinite(latents).all())
    where = "the autoencoder made values that are not finite of good latents" if was_fine else (
        "the steps ended in values that are not finite"
    )  # fmt: skip
    raise ValueError(f"{where}, so nothing is written; compute in float32 or bfloat16 (--dtype), or check the weights.")


def text_states(pipe: Any, texts: Sequence[str]) -> Tensor:
    """Last hidden states of the pipeline's text encoder, (texts, tokens, channels); textual inversions are known."""
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    if hasattr(pipe, "maybe_convert_prompt"):
        texts = pipe.maybe_convert_prompt(list(texts), tokenizer)
    length = tokenizer.model_max_length
    found = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return encoder(found.input_ids.to(pipe.device_of(encoder)))[0]


@torch.no_grad()
def prompt_states(pipe: Any, prompt: str | Sequence[str], negative: str | Sequence[str]) -> tuple[Tensor, Tensor]:
    """States of prompts and negative prompts, one object twice where the words are the same.

    Raises:
        ValueError: If there are several of both, and not equally many.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    negatives = [negative] if isinstance(negative, str) else list(negative)
    if not prompts or not negatives:
        raise ValueError("an empty list of prompts was given; give one text, or one per picture.")
    if len(negatives) not in (1, len(prompts)):
        raise ValueError(
            f"{len(negatives)} negative prompts were given for {len(prompts)} prompts; give one for all, or one each."
        )
    states = text_states(pipe, prompts)
    if negatives == prompts or negatives * len(prompts) == prompts:
        return states, states
    return states, text_states(pipe, negatives)


def check_either(what: str, given: Any, tensor: Tensor | None) -> None:
    """Refuse what is given twice or not at all.

    Args:
        what: In words.
        given: Pictures or texts.
        tensor: What may be given in their place, of any shape.

    Raises:
        ValueError: If both are given, or neither, or an empty list.
    """
    if (given is None) == (tensor is None):
        count = "both were" if given is not None else "neither was"
        raise ValueError(f"give the {what} or its tensor, one of the two; {count} given.")
    if isinstance(given, list | tuple) and not given:
        raise ValueError(f"no {what} was given but an empty list; give at least one.")


def num_texts(prompt: str | Sequence[str], embeds: Tensor | None) -> int:
    """How many prompts a call was given."""
    if embeds is not None:
        return embeds.shape[0]
    return 1 if isinstance(prompt, str) else len(prompt)


def guided_states(
    pipe: Any,
    prompt: str | Sequence[str],
    negative: str | Sequence[str],
    embeds: Tensor | None = None,
    negative_embeds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """States of prompt and negative prompt, (r, tokens, channels) each, or those given in their place.

    Without guidance the negative prompt is not read, and both are the prompt's. Call it inside `calling`.
    """
    if not pipe.do_classifier_free_guidance:
        states = prompt_states(pipe, prompt, prompt)[0] if embeds is None else embeds
        return states, states
    if embeds is None and negative_embeds is None:
        return prompt_states(pipe, prompt, negative)
    states = prompt_states(pipe, prompt, prompt)[0] if embeds is None else embeds
    return states, prompt_states(pipe, negative, negative)[0] if negative_embeds is None else negative_embeds


def clip_size(encoder: Any) -> dict[str, dict[str, int]]:
    """What CLIP's picture processor is told, so that pictures come at the size that a vision model has."""
    side = encoder.config.image_size
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def clip_token(pipe: Any, pictures: Sequence[Image.Image]) -> Tensor:
    """CLIP's projected embeddings as tokens (r, 1, c); as published the pictures are squashed, not cropped."""
    side = pipe.image_encoder.config.image_size
    squashed = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    pixels = pipe.image_processor(squashed, return_tensors="pt", **clip_size(pipe.image_encoder)).pixel_values
    encoder = pipe.image_encoder
    return encoder(pixels.to(pipe.device_of(encoder), encoder.dtype)).image_embeds.unsqueeze(1)


def start_noise(pipe: Any, shape: tuple[int, ...], generator: Generators, latents: Tensor | None) -> Tensor:
    """The noise that a call begins with, float32, before the scheduler's own scale.

    Args:
        pipe: Says where.
        shape: (b, c, h, w) or (b, c, f, h, w).
        generator: One, or one per sample.
        latents: Given noise.

    Raises:
        ValueError: If the given noise has another shape.
    """
    device = pipe._execution_device
    if latents is None:
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    if tuple(latents.shape) != shape:
        raise ValueError(f"latents have shape {tuple(latents.shape)}; expected {shape}: one per result, at its size.")
    check_finite_input("latents", latents)
    return latents.to(device, torch.float32)


def check_finite_input(name: str, value: Any) -> None:
    """Refuse tensors, also inside lists and mappings, that are no numbers.

    Args:
        name: What the caller gave it as.
        value: Tensors of any shapes; other values are not looked at.

    Raises:
        ValueError: If one holds NaN or an infinite value.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            check_finite_input(name, part)
    elif type(value) is not Tensor or value.is_meta:  # shapes without numbers, with which operations are counted
        return
    elif value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} of shape {tuple(value.shape)} holds values that are not finite; give numbers.")


def check_generators(generator: Generators, samples: int) -> None:
    """Refuse a list of generators of another length than the results.

    Raises:
        ValueError: If it is.
    """
    if isinstance(generator, list) and len(generator) != samples:
        raise ValueError(f"{len(generator)} generators were given for {samples} results; give one, or one for each.")


def generators_for(generator: Generators, rows: int) -> Generators:
    """The generators for `rows` conditions of a call's samples: each that of the first sample it serves."""
    if not isinstance(generator, list) or len(generator) == rows:
        return generator
    if len(generator) % rows:
        raise ValueError(f"{len(generator)} generators were given for {rows} pictures; give one, or one for each.")
    return generator[:: len(generator) // rows]


def _sampled(posterior: Any, generator: Generators) -> Tensor:
    """A draw from a posterior of r rows; with several generators one draw each, g rows of which r serve g / r."""
    if not isinstance(generator, list):
        return posterior.sample(generator)
    mean, deviation = (each_for(part, len(generator)) for part in (posterior.mean, posterior.std))
    return mean + deviation * randn_tensor(mean.shape, generator, mean.device, mean.dtype)
