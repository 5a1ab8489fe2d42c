"""Turning: portraits of the test split from other cameras, as pictures of somebody else's head from there say."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from referencenet.builtin.training.benchmark import pose_error
from referencenet.builtin.training.observer import aspects_of
from referencenet.evaluation.films import OF_FRAMES, films_of, frame_scores
from referencenet.evaluation.scores import colour_spread, share_seen
from referencenet.evaluation.task import Drawing, Measure, Task, unseen
from referencenet.paperdoll.cameras import CAMERAS, seen_from
from referencenet.paperdoll.maps import FACE, part_mask, segmentation
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background, Camera, Expression, Scene
from referencenet.paperdoll.skeleton import keypoints
from referencenet.paperdoll.streams import Stream

VIEWS = CAMERAS[:8]
"""As many as are mixed at once."""
COLOURED = (("hair", "hat"), FACE, ("upper garment",))
"""Parts whose colours shall be the same from every side."""


class Turned(Task):
    """A portrait from the front, and another head from eight cameras; the truth is the person from there."""

    name = "turn"
    measures = (
        *OF_FRAMES,
        Measure(name="key_points", told="distance of the head's key points, in picture heights", better="less"),
        Measure(name="view_seen", told="share of views that the observer sees as asked", better="more"),
        Measure(name="colour_spread", told="how much colours differ between views, 0 to 255", better="less"),
    )

    def rendered(self) -> np.ndarray:
        """(n, v, H, W, 3)."""
        people = unseen(self.number, self.seed)
        heads = unseen(self.number, self.seed + 500_000)  # whose pictures are the cameras
        self.scenes = [_portrait(character, self.seed) for character in people]
        self.views = [[seen_from(scene, camera) for camera in VIEWS] for scene in self.scenes]
        self.portraits = np.stack([render(scene, self.size) for scene in self.scenes])
        self.cameras = [[render(seen_from(_head(head), camera), self.size) for camera in VIEWS] for head in heads]
        self.points = np.stack([keypoints(scene, self.size) for views in self.views for scene in views])
        return np.stack([[render(scene, self.size) for scene in views] for views in self.views])

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:
        """The portrait, and somebody else from the camera."""
        return [self.portraits[case], self.cameras[case][frame]]

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """All views of a person in one call, from noise alone: no view begins over the portrait."""

        def views(case: int) -> Any:
            portrait = Image.fromarray(self.portraits[self.other(case) if wrong else case])
            cameras = list(map(Image.fromarray, self.cameras[case]))
            options = drawing.options(self.size) | {"start": "noise"}
            return pipe(portrait, cameras, output_type="np", generator=drawing.noise(case), **options)

        return films_of(views, self.number, drawing.drawn)

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """Of all views."""
        scores, seen = frame_scores(pictures, self.truth, self.portraits, self.observer)
        asked = [aspects_of(scene) for views in self.views for scene in views]
        return scores | {
            "key_points": pose_error(seen.points, self.points),
            "view_seen": share_seen(seen.aspects, asked, ("view",)),
            "colour_spread": float(np.mean([self._spread(pictures, case) for case in range(self.number)])),
        }

    def _spread(self, pictures: np.ndarray, case: int) -> float:
        """Of one person's colours."""
        parts = [segmentation(scene, self.size) for scene in self.views[case]]
        masks = [np.stack([part_mask(view, *names) for view in parts]) for names in COLOURED]
        return colour_spread(pictures[case], self.truth[case], masks)


def _portrait(character: int, seed: int) -> Scene:
    """A person's head and shoulders from the front."""
    stream = Stream(f"benchmark turn {character}", seed)
    return Scene.from_seeds(
        character, stream.integer(2**31), pose=Pose(), expression=Expression.from_seed(stream.integer(2**31)),
        background=Background.from_seed(stream.integer(2**31)), camera=Camera(shot="portrait"),
    )  # fmt: skip


def _head(character: int) -> Scene:
    """Somebody else's, as the cameras' pictures show it."""
    grey, portrait = Background(colour="grey"), Camera(shot="portrait")
    return Scene.from_seeds(character, 0, pose=Pose(), expression="neutral", background=grey, camera=portrait)
