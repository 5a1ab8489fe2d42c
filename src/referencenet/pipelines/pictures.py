"""Systems that make single pictures: one body for all their calls. Letters: b samples, (h, w) latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from PIL import Image
from torch import Tensor

from referencenet.links.attach import AnyLink
from referencenet.media.images import Picture
from referencenet.pipelines.encoders import decode_latents, stretched
from referencenet.pipelines.lifecycle import ReferencePipeline
from referencenet.pipelines.options import PictureOptions, Settings
from referencenet.pipelines.passes import Guidance
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas


class PicturePipeline(ReferencePipeline):
    """Draws pictures."""

    options = PictureOptions

    def draw(
        self,
        reference: Any,
        given: Mapping[str, Any],
        canvas: Canvas,
        settings: Settings,
        guidance: Guidance | None = None,
        link: AnyLink | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Write, denoise, decode; call it inside `calling`.

        Args:
            reference: As `show` takes it, a `Shown`, a bank, or timestep to bank; None of a system that reads no bank.
            given: Condition name to its value.
            canvas: What is drawn.
            settings: Of the call.
            guidance: Of the call; None: the system's.
            link: Of the call, with the sites of the pipeline's own; None: that one.
        """
        guidance = guidance or self.spec.guidance
        latents = self.start(self.latent_shape(canvas), settings)
        call = Call(
            canvas=canvas,
            given=given,
            guidance=guidance,
            rescale=settings.guidance_rescale,
            link=link,
            unet_kwargs=unet_options(settings),
            **self.written(reference, canvas, settings),
        )
        with predicting(self, call) as prediction:
            latents = self.steps(latents, lambda scaled, t: prediction.begin(scaled, t)(None), settings)
        images = self.decode(latents, settings.output_type)
        return ImagePipelineOutput(images=images) if settings.return_dict else (images,)

    def canvas_for(self, settings: Settings, **counts: int) -> Canvas:
        """What a call draws that was given so many of each: `num_images_per_prompt` results for each of the most.

        Raises:
            ValueError: If the counts do not fit together, or latents cannot have the size.
        """
        width, height = self.sides(settings.width, settings.height)
        if width is None or height is None:
            raise ValueError("no size was given; give width and height.")
        self.check_size(width, height)
        most = max(counts.values())
        for what, count in counts.items():
            if count not in (1, most):
                raise ValueError(f"{count} {what} were given for {most} results; give one, or one for each.")
        return Canvas(width=width, height=height, samples=most * settings.num_images_per_prompt)

    def at_size(self, picture: Picture, size: tuple[int, int]) -> Image.Image:
        """A person or a mask at the results' (width, height), in the place where the system sees it: stretched."""
        return stretched(picture, size)

    def latent_shape(self, canvas: Canvas) -> tuple[int, int, int, int]:
        """(b, channels, h, w)."""
        factor = self.vae_scale_factor
        return canvas.samples, self.unet.config.out_channels, canvas.height // factor, canvas.width // factor

    @torch.no_grad()
    def decode(self, latents: Tensor, output_type: str) -> Any:
        """Latents (b, 4, h, w) to pictures of the kind that was asked for."""
        if output_type == "latent":
            return latents
        return self.picture_processor.postprocess(decode_latents(self, latents), output_type=output_type)


def unet_options(settings: Settings) -> dict[str, Any]:
    """What a call says to the denoiser itself."""
    given = settings.cross_attention_kwargs
    return {} if given is None else {"cross_attention_kwargs": given}
