"""Skeletons fitted to another body: the pose of a driving figure with the bone lengths of the reference's.

Animate Anyone's paper fits skeletons to the reference, its released code does not. A bone that points out of the
picture looks shorter, by the same share for either figure; so each bone of the driving figure is stretched by the ratio
of the two figures' true lengths, and a true length is the longest that is seen of a bone, over both sides and all
frames. The first frame stands where the reference stands; what moves from there moves by the ratio of the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from referencenet.preprocess.body import NOBODY, BodyPoints

NOSE, NECK, HIPS, KNEES, ANKLES = 0, 1, (8, 11), (9, 12), (10, 13)
WRISTS = {"right_hand": 4, "left_hand": 7}

BONES: dict[str, tuple[tuple[int, int], ...]] = {
    "head": ((1, 0),),
    "shoulder": ((1, 2), (1, 5)),
    "upper arm": ((2, 3), (5, 6)),
    "forearm": ((3, 4), (6, 7)),
    "hips": ((8, 11),),
    "thigh": ((8, 9), (11, 12)),
    "shin": ((9, 10), (12, 13)),
}
"""Bone to pairs of body points, right and left."""

TREE = (
    (0, 1, "head"), (2, 1, "shoulder"), (3, 2, "upper arm"), (4, 3, "forearm"), (5, 1, "shoulder"), (6, 5, "upper arm"),
    (7, 6, "forearm"), (9, 8, "thigh"), (10, 9, "shin"), (12, 11, "thigh"), (13, 12, "shin"), (14, 0, "face"),
    (15, 0, "face"), (16, 0, "face"), (17, 0, "face"),
)  # fmt: skip
"""Point, the point that it hangs on, and the bone between them; the hips hang on the neck together."""

SIZES = ("trunk", "thigh", "shin", "upper arm", "forearm")  # whose sum says how large a figure is
LONGEST = 0.95  # quantile of the lengths seen that counts as the longest, since estimators err upwards too
MOST = 2.0  # a bone's ratio is at most so many times that of the sizes: beyond, a length was not seen truly


@dataclass(frozen=True)
class Proportions:
    """How much longer each bone of one figure is than another's.

    Attributes:
        ratios: Bone to ratio, also trunk, face and hand; bones that are not seen of both figures have `size`.
        size: Ratio of the figures' sizes.
    """

    ratios: dict[str, float]
    size: float


def fit_bodies(driving: Sequence[BodyPoints], reference: BodyPoints) -> list[BodyPoints]:
    """Give a film of key points the reference's proportions and place.

    Args:
        driving: The key points of a film, in pixels; frames without anybody stay so. The more of the figure's poses
            are seen, the better its bones can be measured.
        reference: The reference's, in pixels of the film: if the picture is stretched to the film's size, so are they.

    Returns:
        The film's key points; what is seen in a frame is what was seen.

    Raises:
        ValueError: If no bone is seen of both figures.
    """
    frames = [frame for frame in driving if frame.is_seen]
    if not frames or not reference.is_seen:
        who = "driving film" if not frames else "reference"
        raise ValueError(f"the {who} shows no one, so nothing can be fitted; give key points of one person.")
    proportions = compare(frames, reference)
    shaped = [_shape(frame, proportions) for frame in frames]
    placed = iter(_place(shaped, frames, reference, proportions.size))
    return [next(placed) if frame.is_seen else NOBODY for frame in driving]


def compare(driving: Sequence[BodyPoints], reference: BodyPoints) -> Proportions:
    """Compare the bones of two figures.

    Args:
        driving: One figure in as many poses as there are.
        reference: The other one.

    Returns:
        Reference over driving.

    Raises:
        ValueError: If no bone is seen of both.
    """
    ours, theirs = _lengths([reference]), _lengths(driving)
    shared = [bone for bone in ours if bone in theirs]
    sizes = [bone for bone in SIZES if bone in shared] or shared
    if not sizes:
        raise ValueError(
            f"the reference shows {', '.join(sorted(ours)) or 'no bone'} and the driving film "
            f"{', '.join(sorted(theirs)) or 'no bone'}; at least one must be seen of both to fit skeletons."
        )
    size = sum(ours[bone] for bone in sizes) / sum(theirs[bone] for bone in sizes)
    ratios = {bone: float(np.clip(ours[bone] / theirs[bone], size / MOST, size * MOST)) for bone in shared}
    ratios = {bone: ratios.get(bone, size) for bone in (*BONES, "trunk", "face", "hand")} | {
        "hand": ratios.get("hand", ratios.get("forearm", size))
    }
    return Proportions(ratios, size)


def _lengths(frames: Sequence[BodyPoints]) -> dict[str, float]:
    """Bone to its length in pixels, of bones that are seen."""
    seen: dict[str, list[float]] = {}
    for frame in frames:
        body = frame.body
        for bone, pairs in BONES.items():
            seen.setdefault(bone, []).extend(_distances(body, pairs))
        if _all_seen(body, (NECK, *HIPS)):
            hips = body[list(HIPS), :2].mean(axis=0)
            seen.setdefault("trunk", []).append(float(np.hypot(*(hips - body[NECK, :2]))))
        seen.setdefault("face", []).extend(_distances(body, ((16, 17),)))
        for hand in (frame.left_hand, frame.right_hand):
            if hand is not None:
                seen.setdefault("hand", []).extend(_distances(hand, ((0, 9),)))  # wrist to the middle finger's knuckle
    lengths = {bone: float(np.quantile(found, LONGEST)) for bone, found in seen.items() if found}
    return {bone: length for bone, length in lengths.items() if length > 0}


def _distances(points: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[float]:
    return [float(np.hypot(*(points[a, :2] - points[b, :2]))) for a, b in pairs if _all_seen(points, (a, b))]


def _all_seen(points: np.ndarray, which: Sequence[int]) -> bool:
    return bool((points[list(which), 2] > 0).all())


def _shape(frame: BodyPoints, proportions: Proportions) -> BodyPoints:
    """A frame's figure with other bone lengths, its neck where it was."""
    old, ratios = frame.body, proportions.ratios
    new = old.copy()
    new[:, :2] = old[NECK, :2] + proportions.size * (
        old[:, :2] - old[NECK, :2]
    )  # of what hangs on nothing that is seen
    if _all_seen(old, (NECK, *HIPS)):
        middle = old[list(HIPS), :2].mean(axis=0)
        hips = old[NECK, :2] + ratios["trunk"] * (middle - old[NECK, :2])
        new[list(HIPS), :2] = hips + ratios["hips"] * (old[list(HIPS), :2] - middle)
    for point, parent, bone in TREE:
        if _all_seen(old, (point, parent)):
            new[point, :2] = new[parent, :2] + ratios[bone] * (old[point, :2] - old[parent, :2])
    return BodyPoints(
        body=new,
        left_hand=_follow(frame.left_hand, old, new, WRISTS["left_hand"], ratios["hand"]),
        right_hand=_follow(frame.right_hand, old, new, WRISTS["right_hand"], ratios["hand"]),
        face=_follow(frame.face, old, new, NOSE, ratios["face"]),
    )


def _follow(
    points: np.ndarray | None, old: np.ndarray, new: np.ndarray, anchor: int, ratio: float
) -> np.ndarray | None:
    """A hand or a face that follows the body's wrist or nose (its neck if that is not seen), (points, 3)."""
    if points is None:
        return None
    anchor = anchor if old[anchor, 2] > 0 else NECK
    moved = points.copy()
    moved[:, :2] = new[anchor, :2] + ratio * (points[:, :2] - old[anchor, :2])
    return moved


def _place(
    shaped: Sequence[BodyPoints], driving: Sequence[BodyPoints], reference: BodyPoints, size: float
) -> list[BodyPoints]:
    """Move figures so that the first stands where the reference does and the others move from there."""
    everyone = [*driving, reference]
    across = HIPS if all(_all_seen(frame.body, HIPS) for frame in everyone) else (NECK,)
    on_ground = all((frame.body[list(ANKLES), 2] > 0).any() for frame in everyone)

    def anchor(frame: BodyPoints) -> np.ndarray:
        """Where a figure is: between its hips, and down at its lower ankle."""
        x = frame.body[list(across), 0].mean()
        ankles = frame.body[list(ANKLES)]
        y = ankles[ankles[:, 2] > 0, 1].max() if on_ground else frame.body[NECK, 1]
        return np.array((x, y))

    start = anchor(driving[0])
    goals = [anchor(reference) + size * (anchor(frame) - start) for frame in driving]
    return [_moved(frame, goal - anchor(frame)) for frame, goal in zip(shaped, goals, strict=True)]


def _moved(frame: BodyPoints, by: np.ndarray) -> BodyPoints:
    """A figure somewhere else; unseen points stay at zero."""
    parts = {"body": frame.body, "left_hand": frame.left_hand, "right_hand": frame.right_hand, "face": frame.face}
    moved: dict[str, np.ndarray | None] = {}
    for name, points in parts.items():
        moved[name] = None if points is None else np.where(points[:, 2:] > 0, points + (*by, 0.0), 0.0)
    return BodyPoints(**moved)
