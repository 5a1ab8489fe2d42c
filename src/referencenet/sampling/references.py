"""A reference: a picture and how it is read. Pictures are read when the object is made, so that errors come early."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from referencenet.links.bank_file import read_entries, write_entries
from referencenet.media.images import Picture, Resize, read_image, read_mask, to_tensor
from referencenet.media.images import resize as resized
from referencenet.sampling.latents import posterior_samples

FORMAT = "referencenet-reference-1"
MASKS = ("mask", "result_mask")
NUMBERS = ("strength", "weight", "start", "end")


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture to refer to, and how.

    Attributes:
        image: The picture: PIL, numpy (H, W, C), tensor (3, H, W) in [0, 1], or a path.
        latents: Instead of a picture its scaled VAE latents, (1 or pictures, channels, height, width).
        strength: In [0, 1]: 0 is off, exactly; 1 as published; between, outputs are interpolated.
        weight: Above 0: how many times it counts beside other references and the result's own tokens.
        mask: Which of its pixels may be read (white may), as a picture.
        result_mask: Where in the result it may be read (white may, grey partly), as a picture.
        start: Fraction of the schedule before which it is not read.
        end: Fraction of the schedule after which it is not read.

    Raises:
        TypeError, ValueError, FileNotFoundError: If a picture cannot be read or a number is out of range.
    """

    image: Picture | None = None
    _: KW_ONLY
    latents: Tensor | None = None
    strength: float = 1.0
    weight: float = 1.0
    mask: Picture | None = None
    result_mask: Picture | None = None
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if (self.image is None) == (self.latents is None):
            raise ValueError("a Reference is made of either a picture or latents=...; give exactly one of them.")
        if self.latents is not None:
            _check_latents(self.latents)
        for name in ("strength", "start", "end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number from 0 to 1.")
        if self.start >= self.end:
            raise ValueError(f"start={self.start} is not before end={self.end}; the reference would never be read.")
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(f"weight is {self.weight}; expected a number above 0 (strength=0 switches it off).")
        if self.image is not None:
            object.__setattr__(self, "image", read_image(self.image))
        for name in ("mask", "result_mask"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, read_mask(getattr(self, name)))

    @torch.no_grad()
    def encode(
        self,
        pipe: Any,
        *,
        width: int,
        height: int,
        resize: Resize = "fit",
        generator: torch.Generator | None = None,
    ) -> Reference:
        """The same reference with latents in place of its picture, as a call of a size would encode it; see `save`.

        Args:
            pipe: A pipeline of diffusers with the autoencoder.
            width: Of the results, in pixels.
            height: Of the results, in pixels.
            resize: As for `reference`.
            generator: For the draw from the autoencoder's posterior; None: torch's global one.
        """
        if self.picture is None:
            return self
        picture = resized(self.picture, (width, height), how=resize, multiple=pipe.vae_scale_factor)
        latents = posterior_samples(pipe.vae, to_tensor(picture)[None], [generator])
        return replace(self, image=None, latents=latents)

    def save(self, path: str | Path) -> None:
        """Write an encoded reference, its masks and how it is read: some kilobytes, whole or not at all.

        Raises:
            ValueError: If it is not encoded.
        """
        if self.latents is None:
            raise ValueError("this reference is a picture; save what encode(pipe, width=..., height=...) gives.")
        masks = {name: getattr(self, name) for name in MASKS if getattr(self, name) is not None}
        tensors = {"latents": self.latents, **{name: to_tensor(mask) for name, mask in masks.items()}}
        settings = {name: getattr(self, name) for name in NUMBERS}
        write_entries(Path(path), tensors, {"format": FORMAT, "settings": json.dumps(settings)})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Reference:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a complete encoded reference.
        """
        tensors, metadata = read_entries(Path(path), FORMAT, device)
        try:
            settings = {name: float(value) for name, value in json.loads(metadata["settings"]).items()}
            masks = {name: tensors[name] for name in MASKS if name in tensors}
            return cls(latents=tensors["latents"], **settings, **masks)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is not an encoded reference ({error!r:.100}); save it again.") from error

    @property
    def picture(self) -> Image.Image | None:
        """The picture as read; None if latents were given."""
        return cast("Image.Image | None", self.image)


def as_references(given: Reference | Picture | Sequence[Reference | Picture]) -> list[Reference]:
    """One or several references, as a list.

    Raises:
        ValueError: If the list is empty.
    """
    several = list(given) if isinstance(given, list | tuple) else [cast("Reference | Picture", given)]
    if not several:
        raise ValueError("the list of references is empty; give at least one picture, or do not link at all.")
    return [one if isinstance(one, Reference) else Reference(one) for one in several]


def _check_latents(latents: Tensor) -> None:
    if latents.ndim != 4:
        shape = tuple(latents.shape)
        raise ValueError(f"reference latents are (pictures, channels, height, width), but these are {shape}.")
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            "the reference latents hold NaN or infinite values; a half-precision VAE often causes that: encode in "
            "float32."
        )
