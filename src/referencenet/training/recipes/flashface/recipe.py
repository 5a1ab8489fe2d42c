"""FlashFace's training (Zhang et al. 2024, section 3), of which the configuration's rest in the released code tells.

Everything learns. A tenth of the samples goes without anything, a tenth has everything, the others go without words,
faces and place by halves. Loss, rate and batch were not published; the noise's error is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from referencenet.media.images import read_image
from referencenet.methods.flashface import TRAINED_FACES, FlashFacePipeline
from referencenet.pipelines.encoders import pixels_of
from referencenet.pipelines.spec import Shown
from referencenet.preprocess.faces import FACE_LATENTS, face_mask, square_face
from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler
from referencenet.training.data.augment import signed
from referencenet.training.data.sample import Sample
from referencenet.training.drops import Drop
from referencenet.training.recipes.flashface.start import START
from referencenet.training.stage import Stage, noise_loss
from referencenet.training.system import Batch, SystemRecipe


class FlashFaceRecipe(SystemRecipe):
    """Pictures of a person, from four of the person's faces, words, and where the face is."""

    system, pipeline, layout = "flashface", FlashFacePipeline, "identities"
    start = START
    published_size = (768, 768)
    has_mask = True
    stages = {
        "faces": Stage(
            train=(r"unet\..*", r"reference_unet\..*"),
            loss=partial(noise_loss, TrailingDDIMScheduler),
            drops={
                "all": Drop(rate=0.1, reads=None, blind=("prompt",)),
                "none": Drop(rate=0.1),
                "words": Drop(rate=0.5, blind=("prompt",)),
                "faces": Drop(rate=0.5, reads=None),
                "place": Drop(rate=0.5),
            },
            needs=("target", "references", "reference_boxes", "face_box"),
            source="ali-vilab/FlashFace's configuration: drops, four faces, all learns; else ours",
        )
    }

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """The picture, its face's place, four faces of others, and its caption."""
        assert sample.target is not None
        chosen = torch.randint(len(sample.references), (TRAINED_FACES,), generator=random).tolist()
        faces = [self._face(sample, i) for i in chosen]
        width, height = self.size
        return {
            "target": signed(read_image(sample.target).resize(self.size)),
            "place": face_mask(sample.face_box, width=width, height=height, factor=self.factor).unsqueeze(0),
            "faces": pixels_of(faces),
            "caption": sample.caption or "",
        }

    def _face(self, sample: Sample, number: int) -> Image.Image:
        """A reference's face, squared."""
        picture = read_image(sample.references[number])
        sides = picture.width, picture.height
        box = [round(share * side) for share, side in zip(sample.reference_boxes[number], sides * 2, strict=True)]
        face = picture.crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
        return square_face(face, FACE_LATENTS * self.factor)

    def dropped(self, batch: Batch) -> dict[str, Tensor]:
        """Nothing more where everything is kept, nothing at all where all is dropped."""
        found = super().dropped(batch)
        for name in ("words", "faces", "place"):
            found[name] = (found[name] & ~found["none"]) | found["all"]
        found["all"], found["none"] = (torch.zeros_like(found[name]) for name in ("all", "none"))
        return found

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:
        """Latents drawn from posteriors, faces' means, and the captions' states."""
        samples, empty = len(batch.places), self.words_of([""])
        faces = [self.latents_of(batch.tensors["faces"][:, i], batch, 2, sample=False) for i in range(TRAINED_FACES)]
        place = batch.tensors["place"]
        placed = (~dropped["place"]).to(self.device).view(-1, 1, 1, 1)
        return {
            "latents": self.latents_of(batch.tensors["target"], batch, 1),
            "shown": Shown(
                latents=torch.stack(faces, dim=1).flatten(0, 1),  # (4 b, 4, 28, 28)
                context=empty.expand(TRAINED_FACES * samples, -1, -1),
            ),
            "given": {
                "prompt": (self.words_of(batch.texts["caption"]), empty),
                "place": place * placed,
            },
            "places": self.counted(place),
        }

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """A face, drawn, truth."""
        assert sample.target is not None
        faces = [self._face(sample, i) for i in range(min(TRAINED_FACES, len(sample.references)))]
        drawn = self.pipe(faces, sample.caption or "", face_box=sample.face_box, **self.options(generator)).images[0]
        return [faces[0], drawn, read_image(sample.target)]

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:  # noqa: ARG002
        """Of the shapes that the networks' configurations say."""
        width, side = self.pipe.unet.config.cross_attention_dim, min(FACE_LATENTS, size[0])
        words, shown = make(samples, 77, width), make(TRAINED_FACES * samples, 77, width)
        faces = make(TRAINED_FACES * samples, 4, side, side)
        return {
            "latents": make(samples, 4, *size),
            "shown": Shown(latents=faces, context=shown),
            "given": {"prompt": (words, words), "place": make(samples, 1, *size)},
        }


RECIPE = FlashFaceRecipe
