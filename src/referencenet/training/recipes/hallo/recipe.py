"""Hallo's training in two stages (Xu et al. 2024, section 4; fudan-generative-vision/hallo).

Published and not kept: in the second stage weights were averaged apart from errors, and samples without a reference had
four motion frames of zeros whatever the number was. Letters: b samples, f frames, n motion frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from referencenet.inputs import read_array
from referencenet.links.attach import attach, write
from referencenet.links.concat import Concat
from referencenet.media.images import read_mask, to_tensor
from referencenet.methods.hallo import HalloPipeline
from referencenet.networks.audio_attention import Heard, Held
from referencenet.networks.neighbourhood import neighbours
from referencenet.pipelines.spec import Shown
from referencenet.pipelines.talking import level_sizes
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.portrait import Portrait
from referencenet.training.data.augment import cut, signed
from referencenet.training.data.frames import num_frames, read_frames
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.predicted import Inputs, learns
from referencenet.training.recipes.hallo.start import START
from referencenet.training.stage import Stage, velocity_loss
from referencenet.training.system import Batch, SystemRecipe

SOURCE = "fudan-generative-vision/hallo, configs/train/stage{1,2}.yaml and scripts/train_stage{1,2}.py"
REGIONS = "border", "face", "lip"
"""Of the three attentions to audio, in their order."""


class HalloRecipe(SystemRecipe):
    """`image`: single frames, without audio and motion; `video`: audio layers and motion modules, on clips of 14."""

    system, pipeline, layout = "hallo", HalloPipeline, "hdtf"
    start = START
    has_mask = True
    stages = {
        "image": Stage(
            train=(r"unet\..*", r"reference_unet\..*", r"face_locator\..*", r"face_projection\..*"),
            freeze=(r"unet\..*motion_modules.*",), loss=velocity_loss, frames=1, temporal=False,
            drops={"reference": Drop(rate=0.1, per="batch", reads=None)},
            needs=("target", "face_mask", "embedding"), source=SOURCE,
        ),
        "video": Stage(
            train=(r"unet\..*motion_modules.*", r"audio_projection\..*"), loss=velocity_loss, frames=14,
            drops={
                "reference": Drop(rate=0.05, per="batch", reads=None), "audio": Drop(rate=0.05, per="batch"),
                "motion": Drop(rate=0.05, per="batch"),
            },
            needs=("target", "face_mask", "embedding", "speech"), source=SOURCE,
        ),
    }  # fmt: skip

    @property
    def has_audio(self) -> bool:
        """Whether the stage is the second."""
        return self.stage.temporal

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """A clip with the frames before it, another frame, the face's place and embedding, and what is heard."""
        assert sample.target is not None
        assert sample.embedding is not None
        before, count = self.pipe.config.motion_frames if self.has_audio else 0, num_frames(sample.target)
        if count < before + self.frames:
            raise ValueError(f"{sample.name} has {count} frames; a clip needs {before + self.frames}: leave it out.")
        start = int(torch.randint(before, count - self.frames + 1, (1,), generator=random))
        reference = int(torch.randint(count, (1,), generator=random))
        frames = read_frames(sample.target, list(range(start - before, start + self.frames)))
        shown = torch.stack([signed(cut(frame, None, self.size)) for frame in frames])
        read: dict[str, Tensor | str] = {
            "target": shown[before:],
            "reference": signed(cut(read_frames(sample.target, [reference])[0], None, self.size)),
            "place": to_tensor(read_mask(sample.face_mask["whole"]).resize(self.size)).expand(3, -1, -1).contiguous(),
            "embedding": torch.from_numpy(read_array(sample.embedding, "a face's embedding")).float().flatten(),
        }
        if self.has_audio:
            masks = [to_tensor(read_mask(sample.face_mask[name]).resize(self.size)) for name in REGIONS]
            sound = read_array(sample.speech, "features of speech", mapped=True)
            places = neighbours(start, start + self.frames, self.pipe.audio_projection.config.window, len(sound))
            read |= {"motion": shown[:before], "regions": torch.cat(masks)}
            read["sound"] = torch.from_numpy(sound[places.numpy()]).float()  # of a film only what the clip hears
        return read

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """The film's last frame, which is shown, and of its beginning a frame, drawn, and the truth."""
        assert sample.target is not None
        assert sample.embedding is not None
        audio = self.pipe.audio_projection.config
        sound = np.zeros((1, audio.layers, audio.channels), dtype=np.float32)
        if self.has_audio:
            sound = np.array(read_array(sample.speech, "features of speech", mapped=True)[: self.frames])
        count = num_frames(sample.target)
        truth, shown = read_frames(sample.target, [min(len(sound), count) - 1, count - 1])
        regions = FaceRegions.of_pictures(*(sample.face_mask[name] for name in ("whole", *REGIONS)))
        portrait = Portrait(picture=shown, regions=regions, face=read_array(sample.embedding, "a face's embedding"))
        drawn = self.pipe(portrait, sound, **self.options(generator)).frames[0]
        return [shown, drawn[-1], truth]

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:
        """Latents drawn from posteriors, and what trained projections and the locator are given."""
        tensors = batch.tensors
        kept = {name: (~which).float().to(self.device) for name, which in dropped.items()}
        further: dict[str, Any] = {"place": tensors["place"], "kept": kept}
        further["embedding"] = tensors["embedding"] * (1.0 if self.has_audio else kept["reference"].view(-1, 1))
        if self.has_audio:
            motion = self.latents_of(tensors["motion"] * kept["motion"].view(-1, 1, 1, 1, 1), batch, 3)
            further |= {"motion": motion.transpose(1, 2), "regions": tensors["regions"], "sound": tensors["sound"]}
        latents, reference = (self.latents_of(tensors[k], batch, i) for i, k in ((1, "target"), (2, "reference")))
        matters = tensors["regions"][:, -1:] if self.has_audio else tensors["place"][:, :1]  # the mouth, or the face
        return {
            "latents": latents, "shown": Shown(latents=reference, context=reference), "given": {}, "further": further,
            "places": self.counted_in_film(matters, latents),
        }  # fmt: skip

    def told(self, inputs: Inputs) -> Inputs:
        """The face's tokens as the writer's context."""
        assert inputs.shown is not None
        face = self.pipe.face_projection(inputs.further["embedding"])
        return replace(inputs, shown=replace(inputs.shown, context=face))

    @contextmanager
    def predicted(self, inputs: Inputs) -> Generator[Tensor]:
        """The denoiser's prediction."""
        pipe, shown, further = self.pipe, inputs.shown, inputs.further
        assert shown is not None
        noisy = self.loss.noisy(inputs.latents, inputs.noise, inputs.timesteps)
        frames, reads = noisy.shape[2], [0.0 if p.reads is None else 1.0 for p in inputs.passes]
        place = pipe.face_locator(further["place"]).unsqueeze(2).expand(-1, -1, frames, -1, -1)
        told: dict[str, Any] = {"condition": place, "face": [Held(shown.context)]}
        if self.has_audio:
            told |= {"heard": self._heard(inputs), "motion": [self._motion(inputs, reads)]}
        with ExitStack() as stack:
            if any(reads):
                bank = self._written(shown.latents, shown.context)
                link = stack.enter_context(attach(pipe.unet, [Concat()]))
                stack.enter_context(link.reading(bank, weights=reads))
            yield pipe.unet(noisy, inputs.timesteps, **told, return_dict=False)[0]

    def _written(self, latents: Tensor, face: Tensor) -> Any:
        """What the writer leaves beside the face's tokens."""
        unet = self.pipe.reference_unet
        with torch.set_grad_enabled(learns(unet) and torch.is_grad_enabled()):
            return write(unet, latents.to(unet.dtype), timestep=0, encoder_hidden_states=face.to(unet.dtype))

    def _heard(self, inputs: Inputs) -> Heard:
        """Each frame's audio, and the masks of its three attentions at every level."""
        sound, kept = inputs.further["sound"], inputs.further["kept"].get("audio")
        tokens = self.pipe.audio_projection(sound.flatten(0, 1))  # (b f, t, c)
        if kept is not None:
            tokens = tokens * kept.repeat_interleave(sound.shape[1]).view(-1, 1, 1)
        levels = level_sizes(tuple(inputs.latents.shape[-2:]), len(self.pipe.unet.config.block_out_channels))
        masks: dict[int, Tensor] = {}
        for level in levels:
            small = F.interpolate(inputs.further["regions"], level, mode="bilinear", antialias=True)
            by_region = small.flatten(2).transpose(0, 1)  # (3, b, n)
            masks[by_region.shape[2]] = by_region.repeat_interleave(sound.shape[1], dim=1)
        return Heard(tokens=[Held(tokens)], masks=masks)

    def _motion(self, inputs: Inputs, reads: list[float]) -> dict[str, Tensor]:
        """Features of the motion frames by site, (b, n, h w, c); zeros where the reference is not read."""
        motion, shown = inputs.further["motion"], inputs.shown
        assert shown is not None
        face = shown.context.repeat_interleave(motion.shape[1], dim=0)
        bank = self._written(motion.flatten(0, 1), face)
        factor = torch.tensor(reads, device=motion.device).view(-1, 1, 1, 1)
        return {site: x.unflatten(0, motion.shape[:2]) * factor.to(x) for site, x in bank.hidden.items()}

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
        """Of the shapes that the networks' configurations say."""
        pipe, pixels = self.pipe, (self.factor * size[0], self.factor * size[1])
        further: dict[str, Any] = {
            "place": make(samples, 3, *pixels),
            "embedding": make(samples, pipe.face_projection.config.embedding_dim),
            "kept": {},
        }
        if self.has_audio:
            audio = pipe.audio_projection.config
            further |= {
                "motion": make(samples, pipe.config.motion_frames, 4, *size),
                "regions": make(samples, 3, *pixels),
                "sound": make(samples, frames, audio.window, audio.layers, audio.channels),
            }
        reference = make(samples, 4, *size)
        return {
            "latents": make(samples, 4, frames, *size), "shown": Shown(latents=reference, context=reference),
            "given": {}, "further": further,
        }  # fmt: skip


RECIPE = HalloRecipe
