"""Fifth stage: the observer that scores the others, on sharp, blurred and autoencoded pictures.

Identity is learned by contrast (Khosla et al., 2020): two pictures of one character against those of all others in
the batch. Key points and the vocabulary's aspects are learned beside it, from the truth that paperdoll knows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from referencenet.builtin.training.data import PictureSet, to_tensors
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.networks.observer import Observer
from referencenet.paperdoll.scene import Scene
from referencenet.training.draws import step_generator

ASPECTS = (
    "pose",
    "view",
    "shot",
    "expression",
    "background",
    "skin",
    "hair_style",
    "hair_colour",
    "hat",
    "upper_colour",
    "pattern",
    "emblem",
    "lower",
    "lower_colour",
)


def aspects_of(scene: Scene) -> dict[str, str]:
    """What there is to tell of a scene, finer than captions put it, by aspect; absent where it cannot be seen."""
    who, place = scene.character, scene.background
    seen = {
        "pose": scene.pose.name,
        "view": scene.pose.view,
        "shot": scene.camera.shot,
        "background": f"plain {place.colour}" if place.name == "plain" else place.name,
        "skin": who.skin,
        "hair_style": who.hair_style,
        "hat": who.hat,
        "upper_colour": who.upper_colour,
    }
    if scene.pose.view != "back":
        seen["expression"] = scene.expression.name
        seen["emblem"] = who.emblem
    if scene.camera.shot != "portrait":
        seen["pattern"] = who.pattern
    if who.hair_style != "bald":
        seen["hair_colour"] = who.hair_colour
    if scene.camera.shot == "full body":
        seen["lower"] = who.lower
        if who.lower != "dress":
            seen["lower_colour"] = who.lower_colour
    return seen


def make_observer(seen: list[dict[str, str]]) -> Observer:
    """An observer for all values that these scenes have, untrained."""
    values = {aspect: sorted({s[aspect] for s in seen if aspect in s}) for aspect in ASPECTS}
    return Observer(aspects=values)


class ObserverRecipe(Stepwise):
    """Trains an observer.

    Args:
        observer: What is trained.
        data: Training pictures.
        seen: Per picture what `aspects_of` tells of it.
        restored: The first pictures of the set through the autoencoder; may be fewer than the set, or none.
        batch: Characters of a step, two pictures each.
        seed: Of the run.
        device: Where to train.
    """

    name = "observer"

    def __init__(
        self,
        observer: Observer,
        data: PictureSet,
        seen: list[dict[str, str]],
        *,
        restored: np.ndarray | None = None,
        batch: int = 48,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.observer, self.data = observer.to(self.device), data
        self.modules = {"observer": observer}
        self.restored = np.empty((0, 64, 64, 3), np.uint8) if restored is None else restored
        self.batch, self.seed = batch, seed
        aspects: dict[str, list[str]] = observer.config.aspects
        self.labels = {
            aspect: torch.tensor([values.index(s[aspect]) if aspect in s else -1 for s in seen])
            for aspect, values in aspects.items()
        }

    def loss(self, step: int) -> dict[str, Tensor]:
        """Contrast between people, places of key points, and one cross entropy per aspect."""
        generator = step_generator(self.seed, step)
        index = self.data.together(self.batch, 2, generator).T.flatten()  # all first pictures, then all second
        found = self.observer(self._pictures(index, generator).to(self.device))
        similarity = found.embedding @ found.embedding.T / 0.1
        similarity = similarity.masked_fill(torch.eye(2 * self.batch, dtype=torch.bool, device=self.device), -1e4)
        partner = torch.arange(2 * self.batch, device=self.device).roll(self.batch)
        characters = torch.div(index, self.data.scenes, rounding_mode="floor").to(self.device)
        double = (characters[:, None] == characters[None]) & (
            torch.arange(2 * self.batch, device=self.device) != partner[:, None]
        )
        people = F.cross_entropy(similarity.masked_fill(double, -1e4), partner)
        points = torch.from_numpy(self.data.keypoints[index.numpy()]).to(self.device)
        offset = (found.keypoints - points[..., :2]).abs().sum(dim=2) * points[..., 2]
        places = offset.sum() / points[..., 2].sum()
        words = torch.stack([
            F.cross_entropy(found.logits[aspect], labels[index].to(self.device), ignore_index=-1)
            for aspect, labels in self.labels.items()
        ]).mean()  # fmt: skip
        return {"loss": people + 10 * places + words, "people": people, "places": places, "words": words}

    def sheet(self) -> None:
        """Nothing to see."""

    def _pictures(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """(pictures, 3, 64, 64): some through the autoencoder, some blurred, some noisy."""
        chance = torch.rand(3, len(index), generator=generator)
        rows = [
            self.restored[i] if i < len(self.restored) and through < 0.5 else self.data.pictures[i]
            for i, through in zip(index.tolist(), chance[0].tolist(), strict=True)
        ]
        pictures = to_tensors(np.stack(rows))
        blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        amount = (chance[1] - 0.5).clamp_min(0).view(-1, 1, 1, 1) * 1.6  # half stays sharp
        noise = torch.randn(pictures.shape, generator=generator) * 0.06 * chance[2].view(-1, 1, 1, 1)
        return torch.lerp(pictures, blurred, amount) + noise


@torch.no_grad()
def verification_accuracy(observer: Observer, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """How well the embedding tells people apart.

    Args:
        observer: A trained observer.
        first: (people, 64, 64, 3) uint8, one picture of each.
        second: Another picture of each, in the same order.

    Returns:
        `identification`: share of `second` that is nearest to its own in `first`; `verification`: accuracy of
        telling pairs of one person from as many pairs of two, at the best threshold; `same` and `other`: mean
        cosine similarities.
    """
    a, b = (observer(to_tensors(pictures).to(observer.device)).embedding for pictures in (first, second))
    similarity = b @ a.T  # (people, people)
    own = similarity.diagonal()
    other = similarity[torch.arange(len(b)), (torch.arange(len(b)) + 1) % len(b)]
    thresholds = torch.cat([own, other])
    accuracy = (
        (own[None] >= thresholds[:, None]).float().mean(1) + (other[None] < thresholds[:, None]).float().mean(1)
    ) / 2
    return {
        "identification": float((similarity.argmax(dim=1) == torch.arange(len(b), device=b.device)).float().mean()),
        "verification": float(accuracy.max()),
        "same": float(own.mean()),
        "other": float(other.mean()),
    }
