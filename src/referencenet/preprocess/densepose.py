"""Which part of the body each pixel shows, by DensePose (Güler et al. 2018, arXiv 1802.00434), and its drawing.

The network is detectron2's DensePose R-CNN as a TorchScript file of the user's, which runs without detectron2. Two
exports are read: that of dajes/DensePose-TorchScript, and the older one that annotators of webui and ComfyUI download.
What they are shown and the colours follow their users' programs; the trained files could not be tried here. Parts are
those of detectron2's drawing program: the coarse map says where the body is, the fine one which part.
Letters: n people, (h, w) a person's box.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from referencenet.checkpoints.files import read_torchscript
from referencenet.media.images import Picture, read_image
from referencenet.preprocess.model_files import DENSEPOSE, DENSEPOSE_ANNOTATORS, model_file
from referencenet.preprocess.regions import Region

SURE = 0.8
"""Least score of a person, as IDM-VTON's program takes them."""

PARTS = 24
Colours = Literal["viridis", "parula"]

FIELDS = ("pred_boxes", "pred_densepose_coarse_segm", "pred_densepose_fine_segm")


@dataclass(frozen=True, kw_only=True)
class BodyParts:
    """A person's body, packed: a film keeps one for every frame.

    Attributes:
        left: Of the box, in pixels of the picture.
        top: Likewise.
        size: Its height and width.
        packed: What `of` makes of the parts.
    """

    left: int
    top: int
    size: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, left: int, top: int, parts: np.ndarray) -> BodyParts:
        """A body of parts (h, w), uint8: 1 to 24, or 0 beside the body."""
        return cls(left=left, top=top, size=parts.shape, packed=zlib.compress(parts.tobytes(), 1))

    @property
    def parts(self) -> np.ndarray:
        """The parts, (h, w), uint8."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8).reshape(self.size)

    @property
    def region(self) -> Region:
        """The square around the box."""
        height, width = self.size
        return Region(x=self.left + width / 2, y=self.top + height / 2, side=max(width, height))


class DensePose:
    """Finds people and the parts of their bodies.

    Args:
        file: The TorchScript file, or a folder that holds it under one of the two names that it is released with.
        device: Where it computes.

    Raises:
        FileNotFoundError: If it is missing; says where to get it.
        ValueError: If it is no TorchScript file.
        ImportError: If it needs torchvision, which is not installed.
    """

    def __init__(self, file: str | Path, device: str | torch.device = "cpu") -> None:
        self.path, self.device = _file(file), device
        with suppress(ImportError):
            importlib.import_module("torchvision")  # brings operators that the released files call
        try:
            network = read_torchscript(self.path, "DensePose network", "give DensePose as TorchScript", device)
        except ValueError as error:
            if "torchvision::" not in str(error):
                raise
            raise ImportError(
                f"{self.path} calls operators of torchvision; install the release that fits your torch."
            ) from error
        self.network: Any = network.float() if str(device) == "cpu" else network
        self.takes_order = any(argument.name == "bgr" for argument in network.forward.schema.arguments)

    @torch.no_grad()
    def __call__(self, picture: Picture) -> list[BodyParts]:
        """The people of a picture, in the network's order.

        Raises:
            ValueError: If the network answers something else than DensePose does.
        """
        rgb = torch.from_numpy(np.array(read_image(picture)))  # (H, W, 3)
        shown = rgb.flip(2) if self.takes_order else rgb.permute(2, 0, 1)  # each as its own program shows it
        try:
            found = self.network(shown.to(self.device))
        except RuntimeError as error:
            raise ValueError(f"{self.path} fails on a picture of {tuple(rgb.shape)} ({_last(error)}).") from error
        boxes, coarse, fine, scores = self._answer(found)
        people: list[BodyParts] = []
        for i in np.flatnonzero((scores >= SURE).cpu().numpy()).tolist():
            left, top, right, bottom = boxes[i].tolist()
            size = max(int(bottom - top), 1), max(int(right - left), 1)
            parts = _parts(coarse[i], fine[i], size)
            people.append(BodyParts.of(max(int(left), 0), max(int(top), 0), parts))
        return people

    def _answer(self, found: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (n, 4), coarse maps (n, 2 or 15, ...), fine maps (n, 25, ...) and scores (n,), in float32."""
        if isinstance(found, dict):
            tensors = [found.get(name) for name in FIELDS]
            scores = found.get("scores")
        else:
            tensors = list(found)[:3] if isinstance(found, tuple | list) else []
            scores = None  # this export leaves out who is doubtful
        shapes = [tuple(tensor.shape) if isinstance(tensor, Tensor) else None for tensor in tensors]
        boxes, coarse, fine = shapes if len(shapes) == 3 else (None, None, None)
        if not (
            boxes and coarse and fine and boxes[1:] == (4,) and len(coarse) == len(fine) == 4 and fine[1] == PARTS + 1
            and boxes[0] == coarse[0] == fine[0]
        ):  # fmt: skip
            raise ValueError(
                f"{self.path} answers with {shapes}; expected boxes (n, 4), a coarse map (n, 2, h, w) and parts "
                f"(n, {PARTS + 1}, h, w): it is not DensePose."
            )
        floats = [tensor.float() for tensor in tensors if tensor is not None]
        return floats[0], floats[1], floats[2], torch.ones(boxes[0]) if scores is None else scores.float()


def draw_densepose(people: Sequence[BodyParts], size: tuple[int, int], colours: Colours = "viridis") -> Image.Image:
    """Draw the parts of bodies as systems were trained on them.

    Args:
        people: Later ones lie over earlier ones.
        size: Width and height of the picture in pixels.
        colours: "viridis" on its own purple, as MagicAnimate reads it; "parula" on black, as IDM-VTON's program and
            VITON-HD have it.

    Raises:
        ValueError: If the colours are others.
        ImportError: If OpenCV is missing.
    """
    parts = np.zeros(size[::-1], dtype=np.uint8)
    for person in people:
        place = parts[person.top :, person.left :][: person.size[0], : person.size[1]]  # a view
        seen = person.parts[: place.shape[0], : place.shape[1]]
        place[seen > 0] = seen[seen > 0]
    return Image.fromarray(part_colours(colours)[parts])


def part_colours(colours: Colours) -> np.ndarray:
    """Colours of the ground and of the 24 parts, (25, 3) RGB, uint8: OpenCV's map at part * 255 / 24, rounded down.

    Raises:
        ValueError: If the colours are others than these.
        ImportError: If OpenCV is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("drawing DensePose needs OpenCV: pip install 'referencenet[preprocess]'.") from error
    maps = {"viridis": cv2.COLORMAP_VIRIDIS, "parula": cv2.COLORMAP_PARULA}
    if colours not in maps:
        raise ValueError(f"colours is {colours!r}; expected one of {', '.join(maps)}.")
    places = (np.arange(PARTS + 1) * 255 // PARTS).astype(np.uint8)
    table = cv2.applyColorMap(places[None], maps[colours])[0, :, ::-1].copy()
    if colours == "parula":
        table[0] = 0  # the ground stays black, and is not the map's first colour
    return table


@dataclass(frozen=True, kw_only=True)
class DensePoseFilm:
    """Bodies of a film as drawings, each drawn when it is read: a `FrameSource`.

    Attributes:
        people: One for each frame.
        size: Width and height of the film in pixels.
        colours: As `draw_densepose` takes them.
        rate: Frames per second.
    """

    people: Sequence[BodyParts]
    size: tuple[int, int]
    colours: Colours = "viridis"
    rate: Fraction = Fraction(25)

    def __len__(self) -> int:
        return len(self.people)

    def __iter__(self) -> Iterator[Image.Image]:
        """Drawings in order, mode RGB."""
        return (draw_densepose([person], self.size, self.colours) for person in self.people)


def _file(given: str | Path) -> Path:
    """The file that is given, or that of a folder: the newer export, else the older one."""
    folder = Path(given).expanduser()
    if folder.suffix in (Path(DENSEPOSE).suffix, Path(DENSEPOSE_ANNOTATORS).suffix):
        return folder
    older = folder / DENSEPOSE_ANNOTATORS
    return older if older.is_file() and not (folder / DENSEPOSE).is_file() else model_file(folder, DENSEPOSE)


def _parts(coarse: Tensor, fine: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Parts (h, w) of a person, of maps (2 or 15, ...) and (25, ...)."""
    body, parts = (F.interpolate(x[None], size, mode="bilinear").argmax(1)[0] for x in (coarse, fine))
    return (parts * (body > 0)).to(torch.uint8).cpu().numpy()


def _last(error: RuntimeError) -> str:
    """The last line of what TorchScript says, which is the reason."""
    return str(error).strip().splitlines()[-1]
