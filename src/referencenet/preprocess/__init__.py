"""Pictures to conditions."""

from referencenet.preprocess.agnostic import agnostic_mask
from referencenet.preprocess.body import BodyPoints, SkeletonFilm, draw_body, only_person, read_key_points
from referencenet.preprocess.estimators import DWPose, YuNet, film_points
from referencenet.preprocess.faces import Face, crop_face, face_mask, find_face, square_face
from referencenet.preprocess.following import Followed
from referencenet.preprocess.mediapipe import BlazePose, FaceMesh
from referencenet.preprocess.proportions import fit_bodies

__all__ = [
    "BlazePose",
    "BodyPoints",
    "DWPose",
    "Face",
    "FaceMesh",
    "Followed",
    "SkeletonFilm",
    "YuNet",
    "agnostic_mask",
    "crop_face",
    "draw_body",
    "face_mask",
    "film_points",
    "find_face",
    "fit_bodies",
    "only_person",
    "read_key_points",
    "square_face",
]
