"""Second stage: the text-to-image model, taught on single pictures and on sheets that show one character twice.

Large models read a reference through their self-attention although nobody taught them to, because photographs and
comics show the same person more than once. A small model learns it only where its pictures do so too. Half of the
steps therefore show sheets: two pictures of one character, side by side or one above the other, at one noise level.
The caption tells of one figure and mostly leaves out who it is; only that figure is learned from, so nothing but the
other figure can tell. Prediction is of v (Salimans and Ho, 2022) on a schedule with zero terminal signal (Lin et
al., 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.builtin.training.correspondence import (
    GROUPS,
    attention_inputs,
    caption_loss,
    part_shares,
    sheet_loss,
)
from referencenet.builtin.training.encoded import MOSTLY_SILENT, EncodedSet, draw_told
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.builtin.training.text import WIDTH
from referencenet.builtin.training.vae import LATENT_CHANNELS
from referencenet.training.draws import step_generator, step_kind


def make_unet() -> UNet2DConditionModel:
    """The built-in model's UNet, untrained: attention at 16x16, at 8x8 and in the middle at 4x4; none at 32x32."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 64, 96, 96),
        layers_per_block=(2, 1, 1, 1),
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 2, 3, 3),  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """The schedule that the built-in model is trained on and samples with."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # unused with trailing timesteps; diffusers warns without it
    )


def make_pipeline(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """An ordinary Stable Diffusion pipeline of these parts, without a progress bar."""
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


CORRESPONDENCE = 0.3
"""Weight of `correspondence`, attention on another picture, beside the error."""
DRAWN_STEPS = 20
"""Of what a sheet shows."""
CAPTION = 0.1
"""Weight of `caption`, attention on words; smaller, since one head may well look at the whole sentence."""
FIGURE, GARMENT = 3.0, 10.0
"""How many times more a latent of the figure, or of its upper garment, counts than one of the background: patterns and
emblems are a fortieth of a picture."""
_UPPER = GROUPS.index(("upper garment",))


def figure_weight(parts: Tensor, height: int, width: int) -> Tensor:
    """Weights of latents in the loss, (b, 1, height, width) in [1, GARMENT], from parts (b, H, W)."""
    shares = part_shares(parts, height, width)
    weight = 1.0 + (FIGURE - 1.0) * shares.sum(dim=2) + (GARMENT - FIGURE) * shares[..., _UPPER]
    return weight.view(-1, 1, height, width)


def weighted_error(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error, weighted."""
    weight = weight.expand_as(target)
    return ((predicted - target).square() * weight).sum() / weight.sum()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step learns from.

    Attributes:
        latents: (b, 4, h, w), scaled.
        tokens: (b, LENGTH) of the captions.
        topics: (b, LENGTH) uint8, what the tokens are about.
        parts: (b, H, W) uint8 that the pictures show.
        learned: (b or 1, 1, h or 1, w or 1), how much each latent counts.
    """

    latents: Tensor
    tokens: Tensor
    topics: Tensor
    parts: Tensor
    learned: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class BaseRecipe(Stepwise):
    """Trains UNet and text encoder together.

    Args:
        unet: The denoiser.
        text_encoder: Its text encoder.
        tokenizer: Its tokenizer.
        vae: The finished autoencoder, for sample sheets.
        data: Training pictures.
        prompts: Prompts of the sample sheet.
        batch: Single pictures of a step; half as many sheets.
        sheets: Share of the steps that show sheets, in [0, 1].
        seed: Of the run.
        device: Where to train.
    """

    name = "base"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        vae: AutoencoderKL,
        data: EncodedSet,
        *,
        prompts: list[str],
        batch: int = 32,
        sheets: float = 0.5,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.unet = unet.to(self.device, memory_format=torch.channels_last)  # a tenth faster on CPU
        self.text_encoder = text_encoder.to(self.device)
        self.modules = {"unet": unet, "text_encoder": text_encoder}
        self.pipe = make_pipeline(vae.to(self.device), text_encoder, tokenizer, unet)
        self.data, self.prompts = data, prompts
        self.batch, self.sheets, self.seed = batch, sheets, seed
        self.schedule = make_scheduler()

    def loss(self, step: int) -> dict[str, Tensor]:
        """Mean squared error of v, and where attention missed: on single pictures words, on sheets the other figure."""
        generator = step_generator(self.seed, step)
        sheets = step_kind(self.seed, step) < self.sheets
        batch = (self._sheet_batch if sheets else self._single_batch)(generator).to(self.device)
        latents, parts = batch.latents, batch.parts
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        timestep = noisy_timesteps(len(latents), generator).to(self.device)
        noised = self.schedule.add_noise(latents, noise, timestep)  # pyright: ignore[reportArgumentType]
        target = self.schedule.get_velocity(latents, noise, timestep)  # pyright: ignore[reportArgumentType]
        context = self.text_encoder(batch.tokens).last_hidden_state
        with attention_inputs(self.unet, "attn1" if sheets else "attn2") as inputs:
            predicted = self.unet(noised, timestep, context).sample
        error = weighted_error(predicted, target, batch.learned * figure_weight(parts, *latents.shape[2:]))
        if sheets:
            missed = sheet_loss(inputs, parts, dim=-1 if parts.shape[2] > parts.shape[1] else -2)
            return {"loss": error + CORRESPONDENCE * missed, "error": error, "correspondence": missed}
        missed = caption_loss(inputs, context, parts, batch.topics)
        return {"loss": error + CAPTION * missed, "error": error, "caption": missed}

    def sheet(self) -> np.ndarray:
        """Above single pictures of the prompts, below sheets without any telling of who."""
        generator = torch.Generator().manual_seed(1)
        options = {
            "guidance_scale": 3.0,
            "num_inference_steps": DRAWN_STEPS,
            "output_type": "np",
            "generator": generator,
        }
        singles = self.pipe(self.prompts, height=64, width=64, **options).images
        twins = self.pipe(self.prompts[: len(self.prompts) // 2], height=64, width=128, **options).images
        rows = [np.concatenate(list(singles), axis=1), np.concatenate(list(twins), axis=1)]
        return (np.concatenate(rows, axis=0) * 255).round().astype(np.uint8)

    def _single_batch(self, generator: torch.Generator) -> Batch:
        """Pictures of one figure each; a tenth of them without a caption, for guidance."""
        index = torch.randint(len(self.data.latents), (self.batch,), generator=generator)
        tokens, topics = self.data.said(index, draw_told(self.batch, (0.1, 0.2, 0.7), generator))
        return Batch(
            latents=self.data.latents[index],
            tokens=tokens,
            topics=topics,
            parts=self.data.parts(index),
            learned=torch.ones(1, 1, 1, 1),
        )

    def _sheet_batch(self, generator: torch.Generator) -> Batch:
        """Pictures of two figures each; where nothing is told both are learned, else the told one."""
        number = self.batch // 2
        told_of, other = self.data.pictures.together(number, 2, generator).unbind(1)
        tokens, topics = self.data.said(told_of, draw_told(number, MOSTLY_SILENT, generator))
        side = -1 if float(torch.rand((), generator=generator)) < 0.5 else -2
        swap = (torch.rand(number, generator=generator) < 0.5).view(-1, 1, 1, 1)
        here, there = self.data.latents[told_of], self.data.latents[other]
        mine, others = self.data.parts(told_of), self.data.parts(other)
        turn = swap[:, 0]  # (number, 1, 1)
        silent = (tokens == self.data.empty).all(dim=1).view(-1, 1, 1, 1)
        first = (silent | ~swap).float().expand(-1, 1, *here.shape[2:])
        second = (silent | swap).float().expand(-1, 1, *here.shape[2:])
        return Batch(
            latents=torch.cat([torch.where(swap, there, here), torch.where(swap, here, there)], dim=side),
            tokens=tokens,
            topics=topics,
            parts=torch.cat([torch.where(turn, others, mine), torch.where(turn, mine, others)], dim=side),
            learned=torch.cat([first, second], dim=side),
        )


def noisy_timesteps(number: int, generator: torch.Generator) -> Tensor:
    """(number,), with a density of t^(1/3): where there is much noise, only words or a reference tell the colours."""
    return (1000 * torch.rand(number, generator=generator).pow(0.75)).long().clamp_max(999)
