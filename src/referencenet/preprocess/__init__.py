"""Pictures and sound to conditions."""

from referencenet.preprocess.agnostic import agnostic_mask
from referencenet.preprocess.body import BodyPoints, SkeletonFilm, draw_body, only_person, read_key_points
from referencenet.preprocess.estimators import DWPose, YuNet, film_points
from referencenet.preprocess.face_embedding import read_face_embedding
from referencenet.preprocess.face_landmarker import FaceLandmarker, FaceReading
from referencenet.preprocess.face_regions import FaceRegions
from referencenet.preprocess.face_track import FaceTrack, read_track, reenacted
from referencenet.preprocess.faces import Face, crop_face, face_mask, find_face, square_face
from referencenet.preprocess.following import Followed
from referencenet.preprocess.head_proxy import HeadCamera, HeadColours, HeadFilm, draw_head, swing
from referencenet.preprocess.mediapipe import BlazePose, FaceMesh
from referencenet.preprocess.portrait import Portrait
from referencenet.preprocess.proportions import fit_bodies
from referencenet.preprocess.speech import SpeechFeatures, read_speech_model
from referencenet.preprocess.talking_face import TalkingFace, read_head_poses

__all__ = [
    "BlazePose",
    "BodyPoints",
    "DWPose",
    "Face",
    "HeadCamera",
    "HeadColours",
    "HeadFilm",
    "FaceLandmarker",
    "FaceReading",
    "FaceRegions",
    "FaceTrack",
    "Portrait",
    "FaceMesh",
    "Followed",
    "SkeletonFilm",
    "SpeechFeatures",
    "TalkingFace",
    "YuNet",
    "agnostic_mask",
    "crop_face",
    "draw_body",
    "draw_head",
    "face_mask",
    "film_points",
    "find_face",
    "fit_bodies",
    "only_person",
    "read_face_embedding",
    "read_head_poses",
    "read_key_points",
    "read_speech_model",
    "read_track",
    "reenacted",
    "square_face",
    "swing",
]
