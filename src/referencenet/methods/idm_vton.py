"""IDM-VTON (Choi et al., ECCV 2024, arXiv 2403.05139): a person, wearing a garment from a picture.

What it is:
    writer   GarmentNet, SDXL's own UNet, at every step on the clean garment latent at the current timestep; its
             context is "a photo of" the garment
    link     keys and values of TryonNet and of the garment together, in all 70 self-attentions
    guidance the unconditional half reads zeros in the garment's place (they count in the softmax), has a negative
             prompt and the image prompt of a blank picture
    prompt   text, and the garment's CLIP states through IP-Adapter's resampler, in decoupled cross-attention
    space    13 input channels: latents, mask (1 = repaint), masked person, DensePose
The weights were trained so; kept: zeros instead of no tokens, a terminal noise level without signal. Published and not
kept: garment tokens as queries, keys and values of zeros, a resampler or an encoding done twice, DensePose sampled
outside of the generator, `output_type="latent"` that returns the input. Not here: parsing and pose estimation (see
`preprocess`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion_xl import StableDiffusionXLPipelineOutput
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from referencenet.checkpoints.files import read_state
from referencenet.checkpoints.idm_vton import PUBLISHED, folder_config
from referencenet.checkpoints.published import find_files, read_component
from referencenet.links.attach import attach
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.link import Link
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.media.images import Picture, read_image, read_mask, to_tensor
from referencenet.networks.image_prompt import ImagePromptResampler, ImagePromptUNet, with_image_prompt

LINK = Concat()  # all 70 self-attentions

NEGATIVE_PROMPT = "monochrome, lowres, bad anatomy, worst quality, low quality"  # every published script
PERSON_PROMPT = "model is wearing "  # training and demo; the inference scripts say "wearing a"
GARMENT_PROMPT = "a photo of "

SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "variance_type": "fixed_small",
    "rescale_betas_zero_snr": True,  # as the training script saves it
}
"""DDPM, where a folder has no scheduler of its own."""

Pictures = Picture | Sequence[Picture]
Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Garment:
    """What GarmentNet needs: rows g, one for all persons or one each.

    Attributes:
        latents: Clean, (g, 4, height, width).
        prompt: Its text states, (g, tokens, channels).
    """

    latents: Tensor
    prompt: Tensor


@dataclass(frozen=True)
class Conditions:
    """What TryonNet sees besides the noise and the garment; rows r of the guidance batch, unconditional half first.

    Attributes:
        space: Mask, masked person and DensePose, (r, 9, height, width).
        context: Text and image prompt.
        added: Pooled text and sizes.
        plan: Which row reads which garment, or zeros.
    """

    space: Tensor
    context: Any
    added: dict[str, Tensor]
    plan: RowPlan


def reading_plan(*, persons: int, garments: int, images_per_person: int = 1, guided: bool) -> RowPlan:
    """Which row of the guidance batch reads which garment; the unconditional half reads zeros.

    Args:
        persons: Persons in the batch.
        garments: Rows of the bank: 1, or one per person.
        images_per_person: Rows of every person, next to each other.
        guided: Whether there is an unconditional half in front.
    """
    sources = [row // images_per_person if garments > 1 else 0 for row in range(persons * images_per_person)]
    halves = 2 if guided else 1
    zeros = [guided and half == 0 for half in range(halves) for _ in sources]
    return plan_rows(sources * halves, [1.0] * len(zeros), reads_zeros=zeros)


def mask_to_latent_size(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """What is repainted, as TryonNet sees it: 1 where the mask is at least a half, taken at every corner of a cell.

    Args:
        mask: (batch, 1, height, width) in [0, 1].
        size: (height, width) of the latents.

    Returns:
        (batch, 1, *size) of zeros and ones.
    """
    return F.interpolate((mask >= 0.5).to(mask.dtype), size=size)  # nearest, as published


def training_loss(
    unet: ImagePromptUNet,
    garment_unet: UNet2DConditionModel,
    *,
    noisy: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    garment: Garment,
    space: Tensor,
    context: Any,
    added: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the predicted noise; no condition is ever dropped, as published (specification: section 7).

    GarmentNet is frozen and gets every sample's own timestep. Call `backward` only if gradient checkpointing is off,
    or inside a `link.reading` of your own.

    Args:
        unet: TryonNet.
        garment_unet: GarmentNet.
        noisy: (batch, 4, height, width).
        noise: Likewise.
        timesteps: (batch,).
        garment: One row per sample.
        space: Mask, masked person and DensePose, (batch, 9, height, width).
        context: Text and image prompt.
        added: Pooled text and sizes.

    Returns:
        The loss and the prediction.
    """
    with attach(unet, [LINK]) as reader, attach(garment_unet, [LINK]) as writer:
        with torch.no_grad():
            bank = write_garment(writer, garment, timesteps)
        with reader.reading(bank):
            sample = torch.cat([noisy, space], dim=1)  # (batch, 13, height, width)
            predicted = unet(sample, timesteps, context, added_cond_kwargs=added, return_dict=False)[0]
    return F.mse_loss(predicted.float(), noise.float()), predicted


def write_garment(writer: Link, garment: Garment, timestep: Any) -> ReferenceBank:
    """GarmentNet's bank at one timestep."""
    return writer.write(garment.latents, timestep, encoder_hidden_states=garment.prompt, projected=False)


class IDMVTONPipeline(StableDiffusionXLInpaintPipeline):
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
        garment_unet: GarmentNet; None where garments come as banks.
        image_encoder: CLIP ViT-H/14's vision model.
        feature_extractor: Its picture processor; None: as published.
        requires_aesthetics_score: Of SDXL's refiner; stays False.
        force_zeros_for_empty_prompt: Whether no negative prompt at all is a context of zeros.
    """

    published = PUBLISHED
    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->image_projection->garment_unet->unet->vae"
    _optional_components = [*StableDiffusionXLInpaintPipeline._optional_components, "garment_unet"]
    _callback_tensor_inputs = ["latents"]

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
        garment_unet: UNet2DConditionModel | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        requires_aesthetics_score: bool = False,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__(
            vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2,
            unet=unet, scheduler=scheduler, image_encoder=image_encoder,  # pyright: ignore[reportArgumentType]
            feature_extractor=feature_extractor or _processor(image_encoder), add_watermarker=False,
            requires_aesthetics_score=requires_aesthetics_score,
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
        )  # fmt: skip
        self.register_modules(garment_unet=garment_unet, image_projection=image_projection)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def from_published(
        cls,
        folder: str | Path,
        base: str | Path | None = None,
        *,
        configs: Mapping[str, Mapping[str, Any]] | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> IDMVTONPipeline:
        """Read the released files as they lie in their folder, strictly.

        Args:
            folder: A copy of `yisol/IDM-VTON` or `yisol/IDM-VTON-DC`.
            base: An SDXL folder that has the tokenizers, where `folder` has none.
            configs: Component to configuration, in place of those that the folder has.
            torch_dtype: Convert to this; None: as the files are.

        Raises:
            FileNotFoundError: If files are missing; says which and where to get them.
            CheckpointError: If a file does not hold exactly what its network needs.
            ValueError: If something else than a folder is given.
        """
        if not isinstance(folder, str | Path):
            raise ValueError(
                "IDM-VTON's files are called alike and lie in folders of their own (unet/, unet_encoder/, vae/, ...): "
                f"give the folder that holds those, not {len(list(folder))} files."
            )
        folder = Path(folder)
        paths = find_files(PUBLISHED, folder)
        tokenizers = {name: _find_part(name, folder, base) for name in ("tokenizer", "tokenizer_2")}
        has_scheduler = (folder / "scheduler" / "scheduler_config.json").is_file()
        sizes = {**folder_config(folder, read_state(paths[PUBLISHED.files[0].path])), **(configs or {})}
        parts: dict[str, Any] = {name: read_component(PUBLISHED, name, paths, sizes) for name in PUBLISHED.components}
        if torch_dtype is not None:
            parts = {name: part.to(torch_dtype) for name, part in parts.items()}
        parts |= {name: CLIPTokenizer.from_pretrained(path) for name, path in tokenizers.items()}
        scheduler = (
            DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
            if has_scheduler
            else DDPMScheduler(**SCHEDULER)
        )
        return cls(scheduler=scheduler, **parts)

    @torch.no_grad()
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - other conditions than inpainting
        self,
        person: Pictures | None = None,
        garment: Pictures | None = None,
        mask: Pictures | None = None,
        densepose: Pictures | None = None,
        garment_description: str | Sequence[str] = "shirts",  # the published fallback
        *,
        prompt: str | Sequence[str] | None = None,
        garment_prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] = NEGATIVE_PROMPT,
        height: int = 1024,
        width: int = 768,
        num_inference_steps: int = 30,
        guidance_scale: float = 2.0,
        guidance_rescale: float = 0.0,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
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
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> StableDiffusionXLPipelineOutput | tuple[Any]:
        """Dress persons.

        Args:
            person: Picture or pictures; resized to `width` x `height`.
            garment: One picture for all persons, or one each.
            mask: White (at least a half) = repaint; one per person. `preprocess.agnostic_mask` makes one.
            densepose: The person's DensePose rendering, one per person.
            garment_description: Such as "short sleeve round neck t-shirt".
            prompt: Instead of "model is wearing " + description.
            garment_prompt: Instead of "a photo of " + description.
            negative_prompt: Of the unconditional half.
            height: In pixels.
            width: In pixels.
            num_inference_steps: Steps.
            guidance_scale: Above 1: guided, eps_u + s (eps_c - eps_u).
            guidance_rescale: phi of Lin et al. 2023, section 3.4.
            num_images_per_prompt: Results per person.
            generator: For the start noise, the VAE's samples and the scheduler's noise.
            latents: Start noise, (persons * images, 4, height / 8, width / 8).
            mask_image: Instead of `mask`: (persons, 1, height, width) in [0, 1].
            masked_image_latents: Instead of `person`: scaled latents of the person, grey where masked, (persons, 4,
                ...).
            densepose_latents: Instead of `densepose`: scaled latents.
            garment_latents: Instead of `garment` for GarmentNet: scaled latents, of any size.
            garment_banks: Instead of GarmentNet: timestep to bank, as `write_garment_banks` makes them.
            prompt_embeds: Instead of `prompt`, (persons, tokens, channels); with `pooled_prompt_embeds`.
            negative_prompt_embeds: Likewise.
            pooled_prompt_embeds: (persons, channels).
            negative_pooled_prompt_embeds: Likewise.
            garment_prompt_embeds: Instead of `garment_prompt`, (garments, tokens, channels).
            image_states: Instead of `garment` for the image prompt: CLIP's last but one states, (garments, tokens,
                channels).
            negative_image_states: Those of a blank picture.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: False: a tuple.
            cross_attention_kwargs: Such as {"scale": 0.5} for LoRA.
            callback_on_step_end: Called with pipeline, step, timestep and tensors after every step.
            callback_on_step_end_tensor_inputs: Which tensors: "latents".

        Returns:
            Pictures, persons * images of them.

        Raises:
            ValueError: If inputs are missing, contradict each other or do not fit; says what to do.
        """
        self._guidance_scale, self._interrupt = guidance_scale, False
        self._cross_attention_kwargs, self._clip_skip = cross_attention_kwargs, None
        given = {
            "person": (person, masked_image_latents), "densepose": (densepose, densepose_latents),
            "mask": (mask, mask_image),
            "garment": (garment, garment_latents if garment_banks is None else garment_banks),
        }  # fmt: skip
        if garment is None and garment_latents is None and garment_banks is not None and image_states is not None:
            given.pop("garment")
        persons = self._check(given, height, width, callback_on_step_end_tensor_inputs)
        if garment_banks is not None and not garment_banks:
            raise ValueError("garment_banks is empty; write_garment_banks makes one bank per timestep.")
        device, dtype, guided = self._execution_device, self.unet.dtype, guidance_scale > 1
        rows = persons * num_images_per_prompt
        size = (height // self.vae_scale_factor, width // self.vae_scale_factor)

        garments = [] if garment is None else [image.resize((width, height)) for image in _pictures(garment)]
        described = _one_each(garment_description, persons)
        text = self.encode_prompt(
            None if prompt_embeds is not None else _one_each(prompt, persons) or [PERSON_PROMPT + d for d in described],
            device=device, num_images_per_prompt=num_images_per_prompt, do_classifier_free_guidance=guided,
            negative_prompt=None if negative_prompt_embeds is not None else _one_each(negative_prompt, persons),
            prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds, negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
        )  # fmt: skip
        context_text, pooled = (torch.cat([n, p]) if guided else p for p, n in (text[:2], text[2:]))
        image_tokens = self._encode_image_prompt(
            garments, image_states, negative_image_states, persons, num_images_per_prompt, guided
        )
        mask_pixels = mask_image if mask_image is not None else _stack_masks(_sequence(mask), (width, height))
        if mask_pixels.shape[0] != persons:
            raise ValueError(
                f"{mask_pixels.shape[0]} masks were given for {persons} persons; give one mask per person."
            )
        if masked_image_latents is None:
            pixels = self._pixels([image.resize((width, height)) for image in _pictures(person)])
            masked_image_latents = self._encode_pictures(pixels * (mask_pixels < 0.5), generator)
        if densepose_latents is None:
            pixels = self._pixels([image.resize((width, height)) for image in _pictures(densepose)])
            densepose_latents = self._encode_pictures(pixels, generator)
        source = None
        if garment_banks is None:
            source = self._encode_garment(
                garments, garment_latents, described, garment_prompt, garment_prompt_embeds, generator
            )
        num_garments = source.latents.shape[0] if source else next(iter((garment_banks or {}).values())).rows
        if num_garments not in (1, persons):
            raise ValueError(
                f"{num_garments} garments were given for {persons} persons; give one for all, or one each."
            )

        space = torch.cat(
            [
                part.to(device, dtype)
                for part in (mask_to_latent_size(mask_pixels, size), masked_image_latents, densepose_latents)
            ],
            dim=1,
        ).repeat_interleave(num_images_per_prompt, dim=0)  # (rows, 9, h, w)
        halves = 2 if guided else 1
        time_ids = torch.tensor([[height, width, 0, 0, height, width]], device=device, dtype=dtype)
        conditions = Conditions(
            space=space.repeat(halves, 1, 1, 1),
            context=with_image_prompt(context_text.to(dtype), image_tokens.to(dtype)),
            added={"text_embeds": pooled.to(dtype), "time_ids": time_ids.repeat(rows * halves, 1)},
            plan=reading_plan(
                persons=persons, garments=num_garments, images_per_person=num_images_per_prompt, guided=guided
            ),
        )
        if latents is None:
            latents = randn_tensor(
                (rows, self.vae.config.latent_channels, *size), generator=generator, device=device, dtype=dtype
            )
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = latents.to(device, dtype) * self.scheduler.init_noise_sigma
        latents = self._denoise(
            latents, conditions, source, garment_banks, guidance_rescale, generator,
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        images = latents if output_type == "latent" else self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return StableDiffusionXLPipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def write_garment_banks(
        self,
        garment: Pictures | None = None,
        garment_description: str | Sequence[str] = "shirts",
        *,
        garment_prompt: str | Sequence[str] | None = None,
        height: int = 1024,
        width: int = 768,
        num_inference_steps: int = 30,
        generator: torch.Generator | None = None,
        garment_latents: Tensor | None = None,
        garment_prompt_embeds: Tensor | None = None,
    ) -> dict[int, ReferenceBank]:
        """GarmentNet's banks at every timestep of a schedule: they serve any number of persons, without GarmentNet.

        Arguments are those of the call: latents (garments, 4, h, w), embeddings (garments, tokens, channels). Each bank
        can be saved (`ReferenceBank.save`); about 0.16 GB per step in half precision at the published size.

        Returns:
            Timestep to bank, for `garment_banks`.
        """
        self._guidance_scale, self._cross_attention_kwargs = 1.0, None
        if garment is None and garment_latents is None:
            raise ValueError("no garment was given; give a picture, or garment_latents.")
        garments = [] if garment is None else [image.resize((width, height)) for image in _pictures(garment)]
        count = len(garments) if garment_latents is None else garment_latents.shape[0]
        described = _one_each(garment_description, count)
        source = self._encode_garment(
            garments, garment_latents, described, garment_prompt, garment_prompt_embeds, generator
        )
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        with attach(self._garment_net(), [LINK]) as writer:
            banks = {int(t): write_garment(writer, source, t) for t in self.scheduler.timesteps}
        self.maybe_free_model_hooks()
        return banks

    def _denoise(
        self,
        latents: Tensor,
        conditions: Conditions,
        source: Garment | None,
        banks: Mapping[int, ReferenceBank] | None,
        guidance_rescale: float,
        generator: Any,
        callback: Callback | None,
        callback_names: Sequence[str],
    ) -> Tensor:
        """The loop: GarmentNet writes, TryonNet reads, the scheduler steps. (rows, 4, h, w) to the same."""
        extra = self.prepare_extra_step_kwargs(generator, 0.0)
        self._num_timesteps = len(self.scheduler.timesteps)
        with ExitStack() as links, self.progress_bar(total=self._num_timesteps) as progress:
            reader = links.enter_context(attach(self.unet, [LINK]))
            writer = None if banks else links.enter_context(attach(self._garment_net(), [LINK]))
            once = not banks  # a bank written here is read by one pass; a given one is its owner's
            for i, t in enumerate(self.scheduler.timesteps):
                if self.interrupt:
                    continue
                bank = _bank_at(banks, t, latents) if banks else write_garment(writer, source, t)  # pyright: ignore
                scaled = self.scheduler.scale_model_input(latents, t)
                noise = self._predict(reader, bank, scaled, t, conditions, guidance_rescale, once=once)
                latents = self.scheduler.step(noise, t, latents, **extra, return_dict=False)[0].to(latents.dtype)
                if callback is not None:
                    tensors = {name: latents for name in callback_names}
                    latents = callback(self, i, t, tensors).pop("latents", latents)
                progress.update()
        return latents

    def _predict(
        self, reader: Link, bank: ReferenceBank, latents: Tensor, timestep: Any, conditions: Conditions, rescale: float,
        *, once: bool,
    ) -> Tensor:  # fmt: skip
        """The guided noise prediction of (rows, 4, h, w); `once` empties the bank."""
        guided = conditions.space.shape[0] > latents.shape[0]
        sample = torch.cat(
            [torch.cat([latents, latents]) if guided else latents, conditions.space], dim=1
        )  # 13 channels
        with reader.reading(bank, plan=conditions.plan, once=once):
            noise = self.unet(
                sample, timestep, encoder_hidden_states=conditions.context, added_cond_kwargs=conditions.added,
                cross_attention_kwargs=self.cross_attention_kwargs, return_dict=False,
            )[0]  # fmt: skip
        if not guided:
            return noise
        unconditional, conditional = noise.chunk(2)
        noise = unconditional + self.guidance_scale * (conditional - unconditional)
        return rescale_noise_cfg(noise, conditional, guidance_rescale=rescale) if rescale > 0 else noise

    def _encode_garment(
        self,
        garments: Sequence[Image.Image],
        latents: Tensor | None,
        described: Sequence[str],
        prompt: str | Sequence[str] | None,
        prompt_embeds: Tensor | None,
        generator: Any,
    ) -> Garment:
        """What GarmentNet runs on, once per garment."""
        if latents is None:
            latents = self._encode_pictures(
                self._pixels(garments), generator[0] if isinstance(generator, list) else generator
            )
        count = latents.shape[0]
        if prompt_embeds is None:
            words = _one_each(prompt, count) or [GARMENT_PROMPT + text for text in described[:count]]
            prompt_embeds = self.encode_prompt(words, device=self._execution_device, do_classifier_free_guidance=False)[
                0
            ]
        if prompt_embeds.shape[0] != count:
            raise ValueError(
                f"{prompt_embeds.shape[0]} garment prompts were given for {count} garments; give one each."
            )
        garment_net = self._garment_net()
        place = (self._execution_device, garment_net.dtype)
        return Garment(latents.to(*place), prompt_embeds.to(*place))

    def _encode_image_prompt(
        self,
        garments: Sequence[Image.Image],
        states: Tensor | None,
        negative_states: Tensor | None,
        persons: int,
        images_per_person: int,
        guided: bool,
    ) -> Tensor:
        """The image prompt's tokens, computed once per garment: (rows of the guidance batch, tokens, channels)."""
        device, dtype = self._execution_device, self.image_projection.dtype
        if states is None or (guided and negative_states is None):
            if not garments or self.image_encoder is None:
                raise ValueError(
                    "the image prompt needs a garment picture and an image_encoder, or image_states (and "
                    "negative_image_states where guidance_scale is above 1); give one or the other."
                )
            pixels = self.feature_extractor(garments, return_tensors="pt").pixel_values
            blank = torch.zeros_like(pixels[:1])  # the mean colour after normalisation
            pixels = torch.cat([blank, pixels]) if guided else pixels
            encoded = self.image_encoder(
                pixels.to(device, self.image_encoder.dtype), output_hidden_states=True
            ).hidden_states[-2]
            negative_states, states = (encoded[:1], encoded[1:]) if guided else (None, encoded)
        parts = [negative_states, states] if guided else [states]
        tokens: list[Tensor] = []
        for part in parts:
            found = self.image_projection(part.to(device, dtype))  # pyright: ignore
            if found.shape[0] not in (1, persons):
                raise ValueError(
                    f"{found.shape[0]} image prompts were given for {persons} persons; give one, or one each."
                )
            found = found.expand(persons, -1, -1)
            tokens.append(found.repeat_interleave(images_per_person, dim=0))
        return torch.cat(tokens)

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of one size as (batch, 3, height, width) in [-1, 1]."""
        return torch.stack([to_tensor(image) for image in images]) * 2 - 1

    def _encode_pictures(self, pixels: Tensor, generator: Any) -> Tensor:
        """Scaled latents, sampled from the posterior as published; float32 where half precision overflows."""
        pixels = pixels.to(self._execution_device, self.vae.dtype)
        if isinstance(generator, list) and len(generator) != pixels.shape[0]:
            generator = generator[0]
        return self._encode_vae_image(pixels, generator)

    def _decode(self, latents: Tensor, output_type: str) -> Any:
        """Latents to pictures; nothing is blended with the input."""
        dtype = self.vae.dtype
        if self.vae.config.force_upcast and dtype != torch.float32:
            self.vae.to(dtype=torch.float32)
        pixels = self.vae.decode(
            latents.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False
        )[0]  # fmt: skip
        self.vae.to(dtype=dtype)
        return self.image_processor.postprocess(pixels, output_type=output_type)

    def _garment_net(self) -> UNet2DConditionModel:
        """GarmentNet, or an error that says how to do without."""
        if self.garment_unet is None:
            raise ValueError(
                "this pipeline has no garment_unet; load one, or give garment_banks that write_garment_banks made."
            )
        return self.garment_unet

    def _check(
        self, given: Mapping[str, tuple[Any, Any]], height: int, width: int, callback_names: Sequence[str]
    ) -> int:
        """Check what does not need a model.

        Returns:
            The number of persons.
        """
        factor = self.vae_scale_factor
        if min(height, width) < factor or height % factor or width % factor:
            raise ValueError(f"height {height} and width {width} must be multiples of {factor} pixels; round them.")
        if set(callback_names) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback tensors {sorted(callback_names)} were asked for; there is {self._callback_tensor_inputs}."
            )
        for name, (pictures, ready) in given.items():
            if pictures is None and ready is None:
                raise ValueError(
                    f"no {name} was given; give {name}=a picture, or what was made from it (see the docstring)."
                )
            if name != "garment" and pictures is not None and ready is not None:
                raise ValueError(f"{name} was given twice, as picture and ready-made; give one of them.")
        counts = {
            name: len(_sequence(pictures)) if pictures is not None else ready.shape[0]
            for name, (pictures, ready) in given.items()
            if name != "garment"
        }
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(
                f"there are {counts}; give the same number of persons, masks and DensePose pictures, at least one."
            )
        return counts["person"]


def _processor(image_encoder: CLIPVisionModelWithProjection | None) -> CLIPImageProcessor:
    """CLIP's picture processor, at its encoder's size; 224 pixels as published."""
    side = image_encoder.config.image_size if image_encoder is not None else 224
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _sequence(pictures: Pictures | None) -> list[Picture]:
    """One picture or several, as a list; a tensor (n, 3, h, w) or array (n, h, w, 3) is several."""
    if pictures is None:
        return []
    if isinstance(pictures, list | tuple):
        return list(pictures)
    return list(pictures) if getattr(pictures, "ndim", 0) == 4 else [pictures]  # pyright: ignore


def _pictures(pictures: Pictures | None) -> list[Image.Image]:
    return [read_image(picture) for picture in _sequence(pictures)]


def _stack_masks(masks: Sequence[Picture], size: tuple[int, int]) -> Tensor:
    """Masks of pixels, (batch, 1, height, width) of zeros and ones: what is repainted.

    Raises:
        ValueError: If a mask is black everywhere.
    """
    found = torch.stack([to_tensor(read_mask(mask).resize(size)) for mask in masks])
    for i, mask in enumerate(found):
        if not bool((mask >= 0.5).any()):
            raise ValueError(
                f"mask {i} is black everywhere, so nothing would be repainted; white marks the garment's place."
            )
    return (found >= 0.5).float()


def _one_each(text: str | Sequence[str] | None, count: int) -> list[str]:
    """One text for each of `count`; none where there is no text."""
    if text is None:
        return []
    texts = [text] * count if isinstance(text, str) else list(text)
    if len(texts) != count:
        raise ValueError(f"{len(texts)} texts were given for {count}: {texts}; give one for all, or one each.")
    return texts


def _bank_at(banks: Mapping[int, ReferenceBank], timestep: Any, latents: Tensor) -> ReferenceBank:
    """The bank of a timestep, where the reader is."""
    if int(timestep) not in banks:
        raise ValueError(
            f"garment_banks has no bank for timestep {int(timestep)} (it has {sorted(banks)[:10]}); write them with "
            "the same scheduler and num_inference_steps."
        )
    return banks[int(timestep)].to(latents.device, latents.dtype)


def _find_part(name: str, folder: Path, base: str | Path | None) -> Path:
    """The folder of a tokenizer.

    Raises:
        FileNotFoundError: If neither place has it.
    """
    places = [folder] if base is None else [folder, Path(base)]
    for place in places:
        if (place / name).is_dir():
            return place / name
    raise FileNotFoundError(
        f"there is no folder {name} in {' or '.join(map(str, places))}; copy it from {PUBLISHED.source}, or give "
        "base=a folder of Stable Diffusion XL."
    )
