"""Pictures and sound to conditions. Names are imported when they are first used: few need torch."""

from typing import TYPE_CHECKING

from referencenet.later import front_door

if TYPE_CHECKING:  # a line for each public name; everybody else goes by `front_door`
    from referencenet.preprocess.agnostic import agnostic_mask as agnostic_mask
    from referencenet.preprocess.body import BodyPoints as BodyPoints
    from referencenet.preprocess.body import SkeletonFilm as SkeletonFilm
    from referencenet.preprocess.body import draw_body as draw_body
    from referencenet.preprocess.body import only_person as only_person
    from referencenet.preprocess.body import read_key_points as read_key_points
    from referencenet.preprocess.estimators import DWPose as DWPose
    from referencenet.preprocess.estimators import YuNet as YuNet
    from referencenet.preprocess.estimators import film_points as film_points
    from referencenet.preprocess.face_embedding import read_face_embedding as read_face_embedding
    from referencenet.preprocess.face_landmarker import FaceLandmarker as FaceLandmarker
    from referencenet.preprocess.face_landmarker import FaceReading as FaceReading
    from referencenet.preprocess.face_regions import FaceRegions as FaceRegions
    from referencenet.preprocess.face_track import FaceTrack as FaceTrack
    from referencenet.preprocess.face_track import read_track as read_track
    from referencenet.preprocess.face_track import reenacted as reenacted
    from referencenet.preprocess.faces import Face as Face
    from referencenet.preprocess.faces import crop_face as crop_face
    from referencenet.preprocess.faces import face_mask as face_mask
    from referencenet.preprocess.faces import find_face as find_face
    from referencenet.preprocess.faces import square_face as square_face
    from referencenet.preprocess.following import Followed as Followed
    from referencenet.preprocess.head_proxy import HeadCamera as HeadCamera
    from referencenet.preprocess.head_proxy import HeadColours as HeadColours
    from referencenet.preprocess.head_proxy import HeadFilm as HeadFilm
    from referencenet.preprocess.head_proxy import draw_head as draw_head
    from referencenet.preprocess.head_proxy import swing as swing
    from referencenet.preprocess.mediapipe import BlazePose as BlazePose
    from referencenet.preprocess.mediapipe import FaceMesh as FaceMesh
    from referencenet.preprocess.portrait import Portrait as Portrait
    from referencenet.preprocess.proportions import fit_bodies as fit_bodies
    from referencenet.preprocess.speech import SpeechFeatures as SpeechFeatures
    from referencenet.preprocess.speech import read_speech_model as read_speech_model
    from referencenet.preprocess.talking_face import TalkingFace as TalkingFace
    from referencenet.preprocess.talking_face import read_head_poses as read_head_poses

__getattr__ = front_door(
    __name__,
    {
        "agnostic": ("agnostic_mask",),
        "body": (
            "BodyPoints",
            "SkeletonFilm",
            "draw_body",
            "only_person",
            "read_key_points",
        ),
        "estimators": (
            "DWPose",
            "YuNet",
            "film_points",
        ),
        "face_embedding": ("read_face_embedding",),
        "face_landmarker": (
            "FaceLandmarker",
            "FaceReading",
        ),
        "face_regions": ("FaceRegions",),
        "face_track": (
            "FaceTrack",
            "read_track",
            "reenacted",
        ),
        "faces": (
            "Face",
            "crop_face",
            "face_mask",
            "find_face",
            "square_face",
        ),
        "following": ("Followed",),
        "head_proxy": (
            "HeadCamera",
            "HeadColours",
            "HeadFilm",
            "draw_head",
            "swing",
        ),
        "mediapipe": (
            "BlazePose",
            "FaceMesh",
        ),
        "portrait": ("Portrait",),
        "proportions": ("fit_bodies",),
        "speech": (
            "SpeechFeatures",
            "read_speech_model",
        ),
        "talking_face": (
            "TalkingFace",
            "read_head_poses",
        ),
    },
)

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
