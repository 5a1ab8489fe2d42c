"""Films of one person from a picture and its CLIP token: what Animate Anyone and AniPortrait have in common.

The reference is shown as its mean latent at the film's size, its CLIP token is the context of both networks, and the
only condition beside it are drawings, `poses`. Both releases take the same autoencoder and CLIP, and one schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Unpack

from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from referencenet.checkpoints.published import Part
from referencenet.links.bank import ReferenceBank
from referencenet.media.images import Picture
from referencenet.pipelines.adapters import UNetAdapters
from referencenet.pipelines.encoders import IMAGE_TOKEN, clip_token, encode_pixels, pixels_of, read_one, stretched
from referencenet.pipelines.films import FilmPipeline, Read
from referencenet.pipelines.options import FilmOptions
from referencenet.pipelines.spec import Canvas, Shown

PORTRAIT_SCHEDULE: Mapping[str, Any] = MappingProxyType({
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",  # as published: inference differs from training, and the weights are used this way
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
})  # fmt: skip
"""DDIM as in both systems' published `inference_v2.yaml`."""

PORTRAIT_PARTS: Mapping[str, Part] = MappingProxyType({
    "vae": Part(kind=AutoencoderKL, folder="sd-vae-ft-mse", source="huggingface.co/stabilityai/sd-vae-ft-mse"),
    "image_encoder": Part(
        kind=CLIPVisionModelWithProjection, source="huggingface.co/lambdalabs/sd-image-variations-diffusers"
    ),
    "image_processor": Part(kind=CLIPImageProcessor, source="transformers", default=CLIPImageProcessor),
})  # fmt: skip
"""What both releases need beside their files."""


class PortraitFilmPipeline(FilmPipeline, UNetAdapters):
    """Films of the person of a picture, led by drawings."""

    _optional_components = ["image_encoder", "image_processor", "reference_unet"]

    def show(self, reference: Picture, canvas: Canvas) -> Shown:
        """The picture's mean latent (1, 4, h, w), and its CLIP token (1, 1, channels) as context, and kept."""
        picture = read_one(reference)
        token = clip_token(self, [picture])
        latents = encode_pixels(self, pixels_of([stretched(picture, canvas.size)]), keep=True)
        return Shown(latents=latents, context=token, kept={IMAGE_TOKEN: token})

    def stream(
        self,
        reference: Picture | ReferenceBank,
        poses: Read,
        *,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
        **options: Unpack[FilmOptions],
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """Animate a film of any length in bounded memory: finished frames come while later ones have not begun.

        Args:
            reference: A picture of the person, or a bank that `write` wrote.
            poses: Gives the drawings [start, stop): one (frames, 3, height, width) in [0, 1] per film of drawings.
                Called in order, once for every frame.
            seed: Of the noise. Unlike with a generator, a frame's noise does not depend on the film's length.
            state: Go on where the same call left off, with as many processes or others.
            step_done: Called after every prediction of a window, whichever process made it.
            options: See `FilmOptions`; width, height and num_frames are needed.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.
        """
        yield from self.film_stream(reference, "poses", poses, options, seed=seed, state=state, step_done=step_done)
