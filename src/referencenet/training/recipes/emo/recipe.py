"""EMO's training in three stages (Tian et al. 2024, section 3.4); what the paper leaves open is chosen here.

The losses are those of `training/emo.py`. Letters: b samples, f frames, n motion frames.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from referencenet.inputs import read_array
from referencenet.media.images import read_mask, to_tensor
from referencenet.methods.emo import EMOPipeline
from referencenet.networks.layout import SD15_SCHEDULE
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.portrait import Portrait
from referencenet.training.data.augment import cut, signed
from referencenet.training.data.frames import num_frames, read_frames
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.emo import DROPS, LEARNS, Clips, Kept, clip_prediction
from referencenet.training.predicted import Inputs
from referencenet.training.stage import Stage, noise_loss
from referencenet.training.system import Batch, SystemRecipe

SOURCE = "arXiv 2402.17485, section 3.4; drops, steps and the rest of the optimizer are ours"
LOSS = partial(
    noise_loss, **{k: v for k, v in SD15_SCHEDULE.items() if k in ("beta_start", "beta_end", "beta_schedule")}
)
HEARD = {name: Drop(rate=rate) for name, rate in DROPS.items()}


class EMORecipe(SystemRecipe):
    """`image`: single frames; `video`: movement and sound, on clips; `speed`: the head's speed, without the sound."""

    system, pipeline, layout = "emo", EMOPipeline, "hdtf"
    has_mask = True
    stages = {
        "image": Stage(
            **LEARNS["image"]._asdict(), loss=LOSS, drops={"reference": HEARD["reference"]}, frames=1,
            needs=("target", "face_mask"), source=SOURCE,
        ),
        "video": Stage(
            **LEARNS["video"]._asdict(), loss=LOSS, drops=HEARD, frames=12,
            needs=("target", "face_mask", "speech"), source=SOURCE,
        ),
        "speed": Stage(
            **LEARNS["speed"]._asdict(), loss=LOSS, drops=HEARD, frames=12,
            needs=("target", "face_mask", "speech", "speeds"), source=SOURCE,
        ),
    }  # fmt: skip

    @property
    def kind(self) -> Any:
        """The stage's name."""
        return self.name.split()[1]

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """A clip with the frames before it, another frame of the film, the face's place, and what is heard."""
        assert sample.target is not None
        before = 0 if self.kind == "image" else self.pipe.config.motion_frames
        count = num_frames(sample.target)
        if count < before + self.frames:
            raise ValueError(f"{sample.name} has {count} frames; a clip needs {before + self.frames}: leave it out.")
        start = int(torch.randint(before, count - self.frames + 1, (1,), generator=random))
        reference = int(torch.randint(count, (1,), generator=random))
        seen = list(range(start - before, start + self.frames))
        shown = torch.stack([signed(cut(frame, None, self.size)) for frame in read_frames(sample.target, seen)])
        read: dict[str, Tensor | str] = {
            "target": shown[before:],
            "reference": signed(cut(read_frames(sample.target, [reference])[0], None, self.size)),
            "place": (to_tensor(read_mask(sample.face_mask["whole"]).resize(self.size)) >= 0.5).float(),
        }
        if self.config.mask_weight != 1:
            read["matters"] = to_tensor(read_mask(sample.face_mask["lip" if before else "whole"]).resize(self.size))
        if before:
            read |= {"motion": shown[:before], "sound": _rows_of(sample.speech, seen)}
        return read | ({"speeds": _rows_of(sample.speeds, seen)} if self.kind == "speed" else {})

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """The film's last frame, which is shown, and of its beginning a frame, drawn, and the truth."""
        assert sample.target is not None
        audio = self.pipe.audio_projection.config
        sound = np.zeros((1, audio.layers, audio.channels), dtype=np.float32)
        if self.kind != "image":
            sound = np.array(read_array(sample.speech, "features of speech", mapped=True)[: self.frames])
        count = num_frames(sample.target)
        truth, shown = read_frames(sample.target, [min(len(sound), count) - 1, count - 1])
        regions = FaceRegions.of_pictures(*(sample.face_mask[name] for name in ("whole", "border", "face", "lip")))
        drawn = self.pipe(Portrait(picture=shown, regions=regions), sound, **self.options(generator)).frames[0]
        return [shown, drawn[-1], truth]

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:
        """Latents drawn from posteriors, as clips."""
        tensors = batch.tensors
        motion = None
        if "motion" in tensors:
            motion = self.latents_of(tensors["motion"], batch, 3).transpose(1, 2)  # (b, n, 4, h, w)
        clips = Clips(
            latents=self.latents_of(tensors["target"], batch, 1),
            reference=self.latents_of(tensors["reference"], batch, 2),
            place=tensors["place"],
            motion=motion,
            sound=tensors.get("sound"),
            speeds=tensors.get("speeds"),
            start=0 if motion is None else motion.shape[1],
        )
        all_kept = Kept.all(len(batch.places))
        kept = Kept(**{name: ~dropped.get(name, ~getattr(all_kept, name)) for name in DROPS})
        matters = tensors.get("matters")  # where the mouth may be, or in the first stage the face
        places = None if matters is None else self.counted_in_film(matters, clips.latents)
        return self._fields(clips, kept) | {"places": places}

    def _fields(self, clips: Clips, kept: Kept) -> dict[str, Any]:
        return {"latents": clips.latents, "shown": None, "given": {}, "further": {"clips": clips, "kept": kept}}

    @contextmanager
    def losses_of(self, inputs: Inputs) -> Generator[dict[str, Tensor]]:
        """The loss against what the pipeline's scheduler predicts: noise, or velocity with zero terminal SNR."""
        with self._predicted(inputs) as (prediction, target):
            yield {"loss": self.loss(prediction, target, inputs.timesteps, inputs.places)}

    @contextmanager
    def predicted(self, inputs: Inputs) -> Generator[Tensor]:
        """The denoiser's prediction."""
        with self._predicted(inputs) as (prediction, _):
            yield prediction

    def _predicted(self, inputs: Inputs) -> AbstractContextManager[tuple[Tensor, Tensor]]:
        """The denoiser's prediction and what it should be."""
        clips, kept = inputs.further["clips"], inputs.further["kept"]
        if all(p.reads is None for p in inputs.passes):  # a validation without the reference
            kept = Kept(reference=torch.zeros_like(kept.reference), sound=kept.sound, motion=kept.motion)
        given = {"noise": inputs.noise, "timesteps": inputs.timesteps, "kept": kept}
        return clip_prediction(self.pipe, clips, self.kind, **given)

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
        """Of the shapes that the networks' configurations say."""
        before = 0 if self.kind == "image" else self.pipe.config.motion_frames
        audio, seen = self.pipe.audio_projection.config, before + frames
        clips = Clips(
            latents=make(samples, 4, frames, *size),
            reference=make(samples, 4, *size),
            place=make(samples, 1, self.factor * size[0], self.factor * size[1]),
            motion=make(samples, before, 4, *size) if before else None,
            sound=make(samples, seen, audio.layers, audio.channels) if before else None,
            speeds=make(samples, seen) if before else None,
            start=before,
        )
        return self._fields(clips, Kept.all(samples))


def _rows_of(path: Any, places: list[int]) -> Tensor:
    """Rows of an array on the disk; where it is shorter than the film by a few, its last."""
    found = read_array(path, "numbers of a film's frames", mapped=True)
    return torch.from_numpy(np.array(found[[min(place, len(found) - 1) for place in places]])).float()


RECIPE = EMORecipe
