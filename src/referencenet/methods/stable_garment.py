"""StableGarment (Wang et al. 2024, arXiv 2403.10783; logn-2024/StableGarment cccb6e3): a person who wears a garment.

What it is:
    writer   a UNet of its own, at every step, on the clean garment latent at the current timestep; its context is the
             garment's prompt
    link     attention to the garment is added to self-attention, with the denoiser's own weights; the output bias
             counts twice. Text-to-image: middle and up blocks, try-on: all
    guidance the unconditional pass reads nothing; style fidelity below 1 gives it a part of its partner's term
    try-on   a ControlNet on mask, DensePose and the latents of the person without the garment, in both passes
The denoiser is Stable Diffusion 1.5 or a relative, untrained. Published and not kept: mask and DensePose embedded
anew at every step; a ControlNet that runs where its scale is 0; a denoiser that stays patched after an error. Not
here: the SDXL pipelines, for which no weights were named; the safety checker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ImagePipelineOutput, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.stable_garment import PUBLISHED, PUBLISHED_TRYON, default_scheduler
from referencenet.links.added import Added
from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.links.sites import MID_UP, STAGES
from referencenet.media.images import Picture
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.tryon_controlnet import FeatureControlNet, TryOnGuider
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.conditions import Text
from referencenet.pipelines.controls import Control, ControlledResiduals
from referencenet.pipelines.encoders import guided_states, num_texts, stretched
from referencenet.pipelines.garments import check_persons, magnified, num_garments, person_features, show_garments
from referencenet.pipelines.options import PictureOptions
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec

LINKS: Mapping[str, Added] = {"midup": Added(stages=MID_UP), "full": Added(stages=STAGES)}
"""What the garment is read by, under the published names."""

SPEC = Spec(
    write=EachStep(),
    link=LINKS["midup"],
    guidance=TwoWay(blind=("prompt",)),
    conditions=(Text("prompt"),),
    scheduler=default_scheduler,
    steps=30,
    scale=4.0,
    size=(384, 512),
    defaults="StableGarment, text-to-image script; the garment's prompt is the app's",
)

SPEC_TRYON = replace(
    SPEC,
    link=LINKS["full"],
    guidance=TwoWay(blind=("prompt", "control")),
    conditions=(Text("prompt"), ControlledResiduals("control")),
    steps=25,
    scale=2.5,
    defaults="StableGarment, try-on script and app",
)

Garment = Picture | Sequence[Picture] | ReferenceBank | BankSeries | Shown | Callable[[Canvas], Shown]
Prompts = str | Sequence[str]


class StableGarmentPipeline(PicturePipeline, TextAdapters):
    """Draws a person in a given garment from words.

    Args:
        vae: sd-vae-ft-mse.
        text_encoder: The base model's.
        tokenizer: Its words.
        reference_unet: The garment encoder: writes, at every step; None where garments come as banks.
        unet: The denoiser, the base model's own.
        scheduler: DDIM; others of diffusers work.
        fusion_blocks: Where the garment is read: "midup", as the weights were trained, or "full".
    """

    spec = SPEC
    published = PUBLISHED
    model_cpu_offload_seq = "text_encoder->reference_unet->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        reference_unet: ReferenceUNet | None,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        fusion_blocks: str = "midup",
    ) -> None:
        super().__init__()
        _check_fusion(fusion_blocks)
        self.register(locals(), "fusion_blocks")

    @property
    def link(self) -> Added:
        """How the denoiser reads."""
        return LINKS[self.config.fusion_blocks]

    def show(self, reference: Picture | Sequence[Picture], canvas: Canvas) -> Shown:
        """Mean latents of garments (r, 4, h, w) and the empty prompt's states; text-to-image magnifies them."""
        return self.garment(reference)(canvas)

    def garment(
        self,
        garment: Picture | Sequence[Picture],
        prompt: Prompts = "",
        *,
        magnify: bool | None = None,
        prompt_embeds: Tensor | None = None,
    ) -> Callable[[Canvas], Shown]:
        """Garments with their words, for `write` and calls.

        Args:
            garment: One picture or several.
            prompt: What they are, one for all or one each: "upper body cloth" in the VITON-HD benchmark.
            magnify: Cut the border off as the text-to-image script does; None: as published.
            prompt_embeds: Instead of `prompt`, (r, tokens, channels).
        """
        is_magnified = self.spec is SPEC if magnify is None else magnify

        fit = magnified if is_magnified else stretched
        return lambda canvas: show_garments(self, garment, prompt, prompt_embeds, canvas, fit)

    @torch.no_grad()
    def __call__(
        self,
        garment: Garment,
        prompt: Prompts = "",
        negative_prompt: Prompts = "",
        *,
        garment_prompt: Prompts = "",
        style_fidelity: float = 1.0,
        magnify: bool = True,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw.

        Args:
            garment: A picture, as many as there are prompts, or what `garment` or `write` gave.
            prompt: What to draw beside the garment; one text, or one per garment.
            negative_prompt: Of the unconditional pass.
            garment_prompt: Of the garment encoder.
            style_fidelity: Below 1 the garment counts less, and the white border that may come with it.
            magnify: As published, cut the garment's border off: at 384 x 512 it is magnified by 4/3.
            prompt_embeds: Instead of `prompt`, (prompts, tokens, channels).
            negative_prompt_embeds: Instead of `negative_prompt`.
            options: See `PictureOptions`.

        Returns:
            The pictures, those of one prompt together.

        Raises:
            ValueError: If arguments do not fit together.
        """
        settings, link = self.settle(options), self._link_of(style_fidelity)
        number = num_texts(prompt, prompt_embeds)
        canvas = self.canvas_for(settings, garments=num_garments(garment), prompts=number)
        with self.calling(settings):
            texts = guided_states(self, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
            reference = self._reference(garment, garment_prompt, magnify)
            return self.draw(reference, {"prompt": texts}, canvas, settings, link=link)

    def _link_of(self, style_fidelity: float) -> Added:
        """The link of a call; its fidelity must lie in [0, 1]."""
        link = replace(self.link, fidelity=style_fidelity)
        link.check()
        return link

    def _reference(self, garment: Garment, prompt: Prompts, magnify: bool) -> Any:
        """A reference as `draw` takes it."""
        if isinstance(garment, ReferenceBank | BankSeries | Shown) or callable(garment):
            return garment
        self.check_writer()
        return self.garment(garment, prompt, magnify=magnify)


class StableGarmentTryOnPipeline(StableGarmentPipeline):
    """Puts a garment on the person of a picture.

    Args:
        vae: sd-vae-ft-mse.
        text_encoder: The base model's.
        tokenizer: Its words.
        reference_unet: The garment encoder: writes, at every step; None where garments come as banks.
        unet: The denoiser, the base model's own.
        controlnet: Of the person.
        guider: Makes its features, once a call.
        scheduler: DDIM; others of diffusers work.
        fusion_blocks: Where the garment is read: "full", as the weights were trained, or "midup".
    """

    spec = SPEC_TRYON
    published = PUBLISHED_TRYON
    model_cpu_offload_seq = "text_encoder->reference_unet->guider->controlnet->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        reference_unet: ReferenceUNet | None,
        unet: UNet2DConditionModel,
        controlnet: FeatureControlNet,
        guider: TryOnGuider,
        scheduler: DDIMScheduler,
        fusion_blocks: str = "full",
    ) -> None:
        PicturePipeline.__init__(self)
        _check_fusion(fusion_blocks)
        self.register(locals(), "fusion_blocks")

    @torch.no_grad()
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - it takes a person as well
        self,
        person: Picture | Sequence[Picture] | None,
        garment: Garment,
        mask: Picture | Sequence[Picture],
        densepose: Picture | Sequence[Picture],
        prompt: Prompts = "a photo of a woman",
        negative_prompt: Prompts = "",
        *,
        garment_prompt: Prompts = "",
        style_fidelity: float = 1.0,
        is_agnostic: bool = False,
        agnostic_latents: Tensor | None = None,
        controlnet_conditioning_scale: float = 1.0,
        control_guidance_start: float = 0.0,
        control_guidance_end: float = 1.0,
        guess_mode: bool = False,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw. The whole picture is drawn anew, the background too.

        Args:
            person: A picture, or as many as there are garments.
            garment: A picture, as many as there are persons, or what `garment` or `write` gave.
            mask: White where the person is repainted; one for each person, of its picture's proportions.
            densepose: A DensePose rendering of each; float tensors (r, 3, H, W) in [0, 1] at the result's size are
                taken as they are.
            prompt: What to draw; one for all, or one each.
            negative_prompt: Of the unconditional pass.
            garment_prompt: Of the garment encoder.
            style_fidelity: Below 1 the garment counts less.
            is_agnostic: Whether the person's garment is grey already; else the mask's place is made grey.
            agnostic_latents: Instead of `person`, scaled latents (r, 4, h, w) of the grey picture.
            controlnet_conditioning_scale: Of the person.
            control_guidance_start: Share of the steps that pass before the ControlNet begins.
            control_guidance_end: Share of the steps after which it ends.
            guess_mode: Let only the conditional pass see the person, through weaker fine residuals.
            prompt_embeds: Instead of `prompt`, (r, tokens, channels).
            negative_prompt_embeds: Instead of `negative_prompt`.
            options: See `PictureOptions`.

        Returns:
            The pictures, those of one person together.

        Raises:
            ValueError: If arguments do not fit together.
        """
        settings, link = self.settle(options), self._link_of(style_fidelity)
        counts = check_persons(person, mask, densepose, agnostic_latents)
        counts |= {"prompts": num_texts(prompt, prompt_embeds), "garments": num_garments(garment)}
        canvas = self.canvas_for(settings, **counts)
        told = {"is_agnostic": is_agnostic, "latents": agnostic_latents}
        control = Control(
            features=person_features(self, person, mask, densepose, canvas, **told),
            scale=controlnet_conditioning_scale,
            start=control_guidance_start,
            end=control_guidance_end,
            guess_mode=guess_mode,
        )
        with self.calling(settings):
            texts = guided_states(self, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
            reference = self._reference(garment, garment_prompt, magnify=False)
            return self.draw(reference, {"prompt": texts, "control": control}, canvas, settings, link=link)


def _check_fusion(blocks: str) -> None:
    """Refuse a choice of blocks that has no link."""
    if blocks not in LINKS:
        raise ValueError(f"fusion_blocks is {blocks!r}; expected one of {list(LINKS)}.")
