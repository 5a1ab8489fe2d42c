"""What the observer sees in drawn pictures: who, which points, which aspects. It never takes part in drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from referencenet.builtin.training.data import to_tensors
from referencenet.networks.observer import Observer

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen in n pictures.

    Attributes:
        embeddings: Of who is seen, (n, channels), of length one.
        points: OpenPose's 18 key points, (n, 18, 2) as fractions of the pictures.
        aspects: Of each picture aspect to the value that is most likely.
    """

    embeddings: Tensor
    points: Tensor
    aspects: list[dict[str, str]]


@torch.no_grad()
def look(observer: Observer, pictures: np.ndarray) -> Seen:
    """Look at pictures; those that are no squares get their edges repeated, as the observer knows squares only.

    Args:
        observer: The measure.
        pictures: (n, H, W, 3) uint8.
    """
    square, scale, offset = squared_up(pictures)
    found = [observer(part) for part in to_tensors(square).split(BATCH)]
    points = torch.cat([part.keypoints for part in found]) * torch.tensor(scale) - torch.tensor(offset)
    values = observer.config.aspects
    seen = {name: torch.cat([part.logits[name].argmax(dim=1) for part in found]).tolist() for name in found[0].logits}
    return Seen(
        embeddings=torch.cat([part.embedding for part in found]),
        points=points,
        aspects=[{name: values[name][row[i]] for name, row in seen.items()} for i in range(len(pictures))],
    )


def squared_up(pictures: np.ndarray) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Pictures (n, H, W, 3) in the middle of squares, and how places in them are places in the pictures.

    Returns:
        The squares; (x, y) factors and offsets: place = factor * place in the square - offset, as fractions.
    """
    height, width = pictures.shape[1:3]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    room = ((0, 0), (top, side - height - top), (left, side - width - left), (0, 0))
    return np.pad(pictures, room, mode="edge"), (side / width, side / height), (left / width, top / height)


def likeness(embeddings: Tensor, wanted: Tensor) -> float:
    """Mean cosine similarity of people, (n, channels) each, of length one: 1 is the same person."""
    return float((embeddings * wanted).sum(dim=1).mean())
