"""IDM-VTON's training (yisol/IDM-VTON, `train_xl.py`; Choi et al. 2024, section 4): TryonNet and the resampler learn.

Letters: b samples, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import DDPMScheduler
from PIL import Image, ImageOps
from torch import Tensor

from referencenet.media.images import read_image, read_mask, to_tensor
from referencenet.methods.idm_vton import GARMENT_PROMPT, NEGATIVE_PROMPT, PERSON_PROMPT, IDMVTONPipeline
from referencenet.pipelines.dressing import BICUBIC, mask_to_latent_size
from referencenet.pipelines.spec import Shown, each_for
from referencenet.training.data.augment import Jitter, moved, signed, uniform
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.predicted import Inputs
from referencenet.training.recipes.idm_vton.start import START
from referencenet.training.stage import Stage, noise_loss
from referencenet.training.system import Batch, SystemRecipe

SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": True,  # with noise as the target, as the script loads it
}
DESCRIPTION = "shirts"  # the published fallback
GREY, BLACK = 128, 0


class IDMVTONRecipe(SystemRecipe):
    """People in their own garments: the noise, and nothing is dropped.

    The drop `guidance`, which is ours and off, shows samples what inference shows its unconditional pass.
    """

    system, pipeline, layout = "idm_vton", IDMVTONPipeline, "viton_hd"
    start = START
    published_size = (768, 1024)
    has_mask = True
    stages = {
        "tryon": Stage(
            train=(r"unet\..*", r"image_projection\..*"),
            loss=partial(noise_loss, DDPMScheduler, **SCHEDULE),
            drops={"guidance": Drop(rate=0.0, reads="zeros", blind=("prompt", "image", "added"))},
            needs=("target", "garment", "mask", "dense"),
            source="yisol/IDM-VTON 0d5f3ec, train_xl.py; the drop is ours",
        )
    }

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """Person, mask, DensePose and garment at the size, changed as published, and the garment for CLIP."""
        person, dense, garment = (
            read_image(path).resize(self.size, BICUBIC) for path in (sample.target, sample.dense, sample.garment)
        )  # pyright: ignore
        mask: Image.Image = read_mask(sample.mask).resize(self.size)  # pyright: ignore[reportArgumentType]
        chance, likely = torch.rand(4, generator=random).tolist(), self.config.data.augment
        if chance[0] < likely:
            person, mask, dense, garment = map(ImageOps.mirror, (person, mask, dense, garment))
        if chance[1] < likely:
            jitter = Jitter.drawn(random)
            person, garment = jitter(person), jitter(garment)
        scale = uniform(0.8, 1.2, random) if chance[2] < likely else 1.0
        shift = (uniform(-0.2, 0.2, random), uniform(-0.2, 0.2, random)) if chance[3] < likely else (0.0, 0.0)
        if scale != 1.0 or shift != (0.0, 0.0):
            person, dense = moved(person, scale, shift, GREY), moved(dense, scale, shift, BLACK)
            mask = moved(mask, scale, shift, BLACK)
        processor = self.pipe.feature_extractor
        return {
            "person": signed(person),
            "mask": (to_tensor(mask) >= 0.5).float(),
            "dense": signed(dense),
            "garment": signed(garment),
            "clip": processor(garment, return_tensors="pt").pixel_values[0],
            "description": sample.garment_caption or DESCRIPTION,
        }

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:
        """Latents drawn from posteriors, words, and CLIP's states of the garment."""
        pipe, said = self.pipe, batch.texts["description"]
        person, mask, dense, garment, clip = (batch.tensors[k] for k in ("person", "mask", "dense", "garment", "clip"))
        latents = self.latents_of(person, batch, 1)
        masked = self.latents_of(person * (mask < 0.5), batch, 2)
        densepose = self.latents_of(dense, batch, 3)
        small = mask_to_latent_size(mask, latents.shape[2:])
        space = torch.cat([small, masked, densepose], dim=1)  # (b, 9, h, w)
        blind, encoder = bool(dropped["guidance"].any()), pipe.image_encoder
        shown = torch.cat([clip, torch.zeros_like(clip[:1])]) if blind else clip
        (states,) = self.encoded("states", (encoder,), shown, self._seen)
        further = {"image_states": states[: len(clip)]}
        further |= {"blank_image_states": states[len(clip) :]} if blind else {}
        seen = self._words([PERSON_PROMPT + each for each in said])
        prompt, pooled = zip(seen, self._words([NEGATIVE_PROMPT]) if blind else seen, strict=True)
        height = self.size[1]
        sizes = torch.tensor([[height, height, 0, 0, height, height]] * len(said))  # as the script has it
        added = tuple({"text_embeds": each, "time_ids": sizes.to(each)[: len(each)]} for each in pooled)
        return {
            "latents": latents,
            "shown": Shown(
                latents=self.latents_of(garment, batch, 4),
                context=self._words([GARMENT_PROMPT + each for each in said])[0],
            ),
            "given": {"prompt": prompt, "added": added, "space": space},
            "further": further,
            "places": self.counted(small),
        }

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """Garment, person without it, drawn, truth."""
        assert sample.target is not None
        person, mask = read_image(sample.target).resize(self.size), read_mask(sample.mask).resize(self.size)  # pyright: ignore
        told = sample.garment_caption or DESCRIPTION
        drawn = self.pipe(person, sample.garment, mask, sample.dense, told, **self.options(generator)).images[0]
        hidden = Image.composite(Image.new("RGB", person.size, (GREY,) * 3), person, mask)
        return [read_image(sample.garment), hidden, drawn, person]  # pyright: ignore[reportArgumentType]

    def _words(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """States and pooled states of prompts."""

        def encode(texts: list[str]) -> tuple[Tensor, ...]:
            found = self.pipe.encode_prompt(texts, device=self.device, do_classifier_free_guidance=False)
            return found[0].float(), found[2].float()

        return self.encoded("words", (self.pipe.text_encoder, self.pipe.text_encoder_2), prompts, encode)

    def _seen(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """CLIP's states of pictures."""
        encoder = self.pipe.image_encoder
        return (encoder(pictures.to(encoder.dtype), output_hidden_states=True).hidden_states[-2].float(),)

    def told(self, inputs: Inputs) -> Inputs:
        """The resampler's tokens."""
        resampler, shown = self.pipe.image_projection, inputs.shown
        assert shown is not None
        kept = {"image": resampler(inputs.further["image_states"])}
        if "blank_image_states" in inputs.further:
            blank = resampler(inputs.further["blank_image_states"])
            kept["blank_image"] = each_for(blank, len(inputs.latents))
        return replace(inputs, shown=replace(shown, kept=kept))

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:  # noqa: ARG002
        """Of the shapes that the networks' configurations say."""
        unet, projection = self.pipe.unet.config, self.pipe.image_projection.config
        words = make(samples, 77, unet.cross_attention_dim)
        pooled = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
        added = {"text_embeds": make(samples, pooled), "time_ids": make(samples, 6)}
        return {
            "latents": make(samples, 4, *size),
            "shown": Shown(
                latents=make(samples, 4, *size),
                context=make(samples, 77, self.pipe.reference_unet.config.cross_attention_dim),
            ),
            "given": {"prompt": (words, words), "added": (added, added), "space": make(samples, 9, *size)},
            "further": {"image_states": make(samples, 257, projection.embed_dims)},
        }


RECIPE = IDMVTONRecipe
