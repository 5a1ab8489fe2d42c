"""CatVTON (Chong et al. 2024, arXiv 2407.15886; Zheng-Chong/CatVTON): a person who wears a given garment.

What it is:
    writer   none: the denoiser itself sees the garment, which lies below the person in one picture of twice the height,
             so that every self-attention and every convolution joins the two; the upper half is the result
    link     none
    guidance the unconditional pass sees zeros in the garment's place
    space    9 input channels: latents, mask (1 = repaint; 0 over the garment), masked person above garment
    context  none: cross-attentions give their input back, so that each block adds norm2(h)
Published and not kept: latents of person and garment drawn outside of the generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ImagePipelineOutput
from PIL import Image, ImageOps
from torch import Tensor

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.catvton import CATVTON_NAMES
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.media.images import Picture, read_image, read_mask
from referencenet.networks.context_free_unet import ContextFreeUNet
from referencenet.networks.layout import SD15_SCHEDULE, SD15_UNET, picture_config
from referencenet.pipelines.adapters import UNetAdapters
from referencenet.pipelines.dressing import mask_to_latent_size
from referencenet.pipelines.encoders import encode_pixels, listed, mask_pixels, pixels_of
from referencenet.pipelines.garments import check_masks
from referencenet.pipelines.options import PictureOptions, Settings
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, Condition, Spec, UNetCall, each_for


class GarmentBelow(Condition):
    """Five channels (r, 5, 2h, w). Given as mask (r, 1, h, w), masked person and garment (r, 4, h, w) each."""

    enters = "in further input channels: the mask, and the masked person with the garment below"

    def encode(self, pipe: Any, call: Any) -> tuple[Tensor, Tensor]:
        """With the garment, and with zeros in its place."""
        given: Sequence[Tensor] = call.given[self.name]
        mask, person, garment = (each_for(part, max(map(len, given))).to(pipe._execution_device) for part in given)
        white = torch.cat([mask, torch.zeros_like(mask)], dim=2)

        def above(below: Tensor) -> Tensor:
            return torch.cat([white, torch.cat([person, below], dim=2)], dim=1)

        return above(garment), above(torch.zeros_like(garment))

    def seen(self, value: tuple[Tensor, Tensor]) -> Tensor:
        """With the garment, (r, 5, 2h, w)."""
        return value[0]

    def blank(self, value: tuple[Tensor, Tensor]) -> Tensor:
        """Without it, (r, 5, 2h, w)."""
        return value[1]

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, 5, 2h, w) behind the latents; there is no context."""
        sample = torch.cat([call.sample, value.to(call.sample)], dim=1)
        return replace(call, sample=sample).having(encoder_hidden_states=None)


SPEC = Spec(
    write=None,
    link=None,
    guidance=TwoWay(blind=("garment",)),
    apart=True,  # the passes share nothing, and one alone is 24,576 tokens
    conditions=(GarmentBelow("garment"),),
    scheduler=partial(DDIMScheduler, **SD15_SCHEDULE),
    steps=50,
    scale=2.5,
    eta=1.0,
    size=(768, 1024),
    defaults="Zheng-Chong/CatVTON, inference script and pipeline",
)

BASE = "a folder of Stable Diffusion 1.5 for inpainting, such as booksforcharlie/stable-diffusion-inpainting"

UNET = SD15_UNET | {"in_channels": 9}

PUBLISHED = PublishedSet(
    name="catvton.attention",
    source="huggingface.co/zhengchong/CatVTON: its folder mix-48k-1024, vitonhd-16k-512 or dresscode-16k-512, "
    f"over {BASE}",
    licence="CC BY-NC-SA 4.0; base: CreativeML OpenRAIL-M",
    paper="2407.15886",
    files=(
        PublishedFile(
            path="attention/model.safetensors",
            component="unet",
            keymap=KeyMap(renames=CATVTON_NAMES),
            share=r".*\.attn1\..*",
            base=KeyMap(ignored={r".*\.attn2\..*": "cross-attentions give their input back"}),
        ),
    ),
    build={"unet": lambda config: ContextFreeUNet(**picture_config(config) | {"in_channels": 9})},
    base_config=UNET,
    tiny_config=UNET  # with all levels: the file's names are numbers of blocks
    | {"block_out_channels": (4, 8, 8, 8), "norm_num_groups": 2, "attention_head_dim": 2, "cross_attention_dim": 16},
    further={
        "vae": Part(
            kind=AutoencoderKL, folder="sd-vae-ft-mse", in_base=True, source="huggingface.co/stabilityai/sd-vae-ft-mse"
        ),
    },
)
"""The self-attentions, which alone were trained."""

Pictures = Picture | Sequence[Picture]


class CatVTONPipeline(PicturePipeline, UNetAdapters):
    """Persons, garments and masks in; the persons wearing the garments out.

    Args:
        vae: sd-vae-ft-mse.
        unet: The denoiser.
        scheduler: DDIM as published; others of diffusers work.
    """

    spec = SPEC
    published = PUBLISHED
    model_cpu_offload_seq = "unet->vae"

    def __init__(self, vae: AutoencoderKL, unet: ContextFreeUNet, scheduler: DDIMScheduler) -> None:
        super().__init__()
        self.register(locals())

    @torch.no_grad()
    def __call__(
        self, person: Pictures, garment: Pictures, mask: Pictures, **options: Unpack[PictureOptions]
    ) -> ImagePipelineOutput | tuple[Any]:
        """Dress persons. The whole picture is drawn anew, what lies outside of the mask too.

        Args:
            person: Picture or pictures; its middle, in the result's proportions, is kept.
            garment: One picture for all persons, or one each; white is added to come to the result's proportions.
            mask: White (at least a half) = repaint; one per person, of its picture's proportions.
            options: See `PictureOptions`. `latents`, and those that a callback sees, have twice the result's height.

        Returns:
            The pictures, those of one person together.

        Raises:
            ValueError: If inputs are missing, contradict each other or do not fit; says what to do.
        """
        settings = self.settle(options)
        check_masks(person, mask)
        counts = {"persons": len(listed(person)), "garments": len(listed(garment)), "masks": len(listed(mask))}
        canvas = self.canvas_for(settings, **counts)
        with self.calling(settings):
            given = self._encoded(person, garment, mask, canvas, settings)
            return self.draw(None, {"garment": given}, canvas, settings)

    def _encoded(
        self, person: Pictures, garment: Pictures, mask: Pictures, canvas: Canvas, settings: Settings
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask (r, 1, h, w), masked persons and garments (r, 4, h, w): draws from posteriors, persons first."""
        white = mask_pixels([cropped(read_mask(each), canvas) for each in listed(mask)], canvas.size)
        persons = pixels_of([cropped(read_image(each), canvas) for each in listed(person)]) * (white < 0.5)
        garments = pixels_of([padded(read_image(each), canvas) for each in listed(garment)])
        latents = [
            encode_pixels(self, pixels, settings.generator, sample=True, keep=True) for pixels in (persons, garments)
        ]
        return mask_to_latent_size(white, (latents[0].shape[2], latents[0].shape[3])), latents[0], latents[1]

    def at_size(self, picture: Picture, size: tuple[int, int]) -> Image.Image:
        """The middle of a person or a mask, at the results' (width, height)."""
        return ImageOps.fit(read_image(picture), size, Image.Resampling.LANCZOS)

    def latent_shape(self, canvas: Canvas) -> tuple[int, int, int, int]:
        """(b, channels, 2h, w): the result, and the garment below it."""
        samples, channels, height, width = super().latent_shape(canvas)
        return samples, channels, 2 * height, width

    @torch.no_grad()
    def decode(self, latents: Tensor, output_type: str) -> Any:
        """The upper half of latents (b, 4, 2h, w), as pictures of the kind that was asked for."""
        return super().decode(latents.chunk(2, dim=2)[0], output_type)


def cropped(picture: Image.Image, canvas: Canvas) -> Image.Image:
    """The middle of a person or a mask, at the canvas's size."""
    return ImageOps.fit(picture, canvas.size, Image.Resampling.LANCZOS)


def padded(picture: Image.Image, canvas: Canvas) -> Image.Image:
    """A whole garment at the canvas's size, on white."""
    return ImageOps.pad(picture, canvas.size, Image.Resampling.LANCZOS, color="white")
