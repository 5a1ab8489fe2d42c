"""What can be estimated of a film: conditions by name, each read frame by frame and drawn or written down.

A condition says what is found (`regions`), what is read of the one who is meant (`read`), what is seen of it (`draw`),
and, where it is kept as numbers, how a file holds them (`document`). Letters: everything is in pixels of the film.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from referencenet.later import later
from referencenet.media.files import written_whole
from referencenet.preprocess.body import PARTS, BodyPoints, draw_body
from referencenet.preprocess.face_doubts import face_doubt
from referencenet.preprocess.face_landmarker import APPROXIMATED, FaceLandmarker, FaceReading
from referencenet.preprocess.face_mesh import draw_face_mesh
from referencenet.preprocess.face_outline import LIPS, OVAL, face_bounds, outline_mask
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.face_track import FaceTrack
from referencenet.preprocess.mediapipe import BlazePose, FaceMesh
from referencenet.preprocess.regions import Region

if TYPE_CHECKING:
    from referencenet.preprocess import densepose
else:
    (densepose,) = later("referencenet.preprocess.densepose")  # needs torch

Size = tuple[int, int]


class Condition(ABC):
    """One kind of condition.

    Args:
        folder: Holds the fetched networks.

    Attributes:
        pictured: The films or pictures that are made of it: what is added to the name of each file.
        ending: Of the file that holds it as numbers; None: there is no such file.
    """

    pictured: ClassVar[tuple[str, ...]] = ("",)
    ending: ClassVar[str | None] = None
    finder: Any

    def regions(self, image: Image.Image) -> Sequence[Region]:
        """Those who are found in an RGB picture."""
        return self.finder.regions(image)

    @property
    def note(self) -> str | None:
        """What a user should know of everything that is estimated; None: nothing."""
        return None

    def doubt(self, value: Any, size: Size) -> str | None:  # noqa: ARG002 - one kind doubts nothing
        """Why a value should not be trusted, in words that follow "it is"; None: it should."""
        return None

    @abstractmethod
    def read(self, image: Image.Image, region: Region) -> Any:
        """What is read of one; None: it is nobody."""

    @abstractmethod
    def draw(self, value: Any, size: Size) -> list[Image.Image]:
        """What is seen of it: a picture for each of `pictured`."""

    def document(self, values: Sequence[Any], size: Size, rate: Fraction) -> Any:
        """All frames as a file holds them: arrays by name for .npz, else what JSON can hold."""
        raise NotImplementedError

    def write(self, values: Sequence[Any], path: Path, size: Size, rate: Fraction) -> None:
        """Write the numbers of all frames, whole or not at all.

        Args:
            values: As `read` gave them.
            path: Ends with `ending`.
            size: Width and height of the film.
            rate: Frames per second.
        """
        document = self.document(values, size, rate)
        with written_whole(path) as file:
            if path.suffix == ".npz":
                np.savez_compressed(file, **document)
            else:
                file.write_text(json.dumps(document) + "\n", encoding="utf-8")


class OpenPose(Condition):
    """A skeleton with hands and face; as numbers, OpenPose's JSON, which `read_key_points` reads."""

    ending = ".json"

    def __init__(self, folder: str | Path) -> None:
        self.finder = BlazePose(folder)

    def read(self, image: Image.Image, region: Region) -> BodyPoints | None:
        """The points of a person."""
        person = self.finder.read(image, region)
        return None if person is None else self.finder.openpose(image, person)

    def draw(self, value: BodyPoints, size: Size) -> list[Image.Image]:
        """The skeleton on black."""
        return [draw_body(value, size)]

    def document(self, values: Sequence[BodyPoints], size: Size, rate: Fraction) -> Any:  # noqa: ARG002 - JSON has none
        """A list of frames with one person each."""
        names = ("pose_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d", "face_keypoints_2d")
        frames: list[dict[str, Any]] = []
        for value in values:
            parts = [getattr(value, part) for part in PARTS]
            person = {
                name: [] if p is None else p.round(3).ravel().tolist() for name, p in zip(names, parts, strict=True)
            }
            frames.append({"people": [person], "canvas_width": size[0], "canvas_height": size[1]})
        return frames


class Landmarks(Condition):
    """A face mesh; as numbers, the npz that `read_landmarks` reads."""

    ending = ".npz"

    def __init__(self, folder: str | Path) -> None:
        self.finder = FaceMesh(folder)

    def read(self, image: Image.Image, region: Region) -> np.ndarray | None:
        """The landmarks of a face, (468, 3) in pixels."""
        return self.finder.read(image, region)

    def doubt(self, value: np.ndarray, size: Size) -> str | None:
        """Whether the face is cut off, turned aside, in profile or tiny."""
        return face_doubt(value, size)

    def draw(self, value: np.ndarray, size: Size) -> list[Image.Image]:
        """The mesh as AniPortrait's drawings show it."""
        return [Image.fromarray(draw_face_mesh(value[:, :2] / size, *size))]

    def document(self, values: Sequence[np.ndarray], size: Size, rate: Fraction) -> Any:
        """`landmarks` (frames, 468, 3), as fractions of the width, the height and again the width; `rate`."""
        scaled = np.stack(list(values)) / (*size, size[0])
        return {"landmarks": scaled.astype(np.float32), "rate": np.array(float(rate))}


class FaceTracks(Condition):
    """A face in space; as numbers, the npz that `read_track` reads."""

    ending = ".npz"

    def __init__(self, folder: str | Path) -> None:
        self.finder = FaceLandmarker(folder)

    @property
    def note(self) -> str | None:
        """That it is approximate, without MediaPipe's own file."""
        return None if self.finder.is_exact else APPROXIMATED

    def read(self, image: Image.Image, region: Region) -> FaceReading | None:
        """The face."""
        return self.finder.read(image, region)

    def doubt(self, value: FaceReading, size: Size) -> str | None:
        """Whether the face is cut off, turned aside, in profile or tiny."""
        return face_doubt(value.landmarks, size, value.matrix)

    def draw(self, value: FaceReading, size: Size) -> list[Image.Image]:
        """The mesh as AniPortrait's drawings show it."""
        return [Image.fromarray(draw_face_mesh(value.landmarks[:, :2] / size, *size))]

    def document(self, values: Sequence[FaceReading], size: Size, rate: Fraction) -> Any:
        """The arrays of a `FaceTrack`."""
        return FaceTrack.of(values, size, rate).document()


class FaceMasks(Landmarks):
    """The face's outline filled with white, and the lips'; as numbers, the npz of `FaceRegions`, which Hallo takes."""

    pictured = ("", "-lips")

    def draw(self, value: np.ndarray, size: Size) -> list[Image.Image]:
        """Face and lips."""
        return [outline_mask(value, edge, size).convert("RGB") for edge in (OVAL, LIPS)]

    def document(self, values: Sequence[np.ndarray], size: Size, rate: Fraction) -> Any:  # noqa: ARG002 - it has none
        """`place` (height, width), `pose`, `face` and `lip` (64, 64), uint8: of a film, around all its frames."""
        return vars(FaceRegions.of(values[0], size) if len(values) == 1 else FaceRegions.of_film(values, size))


class FaceBox(Landmarks):
    """The rectangle around a face, white; as numbers, JSON with `box` and `lips` in pixels, `place` in fractions."""

    ending = ".json"

    def draw(self, value: np.ndarray, size: Size) -> list[Image.Image]:
        """The rectangle."""
        mask = Image.new("RGB", size)
        ImageDraw.Draw(mask).rectangle(face_bounds(value, size), fill="white")
        return [mask]

    def document(self, values: Sequence[np.ndarray], size: Size, rate: Fraction) -> Any:
        """Size, rate and boxes, as `refnet face` takes them with --box and --place, and `FaceRegions.read`."""
        frames: list[dict[str, Any]] = []
        for value in values:
            box, lips = (list(map(round, face_bounds(value, size, edge))) for edge in (OVAL, LIPS))
            place = (np.array(face_bounds(value, size)) / (*size, *size)).round(4).tolist()
            frames.append({"box": box, "lips": lips, "place": place})
        return {"width": size[0], "height": size[1], "rate": float(rate), "frames": frames}


class DensePoses(Condition):
    """The parts of a body in viridis on its purple, which MagicAnimate reads."""

    colours: ClassVar[densepose.Colours] = "viridis"

    def __init__(self, folder: str | Path) -> None:
        self.finder = densepose.DensePose(folder)
        self.found: dict[Region, densepose.BodyParts] = {}

    def regions(self, image: Image.Image) -> Sequence[Region]:
        """The people of a picture, whose parts are found with them."""
        self.found = {person.region: person for person in self.finder(image)}
        return list(self.found)

    def read(self, image: Image.Image, region: Region) -> densepose.BodyParts | None:  # noqa: ARG002 - the picture just seen
        """The parts of a person of the picture whose regions were asked for last."""
        person = self.found.get(region)
        return person if person is not None and person.parts.any() else None

    def draw(self, value: densepose.BodyParts, size: Size) -> list[Image.Image]:
        """The parts."""
        return [densepose.draw_densepose([value], size, self.colours)]


class DensePosesOnBlack(DensePoses):
    """The same in parula on black, which IDM-VTON and StableGarment read."""

    colours = "parula"


class PersonMask(Condition):
    """Where the person is: white, soft at the border."""

    def __init__(self, folder: str | Path) -> None:
        self.finder = BlazePose(folder)

    def read(self, image: Image.Image, region: Region) -> np.ndarray | None:
        """The mask (height, width) of a person, uint8."""
        person = self.finder.read(image, region)
        return None if person is None else np.rint(person.mask * 255).astype(np.uint8)

    def draw(self, value: np.ndarray, size: Size) -> list[Image.Image]:
        """The mask, cut off at `size`."""
        return [Image.fromarray(value).crop((0, 0, *size)).convert("RGB")]


CONDITIONS: dict[str, type[Condition]] = {
    "openpose": OpenPose, "landmarks": Landmarks, "face-track": FaceTracks, "face-masks": FaceMasks,
    "face-box": FaceBox, "person-mask": PersonMask, "densepose": DensePoses, "densepose-black": DensePosesOnBlack,
}  # fmt: skip
"""By name."""
