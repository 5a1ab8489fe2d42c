"""Cameras around a head: the same portrait from several sides, as multi-view portraits are learned and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.sheet import turned


@dataclass(frozen=True, kw_only=True)
class HeadCamera:
    """Where the face looks, in degrees, as `refnet turn` counts: `yaw` above 0 to the picture's right, `pitch` up."""

    yaw: float = 0.0
    pitch: float = 0.0


CAMERAS = (
    *(HeadCamera(yaw=yaw) for yaw in (-54.0, -36.0, -18.0, 0.0, 18.0, 36.0, 54.0)),
    *(HeadCamera(yaw=yaw, pitch=pitch) for pitch in (-14.0, 14.0) for yaw in (-27.0, 27.0)),
)
"""Of the layout `views`, by their numbers."""


def seen_from(scene: Scene, camera: HeadCamera) -> Scene:
    """A scene from another camera: the whole figure turns with the yaw, and the head alone with the pitch."""
    found = turned(scene, camera.yaw)
    return replace(found, pose=replace(found.pose, head_pitch=found.pose.head_pitch - camera.pitch))
