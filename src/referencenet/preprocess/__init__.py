"""Pictures to conditions."""

from referencenet.preprocess.agnostic import agnostic_mask
from referencenet.preprocess.faces import Face, crop_face, face_mask, find_face, square_face

__all__ = ["Face", "agnostic_mask", "crop_face", "face_mask", "find_face", "square_face"]
