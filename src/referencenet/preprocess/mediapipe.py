"""MediaPipe's estimators: faces with 468 landmarks; people with 33 points, a mask, hands and a face.

Each finds first and then looks closer: a detector gives a turned square (`Region`) for each face or person, and a
second network reads points in it. Thresholds, anchors and squares are those of MediaPipe's own graphs
(google-ai-edge/mediapipe 0.10.21), without its tracking: every frame is looked at anew. The files: `model_files`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.media.images import Picture, read_image
from referencenet.preprocess.body import BodyPoints
from referencenet.preprocess.detections import Detection, anchors, detections, sigmoid
from referencenet.preprocess.face_mesh import NUM_LANDMARKS
from referencenet.preprocess.faces import Face
from referencenet.preprocess.litert import LiteNetwork
from referencenet.preprocess.model_files import BODY, FACE_MESH, FACES, FAR_FACES, HAND, PEOPLE
from referencenet.preprocess.regions import Region, overlap

NEAR_LAYERS, FAR_LAYERS = ((8, 2), (16, 6)), ((4, 1),)
PEOPLE_LAYERS = ((8, 2), (16, 2), (32, 6))
NEAR_SCORE, FAR_SCORE, PEOPLE_SCORE, PRESENT = 0.5, 0.6, 0.5, 0.5
SAME_FACE = 0.3  # overlap from which on both face detectors mean the same one
FACE_SCALE, BODY_SCALE, HAND_SCALE, HEAD_SCALE = 1.5, 1.25, 2.0, 3.0  # squares over what they are around
FIRST_HAND_SCALE, HAND_RISE = 2.7, 0.1

OPENPOSE = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
"""Where OpenPose's 18 points stand among MediaPipe's 33; the neck is between the shoulders."""

SHOULDERS = (11, 12)
LEFT_HAND, RIGHT_HAND = (15, 19, 17), (16, 20, 18)  # wrist, index and little finger among the 33
PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)  # of a hand's 21: around them the second square lies
RIGHT_EYE, LEFT_EYE = 33, 263  # their outer corners, among the 468

IBUG = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip
"""Which of the 468 landmarks stand for the 68 of a drawn face: jaw, brows, nose, eyes, lips."""


class FaceMesh:
    """Finds faces, and 468 landmarks of each; a detector for `find_face`.

    Args:
        folder: Holds the fetched files.

    Raises:
        FileNotFoundError: If a file is missing; says how to get it.
        ValueError: If one is another network.
        ImportError: If LiteRT is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.near = LiteNetwork(folder, FACES, (896 * 16, 896))
        self.far = LiteNetwork(folder, FAR_FACES, (2304 * 16, 2304))
        self.mesh = LiteNetwork(folder, FACE_MESH, (3 * NUM_LANDMARKS, 1))

    def __call__(self, picture: Picture) -> list[Face]:
        """The faces of a picture, the surest first, in its pixels."""
        image = read_image(picture)
        frame = Region.whole(image.size)
        faces: list[Face] = []
        for found in self._found(image, frame):
            corners = frame.to_picture(np.array(found.box).reshape(2, 2)).ravel().tolist()
            eyes = sorted(map(tuple, frame.to_picture(found.points[:2]).tolist()))
            faces.append(Face(box=tuple(corners), left_eye=eyes[0], right_eye=eyes[1]))
        return faces

    def regions(self, image: Image.Image, within: Region | None = None) -> list[Region]:
        """Where faces are, the surest first.

        Args:
            image: RGB.
            within: Look only here; None: everywhere.
        """
        frame = within or Region.whole(image.size)
        return [face_region(frame, found) for found in self._found(image, frame)]

    def read(self, image: Image.Image, region: Region) -> np.ndarray | None:
        """Landmarks of the face in a square, (468, 3): x and y in pixels, depth in pixels; None: it is no face."""
        first = self._looked(image, region)
        if first is None:
            return None
        across = first[LEFT_EYE, :2] - first[RIGHT_EYE, :2]  # the second square lies around the first landmarks
        return self._looked(image, Region.around(first[:, :2], FACE_SCALE, math.atan2(across[1], across[0])))

    def _looked(self, image: Image.Image, region: Region) -> np.ndarray | None:
        """As `read`, at just this square."""
        values, presence = self.mesh(region.crop(image, self.mesh.side))
        if sigmoid(presence).item() < PRESENT:
            return None
        return region.points_of(values.reshape(NUM_LANDMARKS, 3) / self.mesh.side)

    def _found(self, image: Image.Image, frame: Region) -> list[Detection]:
        """Faces near and far, as fractions of the square that was looked at."""
        found: list[Detection] = []
        for network, layers, least in ((self.near, NEAR_LAYERS, NEAR_SCORE), (self.far, FAR_LAYERS, FAR_SCORE)):
            for each in detected(network, layers, least, image, frame):
                if all(overlap(each.box, other.box) < SAME_FACE for other in found):
                    found.append(each)
        return sorted(found, key=lambda each: -each.score)


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """Somebody in a picture.

    Attributes:
        points: (33, 3): MediaPipe's body points, x and y in pixels and a score, 0 or from 0.5 to 1.
        mask: (height, width) float32 in [0, 1]: where the person is.
    """

    points: np.ndarray
    mask: np.ndarray


class BlazePose:
    """Finds people: 33 points and a mask of each, as OpenPose's points with hands and face; a `BodyEstimator`.

    Args:
        folder: Holds the fetched files.

    Raises:
        FileNotFoundError: If a file is missing; says how to get it.
        ValueError: If one is another network.
        ImportError: If LiteRT is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.people = LiteNetwork(folder, PEOPLE, (2254 * 12, 2254))
        self.body = LiteNetwork(folder, BODY, (195, 1, 256 * 256, 64 * 64 * 39, 117))
        self.hand = LiteNetwork(folder, HAND, (63, 1, 1, 63))
        self.faces = FaceMesh(folder)

    def __call__(self, picture: Picture) -> list[BodyPoints]:
        """The people of a picture, the surest first, in its pixels."""
        image = read_image(picture)
        found = [self.read(image, region) for region in self.regions(image)]
        return [self.openpose(image, person) for person in found if person is not None]

    def regions(self, image: Image.Image) -> list[Region]:
        """Where people are, the surest first."""
        frame = Region.whole(image.size)
        return [
            body_region(frame.to_picture(found.points))
            for found in detected(self.people, PEOPLE_LAYERS, PEOPLE_SCORE, image, frame)
        ]

    def read(self, image: Image.Image, region: Region) -> Person | None:
        """Who is in a square; None: nobody."""
        values, presence, mask, *_ = self.body(region.crop(image, self.body.side))
        if presence.item() < PRESENT:  # a share already, unlike the other networks'
            return None
        rows = values.reshape(39, 5)[:33].astype(np.float64)
        places = region.to_picture(rows[:, :2] / self.body.side)
        scores = sigmoid(rows[:, 3:]).min(axis=1)  # seen, and in the picture
        inside = ((places >= 0) & (places < image.size)).all(axis=1)
        return Person(
            points=np.column_stack([places, scores * (inside & (scores >= PRESENT))]),
            mask=region.paste(sigmoid(mask[:, :, 0]), image.size),
        )

    def openpose(self, image: Image.Image, person: Person) -> BodyPoints:
        """OpenPose's points of somebody, with hands and face where they are found."""
        points = person.points
        neck = points[SHOULDERS, :].mean(axis=0)
        neck[2] = points[SHOULDERS, 2].min()
        body = np.stack([neck if place < 0 else points[place] for place in OPENPOSE])
        left, right = (self._hand(image, points[list(places)]) for places in (LEFT_HAND, RIGHT_HAND))
        return BodyPoints(body=body, left_hand=left, right_hand=right, face=self._face(image, points))

    def _hand(self, image: Image.Image, points: np.ndarray) -> np.ndarray | None:
        """The 21 points of the hand at wrist, index and little finger; None where none is seen."""
        if points[:, 2].min() < PRESENT:
            return None
        first = self._looked(image, hand_region(points[:, :2]))
        if first is None:
            return None
        along = first[[5, 9, 13], :2].mean(axis=0) - first[0, :2]
        palm = Region.around(first[list(PALM), :2], HAND_SCALE, upright(along), HAND_RISE)
        return self._looked(image, palm)

    def _looked(self, image: Image.Image, region: Region) -> np.ndarray | None:
        """The points of the hand in a square, (21, 3); None: there is none."""
        values, presence, *_ = self.hand(region.crop(image, self.hand.side))
        if presence.item() < PRESENT:
            return None
        placed = region.to_picture(values.reshape(21, 3)[:, :2] / self.hand.side)
        inside = ((placed >= 0) & (placed < image.size)).all(axis=1)
        return np.column_stack([placed, inside * presence.item()])

    def _face(self, image: Image.Image, points: np.ndarray) -> np.ndarray | None:
        """The 68 points of the face at the body's head; None where none is seen."""
        if points[0, 2] < PRESENT:
            return None
        regions = self.faces.regions(image, Region.around(points[:11, :2], HEAD_SCALE))
        mesh = self.faces.read(image, regions[0]) if regions else None
        return None if mesh is None else np.column_stack([mesh[list(IBUG), :2], np.ones(68)])


def face_region(frame: Region, found: Detection) -> Region:
    """The square in which a face's landmarks are read.

    Args:
        frame: The square that was looked at.
        found: In it; its first points are the right eye and the left one.
    """
    right, left = frame.to_picture(found.points[:2])
    corners = frame.to_picture(np.array(found.box).reshape(2, 2))
    middle, side = corners.mean(axis=0), FACE_SCALE * float(np.ptp(np.array(found.box).reshape(2, 2), axis=0).max())
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    return Region(x=float(middle[0]), y=float(middle[1]), side=side * frame.side, angle=angle)


def body_region(points: np.ndarray) -> Region:
    """The square in which a body's points are read.

    Args:
        points: (2 or more, 2) in pixels: the middle of the hips, and a point above on the circle around the person.
    """
    up = points[1] - points[0]
    side = max(2 * BODY_SCALE * float(np.hypot(*up)), 1.0)
    return Region(x=float(points[0, 0]), y=float(points[0, 1]), side=side, angle=upright(up))


def hand_region(points: np.ndarray) -> Region:
    """The square in which a hand is looked for: (3, 2) in pixels, wrist, index and little finger."""
    wrist, index, little = points
    middle = (2 * index + little) / 3
    along = middle - wrist
    side = max(2 * float(np.hypot(*along)), 1.0)
    place = middle + HAND_RISE * along
    return Region(x=float(place[0]), y=float(place[1]), side=FIRST_HAND_SCALE * side, angle=upright(along))


def upright(direction: np.ndarray) -> float:
    """How far a direction (x, y) is turned clockwise from straight up, in radians."""
    return math.atan2(direction[0], -direction[1])


def detected(
    network: LiteNetwork, layers: tuple[tuple[int, int], ...], least: float, image: Image.Image, frame: Region
) -> list[Detection]:
    """What a detector finds in a square of a picture.

    Args:
        network: The detector.
        layers: Stride in pixels, and answers of each cell.
        least: Answers of a lower score are left out.
        image: RGB.
        frame: Where it looks.
    """
    values, logits = network(frame.crop(image, network.side) * 2 - 1)
    cells = anchors(network.side, layers)
    scores = logits.ravel().astype(np.float64)
    return detections(values.reshape(len(scores), -1).astype(np.float64), scores, cells, network.side, least)
