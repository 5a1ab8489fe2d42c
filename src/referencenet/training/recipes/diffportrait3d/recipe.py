"""DiffPortrait3D's training in two stages (Gu et al. 2023, section 3): the trainer was never published.

What the released classes do is done here: every view has a timestep of its own, the noise's error, a clean reference.
Which stages there were the paper tells; rate, steps and batch are its sibling's, MagicPose's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from referencenet.media.images import read_image, to_tensor
from referencenet.methods.diffportrait3d import GROUP, DiffPortrait3DPipeline
from referencenet.pipelines.encoders import squared
from referencenet.pipelines.spec import Shown
from referencenet.sampling.ldm_ddim import LDM_SCHEDULE, LDMScheduler
from referencenet.training.data.augment import signed
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.portraits import given_by_frame
from referencenet.training.recipes.diffportrait3d.start import START
from referencenet.training.stage import Stage, noise_loss
from referencenet.training.system import Batch, SystemRecipe

LOSS = partial(noise_loss, LDMScheduler, **LDM_SCHEDULE)
SOURCE = "FreedomGu/DiffPortrait3D's classes and arXiv 2312.13016; stages' rates and steps were not published"
DROPS = {"guidance": Drop(rate=0.0, reads=None, blind=("cameras", "middle"))}
"""Ours and off: what inference shows its unconditional pass."""


class DiffPortrait3DRecipe(SystemRecipe):
    """`reference`: writer and camera ControlNet, on single views; `views`: the view modules, on groups of eight."""

    system, pipeline, layout, frames_apart = "diffportrait3d", DiffPortrait3DPipeline, "views", True
    start = START
    stages = {
        "reference": Stage(
            train=(r"reference_unet\..*", r"controlnet\..*"), loss=LOSS, drops=DROPS, frames=1, temporal=False,
            needs=("views", "cameras"), source=SOURCE,
        ),
        "views": Stage(
            train=(r"unet\..*(motion_modules|samplers\.0\.motion_modules).*",), freeze=(r"unet\.mid_block\.motion.*",),
            loss=LOSS, drops=DROPS, frames=GROUP, needs=("views", "cameras"), source=SOURCE,
        ),
    }  # fmt: skip

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """A view as the reference, and others with another head from their cameras, in any order."""
        order = torch.randperm(len(sample.views), generator=random).tolist()
        if len(order) < self.frames:
            raise ValueError(f"{sample.name} has {len(order)} views; a group needs {self.frames}: leave it out.")
        chosen, reference = order[: self.frames], order[-1]
        pictures = [squared(read_image(sample.views[i]), self.size) for i in chosen]
        heads = [squared(read_image(sample.cameras[i]), self.size) for i in chosen]
        return {
            "target": torch.stack([signed(picture) for picture in pictures]),
            "cameras": torch.stack([to_tensor(head) for head in heads]),
            "reference": signed(squared(read_image(sample.views[reference]), self.size)),
        }

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG002 - passes say it
        """Latents drawn from posteriors, and the empty prompt."""
        reference = self.latents_of(batch.tensors["reference"], batch, 2)
        latents = self.latents_of(batch.tensors["target"], batch, 1)
        states = self.words_of([""])
        return {"latents": latents} | self.seen(reference, states, batch.tensors["cameras"].unbind())

    def seen(self, reference: Tensor, states: Tensor, cameras: Any) -> dict[str, Any]:
        """Fields of `Inputs`.

        Args:
            reference: Latents, (b, 4, h, w); written once for every view, since each has a timestep.
            states: Of the prompt, (1, tokens, channels).
            cameras: Of each sample, (v, 3, H, W) in [0, 1].
        """
        samples, views = len(reference), len(cameras[0])
        rows = reference.repeat_interleave(views, dim=0)
        return {
            "shown": Shown(latents=rows, context=states.expand(len(rows), -1, -1)),
            "given": {
                "prompt": [(states, states)] * samples,
                "cameras": [given_by_frame(heads) for heads in cameras],
                "middle": [False] * samples,
            },
        }

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """The view that is shown, another head from a camera, drawn, truth: the last of a group."""
        if len(sample.views) <= self.frames:
            return []
        heads = [squared(read_image(path), self.size) for path in sample.cameras[: self.frames]]
        views = [squared(read_image(path), self.size) for path in sample.views[: self.frames + 1]]
        drawn = self.pipe(views[-1], heads, **self.options(generator)).frames[0]
        return [views[-1], heads[-1], drawn[-1], views[-2]]

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
        """Of the shapes that the networks' configurations say."""
        states = make(1, 77, self.pipe.unet.config.cross_attention_dim)
        heads = [make(frames, 3, self.factor * size[0], self.factor * size[1]) for _ in range(samples)]
        return {"latents": make(samples, 4, frames, *size)} | self.seen(make(samples, 4, *size), states, heads)


RECIPE = DiffPortrait3DRecipe
