"""What the trainings of systems that animate share: films of one person, driven by drawings.

They learn from single frames first, without motion modules, then let those alone learn from clips. Letters: b samples,
f frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from referencenet.media.images import to_tensor
from referencenet.pipelines.encoders import IMAGE_TOKEN, clip_size
from referencenet.pipelines.spec import Shown
from referencenet.training.data.augment import cut, draw_crop, signed
from referencenet.training.data.frames import draw_clip, draw_one, draw_pair, num_frames, read_frames
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.stage import Stage, velocity_loss
from referencenet.training.system import Batch, SystemRecipe

DROPS = {"reference": Drop(rate=0.1, per="batch", reads=None)}
"""As published: for a whole batch nothing is read, and CLIP is shown a picture of zeros."""


def image_stage(*guiders: str, source: str, needs: tuple[str, ...] = ("target", "pose")) -> Stage:
    """Single frames: both UNets and the guiders learn, but motion modules and what the writer's bank does not need."""
    return Stage(
        train=(r"unet\..*", r"reference_unet\..*", *(rf"{guider}\..*" for guider in guiders)),
        freeze=(r"unet\..*motion_modules.*", r"reference_unet\.up_blocks\.<last>\..*"),
        loss=velocity_loss,
        drops=DROPS,
        frames=1,
        temporal=False,
        needs=needs,
        source=source,
    )


def video_stage(frames: int, *, source: str, needs: tuple[str, ...] = ("target", "pose")) -> Stage:
    """Clips: motion modules learn, and nothing else."""
    return Stage(
        train=(r"unet\..*motion_modules.*",),
        loss=velocity_loss,
        drops=DROPS,
        frames=frames,
        needs=needs,
        source=source,
    )


class DrivenFilmRecipe(SystemRecipe):
    """Films of one person, driven by drawings."""

    driving: ClassVar[str] = "pose"
    """Field of a sample that has the drawings."""

    def length(self, sample: Sample) -> int:
        """Frames of a sample's film that have a drawing."""
        assert sample.target is not None
        return min(num_frames(sample.target), num_frames(getattr(sample, self.driving)))

    def frames_at(self, sample: Sample, places: Sequence[int]) -> list[Image.Image]:
        """Frames of a sample's film, by their numbers."""
        assert sample.target is not None
        return read_frames(sample.target, places)

    def drawings_at(self, sample: Sample, places: Sequence[int]) -> list[Image.Image]:
        """Their drawings."""
        return read_frames(getattr(sample, self.driving), places)

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """Target frames, their drawings and the reference, all in one crop."""
        return self._read(sample, random)[0]

    def _read(self, sample: Sample, random: torch.Generator) -> tuple[dict[str, Tensor | str], Image.Image]:
        """The same, and the whole reference."""
        count = self.length(sample)
        if self.frames == 1:
            reference, target = draw_pair(count, self.config.data.margin, random)
            places = [target]
        else:
            stride = draw_one(self.config.data.strides, random) or self.config.data.stride
            reference, places = draw_clip(count, self.frames, stride, random)
        shown, drawn = self.frames_at(sample, places), self.drawings_at(sample, places)
        whole = self.frames_at(sample, [reference])[0]
        box = draw_crop(whole.size, self.config.data.crop, random) if self.config.data.crop else None
        return {
            "target": torch.stack([signed(cut(frame, box, self.size)) for frame in shown]),
            "poses": torch.stack([to_tensor(cut(frame, box, self.size)) for frame in drawn]),
            "reference": signed(cut(whole, box, self.size)),
        }, whole

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """Reference, drawing, drawn, truth: the first frame, or of a clip the last."""
        count, frames = self.length(sample), self.frames
        if count < frames:
            return []
        places = list(range(0, frames)) if frames > 1 else [count - 1]
        shown, drawn = self.frames_at(sample, places), self.drawings_at(sample, places)
        reference = self.frames_at(sample, [0])[0]
        found = self.pipe(reference, [each.resize(self.size) for each in drawn], **self.options(generator)).frames[0]
        return [reference, drawn[-1], found[-1], shown[-1]]


class PortraitFilmRecipe(DrivenFilmRecipe):
    """The reference's CLIP token is the context of both networks: Animate Anyone, AniPortrait."""

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """The same, and the whole reference for CLIP."""
        read, whole = self._read(sample, random)
        return {**read, "clip": self._for_clip(whole)}

    def _for_clip(self, picture: Image.Image) -> Tensor:
        """A picture as CLIP takes it, cropped to its middle as the training does, (3, side, side)."""
        size = clip_size(self.pipe.image_encoder)
        return self.pipe.image_processor(picture, return_tensors="pt", **size).pixel_values[0]

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:
        """Latents drawn from posteriors, and CLIP's tokens."""
        kept = (~dropped["reference"]).float().to(self.device).view(-1, 1, 1, 1)
        token = self.embeds_of(batch.tensors["clip"] * kept).unsqueeze(1)  # (b, 1, c)
        reference = self.latents_of(batch.tensors["reference"], batch, 2)
        return {
            "latents": self.latents_of(batch.tensors["target"], batch, 1),
            "shown": Shown(latents=reference, context=token, kept={IMAGE_TOKEN: token}),
            "given": {"poses": [given_by_frame(film) for film in batch.tensors["poses"]]},
        }

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
        """Of the shapes that the networks' configurations say."""
        token = make(samples, 1, self.pipe.unet.config.cross_attention_dim)
        films = [make(frames, 3, self.factor * size[0], self.factor * size[1]) for _ in range(samples)]
        return {
            "latents": make(samples, 4, frames, *size),
            "shown": Shown(latents=make(samples, 4, *size), context=token, kept={IMAGE_TOKEN: token}),
            "given": {"poses": [given_by_frame(film) for film in films]},
        }


class ControlledFilmRecipe(DrivenFilmRecipe):
    """The empty prompt is the context of all networks, and a ControlNet sees the drawings: MagicAnimate, MagicPose."""

    has_scale: ClassVar[bool] = False
    """Whether the drawings' condition is told a factor."""
    drawings: ClassVar[str] = "poses"
    """Name of the condition."""

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ARG002 - as its relatives
        """Latents drawn from posteriors, and the empty prompt."""
        reference = self.latents_of(batch.tensors["reference"], batch, 2)
        latents = self.latents_of(batch.tensors["target"], batch, 1)
        states = self.words_of([""])
        return {"latents": latents} | self.controlled(reference, states, batch.tensors["poses"].unbind())

    def controlled(self, reference: Tensor, states: Tensor, drawings: Sequence[Tensor]) -> dict[str, Any]:
        """Fields of `Inputs`.

        Args:
            reference: Latents, (b, 4, h, w).
            states: Of the prompt, (1, tokens, channels).
            drawings: Of each sample, (f, 3, H, W).
        """
        samples = len(reference)
        given: dict[str, Any] = {
            "prompt": [(states, states)] * samples,
            self.drawings: [given_by_frame(film) for film in drawings],
        }
        given |= {f"{self.drawings}_scale": [1.0] * samples} if self.has_scale else {}
        return {"shown": Shown(latents=reference, context=states.expand(samples, -1, -1)), "given": given}

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
        """Of the shapes that the networks' configurations say."""
        states = make(1, 77, self.pipe.unet.config.cross_attention_dim)
        films = [make(frames, 3, self.factor * size[0], self.factor * size[1]) for _ in range(samples)]
        latents = make(samples, 4, frames, *size)
        return {"latents": latents} | self.controlled(make(samples, 4, *size), states, films)


def given_by_frame(*films: Tensor) -> Callable[[int, int], list[Tensor]]:
    """Drawings (f, 3, H, W) as conditions of films take them."""
    return lambda start, stop: [film[start:stop] for film in films]
