"""Paperdoll: a procedural world of game-sprite-like characters in which every question has an exact answer."""

from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.character import Character, split
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background, Camera, Expression, Scene
from referencenet.paperdoll.sheet import sheet, turnaround
from referencenet.paperdoll.skeleton import draw_skeleton, keypoints, skeleton

__all__ = [
    "Background",
    "Camera",
    "Character",
    "Expression",
    "Pose",
    "Scene",
    "attributes",
    "caption",
    "draw_skeleton",
    "keypoints",
    "render",
    "sheet",
    "skeleton",
    "split",
    "turnaround",
]
