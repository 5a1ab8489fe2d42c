"""Sixth stage: the picture encoder in CLIP's place, on people and on their garments laid flat.

It learns as CLIP does (Radford et al., 2021), against the frozen text encoder: of a batch's captions, which is this
picture's. Beside that, heads that are not kept tell the observer's aspects from its embedding, so that details count
which a batch's captions seldom differ in. Of a garment only the aspects are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from referencenet.builtin.toys import make_image_encoder, make_image_processor
from referencenet.builtin.training.data import PictureSet
from referencenet.builtin.training.observer import ASPECTS, aspects_of
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.builtin.training.text import tokenize
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.tryon import flat_lay
from referencenet.training.draws import step_generator

TEMPERATURE = 0.07
"""As CLIP begins with."""
GARMENT = ("upper_colour", "pattern", "emblem")
"""What a garment laid flat tells."""


class ImageEncoderRecipe(Stepwise):
    """Trains the picture encoder.

    Args:
        encoder: What is trained; its projection is as wide as the words.
        processor: Makes pictures ready for it.
        data: Training pictures.
        garments: Of each of the set's characters, in order, the garment laid flat: (characters, 64, 64, 3) uint8.
        seen: Per picture what `observer.aspects_of` tells of it.
        text_encoder: Frozen.
        tokenizer: Of its words.
        batch: Pictures of a step, and half as many garments.
        seed: Of the run.
        device: Where to train.
    """

    name = "image_encoder"

    def __init__(
        self,
        encoder: CLIPVisionModelWithProjection,
        processor: CLIPImageProcessor,
        data: PictureSet,
        garments: np.ndarray,
        seen: Sequence[dict[str, str]],
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        *,
        batch: int = 64,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.data, self.garments, self.batch, self.seed = data, garments, batch, seed
        self.mean, self.deviation = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std)
        )
        values = {aspect: sorted({s[aspect] for s in seen if aspect in s}) for aspect in ASPECTS}
        self.labels = {
            aspect: torch.tensor([names.index(s[aspect]) if aspect in s else -1 for s in seen])
            for aspect, names in values.items()
        }
        width = encoder.config.projection_dim
        heads = nn.ModuleDict({aspect: nn.Linear(width, len(names)) for aspect, names in values.items()})
        self.encoder, self.heads = encoder.to(self.device), heads.to(self.device)
        self.modules = {"image_encoder": encoder, "heads": heads}
        self.words = _states(text_encoder, tokenizer, [record["caption"] for record in data.records])

    @classmethod
    def on(cls, data: PictureSet, base: Path, **given: Any) -> ImageEncoderRecipe:
        """A new encoder on a set's pictures and the garments that its characters wear.

        Args:
            data: Training pictures.
            base: Folder of the text encoder and its tokenizer.
            given: Batch, seed and device.
        """
        characters = [record["character"] for record in data.records[:: data.scenes]]
        garments = np.stack([flat_lay(Character.from_seed(character), 64) for character in characters])
        seen = [aspects_of(Scene.from_seeds(record["character"], record["scene"])) for record in data.records]
        text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32).eval()
        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
        return cls(
            make_image_encoder(), make_image_processor(), data, garments, seen, text_encoder, tokenizer, **given
        )  # fmt: skip

    def loss(self, step: int) -> dict[str, Tensor]:
        """Contrast between captions, and one cross entropy per aspect."""
        generator = step_generator(self.seed, step)
        index = torch.randint(len(self.data), (self.batch,), generator=generator)
        who = torch.randint(len(self.garments), (self.batch // 2,), generator=generator)
        pictures = np.concatenate([self.data.pictures[index.numpy()], self.garments[who.numpy()]])
        found = self.encoder(self._ready(pictures)).image_embeds
        people, worn = found.split([len(index), len(who)])
        similarity = F.normalize(people, dim=1) @ self.words[index].to(self.device).T / TEMPERATURE
        own = torch.arange(len(index), device=self.device)
        contrast = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
        first = who * self.data.scenes  # a character's first picture tells what it wears, where that can be seen
        told = torch.stack([self._told(people, aspect, index) for aspect in self.labels]).mean()
        flat = torch.stack([self._told(worn, aspect, first) for aspect in GARMENT]).mean()
        return {"loss": contrast + told + flat, "contrast": contrast, "aspects": told, "garments": flat}

    def _ready(self, pictures: np.ndarray) -> Tensor:
        """Pictures (b, 64, 64, 3) uint8 as the processor makes them, (b, 3, 64, 64)."""
        pixels = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(255)
        return ((pixels - self.mean) / self.deviation).to(self.device)

    def _told(self, embeddings: Tensor, aspect: str, index: Tensor) -> Tensor:
        """Cross entropy of an aspect; 0 where no picture shows it."""
        labels = self.labels[aspect][index].to(self.device)
        wrong = F.cross_entropy(self.heads[aspect](embeddings), labels, ignore_index=-1, reduction="sum")
        return wrong / (labels >= 0).sum().clamp_min(1)


@torch.no_grad()
def _states(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Pooled states of captions, of length one, (captions, channels)."""
    rows = [
        encoder(tokenize(tokenizer, captions[i : i + 256]).to(encoder.device)).pooler_output
        for i in range(0, len(captions), 256)
    ]
    states = torch.cat(rows)
    return F.normalize(states - states.mean(dim=0), dim=1).cpu()
