"""A picture's style in a batch: in the place of the batch's first picture the UNet sees a given one, at every step.

StyleAligned (Hertz et al. 2023, arXiv 2312.02133, section 4.3) inverts the picture by DDIM, with the words and the
guidance of its own place in the batch. Noising it instead costs no pass and keeps less of its details. Letters: r rows
of the guidance batch, b pictures (r or r / 2), c channels, (h, w) latents.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from math import isfinite
from typing import Any, Literal, cast

import torch
from PIL import Image, ImageOps
from torch import Tensor

from referencenet.links.link import Link
from referencenet.media.images import Picture, read_image, to_tensor
from referencenet.sampling.caller import Caller
from referencenet.sampling.inversion import inverted_picture
from referencenet.sampling.latents import posterior_mode
from referencenet.sampling.levels import at_level, levels, place_of
from referencenet.sampling.support import check_pipeline
from referencenet.sampling.unet_call import UNetCall


@dataclass(frozen=True, eq=False)
class Style:
    """A picture whose style is taken, and how.

    Attributes:
        image: The picture: PIL, numpy (H, W, C), tensor (3, H, W) in [0, 1], or a path. It is cut to the results'
            proportions.
        how: `"inverted"`: its latents at every step are those of DDIM run backwards over the call's own steps, one
            pass of the UNet each; `"noised"`: its latents and one fixed noise, without a pass.
        guidance_scale: Of the inversion, from 0, where the call is guided; 2 as published.
        seed: Of the fixed noise.

    Raises:
        TypeError, ValueError, FileNotFoundError: If the picture cannot be read or a setting is out of range.
    """

    image: Picture
    _: KW_ONLY
    how: Literal["inverted", "noised"] = "inverted"
    guidance_scale: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in ("inverted", "noised"):
            raise ValueError(f"how is {self.how!r}; expected 'inverted' or 'noised'.")
        if not isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise ValueError(f"guidance_scale is {self.guidance_scale}; expected a number from 0, 2 as published.")
        object.__setattr__(self, "image", read_image(self.image))


@dataclass
class _Path:
    """What lasts for one call of a pipeline.

    Attributes:
        clean: The picture's latents, (1, c, h, w).
        noise: Of the noised ones, likewise.
        inverted: Number of the step to the latents as the UNet takes them, likewise.
    """

    clean: Tensor
    noise: Tensor
    inverted: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


class StyleFollower:
    """Puts a style into the passes of a linked UNet. While it inverts, `is_inverting` says that a pass is its own."""

    def __init__(self, link: Link, style: Style) -> None:
        self.link = link
        self.style = style
        self.is_inverting = False

    def placed(self, caller: Caller, given: UNetCall, halves: int) -> Tensor:
        """A pass's sample with the style in the first picture's place; the loop's own latents take it there as well.

        Args:
            caller: The pipeline's call.
            given: The pass.
            halves: Guidance halves in the batch.

        Returns:
            (r, c, h, w).

        Raises:
            TypeError: If the pipeline makes films, or its UNet takes more than latents.
            ValueError: If the batch has one picture only, or the scheduler's steps cannot be run backwards.
        """
        pictures = given.rows // halves
        path = caller.kept(f"style of link {id(self.link)}", lambda: self._begun(caller, given, pictures))
        scheduler = caller.scheduler
        if self.style.how == "noised":
            shown = at_level(scheduler, path.clean, path.noise, given.timestep)
        else:
            if not path.inverted:
                path.inverted = self._inverted(scheduler, path.clean, given, halves)
            shown = path.inverted[place_of(scheduler, given.timestep)]
        sample = given.sample.clone()
        sample[::pictures] = shown.to(sample.dtype)
        latents = caller.local("latents")
        if isinstance(latents, Tensor) and latents.shape == (pictures, *shown.shape[1:]):
            scale = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), given.timestep))
            latents[0] = (shown[0] / scale).to(latents.dtype)  # so that the loop's own steps stay with the style
        return sample

    def _begun(self, caller: Caller, given: UNetCall, pictures: int) -> _Path:
        """The picture's latents, encoded once per call."""
        name, sample = type(caller.pipe).__name__, given.sample
        check_pipeline(caller.pipe, self.link.unet, has_pictures=True)
        channels = int(self.link.unet.config.out_channels)  # pyright: ignore
        if sample.ndim != 4 or sample.shape[1] != channels:
            raise TypeError(
                f"{name} gives its UNet a sample of {tuple(sample.shape)}; a style takes the place of a picture's "
                f"{channels} latent channels, (rows, {channels}, height, width). Leave the style out."
            )
        if pictures < 2:
            raise ValueError(
                f"{name} makes one picture, whose place the style would take; give two prompts, the first one of which "
                "tells what the style's picture shows, and drop the first result."
            )
        factor = caller.pipe.vae_scale_factor
        size = (given.size[1] * factor, given.size[0] * factor)
        picture = ImageOps.fit(cast("Image.Image", self.style.image), size, Image.Resampling.LANCZOS)  # cut, not bent
        clean = posterior_mode(caller.pipe.vae, to_tensor(picture)[None].to(sample.device)).to(sample.dtype)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(self.style.seed))
        return _Path(clean, noise.to(clean))

    def _inverted(self, scheduler: Any, clean: Tensor, given: UNetCall, halves: int) -> dict[int, Tensor]:
        """The latents of every step, as the UNet takes them."""
        pictures, scale = given.rows // halves, self.style.guidance_scale
        rows = [half * pictures for half in range(halves)]
        conditions = given.conditions_of(rows, given.size)

        def predict(latents: Tensor, timestep: Any) -> Tensor:
            both = self.link.unet(latents.expand(halves, *latents.shape[1:]), timestep, **conditions)[0]
            return both if halves == 1 else both[:1] + scale * (both[1:] - both[:1])

        self.is_inverting = True
        try:
            return inverted_picture(predict, clean, levels(scheduler), scheduler.config.prediction_type)
        finally:
            self.is_inverting = False
