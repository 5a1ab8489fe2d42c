"""The pose ReferenceNet: the same person in another pose, as Animate Anyone's first stage (Hu et al., 2023) does it.

What it is:
    writer   a reference UNet of its own, run once, on clean reference latents at t = 0, with the empty prompt
    link     attention: keys and values of the denoiser and of the reference together, at every self-attention
    guidance the unconditional half reads nothing and has no prompt; both halves are guided by the pose
    pose     a skeleton picture through a pose guider, added behind the denoiser's first convolution
A written bank is the character: with it the pipeline needs neither the reference picture nor the reference UNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.links.attach import attach, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.rows import plan_rows
from referencenet.media.images import Picture, read_image, resize, to_tensor
from referencenet.networks.pose_guider import PoseGuider, added_after_first_convolution

Callback = Callable[[DiffusionPipeline, int, Tensor, dict[str, Any]], dict[str, Any] | None]


@dataclass
class ReferenceNetOutput(BaseOutput):
    """What a call gives.

    Attributes:
        images: Pictures as `output_type` says, or latents (batch, 4, height, width).
    """

    images: list[Image.Image] | np.ndarray | Tensor


class ReferenceNetPipeline(DiffusionPipeline):
    """Draws a person in a given pose.

    Args:
        vae: Autoencoder.
        text_encoder: Of the prompt.
        tokenizer: Of the prompt.
        unet: The denoiser; it reads.
        scheduler: Any that diffusers' Stable Diffusion takes.
        pose_guider: Of the skeleton picture.
        reference_unet: It writes; not needed where a bank is given.
    """

    model_cpu_offload_seq = "text_encoder->reference_unet->pose_guider->unet->vae"
    _optional_components = ["reference_unet"]
    _callback_tensor_inputs = ["latents", "prompt_embeds"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        pose_guider: PoseGuider,
        reference_unet: UNet2DConditionModel | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            pose_guider=pose_guider,
            reference_unet=reference_unet,
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | Sequence[Picture] | None = None,
        pose: Picture | Sequence[Picture] | None = None,
        prompt: str | Sequence[str] = "",
        *,
        bank: ReferenceBank | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 1.5,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ReferenceNetOutput | tuple[Any]:
        """Draw.

        Args:
            reference: Whom to draw: one picture, or as many as there are poses. None where `bank` is given.
            pose: OpenPose skeletons on black, one or several.
            prompt: What else to say (place, expression); one, or as many as there are poses.
            bank: What `encode_reference` gave, one row or as many as there are poses.
            height: Of the result in pixels; None: the pose's.
            width: Of the result in pixels; None: the pose's.
            num_inference_steps: Steps of the scheduler.
            guidance_scale: Above 1: how far away from what nobody and no prompt would give. The default suits the
                built-in model best: more costs it both the person and the pose.
            num_images_per_prompt: Results per pose.
            generator: Random numbers, one or one per result.
            latents: First noise, (results, 4, height / factor, width / factor).
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: False gives a tuple.
            callback_on_step_end: Called as in diffusers' pipelines.
            callback_on_step_end_tensor_inputs: Among `latents` and `prompt_embeds`.

        Returns:
            The pictures, those of one pose together.

        Raises:
            ValueError: If a part is missing, or counts and sizes do not fit.
        """
        poses, prompts, size = self._check_inputs(
            reference, pose, prompt, bank, (width, height), callback_on_step_end_tensor_inputs
        )
        if bank is None:
            assert reference is not None  # checked above
            bank = self.encode_reference(reference, size=size)
        people = max(len(poses), bank.rows, len(prompts))
        count = people * num_images_per_prompt
        guided = guidance_scale > 1.0
        prompt_embeds = self._encode_prompts(_spread(prompts, people, "prompts"), num_images_per_prompt, guided)
        features = self._encode_poses(_spread(poses, people, "poses"), size, num_images_per_prompt, guided)
        latents = self._prepare_latents(count, size, latents, generator)
        sources = [_source(i // num_images_per_prompt, bank.rows, people) for i in range(count)]
        weights = [0.0] * count * guided + [1.0] * count
        plan = plan_rows(sources * (1 + guided), weights)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        extra = {"generator": generator} if "generator" in _arguments_of(self.scheduler.step) else {}
        with (
            attach(self.unet) as link,
            link.reading(bank.to(self._execution_device, self.unet.dtype), plan=plan),
            added_after_first_convolution(self.unet, features),
            self.progress_bar(total=num_inference_steps) as bar,
        ):
            for i, timestep in enumerate(self.scheduler.timesteps):
                doubled = torch.cat([latents] * (1 + guided))
                sample = self.scheduler.scale_model_input(doubled, timestep)
                predicted = self.unet(sample, timestep, encoder_hidden_states=prompt_embeds).sample
                if guided:
                    without, full = predicted.chunk(2)
                    predicted = without + guidance_scale * (full - without)
                latents = self.scheduler.step(predicted, timestep, latents, **extra).prev_sample
                if callback_on_step_end is not None:
                    tensors = {"latents": latents, "prompt_embeds": prompt_embeds}
                    wanted = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                    given = callback_on_step_end(self, i, timestep, wanted) or {}
                    latents = given.get("latents", latents)
                    prompt_embeds = given.get("prompt_embeds", prompt_embeds)
                bar.update()
        images = self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ReferenceNetOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def encode_reference(
        self, reference: Picture | Sequence[Picture], *, size: tuple[int, int] | None = None
    ) -> ReferenceBank:
        """Write pictures into a bank, which can be saved and used again without the reference UNet.

        Args:
            reference: One picture or several of one size.
            size: Width and height of the result that will be drawn: the reference is brought to its area. None: as is.

        Returns:
            A bank with one row per picture.

        Raises:
            ValueError: If this pipeline has no reference UNet.
        """
        if self.reference_unet is None:
            raise ValueError(
                "this pipeline has no reference_unet and cannot read a reference picture; give a bank that another one "
                "wrote with encode_reference, or load the pipeline with its reference_unet."
            )
        device, dtype = self._execution_device, self.unet.dtype
        images = [read_image(picture) for picture in _as_list(reference)]
        tensors = [to_tensor(resize(image, size or image.size, multiple=self._multiple)) for image in images]
        if len({tensor.shape for tensor in tensors}) > 1:
            raise ValueError(
                f"the references have sizes {sorted({image.size for image in images})}; give pictures of one shape."
            )
        pixels = torch.stack(tensors).mul(2).sub(1).to(device, dtype)
        latents = self.vae.encode(pixels).latent_dist.mode()
        latents = (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor
        context = self._embed([""]).expand(len(images), -1, -1)
        return write(self.reference_unet, latents, timestep=0, encoder_hidden_states=context)

    @property
    def _multiple(self) -> int:
        """What the sides of pictures must be multiples of: the autoencoder's factor times the denoiser's."""
        return self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def _check_inputs(
        self,
        reference: Picture | Sequence[Picture] | None,
        pose: Picture | Sequence[Picture] | None,
        prompt: str | Sequence[str],
        bank: ReferenceBank | None,
        size: tuple[int | None, int | None],
        tensor_inputs: Sequence[str],
    ) -> tuple[list[Image.Image], list[str], tuple[int, int]]:
        """Poses, prompts and the result's (width, height)."""
        if pose is None:
            raise ValueError(
                "no pose was given; give a skeleton picture, such as paperdoll's skeleton(scene, 64) draws."
            )
        if (reference is None) == (bank is None):
            given = "neither" if bank is None else "both"
            raise ValueError(
                f"{given} of reference and bank was given; expected one of them: a picture or a written bank."
            )
        unknown = sorted(set(tensor_inputs) - set(self._callback_tensor_inputs))
        if unknown:
            raise ValueError(f"the callback asks for {unknown}; expected some of {self._callback_tensor_inputs}.")
        poses = [read_image(picture) for picture in _as_list(pose)]
        width, height = (wanted or own for wanted, own in zip(size, poses[0].size, strict=True))
        if width % self._multiple or height % self._multiple:
            raise ValueError(
                f"the result would be {width} x {height} pixels; expected multiples of {self._multiple}: give "
                "height and width."
            )
        return poses, [prompt] if isinstance(prompt, str) else list(prompt), (width, height)

    def _embed(self, prompts: list[str]) -> Tensor:
        """(prompts, tokens, channels)."""
        length = self.tokenizer.model_max_length
        found = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(found.input_ids.to(self._execution_device)).last_hidden_state.to(self.unet.dtype)

    def _encode_prompts(self, prompts: list[str], images: int, guided: bool) -> Tensor:
        """(guidance batch, tokens, channels), unconditional half first."""
        embeds = self._embed(prompts).repeat_interleave(images, dim=0)
        return torch.cat([self._embed([""]).expand_as(embeds), embeds]) if guided else embeds

    def _encode_poses(self, poses: list[Image.Image], size: tuple[int, int], images: int, guided: bool) -> Tensor:
        """(guidance batch, channels, height, width) of the denoiser's first convolution."""
        pictures = torch.stack([to_tensor(resize(pose, size, how="stretch")) for pose in poses])
        features = self.pose_guider(pictures.to(self._execution_device, self.unet.dtype)).repeat_interleave(
            images, dim=0
        )
        return torch.cat([features] * (1 + guided))

    def _prepare_latents(self, count: int, size: tuple[int, int], latents: Tensor | None, generator: Any) -> Tensor:
        """(count, 4, height, width): the first noise."""
        shape = count, self.unet.config.in_channels, size[1] // self.vae_scale_factor, size[0] // self.vae_scale_factor
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        elif tuple(latents.shape) != shape:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; expected {shape}: one per result, at its size."
            )
        return latents.to(self._execution_device, self.unet.dtype) * self.scheduler.init_noise_sigma

    def _decode(self, latents: Tensor, output_type: str) -> Any:
        """Latents to pictures of the kind that was asked for."""
        if output_type == "latent":
            return latents
        scaled = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        return self.image_processor.postprocess(self.vae.decode(scaled).sample, output_type=output_type)


def _as_list(given: Picture | Sequence[Picture]) -> list[Picture]:
    """One picture or several as a list; a batch of arrays or tensors counts as several."""
    if isinstance(given, np.ndarray | Tensor):
        return list(given) if given.ndim == 4 else [given]
    if isinstance(given, Sequence) and not isinstance(given, str):
        if not given:
            raise ValueError("an empty list of pictures was given; give at least one.")
        return list(given)
    return [given]  # pyright: ignore[reportReturnType]


def _spread(given: list[Any], count: int, what: str) -> list[Any]:
    """One for all, or one for each."""
    if len(given) not in (1, count):
        raise ValueError(f"{len(given)} {what} were given for {count} people; give one, or one for each.")
    return given * count if len(given) == 1 else given


def _source(person: int, rows: int, people: int) -> int:
    """The bank row that a person reads."""
    if rows not in (1, people):
        raise ValueError(f"{rows} references were given for {people} poses; give one, or one for each.")
    return 0 if rows == 1 else person


def _arguments_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a scheduler step's arguments."""
    return function.__code__.co_varnames[: function.__code__.co_argcount]
