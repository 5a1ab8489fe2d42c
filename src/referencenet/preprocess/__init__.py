"""Pictures to conditions."""

from referencenet.preprocess.faces import Face, crop_face, face_mask, find_face, square_face

__all__ = ["Face", "crop_face", "face_mask", "find_face", "square_face"]
