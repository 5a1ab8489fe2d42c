"""IDM-VTON (Choi et al., ECCV 2024, arXiv 2403.05139; yisol/IDM-VTON 0d5f3ec): a person who wears a given garment.

What it is:
    writer   GarmentNet, SDXL's own UNet, at every step on the clean garment latent at the current timestep; its
             context is "a photo of" the garment
    link     keys and values of TryonNet and of the garment together, in all 70 self-attentions
    guidance the unconditional pass reads zeros in the garment's place (they count in the softmax), has a negative
             prompt and the image prompt of a blank picture
    prompt   text, and the garment's CLIP states through IP-Adapter's resampler, in decoupled cross-attention
    space    13 input channels: latents, mask (1 = repaint), masked person, DensePose
Published and not kept: garment tokens as queries, keys and values of zeros, a resampler or an encoding done twice,
DensePose sampled outside of the generator, `output_type="latent"` that returns the input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, DDPMScheduler, ImagePipelineOutput, UNet2DConditionModel
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from referencenet.checkpoints.idm_vton import PUBLISHED, default_scheduler
from referencenet.checkpoints.idm_vton_start import PUBLISHED_START as PUBLISHED_START
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.renamed import Former, takes_former_names
from referencenet.links.series import BankSeries
from referencenet.media.images import Picture
from referencenet.networks.image_prompt import ImagePromptResampler, ImagePromptUNet
from referencenet.pipelines.conditions import Added, Channels, Text
from referencenet.pipelines.dressing import (
    GarmentPrompt,
    clip_processor,
    count_garments,
    count_given,
    fitted,
    image_prompt,
    is_written,
    repainted_space,
    series_of,
    show_garment,
    texts_of,
)
from referencenet.pipelines.encoders import num_texts
from referencenet.pipelines.options import PictureOptions
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.sdxl import SDXLText, added_conditions, guided_sdxl_states
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec

SPEC = Spec(
    write=EachStep(),
    link=Concat(),
    guidance=TwoWay(reads="zeros", blind=("prompt", "image", "added")),
    conditions=(Text("prompt"), GarmentPrompt("image"), Added("added"), Channels("space")),
    scheduler=default_scheduler,
    steps=30,
    scale=2.0,
    size=(768, 1024),
    defaults="IDM-VTON, inference script; the prompt's beginning is that of training and demo",
)

NEGATIVE_PROMPT = "monochrome, lowres, bad anatomy, worst quality, low quality"  # every published script
PERSON_PROMPT = "model is wearing "  # training and demo; the inference scripts say "wearing a"

GARMENT_PROMPT = "a photo of "

Pictures = Picture | Sequence[Picture]
Prompts = str | Sequence[str]
Garment = Pictures | ReferenceBank | BankSeries | Shown | Callable[[Canvas], Shown]


class IDMVTONPipeline(PicturePipeline, SDXLText):
    """Persons, garments, masks and DensePose in; the persons wearing the garments out.

    Args:
        vae: SDXL's.
        text_encoder: CLIP ViT-L/14's.
        text_encoder_2: OpenCLIP ViT-bigG/14's.
        tokenizer: Of the first.
        tokenizer_2: Of the second.
        unet: TryonNet.
        image_projection: The image prompt's resampler.
        scheduler: DDPM as published; any other of diffusers works.
        reference_unet: GarmentNet: writes, at every step; None where garments come as banks.
        image_encoder: CLIP ViT-H/14's vision model; None where image prompts come otherwise.
        feature_extractor: Its picture processor; None: as published.
        force_zeros_for_empty_prompt: Whether no negative prompt at all is a context of zeros.
    """

    spec = SPEC
    published = PUBLISHED
    renamed = {"garment_unet": "reference_unet"}
    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->image_projection->reference_unet->unet->vae"
    _optional_components = [
        "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "reference_unet", "image_encoder",
        "feature_extractor",
    ]  # fmt: skip
    garment_unet = Former("reference_unet")

    @takes_former_names(garment_unet="reference_unet")
    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        tokenizer_2: CLIPTokenizer,
        unet: ImagePromptUNet,
        image_projection: ImagePromptResampler,
        scheduler: DDPMScheduler,
        reference_unet: UNet2DConditionModel | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__()
        feature_extractor = feature_extractor or clip_processor(image_encoder)
        self.register(locals(), "force_zeros_for_empty_prompt")

    def show(self, reference: Pictures, canvas: Canvas) -> Shown:
        """Garments of the default description."""
        return self.garment(reference)(canvas)

    def garment(
        self,
        garment: Pictures | None = None,
        garment_description: Prompts = "shirts",
        *,
        garment_prompt: Prompts | None = None,
        garment_latents: Tensor | None = None,
        garment_prompt_embeds: Tensor | None = None,
        image_states: Tensor | None = None,
        negative_image_states: Tensor | None = None,
    ) -> Callable[[Canvas], Shown]:
        """Garments with their words, for `write` and calls; arguments are those of a call.

        Args:
            garment: One picture or several.
            garment_description: Of each, or of all.
            garment_prompt: Instead of "a photo of " + description.
            garment_latents: Instead of `garment` for GarmentNet: scaled latents, (garments, 4, h, w).
            garment_prompt_embeds: Instead of `garment_prompt`, (garments, tokens, channels).
            image_states: Instead of `garment` for the image prompt, (garments, tokens, channels).
            negative_image_states: Those of a blank picture, (1, tokens, channels).
        """
        prompts = texts_of(garment_prompt, GARMENT_PROMPT, garment_description)
        return partial(
            show_garment, self, garment, prompts, latents=garment_latents, prompt_embeds=garment_prompt_embeds,
            image_states=image_states, blank_image_states=negative_image_states,
        )  # fmt: skip

    @torch.no_grad()
    def __call__(
        self,
        person: Pictures | None = None,
        garment: Garment | None = None,
        mask: Pictures | None = None,
        densepose: Pictures | None = None,
        garment_description: Prompts = "shirts",  # the published fallback
        *,
        prompt: Prompts | None = None,
        garment_prompt: Prompts | None = None,
        negative_prompt: Prompts | None = NEGATIVE_PROMPT,
        mask_image: Tensor | None = None,
        masked_image_latents: Tensor | None = None,
        densepose_latents: Tensor | None = None,
        garment_latents: Tensor | None = None,
        garment_banks: Mapping[int, ReferenceBank] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        garment_prompt_embeds: Tensor | None = None,
        image_states: Tensor | None = None,
        negative_image_states: Tensor | None = None,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Dress persons. The whole picture is drawn anew, what lies outside of the mask too.

        Args:
            person: Picture or pictures; stretched to the size of the result.
            garment: One picture for all persons, or one each; or what `garment` or `write` gave.
            mask: White (at least a half) = repaint; one per person. `preprocess.agnostic_mask` makes one.
            densepose: The person's DensePose rendering, one per person.
            garment_description: Such as "short sleeve round neck t-shirt".
            prompt: Instead of "model is wearing " + description.
            garment_prompt: Instead of "a photo of " + description.
            negative_prompt: Of the unconditional pass; None: see `force_zeros_for_empty_prompt`.
            mask_image: Instead of `mask`: (persons, 1, height, width) in [0, 1].
            masked_image_latents: Instead of `person`: scaled latents, grey where masked, (persons, 4, h / 8, w / 8).
            densepose_latents: Instead of `densepose`: scaled latents of the same shape.
            garment_latents: Instead of `garment` for GarmentNet: scaled latents, of any size.
            garment_banks: The former name of a garment that was written.
            prompt_embeds: Instead of `prompt`, (persons, tokens, channels); with `pooled_prompt_embeds`.
            negative_prompt_embeds: Instead of `negative_prompt`; with `negative_pooled_prompt_embeds`.
            pooled_prompt_embeds: (persons, channels).
            negative_pooled_prompt_embeds: (persons, channels).
            garment_prompt_embeds: Instead of `garment_prompt`, (garments, tokens, channels).
            image_states: Instead of `garment` for the image prompt: CLIP's last but one, (garments, tokens, channels).
            negative_image_states: Those of a blank picture, (1, tokens, channels).
            options: See `PictureOptions`. With several generators every result is what it would be alone; a garment of
                several results is then written for each of them.

        Returns:
            The pictures, those of one person together.

        Raises:
            ValueError: If inputs are missing, contradict each other or do not fit; says what to do.
        """
        settings = self.settle(options)
        written, pictures = (garment, None) if is_written(garment) else (None, garment)
        if garment_banks is not None:
            warnings.warn("give what was written as the garment: garment=banks.", FutureWarning, stacklevel=3)
            written = series_of(self, garment_banks, settings)
        garments = count_garments(written, garment_latents, pictures)
        prompts = texts_of(prompt, PERSON_PROMPT, garment_description)
        canvas = self.canvas_for(
            settings,
            persons=count_given("person", person, masked_image_latents, "masked_image_latents"),
            masks=count_given("mask", mask, mask_image, "mask_image"),
            densepose=count_given("densepose", densepose, densepose_latents, "densepose_latents"),
            garments=garments,
            texts=num_texts(prompts, prompt_embeds),
        )
        with self.calling(settings):
            texts, pooled = guided_sdxl_states(
                self, prompts, negative_prompt, prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds, pooled_prompt_embeds=pooled_prompt_embeds,
                negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            )  # fmt: skip
            space = repainted_space(
                self, canvas, person=person, mask=mask, densepose=densepose, mask_image=mask_image,
                masked_image_latents=masked_image_latents, densepose_latents=densepose_latents,
                generator=settings.generator,
            )  # fmt: skip
            given: dict[str, Any] = {"prompt": texts, "added": added_conditions(pooled, canvas), "space": space}
            if written is None:
                words = garment_description if isinstance(garment_description, str) else garment_description[:garments]
                reference: Any = self.garment(
                    pictures, words, garment_prompt=garment_prompt, garment_latents=garment_latents,
                    garment_prompt_embeds=garment_prompt_embeds, image_states=image_states,
                    negative_image_states=negative_image_states,
                )(replace(canvas, generator=settings.generator))  # fmt: skip
            else:
                reference = written
                tokens = image_prompt(self, fitted(pictures, canvas), image_states, negative_image_states)
                given |= {} if tokens is None else {"image": tokens}
            return self.draw(reference, given, canvas, settings)

    def write_garment_banks(
        self, garment: Pictures | None = None, garment_description: Prompts = "shirts", *, height: int = 1024,
        width: int = 768, num_inference_steps: int = 30, **given: Any,
    ) -> BankSeries:  # fmt: skip
        """The former name of `write`."""
        warnings.warn("write_garment_banks is write(pipe.garment(...), ...) now.", FutureWarning, stacklevel=2)
        place: dict[str, Any] = {"width": width, "height": height, "generator": given.pop("generator", None)}
        reference = self.garment(garment, garment_description, **given)
        return self.write(reference, num_inference_steps=num_inference_steps, **place)  # pyright: ignore
