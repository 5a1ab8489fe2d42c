"""StableGarment's training (Wang et al. 2024, section 3; logn-2024/StableGarment) in two stages.

First the garment encoder learns, then with it the try-on ControlNet. Stable Diffusion stays as it is.
Its trainer was never published; the data set's code was, and what it does to pictures is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from torch.nn import functional

from referencenet.media.images import read_image, read_mask, to_tensor
from referencenet.methods.stable_garment import StableGarmentPipeline, StableGarmentTryOnPipeline
from referencenet.pipelines.conditions import Residuals, Text
from referencenet.pipelines.garments import GREY
from referencenet.pipelines.spec import Moment, Shown
from referencenet.training.data.augment import Box, cut, signed, uniform
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.recipes.stable_garment.start import START
from referencenet.training.stage import Stage
from referencenet.training.system import Batch, SystemRecipe

SOURCE = "logn-2024/StableGarment's data set and README; loss, rate, steps and batch were not published"
DROPS = {"guidance": Drop(rate=0.0, reads=None, blind=("prompt",))}
"""Ours and off."""
RARER = 0.6
"""The published crop and rectangle come with a probability of 0.3 where mirroring comes with 0.5."""


class PersonResiduals(Residuals):
    """The try-on ControlNet on features of the person. Given as keep mask and DensePose (b, 4, H, W), and latents."""

    def encode(self, pipe: Any, call: Any) -> tuple[Tensor, Tensor]:
        """What the guider makes of the person, (b, width, h, w), and the prompt."""
        return pipe.guider(*call.given[self.name]), call.given[self.context][0]

    def at_step(self, pipe: Any, value: Any, moment: Moment) -> list[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The residuals, the middle's last."""
        features, context = value
        down, middle = pipe.controlnet(
            moment.latents, moment.timestep, encoder_hidden_states=context, controlnet_cond=features, return_dict=False
        )
        return [*down, middle]

    def at_window(self, pipe: Any, value: Any, frames: Any) -> list[Tensor]:  # noqa: ARG002
        """Those."""
        return value


class StableGarmentRecipe(SystemRecipe):
    """`garment`: the garment encoder, beside words alone; `tryon`: with guider and ControlNet, which see the person."""

    system, pipeline, layout = "stable_garment", StableGarmentTryOnPipeline, "viton_hd"
    start = START
    published_size = (384, 512)
    has_mask = True
    conditions = (Text("prompt"), PersonResiduals("control"))
    stages = {
        "garment": Stage(
            train=(r"reference_unet\..*",), drops=DROPS, absent=("control",), needs=("target", "garment"), source=SOURCE
        ),
        "tryon": Stage(
            train=(r"reference_unet\..*", r"controlnet\..*", r"guider\..*"),
            drops=DROPS,
            needs=("target", "garment", "mask", "dense"),
            source=SOURCE,
        ),
    }

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """Person, garment, mask and DensePose at the size, changed as the published data set changes them."""
        assert sample.target is not None
        assert sample.garment is not None
        person, garment = read_image(sample.target), read_image(sample.garment)
        mask = read_mask(sample.mask) if sample.mask else Image.new("L", person.size)
        dense = read_image(sample.dense) if sample.dense else Image.new("RGB", person.size)
        chance, likely = torch.rand(3, generator=random).tolist(), self.config.data.augment
        if chance[0] < RARER * likely:
            mask = self._with_rectangle(mask, random)
        if chance[1] < likely:
            person, garment, mask, dense = map(ImageOps.mirror, (person, garment, mask, dense))
        box: Box | None = None
        if chance[2] < RARER * likely:
            side = uniform(0.7, 1.0, random)
            left, top = uniform(0, 1 - side, random), uniform(0, 1 - side, random)
            box = left, top, left + side, top + side
        return {
            "person": signed(cut(person, box, self.size)),
            "mask": (to_tensor(cut(mask, box, self.size)) >= 0.5).float(),
            "dense": to_tensor(cut(dense, box, self.size)),
            "garment": signed(cut(garment, None, self.size)),
            "caption": sample.caption or "",
            "garment_caption": sample.garment_caption or "",
        }

    def _with_rectangle(self, mask: Image.Image, random: torch.Generator) -> Image.Image:
        """The mask with a rectangle more, if that is no sliver and touches it."""
        width, height = mask.size
        xs, ys = (sorted(uniform(0, side, random) for _ in range(2)) for side in mask.size)
        found = mask.copy()
        box = (xs[0], ys[0], xs[1], ys[1])
        if (
            xs[1] - xs[0] < width / 20
            or ys[1] - ys[0] < height / 20
            or mask.crop(tuple(map(int, box))).getbbox() is None
        ):
            return mask
        ImageDraw.Draw(found).rectangle(box, fill=255)
        return found

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG002 - as all
        """Latents drawn from posteriors, and the captions' states."""
        person, mask, dense, garment = (batch.tensors[name] for name in ("person", "mask", "dense", "garment"))
        latents = self.latents_of(person, batch, 1)
        states, empty = self.words_of(batch.texts["caption"]), self.words_of([""])
        agnostic = self.latents_of(torch.where(mask > 0, torch.full_like(person, GREY), person), batch, 2)
        return {
            "latents": latents,
            "shown": Shown(
                latents=self.latents_of(garment, batch, 3),
                context=self.words_of(batch.texts["garment_caption"]),
            ),
            "given": {"prompt": (states, empty), "control": (torch.cat([1 - mask, dense], dim=1), agnostic)},
            "places": self.counted(functional.interpolate(mask, latents.shape[-2:])),
        }

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """Garment, person without it, drawn, truth; the first stage draws people without seeing one."""
        assert sample.target is not None
        assert sample.garment is not None
        person, garment = read_image(sample.target), read_image(sample.garment)
        told = {"garment_prompt": sample.garment_caption or "", **self.options(generator)}
        if sample.mask is None or sample.dense is None or "control" in self.stage.absent:
            parts = {name: part for name, part in self.pipe.components.items() if name not in ("controlnet", "guider")}
            pipe = StableGarmentPipeline(**parts)
            pipe.set_progress_bar_config(disable=True)
            drawn = pipe(garment, sample.caption or "", magnify=False, **told).images[0]
            return [garment, Image.new("RGB", person.size, (128,) * 3), drawn, person]
        mask = read_mask(sample.mask).resize(person.size)
        drawn = self.pipe(person, garment, mask, sample.dense, sample.caption or "", **told).images[0]
        return [garment, Image.composite(Image.new("RGB", person.size, (128,) * 3), person, mask), drawn, person]

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:  # noqa: ARG002
        """Of the shapes that the networks' configurations say."""
        words = make(samples, 77, self.pipe.unet.config.cross_attention_dim)
        person = make(samples, 4, self.factor * size[0], self.factor * size[1]), make(samples, 4, *size)
        return {
            "latents": make(samples, 4, *size),
            "shown": Shown(latents=make(samples, 4, *size), context=words),
            "given": {"prompt": (words, words), "control": person},
        }


RECIPE = StableGarmentRecipe
