"""Parts2Whole's training in one stage (Huang et al. 2024, section 3; huanngzh/Parts2Whole, `train.py`).

Samples of a batch have the same labels, as in the published program; each lies in a batch with its own crop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from referencenet.media.images import read_image, read_mask, to_tensor
from referencenet.methods.parts2whole import SCHEDULER, Parts2WholePipeline
from referencenet.pipelines.encoders import clip_size
from referencenet.pipelines.spec import Shown
from referencenet.preprocess.parts import PLACES, PersonPart
from referencenet.training.data.augment import cut, draw_crop, signed
from referencenet.training.data.sample import Sample
from referencenet.training.draws import sample_generator
from referencenet.training.drops import Drop
from referencenet.training.recipes.parts2whole.start import START
from referencenet.training.stage import Stage, noise_loss
from referencenet.training.system import Batch, SystemRecipe


class Parts2WholeRecipe(SystemRecipe):
    """The writer, the pose guider, and the denoiser but for its first and last convolution."""

    system, pipeline, layout = "parts2whole", Parts2WholePipeline, "parts2whole"
    start = START
    stages = {
        "parts": Stage(
            train=(r"reference_unet\..*", r"unet\..*", r"pose_guider\..*"),
            freeze=(r"unet\.(conv_in|conv_norm_out|conv_out)\..*",),
            loss=partial(noise_loss, DDIMScheduler, **SCHEDULER),
            drops={
                "pose": Drop(rate=0.2, per="batch", blind=("pose",)),
                "references": Drop(rate=0.2, per="batch", reads=None),
                "each": Drop(rate=0.2, per="batch"),
                "context": Drop(rate=0.1, blind=("prompt", "images")),
            },
            needs=("target", "parts", "dense"),
            source="huanngzh/Parts2Whole, train.py and configs; `each` is drawn for every part by itself",
        )
    }

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """Target, pose, and every part with its mask; as published each in a crop of its own."""
        assert sample.target is not None
        assert sample.dense is not None
        parts = [self._cropped(read_image(path), random) for path in sample.parts.values()]
        masks = [
            self._cropped(self._mask(sample, label, part), random)
            for label, part in zip(sample.parts, parts, strict=True)
        ]
        processor, size = self.pipe.image_processor, clip_size(self.pipe.image_encoder)
        return {
            "target": signed(self._cropped(read_image(sample.target), random)),
            "pose": to_tensor(self._cropped(read_image(sample.dense), random)),
            "parts": torch.stack([signed(part) for part in parts]),
            "masks": torch.stack([(to_tensor(mask) >= 0.5).float() for mask in masks]),
            "clip": processor(parts, return_tensors="pt", **size).pixel_values,
            "labels": "\n".join(sample.parts),
            "caption": sample.caption or "",
        }

    def _mask(self, sample: Sample, label: str, picture: Image.Image) -> Image.Image:
        """A part's mask; without a file all of its picture."""
        path = sample.part_masks.get(label)
        return Image.new("L", picture.size, 255) if path is None else read_mask(path)

    def _cropped(self, picture: Image.Image, random: torch.Generator) -> Image.Image:
        crop = self.config.data.crop
        return cut(picture, draw_crop(picture.size, crop, random) if crop else None, self.size)

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG002 - passes say it
        """Latents drawn from posteriors, the words of caption and labels, CLIP's tokens of the parts."""
        if len(set(batch.texts["labels"])) > 1:
            raise ValueError(
                f"samples of a batch have other parts: {sorted(set(batch.texts['labels']))}; set batch = 1."
            )
        samples = len(batch.places)
        labels = batch.texts["labels"][0].split("\n")
        kept = self._kept(len(labels), batch.step)
        parts = [self.latents_of(batch.tensors["parts"][:, i], batch, 2 + i) for i in kept]
        words = self.words_of([labels[i] for i in kept])
        tokens = self.embeds_of(batch.tensors["clip"].flatten(0, 1)).unflatten(0, (samples, -1))  # (b, parts, c)
        images = torch.nn.functional.pad(tokens, (0, 0, 0, PLACES - tokens.shape[1]))
        states = self.words_of(batch.texts["caption"])
        return {
            "latents": self.latents_of(batch.tensors["target"], batch, 1),
            "shown": Shown(
                latents=torch.stack(parts, dim=1).flatten(0, 1),  # (b parts, 4, h, w)
                context=words.repeat(samples, 1, 1),
                masks=batch.tensors["masks"][:, kept].flatten(0, 1),
                kept={"images": images},
            ),
            "given": {"prompt": (states, torch.zeros_like(states)), "pose": [batch.tensors["pose"]]},
        }

    def _kept(self, parts: int, step: int) -> list[int]:
        """Numbers of the parts that a step's samples have: each is dropped by itself, but not all."""
        generator = sample_generator(self.config.seed, step, 48)
        chance = torch.rand(parts, generator=generator)
        kept = torch.nonzero(chance >= self.stage.drops["each"].rate).flatten().tolist()
        return kept or [int(chance.argmax())]

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """Parts, pose, drawn, truth."""
        assert sample.target is not None
        assert sample.dense is not None
        found = [
            PersonPart(picture=picture, label=label, mask=mask)
            for label, path in sample.parts.items()
            if (mask := self._mask(sample, label, picture := read_image(path))).getbbox()
        ]
        pose = read_image(sample.dense)
        drawn = self.pipe(found, pose, sample.caption or "", **self.options(generator)).images[0]
        return [_tiled([read_image(part.picture) for part in found]), pose, drawn, read_image(sample.target)]

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:  # noqa: ARG002
        """Of the shapes that the networks' configurations say, with two parts for each sample."""
        parts, width = 2, self.pipe.unet.config.cross_attention_dim
        states, shown = make(samples, 77, width), make(parts * samples, 77, width)
        latents = make(parts * samples, 4, *size)
        return {
            "latents": make(samples, 4, *size),
            "shown": Shown(latents=latents, context=shown, kept={"images": make(samples, PLACES, width)}),
            "given": {
                "prompt": (states, states),
                "pose": [make(samples, 3, self.factor * size[0], self.factor * size[1])],
            },
        }


def _tiled(pictures: Sequence[Image.Image]) -> Image.Image:
    """At most nine pictures as one, in rows of three."""
    side = 64
    found = Image.new("RGB", (3 * side, 3 * side))
    for number, picture in enumerate(pictures):
        found.paste(picture.resize((side, side)), (number % 3 * side, number // 3 * side))
    return found


RECIPE = Parts2WholeRecipe
