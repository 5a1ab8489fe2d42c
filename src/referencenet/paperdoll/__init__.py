"""Paperdoll: a procedural world of game-sprite-like characters in which every question has an exact answer."""

from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.character import Character, split
from referencenet.paperdoll.cloth_maps import CLOTHS, cloth_maps
from referencenet.paperdoll.examples import write_examples
from referencenet.paperdoll.film import Film, between, dance, talk
from referencenet.paperdoll.landmarks import expression_mask, face_box, landmarks
from referencenet.paperdoll.layouts import write_dataset
from referencenet.paperdoll.maps import (
    PARTS,
    dense_map,
    dense_picture,
    face_mask,
    garment_mask,
    lip_mask,
    part_mask,
    segmentation,
)
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background, Camera, Expression, Scene
from referencenet.paperdoll.scores import psnr, ssim
from referencenet.paperdoll.sheet import sheet, turnaround
from referencenet.paperdoll.skeleton import draw_skeleton, keypoints, skeleton
from referencenet.paperdoll.tryon import agnostic, agnostic_mask, flat_lay, flat_lay_mask
from referencenet.paperdoll.voice import mouth_track, speech

__all__ = [
    "CLOTHS",
    "PARTS",
    "Background",
    "Camera",
    "Character",
    "Expression",
    "Film",
    "Pose",
    "Scene",
    "agnostic",
    "agnostic_mask",
    "attributes",
    "between",
    "caption",
    "cloth_maps",
    "dance",
    "dense_map",
    "dense_picture",
    "draw_skeleton",
    "expression_mask",
    "face_box",
    "face_mask",
    "flat_lay",
    "flat_lay_mask",
    "garment_mask",
    "keypoints",
    "landmarks",
    "lip_mask",
    "mouth_track",
    "part_mask",
    "psnr",
    "render",
    "segmentation",
    "sheet",
    "skeleton",
    "speech",
    "split",
    "ssim",
    "talk",
    "turnaround",
    "write_dataset",
    "write_examples",
]
