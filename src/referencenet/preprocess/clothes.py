"""Masks of clothes and parts of a person by SegFormer (Xie et al. 2021), from a folder of the user's.

Made for models of the 18 labels of ATR, such as `mattmdjaga/segformer_b2_clothes`. Nothing is downloaded. What a part
is made of stands in `CLASSES`; the model's own names of its labels decide, not their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

from referencenet.checkpoints.library import read_library_part
from referencenet.media.images import Picture, read_image
from referencenet.preprocess.agnostic import ATR_LABELS

CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "upper body clothes": ("upper-clothes",),
    "lower body clothes": ("skirt", "pants"),
    "whole body clothes": ("dress",),
    "hair or headwear": ("hat", "hair"),
    "face": ("face", "sunglasses"),
    "shoes": ("left-shoe", "right-shoe"),
})  # fmt: skip
"""Part of a person to the model's labels, in small letters."""

SAME = {"face": "head", "upper-clothes": "upper clothes"}
"""The model's labels that ATR calls otherwise; other hyphens are spaces there."""


class ClothesSegmenter:
    """Finds a part in a picture: `segmenter(picture, "face")` is its mask.

    Args:
        model: A segmentation model with the labels of `CLASSES`.
        processor: Its pictures' preparation.

    Raises:
        ValueError: If the model does not know all labels.
    """

    def __init__(self, model: SegformerForSemanticSegmentation, processor: SegformerImageProcessor) -> None:
        self.model, self.processor = model.eval(), processor
        names = {str(name).lower(): int(number) for number, name in model.config.id2label.items()}  # pyright: ignore[reportOptionalMemberAccess]
        missing = sorted({name for labels in CLASSES.values() for name in labels} - names.keys())
        if missing:
            raise ValueError(
                f"this segmentation model has no label {', '.join(missing)} (it has {', '.join(sorted(names)[:10])}); "
                "give one of the 18 labels of ATR, such as mattmdjaga/segformer_b2_clothes."
            )
        self.numbers = {part: [names[label] for label in labels] for part, labels in CLASSES.items()}

    @classmethod
    def load(cls, folder: str | Path) -> ClothesSegmenter:
        """Read model and processor from a folder in transformers' layout, strictly.

        Raises:
            FileNotFoundError: If there is none.
            CheckpointError: If a tensor is missing or not finite.
        """
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; give that of a SegFormer of the 18 labels of ATR.")
        model = read_library_part(SegformerForSemanticSegmentation, folder)
        return cls(model, read_library_part(SegformerImageProcessor, folder))

    def parsing(self, picture: Picture) -> np.ndarray:
        """The human parsing of a picture, as `agnostic_mask` takes it.

        Labels are ATR's by their names, whatever numbers the model has for them; it does not know the neck (18), which
        the published program has from a second network: that belongs to the head.

        Returns:
            (H, W), uint8.
        """
        table = np.zeros(self.model.config.num_labels, dtype=np.uint8)
        for number, name in (self.model.config.id2label or {}).items():
            known = SAME.get(str(name).lower(), str(name).lower().replace("-", " "))
            table[int(number)] = ATR_LABELS.index(known) if known in ATR_LABELS else 0
        return table[self._labels(read_image(picture)).cpu().numpy()]

    def __call__(self, picture: Image.Image, part: str) -> Image.Image:
        """The mask of a part, mode L, black and white, of the picture's size.

        Raises:
            ValueError: If the part is unknown, or the picture does not show it.
        """
        if part not in self.numbers:
            raise ValueError(f"there is no part {part!r}; expected one of {', '.join(CLASSES)}.")
        labels = self._labels(picture)
        white = torch.isin(labels, torch.tensor(self.numbers[part], device=labels.device)).cpu().numpy()
        if not white.any():
            raise ValueError(f"the segmenter finds no {part} in this picture; give a mask, or another picture.")
        return Image.fromarray(white.astype(np.uint8) * 255)

    @torch.no_grad()
    def _labels(self, picture: Image.Image) -> torch.Tensor:
        """The model's labels (H, W) of a picture."""
        inputs: Any = self.processor(picture.convert("RGB"), return_tensors="pt")
        weight = next(self.model.parameters())
        logits = self.model(inputs.pixel_values.to(weight)).logits.float()  # (1, labels, h, w)
        size = (picture.height, picture.width)
        return torch.nn.functional.interpolate(logits, size=size, mode="bilinear").argmax(1)[0]
