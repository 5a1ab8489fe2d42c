"""A picture set as the diffusion model sees it: latents, and captions that tell more or less of them.

Captions are drawn whole, without who it is, or not at all, and half of those that say something as people write: in
any order, with phrases left out, or in words that the model does not know. A text encoder that was shown whole captions
only knows their phrases by the place where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from referencenet.builtin.training.correspondence import TOPICS
from referencenet.builtin.training.data import PictureSet
from referencenet.builtin.training.text import LENGTH, tokenize
from referencenet.paperdoll.captions import IDENTITY, ORDER

MOSTLY_SILENT = (0.2, 0.5, 0.3)
"""Shares of captions that tell nothing, all but who, and all, where another picture can tell who."""
LOOSE = 0.5
"""Share of the captions that are not whole."""
_TOPIC_OF_ASPECT = torch.tensor([0, *(1 + [*TOPICS].index(a) if a in TOPICS else 0 for a in ORDER)])
"""By an aspect's position in `ORDER`, from 1 on: its position in `TOPICS`, from 1 on, or 0."""
_WHO = torch.tensor([aspect in IDENTITY for aspect in ORDER])
EVERYTHING = torch.arange(len(ORDER)) + 1.0
"""What `EncodedSet.said` takes for the whole caption."""


@dataclass(frozen=True, kw_only=True)
class EncodedSet:
    """A picture set as the diffusion model sees it.

    Attributes:
        pictures: The set itself.
        latents: (count, 4, height, width) float32, scaled.
        words: (count, LENGTH) token numbers of the whole captions, with a comma behind every phrase.
        aspects: (count, LENGTH) uint8, which phrase a token belongs to: its position in `ORDER`, from 1 on, or 0.
        empty: (LENGTH,) of the empty prompt.
        unknown: (n,) token numbers that no caption has: pieces of words that the model does not know.
        comma: Token number.
    """

    pictures: PictureSet
    latents: Tensor
    words: Tensor
    aspects: Tensor
    empty: Tensor
    unknown: Tensor
    comma: int

    @classmethod
    def of(cls, pictures: PictureSet, latents: Tensor, tokenizer: CLIPTokenizer) -> EncodedSet:
        """Tokenize the captions of a set beside its latents."""
        words = tokenize(tokenizer, [f"{record['caption']}," for record in pictures.records])
        comma, empty = int(tokenize(tokenizer, [","])[0, 1]), tokenize(tokenizer, [""])[0]
        told = torch.tensor([[aspect in record["attributes"] for aspect in ORDER] for record in pictures.records])
        places = torch.arange(1, 1 + len(ORDER)).expand_as(told)[told].split(told.sum(dim=1).tolist())
        listed = nn.utils.rnn.pad_sequence(list(places), batch_first=True)  # (count, phrases)
        ends = words == comma
        phrase = ends.cumsum(dim=1) - ends.long()  # which phrase of its caption, from 0 on
        within = (words != empty[0]) & (words != empty[1])
        aspects = F.pad(listed, (0, 1)).gather(1, phrase) * within
        unknown = torch.ones(len(tokenizer), dtype=torch.bool).index_fill(0, words.unique(), False)
        return cls(
            pictures=pictures,
            latents=latents,
            words=words,
            aspects=aspects.to(torch.uint8),
            empty=empty,
            unknown=torch.nonzero(unknown).flatten(),
            comma=comma,
        )

    def said(self, index: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Captions that tell some aspects, in some order.

        Args:
            index: (number,) of pictures.
            told: (number, aspects) of every aspect in `ORDER` its place in the caption, from the smallest on; infinite:
                left out; below 0: what stands there, at the place without the sign, are unknown words.

        Returns:
            Token numbers, and what each is about as `caption_loss` takes it, both (number, LENGTH).
        """
        words, aspects = self.words[index], self.aspects[index].long()
        place = F.pad(told, (1, 0)).gather(1, aspects)  # (number, LENGTH)
        spoken = (aspects > 0) & place.isfinite()
        last = place.abs().masked_fill(~spoken, -1.0).amax(dim=1, keepdim=True)
        spoken &= ~((words == self.comma) & (place.abs() == last))
        strange = spoken & (place < 0) & (words != self.comma)
        # Which of them: as good as random, and the same whenever this picture's caption is told.
        misheard = self.unknown[(words * 31 + index[:, None] * 17 + torch.arange(LENGTH)) % len(self.unknown)]
        words = torch.where(strange, misheard, words)
        topics = _TOPIC_OF_ASPECT[aspects].masked_fill(strange | (words == self.comma), 0)
        order = place.abs().masked_fill(~spoken, torch.inf)
        order[:, 0] = -1.0  # the first token
        order, moved = order.sort(dim=1, stable=True)
        silent = order.isinf()
        return (
            torch.where(silent, self.empty[1], words.gather(1, moved)),
            topics.gather(1, moved).masked_fill(silent, 0),
        )

    def parts(self, index: Tensor) -> Tensor:
        """Which parts pictures show, (number, 64, 64) uint8."""
        return torch.from_numpy(self.pictures.parts[index.numpy()])


def draw_told(number: int, shares: tuple[float, float, float], generator: torch.Generator) -> Tensor:
    """What captions tell, as `EncodedSet.said` takes it: (number, aspects).

    Args:
        number: Of captions.
        shares: Of those that tell nothing, all but who it is, and all.
        generator: Of the choice. A part of them, `LOOSE`, is written as people write: in any order, with aspects left
            out, or said in words that the model does not know.
    """
    kind = torch.multinomial(torch.tensor(shares), number, replacement=True, generator=generator).unsqueeze(1)
    silent = (kind == 0) | ((kind == 1) & _WHO)
    chance = torch.rand(number, 2, len(ORDER), generator=generator)
    loose = torch.rand(number, 1, generator=generator) < LOOSE
    place = torch.where(loose, 1.0 + chance[:, 0], EVERYTHING)
    place = torch.where(loose & (chance[:, 1] < 0.15), -place, place)
    return place.masked_fill(silent | (loose & (chance[:, 1] > 0.6)), torch.inf)
